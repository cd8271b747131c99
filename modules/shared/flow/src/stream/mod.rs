//! A flow's stream: what an input writes and every output reads.
//!
//! It outlives its publishers and its configuration: readers stay while publishers come and go.

mod cache;
mod dedup;
mod demand;
mod interval;
mod item;
mod latency;
mod live;
mod memory;
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

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use av_media::{Kind, Track};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use cache::Cache;
pub use dedup::{Dedup, Passed, Seam};
pub use demand::{Demand, LINGER, Want};
pub use item::{Anchor, Aside, Entry, Gap, GapCause, Incoming, Item, KnownBy, Lost};
pub use latency::Latency;
pub use memory::{available as available_memory, usable as usable_memory};
pub use publisher::{Displaced, Kick, KickReason, Publisher};
pub use reader::{Reader, Start};
pub use ring::Keep;
pub use said::Said;
pub use skipped::{LeftOut, Skip, Skipped};
pub use status::{About, Changes, Current, InputStatus, OutputStatus, PerKind, State, Status};
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
    demand: Demand,
    content: watch::Sender<Content>,
    cache: Cache,
    /// Bytes that are counted in `cache`.
    kept: AtomicUsize,
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that this stream keeps.
    fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Counts what is kept after a change, under the stream's lock.
    fn count(&self, live: &Live) {
        let now = live.bytes();
        self.cache.count(self.kept.swap(now, Ordering::Relaxed), now);
    }

    /// Makes room for other streams. Returns whether there was anything to give up.
    fn give_up(&self, now: Instant) -> bool {
        let mut live = self.live();
        let given_up = live.give_up(now);
        self.count(&live);
        drop(live);
        if given_up {
            self.input.given_up.fetch_add(1, Ordering::Relaxed);
            self.grown.notify_waiters();
        }
        given_up
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.cache.count(self.kept(), 0);
    }
}

impl Stream {
    /// An empty stream whose input counts into `input`, and which keeps no more than `cache` has room for.
    pub fn new(settings: Settings, input: Arc<InputStatus>, cache: &Cache) -> Self {
        let shared = Arc::new(Shared {
            live: Mutex::new(Live::new(settings)),
            grown: Notify::new(),
            input,
            demand: Demand::default(),
            content: watch::Sender::new(settings.content),
            cache: cache.clone(),
            kept: AtomicUsize::new(0),
        });
        cache.register(&shared);
        Self { shared }
    }

    /// Whether both are handles of one stream.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Applies changed settings from the next frame on.
    pub fn configure(&self, settings: Settings) {
        self.shared.live().configure(settings, Instant::now());
        self.shared
            .content
            .send_if_modified(|content| std::mem::replace(content, settings.content) != settings.content);
        self.shared.grown.notify_waiters();
    }

    /// The input's state and counters.
    pub fn input(&self) -> &Arc<InputStatus> {
        &self.shared.input
    }

    /// Which kinds pass: for inputs that need not ask for the others.
    pub fn content(&self) -> watch::Receiver<Content> {
        self.shared.content.subscribe()
    }

    /// Who wants its frames.
    pub fn demand(&self) -> &Demand {
        &self.shared.demand
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

    /// What the present publisher sends, once readers were told of it.
    pub fn published(&self) -> Option<Arc<Tracks>> {
        self.shared.live().published()
    }

    /// Ends the present publisher, if any.
    pub fn kick(&self, reason: KickReason) {
        if let Some(kick) = self.shared.live().kick() {
            kick.fire(reason);
        }
    }

    /// Starts reading at the last sync frame, or at the first that comes.
    pub fn reader(&self, content: Content) -> Reader {
        self.reader_from(content, Start::default(), Keep::default())
    }

    /// Starts reading where `start` says. As long as the reader is there, the stream keeps what `keep` asks for.
    pub fn reader_from(&self, content: Content, start: Start, keep: Keep) -> Reader {
        Reader::new(self.shared.clone(), content, start, keep)
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
        self.shared.count(&live);
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
