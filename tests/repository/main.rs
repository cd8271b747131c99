//! What holds for all services and for the repository as a whole: the schema and the pages cover every module, samples
//! are documents without errors, and rooms that know no protocol name none.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod catalogue;
mod reference;
mod rooms;
mod samples;
mod schema;

use std::path::{Path, PathBuf};

use av_flow::config::{Desired, Supports, parse};
use serde_json::Value;

/// Every service there is, as a document of its module is read.
fn modules() -> [Supports; 6] {
    [
        rtmp_splitter::service(),
        mp4_source::service(),
        hls_gateway::service(),
        rtsp_gateway::service(),
        mp4_recorder::service(),
        renderer::service(),
    ]
    .map(|flows| flows.supports().clone())
}

fn module(name: &str) -> Option<Supports> {
    modules().into_iter().find(|supports| supports.module == name)
}

fn read_for(supports: &Supports, document: &Value) -> Desired {
    parse(document.as_object().unwrap(), supports)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
