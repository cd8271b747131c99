//! `listen`: publishers push to us.

use std::sync::Arc;

use super::ports::{Instances, LISTEN_RETRY, PublishRoute, Target};
use crate::config::ListenConfig;
use crate::endpoint::InputContext;
use crate::net::Backoff;
use crate::stream::{KickReason, State};

/// Takes publishers until cancelled. With `instances`, one stream for each published name.
pub async fn listen(input: InputContext, config: ListenConfig, instances: Option<Arc<dyn Instances>>) {
    let mut backoff = Backoff::new(LISTEN_RETRY);
    let lease = loop {
        match input.module.ports.open(&input.module, &config.url, &config.tls).await {
            Ok(lease) => break lease,
            Err(error) => {
                input.status.status.set(State::Retrying, Some(format!("{}.listen: {error}", input.path)));
                tokio::select! {
                    () = input.cancel.cancelled() => return,
                    () = tokio::time::sleep(backoff.next_wait()) => {}
                }
            }
        }
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
