//! hls-gateway as a program of its own: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    hls_gateway::run(std::env::args_os().skip(1))
}
