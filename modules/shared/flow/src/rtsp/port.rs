//! What a listening address keeps for RTSP: where paths lead, and how many connections an address has.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::connection::{self, Tunnels};
use super::described::{Described, Watching};
use super::group::GroupSlot;
use super::udp::Ports;
use super::{ListenConfig, ServeConfig};
use crate::config::{Content, ListenUrl, ServerTls};
use crate::endpoint::OutputContext;
use crate::fanout::Arrivals;
use crate::ingest::Entrance;
use crate::net::listeners::{Accepted, Protocol};
use crate::stream::{OutputStatus, Stream};

/// Connections of one address that have not been let in anywhere yet.
const MAX_STRANGERS: usize = 512;

/// RTSP and RTSPS.
pub(super) struct Rtsp;

impl Protocol for Rtsp {
    const NAME: &'static str = "RTSP";
    type State = Guests;
    type Publish = PublishRoute;
    type Play = PlayRoute;

    async fn run(accepted: Accepted<Self>) {
        connection::run(accepted).await;
    }
}

/// Who is at a listening address and has no place yet.
#[derive(Default)]
pub(super) struct Guests {
    pub(super) strangers: Strangers,
    pub(super) tunnels: Tunnels,
}

/// Connections that were let in nowhere yet, by address.
#[derive(Default)]
pub(super) struct Strangers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them, while it lives.
pub(super) struct Stranger {
    all: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Strangers {
    /// `None`: too many of this address.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Stranger> {
        let mut all = lock(&self.0);
        let count = all.entry(address).or_default();
        if *count >= MAX_STRANGERS {
            return None;
        }
        *count += 1;
        Some(Stranger { all: self.0.clone(), address })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut all = lock(&self.all);
        if let Some(count) = all.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}

fn lock(all: &Mutex<HashMap<IpAddr, usize>>) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a published path leads.
pub(super) struct PublishRoute {
    pub(super) entrance: Entrance,
    pub(super) config: ListenConfig,
    /// Its ports for datagrams, where it takes such.
    pub(super) udp: Ports,
}

/// Where a played path leads.
pub(super) struct PlayRoute {
    pub(super) flow: Arc<str>,
    pub(super) output_name: Arc<str>,
    /// `flows.NAME.outputs.NAME.serve`.
    pub(super) path: String,
    pub(super) config: ServeConfig,
    pub(super) output: Arc<OutputStatus>,
    pub(super) stream: Stream,
    /// Which of its kinds are served.
    pub(super) content: Content,
    pub(super) described: Watching,
    pub(super) arrivals: Arrivals,
    /// Its ports for datagrams, where it sends such.
    pub(super) udp: Ports,
    /// Where it is sent for all who want that, where there is such a place.
    pub(super) group: GroupSlot,
}

impl PlayRoute {
    pub(super) fn new(
        output: &OutputContext,
        config: &ServeConfig,
        described: Watching,
        arrivals: Arrivals,
        udp: Ports,
        group: GroupSlot,
    ) -> Arc<Self> {
        Arc::new(Self {
            flow: output.flow.clone(),
            output_name: output.output.clone(),
            path: format!("{}.serve", output.path),
            config: config.clone(),
            output: output.status.clone(),
            stream: output.stream.clone(),
            content: output.content,
            described,
            arrivals,
            udp,
            group,
        })
    }
}

impl PlayRoute {
    /// Whether a player that was told `described` can read what is sent now.
    pub(super) fn still_sends(&self, described: &Described) -> bool {
        self.described.borrow().as_ref().is_some_and(|now| described.holds_for(now))
    }
}

/// Address and TLS settings of a URL's listener.
pub(super) fn listener<'a>(url: &ListenUrl, tls: &'a ServerTls) -> (SocketAddr, Option<&'a ServerTls>) {
    (url.address, url.scheme.tls.then_some(tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_that_were_not_let_in() {
        let (strangers, address) = (Strangers::default(), IpAddr::from([192, 0, 2, 1]));
        let mut admitted: Vec<_> = std::iter::from_fn(|| strangers.admit(address)).collect();
        assert_eq!(admitted.len(), MAX_STRANGERS);
        assert!(strangers.admit([192, 0, 2, 2].into()).is_some());
        admitted.pop();
        assert!(strangers.admit(address).is_some());
        drop(admitted);
        assert!(lock(&strangers.0).is_empty());
    }
}
