//! What an input writes and what a reader gets.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use av_media::{Frame, Kind, Timestamp, Track};
use tokio::time::Instant;

use super::Tracks;

/// What an input writes, in its own times.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// A track's configuration: before its first frame, and at each change.
    Track(Track),
    /// A frame.
    Frame(Frame),
    /// Which kinds the source says that it sends: readers are not kept waiting for another.
    Expect {
        /// Pictures will come, for all that is known.
        video: bool,
        /// Sound will come, for all that is known.
        audio: bool,
    },
    /// What only the source's protocol understands.
    Aside(Aside),
    /// By the source's own clock, `time` is `utc`.
    WallClock {
        /// In the source's own times.
        time: Timestamp,
        /// The UTC time of that moment.
        utc: SystemTime,
    },
}

/// What passes through a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// What follows is coded so. Always the first item of a reader, and again at each change.
    Tracks(Arc<Tracks>),
    /// A frame, on the stream's timeline.
    Frame(Frame),
    /// What only one protocol understands, in its place among the frames.
    Aside(Aside),
    /// This stream time is this UTC time. Each reader gets the one that holds where it starts, before the first
    /// frame; a [`Gap`](Self::Gap) brings the next. The same one comes again when more is known of the source's clock.
    Anchor(Anchor),
    /// The timeline was re-based.
    Gap(Gap),
    /// The publisher is gone, or another one comes: what was sent so far is no place to start at any more.
    Away,
    /// There was no room for what was sent since the last place to start: it is no such place any more, and who keeps it
    /// for others lets it go as well.
    GivenUp,
    /// This reader was too slow and goes on at a later sync frame.
    Lost(Lost),
    /// The stream ended (`onPublisherLoss`: `close`); it may begin again.
    Ended,
}

/// An item, and what was decided of it when it was written.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The item.
    pub item: Item,
    /// When its last byte arrived: for the delay inside the module.
    pub arrived: Instant,
    /// Whether a decoder that knows the tracks may start here: the one rule for all outputs.
    pub starts: bool,
}

impl Entry {
    pub(super) fn new(item: Item, arrived: Instant) -> Self {
        Self { item, arrived, starts: false }
    }
}

/// What only one protocol understands: a message that passes beside the frames as it came. Outputs of that
/// protocol look into `content`, all others pass over it.
#[derive(Clone)]
pub struct Aside {
    /// Where it belongs; `None`: where it stands.
    pub time: Option<Timestamp>,
    /// The protocol's own type.
    pub content: Arc<dyn Any + Send + Sync>,
    /// Bytes that `content` keeps in memory.
    pub size: usize,
    /// It describes the stream: the newest such one is given to readers that start later, right after the tracks.
    pub keep_latest: bool,
}

impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, size, keep_latest, .. } = self;
        write!(f, "Aside {{ time: {time:?}, size: {size}, keep_latest: {keep_latest} }}")
    }
}

/// The same message, not an equal one.
impl PartialEq for Aside {
    fn eq(&self, other: &Self) -> bool {
        self.time == other.time && Arc::ptr_eq(&self.content, &other.content)
    }
}

/// Why times do not simply go on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gap {
    /// The reason.
    pub cause: GapCause,
    /// Holds from here on.
    pub anchor: Anchor,
}

/// Why a timeline was re-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapCause {
    /// The publisher was lost, and it or another one has come.
    Returned,
    /// Another publisher displaced the one that was live.
    TakenOver,
    /// The publisher's own times jumped.
    Jump {
        /// By how many nanoseconds against what was expected; negative: back.
        nanos: i64,
    },
}

/// A point of the stream's timeline on the world's clock. Wall time comes from here only: stream time that is
/// added up drifts with the source's clock, and pauses make it wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anchor {
    /// Stream time.
    pub time: Timestamp,
    /// The UTC time of that moment.
    pub utc: SystemTime,
    /// How well it is known.
    pub known_by: KnownBy,
    /// The same moment by the source's own clock, where it tells (RTCP sender reports): as right or wrong as that is.
    pub by_source: Option<SystemTime>,
}

/// Where an anchor's UTC time is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KnownBy {
    /// When the frame arrived here: later than it was taken by the delay of source and network.
    Arrival,
}

/// Frames that a reader did not get, of the kinds that it reads: from the first it missed to where it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Pictures.
    pub video: u64,
    /// Pieces of sound.
    pub audio: u64,
}

impl Lost {
    /// Frames of a kind.
    pub const fn get(self, kind: Kind) -> u64 {
        match kind {
            Kind::Video => self.video,
            Kind::Audio => self.audio,
        }
    }

    /// Frames of both kinds.
    pub const fn total(self) -> u64 {
        self.video.saturating_add(self.audio)
    }

    pub(super) const fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Video => self.video += 1,
            Kind::Audio => self.audio += 1,
        }
    }

    pub(super) const fn since(self, earlier: Self) -> Self {
        Self {
            video: self.video.saturating_sub(earlier.video),
            audio: self.audio.saturating_sub(earlier.audio),
        }
    }
}
