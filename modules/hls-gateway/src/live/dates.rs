//! What time it is by UTC where a stream is: EXT-X-PROGRAM-DATE-TIME (RFC 8216bis §4.4.4.6).
//!
//! A frame is known to have been taken before it arrived. So of all that arrive, the one that came with the least delay
//! says best when the stream's times are. Between two discontinuities dates follow the media to the tick, but for a slow
//! correction: the source's clock is not ours. A step of the machine's clock needs a discontinuity, and so do times that
//! jump ahead.

use std::time::{Duration, Instant, SystemTime};

use av_flow::stream::Anchor;
use av_media::Timestamp;

/// How far the least delay is looked back for: twice this at most.
const LOOKED_BACK: i64 = 30 * 1_000_000_000;
/// A difference of the clock that is larger is a step.
const STEP: Duration = Duration::from_secs(1);
/// Dates are corrected by at most a thousandth of the time that passes: nobody sees that.
const SLEW: i64 = 1000;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Dates {
    /// A moment by UTC, by the monotonic clock, and of the stream.
    known: Option<(SystemTime, Instant, Timestamp)>,
    /// The last anchor.
    said: Option<(SystemTime, Timestamp)>,
    /// The least delay against `known` of a while ago and of late, in nanoseconds, and when the latter began.
    before: Option<i64>,
    lately: Option<(i64, Timestamp)>,
    /// dts of the first frame since the last break, and the UTC time at which it is shown.
    began: Option<(Timestamp, SystemTime)>,
    /// How far `began` has been corrected up to.
    corrected: Timestamp,
    /// The clock stepped by that much.
    stepped: Option<i64>,
    /// The newest frame, and when it came.
    newest: Option<(Timestamp, Instant)>,
    /// Since the last break times jumped ahead from one frame to the next. A stream that is sent faster than it is played does
    /// not do that.
    jumped: bool,
}

impl Dates {
    /// A moment of the stream, that was at `arrived` by the monotonic clock.
    pub(super) fn anchor(&mut self, anchor: Anchor, arrived: Instant) {
        let said = Some((anchor.utc, anchor.time));
        // The same again tells more of the source's clock, which is none of ours.
        if self.said != said {
            let known = Some((anchor.utc, arrived, anchor.time));
            let Self { began, newest, jumped, .. } = *self;
            *self = Self { known, said, began, newest, jumped, ..Self::default() };
        }
    }

    /// A frame with that dts has come.
    pub(super) fn came(&mut self, dts: Timestamp, arrived: Instant) {
        let (newest, at) = *self.newest.get_or_insert((dts, arrived));
        if dts > newest {
            let passed = nanos(arrived.saturating_duration_since(at));
            self.jumped |= dts.nanos_since(newest).saturating_sub(passed) > nanos(STEP);
            self.newest = Some((dts, arrived));
        }
        let Some((_, at, time)) = self.known else { return };
        let passed = match arrived.checked_duration_since(at) {
            Some(passed) => nanos(passed),
            None => nanos(at.saturating_duration_since(arrived)).saturating_neg(),
        };
        let delay = passed.saturating_sub(dts.nanos_since(time));
        let (least, since) = self.lately.get_or_insert((delay, dts));
        *least = delay.min(*least);
        if dts.nanos_since(*since) > LOOKED_BACK {
            self.before = self.lately.replace((delay, dts)).map(|(least, _)| least);
        }
    }

    /// What the machine's clock says.
    pub(super) fn clock(&mut self, utc: SystemTime, now: Instant) {
        let Some((known, at, time)) = self.known else { return };
        let Some(expected) = known.checked_add(now.saturating_duration_since(at)) else { return };
        let off = match utc.duration_since(expected) {
            Ok(ahead) => nanos(ahead),
            Err(behind) => nanos(behind.duration()).saturating_neg(),
        };
        if off.unsigned_abs() > nanos(STEP).unsigned_abs() {
            self.stepped = Some(off);
        } else if let Some(known) = moved(known, off) {
            self.stepped = None;
            self.known = Some((known, at, time));
        }
    }

    /// Whether what comes has to be another timeline, because the clock stepped.
    pub(super) const fn has_stepped(&self) -> bool {
        self.stepped.is_some()
    }

    /// Whether what comes has to be another timeline, because times jumped and its frames would be dated after they came. Of
    /// times that jump back or stand still nobody can tell that: they look like frames that are late.
    pub(super) fn are_ahead(&self, dts: Timestamp, pts: Timestamp, shift: i64) -> bool {
        let (said, is) = (self.of(dts), self.utc(pts.moved(shift.saturating_neg())));
        let ahead = said.zip(is).and_then(|(said, is)| said.duration_since(is).ok());
        self.jumped && ahead.is_some_and(|ahead| ahead > STEP)
    }

    /// When the moment of the stream is by UTC, as far as is known now.
    fn utc(&self, time: Timestamp) -> Option<SystemTime> {
        let (utc, _, known) = self.known?;
        let least =
            [self.before, self.lately.map(|(least, _)| least)].into_iter().flatten().min().unwrap_or(0);
        moved(utc, time.nanos_since(known).saturating_add(least))
    }

    /// A timeline begins with that frame. `shift` was added to its times.
    pub(super) fn begin(&mut self, dts: Timestamp, pts: Timestamp, shift: i64) {
        if let Some(off) = self.stepped.take()
            && let Some((utc, at, time)) = self.known
        {
            self.known = moved(utc, off).map(|utc| (utc, at, time));
        }
        self.began = self.utc(pts.moved(shift.saturating_neg())).map(|utc| (dts, utc));
        self.corrected = dts;
        self.jumped = false;
    }

    /// The date of a frame of the timeline, by its dts.
    pub(super) fn of(&self, dts: Timestamp) -> Option<SystemTime> {
        let (began, utc) = self.began?;
        moved(utc, dts.nanos_since(began))
    }

    /// A segment begins with that dts: what drift there was up to here is corrected from here on, slowly.
    pub(super) fn correct(&mut self, dts: Timestamp, pts: Timestamp, shift: i64) {
        let most = dts.nanos_since(self.corrected) / SLEW;
        self.corrected = dts;
        let said = self.of(dts);
        let is = self.utc(pts.moved(shift.saturating_neg()));
        let (Some(said), Some(is), Some((began, utc)), true) = (said, is, self.began, most > 0) else {
            return;
        };
        let off = match is.duration_since(said) {
            Ok(ahead) => nanos(ahead),
            Err(behind) => nanos(behind.duration()).saturating_neg(),
        };
        if let Some(utc) = moved(utc, off.clamp(most.saturating_neg(), most)) {
            self.began = Some((began, utc));
        }
    }
}

fn moved(utc: SystemTime, nanos: i64) -> Option<SystemTime> {
    let by = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { utc.checked_sub(by) } else { utc.checked_add(by) }
}

/// In nanoseconds.
pub(super) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use av_flow::stream::KnownBy;

    use super::*;

    const MILLI: i64 = 1_000_000;

    fn utc(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_000 + millis)
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_nanos(millis * MILLI)
    }

    /// The first frame arrived at 0 ms.
    fn begun(now: Instant) -> Dates {
        let mut dates = Dates::default();
        dates.anchor(Anchor { time: at(0), utc: utc(0), known_by: KnownBy::Arrival, by_source: None }, now);
        dates.came(at(0), now);
        dates
    }

    #[test]
    fn the_frame_that_came_with_the_least_delay_says_what_time_it_is() {
        let now = Instant::now();
        let mut dates = begun(now);
        // The first frame was 400 ms on its way; the others come at once behind it, and then as they are taken.
        for frame in 1..25 {
            dates
                .came(at(frame * 40), now + Duration::from_millis((frame * 40 - 400).max(1).cast_unsigned()));
        }
        dates.begin(at(0), at(0), 0);
        assert_eq!(dates.of(at(1000)), Some(utc(1000) - Duration::from_millis(400)));
    }

    #[test]
    fn drift_is_followed_slowly_and_late_frames_move_nothing() {
        let now = Instant::now();
        let mut dates = begun(now);
        dates.begin(at(0), at(0), 0);
        // The source's clock is slow by one in ten thousand, and every other frame is late.
        let mut last = utc(0);
        for second in 1..1000_i64 {
            let taken = u64::try_from(second).unwrap() * 10_001 / 10;
            dates.came(
                at(second * 1000),
                now + Duration::from_millis(taken + second.cast_unsigned() % 2 * 300),
            );
            dates.correct(at(second * 1000), at(second * 1000), 0);
            let date = dates.of(at(second * 1000)).unwrap();
            let step = date.duration_since(last).unwrap().as_secs_f64();
            assert!((0.998..1.002).contains(&step), "{step}");
            last = date;
        }
        let off = utc(999 * 10_001 / 10).duration_since(last).unwrap();
        assert!(off < Duration::from_millis(10), "{off:?}");
    }

    #[test]
    fn times_that_jump_ahead_need_a_break_and_frames_that_are_late_do_not() {
        let now = Instant::now();
        let mut dates = begun(now);
        dates.begin(at(0), at(0), 0);
        let came = |dates: &mut Dates, dts: i64, arrived: u64| {
            dates.came(at(dts), now + Duration::from_millis(arrived));
            dates.are_ahead(at(dts), at(dts), 0)
        };
        assert!(!came(&mut dates, 1000, 1000) && !came(&mut dates, 2000, 6000));
        assert!((5..=12).all(|half| !came(&mut dates, half * 500, 6000)));
        // Sent faster than it is played.
        assert!((13..=22).all(|half| !came(&mut dates, half * 500, 6000)));
        // Five seconds that took none.
        assert!(came(&mut dates, 16_000, 7000));
        dates.begin(at(16_000), at(16_000), 0);
        assert!(!came(&mut dates, 17_000, 8000));
    }

    #[test]
    fn a_step_of_the_clock_moves_dates_at_the_next_break_and_not_before() {
        let now = Instant::now();
        let mut dates = begun(now);
        dates.begin(at(0), at(0), 0);
        dates.clock(utc(10_000), now + Duration::from_secs(10));
        assert!(!dates.has_stepped());
        dates.clock(utc(3_600_000), now + Duration::from_secs(20));
        assert!(dates.has_stepped());
        assert_eq!(dates.of(at(20_000)), Some(utc(20_000)));
        dates.begin(at(30_000), at(30_000), 0);
        assert_eq!(dates.of(at(30_000)), Some(utc(3_610_000)));
        assert!(!dates.has_stepped());
    }
}
