//! The last good version of every flow, in the state dir.

use av_edge::StateDir;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

use super::flow::Flow;
use crate::config::{Desired, Supports, parse};

const FILE: &str = "flows.json";
/// 10,000 flows of a few kilobytes each.
const MAX_BYTES: u64 = 64 << 20;
/// A document's outcome waits that long at most until it is written.
const PATIENCE: Duration = Duration::from_millis(250);

/// Desired versions that flows are from, by name. A key like this is ignored in documents.
const VERSIONS: &str = "$versions";

/// What the state dir remembers, with the desired versions that flows are from; `None` when there is nothing,
/// or nothing that can be read.
pub(super) fn recall(state: &StateDir, supports: &Supports) -> Option<(Desired, BTreeMap<String, i64>)> {
    let content = match state.read(FILE, MAX_BYTES) {
        Ok(content) => content?,
        Err(error) => {
            tracing::warn!(dir = %state.path().display(), "the last good configuration can't be read: {error}");
            return None;
        }
    };
    match serde_json::from_slice::<Map<String, Value>>(&content) {
        Ok(document) => {
            let versions = document.get(VERSIONS).and_then(Value::as_object).into_iter().flatten();
            let versions = versions.filter_map(|(name, version)| Some((name.clone(), version.as_i64()?)));
            Some((parse(&document, supports), versions.collect()))
        }
        Err(error) => {
            tracing::warn!(dir = %state.path().display(), "the last good configuration is damaged: {error}");
            None
        }
    }
}

/// Borrowed: 1,000 flows need not be copied to be written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Remembered<'a> {
    schema_version: &'static str,
    max_connections: usize,
    cache_megabytes: u64,
    /// Null is the same as absent.
    public_host: Option<&'a str>,
    flows: BTreeMap<&'a str, &'a Map<String, Value>>,
    /// The service's own.
    #[serde(flatten)]
    properties: &'a Map<String, Value>,
    /// [`VERSIONS`] and nothing else.
    #[serde(flatten)]
    versions: BTreeMap<&'static str, BTreeMap<&'a str, i64>>,
}

/// The content of the file: a document like any other, so that it is checked like any other when it is read.
pub(super) fn document(
    flows: &BTreeMap<String, Flow>,
    public_host: Option<&str>,
    max_connections: usize,
    cache_megabytes: u64,
    properties: &Map<String, Value>,
) -> Vec<u8> {
    let versions =
        flows.iter().filter_map(|(name, flow)| Some((name.as_str(), flow.good_version?))).collect();
    let remembered = Remembered {
        schema_version: "1.0",
        max_connections,
        cache_megabytes,
        public_host,
        flows: flows.iter().map(|(name, flow)| (name.as_str(), &flow.config.source)).collect(),
        properties,
        versions: BTreeMap::from([(VERSIONS, versions)]),
    };
    serde_json::to_vec(&remembered).unwrap_or_default()
}

/// What is to be written, by one writer at a time.
#[derive(Default)]
pub(super) struct Memory {
    /// Newer than what is written.
    next: Arc<Mutex<Option<Vec<u8>>>>,
    writing: Arc<tokio::sync::Mutex<()>>,
    /// The last one that nobody waited for.
    late: Mutex<Option<JoinHandle<()>>>,
    /// Whether the state dir has, or was to have, a good configuration.
    any: AtomicBool,
}

impl Memory {
    /// There is one from an earlier run.
    pub(super) fn found(&self) {
        self.any.store(true, Ordering::Relaxed);
    }

    /// Whether there was ever a good configuration.
    pub(super) fn has_any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Writes it; a state dir that can't be written is said, and everything else goes on. A disk that takes long is not
    /// waited for: it writes the newest when it can.
    pub(super) async fn remember(&self, state: StateDir, content: Vec<u8>) {
        self.found();
        *lock(&self.next) = Some(content);
        let (next, writing) = (self.next.clone(), self.writing.clone());
        let mut written = tokio::spawn(async move {
            let _alone = writing.lock_owned().await;
            // Who waited before this one may have written it.
            let Some(content) = lock(&next).take() else { return };
            write(state, content).await;
        });
        if tokio::time::timeout(PATIENCE, &mut written).await.is_err() {
            *lock(&self.late) = Some(written);
        }
    }

    /// Waits for what is being written.
    pub(super) async fn written(&self) {
        let late = lock(&self.late).take();
        if let Some(late) = late {
            let _ = late.await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write(state: StateDir, content: Vec<u8>) {
    let dir = state.path().to_path_buf();
    let written = tokio::task::spawn_blocking(move || state.write(FILE, &content)).await;
    if let Ok(Err(error)) = written {
        let dir = dir.display();
        tracing::warn!(
            %dir,
            "the last good configuration can't be saved: {error}; is the directory writable for this user (chown 10001 \
             {dir})?"
        );
    }
}
