//! What the peer did wrong on the wire.

use crate::amf0::AmfError;
use crate::flv::FlvError;

/// What the peer did wrong on the wire.
///
/// What a session gives as its error can't be mended: close the connection. A malformed message between intact
/// chunks is left out instead, as [`SkipReason::Malformed`](crate::SkipReason::Malformed).
///
/// Sections without a name are those of RTMP 1.0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RtmpError {
    /// C0 or S0 must be 3 (§5.2.2). 6 is RTMPE, which nothing here speaks.
    #[error("handshake version {0}, expected 3 (RTMP 1.0 §5.2.2)")]
    Version(u8),
    /// C1, C2, S1 or S2 is neither of the simple nor of the digest form.
    #[error("handshake packet is of no known form (RTMP 1.0 §5.2)")]
    Handshake,
    /// A header with nothing to inherit from (§5.3.1.2).
    #[error("chunk stream {csid}: header type {fmt} before any type 0 (RTMP 1.0 §5.3.1.2)")]
    NoPreviousHeader {
        /// Chunk stream.
        csid: u32,
        /// Header type.
        fmt: u8,
    },
    /// A message must be continued with type 3 headers (§5.3.1.2.4).
    #[error(
        "chunk stream {csid}: header type {fmt} while {missing} bytes of a message are missing \
         (RTMP 1.0 §5.3.1.2.4)"
    )]
    HeaderInsideMessage {
        /// Chunk stream.
        csid: u32,
        /// Header type.
        fmt: u8,
        /// Bytes that the open message lacks.
        missing: usize,
    },
    /// More chunk streams than [`Limits::max_chunk_streams`](crate::Limits::max_chunk_streams).
    #[error("more than {limit} chunk streams")]
    TooManyChunkStreams {
        /// The limit.
        limit: usize,
    },
    /// A message longer than allowed at this point of the session.
    #[error("message of {length} bytes, at most {limit} are allowed here")]
    MessageTooLong {
        /// Announced length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// Unfinished messages hold more than allowed at this point of the session.
    #[error("unfinished messages hold more than {limit} bytes")]
    UnfinishedTooMuch {
        /// The limit.
        limit: usize,
    },
    /// More was handed in while a `connect`, `publish` or `play` was being decided than may wait for it.
    #[error("more than {limit} bytes sent without waiting for an answer")]
    NotWaiting {
        /// The limit.
        limit: usize,
    },
    /// Set Chunk Size outside 1 to 0x7FFFFFFF (§5.4.1).
    #[error("chunk size {0} is outside 1 to 2147483647 (RTMP 1.0 §5.4.1)")]
    ChunkSize(u32),
    /// A message of fixed form is too short (§5.4, §7.1.7).
    #[error("message type {type_id} has {length} bytes, needs {needed} (RTMP 1.0 §5.4, §7.1)")]
    ShortMessage {
        /// Message type.
        type_id: u8,
        /// Bytes it has.
        length: usize,
        /// Bytes it must have.
        needed: usize,
    },
    /// A sub-message runs beyond its aggregate message (§7.1.6).
    #[error("aggregate message of {length} bytes is cut at byte {at} (RTMP 1.0 §7.1.6)")]
    Aggregate {
        /// Length of the aggregate.
        length: usize,
        /// Where the sub-message begins.
        at: usize,
    },
    /// An aggregate message of more parts than any encoder puts in one (§7.1.6).
    #[error("aggregate message of more than {limit} parts (RTMP 1.0 §7.1.6)")]
    AggregateParts {
        /// The limit.
        limit: usize,
    },
    /// A command or data message is not AMF0.
    #[error("message type {type_id} is not AMF0")]
    Amf {
        /// Message type.
        type_id: u8,
        /// What is wrong.
        source: AmfError,
    },
    /// A command lacks what it cannot do without (§7.2).
    #[error("command {command:?} without {argument} (RTMP 1.0 §7.2)")]
    Argument {
        /// Name of the command; empty when it is the name that is missing.
        command: &'static str,
        /// What is missing or of the wrong type.
        argument: &'static str,
    },
    /// A name beyond [`Limits::max_name_bytes`](crate::Limits::max_name_bytes), or a query beyond
    /// [`Limits::max_query_bytes`](crate::Limits::max_query_bytes).
    #[error("{what} of {length} bytes, at most {limit} are allowed")]
    NameTooLong {
        /// Which name.
        what: &'static str,
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A command out of order (§7.2).
    #[error("{command} {when} (RTMP 1.0 §7.2)")]
    CommandOrder {
        /// The command.
        command: &'static str,
        /// When it came.
        when: &'static str,
    },
    /// Audio or video from a peer that does not publish (§7.2.2.6).
    #[error("message type {type_id} carries media, but nothing is published (RTMP 1.0 §7.2.2.6)")]
    MediaBeforePublish {
        /// Message type.
        type_id: u8,
    },
    /// An audio or video message is malformed.
    #[error("malformed audio or video message")]
    Flv(#[from] FlvError),
    /// Messages were left out, one after the other, and nothing good came between them.
    #[error("{count} malformed messages in a row")]
    NothingGood {
        /// How many.
        count: u32,
        /// What is wrong with the last one.
        #[source]
        last: Box<RtmpError>,
    },
}
