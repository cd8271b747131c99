//! Chunks: how messages share a connection (RTMP 1.0 §5.3).

mod reader;
mod writer;

use bytes::Bytes;

pub use reader::ChunkReader;
pub use writer::{Header, MAX_LENGTH, Out, Part, write_message, write_parts};

/// A timestamp field of this value means that the real one follows in 4 bytes (RTMP 1.0 §5.3.1.3).
const EXTENDED: u32 = 0xFF_FFFF;

/// A whole message, put together from its chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawMessage {
    /// Milliseconds, modulo 2³².
    pub timestamp: u32,
    /// What it is (RTMP 1.0 §5.4, §7.1).
    pub type_id: u8,
    /// Message stream; 0 is the connection itself.
    pub stream_id: u32,
    /// Its bytes.
    pub payload: Bytes,
}
