//! `listen`: publishers push to us.

use std::future::{pending, ready};
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt;

use super::ListenConfig;
use super::port::{PublishRoute, Rtsp, listener};
use super::udp::Ports;
use crate::endpoint::InputContext;
use crate::ingest::{Entrance, Target};
use crate::net::{Attempts, Place, listeners};
use crate::stream::{KickReason, State};

/// Takes publishers until cancelled; on a pattern into one stream for each published name.
pub async fn listen(input: InputContext, config: ListenConfig) {
    let (listeners, address) = (&input.module.listeners, listener(&config.url, &config.tls));
    let attempts = Attempts::of_input(&input, "listen", listeners::RETRY);
    let opening = listeners.open_at_last::<Rtsp>(&input.module, address, attempts);
    let lease = tokio::select! {
        () = input.cancel.cancelled() => return,
        lease = opening => lease,
    };
    // What an earlier version of it lacked.
    input.status.status.remark(None);
    let (attempts, udp) = (Attempts::of_input(&input, "udpPorts", listeners::RETRY), Ports::default());
    let (transports, ports) = (config.transports, (config.url.address, config.udp_port));
    let mut opening = pin!(udp.open(&input.module, transports, ports, attempts).fuse());
    tokio::select! {
        biased;
        () = input.cancel.cancelled() => return,
        () = &mut opening => {}
        () = ready(()), if transports.tcp => {}
    }
    let target = match &input.instances {
        Some(instances) => Target::Pattern(instances.clone()),
        None => Target::Stream(input.clone()),
    };
    let entrance = Entrance::new(&input, config.takeover, target);
    let place = Place::of(&config.url.path);
    let route = Arc::new(PublishRoute { entrance, config, udp: udp.clone() });
    input.status.status.set(State::Waiting, None);
    let guard = lease.port().publish.add(place, route);
    tokio::select! {
        () = input.cancel.cancelled() => {}
        // Ports that were not free before.
        () = opening.then(|()| pending()) => {}
    }
    drop(guard);
    input.stream.kick(KickReason::Reconfigured);
}
