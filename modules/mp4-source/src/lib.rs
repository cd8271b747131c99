//! mp4-source: an MP4 file as a live RTMP stream, served and pushed.
//!
//! This file says what the service can do: its row of endpoints. How it is told to (twin, methods, health,
//! SIGTERM, exit codes) is `av_edge`; how flows start, retry and stop is `av_flow`. What no other service does is
//! here: reading files (`read`).

mod playing;
mod read;
mod reading;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use av_flow::Flows;
use av_flow::config::{Scheme, Supports};

const RTMP: &[Scheme] = &[Scheme::Rtmp, Scheme::Rtmps];

/// Runs the service with these arguments, the program's name left out.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    av_edge::run_from("mp4-source", env!("CARGO_PKG_VERSION"), arguments, || {
        Flows::new(Supports {
            module: "mp4-source",
            read: &[Scheme::File],
            serve: RTMP,
            push: RTMP,
            ..Supports::default()
        })
        .reading(|input, config| Box::pin(read::read(input, config)))
    })
}
