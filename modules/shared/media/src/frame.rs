//! One coded unit of one track.

use bytes::Bytes;

use crate::Timestamp;

/// Which of a stream's two tracks: a flow carries at most one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

impl Kind {
    /// `video` or `audio`, as in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }
}

/// One coded unit of one track: a video access unit or an audio frame.
///
/// Cloning is cheap: `data` is reference-counted, so a hundred players share one buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The track it belongs to.
    pub kind: Kind,
    /// When to decode. Never decreases within a track.
    pub dts: Timestamp,
    /// When to show. `pts - dts` is the composition offset (ISO/IEC 14496-12 §8.6.1.3): zero for audio
    /// and for video without B-frames.
    pub pts: Timestamp,
    /// Whether a decoder may start here: an IDR or IRAP picture, or any audio frame.
    pub is_sync: bool,
    /// H.264 and H.265: NAL units, each behind the length prefix that the track's configuration record
    /// announces (4 bytes nearly always). AAC: one raw frame, without ADTS header. Others: the coded unit
    /// as the container carries it.
    pub data: Bytes,
}
