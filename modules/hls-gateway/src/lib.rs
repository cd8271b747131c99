//! hls-gateway: RTMP and RTSP to HLS, with pages to watch.
//!
//! This file says what the service can do: its row of endpoints. How it is told to (twin, methods, health,
//! SIGTERM, exit codes) is `av_edge`; how flows start, retry and stop is `av_flow`.

use std::ffi::OsString;
use std::process::ExitCode;

use av_flow::{Flows, rtmp};

pub mod pages;

/// The service: each line adds one kind of endpoint that a flow may have.
pub fn service() -> Flows {
    Flows::new("hls-gateway").input(rtmp::LISTEN).input(rtmp::PULL)
}

/// Runs the service with these arguments, the program's name left out.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    av_edge::run_from("hls-gateway", env!("CARGO_PKG_VERSION"), arguments, service)
}
