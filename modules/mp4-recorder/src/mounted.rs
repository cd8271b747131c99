//! Folders on disks of their own: one that is not mounted is no empty one.
//!
//! A folder on another disk than the spool gets a marker when it is used first: an empty folder, which no list of files
//! shows. Where the marker is missing later, files wait: the system's own disk would fill up, and what lies on the other
//! one would look deleted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::folder;

/// In the folder.
const MARKER: &str = ".recordings";
/// In the spool.
const KNOWN: &str = "folders";

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The marker is gone.
    #[error(
        "{root} has lost its marker: is its disk mounted? To start over there, create the folder \
         {root}/{MARKER}",
        root = .0.display()
    )]
    NotMounted(PathBuf),
    /// The folder can't be used.
    #[error("{}: {source}{}", path.display(), folder::remedy(path, source))]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// Where a folder was when it was last used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    device: u64,
    /// Numbers of devices hold as long as the machine runs.
    boot: String,
}

type Known = BTreeMap<PathBuf, Seen>;

/// Whether what was stored in `root` can be looked for there.
pub fn is_there(spool: &Path, root: &Path) -> bool {
    root.join(MARKER).exists() || known(spool).get(root).is_none_or(|seen| is_same_disk(root, seen))
}

/// Makes `root` ready to be used. Blocking.
///
/// # Errors
/// See [`MountError`].
pub fn check(spool: &Path, root: &Path) -> Result<(), MountError> {
    let failed = |source| MountError::Unusable { path: root.to_owned(), source };
    if !is_there(spool, root) {
        return Err(MountError::NotMounted(root.to_owned()));
    }
    std::fs::create_dir_all(root).map_err(failed)?;
    let device = std::fs::metadata(root).map_err(failed)?.dev();
    if std::fs::metadata(spool).map_err(failed)?.dev() == device {
        return Ok(());
    }
    std::fs::create_dir_all(root.join(MARKER)).map_err(failed)?;
    let seen = Seen { device, boot: clock::boot_id() };
    let mut known = known(spool);
    if known.get(root) != Some(&seen) {
        known.insert(root.to_owned(), seen);
        let (path, new) = (spool.join(KNOWN), spool.join(KNOWN).with_extension("new"));
        let failed = |source| MountError::Unusable { path: path.clone(), source };
        write(&new, &serde_json::to_vec(&known).unwrap_or_default()).map_err(failed)?;
        std::fs::rename(&new, &path).map_err(failed)?;
    }
    Ok(())
}

fn known(spool: &Path) -> Known {
    let text = std::fs::read(spool.join(KNOWN)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Somebody emptied the folder, or removed it.
fn is_same_disk(root: &Path, seen: &Seen) -> bool {
    let there = root.ancestors().find_map(|dir| std::fs::metadata(dir).ok());
    there.is_some_and(|there| there.dev() == seen.device) && seen.boot == clock::boot_id()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forget_the_disk(spool: &Path) {
        let mut all = known(spool);
        all.values_mut().for_each(|seen| seen.device += 1);
        write(&spool.join(KNOWN), &serde_json::to_vec(&all).unwrap()).unwrap();
    }

    #[test]
    fn a_folder_on_the_disk_of_the_spool_needs_no_marker_and_may_go_at_any_time() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, root) = (dir.path().join("spool"), dir.path().join("rec"));
        std::fs::create_dir(&spool).unwrap();
        check(&spool, &root).unwrap();
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
        std::fs::remove_dir(&root).unwrap();
        assert!(is_there(&spool, &root));
        check(&spool, &root).unwrap();
    }

    #[test]
    fn a_folder_on_another_disk_is_used_only_while_that_disk_is_there() {
        let (spool, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let (spool, root) = (spool.path(), other.path().join("rec"));
        check(spool, &root).unwrap();
        assert!(root.join(MARKER).exists());
        // Emptied by somebody.
        std::fs::remove_dir(root.join(MARKER)).unwrap();
        check(spool, &root).unwrap();
        assert!(root.join(MARKER).exists());
        // Another disk shows up at that place.
        std::fs::remove_dir(root.join(MARKER)).unwrap();
        forget_the_disk(spool);
        assert!(!is_there(spool, &root));
        let error = check(spool, &root).unwrap_err().to_string();
        assert!(error.contains("is its disk mounted?") && error.contains(".recordings"), "{error}");
        std::fs::remove_dir(&root).unwrap();
        assert!(matches!(check(spool, &root), Err(MountError::NotMounted(_))));
        assert!(!root.exists());
        // As the sentence says.
        std::fs::create_dir_all(root.join(MARKER)).unwrap();
        check(spool, &root).unwrap();
    }
}
