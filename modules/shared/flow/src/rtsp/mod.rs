//! RTSP endpoints.

mod asked;
mod bridge;
#[cfg(test)]
mod camera;
mod connection;
mod described;
mod group;
mod intake;
mod lanes;
mod listen;
pub(crate) mod options;
mod port;
mod pull;
mod push;
mod redirect;
mod reports;
mod serve;
mod udp;
mod wire;

pub use listen::listen;
pub use options::{ListenConfig, PullConfig, PushConfig, ServeConfig};
pub use pull::pull;
pub use push::push;
pub use serve::serve;

use crate::registry::{InputSpec, OutputSpec};

/// Others push to us.
pub const LISTEN: InputSpec = InputSpec::of::<ListenConfig>();
/// We connect and take.
pub const PULL: InputSpec = InputSpec::of::<PullConfig>();
/// Others take from us.
pub const SERVE: OutputSpec = OutputSpec::of::<ServeConfig>();
/// We connect and send.
pub const PUSH: OutputSpec = OutputSpec::of::<PushConfig>();
