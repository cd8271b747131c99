//! Whole documents, as a module reads them.

mod access;
mod arbitrary;
mod conflicts;
mod defaults;
mod diff;
mod document;
mod endpoints;
mod patterns;
mod urls;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::{Claim, ConfigError, Desired, FlowConfig, ListenUrl, Options, Scheme, Supports, parse};
use crate::catalogue;
use crate::endpoint::{InputContext, OutputContext};
use crate::registry::{EndpointSpec, Input, InputSpec, Output, OutputSpec};
use crate::rtmp;
use crate::supervisor::Flows;

/// A module that has what is in this crate.
pub(super) fn splitter() -> Supports {
    let flows = Flows::new("rtmp-splitter").input(rtmp::LISTEN).input(rtmp::PULL);
    flows.output(rtmp::SERVE).output(rtmp::PUSH).supports().clone()
}

/// A module that reads files instead.
pub(super) fn source() -> Supports {
    let flows = Flows::new("mp4-source").input(InputSpec::of::<Tape>());
    flows.output(rtmp::SERVE).output(rtmp::PUSH).supports().clone()
}

/// An input of somebody else: a file.
#[derive(Clone, Debug, PartialEq)]
struct Tape(PathBuf);

impl Input for Tape {
    const SPEC: EndpointSpec = catalogue::ENDPOINTS[4].spec;

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        options.file_path().map(Self)
    }

    fn run(self, _context: InputContext) -> impl Future<Output = ()> + Send + 'static {
        std::future::pending()
    }
}

/// An output of somebody else: it has its path and all below.
#[derive(Clone, Debug, PartialEq)]
struct Pages(ListenUrl);

impl Output for Pages {
    const SPEC: EndpointSpec = catalogue::ENDPOINTS[7].spec;

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        options.listen_url().map(Self)
    }

    fn claims(&self) -> Vec<Claim> {
        vec![self.0.claim_below(&Default::default())]
    }

    fn url(&self, public_host: Option<&str>) -> String {
        self.0.shown(public_host)
    }

    fn instance(&self, name: &str) -> Self {
        Self(self.0.instance(name))
    }

    fn run(self, _context: OutputContext) -> impl Future<Output = ()> + Send + 'static {
        std::future::pending()
    }
}

/// The scheme of that name.
fn scheme(name: &str) -> Scheme {
    *catalogue::SCHEMES.iter().find(|scheme| scheme.name == name).unwrap()
}

/// What `supports` makes of a document in JSON.
fn read_for(supports: &Supports, document: &Value) -> Desired {
    parse(document.as_object().unwrap(), supports)
}

/// What rtmp-splitter makes of it.
fn read(document: &Value) -> Desired {
    read_for(&splitter(), document)
}

/// The only flow of a document without a fault.
fn flow(document: &Value) -> Arc<FlowConfig> {
    let mut desired = read(document);
    assert!(desired.errors.is_empty() && desired.rejected.is_none(), "{:?}", desired.errors);
    desired.flows.pop_first().unwrap().1
}

/// What is wrong with the only flow of a document, `f`.
fn error(document: &Value) -> String {
    let desired = read(document);
    desired.errors.get("f").unwrap_or_else(|| panic!("no error in {desired:?}")).clone()
}

/// A flow `f` with this input.
fn with_input(input: Value) -> Value {
    serde_json::json!({ "flows": { "f": { "input": input } } })
}

/// A flow `f` that listens, with this output, `o`.
fn with_output(output: Value) -> Value {
    serde_json::json!({ "flows": { "f": {
        "input": { "listen": "rtmp://0.0.0.0/live/f" }, "outputs": { "o": output }
    } } })
}
