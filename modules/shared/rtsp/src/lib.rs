//! RTSP, SDP, RTP and RTCP on paper: bytes in, bytes and events out. No socket, no clock, no thread.
//!
//! [`ServerSession`] and [`ClientSession`] are the two sides of a conversation (RFC 2326). Below it, [`framing`] cuts a connection's bytes
//! into [`message`]s and interleaved packets, [`transport`] reads and writes how media is carried, [`sdp`] what it is,
//! and [`auth`] who asks. [`packetize`] makes RTP packets of frames.

pub mod auth;
pub mod client;
mod error;
pub mod format;
pub mod framing;
mod limits;
pub mod message;
mod obu;
mod packet;
pub mod packetize;
pub mod sdp;
pub mod server;
pub mod transport;
pub mod uri;

pub use client::ClientSession;
pub use error::RtspError;
pub use limits::Limits;
pub use packet::{INTERLEAVED_HEADER, Packet, RTP_HEADER};
pub use server::ServerSession;
