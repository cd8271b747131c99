//! The border between the edge runtime and what a module does for a living.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};

use crate::renewal::Renewal;

/// What a module does for a living, before it runs. `av_flow::Flows` implements it once for all services.
pub trait Service: Send + 'static {
    /// Starts with no configuration. Called once, inside the tokio runtime.
    fn start(self: Box<Self>, context: Context) -> Arc<dyn Running>;
}

/// A running service, driven by desired properties.
pub trait Running: Send + Sync + 'static {
    /// Starts what the state dir holds from earlier runs. `false` when it holds nothing usable.
    fn restore(&self) -> BoxFuture<'_, bool>;

    /// The newest version that anything is from that runs or is kept. Where versions are counted from the start of the
    /// process they go on from here, so that no two documents have the same.
    fn newest_version(&self) -> Option<i64> {
        None
    }

    /// Applies a whole desired document (patches are merged by the caller) with its version as `$version`,
    /// where it has one. Faults never make it fail as a whole: they are in the outcome, by flow. Calls come one
    /// at a time.
    fn apply(&self, desired: Map<String, Value>) -> BoxFuture<'_, Outcome>;

    /// The state as reported properties: `summary` and `flows`, untrimmed, plus
    /// `config.errors` as `Outcome` gave them is added by the caller. Cheap; called at most once a second.
    fn reported(&self) -> Map<String, Value>;

    /// Ticks whenever `reported` may have changed.
    fn changes(&self) -> watch::Receiver<u64>;

    /// As `reported`, plus the counters of every input and output: the body of `getStatus` and `GET /status`.
    fn status(&self) -> Map<String, Value>;

    /// A direct method that is not the runtime's own (`ping`, `setLogLevel`). `None`: no such method.
    fn method<'a>(&'a self, name: &'a str, payload: Value) -> BoxFuture<'a, Option<MethodReply>>;

    /// Whether messages that routes carry to this module are wanted; `input` is never called otherwise.
    fn wants_inputs(&self) -> bool {
        false
    }

    /// A JSON message that a route carries to input `name` of this module. At least once: it may come twice.
    fn input<'a>(&'a self, name: &'a str, payload: Value) -> BoxFuture<'a, ()> {
        let _ = (name, payload);
        Box::pin(std::future::ready(()))
    }

    /// Metric families of this moment, without the labels that all series share.
    fn metrics(&self) -> Vec<prometheus::proto::MetricFamily>;

    /// Ends every flow: peers are told, what was recorded is durable. Bounded by the caller to 6.5 s: the
    /// hub's goodbye and the last log lines must fit into 8 s too.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// What became of a desired document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Applied, partial or rejected.
    pub status: ConfigStatus,
    /// One sentence by flow name, or by `_module` for faults of the document itself; each names its path.
    pub errors: BTreeMap<String, String>,
    /// Flows that the document holds and that are usable.
    pub usable: usize,
    /// Flows that run (or are disabled) from an earlier good version although this one is bad.
    pub kept: usize,
    /// What the document asks of the runtime itself. `None` when the document was rejected whole.
    pub settings: Option<Settings>,
}

/// `config.status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConfigStatus {
    /// Every flow is as desired.
    #[default]
    Applied,
    /// Some flows are not.
    Partial,
    /// None is, or the document was not understood.
    Rejected,
}

/// The top-level properties that concern the runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `logLevel`.
    pub log_level: Option<tracing::Level>,
    /// `telemetryIntervalSeconds`; 0 = no periodic telemetry.
    pub telemetry_interval_seconds: u32,
}

/// A whole number of a method's payload, which may be written `2` or `2.0`, as in desired properties.
pub fn whole_number(value: &Value) -> Option<u64> {
    // Beyond 2^53 the next whole number has no form with a point.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    value.as_u64().or_else(|| {
        let number =
            value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=EXACT).contains(number))?;
        format!("{number:.0}").parse().ok()
    })
}

/// A direct method's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodReply {
    /// 200, 202, 400, 404, 409 or 500.
    pub status: u16,
    /// JSON body.
    pub body: Value,
}

/// Everything the runtime knows that a service needs.
#[derive(Clone)]
pub struct Context {
    /// The module's service name, e.g. `rtmp-splitter`.
    pub service: String,
    /// The module's id on this device (`IOTEDGE_MODULEID`), or the service name when standalone.
    pub module: String,
    /// `--device`.
    pub device: String,
    /// `IOTEDGE_GATEWAYHOSTNAME`: stands for this machine in URLs shown, and names its server certificate.
    pub gateway_host: Option<String>,
    /// Where things that outlive the process are kept.
    pub state: StateDir,
    /// `--bind`: wildcard listeners bind here instead.
    pub bind: Option<IpAddr>,
    /// `--hosts`: host names resolved here first.
    pub hosts: Arc<BTreeMap<String, IpAddr>>,
    /// `--paths`.
    pub paths: Paths,
    /// Certificates that the edge runtime issues or trusts.
    pub certificates: Certificates,
    /// Where telemetry events go.
    pub events: EventSink,
}

/// `--paths`: where directories that the configuration names are on this machine.
#[derive(Clone, Debug, Default)]
pub struct Paths(Arc<Vec<(PathBuf, PathBuf)>>);

impl Paths {
    /// From pairs (container dir, host dir).
    pub fn new(mut pairs: Vec<(PathBuf, PathBuf)>) -> Self {
        // Longest prefix first.
        pairs.sort_by_key(|(from, _)| std::cmp::Reverse(from.as_os_str().len()));
        Self(Arc::new(pairs))
    }

    /// The path on this machine; unchanged where no prefix matches.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        for (from, to) in self.0.iter() {
            if let Ok(rest) = path.strip_prefix(from) {
                return if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
            }
        }
        path.to_path_buf()
    }
}

/// The directory for state that outlives the process. Writes are atomic (write aside, sync, rename).
#[derive(Clone, Debug)]
pub struct StateDir {
    dir: PathBuf,
}

impl StateDir {
    /// The directory is made at the first write.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// A file's content, at most `limit` bytes; `None` when there is no such file.
    pub fn read(&self, name: &str, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
        use std::io::Read;
        let file = match std::fs::File::open(self.dir.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut content = Vec::new();
        file.take(limit).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    /// Replaces a file. Blocking: call it from `spawn_blocking`.
    pub fn write(&self, name: &str, content: &[u8]) -> std::io::Result<()> {
        use std::io::Write;
        std::fs::create_dir_all(&self.dir)?;
        let aside = self.dir.join(format!("{name}.new"));
        let mut file = std::fs::File::create(&aside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&aside, self.dir.join(name))?;
        std::fs::File::open(&self.dir)?.sync_all()
    }
}

/// A certificate chain and its key, as PEM text.
#[derive(Clone)]
pub struct ServerCertificate {
    /// Leaf first.
    pub chain_pem: String,
    /// PKCS#8 or SEC1 or PKCS#1.
    pub key_pem: String,
    /// When it should be replaced.
    pub renewal: Renewal,
}

/// Certificates by way of the edge runtime; standalone there are none.
#[derive(Clone, Default)]
pub struct Certificates {
    pub(crate) source: Option<Arc<dyn CertificateSource>>,
}

/// What the workload API offers. Errors say what to do.
pub trait CertificateSource: Send + Sync {
    /// A server certificate for a name.
    fn server(&self, host_name: &str) -> BoxFuture<'_, Result<ServerCertificate, String>>;

    /// PEM text of the certificates that are trusted beside the public roots.
    fn trust_bundle(&self) -> BoxFuture<'_, Result<String, String>>;
}

impl Certificates {
    /// Certificates from elsewhere: tests of services have no edge runtime.
    pub fn from_source(source: Arc<dyn CertificateSource>) -> Self {
        Self { source: Some(source) }
    }

    /// A server certificate for `host_name`; the error says what to do.
    pub async fn server(&self, host_name: &str) -> Result<ServerCertificate, String> {
        match &self.source {
            Some(source) => source.server(host_name).await,
            None => {
                Err("no IoT Edge runtime issues certificates here; set tls.certificateFile and tls.keyFile"
                    .into())
            }
        }
    }

    /// PEM text of the certificates that the edge trusts beside the public roots; `None` when standalone.
    pub async fn trust_bundle(&self) -> Result<Option<String>, String> {
        match &self.source {
            Some(source) => source.trust_bundle().await.map(Some),
            None => Ok(None),
        }
    }
}

/// A telemetry event (`events` output). Coalesced and stamped by the runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The flow it concerns.
    pub flow: Option<String>,
    /// The output it concerns.
    pub output: Option<String>,
    /// One sentence.
    pub detail: String,
}

/// Event names, as `docs/operate.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // each is its own name
pub enum EventKind {
    ModuleStarted,
    ConfigApplied,
    ConfigRejected,
    FlowStarted,
    FlowStopped,
    InputConnected,
    InputLost,
    OutputConnected,
    OutputLost,
    SegmentStored,
    SpoolNearlyFull,
    SpoolDropped,
    RecordingsDeleted,
    CredentialExpiring,
    PictureFrozen,
    ClientRejected,
}

impl EventKind {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ModuleStarted => "moduleStarted",
            Self::ConfigApplied => "configApplied",
            Self::ConfigRejected => "configRejected",
            Self::FlowStarted => "flowStarted",
            Self::FlowStopped => "flowStopped",
            Self::InputConnected => "inputConnected",
            Self::InputLost => "inputLost",
            Self::OutputConnected => "outputConnected",
            Self::OutputLost => "outputLost",
            Self::SegmentStored => "segmentStored",
            Self::SpoolNearlyFull => "spoolNearlyFull",
            Self::SpoolDropped => "spoolDropped",
            Self::RecordingsDeleted => "recordingsDeleted",
            Self::CredentialExpiring => "credentialExpiring",
            Self::PictureFrozen => "pictureFrozen",
            Self::ClientRejected => "clientRejected",
        }
    }
}

/// Where a service drops its events; never blocks. What does not fit is counted.
#[derive(Clone)]
pub struct EventSink {
    queue: mpsc::Sender<Event>,
    dropped: Arc<std::sync::atomic::AtomicU64>,
}

impl EventSink {
    /// A sink and the queue it fills.
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<Event>) {
        let (queue, receiver) = mpsc::channel(capacity);
        (Self { queue, dropped: Arc::default() }, receiver)
    }

    /// Hands an event to the runtime.
    pub fn emit(&self, event: Event) {
        if self.queue.try_send(event).is_err() {
            self.dropped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Whether the runtime has taken everything.
    pub(crate) fn is_drained(&self) -> bool {
        self.queue.capacity() == self.queue.max_capacity()
    }

    /// Events that found the queue full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_numbers_may_be_written_with_a_point() {
        let values = [json!(2), json!(2.0), json!(2e1), json!(0), json!(u64::MAX)];
        assert_eq!(values.each_ref().map(whole_number), [2, 2, 20, 0, u64::MAX].map(Some));
        let values = [json!(2.5), json!(-1), json!(-1.0), json!(1e300), json!("2"), json!(true), Value::Null];
        assert!(values.iter().all(|value| whole_number(value).is_none()));
    }
}
