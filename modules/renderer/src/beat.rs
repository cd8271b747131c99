//! Whether a sound device plays what it is given. It takes sound also while nobody hears it, so its own clock is asked,
//! which goes by what it has played.

use std::fmt;

const MILLISECOND: i64 = 1_000_000;
/// Sound that comes after so long a pause is a beginning.
const PAUSE: i64 = 1_000 * MILLISECOND;
/// What a device and its clock may take to come to rest then.
const SETTLING: i64 = 5_000 * MILLISECOND;
/// One whose clock goes for so long plays.
const PLAYS: i64 = 1_000 * MILLISECOND;
/// Over so long its clock is compared.
const WINDOW: i64 = 3_000 * MILLISECOND;
/// Sound that is away from its place by more than that all the time is wrong.
const FAR: i64 = 500 * MILLISECOND;

/// What is wrong with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Its clock stands still, or nearly so.
    Stands,
    /// Nothing that can be heard is played so fast.
    Races,
    /// Sound is played so many milliseconds later than it should be.
    Away(i64),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stands => f.write_str("no longer plays: its clock stands still"),
            Self::Races => f.write_str("accepts sound faster than it can be played: nothing plays it"),
            Self::Away(late) if *late < 0 => write!(f, "plays sound {} ms too early", late.saturating_neg()),
            Self::Away(late) => write!(f, "plays sound {late} ms too late"),
        }
    }
}

/// See the module's text. All times in nanoseconds of the output's clock, except where the device's are named.
#[derive(Debug, Default)]
pub struct Beat {
    /// Since when it has been given sound without a pause, and when last.
    since: i64,
    last: Option<i64>,
    /// Its clock has gone as one does, and where a look at that began, by both clocks.
    plays: bool,
    first: Option<(i64, i64)>,
    /// Where the window began, by both clocks.
    window: Option<(i64, i64)>,
    /// Least distance from its place in this window.
    least: Option<i64>,
}

impl Beat {
    /// It was given sound.
    pub fn given(&mut self, now: i64) {
        if self.last.is_none_or(|last| now.saturating_sub(last) > PAUSE) {
            *self = Self { since: now, plays: self.plays, ..Self::default() };
        }
        self.last = Some(now);
    }

    /// Whether it has been playing.
    pub const fn plays(&self) -> bool {
        self.plays
    }

    /// Looks at its clock. `own`: what it has played; `taken_for`: which time that is taken for.
    pub fn look(&mut self, now: i64, own: i64, taken_for: i64) -> Option<Wrong> {
        let goes = self.last.is_some_and(|last| now.saturating_sub(last) <= PAUSE);
        if goes && !self.plays {
            let first = *self.first.get_or_insert((now, own));
            if now.saturating_sub(first.0) >= PLAYS {
                self.plays = pace(first, (now, own)).is_none();
                self.first = None;
            }
        }
        if !goes || now.saturating_sub(self.since) < SETTLING {
            (self.window, self.least) = (None, None);
            return None;
        }
        let late = now.saturating_sub(taken_for);
        self.least = self.least.into_iter().chain([late]).min_by_key(|late| late.unsigned_abs());
        let began = *self.window.get_or_insert((now, own));
        if now.saturating_sub(began.0) < WINDOW {
            return None;
        }
        self.window = Some((now, own));
        let away = self.least.take().filter(|least| least.saturating_abs() > FAR);
        pace(began, (now, own)).or(away.map(|least| Wrong::Away(least / MILLISECOND)))
    }
}

/// What is wrong with a device's clock between two looks, each by this clock and by the device's.
fn pace(from: (i64, i64), to: (i64, i64)) -> Option<Wrong> {
    let (passed, played) = (to.0.saturating_sub(from.0), to.1.saturating_sub(from.1));
    if played < passed / 2 {
        Some(Wrong::Stands)
    } else if played / 2 > passed {
        Some(Wrong::Races)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000 * MILLISECOND;

    /// What is said of a device within a minute, and when, where `clock` says what it has played and which time that is
    /// taken for at a moment, and sound is given in the moments that `given` lets through.
    fn told(clock: impl Fn(i64) -> (i64, i64), given: impl Fn(i64) -> bool) -> Option<(i64, Wrong)> {
        let mut beat = Beat::default();
        (0..300).map(|at| at * SECOND / 5).find_map(|now| {
            if given(now) {
                beat.given(now);
            }
            let (own, taken_for) = clock(now);
            Some((now / SECOND, beat.look(now, own, taken_for)?))
        })
    }

    #[test]
    fn a_device_that_plays_is_left_alone_however_its_clock_runs() {
        for per_mille in [1000, 995, 1005, 900, 1100] {
            assert_eq!(told(|now| (now / 1000 * per_mille, now + 40 * MILLISECOND), |_| true), None);
        }
    }

    #[test]
    fn a_clock_that_stands_or_races_is_told_within_six_seconds() {
        let stands = |now: i64| (now.min(20 * SECOND), now);
        let (at, wrong) = told(stands, |_| true).unwrap();
        assert_eq!(wrong, Wrong::Stands);
        assert!((21..=26).contains(&at), "{at}");
        let races = |now: i64| (now.max(now * 1000 - 19_980 * SECOND), now);
        let (at, wrong) = told(races, |_| true).unwrap();
        assert_eq!(wrong, Wrong::Races);
        assert!((20..=26).contains(&at), "{at}");
    }

    #[test]
    fn sound_that_stays_away_from_its_place_is_told_and_what_comes_back_is_not() {
        let late = |now: i64| (now, now - 700 * MILLISECOND);
        assert_eq!(told(late, |_| true).unwrap().1, Wrong::Away(700));
        assert_eq!(told(|now| (now, now + 700 * MILLISECOND), |_| true).unwrap().1, Wrong::Away(-700));
        let for_two_seconds = |now: i64| (now, if now / SECOND % 20 < 2 { now - SECOND } else { now });
        assert_eq!(told(for_two_seconds, |_| true), None);
    }

    #[test]
    fn one_whose_clock_goes_for_a_second_plays() {
        let plays = |speed: i64| {
            let mut beat = Beat::default();
            (0..100).map(|at| at * SECOND / 5).find(|now| {
                beat.given(*now);
                beat.look(*now, now.saturating_mul(speed), *now);
                beat.plays()
            })
        };
        assert_eq!((plays(1), plays(0), plays(1000)), (Some(SECOND), None, None));
    }

    #[test]
    fn a_device_without_anything_to_play_may_stand() {
        // Sound for four seconds in eight.
        let given = |now: i64| now / SECOND % 8 < 4;
        assert_eq!(told(|_| (0, 0), given), None);
    }
}
