//! Tracks that are left aside, and why.

use std::fmt;

use mp4_atom::FourCC;

use super::boxes::BadBox;
use super::error::BoxFault;
use crate::Kind;

/// A track that is left aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredTrack {
    /// `track_ID`; 0 where its header can't be read.
    pub id: u32,
    /// Pictures or sound; `None` for anything else, and where its handler can't be read.
    pub kind: Option<Kind>,
    /// The type of its first sample entry, where it has one.
    pub codec: Option<FourCC>,
    /// Why.
    pub reason: IgnoredReason,
}

/// `track 2 (mp4a): it has no esds box (box mp4a at byte 1234)`.
impl fmt::Display for IgnoredTrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "track {}", self.id)?;
        if let Some(codec) = self.codec {
            write!(f, " ({codec})")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Why a track of a file is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IgnoredReason {
    /// Subtitles, metadata, hints, ...
    #[error("handler {0} is neither video nor audio")]
    Handler(FourCC),
    /// Its `tkhd` says so, and another track of its kind is enabled.
    #[error("the track is not enabled")]
    Disabled,
    /// One of each kind is read: the first that has something to play.
    #[error("another {} track is played", .0.as_str())]
    Second(Kind),
    /// A sample entry that is not carried.
    #[error("codec {0} is not carried")]
    Codec(FourCC),
    /// A sample entry of encrypted media (ISO/IEC 23001-7).
    #[error("its media is encrypted")]
    Encrypted,
    /// An `esds` that names a codec that is not carried.
    #[error("MPEG-4 object type {0:#04x} is not carried")]
    ObjectType(u8),
    /// It has no samples.
    #[error("the track is empty")]
    Empty,
    /// Its samples all lie behind the end of the file.
    #[error("its media is not in the file, which ends at byte {0}")]
    NotInFile(u64),
    /// Its samples are all larger than what is read; with the size of the largest.
    #[error("its samples are too large: the largest has {0} bytes")]
    TooLarge(u32),
    /// The edit list leaves nothing to show.
    #[error("its edit list shows nothing of it")]
    EditedAway,
    /// The edit list shows the same again and again, or what needs the same before it.
    #[error("its edit list takes more than {0} samples to show")]
    Repeated(u64),
    /// The samples it has take no time.
    #[error("no part of it is shown for a millisecond or longer")]
    NoTime,
    /// A box that the track cannot do without.
    #[error("{source} (box {name} at byte {offset})")]
    Broken {
        /// The box's type.
        name: FourCC,
        /// Of the box in the file.
        offset: u64,
        /// What is wrong.
        source: BoxFault,
    },
}

impl From<BadBox> for IgnoredReason {
    fn from(BadBox { name, offset, fault }: BadBox) -> Self {
        Self::Broken { name, offset, source: fault }
    }
}
