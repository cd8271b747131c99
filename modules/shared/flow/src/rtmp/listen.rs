//! `listen`: publishers push to us.

use super::ListenConfig;
use super::port::{PublishRoute, Rtmp, listener};
use crate::endpoint::InputContext;
use crate::ingest::Target;
use crate::net::{Attempts, Place, listeners};
use crate::stream::{About, KickReason, State};

/// Takes publishers until cancelled; on a pattern into one stream for each published name.
pub async fn listen(input: InputContext, config: ListenConfig) {
    let (listeners, address) = (&input.module.listeners, listener(&config.url, &config.tls));
    let attempts = Attempts::of_input(&input, "listen", listeners::RETRY);
    let opening = listeners.open_at_last::<Rtmp>(&input.module, address, attempts);
    let lease = tokio::select! {
        () = input.cancel.cancelled() => return,
        lease = opening => lease,
    };
    let target = match &input.instances {
        Some(instances) => Target::Pattern(instances.clone()),
        None => Target::Stream(input.clone()),
    };
    // Of a publisher to an earlier version of it.
    input.status.status.remark_about(About::Peer, None);
    let route = PublishRoute::new(&input, &config, target);
    input.status.status.set(State::Waiting, None);
    let guard = lease.port().publish.add(Place::of(&config.url.path), route);
    input.cancel.cancelled().await;
    drop(guard);
    input.stream.kick(KickReason::Reconfigured);
    input.status.status.remark_about(About::Peer, None);
}
