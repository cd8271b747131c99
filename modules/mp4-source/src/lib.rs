//! mp4-source: an MP4 file as a live RTMP stream, served and pushed.
//!
//! This file says what the service can do: its row of endpoints. How it is told to (twin, methods, health,
//! SIGTERM, exit codes) is `av_edge`; how flows start, retry and stop is `av_flow`. What no other service does is
//! here: reading files (`file`: its options; `read`: the endpoint; `reading`: the blocking half; `playing`: pace and
//! stream; `watch`: files that change).

mod file;
mod playing;
mod read;
mod reading;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use av_flow::{Flows, rtmp};

pub use file::{READ, ReadConfig};

/// The service: each line adds one kind of endpoint that a flow may have.
pub fn service() -> Flows {
    Flows::new("mp4-source").input(READ).output(rtmp::SERVE).output(rtmp::PUSH)
}

/// Runs the service with these arguments, the program's name left out.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    av_edge::run_from("mp4-source", env!("CARGO_PKG_VERSION"), arguments, service)
}
