//! One timeline for a stream that outlives its publishers.

use std::time::{Duration, Instant};

use av_media::Kind;

/// A step back of at most this many milliseconds is jitter: the frame is clamped, not re-based.
const JITTER_MS: i64 = 1000;
/// A step ahead of more than this many milliseconds is a jump, unless that much time has passed.
const JUMP_MS: i64 = 10_000;
/// A frame that is ahead by more than this many milliseconds, and by more than a few frames, is not believed
/// before the next one agrees, unless that much time has passed.
const DOUBT_MS: i64 = 1000;
/// What a frame is worth when nothing better is known: 25 pictures a second.
const DEFAULT_STEP_MS: i64 = 40;

/// Maps publishers' times onto one timeline that never runs back.
///
/// Publishers restart at zero, jump and come back; readers must see none of it. The first publisher's times
/// are kept as they are. Every later one is placed where the wall clock says: the last time of the stream plus
/// what passed since. Within one publisher every difference between frames is kept exactly, except for steps
/// back within a track (clamped) and for jumps (see [`map`](Self::map)).
#[derive(Debug, Default)]
pub struct Timeline {
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
}

/// Where a frame belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Milliseconds on the stream's timeline.
    pub dts: i64,
    /// Whether the timeline was re-based here.
    pub jumped: bool,
}

impl Timeline {
    /// Another publisher speaks from now on.
    pub fn next_publisher(&mut self) {
        self.offset = None;
        self.before_jump = None;
        self.doubted = false;
    }

    /// Places a frame with the publisher's time `raw` (milliseconds) that arrived at `now`.
    ///
    /// A jump is a step back of more than a second, or one ahead of more than ten seconds that the wall clock
    /// does not explain. The frame then follows its predecessor as if nothing had happened; if the next frame
    /// is on the old times again, the jump was a stray frame and the old times hold. A smaller step ahead moves
    /// that frame alone until the next one confirms it.
    pub fn map(&mut self, kind: Kind, raw: i64, now: Instant) -> Placed {
        let Some(offset) = self.offset else {
            return self.first_of_publisher(kind, raw, now);
        };
        let candidate = raw.saturating_add(offset);
        if let Some(previous) = self.before_jump.take() {
            // Whichever times this frame is nearer to were not the stray's.
            let back = raw.saturating_add(previous);
            let distance = |time: i64| self.newest.map_or(0, |newest| time.abs_diff(newest.dts));
            let is_nearer = distance(back) < distance(candidate) || !self.fits(kind, candidate, now);
            if is_nearer && self.fits(kind, back, now) {
                self.offset = Some(previous);
                return self.place(kind, back, now, false);
            }
        }
        if self.fits(kind, candidate, now) {
            let doubted = std::mem::replace(&mut self.doubted, false);
            if !doubted && let Some(instead) = self.doubt(kind, candidate, now) {
                self.doubted = true;
                return self.place(kind, instead, now, false);
            }
            return self.place(kind, candidate, now, false);
        }
        let track = self.track(kind);
        let step = track.step.filter(|step| (1..=1000).contains(step)).unwrap_or(DEFAULT_STEP_MS);
        let target = match (track.last, self.newest) {
            (Some(last), _) => last + step,
            (None, Some(newest)) => newest.dts,
            (None, None) => raw,
        };
        self.before_jump = Some(offset);
        self.offset = Some(target.saturating_sub(raw));
        self.place(kind, target, now, true)
    }

    /// Where a time of the present publisher is on the timeline, without placing a frame.
    pub fn shift(&self, raw: i64) -> i64 {
        raw.saturating_add(self.offset.unwrap_or(0))
    }

    fn first_of_publisher(&mut self, kind: Kind, raw: i64, now: Instant) -> Placed {
        let Some(newest) = self.newest else {
            self.offset = Some(0);
            return self.place(kind, raw, now, false);
        };
        let away =
            i64::try_from(now.saturating_duration_since(newest.arrived).as_millis()).unwrap_or(i64::MAX);
        let target = newest.dts.saturating_add(away.max(DEFAULT_STEP_MS));
        self.offset = Some(target.saturating_sub(raw));
        self.place(kind, target, now, true)
    }

    fn fits(&self, kind: Kind, candidate: i64, now: Instant) -> bool {
        let Some(newest) = self.newest else { return true };
        // A track that starts later is measured against the other one; it may be muxed behind it.
        let least = match self.track(kind).last {
            Some(last) => last.saturating_sub(JITTER_MS),
            None => newest.dts.saturating_sub(JUMP_MS),
        };
        if candidate < least {
            return false;
        }
        let ahead = candidate.saturating_sub(newest.dts);
        ahead <= JUMP_MS || {
            let passed = now.saturating_duration_since(newest.arrived);
            Duration::from_millis(ahead.unsigned_abs()).abs_diff(passed)
                <= Duration::from_millis(JUMP_MS as u64 / 2)
        }
    }

    /// Where a frame goes that is too far ahead to be believed at once.
    fn doubt(&self, kind: Kind, candidate: i64, now: Instant) -> Option<i64> {
        let (newest, last) = (self.newest?, self.track(kind).last?);
        let step = self.track(kind).step.filter(|step| *step > 0)?;
        let passed = i64::try_from(now.saturating_duration_since(newest.arrived).as_millis()).ok()?;
        let ahead = candidate.saturating_sub(newest.dts);
        let believed = passed.saturating_add(DOUBT_MS).max(step.saturating_mul(4));
        (ahead > believed).then(|| last.saturating_add(step))
    }

    fn place(&mut self, kind: Kind, candidate: i64, now: Instant, jumped: bool) -> Placed {
        let track = self.track_mut(kind);
        let dts = track.last.map_or(candidate, |last| candidate.max(last));
        if !jumped {
            track.step = track.last.map(|last| dts - last).or(track.step);
        }
        track.last = Some(dts);
        if self.newest.is_none_or(|newest| dts >= newest.dts) {
            self.newest = Some(Newest { dts, arrived: now });
        }
        Placed { dts, jumped }
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

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{Audio, Video};

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn the_first_publishers_times_pass_unchanged_wherever_they_start() {
        for base in [0, (1 << 24) - 10_000, (1 << 31) - 10_000, (1 << 32) - 10_000] {
            let (mut timeline, start) = (Timeline::default(), Instant::now());
            for i in 0..600_i64 {
                let now = at(start, i as u64 * 40);
                assert_eq!(timeline.map(Video, base + i * 40, now).dts, base + i * 40);
                assert_eq!(timeline.map(Audio, base + i * 40 - 7, now).dts, base + i * 40 - 7);
            }
        }
    }

    #[test]
    fn a_publisher_that_returns_at_zero_goes_on_after_the_time_it_was_away() {
        let (mut timeline, start) = (Timeline::default(), Instant::now());
        timeline.map(Video, 5000, start);
        timeline.next_publisher();
        assert_eq!(timeline.map(Video, 0, at(start, 2000)), Placed { dts: 7000, jumped: true });
        assert_eq!(timeline.map(Video, 33, at(start, 2033)), Placed { dts: 7033, jumped: false });
    }

    #[test]
    fn one_stray_frame_changes_nothing_for_the_frames_after_it() {
        let (mut timeline, start) = (Timeline::default(), Instant::now());
        for i in 0..10 {
            timeline.map(Video, i * 40, at(start, i as u64 * 40));
        }
        assert_eq!(timeline.map(Video, 9_800_000, at(start, 400)).dts, 400);
        assert_eq!(timeline.map(Video, 440, at(start, 440)), Placed { dts: 440, jumped: false });
    }

    #[test]
    fn one_stray_frame_early_in_a_stream_changes_nothing_for_the_frames_after_it() {
        for stray in [0, 4000, 8000] {
            let (mut timeline, start) = (Timeline::default(), Instant::now());
            for i in 0..75 {
                timeline.map(Video, i * 40, start);
                timeline.map(Audio, i * 40 + 5, start);
            }
            assert_eq!(timeline.map(Video, stray, start).dts, 3000);
            for i in 75..200 {
                assert_eq!(timeline.map(Audio, i * 40 + 5, start).dts, i * 40 + 5, "{stray}");
                assert_eq!(timeline.map(Video, i * 40 + 40, start).dts, i * 40 + 40, "{stray}");
            }
        }
    }

    #[test]
    fn a_gap_in_a_stream_that_arrives_at_once_is_kept() {
        let (mut timeline, start) = (Timeline::default(), Instant::now());
        for i in 0..10 {
            timeline.map(Video, i * 40, start);
        }
        timeline.map(Video, 5000, start);
        for i in 1..10 {
            assert_eq!(timeline.map(Video, 5000 + i * 40, start).dts, 5000 + i * 40);
        }
    }

    #[test]
    fn sound_that_is_muxed_late_keeps_its_distance_to_the_pictures() {
        let (mut timeline, start) = (Timeline::default(), Instant::now());
        for i in 0..45 {
            timeline.map(Video, i * 40, start);
        }
        for i in 45..100 {
            assert_eq!(timeline.map(Audio, (i - 45) * 40, start).dts, (i - 45) * 40);
            assert_eq!(timeline.map(Video, i * 40, start).dts, i * 40);
        }
    }

    #[test]
    fn a_step_back_for_good_is_one_jump() {
        let (mut timeline, start) = (Timeline::default(), Instant::now());
        for i in 0..10 {
            timeline.map(Video, 100_000 + i * 40, at(start, i as u64 * 40));
        }
        assert_eq!(timeline.map(Video, 0, at(start, 400)), Placed { dts: 100_400, jumped: true });
        assert_eq!(timeline.map(Video, 40, at(start, 440)), Placed { dts: 100_440, jumped: false });
        assert_eq!(timeline.map(Audio, 50, at(start, 450)), Placed { dts: 100_450, jumped: false });
    }

    #[test]
    fn a_pause_that_the_wall_clock_explains_is_kept() {
        let (mut timeline, start) = (Timeline::default(), Instant::now());
        timeline.map(Video, 0, start);
        assert_eq!(timeline.map(Video, 60_000, at(start, 60_000)), Placed { dts: 60_000, jumped: false });
    }

    #[test]
    fn jitter_never_runs_back_within_a_track() {
        let (mut timeline, start) = (Timeline::default(), Instant::now());
        timeline.map(Video, 1000, start);
        assert_eq!(timeline.map(Video, 990, start).dts, 1000);
        assert_eq!(timeline.map(Audio, 500, start).dts, 500);
    }
}
