//! RTMP endpoints: `listen`, `pull`, `serve`, `push`.

mod admission;
mod client;
mod connection;
mod dedup;
mod fanout;
mod listen;
mod packer;
mod ports;
mod pull;
mod push;
mod serve;
mod takeover;

pub use listen::listen;
pub use ports::{Instances, Ports};
pub use pull::pull;
pub use push::push;
pub use serve::serve;
