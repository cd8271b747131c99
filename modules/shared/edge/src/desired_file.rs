//! `--twin FILE`: desired properties from a file, read again when it changes.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::json;
use crate::module::Module;
use crate::service::Outcome;
use crate::twin::desired::without_nulls_and_metadata;

/// 1,000 flows are about 1 MB.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// A look is one wake-up and one `stat`: ten a second were 6 % of what it costs to record a stream.
const POLL: Duration = Duration::from_millis(250);
/// A fault that is gone sooner is none: an editor was half way through writing.
const PATIENCE: Duration = Duration::from_millis(500);
/// File systems stamp changes no finer than this: a second change may follow the first and not show.
const STAMP_GRAIN: Duration = Duration::from_secs(2);

/// Why the file gives no document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}: more than {MAX_BYTES} bytes")]
    TooLong { path: String },
    #[error("{path}: {not}{source}", not = if source.is_data() { "" } else { "not JSON: " })]
    NotJson { path: String, source: serde_json::Error },
    #[error("{path}: the document must be a JSON object")]
    NotObject { path: String },
}

/// The watched file. The versions it reports count documents, on from those that are remembered from earlier runs.
pub(crate) struct DesiredFile {
    path: PathBuf,
    seen: Option<(Stamp, Vec<u8>)>,
    suspect: Option<Suspect>,
    version: i64,
}

#[derive(Clone, Debug, PartialEq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    /// Inode and change time: what is renamed to this name may be older, and who may read it can be all that
    /// changed.
    #[cfg(unix)]
    identity: (u64, i64, i64),
}

/// Content that could not be used.
struct Suspect {
    why: String,
    since: Instant,
    is_said: bool,
}

impl DesiredFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: None, suspect: None, version: 0 }
    }

    /// Reads and applies the file, whatever state it is in.
    pub async fn load(&mut self, module: &Module) -> Result<Outcome, FileError> {
        self.version = module.running().and_then(|running| running.newest_version()).unwrap_or(0).max(0);
        let (stamp, content) = self.read().await?;
        let document = self.parse(&content);
        self.seen = Some((stamp, content));
        Ok(self.apply(module, document?).await)
    }

    /// Applies every later change; never returns.
    pub async fn watch(mut self, module: Arc<Module>) {
        let (hint, mut hints) = mpsc::channel(1);
        let (path, seen) = (self.path.clone(), self.seen.as_ref().map(|(stamp, _)| stamp.clone()));
        let watching = std::thread::Builder::new().name("desired".into());
        if let Err(error) = watching.spawn(move || hint_at_changes(&path, seen, &hint)) {
            tracing::error!("can't check {} for changes: {error}", self.path.display());
        }
        loop {
            // A fault may turn out to last without another change.
            let is_pending = self.suspect.as_ref().is_some_and(|suspect| !suspect.is_said);
            tokio::select! {
                hint = hints.recv() => if hint.is_none() { std::future::pending().await },
                () = tokio::time::sleep(PATIENCE), if is_pending => {}
            }
            self.look(&module).await;
        }
    }

    async fn look(&mut self, module: &Module) {
        let document = match self.read().await {
            Ok((stamp, content)) => {
                let same = self.seen.as_ref().is_some_and(|(_, seen)| *seen == content);
                if same && self.suspect.is_none() {
                    self.seen = Some((stamp, content));
                    return;
                }
                let document = self.parse(&content);
                self.seen = Some((stamp, content));
                document
            }
            Err(error) => Err(error),
        };
        match document {
            Ok(document) => {
                self.suspect = None;
                self.apply(module, document).await;
            }
            Err(error) => {
                let why = error.to_string();
                let known = self.suspect.take().filter(|suspect| suspect.why == why);
                let mut suspect = known.unwrap_or(Suspect { why, since: Instant::now(), is_said: false });
                if !suspect.is_said && suspect.since.elapsed() >= PATIENCE {
                    module.reject(&suspect.why);
                    suspect.is_said = true;
                }
                self.suspect = Some(suspect);
            }
        }
    }

    async fn apply(&mut self, module: &Module, document: Map<String, Value>) -> Outcome {
        self.version = self.version.saturating_add(1);
        module.apply(without_nulls_and_metadata(document), Some(self.version)).await
    }

    async fn read(&self) -> Result<(Stamp, Vec<u8>), FileError> {
        let path = self.path.clone();
        let name = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || -> std::io::Result<(Stamp, Vec<u8>)> {
            let stamp = stamp(&path)?;
            let mut content = Vec::new();
            std::fs::File::open(&path)?.take(MAX_BYTES.saturating_add(1)).read_to_end(&mut content)?;
            Ok((stamp, content))
        });
        let read = read.await.unwrap_or_else(|join| Err(std::io::Error::other(join)));
        let (stamp, content) = read.map_err(|source| FileError::Read { path: name.clone(), source })?;
        if content.len() as u64 > MAX_BYTES {
            return Err(FileError::TooLong { path: name });
        }
        Ok((stamp, content))
    }

    fn parse(&self, content: &[u8]) -> Result<Map<String, Value>, FileError> {
        let path = || self.path.display().to_string();
        match json::from_slice(content) {
            Ok(Value::Object(document)) => Ok(document),
            Ok(_) => Err(FileError::NotObject { path: path() }),
            Err(source) => Err(FileError::NotJson { path: path(), source }),
        }
    }
}

/// Looks at the file from a thread of its own: that a file system hangs must not hold up anything else, and a
/// thread that sleeps costs less than ten trips a second to the pool.
fn hint_at_changes(path: &Path, mut seen: Option<Stamp>, hint: &mpsc::Sender<()>) {
    let mut changed = Instant::now();
    while !hint.is_closed() {
        std::thread::sleep(POLL);
        let stamp = stamp(path).ok();
        if stamp != seen {
            changed = Instant::now();
        }
        // By this clock, not by the stamp's: a file may come from a future that this machine does not know yet.
        if stamp.is_none() || changed.elapsed() <= STAMP_GRAIN {
            // A hint that waits already is as good.
            let _ = hint.try_send(());
        }
        seen = stamp;
    }
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    #[cfg(unix)]
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path)?;
    Ok(Stamp {
        modified: metadata.modified().ok(),
        length: metadata.len(),
        #[cfg(unix)]
        identity: (metadata.ino(), metadata.ctime(), metadata.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{rig, until};

    #[tokio::test]
    async fn a_changed_file_is_applied_and_a_broken_one_keeps_what_runs() {
        let rig = rig();
        let path = rig.state.path().join("twin.json");
        std::fs::write(&path, r#"{"flows": {"a": {"value": 1}, "gone": null}, "$x": 1}"#).unwrap();
        let mut file = DesiredFile::new(path.clone());
        file.load(&rig.module).await.unwrap();
        let flows = |value| json!({"flows": {"a": {"value": value}}, "$version": value});
        assert_eq!(rig.numbers.applied.lock().unwrap()[0], flows(1));
        let watch = tokio::spawn(file.watch(rig.module.clone()));

        std::fs::write(&path, r#"{"flows": {"a": {"value": 2}}}"#).unwrap();
        let config = || Value::Object(rig.module.reported())["config"].clone();
        until("the change is applied", || config()["desiredVersion"] == 2).await;
        assert_eq!(rig.numbers.applied.lock().unwrap()[1], flows(2));

        std::fs::write(&path, r#"{"flows": {"a": {"value": 3},}}"#).unwrap();
        until("the fault is reported", || config()["status"] == "rejected").await;
        let error = config()["errors"]["_module"].to_string();
        assert!(error.contains("twin.json: not JSON: trailing comma at line 1 column 30"), "{error}");
        assert_eq!(rig.numbers.flows.lock().unwrap()["a"]["value"], 2);

        std::fs::remove_file(&path).unwrap();
        until("the loss is reported", || config()["errors"]["_module"].to_string().contains("No such file"))
            .await;

        // The very document that ran before the faults: nothing to do but to say that all is well.
        std::fs::write(&path, r#"{"flows": {"a": {"value": 2}}}"#).unwrap();
        until("all is well again", || config()["status"] == "applied").await;
        assert_eq!(config()["errors"], Value::Null);
        assert_eq!(rig.numbers.applied.lock().unwrap().len(), 2);
        watch.abort();
    }

    #[tokio::test]
    async fn versions_go_on_from_what_is_remembered() {
        let rig = rig();
        rig.numbers.newest.store(7, std::sync::atomic::Ordering::Relaxed);
        let path = rig.state.path().join("twin.json");
        std::fs::write(&path, r#"{"flows": {}}"#).unwrap();
        DesiredFile::new(path).load(&rig.module).await.unwrap();
        assert_eq!(Value::Object(rig.module.reported())["config"]["desiredVersion"], 8);
    }

    #[tokio::test]
    async fn a_byte_order_mark_and_line_ends_of_windows_are_no_fault() {
        let rig = rig();
        let path = rig.state.path().join("twin.json");
        std::fs::write(&path, "\u{feff}{\r\n\"flows\": {\"a\": {\"value\": 1}}\r\n}\r\n").unwrap();
        DesiredFile::new(path).load(&rig.module).await.unwrap();
        assert_eq!(rig.numbers.flows.lock().unwrap()["a"]["value"], 1);
    }

    #[tokio::test]
    async fn two_flows_of_one_name_are_refused_rather_than_one_of_them_dropped() {
        let rig = rig();
        let path = rig.state.path().join("twin.json");
        std::fs::write(&path, r#"{"flows": {"a": {"value": 1}, "a": {"value": 2}}}"#).unwrap();
        let error = DesiredFile::new(path).load(&rig.module).await.unwrap_err().to_string();
        assert!(error.contains("twin.json: \"a\" occurs twice in one object at line 1 column"), "{error}");
        assert!(rig.numbers.applied.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_not_an_object_is_refused_by_name() {
        let rig = rig();
        let path = rig.state.path().join("twin.json");
        std::fs::write(&path, "[1]").unwrap();
        let error = DesiredFile::new(path).load(&rig.module).await.unwrap_err();
        assert!(error.to_string().ends_with("twin.json: the document must be a JSON object"), "{error}");
    }

    #[tokio::test]
    async fn a_service_that_panics_while_applying_is_a_rejected_document() {
        let rig = rig();
        let document = Map::from_iter([("panic".to_owned(), json!(true))]);
        let outcome = rig.module.apply(document, Some(1)).await;
        assert_eq!(outcome.status, crate::ConfigStatus::Rejected);
        assert!(outcome.errors["_module"].contains("failed inside the module"));
    }
}
