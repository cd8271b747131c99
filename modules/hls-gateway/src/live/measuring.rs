//! Frames from before the numbers of a playlist are known, which say what these are.

use av_media::{Frame, Kind, Timestamp};

/// Bytes that are kept to find out how long a GOP is.
const MOST_BYTES: usize = 48 << 20;
/// Frames that are.
const MOST_FRAMES: usize = 65_536;

/// See the module's text.
#[derive(Default)]
pub(super) struct Measuring {
    /// Each with whether a decoder may start there.
    pub(super) frames: Vec<(Frame, bool)>,
    bytes: usize,
}

impl Measuring {
    /// dts of the first frame.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.frames.first().map(|(first, _)| first.dts)
    }

    /// Whether no more is kept.
    pub(super) const fn is_full(&self) -> bool {
        self.bytes > MOST_BYTES || self.frames.len() >= MOST_FRAMES
    }

    pub(super) fn push(&mut self, frame: Frame, starts: bool) {
        self.bytes = self.bytes.saturating_add(frame.data.len());
        self.frames.push((frame, starts));
    }

    /// How long a frame is, in nanoseconds: the middle one of the distances, or what the stream says (`said`) where there
    /// are few.
    pub(super) fn interval(&self, kind: Kind, said: i64) -> i64 {
        let times = self.frames.iter().filter(|(frame, _)| frame.kind == kind);
        let times = times.map(|(frame, _)| frame.dts).collect::<Vec<_>>();
        let mut steps =
            times.iter().zip(times.iter().skip(1)).map(|(a, b)| b.nanos_since(*a)).collect::<Vec<_>>();
        steps.sort_unstable();
        match steps.as_slice() {
            [first, .., last] if steps.len() >= 5 => {
                // Rounded times are off by up to a millisecond, their mean is not.
                let middle = steps.get(steps.len() / 2).copied().unwrap_or(*first);
                let even = last.saturating_sub(*first) <= 3_000_000;
                let mean = steps.iter().sum::<i64>() / i64::try_from(steps.len()).unwrap_or(1);
                let measured = if even { mean } else { middle };
                // What the stream says is exact, where it is true.
                if said.abs_diff(measured) < measured.unsigned_abs() / 50 { said } else { measured }
            }
            _ => said,
        }
    }
}
