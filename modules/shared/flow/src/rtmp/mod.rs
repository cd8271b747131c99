//! RTMP endpoints: `listen`, `pull`, `serve`, `push`.

mod admission;
mod client;
mod connection;
mod credentials;
mod fanout;
#[cfg(test)]
pub(crate) mod guest;
mod incoming;
mod listen;
mod names;
mod packer;
mod port;
mod pull;
mod push;
mod serve;
mod skipped;

#[cfg(test)]
pub(crate) use client::peer;
pub use listen::listen;
pub use pull::pull;
pub use push::push;
pub use serve::serve;
