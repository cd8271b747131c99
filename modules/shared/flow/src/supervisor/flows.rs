//! The supervisor: what a module does for a living.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use av_edge::{ConfigStatus, Context, EventKind, MethodReply, Outcome, Running, Service};
use futures_util::future::BoxFuture;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::flow::Flow;
use super::remembered::Memory;
use super::service::{Flows, MOST_STOP};
use super::task::{Ended, Environment, Places};
use super::{metrics, remembered, status};
use crate::config::{self, Claims, Diff, FlowConfig, Supports, parse};
use crate::endpoint::Module;
use crate::extension::Extension;
use crate::stream::Changes;

/// A document is applied that long after endpoints were asked to end at the latest; what replaces an endpoint that
/// takes longer starts when it has ended. A second after a change the outcome has to be reported.
const GRACE: Duration = Duration::from_millis(500);
/// At the end of the process, until peers have been told too.
const FAREWELL: Duration = Duration::from_secs(3);

impl Flows {
    pub(super) fn supervisor(self, context: Context) -> Arc<Supervisor> {
        let changes = Changes::default();
        let extension = self.extension.map(|start| start(&context, changes.clone()));
        let environment = Environment {
            module: Module::extended(context, extension),
            changes,
            places: Arc::new(Places::default()),
        };
        let supervisor = Arc::new(Supervisor {
            environment,
            supports: self.supports,
            stop: self.stop,
            present: Mutex::default(),
            memory: Memory::default(),
            applying: tokio::sync::Mutex::default(),
        });
        let ticking = Arc::downgrade(&supervisor);
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(Duration::from_secs(1));
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                interval.tick().await;
                let Some(supervisor) = ticking.upgrade() else { return };
                supervisor.tick();
            }
        });
        supervisor
    }
}

impl Service for Flows {
    fn start(self: Box<Self>, context: Context) -> Arc<dyn Running> {
        self.supervisor(context)
    }
}

/// The flows of a module.
pub(super) struct Supervisor {
    environment: Environment,
    supports: Supports,
    /// How long endpoints have at the end.
    stop: Duration,
    present: Mutex<Present>,
    memory: Memory,
    /// Documents are applied one after the other.
    applying: tokio::sync::Mutex<()>,
}

/// What runs now.
#[derive(Default)]
pub(super) struct Present {
    pub(super) flows: BTreeMap<String, Flow>,
    pub(super) public_host: Option<String>,
    /// Top-level properties of the service.
    properties: Map<String, Value>,
    /// The version of the last document.
    version: Option<i64>,
    ticked: Option<Instant>,
    /// The process ends: nothing starts any more.
    stopping: bool,
}

/// Why a flow was not restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotRestarted {
    NoSuchFlow,
    Stopping,
}

impl Present {
    fn configs(&self) -> BTreeMap<String, Arc<FlowConfig>> {
        self.flows.iter().map(|(name, flow)| (name.clone(), flow.config.clone())).collect()
    }

    fn startable(&mut self, name: &str) -> Result<&mut Flow, NotRestarted> {
        if self.stopping {
            return Err(NotRestarted::Stopping);
        }
        self.flows.get_mut(name).ok_or(NotRestarted::NoSuchFlow)
    }
}

impl Supervisor {
    pub(super) fn module(&self) -> &Arc<Module> {
        &self.environment.module
    }

    pub(super) fn extension(&self) -> Option<&Arc<dyn Extension>> {
        self.module().any_extension()
    }

    /// Hands the service its own properties, before any flow is started or changed.
    fn configure(&self, properties: Map<String, Value>) {
        if let Some(extension) = self.extension() {
            extension.configure(&properties);
        }
        self.present().properties = properties;
    }

    pub(super) fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        let now = Instant::now();
        let mut present = self.present();
        let seconds = present.ticked.replace(now).map_or(1.0, |before| (now - before).as_secs_f64());
        for flow in present.flows.values_mut() {
            flow.tick(now, seconds);
        }
    }

    /// The flows that can run side by side, out of what is wanted and what ran until now.
    ///
    /// A flow that is bad in the new document keeps its last good version. What runs as it is wanted stays,
    /// and what is new has to fit beside it: a change to one flow never costs another.
    fn settle(
        &self,
        mut wanted: BTreeMap<String, Arc<FlowConfig>>,
        errors: &mut BTreeMap<String, String>,
    ) -> BTreeMap<String, Arc<FlowConfig>> {
        let running = self.present().configs();
        for name in errors.keys() {
            if let Some(config) = running.get(name) {
                wanted.entry(name.clone()).or_insert_with(|| config.clone());
            }
        }
        let stays = |name: &String, config: &Arc<FlowConfig>| running.get(name) == Some(config);
        let (first, others): (Vec<_>, Vec<_>) = wanted.iter().partition(|(name, config)| stays(name, config));
        let mut claims = Claims::default();
        let mut settled = BTreeMap::new();
        for (name, config) in first.into_iter().chain(others) {
            let mut fitting = Some(config);
            if let Err(why) = claims.add(config) {
                let error = format!("flows.{name}: another flow runs there and stays ({})", why.sentence());
                errors.entry(name.clone()).or_insert(error);
                // Where that does not fit any more either, nothing is left to run.
                fitting = running.get(name).filter(|last_good| claims.add(last_good).is_ok());
            }
            settled.extend(fitting.map(|config| (name.clone(), config.clone())));
        }
        settled
    }

    /// Makes `wanted` run; `false` where the process ends before.
    async fn run(
        &self,
        wanted: BTreeMap<String, Arc<FlowConfig>>,
        errors: &BTreeMap<String, String>,
    ) -> bool {
        if self.present().stopping {
            return false;
        }
        if let Some(extension) = self.extension() {
            extension.flows(&wanted);
        }
        let (diff, stopping) = {
            let mut present = self.present();
            if present.stopping {
                return false;
            }
            let diff = Diff::between(&present.configs(), &wanted);
            let mut stopping = Vec::new();
            for name in &diff.removed {
                if let Some(mut flow) = present.flows.remove(name) {
                    stopping.extend(flow.stop());
                    tracing::info!(flow = %name, "flow removed");
                    if flow.config.enabled {
                        self.tell(EventKind::FlowStopped, name, "removed from the configuration");
                    }
                }
            }
            for (name, change) in &diff.changed {
                if let (Some(flow), Some(config)) = (present.flows.get_mut(name), wanted.get(name)) {
                    stopping.extend(flow.stop_changed(change, config));
                    if change.enabled && !config.enabled {
                        self.tell(EventKind::FlowStopped, name, "disabled");
                    }
                }
            }
            (diff, stopping)
        };
        join(stopping).await;
        let mut present = self.present();
        if present.stopping {
            return false;
        }
        let version = present.version;
        for (name, config) in wanted {
            let is_enabled = config.enabled;
            if let Some(flow) = present.flows.get_mut(&name) {
                if let Some(change) = diff.changed.get(&name) {
                    if !change.is_cosmetic() {
                        tracing::info!(flow = %name, "flow changed");
                    }
                    if change.enabled && is_enabled {
                        self.tell(EventKind::FlowStarted, &name, "enabled");
                    }
                    flow.start_missing(config);
                }
            } else {
                tracing::info!(flow = %name, enabled = is_enabled, "flow added");
                let flow = Flow::start(self.environment.clone(), config);
                present.flows.insert(name.clone(), flow);
                if is_enabled {
                    self.tell(EventKind::FlowStarted, &name, "added to the configuration");
                }
            }
            if let Some(flow) = present.flows.get_mut(&name) {
                flow.using_version = if errors.contains_key(&name) {
                    flow.good_version
                } else {
                    flow.good_version = version;
                    None
                };
            }
        }
        true
    }

    fn tell(&self, event: EventKind, flow: &str, detail: &str) {
        self.module().emit(event, flow, None, detail);
    }

    /// A document that can't be told apart: everything runs on as it was, of an older version.
    fn reject(&self, errors: BTreeMap<String, String>) -> Outcome {
        let kept = {
            let mut present = self.present();
            present.flows.values_mut().for_each(|flow| flow.using_version = flow.good_version);
            present.flows.len()
        };
        self.environment.changes.tick();
        Outcome { status: ConfigStatus::Rejected, errors, kept, ..Outcome::default() }
    }

    /// The answer to a document that the end of the process leaves aside. The state dir keeps what ran before.
    fn too_late(&self) -> Outcome {
        let why = "not applied: the module is stopping".to_owned();
        Outcome {
            status: ConfigStatus::Rejected,
            errors: BTreeMap::from([(config::MODULE.to_owned(), why)]),
            kept: self.present().flows.len(),
            ..Outcome::default()
        }
    }

    async fn take(&self, desired: &Map<String, Value>) -> Outcome {
        let _one = self.applying.lock().await;
        if self.present().stopping {
            return self.too_late();
        }
        let parsed = parse(desired, &self.supports);
        let version = desired.get("$version").and_then(Value::as_i64);
        if parsed.rejected.is_some() {
            return self.reject(parsed.errors);
        }
        let mut errors = parsed.errors;
        let (wanted_flows, good) = (parsed.wanted, parsed.flows.len());
        {
            let mut present = self.present();
            present.version = version;
            present.public_host.clone_from(&parsed.public_host);
        }
        self.configure(parsed.properties);
        self.module().listeners.set_max_connections(parsed.max_connections);
        self.module().set_cache_megabytes(parsed.cache_megabytes);
        let wanted = self.settle(parsed.flows, &mut errors);
        if !self.run(wanted, &errors).await {
            return self.too_late();
        }
        let (running, content) = {
            let present = self.present();
            let host = parsed.public_host.as_deref();
            (
                present.configs(),
                remembered::document(
                    &present.flows,
                    host,
                    parsed.max_connections,
                    parsed.cache_megabytes,
                    &present.properties,
                ),
            )
        };
        let kept = errors.keys().filter(|name| running.contains_key(*name)).count();
        let usable = running.len().saturating_sub(kept);
        // What is wrong beside the flows leaves the rest of the document in force. A flow whose name can't be a key is
        // told of there too, and is a flow all the same.
        let status = match (errors.is_empty(), wanted_flows > 0 && good == 0) {
            (true, _) => ConfigStatus::Applied,
            (false, true) => ConfigStatus::Rejected,
            (false, false) => ConfigStatus::Partial,
        };
        // Nothing good has come yet: the next start must not take that for a last good configuration.
        if status != ConfigStatus::Rejected || self.memory.has_any() {
            self.memory.remember(self.module().context.state.clone(), content).await;
        }
        self.environment.changes.tick();
        Outcome { status, errors, usable, kept, settings: Some(parsed.settings) }
    }

    async fn recall(&self) -> bool {
        let _one = self.applying.lock().await;
        let (state, supports) = (self.module().context.state.clone(), self.supports.clone());
        let recalled = tokio::task::spawn_blocking(move || remembered::recall(&state, &supports)).await;
        let Some((desired, versions)) = recalled.ok().flatten() else { return false };
        self.memory.found();
        if self.present().stopping {
            return false;
        }
        for why in desired.errors.values() {
            tracing::warn!("the last good configuration is no longer valid: {why}");
        }
        let (any, is_whole) = (!desired.flows.is_empty(), desired.errors.is_empty());
        self.present().public_host.clone_from(&desired.public_host);
        self.configure(desired.properties);
        self.module().listeners.set_max_connections(desired.max_connections);
        self.module().set_cache_megabytes(desired.cache_megabytes);
        let mut errors = desired.errors;
        let wanted = self.settle(desired.flows, &mut errors);
        if any {
            tracing::info!(flows = wanted.len(), "starting with the last good configuration");
        }
        if !self.run(wanted, &errors).await {
            return false;
        }
        for (name, flow) in &mut self.present().flows {
            flow.good_version = versions.get(name).copied();
            flow.using_version = None;
        }
        self.environment.changes.tick();
        // A document without flows is as good as any other.
        any || is_whole
    }

    /// Stops a flow and starts it anew.
    pub(super) async fn restart(&self, name: &str) -> Result<(), NotRestarted> {
        let _one = self.applying.lock().await;
        let stopping = self.present().startable(name)?.stop();
        join(stopping).await;
        let mut present = self.present();
        let flow = present.startable(name)?;
        let config = flow.config.clone();
        flow.start_missing(config);
        tracing::info!(flow = %name, "flow restarted");
        self.environment.changes.tick();
        Ok(())
    }
}

/// Waits for endpoints to end, but not for long: who takes the place of one that needs more waits for it alone.
async fn join(ending: Vec<Ended>) {
    let all = futures_util::future::join_all(ending.iter().map(Ended::wait));
    if tokio::time::timeout(GRACE, all).await.is_err() {
        for late in ending.iter().filter(|ending| !ending.is_over()) {
            tracing::warn!("{} has not ended yet; its replacement waits for it", late.place());
        }
    }
}

impl Running for Supervisor {
    fn restore(&self) -> BoxFuture<'_, bool> {
        Box::pin(self.recall())
    }

    fn newest_version(&self) -> Option<i64> {
        self.present().flows.values().filter_map(|flow| flow.good_version).max()
    }

    fn apply(&self, desired: Map<String, Value>) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.take(&desired).await })
    }

    fn reported(&self) -> Map<String, Value> {
        status::reported(self)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.environment.changes.subscribe()
    }

    fn status(&self) -> Map<String, Value> {
        status::all(self)
    }

    fn method<'a>(&'a self, name: &'a str, payload: Value) -> BoxFuture<'a, Option<MethodReply>> {
        Box::pin(status::method(self, name, payload))
    }

    fn wants_inputs(&self) -> bool {
        self.extension().is_some_and(|extension| extension.wants_inputs())
    }

    fn input<'a>(&'a self, name: &'a str, payload: Value) -> BoxFuture<'a, ()> {
        match self.extension() {
            Some(extension) => extension.input(name, payload),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn metrics(&self) -> Vec<MetricFamily> {
        let mut families = match metrics::families(self.present().flows.values_mut()) {
            Ok(families) => families,
            Err(error) => {
                tracing::error!("metrics can't be made: {error}");
                Vec::new()
            }
        };
        families.extend(self.module().latency.collect());
        families.extend(self.extension().map(|extension| extension.metrics()).unwrap_or_default());
        families
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let began = Instant::now();
            {
                // Nobody is waited for before peers are told. Whoever applies a document meanwhile starts endpoints
                // under this lock only, and finds the flag set.
                let mut present = self.present();
                present.stopping = true;
                present.flows.values_mut().for_each(|flow| drop(flow.stop()));
            }
            // Those too whose flow or instance is gone already.
            let ending = self.environment.places.taken();
            let all = futures_util::future::join_all(ending.iter().map(Ended::wait));
            // A document that runs already is written to the state dir, unless that takes too long.
            let written = tokio::time::timeout(self.stop / 3, async {
                let _applied = self.applying.lock().await;
                self.memory.written().await;
            });
            let (ended, _) = tokio::join!(tokio::time::timeout(self.stop, all), written);
            if ended.is_err() {
                for late in ending.iter().filter(|ending| !ending.is_over()) {
                    tracing::warn!("{} did not end within {} s", late.place(), self.stop.as_secs_f32());
                }
            }
            if let Some(extension) = self.extension() {
                let left = MOST_STOP.saturating_sub(began.elapsed());
                if tokio::time::timeout(left, extension.shutdown()).await.is_err() {
                    tracing::warn!("the service did not finish within {} s", MOST_STOP.as_secs());
                }
            }
            // Endpoints have ended; their peers are still being told.
            self.module().listeners.drained(FAREWELL.saturating_sub(began.elapsed())).await;
        })
    }
}

#[cfg(test)]
mod tests;
