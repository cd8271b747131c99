//! Why an endpoint does not do what it should.

use std::error::Error;

/// A sentence for people and a number for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The number.
    pub reason: Reason,
    /// The sentence: path, cause, what to do.
    pub text: String,
}

impl Trouble {
    /// Both.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

/// Values of `av_flow_trouble`: what kind of trouble it is, without what changes from one try to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// This machine can't listen there.
    Address = 1,
    /// Name or certificate of either side, or the TLS handshake.
    Tls = 2,
    /// A secret that can't be read here.
    Secret = 3,
    /// A host name that nobody knows.
    Name = 4,
    /// No connection: refused, no answer, no way.
    Unreachable = 5,
    /// The peer does not take the key, the user, or the path.
    Refused = 6,
    /// Connected, and then the peer does not speak, or takes nothing.
    Silent = 7,
    /// The connection broke or was closed.
    Lost = 8,
    /// The peer broke the protocol.
    Protocol = 9,
    /// The stream came to its end.
    Ended = 10,
    /// The stream has nothing that the output takes.
    Content = 11,
    /// A file that is not there, can't be read or is not what it should be.
    File = 12,
    /// A fault in the module.
    Internal = 13,
    /// What ran there before has not ended yet.
    Ending = 14,
    /// Nobody watches, and the input connects on demand.
    Unwatched = 15,
}

/// An error and all that caused it, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
