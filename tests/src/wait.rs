//! Waiting for a condition instead of for a time.

use std::time::{Duration, Instant};

/// What a condition may take on a loaded machine with two cores.
pub const LONG: Duration = Duration::from_secs(60);

/// Asks `condition` until it gives a value; panics with `what` after `limit`.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "not within {} s: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As [`until`] for a plain yes or no.
pub fn until_true(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    until(what, limit, || condition().then_some(()));
}
