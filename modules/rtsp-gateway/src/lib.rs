//! rtsp-gateway: RTMP to RTSP and back.
//!
//! This file says what the service can do: its row of endpoints. How it is told to (twin, methods, health,
//! SIGTERM, exit codes) is `av_edge`; how flows start, retry and stop is `av_flow`.

use std::ffi::OsString;
use std::process::ExitCode;

use av_flow::config::{ConfigError, FlowConfig};
use av_flow::{Flows, rtmp, rtsp};

/// The service: each line adds one kind of endpoint that a flow may have.
pub fn service() -> Flows {
    Flows::new("rtsp-gateway")
        .input(rtmp::LISTEN)
        .input(rtmp::PULL)
        .input(rtsp::LISTEN)
        .input(rtsp::PULL)
        .output(rtsp::SERVE)
        .output(rtsp::PUSH)
        .output(rtmp::SERVE)
        .output(rtmp::PUSH)
        .rule(adapts)
}

/// A flow goes from one protocol to the other, or from RTSP to RTSP: one session with a camera, many viewers.
fn adapts(flow: &FlowConfig) -> Result<(), ConfigError> {
    let input = &flow.input.endpoint;
    let from_rtmp = input.get::<rtmp::ListenConfig>().is_some() || input.get::<rtmp::PullConfig>().is_some();
    let to_rtmp = flow.outputs.values().all(|output| {
        let output = &output.endpoint;
        output.get::<rtmp::ServeConfig>().is_some() || output.get::<rtmp::PushConfig>().is_some()
    });
    if from_rtmp && to_rtmp && !flow.outputs.is_empty() {
        let sentence = "RTMP in with only RTMP out is what the module rtmp-splitter does; use that, or add an RTSP output";
        return Err(ConfigError::rule(format!("flows.{}.outputs", flow.name), sentence));
    }
    Ok(())
}

/// Runs the service with these arguments, the program's name left out.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    av_edge::run_from("rtsp-gateway", env!("CARGO_PKG_VERSION"), arguments, service)
}
