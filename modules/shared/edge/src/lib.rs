//! How a module is told what to do, and how it is watched: command line, twin, direct methods,
//! telemetry, metrics, health, logs, exit codes. Knows no media.
//!
//! A module hands [`run`] a [`Service`]; everything else is in here.

mod service;

pub use service::{
    Certificates, ConfigStatus, Context, Event, EventKind, EventSink, MethodReply, Outcome, Paths, Running,
    ServerCertificate, Service, Settings, StateDir,
};
