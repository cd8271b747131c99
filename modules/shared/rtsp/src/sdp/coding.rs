//! What a medium is coded with, as far as its description says.

use av_media::aac::AudioConfig;
use av_media::h264::{self, AvcConfig};
use av_media::h265::{self, HevcConfig};
use av_media::opus::OpusHead;
use av_media::{AudioFormat, Codec, Track};
use bytes::Bytes;

use super::fmtp::{Fmtp, RtpMap};

/// How a medium is coded and packetized: what a depacketizer has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coding {
    /// RFC 6184, packetization mode 0 or 1.
    H264 {
        /// `sprop-parameter-sets`: empty where they come in the stream.
        sps: Vec<Bytes>,
        /// The same.
        pps: Vec<Bytes>,
    },
    /// RFC 7798 without decoding order numbers.
    H265 {
        /// `sprop-vps`: empty where they come in the stream.
        vps: Vec<Bytes>,
        /// `sprop-sps`.
        sps: Vec<Bytes>,
        /// `sprop-pps`.
        pps: Vec<Bytes>,
    },
    /// The RTP payload format of AV1.
    Av1,
    /// RFC 3640, `mpeg4-generic`.
    Aac {
        /// AudioSpecificConfig; made of rate and channels where it is missing.
        config: Bytes,
        /// Bits of an AU header's size.
        size_length: u8,
        /// Bits of the first AU header's index.
        index_length: u8,
        /// Bits of the other headers' index deltas.
        index_delta_length: u8,
    },
    /// RFC 6416, `MP4A-LATM` with `cpresent=0`: one stream, its configuration here.
    Latm {
        /// AudioSpecificConfig.
        config: Bytes,
    },
    /// RFC 7587.
    Opus {
        /// 1 or 2.
        channels: u16,
    },
    /// G.711 A-law.
    PcmA {
        /// Rate and channels.
        audio: AudioFormat,
    },
    /// G.711 mu-law.
    PcmU {
        /// Rate and channels.
        audio: AudioFormat,
    },
    /// Linear PCM, 16 bits, big-endian (RFC 3551 §4.5.11).
    L16 {
        /// Rate and channels.
        audio: AudioFormat,
    },
    /// G.722: 16 kHz, though its clock says 8000 (RFC 3551 §4.5.2).
    G722 {
        /// Channels.
        channels: u16,
    },
    /// MPEG audio (RFC 2250 §3.5): layer III as a rule.
    Mpa,
}

/// Why a medium is left aside. The others go on without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeftAside {
    /// Neither video nor audio.
    #[error("{0} is neither video nor audio")]
    Kind(String),
    /// SRTP and other profiles.
    #[error("profile {0} is not RTP/AVP")]
    Profile(String),
    /// No depacketizer for it is known here.
    #[error("{0} is not read")]
    Encoding(String),
    /// A dynamic payload type without `rtpmap`.
    #[error("payload type {0} has no rtpmap")]
    NoRtpMap(String),
    /// An RFC's mode that is not read.
    #[error("{0}")]
    Mode(&'static str),
    /// It can't be decoded without.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Whoever announced it did not ask for a way for it.
    #[error("it was announced and not set up")]
    NotSetUp,
}

impl Coding {
    /// From what SDP says of one payload type.
    pub(super) fn new(map: &RtpMap, fmtp: &Fmtp) -> Result<Self, LeftAside> {
        let audio = || AudioFormat {
            sample_rate: if map.clock_rate == 0 { 8000 } else { map.clock_rate },
            channels: map.channels.unwrap_or(1).max(1),
        };
        match map.encoding.as_str() {
            "H264" => h264(fmtp),
            "H265" | "HEVC" => h265(fmtp),
            "AV1" => Ok(Self::Av1),
            "MPEG4-GENERIC" => generic(map, fmtp),
            "MP4A-LATM" => latm(fmtp),
            "OPUS" => {
                let mono = fmtp.get("sprop-stereo") == Some("0") || fmtp.get("stereo") == Some("0");
                Ok(Self::Opus { channels: if mono { 1 } else { 2 } })
            }
            "PCMA" => Ok(Self::PcmA { audio: audio() }),
            "PCMU" => Ok(Self::PcmU { audio: audio() }),
            "L16" => Ok(Self::L16 { audio: audio() }),
            "G722" => Ok(Self::G722 { channels: audio().channels }),
            "MPA" | "MP3" => Ok(Self::Mpa),
            other => Err(LeftAside::Encoding(other.to_owned())),
        }
    }

    /// RTP ticks a second where the description gives none.
    pub(super) const fn usual_clock(&self) -> u32 {
        match self {
            Self::H264 { .. } | Self::H265 { .. } | Self::Av1 | Self::Mpa => 90_000,
            Self::Opus { .. } | Self::Aac { .. } | Self::Latm { .. } => 48_000,
            Self::PcmA { .. } | Self::PcmU { .. } | Self::L16 { .. } | Self::G722 { .. } => 8000,
        }
    }

    /// The track, where the description says all that it needs; otherwise the stream has to.
    pub fn track(&self) -> Option<Track> {
        match self {
            Self::H264 { sps, pps } if !pps.is_empty() => {
                let config = AvcConfig::from_parameter_sets(sps.clone(), pps.clone()).ok()?;
                Track::h264(config.build().ok()?).ok()
            }
            Self::H265 { vps, sps, pps } if !vps.is_empty() && !pps.is_empty() => {
                let config = HevcConfig::from_parameter_sets(vps.clone(), sps.clone(), pps.clone()).ok()?;
                Track::h265(config.build().ok()?).ok()
            }
            Self::Aac { config, .. } | Self::Latm { config } => Track::aac(config.clone()).ok(),
            Self::Opus { channels } => {
                let head = OpusHead {
                    channels: if *channels == 1 { 1 } else { 2 },
                    pre_skip: 0,
                    input_rate: 48_000,
                    gain: 0,
                    family: 0,
                    mapping: Bytes::new(),
                };
                Track::opus(Some(head.build())).ok()
            }
            Self::PcmA { audio } => Some(Track { audio: *audio, ..Track::other(Codec::PcmA) }),
            Self::PcmU { audio } => Some(Track { audio: *audio, ..Track::other(Codec::PcmU) }),
            Self::L16 { audio } => Some(Track { audio: *audio, ..Track::other(Codec::L16) }),
            Self::G722 { channels } => {
                let audio = AudioFormat { sample_rate: 16_000, channels: *channels };
                Some(Track { audio, ..Track::other(Codec::G722) })
            }
            _ => None,
        }
    }
}

fn h264(fmtp: &Fmtp) -> Result<Coding, LeftAside> {
    if fmtp.number("packetization-mode").is_some_and(|mode| mode > 1) {
        return Err(LeftAside::Mode(
            "H.264 in interleaved mode (RFC 6184, packetization-mode=2) is not read",
        ));
    }
    let (sps, pps) = fmtp
        .units("sprop-parameter-sets")
        .into_iter()
        .filter(|unit| [h264::NAL_SPS, h264::NAL_PPS].contains(&h264::nal_type(unit)))
        .partition(|unit| h264::nal_type(unit) == h264::NAL_SPS);
    Ok(Coding::H264 { sps, pps })
}

fn h265(fmtp: &Fmtp) -> Result<Coding, LeftAside> {
    if fmtp.number("sprop-max-don-diff").is_some_and(|most| most > 0) {
        return Err(LeftAside::Mode("H.265 with decoding order numbers (sprop-max-don-diff) is not read"));
    }
    let sets = |name, nal_type| {
        let units = fmtp.units(name).into_iter();
        units.filter(|unit| h265::nal_type(unit) == nal_type).collect::<Vec<_>>()
    };
    Ok(Coding::H265 {
        vps: sets("sprop-vps", h265::NAL_VPS),
        sps: sets("sprop-sps", h265::NAL_SPS),
        pps: sets("sprop-pps", h265::NAL_PPS),
    })
}

fn generic(map: &RtpMap, fmtp: &Fmtp) -> Result<Coding, LeftAside> {
    let mode = fmtp.get("mode").unwrap_or("AAC-hbr");
    // Lengths by the mode, where they are not given (RFC 3640 §3.3.5, §3.3.6).
    let (size, index) = if mode.eq_ignore_ascii_case("AAC-lbr") { (6, 2) } else { (13, 3) };
    if !mode.to_ascii_lowercase().starts_with("aac") {
        return Err(LeftAside::Mode("mpeg4-generic in a mode other than AAC-hbr and AAC-lbr is not read"));
    }
    let bits = |name, usual: u8| match fmtp.number(name) {
        None => Ok(usual),
        Some(bits) if bits <= 32 => Ok(bits as u8),
        Some(_) => Err(LeftAside::Mode("mpeg4-generic with header fields of more than 32 bits is not read")),
    };
    let size_length = bits("sizelength", size)?;
    if size_length > 16 {
        return Err(LeftAside::Mode("mpeg4-generic with sizes of more than 16 bits is not read"));
    }
    let config = fmtp
        .hex("config")
        .filter(|config| AudioConfig::parse(config).is_ok_and(|config| config.sample_rate > 0))
        .or_else(|| simplest(map))
        .ok_or(LeftAside::Missing("the AAC configuration (config)"))?;
    Ok(Coding::Aac {
        config,
        size_length,
        index_length: bits("indexlength", index)?,
        index_delta_length: bits("indexdeltalength", index)?,
    })
}

/// AAC LC of the rate and channels of `rtpmap`.
fn simplest(map: &RtpMap) -> Option<Bytes> {
    let channel_config = match map.channels.unwrap_or(1) {
        channels @ 1..=6 => u8::try_from(channels).ok()?,
        8 => 7,
        _ => return None,
    };
    let config = AudioConfig {
        object_type: 2,
        sample_rate: map.clock_rate,
        channel_config,
        program_channels: 0,
        short_frames: false,
        extension: None,
    };
    config.build().ok().filter(|_| map.clock_rate > 0)
}

/// The configuration out of a StreamMuxConfig (ISO/IEC 14496-3 §1.7.3.2), which stands at no byte's edge.
fn latm(fmtp: &Fmtp) -> Result<Coding, LeftAside> {
    /// audioMuxVersion 0, allStreamsSameTimeFraming 1, one subframe, one program, one layer: 15 bits.
    const ONE_STREAM: u16 = 0x4000;
    if fmtp.number("cpresent") != Some(0) {
        return Err(LeftAside::Mode("LATM with its configuration in the stream (cpresent=1) is not read"));
    }
    let mux = fmtp.hex("config").ok_or(LeftAside::Missing("the LATM configuration (config)"))?;
    let head = mux.first_chunk::<2>().map_or(0, |head| u16::from_be_bytes(*head));
    if head & 0xfffe != ONE_STREAM {
        return Err(LeftAside::Mode("LATM of more than one stream is not read"));
    }
    let shifted: Vec<u8> = mux
        .iter()
        .skip(1)
        .zip(mux.iter().skip(2).chain([&0]))
        .map(|(high, low)| high << 7 | low >> 1)
        .collect();
    let config = AudioConfig::parse(&shifted).ok().filter(|config| config.sample_rate > 0);
    // Of what stands behind rate and channels, an implicit extension may be LATM's own fields: leave it out.
    let config = config.map(|config| AudioConfig {
        extension: config.extension.filter(|extension| extension.hierarchical),
        ..config
    });
    let config = config.and_then(|config| config.build().ok());
    config.map(|config| Coding::Latm { config }).ok_or(LeftAside::Missing("a readable LATM configuration"))
}
