//! `serve`: players come to us.

use std::future::{pending, ready};
use std::pin::pin;

use futures_util::FutureExt;
use futures_util::future::join;
use tokio::sync::watch;

use super::ServeConfig;
use super::group::GroupSlot;
use super::port::{PlayRoute, Rtsp, listener};
use super::udp::Ports;
use super::wire::Players;
use crate::endpoint::OutputContext;
use crate::fanout::{self, Serving};
use crate::net::{Attempts, Place, listeners};
use crate::stream::State;

/// Serves until cancelled.
pub async fn serve(output: OutputContext, config: ServeConfig) {
    let (listeners, address) = (&output.module.listeners, listener(&config.url, &config.tls));
    let attempts = Attempts::of_output(&output, "serve", listeners::RETRY);
    let opening = listeners.open_at_last::<Rtsp>(&output.module, address, attempts);
    let lease = tokio::select! {
        () = output.cancel.cancelled() => return,
        lease = opening => lease,
    };
    // What an earlier version of it lacked.
    output.status.status.remark(None);
    let (attempts, udp) = (Attempts::of_output(&output, "udpPorts", listeners::RETRY), Ports::default());
    let (transports, ports) = (config.transports, (config.url.address, config.udp_port));
    let mut opening = pin!(udp.open(&output.module, transports, ports, attempts).fuse());
    tokio::select! {
        biased;
        () = output.cancel.cancelled() => return,
        () = &mut opening => {}
        () = ready(()), if transports.tcp => {}
    }
    let group = GroupSlot::default();
    let mut grouping = pin!(group.open(&output, config.multicast.as_ref()).fuse());
    tokio::select! {
        biased;
        () = &mut grouping => {}
        () = ready(()) => {}
    }
    let (arrivals, arriving) = fanout::arrivals();
    let (news, described) = watch::channel(None);
    let route = PlayRoute::new(&output, &config, described, arrivals, udp.clone(), group.clone());
    let (play, place) = (&lease.port().play, Place::of(&config.url.path));
    let _route = if output.of_instance { play.add_of_instance(place, route) } else { play.add(place, route) };
    output.status.status.set(State::Waiting, None);
    let options =
        fanout::Options { join: config.join, batch: config.batch, protocol: config.url.scheme.name };
    let reader = output.stream.reader(output.content);
    let name = config.url.path.rsplit('/').next().unwrap_or_default();
    let players = Players::new(config.mtu, name, news, output.status.clone(), output.path.clone());
    tokio::select! {
        () = Serving::new(&output, reader, players, options).run(&output, arriving) => {}
        // Ports that were not free before, and a group that could not be sent to.
        () = join(opening, grouping).then(|_| pending()) => {}
    }
}
