//! The tracks of a stream at one moment.

use std::sync::Arc;

use av_media::{Kind, Track};

use crate::config::Content;

/// What a reader must know before the frames that follow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tracks {
    /// Pictures.
    pub video: Option<Arc<Track>>,
    /// Sound.
    pub audio: Option<Arc<Track>>,
}

impl Tracks {
    /// The track of a kind.
    pub fn get(&self, kind: Kind) -> Option<&Arc<Track>> {
        match kind {
            Kind::Video => self.video.as_ref(),
            Kind::Audio => self.audio.as_ref(),
        }
    }

    /// Sets the track of a kind.
    pub fn set(&mut self, track: Arc<Track>) {
        match track.kind() {
            Kind::Video => self.video = Some(track),
            Kind::Audio => self.audio = Some(track),
        }
    }

    /// No track at all.
    pub fn is_empty(&self) -> bool {
        self.video.is_none() && self.audio.is_none()
    }

    /// Only what `content` admits.
    pub fn filtered(&self, content: Content) -> Self {
        let pick = |kind| self.get(kind).filter(|_| content.admits(kind)).cloned();
        Self { video: pick(Kind::Video), audio: pick(Kind::Audio) }
    }

    /// Tracks in the order in which headers are sent.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Track>> {
        self.video.iter().chain(self.audio.iter())
    }
}
