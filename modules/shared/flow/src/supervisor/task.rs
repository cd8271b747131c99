//! Endpoints as tasks, one at a time in each place: what replaces an endpoint starts when that has ended.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::endpoint::Module;
use crate::stream::{Changes, State, Status};
use crate::trouble::{Reason, Trouble};

/// Whoever waits for its place says so that often: what ends there may still report a state of its own.
const SAY_AGAIN: Duration = Duration::from_secs(1);

/// What all flows of a supervisor run in.
#[derive(Clone)]
pub(super) struct Environment {
    pub(super) module: Arc<Module>,
    pub(super) changes: Changes,
    pub(super) places: Arc<Places>,
}

/// Who runs where: an input or output of a flow, or of one instance of it. Flows that are gone keep their places until
/// their endpoints have ended.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<String, Ended>>);

/// Tells when an endpoint has ended.
#[derive(Clone)]
pub(super) struct Ended(Arc<Place>);

struct Place {
    name: String,
    over: CancellationToken,
}

impl Ended {
    /// `flows.NAME.input`, and so on.
    pub(super) fn place(&self) -> &str {
        &self.0.name
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.over.is_cancelled()
    }

    pub(super) async fn wait(&self) {
        self.0.over.cancelled().await;
    }
}

/// The right to a place; dropped, it is the next one's turn.
struct Turn {
    places: Arc<Places>,
    own: Ended,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut places = self.places.lock();
        if places.get(self.own.place()).is_some_and(|there| Arc::ptr_eq(&there.0, &self.own.0)) {
            places.remove(self.own.place());
        }
        drop(places);
        self.own.0.over.cancel();
    }
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Ended>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everybody who has not ended.
    pub(super) fn taken(&self) -> Vec<Ended> {
        self.lock().values().cloned().collect()
    }

    /// Queues up for a place; also: who has it until now.
    fn enter(self: &Arc<Self>, name: String) -> (Turn, Option<Ended>) {
        let own = Ended(Arc::new(Place { name: name.clone(), over: CancellationToken::new() }));
        let before = self.lock().insert(name, own.clone());
        (Turn { places: self.clone(), own }, before)
    }
}

/// An endpoint that runs, or waits for its place. Dropped, it is asked to end.
pub(super) struct Task {
    cancel: CancellationToken,
    ended: Ended,
}

impl Task {
    /// Runs `endpoint` in a place of its own until it ends by itself or is stopped, once whoever was there before has
    /// ended. A panic in it is this endpoint's failure alone, told with `path` by `status`.
    pub(super) fn spawn<S: AsRef<Status> + Send + Sync + 'static>(
        places: &Arc<Places>,
        place: String,
        cancel: CancellationToken,
        (path, status): (Arc<str>, Arc<S>),
        endpoint: impl FnOnce() -> BoxFuture<'static, ()> + Send + 'static,
    ) -> Self {
        let (turn, before) = places.enter(place);
        let ended = turn.own.clone();
        let cancelled = cancel.clone();
        let before = before.filter(|before| !before.is_over());
        if before.is_some() {
            waits(S::as_ref(&status), &path);
        }
        tokio::spawn(async move {
            // Ends last, after all that the endpoint holds.
            let _turn = turn;
            let status = || S::as_ref(&status);
            if let Some(before) = before {
                // Whoever comes next waits for this one, so this one waits even when it is not wanted any more.
                while tokio::time::timeout(SAY_AGAIN, before.wait()).await.is_err() {
                    if !cancelled.is_cancelled() {
                        waits(status(), &path);
                    }
                }
            }
            if cancelled.is_cancelled() {
                return;
            }
            status().set(State::Waiting, None);
            if AssertUnwindSafe(endpoint()).catch_unwind().await.is_err() {
                tracing::error!(
                    %path,
                    "internal error: this endpoint has stopped; restart the flow and report it"
                );
                let text = format!("{path}: internal error; call restartFlow");
                status().set(State::Failed, Some(Trouble::new(Reason::Internal, text)));
            }
        });
        Self { cancel, ended }
    }

    /// Asks it to end.
    pub(super) fn stop(self) -> Ended {
        self.ended.clone()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn waits(status: &Status, path: &str) {
    let text = format!("{path}: what ran here before has not ended yet; this starts when it has");
    status.set(State::Waiting, Some(Trouble::new(Reason::Ending, text)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtmp::peer::{soon, state};
    use crate::stream::InputStatus;

    /// A place, and what runs there one after the other.
    struct Rig {
        places: Arc<Places>,
        status: Arc<InputStatus>,
    }

    impl Rig {
        fn new() -> Self {
            Self { places: Arc::default(), status: InputStatus::new(Changes::default()) }
        }

        /// Runs until it is stopped and `held` is dropped.
        fn spawn(&self, held: tokio::sync::oneshot::Receiver<()>) -> Task {
            let cancel = CancellationToken::new();
            let (ending, shown) = (cancel.clone(), ("place".into(), self.status.clone()));
            let status = self.status.clone();
            Task::spawn(&self.places, "place".into(), cancel, shown, move || {
                Box::pin(async move {
                    status.status.set(State::Running, None);
                    ending.cancelled().await;
                    let _ = held.await;
                })
            })
        }

        /// Waits for the state of one that waits for its place.
        async fn says_that_it_waits(&self) {
            let is_said = || {
                let trouble = self.status.status.get().trouble;
                trouble.is_some_and(|trouble| trouble.reason == Reason::Ending)
            };
            soon("it says that it waits", async {
                while !is_said() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_nobody_holds_any_more_is_asked_to_end() {
        let rig = Rig::new();
        let (may_end, held) = tokio::sync::oneshot::channel();
        drop(may_end);
        let task = rig.spawn(held);
        let ended = task.ended.clone();
        drop(task);
        soon("it ends", ended.wait()).await;
        assert!(rig.places.taken().is_empty());
    }

    #[tokio::test]
    async fn who_waits_says_so_again_after_what_ends_has_said_something_else() {
        let rig = Rig::new();
        let (may_end, held) = tokio::sync::oneshot::channel();
        let first = rig.spawn(held);
        state(&rig.status.status, State::Running).await;
        let ended = first.stop();
        let (_never, other) = tokio::sync::oneshot::channel();
        let _second = rig.spawn(other);
        rig.says_that_it_waits().await;
        for other in [State::Running, State::Retrying] {
            rig.status.status.set(other, None);
            rig.says_that_it_waits().await;
        }
        drop(may_end);
        soon("the first ends", ended.wait()).await;
        let now = state(&rig.status.status, State::Running).await;
        assert!(now.trouble.is_none());
    }
}
