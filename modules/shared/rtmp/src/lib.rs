//! RTMP on paper: bytes to frames and back, no sockets.
//!
//! [`ServerSession`] and [`ClientSession`] are fed the bytes of one connection, split anywhere, and give
//! bytes to send and events. [`Egress`] turns frames into chunks that any number of players share. The layers
//! below ([`chunk`], [`amf0`], [`flv`], [`message`]) take `&[u8]` and are public, so that each can be fuzzed
//! alone.
//!
//! Sources: "RTMP 1.0" is Adobe's *Real-Time Messaging Protocol specification* of December 2012; "FLV" is
//! the *Adobe Flash Video File Format Specification 10.1*; "AMF0" is the *Action Message Format* of
//! December 2007; "Enhanced RTMP" is Veovera's *Enhanced RTMP* v1 and v2.

pub mod amf0;
mod auth;
pub mod chunk;
mod client;
mod command;
mod egress;
mod error;
pub mod flv;
mod ingest;
mod item;
mod limits;
mod link;
pub mod message;
mod metadata;
mod server;

pub use auth::{AdobeAuth, AuthStep, Credentials};
pub use client::{ClientConfig, ClientEvent, ClientOutput, ClientSession, Mode};
pub use egress::{CHUNK_SIZE, Egress, Role};
pub use error::RtmpError;
pub use item::{Extra, MediaItem, SkipReason, Slot};
pub use limits::Limits;
pub use metadata::{CodecId, Metadata};
pub use server::{Connect, Intent, Refusal, RequestId, ServerEvent, ServerOutput, ServerSession};
