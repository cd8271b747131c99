//! What is wrong with a file, and where.

use std::io;

use mp4_atom::FourCC;

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

/// What is wrong with a box.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Mp4Fault {
    /// The file can't be read.
    #[error("reading failed")]
    Io(#[from] io::Error),
    /// The first bytes are no box that an MP4 file starts with.
    #[error("this is not an MP4 file")]
    NotMp4,
    /// The end was reached without one.
    #[error("the file has no index: it is not finished, or not an MP4 file")]
    NoIndex,
    /// Nothing in it can be carried.
    #[error("no track of the file can be carried")]
    NoTrack,
    /// The box's content does not follow its format.
    #[error("the box is malformed")]
    Malformed(#[from] mp4_atom::Error),
    /// A codec configuration does not follow its format.
    #[error("the codec configuration is malformed")]
    Config(#[from] MediaError),
    /// A box smaller than its own header.
    #[error("its size is {0}, less than its header")]
    Size(u64),
    /// A box that ends behind its parent or the file.
    #[error("it takes {need} bytes, {have} are left")]
    Truncated {
        /// By its header.
        need: u64,
        /// In the parent or the file.
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
    /// A box that must be there.
    #[error("it has no {0} box")]
    Missing(FourCC),
    /// A field with an impossible value.
    #[error("{field} is {value}")]
    Value {
        /// The field, by the specification's name.
        field: &'static str,
        /// What it says.
        value: u64,
    },
    /// Tables that contradict each other.
    #[error("it covers {have} of {need} samples")]
    Uncovered {
        /// Samples it has something to say about.
        have: u64,
        /// Samples of the track.
        need: u64,
    },
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
    /// Edit lists and durations leave nothing to be played.
    #[error("nothing is presented for a millisecond or longer")]
    NothingPresented,
}
