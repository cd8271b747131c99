//! Writing to a stream.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use av_media::{Frame, Kind, Normalised, Normaliser, Timestamp, Track};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Aside, Incoming, Shared, Skip, State};

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
    normaliser: Normaliser,
    /// Bytes written in this turn.
    turn: usize,
}

/// Bytes after which others have their turn: what a socket is read by at once.
const TURN: usize = 16 << 10;

/// What is to be written, in the one shape.
enum Ready {
    Track(Track),
    /// Of which kind, how long it was, and what became of it.
    Frame(Kind, usize, Normalised),
    Expect([bool; 2]),
    Aside(Aside),
    WallClock(Timestamp, SystemTime),
}

impl Publisher {
    pub(super) fn begin(shared: Arc<Shared>, kick: Kick) -> Self {
        let mut live = shared.live();
        let id = live.begin(kick, Instant::now());
        shared.count(&live);
        drop(live);
        [Kind::Video, Kind::Audio].into_iter().for_each(|kind| shared.input.leave_out(kind, None));
        if id > 1 {
            shared.input.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        // Who joins now waits for this publisher's first pictures.
        shared.grown.notify_waiters();
        Self { shared, id, normaliser: Normaliser::default(), turn: 0 }
    }

    /// Writes what the input gave, which arrived at `now`.
    pub fn item(&mut self, item: Incoming, now: impl Into<Instant>) -> Result<(), Displaced> {
        let now = now.into();
        let Shared { input, .. } = &*self.shared;
        // Looking into the frame takes time, and so happens before the lock.
        let item = match item {
            Incoming::Track(track) => Ready::Track(self.normaliser.track(track)),
            Incoming::Frame(frame) => {
                self.turn = self.turn.saturating_add(frame.data.len());
                Ready::Frame(frame.kind, frame.data.len(), self.normaliser.frame(frame))
            }
            Incoming::Expect { video, audio } => Ready::Expect([video, audio]),
            Incoming::Aside(aside) => Ready::Aside(aside),
            Incoming::WallClock { time, utc } => Ready::WallClock(time, utc),
        };
        let mut live = self.shared.live();
        let done = match item {
            Ready::Track(track) => {
                input.leave_out(track.kind(), None);
                let done = live.track(self.id, track, now);
                input.status.touch();
                done
            }
            Ready::Frame(kind, size, Normalised { track, frame, malformed }) => {
                if malformed > 0 {
                    input.skipped.add(Skip::Malformed, malformed);
                    input.said.note(
                        "sends parameter sets or supplemental information that are malformed or too large: \
                         they are left out",
                    );
                }
                let changed = track.map_or(Some(()), |track| {
                    input.status.touch();
                    live.track(self.id, track, now)
                });
                changed.and_then(|()| match frame {
                    Some(frame) => live.frame(self.id, frame, size, now, input),
                    None => live.heard(self.id, kind, size, now, input),
                })
            }
            Ready::Expect(expected) => live.expect(self.id, expected, now),
            Ready::Aside(aside) => live.aside(self.id, aside, now),
            Ready::WallClock(time, utc) => live.wall_clock(self.id, time, utc, now),
        };
        self.shared.count(&live);
        drop(live);
        self.shared.grown.notify_waiters();
        self.shared.cache.relieve(now);
        done.ok_or(Displaced)
    }

    /// Lets others have their turn, once much was written in this one. A source that has more at hand than can be read
    /// calls it between reads: readers hold what they were given until they run, also what the stream gave up since.
    pub async fn take_turns(&mut self) {
        if self.turn >= TURN {
            self.turn = 0;
            tokio::task::yield_now().await;
        }
    }

    /// How long what comes may lie unread: see [`Keep`](super::Keep).
    pub fn patience(&self) -> Duration {
        self.shared.live().patience()
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
        self.shared.count(&live);
        drop(live);
        self.shared.grown.notify_waiters();
    }
}
