//! The present publisher, as the stream knows it.

use av_media::{Frame, Kind};
use tokio::time::Instant;

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

    /// Readers' pictures start anew, at a sync frame.
    pub(super) fn restart_pictures(&mut self) {
        self.needs_sync = true;
        self.pictures = false;
    }
}
