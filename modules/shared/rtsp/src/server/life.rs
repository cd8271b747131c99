//! How long a peer may stay silent.

use std::time::Duration;

/// How long a peer may stay silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the connection's start to its first whole message.
    pub handshake: Duration,
    /// From the first byte of a message to its last.
    pub request: Duration,
    /// Without a session.
    pub idle: Duration,
    /// With a session: told to the client, who then keeps it alive.
    pub session: Duration,
}

impl Default for Timeouts {
    /// 10 s for the first message, 10 s for each, 60 s without a session, 60 s with one.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { handshake: seconds(10), request: seconds(10), idle: seconds(60), session: seconds(60) }
    }
}

/// Beyond the time-out that clients are told: many send their sign of life at the last moment.
const GRACE: Duration = Duration::from_secs(10);

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Expired {
    /// The first message.
    #[error("no request came")]
    Handshake,
    /// A message that had begun.
    #[error("a request was not finished")]
    Request,
    /// Anything, without a session.
    #[error("nothing was asked for")]
    Idle,
    /// A sign of life of a session.
    #[error("no sign of life")]
    Session,
}

/// What is known of a peer's signs of life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    heard: Duration,
    /// When bytes came last, whatever they were.
    input: Duration,
    /// When the message began that is not whole yet.
    begun: Option<Duration>,
    established: bool,
}

impl Life {
    pub(super) const fn new(now: Duration) -> Self {
        Self { heard: now, input: now, begun: None, established: false }
    }

    pub(super) const fn heard(&mut self, now: Duration) {
        self.input = now;
        // Before the first message, bytes are no sign of life: somebody could trickle them.
        if self.established {
            self.heard = now;
        }
    }

    pub(super) const fn established(&mut self) {
        if !self.established {
            self.established = true;
            self.heard = self.input;
        }
    }

    pub(super) fn inside_message(&mut self, inside: bool, now: Duration) {
        self.begun = inside.then(|| self.begun.unwrap_or(now));
    }

    /// The next deadline and what it is for.
    pub(super) fn deadline(
        &self,
        timeouts: &Timeouts,
        session: bool,
        undecided: bool,
    ) -> Option<(Duration, Expired)> {
        if undecided {
            return None;
        }
        if !self.established {
            return Some((self.heard + timeouts.handshake, Expired::Handshake));
        }
        let silent = match session {
            true => (self.heard + timeouts.session + GRACE, Expired::Session),
            false => (self.heard + timeouts.idle, Expired::Idle),
        };
        let request = self.begun.map(|begun| (begun + timeouts.request, Expired::Request));
        Some(request.map_or(silent, |request| if request.0 < silent.0 { request } else { silent }))
    }
}
