//! `listen`: publishers push to us.

use std::sync::Arc;

use super::ListenConfig;
use super::port::{PublishRoute, Rtsp, listener};
use super::udp::UdpPair;
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
    let attempts = Attempts::of_input(&input, "udpPorts", listeners::RETRY);
    let ports = config.transports.udp.then_some((config.url.address, config.udp_port));
    let udp = tokio::select! {
        () = input.cancel.cancelled() => return,
        udp = UdpPair::open_at_last(&input.module, ports, attempts) => udp,
    };
    let target = match &input.instances {
        Some(instances) => Target::Pattern(instances.clone()),
        None => Target::Stream(input.clone()),
    };
    let entrance = Entrance::new(&input, config.takeover, target);
    let place = Place::of(&config.url.path);
    let route = Arc::new(PublishRoute { entrance, config, udp });
    input.status.status.set(State::Waiting, None);
    let guard = lease.port().publish.add(place, route);
    input.cancel.cancelled().await;
    drop(guard);
    input.stream.kick(KickReason::Reconfigured);
}
