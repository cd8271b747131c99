//! Whether the time of day is right. Boards without a battery start with the time at which they were shut down, so that it
//! looks right proves nothing: the kernel says that it is kept in step (NTP), or the store does, by the `Date` of an answer
//! over TLS. What was said holds for this run of the machine, or until somebody moves the clock.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rtime_clock::adjtime::{Timex, adjtimex};
use serde::{Deserialize, Serialize};

use crate::clock::{self, Moment};

/// Clocks that differ by less are the same.
const SAME: Duration = Duration::from_secs(60);
/// A step that is believed to be a mistake, or the mending of one.
const STEP: Duration = Duration::from_secs(3600);
/// After such a step nothing is old for so long; and so long nobody may have moved a clock that nobody vouches for.
const PATIENCE: Duration = Duration::from_secs(86_400);
/// So long after its start a machine has had time to be told the time.
const TOLD_BY: Duration = Duration::from_secs(180);
/// Of the spool, for this run of the machine.
const FILE: &str = "clock";
const MAX_BYTES: u64 = 4096;
/// `STA_UNSYNC`: nobody keeps the clock in step.
const UNSYNC: i32 = 0x40;

/// What is known of the clock.
#[derive(Debug, Default)]
pub struct Belief {
    known: Mutex<Known>,
    saved: Mutex<Option<Known>>,
}

/// All times are milliseconds, of Unix time or since the machine started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known {
    /// Which run of the machine.
    boot: String,
    /// When the machine started, by the clock as it was last seen.
    started: Option<i64>,
    /// Since then nobody has moved the clock, as far as was seen.
    steady: u64,
    /// Nothing is old before.
    not_before: u64,
    /// Somebody who knows has said what time it is.
    is_right: bool,
    /// How far the store's clock is ahead of this one.
    ahead: i64,
    /// The kernel said so when it was last asked.
    #[serde(skip)]
    is_in_step: bool,
}

/// The time, and what it is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// This moment. Where the store alone knows what time it is, by the store's clock.
    pub now: Moment,
    /// Somebody who knows says that this is the time.
    pub is_sure: bool,
    /// Files may be named by it.
    pub names: bool,
    /// Files may be deleted by their age.
    pub ages: bool,
}

impl Belief {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time, and what it is good for.
    pub fn now(&self) -> Told {
        let now = Moment::now();
        let mut known = self.known();
        known.looks(now, in_step());
        known.told(now, is_from_a_hardware_clock)
    }

    /// The store has said what time it is, and nobody in between could.
    pub fn answered(&self, theirs: SystemTime) {
        self.known().answered(Moment::now(), theirs);
    }

    /// Takes up what an earlier process of this run of the machine knew.
    pub fn load(&self, dir: &Path) {
        let mut text = Vec::new();
        let read = File::open(dir.join(FILE)).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text));
        let before = read.ok().and_then(|_| serde_json::from_slice::<Known>(&text).ok());
        let boot = clock::boot_id();
        let mut known = self.known();
        match before {
            Some(before) if before.boot == boot && !boot.is_empty() => *known = before,
            _ => known.boot = boot,
        }
    }

    /// Keeps it for a later process. Where it is lost, less is believed.
    pub fn save(&self, dir: &Path) {
        let known = self.known().clone();
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        if saved.as_ref().is_some_and(|saved| saved.is_like(&known)) {
            return;
        }
        let aside = dir.join("clock.new");
        let written = serde_json::to_vec(&known).map_err(std::io::Error::from).and_then(|text| {
            let mut file = File::create(&aside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&aside, dir.join(FILE))
        });
        match written {
            Ok(()) => *saved = Some(known),
            Err(error) => tracing::debug!("{}: {error}", aside.display()),
        }
    }
}

impl Known {
    fn is_like(&self, other: &Self) -> bool {
        // When the machine started moves by a millisecond at each look.
        let parts = |known: &Self| (known.steady, known.not_before, known.is_right, known.ahead);
        self.boot == other.boot && parts(self) == parts(other)
    }

    /// Sees whether somebody has moved the clock, and what the kernel says.
    fn looks(&mut self, now: Moment, in_step: Option<SystemTime>) {
        let since_boot = millis(now.since_boot);
        let started = unix_millis(now.utc).saturating_sub_unsigned(since_boot);
        let step = self.started.replace(started).map(|before| started.abs_diff(before));
        match step.map(Duration::from_millis) {
            Some(step) if step <= SAME => {}
            step => {
                // The first look, or a step.
                self.steady = since_boot;
                (self.is_right, self.ahead) = (false, 0);
                if let Some(step) = step.filter(|step| *step > STEP) {
                    self.be_patient(now, &format!("the clock was moved by {} s", step.as_secs()));
                }
            }
        }
        self.is_in_step = in_step.is_some_and(|kernel| is_same(kernel, now.utc));
        if self.is_in_step {
            (self.is_right, self.ahead) = (true, 0);
        }
    }

    fn answered(&mut self, now: Moment, theirs: SystemTime) {
        let in_step = self.is_in_step.then_some(now.utc);
        self.looks(now, in_step);
        if self.is_in_step {
            return;
        }
        let ahead = if is_same(theirs, now.utc) { 0 } else { unix_millis(theirs) - unix_millis(now.utc) };
        let change = Duration::from_millis(ahead.abs_diff(self.ahead));
        if change > STEP {
            let why = format!("the store's clock is {} s ahead of this one", ahead / 1000);
            self.be_patient(now, &why);
        }
        // Answers take their time.
        if change > SAME || ahead == 0 {
            self.ahead = ahead;
        }
        self.is_right = true;
    }

    fn be_patient(&mut self, now: Moment, why: &str) {
        tracing::warn!("{why}: no file is deleted by age for a day");
        self.not_before = millis(now.since_boot.saturating_add(PATIENCE));
    }

    fn told(&self, now: Moment, has_hardware: impl FnOnce() -> bool) -> Told {
        let since_boot = now.since_boot;
        let right = unix_millis(now.utc).saturating_add(self.ahead);
        let right = Duration::from_millis(u64::try_from(right).unwrap_or_default());
        let utc = if self.ahead == 0 { now.utc } else { SystemTime::UNIX_EPOCH + right };
        let now = Moment { utc, ..now };
        let is_steady = since_boot.saturating_sub(Duration::from_millis(self.steady)) >= PATIENCE;
        let is_plausible = now.is_plausible();
        Told {
            now,
            is_sure: is_plausible && self.is_right,
            names: is_plausible && (self.is_right || since_boot >= TOLD_BY || has_hardware()),
            ages: is_plausible
                && (self.is_right || is_steady)
                && since_boot >= Duration::from_millis(self.not_before),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn unix_millis(utc: SystemTime) -> i64 {
    let since = utc.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn is_same(one: SystemTime, other: SystemTime) -> bool {
    unix_millis(one).abs_diff(unix_millis(other)) <= millis(SAME)
}

/// The kernel's time, where something keeps it in step. It comes along so that a process which is shown another time
/// does not take that for the one which is in step.
fn in_step() -> Option<SystemTime> {
    let mut time = Timex::new();
    adjtimex(&mut time).ok()?;
    let seconds = u64::try_from(time.0.time.tv_sec).ok()?;
    (time.0.status & UNSYNC == 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// The kernel set the time from a clock with a battery when the machine started.
fn is_from_a_hardware_clock() -> bool {
    let Ok(clocks) = std::fs::read_dir("/sys/class/rtc") else { return false };
    let set = |clock: std::fs::DirEntry| std::fs::read_to_string(clock.path().join("hctosys"));
    clocks.flatten().any(|clock| set(clock).is_ok_and(|set| set.trim() == "1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;

    /// So many seconds after a moment of 2027 by the clock, and after the start of the machine.
    fn at(utc: u64, since_boot: u64) -> Moment {
        Moment {
            utc: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + utc),
            since_boot: Duration::from_secs(since_boot),
        }
    }

    fn told(known: &Known, now: Moment) -> (bool, bool, bool) {
        let told = known.told(now, || false);
        (told.is_sure, told.names, told.ages)
    }

    #[test]
    fn a_clock_that_looks_right_at_a_start_proves_nothing() {
        let mut known = Known::default();
        known.looks(at(0, 20), None);
        assert_eq!(told(&known, at(0, 20)), (false, false, false));
        assert!(known.told(at(0, 20), || true).names, "a clock with a battery names files");
        // Nobody vouches for it: it names files after a while, and nothing is old for a day.
        assert_eq!(told(&known, at(180, 200)), (false, true, false));
        assert_eq!(told(&known, at(DAY, 20 + DAY)), (false, true, true));
    }

    #[test]
    fn what_the_kernel_said_holds_until_the_clock_is_moved() {
        let mut known = Known::default();
        known.looks(at(0, 20), Some(at(0, 20).utc));
        assert_eq!(told(&known, at(0, 20)), (true, true, true));
        // Nine hours without an answer, and the kernel is not sure any more.
        known.looks(at(9 * HOUR, 20 + 9 * HOUR), None);
        assert_eq!(told(&known, at(9 * HOUR, 20 + 9 * HOUR)), (true, true, true));
        // By five minutes, which is no mistake, and yet somebody has to say so again.
        let moved = at(10 * HOUR + 300, 20 + 10 * HOUR);
        known.looks(moved, None);
        assert_eq!(told(&known, moved), (false, true, false));
        known.looks(moved, Some(moved.utc));
        assert_eq!(told(&known, moved), (true, true, true));
    }

    #[test]
    fn after_a_step_of_hours_nothing_is_old_for_a_day_whoever_says_that_it_is_right() {
        let mut known = Known::default();
        known.looks(at(0, 20), None);
        let set = at(60 * DAY, 100);
        known.looks(set, Some(set.utc));
        assert_eq!(told(&known, set), (true, true, false));
        let later = at(60 * DAY + DAY, 100 + DAY);
        known.looks(later, Some(later.utc));
        assert_eq!(told(&known, later), (true, true, true));
        // Back.
        let back = at(DAY, 200 + DAY);
        known.looks(back, None);
        assert_eq!(told(&known, back), (false, true, false));
    }

    #[test]
    fn a_kernel_that_shows_another_time_vouches_for_nothing() {
        let mut known = Known::default();
        known.looks(at(DAY, 20), Some(at(0, 20).utc));
        assert_eq!(told(&known, at(DAY, 20)), (false, false, false));
    }

    #[test]
    fn the_store_says_what_time_it_is_where_nobody_else_does() {
        let mut known = Known::default();
        known.looks(at(0, 20), None);
        known.answered(at(1, 21), at(3, 21).utc);
        assert_eq!(told(&known, at(1, 21)), (true, true, true));
        assert_eq!(known.told(at(1, 21), || false).now, at(1, 21));

        let mut late = Known::default();
        late.looks(at(0, 20), None);
        late.answered(at(1, 21), at(60 * DAY, 21).utc);
        let said = late.told(at(2, 22), || false);
        assert_eq!((said.is_sure, said.names, said.ages), (true, true, false));
        assert_eq!(said.now, at(60 * DAY + 1, 22));
        // The clock is set: what the store said of the one before is over.
        late.looks(at(60 * DAY + 10, 32), None);
        let said = late.told(at(60 * DAY + 10, 32), || false);
        assert_eq!((said.is_sure, said.now), (false, at(60 * DAY + 10, 32)));
    }

    #[test]
    fn what_was_known_is_known_after_a_restart_in_the_same_run_of_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let belief = Belief::default();
        belief.load(dir.path());
        belief.now();
        belief.answered(SystemTime::now());
        assert!(belief.now().is_sure);
        belief.save(dir.path());
        let next = Belief::default();
        assert!(!next.known().is_right);
        next.load(dir.path());
        assert!(next.now().is_sure);
        // Another run.
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let other = text.replace(&clock::boot_id(), "other");
        std::fs::write(dir.path().join(FILE), other).unwrap();
        let next = Belief::default();
        next.load(dir.path());
        assert!(!next.known().is_right);
    }
}
