//! RTSP, SDP, RTP and RTCP on paper: bytes in, bytes and events out. No socket, no clock, no thread.
//!
//! [`ServerSession`] and [`ClientSession`] are the two sides of a conversation (RFC 2326). Below them,
//! [`framing`] cuts a connection's bytes into [`message`]s and interleaved packets, [`transport`] reads and writes
//! how media is carried, [`sdp`] what it is, and [`auth`] who asks; [`tunnel`] is RTSP inside HTTP.

pub mod auth;
mod error;
pub mod framing;
mod limits;
pub mod message;
pub mod sdp;
pub mod server;
pub mod transport;
pub mod uri;

pub use error::RtspError;
pub use limits::Limits;
pub use server::ServerSession;
