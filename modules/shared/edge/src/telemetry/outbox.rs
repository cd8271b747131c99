//! Messages that wait for the hub: bounded, and in need of room counters go before any event.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

const MAX_MESSAGES: usize = 2000;
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// edgeHub acknowledges and drops what is over 256 KiB with all its properties.
const MAX_BODY: usize = 240 * 1000;

/// Output of the module, by which routes select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Events,
    Stats,
}

impl Output {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Stats => "stats",
        }
    }
}

/// A message that is not acknowledged yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    /// Unique over the life of the process, growing; consumers tell duplicates by it.
    pub number: u64,
    pub output: Output,
    pub body: Bytes,
}

/// The queue in front of the hub.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Message>,
    bytes: usize,
    last_number: u64,
    dropped: u64,
}

impl Outbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message; where there is no room, the oldest counters go, and only then the oldest event.
    pub fn push(&self, output: Output, body: String) {
        let mut state = self.state();
        if body.len() > MAX_BODY {
            state.dropped += 1;
            return;
        }
        state.last_number += 1;
        let message = Message { number: state.last_number, output, body: Bytes::from(body) };
        state.bytes += message.body.len();
        state.waiting.push_back(message);
        state.bound();
        drop(state);
        self.filled.notify_one();
    }

    /// The oldest message.
    pub fn take(&self) -> Option<Message> {
        let mut state = self.state();
        let message = state.waiting.pop_front()?;
        state.bytes -= message.body.len();
        Some(message)
    }

    /// Messages that were sent and not acknowledged: they go first on the next connection.
    pub fn put_back(&self, mut messages: Vec<Message>) {
        let mut state = self.state();
        messages.sort_by_key(|message| message.number);
        for message in messages.into_iter().rev() {
            state.bytes += message.body.len();
            state.waiting.push_front(message);
        }
        state.bound();
    }

    /// Returns when something may have been added.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Messages that found no room since the start.
    pub fn dropped(&self) -> u64 {
        self.state().dropped
    }
}

impl State {
    fn bound(&mut self) {
        while self.waiting.len() > MAX_MESSAGES || self.bytes > MAX_BYTES {
            let oldest_stats = self.waiting.iter().position(|message| message.output == Output::Stats);
            if let Some(message) = self.waiting.remove(oldest_stats.unwrap_or(0)) {
                self.bytes -= message.body.len();
            }
            if self.dropped.is_multiple_of(1000) {
                tracing::warn!("too much telemetry is waiting for the hub: the oldest is dropped");
            }
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_before_any_event_and_the_loss_is_counted() {
        let outbox = Outbox::default();
        outbox.push(Output::Events, "first".into());
        for _ in 0..100 {
            outbox.push(Output::Stats, "x".repeat(100_000));
        }
        for _ in 0..500 {
            outbox.push(Output::Events, "e".into());
        }
        assert_eq!(outbox.take().unwrap().body, "first");
        let rest: Vec<_> = std::iter::from_fn(|| outbox.take()).collect();
        assert_eq!(rest.iter().filter(|message| message.output == Output::Events).count(), 500);
        assert!(rest.iter().map(|message| message.body.len()).sum::<usize>() <= MAX_BYTES);
        assert_eq!(outbox.dropped() as usize + rest.len() + 1, 601);
    }

    #[test]
    fn what_was_not_acknowledged_goes_first_and_in_order() {
        let outbox = Outbox::default();
        for body in ["1", "2", "3"] {
            outbox.push(Output::Events, body.into());
        }
        let (one, two) = (outbox.take().unwrap(), outbox.take().unwrap());
        outbox.put_back(vec![two, one]);
        let bodies: Vec<_> = std::iter::from_fn(|| outbox.take()).map(|message| message.body).collect();
        assert_eq!(bodies, ["1", "2", "3"]);
    }
}
