//! What one connection may cost.

/// Bounds on what a peer can make a connection hold. Buffers grow with the bytes that arrive, not with lengths
/// that were announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest start line and headers of one message together, in bytes.
    pub max_header_bytes: usize,
    /// Longest body (SDP, parameters), in bytes.
    pub max_body_bytes: usize,
    /// Bytes that may wait behind a request that is undecided.
    pub max_waiting_bytes: usize,
    /// Bytes in a row between messages that belong to none.
    pub max_junk_bytes: usize,
}

impl Default for Limits {
    /// 16 KiB of headers, 64 KiB of body, 256 KiB waiting, 4 KiB of junk.
    fn default() -> Self {
        Self {
            max_header_bytes: 16 << 10,
            max_body_bytes: 64 << 10,
            max_waiting_bytes: 256 << 10,
            max_junk_bytes: 4 << 10,
        }
    }
}
