//! How a module is told what to do, and how it is watched: command line, twin, direct methods,
//! telemetry, metrics, health, logs, exit codes. Knows no media.
//!
//! A module hands [`run`] a [`Service`]; everything else is in here. Desired properties come from a file
//! (`--twin`) or from the IoT Edge hub (MQTT 3.1.1 over TLS, identity by the workload API or a connection
//! string), and what became of them goes back the same way. Nothing in here runs per frame.

// The test service speaks of the crate as its users do.
#[cfg(test)]
extern crate self as av_edge;

mod desired_file;
mod http;
mod hub;
pub mod json;
mod log;
mod module;
mod open_files;
mod options;
mod renewal;
mod run;
mod service;
mod source;
mod telemetry;
#[cfg(test)]
mod testing;
#[cfg(test)]
#[path = "../tests/tiny/mod.rs"]
mod tiny;
mod twin;
mod workload;

pub use http::page::{COPY, LOOK};
pub use open_files::{open_files, raise_open_files};
pub use renewal::Renewal;
pub use run::{run, run_from};
pub use service::{
    CertificateSource, Certificates, ConfigStatus, Context, Event, EventKind, EventSink, MethodReply,
    Outcome, Paths, Running, ServerCertificate, Service, Settings, StateDir, whole_number,
};
