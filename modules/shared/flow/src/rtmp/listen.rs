//! `listen`: publishers push to us.

use std::sync::Arc;

use super::ports::{Instances, PublishRoute, Target};
use crate::config::ListenConfig;
use crate::endpoint::InputContext;
use crate::stream::{KickReason, State};

/// Takes publishers until cancelled. With `instances`, one stream for each published name.
pub async fn listen(input: InputContext, config: ListenConfig, instances: Option<Arc<dyn Instances>>) {
    let (path, ports) = (format!("{}.listen", input.path), &input.module.ports);
    let opening = ports.open_at_last(&input.module, (&config.url, &config.tls), &path, &input.status.status);
    let lease = tokio::select! {
        () = input.cancel.cancelled() => return,
        lease = opening => lease,
    };
    let target = match instances {
        Some(instances) => Target::Pattern(instances),
        None => Target::Stream(input.clone()),
    };
    let route = PublishRoute::new(&input, &config, target);
    input.status.status.set(State::Waiting, None);
    let guard = lease.publish(&config.url.path, route);
    input.cancel.cancelled().await;
    drop(guard);
    input.stream.kick(KickReason::Reconfigured);
}
