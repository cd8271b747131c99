//! A service before it starts.

use std::sync::Arc;
use std::time::Duration;

use av_edge::Context;

use crate::config::{OptionSpec, Rule, Supports};
use crate::extension::Extension;
use crate::registry::{InputSpec, OutputSpec};
use crate::stream::Changes;

/// At the end of the process endpoints have so long where the service does not say otherwise.
const STOP: Duration = Duration::from_secs(5);
/// The most that a service may ask for: the process has to end within 8 s.
pub(super) const MOST_STOP: Duration = Duration::from_secs(6);

/// What is left of that to [`Extension::shutdown`] at least.
const LEAST_EXTENSION: Duration = Duration::from_millis(500);

/// Makes what a service has beside its endpoints. Whoever changes what is reported ticks the changes.
pub type StartExtension = fn(&Context, Changes) -> Arc<dyn Extension>;

/// A service before it starts: its name, the table of endpoints it supports, and what else it brings.
#[derive(Clone)]
pub struct Flows {
    pub(super) supports: Supports,
    pub(super) extension: Option<StartExtension>,
    /// How long endpoints have at the end.
    pub(super) stop: Duration,
}

impl Flows {
    /// A service without endpoints.
    pub fn new(module: &'static str) -> Self {
        Self { supports: Supports { module, ..Supports::default() }, extension: None, stop: STOP }
    }

    /// Adds an input that flows may have.
    pub fn input(mut self, input: InputSpec) -> Self {
        self.supports.inputs.push(input);
        self
    }

    /// Adds an output that flows may have.
    pub fn output(mut self, output: OutputSpec) -> Self {
        self.supports.outputs.push(output);
        self
    }

    /// Adds a top-level property that no other service has.
    pub fn property(mut self, property: OptionSpec) -> Self {
        self.supports.properties.push(property);
        self
    }

    /// Adds something that whole flows must be.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.supports.rules.push(rule);
        self
    }

    /// Adds what the service has beside its endpoints.
    pub fn extension(mut self, extension: StartExtension) -> Self {
        self.extension = Some(extension);
        self
    }

    /// How long endpoints may take to end when the process is told to: 5 s, and at most 5.5. Endpoints and
    /// [`Extension::shutdown`] together have 6 s.
    pub fn finish_within(mut self, stop: Duration) -> Self {
        self.stop = stop.min(MOST_STOP.saturating_sub(LEAST_EXTENSION));
        self
    }

    /// What documents of this service may hold.
    pub fn supports(&self) -> &Supports {
        &self.supports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_leave_half_a_second_to_what_the_service_ends_itself() {
        for asked in [STOP, MOST_STOP, Duration::MAX] {
            let flows = Flows::new("tester").finish_within(asked);
            assert!(flows.stop + Duration::from_millis(500) <= MOST_STOP, "{asked:?}");
        }
    }
}
