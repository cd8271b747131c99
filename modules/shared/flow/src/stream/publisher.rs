//! Writing to a stream.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use av_media::{Frame, Kind, Track};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Incoming, Shared, State};

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
        let id = shared.live().begin(kick, Instant::now());
        [Kind::Video, Kind::Audio].into_iter().for_each(|kind| shared.input.leave_out(kind, None));
        if id > 1 {
            shared.input.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        // Who joins now waits for this publisher's first pictures.
        shared.grown.notify_waiters();
        Self { shared, id }
    }

    /// Writes what the input gave, which arrived at `now`.
    pub fn item(&mut self, item: Incoming, now: impl Into<Instant>) -> Result<(), Displaced> {
        let now = now.into();
        let mut live = self.shared.live();
        let done = match item {
            Incoming::Track(track) => {
                self.shared.input.leave_out(track.kind(), None);
                let done = live.track(self.id, track, now);
                self.shared.input.status.touch();
                done
            }
            Incoming::Frame(frame) => live.frame(self.id, frame, now, &self.shared.input),
            Incoming::Expect { video, audio } => live.expect(self.id, [video, audio], now),
            Incoming::Aside(aside) => live.aside(self.id, aside, now),
        };
        drop(live);
        self.shared.grown.notify_waiters();
        done.ok_or(Displaced)
    }

    /// A track's configuration: before its first frame, and at each change.
    pub fn track(&mut self, track: Track, now: impl Into<Instant>) -> Result<(), Displaced> {
        self.item(Incoming::Track(track), now)
    }

    /// One frame, in the publisher's own times.
    pub fn frame(&mut self, frame: Frame, now: impl Into<Instant>) -> Result<(), Displaced> {
        self.item(Incoming::Frame(frame), now)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let mut live = self.shared.live();
        if live.lost(self.id, Instant::now()) {
            // Before the next publisher can write, or its `running` would be overwritten.
            self.shared.input.bitrate.store(0, Ordering::Relaxed);
            self.shared.input.status.set(State::Waiting, None);
        }
        drop(live);
        self.shared.grown.notify_waiters();
    }
}
