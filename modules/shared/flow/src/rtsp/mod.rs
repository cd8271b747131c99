//! RTSP endpoints.

mod bridge;
mod connection;
mod described;
pub(crate) mod options;
mod port;
mod pull;
mod reports;
mod serve;
mod udp;
mod wire;

pub use options::{PullConfig, ServeConfig};
pub use pull::pull;
pub use serve::serve;

use crate::registry::{InputSpec, OutputSpec};

/// We connect and take.
pub const PULL: InputSpec = InputSpec::of::<PullConfig>();
/// Others take from us.
pub const SERVE: OutputSpec = OutputSpec::of::<ServeConfig>();
