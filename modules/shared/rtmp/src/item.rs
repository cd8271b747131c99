//! What a publisher sends, in order.

use av_media::{Codec, Frame, Kind, Track};
use bytes::Bytes;

use crate::{Metadata, RtmpError};

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
    /// A message that only RTMP can carry on.
    Extra(Extra),
    /// The publisher said that this track ends here.
    EndOfSequence(Kind),
    /// Messages that were not passed on, one after the other for the same reason.
    Skipped {
        /// Why, to be counted and said once.
        reason: SkipReason,
        /// How many messages.
        count: u32,
    },
}

impl MediaItem {
    /// Counts `next` in, where both are messages that were skipped for the same reason.
    pub(crate) fn absorb(&mut self, next: &Self) -> bool {
        match (self, next) {
            (Self::Skipped { reason, count }, Self::Skipped { reason: same, count: more })
                if reason == same =>
            {
                *count = count.saturating_add(*more);
                true
            }
            _ => false,
        }
    }
}

/// A message of Enhanced RTMP beside the two tracks of a stream: colour information for HDR, a layout of
/// channels, another track of a multitrack stream. It leaves as it came, to peers of RTMP only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// Type of the message: audio or video.
    pub kind: Kind,
    /// When, on the connection's unwrapped clock.
    pub timestamp_ms: i64,
    /// Body of the message.
    pub body: Bytes,
    /// Who joins later needs the last message of each slot, behind the sequence headers. `None`: it is of its
    /// moment only.
    pub slot: Option<Slot>,
}

/// What an [`Extra`] configures: at most 32 of one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Audio or video.
    pub kind: Kind,
    /// Enhanced RTMP's packet type: sequence start, metadata, multichannel configuration.
    pub packet_type: u8,
    /// Track of a multitrack stream; 0 is the one that frames come from.
    pub track: u8,
}

/// Why a media message was not passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// No payload. Some encoders send such messages as a keep-alive.
    #[error("empty {} message", .0.as_str())]
    Empty(Kind),
    /// A frame before the configuration that decoding it needs.
    #[error("{0:?} frame before its sequence header")]
    NoSequenceHeader(Codec),
    /// A classic `CodecID` that nothing here carries on.
    #[error("video codec {0} ({name}) is not carried", name = video_name(*.0))]
    VideoCodec(u8),
    /// A classic `SoundFormat` that nothing here carries on.
    #[error("audio codec {0} ({name}) is not carried", name = audio_name(*.0))]
    AudioCodec(u8),
    /// A FourCC that nothing here carries on.
    #[error("{kind} codec {name} is not carried", kind = .0.as_str(), name = printable(.1))]
    FourCc(Kind, [u8; 4]),
    /// A seek or info command inside a video message (FLV §E.4.3.1, frame type 5).
    #[error("video command frame")]
    Command,
    /// More than is kept for those who join later.
    #[error("{what} of {length} bytes, at most {limit} are kept for those who join")]
    TooLarge {
        /// Which message.
        what: &'static str,
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// More of them than are kept for those who join later.
    #[error("{count} {what}, at most {limit} are kept for those who join")]
    TooMany {
        /// Which messages.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The chunks were intact, what was in them was not.
    #[error("message left out")]
    Malformed {
        /// The kind of an audio or video message.
        kind: Option<Kind>,
        /// The rule that was broken.
        #[source]
        error: RtmpError,
    },
}

impl SkipReason {
    /// Which of the two tracks lacks what was skipped, where it is one of them.
    pub const fn kind(&self) -> Option<Kind> {
        match self {
            Self::Empty(kind) | Self::FourCc(kind, _) => Some(*kind),
            Self::NoSequenceHeader(codec) => Some(codec.kind()),
            Self::VideoCodec(_) | Self::Command => Some(Kind::Video),
            Self::AudioCodec(_) => Some(Kind::Audio),
            Self::Malformed { kind, .. } => *kind,
            Self::TooLarge { .. } | Self::TooMany { .. } => None,
        }
    }

    /// The codec that is not carried, for people.
    pub fn codec(&self) -> Option<String> {
        match self {
            Self::VideoCodec(number) => Some(video_name(*number).to_owned()),
            Self::AudioCodec(number) => Some(audio_name(*number).to_owned()),
            Self::FourCc(_, four_cc) => Some(printable(four_cc)),
            _ => None,
        }
    }
}

/// Names of FLV's `CodecID` (FLV §E.4.3.1); 8 and 9 are what other programs have added.
const fn video_name(number: u8) -> &'static str {
    match number {
        1 => "JPEG",
        2 => "Sorenson H.263",
        3 => "Screen Video",
        4 => "VP6",
        5 => "VP6 with alpha",
        6 => "Screen Video 2",
        8 => "H.263",
        9 => "MPEG-4 part 2",
        _ => "unknown",
    }
}

/// Names of FLV's `SoundFormat` (FLV §E.4.2.1).
const fn audio_name(number: u8) -> &'static str {
    match number {
        0 | 3 => "linear PCM",
        1 => "ADPCM",
        4..=6 => "Nellymoser",
        11 => "Speex",
        15 => "device-specific sound",
        _ => "unknown",
    }
}

fn printable(four_cc: &[u8; 4]) -> String {
    four_cc.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' }).collect()
}
