//! Listeners, shared by all flows that name the same address, whatever protocol is spoken there.
//!
//! A listener outlives reconfiguration: it closes a moment after the last endpoint has let go of it, so that an
//! endpoint that is started anew finds it open.

mod slot;

use std::any::Any;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::capacity::Capacity;
use super::{Attempts, Count, Counted, ListenError, Listener, Routes, ServerTlsAcceptor, TlsError};
use crate::config::{Retry, ServerTls};
use crate::endpoint::Module;
use crate::stream::State;
use crate::trouble::Reason;
use slot::Slot;

/// How often an address that is taken is tried again.
pub const RETRY: Retry = Retry { initial: Duration::from_millis(500), max: Duration::from_secs(10) };
/// Within that time all endpoints that were started with the first one of an address have opened their paths.
const SETTLE: Duration = Duration::from_secs(1);

/// A protocol that is spoken on listeners, as far as they have to know it.
pub trait Protocol: Send + Sync + Sized + 'static {
    /// For logs and errors.
    const NAME: &'static str;
    /// What TLS is told that is spoken, most wanted first (RFC 7301); none where there is no choice.
    const ALPN: &'static [&'static [u8]] = &[];
    /// What one listening address keeps for it beside its routes.
    type State: Default + Send + Sync;
    /// Where a published path leads.
    type Publish: Send + Sync;
    /// Where a played path leads.
    type Play: Send + Sync;

    /// Runs one connection to its end.
    fn run(accepted: Accepted<Self>) -> impl Future<Output = ()> + Send;
}

/// A connection that was accepted.
pub struct Accepted<P: Protocol> {
    /// Tuned for live media; TLS, where the port has it, has not begun.
    pub stream: TcpStream,
    /// Who it is; an IPv4 peer in its IPv4 form.
    pub peer: SocketAddr,
    /// Where it came in.
    pub port: Arc<Port<P>>,
    /// Shared by the module.
    pub module: Arc<Module>,
    /// Its place among the module's connections: to be kept as long as it is open.
    pub counted: Counted,
}

/// One listening address and what is spoken there.
pub struct Port<P: Protocol> {
    /// Where it listens, with the port that port 0 became.
    pub address: SocketAddr,
    /// For what is accepted, where the address is one with TLS.
    pub tls: Option<ServerTlsAcceptor>,
    /// The protocol's own.
    pub state: P::State,
    /// Paths that take publishers.
    pub publish: Routes<P::Publish>,
    /// Paths that have players.
    pub play: Routes<P::Play>,
    opened: Instant,
}

impl<P: Protocol> Port<P> {
    /// Waits until a listener that was only just opened has its paths: the endpoints of an address open theirs one
    /// after the other, and peers that were waiting for the address are faster.
    pub async fn settled(&self) {
        tokio::time::sleep_until(self.opened + SETTLE).await;
    }
}

/// Keeps a listener open.
pub struct Lease<P: Protocol> {
    port: Arc<Port<P>>,
    slot: Arc<Slot>,
}

impl<P: Protocol> Lease<P> {
    /// What is listened on.
    pub fn port(&self) -> &Arc<Port<P>> {
        &self.port
    }
}

impl<P: Protocol> Drop for Lease<P> {
    fn drop(&mut self) {
        self.slot.release();
    }
}

/// Why an endpoint has no listener. It will be tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The system's word.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Another endpoint of this module listens there with TLS of another kind, or without.
    #[error(
        "{0} is in use by this module with other TLS settings; choose another port or make them the same"
    )]
    OtherTls(SocketAddr),
    /// Another endpoint of this module speaks another protocol there.
    #[error("{address} is in use by this module for {speaks}; choose another port for {wanted}")]
    OtherProtocol {
        /// Where.
        address: SocketAddr,
        /// What is spoken there.
        speaks: &'static str,
        /// What was to be spoken there.
        wanted: &'static str,
    },
    /// Another endpoint of this module listens on an address that contains this one, or is contained in it.
    #[error("{address} can't be used beside {other}, on which this module listens; use one of them for both")]
    Overlaps {
        /// Where.
        address: SocketAddr,
        /// Where the other listens.
        other: SocketAddr,
    },
}

impl OpenError {
    /// What kind of trouble this is.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Tls(_) => Reason::Tls,
            _ => Reason::Address,
        }
    }
}

/// All listeners of a module.
#[derive(Debug)]
pub struct Listeners {
    /// By where they really listen. Each takes itself out when its socket is closed.
    open: Mutex<HashMap<SocketAddr, Arc<Slot>>>,
    /// For connections of all listeners together.
    capacity: Capacity,
}

/// What can be done about an address now.
enum Step<P: Protocol> {
    Joined(Lease<P>),
    /// This one closes first.
    Closes(Arc<Slot>),
    Free,
}

impl Listeners {
    /// None yet. `dialled`: the module's other connections.
    pub fn new(dialled: Count) -> Self {
        Self { open: Mutex::default(), capacity: Capacity::new(dialled) }
    }

    /// `maxConnections`, for connections from now on.
    pub fn set_max_connections(&self, max: usize) {
        self.capacity.set_max(max);
    }

    /// How many connections have come in and are there now.
    pub fn connections(&self) -> usize {
        self.capacity.incoming().now()
    }

    /// Waits until no connection is left, but not for long: peers are being told that they have to go.
    pub async fn drained(&self, bound: Duration) {
        let _ = tokio::time::timeout(bound, self.capacity.incoming().none()).await;
    }

    /// Opens a listener on a configured address, with TLS where `tls` is given, or joins those who have it.
    ///
    /// What only lingers makes room for it, on this address or on one that overlaps.
    pub async fn open<P: Protocol>(
        &self,
        module: &Arc<Module>,
        address: SocketAddr,
        tls: Option<&ServerTls>,
    ) -> Result<Lease<P>, OpenError> {
        let address = module.net.bind_address(address);
        let mut acceptor = None;
        loop {
            // Before anything is closed for it: the edge runtime may take its time, or have no certificate.
            let wanting = tls.filter(|_| acceptor.is_none());
            let closes = match (self.step(address, tls)?, wanting) {
                (Step::Joined(lease), _) => return Ok(lease),
                (Step::Closes(_) | Step::Free, Some(tls)) => {
                    acceptor = Some(module.net.tls_acceptor_for(tls, P::ALPN).await?);
                    continue;
                }
                (Step::Closes(slot), None) => slot,
                (Step::Free, None) => match self.bind(module, address, tls, &mut acceptor)? {
                    Some(lease) => return Ok(lease),
                    // Somebody was faster.
                    None => continue,
                },
            };
            // Leased again meanwhile, it does not close: then that is what there is to say or to join.
            if closes.close_unless_leased() {
                closes.closed().await;
            }
        }
    }

    fn step<P: Protocol>(&self, address: SocketAddr, tls: Option<&ServerTls>) -> Result<Step<P>, OpenError> {
        let open = self.lock();
        if let Some(slot) = open.get(&address) {
            let other_protocol = slot.protocol != P::NAME;
            if (other_protocol || slot.tls.as_ref() != tls) && slot.is_leased() {
                return Err(if other_protocol {
                    OpenError::OtherProtocol { address, speaks: slot.protocol, wanted: P::NAME }
                } else {
                    OpenError::OtherTls(address)
                });
            }
            if !other_protocol
                && slot.tls.as_ref() == tls
                && let Ok(port) = slot.port.clone().downcast::<Port<P>>()
                && slot.lease()
            {
                return Ok(Step::Joined(Lease { port, slot: slot.clone() }));
            }
            return Ok(Step::Closes(slot.clone()));
        }
        match open.iter().find(|(other, _)| overlap(address, **other)) {
            Some((other, slot)) if slot.is_leased() => Err(OpenError::Overlaps { address, other: *other }),
            Some((_, slot)) => Ok(Step::Closes(slot.clone())),
            None => Ok(Step::Free),
        }
    }

    /// `None`: the address is not free any more.
    fn bind<P: Protocol>(
        &self,
        module: &Arc<Module>,
        address: SocketAddr,
        tls: Option<&ServerTls>,
        acceptor: &mut Option<ServerTlsAcceptor>,
    ) -> Result<Option<Lease<P>>, OpenError> {
        let mut open = self.lock();
        if open.keys().any(|other| *other == address || overlap(address, *other)) {
            return Ok(None);
        }
        let listener = Listener::bind(address)?;
        let port = Arc::new(Port::<P> {
            address: listener.address(),
            tls: acceptor.take(),
            state: P::State::default(),
            publish: Routes::default(),
            play: Routes::default(),
            opened: Instant::now(),
        });
        let slot = Arc::new(Slot::leased(P::NAME, tls.cloned(), port.clone() as Arc<dyn Any + Send + Sync>));
        tracing::info!(address = %port.address, tls = tls.is_some(), "listening for {}", P::NAME);
        open.insert(address, slot.clone());
        tokio::spawn(accept(listener, address, slot.clone(), port.clone(), module.clone()));
        Ok(Some(Lease { port, slot }))
    }

    /// Opens the listener of an endpoint, however often that takes.
    pub async fn open_at_last<P: Protocol>(
        &self,
        module: &Arc<Module>,
        (address, tls): (SocketAddr, Option<&ServerTls>),
        mut attempts: Attempts,
    ) -> Lease<P> {
        loop {
            match self.open(module, address, tls).await {
                Ok(lease) => return lease,
                Err(error) => {
                    let wait = attempts.failed(State::Retrying, error.reason(), &error, Duration::ZERO);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Slot>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the system lets only one of two addresses be listened on: a wildcard takes its port everywhere.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let takes = |wild: SocketAddr, other: SocketAddr| {
        wild.ip().is_unspecified() && (wild.is_ipv6() || other.is_ipv4())
    };
    one != other && one.port() == other.port() && (takes(one, other) || takes(other, one))
}

/// Accepts until nobody needs the listener any more.
async fn accept<P: Protocol>(
    listener: Listener,
    address: SocketAddr,
    slot: Arc<Slot>,
    port: Arc<Port<P>>,
    module: Arc<Module>,
) {
    let mut unused = std::pin::pin!(slot.unused());
    loop {
        let (stream, peer) = tokio::select! {
            () = &mut unused => break,
            accepted = listener.accept() => accepted,
        };
        match module.listeners.capacity.admit() {
            Ok(counted) => {
                let (port, module) = (port.clone(), module.clone());
                tokio::spawn(P::run(Accepted { stream, peer, port, module, counted }));
            }
            Err(why) => {
                if let Some(suppressed) = module.player_log.admit() {
                    tracing::warn!(%peer, address = %port.address, suppressed, "refused: {why}");
                }
            }
        }
    }
    // In this order: who waits for the end finds the address free.
    drop(listener);
    module.listeners.lock().remove(&address);
    slot.has_closed();
}

#[cfg(test)]
mod tests;
