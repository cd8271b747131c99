//! Where each piece of decoded sound goes, and how fast it is played, so that it stays where it belongs without a jump.

use crate::timing::MAX_RATE;

const MILLISECOND: f64 = 1e6;
/// Sound that has come so far from where it belongs goes there at once.
const STEP: f64 = 40.0 * MILLISECOND;
/// How often its rate is looked at, in nanoseconds of sound, and in how many seconds an error would be gone.
const REVIEW: f64 = 1_000.0 * MILLISECOND;
const PULL: f64 = 5.0;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Pace {
    /// Where the sound that was handed over ends, in nanoseconds of the output's clock.
    cursor: Option<f64>,
    /// And by its own times.
    end: f64,
    /// The rate that the sound is said to have.
    label: u32,
    /// Nanoseconds of sound since that was looked at, and by how much all of it has been late since.
    reviewed: f64,
    least: Option<f64>,
    /// The same of the time before.
    late: f64,
}

/// Where a piece goes, in nanoseconds of the output's clock.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its beginning.
    pub at: f64,
    /// How long it is played.
    pub length: f64,
    /// The rate that it is said to have, in samples a second, so that it takes that long.
    pub label: u32,
    /// How far it is from where it belongs.
    pub off: i64,
    /// What played before it is cut off, or there is a hole.
    pub anew: bool,
}

impl Pace {
    /// What comes next has its place by itself.
    pub const fn pause(&mut self) {
        self.cursor = None;
    }

    /// Where the sound that was handed over ends.
    pub fn end(&self) -> Option<i64> {
        self.cursor.map(|cursor| cursor as i64)
    }

    /// A piece that begins at a stream time, of so many samples at so many a second, is due at `due`; stream time is
    /// stretched by `rate`. `None`: it is left out.
    ///
    /// A file that is published in a loop has a piece too many at each seam: its encoder's first, which lies on the last
    /// one's time. While sound keeps up it is played, since a publisher may give several pieces one time. When sound is
    /// late, and stretching alone would not bring it back, it is what can go unheard.
    pub fn place(
        &mut self,
        (stream, samples, nominal): (i64, u64, u32),
        due: i64,
        rate: f64,
    ) -> Option<Place> {
        let (stream, due) = (stream as f64, due as f64);
        let own = samples as f64 * 1e9 / f64::from(nominal.max(1));
        let off = self.cursor.map(|cursor| cursor - due);
        let can_go = stream + own / 2.0 < self.end && self.late > own / 2.0;
        // Where it goes, what comes next is that much nearer.
        let off = off.map(|off| if can_go { off - own } else { off });
        let anew = off.is_none_or(|off| off.abs() > STEP);
        if !anew && can_go {
            self.late -= own;
            return None;
        }
        if anew {
            self.cursor = Some(due);
        }
        // Another rate of the sound itself: that of the sound before it says nothing.
        if anew || nominal.abs_diff(self.label) > nominal / 50 {
            self.reviewed = REVIEW;
            self.least = None;
        }
        let cursor = self.cursor?;
        let off = cursor - due;
        self.least = Some(self.least.map_or(off, |least| least.min(off)));
        if self.reviewed >= REVIEW {
            self.reviewed = 0.0;
            self.late = self.least.take().unwrap_or(0.0);
            // How much longer than it says a second of it has to be played.
            let stretch = (rate - off / 1e9 / PULL).clamp(-MAX_RATE, MAX_RATE);
            self.label = (f64::from(nominal) / (1.0 + stretch)).round() as u32;
        }
        let length = samples as f64 * 1e9 / f64::from(self.label.max(1));
        self.cursor = Some(cursor + length);
        self.end = stream + own;
        self.reviewed += length;
        Some(Place { at: cursor, length, label: self.label, off: off as i64, anew })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 48_000;
    const SAMPLES: u64 = 1_024;
    /// How long a piece is, in nanoseconds.
    const PIECE: i64 = 1_024_000_000 / 48;

    /// What came of pieces at these stream times, of a publisher whose clock runs so much faster: how often sound was
    /// moved, how many were left out, the most that one was away from its place in milliseconds.
    fn play(streams: impl Iterator<Item = i64>, fast: f64) -> (usize, usize, i64) {
        let (mut pace, mut moved, mut left_out, mut most) = (Pace::default(), 0, 0, 0);
        let stretch = 1.0 / (1.0 + fast);
        for stream in streams {
            let due = (stream as f64 * stretch) as i64;
            match pace.place((stream, SAMPLES, RATE), due, (stretch - 1.0).clamp(-MAX_RATE, MAX_RATE)) {
                Some(place) => {
                    moved += usize::from(place.anew);
                    most = most.max(place.off.abs() / 1_000_000);
                }
                None => left_out += 1,
            }
        }
        (moved, left_out, most)
    }

    /// Ten minutes of an eight-second file in a loop: 376 pieces each, of which the last two have one time.
    fn looped() -> impl Iterator<Item = i64> {
        (0..75).flat_map(|round| {
            (0..376_i64).map(move |index| round * 375 * PIECE + index.min(374) * PIECE + index / 375 * 11_112)
        })
    }

    #[test]
    fn half_a_percent_fast_or_slow_is_stretched_without_a_jump() {
        for fast in [0.005, -0.005, 0.003, 0.0] {
            let (moved, left_out, most) = play((0..28_000).map(|index| index * PIECE), fast);
            assert_eq!((moved, left_out), (1, 0), "{fast}");
            assert!(most < 20, "{fast}: {most} ms");
        }
    }

    #[test]
    fn a_looped_file_moves_nothing_also_by_a_clock_that_is_fast_or_slow() {
        for fast in [0.005, 0.003, 0.0, -0.003, -0.005] {
            let (moved, left_out, most) = play(looped(), fast);
            assert_eq!(moved, 1, "{fast}");
            assert!(left_out <= 75 && most <= 40, "{fast}: {left_out} left out, {most} ms");
        }
        let (_, left_out, _) = play(looped(), 0.0);
        assert_eq!(left_out, 0, "while it keeps up, all is played");
    }

    #[test]
    fn pieces_that_share_one_time_are_all_played() {
        for fast in [0.0, 0.004] {
            let (moved, left_out, _) = play((0..28_000).map(|index| index / 2 * 2 * PIECE), fast);
            assert_eq!((moved, left_out), (1, 0), "{fast}");
        }
    }

    #[test]
    fn sound_of_another_rate_goes_on_where_the_one_before_it_ends() {
        let (mut pace, mut stream, mut end) = (Pace::default(), 0_i64, None);
        for round in 0..30 {
            let nominal = [48_000, 44_100, 8_000, 32_000][round % 4];
            for piece in 0..100 {
                let place = pace.place((stream, SAMPLES, nominal), stream, 0.0).unwrap();
                assert_eq!(place.anew, round == 0 && piece == 0, "{round} {piece}");
                assert!(end.is_none_or(|end: f64| (end - place.at).abs() < 1.0), "{round} {piece}");
                assert!(
                    place.label.abs_diff(nominal) <= nominal / 200 + 1,
                    "{round} {piece}: {}",
                    place.label
                );
                end = Some(place.at + place.length);
                stream += i64::try_from(SAMPLES * 1_000_000_000 / u64::from(nominal)).unwrap();
            }
        }
    }

    #[test]
    fn a_hole_moves_sound_once_and_a_smaller_one_is_stretched_over() {
        for (hole, times) in [(100_000_000, 2), (45_000_000, 2), (35_000_000, 1)] {
            let streams = (0..2_000).map(|index| index * PIECE + if index < 500 { 0 } else { hole });
            assert_eq!(play(streams, 0.0).0, times, "{hole}");
        }
    }
}
