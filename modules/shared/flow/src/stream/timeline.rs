//! One timeline for a stream that outlives its publishers.

use std::time::Duration;

use av_media::{Kind, Timestamp};
use tokio::time::Instant;

/// A step back of at most this much is jitter: the frame is clamped, not re-based. As far may the tracks of a
/// publisher begin apart.
pub(super) const JITTER: i64 = 1_000_000_000;
/// A step ahead of more than this is a jump, unless that much time has passed.
const JUMP: i64 = 10_000_000_000;
/// A frame that is ahead by more than this, and by more than a few frames, is not believed before the next one
/// agrees, unless that much time has passed.
const DOUBT: i64 = 1_000_000_000;
/// What a frame is worth when nothing better is known: 25 pictures a second.
const DEFAULT_STEP: i64 = 40_000_000;
/// The least distance of two frames of a track: one tick at 90 kHz, rounded up, so that no timescale in use makes
/// one time of two.
pub(super) const LEAST_STEP: i64 = 11_112;

/// Maps publishers' times onto one timeline on which every track rises strictly. All in nanoseconds.
///
/// Publishers restart at zero, jump and come back; readers must see none of it. The first publisher's times
/// are kept as they are. Every later one is placed where the monotonic clock says: the last time of the stream plus
/// what passed since. Within one publisher every difference between frames is kept exactly, except for steps
/// back within a track (clamped) and for jumps (see [`map`](Self::map)).
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Added to the publisher's times; `None` before its first frame.
    offset: Option<i64>,
    /// The offset before a jump that may yet turn out to be one stray frame.
    before_jump: Option<i64>,
    /// The last frame was ahead and not believed.
    doubted: bool,
    newest: Option<Newest>,
    tracks: [TrackTime; 2],
}

#[derive(Clone, Copy, Debug)]
struct Newest {
    dts: i64,
    arrived: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct TrackTime {
    last: Option<i64>,
    step: Option<i64>,
    /// The present publisher has given a frame of this track.
    begun: bool,
}

/// Where a frame belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// On the stream's timeline.
    pub(super) dts: Timestamp,
    /// The timeline was re-based here, by so many nanoseconds against what the publisher's times said.
    pub(super) jumped: Option<i64>,
}

impl Timeline {
    /// Another publisher speaks from now on.
    pub(super) fn next_publisher(&mut self) {
        self.offset = None;
        self.before_jump = None;
        self.doubted = false;
        for track in &mut self.tracks {
            track.begun = false;
        }
    }

    /// The present publisher begins with `raw`, its earliest time, at `now`. [`map`](Self::map) does it with the
    /// first frame where this was not called.
    pub(super) fn begin(&mut self, raw: Timestamp, now: Instant) {
        let raw = raw.nanos();
        let target = self.newest.map_or(raw, |newest| {
            let away = nanos(now.saturating_duration_since(newest.arrived));
            newest.dts.saturating_add(away.max(DEFAULT_STEP))
        });
        self.offset = Some(whole_millis(target.saturating_sub(raw)));
    }

    /// Places a frame with the publisher's time `raw` that arrived at `now`.
    ///
    /// A jump is a step back of more than a second, or one ahead of more than ten seconds that the monotonic clock
    /// does not explain. The frame then follows its predecessor as if nothing had happened; if the next frame
    /// is on the old times again, the jump was a stray frame and the old times hold. A smaller step ahead moves
    /// that frame alone until the next one confirms it.
    pub(super) fn map(&mut self, kind: Kind, raw: Timestamp, now: Instant) -> Placed {
        if self.offset.is_none() {
            self.begin(raw, now);
        }
        let (offset, raw) = (self.offset.unwrap_or(0), raw.nanos());
        let candidate = raw.saturating_add(offset);
        if let Some(previous) = self.before_jump.take() {
            // Whichever times this frame is nearer to were not the stray's.
            let back = raw.saturating_add(previous);
            let distance = |time: i64| self.newest.map_or(0, |newest| time.abs_diff(newest.dts));
            let is_nearer = distance(back) < distance(candidate) || !self.fits(kind, candidate, now);
            if is_nearer && self.fits(kind, back, now) {
                self.offset = Some(previous);
                return self.place(kind, back, now, None);
            }
        }
        if self.fits(kind, candidate, now) {
            if let Some(ahead) = self.in_its_past(kind, candidate) {
                // All of the publisher moves, so that this track keeps its distances and both stay together.
                let ahead = whole_millis(ahead);
                self.offset = Some(offset.saturating_add(ahead));
                return self.place(kind, candidate.saturating_add(ahead), now, Some(ahead));
            }
            let doubted = std::mem::replace(&mut self.doubted, false);
            if !doubted && let Some(instead) = self.doubt(kind, candidate, now) {
                self.doubted = true;
                return self.place(kind, instead, now, None);
            }
            return self.place(kind, candidate, now, None);
        }
        let track = self.track(kind);
        let step = track.step.filter(|step| (LEAST_STEP..=JITTER).contains(step)).unwrap_or(DEFAULT_STEP);
        let target = match (track.last, self.newest) {
            (Some(last), _) => last.saturating_add(step),
            (None, Some(newest)) => newest.dts,
            (None, None) => raw,
        };
        self.before_jump = Some(offset);
        let moved = whole_millis(target.saturating_sub(raw));
        self.offset = Some(moved);
        let target = raw.saturating_add(moved);
        self.place(kind, target, now, Some(candidate.saturating_sub(target)))
    }

    /// Where a time of the present publisher is on the timeline, without placing a frame.
    pub(super) fn shift(&self, raw: Timestamp) -> Timestamp {
        raw.moved(self.offset.unwrap_or(0))
    }

    /// A track with which a publisher begins later than with the other one may lie before what its predecessor
    /// gave. By how much the publisher has to move then.
    fn in_its_past(&self, kind: Kind, candidate: i64) -> Option<i64> {
        let track = self.track(kind);
        let least = track.last.filter(|_| !track.begun)?.saturating_add(DEFAULT_STEP);
        let other_begun = self.tracks.iter().any(|track| track.begun);
        (other_begun && candidate < least).then(|| least.saturating_sub(candidate))
    }

    fn fits(&self, kind: Kind, candidate: i64, now: Instant) -> bool {
        let Some(newest) = self.newest else { return true };
        // A track that starts later is measured against the other one; it may be muxed behind it.
        let least = match self.track(kind).last {
            Some(last) => last.saturating_sub(JITTER),
            None => newest.dts.saturating_sub(JUMP),
        };
        if candidate < least {
            return false;
        }
        let ahead = candidate.saturating_sub(newest.dts);
        ahead <= JUMP || {
            let passed = nanos(now.saturating_duration_since(newest.arrived));
            ahead.abs_diff(passed) <= JUMP.unsigned_abs() / 2
        }
    }

    /// Where a frame goes that is too far ahead to be believed at once.
    fn doubt(&self, kind: Kind, candidate: i64, now: Instant) -> Option<i64> {
        let (newest, last) = (self.newest?, self.track(kind).last?);
        let step = self.track(kind).step.filter(|step| *step > LEAST_STEP)?;
        let passed = nanos(now.saturating_duration_since(newest.arrived));
        let ahead = candidate.saturating_sub(newest.dts);
        let believed = passed.saturating_add(DOUBT).max(step.saturating_mul(4));
        (ahead > believed).then(|| last.saturating_add(step))
    }

    fn place(&mut self, kind: Kind, candidate: i64, now: Instant, jumped: Option<i64>) -> Placed {
        let track = self.track_mut(kind);
        let dts = track.last.map_or(candidate, |last| candidate.max(last.saturating_add(LEAST_STEP)));
        if jumped.is_none() {
            track.step = track.last.map(|last| dts.saturating_sub(last)).or(track.step);
        }
        track.last = Some(dts);
        track.begun = true;
        if self.newest.is_none_or(|newest| dts >= newest.dts) {
            self.newest = Some(Newest { dts, arrived: now });
        }
        Placed { dts: Timestamp::from_nanos(dts), jumped }
    }

    fn track(&self, kind: Kind) -> &TrackTime {
        let [video, audio] = &self.tracks;
        match kind {
            Kind::Video => video,
            Kind::Audio => audio,
        }
    }

    fn track_mut(&mut self, kind: Kind) -> &mut TrackTime {
        let [video, audio] = &mut self.tracks;
        match kind {
            Kind::Video => video,
            Kind::Audio => audio,
        }
    }
}

/// Publishers are moved by whole milliseconds, upwards: times that were whole ticks of a clock stay so.
const fn whole_millis(nanos: i64) -> i64 {
    const MILLI: i64 = 1_000_000;
    nanos.saturating_add((-nanos.wrapping_rem(MILLI)).rem_euclid(MILLI))
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
