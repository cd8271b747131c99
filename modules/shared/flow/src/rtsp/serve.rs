//! `serve`: players come to us.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::ServeConfig;
use super::port::{PlayRoute, Rtsp, listener};
use super::udp::UdpPair;
use super::wire::Players;
use crate::endpoint::OutputContext;
use crate::fanout::{self, Serving};
use crate::net::{Attempts, Place, listeners};
use crate::stream::State;
use crate::trouble::Reason;

/// Serves until cancelled.
pub async fn serve(output: OutputContext, config: ServeConfig) {
    let (listeners, address) = (&output.module.listeners, listener(&config.url, &config.tls));
    let attempts = Attempts::of_output(&output, "serve", listeners::RETRY);
    let opening = listeners.open_at_last::<Rtsp>(&output.module, address, attempts);
    let lease = tokio::select! {
        () = output.cancel.cancelled() => return,
        lease = opening => lease,
    };
    let udp = tokio::select! {
        () = output.cancel.cancelled() => return,
        udp = open_udp(&output, &config) => udp,
    };
    let (arrivals, arriving) = fanout::arrivals();
    let (news, described) = watch::channel(None);
    let route = PlayRoute::new(&output, &config, described, arrivals, udp);
    let (play, place) = (&lease.port().play, Place::of(&config.url.path));
    let _route = if output.of_instance { play.add_of_instance(place, route) } else { play.add(place, route) };
    output.status.status.set(State::Waiting, None);
    let options =
        fanout::Options { join: config.join, batch: config.batch, protocol: config.url.scheme.name };
    let reader = output.stream.reader(output.content);
    let name = config.url.path.rsplit('/').next().unwrap_or_default();
    let players = Players::new(config.mtu, name, news, output.status.clone(), output.path.clone());
    Serving::new(&output, reader, players, options).run(&output, arriving).await;
}

/// Opens the ports of datagrams, however often that takes; `None`: there are to be none.
async fn open_udp(output: &OutputContext, config: &ServeConfig) -> Option<Arc<UdpPair>> {
    if !config.transports.udp {
        return None;
    }
    let mut attempts = Attempts::of_output(output, "udpPorts", listeners::RETRY);
    let ip = output.module.net.bind_address(config.url.address).ip();
    loop {
        match UdpPair::open(ip, config.udp_port) {
            Ok(pair) => return Some(pair),
            Err(source) => {
                let (first, second) = (config.udp_port, config.udp_port.saturating_add(1));
                let error = format!(
                    "{ip} has no ports {first}-{second} for datagrams: {source}; choose others, or transports tcp alone"
                );
                let wait = attempts.failed(State::Retrying, Reason::Address, &error, Duration::ZERO);
                tokio::time::sleep(wait).await;
            }
        }
    }
}
