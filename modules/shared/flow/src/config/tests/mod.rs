//! Whole documents, as a module reads them.

mod access;
mod arbitrary;
mod conflicts;
mod defaults;
mod diff;
mod document;
mod endpoints;
mod patterns;
mod reference;
mod samples;
mod schema;
mod urls;

use std::sync::Arc;

use serde_json::Value;

use super::{Desired, Endpoint, FlowConfig, Scheme, Supports, parse};

const RTMP: &[Scheme] = &[Scheme::Rtmp, Scheme::Rtmps];

pub(super) const SPLITTER: Supports = Supports {
    module: "rtmp-splitter",
    listen: RTMP,
    pull: RTMP,
    read: &[],
    serve: RTMP,
    push: RTMP,
    store: &[],
    render: &[],
};

pub(super) const SOURCE: Supports = Supports {
    module: "mp4-source",
    listen: &[],
    pull: &[],
    read: &[Scheme::File],
    serve: RTMP,
    push: RTMP,
    store: &[],
    render: &[],
};

/// What `supports` makes of a document in JSON.
fn read_for(supports: &Supports, document: &Value) -> Desired {
    parse(document.as_object().unwrap(), supports)
}

/// What rtmp-splitter makes of it.
fn read(document: &Value) -> Desired {
    read_for(&SPLITTER, document)
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
