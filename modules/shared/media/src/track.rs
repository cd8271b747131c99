//! What a decoder must know before the first frame.

use bytes::Bytes;

use crate::aac::AudioConfig;
use crate::av1::Av1Config;
use crate::h264::AvcConfig;
use crate::h265::HevcConfig;
use crate::opus::{self, OpusHead};
use crate::{Kind, MediaError};

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
    /// ITU-T G.722, 64 kbit/s.
    G722,
    /// Linear PCM of 16 bits, big-endian.
    L16,
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
    /// As `Classic`, but H.265 under H.264's number 7, as some cameras send it.
    ClassicAsH264,
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
    /// An H.264 track from its `avcC`. Width and height stay 0 where the SPS is missing or can't be
    /// understood.
    ///
    /// # Errors
    ///
    /// The record is malformed.
    pub fn h264(avcc: Bytes) -> Result<Self, MediaError> {
        let config = AvcConfig::parse(avcc.clone())?;
        let video = config.first_sps().map_or_else(VideoFormat::default, |sps| VideoFormat {
            width: sps.width,
            height: sps.height,
            fps: sps.fps,
        });
        Ok(Self { video, ..Self::new(Codec::H264, avcc, config.codec_string()) })
    }

    /// An H.265 track from its `hvcC`. Width and height stay 0 where the SPS is missing or can't be
    /// understood.
    ///
    /// # Errors
    ///
    /// The record is malformed.
    pub fn h265(hvcc: Bytes) -> Result<Self, MediaError> {
        let config = HevcConfig::parse(hvcc.clone())?;
        let video = config.first_sps().map_or_else(VideoFormat::default, |sps| VideoFormat {
            width: sps.width,
            height: sps.height,
            fps: sps.fps.or_else(|| config.first_vps()?.fps),
        });
        Ok(Self { video, ..Self::new(Codec::H265, hvcc, config.codec_string()) })
    }

    /// An AV1 track from its `av1C`.
    ///
    /// # Errors
    ///
    /// The record is malformed.
    pub fn av1(av1c: Bytes) -> Result<Self, MediaError> {
        let config = Av1Config::parse(av1c.clone())?;
        let (width, height) = config.size.unwrap_or_default();
        let video = VideoFormat { width, height, fps: None };
        Ok(Self { video, ..Self::new(Codec::Av1, av1c, config.codec_string()) })
    }

    /// An AAC track from its AudioSpecificConfig.
    ///
    /// # Errors
    ///
    /// The config ends before rate and channels are known.
    pub fn aac(audio_specific_config: Bytes) -> Result<Self, MediaError> {
        let config = AudioConfig::parse(&audio_specific_config)?;
        let audio = AudioFormat { sample_rate: config.output_rate(), channels: config.output_channels() };
        Ok(Self { audio, ..Self::new(Codec::Aac, audio_specific_config, config.codec_string()) })
    }

    /// An Opus track from its `OpusHead` (RFC 7845 §5.1), if it has one.
    ///
    /// # Errors
    ///
    /// The header is malformed.
    pub fn opus(head: Option<Bytes>) -> Result<Self, MediaError> {
        let config = head.clone().unwrap_or_default();
        let channels = head.map(OpusHead::parse).transpose()?.map_or(0, |head| head.channels.into());
        let audio = AudioFormat { sample_rate: opus::SAMPLE_RATE, channels };
        Ok(Self { audio, ..Self::new(Codec::Opus, config, "opus".into()) })
    }

    /// A track of a codec that is carried untouched: nothing is known of it but its name.
    pub fn other(codec: Codec) -> Self {
        let codec_string = match codec {
            Codec::H264 => "avc1",
            Codec::H265 => "hvc1",
            Codec::Av1 => "av01",
            Codec::Vp8 => "vp8",
            Codec::Vp9 => "vp9",
            Codec::Aac => "mp4a.40",
            Codec::Opus => "opus",
            Codec::Flac => "flac",
            Codec::Ac3 => "ac-3",
            Codec::Eac3 => "ec-3",
            Codec::Mp3 => "mp4a.40.34",
            Codec::PcmA => "alaw",
            Codec::PcmU => "ulaw",
            Codec::G722 => "g722",
            Codec::L16 => "twos",
        };
        Self::new(codec, Bytes::new(), codec_string.into())
    }

    fn new(codec: Codec, config: Bytes, codec_string: String) -> Self {
        Self {
            codec,
            config,
            codec_string,
            video: VideoFormat::default(),
            audio: AudioFormat::default(),
            framing: RtmpFraming::default(),
        }
    }

    /// Whether pictures or sound.
    pub const fn kind(&self) -> Kind {
        self.codec.kind()
    }

    /// Whether a decoder that was set up for one of them goes on with the other: only what is said of the track
    /// (its size, its rate) differs, if anything.
    pub fn decodes_like(&self, other: &Self) -> bool {
        self.codec == other.codec && self.config == other.config && self.framing == other.framing
    }

    /// Bytes of length before each NAL unit of an H.264 or H.265 frame; 4 for other codecs.
    pub fn length_size(&self) -> u8 {
        let at = match self.codec {
            Codec::H264 => 4,
            Codec::H265 => 21,
            _ => return 4,
        };
        self.config.get(at).map_or(4, |byte| (byte & 3) + 1)
    }
}
