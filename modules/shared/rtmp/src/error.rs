//! What the peer did wrong on the wire.

use av_media::Codec;

/// What the peer did wrong on the wire. None of it can be mended: close the connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RtmpError {
    /// C0 or S0 must be 3 (RTMP 1.0 §5.2.2).
    #[error("handshake version {0}, expected 3 (RTMP 1.0 §5.2.2)")]
    Version(u8),
}

/// Why a sequence header could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{codec:?} sequence header of {len} bytes cannot be read")]
pub struct SequenceError {
    /// Which codec's.
    pub codec: Codec,
    /// How long it was.
    pub len: usize,
}
