//! Whether anybody wants the frames of a stream: an input that connects on demand goes by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// What nobody wants any more is kept that long: players come back.
pub const LINGER: Duration = Duration::from_secs(10);

/// Who wants the frames of one stream. Clones are of the same stream.
#[derive(Clone, Debug, Default)]
pub struct Demand(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    wanted: watch::Sender<Wanted>,
    /// Inputs that start when somebody wants the stream.
    sleepers: AtomicUsize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    holders: usize,
    /// Until when those who only ask now and then want it, and since when nobody does.
    until: Option<Instant>,
}

impl Wanted {
    fn is_now(self, now: Instant) -> bool {
        self.holders > 0 || self.until.is_some_and(|until| now < until)
    }
}

/// Somebody who wants the stream for as long as this lives.
#[derive(Debug)]
pub struct Want(Demand);

impl Drop for Want {
    fn drop(&mut self) {
        let now = Instant::now();
        self.0.0.wanted.send_if_modified(|wanted| {
            wanted.holders = wanted.holders.saturating_sub(1);
            let is_last = wanted.holders == 0;
            if is_last {
                wanted.until = wanted.until.max(Some(now));
            }
            is_last
        });
    }
}

/// An input that starts when somebody wants the stream, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Sleeper(Demand);

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.0.sleepers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Demand {
    /// From now on somebody wants the stream.
    pub fn want(&self) -> Want {
        self.0.wanted.send_if_modified(|wanted| {
            wanted.holders += 1;
            wanted.holders == 1
        });
        Want(self.clone())
    }

    /// Somebody wants the stream for so long at least.
    pub fn ask(&self, time: Duration) {
        let now = Instant::now();
        self.0.wanted.send_if_modified(|wanted| {
            let is_news = !wanted.is_now(now);
            wanted.until = wanted.until.max(now.checked_add(time));
            is_news
        });
    }

    /// Whether a stream that is not there comes when it is wanted.
    pub fn wakes(&self) -> bool {
        self.0.sleepers.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn sleeper(&self) -> Sleeper {
        self.0.sleepers.fetch_add(1, Ordering::Relaxed);
        Sleeper(self.clone())
    }

    /// Waits until somebody wants the stream.
    pub(crate) async fn wanted(&self) {
        let mut seen = self.0.wanted.subscribe();
        // The sender lives as long as this does.
        let _ = seen.wait_for(|wanted| wanted.is_now(Instant::now())).await;
    }

    /// Waits until nobody has wanted the stream for [`LINGER`].
    pub(crate) async fn unwanted(&self) {
        let began = Instant::now();
        let mut seen = self.0.wanted.subscribe();
        loop {
            let wanted = *seen.borrow_and_update();
            let due = wanted.until.unwrap_or(began) + LINGER;
            if wanted.holders > 0 {
                let _ = seen.changed().await;
            } else if Instant::now() >= due {
                return;
            } else {
                let _ = timeout_at(due, seen.changed()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When the next wait ends, in seconds from now.
    async fn seconds(waiting: impl Future<Output = ()>) -> u64 {
        let began = Instant::now();
        waiting.await;
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_unwanted_ten_seconds_after_the_last_who_wanted_it() {
        let demand = Demand::default();
        let (first, second) = (demand.want(), demand.want());
        demand.wanted().await;
        let leaving = async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            drop(first);
            tokio::time::sleep(Duration::from_secs(100)).await;
            drop(second);
            // Back before it is let go.
            tokio::time::sleep(Duration::from_secs(9)).await;
            let third = demand.want();
            tokio::time::sleep(Duration::from_secs(100)).await;
            drop(third);
        };
        let (waited, ()) = tokio::join!(seconds(demand.unwanted()), leaving);
        assert_eq!(waited, 100 + 100 + 9 + 100 + 10);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_now_and_then_wants_it_in_between() {
        let demand = Demand::default();
        let asking = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            demand.ask(Duration::from_secs(6));
        };
        assert_eq!(tokio::join!(seconds(demand.wanted()), asking).0, 5);
        let asking = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(5)).await;
                demand.ask(Duration::from_secs(6));
            }
        };
        assert_eq!(tokio::join!(seconds(demand.unwanted()), asking).0, 50 + 6 + 10);
        // Nobody wants it now; whoever comes next wakes it at once.
        let asking = async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            demand.ask(Duration::from_secs(6));
        };
        assert_eq!(tokio::join!(seconds(demand.wanted()), asking).0, 30);
    }

    #[test]
    fn a_stream_wakes_while_an_input_sleeps_behind_it() {
        let demand = Demand::default();
        assert!(!demand.wakes());
        let sleeper = demand.sleeper();
        assert!(demand.clone().wakes());
        drop(sleeper);
        assert!(!demand.wakes());
    }
}
