//! A pattern flow: one line for each published name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::counters::Counters;
use super::line::{Line, settings};
use super::task::{Ended, Environment, Task};
use crate::config::{FlowConfig, valid_instance_name};
use crate::endpoint::InputContext;
use crate::ingest::{Instances, NoInstance};
use crate::stream::{InputStatus, KickReason};

/// An instance without publisher and without players goes after that long.
const IDLE: Duration = Duration::from_secs(60);
/// For a publisher that is on its way in.
const GRACE: Duration = Duration::from_secs(1);

/// See the module's text.
pub(super) struct Pattern {
    pub(super) shared: Arc<Shared>,
    /// State of the listening itself.
    pub(super) status: Arc<InputStatus>,
    listen: Option<Task>,
}

pub(super) struct Shared {
    environment: Environment,
    state: Mutex<Names>,
}

struct Names {
    config: Arc<FlowConfig>,
    lines: BTreeMap<String, Instance>,
    /// The flow does not run: no instance starts.
    stopped: bool,
    refused: u64,
    /// What instances counted that are gone.
    retired: Counters,
}

struct Instance {
    line: Line,
    /// Fires before the line ends, for publishers that are being let in.
    gone: CancellationToken,
    /// Since when it has neither publisher nor players.
    idle: Option<Instant>,
}

impl Instance {
    /// What it counted, and what is ending.
    fn stop(mut self) -> (Counters, Vec<Ended>) {
        self.gone.cancel();
        self.line.stream.kick(KickReason::Reconfigured);
        (Counters::of(&self.line).without_clients(), self.line.stop())
    }
}

impl Pattern {
    /// One at rest.
    pub(super) fn new(environment: Environment, config: Arc<FlowConfig>) -> Self {
        let status = InputStatus::new(environment.changes.clone());
        let names =
            Names { config, lines: BTreeMap::new(), stopped: true, refused: 0, retired: Counters::default() };
        Self { shared: Arc::new(Shared { environment, state: Mutex::new(names) }), status, listen: None }
    }

    /// Starts to listen unless it does.
    pub(super) fn start(&mut self) {
        if self.listen.is_some() {
            return;
        }
        let config = {
            let mut names = self.shared.lock();
            names.stopped = false;
            names.config.clone()
        };
        // The listener reports into this flow's own status; frames go to the instances' streams.
        let line = Line::new(self.shared.environment.clone(), &config, None);
        let instances: Arc<dyn Instances> = self.shared.clone();
        let context = InputContext {
            status: self.status.clone(),
            instances: Some(instances),
            ..line.input_context(&config.input, CancellationToken::new())
        };
        self.listen = Some(line.spawn_input(context, &config.input));
    }

    /// Stops the listening, as it is to be another one; publishers come back to that one.
    pub(super) fn stop_listening(&mut self) -> Option<Ended> {
        let ended = self.listen.take().map(Task::stop);
        for instance in self.shared.lock().lines.values() {
            instance.line.stream.kick(KickReason::Reconfigured);
        }
        ended
    }

    pub(super) fn stop(&mut self) -> Vec<Ended> {
        let mut ending: Vec<_> = self.listen.take().map(Task::stop).into_iter().collect();
        let mut names = self.shared.lock();
        names.stopped = true;
        for instance in std::mem::take(&mut names.lines).into_values() {
            let (counted, instance) = instance.stop();
            names.retired.add(&counted);
            ending.extend(instance);
        }
        ending
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Names> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops what differs in every instance; [`configure`](Self::configure) starts it anew. Instances that come
    /// meanwhile are of the new configuration.
    pub(super) fn stop_changed_outputs(&self, config: &Arc<FlowConfig>) -> Vec<Ended> {
        let mut names = self.lock();
        names.config = config.clone();
        let stop = |(name, instance): (&String, &mut Instance)| {
            instance.line.stop_changed_outputs(&config.instance_outputs(name))
        };
        names.lines.iter_mut().flat_map(stop).collect()
    }

    pub(super) fn configure(&self, config: Arc<FlowConfig>) {
        let mut names = self.lock();
        for (name, instance) in &mut names.lines {
            instance.line.stream.configure(settings(&config.input));
            instance.line.start_outputs(&config.instance_outputs(name));
        }
        names.retired.retain_outputs(&config.outputs);
        names.config = config;
    }

    /// Runs `look` over the running instances by name; also: how many publishers were refused, and what
    /// instances counted that are gone.
    pub(super) fn look<T>(&self, mut look: impl FnMut(&str, &Line) -> T) -> (Vec<T>, u64, Counters) {
        let names = self.lock();
        let seen = names.lines.iter().map(|(name, instance)| look(name, &instance.line)).collect();
        (seen, names.refused, names.retired.clone())
    }

    /// Once a second: streams' own clocks, and instances that nobody needs any more.
    pub(super) fn tick(&self, now: Instant, seconds: f64) {
        let mut names = self.lock();
        let (hold, hold_for) = (names.config.input.hold, names.config.input.hold_for);
        let mut gone = Vec::new();
        for (name, instance) in &mut names.lines {
            instance.line.tick(now, seconds);
            if instance.line.stream.has_publisher() {
                instance.idle = None;
                continue;
            }
            let Some(since) = instance.idle else {
                // Its publisher may be on its way in: one tick of grace.
                instance.idle = Some(now);
                continue;
            };
            let idle = now.saturating_duration_since(since);
            let held = hold && hold_for.is_none_or(|hold| idle < hold);
            if !held || (idle >= IDLE && instance.line.clients() == 0) {
                gone.push(name.clone());
            }
        }
        for name in gone {
            self.end(&mut names, &name);
        }
    }

    fn end(&self, names: &mut Names, name: &str) {
        if let Some(instance) = names.lines.remove(name) {
            tracing::info!(flow = %names.config.name, %name, "instance ended: nobody publishes it");
            // Its endpoints keep their places until they have ended: an instance of that name that comes
            // meanwhile waits for them.
            let (counted, _) = instance.stop();
            names.retired.add(&counted);
            self.environment.changes.tick();
        }
    }

    /// Ends the instance that has been without publisher and players for longest: what waits for somebody to come back
    /// keeps nobody out.
    fn make_room(&self, names: &mut Names) -> bool {
        let now = Instant::now();
        let unused = |instance: &Instance| {
            let since = instance.idle.filter(|since| now.saturating_duration_since(*since) >= GRACE)?;
            let is_used = instance.line.stream.has_publisher() || instance.line.clients() > 0;
            (!is_used).then_some(since)
        };
        let idle = names.lines.iter().filter_map(|(name, instance)| Some((unused(instance)?, name.clone())));
        let Some((_, name)) = idle.min() else { return false };
        self.end(names, &name);
        true
    }

    fn refuse(&self, names: &mut Names, why: NoInstance) -> NoInstance {
        names.refused += 1;
        self.environment.changes.tick();
        why
    }
}

impl Instances for Shared {
    fn open(&self, name: &str) -> Result<InputContext, NoInstance> {
        let mut names = self.lock();
        if names.stopped {
            return Err(NoInstance::Over);
        }
        let config = names.config.clone();
        if !valid_instance_name(name) {
            return Err(self.refuse(&mut names, NoInstance::BadName));
        }
        if !names.lines.contains_key(name) {
            let most = config.input.max_instances;
            if names.lines.len() >= most && !self.make_room(&mut names) {
                return Err(self.refuse(&mut names, NoInstance::Full(most)));
            }
            let mut line = Line::new(self.environment.clone(), &config, Some(name));
            line.start_outputs(&config.instance_outputs(name));
            tracing::info!(flow = %config.name, %name, "instance started");
            let instance = Instance { line, gone: CancellationToken::new(), idle: None };
            names.lines.insert(name.to_owned(), instance);
            self.environment.changes.tick();
        }
        let instance = names.lines.get_mut(name).ok_or(NoInstance::Over)?;
        instance.idle = None;
        Ok(instance.line.input_context(&config.input, instance.gone.clone()))
    }
}
