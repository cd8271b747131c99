//! How many connections there are at this moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of connections. Clones are the same count.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<AtomicUsize>);

impl Count {
    /// How many there are.
    pub fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, while the answer lives.
    pub fn add(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// One more, if there are fewer than `most`.
    pub fn add_below(&self, most: usize) -> Option<Counted> {
        let more = |count| (count < most).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Counted(self.clone()))
    }
}

/// One of a [`Count`].
#[derive(Debug)]
pub struct Counted(Count);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
