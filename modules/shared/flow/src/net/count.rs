//! How many connections there are at this moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A number of connections. Clones are the same count.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<Counter>);

#[derive(Debug, Default)]
struct Counter {
    now: AtomicUsize,
    /// Told when there are none any more.
    none: Notify,
}

impl Count {
    /// How many there are.
    pub fn now(&self) -> usize {
        self.0.now.load(Ordering::Acquire)
    }

    /// One more, while the answer lives.
    pub fn add(&self) -> Counted {
        self.0.now.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// One more, if there are fewer than `most`.
    pub fn add_below(&self, most: usize) -> Option<Counted> {
        let more = |count| (count < most).then_some(count + 1);
        self.0.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Counted(self.clone()))
    }

    /// Waits until there are none.
    pub async fn none(&self) {
        loop {
            let mut none = std::pin::pin!(self.0.none.notified());
            // Before looking: who leaves meanwhile is not missed.
            none.as_mut().enable();
            if self.now() == 0 {
                return;
            }
            none.await;
        }
    }
}

/// One of a [`Count`].
#[derive(Debug)]
pub struct Counted(Count);

impl Drop for Counted {
    fn drop(&mut self) {
        let counter = &self.0.0;
        if counter.now.fetch_sub(1, Ordering::AcqRel) == 1 {
            counter.none.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_none_is_told_when_the_last_one_goes() {
        let count = Count::default();
        count.none().await;
        let (first, second) = (count.add(), count.add());
        let waiting = tokio::spawn({
            let count = count.clone();
            async move { count.none().await }
        });
        drop(first);
        assert!(timeout(Duration::from_secs(1), count.none()).await.is_err());
        assert!(!waiting.is_finished());
        drop(second);
        timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();
    }
}
