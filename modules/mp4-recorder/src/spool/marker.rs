//! The marker file: the disk that should be there is there, and one module alone uses it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rand::Rng;
use rustix::fs::{FlockOperation, flock};

use super::Full;

const MARKER: &str = "spool.marker";
/// Beside the spool folder: that there has been one.
const KNOWN: &str = "spool.id";

/// Whether a spool has been in this folder.
pub fn has_marker(dir: &Path) -> bool {
    dir.join(MARKER).exists()
}

/// Why the spool can't be used. Every sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The folder can't be written.
    #[error(
        "{0}: {source}; the module runs as user {1}, which must own the folder (`chown -R {1} {0}`)",
        dir.display(), rustix::process::getuid().as_raw()
    )]
    Denied {
        /// The folder.
        dir: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The folder can't be used.
    #[error("spool folder {}: {source}", dir.display())]
    Unusable {
        /// The folder.
        dir: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The disk is read-only.
    #[error(
        "the disk of spool folder {} is read-only: the kernel makes it so when it finds an error (`dmesg` says which). \
         Check it (`fsck`), and mount it again", .0.display()
    )]
    ReadOnly(PathBuf),
    /// The marker file is gone.
    #[error(
        "spool folder {} has lost its marker file: is its disk mounted? To begin a new spool there, delete {}",
        dir.display(), known.display()
    )]
    NotMounted {
        /// The folder.
        dir: PathBuf,
        /// What tells that there was one.
        known: PathBuf,
    },
    /// Another module has it.
    #[error("spool folder {} is in use by another recorder; give each its own state dir", .0.display())]
    InUse(PathBuf),
    /// There is no room.
    #[error("{0}")]
    Full(Full),
}

impl From<io::Error> for SpoolError {
    fn from(source: io::Error) -> Self {
        Self::Unusable { dir: PathBuf::from("spool"), source }
    }
}

/// A claimed spool folder.
#[derive(Debug)]
pub struct Marker {
    /// Holds the lock; `None`: the disk is to be unmounted.
    file: Mutex<Option<File>>,
    /// What is in it: another disk's has other digits.
    id: String,
    known: PathBuf,
}

impl Marker {
    /// Claims `dir`, which lies in `state`.
    pub fn claim(state: &Path, dir: &Path) -> Result<Self, SpoolError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => SpoolError::Denied { dir: state.to_owned(), source },
            io::ErrorKind::ReadOnlyFilesystem => SpoolError::ReadOnly(dir.to_owned()),
            _ => SpoolError::Unusable { dir: dir.to_owned(), source },
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        // Durable before `spool.id` says that there was a spool.
        File::open(state).and_then(|state| state.sync_all()).map_err(failed)?;
        // The state dir may be new, too. Above it the module may have no rights.
        if let Some(above) = state.parent().and_then(|above| File::open(above).ok()) {
            above.sync_all().map_err(failed)?;
        }
        let (path, known) = (dir.join(MARKER), state.join(KNOWN));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if known.exists() {
                    return Err(SpoolError::NotMounted { dir: dir.to_owned(), known });
                }
                let id: u64 = rand::rng().random();
                write_new(&path, dir, id).map_err(failed)?;
                File::open(&path).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        if !known.exists() {
            write_new(&known, state, 1).map_err(failed)?;
        }
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| SpoolError::InUse(dir.to_owned()))?;
        let id = std::fs::read_to_string(&path).map_err(failed)?;
        Ok(Self { file: Mutex::new(Some(file)), id, known })
    }

    /// Whether the folder is still the one that was claimed.
    pub fn check(&self, dir: &Path) -> Result<(), SpoolError> {
        let gone = || SpoolError::NotMounted { dir: dir.to_owned(), known: self.known.clone() };
        let path = dir.join(MARKER);
        let there = std::fs::metadata(&path).map_err(|_| gone())?;
        let mut mine = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = |mine: std::fs::Metadata| (mine.dev(), mine.ino()) == (there.dev(), there.ino());
        if mine.as_ref().and_then(|mine| mine.metadata().ok()).is_some_and(is_there) {
            return Ok(());
        }
        // A disk that was unplugged and is back has another device number, and the same marker.
        let file = File::open(&path).map_err(|_| gone())?;
        if std::fs::read_to_string(&path).map_err(|_| gone())? != self.id {
            return Err(gone());
        }
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| SpoolError::InUse(dir.to_owned()))?;
        *mine = Some(file);
        Ok(())
    }

    /// Keeps nothing open, so that the disk can be unmounted. The next [`check`](Self::check) takes the folder again.
    pub fn let_go(&self) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn write_new(path: &Path, dir: &Path, id: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(format!("{id:016x}\n").as_bytes())?;
    file.sync_all()?;
    File::open(dir)?.sync_all()
}
