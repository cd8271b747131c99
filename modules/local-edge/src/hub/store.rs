//! Identities and twins on disk: one file a module.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::modules::Modules;
use crate::journal::Journal;
use crate::state_dir::{file_name, write_private};
use crate::twin::Twin;

/// A file is read up to this size: a twin is at most twice 32 KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Changes that come within this time are written together.
const GATHER: Duration = Duration::from_millis(200);

/// What proves that a module is itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// `IOTEDGE_MODULEGENERATIONID`.
    pub generation: String,
    /// The HMAC key.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub key: Vec<u8>,
}

impl Identity {
    /// A new one.
    pub(super) fn generate() -> Self {
        let milliseconds = jiff::Timestamp::now().as_millisecond();
        Self { generation: milliseconds.to_string(), key: rand::random::<[u8; 32]>().to_vec() }
    }
}

fn to_base64<S: Serializer>(key: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64.encode(key))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    BASE64.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// A file's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Kept {
    pub module: String,
    pub identity: Identity,
    pub twin: Twin,
}

/// The folder, and whose file is behind.
pub(super) struct Store {
    folder: PathBuf,
    behind: Mutex<BTreeSet<String>>,
    wake: Notify,
}

impl Store {
    /// Reads what is there. A file that can't be read is named and passed over: its module starts anew.
    pub fn open(folder: PathBuf, journal: &Journal) -> (Self, Vec<Kept>) {
        let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(file) => {
                    kept.insert(file.module.clone(), file);
                }
                Err(error) => {
                    journal.say(&format!("{}: {error}; its module starts with an empty twin", path.display()))
                }
            }
        }
        let store = Self { folder, behind: Mutex::default(), wake: Notify::new() };
        (store, kept.into_values().collect())
    }

    /// The module's file has to be written.
    pub fn mark(&self, module: &str) {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner).insert(module.to_owned());
        self.wake.notify_one();
    }

    /// Writes what was marked, until cancelled; then once more.
    pub async fn keep(&self, modules: &Modules, journal: &Journal, stop: CancellationToken) {
        loop {
            let last = tokio::select! {
                () = self.wake.notified() => false,
                () = stop.cancelled() => true,
            };
            if !last {
                tokio::select! { () = tokio::time::sleep(GATHER) => {}, () = stop.cancelled() => {} }
            }
            let marked = std::mem::take(&mut *self.behind.lock().unwrap_or_else(PoisonError::into_inner));
            let files: Vec<(PathBuf, Kept)> = marked
                .into_iter()
                .filter_map(|name| {
                    let path = self.folder.join(format!("{}.json", file_name(&name)));
                    modules.read(&name, |state| (path, state.kept(&name)))
                })
                .collect();
            let written = tokio::task::spawn_blocking(move || {
                files.iter().try_for_each(|(path, kept)| {
                    let text = serde_json::to_vec_pretty(kept).map_err(std::io::Error::other)?;
                    write_private(path, &text)
                })
            });
            if let Ok(Err(error)) = written.await {
                journal.say_once(&format!("twins are not kept: {}: {error}", self.folder.display()));
            }
            if last {
                return;
            }
        }
    }
}

fn read(path: &Path) -> std::io::Result<Kept> {
    use std::io::Read;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
