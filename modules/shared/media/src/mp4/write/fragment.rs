//! Movie fragments (§8.8), as CMAF (ISO/IEC 23000-19) and HLS want them.

use std::num::NonZeroU32;
use std::ops::Range;

use bytes::{BufMut, Bytes};

use super::header::{put_fragmented_moov, put_ftyp};
use super::track::{Sample, TrackWriter, writers};
use super::{MuxError, put_box, put_full_box};
use crate::{Frame, Kind, Timestamp, Track};

/// `sample_depends_on` 2: an I picture, or sound (§8.8.3.1).
const SYNC: u32 = 0x0200_0000;
/// `sample_depends_on` 1 and `sample_is_non_sync_sample`.
const NON_SYNC: u32 = 0x0100_0000 | NON_SYNC_FLAG;
/// `sample_is_non_sync_sample`.
pub(super) const NON_SYNC_FLAG: u32 = 0x0001_0000;

/// Writes the frames of one stream as fragments.
///
/// Muxed, the pictures first in `moov`, `moof` and `mdat`. No edit list: decoding times are the stream's own, composition
/// offsets are never negative, and sound has its own times. Times of pictures are in ticks of 1/90,000 s, those of sound
/// in samples; each is rounded from the stream's nanoseconds on its own, so nothing adds up, and each sample ends on the tick
/// on which the next one begins.
#[derive(Debug)]
pub struct FragmentWriter {
    tracks: Vec<TrackWriter>,
    sequence: u32,
    /// The samples of the last fragment, and which are whose.
    samples: Vec<Sample>,
    runs: Vec<Run>,
}

/// A fragment: `header`, and behind it the pieces of `media`, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// `moof` and the header of `mdat`.
    pub header: Bytes,
    /// What is in `mdat`: the frames' own bytes, not copied.
    pub media: Vec<Bytes>,
    /// Bytes of all of it.
    pub size: u64,
    /// Where the leading track lies: the pictures, or the sound of a stream that has no pictures. `None` where the fragment
    /// has no frame of it.
    pub leading: Option<Span>,
    /// The leading track begins with a sync frame here: a decoder may start at this fragment.
    pub is_independent: bool,
}

impl Fragment {
    /// All pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.header).chain(&self.media)
    }
}

/// A piece of a track's decoding time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// `baseMediaDecodeTime` in ticks.
    pub decode_time: u64,
    /// Ticks until the next fragment's `decode_time`.
    pub duration: u64,
    /// Ticks a second.
    pub timescale: NonZeroU32,
}

impl Span {
    /// The duration in seconds.
    pub fn seconds(&self) -> f64 {
        self.duration as f64 / f64::from(self.timescale.get())
    }
}

/// The samples of one track in a fragment.
#[derive(Debug)]
pub(super) struct Run {
    /// Which of the tracks.
    pub(super) track: usize,
    pub(super) decode_time: u64,
    samples: Range<usize>,
    pub(super) bytes: u64,
}

impl FragmentWriter {
    /// For these tracks: at most one of pictures and one of sound. `origin` is the moment of the stream that becomes
    /// `baseMediaDecodeTime` 0; what is decoded before it is put there.
    ///
    /// # Errors
    ///
    /// No track, two of a kind, a codec that is not carried, or one without its configuration.
    pub fn new(tracks: &[Track], origin: Timestamp) -> Result<Self, MuxError> {
        let mut tracks = writers(tracks)?;
        tracks.iter_mut().for_each(|track| track.set_origin(origin));
        Ok(Self { tracks, sequence: 0, samples: Vec::new(), runs: Vec::new() })
    }

    /// An index will say how long each picture lasted: no run waits for the length that the one before it was given.
    pub(super) fn set_open(&mut self) {
        self.tracks.iter_mut().for_each(TrackWriter::set_open);
    }

    /// The init segment: `ftyp` and a `moov` without samples. The same tracks give the same bytes.
    pub fn init(&self) -> Bytes {
        let mut out = Vec::new();
        put_ftyp(&mut out, &[b"iso6", b"mp41"]);
        put_fragmented_moov(&mut out, &self.tracks);
        out.into()
    }

    /// Writes frames as one fragment, each track's in order of decoding. `end` is when the picture that follows is decoded,
    /// where that is known already: otherwise the last one lasts as long as the one before it. `None` where no frame is of
    /// a track of this writer.
    ///
    /// # Errors
    ///
    /// More than 2 GiB.
    pub fn fragment(
        &mut self,
        frames: &[Frame],
        end: Option<Timestamp>,
    ) -> Result<Option<Fragment>, MuxError> {
        self.fragment_behind(0, frames, end)
    }

    /// The same with so many bytes in front of it, which are left to the caller.
    pub(super) fn fragment_behind(
        &mut self,
        lead: usize,
        frames: &[Frame],
        end: Option<Timestamp>,
    ) -> Result<Option<Fragment>, MuxError> {
        let media: u64 = frames.iter().map(|frame| frame.data.len() as u64).sum();
        if media > i32::MAX as u64 {
            return Err(MuxError::TooLarge(media));
        }
        self.samples.clear();
        self.runs.clear();
        for (index, track) in self.tracks.iter_mut().enumerate() {
            let kind = track.kind;
            let end = end.filter(|_| kind == Kind::Video);
            let own = frames.iter().filter(|frame| frame.kind == kind);
            let first = self.samples.len();
            let Some(start) = track.place(own, end, &mut self.samples) else { continue };
            let samples = first..self.samples.len();
            let placed = self.samples.get(samples.clone()).unwrap_or_default();
            let bytes = placed.iter().map(|sample| u64::from(sample.size)).sum();
            self.runs.push(Run { track: index, decode_time: start.unsigned_abs(), samples, bytes });
        }
        if self.runs.is_empty() {
            return Ok(None);
        }
        self.sequence = self.sequence.wrapping_add(1);
        Ok(Some(self.assemble(lead, frames)))
    }

    pub(super) fn tracks(&self) -> &[TrackWriter] {
        &self.tracks
    }

    /// What the last fragment was made of, in the order of its media.
    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub(super) fn samples(&self, run: &Run) -> &[Sample] {
        self.samples.get(run.samples.clone()).unwrap_or_default()
    }

    fn assemble(&self, lead: usize, frames: &[Frame]) -> Fragment {
        let runs = &self.runs;
        let media: u64 = runs.iter().map(|run| run.bytes).sum();
        let mut out = Vec::with_capacity(lead + 64 + runs.len() * 80 + self.samples.len() * 16);
        out.put_bytes(0, lead);
        let mut offsets = Vec::with_capacity(runs.len());
        put_box(&mut out, b"moof", |out| {
            put_full_box(out, b"mfhd", 0, 0, |out| out.put_u32(self.sequence));
            for run in runs {
                if let Some(track) = self.tracks.get(run.track) {
                    put_traf(out, track, run.decode_time, self.samples(run), &mut offsets);
                }
            }
        });
        // Counted from the start of `moof`.
        let mut data = (out.len() - lead) as u64 + 8;
        for (run, at) in runs.iter().zip(offsets) {
            if let Some(field) = out.get_mut(at..at + 4) {
                field.copy_from_slice(&(data as u32).to_be_bytes());
            }
            data += run.bytes;
        }
        out.put_u32(media as u32 + 8);
        out.put_slice(b"mdat");
        let size = out.len() as u64 + media;
        let mut pieces = Vec::with_capacity(self.samples.len());
        for run in runs {
            let kind = self.tracks.get(run.track).map(|track| track.kind);
            let own = frames.iter().filter(|frame| Some(frame.kind) == kind && !frame.data.is_empty());
            pieces.extend(own.map(|frame| frame.data.clone()));
        }
        let first = runs.first().filter(|run| run.track == 0);
        let samples = first.map(|run| self.samples(run)).unwrap_or_default();
        let leading = first.zip(self.tracks.first()).map(|(run, track)| Span {
            decode_time: run.decode_time,
            duration: samples.iter().map(|sample| u64::from(sample.duration)).sum(),
            timescale: track.timescale,
        });
        let is_independent = samples.first().is_some_and(|sample| sample.is_sync);
        Fragment { header: out.into(), media: pieces, size, leading, is_independent }
    }
}

/// `traf` (§8.8.6); where in `out` its data offset is goes to `offsets`. What all samples have in common is said once.
fn put_traf(
    out: &mut Vec<u8>,
    track: &TrackWriter,
    decode_time: u64,
    samples: &[Sample],
    offsets: &mut Vec<usize>,
) {
    const DURATION: u32 = 0x100;
    const SIZE: u32 = 0x200;
    const FLAGS: u32 = 0x400;
    const COMPOSITION: u32 = 0x800;
    let Some((first, rest)) = samples.split_first() else { return };
    let same_duration = rest.iter().all(|sample| sample.duration == first.duration);
    let rest_sync = rest.first().is_none_or(|sample| sample.is_sync);
    let same_flags = rest.iter().all(|sample| sample.is_sync == rest_sync);
    let no_composition = samples.iter().all(|sample| sample.composition == 0);
    let flags_of = |is_sync| if is_sync { SYNC } else { NON_SYNC };
    let default_flags = flags_of(if rest.is_empty() { first.is_sync } else { rest_sync });
    let own_first = same_flags && flags_of(first.is_sync) != default_flags;
    put_box(out, b"traf", |out| {
        // default-base-is-moof, default flags, and a default duration where there is one.
        let has_duration = if same_duration { 0x08 } else { 0 };
        put_full_box(out, b"tfhd", 0, 0x02_0020 | has_duration, |out| {
            out.put_u32(track.id);
            if same_duration {
                out.put_u32(first.duration);
            }
            out.put_u32(default_flags);
        });
        put_full_box(out, b"tfdt", 1, 0, |out| out.put_u64(decode_time));
        let per_sample = [(SIZE, true), (DURATION, !same_duration), (FLAGS, !same_flags)]
            .into_iter()
            .chain([(COMPOSITION, !no_composition)])
            .filter(|(_, is_there)| *is_there)
            .fold(0, |flags, (flag, _)| flags | flag);
        let flags = 0x01 | if own_first { 0x04 } else { 0 } | per_sample;
        put_full_box(out, b"trun", 0, flags, |out| {
            out.put_u32(samples.len() as u32);
            offsets.push(out.len());
            out.put_u32(0);
            if own_first {
                out.put_u32(flags_of(first.is_sync));
            }
            for sample in samples {
                if !same_duration {
                    out.put_u32(sample.duration);
                }
                out.put_u32(sample.size);
                if !same_flags {
                    out.put_u32(flags_of(sample.is_sync));
                }
                if !no_composition {
                    out.put_u32(sample.composition);
                }
            }
        });
    });
}

#[cfg(test)]
pub(super) mod tests;
