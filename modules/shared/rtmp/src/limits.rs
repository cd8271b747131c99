//! What one connection may cost.

/// Bounds on what a peer can make a session hold.
///
/// A message is refused when its header is read, before anything is allocated for it, and buffers grow with
/// the bytes that arrive, not with the length that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest message after `publish` was accepted (server) or from the start (client), in bytes.
    pub max_message_bytes: usize,
    /// Bytes of unfinished messages, over all chunk streams, of a peer that does not publish: one that has
    /// not asked yet, and every player. No single message may be longer either.
    pub max_unfinished_before_publish: usize,
    /// Bytes of unfinished messages, over all chunk streams, of a peer that may send media.
    pub max_unfinished_after: usize,
    /// Chunk streams with a remembered header. Encoders use three to six.
    pub max_chunk_streams: usize,
    /// Longest application and stream name, each, in bytes and without its query.
    pub max_name_bytes: usize,
    /// Longest query behind one of them, in bytes. A key of 4,096 bytes fits, percent-encoded too.
    pub max_query_bytes: usize,
}

impl Default for Limits {
    /// 8 MiB a message, 64 KiB unfinished before and 16 MiB after publish, 64 chunk streams, names of 1 KiB
    /// with queries of 16 KiB.
    fn default() -> Self {
        Self {
            max_message_bytes: 8 << 20,
            max_unfinished_before_publish: 64 << 10,
            max_unfinished_after: 16 << 20,
            max_chunk_streams: 64,
            max_name_bytes: 1024,
            max_query_bytes: 16 << 10,
        }
    }
}
