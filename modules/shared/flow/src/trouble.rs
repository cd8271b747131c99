//! Why an endpoint does not do what it should.

/// A sentence for people and a word for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The word.
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

/// Values of the label `reason` of `av_flow_trouble`: what kind of trouble it is, without what changes from one
/// try to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// This machine can't listen there.
    Address,
    /// Name or certificate of either side, or the TLS handshake.
    Tls,
    /// A secret that can't be read here.
    Secret,
    /// A host name that nobody knows.
    Name,
    /// No connection: refused, no answer, no way.
    Unreachable,
    /// The peer does not take the key, the user, or the path.
    Refused,
    /// Connected, and then the peer does not speak, or takes nothing.
    Silent,
    /// The connection broke or was closed.
    Lost,
    /// The peer broke the protocol.
    Protocol,
    /// The stream came to its end.
    Ended,
    /// The stream has nothing that the output takes.
    Content,
    /// A file that is not there, can't be read or is not what it should be.
    File,
    /// A fault in the module.
    Internal,
}

impl Reason {
    /// As labels have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Tls => "tls",
            Self::Secret => "secret",
            Self::Name => "name",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Lost => "lost",
            Self::Protocol => "protocol",
            Self::Ended => "ended",
            Self::Content => "content",
            Self::File => "file",
            Self::Internal => "internal",
        }
    }
}
