//! What an output leaves to the one that takes its place: a change of the configuration costs viewers nothing that is not
//! changed by it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use av_flow::stream::{Cache, Stream};

use crate::channel::Shown;
use crate::disk::Folder;
use crate::live::Packager;
use crate::options::Shaped;
use crate::store::StreamMemory;

/// So long after its end an output may have a successor that takes all of it.
const WAITS: Duration = Duration::from_secs(5);
/// And so long what lies on disk, beyond the time in which a module that is told to stop does.
const STAYS: Duration = Duration::from_secs(30);

/// What is left.
pub(crate) struct Left {
    pub shaped: Shaped,
    pub stream: Stream,
    pub packager: Packager<StreamMemory>,
    /// Of a playlist that this one will replace when it begins.
    pub before: Option<Packager<StreamMemory>>,
    pub shown: Arc<Shown>,
    pub counted: Counted,
}

/// All that is left, by URL.
#[derive(Default)]
pub(crate) struct Handover(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    left: HashMap<String, (u64, Left)>,
    /// Tells two that were left at one URL apart.
    serial: u64,
}

impl Handover {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves something for a while; what nobody takes goes, with what lies on disk.
    pub(crate) fn leave(self: &Arc<Self>, url: String, left: Left) {
        let mut inner = self.lock();
        inner.serial = inner.serial.saturating_add(1);
        let serial = inner.serial;
        inner.left.insert(url.clone(), (serial, left));
        drop(inner);
        let handover = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(WAITS).await;
            let folder = handover.forget(&url, serial);
            if let Some(folder) = folder {
                tokio::time::sleep(STAYS).await;
                folder.clear();
            }
        });
    }

    fn forget(&self, url: &str, serial: u64) -> Option<Arc<Folder>> {
        let mut inner = self.lock();
        if inner.left.get(url).is_none_or(|(known, _)| *known != serial) {
            return None;
        }
        let (_, left) = inner.left.remove(url)?;
        left.shown.folder.get().cloned()
    }

    /// Takes what was left.
    pub(crate) fn take(&self, url: &str) -> Option<Left> {
        let (_, left) = self.lock().left.remove(url)?;
        Some(left)
    }
}

/// Bytes that count in `cacheMegabytes`.
pub(crate) struct Counted {
    cache: Cache,
    bytes: usize,
}

impl Counted {
    pub(crate) const fn new(cache: Cache) -> Self {
        Self { cache, bytes: 0 }
    }

    /// It is that many now.
    pub(crate) fn set(&mut self, bytes: usize) {
        self.cache.keep(std::mem::replace(&mut self.bytes, bytes), bytes);
    }

    /// Three quarters of what the others leave. The rest is for the segment that grows, for those on their way to the disk and
    /// for the stream's own GOP: where the cache is full, streams give up frames that are not packaged yet.
    pub(crate) fn room(&self) -> usize {
        let left = self.cache.limit().saturating_sub(self.cache.used().saturating_sub(self.bytes));
        left - left / 4
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.cache.keep(self.bytes, 0);
    }
}
