//! hls-gateway: RTMP and RTSP to HLS, with pages to watch.
//!
//! This file says what the service can do: its row of endpoints. How it is told to (twin, methods, health,
//! SIGTERM, exit codes) is `av_edge`; how flows start, retry and stop is `av_flow`. What no other service does is here:
//! HLS (`options`: the endpoint's table; `serve`: its task; `live`: frames to playlists, on paper; `channel`: what is
//! shown; `http`: to whom and how; `store`: what outlives the process; `disk`: old
//! segments; `handover`: what outlives a change), the pages, and `lint`, which looks at anybody's HLS.

mod channel;
mod disk;
mod handover;
mod hls;
mod http;
mod lint;
mod live;
mod options;
pub mod pages;
mod serve;
mod store;
mod viewers;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use av_flow::{Flows, rtmp, rtsp};

pub use options::{Cors, Link, SERVE, ServeConfig, Shaped, Variant};

/// The service: each line adds one kind of endpoint that a flow may have.
pub fn service() -> Flows {
    Flows::new("hls-gateway")
        .input(rtmp::LISTEN)
        .input(rtmp::PULL)
        .input(rtsp::PULL)
        .output(SERVE)
        .extension(|context, _| Arc::new(hls::Hls::new(context)))
}

/// Runs the service, or `lint`, with these arguments, the program's name left out.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.peekable();
    if arguments.next_if(|first| first == "lint").is_some() {
        return lint::run(arguments);
    }
    av_edge::run_from("hls-gateway", env!("CARGO_PKG_VERSION"), arguments, service)
}
