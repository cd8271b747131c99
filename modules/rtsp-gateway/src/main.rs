//! rtsp-gateway as a program of its own: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    rtsp_gateway::run(std::env::args_os().skip(1))
}
