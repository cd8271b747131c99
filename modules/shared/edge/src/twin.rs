//! The module twin as state machines without sockets or clocks.

pub(crate) mod desired;
pub(crate) mod fit;
pub(crate) mod merge;
pub(crate) mod pace;
pub(crate) mod reported;
