//! When to decode pictures whose source says only when to show them: RTP has no decode times.

use av_media::h264::AvcConfig;
use av_media::{Codec, Timestamp, Track};

/// Pictures that may wait for one that is shown before them: all of a decoder's memory (ITU-T H.264 §A.3.1).
const MOST: usize = 16;
/// As short as a time can be told apart on the wire: one tick at 90 kHz.
const TICK: i64 = 11_112;
/// No stream reorders that far: what is more is a jump.
const JUMP: i64 = 5_000_000_000;

/// Gives each picture the earliest time of showing that is still free, as many pictures late as the stream reorders:
/// never later than its own, and rising.
#[derive(Debug, Default)]
pub(super) struct DecodeOrder {
    /// How many pictures may be decoded before one that is shown before them.
    depth: usize,
    /// Times of showing that no picture has been given to decode at, in order.
    free: Vec<i64>,
    last: Option<i64>,
}

impl DecodeOrder {
    /// A track whose parameter sets may say how far it reorders.
    pub(super) fn expect(&mut self, track: &Track) {
        if track.codec != Codec::H264 {
            return;
        }
        let declared = AvcConfig::parse(track.config.clone()).ok();
        let declared = declared.and_then(|config| config.first_sps()?.declared_reorder_frames);
        if let Some(declared) = declared {
            self.depth = self.depth.max(usize::from(declared)).min(MOST);
        }
    }

    /// When to decode the next picture, which is shown at `pts`.
    pub(super) fn decode_time(&mut self, pts: Timestamp) -> Timestamp {
        let pts = pts.nanos();
        if self.last.is_some_and(|last| last.saturating_sub(pts) > JUMP) {
            // Another timeline, or the way back from a stray time.
            self.last = None;
            self.free.clear();
        }
        self.free.retain(|free| free.saturating_sub(pts) <= JUMP);
        if self.last.is_some_and(|last| pts <= last) {
            // It reorders further than was known.
            self.depth = (self.depth + 1).min(MOST);
        }
        let at = self.free.partition_point(|free| *free <= pts);
        self.free.insert(at, pts);
        let earliest = self.free.first().copied().unwrap_or(pts);
        let time = if self.free.len() > self.depth {
            self.free.remove(0);
            earliest
        } else {
            // Before the first picture there are as many times as it takes.
            let missing = self.depth.saturating_sub(self.free.len()) as i64 + 1;
            earliest.saturating_sub(missing.saturating_mul(TICK))
        };
        while self.free.len() > self.depth {
            self.free.remove(0);
        }
        let time = self.last.map_or(time, |last| time.max(last.saturating_add(TICK)));
        self.last = Some(time);
        Timestamp::from_nanos(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times in frames of 40 ms; what is given back is in nanoseconds.
    fn decoded(depth: usize, shown: &[i64]) -> Vec<(i64, i64)> {
        let mut order = DecodeOrder { depth, ..DecodeOrder::default() };
        let at = |frame: &i64| Timestamp::from_millis(frame * 40);
        shown.iter().map(|frame| (at(frame).nanos(), order.decode_time(at(frame)).nanos())).collect()
    }

    fn check(times: &[(i64, i64)]) {
        assert!(times.windows(2).all(|pair| pair[0].1 < pair[1].1), "{times:?}");
        assert!(times.iter().all(|(pts, dts)| dts <= pts), "{times:?}");
    }

    #[test]
    fn pictures_in_order_are_decoded_when_they_are_shown() {
        for (pts, dts) in decoded(0, &[0, 1, 2, 3, 5]) {
            assert_eq!(pts, dts);
        }
    }

    #[test]
    fn reordered_pictures_are_decoded_in_rising_times_that_are_never_later_than_their_own() {
        // x264: three B pictures, the middle one a reference.
        let pyramid = [0, 4, 2, 1, 3, 8, 6, 5, 7, 12, 10, 9, 11];
        let times = decoded(2, &pyramid);
        check(&times);
        // Behind the first ones the times are those of an encoder that is two pictures late.
        let dts: Vec<_> = times[2..].iter().map(|(_, dts)| dts / 40_000_000).collect();
        assert_eq!(dts, (0..11).collect::<Vec<_>>());
    }

    #[test]
    fn a_depth_that_nobody_declared_is_learned() {
        let shown: Vec<i64> = (0..20).flat_map(|group| [3, 1, 2].map(|at| group * 3 + at)).collect();
        let times = decoded(0, &shown);
        assert!(times.windows(2).all(|pair| pair[0].1 < pair[1].1));
        check(&times[9..]);
    }

    #[test]
    fn a_stray_time_and_another_timeline_are_left_behind() {
        for depth in [0, 2] {
            let times = decoded(depth, &[1000, 1001, 900_000, 1003, 1004, 1005, 1006, 5, 6, 7, 8, 9]);
            let (pts, dts) = times[6];
            assert!(pts - dts <= 5 * 40_000_000, "{times:?}");
            check(&times[9..]);
        }
    }
}
