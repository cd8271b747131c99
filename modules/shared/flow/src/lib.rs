//! How streams move: flow configuration, the supervisor, the stream that an input writes and outputs read,
//! and the sockets.
//!
//! A service is a table of the endpoints it supports: see [`Flows`].

pub mod config;
mod endpoint;
pub mod ingest;
pub mod net;
pub mod rtmp;
pub mod stream;
mod supervisor;
mod trouble;

pub use endpoint::{InputContext, Module, OutputContext, Read};
pub use supervisor::Flows;
pub use trouble::{Reason, Trouble};
