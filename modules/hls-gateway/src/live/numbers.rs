//! The numbers that a playlist promises, and keeps for as long as its URL lives.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::options::{Shaped, Variant};

/// The longest distance of sync frames that segments follow; what is longer is cut at other frames.
pub(crate) const MAX_GOP: Duration = Duration::from_secs(20);
const SECOND: i64 = 1_000_000_000;
/// A frame interval outside of these is taken as its end: 1 to 1000 frames a second.
const INTERVALS: [i64; 2] = [SECOND / 1000, SECOND];

/// What must not change between two versions of a media playlist: players stop where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbers {
    /// EXT-X-TARGETDURATION in seconds (RFC 8216bis §4.4.3.1). HOLD-BACK is three of it.
    pub target: u32,
    /// With low latency.
    pub part: Option<PartNumbers>,
}

/// The same of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartNumbers {
    /// PART-TARGET in hundredths of a millisecond, as it is written (§4.4.3.7). PART-HOLD-BACK is three of it.
    pub target: u32,
    /// How long a part is where nothing goes wrong: whole frames, in nanoseconds.
    pub nominal: i64,
    /// Frames in it.
    pub frames: u32,
}

impl Numbers {
    /// For frames that are `interval` apart and a first GOP of that length.
    ///
    /// A part is the largest number of frames that fits the configured length. From six frames on PART-TARGET is one
    /// frame more: times that were rounded to milliseconds and one lost frame fit, and no part is below 85 % of it. With
    /// fewer frames there is some 8 % of room.
    pub(crate) fn choose(shaped: Shaped, interval: Duration, gop: Duration) -> Self {
        let segment = u32::try_from(shaped.segment.as_secs()).unwrap_or(1).max(1);
        let gop = gop.min(MAX_GOP).as_nanos();
        let rounded = u32::try_from((gop + 500_000_000) / 1_000_000_000).unwrap_or(1);
        let part =
            (shaped.variant == Variant::LowLatency).then(|| PartNumbers::choose(shaped.part, interval));
        Self { target: segment.max(rounded), part }
    }

    /// Whether a playlist that was `old` and has these numbers can be `new` and keep them. `gop`: distance of the last two
    /// sync frames, zero where it is not known.
    pub(crate) fn keep(&self, old: Shaped, new: Shaped, gop: Duration) -> bool {
        let seconds = |shaped: Shaped| u32::try_from(shaped.segment.as_secs()).unwrap_or(u32::MAX);
        let interval = self.part.map_or(0, |part| part.nominal / i64::from(part.frames.max(1)));
        let chosen = Self::choose(new, Duration::from_nanos(u64::try_from(interval).unwrap_or(0)), gop);
        // It was the distance of key frames that made the target.
        let of_gop = self.target > seconds(old) && self.target >= seconds(new);
        let target = new.segment == old.segment || of_gop || chosen.target == self.target;
        old.variant == new.variant && target && chosen.part == self.part
    }

    /// The longest EXTINF: rounded to whole seconds it must not exceed the target (§4.4.3.1). In nanoseconds.
    pub(crate) fn longest_segment(&self) -> i64 {
        i64::from(self.target) * SECOND + 499 * SECOND / 1000
    }

    /// The target in nanoseconds.
    pub(crate) fn target_nanos(&self) -> i64 {
        i64::from(self.target) * SECOND
    }
}

impl PartNumbers {
    fn choose(part: Duration, interval: Duration) -> Self {
        let [least, most] = INTERVALS;
        let interval = i64::try_from(interval.as_nanos()).unwrap_or(most).clamp(least, most);
        let wanted = i64::try_from(part.as_nanos()).unwrap_or(SECOND);
        // A hundredth of a frame more: 30 frames a second are not always exactly 33.333 ms.
        let frames = ((wanted + interval / 100) / interval).max(1);
        let nominal = frames * interval;
        let target = if frames >= 6 { nominal + interval } else { nominal + nominal * 8 / 100 };
        let target = u32::try_from((target + 9_999) / 10_000).unwrap_or(u32::MAX);
        Self { target, nominal, frames: u32::try_from(frames).unwrap_or(u32::MAX) }
    }

    /// PART-TARGET in nanoseconds.
    pub(crate) fn target_nanos(&self) -> i64 {
        i64::from(self.target) * 10_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(segment: u64, part: u64) -> Shaped {
        Shaped {
            variant: Variant::LowLatency,
            segment: Duration::from_secs(segment),
            part: Duration::from_millis(part),
            window: Duration::from_secs(30),
        }
    }

    fn chosen(fps: u32, part: u64, gop: f64) -> (u32, u32, u32) {
        let interval = Duration::from_secs(1) / fps;
        let numbers = Numbers::choose(shaped(2, part), interval, Duration::from_secs_f64(gop));
        let part = numbers.part.unwrap();
        (numbers.target, part.frames, part.target)
    }

    #[test]
    fn the_target_is_the_configured_length_or_the_rounded_gop() {
        assert_eq!(chosen(30, 200, 1.0).0, 2);
        assert_eq!(chosen(30, 200, 2.002).0, 2);
        assert_eq!(chosen(30, 200, 2.5).0, 3);
        assert_eq!(chosen(30, 200, 20.0).0, 20);
        assert_eq!(chosen(30, 200, 300.0).0, 20);
    }

    #[test]
    fn parts_are_whole_frames_and_their_target_has_room_for_one_more_or_eight_per_cent() {
        assert_eq!(chosen(30, 200, 1.0), (2, 6, 23_334));
        assert_eq!(chosen(60, 200, 1.0), (2, 12, 21_667));
        assert_eq!(chosen(25, 200, 1.0), (2, 5, 21_600));
        assert_eq!(chosen(5, 200, 1.0), (2, 1, 21_600));
        assert_eq!(chosen(1, 200, 1.0), (2, 1, 108_000));
    }

    #[test]
    fn numbers_are_kept_where_another_configuration_needs_no_others() {
        let keeps = |gop: u64, segment: u64, part: u64| {
            let gop = Duration::from_secs(gop);
            let numbers = Numbers::choose(shaped(2, 200), Duration::from_secs(1) / 30, gop);
            numbers.keep(shaped(2, 200), shaped(segment, part), gop)
        };
        for (gop, segment, part) in [(2, 1, 200), (5, 1, 200), (5, 5, 200), (1, 2, 210), (2, 2, 230)] {
            assert!(keeps(gop, segment, part), "{gop} {segment} {part}");
        }
        for (gop, segment, part) in [(1, 1, 200), (2, 3, 200), (5, 6, 200), (2, 2, 400), (2, 2, 150)] {
            assert!(!keeps(gop, segment, part), "{gop} {segment} {part}");
        }
        let plain = Shaped { variant: Variant::Fmp4, ..shaped(2, 200) };
        let numbers = Numbers::choose(plain, Duration::ZERO, Duration::ZERO);
        assert!(numbers.keep(plain, Shaped { part: Duration::from_millis(900), ..plain }, Duration::ZERO));
        assert!(!numbers.keep(plain, shaped(2, 200), Duration::ZERO));
    }

    #[test]
    fn no_full_part_is_below_85_per_cent_of_its_target() {
        for fps in 1..=120 {
            for part in (100..=1000).step_by(50) {
                let numbers = PartNumbers::choose(Duration::from_millis(part), Duration::from_secs(1) / fps);
                assert!(numbers.nominal * 100 >= numbers.target_nanos() * 85, "{fps} {part}: {numbers:?}");
            }
        }
    }
}
