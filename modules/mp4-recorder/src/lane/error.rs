//! Why a file did not get to its store.

use av_flow::Reason;

use super::MOST_NUMBER;
use crate::azure::BlobError;
use crate::folder;
use crate::mounted::MountError;
use crate::spool::{Spool, SpoolError};

/// Why a file did not get to its store.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    #[error("{0}")]
    Folder(#[from] folder::FolderError),
    #[error("{0}")]
    Mount(#[from] MountError),
    #[error("{0}")]
    Blob(#[from] BlobError),
    #[error("credentials: {0}")]
    Secret(String),
    #[error("the output is no longer configured, so there are no credentials for its store")]
    NoCredentials,
    #[error("the spool: {0}")]
    Spool(#[from] std::io::Error),
    #[error("{0}")]
    Disk(SpoolError),
    #[error("the clock is not set, so files have no name yet; they wait in the spool")]
    Clock,
    #[error("the output is no longer configured, and the record that names the recording's store is lost")]
    NoTarget,
    #[error("all names like {0} are taken, up to number {MOST_NUMBER}")]
    Names(String),
    #[error("{0} is gone: neither the spool nor the store has it")]
    Gone(String),
    #[error("its store is no longer configured")]
    OtherStore,
    #[error("the work on a file ended early")]
    Ended,
}

impl LaneError {
    /// Whether the store could not be asked at all, and would not be for another file either. A store that is no
    /// longer configured is that of one file: the next may lie in the present one.
    pub fn is_out_of_reach(&self) -> bool {
        let is_of_one_file = matches!(self, Self::Folder(_) | Self::Spool(_) | Self::OtherStore);
        match self {
            // The permission is missing for all of them; anything else is about one, a lease or a legal hold.
            Self::Blob(BlobError::Refused { status, .. }) => *status == 403,
            _ => !is_of_one_file,
        }
    }

    /// Whether the store was asked and said no.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Blob(BlobError::Refused { .. }))
    }

    /// The same; where the spool's disk has become read-only, what to do about that.
    pub(super) fn explained(self, spool: &Spool) -> Self {
        let error = match &self {
            Self::Spool(error) | Self::Blob(BlobError::Spool(error)) => Some(error),
            Self::Mount(MountError::Unusable { path, source }) if path.starts_with(spool.dir()) => {
                Some(source)
            }
            _ => None,
        };
        if error.is_some_and(|error| error.kind() == std::io::ErrorKind::ReadOnlyFilesystem) {
            Self::Disk(spool.read_only())
        } else {
            self
        }
    }

    /// Whether it is about this one file, so that others need not wait behind it.
    pub(super) fn is_of_the_file(&self) -> bool {
        match self {
            Self::Folder(error) => error.is_of_the_file(),
            Self::Spool(_) | Self::Names(_) | Self::NoTarget | Self::Blob(BlobError::Spool(_)) => true,
            Self::Blob(BlobError::Refused { status, .. }) => *status == 400,
            _ => false,
        }
    }

    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Folder(_) | Self::Mount(_) | Self::Spool(_) | Self::Disk(_) | Self::Names(_) => {
                Reason::File
            }
            Self::Blob(error) => error.reason(),
            Self::Secret(_) | Self::NoCredentials => Reason::Secret,
            Self::Clock | Self::NoTarget | Self::OtherStore | Self::Gone(_) | Self::Ended => Reason::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_store_that_is_no_longer_configured_says_nothing_of_the_next_file() {
        assert!(!LaneError::OtherStore.is_out_of_reach());
        assert!(LaneError::NoCredentials.is_out_of_reach());
    }
}
