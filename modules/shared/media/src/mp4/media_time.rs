//! Time in the ticks of an MP4 track, exact: what `stts`, `ctts` and edit lists are added up in.

use std::num::NonZeroU32;

const MILLIS: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// A point on a track's timeline: `ticks` of `1/timescale` second.
///
/// Comparing two times of different timescales needs [`rescale`](Self::rescale) first, so there is
/// no `Ord`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaTime {
    /// Signed: with B-frames or an edit list a stream may start before zero.
    pub ticks: i64,
    /// Ticks per second.
    pub timescale: NonZeroU32,
}

impl MediaTime {
    /// `ticks` of `1/timescale` second.
    pub const fn new(ticks: i64, timescale: NonZeroU32) -> Self {
        Self { ticks, timescale }
    }

    /// A point given in milliseconds.
    pub const fn from_millis(millis: i64) -> Self {
        Self { ticks: millis, timescale: MILLIS }
    }

    /// Milliseconds, rounded to the nearest, halves away from zero.
    pub fn millis(self) -> i64 {
        self.rescale(MILLIS).ticks
    }

    /// Nanoseconds, saturating: good for pacing, not for arithmetic on the timeline.
    pub fn nanos(self) -> i64 {
        let nanos = i128::from(self.ticks) * 1_000_000_000 / i128::from(self.timescale.get());
        i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
    }

    /// The same point in another timescale, rounded to the nearest tick, halves away from zero.
    pub fn rescale(self, timescale: NonZeroU32) -> Self {
        if timescale == self.timescale {
            return self;
        }
        let from = i128::from(self.timescale.get());
        let scaled = i128::from(self.ticks) * i128::from(timescale.get());
        let half = if scaled < 0 { -(from / 2) } else { from / 2 };
        let ticks = (scaled + half) / from;
        let ticks = i64::try_from(ticks).unwrap_or(if ticks < 0 { i64::MIN } else { i64::MAX });
        Self { ticks, timescale }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescaling_rounds_to_the_nearest_tick_on_both_sides_of_zero() {
        let ninety = NonZeroU32::new(90_000).unwrap();
        assert_eq!(MediaTime::new(3003, ninety).millis(), 33);
        assert_eq!(MediaTime::new(3045, ninety).millis(), 34);
        assert_eq!(MediaTime::new(-3045, ninety).millis(), -34);
        assert_eq!(MediaTime::from_millis(40).rescale(ninety).ticks, 3600);
    }
}
