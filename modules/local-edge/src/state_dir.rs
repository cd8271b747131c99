//! Where everything lies that outlives a run of `local-edge`.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// A unix socket's path must fit into `sockaddr_un` (108 bytes with its final zero on Linux).
const MAX_SOCKET_PATH: usize = 107;
/// A module's name as a file's.
const FILE_NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// The state dir: only its owner may look inside.
#[derive(Clone, Debug)]
pub struct StateDir {
    folder: PathBuf,
}

/// Held while an instance runs.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] File);

/// Why the state dir can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Making or writing it failed.
    #[error("{path}: {source}; choose another place with --state-dir")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its lock is held.
    #[error("local-edge already runs with the state dir {0}; stop it, or choose another with --state-dir")]
    InUse(PathBuf),
    /// Neither the option nor a home directory is there.
    #[error("HOME is not set: choose a state dir with --state-dir")]
    NoHome,
    /// A socket's path has a limit.
    #[error(
        "{path}: {bytes} bytes are too many for a unix socket (at most {MAX_SOCKET_PATH}); choose a shorter --state-dir"
    )]
    SocketPath {
        /// The socket.
        path: PathBuf,
        /// The length of its path.
        bytes: usize,
    },
}

impl StateDir {
    /// `--state-dir`, or `~/.local/state/local-edge`. Nothing is made yet.
    pub fn locate(option: Option<PathBuf>) -> Result<Self, StateDirError> {
        let folder = match option {
            Some(folder) => folder,
            None => {
                let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
                PathBuf::from(home.ok_or(StateDirError::NoHome)?).join(".local/state/local-edge")
            }
        };
        Ok(Self { folder: std::path::absolute(&folder).unwrap_or(folder) })
    }

    /// Makes the folders and takes the lock.
    pub fn open(&self) -> Result<Lock, StateDirError> {
        for folder in ["", "certificates", "twins", "workload", "logs", "modules", "volumes"] {
            self.make(&self.folder.join(folder))?;
        }
        let path = self.folder.join("lock");
        let io = |source| StateDirError::Io { path: path.clone(), source };
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => Err(StateDirError::InUse(self.folder.clone())),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }

    fn make(&self, folder: &Path) -> Result<(), StateDirError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| StateDirError::Io { path: folder.to_path_buf(), source })
    }

    /// Root certificate and key.
    pub fn certificates(&self) -> PathBuf {
        self.folder.join("certificates")
    }

    /// Identities and twins, one file a module.
    pub fn twins(&self) -> PathBuf {
        self.folder.join("twins")
    }

    /// A module's log file.
    pub fn log(&self, module: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{}.log", file_name(module)))
    }

    /// A module's own `AV_STATE_DIR`, made.
    pub fn module(&self, module: &str) -> Result<PathBuf, StateDirError> {
        let folder = self.folder.join("modules").join(file_name(module));
        self.make(&folder).map(|()| folder)
    }

    /// A named volume, made.
    pub fn volume(&self, name: &str) -> Result<PathBuf, StateDirError> {
        let folder = self.folder.join("volumes").join(file_name(name));
        self.make(&folder).map(|()| folder)
    }

    /// Where a running instance is found.
    pub fn control_socket(&self) -> Result<PathBuf, StateDirError> {
        socket_path(self.folder.join("control.sock"))
    }

    /// A module's workload API.
    pub fn workload_socket(&self, module: &str) -> Result<PathBuf, StateDirError> {
        socket_path(self.folder.join("workload").join(format!("{}.sock", file_name(module))))
    }
}

/// A module's name as a file name: nothing in it means a folder.
pub fn file_name(module: &str) -> String {
    let name = utf8_percent_encode(module, FILE_NAME).to_string();
    if name.chars().all(|c| c == '.') { name.replace('.', "%2E") } else { name }
}

fn socket_path(path: PathBuf) -> Result<PathBuf, StateDirError> {
    let bytes = path.as_os_str().len();
    if bytes > MAX_SOCKET_PATH { Err(StateDirError::SocketPath { path, bytes }) } else { Ok(path) }
}

/// Binds a unix socket where an earlier run may have left one. The caller holds the lock.
pub fn bind_socket(path: &Path) -> io::Result<tokio::net::UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    tokio::net::UnixListener::bind(path)
}

/// Replaces a file that only its owner may read; the old one stays whole until then.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
    file.write_all(content)?;
    file.sync_data()?;
    std::fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_with_the_same_state_dir_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::locate(Some(folder.path().join("state"))).unwrap();
        let lock = state.open().unwrap();
        assert!(matches!(state.open(), Err(StateDirError::InUse(_))));
        drop(lock);
        assert!(state.open().is_ok());
    }

    #[test]
    fn a_path_that_no_socket_can_have_says_what_to_do() {
        let state = StateDir::locate(Some(PathBuf::from("/tmp").join("x".repeat(100)))).unwrap();
        let error = state.control_socket().unwrap_err().to_string();
        assert!(error.contains("choose a shorter --state-dir"), "{error}");
    }

    #[test]
    fn a_module_name_never_leaves_its_folder() {
        assert_eq!(file_name("rtmp-splitter"), "rtmp-splitter");
        assert_eq!(file_name("a/../b"), "a%2F..%2Fb");
        assert_eq!(file_name(".."), "%2E%2E");
    }
}
