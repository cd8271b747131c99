//! `serve`: players come to us.

use super::ServeConfig;
use super::port::{PlayRoute, Rtmp, listener};
use super::wire::Players;
use crate::endpoint::OutputContext;
use crate::fanout::{self, Serving};
use crate::net::{Attempts, Place, listeners};
use crate::stream::State;

/// Serves until cancelled.
pub async fn serve(output: OutputContext, config: ServeConfig) {
    let (listeners, address) = (&output.module.listeners, listener(&config.url, &config.tls));
    let attempts = Attempts::of_output(&output, "serve", listeners::RETRY);
    let opening = listeners.open_at_last::<Rtmp>(&output.module, address, attempts);
    let lease = tokio::select! {
        () = output.cancel.cancelled() => return,
        lease = opening => lease,
    };
    let (arrivals, arriving) = fanout::arrivals();
    let route = PlayRoute::new(&output, &config, arrivals);
    let (play, place) = (&lease.port().play, Place::of(&config.url.path));
    let _route = if output.of_instance { play.add_of_instance(place, route) } else { play.add(place, route) };
    output.status.status.set(State::Waiting, None);
    let options =
        fanout::Options { join: config.join, batch: config.batch, protocol: config.url.scheme.name };
    let reader = output.stream.reader(output.content).as_stamped();
    Serving::new(&output, reader, Players::new(), options).run(&output, arriving).await;
}
