//! renderer: a stream on the device's screen and speaker.
//!
//! This file says what the service can do: its row of endpoints. How it is told to (twin, methods, health, SIGTERM,
//! exit codes) is `av_edge`; how flows start, retry and stop is `av_flow`. What no other service does is here, in the
//! order in which a frame passes: `options`, `render` (stream to decoders), `codec`, `ways`, `decode` and `elements`
//! (GStreamer's decoders), `hang` (which may never return), `node` (which may not be there for us), `timing` (when what
//! is due), `paint` (pictures to a `screen`, or the `card`), `sound`, `pace` (how fast it is played), `speaker` and
//! `beat` (whether it really plays). `watch` tells why a picture stands still, `snapshot` what is on the screen; the
//! threads of an output share its `stage`, and all outputs `renderer`.

mod beat;
mod card;
mod clock;
mod codec;
mod decode;
mod elements;
mod hang;
mod node;
mod options;
mod pace;
mod paint;
mod render;
mod renderer;
mod screen;
mod snapshot;
mod sound;
mod speaker;
mod stage;
mod timing;
mod watch;
mod ways;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use av_flow::{Flows, rtmp, rtsp};

pub use options::{RENDER, RenderConfig};

/// The service: each line adds one kind of endpoint that a flow may have.
pub fn service() -> Flows {
    Flows::new("renderer")
        .input(rtmp::LISTEN)
        .input(rtmp::PULL)
        .input(rtsp::PULL)
        .output(RENDER)
        .rule(options::no_patterns)
        .extension(|_, _| Arc::new(renderer::Renderer::default()))
        .finish_within(Duration::from_secs(5))
}

/// Runs the service with these arguments, the program's name left out.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    av_edge::run_from("renderer", env!("CARGO_PKG_VERSION"), arguments, service)
}
