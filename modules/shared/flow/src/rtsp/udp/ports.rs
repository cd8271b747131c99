//! The ports that a server has for datagrams, as soon as they are free.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::UdpPair;
use crate::endpoint::Module;
use crate::net::Attempts;
use crate::rtsp::options::Transports;
use crate::stream::State;
use crate::trouble::Reason;

/// A pair of ports that another program may have for now.
#[derive(Clone, Default)]
pub(in crate::rtsp) struct Ports(Arc<OnceLock<Arc<UdpPair>>>);

impl Ports {
    /// The pair, where it is open.
    pub(in crate::rtsp) fn get(&self) -> Option<&Arc<UdpPair>> {
        self.0.get()
    }

    /// Opens the pair that begins with this port beside a listening address, however often that takes. Until then the
    /// endpoint does what it can by TCP, and says what it lacks; one that has only datagrams to offer can't do anything.
    /// The first attempt is made before anything is waited for.
    pub(in crate::rtsp) async fn open(
        &self,
        module: &Module,
        transports: Transports,
        (address, first): (SocketAddr, u16),
        mut attempts: Attempts,
    ) {
        if !transports.udp {
            return;
        }
        let ip = module.net.bind_address(address).ip();
        loop {
            UdpPair::closed(ip, first).await;
            let source = match UdpPair::open(ip, first) {
                Ok(pair) => {
                    let _ = self.0.set(pair);
                    return attempts.has_all();
                }
                Err(source) => source,
            };
            let second = first.saturating_add(1);
            let wait = if transports.tcp {
                attempts.lacks(&format!(
                    "{ip} has no ports {first}-{second} for datagrams: {source}; until they are free, UDP is \
                     refused and TCP is served; choose others, or set transports to tcp only"
                ))
            } else {
                let error =
                    format!("{ip} has no ports {first}-{second} for datagrams: {source}; choose others");
                attempts.failed(State::Retrying, Reason::Address, &error, Duration::ZERO)
            };
            tokio::time::sleep(wait).await;
        }
    }
}
