//! What is wrong with a file or a track, and where.

use std::fmt;
use std::io;

use mp4_atom::FourCC;

use super::ignored::IgnoredTrack;
use crate::{Kind, MediaError};

/// The box that can't be read and where it starts.
#[derive(Debug, thiserror::Error)]
#[error("box {name} at byte {offset}")]
pub struct Mp4Error {
    /// The box's type.
    pub name: FourCC,
    /// Of the box in the file; of the sample, where a sample can't be read.
    pub offset: u64,
    /// What is wrong.
    pub source: Mp4Fault,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Mp4Fault {
    /// The file can't be read.
    #[error("reading failed")]
    Io(#[from] io::Error),
    /// The first bytes are no box that an MP4 file starts with.
    #[error("this is not an MP4 file")]
    NotMp4,
    /// An image of the same family, by its brand.
    #[error("this is a still picture ({0}), not a video")]
    Image(FourCC),
    /// The end was reached without one.
    #[error("the file has no index: it is not finished, or not an MP4 file")]
    NoIndex,
    /// The index ends with the file, and what there is of it describes nothing.
    #[error("the file ends inside its index: it takes {need} bytes, {have} are left{}", list(.ignored))]
    IndexCut {
        /// By its header.
        need: u64,
        /// In the file.
        have: u64,
        /// The tracks that were found.
        ignored: Vec<IgnoredTrack>,
    },
    /// Nothing in it can be carried.
    #[error("no track of the file can be carried{}", list(.0))]
    NoTrack(Vec<IgnoredTrack>),
    /// More than this reader takes.
    #[error("{what}: {value}, at most {most} are read")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        value: u64,
        /// How many are read.
        most: u64,
    },
    /// The samples and fragments that it describes take too much memory.
    #[error("the file's index takes more than {most} bytes of memory")]
    IndexTooLarge {
        /// How many it may take.
        most: u64,
    },
    /// A box that must be there.
    #[error("it has no {0} box")]
    Missing(FourCC),
    /// The file ends before this sample does.
    #[error("{} sample {sample} of {size} bytes: the file ends after {have} of them", .kind.as_str())]
    SampleTruncated {
        /// Of which track.
        kind: Kind,
        /// Counted from 1.
        sample: u32,
        /// Its size.
        size: u32,
        /// Bytes of it in the file.
        have: usize,
    },
}

/// What is wrong with a box that a track cannot do without.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BoxFault {
    /// A codec configuration does not follow its format.
    #[error("{0}")]
    Config(#[from] MediaError),
    /// It ends inside its fields.
    #[error("it takes {need} bytes, {have} are left")]
    Truncated {
        /// Bytes of its fields.
        need: u64,
        /// Bytes of the box.
        have: u64,
    },
    /// More than this reader takes.
    #[error("{what}: {value}, at most {most} are read")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        value: u64,
        /// How many are read.
        most: u64,
    },
    /// The samples that it describes take too much memory.
    #[error(
        "{samples} of its {of} samples take more than the {most} bytes of memory that are left for the index"
    )]
    IndexTooLarge {
        /// How many were read.
        samples: u32,
        /// How many there are.
        of: u32,
        /// Bytes that they may take.
        most: u64,
    },
    /// A box that must be there.
    #[error("it has no {0} box")]
    Missing(FourCC),
    /// Chunks that hold no samples, by their tables.
    #[error("none of its {0} samples is in a chunk")]
    Unplaced(u64),
    /// A field with an impossible value.
    #[error("{field} is {value}")]
    Value {
        /// The field, by the specification's name.
        field: &'static str,
        /// What it says.
        value: u64,
    },
}

/// Each track with its codec and the reason, behind a colon.
fn list(ignored: &[IgnoredTrack]) -> impl fmt::Display {
    /// Named at most: a file may have thousands.
    const MOST: usize = 8;
    fmt::from_fn(move |f| {
        for (number, track) in ignored.iter().take(MOST).enumerate() {
            write!(f, "{}{track}", if number == 0 { ": " } else { "; " })?;
        }
        match ignored.len().checked_sub(MOST) {
            Some(more) if more > 0 => write!(f, "; and {more} more"),
            _ => Ok(()),
        }
    })
}
