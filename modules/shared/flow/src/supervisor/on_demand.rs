//! An input that runs while somebody wants its stream.

use futures_util::future::BoxFuture;

use crate::endpoint::InputContext;
use crate::stream::State;
use crate::trouble::{Reason, Trouble};

/// Runs `endpoint` each time somebody wants the stream, and lets it go some time after the last does not any more.
pub(super) async fn on_demand(
    endpoint: impl Fn(InputContext) -> BoxFuture<'static, ()>,
    context: InputContext,
) {
    let demand = context.stream.demand().clone();
    let _sleeper = demand.sleeper();
    let (flow, status) = (context.flow.clone(), context.status.clone());
    loop {
        let text =
            format!("{}.onDemand: nobody watches; it connects when the first viewer comes", context.path);
        status.status.set(State::Waiting, Some(Trouble::new(Reason::Unwatched, text)));
        tokio::select! {
            () = context.cancel.cancelled() => return,
            () = demand.wanted() => {}
        }
        tracing::info!(%flow, "a viewer arrived: the input connects");
        status.status.set(State::Waiting, None);
        let cancel = context.cancel.child_token();
        let mut running = endpoint(InputContext { cancel: cancel.clone(), ..context.clone() });
        tokio::select! {
            () = &mut running => return,
            () = demand.unwanted() => {}
        }
        tracing::info!(%flow, "the last viewer has left: the input disconnects");
        cancel.cancel();
        running.await;
        if context.cancel.is_cancelled() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::{Instant, sleep};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::rtmp::peer::{module, state, stream};
    use crate::stream::{InputStatus, Stream};

    struct Rig {
        stream: Stream,
        status: Arc<InputStatus>,
        cancel: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    /// An input that takes two seconds to say goodbye.
    fn rig() -> Rig {
        let (stream, cancel) = (stream(), CancellationToken::new());
        let context = InputContext {
            module: module(),
            flow: "cam".into(),
            path: "flows.cam.input".into(),
            status: stream.input().clone(),
            idle_timeout: Duration::from_secs(10),
            instances: None,
            stream: stream.clone(),
            cancel: cancel.clone(),
        };
        let endpoint = |context: InputContext| -> BoxFuture<'static, ()> {
            Box::pin(async move {
                context.status.status.set(State::Running, None);
                context.cancel.cancelled().await;
                sleep(Duration::from_secs(2)).await;
            })
        };
        let status = stream.input().clone();
        Rig { stream, status, cancel, task: tokio::spawn(on_demand(endpoint, context)) }
    }

    #[tokio::test(start_paused = true)]
    async fn an_input_runs_from_the_first_viewer_to_ten_seconds_after_the_last_and_says_that_it_waits() {
        let rig = rig();
        let waits = || async {
            loop {
                let trouble = state(&rig.status.status, State::Waiting).await.trouble;
                if trouble.as_ref().is_some_and(|trouble| trouble.reason == Reason::Unwatched) {
                    break trouble.unwrap().text;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        let said = "flows.cam.input.onDemand: nobody watches; it connects when the first viewer comes";
        assert_eq!(waits().await, said);
        for _ in 0..2 {
            let viewer = rig.stream.demand().want();
            state(&rig.status.status, State::Running).await;
            sleep(Duration::from_secs(60)).await;
            assert_eq!(rig.status.status.get().state, State::Running);
            drop(viewer);
            let left = Instant::now();
            assert_eq!(waits().await, said);
            // The goodbye is part of it.
            assert_eq!(left.elapsed().as_secs(), 12);
        }
        let _viewer = rig.stream.demand().want();
        state(&rig.status.status, State::Running).await;
        rig.cancel.cancel();
        rig.task.await.unwrap();
        assert!(!rig.stream.demand().wakes());
    }
}
