//! RTMP endpoints: `listen`, `pull`, `serve`, `push`.

mod admission;
mod client;
mod connection;
mod credentials;
#[cfg(test)]
pub(crate) mod guest;
mod incoming;
mod listen;
mod names;
pub(crate) mod options;
mod path;
mod port;
mod pull;
mod push;
mod serve;
mod skipped;
mod wire;

#[cfg(test)]
pub(crate) use client::peer;
pub use listen::listen;
pub use options::{ListenConfig, PullConfig, PushConfig, ServeConfig};
pub use path::{RtmpTarget, joined};
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
