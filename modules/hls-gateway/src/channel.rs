//! What one output shows to those who ask by HTTP.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use av_flow::OutputContext;
use av_flow::config::Content;
use av_flow::stream::{OutputStatus, Stream};
use tokio::sync::watch;

use crate::live::{Pieces, Shelf, Version};
use crate::options::ServeConfig;
use crate::viewers::Viewers;

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
    version: watch::Sender<Option<Arc<Version>>>,
    shelf: RwLock<Shelf>,
}

impl Channel {
    pub(crate) fn new(output: &OutputContext, config: ServeConfig, expected: Option<String>) -> Arc<Self> {
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
            version: watch::Sender::new(None),
            shelf: RwLock::default(),
        })
    }

    /// What can be fetched.
    pub(crate) fn shelf(&self) -> RwLockReadGuard<'_, Shelf> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn shelf_mut(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a version, and wakes those who wait for it.
    pub(crate) fn publish(&self, version: Version) {
        self.version.send_replace(Some(Arc::new(version)));
    }

    /// Versions as they come.
    pub(crate) fn versions(&self) -> watch::Receiver<Option<Arc<Version>>> {
        self.version.subscribe()
    }

    /// The present version.
    pub(crate) fn version(&self) -> Option<Arc<Version>> {
        self.version.borrow().clone()
    }

    /// How long a request is held at most: three target durations, and never so long that a player gives up on an answer.
    pub(crate) fn patience(&self) -> Duration {
        let target = self.config.shape.segment.as_secs().max(1);
        Duration::from_secs((target * 3).min(8))
    }

    /// A finished segment.
    pub(crate) fn segment(&self, number: u64) -> Option<Pieces> {
        self.shelf().segment(number)
    }
}
