//! A flow's stream: what an input writes and every output reads.
//!
//! It outlives its publishers and its configuration: readers stay while publishers come and go.

mod latency;
mod publisher;
mod reader;
mod ring;
mod status;
mod timeline;
mod tracks;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use av_media::{Frame, Track};
use bytes::Bytes;
use tokio::sync::Notify;

pub use latency::Latency;
pub use publisher::{Displaced, Kick, KickReason, Publisher};
pub use reader::Reader;
pub use status::{Changes, Current, InputStatus, OutputStatus, PerKind, State, Status};
pub use tracks::Tracks;

use crate::config::Content;
use ring::Ring;

/// What passes through a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// What follows is coded so. Always the first item of a reader, and again at each change.
    Tracks(Arc<Tracks>),
    /// A frame; its times are milliseconds on the stream's timeline.
    Frame(Frame),
    /// A data message of RTMP (AMF0), with its time in milliseconds on the stream's timeline.
    Data {
        /// The message's body.
        payload: Bytes,
        /// Stream time.
        millis: i64,
    },
    /// The timeline was re-based: another publisher, or a jump.
    Gap,
    /// The publisher is gone, or another one comes: what was sent so far is no place to start at any more.
    Away,
    /// This reader was too slow and goes on at a later sync frame.
    Lost {
        /// Entries it did not get.
        frames: u64,
    },
    /// The stream ended (`onPublisherLoss`: `close`); it may begin again.
    Ended,
}

/// An item and when its last byte arrived.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The item.
    pub item: Item,
    /// For the delay inside the module.
    pub arrived: Instant,
}

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
    ring: Mutex<Ring>,
    /// Readers wait here for entries.
    grown: Notify,
    input: Arc<InputStatus>,
}

impl Shared {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// An empty stream whose input counts into `input`.
    pub fn new(settings: Settings, input: Arc<InputStatus>) -> Self {
        Self {
            shared: Arc::new(Shared { ring: Mutex::new(Ring::new(settings)), grown: Notify::new(), input }),
        }
    }

    /// Applies changed settings from the next frame on.
    pub fn configure(&self, settings: Settings) {
        self.shared.ring().settings = settings;
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

    /// When media last arrived from the present publisher; `None` when there is no publisher.
    pub fn live_since(&self) -> Option<Instant> {
        self.shared.ring().publisher_heard()
    }

    /// Whether a publisher is connected, and since when nothing came from it.
    pub fn has_publisher(&self) -> bool {
        self.shared.ring().has_publisher()
    }

    /// Ends the present publisher, if any.
    pub fn kick(&self, reason: KickReason) {
        if let Some(kick) = self.shared.ring().kick() {
            kick.fire(reason);
        }
    }

    /// Starts reading at the last sync frame, or at the first that comes.
    pub fn reader(&self, content: Content) -> Reader {
        Reader::new(self.shared.clone(), content)
    }

    /// What readers were last told of.
    pub fn tracks(&self) -> Option<Arc<Tracks>> {
        self.shared.ring().announced()
    }

    /// A track that the publisher sends and the input's `content` drops.
    pub fn dropped(&self) -> Option<Arc<Track>> {
        self.shared.ring().dropped()
    }

    /// Once a second: bit rates, stalled tracks, idle publishers, the end of `hold`.
    pub fn tick(&self, now: Instant) {
        let mut ring = self.shared.ring();
        let grew = ring.tick(now, &self.shared.input);
        drop(ring);
        if grew {
            self.shared.grown.notify_waiters();
        }
    }

    /// Tells readers that the stream ended, whatever `onPublisherLoss` says.
    pub fn end(&self, now: Instant) {
        self.shared.ring().end(now);
        self.shared.grown.notify_waiters();
    }
}
