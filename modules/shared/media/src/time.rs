//! Time on a stream's timeline.

use std::num::NonZeroU32;
use std::time::Duration;

const NANOS_PER_SECOND: i128 = 1_000_000_000;
const NANOS_PER_MILLI: i64 = 1_000_000;

/// A point on a stream's timeline, in nanoseconds: the one kind of time from depacketiser or demuxer to muxer or
/// packetiser. Signed: with B-frames or an edit list a stream may start before zero. 292 years either way.
///
/// A nanosecond is far finer than any tick that is used (11 us at 90 kHz, 21 us at 48 kHz), so a tick that was
/// converted comes out as the same tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Where a timeline starts.
    pub const ZERO: Self = Self(0);

    /// A point given in nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// A point given in milliseconds, saturating.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(NANOS_PER_MILLI))
    }

    /// Milliseconds, rounded to the nearest, halves away from zero as FLV muxers do.
    pub const fn millis(self) -> i64 {
        let half = if self.0 < 0 { -NANOS_PER_MILLI / 2 } else { NANOS_PER_MILLI / 2 };
        self.0.saturating_add(half) / NANOS_PER_MILLI
    }

    /// A point given in ticks of `1/timescale` second, rounded to the nearest nanosecond, saturating.
    pub fn from_ticks(ticks: i64, timescale: NonZeroU32) -> Self {
        Self(scaled(ticks, NANOS_PER_SECOND, timescale.get().into()))
    }

    /// Ticks of `1/timescale` second, rounded to the nearest, halves away from zero. The inverse of
    /// [`from_ticks`](Self::from_ticks) up to 500 MHz.
    pub fn ticks(self, timescale: NonZeroU32) -> i64 {
        scaled(self.0, timescale.get().into(), NANOS_PER_SECOND)
    }

    /// Later by `duration`.
    pub fn saturating_add(self, duration: Duration) -> Self {
        self.moved(nanos(duration))
    }

    /// Earlier by `duration`.
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }

    /// Later by so many nanoseconds, or earlier where they are negative.
    pub const fn moved(self, nanos: i64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// Nanoseconds from `earlier` to here; negative where `earlier` is later.
    pub const fn nanos_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// `value * times / by`, to the nearest, halves away from zero.
fn scaled(value: i64, times: i128, by: i128) -> i64 {
    // Below 2^63 * 2^32.
    let product = i128::from(value) * times;
    let half = if product < 0 { -(by / 2) } else { by / 2 };
    let result = (product + half) / by;
    i64::try_from(result).unwrap_or(if result < 0 { i64::MIN } else { i64::MAX })
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NINETY_KHZ: NonZeroU32 = NonZeroU32::new(90_000).unwrap();

    #[test]
    fn conversions_round_to_the_nearest_on_both_sides_of_zero() {
        let at = |ticks| Timestamp::from_ticks(ticks, NINETY_KHZ);
        assert_eq!((at(3003).millis(), at(3045).millis(), at(-3045).millis()), (33, 34, -34));
        assert_eq!(Timestamp::from_millis(40).ticks(NINETY_KHZ), 3600);
        assert_eq!((at(1).nanos(), at(-1).nanos()), (11_111, -11_111));
        assert_eq!(Timestamp::from_nanos(-1_500_000).millis(), -2);
    }

    #[test]
    fn the_ends_of_time_do_not_wrap() {
        let (first, last) = (Timestamp::from_nanos(i64::MIN), Timestamp::from_millis(i64::MAX));
        assert_eq!(last.nanos(), i64::MAX);
        assert_eq!(last.saturating_add(Duration::MAX), last);
        assert_eq!(first.saturating_sub(Duration::MAX), first);
        assert_eq!(last.nanos_since(first), i64::MAX);
        assert_eq!(Timestamp::from_ticks(i64::MAX, NonZeroU32::MIN).nanos(), i64::MAX);
        assert!(last.millis() > 0 && first.millis() < 0 && last.ticks(NonZeroU32::MAX) == i64::MAX);
    }

    proptest! {
        /// 24 hours and many wraps of RTP and MPEG-TS.
        #[test]
        fn a_tick_that_goes_in_comes_out(
            ticks in -(1_i64 << 40)..(1 << 40),
            rate in prop::sample::select(vec![8000, 11_025, 44_100, 48_000, 90_000, 96_000, 192_000]),
        ) {
            let rate = NonZeroU32::new(rate).unwrap();
            prop_assert_eq!(Timestamp::from_ticks(ticks, rate).ticks(rate), ticks);
        }

        #[test]
        fn milliseconds_come_out_as_they_went_in(millis in -(1_i64 << 42)..(1 << 42)) {
            prop_assert_eq!(Timestamp::from_millis(millis).millis(), millis);
        }
    }

    #[test]
    fn pictures_at_29_97_a_second_keep_their_ticks_for_24_hours() {
        for index in 0..2_589_410 {
            let time = Timestamp::from_ticks(index * 3003, NINETY_KHZ);
            assert_eq!(time.ticks(NINETY_KHZ), index * 3003);
        }
    }
}
