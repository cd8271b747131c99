//! What was received and is not passed on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use av_media::Kind;

/// Why: the label `reason` of `av_frames_skipped_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Of a codec that is not carried.
    Codec,
    /// It does not follow its format.
    Malformed,
    /// Pictures before the first that a decoder can start at.
    BeforeSync,
    /// Larger than what is taken.
    TooLarge,
}

impl Skip {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 4] = [Self::Codec, Self::Malformed, Self::BeforeSync, Self::TooLarge];

    /// As in the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Codec => "codec",
            Self::Malformed => "malformed",
            Self::BeforeSync => "beforeSync",
            Self::TooLarge => "tooLarge",
        }
    }
}

/// A track that is left out, as `{"codec", "dropped"}` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name where it has one: `vp09`, `avc1.64001f`.
    pub codec: String,
    /// Why.
    pub dropped: String,
}

/// One input's.
#[derive(Debug, Default)]
pub struct Skipped {
    counts: [AtomicU64; 4],
    tracks: Mutex<[Option<LeftOut>; 2]>,
}

impl Skipped {
    /// Counts what is not passed on.
    pub fn add(&self, reason: Skip, count: u64) {
        if let Some(counter) = self.counts.get(reason as usize) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// In the order of [`Skip::ALL`].
    pub fn counts(&self) -> [u64; 4] {
        self.counts.each_ref().map(|counter| counter.load(Ordering::Relaxed))
    }

    /// Sets the track of a kind that is left out, or that none is. Returns whether that is news.
    pub fn set(&self, kind: Kind, track: Option<LeftOut>) -> bool {
        let [video, audio] = &mut *self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        let known = if kind == Kind::Video { video } else { audio };
        let is_news = *known != track;
        *known = track;
        is_news
    }

    /// The track of a kind that is left out.
    pub fn get(&self, kind: Kind) -> Option<LeftOut> {
        let [video, audio] = &*self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        if kind == Kind::Video { video.clone() } else { audio.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_is_counted_by_reason_and_a_track_is_news_once() {
        let skipped = Skipped::default();
        skipped.add(Skip::TooLarge, 2);
        skipped.add(Skip::Codec, 1);
        assert_eq!(skipped.counts(), [1, 0, 0, 2]);
        let track = Some(LeftOut { codec: "vp09".into(), dropped: "codec vp09 is not carried".into() });
        assert!(skipped.set(Kind::Video, track.clone()));
        assert!(!skipped.set(Kind::Video, track.clone()));
        assert_eq!((skipped.get(Kind::Video), skipped.get(Kind::Audio)), (track, None));
        assert!(skipped.set(Kind::Video, None));
    }
}
