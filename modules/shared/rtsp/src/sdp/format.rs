//! How our tracks are carried by RTP.

use std::num::NonZeroU32;

use av_media::av1::Av1Config;
use av_media::h264::AvcConfig;
use av_media::h265::{HevcConfig, NAL_PPS, NAL_SPS, NAL_VPS};
use av_media::{Codec, Kind, Track};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::auth::hex;
use crate::format::{VIDEO_CLOCK, clock_rate};

/// How one track is carried by RTP: what SDP says of it, and what a packetizer has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// `m=`.
    pub kind: Kind,
    /// Static where RFC 3551 has a number, otherwise 96 for pictures and 97 for sound: far from 72 to 76, which with
    /// the marker look like RTCP.
    pub payload_type: u8,
    /// By its name in `rtpmap`.
    pub encoding: &'static str,
    /// RTP ticks a second.
    pub clock_rate: NonZeroU32,
    /// In `rtpmap`, for sound.
    pub channels: Option<u16>,
    /// The payload format's parameters.
    pub fmtp: Option<String>,
}

/// Why a track can't be described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotCarried {
    /// No RTP payload format for it is known here.
    #[error("{0:?} is not carried by RTP here")]
    Codec(Codec),
    /// It will be: players refuse a description without parameter sets.
    #[error("the parameter sets are not known yet")]
    NoParameterSets,
    /// Its configuration can't be read, or says what the payload format can't.
    #[error("its configuration can't be told in SDP: {0}")]
    Config(&'static str),
}

const VIDEO_TYPE: u8 = 96;
const AUDIO_TYPE: u8 = 97;

impl Format {
    /// Of a track.
    ///
    /// # Errors
    ///
    /// See [`NotCarried`]; after [`NotCarried::NoParameterSets`] a later version of the track may do.
    pub fn of(track: &Track) -> Result<Self, NotCarried> {
        match track.codec {
            Codec::H264 => h264(track),
            Codec::H265 => h265(track),
            Codec::Av1 => av1(track),
            Codec::Aac => aac(track),
            Codec::Opus => opus(track),
            Codec::PcmU => pcm("PCMU", Some(0), track),
            Codec::PcmA => pcm("PCMA", Some(8), track),
            Codec::G722 => Ok(Self { payload_type: 9, ..sound("G722", None, track)? }),
            Codec::L16 => pcm("L16", None, track),
            Codec::Mp3 => Ok(Self { payload_type: 14, ..sound("MPA", None, track)? }),
            other => Err(NotCarried::Codec(other)),
        }
    }
}

fn video(encoding: &'static str, fmtp: String) -> Format {
    Format {
        kind: Kind::Video,
        payload_type: VIDEO_TYPE,
        encoding,
        clock_rate: VIDEO_CLOCK,
        channels: None,
        fmtp: Some(fmtp),
    }
}

fn sound(encoding: &'static str, channels: Option<u16>, track: &Track) -> Result<Format, NotCarried> {
    let clock_rate = clock_rate(track).ok_or(NotCarried::Config("it has no sampling rate"))?;
    Ok(Format { kind: Kind::Audio, payload_type: AUDIO_TYPE, encoding, clock_rate, channels, fmtp: None })
}

/// RFC 6184 §8.1.
fn h264(track: &Track) -> Result<Format, NotCarried> {
    let config = AvcConfig::parse(track.config.clone()).map_err(|_| NotCarried::NoParameterSets)?;
    let sps = config.sps.first().ok_or(NotCarried::NoParameterSets)?;
    let level = sps.get(1..4).ok_or(NotCarried::Config("the SPS is cut"))?;
    if config.pps.is_empty() {
        return Err(NotCarried::NoParameterSets);
    }
    let sets = encoded(config.sps.iter().chain(&config.pps));
    Ok(video(
        "H264",
        format!("packetization-mode=1;profile-level-id={};sprop-parameter-sets={sets}", hex(level)),
    ))
}

/// RFC 7798 §7.1. ExoPlayer refuses it with fewer than three.
fn h265(track: &Track) -> Result<Format, NotCarried> {
    let config = HevcConfig::parse(track.config.clone()).map_err(|_| NotCarried::NoParameterSets)?;
    let sets = |nal_type| {
        let text = encoded(config.units(nal_type));
        if text.is_empty() { Err(NotCarried::NoParameterSets) } else { Ok(text) }
    };
    let (vps, sps, pps) = (sets(NAL_VPS)?, sets(NAL_SPS)?, sets(NAL_PPS)?);
    Ok(video("H265", format!("sprop-vps={vps};sprop-sps={sps};sprop-pps={pps}")))
}

/// RTP Payload Format For AV1 §7.2.1.
fn av1(track: &Track) -> Result<Format, NotCarried> {
    let config = Av1Config::parse(track.config.clone()).map_err(|_| NotCarried::NoParameterSets)?;
    let tier = u8::from(config.high_tier);
    Ok(video("AV1", format!("profile={};level-idx={};tier={tier}", config.profile, config.level)))
}

/// RFC 3640 §3.3.6, AAC-hbr.
fn aac(track: &Track) -> Result<Format, NotCarried> {
    if track.config.is_empty() {
        return Err(NotCarried::NoParameterSets);
    }
    let fmtp = format!(
        "streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config={}",
        hex(&track.config),
    );
    let channels = track.audio.channels.max(1);
    Ok(Format { fmtp: Some(fmtp), ..sound("mpeg4-generic", Some(channels), track)? })
}

/// RFC 7587 §7: always 48000/2, whatever is inside.
fn opus(track: &Track) -> Result<Format, NotCarried> {
    if track.audio.channels > 2 {
        return Err(NotCarried::Config("RFC 7587 has two channels at most"));
    }
    let fmtp = (track.audio.channels != 1).then(|| "sprop-stereo=1".to_owned());
    Ok(Format { fmtp, ..sound("opus", Some(2), track)? })
}

/// The static number of G.711 is for 8 kHz mono (RFC 3551 §4.5.14).
fn pcm(encoding: &'static str, fixed: Option<u8>, track: &Track) -> Result<Format, NotCarried> {
    let channels = track.audio.channels;
    let sound = sound(encoding, (channels > 1).then_some(channels), track)?;
    let fixed = fixed.filter(|_| sound.clock_rate.get() == 8000 && channels <= 1);
    Ok(Format { payload_type: fixed.unwrap_or(sound.payload_type), ..sound })
}

fn encoded<'a>(units: impl Iterator<Item = &'a Bytes>) -> String {
    units.map(|unit| STANDARD.encode(unit)).collect::<Vec<_>>().join(",")
}
