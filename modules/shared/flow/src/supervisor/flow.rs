//! One flow as it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::counters::Counters;
use super::line::Line;
use super::pattern::Pattern;
use super::task::{Ended, Environment};
use crate::config::{FlowConfig, FlowDiff, InputConfig, Role};
use crate::stream::State;
use crate::trouble::Reason;

/// State of a flow, as reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlowState {
    Disabled,
    Waiting,
    Running,
    Retrying,
    Failed,
}

impl FlowState {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
        }
    }

    /// The value of `av_flow_state`.
    pub(super) const fn metric(self) -> i64 {
        match self {
            Self::Disabled => 0,
            Self::Waiting => 1,
            Self::Running => 2,
            Self::Retrying => 3,
            Self::Failed => 4,
        }
    }

    /// A flow's state follows from its endpoints'.
    fn of(input: State, outputs: &[State]) -> Self {
        let all_failed = !outputs.is_empty() && outputs.iter().all(|state| *state == State::Failed);
        let troubled = |state: &State| matches!(state, State::Retrying | State::Failed);
        if input == State::Failed || all_failed {
            Self::Failed
        } else if input == State::Retrying || outputs.iter().any(troubled) {
            Self::Retrying
        } else if input == State::Waiting {
            Self::Waiting
        } else {
            Self::Running
        }
    }
}

/// A flow, running or disabled.
pub(super) struct Flow {
    pub(super) config: Arc<FlowConfig>,
    /// The desired version that `config` is from, where a newer one is bad.
    pub(super) using_version: Option<i64>,
    /// The last desired version in which this flow was good.
    pub(super) good_version: Option<i64>,
    /// Its endpoints run only where the flow is enabled. What they counted stays.
    pub(super) body: Body,
    environment: Environment,
    /// What was counted by bodies of the other kind.
    retired: Counters,
    state: FlowState,
    pub(super) since: SystemTime,
}

pub(super) enum Body {
    Line(Box<Line>),
    Pattern(Pattern),
}

impl Body {
    /// One at rest.
    fn of(environment: &Environment, config: &Arc<FlowConfig>) -> Self {
        if config.is_pattern() {
            Self::Pattern(Pattern::new(environment.clone(), config.clone()))
        } else {
            Self::Line(Box::new(Line::new(environment.clone(), config, None)))
        }
    }
}

impl Flow {
    /// Starts a flow.
    pub(super) fn start(environment: Environment, config: Arc<FlowConfig>) -> Self {
        let mut flow = Self {
            body: Body::of(&environment, &config),
            environment,
            retired: Counters::default(),
            state: if config.enabled { FlowState::Waiting } else { FlowState::Disabled },
            since: SystemTime::now(),
            config,
            using_version: None,
            good_version: None,
        };
        flow.start_missing(flow.config.clone());
        flow
    }

    /// Stops what `config` has otherwise or not at all; [`start_missing`](Self::start_missing) follows, best when
    /// that has ended.
    pub(super) fn stop_changed(&mut self, diff: &FlowDiff, config: &Arc<FlowConfig>) -> Vec<Ended> {
        if diff.enabled || config.is_pattern() != self.config.is_pattern() {
            return self.stop();
        }
        let replaced = diff.input && !goes_on(&self.config.input, &config.input);
        match &mut self.body {
            Body::Line(line) => {
                let mut ending = line.stop_changed_outputs(&config.outputs);
                ending.extend(replaced.then(|| line.stop_input()).flatten());
                ending
            }
            Body::Pattern(pattern) => {
                let mut ending = pattern.shared.stop_changed_outputs(config);
                ending.extend(replaced.then(|| pattern.stop_listening()).flatten());
                ending
            }
        }
    }

    /// Starts whatever `config` has and does not run yet.
    pub(super) fn start_missing(&mut self, config: Arc<FlowConfig>) {
        if config.is_pattern() != matches!(self.body, Body::Pattern(_)) {
            self.retired = self.counters().without_clients();
            self.body = Body::of(&self.environment, &config);
        }
        self.retired.retain_outputs(&config.outputs);
        self.config = config.clone();
        if !config.enabled {
            return;
        }
        match &mut self.body {
            Body::Line(line) => {
                line.start_outputs(&config.outputs);
                line.start_input(&config.input);
            }
            Body::Pattern(pattern) => {
                pattern.shared.configure(config);
                pattern.start();
            }
        }
    }

    pub(super) fn stop(&mut self) -> Vec<Ended> {
        match &mut self.body {
            Body::Line(line) => line.stop(),
            Body::Pattern(pattern) => pattern.stop(),
        }
    }

    /// The state of this moment. A change is logged and dated once, here.
    pub(super) fn state(&mut self) -> FlowState {
        let state = self.observe();
        if state != self.state {
            let flow = &self.config.name;
            match state {
                FlowState::Failed | FlowState::Retrying => {
                    tracing::warn!(%flow, "flow is {}", state.as_str())
                }
                _ => tracing::info!(%flow, "flow is {}", state.as_str()),
            }
            self.state = state;
            self.since = SystemTime::now();
        }
        state
    }

    fn observe(&self) -> FlowState {
        let states = |line: &Line| -> Vec<State> {
            line.outputs.values().map(|output| output.status.status.get().state).collect()
        };
        if !self.config.enabled {
            return FlowState::Disabled;
        }
        match &self.body {
            Body::Line(line) => FlowState::of(line.stream.input().status.get().state, &states(line)),
            Body::Pattern(pattern) => {
                let listening = pattern.status.status.get().state;
                let look = |_: &str, line: &Line| {
                    FlowState::of(line.stream.input().status.get().state, &states(line))
                };
                let (instances, ..) = pattern.shared.look(look);
                if listening != State::Waiting {
                    FlowState::of(listening, &[])
                } else if instances
                    .iter()
                    .any(|state| matches!(state, FlowState::Retrying | FlowState::Failed))
                {
                    FlowState::Retrying
                } else if instances.contains(&FlowState::Running) {
                    FlowState::Running
                } else {
                    FlowState::Waiting
                }
            }
        }
    }

    /// What the flow counted, over all instances.
    pub(super) fn counters(&self) -> Counters {
        let mut total = self.retired.clone();
        match &self.body {
            Body::Line(line) => total.add(&Counters::of(line)),
            Body::Pattern(pattern) => {
                let (running, _, retired) = pattern.shared.look(|_, line| Counters::of(line));
                running.iter().chain([&retired]).for_each(|counters| total.add(counters));
            }
        }
        total
    }

    /// Every endpoint, and what is wrong with it now; the empty name is the input. Of a pattern flow's instances one
    /// that is in trouble speaks for all.
    pub(super) fn troubles(&self) -> BTreeMap<String, Option<Reason>> {
        let mut troubles = BTreeMap::new();
        if !self.config.enabled {
            return troubles;
        }
        let mut add = |name: &str, reason: Option<Reason>| {
            let found: &mut Option<Reason> = troubles.entry(name.to_owned()).or_default();
            *found = found.or(reason);
        };
        match &self.body {
            Body::Line(line) => line.troubles().for_each(|(name, reason)| add(name, reason)),
            Body::Pattern(pattern) => {
                add("", pattern.status.status.get().trouble.map(|trouble| trouble.reason));
                pattern.shared.look(|_, line| line.troubles().for_each(|(name, reason)| add(name, reason)));
            }
        }
        troubles
    }

    /// Once a second; `seconds` since the last time.
    pub(super) fn tick(&mut self, now: Instant, seconds: f64) {
        match &mut self.body {
            Body::Line(line) => line.tick(now, seconds),
            Body::Pattern(pattern) => pattern.shared.tick(now, seconds),
        }
        self.state();
    }
}

/// Whether an input goes on: only what the stream does with its frames differs. A listener leaves the idle time-out to
/// the stream; others are told of it when they start.
fn goes_on(old: &InputConfig, new: &InputConfig) -> bool {
    let is_told = new.endpoint.role() == Role::Listen || old.idle_timeout == new.idle_timeout;
    old.endpoint == new.endpoint && old.on_demand == new.on_demand && is_told
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Failed, Retrying, Running, Waiting};

    #[test]
    fn a_flows_state_follows_from_its_endpoints() {
        let cases: [(State, &[State], FlowState); 8] = [
            (Failed, &[Running], FlowState::Failed),
            (Running, &[Failed, Failed], FlowState::Failed),
            (Running, &[Failed, Running], FlowState::Retrying),
            (Retrying, &[Waiting], FlowState::Retrying),
            (Waiting, &[Retrying], FlowState::Retrying),
            (Waiting, &[Waiting], FlowState::Waiting),
            (Running, &[Running, Waiting], FlowState::Running),
            (Running, &[], FlowState::Running),
        ];
        for (input, outputs, expected) in cases {
            assert_eq!(FlowState::of(input, outputs), expected, "{input:?} {outputs:?}");
        }
    }
}
