//! local-edge: the IoT Edge runtime of one machine, for development.
//!
//! `cli` says what can be asked of it; `up` puts the parts together.

use std::process::ExitCode;

fn main() -> ExitCode {
    local_edge::run()
}
