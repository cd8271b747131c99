//! Reading MP4 files (ISO/IEC 14496-12), progressive and fragmented.
//!
//! [`Mp4::open`] reads the index and leaves the media alone; [`Playback`] gives the samples of one video
//! and one audio track on the presentation timeline, once or in a loop. A flow of frames:
//!
//! ```no_run
//! # use std::{fs::File, time::Duration};
//! use av_media::mp4::{Mp4, Playback};
//!
//! # fn main() -> Result<(), av_media::mp4::Mp4Error> {
//! # let file = File::open("clip.mp4").unwrap();
//! let mut playback = Playback::new(Mp4::open(file)?, Duration::ZERO)?;
//! while let Some(sample) = playback.next_sample(true)? {
//!     let frame = sample.frame(playback.loop_start(sample.loop_index));
//!     // wait until `frame.dts`, then send it
//! }
//! # Ok(())
//! # }
//! ```

use std::io::{Read, Seek};
use std::num::NonZeroU32;

pub use mp4_atom::FourCC;

use crate::{Kind, Track};

mod boxes;
mod entry;
mod error;
mod fragments;
mod head;
mod media_time;
mod movie;
mod playback;
mod presentation;
mod samples;
mod tables;

pub use error::{Mp4Error, Mp4Fault};
pub use media_time::MediaTime;
pub use playback::{Playback, Sample};
pub use presentation::Presentation;

use boxes::FileBoxes;
use movie::{Movie, MovieTrack};

/// An index larger than this is refused before it is read.
const MAX_MOOV: u64 = 64 << 20;
/// A fragment's header larger than this is refused before it is read.
const MAX_MOOF: u64 = 4 << 20;
/// More samples than this in all tracks of a file are refused: 46 hours of 60 pictures and 47 audio
/// frames a second.
const MAX_SAMPLES: u32 = 20_000_000;

/// An MP4 file whose index has been read.
#[derive(Debug)]
pub struct Mp4<R> {
    reader: R,
    tracks: Vec<Mp4Track>,
    ignored: Vec<IgnoredTrack>,
    index: Vec<MovieTrack>,
    movie_timescale: NonZeroU32,
}

/// A track that is read: at most one video and one audio track of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Mp4Track {
    /// `track_ID`.
    pub id: u32,
    /// Codec and configuration.
    pub track: Track,
    /// Ticks per second of the track's media.
    pub timescale: NonZeroU32,
    /// Samples in the file, edited out ones included.
    pub sample_count: u32,
}

/// A track that is left aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredTrack {
    /// `track_ID`.
    pub id: u32,
    /// Why.
    pub reason: IgnoredReason,
}

/// Why a track of a file is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IgnoredReason {
    /// Subtitles, metadata, hints, ...
    #[error("handler {0} is neither video nor audio")]
    Handler(FourCC),
    /// Its `tkhd` says so.
    #[error("the track is not enabled")]
    Disabled,
    /// One of each kind is read: the first.
    #[error("another {} track comes first", .0.as_str())]
    Second(Kind),
    /// A sample entry that is not carried.
    #[error("codec {0} is not carried")]
    Codec(FourCC),
    /// An `mp4a` whose `esds` names another codec than AAC.
    #[error("MPEG-4 object type {0:#04x} is not carried")]
    ObjectType(u8),
    /// The samples do not all have the same configuration.
    #[error("its samples use more than one sample description")]
    SeveralDescriptions,
    /// It has no samples.
    #[error("the track is empty")]
    Empty,
}

impl<R: Read + Seek> Mp4<R> {
    /// Reads the index: `moov`, wherever it is, and the `moof` of every fragment. Media is not read.
    ///
    /// # Errors
    ///
    /// The box and the byte offset at which the file is not an MP4 file that can be read.
    pub fn open(mut reader: R) -> Result<Self, Mp4Error> {
        let mut boxes = FileBoxes::new(&mut reader)?;
        // A sample that is sent has a byte at least: small files can't announce many.
        let max_samples = u32::try_from(boxes.end()).unwrap_or(u32::MAX).min(MAX_SAMPLES);
        let mut movie: Option<Movie> = None;
        while let Some(found) = boxes.next_box()? {
            match (&found.kind.into(), &mut movie) {
                (b"moov", None) => movie = Some(Movie::parse(&boxes.load(&found, MAX_MOOV)?, max_samples)?),
                (b"moof", Some(movie)) => fragments::append(movie, &boxes.load(&found, MAX_MOOF)?)?,
                (b"moof", None) => return Err(found.error(Mp4Fault::Missing(FourCC::new(b"moov")))),
                _ => {}
            }
        }
        let end = boxes.end();
        let fault = |fault| Mp4Error { name: FourCC::new(b"moov"), offset: end, source: fault };
        let Some(mut movie) = movie else { return Err(fault(Mp4Fault::NoIndex)) };
        movie.finish();
        if movie.tracks.is_empty() {
            return Err(fault(Mp4Fault::NoTrack));
        }
        let tracks = movie.tracks.iter().map(MovieTrack::describe).collect();
        let Movie { timescale: movie_timescale, tracks: index, ignored, .. } = movie;
        Ok(Self { reader, tracks, ignored, index, movie_timescale })
    }

    /// The tracks that are read: video before audio.
    pub fn tracks(&self) -> &[Mp4Track] {
        &self.tracks
    }

    /// The tracks that are not.
    pub fn ignored(&self) -> &[IgnoredTrack] {
        &self.ignored
    }
}

#[cfg(test)]
mod tests;
