//! How fast recordings come and go, and when those that wait will have gone.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Samples that are kept: a quarter of an hour of rounds of 30 s.
const SAMPLES: usize = 31;
/// Less tells nothing.
const LEAST: Duration = Duration::from_secs(20);

/// Totals at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    /// Bytes that stores have.
    stored: u64,
    /// Bytes that were written into the spool.
    written: u64,
}

/// What came and went lately.
#[derive(Debug, Default)]
pub struct Flowing {
    samples: VecDeque<Sample>,
}

/// Bytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// To stores.
    pub stored: f64,
    /// Into the spool.
    pub written: f64,
}

impl Flowing {
    /// Takes the totals of this moment.
    pub fn sample(&mut self, at: Instant, stored: u64, written: u64) {
        if self.samples.len() >= SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at, stored, written });
    }

    /// A store is back, which was away: what went and came meanwhile tells nothing of what follows.
    pub fn begin_anew(&mut self, at: Instant, stored: u64, written: u64) {
        self.samples.clear();
        self.sample(at, stored, written);
    }

    /// Over the last quarter of an hour, or since a store is back; `None`: too little is known.
    pub fn rates(&self) -> Option<Rates> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let passed = last.at.saturating_duration_since(first.at);
        if passed < LEAST {
            return None;
        }
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / passed.as_secs_f64();
        Some(Rates { stored: rate(first.stored, last.stored), written: rate(first.written, last.written) })
    }
}

impl Rates {
    /// How long it takes until nothing of `waiting` bytes is left; `None`: it does not become less.
    pub fn drain(&self, waiting: u64) -> Option<Duration> {
        if waiting == 0 {
            return Some(Duration::ZERO);
        }
        let less = self.stored - self.written;
        if less <= 0.0 {
            return None;
        }
        Duration::try_from_secs_f64(waiting as f64 / less).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_gone_when_more_goes_than_comes_and_never_otherwise() {
        let begin = Instant::now();
        let mut flowing = Flowing::default();
        flowing.sample(begin, 0, 0);
        assert_eq!(flowing.rates(), None);
        flowing.sample(begin + Duration::from_secs(100), 30_000, 10_000);
        let rates = flowing.rates().unwrap();
        assert_eq!(rates, Rates { stored: 300.0, written: 100.0 });
        assert_eq!(rates.drain(2000), Some(Duration::from_secs(10)));
        assert_eq!(Rates { stored: 100.0, written: 100.0 }.drain(1), None);
        assert_eq!(Rates { stored: 0.0, written: 0.0 }.drain(0), Some(Duration::ZERO));
    }

    #[test]
    fn a_store_that_was_away_is_as_fast_as_it_is_since_then() {
        let begin = Instant::now();
        let mut flowing = Flowing::default();
        (0..30).for_each(|round| flowing.sample(begin + Duration::from_secs(30 * round), 0, round * 3000));
        assert_eq!(flowing.rates().unwrap().drain(90_000), None);
        let back = begin + Duration::from_secs(900);
        flowing.begin_anew(back, 10_000, 90_000);
        assert_eq!(flowing.rates(), None);
        flowing.sample(back + Duration::from_secs(30), 25_000, 93_000);
        let rates = flowing.rates().unwrap();
        assert_eq!(rates, Rates { stored: 500.0, written: 100.0 });
    }

    #[test]
    fn only_the_last_quarter_of_an_hour_counts() {
        let begin = Instant::now();
        let mut flowing = Flowing::default();
        for round in 0..100_u64 {
            let stored = if round < 60 { 0 } else { (round - 60) * 3000 };
            flowing.sample(begin + Duration::from_secs(30 * round), stored, 0);
        }
        assert_eq!(flowing.rates().unwrap().stored, 100.0);
    }
}
