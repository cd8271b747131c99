//! Desired properties in, running flows out.

mod counters;
mod flow;
mod flows;
mod line;
mod metrics;
mod on_demand;
mod pattern;
mod remembered;
mod report;
mod service;
mod status;
mod task;

pub use service::{Flows, StartExtension};
