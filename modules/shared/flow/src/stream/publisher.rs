//! Writing to a stream.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use av_media::{Frame, Track};
use av_rtmp::{MediaItem, Metadata};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{Shared, State};

/// Why a publisher has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KickReason {
    /// Another publisher took over.
    TakenOver,
    /// Nothing came for `idleTimeoutSeconds`.
    Idle,
    /// The flow was removed, disabled or changed.
    Reconfigured,
}

/// Ends a publisher's connection from outside, and tells why.
#[derive(Clone, Debug, Default)]
pub struct Kick {
    token: CancellationToken,
    reason: Arc<OnceLock<KickReason>>,
}

impl Kick {
    /// Ends it; only the first reason counts.
    pub fn fire(&self, reason: KickReason) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Waits to be fired.
    pub async fn fired(&self) -> KickReason {
        self.token.cancelled().await;
        self.reason.get().copied().unwrap_or(KickReason::Reconfigured)
    }
}

/// Another publisher writes to the stream now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another publisher took over")]
pub struct Displaced;

/// The right to write to a stream. Dropped, the publisher is lost.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    id: u64,
}

impl Publisher {
    pub(super) fn begin(shared: Arc<Shared>, kick: Kick) -> Self {
        let id = shared.ring().begin(kick, Instant::now());
        if id > 1 {
            shared.input.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        Self { shared, id }
    }

    /// Writes whatever an RTMP session gave.
    pub fn item(&mut self, item: MediaItem, now: Instant) -> Result<(), Displaced> {
        match item {
            MediaItem::Track(track) => self.track(track, now),
            MediaItem::Frame(frame) => self.frame(frame, now),
            MediaItem::Metadata(metadata) => self.metadata(metadata, now),
            MediaItem::Data { timestamp_ms, payload } => self.data(payload, timestamp_ms, now),
            _ => Ok(()),
        }
    }

    /// A track's configuration: before its first frame, and at each change.
    pub fn track(&mut self, track: Track, now: Instant) -> Result<(), Displaced> {
        let done = self.shared.ring().track(self.id, track, now);
        self.shared.input.status.touch();
        self.wake(done)
    }

    /// One frame, in the publisher's own times.
    pub fn frame(&mut self, frame: Frame, now: Instant) -> Result<(), Displaced> {
        let done = self.shared.ring().frame(self.id, frame, now, &self.shared.input);
        self.wake(done)
    }

    /// `onMetaData`.
    pub fn metadata(&mut self, metadata: Metadata, now: Instant) -> Result<(), Displaced> {
        let done = self.shared.ring().metadata(self.id, metadata, now);
        self.wake(done)
    }

    /// Another data message, in the publisher's own time.
    pub fn data(&mut self, payload: Bytes, millis: i64, now: Instant) -> Result<(), Displaced> {
        let done = self.shared.ring().data(self.id, payload, millis, now);
        self.wake(done)
    }

    fn wake(&self, done: Option<()>) -> Result<(), Displaced> {
        self.shared.grown.notify_waiters();
        done.ok_or(Displaced)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if self.shared.ring().lost(self.id, Instant::now()) {
            self.shared.input.bitrate.store(0, Ordering::Relaxed);
            self.shared.input.status.set(State::Waiting, None);
        }
        self.shared.grown.notify_waiters();
    }
}
