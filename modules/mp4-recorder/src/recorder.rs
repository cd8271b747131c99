//! What the outputs of the module share: the spool, a lane to the store for each of them, and the counters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use av_edge::{Context, Event, EventKind, MethodReply};
use av_flow::Extension;
use av_flow::config::FlowConfig;
use av_flow::net::Secrets;
use av_flow::stream::Changes;
use futures_util::future::BoxFuture;
use prometheus::proto::MetricFamily;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::azure::Container;
use crate::backlog::{Flowing, Rates};
use crate::belief::Belief;
use crate::forget::Tombstones;
use crate::lane::Lane;
use crate::name::Fields;
use crate::spool::{Dropped, Limits, Place, Spool};
use crate::store::{Configured, StoreConfig, Target};
use crate::{event, evidence, expiry, housekeeping, methods, metrics};

/// Between two tries to open a spool that can't be used.
const RETRY: Duration = Duration::from_secs(2);

/// Whether the spool can be used, and why not.
pub type Opened = Option<Result<Arc<Spool>, String>>;

/// The recorder beside its endpoints.
pub struct Recorder {
    /// Of the module.
    pub context: Context,
    pub(crate) changes: Changes,
    pub(crate) totals: Totals,
    pub(crate) secrets: Secrets,
    opened: watch::Sender<Opened>,
    limits: Mutex<Limits>,
    lanes: Mutex<BTreeMap<Place, Arc<Lane>>>,
    pub(crate) tombstones: Tombstones,
    /// Held by whoever deletes what a tombstone covers.
    pub(crate) burying: tokio::sync::Mutex<()>,
    /// Outputs of the document; `None`: none was applied yet, and nobody knows what is to be kept.
    document: Mutex<Option<BTreeSet<Place>>>,
    /// Whether the clock is right.
    pub(crate) belief: Arc<Belief>,
    expiries: Mutex<expiry::Told>,
    flowing: Mutex<Flowing>,
    pub(crate) runtime: tokio::runtime::Handle,
    own: Weak<Self>,
}

/// What was counted since the module started.
#[derive(Debug, Default)]
pub struct Totals {
    /// Bytes written into the spool, indexes and fragments included.
    pub written: AtomicU64,
    /// Bytes of files that stores took.
    pub stored: AtomicU64,
    places: Mutex<BTreeMap<Place, PlaceTotals>>,
}

/// Of one output.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlaceTotals {
    /// Files that their store took.
    pub stored: u64,
    /// Files that were deleted to make room, and losses of frames that could not be recorded.
    pub dropped: u64,
}

impl Totals {
    /// Changes the counters of one output.
    pub fn count(&self, place: &Place, change: impl FnOnce(&mut PlaceTotals)) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        change(places.entry(place.clone()).or_default());
    }

    /// All of them.
    pub fn places(&self) -> BTreeMap<Place, PlaceTotals> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Recorder {
    /// Starts what runs beside the endpoints. The spool opens when the first document has come, or a moment later.
    pub fn start(context: &Context, changes: Changes) -> Arc<Self> {
        let recorder = Arc::new_cyclic(|own| Self {
            context: context.clone(),
            changes,
            totals: Totals::default(),
            secrets: Secrets::new(context.paths.clone()),
            opened: watch::Sender::new(None),
            limits: Mutex::default(),
            lanes: Mutex::default(),
            tombstones: Tombstones::default(),
            burying: tokio::sync::Mutex::default(),
            document: Mutex::default(),
            belief: Arc::default(),
            expiries: Mutex::default(),
            flowing: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
            own: own.clone(),
        });
        let keeper = Arc::downgrade(&recorder);
        // A disk that hangs may hold a thread for ever: one of the runtime's would keep the process from ending.
        let spawned = std::thread::Builder::new().name("spool".into()).spawn(move || open(&keeper));
        if let Err(error) = spawned {
            recorder.opened.send_replace(Some(Err(format!("no thread for the spool: {error}"))));
        }
        recorder
    }

    /// Changes whenever the spool opens or can't be opened for another reason.
    pub fn opened(&self) -> watch::Receiver<Opened> {
        self.opened.subscribe()
    }

    /// The recorder, as those want it who outlive the call.
    pub fn shared(&self) -> Option<Arc<Self>> {
        self.own.upgrade()
    }

    /// The spool, once it is open.
    pub fn spool(&self) -> Option<Arc<Spool>> {
        self.opened.borrow().as_ref().and_then(|opened| opened.as_ref().ok().cloned())
    }

    /// `spool` of the document.
    pub fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lanes_map(&self) -> MutexGuard<'_, BTreeMap<Place, Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane of an output; it begins to run where it did not yet.
    pub fn lane(&self, place: &Place) -> Option<Arc<Lane>> {
        let recorder = self.shared()?;
        let mut lanes = self.lanes_map();
        if let Some(lane) = lanes.get(place) {
            return Some(lane.clone());
        }
        let lane = Lane::new(place.clone());
        lanes.insert(place.clone(), lane.clone());
        self.runtime.spawn(evidence::run(lane.clone(), recorder.clone()));
        self.runtime.spawn(lane.clone().run(recorder));
        Some(lane)
    }

    /// All lanes.
    pub fn lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes_map().values().cloned().collect()
    }

    /// Whether a document was applied.
    pub fn is_configured(&self) -> bool {
        self.document().is_some()
    }

    /// Whether the document has an output of that name, running or not.
    pub fn has(&self, place: &Place) -> bool {
        self.document().as_ref().is_some_and(|outputs| outputs.contains(place))
    }

    /// Whether the output of a lane is in the document, or still records.
    pub fn has_output(&self, lane: &Lane) -> bool {
        self.has(lane.place()) || lane.records()
    }

    fn document(&self) -> MutexGuard<'_, Option<BTreeSet<Place>>> {
        self.document.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an output has `retentionDays`.
    pub fn deletes_by_age(&self) -> bool {
        let has = |lane: &Arc<Lane>| lane.configured().is_some_and(|now| now.config.retention.is_some());
        self.lanes().iter().any(has)
    }

    /// What opens a container: what the output of `lane` has for it, or any other.
    pub fn opens(&self, lane: &Lane, container: &Container) -> Option<StoreConfig> {
        let opens = |configured: Configured| {
            let is_it = matches!(&configured.config.target, Target::Blobs(other) if other == container);
            is_it.then_some(configured.config)
        };
        let own = lane.configured().and_then(opens);
        own.or_else(|| self.lanes().iter().filter_map(|lane| lane.configured()).find_map(opens))
    }

    /// Why recordings wait of which no output that runs says so.
    fn unsent_error(&self) -> Option<String> {
        let lanes = self.lanes();
        lanes.iter().find_map(|lane| {
            let (flow, output) = lane.place();
            Some(format!("flows.{flow}.outputs.{output}.store: {}", lane.trouble_of_nobody()?))
        })
    }

    /// Something of this place is ready for its store.
    pub fn wake(&self, place: &Place) {
        if let Some(lane) = self.lane(place) {
            lane.wake();
        }
        self.changes.tick();
    }

    /// Hands an event to telemetry.
    pub fn emit(&self, kind: EventKind, place: &Place, detail: String) {
        let (flow, output) = place.clone();
        self.context.events.emit(Event { kind, flow: Some(flow), output: Some(output), detail });
    }

    /// Says what had to go to make room.
    pub fn announce(&self, dropped: Vec<Dropped>) {
        for Dropped { record, bytes } in dropped {
            let place = (record.flow.clone(), record.output.clone());
            self.totals.count(&place, |totals| totals.dropped += 1);
            let seconds = record.milliseconds / 1000;
            let detail =
                format!("deleted a recording of {seconds} s ({bytes} bytes) that was not stored yet");
            tracing::warn!(flow = %place.0, output = %place.1, "the spool is full: {detail}");
            self.emit(EventKind::SpoolDropped, &place, detail);
            // What was sent of it while it was written goes, too.
            if let (Some(recorder), Some(lane)) = (self.shared(), self.lane(&place)) {
                self.runtime.spawn(async move { lane.discard(&recorder, &record).await });
            }
        }
    }

    /// The spool, once all that lies in it is known; otherwise what to answer.
    pub fn whole_spool(&self) -> Result<Arc<Spool>, &'static str> {
        let spool = self.spool().ok_or("the spool is not open")?;
        if spool.is_whole() { Ok(spool) } else { Err("the spool is still being read; try again") }
    }

    /// What is not stored yet: bytes, files, and the age of the oldest in seconds. `None`: the spool is not open or not read,
    /// so nobody knows.
    pub fn backlog(&self) -> Option<(u64, usize, u64)> {
        let spool = self.spool().filter(|spool| spool.is_whole())?;
        let (bytes, files, oldest) = spool.waiting();
        let age =
            oldest.and_then(|start| self.belief.now().now.utc.duration_since(start).ok()).unwrap_or_default();
        Some((bytes, files, age.as_secs()))
    }

    /// Ends of credentials that were told.
    pub fn expiries(&self) -> MutexGuard<'_, expiry::Told> {
        self.expiries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks how much has come and gone.
    pub fn sample(&self) {
        self.flowing(Flowing::sample);
    }

    /// A store is back that was away for long.
    pub fn sample_anew(&self) {
        self.flowing(Flowing::begin_anew);
    }

    fn flowing(&self, take: fn(&mut Flowing, tokio::time::Instant, u64, u64)) {
        let get = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let mut flowing = self.flowing.lock().unwrap_or_else(PoisonError::into_inner);
        take(&mut flowing, tokio::time::Instant::now(), get(&self.totals.stored), get(&self.totals.written));
    }

    /// How fast recordings came and went lately.
    pub fn rates(&self) -> Option<Rates> {
        self.flowing.lock().unwrap_or_else(PoisonError::into_inner).rates()
    }

    /// A path that a document names, on this machine.
    pub fn resolve(&self, path: &std::path::Path) -> PathBuf {
        self.context.paths.resolve(path)
    }
}

/// The spool's own thread: opens it, repairs what was being written, and keeps house.
fn open(keeper: &Weak<Recorder>) {
    loop {
        let Some(recorder) = keeper.upgrade() else { return };
        match Spool::begin(recorder.context.state.path(), recorder.limits()) {
            Ok((spool, lying)) => {
                let spool = Arc::new(spool);
                recorder.belief.load(spool.dir());
                if let Err(error) = recorder.tombstones.load(&spool) {
                    tracing::warn!(
                        "the list of recordings that were deleted before they were stored can't be \
                                    read: {error}"
                    );
                }
                // What comes in is recorded at once, beside what is left to read and to repair.
                recorder.opened.send_replace(Some(Ok(spool.clone())));
                // A document may have come while it was opened.
                spool.set_limits(recorder.limits());
                spool.take_in(lying, || housekeeping::wake_all(&recorder, &spool));
                housekeeping::begin(&recorder, &spool);
                recorder.changes.tick();
                drop(recorder);
                return housekeeping::keep(keeper, &spool);
            }
            Err(error) => {
                let text = error.to_string();
                recorder.opened.send_if_modified(|opened| {
                    let is_news = !matches!(opened, Some(Err(before)) if *before == text);
                    *opened = Some(Err(text.clone()));
                    is_news
                });
                drop(recorder);
                std::thread::sleep(RETRY);
            }
        }
    }
}

impl Extension for Recorder {
    fn configure(&self, properties: &Map<String, Value>) {
        let limits = Limits::of(properties);
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
        if let Some(spool) = self.spool() {
            spool.set_limits(limits);
        }
    }

    fn flows(&self, flows: &BTreeMap<String, Arc<FlowConfig>>) {
        let mut outputs = BTreeSet::new();
        for flow in flows.values() {
            for (name, output) in &flow.outputs {
                let Some(config) = StoreConfig::of(output) else { continue };
                let place = (flow.name.clone(), name.clone());
                outputs.insert(place.clone());
                let fields =
                    Fields { device: &self.context.device, module: &self.context.module, flow: &flow.name };
                // A name that is too long is told by the endpoint.
                let Ok(template) = config.template(flow.is_pattern()).filled(fields) else { continue };
                if let Some(lane) = self.lane(&place) {
                    lane.configure(Configured { config: config.clone(), template });
                }
            }
        }
        *self.document() = Some(outputs);
    }

    fn method<'a>(&'a self, name: &'a str, payload: Value) -> BoxFuture<'a, Option<MethodReply>> {
        Box::pin(methods::call(self, name, payload))
    }

    fn wants_inputs(&self) -> bool {
        true
    }

    fn input<'a>(&'a self, name: &'a str, payload: Value) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if name != "recordEvent" {
                return tracing::debug!(
                    "a message on input {name} is ignored: this module has no such input"
                );
            }
            let reply = event::record(self, &payload).await;
            if reply.status != 202 {
                tracing::warn!("a message on input recordEvent is ignored: {}", reply.body);
            }
        })
    }

    fn summary(&self) -> Map<String, Value> {
        let backlog = self.backlog();
        let rates = self.rates();
        let left = rates.zip(backlog).and_then(|(rates, (bytes, ..))| rates.drain(bytes));
        let clock = if self.belief.now().names { "ok" } else { "unset" };
        Map::from_iter([
            ("spoolBytes".to_owned(), backlog.map(|(bytes, ..)| bytes).into()),
            ("oldestUnsentSeconds".to_owned(), backlog.map(|(.., oldest)| oldest).into()),
            ("unsentFiles".to_owned(), backlog.map(|(_, files, _)| files).into()),
            ("unsentError".to_owned(), self.unsent_error().into()),
            ("uploadBitsPerSecond".to_owned(), rates.map(|rates| (rates.stored * 8.0).round() as u64).into()),
            ("drainSeconds".to_owned(), left.map(|left| left.as_secs()).into()),
            ("clock".to_owned(), clock.into()),
        ])
    }

    fn metrics(&self) -> Vec<MetricFamily> {
        metrics::families(self, self.totals.written.load(Ordering::Relaxed))
    }
}
