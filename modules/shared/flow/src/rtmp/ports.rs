//! RTMP listeners, shared by all flows that name the same address.
//!
//! A listener outlives reconfiguration: it closes a moment after the last endpoint has let go of it, so that an
//! endpoint that is started anew finds it open.

mod room;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use av_rtmp::{AdobeAuth, Intent};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::connection;
use super::serve::Command;
use super::takeover::{Identity, Seats, Taken};
use super::{ListenConfig, ServeConfig};
use crate::config::{Auth, ListenUrl, Retry, ServerTls};
use crate::endpoint::{InputContext, Instances, Module, OutputContext};
use crate::net::{Backoff, Count, ListenError, Listener, ServerTlsAcceptor, TlsError};
use crate::stream::{Kick, OutputStatus, Publisher, State, Status};
use crate::trouble::{Reason, Trouble};
use room::Room;

/// How often an address that is taken is tried again.
const LISTEN_RETRY: Retry = Retry { initial: Duration::from_millis(500), max: Duration::from_secs(10) };
/// A listener that nobody needs stays open that long.
const LINGER: Duration = Duration::from_secs(2);

/// All RTMP listeners of a module.
pub struct Ports {
    open: tokio::sync::Mutex<HashMap<SocketAddr, Arc<Port>>>,
    /// For connections of all listeners together.
    room: Room,
}

/// Why an endpoint has no listener. It will be tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{0} is still in use by this module with other TLS settings")]
    OtherTls(SocketAddr),
}

impl OpenError {
    fn reason(&self) -> Reason {
        match self {
            Self::Listen(_) | Self::OtherTls(_) => Reason::Address,
            Self::Tls(_) => Reason::Tls,
        }
    }
}

/// One listening address.
pub(super) struct Port {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<ServerTlsAcceptor>,
    settings: (bool, ServerTls),
    routes: RwLock<Routes>,
    leases: AtomicUsize,
    /// Asks the listener to close, and tells that it has.
    closed: CancellationToken,
    ended: CancellationToken,
    pub(super) adobe: Mutex<AdobeAuth>,
}

#[derive(Default)]
struct Routes {
    publish: HashMap<String, Arc<PublishRoute>>,
    /// By what stands before the `*`, slash included.
    patterns: HashMap<String, Arc<PublishRoute>>,
    play: HashMap<String, Arc<PlayRoute>>,
}

/// Where a published path leads.
pub(super) struct PublishRoute {
    pub(super) flow: Arc<str>,
    /// `flows.NAME.input.listen`.
    pub(super) path: String,
    pub(super) config: ListenConfig,
    pub(super) target: Target,
    /// The endpoint is ending: nobody is let in by this route any more.
    cancel: CancellationToken,
    seats: Mutex<HashMap<String, Seats>>,
}

/// One stream, or one for each name.
pub(super) enum Target {
    Stream(InputContext),
    Pattern(Arc<dyn Instances>),
}

/// Where a played path leads.
pub(super) struct PlayRoute {
    pub(super) flow: Arc<str>,
    pub(super) output_name: Arc<str>,
    /// `flows.NAME.outputs.NAME.serve`.
    pub(super) path: String,
    pub(super) config: ServeConfig,
    pub(super) output: Arc<OutputStatus>,
    pub(super) commands: mpsc::Sender<Command>,
    next_player: AtomicU64,
}

impl PublishRoute {
    pub(super) fn new(input: &InputContext, config: &ListenConfig, target: Target) -> Arc<Self> {
        Arc::new(Self {
            flow: input.flow.clone(),
            path: format!("{}.listen", input.path),
            config: config.clone(),
            target,
            cancel: input.cancel.clone(),
            seats: Mutex::default(),
        })
    }

    /// Makes `who` the publisher of `path`, whose input is `input`.
    ///
    /// What a publisher was let in by may be gone when its turn comes: who came too late must not write to a
    /// stream that nobody ends any more. Whoever ends it cancels first and kicks then, so looking after the
    /// publisher has begun misses none.
    pub(super) fn seat(
        &self,
        path: &str,
        who: Identity,
        input: &InputContext,
        kick: Kick,
    ) -> Result<Publisher, Taken> {
        let is_over = || self.cancel.is_cancelled() || input.cancel.is_cancelled();
        if is_over() {
            return Err(Taken::Over);
        }
        // Held until the publisher has begun, or two could find the stream free.
        let mut seats = lock(&self.seats);
        // Names of patterns come and go; those that nobody uses are forgotten with the instance.
        let names = match &self.target {
            Target::Stream(_) => 1,
            Target::Pattern(instances) => instances.most(),
        };
        if seats.len() > names.saturating_mul(2) {
            seats.clear();
        }
        let (live, now) = (input.stream.has_publisher(), Instant::now());
        seats.entry(path.to_owned()).or_default().enter(who, live, self.config.takeover, now)?;
        let publisher = input.stream.publisher(kick);
        if is_over() { Err(Taken::Over) } else { Ok(publisher) }
    }
}

impl PlayRoute {
    pub(super) fn new(
        output: &OutputContext,
        config: &ServeConfig,
        commands: mpsc::Sender<Command>,
    ) -> Arc<Self> {
        Arc::new(Self {
            flow: output.flow.clone(),
            output_name: output.output.clone(),
            path: format!("{}.serve", output.path),
            config: config.clone(),
            output: output.status.clone(),
            commands,
            next_player: AtomicU64::new(0),
        })
    }

    pub(super) fn next_player(&self) -> u64 {
        self.next_player.fetch_add(1, Ordering::Relaxed)
    }
}

impl Port {
    /// The route that a publisher's path leads to, and the name that a pattern matched.
    pub(super) fn publish_route(&self, path: &str) -> Option<(Arc<PublishRoute>, Option<String>)> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.publish.get(path) {
            return Some((route.clone(), None));
        }
        let (prefix, name) = path.rsplit_once('/')?;
        let route = routes.patterns.get(&format!("{prefix}/"))?;
        Some((route.clone(), Some(name.to_owned())))
    }

    pub(super) fn play_route(&self, path: &str) -> Option<Arc<PlayRoute>> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).play.get(path).cloned()
    }

    /// `auth` of every route below an application that a client with this intent may have come for: what a
    /// `connect` is judged by.
    pub(super) fn auths_below(&self, application: &str, intent: Option<Intent>) -> Vec<Option<Auth>> {
        let prefix = format!("{application}/");
        let below = |path: &String| path.starts_with(&prefix) || path == application;
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let publish = routes.publish.iter().chain(&routes.patterns);
        let publish = publish.filter(|(path, _)| intent != Some(Intent::Play) && below(path));
        let publish = publish.map(|(_, route)| route.config.auth.clone());
        let play = routes.play.iter().filter(|(path, _)| intent != Some(Intent::Publish) && below(path));
        publish.chain(play.map(|(_, route)| route.config.auth.clone())).collect()
    }

    fn routes_mut(&self) -> std::sync::RwLockWriteGuard<'_, Routes> {
        self.routes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a listener open.
pub(super) struct Lease {
    port: Arc<Port>,
    module: Arc<Module>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.port.leases.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let (port, module) = (self.port.clone(), self.module.clone());
        // Without a runtime the process is ending, and the kernel closes the socket.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(LINGER).await;
                module.ports.close_unused(&port).await;
            });
        }
    }
}

/// Takes a route off its listener again.
pub(super) struct RouteGuard {
    port: Arc<Port>,
    remove: Remove,
}

enum Remove {
    Publish(String, Arc<PublishRoute>),
    Pattern(String, Arc<PublishRoute>),
    Play(String, Arc<PlayRoute>),
}

impl Drop for RouteGuard {
    fn drop(&mut self) {
        let mut routes = self.port.routes_mut();
        // A newer route may already stand there.
        match &self.remove {
            Remove::Publish(path, route) => remove(&mut routes.publish, path, route),
            Remove::Pattern(path, route) => remove(&mut routes.patterns, path, route),
            Remove::Play(path, route) => remove(&mut routes.play, path, route),
        }
    }
}

fn remove<T>(routes: &mut HashMap<String, Arc<T>>, path: &str, route: &Arc<T>) {
    if routes.get(path).is_some_and(|present| Arc::ptr_eq(present, route)) {
        routes.remove(path);
    }
}

impl Lease {
    /// Lets publishers of `path` (which may end in `*`) in.
    pub(super) fn publish(&self, path: &str, route: Arc<PublishRoute>) -> RouteGuard {
        let mut routes = self.port.routes_mut();
        let remove = match path.strip_suffix('*') {
            Some(prefix) => {
                routes.patterns.insert(prefix.to_owned(), route.clone());
                Remove::Pattern(prefix.to_owned(), route)
            }
            None => {
                routes.publish.insert(path.to_owned(), route.clone());
                Remove::Publish(path.to_owned(), route)
            }
        };
        drop(routes);
        RouteGuard { port: self.port.clone(), remove }
    }

    /// Lets players of `path` in.
    pub(super) fn play(&self, path: &str, route: Arc<PlayRoute>) -> RouteGuard {
        self.port.routes_mut().play.insert(path.to_owned(), route.clone());
        RouteGuard { port: self.port.clone(), remove: Remove::Play(path.to_owned(), route) }
    }
}

impl Ports {
    /// None yet. `dialled`: the module's other connections.
    pub fn new(dialled: Count) -> Self {
        Self { open: tokio::sync::Mutex::default(), room: Room::new(dialled) }
    }

    /// `maxConnections`, for connections from now on.
    pub fn set_max_connections(&self, max: usize) {
        self.room.set_max(max);
    }

    async fn join(
        &self,
        module: &Arc<Module>,
        address: SocketAddr,
        settings: &(bool, ServerTls),
    ) -> Result<Option<Lease>, OpenError> {
        join(&*self.open.lock().await, module, address, settings)
    }

    /// Opens the listener of a URL, or joins those who have.
    async fn open(&self, module: &Arc<Module>, url: &ListenUrl, tls: &ServerTls) -> Result<Lease, OpenError> {
        let secure = url.scheme.tls;
        let settings = (secure, if secure { tls.clone() } else { ServerTls::default() });
        // Before the lock is taken: the edge runtime may take its time, and others want to listen too.
        let acceptor = match self.join(module, url.address, &settings).await? {
            Some(lease) => return Ok(lease),
            None if secure => Some(module.net.tls_acceptor(tls).await?),
            None => None,
        };
        let mut open = self.open.lock().await;
        if let Some(lease) = join(&open, module, url.address, &settings)? {
            return Ok(lease);
        }
        // What only lingers makes room, on this address or on one that overlaps.
        let lingers = |address: &SocketAddr, port: &Arc<Port>| {
            address.port() == url.address.port() && port.leases.load(Ordering::Acquire) == 0
        };
        for (_, port) in open.extract_if(|address, port| lingers(address, port)) {
            port.closed.cancel();
            port.ended.cancelled().await;
        }
        let listener = module.net.listen(url.address)?;
        let port = Arc::new(Port {
            address: listener.address(),
            tls: acceptor,
            settings,
            routes: RwLock::default(),
            leases: AtomicUsize::new(1),
            closed: CancellationToken::new(),
            ended: CancellationToken::new(),
            adobe: Mutex::new(AdobeAuth::new()),
        });
        tracing::info!(address = %port.address, tls = secure, "listening for RTMP");
        tokio::spawn(accept(listener, port.clone(), module.clone()));
        open.insert(url.address, port.clone());
        Ok(Lease { port, module: module.clone() })
    }

    /// Opens the listener of an endpoint, however often that takes. The reason why it does not open is
    /// `status`'s, with `path` in front, and in the log once.
    pub(super) async fn open_at_last(
        &self,
        module: &Arc<Module>,
        (url, tls): (&ListenUrl, &ServerTls),
        path: &str,
        status: &Status,
    ) -> Lease {
        let mut backoff = Backoff::new(LISTEN_RETRY);
        let mut said = None;
        loop {
            let error = match self.open(module, url, tls).await {
                Ok(lease) => return lease,
                Err(error) => error,
            };
            let why = format!("{path}: {error}");
            if said.as_ref() != Some(&why) {
                tracing::warn!("{why}");
                said = Some(why.clone());
            }
            status.set(State::Retrying, Some(Trouble::new(error.reason(), why)));
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn close_unused(&self, port: &Arc<Port>) {
        let mut open = self.open.lock().await;
        if port.leases.load(Ordering::Acquire) == 0 {
            port.closed.cancel();
            open.retain(|_, present| !Arc::ptr_eq(present, port));
        }
    }

    /// Waits until no connection is left, but not for long: peers are being told that they have to go.
    pub(crate) async fn drained(&self, bound: Duration) {
        let deadline = Instant::now() + bound;
        while self.room.taken() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[cfg(test)]
    pub(crate) fn connections(&self) -> usize {
        self.room.taken()
    }
}

/// Joins those who listen on this address already.
fn join(
    open: &HashMap<SocketAddr, Arc<Port>>,
    module: &Arc<Module>,
    address: SocketAddr,
    settings: &(bool, ServerTls),
) -> Result<Option<Lease>, OpenError> {
    let Some(port) = open.get(&address) else { return Ok(None) };
    if port.settings == *settings {
        port.leases.fetch_add(1, Ordering::AcqRel);
        return Ok(Some(Lease { port: port.clone(), module: module.clone() }));
    }
    match port.leases.load(Ordering::Acquire) {
        0 => Ok(None),
        _ => Err(OpenError::OtherTls(address)),
    }
}

async fn accept(listener: Listener, port: Arc<Port>, module: Arc<Module>) {
    // Last of all, when the listener is closed.
    let _ended = port.ended.clone().drop_guard();
    let listener = listener;
    loop {
        let (stream, peer) = tokio::select! {
            () = port.closed.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match module.ports.room.admit() {
            Ok(counted) => {
                tokio::spawn(connection::run(stream, peer, port.clone(), module.clone(), counted));
            }
            Err(why) => {
                if let Some(suppressed) = module.player_log.admit() {
                    let address = port.address;
                    tracing::warn!(%peer, %address, suppressed, "refused: {why}");
                }
            }
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
