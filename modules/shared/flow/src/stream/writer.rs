//! The present publisher, as the stream knows it.

use av_media::{Frame, Kind, Timestamp};
use bytes::Bytes;
use tokio::time::Instant;

use super::ring::joined;
use super::{Aside, GapCause, Kick, Tracks};

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
    /// Pictures are of no use before the next sync frame.
    pub(super) needs_sync: bool,
    /// Since when pictures were dropped for that.
    pub(super) waits_for_sync: Option<Instant>,
    /// Readers were given pictures of the present configuration.
    pub(super) pictures: bool,
    /// The last picture that was taken, in the publisher's time, and the slices that were added to it.
    pub(super) picture: Option<(Timestamp, u8)>,
    /// It sends the slices of a picture one by one, so a picture is whole when something else comes.
    pub(super) is_sliced: bool,
    /// The picture that may not be whole.
    pub(super) pending: Option<(Frame, Instant)>,
    pub(super) heard: [Option<Instant>; 2],
    pub(super) began: Instant,
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
            needs_sync: true,
            waits_for_sync: None,
            pictures: false,
            picture: None,
            is_sliced: false,
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

    /// Adds a slice to the picture that waits, here or for the second track.
    pub(super) fn add_slice(&mut self, slice: &Bytes) -> bool {
        let waiting = match (&mut self.pending, &mut self.held) {
            (Some((frame, _)), _) => Some(frame),
            (None, Some(held)) => held.frames.last_mut().map(|(frame, _)| frame),
            (None, None) => None,
        };
        let Some(frame) = waiting.filter(|frame| frame.kind == Kind::Video) else { return false };
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
