//! Calls into drivers that may never return, each in a thread of its own: starting a decoder, and ending it.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What takes longer hangs.
pub const BOUND: Duration = Duration::from_secs(8);
/// So many calls may hang before no hardware is tried any more, since each keeps a thread and what its driver holds.
/// Software hangs only where a driver has spoiled more than itself, and has as many to itself.
const MOST: usize = 16;
const STEP: Duration = Duration::from_millis(50);

/// Those of this process.
pub static CALLS: Calls = Calls::new(BOUND);

/// What is being called, and since when.
#[derive(Debug)]
pub struct Calls {
    bound: Duration,
    running: Mutex<(u64, BTreeMap<u64, Instant>)>,
    returned: Condvar,
}

/// No more of them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} calls into decoder drivers hang; restart the module")]
pub struct TooMany(usize);

impl Calls {
    const fn new(bound: Duration) -> Self {
        Self { bound, running: Mutex::new((0, BTreeMap::new())), returned: Condvar::new() }
    }

    fn running(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Instant>)> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more may be made.
    ///
    /// # Errors
    /// Too many hang.
    pub fn room(&self, hardware: bool) -> Result<(), TooMany> {
        let hanging = self.running().1.values().filter(|since| since.elapsed() >= self.bound).count();
        let most = if hardware { MOST } else { 2 * MOST };
        if hanging < most { Ok(()) } else { Err(TooMany(hanging)) }
    }

    /// Makes one.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn make(&'static self, name: &str, call: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let number = {
            let mut running = self.running();
            running.0 += 1;
            let number = running.0;
            running.1.insert(number, Instant::now());
            number
        };
        // Returned also when it panics, or never began.
        let made = Made { calls: self, number };
        std::thread::Builder::new().name(name.into()).spawn(move || {
            let _made = made;
            call();
        })?;
        Ok(())
    }

    /// Waits until all that were made have returned, except those that hang.
    pub fn settle(&self, most: Duration) {
        let until = Instant::now() + most;
        let mut running = self.running();
        while running.1.values().any(|since| since.elapsed() < self.bound) && Instant::now() < until {
            // Nobody tells when one begins to hang.
            running = self.returned.wait_timeout(running, STEP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

struct Made {
    calls: &'static Calls,
    number: u64,
}

impl Drop for Made {
    fn drop(&mut self) {
        self.calls.running().1.remove(&self.number);
        self.calls.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn hardware_is_tried_until_sixteen_calls_hang_and_again_when_one_has_returned() {
        static CALLS: Calls = Calls::new(Duration::ZERO);
        let hold = |count: usize| {
            (0..count)
                .map(|_| {
                    let (release, held) = mpsc::channel::<()>();
                    let call = move || while held.recv().is_ok() {};
                    CALLS.make("held", call).unwrap();
                    release
                })
                .collect::<Vec<_>>()
        };
        let mut held = hold(MOST - 1);
        assert_eq!(CALLS.room(true), Ok(()));
        held.extend(hold(1));
        assert_eq!(
            CALLS.room(true).unwrap_err().to_string(),
            "16 calls into decoder drivers hang; restart the module"
        );
        assert_eq!(CALLS.room(false), Ok(()));
        held.extend(hold(MOST));
        assert_eq!(CALLS.room(false), Err(TooMany(2 * MOST)));
        held.truncate(MOST - 1);
        let until = Instant::now() + Duration::from_secs(20);
        while CALLS.room(true).is_err() {
            assert!(Instant::now() < until, "those that returned are still counted");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_returns_is_waited_for_and_what_hangs_is_not() {
        static CALLS: Calls = Calls::new(Duration::from_secs(1));
        let (_release, held) = mpsc::channel::<()>();
        CALLS.make("hangs", move || while held.recv().is_ok() {}).unwrap();
        let (done, is_done) = mpsc::channel();
        let call = move || {
            std::thread::sleep(Duration::from_millis(100));
            let _ = done.send(());
        };
        CALLS.make("returns", call).unwrap();
        CALLS.settle(Duration::from_secs(60));
        assert_eq!(is_done.try_recv(), Ok(()));
    }
}
