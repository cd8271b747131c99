//! How long a peer may take over an answer.
//!
//! [`Patient`](super::patient::Patient) sees what waits at the socket. Over HTTP/2 a peer that opens no window leaves nothing
//! there, and answers pings; over HTTP/1 a byte now and then is enough. Both would hold on to segments for ever.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// An answer of any length may take so long,
const ANY: Duration = Duration::from_secs(30);
/// and a second more for each so many bytes.
const BYTES_A_SECOND: u64 = 16 * 1024;

/// The answers of one connection that have not been taken yet. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace(Arc<Mutex<Answers>>);

#[derive(Debug, Default)]
struct Answers {
    /// When each has to be taken, and its number.
    due: BTreeSet<(Instant, u64)>,
    next: u64,
}

impl Pace {
    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer of so many bytes begins. It is taken when what is returned is dropped.
    pub(super) fn begin(&self, bytes: u64) -> Untaken {
        let due = Instant::now() + ANY + Duration::from_secs(bytes / BYTES_A_SECOND);
        let mut answers = self.lock();
        let number = answers.next;
        answers.next = number.wrapping_add(1);
        answers.due.insert((due, number));
        Untaken { pace: self.clone(), due: (due, number) }
    }

    /// Waits until an answer has not been taken in time.
    pub(super) async fn too_slow(&self) {
        loop {
            let now = Instant::now();
            let first = self.lock().due.first().map(|(due, _)| *due);
            if first.is_some_and(|due| due <= now) {
                return;
            }
            // None that begins in the meantime is due before.
            let again = now + ANY;
            sleep_until(first.map_or(again, |due| due.min(again))).await;
        }
    }
}

/// See [`Pace::begin`].
#[derive(Debug)]
pub(crate) struct Untaken {
    pace: Pace,
    due: (Instant, u64),
}

impl Drop for Untaken {
    fn drop(&mut self) {
        self.pace.lock().due.remove(&self.due);
    }
}

#[cfg(test)]
mod tests;
