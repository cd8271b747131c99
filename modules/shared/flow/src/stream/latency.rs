//! Where delays are counted: fixed buckets, no lock, no allocation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets per doubling: the answer is right within a fifth.
const PER_OCTAVE: u32 = 4;
const BUCKETS: usize = 96;

/// A histogram of delays from 1 microsecond to a quarter of a minute.
#[derive(Debug)]
pub struct Latency {
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

impl Latency {
    /// Counts one delay.
    pub fn observe(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX).max(1);
        let octave = micros.ilog2();
        let within = if octave >= 2 { (micros >> (octave - 2)) & 3 } else { 0 };
        let index = (octave * PER_OCTAVE) as usize + within as usize;
        if let Some(bucket) = self.buckets.get(index.min(BUCKETS - 1)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The delay that a share `quantile` of what was observed stays below; `None` before the first.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return None;
        }
        let wanted = (total as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        for (index, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                let (octave, within) = (index as u32 / PER_OCTAVE, index as u32 % PER_OCTAVE);
                let upper = (1_u64 << octave) as f64 * (1.0 + f64::from(within + 1) / f64::from(PER_OCTAVE));
                return Some(Duration::from_micros(upper as u64));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_a_fifth() {
        let latency = Latency::default();
        assert_eq!(latency.quantile(0.5), None);
        for micros in 1..=10_000 {
            latency.observe(Duration::from_micros(micros));
        }
        for (quantile, micros) in [(0.5, 5000.0), (0.99, 9900.0)] {
            let got = latency.quantile(quantile).unwrap().as_micros() as f64;
            assert!((got / micros - 1.0).abs() < 0.25, "{quantile}: {got}");
        }
    }
}
