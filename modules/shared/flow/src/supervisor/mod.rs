//! Desired properties in, running flows out.

mod counters;
mod flow;
mod flows;
mod line;
mod metrics;
mod pattern;
mod remembered;
mod report;
mod status;
mod task;

pub use flows::{Flows, StartExtension};
