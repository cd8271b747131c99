//! RTMP endpoints: `listen`, `pull`, `serve`, `push`.

mod admission;
mod client;
mod connection;
mod fanout;
#[cfg(test)]
pub(crate) mod guest;
mod incoming;
mod listen;
mod packer;
mod ports;
mod pull;
mod push;
mod serve;
mod skipped;
mod takeover;

#[cfg(test)]
pub(crate) use client::peer;
pub use listen::listen;
pub use ports::{Instances, Ports};
pub use pull::pull;
pub use push::push;
pub use serve::serve;
