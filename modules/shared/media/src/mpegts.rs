//! Writing MPEG transport streams (ISO/IEC 13818-1), as HLS has them for players that know no fragments.
//!
//! One program with one track of H.264 or H.265 and one of AAC. Pictures become Annex B with an access unit delimiter
//! each, and with their parameter sets where a decoder may start; frames of sound get ADTS headers.

use bytes::Bytes;

use crate::aac::{AdtsHeader, AudioConfig};
use crate::h264::AvcConfig;
use crate::h265::{self, HevcConfig};
use crate::mp4::MuxError;
use crate::nal::NalUnits;
use crate::{Codec, Frame, Kind, Timestamp, Track};

mod packet;
mod tables;

use packet::{Packets, Pid};

/// Where the stream's time 0 lies: decoders want to be told the clock before the first picture is due.
const START: i64 = 90_000;
/// By how much the clock is behind what is decoded: so much may lie between sound and pictures in the stream.
const CLOCK_DELAY: i64 = 45_000;
/// The clock is told ten times a second at least (§2.7.2), and sound is gathered for so long, so that short frames do not
/// fill a packet each: with the frame that is one too many it is less than 100 ms.
const GATHER: i64 = 6_000;
/// A PES packet says its length in 16 bits.
const MOST_SOUND: usize = 32_000;

/// Writes the frames of one stream as a transport stream.
#[derive(Debug)]
pub struct TsMuxer {
    video: Option<Video>,
    audio: Option<AudioConfig>,
    origin: i64,
    packets: Packets,
    /// When the clock was told last.
    clock: Option<i64>,
    /// Frames of sound that wait, and when the first of them is heard.
    sound: Vec<u8>,
    sound_at: i64,
    left_out: u64,
}

#[derive(Debug)]
struct Video {
    codec: Codec,
    length_size: u8,
    /// All of them, behind start codes.
    parameter_sets: Vec<u8>,
}

impl TsMuxer {
    /// For these tracks: at most one of pictures and one of sound. `origin` is the moment of the stream that becomes the
    /// second second of this one; times wrap at 33 bits.
    ///
    /// # Errors
    ///
    /// No track, two of a kind, a codec that is not carried, or one without its configuration.
    pub fn new(tracks: &[Track], origin: Timestamp) -> Result<Self, MuxError> {
        let (mut video, mut audio) = (None, None);
        for track in tracks {
            let is_second = match track.kind() {
                Kind::Video => video.replace(Video::new(track)?).is_some(),
                Kind::Audio => audio.replace(sound_config(track)?).is_some(),
            };
            if is_second {
                return Err(MuxError::SecondTrack(track.kind()));
            }
        }
        if video.is_none() && audio.is_none() {
            return Err(MuxError::NoTrack);
        }
        Ok(Self {
            video,
            audio,
            origin: ticks(origin),
            packets: Packets::default(),
            clock: None,
            sound: Vec::new(),
            sound_at: 0,
            left_out: 0,
        })
    }

    /// Writes frames in the order in which they are given, which is that of decoding; with the tables in front, where a
    /// segment starts. What belongs to them is all in what is returned.
    pub fn write(&mut self, frames: &[Frame], starts_segment: bool) -> Bytes {
        let media: usize = frames.iter().map(|frame| frame.data.len() + 64).sum();
        self.packets.reserve(media + media / 16 + 4 * 188);
        if starts_segment {
            let video = self.video.as_ref().map(|video| video.codec);
            self.packets.tables(&tables::pat(), &tables::pmt(video, self.audio.is_some()));
        }
        for frame in frames {
            match frame.kind {
                Kind::Video => self.picture(frame),
                Kind::Audio => self.gather(frame),
            }
        }
        self.flush();
        self.packets.take()
    }

    /// Frames that could not be written: sound of a size that ADTS can't say, and what no track was announced for.
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    fn tick(&self, time: Timestamp) -> i64 {
        ticks(time).wrapping_sub(self.origin).wrapping_add(START)
    }

    fn picture(&mut self, frame: &Frame) {
        let (dts, pts) = (self.tick(frame.dts), self.tick(frame.pts));
        let Some(video) = &self.video else {
            self.left_out += 1;
            return;
        };
        let unit = video.access_unit(frame);
        if !self.sound.is_empty() && dts.wrapping_sub(self.sound_at) >= GATHER {
            self.flush();
        }
        let clock = self.told(dts, 1);
        self.packets.pes(Pid::Video, pts.max(dts), Some(dts), clock, frame.is_sync, &unit);
    }

    fn gather(&mut self, frame: &Frame) {
        let header = self.audio.and_then(|config| AdtsHeader::for_frame(&config, frame.data.len()).ok());
        let Some(header) = header else {
            self.left_out += 1;
            return;
        };
        let at = self.tick(frame.pts);
        let is_late = at.wrapping_sub(self.sound_at) >= GATHER;
        if !self.sound.is_empty() && (is_late || self.sound.len() + frame.data.len() > MOST_SOUND) {
            self.flush();
        }
        if self.sound.is_empty() {
            self.sound_at = at;
        }
        if self.video.is_some()
            && let Some(clock) = self.told(at, GATHER)
        {
            self.packets.clock(Pid::Video, clock);
        }
        self.sound.extend_from_slice(&header.build());
        self.sound.extend_from_slice(&frame.data);
    }

    fn flush(&mut self) {
        if self.sound.is_empty() {
            return;
        }
        let at = self.sound_at;
        let clock = if self.video.is_none() { self.told(at, 1) } else { None };
        let sound = std::mem::take(&mut self.sound);
        self.packets.pes(Pid::Audio, at, None, clock, true, &sound);
        self.sound = sound;
        self.sound.clear();
    }

    /// The clock as it is told at `at`, where that is so much later than the last time.
    fn told(&mut self, at: i64, least: i64) -> Option<i64> {
        if self.clock.is_some_and(|told| at.wrapping_sub(told) < least) {
            return None;
        }
        self.clock = Some(at);
        Some(at.wrapping_sub(CLOCK_DELAY))
    }
}

impl Video {
    fn new(track: &Track) -> Result<Self, MuxError> {
        let sets: Vec<Bytes> = match track.codec {
            Codec::H264 if !track.config.is_empty() => {
                let config = AvcConfig::parse(track.config.clone())?;
                config.sps.into_iter().chain(config.pps).collect()
            }
            Codec::H265 if !track.config.is_empty() => {
                let config = HevcConfig::parse(track.config.clone())?;
                let kinds = [h265::NAL_VPS, h265::NAL_SPS, h265::NAL_PPS];
                kinds.into_iter().flat_map(|kind| config.units(kind)).cloned().collect()
            }
            Codec::H264 | Codec::H265 => Vec::new(),
            codec => return Err(MuxError::Codec { container: "MPEG-TS", codec }),
        };
        if sets.is_empty() {
            return Err(MuxError::NoConfig(track.codec));
        }
        let mut parameter_sets = Vec::new();
        sets.iter().for_each(|set| put_unit(&mut parameter_sets, set));
        Ok(Self { codec: track.codec, length_size: track.length_size(), parameter_sets })
    }

    /// Annex B: a delimiter, the parameter sets where decoding may start, and the picture.
    fn access_unit(&self, frame: &Frame) -> Vec<u8> {
        // Any kind of slice may follow (H.264 §7.4.2.4, H.265 §7.4.3.5).
        let delimiter: &[u8] = match self.codec {
            Codec::H264 => &[9, 0xf0],
            _ => &[0x46, 1, 0x50],
        };
        let sets = if frame.is_sync { self.parameter_sets.len() } else { 0 };
        let mut out = Vec::with_capacity(16 + sets + frame.data.len());
        put_unit(&mut out, delimiter);
        out.extend_from_slice(self.parameter_sets.get(..sets).unwrap_or_default());
        for nal in NalUnits::new(&frame.data, self.length_size).flatten() {
            put_unit(&mut out, nal);
        }
        out
    }
}

fn put_unit(out: &mut Vec<u8>, nal: &[u8]) {
    out.extend_from_slice(&[0, 0, 0, 1]);
    out.extend_from_slice(nal);
}

fn sound_config(track: &Track) -> Result<AudioConfig, MuxError> {
    if track.codec != Codec::Aac {
        return Err(MuxError::Codec { container: "MPEG-TS", codec: track.codec });
    }
    if track.config.is_empty() {
        return Err(MuxError::NoConfig(track.codec));
    }
    let config = AudioConfig::parse(&track.config)?;
    // Says at once what no frame of the track could be written with.
    AdtsHeader::for_frame(&config, 0)?;
    Ok(config)
}

fn ticks(time: Timestamp) -> i64 {
    const CLOCK: std::num::NonZeroU32 = std::num::NonZeroU32::new(90_000).unwrap();
    time.ticks(CLOCK)
}

#[cfg(test)]
mod tests;
