//! One shape for H.264 and H.265, whatever a source sends: done once, before a stream shares it.
//!
//! Behind it every access unit is NAL units behind 4-byte lengths (ISO/IEC 14496-15 §4.3), without parameter sets,
//! delimiters and filler. Parameter sets that travel in the stream (`avc3`, `hev1`, RTP, encoders that repeat them) are
//! in the track's configuration instead, and a changed one makes another track. Whether decoding may start at an access
//! unit is told by its NAL units, not by what the container says. What is right already is not copied.

use bytes::{Bytes, BytesMut};

use crate::h264::AvcConfig;
use crate::h265::HevcConfig;
use crate::nal::{AnnexBUnits, NalUnits};
use crate::picture::{Part, Picture};
use crate::{Codec, Frame, Kind, MediaError, Timestamp, Track, VideoFormat, h264, h265};

/// Units without a picture that wait for it: supplemental information that came in a message of its own.
const MAX_PREFIX: usize = 64 << 10;
/// All parameter sets of a track together: what a configuration can be rebuilt from at every change.
const MAX_SETS: usize = u16::MAX as usize;

/// What a frame has become.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Normalised {
    /// A changed configuration was in it: this holds from the frame on.
    pub track: Option<Track>,
    /// `None`: nothing to decode was left of it.
    pub frame: Option<Normal>,
    /// So many units that ought to stay were left out: there is more of their kind than is taken.
    pub malformed: u64,
}

/// A frame in the one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Normal {
    /// Its data shares the memory of what came, where that was right.
    pub frame: Frame,
    /// How it begins.
    pub picture: Picture,
}

/// Puts the tracks and frames of one source into the one shape.
#[derive(Debug, Default)]
pub struct Normaliser {
    video: Option<Video>,
}

/// A track of H.264 or H.265.
#[derive(Debug)]
struct Video {
    /// As it was given on last.
    track: Track,
    /// The configuration as the source gave it: the same once more is no change, whatever came in the stream since.
    source: Bytes,
    length_size: u8,
    /// VPS, SPS, PPS.
    sets: [Vec<Set>; 3],
    prefix: BytesMut,
    /// A recovery point was announced for the picture that follows.
    recovers: bool,
    /// The time of the last picture.
    last: Option<Timestamp>,
}

/// A parameter set.
#[derive(Debug)]
struct Set {
    id: Option<u32>,
    /// The whole NAL unit.
    nal: Bytes,
}

impl Set {
    fn new(codec: Codec, nal: Bytes) -> Self {
        Self { id: set_id(codec, &nal), nal: nal.slice(..trimmed(&nal)) }
    }
}

fn set_id(codec: Codec, nal: &[u8]) -> Option<u32> {
    match codec {
        Codec::H264 => h264::parameter_set_id(nal),
        _ => h265::parameter_set_id(nal),
    }
}

/// How long a unit is without the zeros behind it, which belong to the stream.
fn trimmed(nal: &[u8]) -> usize {
    nal.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

impl Normaliser {
    /// A track as the source describes it; what is to be given on.
    pub fn track(&mut self, track: Track) -> Track {
        match track.codec {
            Codec::H264 | Codec::H265 => {}
            codec if codec.kind() == Kind::Video => {
                self.video = None;
                return track;
            }
            _ => return track,
        }
        if let Some(video) = &mut self.video
            && (video.track.codec, &video.source, video.track.framing)
                == (track.codec, &track.config, track.framing)
        {
            video.track.video = filled(video.track.video, track.video);
            return video.track.clone();
        }
        let video = self.video.insert(Video::new(track));
        video.track.clone()
    }

    /// A frame as the source sent it.
    pub fn frame(&mut self, frame: Frame) -> Normalised {
        match &mut self.video {
            Some(video) if frame.kind == Kind::Video => video.frame(frame),
            _ => as_it_is(frame),
        }
    }
}

fn as_it_is(frame: Frame) -> Normalised {
    Normalised { frame: Some(Normal { frame, picture: Picture::Unknown }), ..Normalised::default() }
}

/// What `known` leaves open is taken from `said`.
fn filled(known: VideoFormat, said: VideoFormat) -> VideoFormat {
    let or = |known, said| if known == 0 { said } else { known };
    VideoFormat {
        width: or(known.width, said.width),
        height: or(known.height, said.height),
        fps: known.fps.or(said.fps),
    }
}

/// What one look at all units of an access unit found.
#[derive(Debug, Default)]
struct Found {
    sets_changed: bool,
    /// Bytes of the frame from the first to the last unit that stays.
    kept: Option<(usize, usize)>,
    /// Bytes of the units that stay, behind 4-byte lengths.
    bytes: usize,
    malformed: u64,
    /// Units that go lie between ones that stay.
    is_broken: bool,
    dropped: bool,
    slices: bool,
    begins: bool,
    random_access: bool,
    recovery: bool,
    intra: bool,
}

/// What became of a parameter set.
enum Taken {
    News,
    Known,
    /// It has no number, or there is no room for it.
    Refused,
}

impl Video {
    fn new(mut track: Track) -> Self {
        let source = track.config.clone();
        let length_size = track.length_size();
        let sets: [Vec<Bytes>; 3] = match track.codec {
            Codec::H264 => AvcConfig::parse(source.clone())
                .map_or_else(|_| Default::default(), |config| [Vec::new(), config.sps, config.pps]),
            _ => HevcConfig::parse(source.clone()).map_or_else(
                |_| Default::default(),
                |config| {
                    [h265::NAL_VPS, h265::NAL_SPS, h265::NAL_PPS]
                        .map(|kind| config.units(kind).cloned().collect())
                },
            ),
        };
        if length_size != 4 && !source.is_empty() {
            let mut config = source.to_vec();
            if let Some(byte) = config.get_mut(if track.codec == Codec::H264 { 4 } else { 21 }) {
                *byte |= 3;
            }
            track.config = config.into();
        }
        let sets = sets.map(|sets| sets.into_iter().map(|nal| Set::new(track.codec, nal)).collect());
        Self { track, source, length_size, sets, prefix: BytesMut::new(), recovers: false, last: None }
    }

    fn frame(&mut self, mut frame: Frame) -> Normalised {
        let annex_b = !is_whole(&frame.data, self.length_size) && has_start_code(&frame.data);
        if !annex_b && !is_whole(&frame.data, self.length_size) {
            return as_it_is(frame);
        }
        let data = frame.data.clone();
        let mut found = if annex_b {
            self.look(AnnexBUnits::new(&data).map(|nal| (0, nal)))
        } else {
            let prefix = usize::from(self.length_size);
            let mut at = 0;
            let units = NalUnits::new(&data, self.length_size).flatten().map(move |nal| {
                let start = at;
                at += prefix + nal.len();
                (start, nal)
            });
            self.look(units)
        };
        let track = found.sets_changed.then(|| self.rebuilt().ok()).flatten();
        let Some((start, end)) = found.kept else {
            if found.dropped {
                return Normalised { track, frame: None, malformed: found.malformed };
            }
            return as_it_is(frame);
        };
        // A slice keeps all of the message in memory: a small part of one is not worth that.
        let is_small_part = found.dropped && found.bytes < data.len() / 4 * 3;
        let must_copy = annex_b || self.length_size != 4 || found.is_broken || is_small_part;
        if must_copy {
            frame.data = self.copied(&data, annex_b, found.bytes);
        } else if found.dropped {
            frame.data = data.slice(start..end.min(data.len()));
        }
        if !found.slices {
            // It belongs to the picture that follows.
            if self.prefix.len() + frame.data.len() <= MAX_PREFIX {
                self.prefix.extend_from_slice(&frame.data);
            } else {
                found.malformed += 1;
            }
            self.recovers |= found.recovery;
            return Normalised { track, frame: None, malformed: found.malformed };
        }
        if !self.prefix.is_empty() {
            let prefix = std::mem::take(&mut self.prefix);
            let mut joined = BytesMut::with_capacity(prefix.len() + frame.data.len());
            joined.extend_from_slice(&prefix);
            joined.extend_from_slice(&frame.data);
            frame.data = joined.freeze();
        }
        let is_intra = frame.is_sync && found.intra;
        let recovers = std::mem::take(&mut self.recovers) || found.recovery;
        // A slice header that can't be read is no reason to wait: what has a time of its own is another picture.
        let begins = found.begins || self.last != Some(frame.dts);
        self.last = Some(frame.dts);
        frame.is_sync = begins && (found.random_access || recovers || is_intra);
        let picture = if found.begins { Picture::Begins } else { Picture::Continues };
        Normalised { track, frame: Some(Normal { frame, picture }), malformed: found.malformed }
    }

    /// Goes through all units, and takes parameter sets that are news. With each unit comes where its length begins.
    fn look<'a>(&mut self, units: impl Iterator<Item = (usize, &'a [u8])>) -> Found {
        let mut found = Found { intra: true, ..Found::default() };
        let mut gap = false;
        for (start, nal) in units {
            let part = Part::of(self.track.codec, nal);
            match part {
                Part::Set(kind) => match self.take_set(kind, nal) {
                    Taken::News => found.sets_changed = true,
                    Taken::Known => {}
                    Taken::Refused => found.malformed += 1,
                },
                Part::Slice(slice) => {
                    found.slices = true;
                    found.begins |= slice.begins;
                    found.random_access |= slice.random_access;
                    found.intra &= slice.intra;
                }
                Part::Recovery => found.recovery = true,
                Part::Padding | Part::Other => {}
            }
            if !stays(part, nal) {
                found.dropped |= !nal.is_empty();
                gap = found.kept.is_some();
                continue;
            }
            found.is_broken |= gap;
            found.bytes += 4 + nal.len();
            let end = start + usize::from(self.length_size) + nal.len();
            found.kept = Some((found.kept.map_or(start, |(first, _)| first), end));
        }
        found.intra &= found.slices;
        found
    }

    fn take_set(&mut self, kind: usize, nal: &[u8]) -> Taken {
        let nal = nal.get(..trimmed(nal)).unwrap_or(nal);
        let Some(id) = set_id(self.track.codec, nal) else { return Taken::Refused };
        let all: usize = self.sets.iter().flatten().map(|set| set.nal.len()).sum();
        let Some(sets) = self.sets.get_mut(kind) else { return Taken::Refused };
        // A configuration may have more than one of a number.
        if sets.iter().any(|set| set.id == Some(id) && set.nal == nal) {
            return Taken::Known;
        }
        let same = sets.iter_mut().find(|set| set.id == Some(id));
        let others = all - same.as_ref().map_or(0, |same| same.nal.len());
        if others + nal.len() > MAX_SETS {
            return Taken::Refused;
        }
        // A copy, so that a small configuration does not keep a large message in memory.
        let set = Set { id: Some(id), nal: Bytes::copy_from_slice(nal) };
        match same {
            Some(same) => *same = set,
            None => sets.push(set),
        }
        Taken::News
    }

    /// The track with the parameter sets of now.
    fn rebuilt(&mut self) -> Result<Track, MediaError> {
        let nals = |sets: &Vec<Set>| sets.iter().map(|set| set.nal.clone()).collect();
        let [vps, sps, pps] = self.sets.each_ref().map(nals);
        let mut track = match self.track.codec {
            Codec::H264 => Track::h264(AvcConfig::from_parameter_sets(sps, pps)?.build()?)?,
            _ => Track::h265(HevcConfig::from_parameter_sets(vps, sps, pps)?.build()?)?,
        };
        track.framing = self.track.framing;
        // A rate that was said beside the stream holds on; a size does not.
        track.video.fps = track.video.fps.or(self.track.video.fps);
        self.track = track.clone();
        Ok(track)
    }

    /// The units that stay, behind 4-byte lengths: `size` bytes.
    fn copied(&self, data: &[u8], annex_b: bool, size: usize) -> Bytes {
        let mut out = BytesMut::with_capacity(size);
        let mut put = |nal: &[u8]| {
            if let (true, Ok(length)) =
                (stays(Part::of(self.track.codec, nal), nal), u32::try_from(nal.len()))
            {
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(nal);
            }
        };
        if annex_b {
            AnnexBUnits::new(data).for_each(&mut put);
        } else {
            NalUnits::new(data, self.length_size).flatten().for_each(&mut put);
        }
        out.freeze()
    }
}

fn stays(part: Part, nal: &[u8]) -> bool {
    !nal.is_empty() && !matches!(part, Part::Set(_) | Part::Padding)
}

/// Whether it is units behind lengths, to the last byte.
fn is_whole(data: &[u8], length_size: u8) -> bool {
    !data.is_empty() && NalUnits::new(data, length_size).all(|nal| nal.is_ok())
}

fn has_start_code(data: &[u8]) -> bool {
    data.starts_with(&[0, 0, 1]) || data.starts_with(&[0, 0, 0, 1])
}

#[cfg(test)]
mod tests;
