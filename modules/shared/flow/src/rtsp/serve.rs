//! `serve`: players come to us.

use tokio::sync::watch;

use super::ServeConfig;
use super::port::{PlayRoute, Rtsp, listener};
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
    let (arrivals, arriving) = fanout::arrivals();
    let (news, described) = watch::channel(None);
    let route = PlayRoute::new(&output, &config, described, arrivals);
    let (play, place) = (&lease.port().play, Place::of(&config.url.path));
    let _route = if output.of_instance { play.add_of_instance(place, route) } else { play.add(place, route) };
    output.status.status.set(State::Waiting, None);
    let options =
        fanout::Options { join_instant: true, batch: config.batch, protocol: config.url.scheme.name };
    let reader = output.stream.reader(output.content);
    let name = config.url.path.rsplit('/').next().unwrap_or_default();
    let players =
        Players::new(config.join, config.mtu, name, news, output.status.clone(), output.path.clone());
    Serving::new(&output, reader, players, options).run(&output, arriving).await;
}
