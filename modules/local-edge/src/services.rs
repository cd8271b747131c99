//! The services that this binary is, one process each: `local-edge module NAME`.
//!
//! Those without system libraries are linked: the same code that their containers run. Others are found
//! as a binary of their name beside this one.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// The environment variable that tells a module's process whose child it is.
pub const PARENT: &str = "LOCAL_EDGE_PID";

type Run = fn(std::vec::IntoIter<OsString>) -> ExitCode;

/// Each service's name and its `run`, which takes arguments without the program's name.
const LINKED: [(&str, Run); 5] = [
    ("hls-gateway", hls_gateway::run),
    ("mp4-recorder", mp4_recorder::run),
    ("mp4-source", mp4_source::run),
    ("rtmp-splitter", rtmp_splitter::run),
    ("rtsp-gateway", rtsp_gateway::run),
];

/// Where a service's code is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// In this binary.
    Linked,
    /// Beside it.
    Binary(PathBuf),
    /// Nowhere.
    Missing,
}

/// Looks for a service.
pub fn find(name: &str) -> Service {
    if LINKED.iter().any(|(linked, _)| *linked == name) {
        return Service::Linked;
    }
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    match beside.filter(|path| path.is_file()) {
        Some(path) => Service::Binary(path),
        None => Service::Missing,
    }
}

/// What it takes to build a service that is not linked because it needs system libraries.
pub fn needs_building(name: &str) -> Option<&'static str> {
    (name == "renderer").then_some(
        "it is built separately, because it needs GStreamer: `apt-get install pkg-config libgstreamer1.0-dev \
         libgstreamer-plugins-base1.0-dev gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
         gstreamer1.0-plugins-bad gstreamer1.0-libav gstreamer1.0-pulseaudio gstreamer1.0-alsa`, then `cargo \
         build --release -p renderer`",
    )
}

/// What a desktop's session says of its screen and speaker. A container would be given them by its `env` and devices;
/// here a program beside this one gets them from whoever started it, unless the rules of a device are to be kept.
pub const SESSION: [&str; 7] =
    ["DISPLAY", "XAUTHORITY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "PULSE_SERVER", "PULSE_COOKIE", "HOME"];

/// Names of what is linked, for texts.
pub fn linked() -> Vec<&'static str> {
    LINKED.iter().map(|(name, _)| *name).collect()
}

/// What to do about a service that is nowhere.
pub fn missing(name: &str) -> String {
    format!(
        "no service {name:?}: it is not part of this binary (which has: {}) and there is no program of that \
         name beside it; build it with `cargo build --release -p {name}`",
        match linked().as_slice() {
            [] => "none".to_owned(),
            names => names.join(", "),
        }
    )
}

/// Runs a service in this process; `args` without its name.
pub fn run(name: &str, args: Vec<OsString>) -> ExitCode {
    if die_with_parent() {
        return ExitCode::SUCCESS;
    }
    if let Some((_, run)) = LINKED.iter().find(|(linked, _)| *linked == name) {
        return run(args.into_iter());
    }
    match find(name) {
        Service::Binary(path) => {
            let error = Command::new(&path).args(args).exec();
            eprintln!("{}: {error}", path.display());
            ExitCode::from(70)
        }
        _ => {
            eprintln!("{}", missing(name));
            ExitCode::from(64)
        }
    }
}

/// Under a `local-edge` that is killed, its modules get SIGTERM: none is left behind holding ports. `true`
/// when it is gone already. The setting outlives `exec`.
fn die_with_parent() -> bool {
    let Some(parent) = std::env::var(PARENT).ok().and_then(|pid| pid.parse::<i32>().ok()) else {
        return false;
    };
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    getppid().is_none_or(|now| now.as_raw_nonzero().get() != parent)
}
