//! What lies in files that are deleted before the system writes them to the disk. That works for so many bytes only: with
//! more of them a system begins to write at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long such a file may stay. Linux begins to write a file after half a minute.
pub(crate) const STAYS: Duration = Duration::from_secs(29);

/// The bytes of all streams of the module.
#[derive(Debug, Default)]
pub(crate) struct Fleeting {
    most: AtomicUsize,
    held: AtomicUsize,
}

/// Some of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    of: Arc<Fleeting>,
    len: usize,
}

impl Fleeting {
    /// From now on there may be that many.
    pub(crate) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// `len` more, if that many are not too many.
    pub(crate) fn hold(self: &Arc<Self>, len: usize) -> Option<Held> {
        let most = self.most.load(Ordering::Relaxed);
        let more = |held: usize| held.checked_add(len).filter(|held| *held <= most);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Held { of: self.clone(), len })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.held.fetch_sub(self.len, Ordering::Relaxed);
    }
}
