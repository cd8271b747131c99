//! The bound of what all streams of a module keep together (`cacheMegabytes`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::time::Instant;

use super::Shared;

/// What streams may keep for readers. Clones are the same bound.
#[derive(Clone, Debug)]
pub struct Cache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limit: AtomicUsize,
    used: AtomicUsize,
    streams: Mutex<Streams>,
    /// One at a time makes room.
    relieving: Mutex<()>,
}

#[derive(Debug, Default)]
struct Streams {
    all: Vec<Weak<Shared>>,
    /// Those that are gone are swept out at that many.
    sweep_at: usize,
}

impl Default for Cache {
    /// Without a bound.
    fn default() -> Self {
        let (limit, used) = (AtomicUsize::new(usize::MAX), AtomicUsize::new(0));
        let inner = Inner { limit, used, streams: Mutex::default(), relieving: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }
}

impl Cache {
    /// Bytes that all streams together may keep; what is too much goes when the next frame comes.
    pub fn set_limit(&self, bytes: usize) {
        self.inner.limit.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that streams keep now.
    pub fn used(&self) -> usize {
        self.inner.used.load(Ordering::Relaxed)
    }

    /// Bytes that all streams together may keep.
    pub fn limit(&self) -> usize {
        self.inner.limit.load(Ordering::Relaxed)
    }

    /// What is kept for readers elsewhere than in streams counts as well: `now` bytes, `before` when it was last told.
    pub fn keep(&self, before: usize, now: usize) {
        self.count(before, now);
    }

    fn is_full(&self) -> bool {
        self.used() > self.inner.limit.load(Ordering::Relaxed)
    }

    pub(super) fn register(&self, stream: &Arc<Shared>) {
        let mut streams = self.inner.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.all.len() >= streams.sweep_at {
            streams.all.retain(|stream| stream.strong_count() > 0);
            streams.sweep_at = streams.all.len() * 2 + 64;
        }
        streams.all.push(Arc::downgrade(stream));
    }

    /// One stream keeps `now` bytes and kept `before`.
    pub(super) fn count(&self, before: usize, now: usize) {
        if now >= before {
            self.inner.used.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.inner.used.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// While there is too much, the stream that keeps most gives up its old GOP; where it has only the one that goes on,
    /// that. Call it without a stream's lock.
    pub(super) fn relieve(&self, now: Instant) {
        if !self.is_full() {
            return;
        }
        let Ok(_one) = self.inner.relieving.try_lock() else { return };
        // Those that have nothing to give up.
        let mut spent = Vec::new();
        while self.is_full() {
            let most = {
                let streams = self.inner.streams.lock().unwrap_or_else(PoisonError::into_inner);
                let all = streams.all.iter().filter_map(Weak::upgrade);
                all.filter(|stream| stream.kept() > 0 && !spent.contains(&Arc::as_ptr(stream)))
                    .max_by_key(|stream| stream.kept())
            };
            let Some(most) = most else { return };
            if !most.give_up(now) {
                spent.push(Arc::as_ptr(&most));
            }
        }
    }
}
