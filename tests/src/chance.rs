//! Random numbers that are the same in each run.

use std::ops::Range;

/// A generator of random numbers with a fixed seed (SplitMix64).
#[derive(Debug)]
pub struct Chance(pub u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// One of `range`.
    pub fn of(&mut self, range: Range<usize>) -> usize {
        range.start + (self.next() % (range.len() as u64)) as usize
    }
}
