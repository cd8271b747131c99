//! mp4-recorder: streams to MP4 files in a store, nothing lost.
//!
//! This file says what the service can do: its row of endpoints. How it is told to (twin, methods, health,
//! SIGTERM, exit codes) is `av_edge`; how flows start, retry and stop is `av_flow`. What no other service does is
//! here, in the order in which a frame passes: `store` (the options), `recording` (stream to thread), `writer` and
//! `cut` (the thread: where files begin and end), `segment` (one file), `clip` (files of events) and `lately` (where they begin), `spool` (what is kept until the store has it),
//! `lane`, `folder`, `mounted` and `azure` (the way to the store), `evidence` (what is sent before a file is whole) and `recover` (what becomes of that), `stored` (the account of it), `forget` (what is deleted), `belief` (whether the clock is right). `recorder` is what all outputs share. `rescue` reads the spool of a
//! device that is dead.

mod azure;
mod backlog;
mod belief;
mod clip;
mod clock;
mod cut;
mod event;
mod evidence;
mod expiry;
mod folder;
mod forget;
mod housekeeping;
mod lane;
mod lately;
mod methods;
mod metrics;
mod mounted;
mod name;
mod recorder;
mod recording;
mod recover;
mod report;
mod rescue;
mod segment;
mod spool;
mod store;
mod stored;
mod writer;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use av_flow::config::{OptionSpec, Shape, whole};
use av_flow::{Flows, rtmp, rtsp};

pub use store::{BLOB_STORE, FOLDER_STORE, StoreConfig};

/// `spool`, of the whole module.
const SPOOL: OptionSpec = OptionSpec::new(
    "spool",
    "mp4-recorder",
    Shape::Object {
        properties: &[
            OptionSpec::property("megabytes", whole(0, 1 << 30, 0)),
            OptionSpec::property("minFreeMegabytes", whole(0, 1 << 30, 1024)),
            OptionSpec::property("syncSeconds", whole(1, 60, 1)),
        ],
    },
)
.means("What is kept on this machine until the store has it.");

/// The service: each line adds one kind of endpoint that a flow may have.
pub fn service() -> Flows {
    Flows::new("mp4-recorder")
        .input(rtmp::LISTEN)
        .input(rtmp::PULL)
        .input(rtsp::PULL)
        .output(FOLDER_STORE)
        .output(BLOB_STORE)
        .property(SPOOL)
        .rule(store::names_fit)
        .extension(|context, changes| recorder::Recorder::start(context, changes))
        .finish_within(Duration::from_millis(5500))
}

/// Runs the service, `recover` or `spool` with these arguments, the program's name left out.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.peekable();
    if arguments.next_if(|first| first == "recover").is_some() {
        return recover::run(arguments);
    }
    if arguments.next_if(|first| first == "spool").is_some() {
        return rescue::run(arguments);
    }
    av_edge::run_from("mp4-recorder", env!("CARGO_PKG_VERSION"), arguments, service)
}
