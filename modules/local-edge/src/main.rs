//! local-edge: the IoT Edge runtime of one machine, for development.
//!
//! `cli` says what can be asked of it; `up` puts the parts together.

use std::process::ExitCode;

#[cfg(unix)]
fn main() -> ExitCode {
    local_edge::run()
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    eprintln!(
        "local-edge needs Unix: its modules are processes that it stops by signals; run the modules with --twin"
    );
    ExitCode::from(64)
}
