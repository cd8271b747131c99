//! Deleting what was stored, and what was staged.

use std::io;
use std::path::Path;

use super::{Lane, LaneError};
use crate::azure::Gone;
use crate::recorder::Recorder;
use crate::spool::Record;
use crate::store::Target;
use crate::stored::Line;

impl Lane {
    /// Deletes a file that this output stored.
    ///
    /// # Errors
    /// It may be there still.
    pub async fn delete(&self, recorder: &Recorder, line: &Line) -> Result<Gone, LaneError> {
        match Target::of_shown(&line.target).ok_or(LaneError::NoTarget)? {
            Target::Folder(folder) => {
                let path = recorder.resolve(&folder).join(&line.name);
                Ok(from_folder(&path, line.bytes).await?)
            }
            Target::Blobs(container) => {
                let config = self.configured().ok_or(LaneError::NoCredentials)?.config;
                if config.target != Target::Blobs(container.clone()) {
                    return Err(LaneError::OtherStore);
                }
                let store = self.open(recorder, &container, &config).await?;
                Ok(store.delete(&line.name, line.bytes).await?)
            }
        }
    }

    /// Makes the store forget what it has of a recording that is not whole there, and is not being written any more.
    pub async fn discard(&self, recorder: &Recorder, record: &Record) {
        let (Some(_), Some(name), Some(now)) = (&record.upload, &record.name, self.configured()) else {
            return;
        };
        let Target::Blobs(container) = &now.config.target else { return };
        // A block that is on its way would arrive behind the deletion, and wait there. None follows it: the recording
        // is not open any more.
        let _alone = self.staging.lock().await;
        let discarded = match self.open(recorder, container, &now.config).await {
            Ok(store) => store.discard(name).await.map_err(LaneError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = discarded {
            tracing::warn!("blocks of {name}, which was deleted, wait in the store for a week: {error}");
        }
    }
}

/// Deletes a file of so many bytes; one of another length is not the one that was stored.
async fn from_folder(path: &Path, bytes: u64) -> io::Result<Gone> {
    let deleted = match tokio::fs::metadata(path).await {
        Ok(seen) if seen.len() != bytes => return Ok(Gone::Unknown),
        Ok(_) => tokio::fs::remove_file(path).await,
        Err(error) => Err(error),
    };
    match deleted {
        Ok(()) => Ok(Gone::Permanent),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Gone::Unknown),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_somebody_put_in_the_place_of_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mp4");
        std::fs::write(&path, "somebody's").unwrap();
        assert_eq!(from_folder(&path, 4).await.unwrap(), Gone::Unknown);
        assert!(path.exists());
        assert_eq!(from_folder(&path, 10).await.unwrap(), Gone::Permanent);
        assert!(!path.exists());
        assert_eq!(from_folder(&path, 10).await.unwrap(), Gone::Unknown);
    }
}
