//! Deleting what was stored, and what was staged.

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
                match tokio::fs::remove_file(path).await {
                    Ok(()) => Ok(Gone::Permanent),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Gone::Unknown),
                    Err(error) => Err(error.into()),
                }
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
