//! The present publisher, as the stream knows it.

use std::time::{Duration, SystemTime};

use av_media::{Frame, Kind, Timestamp};
use bytes::Bytes;
use tokio::time::Instant;

use super::ring::joined;
use super::{Aside, GapCause, Kick, Tracks};

/// How long a picture waits for more of its slices after the last one.
const SLICE_WAIT: Duration = Duration::from_millis(5);
/// After so many pictures in a row that came whole they wait no longer.
const WHOLE: u8 = 50;

/// The present publisher.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) id: u64,
    pub(super) kick: Kick,
    /// All that it sends, whatever `content` admits: that may change.
    pub(super) tracks: Tracks,
    /// Whether pictures and sound will come, for all that it said.
    pub(super) expected: [bool; 2],
    /// The newest of what describes the stream.
    pub(super) aside: Option<Aside>,
    /// Frames that wait for the second track; `None` once readers were told of the tracks.
    pub(super) held: Option<Held>,
    /// Its first frame is still to come for readers, who are told then how it follows on what was before.
    pub(super) opening: Option<Opening>,
    /// What it said of its own clock: this time of its own is that UTC time.
    pub(super) wall_clock: Option<(Timestamp, SystemTime)>,
    /// Pictures are of no use before the next sync frame.
    pub(super) needs_sync: bool,
    /// Since when pictures were dropped for that.
    pub(super) waits_for_sync: Option<Instant>,
    /// Readers were given pictures of the present configuration.
    pub(super) pictures: bool,
    /// The last picture that was taken.
    pub(super) picture: Option<Last>,
    /// It sends the slices of a picture one by one, so a picture is whole when something else comes or it has waited.
    pub(super) is_sliced: bool,
    /// Pictures in a row that came whole.
    whole: u8,
    /// The picture that may not be whole, and when the last of it arrived.
    pub(super) pending: Option<(Frame, Instant)>,
    pub(super) heard: [Option<Instant>; 2],
    pub(super) began: Instant,
}

/// The last picture that was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    /// In the publisher's time.
    pub(super) time: Timestamp,
    /// Slices that came after its first part.
    pub(super) slices: u8,
    pub(super) bytes: usize,
}

/// How a publisher's frames follow on what was before.
#[derive(Clone, Copy, Debug)]
pub(super) enum Opening {
    /// There was nothing before.
    First,
    /// Something was.
    After(GapCause),
}

/// Frames in the publisher's own times.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) frames: Vec<(Frame, Instant)>,
    /// In front of how many of the frames' places each of these stands.
    pub(super) asides: Vec<(usize, Aside, Instant)>,
    pub(super) bytes: usize,
    pub(super) since: Option<Instant>,
}

impl Writer {
    pub(super) fn new(id: u64, kick: Kick, opening: Opening, now: Instant) -> Self {
        Self {
            id,
            kick,
            tracks: Tracks::default(),
            expected: [true; 2],
            aside: None,
            held: Some(Held::default()),
            opening: Some(opening),
            wall_clock: None,
            needs_sync: true,
            waits_for_sync: None,
            pictures: false,
            picture: None,
            is_sliced: false,
            whole: 0,
            pending: None,
            heard: [None; 2],
            began: now,
        }
    }

    /// When something of a kind last came, or since when it is waited for.
    pub(super) fn heard(&self, kind: Kind) -> Instant {
        let [video, audio] = &self.heard;
        match kind {
            Kind::Video => video.unwrap_or(self.began),
            Kind::Audio => audio.unwrap_or(self.began),
        }
    }

    pub(super) fn hears(&mut self, kind: Kind, now: Instant) {
        let [video, audio] = &mut self.heard;
        *(if kind == Kind::Video { video } else { audio }) = Some(now);
    }

    pub(super) fn expects(&self, kind: Kind) -> bool {
        let [video, audio] = self.expected;
        if kind == Kind::Video { video } else { audio }
    }

    /// A picture begins.
    pub(super) fn begin_picture(&mut self, frame: &Frame) {
        let begun = Last { time: frame.dts, slices: 0, bytes: frame.data.len() };
        let was_whole = self.picture.replace(begun).is_none_or(|last| last.slices == 0);
        self.whole = if was_whole { self.whole.saturating_add(1) } else { 0 };
        self.is_sliced &= self.whole < WHOLE;
    }

    /// When the picture that may not be whole has waited for long enough.
    pub(super) fn pending_until(&self) -> Option<Instant> {
        self.pending.as_ref().map(|(_, arrived)| *arrived + SLICE_WAIT)
    }

    /// Adds a slice to the picture that waits, here or for the second track.
    pub(super) fn add_slice(&mut self, slice: &Bytes, now: Instant) -> bool {
        let waiting = match (&mut self.pending, &mut self.held) {
            (Some(pending), _) => Some(pending),
            (None, Some(held)) => held.frames.last_mut(),
            (None, None) => None,
        };
        let Some((frame, arrived)) = waiting.filter(|(frame, _)| frame.kind == Kind::Video) else {
            return false;
        };
        *arrived = now;
        frame.data = joined(&frame.data, slice);
        if let Some(held) = &mut self.held {
            held.bytes += slice.len();
        }
        true
    }

    /// Readers' pictures start anew, at a sync frame.
    pub(super) fn restart_pictures(&mut self) {
        self.needs_sync = true;
        self.pictures = false;
    }
}
