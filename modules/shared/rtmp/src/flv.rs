//! Bodies of audio and video messages: FLV tags without their header (FLV §E.4.2, §E.4.3; Enhanced RTMP).

mod enhanced;
mod write;

use av_media::{AudioFormat, Codec, Kind, MediaError, RtmpFraming};
use bytes::Bytes;

use crate::message::slice_of;
use crate::{SkipReason, Slot};
pub(crate) use enhanced::{codec_of_four_cc, four_cc};
pub(crate) use write::{carries, classic_number, frame_header, sequence_header};

/// What one audio or video message carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Tag {
    /// A decoder configuration.
    SequenceHeader {
        /// Coding format.
        codec: Codec,
        /// How it was framed.
        framing: RtmpFraming,
        /// `avcC`, `hvcC`, AudioSpecificConfig, ...
        config: Bytes,
    },
    /// A coded unit.
    Frame {
        /// Coding format.
        codec: Codec,
        /// How it was framed.
        framing: RtmpFraming,
        /// Whether a decoder may start here.
        is_sync: bool,
        /// `pts - dts` in milliseconds: signed 24 bits on the wire.
        composition_ms: i32,
        /// What a classic audio tag says of its format; zeros elsewhere.
        audio: AudioFormat,
        /// The coded bytes.
        data: Bytes,
    },
    /// End of sequence.
    End(Codec),
    /// A message that only RTMP knows: see [`Extra`](crate::Extra).
    Extra {
        /// Type of the message.
        kind: Kind,
        /// What it configures, if anything.
        slot: Option<Slot>,
        /// Body of a message that carries this and nothing else.
        body: Bytes,
    },
    /// What the tracks of one multitrack message carry.
    Several(Vec<Tag>),
    /// Nothing to pass on.
    Skipped(SkipReason),
}

/// What is wrong with a message body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlvError {
    /// The body ends inside its header.
    #[error("{what} of {length} bytes needs {needed}")]
    Short {
        /// Which structure.
        what: &'static str,
        /// Bytes it needs.
        needed: usize,
        /// Bytes of the whole body.
        length: usize,
    },
    /// A packet type that the specification does not define.
    #[error("{what} {value} is not defined")]
    Undefined {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: u8,
    },
    /// More tracks in one message than any encoder sends.
    #[error("more than {limit} tracks in one message")]
    Tracks {
        /// The limit.
        limit: usize,
    },
    /// A sequence header that cannot be read.
    #[error("{codec:?} sequence header cannot be read")]
    Config {
        /// Coding format.
        codec: Codec,
        /// What is wrong with it.
        source: MediaError,
    },
}

/// Reads the body of a video message.
///
/// # Errors
///
/// [`FlvError`] where the body is shorter than its own header says, or uses an undefined packet type.
pub fn parse_video(body: &Bytes) -> Result<Tag, FlvError> {
    let Some(&first) = body.first() else {
        return Ok(Tag::Skipped(SkipReason::Empty(Kind::Video)));
    };
    if first & 0x80 != 0 {
        return enhanced::parse_video(body);
    }
    // FLV §E.4.3.1; 12 is what Chinese CDNs and encoders have agreed on for H.265.
    let codec = match first & 0x0F {
        7 => Codec::H264,
        12 => Codec::H265,
        other => return Ok(Tag::Skipped(SkipReason::VideoCodec(other))),
    };
    let framing = RtmpFraming::Classic;
    let frame_type = first >> 4;
    if frame_type == FRAME_COMMAND {
        return Ok(Tag::Skipped(SkipReason::Command));
    }
    let mut fields = Fields::new("video tag", body, 1);
    let packet_type = fields.u8()?;
    let composition_ms = fields.signed24()?;
    Ok(match packet_type {
        0 => Tag::SequenceHeader { codec, framing, config: fields.rest() },
        1 => frame(codec, framing, is_sync(frame_type), composition_ms, fields.rest()),
        2 => Tag::End(codec),
        value => return Err(FlvError::Undefined { what: "AVCPacketType", value }),
    })
}

/// Reads the body of an audio message.
///
/// # Errors
///
/// [`FlvError`] where the body is shorter than its own header says, or uses an undefined packet type.
pub fn parse_audio(body: &Bytes) -> Result<Tag, FlvError> {
    let Some(&first) = body.first() else {
        return Ok(Tag::Skipped(SkipReason::Empty(Kind::Audio)));
    };
    let framing = RtmpFraming::Classic;
    let codec = match first >> 4 {
        9 => return enhanced::parse_audio(body),
        2 | 14 => Codec::Mp3,
        7 => Codec::PcmA,
        8 => Codec::PcmU,
        10 => Codec::Aac,
        other => return Ok(Tag::Skipped(SkipReason::AudioCodec(other))),
    };
    let mut fields = Fields::new("audio tag", body, 1);
    if codec == Codec::Aac {
        return Ok(match fields.u8()? {
            0 => Tag::SequenceHeader { codec, framing, config: fields.rest() },
            1 => frame(codec, framing, true, 0, fields.rest()),
            value => return Err(FlvError::Undefined { what: "AACPacketType", value }),
        });
    }
    let audio = AudioFormat {
        sample_rate: match (codec, first >> 4, first >> 2 & 3) {
            // G.711 is 8 kHz whatever the bits say (FLV §E.4.2.1).
            (Codec::PcmA | Codec::PcmU, ..) | (_, 14, _) => 8000,
            (_, _, 0) => 5512,
            (_, _, 1) => 11_025,
            (_, _, 2) => 22_050,
            _ => 44_100,
        },
        channels: 1 + u16::from(first & 1),
    };
    Ok(match frame(codec, framing, true, 0, fields.rest()) {
        Tag::Frame { codec, framing, is_sync, composition_ms, data, .. } => {
            Tag::Frame { codec, framing, is_sync, composition_ms, audio, data }
        }
        other => other,
    })
}

/// Frame type 5 (FLV §E.4.3.1): a command, no picture.
const FRAME_COMMAND: u8 = 5;

/// Key frame, and the key frame that only servers make (FLV §E.4.3.1).
const fn is_sync(frame_type: u8) -> bool {
    matches!(frame_type, 1 | 4)
}

/// A frame, or the note that it is empty.
fn frame(codec: Codec, framing: RtmpFraming, is_sync: bool, composition_ms: i32, data: Bytes) -> Tag {
    if data.is_empty() {
        return Tag::Skipped(SkipReason::Empty(codec.kind()));
    }
    Tag::Frame { codec, framing, is_sync, composition_ms, audio: AudioFormat::default(), data }
}

/// Big-endian fields of a body.
struct Fields<'a> {
    what: &'static str,
    body: &'a Bytes,
    at: usize,
}

impl<'a> Fields<'a> {
    const fn new(what: &'static str, body: &'a Bytes, at: usize) -> Self {
        Self { what, body, at }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FlvError> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let needed = self.at.saturating_add(N);
        let short = FlvError::Short { what: self.what, needed, length: self.body.len() };
        let field = rest.first_chunk().ok_or(short)?;
        self.at = needed;
        Ok(*field)
    }

    fn u8(&mut self) -> Result<u8, FlvError> {
        self.array().map(|[byte]| byte)
    }

    fn u24(&mut self) -> Result<u32, FlvError> {
        self.array().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    fn signed24(&mut self) -> Result<i32, FlvError> {
        self.array().map(|[a, b, c]| i32::from_be_bytes([a, b, c, 0]) >> 8)
    }

    fn skip(&mut self, count: usize) -> Result<(), FlvError> {
        let needed = self.at.saturating_add(count);
        if needed > self.body.len() {
            return Err(FlvError::Short { what: self.what, needed, length: self.body.len() });
        }
        self.at = needed;
        Ok(())
    }

    fn rest(&self) -> Bytes {
        // Modifiers in front of it may be most of the message.
        slice_of(self.body, self.at.min(self.body.len())..)
    }
}

#[cfg(test)]
mod tests;
