//! `listen`: publishers push to us.

use super::ListenConfig;
use super::ports::{PublishRoute, Target};
use crate::endpoint::InputContext;
use crate::stream::{KickReason, State};

/// Takes publishers until cancelled; on a pattern into one stream for each published name.
pub async fn listen(input: InputContext, config: ListenConfig) {
    let (path, ports) = (format!("{}.listen", input.path), &input.module.ports);
    let opening = ports.open_at_last(&input.module, (&config.url, &config.tls), &path, &input.status.status);
    let lease = tokio::select! {
        () = input.cancel.cancelled() => return,
        lease = opening => lease,
    };
    let target = match &input.instances {
        Some(instances) => Target::Pattern(instances.clone()),
        None => Target::Stream(input.clone()),
    };
    let route = PublishRoute::new(&input, &config, target);
    input.status.status.set(State::Waiting, None);
    let guard = lease.publish(&config.url.path, route);
    input.cancel.cancelled().await;
    drop(guard);
    input.stream.kick(KickReason::Reconfigured);
}
