//! A flow's stream: what an input writes and every output reads.
//!
//! It outlives its publishers and its configuration: readers stay while publishers come and go.

mod dedup;
mod interval;
mod item;
mod latency;
mod live;
mod publisher;
mod reader;
mod ring;
mod said;
mod skipped;
mod status;
mod timeline;
mod tracks;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use av_media::{Kind, Track};
use tokio::sync::Notify;
use tokio::time::Instant;

pub use dedup::{Dedup, Passed, Seam};
pub use item::{Anchor, Aside, Entry, Gap, GapCause, Incoming, Item, KnownBy, Lost};
pub use latency::Latency;
pub use publisher::{Displaced, Kick, KickReason, Publisher};
pub use reader::Reader;
pub use said::Said;
pub use skipped::{LeftOut, Skip, Skipped};
pub use status::{Changes, Current, InputStatus, OutputStatus, PerKind, State, Status};
pub use tracks::Tracks;

use crate::config::Content;
use live::Live;

/// How a stream treats its input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Kinds that pass.
    pub content: Content,
    /// How long readers wait for the second track.
    pub track_wait: Duration,
    /// A track that is silent that long is stalled.
    pub idle_timeout: Duration,
    /// Whether readers stay when the publisher is lost.
    pub hold: bool,
    /// How long they stay; `None` = for ever.
    pub hold_for: Option<Duration>,
}

/// One writer at a time, any number of readers. Clones are the same stream.
#[derive(Clone, Debug)]
pub struct Stream {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    live: Mutex<Live>,
    /// Readers wait here for entries.
    grown: Notify,
    input: Arc<InputStatus>,
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// An empty stream whose input counts into `input`.
    pub fn new(settings: Settings, input: Arc<InputStatus>) -> Self {
        Self {
            shared: Arc::new(Shared { live: Mutex::new(Live::new(settings)), grown: Notify::new(), input }),
        }
    }

    /// Applies changed settings from the next frame on.
    pub fn configure(&self, settings: Settings) {
        self.shared.live().configure(settings, Instant::now());
        self.shared.grown.notify_waiters();
    }

    /// The input's state and counters.
    pub fn input(&self) -> &Arc<InputStatus> {
        &self.shared.input
    }

    /// Starts writing. Whoever wrote until now is displaced: its `kick` fires with
    /// [`KickReason::TakenOver`] and what it still writes is refused.
    pub fn publisher(&self, kick: Kick) -> Publisher {
        Publisher::begin(self.shared.clone(), kick)
    }

    /// Whether a publisher is connected.
    pub fn has_publisher(&self) -> bool {
        self.shared.live().has_publisher()
    }

    /// Ends the present publisher, if any.
    pub fn kick(&self, reason: KickReason) {
        if let Some(kick) = self.shared.live().kick() {
            kick.fire(reason);
        }
    }

    /// Starts reading at the last sync frame, or at the first that comes.
    pub fn reader(&self, content: Content) -> Reader {
        Reader::new(self.shared.clone(), content)
    }

    /// What readers were last told of.
    pub fn tracks(&self) -> Option<Arc<Tracks>> {
        self.shared.live().tracks()
    }

    /// How long a frame of a kind is, as far as that is known: sound by its codec; pictures by their parameter sets or
    /// what else the source says, or measured where it says nothing or something else.
    pub fn frame_interval(&self, kind: Kind) -> Option<Duration> {
        self.shared.live().frame_interval(kind)
    }

    /// A track that the publisher sends and the input's `content` drops.
    pub fn dropped(&self) -> Option<Arc<Track>> {
        self.shared.live().dropped()
    }

    /// Once a second: bit rates, stalled tracks, idle publishers, the end of `hold`.
    pub fn tick(&self, now: impl Into<Instant>) {
        let mut live = self.shared.live();
        let grew = live.tick(now.into(), &self.shared.input);
        drop(live);
        if grew {
            self.shared.grown.notify_waiters();
        }
    }

    /// Tells readers that the stream ended, whatever `onPublisherLoss` says.
    pub fn end(&self, now: impl Into<Instant>) {
        self.shared.live().end(now.into());
        self.shared.grown.notify_waiters();
    }
}
