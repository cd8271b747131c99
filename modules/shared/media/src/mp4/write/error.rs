//! Why something can't be written.

use crate::{Codec, Kind, MediaError};

/// What can't be put into a container, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MuxError {
    /// There is nothing to write.
    #[error("no track to write")]
    NoTrack,
    /// More than one track of a kind.
    #[error("two {} tracks, one can be written", .0.as_str())]
    SecondTrack(Kind),
    /// The container, or this writer, has no place for the codec.
    #[error("{container} does not carry {codec:?} here")]
    Codec {
        /// `MP4` or `MPEG-TS`.
        container: &'static str,
        /// The track's codec.
        codec: Codec,
    },
    /// The track came without the configuration that the container has to begin with.
    #[error("{0:?} without its decoder configuration")]
    NoConfig(Codec),
    /// The track's configuration is damaged.
    #[error("{0}")]
    Config(#[from] MediaError),
    /// A recording's index would outgrow the room that is kept for it: the file has to end here.
    #[error("the index would take more than the {reserve} bytes that are kept for it")]
    IndexFull {
        /// Bytes of the reserve.
        reserve: u64,
    },
    /// Frames of one fragment do not fit a box.
    #[error("a fragment of {0} bytes, at most 2 GiB can be written")]
    TooLarge(u64),
}
