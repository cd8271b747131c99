//! What the peer did wrong on the wire.

/// What breaks a connection: nothing that follows can be trusted, so close it.
///
/// What is only odd is left out, or answered with a status, and is no error. Sections are those of RFC 2326.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RtspError {
    /// The first bytes are neither RTSP nor HTTP: another protocol, TLS perhaps.
    #[error("neither an RTSP nor an HTTP request")]
    NotRtsp,
    /// Bytes between messages that belong to none (§4).
    #[error("{bytes} bytes between messages that are none (RFC 2326 §4)")]
    Junk {
        /// How many, in a row.
        bytes: usize,
    },
    /// A start line and headers longer than [`Limits::max_header_bytes`](crate::Limits::max_header_bytes).
    #[error("a header block of more than {limit} bytes")]
    HeaderTooLong {
        /// The limit.
        limit: usize,
    },
    /// `Content-Length` is no number (§12.14).
    #[error("a Content-Length that is no number (RFC 2326 §12.14)")]
    ContentLength,
    /// `Content-Length` is above [`Limits::max_body_bytes`](crate::Limits::max_body_bytes).
    #[error("a body of {length} bytes, at most {limit} are allowed")]
    BodyTooLong {
        /// What was announced.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// More was handed in while a request was being decided than may wait for it.
    #[error("more than {limit} bytes sent without waiting for an answer")]
    NotWaiting {
        /// The limit.
        limit: usize,
    },
    /// A message that this side of a connection never gets.
    #[error("{what}, which only the other side sends")]
    WrongSide {
        /// What came.
        what: &'static str,
    },
    /// An answer lacks what cannot be done without.
    #[error("the answer to {method} has no usable {header}")]
    Answer {
        /// The request.
        method: &'static str,
        /// What is missing.
        header: &'static str,
    },
    /// Nothing was asked that this would be the answer to.
    #[error("an answer came without a request")]
    UnexpectedAnswer,
    /// The other side is silent.
    #[error("no answer to {method} in time")]
    NoAnswer {
        /// The request.
        method: &'static str,
    },
}
