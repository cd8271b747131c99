//! Reading and writing MP4 (ISO/IEC 14496-12), progressive and fragmented.
//!
//! [`FragmentWriter`] and [`Recording`] write. [`Mp4::open`] reads the index and leaves the media alone; [`Playback`] gives the samples of one video
//! and one audio track on the presentation timeline, once or in a loop. A flow of frames:
//!
//! ```no_run
//! # use std::{fs::File, time::Duration};
//! use av_media::mp4::{Mp4, Playback};
//!
//! # fn main() -> Result<(), av_media::mp4::Mp4Error> {
//! # let file = File::open("clip.mp4").unwrap();
//! let mut playback = Playback::new(Mp4::open(file)?, Duration::ZERO);
//! while let Some(sample) = playback.next_sample(true)? {
//!     let frame = sample.frame(playback.loop_start(sample.loop_index));
//!     // wait until `frame.dts`, then send it
//! }
//! # Ok(())
//! # }
//! ```

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Seek};
use std::num::NonZeroU32;

pub use mp4_atom::FourCC;

use crate::{Kind, Track};

mod boxes;
mod entry;
mod error;
mod esds;
mod flaw;
mod fragments;
mod head;
mod ignored;
mod media_time;
mod movie;
mod playback;
mod presentation;
mod runs;
mod samples;
mod sync;
mod tables;
mod write;

pub use error::{BoxFault, Mp4Error, Mp4Fault};
pub use flaw::Flaw;
pub use ignored::{IgnoredReason, IgnoredTrack};
pub use media_time::MediaTime;
pub use playback::{Playback, Sample};
pub use presentation::Presentation;
pub use write::{
    Amount, Finish, Fragment, FragmentWriter, MuxError, Recording, RecoverError, Recovered, Span, Write,
    recover,
};

use boxes::{BoxBody, FileBox, FileBoxes, read_at, starts_a_file};
use flaw::Damaged;
use movie::{Movie, MovieTrack};
use presentation::TrackPlan;

/// An index larger than this is refused before it is read.
const MAX_MOOV: u64 = 64 << 20;
/// The same for the header of a fragment, of which a recording may have only one.
const MAX_MOOF: u64 = 64 << 20;
/// More samples than this in all tracks of a file are refused: 46 hours of 60 pictures and 47 audio
/// frames a second.
const MAX_SAMPLES: u32 = 20_000_000;
/// What all samples of a file take in memory at most: a day of 25 pictures and 47 audio frames a second takes 113 MB.
const MAX_INDEX: usize = 128 << 20;

/// An MP4 file whose index has been read.
#[derive(Debug)]
pub struct Mp4<R> {
    reader: R,
    tracks: Vec<Mp4Track>,
    ignored: Vec<IgnoredTrack>,
    flaws: Vec<Flaw>,
    index: Vec<MovieTrack>,
    presentation: Presentation,
    parts: Vec<IndexPart>,
}

/// A track that is read: at most one video and one audio track of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Mp4Track {
    /// `track_ID`.
    pub id: u32,
    /// Pictures or sound.
    pub kind: Kind,
    /// Codec and configuration of its samples: nearly always one. Those that say the same are one.
    pub configurations: Vec<Track>,
    /// Ticks per second of the track's media.
    pub timescale: NonZeroU32,
    /// Samples in the file, edited out ones included.
    pub sample_count: u32,
}

/// A `moov` or `moof` as it was read, to see whether it still is what it was.
#[derive(Clone, Copy, Debug)]
struct IndexPart {
    offset: u64,
    size: u64,
    hash: u64,
}

impl IndexPart {
    fn of(body: &BoxBody) -> Self {
        Self { offset: body.body_offset, size: body.body.len() as u64, hash: hash(&body.body) }
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl<R: Read + Seek> Mp4<R> {
    /// Reads the index: `moov`, wherever it is, and the `moof` of every fragment. Media is not read.
    ///
    /// What is damaged costs itself and what cannot do without it: a track, a fragment, a sample. See
    /// [`ignored`](Self::ignored) and [`flaws`](Self::flaws).
    ///
    /// # Errors
    ///
    /// It can't be read, is not an MP4 file, or nothing in it can be played: with the box, its byte offset, and the
    /// reason for each track.
    pub fn open(reader: R) -> Result<Self, Mp4Error> {
        Self::open_within(reader, MAX_INDEX)
    }

    /// The same with an index of at most `max_bytes` in memory.
    fn open_within(mut reader: R, max_bytes: usize) -> Result<Self, Mp4Error> {
        let Found { movie, moov, parts, damaged, file_end } = Found::read(&mut reader, max_bytes)?;
        let mut ignored = movie.ignored;
        let (mut plans, mut index) = (Vec::new(), Vec::new());
        // A track that is not enabled plays where no other of its kind does.
        let mut candidates = movie.tracks;
        candidates.sort_by_key(|track| (track.kind, !track.enabled, track.order));
        for mut track in candidates {
            if index.iter().any(|chosen: &MovieTrack| chosen.kind == track.kind) {
                let reason = match track.enabled {
                    true => IgnoredReason::Second(track.kind),
                    false => IgnoredReason::Disabled,
                };
                ignored.push(track.ignored(reason));
                continue;
            }
            match plan(&mut reader, &mut track, movie.timescale, file_end) {
                Ok(mut plan) => {
                    plan.track = index.len();
                    plans.push(plan);
                    index.push(track);
                }
                Err(reason) => ignored.push(track.ignored(reason)),
            }
        }
        let presentation = Presentation::of(plans);
        if presentation.is_none() {
            ignored.extend(index.iter().map(|track| track.ignored(IgnoredReason::NoTime)));
        }
        ignored.sort_by_key(|(order, _)| *order);
        let ignored: Vec<_> = ignored.into_iter().map(|(_, track)| track).collect();
        let Some(presentation) = presentation else {
            return Err(moov.error(match moov.cut(file_end) {
                Some((need, have)) => Mp4Fault::IndexCut { need, have, ignored },
                None => Mp4Fault::NoTrack(ignored),
            }));
        };
        let tracks = index.iter().map(MovieTrack::describe).collect();
        let flaws = Flaw::of(&index, file_end).chain(damaged).collect();
        Ok(Self { reader, tracks, ignored, flaws, index, presentation, parts })
    }

    /// The tracks that are read: video before audio.
    pub fn tracks(&self) -> &[Mp4Track] {
        &self.tracks
    }

    /// The tracks that are not.
    pub fn ignored(&self) -> &[IgnoredTrack] {
        &self.ignored
    }

    /// What is missing of those that are.
    pub fn flaws(&self) -> &[Flaw] {
        &self.flaws
    }

    /// The length of a loop, and what is in it.
    pub const fn presentation(&self) -> &Presentation {
        &self.presentation
    }

    /// Whether it was written in fragments, of which the last may not be there yet.
    pub const fn is_fragmented(&self) -> bool {
        self.parts.len() > 1
    }

    /// Whether a file that has changed has only grown, as far as a sample at byte `near` is concerned: it is written in
    /// fragments, and the index that was read is where it was, as it was.
    pub fn has_only_grown(&mut self, near: u64) -> bool {
        let Some((moov, fragments)) = self.parts.split_first() else { return false };
        let of_sample = fragments.partition_point(|part| part.offset <= near);
        let Some(fragment) = of_sample.checked_sub(1).and_then(|index| fragments.get(index)) else {
            return false;
        };
        [*moov, *fragment].into_iter().all(|part| {
            read_at(&mut self.reader, part.offset, part.size).is_ok_and(|bytes| hash(&bytes) == part.hash)
        })
    }
}

/// What a track gives to play.
fn plan<R: Read + Seek>(
    reader: &mut R,
    track: &mut MovieTrack,
    movie_timescale: Option<NonZeroU32>,
    file_end: u64,
) -> Result<TrackPlan, IgnoredReason> {
    if track.samples.count() == 0 {
        return Err(IgnoredReason::Empty);
    }
    track.settle(file_end);
    let (lost, count) = (track.lost, track.samples.count());
    if lost.missing.is_some_and(|missing| missing.count == count) {
        return Err(IgnoredReason::NotInFile(file_end));
    }
    if lost.too_large == count {
        return Err(IgnoredReason::TooLarge(lost.largest));
    }
    let mut plan = TrackPlan::of(track, movie_timescale).map_err(|reason| match reason {
        IgnoredReason::EditedAway if track.edits.is_empty() => IgnoredReason::Empty,
        reason => reason,
    })?;
    sync::begin_at_sync(reader, track, &mut plan);
    plan.bound(count)?;
    Ok(plan)
}

/// The index as it is in the file.
struct Found {
    movie: Movie,
    moov: FileBox,
    parts: Vec<IndexPart>,
    /// Fragments of which a part can't be read.
    damaged: Option<Flaw>,
    file_end: u64,
}

impl Found {
    fn read<R: Read + Seek>(reader: &mut R, max_bytes: usize) -> Result<Self, Mp4Error> {
        let mut boxes = FileBoxes::new(reader)?;
        let file_end = boxes.end();
        // A sample that is sent has a byte at least: small files can't announce many.
        let max_samples = u32::try_from(file_end).unwrap_or(u32::MAX).min(MAX_SAMPLES);
        let mut index: Option<(Movie, FileBox)> = None;
        let (mut parts, mut damaged, mut image, mut orphan, mut is_known) =
            (Vec::new(), Damaged::default(), None, None, false);
        while let Some(found) = boxes.next_box()? {
            is_known |= starts_a_file(found.kind);
            match (&found.kind.into(), &mut index) {
                (b"ftyp", _) => image = image_brand(&boxes.load(&found, MAX_MOOV)?),
                (b"moov", Some((movie, _))) if !movie.is_empty() => {}
                (b"moov", _) => {
                    let body = boxes.load(&found, MAX_MOOV)?;
                    parts.insert(0, IndexPart::of(&body));
                    parts.truncate(1);
                    index = Some((Movie::parse(&body, max_samples, max_bytes), found));
                }
                (b"moof", Some((movie, _))) => {
                    let body = boxes.load(&found, MAX_MOOF)?;
                    parts.push(IndexPart::of(&body));
                    if !fragments::append(movie, &body, file_end) {
                        damaged.add(found.offset);
                    }
                    if size_of_val(&parts[..]).saturating_add(movie.index_bytes) > max_bytes {
                        return Err(found.error(Mp4Fault::IndexTooLarge { most: max_bytes as u64 }));
                    }
                }
                (b"moof", None) => orphan = orphan.or(Some(found)),
                _ => {}
            }
        }
        let at = boxes.at();
        let Some((movie, moov)) = index else {
            if let Some(moof) = orphan {
                return Err(moof.error(Mp4Fault::Missing(FourCC::new(b"moov"))));
            }
            let error =
                |name: &[u8; 4], offset, source| Err(Mp4Error { name: FourCC::new(name), offset, source });
            return match image {
                Some(brand) => error(b"ftyp", 0, Mp4Fault::Image(brand)),
                None if is_known || file_end == 0 => error(b"moov", at, Mp4Fault::NoIndex),
                None => error(b"ftyp", 0, Mp4Fault::NotMp4),
            };
        };
        Ok(Self { movie, moov, parts, damaged: damaged.flaw(), file_end })
    }
}

/// The brand of a file that holds a picture (ISO/IEC 23008-12 §10).
fn image_brand(ftyp: &BoxBody) -> Option<FourCC> {
    const IMAGES: [&[u8; 4]; 7] = [b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif", b"jpeg"];
    let brand = FourCC::from(ftyp.u32_at(0)?.to_be_bytes());
    IMAGES.iter().any(|image| brand == FourCC::new(image)).then_some(brand)
}

#[cfg(test)]
mod tests;
