//! mp4-recorder as a program of its own: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    mp4_recorder::run(std::env::args_os().skip(1))
}
