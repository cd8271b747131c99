//! What the process knows about itself: the service it runs, the configuration it has, and the documents
//! that say so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::service::{ConfigStatus, Event, EventKind, EventSink, Outcome, Running, Settings};

/// Events of one document name at most this many flows.
const MAX_EVENTS: usize = 20;

/// Names of a module that never change while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The service, e.g. `rtmp-splitter`.
    pub service: &'static str,
    pub version: &'static str,
    /// `IOTEDGE_MODULEID`, or the service's name.
    pub module: String,
    pub device: String,
    /// IoT Hub's host name; empty when standalone.
    pub iothub: String,
    /// New at each start.
    pub instance: String,
}

/// The process, shared by everything that shows or changes its state.
pub(crate) struct Module {
    pub identity: Identity,
    pub events: EventSink,
    /// Whether the hub is there, renewals of the connection left out.
    pub hub_connected: AtomicBool,
    /// Telemetry messages that found no room while the hub was away.
    pub telemetry_dropped: AtomicU64,
    started_at: jiff::Timestamp,
    started: Instant,
    running: OnceLock<Arc<dyn Running>>,
    ready: AtomicBool,
    stopping: AtomicBool,
    config: Mutex<Config>,
    changed: watch::Sender<u64>,
    settings: watch::Sender<Option<Settings>>,
    /// The document applied last and what came of it; the lock makes calls to the service come one at a time.
    applied: tokio::sync::Mutex<Option<(Map<String, Value>, Outcome)>>,
}

#[derive(Clone, Debug, Default)]
struct Config {
    version: Option<i64>,
    status: Option<ConfigStatus>,
    errors: BTreeMap<String, String>,
}

impl Module {
    pub fn new(identity: Identity, events: EventSink) -> Self {
        Self {
            identity,
            events,
            hub_connected: AtomicBool::new(false),
            telemetry_dropped: AtomicU64::new(0),
            started_at: jiff::Timestamp::now(),
            started: Instant::now(),
            running: OnceLock::new(),
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            config: Mutex::default(),
            changed: watch::Sender::new(0),
            settings: watch::Sender::new(None),
            applied: tokio::sync::Mutex::default(),
        }
    }

    /// Called once, when the service has started.
    pub fn set_running(&self, running: Arc<dyn Running>) {
        let _ = self.running.set(running);
    }

    /// `None` until the service has started.
    pub fn running(&self) -> Option<&Arc<dyn Running>> {
        self.running.get()
    }

    /// Whether any configuration has been handled.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Whether the process is about to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// `config.desiredVersion`, 0 before any.
    pub fn desired_version(&self) -> i64 {
        self.config().version.unwrap_or(0)
    }

    /// Ticks when the configuration's own state changed (not the service's).
    pub fn config_changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What the configuration asks of the runtime.
    pub fn settings(&self) -> watch::Receiver<Option<Settings>> {
        self.settings.subscribe()
    }

    fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a whole desired document to the service. One that equals the last costs the service nothing.
    pub async fn apply(&self, desired: Map<String, Value>, version: Option<i64>) -> Outcome {
        let mut applied = self.applied.lock().await;
        let known = applied.as_ref().filter(|(last, _)| *last == desired).map(|(_, outcome)| outcome.clone());
        let outcome = match known {
            Some(outcome) => outcome,
            None => {
                let outcome = self.apply_new(&desired, version).await;
                self.tell(version, &outcome);
                *applied = Some((desired, outcome.clone()));
                outcome
            }
        };
        *self.config() = Config { version, status: Some(outcome.status), errors: outcome.errors.clone() };
        if let Some(settings) = outcome.settings {
            self.settings.send_replace(Some(settings));
        }
        self.set_ready();
        self.changed.send_modify(|tick| *tick = tick.wrapping_add(1));
        outcome
    }

    async fn apply_new(&self, desired: &Map<String, Value>, version: Option<i64>) -> Outcome {
        let Some(running) = self.running().cloned() else { return Outcome::default() };
        let mut document = desired.clone();
        document.extend(version.map(|version| ("$version".to_owned(), version.into())));
        // A task of its own: a panic in there must not end the runtime.
        match tokio::spawn(async move { running.apply(document).await }).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome {
                status: ConfigStatus::Rejected,
                errors: BTreeMap::from([(
                    "_module".to_owned(),
                    "applying the document failed inside the module; its log has the place".to_owned(),
                )]),
                ..Outcome::default()
            },
        }
    }

    /// A document could not even be read: what runs goes on.
    pub fn reject(&self, reason: &str) {
        tracing::error!("the configuration is not usable; the running one stays in use: {reason}");
        {
            let mut config = self.config();
            config.status = Some(ConfigStatus::Rejected);
            config.errors = BTreeMap::from([("_module".to_owned(), reason.to_owned())]);
        }
        self.set_ready();
        self.changed.send_modify(|tick| *tick = tick.wrapping_add(1));
        self.emit(EventKind::ConfigRejected, None, reason.to_owned());
    }

    fn tell(&self, version: Option<i64>, outcome: &Outcome) {
        // What comes too late for a service that ends its flows is no fault of the document.
        if self.is_stopping() {
            return;
        }
        let version =
            version.map_or_else(|| "without version".to_owned(), |version| format!("version {version}"));
        for (name, error) in outcome.errors.iter().take(MAX_EVENTS) {
            tracing::warn!(flow = name, "configuration: {error}");
            let flow = (name != "_module").then(|| name.clone());
            self.emit(EventKind::ConfigRejected, flow, error.clone());
        }
        let (usable, faults) = (outcome.usable, outcome.errors.len());
        if outcome.status == ConfigStatus::Rejected {
            tracing::error!("configuration {version} rejected; the running one stays in use");
        } else {
            tracing::info!("configuration {version} applied: {usable} flows usable, {faults} with errors");
            self.emit(
                EventKind::ConfigApplied,
                None,
                format!("{version}: {usable} flows usable, {faults} with errors"),
            );
        }
    }

    pub fn emit(&self, kind: EventKind, flow: Option<String>, detail: String) {
        self.events.emit(Event { kind, flow, output: None, detail });
    }

    /// The reported properties, untrimmed.
    pub fn reported(&self) -> Map<String, Value> {
        self.document(self.running().map(|running| running.reported()))
    }

    /// The same with every counter: `GET /status`.
    pub fn status(&self) -> Map<String, Value> {
        self.document(self.running().map(|running| running.status()))
    }

    /// What a service says of itself, in the form of the reported properties.
    pub fn document(&self, service: Option<Map<String, Value>>) -> Map<String, Value> {
        let identity = &self.identity;
        let mut document = Map::new();
        document.insert("schemaVersion".into(), "1.0".into());
        document.insert(
            "module".into(),
            json!({
                "name": identity.service, "version": identity.version, "build": build(),
                "startedAt": format!("{:.0}", self.started_at),
            }),
        );
        let config = self.config().clone();
        if let Some(status) = config.status {
            let mut shown = Map::new();
            if let Some(version) = config.version {
                shown.insert("desiredVersion".into(), version.into());
            }
            shown.insert("status".into(), status_name(status).into());
            if !config.errors.is_empty() {
                let errors = config.errors.into_iter().map(|(name, error)| (name, error.into()));
                shown.insert("errors".into(), Value::Object(errors.collect()));
            }
            document.insert("config".into(), Value::Object(shown));
        }
        for (name, value) in service.unwrap_or_default() {
            document.entry(name).or_insert(value);
        }
        document
    }
}

/// The short hash of the commit this was built from.
pub(crate) fn build() -> &'static str {
    env!("AV_BUILD")
}

fn status_name(status: ConfigStatus) -> &'static str {
    match status {
        ConfigStatus::Applied => "applied",
        ConfigStatus::Partial => "partial",
        ConfigStatus::Rejected => "rejected",
    }
}

/// 128 random bits in the form of a GUID (RFC 9562 §5.4).
pub(crate) fn new_instance() -> String {
    let bits: u128 = rand::random();
    let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let mut guid = String::with_capacity(36);
    for (index, digit) in hex.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            guid.push('-');
        }
        guid.push(digit);
    }
    guid
}
