//! The last good version of every flow, in the state dir.

use av_edge::StateDir;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use super::flow::Flow;
use crate::config::{Desired, Supports, parse};

const FILE: &str = "flows.json";
/// 10,000 flows of a few kilobytes each.
const MAX_BYTES: u64 = 64 << 20;

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

/// Writes it; a state dir that can't be written is said, and everything else goes on.
pub(super) async fn remember(state: StateDir, content: Vec<u8>) {
    let dir = state.path().to_path_buf();
    let written = tokio::task::spawn_blocking(move || state.write(FILE, &content)).await;
    if let Ok(Err(error)) = written {
        let dir = dir.display();
        tracing::warn!(
            %dir,
            "the configuration can't be kept for a start without its source: {error}; is the directory writable for \
             this user (chown 10001 {dir})?"
        );
    }
}
