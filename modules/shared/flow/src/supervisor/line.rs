//! A stream with its outputs: one flow, or one instance of a pattern flow.

use std::collections::BTreeMap;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::on_demand::on_demand;
use super::task::{Ended, Environment, Task};
use crate::config::{FlowConfig, InputConfig, OutputConfig, Role};
use crate::endpoint::{InputContext, OutputContext};
use crate::net::unreadable::Watch;
use crate::stream::{InputStatus, OutputStatus, Settings, Status, Stream};
use crate::trouble::Reason;

/// What a flow's stream needs to know of its input's configuration.
pub(super) fn settings(input: &InputConfig) -> Settings {
    Settings {
        content: input.content,
        track_wait: input.track_wait,
        idle_timeout: input.idle_timeout,
        hold: input.hold,
        hold_for: input.hold_for,
    }
}

/// One output of a line. It outlives its task, and what it counted its configuration.
pub(super) struct Output {
    pub(super) config: OutputConfig,
    pub(super) status: Arc<OutputStatus>,
    task: Option<Task>,
    /// `status.bytes` at the last tick.
    counted: u64,
}

/// See the module's text.
pub(super) struct Line {
    environment: Environment,
    flow: Arc<str>,
    /// Of a pattern's instance.
    instance: Option<Arc<str>>,
    pub(super) stream: Stream,
    /// Boxed: a map's node has room for eleven, and most flows have one.
    pub(super) outputs: BTreeMap<String, Box<Output>>,
    input: Option<Task>,
}

impl Line {
    /// A line at rest.
    pub(super) fn new(environment: Environment, config: &FlowConfig, instance: Option<&str>) -> Self {
        let input = InputStatus::new(environment.changes.clone());
        Self {
            flow: config.name.as_str().into(),
            instance: instance.map(Into::into),
            stream: Stream::new(settings(&config.input), input, &environment.module.cache),
            environment,
            outputs: BTreeMap::new(),
            input: None,
        }
    }

    /// For an input endpoint of this line.
    pub(super) fn input_context(&self, input: &InputConfig, cancel: CancellationToken) -> InputContext {
        InputContext {
            module: self.environment.module.clone(),
            flow: self.flow.clone(),
            path: format!("flows.{}.input", self.flow).into(),
            stream: self.stream.clone(),
            status: self.stream.input().clone(),
            idle_timeout: input.idle_timeout,
            instances: None,
            cancel,
        }
    }

    /// Starts the input unless it runs; what the stream does with its frames holds at once.
    pub(super) fn start_input(&mut self, config: &InputConfig) {
        self.stream.configure(settings(config));
        if self.input.is_none() {
            let context = self.input_context(config, CancellationToken::new());
            self.input = Some(self.spawn_input(context, config));
        }
    }

    /// Runs an input that reports into `context`.
    pub(super) fn spawn_input(&self, context: InputContext, config: &InputConfig) -> Task {
        let (path, cancel, endpoint) =
            (context.path.clone(), context.cancel.clone(), config.endpoint.clone());
        let shown = (path.clone(), context.status.clone());
        let sleeps = config.on_demand;
        let (watch, auth) = (self.watch(&path, &context.status), config.auth.clone());
        Task::spawn(&self.environment.places, self.place(&path), cancel, shown, move || {
            if sleeps {
                Box::pin(on_demand(move |context| endpoint.run(context), context))
            } else {
                watch.over(auth, endpoint.run(context))
            }
        })
    }

    /// Starts every output of `outputs` that does not run as it is there, and stops and forgets all others.
    pub(super) fn start_outputs(&mut self, outputs: &BTreeMap<String, OutputConfig>) {
        self.outputs.retain(|name, _| outputs.contains_key(name));
        for (name, config) in outputs {
            let present = self.outputs.get(name);
            if present.is_some_and(|output| output.task.is_some() && output.config == *config) {
                continue;
            }
            // One that runs otherwise is replaced below: dropped, it ends, and the new one waits for that.
            let status = present.map(|output| output.status.clone());
            let status = status.unwrap_or_else(|| OutputStatus::new(self.environment.changes.clone()));
            let started = self.start_output(name, config, status);
            self.outputs.insert(name.clone(), Box::new(started));
        }
    }

    fn start_output(&self, name: &str, config: &OutputConfig, status: Arc<OutputStatus>) -> Output {
        let cancel = CancellationToken::new();
        let context = OutputContext {
            module: self.environment.module.clone(),
            flow: self.flow.clone(),
            output: name.into(),
            path: format!("flows.{}.outputs.{name}", self.flow).into(),
            of_instance: self.instance.is_some(),
            stream: self.stream.clone(),
            content: config.content,
            status: status.clone(),
            cancel: cancel.clone(),
        };
        let (place, shown) = (self.place(&context.path), (context.path.clone(), status.clone()));
        let (watch, auth) = (self.watch(&context.path, &status), config.auth.clone());
        let endpoint = config.endpoint.clone();
        // Players come and go; everything else wants the stream for as long as it runs.
        let want = (endpoint.role() != Role::Serve).then(|| self.stream.demand().want());
        let run = move || -> BoxFuture<'static, ()> {
            let running = watch.over(auth, endpoint.run(context));
            Box::pin(async move {
                let _want = want;
                running.await;
            })
        };
        let task = Task::spawn(&self.environment.places, place, cancel, shown, run);
        let counted = status.bytes.load(Ordering::Relaxed);
        Output { config: config.clone(), status, task: Some(task), counted }
    }

    /// What looks after the secrets of an endpoint's `auth`.
    fn watch<S: AsRef<Status>>(&self, path: &Arc<str>, status: &Arc<S>) -> Watch<S> {
        let secrets = self.environment.module.net.secrets().clone();
        Watch { secrets, path: path.clone(), status: status.clone() }
    }

    /// Where an endpoint runs: nobody else does.
    fn place(&self, path: &str) -> String {
        match &self.instance {
            Some(instance) => format!("{path} ({instance})"),
            None => path.to_owned(),
        }
    }

    /// Stops the input; the stream and its readers stay.
    pub(super) fn stop_input(&mut self) -> Option<Ended> {
        self.input.take().map(Task::stop)
    }

    /// Stops outputs that `outputs` does not have or has otherwise.
    pub(super) fn stop_changed_outputs(&mut self, outputs: &BTreeMap<String, OutputConfig>) -> Vec<Ended> {
        let changed =
            self.outputs.iter_mut().filter(|(name, output)| outputs.get(*name) != Some(&output.config));
        changed.filter_map(|(_, output)| output.task.take()).map(Task::stop).collect()
    }

    /// Stops everything. What was counted stays.
    pub(super) fn stop(&mut self) -> Vec<Ended> {
        let mut ending = self.stop_changed_outputs(&BTreeMap::new());
        ending.extend(self.stop_input());
        self.stream.end(Instant::now());
        ending
    }

    /// Once a second: the stream's own clock, and bit rates; `seconds` since the last time.
    pub(super) fn tick(&mut self, now: Instant, seconds: f64) {
        self.stream.tick(now);
        for output in self.outputs.values_mut() {
            let bytes = output.status.bytes.load(Ordering::Relaxed);
            let bits = bytes.saturating_sub(output.counted) as f64 * 8.0 / seconds.max(0.001);
            output.status.bitrate.store(bits as u64, Ordering::Relaxed);
            output.counted = bytes;
        }
    }

    /// Every endpoint, and what is wrong with it now; the empty name is the input.
    pub(super) fn troubles(&self) -> impl Iterator<Item = (&str, Option<Reason>)> {
        let input = ("", &self.stream.input().status);
        let outputs = self.outputs.iter().map(|(name, output)| (name.as_str(), &output.status.status));
        let reason = |status: &Status| status.get().trouble.map(|trouble| trouble.reason);
        iter::once(input).chain(outputs).map(move |(name, status)| (name, reason(status)))
    }

    /// Clients of all outputs.
    pub(super) fn clients(&self) -> usize {
        self.outputs.values().map(|output| output.status.clients.load(Ordering::Relaxed)).sum()
    }
}
