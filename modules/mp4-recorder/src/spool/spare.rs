//! Records of recordings that are gone, kept for the next ones: to write over a file asks less of the file system than to
//! delete it and to begin another.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many are kept.
const MOST: usize = 16;
const EXTENSION: &str = "spare";

/// Those that are there now.
#[derive(Debug, Default)]
pub struct Spares(Mutex<Vec<PathBuf>>);

impl Spares {
    fn all(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the record at `path` away, and keeps it where there are few.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn keep(&self, path: &Path) -> io::Result<()> {
        let mut all = self.all();
        if all.len() >= MOST {
            return std::fs::remove_file(path);
        }
        let spare = path.with_extension(EXTENSION);
        std::fs::rename(path, &spare)?;
        all.push(spare);
        Ok(())
    }

    /// Makes one the record at `path`. What is in it is of another recording still. `false`: there is none.
    pub fn take(&self, path: &Path) -> bool {
        let Some(spare) = self.all().pop() else { return false };
        let taken = std::fs::rename(&spare, path);
        if taken.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem) {
            self.all().push(spare);
        }
        taken.is_ok()
    }
}

/// Whether a file was left over by a process that ended.
pub fn is_one(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == EXTENSION)
}
