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

pub use flows::Flows;
