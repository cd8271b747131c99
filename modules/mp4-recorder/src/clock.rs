//! The time of day, and how long the machine runs.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// 2026-01-01, before which no build of this module existed: a board without a battery starts at 1970, or at the date
/// of its image, until somebody has told it the time.
const BUILT: Duration = Duration::from_secs(1_767_225_600);

/// What is known of time at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time of day, as far as the machine knows it.
    pub utc: SystemTime,
    /// Since the machine started, sleep included; no step of the time of day moves it.
    pub since_boot: Duration,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        let since_boot = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(since_boot.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(since_boot.tv_nsec).unwrap_or_default();
        Self { utc: SystemTime::now(), since_boot: Duration::new(seconds, nanos) }
    }

    /// The same, so long before.
    pub fn before(self, age: Duration) -> Self {
        Self {
            utc: self.utc.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH),
            since_boot: self.since_boot.saturating_sub(age),
        }
    }

    /// Whether the time of day can be right.
    pub fn is_plausible(self) -> bool {
        self.utc.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since >= BUILT)
    }

    /// The time of day at `earlier`, by the clock of now: for what happened before the clock was set.
    pub fn utc_of(self, earlier: Duration) -> SystemTime {
        let age = self.since_boot.saturating_sub(earlier);
        self.utc.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// Tells one start of the machine from another; empty where the kernel does not say.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().chars().filter(char::is_ascii_alphanumeric).take(32).collect()
}

/// UTC with milliseconds, as in documents.
pub fn text(utc: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(utc).unwrap_or_default();
    jiff::Timestamp::from_millisecond(time.as_millisecond()).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_at_1970_is_not_believed_and_what_happened_then_gets_its_time_later() {
        let hour = Duration::from_secs(3600);
        let unset = Moment { utc: SystemTime::UNIX_EPOCH + hour, since_boot: hour };
        assert!(!unset.is_plausible());
        let set = Moment {
            utc: SystemTime::UNIX_EPOCH + BUILT + Duration::from_secs(500),
            since_boot: hour + Duration::from_secs(200),
        };
        assert!(set.is_plausible());
        assert_eq!(set.utc_of(unset.since_boot), SystemTime::UNIX_EPOCH + BUILT + Duration::from_secs(300));
    }

    #[test]
    fn the_machine_says_how_long_it_runs() {
        let (one, other) = (Moment::now(), Moment::now());
        assert!(other.since_boot >= one.since_boot && one.since_boot > Duration::ZERO);
        assert!(!boot_id().is_empty());
    }
}
