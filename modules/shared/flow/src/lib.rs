//! How streams move: flow configuration, the supervisor, the stream that an input writes and outputs read,
//! and the sockets.
//!
//! A service is a table of the endpoints it supports: see [`Flows`]. Those that several services have are here, by
//! protocol ([`rtmp`], [`rtsp`]); what only one service does implements [`Input`] and [`Output`] in that service's own folder.

pub mod catalogue;
pub mod config;
mod endpoint;
mod extension;
pub mod fanout;
mod fitting;
pub mod ingest;
pub mod net;
mod pushing;
mod registry;
pub mod rtmp;
pub mod rtsp;
pub mod stream;
mod supervisor;
mod trouble;

pub use endpoint::{InputContext, Module, OutputContext, Throttle};
pub use extension::Extension;
pub use registry::{AnyInput, AnyOutput, EndpointSpec, Input, InputSpec, Output, OutputSpec};
pub use supervisor::{Flows, StartExtension};
pub use trouble::{Reason, Trouble};
