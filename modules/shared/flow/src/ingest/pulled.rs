//! What an input that connects, again and again, does with what it gets.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::endpoint::InputContext;
use crate::stream::{Dedup, Incoming, Kick, KickReason, Passed, Publisher, Seam};

/// The way from one source, over all connections to it, into the stream.
///
/// A break is not a lost publisher at once: the right to write is kept, and the stream is told when it takes too long
/// or when the source says that it has ended. What comes twice is left out (see [`Dedup`]).
pub struct Pulled {
    input: InputContext,
    dedup: Dedup,
    passed: Vec<Passed>,
    writing: Option<Writing>,
    first: Option<Instant>,
    last: Option<Instant>,
}

/// The right to write.
struct Writing {
    publisher: Publisher,
    kick: Kick,
}

impl Pulled {
    /// Nothing yet, for the stream of this input.
    pub fn new(input: &InputContext) -> Self {
        Self {
            input: input.clone(),
            dedup: Dedup::default(),
            passed: Vec::new(),
            writing: None,
            first: None,
            last: None,
        }
    }

    /// Another connection is there.
    pub fn reconnected(&mut self) {
        self.dedup.reconnected();
    }

    /// The connection, or the attempt to make one, is over. The answer is how long frames flowed on it.
    pub fn disconnected(&mut self) -> Duration {
        self.dedup.disconnected();
        let (first, last) = (self.first.take(), self.last.take());
        first.zip(last).map_or(Duration::ZERO, |(first, last)| last.saturating_duration_since(first))
    }

    /// Tells the stream that its publisher is gone.
    pub fn end(&mut self) {
        self.writing = None;
    }

    /// When the last frame of this connection came.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// Notes that a frame came. Whether it is the first of this connection.
    pub fn frame_came(&mut self, now: Instant) -> bool {
        self.last = Some(now);
        self.first.replace(self.first.unwrap_or(now)).is_none()
    }

    /// Hands an item on, unless it came before.
    pub fn take(&mut self, item: Incoming, now: Instant) {
        self.dedup.push(item, now.into(), &mut self.passed);
        for passed in self.passed.drain(..) {
            match passed {
                Passed::Seam(Seam::Continues) if self.writing.is_some() => {
                    self.input.status.reconnects.fetch_add(1, Ordering::Relaxed);
                }
                Passed::Seam(_) => {
                    // The one before is lost first: readers are told in that order.
                    self.writing = None;
                    let kick = Kick::default();
                    let publisher = self.input.stream.publisher(kick.clone());
                    self.writing = Some(Writing { publisher, kick });
                }
                Passed::Item(item) => {
                    if let Some(writing) = &mut self.writing
                        && writing.publisher.item(item, now).is_err()
                    {
                        writing.kick.fire(KickReason::TakenOver);
                    }
                }
            }
        }
    }

    /// Lets others have their turn, as [`Publisher::take_turns`].
    pub async fn take_turns(&mut self) {
        if let Some(writing) = &mut self.writing {
            writing.publisher.take_turns().await;
        }
    }

    /// How long what comes may lie unread, as [`Publisher::patience`].
    pub fn patience(&self) -> Duration {
        self.writing.as_ref().map_or(Duration::ZERO, |writing| writing.publisher.patience())
    }

    /// Waits until the stream wants its publisher gone.
    pub async fn kicked(&self) -> KickReason {
        match &self.writing {
            Some(writing) => writing.kick.fired().await,
            None => std::future::pending().await,
        }
    }

    /// Does `work`; should the stream want its publisher gone meanwhile, it goes.
    pub async fn unless_kicked<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _reason = self.kicked() => {}
            }
            // Without a publisher the stream waits; why there is none is what people want to read.
            let status = &self.input.status.status;
            let before = status.get();
            self.writing = None;
            status.set(before.state, before.trouble);
        }
    }
}
