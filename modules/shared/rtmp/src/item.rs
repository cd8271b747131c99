//! What a publisher sends, in order.

use av_media::{Codec, Frame, Kind, Track};
use bytes::Bytes;

use crate::Metadata;

/// One thing that came out of an audio, video or data message.
#[derive(Clone, Debug, PartialEq)]
pub enum MediaItem {
    /// A decoder configuration. Comes before the first frame of its kind, and again whenever the publisher
    /// sends one, changed or not: compare before acting on it. Codecs that have no configuration on the
    /// wire (MP3, G.711, AC-3, ...) give theirs with the first frame.
    Track(Track),
    /// A coded unit. Times are milliseconds of the connection's clock, unwrapped: audio, video
    /// and data share it.
    Frame(Frame),
    /// `onMetaData`.
    Metadata(Metadata),
    /// Any other data message, for example `onTextData` or `onCuePoint`.
    Data {
        /// When, on the connection's unwrapped clock.
        timestamp_ms: i64,
        /// AMF0, beginning with the name of the handler; `@setDataFrame` is taken off.
        payload: Bytes,
    },
    /// The publisher said that this track ends here.
    EndOfSequence(Kind),
    /// A message that carries nothing to pass on. The same reason several times without a frame in between is
    /// given once.
    Skipped {
        /// Why, to be counted and said once.
        reason: SkipReason,
    },
}

/// Why a media message was not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// No payload. Some encoders send such messages as a keep-alive.
    #[error("empty {} message", .0.as_str())]
    Empty(Kind),
    /// A frame before the configuration that decoding it needs.
    #[error("{0:?} frame before its sequence header")]
    NoSequenceHeader(Codec),
    /// A classic `CodecID` that nothing here carries on.
    #[error("video codec number {0} is not supported")]
    VideoCodec(u8),
    /// A classic `SoundFormat` that nothing here carries on.
    #[error("audio codec number {0} is not supported")]
    AudioCodec(u8),
    /// A FourCC that nothing here carries on.
    #[error("codec {:?} is not supported", String::from_utf8_lossy(.0))]
    FourCc([u8; 4]),
    /// A packet type of Enhanced RTMP without coded media: metadata, multichannel layout, MPEG-2 TS header.
    #[error("packet type {0} carries no frame")]
    PacketType(u8),
    /// A seek or info command inside a video message (FLV §E.4.3.1, frame type 5).
    #[error("video command frame")]
    Command,
    /// A multitrack message without track 0, which is the only track of a kind that is taken.
    #[error("only other tracks than track 0")]
    OtherTracks,
}
