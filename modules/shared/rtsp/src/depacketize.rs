//! RTP packets back to frames, for what others send to us.
//!
//! Tolerant of what encoders and cameras do; what can't be understood is left out and counted. After a loss pictures are
//! left out up to the next one at which a decoder can start.

mod aac;
mod av1;
mod mpeg;
mod nal;

#[cfg(test)]
mod tests;

use std::num::NonZeroU32;

use av_media::aac::AudioConfig;
use av_media::{Codec, Frame, Kind, Normaliser, Picture, Timestamp, Track};
use bytes::Bytes;

use crate::received::Received;
use crate::reorder::Ordered;
use crate::sdp::Coding;

/// A picture or a piece of sound above that is left out.
const MAX_FRAME: usize = 16 << 20;

/// How the packets of a track are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// RFC 6184, packetization mode 0 or 1.
    H264,
    /// RFC 7798, without decoding order numbers.
    H265,
    /// AV1 RTP Payload Format 1.0.
    Av1,
    /// RFC 3640: how many bits an access unit's size, the first one's index and the others' index deltas take.
    Aac {
        /// `sizelength`
        size: u8,
        /// `indexlength`
        index: u8,
        /// `indexdeltalength`
        delta: u8,
    },
    /// RFC 6416 with `cpresent=0`.
    Latm,
    /// MPEG audio, RFC 2250.
    MpegAudio,
    /// Every packet is a frame: Opus, G.711, G.722, linear PCM.
    Whole(Codec),
}

impl From<&Coding> for Payload {
    /// As a description says it.
    fn from(coding: &Coding) -> Self {
        match *coding {
            Coding::H264 { .. } => Self::H264,
            Coding::H265 { .. } => Self::H265,
            Coding::Av1 => Self::Av1,
            Coding::Aac { size_length, index_length, index_delta_length, .. } => {
                Self::Aac { size: size_length, index: index_length, delta: index_delta_length }
            }
            Coding::Latm { .. } => Self::Latm,
            Coding::Opus { .. } => Self::Whole(Codec::Opus),
            Coding::PcmA { .. } => Self::Whole(Codec::PcmA),
            Coding::PcmU { .. } => Self::Whole(Codec::PcmU),
            Coding::L16 { .. } => Self::Whole(Codec::L16),
            Coding::G722 { .. } => Self::Whole(Codec::G722),
            Coding::Mpa => Self::MpegAudio,
        }
    }
}

impl Payload {
    const fn codec(self) -> Codec {
        match self {
            Self::H264 => Codec::H264,
            Self::H265 => Codec::H265,
            Self::Av1 => Codec::Av1,
            Self::Aac { .. } | Self::Latm => Codec::Aac,
            Self::MpegAudio => Codec::Mp3,
            Self::Whole(codec) => codec,
        }
    }
}

/// What is done with pictures after a loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterLoss {
    /// They are left out up to the next sync frame.
    #[default]
    Drop,
    /// Whole ones go on, whatever they refer to.
    Keep,
}

/// What comes out.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// What follows is coded so: parameter sets came that were not known.
    Track(Track),
    /// A frame.
    Unit(Unit),
}

/// A picture or a piece of sound, at a point of its track's RTP time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// RTP time, its wraps counted: when it is to be shown.
    pub time: i64,
    /// Whether a decoder may start here.
    pub is_sync: bool,
    /// As [`Frame::data`].
    pub data: Bytes,
}

/// What was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pictures and pieces of sound of which something was lost, and pictures up to the next sync frame after that.
    pub lost: u64,
    /// Payloads that break their format, and units too large.
    pub malformed: u64,
    /// Pictures before the first parameter sets.
    pub before_sync: u64,
}

/// Makes frames of one track's packets.
#[derive(Debug)]
pub struct Depacketizer {
    joiner: Joiner,
    codec: Codec,
    after_loss: AfterLoss,
    /// RTP time as it stood in the last packet, and with its wraps counted.
    last_time: Option<(u32, i64)>,
    /// Something is missing before the next picture.
    gap: bool,
    waits_for_sync: bool,
    normaliser: Normaliser,
    track: Option<Track>,
    counts: Counts,
}

/// By payload format: puts the parts of a frame together.
#[derive(Debug)]
enum Joiner {
    Nal(nal::Joiner),
    Av1(av1::Joiner),
    Aac(aac::Joiner),
    Mpeg(mpeg::Joiner),
    Whole,
}

/// A frame, put together.
#[derive(Debug)]
struct Joined {
    /// As it stood in its packets.
    time: u32,
    /// Ticks after that.
    later: u32,
    data: Bytes,
    /// AV1: it begins a sequence.
    is_sync: bool,
}

impl Depacketizer {
    /// For a track. `known` is the track as far as the description told it; `clock` its RTP ticks a second.
    pub fn new(payload: Payload, clock: NonZeroU32, known: Option<Track>, after_loss: AfterLoss) -> Self {
        let codec = payload.codec();
        let joiner = match payload {
            Payload::H264 => Joiner::Nal(nal::Joiner::new(nal::Units::H264)),
            Payload::H265 => Joiner::Nal(nal::Joiner::new(nal::Units::H265)),
            Payload::Av1 => Joiner::Av1(av1::Joiner::default()),
            Payload::Aac { size, index, delta } => {
                let config = known.as_ref().and_then(|track| AudioConfig::parse(&track.config).ok());
                Joiner::Aac(aac::Joiner::new([size, index, delta], frame_ticks(config, clock)))
            }
            Payload::Latm => Joiner::Aac(aac::Joiner::latm()),
            Payload::MpegAudio => Joiner::Mpeg(mpeg::Joiner::new(clock)),
            Payload::Whole(_) => Joiner::Whole,
        };
        let mut normaliser = Normaliser::default();
        let track = known.map(|track| normaliser.track(track));
        if track.is_none() {
            normaliser.track(Track::other(codec));
        }
        Self {
            joiner,
            codec,
            after_loss,
            last_time: None,
            gap: false,
            waits_for_sync: false,
            normaliser,
            track,
            counts: Counts::default(),
        }
    }

    /// The track, once it is known.
    pub const fn track(&self) -> Option<&Track> {
        self.track.as_ref()
    }

    /// What was left out so far.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// A point of RTP time near the last packet's, with its wraps counted as those of [`Unit::time`] are; `None` before
    /// the first packet.
    pub fn extended(&self, time: u32) -> Option<i64> {
        let (last, extended) = self.last_time?;
        Some(extended + i64::from(time.wrapping_sub(last).cast_signed()))
    }

    /// Takes what comes next; appends what is whole.
    pub fn push(&mut self, ordered: Ordered, out: &mut Vec<Output>) {
        match ordered {
            Ordered::Packet(packet) => self.packet(packet, out),
            Ordered::Lost(_) | Ordered::Restart => self.lose(),
        }
    }

    fn lose(&mut self) {
        let dropped = match &mut self.joiner {
            Joiner::Nal(joiner) => joiner.lose(),
            Joiner::Av1(joiner) => joiner.lose(),
            Joiner::Aac(joiner) => joiner.lose(),
            Joiner::Mpeg(joiner) => joiner.lose(),
            Joiner::Whole => false,
        };
        self.counts.lost += u64::from(dropped);
        if self.codec.kind() == Kind::Video {
            self.gap = true;
            self.waits_for_sync |= self.after_loss == AfterLoss::Drop;
        }
    }

    fn packet(&mut self, packet: Received, out: &mut Vec<Output>) {
        // What has no payload only keeps the way open.
        if packet.payload.is_empty() {
            return;
        }
        let time = packet.time;
        let mut joined = Vec::new();
        let malformed = match &mut self.joiner {
            Joiner::Nal(joiner) => joiner.push(packet, &mut joined),
            Joiner::Av1(joiner) => joiner.push(packet, &mut joined),
            Joiner::Aac(joiner) => joiner.push(packet, &mut joined),
            Joiner::Mpeg(joiner) => joiner.push(packet, &mut joined),
            Joiner::Whole => {
                joined.push(Joined { time, later: 0, data: packet.payload, is_sync: true });
                0
            }
        };
        self.counts.malformed += malformed;
        for frame in joined {
            self.whole(frame, out);
        }
        if let Some(extended) = self.extended(time).or(Some(time.into())) {
            self.last_time = Some((time, extended));
        }
    }

    fn whole(&mut self, joined: Joined, out: &mut Vec<Output>) {
        let Joined { time, later, data, is_sync } = joined;
        let extended = self.extended(time).unwrap_or(time.into());
        self.last_time = Some((time, extended));
        let time = extended + i64::from(later);
        match self.codec {
            Codec::H264 | Codec::H265 => self.access_unit(time, data, out),
            Codec::Av1 => self.temporal_unit(Unit { time, is_sync, data }, out),
            _ => {
                if self.track.is_none()
                    && let Some(track) = mpeg::track(&data)
                {
                    out.push(Output::Track(self.track.insert(track).clone()));
                }
                out.push(Output::Unit(Unit { time, is_sync: true, data }));
            }
        }
    }

    fn access_unit(&mut self, time: i64, data: Bytes, out: &mut Vec<Output>) {
        // Only told apart here: any unit of time will do.
        let stamp = Timestamp::from_nanos(time);
        let frame = Frame { kind: Kind::Video, dts: stamp, pts: stamp, is_sync: false, data };
        let normalised = self.normaliser.frame(frame);
        self.counts.malformed += normalised.malformed;
        if let Some(track) = normalised.track
            && nal::is_complete(&track)
        {
            out.push(Output::Track(self.track.insert(track).clone()));
        }
        let Some(normal) = normalised.frame else { return };
        if self.track.is_none() {
            self.counts.before_sync += 1;
            return;
        }
        let is_whole = !std::mem::take(&mut self.gap) || normal.picture == Picture::Begins;
        let Frame { is_sync, data, .. } = normal.frame;
        self.picture(Unit { time, is_sync, data }, is_whole, out);
    }

    fn temporal_unit(&mut self, unit: Unit, out: &mut Vec<Output>) {
        if unit.is_sync
            && let Some(track) = av1::track(&unit.data)
            && self.track.as_ref().is_none_or(|known| known.config != track.config)
        {
            out.push(Output::Track(self.track.insert(track).clone()));
        }
        if self.track.is_none() {
            self.counts.before_sync += 1;
            return;
        }
        let is_whole = !std::mem::take(&mut self.gap) || unit.is_sync;
        self.picture(unit, is_whole, out);
    }

    fn picture(&mut self, unit: Unit, is_whole: bool, out: &mut Vec<Output>) {
        if is_whole && unit.is_sync {
            self.waits_for_sync = false;
        }
        if is_whole && !self.waits_for_sync {
            out.push(Output::Unit(unit));
        } else {
            self.counts.lost += 1;
        }
    }
}

/// How long a frame of AAC is.
fn frame_ticks(config: Option<AudioConfig>, clock: NonZeroU32) -> u32 {
    let (samples, rate) = config.map_or((1024, 0), |config| (config.frame_samples(), config.sample_rate));
    match NonZeroU32::new(rate) {
        // Below 2^32: a frame has at most 1024 samples, and is shorter than a second.
        Some(rate) => u32::try_from(u64::from(samples) * u64::from(clock.get()) / u64::from(rate.get()))
            .unwrap_or(samples),
        None => samples,
    }
}
