//! What an input received and did not pass on: counted, shown, and said once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use av_media::Kind;

/// Reasons that are remembered as said. What comes beyond is counted only.
const MAX_SAID: usize = 32;

/// Why something was not passed on: label `reason` of `av_frames_skipped_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// A codec that is not carried.
    Codec,
    /// It breaks its format.
    Malformed,
    /// Of no use before a sync frame, or before the configuration, that has not come yet.
    BeforeSync,
    /// Beyond a bound.
    TooLarge,
}

impl Skipped {
    /// All, in the order of metrics.
    pub const ALL: [Self; 4] = [Self::Codec, Self::Malformed, Self::BeforeSync, Self::TooLarge];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Codec => "codec",
            Self::Malformed => "malformed",
            Self::BeforeSync => "beforeSync",
            Self::TooLarge => "tooLarge",
        }
    }
}

/// A track that an input receives and does not pass on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// What it is coded in, for people.
    pub codec: String,
    /// Why it is left out.
    pub why: String,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Skips {
    counts: [AtomicU64; 4],
    left_out: Mutex<[Option<LeftOut>; 2]>,
    said: Mutex<Said>,
    has_news: AtomicBool,
}

#[derive(Debug, Default)]
struct Said {
    /// Without their numbers, which a sender can change at will.
    reasons: Vec<String>,
    news: Vec<String>,
}

impl Skips {
    /// Counts messages.
    pub fn add(&self, reason: Skipped, count: u64) {
        self.cell(reason).fetch_add(count, Ordering::Relaxed);
    }

    /// Messages that were skipped for this reason.
    pub fn get(&self, reason: Skipped) -> u64 {
        self.cell(reason).load(Ordering::Relaxed)
    }

    fn cell(&self, reason: Skipped) -> &AtomicU64 {
        let [codec, malformed, before_sync, too_large] = &self.counts;
        match reason {
            Skipped::Codec => codec,
            Skipped::Malformed => malformed,
            Skipped::BeforeSync => before_sync,
            Skipped::TooLarge => too_large,
        }
    }

    /// What is to be said in the log, unless it was said before.
    pub fn say(&self, text: &str) {
        let mut said = lock(&self.said);
        let reason: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        if said.reasons.len() < MAX_SAID && !said.reasons.contains(&reason) {
            said.reasons.push(reason);
            said.news.push(text.to_owned());
            self.has_news.store(true, Ordering::Release);
        }
    }

    /// What was not said yet. For whoever runs the input: it knows how the peer is called.
    pub fn take_news(&self) -> Vec<String> {
        if !self.has_news.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut lock(&self.said).news)
    }

    /// Shows a track as left out. Returns whether that is new.
    pub fn leave_out(&self, kind: Kind, track: LeftOut) -> bool {
        let mut left_out = lock(&self.left_out);
        let shown = of_kind(&mut left_out, kind);
        let is_new = shown.as_ref() != Some(&track);
        *shown = Some(track);
        is_new
    }

    /// A track of this kind is passed on.
    pub fn carried(&self, kind: Kind) {
        *of_kind(&mut lock(&self.left_out), kind) = None;
    }

    /// The track of this kind that is left out.
    pub fn left_out(&self, kind: Kind) -> Option<LeftOut> {
        of_kind(&mut lock(&self.left_out), kind).clone()
    }
}

fn of_kind([video, audio]: &mut [Option<LeftOut>; 2], kind: Kind) -> &mut Option<LeftOut> {
    match kind {
        Kind::Video => video,
        Kind::Audio => audio,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_said_once_whatever_its_numbers_are_and_not_for_ever_new_ones() {
        let skips = Skips::default();
        assert_eq!(skips.take_news(), [""; 0]);
        for length in 1..1000 {
            skips.say(&format!("video tag of {length} bytes"));
        }
        assert_eq!(skips.take_news(), ["video tag of 1 bytes"]);
        for reason in 0..1000 {
            skips.say(&"x".repeat(reason));
        }
        assert_eq!(skips.take_news().len(), MAX_SAID - 1);
    }

    #[test]
    fn a_track_is_shown_as_left_out_until_one_of_its_kind_is_carried() {
        let skips = Skips::default();
        let vp6 = LeftOut { codec: "VP6".into(), why: "not carried".into() };
        assert!(skips.leave_out(Kind::Video, vp6.clone()));
        assert!(!skips.leave_out(Kind::Video, vp6.clone()));
        skips.carried(Kind::Audio);
        assert_eq!(skips.left_out(Kind::Video), Some(vp6));
        skips.carried(Kind::Video);
        assert_eq!(skips.left_out(Kind::Video), None);
    }
}
