//! What every endpoint is given.
//!
//! An endpoint is an async function that runs until `cancel` fires, and reports through its status.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use av_edge::{Event, EventKind};
use av_media::Kind;
use prometheus::{Histogram, HistogramOpts, HistogramVec};
use tokio_util::sync::CancellationToken;

use crate::config::Content;
use crate::extension::Extension;
use crate::ingest::Instances;
use crate::net::{Listeners, Net};
use crate::stream::{Cache, InputStatus, OutputStatus, Stream, usable_memory};

/// What all endpoints of the module share.
pub struct Module {
    /// From the edge runtime.
    pub context: av_edge::Context,
    /// Sockets, TLS, secrets.
    pub net: Net,
    /// Listening addresses, shared by all flows that name the same one.
    pub listeners: Listeners,
    /// What all streams keep for readers.
    pub cache: Cache,
    /// For lines about single players: at most one a second for the whole module.
    pub player_log: Throttle,
    /// For lines about peers that are refused or break the protocol.
    pub peer_log: Throttle,
    /// `av_output_latency_seconds`, by protocol and kind.
    pub latency: HistogramVec,
    extension: Option<Arc<dyn Extension>>,
}

impl Module {
    /// State that all endpoints of a module share.
    pub fn new(context: av_edge::Context) -> Arc<Self> {
        Self::extended(context, None)
    }

    /// The same in a service that has an extension.
    pub(crate) fn extended(context: av_edge::Context, extension: Option<Arc<dyn Extension>>) -> Arc<Self> {
        let net = Net::new(&context);
        Arc::new(Self {
            listeners: Listeners::new(net.dialled().clone()),
            net,
            context,
            cache: Cache::default(),
            player_log: Throttle::new(1),
            peer_log: Throttle::new(20),
            latency: latency_histogram(),
            extension,
        })
    }

    /// `cacheMegabytes`; 0 is a quarter of the memory that the process may use.
    pub fn set_cache_megabytes(&self, megabytes: u64) {
        let quarter = || usable_memory().map_or(u64::MAX, |bytes| bytes / 4);
        let bytes = if megabytes == 0 { quarter() } else { megabytes.saturating_mul(1 << 20) };
        self.cache.set_limit(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// What the service brought, where that is an `E`.
    pub fn extension<E: Extension>(&self) -> Option<Arc<E>> {
        let extension: Arc<dyn Any + Send + Sync> = self.extension.clone()?;
        extension.downcast().ok()
    }

    pub(crate) fn any_extension(&self) -> Option<&Arc<dyn Extension>> {
        self.extension.as_ref()
    }

    /// The delay of pictures and of sound inside the module, for one protocol.
    pub fn latency(&self, protocol: &str) -> [Histogram; 2] {
        [Kind::Video, Kind::Audio].map(|kind| self.latency.with_label_values(&[protocol, kind.as_str()]))
    }

    /// Hands an event to telemetry.
    pub fn emit(&self, kind: EventKind, flow: &str, output: Option<&str>, detail: impl Into<String>) {
        self.context.events.emit(Event {
            kind,
            flow: Some(flow.to_owned()),
            output: output.map(str::to_owned),
            detail: detail.into(),
        });
    }
}

/// What an input endpoint needs.
#[derive(Clone)]
pub struct InputContext {
    /// Shared by the module.
    pub module: Arc<Module>,
    /// The flow's name.
    pub flow: Arc<str>,
    /// `flows.NAME.input`.
    pub path: Arc<str>,
    /// Where frames go.
    pub stream: Stream,
    /// State and counters; the same as `stream.input()`.
    pub status: Arc<InputStatus>,
    /// The input's idle time-out.
    pub idle_timeout: Duration,
    /// Where this is an input that listens on a pattern: what makes its instances. It has no stream of its own.
    pub instances: Option<Arc<dyn Instances>>,
    /// Fires when the endpoint has to end.
    pub cancel: CancellationToken,
}

/// What an output endpoint needs.
#[derive(Clone)]
pub struct OutputContext {
    /// Shared by the module.
    pub module: Arc<Module>,
    /// The flow's name.
    pub flow: Arc<str>,
    /// The output's name.
    pub output: Arc<str>,
    /// `flows.NAME.outputs.NAME`.
    pub path: Arc<str>,
    /// Whether it is of an instance of a pattern: whatever is configured by name stands before it.
    pub of_instance: bool,
    /// Where frames come from.
    pub stream: Stream,
    /// Kinds to take.
    pub content: Content,
    /// State and counters.
    pub status: Arc<OutputStatus>,
    /// Fires when the endpoint has to end.
    pub cancel: CancellationToken,
}

/// Lets so many lines a second through and counts the others.
pub struct Throttle {
    per_second: u32,
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    began: Option<Instant>,
    admitted: u32,
    held_back: u64,
}

impl Throttle {
    /// At most `per_second` lines in a second.
    pub fn new(per_second: u32) -> Self {
        Self { per_second, window: Mutex::default() }
    }

    /// `Some(n)`: say it now, and that `n` lines were held back before; `None`: hold it back.
    pub fn admit(&self) -> Option<u64> {
        let now = Instant::now();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.is_none_or(|began| now.saturating_duration_since(began) >= Duration::from_secs(1)) {
            window.began = Some(now);
            window.admitted = 0;
        }
        if window.admitted < self.per_second {
            window.admitted += 1;
            return Some(std::mem::take(&mut window.held_back));
        }
        window.held_back += 1;
        None
    }
}

/// The delay inside the module, from a frame's last byte in to the end of the walk that wrote it.
#[expect(clippy::expect_used, reason = "the name and the labels are constants that the library accepts")]
fn latency_histogram() -> HistogramVec {
    let buckets = vec![0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];
    let options =
        HistogramOpts::new("av_output_latency_seconds", "Delay of frames inside the module").buckets(buckets);
    HistogramVec::new(options, &["protocol", "kind"]).expect("constant options")
}
