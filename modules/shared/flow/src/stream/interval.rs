//! How far the pictures of a track lie apart.

use std::collections::VecDeque;
use std::time::Duration;

use av_media::Timestamp;

/// Distances remembered, and how many it takes to speak of them.
const MOST: usize = 32;
const LEAST: usize = 8;

/// Measures the distance of a track's frames.
#[derive(Debug, Default)]
pub(super) struct Measured {
    last: Option<Timestamp>,
    nanos: VecDeque<i64>,
}

impl Measured {
    /// Another track, or times that do not simply go on.
    pub(super) fn restart(&mut self) {
        self.last = None;
    }

    /// Another track.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    pub(super) fn frame(&mut self, dts: Timestamp) {
        if let Some(last) = self.last.replace(dts) {
            if self.nanos.len() == MOST {
                self.nanos.pop_front();
            }
            self.nanos.push_back(dts.nanos_since(last));
        }
    }

    /// The usual distance: the mean of those that are near the one in the middle, so that neither a pause nor the
    /// rounding of times counts.
    fn usual(&self) -> Option<Duration> {
        if self.nanos.len() < LEAST {
            return None;
        }
        let mut sorted: Vec<i64> = self.nanos.iter().copied().collect();
        sorted.sort_unstable();
        let middle = *sorted.get(sorted.len() / 2)?;
        let near = sorted.iter().filter(|nanos| nanos.abs_diff(middle) <= middle.unsigned_abs() / 4);
        let (sum, count) =
            near.fold((0_i128, 0_i128), |(sum, count), nanos| (sum + i128::from(*nanos), count + 1));
        u64::try_from(sum / count.max(1)).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos)
    }

    /// The interval of a track that says `fps` of itself: that, unless what is measured contradicts it by more than a
    /// fifth. Cameras change their rate and leave the parameter sets as they are.
    pub(super) fn or_said(&self, fps: Option<f64>) -> Option<Duration> {
        let said = fps
            .filter(|fps| fps.is_finite() && (0.01..=1000.0).contains(fps))
            .map(|fps| Duration::from_secs_f64(1.0 / fps));
        match (said, self.usual()) {
            (Some(said), Some(usual)) if usual.abs_diff(said) > said / 5 => Some(usual),
            (said, usual) => said.or(usual),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(millis: impl IntoIterator<Item = i64>) -> Measured {
        let mut measured = Measured::default();
        millis.into_iter().for_each(|millis| measured.frame(Timestamp::from_millis(millis)));
        measured
    }

    #[test]
    fn what_is_said_holds_until_pictures_contradict_it() {
        let at_30 = || (0..40).map(|i| i * 1000 / 30);
        assert_eq!(measured(at_30()).or_said(Some(30.0)), Some(Duration::from_secs_f64(1.0 / 30.0)));
        let halved = measured((0..40).map(|i| i * 1000 / 15)).or_said(Some(30.0)).unwrap();
        assert!(
            halved.abs_diff(Duration::from_secs_f64(1.0 / 15.0)) < Duration::from_millis(1),
            "{halved:?}"
        );
        assert_eq!(measured([]).or_said(Some(25.0)), Some(Duration::from_millis(40)));
        assert_eq!(measured([]).or_said(Some(f64::INFINITY)), None);
    }

    #[test]
    fn milliseconds_and_a_pause_do_not_count() {
        let paused = (0..30).map(|i| i * 1000 / 30 + if i > 20 { 60_000 } else { 0 });
        let interval = measured(paused).or_said(None).unwrap();
        assert!(
            interval.abs_diff(Duration::from_nanos(33_333_333)) < Duration::from_micros(300),
            "{interval:?}"
        );
        assert_eq!(measured(0..5).or_said(None), None, "too few");
    }
}
