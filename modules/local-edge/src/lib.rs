//! Plays the IoT Edge runtime on one machine, for development: edgeHub, the workload API, and edgeAgent's
//! part of starting modules. In production IoT Edge and IoT Hub do this.
//!
//! From the outside in: `cli` reads the command line; `up` puts an `instance` together from the
//! `manifest`, the `hub` (MQTT, twins, methods, routes), the `workload` API and one supervised `process` a
//! module; `control` lets a second terminal ask it; `screen` shows its `view` as a `table`.

#![cfg(unix)]

mod accept;
mod addresses;
mod ask;
mod authority;
mod cli;
mod control;
mod device_rules;
mod fault;
mod forward;
mod hub;
mod instance;
mod journal;
mod logs;
mod manifest;
mod process;
mod route;
mod sas;
mod screen;
mod services;
mod state_dir;
mod table;
mod twin;
mod up;
mod variables;
mod view;
mod workload;

pub use cli::run;
