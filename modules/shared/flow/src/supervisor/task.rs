//! Endpoints as tasks, one at a time in each place: what replaces an endpoint starts when that has ended.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::endpoint::Module;
use crate::stream::{Changes, State, Status};
use crate::trouble::{Reason, Trouble};

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

/// An endpoint that runs, or waits for its place.
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
        tokio::spawn(async move {
            // Ends last, after all that the endpoint holds.
            let _turn = turn;
            let status = || S::as_ref(&status);
            if let Some(before) = before.filter(|before| !before.is_over()) {
                let text = format!("{path}: what ran here before has not ended yet; this starts when it has");
                status().set(State::Waiting, Some(Trouble::new(Reason::Ending, text)));
                // Whoever comes next waits for this one, so this one waits even when it is not wanted any more.
                before.wait().await;
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
        self.cancel.cancel();
        self.ended
    }
}
