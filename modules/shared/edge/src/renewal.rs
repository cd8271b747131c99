//! When to replace what was issued for a time, on a machine whose wall clock can jump.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Corrections of a clock that runs are smaller than this.
const SET_BACK_SECONDS: u64 = 60;

/// When a token or certificate is to be replaced.
///
/// Its end is a time of the wall clock, which is wrong at boot and jumps. So it is due when that clock says so, when
/// the time has passed by the clock that only runs, and when the wall clock was set back behind the moment of issue:
/// then its times were wrong from the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    /// Seconds since 1970.
    issued: u64,
    due: u64,
    /// `None` where that is too far away to be told.
    due_at: Option<Instant>,
}

impl Renewal {
    /// For something issued now.
    pub fn after(life: Duration) -> Self {
        Self::counted_from(life, wall_seconds(), Instant::now())
    }

    fn counted_from(life: Duration, wall: u64, now: Instant) -> Self {
        Self { issued: wall, due: wall.saturating_add(life.as_secs()), due_at: now.checked_add(life) }
    }

    #[cfg(test)]
    pub(crate) fn life(&self) -> Duration {
        Duration::from_secs(self.due - self.issued)
    }

    /// Whether to replace it now.
    pub fn is_due(&self) -> bool {
        self.is_due_at(wall_seconds(), Instant::now())
    }

    fn is_due_at(&self, wall: u64, now: Instant) -> bool {
        wall >= self.due
            || self.due_at.is_some_and(|due| now >= due)
            || wall.saturating_add(SET_BACK_SECONDS) < self.issued
    }
}

/// Seconds since 1970 by the wall clock.
pub(crate) fn wall_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|time| time.as_secs()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(2700);
    const WALL: u64 = 1_700_000_000;
    const YEAR: u64 = 365 * 86_400;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_is_due_when_its_time_has_passed_by_either_clock() {
        let start = Instant::now();
        let renewal = Renewal::counted_from(LIFE, WALL, start);
        assert!(!renewal.is_due_at(WALL + 2699, start + seconds(2699)));
        assert!(renewal.is_due_at(WALL + 2700, start + seconds(2700)));
        assert!(renewal.is_due_at(WALL + 2700, start), "the clock was set ahead");
        assert!(renewal.is_due_at(WALL, start + seconds(2700)), "the clock stands still");
    }

    #[test]
    fn what_was_issued_by_a_clock_that_was_ahead_is_due_once_the_clock_is_set_back() {
        let start = Instant::now();
        let renewal = Renewal::counted_from(LIFE, WALL + YEAR, start);
        assert!(renewal.is_due_at(WALL, start + seconds(1)));
        let corrected = Renewal::counted_from(LIFE, WALL, start);
        assert!(!corrected.is_due_at(WALL - 5, start + seconds(1)), "a correction is no wrong clock");
    }

    #[test]
    fn what_was_issued_by_a_clock_that_was_behind_is_due_once_the_clock_is_right() {
        let start = Instant::now();
        assert!(Renewal::counted_from(LIFE, 0, start).is_due_at(WALL, start + seconds(1)));
    }
}
