//! A stream with its outputs: one flow, or one instance of a pattern flow.

use std::collections::BTreeMap;
use std::iter;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{FlowConfig, InputConfig, OutputConfig};
use crate::endpoint::{InputContext, Module, OutputContext};
use crate::stream::{Changes, InputStatus, OutputStatus, Settings, State, Status, Stream};
use crate::trouble::{Reason, Trouble};

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

/// An endpoint that runs.
pub(super) struct Task {
    cancel: CancellationToken,
    handle: JoinHandle<()>,
}

impl Task {
    /// Runs `endpoint` until it ends by itself or is stopped. A panic in it is this endpoint's failure alone.
    pub(super) fn spawn(
        cancel: CancellationToken,
        endpoint: impl Future<Output = ()> + Send + 'static,
        path: Arc<str>,
        fail: impl FnOnce(Trouble) + Send + 'static,
    ) -> Self {
        // No async block: that would hold the endpoint twice, as captured and as awaited, a few kilobytes each.
        let guarded = AssertUnwindSafe(endpoint).catch_unwind().map(move |ended| {
            if ended.is_err() {
                tracing::error!(%path, "internal error: this endpoint has stopped; restart the flow and report it");
                let text = format!("{path}: internal error; call restartFlow");
                fail(Trouble::new(Reason::Internal, text));
            }
        });
        Self { cancel, handle: tokio::spawn(guarded) }
    }

    /// Asks it to end; the handle tells when it has.
    pub(super) fn stop(self) -> JoinHandle<()> {
        self.cancel.cancel();
        self.handle
    }
}

/// One output of a line.
pub(super) struct Output {
    pub(super) config: OutputConfig,
    pub(super) status: Arc<OutputStatus>,
    task: Option<Task>,
    /// `status.bytes` at the last tick.
    counted: u64,
}

/// See the module's text.
pub(super) struct Line {
    pub(super) module: Arc<Module>,
    pub(super) flow: Arc<str>,
    pub(super) stream: Stream,
    /// Boxed: a map's node has room for eleven, and most flows have one.
    pub(super) outputs: BTreeMap<String, Box<Output>>,
    /// What outputs counted that are being changed: they count on.
    counted: BTreeMap<String, Arc<OutputStatus>>,
    changes: Changes,
    input: Option<Task>,
}

impl Line {
    /// A line at rest.
    pub(super) fn new(module: Arc<Module>, config: &FlowConfig, changes: Changes) -> Self {
        let stream = Stream::new(settings(&config.input), InputStatus::new(changes.clone()));
        let flow = config.name.as_str().into();
        Self {
            module,
            flow,
            stream,
            outputs: BTreeMap::new(),
            counted: BTreeMap::new(),
            changes,
            input: None,
        }
    }

    /// For an input endpoint of this line.
    pub(super) fn input_context(&self, input: &InputConfig, cancel: CancellationToken) -> InputContext {
        InputContext {
            module: self.module.clone(),
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
        if self.input.is_some() {
            return;
        }
        let cancel = CancellationToken::new();
        let context = self.input_context(config, cancel.clone());
        let (path, status) = (context.path.clone(), context.status.clone());
        let fail = move |why| fail(&status.status, why);
        self.input = Some(Task::spawn(cancel, config.endpoint.run(context), path, fail));
    }

    /// Starts every output of `outputs` that does not run.
    pub(super) fn start_outputs(&mut self, outputs: &BTreeMap<String, OutputConfig>) {
        for (name, output) in outputs {
            if !self.outputs.contains_key(name) {
                let counted = self.counted.remove(name);
                let status = counted.unwrap_or_else(|| OutputStatus::new(self.changes.clone()));
                let started = self.start_output(name, output, status);
                self.outputs.insert(name.clone(), Box::new(started));
            }
        }
        self.counted.clear();
    }

    fn start_output(&self, name: &str, config: &OutputConfig, status: Arc<OutputStatus>) -> Output {
        let cancel = CancellationToken::new();
        status.status.set(State::Waiting, None);
        let context = OutputContext {
            module: self.module.clone(),
            flow: self.flow.clone(),
            output: name.into(),
            path: format!("flows.{}.outputs.{name}", self.flow).into(),
            stream: self.stream.clone(),
            content: config.content,
            status: status.clone(),
            cancel: cancel.clone(),
        };
        let (path, failing) = (context.path.clone(), status.clone());
        let fail = move |why| fail(&failing.status, why);
        let task = Task::spawn(cancel, config.endpoint.run(context), path, fail);
        let counted = status.bytes.load(Ordering::Relaxed);
        Output { config: config.clone(), status, task: Some(task), counted }
    }

    /// Stops the input; the stream and its readers stay.
    pub(super) fn stop_input(&mut self) -> Option<JoinHandle<()>> {
        self.input.take().map(Task::stop)
    }

    /// Stops one output.
    pub(super) fn stop_output(&mut self, name: &str) -> Option<JoinHandle<()>> {
        self.outputs.remove(name)?.task.map(Task::stop)
    }

    /// Stops outputs that `outputs` does not have or has otherwise.
    pub(super) fn stop_changed_outputs(
        &mut self,
        outputs: &BTreeMap<String, OutputConfig>,
    ) -> Vec<JoinHandle<()>> {
        let differs = |name: &String, output: &Output| outputs.get(name) != Some(&output.config);
        let stale = self.outputs.iter().filter(|(name, output)| differs(name, output));
        let stale: Vec<_> = stale.map(|(name, _)| name.clone()).collect();
        let status = |name: &String| Some((name.clone(), self.outputs.get(name)?.status.clone()));
        self.counted = stale.iter().filter_map(status).collect();
        stale.iter().filter_map(|name| self.stop_output(name)).collect()
    }

    /// Stops everything.
    pub(super) fn stop(&mut self) -> Vec<JoinHandle<()>> {
        let names: Vec<_> = self.outputs.keys().cloned().collect();
        let outputs: Vec<_> = names.iter().filter_map(|name| self.stop_output(name)).collect();
        self.stop_input().into_iter().chain(outputs).collect()
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

fn fail(status: &Status, why: Trouble) {
    status.set(State::Failed, Some(why));
}
