//! Frames to RTP packets: made once per stream, whatever the number of players.
//!
//! Media is never copied: a packet is some bytes of headers and a slice of the frame.

mod audio;
mod av1;
mod nal;
mod sheet;

#[cfg(test)]
mod tests;

use std::num::NonZeroU32;

use av_media::aac::AudioConfig;
use av_media::av1::Av1Config;
use av_media::h264::AvcConfig;
use av_media::h265::{self, HevcConfig};
use av_media::{Codec, Frame, MediaError, Timestamp, Track};
use bytes::Bytes;

use crate::format::clock_rate;
use crate::packet::{Packet, RTP_HEADER};
use sheet::Sheet;

/// IPv6 and UDP headers: with IPv4 a packet is 20 bytes smaller than the MTU.
const NETWORK_HEADERS: usize = 48;
/// A frame above that is left out: the length of an interleaved packet has 16 bits.
const MAX_WHOLE: usize = 65_000;

/// What the owner of a stream chooses for one of its tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// As the SDP says it; below 128.
    pub payload_type: u8,
    /// Synchronisation source: random, the same for all players.
    pub ssrc: u32,
    /// The first packet's number: random.
    pub first_sequence: u16,
    /// RTP time of stream time zero: random, so that no player sees 0.
    pub first_time: u32,
    /// Largest packet on the network, IP and UDP headers included, in bytes. Packets are as large over TCP, because they
    /// are made once for all.
    pub mtu: u16,
    /// Channel of the packets' interleaved framing.
    pub channel: u8,
}

/// Why RTP can't carry a track.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// There is no payload format, or none that is written here.
    #[error("RTP is not written for codec {0}")]
    Codec(String),
    /// Its clock rate is the sampling rate, which is not known.
    #[error("the sampling rate of codec {0} is not known")]
    Rate(String),
    /// Its configuration can't be read.
    #[error("its configuration can't be read")]
    Config(#[from] MediaError),
}

/// Makes the RTP packets of one track.
#[derive(Clone, Debug)]
pub struct Packetizer {
    settings: Settings,
    format: Format,
    clock: NonZeroU32,
    next_sequence: u16,
}

/// A payload format, with what it needs of the track.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Format {
    /// RFC 6184 or RFC 7798.
    Nal { codec: nal::Units, sets: Vec<Bytes>, length_size: u8 },
    /// AV1 RTP Payload Format 1.0; the sequence header of the configuration.
    Av1 { sequence_header: Bytes },
    /// RFC 3640, mode AAC-hbr.
    Aac,
    /// RFC 7587.
    Opus,
    /// RFC 3551 §4.5: any number of octets, this many for each tick of the RTP clock.
    Octets { per_tick: usize },
    /// RFC 2250 §3.5.
    MpegAudio,
}

impl Format {
    fn of(track: &Track) -> Result<Self, Unfit> {
        let channels = usize::from(track.audio.channels.max(1));
        Ok(match track.codec {
            Codec::H264 => {
                let config = AvcConfig::parse(track.config.clone())?;
                let sets = config.sps.into_iter().chain(config.pps).filter(|set| !set.is_empty()).collect();
                Self::Nal { codec: nal::Units::H264, sets, length_size: config.length_size }
            }
            Codec::H265 => {
                let config = HevcConfig::parse(track.config.clone())?;
                let kinds = [h265::NAL_VPS, h265::NAL_SPS, h265::NAL_PPS];
                let sets = kinds.iter().flat_map(|&kind| config.units(kind)).filter(|set| set.len() > 1);
                let sets = sets.cloned().collect();
                Self::Nal { codec: nal::Units::H265, sets, length_size: config.length_size }
            }
            Codec::Av1 => {
                Av1Config::parse(track.config.clone())?;
                Self::Av1 { sequence_header: av1::sequence_header(&track.config) }
            }
            Codec::Aac => {
                AudioConfig::parse(&track.config)?;
                Self::Aac
            }
            Codec::Opus => Self::Opus,
            Codec::PcmA | Codec::PcmU | Codec::G722 => Self::Octets { per_tick: channels },
            Codec::L16 => Self::Octets { per_tick: 2 * channels },
            Codec::Mp3 => Self::MpegAudio,
            _ => return Err(Unfit::Codec(track.codec_string.clone())),
        })
    }
}

impl Packetizer {
    /// For a track.
    ///
    /// # Errors
    ///
    /// RTP can't carry it: the track is dropped, and this says why.
    pub fn new(track: &Track, settings: Settings) -> Result<Self, Unfit> {
        let format = Format::of(track)?;
        let clock = clock_rate(track).ok_or_else(|| Unfit::Rate(track.codec_string.clone()))?;
        Ok(Self { settings, format, clock, next_sequence: settings.first_sequence })
    }

    /// The track's configuration changed: its parameter sets go in-band from the next sync frame on. Sequence numbers
    /// and times go on.
    ///
    /// # Errors
    ///
    /// RTP can't carry it any more; everything is as before.
    pub fn set_track(&mut self, track: &Track) -> Result<(), Unfit> {
        *self = Self { next_sequence: self.next_sequence, ..Self::new(track, self.settings)? };
        Ok(())
    }

    /// What the owner chose.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Ticks of RTP time a second.
    pub const fn clock_rate(&self) -> NonZeroU32 {
        self.clock
    }

    /// The number of the packet that comes next: what `RTP-Info` calls `seq`.
    pub const fn next_sequence(&self) -> u16 {
        self.next_sequence
    }

    /// RTP time of a point of stream time: rounded by itself, so that nothing drifts; wraps (RFC 3550 §5.1).
    pub fn rtp_time(&self, time: Timestamp) -> u32 {
        // The low 32 bits: arithmetic modulo 2^32.
        self.settings.first_time.wrapping_add(time.ticks(self.clock) as u32)
    }

    /// Appends the packets of the next frame to `out`. Whether it could be carried: what is empty, or larger than its
    /// payload format can say, is left out.
    pub fn packetize(&mut self, frame: &Frame, out: &mut Vec<Packet>) -> bool {
        let before = out.len();
        let fits = self.packetize_at(frame, self.next_sequence, self.rtp_time(frame.pts), out);
        // Modulo 2^16, as the numbers are.
        self.next_sequence = self.next_sequence.wrapping_add((out.len() - before) as u16);
        fits
    }

    /// The same for a frame anywhere in the stream: the numbers start at `sequence`, its time is `time`. A frame makes the
    /// same packets each time but for these two.
    pub fn packetize_at(&self, frame: &Frame, sequence: u16, time: u32, out: &mut Vec<Packet>) -> bool {
        let limit = usize::from(self.settings.mtu).saturating_sub(NETWORK_HEADERS + RTP_HEADER).max(256);
        let mut sheet = Sheet::new(&self.settings, sequence, time, limit, frame.data.len());
        let fits = match &self.format {
            Format::Nal { codec, sets, length_size } => {
                let sets = if frame.is_sync { sets.as_slice() } else { &[] };
                nal::put(&mut sheet, *codec, sets, &frame.data, *length_size)
            }
            Format::Av1 { sequence_header } => {
                av1::put(&mut sheet, frame.is_sync.then_some(sequence_header), &frame.data)
            }
            Format::Aac => audio::put_aac(&mut sheet, &frame.data),
            Format::Opus => audio::put_opus(&mut sheet, &frame.data),
            Format::Octets { per_tick } => audio::put_octets(&mut sheet, &frame.data, *per_tick),
            Format::MpegAudio => audio::put_mpeg(&mut sheet, &frame.data),
        };
        if fits {
            sheet.finish(out);
        }
        fits
    }
}
