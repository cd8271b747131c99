//! How long to wait before the next try.

use std::time::Duration;

use rand::Rng;

use crate::config::Retry;

/// Media that has flowed so long ends the memory of earlier failures.
const HELD: Duration = Duration::from_secs(10);

/// Waits that double from `initial` to `max`, each shortened by up to a quarter at random, so that many
/// modules that lost one server do not come back to it in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    retry: Retry,
    failures: u32,
}

impl Backoff {
    /// As configured.
    pub fn new(retry: Retry) -> Self {
        Self { retry, failures: 0 }
    }

    /// The wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1).min(31);
        let whole = self.retry.initial.saturating_mul(factor).min(self.retry.max);
        whole.mul_f64(rand::rng().random_range(0.75..=1.0))
    }

    /// Tells how long media flowed on the connection that was lost: 10 s or more start the waits anew, less
    /// does not, so that a peer that accepts and fails at once is not hammered.
    pub fn media_flowed(&mut self, duration: Duration) {
        if duration >= HELD {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Retry { initial: Duration::from_millis(500), max: Duration::from_secs(30) })
    }

    #[test]
    fn waits_double_up_to_the_maximum_and_stay_there() {
        let mut backoff = backoff();
        for whole in [500u64, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            let wait = backoff.next_wait().as_millis();
            let whole = u128::from(whole);
            assert!((whole * 3 / 4..=whole).contains(&wait), "{wait} of {whole}");
        }
        for _ in 0..100 {
            assert!(backoff.next_wait() <= Duration::from_secs(30));
        }
    }

    #[test]
    fn only_a_connection_that_held_starts_the_waits_anew() {
        let mut backoff = backoff();
        for _ in 0..5 {
            backoff.next_wait();
        }
        backoff.media_flowed(Duration::from_secs(9));
        assert_eq!(backoff.failures, 5);
        backoff.media_flowed(Duration::from_secs(10));
        assert!(backoff.next_wait() <= Duration::from_millis(500));
    }
}
