//! Pictures that say when they were sent, and how old they are where they are found.

use std::sync::Mutex;
use std::time::SystemTime;

/// A unit of H.264 that decoders pass over (user data, ITU-T H.264 §D.1.7): behind this, microseconds of Unix time in 16
/// hexadecimal digits.
const UNIT: &[u8] = b"\0\0\0\x24\x06\x05\x20av-bench stamp: ";
/// What is looked for: the head of a unit does not get through a repacketizer.
const MARK: &[u8] = b"av-bench stamp: ";
const DIGITS: usize = 16;

/// The unit of a picture that is sent now, with its length in front.
pub fn now() -> Vec<u8> {
    [UNIT, format!("{:016x}", microseconds()).as_bytes(), &[0x80]].concat()
}

/// Of each stamp that is whole in `bytes`, in order: its age in milliseconds.
pub fn ages(bytes: &[u8]) -> impl DoubleEndedIterator<Item = f64> {
    let now = microseconds();
    let is_mark = |at: &usize| bytes.get(*at) == Some(&MARK[0]) && bytes[*at..].starts_with(MARK);
    (0..bytes.len()).filter(is_mark).filter_map(move |at| {
        let digits = bytes.get(at + MARK.len()..at + MARK.len() + DIGITS)?;
        let sent = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        Some((now as f64 - sent as f64) / 1e3)
    })
}

/// Of Unix time.
fn microseconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_micros() as u64)
}

/// How old pictures were when they were with a player.
#[derive(Default)]
pub struct Ages(Mutex<Vec<f64>>);

impl Ages {
    /// A picture came that was sent so many milliseconds before.
    pub fn add(&self, age: f64) {
        self.0.lock().unwrap().push(age);
    }

    /// What was seen so far does not count.
    pub fn forget(&self) {
        self.0.lock().unwrap().clear();
    }

    /// Median, p99 and most, in milliseconds, as an array of JSON.
    pub fn quantiles(&self) -> String {
        quantiles(self.0.lock().unwrap().clone())
    }
}

/// Median, p99 and most, as an array of JSON; -1 where there is none.
pub fn quantiles(mut all: Vec<f64>) -> String {
    all.sort_by(f64::total_cmp);
    let at = |of: f64| {
        let last = all.len().saturating_sub(1);
        all.get((last as f64 * of) as usize).copied().unwrap_or(-1.0)
    };
    format!("[{:.2},{:.2},{:.2}]", at(0.5), at(0.99), at(1.0))
}
