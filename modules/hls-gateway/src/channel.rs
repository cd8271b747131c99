//! What one output shows to those who ask by HTTP.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use av_flow::OutputContext;
use av_flow::config::Content;
use av_flow::stream::{OutputStatus, Stream};
use tokio::sync::watch;

use crate::disk::Folder;
use crate::live::{Found, Shelf, Version};
use crate::options::ServeConfig;
use crate::viewers::Viewers;

/// Players give up on an answer after ten seconds. Before the first playlist nobody knows the target duration.
const MOST_PATIENCE: Duration = Duration::from_secs(8);

/// An output that is served.
pub(crate) struct Channel {
    pub flow: Arc<str>,
    pub output: Arc<str>,
    /// `flows.NAME.outputs.NAME.serve`.
    pub place: String,
    pub config: ServeConfig,
    pub stream: Stream,
    pub content: Content,
    pub status: Arc<OutputStatus>,
    pub viewers: Viewers,
    /// The URL that a playlist had before this process began, and will have again.
    pub expected: Option<String>,
    pub shown: Arc<Shown>,
}

/// What is shown. It outlives a change of the configuration, and so do requests that wait for more of it.
#[derive(Default)]
pub(crate) struct Shown {
    version: watch::Sender<Option<Arc<Version>>>,
    /// The run of a playlist that another one is about to replace; 0 where there is none.
    retired: AtomicU64,
    shelf: RwLock<Shelf>,
    /// Where old segments lie.
    pub folder: OnceLock<Arc<Folder>>,
}

impl Shown {
    /// The present version.
    pub(crate) fn version(&self) -> Option<Arc<Version>> {
        self.version.borrow().clone()
    }

    /// Another playlist is about to take the place of the present one: players of that keep what they have until then, and
    /// nobody is led to it any more.
    pub(crate) fn retire(&self) {
        self.retired.store(self.version().map_or(0, |version| version.run), Ordering::Relaxed);
    }

    /// The present playlist is not replaced after all.
    pub(crate) fn stay(&self) {
        self.retired.store(0, Ordering::Relaxed);
    }

    /// Whether that is the one that goes.
    pub(crate) fn is_retired(&self, version: &Version) -> bool {
        self.retired.load(Ordering::Relaxed) == version.run
    }

    pub(crate) fn shelf_mut(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Channel {
    pub(crate) fn new(
        output: &OutputContext,
        config: ServeConfig,
        expected: Option<String>,
        shown: Arc<Shown>,
    ) -> Arc<Self> {
        Arc::new(Self {
            flow: output.flow.clone(),
            output: output.output.clone(),
            place: format!("{}.serve", output.path),
            viewers: Viewers::new(output.status.clone(), config.max_clients),
            config,
            stream: output.stream.clone(),
            content: output.content,
            status: output.status.clone(),
            expected,
            shown,
        })
    }

    /// What can be fetched.
    pub(crate) fn shelf(&self) -> RwLockReadGuard<'_, Shelf> {
        self.shown.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn shelf_mut(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.shown.shelf_mut()
    }

    /// Shows a version, and wakes those who wait for it.
    pub(crate) fn publish(&self, version: Version) {
        self.viewers.set_target(version.target);
        self.shown.version.send_replace(Some(Arc::new(version)));
    }

    /// Versions as they come.
    pub(crate) fn versions(&self) -> watch::Receiver<Option<Arc<Version>>> {
        self.shown.version.subscribe()
    }

    /// The present version.
    pub(crate) fn version(&self) -> Option<Arc<Version>> {
        self.shown.version()
    }

    /// Whether what is shown is a playlist that another one is about to replace.
    pub(crate) fn shows_retired(&self) -> bool {
        self.version().is_some_and(|version| self.shown.is_retired(&version))
    }

    /// How long a request is held at most: three target durations, and never so long that a player gives up on an answer.
    pub(crate) fn patience(&self) -> Duration {
        self.version().map_or(MOST_PATIENCE, |version| {
            MOST_PATIENCE.min(Duration::from_secs(u64::from(version.target) * 3))
        })
    }

    /// A finished segment.
    pub(crate) fn segment(&self, number: u64) -> Option<Found> {
        self.shelf().segment(number)
    }
}
