//! What a decoder must know before the first frame.

use bytes::Bytes;

use crate::Kind;

/// A coding format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// ITU-T H.264 (AVC).
    H264,
    /// ITU-T H.265 (HEVC).
    H265,
    /// AOMedia Video 1.
    Av1,
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
    /// Advanced Audio Coding.
    Aac,
    /// Opus (RFC 6716).
    Opus,
    /// Free Lossless Audio Codec.
    Flac,
    /// Dolby AC-3.
    Ac3,
    /// Dolby E-AC-3.
    Eac3,
    /// MPEG-1 Audio Layer III.
    Mp3,
    /// G.711 A-law.
    PcmA,
    /// G.711 mu-law.
    PcmU,
}

impl Codec {
    /// Whether pictures or sound.
    pub const fn kind(self) -> Kind {
        match self {
            Self::H264 | Self::H265 | Self::Av1 | Self::Vp8 | Self::Vp9 => Kind::Video,
            _ => Kind::Audio,
        }
    }
}

/// How the publisher framed this track in RTMP: kept, so that a stream leaves as it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RtmpFraming {
    /// FLV's own codec numbers (4-bit `CodecID` / `SoundFormat`), including the unofficial 12 for H.265.
    /// For codecs that have no number the FourCC form is used all the same.
    #[default]
    Classic,
    /// Enhanced RTMP's FourCC form.
    Enhanced,
}

/// Size and rate of a video track, as far as its parameter sets say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VideoFormat {
    /// Luma samples per line after cropping; 0 when unknown.
    pub width: u32,
    /// Lines after cropping; 0 when unknown.
    pub height: u32,
    /// Frames per second where the parameter sets (or the container) give it.
    pub fps: Option<f64>,
}

/// Rate and layout of an audio track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AudioFormat {
    /// Samples per second that come out of the decoder (with SBR: the doubled rate); 0 when unknown.
    pub sample_rate: u32,
    /// Channels that come out of the decoder (with PS: 2); 0 when unknown.
    pub channels: u16,
}

/// A track's codec and configuration. A changed configuration is a new `Track`.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// The coding format.
    pub codec: Codec,
    /// The decoder configuration as containers carry it: `avcC`, `hvcC`, `av1C`, `vpcC`, an
    /// AudioSpecificConfig (ISO/IEC 14496-3 §1.6), an `OpusHead`, ...; empty where the codec has none.
    pub config: Bytes,
    /// RFC 6381 codec string: `avc1.64001f`, `hvc1.1.6.L93.B0`, `mp4a.40.2`, `av01.0.04M.08`, `opus`.
    pub codec_string: String,
    /// Filled for video.
    pub video: VideoFormat,
    /// Filled for audio.
    pub audio: AudioFormat,
    /// How it came by RTMP.
    pub framing: RtmpFraming,
}

impl Track {
    /// Whether pictures or sound.
    pub const fn kind(&self) -> Kind {
        self.codec.kind()
    }
}
