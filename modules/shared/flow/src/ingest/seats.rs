//! Who publishes when two want to: takeover without ping-pong, and without locking out an encoder whose network
//! comes and goes.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A displaced publisher that comes back within this time is refused while the new one is live.
const MEMORY: Duration = Duration::from_secs(30);
/// Displaced publishers remembered.
const MAX_REMEMBERED: usize = 16;
/// A publisher from which nothing came for so long has fallen silent: its network may be gone, and nobody is refused
/// for its sake. Longer than the distance of pictures at one a second.
const SILENT: Duration = Duration::from_millis(1500);
/// One from which something came so lately is alive: no encoder finds out that its network has gone, and is back, in
/// so short a time.
const ALIVE: Duration = Duration::from_millis(500);

/// What is known of an encoder that may come back: encoders reconnect from other ports, so the address alone counts,
/// and what the encoder calls itself tells apart some of those behind one address. Two may have both in common, and
/// one may come from two addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// In its IPv4 form where it has one.
    pub address: IpAddr,
    /// What the encoder calls itself.
    pub program: String,
}

/// The place of a publisher, kept as long as its connection, beyond its publishing: what arrives after it was
/// displaced tells that there still is somebody.
#[derive(Debug)]
pub struct Seat(Arc<Heard>);

impl Seat {
    /// Something arrived from this publisher, if only the end of its connection.
    pub fn heard(&self) {
        self.0.note(Instant::now());
    }
}

/// When something last came from a publisher.
#[derive(Debug)]
struct Heard {
    began: Instant,
    /// Nanoseconds after that.
    last: AtomicU64,
}

impl Heard {
    fn new(began: Instant) -> Self {
        Self { began, last: AtomicU64::new(0) }
    }

    fn note(&self, now: Instant) {
        let after = now.saturating_duration_since(self.began).as_nanos();
        self.last.store(u64::try_from(after).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.began + Duration::from_nanos(self.last.load(Ordering::Relaxed))
    }

    fn silent_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last())
    }
}

/// The publishers of one stream, now and lately.
#[derive(Debug, Default)]
pub(super) struct Seats {
    present: Option<Present>,
    displaced: VecDeque<Displaced>,
}

#[derive(Debug)]
struct Present {
    who: Identity,
    heard: Arc<Heard>,
}

#[derive(Debug)]
struct Displaced {
    who: Identity,
    at: Instant,
    /// Whoever displaced it may be itself, back on another connection: it is another one for certain only when
    /// something is heard from the old connection after this moment. `None`: it is another one.
    proof: Option<(Instant, Arc<Heard>)>,
}

impl Displaced {
    fn is_another(&self) -> bool {
        self.proof.as_ref().is_none_or(|(at, heard)| heard.last() > *at)
    }
}

/// Why a second publisher is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Taken {
    /// `onSecondPublisher: reject`.
    #[error("another publisher is live on this stream (onSecondPublisher is reject)")]
    Reject,
    /// It was displaced lately.
    #[error("another publisher took this stream over; try again in 30 s or after it has ended")]
    Displaced,
    /// The endpoint ended meanwhile.
    #[error("the flow was changed or stopped at this moment; try again")]
    Over,
}

impl Seats {
    /// Decides about `who` while a publisher is connected (`live`) or not, and seats it when the answer is yes.
    ///
    /// Who is refused is told apart from who comes back like this:
    /// - A publisher that has fallen silent is no reason to refuse a displaced one. With `reject` it gives way to
    ///   itself, as far as address and program tell; how long others wait is `idleTimeoutSeconds`.
    /// - One that is displaced by an encoder of another address or program is remembered. Where both are the same,
    ///   it is remembered when it was alive at that moment, or shows later on that it still is; or else it
    ///   displaced itself.
    pub(super) fn enter(
        &mut self,
        who: Identity,
        live: bool,
        takeover: bool,
        now: Instant,
    ) -> Result<Seat, Taken> {
        self.forget(now);
        if live {
            let silent = |present: &Present| present.heard.silent_for(now) >= SILENT;
            let silent = self.present.as_ref().is_some_and(silent);
            let itself = self.present.as_ref().is_some_and(|present| present.who == who);
            let gives_way = takeover || (silent && itself);
            if !gives_way {
                return Err(Taken::Reject);
            }
            let displaced = |displaced: &Displaced| displaced.who == who && displaced.is_another();
            if !silent && self.displaced.iter().any(displaced) {
                return Err(Taken::Displaced);
            }
        }
        // It is in: that it once was displaced says nothing any more.
        self.displaced.retain(|displaced| displaced.who != who);
        if let Some(before) = self.present.take().filter(|_| live) {
            self.remember(before, &who, now);
        }
        let heard = Arc::new(Heard::new(now));
        self.present = Some(Present { who, heard: heard.clone() });
        Ok(Seat(heard))
    }

    fn remember(&mut self, before: Present, by: &Identity, now: Instant) {
        let silent_for = before.heard.silent_for(now);
        let proof = if before.who != *by || silent_for < ALIVE {
            None
        } else if silent_for < SILENT {
            Some((now, before.heard))
        } else {
            return;
        };
        if self.displaced.len() == MAX_REMEMBERED {
            self.displaced.pop_front();
        }
        self.displaced.push_back(Displaced { who: before.who, at: now, proof });
    }

    fn forget(&mut self, now: Instant) {
        self.displaced.retain(|displaced| now.saturating_duration_since(displaced.at) < MEMORY);
    }

    /// Whether anything is known here that may matter.
    pub(super) fn are_needed(&mut self, now: Instant) -> bool {
        self.forget(now);
        // The connection holds the other end.
        let seated = self.present.as_ref().is_some_and(|present| Arc::strong_count(&present.heard) > 1);
        seated || !self.displaced.is_empty()
    }
}

#[cfg(test)]
mod tests;
