//! What the media of an init segment has in the long run: samples of every track, and a rate of pictures.

use std::collections::BTreeMap;

use super::attributes::Attributes;
use super::media::{Init, Sample, Track};
use super::rule::{self, Fault};

/// So much media says what a track has.
const ENOUGH: f64 = 3.0;
const ENOUGH_PIECES: u32 = 2;
/// Durations of pictures that are told apart.
const MAX_DURATIONS: usize = 10_000;
/// Pictures whose durations are within this of the usual one have one rate, if so many of them are.
const SAME: f64 = 0.1;
const STEADY: f64 = 0.9;
/// FRAME-RATE is rounded, and measured by some.
const MOST_OFF: f64 = 0.2;

/// All segments of one init segment so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    of: Option<Init>,
    pieces: u32,
    /// As they are listed.
    seconds: f64,
    /// Samples of each track.
    samples: BTreeMap<u32, u64>,
    pictures: Pictures,
}

impl Seen {
    /// Another segment, of so many seconds, has begun.
    pub(super) fn piece(&mut self, init: &Init, seconds: f64) {
        if self.of.as_ref() != Some(init) {
            *self = Self { of: Some(init.clone()), ..Self::default() };
        }
        self.pieces = self.pieces.saturating_add(1);
        self.seconds += seconds;
    }

    /// It has these of a track.
    pub(super) fn samples(&mut self, track: &Track, samples: &[Sample]) {
        let count = self.samples.entry(track.id).or_default();
        *count = count.saturating_add(samples.len() as u64);
        if track.is_video {
            self.pictures.timescale = track.timescale;
            samples.iter().for_each(|sample| self.pictures.add(sample.duration));
        }
    }

    /// What is wrong with all of it, by what the variant says.
    pub(super) fn faults(&self, variant: Option<&Attributes>) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.seconds >= ENOUGH && self.pieces >= ENOUGH_PIECES {
            let tracks = self.of.iter().flat_map(|init| &init.tracks);
            for track in tracks.filter(|track| self.samples.get(&track.id).is_none_or(|count| *count == 0)) {
                let (entry, pieces) = (String::from_utf8_lossy(&track.entry), self.pieces);
                let detail = format!("{entry} has none in {pieces} segments of {:.1} s", self.seconds);
                faults.push(Fault::new(&rule::NO_SAMPLES, detail));
            }
        }
        let told = variant.and_then(|variant| variant.number("FRAME-RATE"));
        let told = told.filter(|told| (0.0..=rule::MOST_PICTURES).contains(told));
        if let (Some(told), Some(rate)) = (told, self.pictures.rate()) {
            faults.extend(rate.differs(told));
        }
        faults
    }
}

/// Durations of pictures, and how many have each.
#[derive(Debug, Default)]
struct Pictures {
    timescale: u32,
    durations: BTreeMap<u32, u64>,
}

impl Pictures {
    fn add(&mut self, duration: u32) {
        if self.durations.len() < MAX_DURATIONS || self.durations.contains_key(&duration) {
            let count = self.durations.entry(duration).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// `None`: too few to tell.
    fn rate(&self) -> Option<Rate> {
        let count: u64 = self.durations.values().sum();
        let seconds = |ticks: f64| ticks / f64::from(self.timescale.max(1));
        let all: f64 =
            self.durations.iter().map(|(duration, count)| f64::from(*duration) * *count as f64).sum();
        let mut before = 0;
        let (usual, _) = self.durations.iter().find(|(_, of)| {
            before += **of;
            before * 2 >= count
        })?;
        let usual = f64::from(*usual);
        if usual <= 0.0 || seconds(all) < ENOUGH {
            return None;
        }
        let is_usual = |duration: u32| (f64::from(duration) - usual).abs() <= usual * SAME;
        let alike: u64 =
            self.durations.iter().filter(|(duration, _)| is_usual(**duration)).map(|(_, count)| count).sum();
        Some(Rate {
            mean: count as f64 / seconds(all),
            usual: 1.0 / seconds(usual),
            steady: alike as f64 >= count as f64 * STEADY,
        })
    }
}

/// Pictures in a second.
#[derive(Debug)]
struct Rate {
    mean: f64,
    /// That of the picture in the middle.
    usual: f64,
    /// Nearly all have that rate.
    steady: bool,
}

impl Rate {
    fn differs(&self, told: f64) -> Option<Fault> {
        let Self { mean, usual, steady } = *self;
        let is_off = |rate: f64| (told - rate).abs() > rate * MOST_OFF;
        match steady {
            true if is_off(usual) => {
                let detail = format!("{usual:.3} pictures a second, FRAME-RATE is {told:.3}");
                Some(Fault::new(&rule::WRONG_FRAME_RATE, detail))
            }
            false if is_off(usual) && is_off(mean) => {
                let detail = format!("mostly {usual:.3}, {mean:.3} on average, FRAME-RATE is {told:.3}");
                Some(Fault::new(&rule::RATE_VARIES, detail))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule that a FRAME-RATE breaks with pictures of these durations, in milliseconds.
    fn broken(told: f64, durations: impl IntoIterator<Item = u32>) -> Option<&'static str> {
        let mut pictures = Pictures { timescale: 1000, ..Pictures::default() };
        durations.into_iter().for_each(|duration| pictures.add(duration));
        pictures.rate()?.differs(told).map(|fault| fault.rule.name)
    }

    #[test]
    fn a_rate_that_is_not_that_of_the_pictures_is_a_fault_and_of_pictures_that_vary_advice() {
        let steady = || std::iter::repeat_n(40, 100);
        for told in [25.0, 23.976, 29.97] {
            assert_eq!(broken(told, steady()), None, "{told}");
        }
        for told in [12.5, 50.0, 0.0] {
            assert_eq!(broken(told, steady()), Some(rule::WRONG_FRAME_RATE.name), "{told}");
        }
        // Some pictures are lost: the others tell.
        assert_eq!(broken(25.0, steady().chain([400, 80, 400])), None);
        assert_eq!(broken(50.0, steady().chain([400, 80, 400])), Some(rule::WRONG_FRAME_RATE.name));
        let varies = || steady().chain(std::iter::repeat_n(100, 60));
        for told in [25.0, 16.0] {
            assert_eq!(broken(told, varies()), None, "{told}");
        }
        assert_eq!(broken(60.0, varies()), Some(rule::RATE_VARIES.name));
        // Milliseconds are coarse for 240 a second.
        assert_eq!(broken(240.0, [4, 4, 4, 4, 4, 5].repeat(200)), None);
    }

    #[test]
    fn little_media_and_odd_media_say_nothing() {
        assert_eq!(broken(50.0, std::iter::repeat_n(40, 50)), None, "two seconds");
        assert_eq!(broken(50.0, std::iter::repeat_n(0, 1000)), None);
        assert_eq!(broken(50.0, []), None);
        assert!(broken(50.0, (0..).take(MAX_DURATIONS + 10)).is_some());
        assert!(Seen::default().faults(None).is_empty());
    }
}
