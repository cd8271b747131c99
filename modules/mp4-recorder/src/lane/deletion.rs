//! Deleting what was stored, and what was staged.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Lane, LaneError};
use crate::azure::Gone;
use crate::folder;
use crate::mounted::{self, MountError};
use crate::recorder::Recorder;
use crate::spool::Record;
use crate::store::Target;
use crate::stored::Line;

/// After a store refused to delete something it is not asked again for so long.
const AFTER_REFUSAL: Duration = Duration::from_secs(86_400);

impl Lane {
    /// Whether the store refused to delete something within the last day.
    pub fn refused_lately(&self) -> bool {
        self.inner().refused.is_some_and(|at| at.elapsed() < AFTER_REFUSAL)
    }

    /// Files that are too old and still there, as far as is known.
    pub fn overdue(&self) -> u64 {
        self.inner().overdue
    }

    /// Notes how many those are.
    pub fn set_overdue(&self, files: u64) {
        self.inner().overdue = files;
    }

    /// Notes how the store took it when it was asked to delete what is too old.
    pub fn refused(&self, refused: bool) {
        self.inner().refused = refused.then(Instant::now);
    }

    /// Deletes a file that this output stored.
    ///
    /// # Errors
    /// It may be there still.
    pub async fn delete(&self, recorder: &Recorder, line: &Line) -> Result<Gone, LaneError> {
        match Target::of_shown(&line.target).ok_or(LaneError::NoTarget)? {
            Target::Folder(folder) => {
                let root = recorder.resolve(&folder);
                let path = root.join(&line.name);
                let spool = recorder.spool().ok_or(LaneError::Ended)?;
                let looking = root.clone();
                let is_there = tokio::task::spawn_blocking(move || mounted::is_there(spool.dir(), &looking));
                if !is_there.await.map_err(|_| LaneError::Ended)? {
                    return Err(MountError::NotMounted(root).into());
                }
                let gone = from_folder(&path, line.bytes).await?;
                remove_empty_folders(&root, &path).await;
                Ok(gone)
            }
            Target::Blobs(container) => {
                let config = recorder.opens(self, &container).ok_or(LaneError::OtherStore)?;
                let store = self.open(recorder, &container, &config).await?;
                Ok(store.delete(&line.name, line.bytes).await?)
            }
        }
    }

    /// Makes the store forget what it has of a recording that is not whole there, and is not being written any more.
    pub async fn discard(&self, recorder: &Recorder, record: &Record) {
        let Some(name) = &record.name else { return };
        if let Some(Target::Folder(folder)) = Target::of_shown(&record.target) {
            let (root, name, part) = (recorder.resolve(&folder), name.clone(), record.part());
            let alone = self.staging(record.id).lock_owned().await;
            let work = tokio::task::spawn_blocking(move || {
                let _alone = alone;
                folder::discard(&root, &name, &part)
            });
            if let Ok(Err(error)) = work.await {
                tracing::warn!("what was sent of a recording while it was written stays: {error}");
            }
            return;
        }
        let (Some(_), Some(Target::Blobs(container))) = (&record.upload, Target::of_shown(&record.target))
        else {
            return;
        };
        let Some(config) = recorder.opens(self, &container) else { return };
        // A block that is on its way would arrive behind the deletion, and wait there. None follows it: the recording
        // is not open any more.
        let staging = self.staging(record.id);
        let _alone = staging.lock().await;
        let discarded = match self.open(recorder, &container, &config).await {
            Ok(store) => store.discard(name).await.map_err(LaneError::from),
            Err(error) => Err(error),
        };
        let why = match discarded {
            Ok(true) => return,
            Ok(false) => "the credentials lack delete permission (d)".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(
            "uncommitted blocks of {name}, which is not stored there any more, stay in the store for a week: {why}"
        );
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

/// Folders of days that nothing is in any more, up to `root`. One that gets a file just now is made again for it.
async fn remove_empty_folders(root: &Path, file: &Path) {
    for folder in file.ancestors().skip(1).take_while(|folder| *folder != root && folder.starts_with(root)) {
        if tokio::fs::remove_dir(folder).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn folders_go_with_their_last_file_and_the_store_stays() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("rec");
        std::fs::create_dir_all(root.join("cam/2026/01")).unwrap();
        std::fs::create_dir_all(root.join("cam/2025")).unwrap();
        remove_empty_folders(&root, &root.join("cam/2026/01/a.mp4")).await;
        assert!(!root.join("cam/2026").exists() && root.join("cam/2025").exists());
        std::fs::remove_dir(root.join("cam/2025")).unwrap();
        remove_empty_folders(&root, &root.join("cam/a.mp4")).await;
        assert!(root.exists() && !root.join("cam").exists());
    }

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
