//! renderer as a program of its own: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    renderer::run(std::env::args_os().skip(1))
}
