//! What ties a connection to its player: the connection has things to say, and goes.
//!
//! A walk looks at one number for each player, and at nothing else unless there is something. Nothing can be lost on
//! the way, and nothing can pile up: a connection that says more than a session has to say is itself the bound, since
//! it waits for its peer.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// The connection has gone, or wants its sink back.
const LEFT: u8 = 1;
/// There are answers to be sent.
const ANSWERS: u8 = 2;
/// The player wants nothing for a while, or wants the stream to go on.
const PAUSE: u8 = 4;
/// Answers that wait: a player that takes nothing is asked for nothing more.
const MAX_ANSWERS: usize = 64;

/// The fan-out's end.
#[derive(Debug, Default)]
pub struct Post {
    news: AtomicU8,
    answers: Mutex<Vec<Bytes>>,
    paused: AtomicBool,
    /// Wakes the task that owns the player.
    owner: OnceLock<Arc<Notify>>,
}

/// The connection's end. Dropped, the player leaves.
#[derive(Debug)]
pub struct Tie(Arc<Post>);

/// Both ends.
pub fn tie() -> (Tie, Arc<Post>) {
    let post = Arc::<Post>::default();
    (Tie(post.clone()), post)
}

impl Tie {
    /// Sends what a session answers, between whole messages. `false`: too much is waiting already.
    pub fn answer(&self, bytes: Bytes) -> bool {
        let mut answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MAX_ANSWERS {
            return false;
        }
        answers.push(bytes);
        drop(answers);
        self.0.tell(ANSWERS);
        true
    }

    /// Stops the media, or (`false`) lets it go on at the next sync frame.
    pub fn pause(&self, paused: bool) {
        self.0.paused.store(paused, Ordering::Relaxed);
        self.0.tell(PAUSE);
    }

    /// Asks for the sink: it comes with the farewell, and no media is written any more.
    pub fn leave(&self) {
        self.0.tell(LEFT);
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Post {
    fn tell(&self, news: u8) {
        self.news.fetch_or(news, Ordering::Release);
        // Of this and `owned_by`, which write one thing and read the other, one sees what the other wrote.
        fence(Ordering::SeqCst);
        if let Some(owner) = self.owner.get() {
            owner.notify_one();
        }
    }

    /// From now on `owner` is woken when there is news.
    pub(super) fn owned_by(&self, owner: &Arc<Notify>) {
        let _ = self.owner.set(owner.clone());
        fence(Ordering::SeqCst);
        if self.has_news() {
            owner.notify_one();
        }
    }

    pub(super) fn has_news(&self) -> bool {
        self.news.load(Ordering::Relaxed) != 0
    }

    pub(super) fn has_left(&self) -> bool {
        self.news.load(Ordering::Acquire) & LEFT != 0
    }

    /// Whether the player has paused, where that is news since the last call.
    pub(super) fn take_pause(&self) -> Option<bool> {
        let is_news = self.news.fetch_and(!PAUSE, Ordering::AcqRel) & PAUSE != 0;
        is_news.then(|| self.paused.load(Ordering::Relaxed))
    }

    /// Answers since the last call.
    pub(super) fn take_answers(&self) -> Vec<Bytes> {
        if self.news.fetch_and(!ANSWERS, Ordering::AcqRel) & ANSWERS == 0 {
            return Vec::new();
        }
        std::mem::take(&mut self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
