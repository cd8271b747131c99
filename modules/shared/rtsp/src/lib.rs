//! RTSP, SDP, RTP and RTCP on paper: bytes in, bytes and events out. No socket, no clock, no thread.
//!
//! [`ServerSession`] and [`ClientSession`] are the two sides of a conversation (RFC 2326). Below them, [`framing`] cuts a
//! connection's bytes into [`message`]s and interleaved packets, [`transport`] reads and writes how media is carried,
//! [`sdp`] what it is, and [`auth`] who asks. [`packetize`] makes RTP packets of frames. The other way, [`reorder`] puts [`Received`] packets
//! in order, [`depacketize`] makes frames of them, [`clock`] gives all tracks one timeline and [`order`] gives pictures
//! their decoding times: [`intake`] is all of that. [`rtcp`] is what goes beside the packets.

pub mod auth;
pub mod client;
pub mod clock;
pub mod depacketize;
mod error;
pub mod format;
pub mod framing;
pub mod intake;
mod limits;
pub mod message;
mod obu;
pub mod order;
mod packet;
pub mod packetize;
mod received;
pub mod reorder;
pub mod rtcp;
pub mod sdp;
pub mod server;
pub mod transport;
pub mod tunnel;
pub mod uri;

pub use client::ClientSession;
pub use error::RtspError;
pub use limits::Limits;
pub use packet::{INTERLEAVED_HEADER, Packet, RTP_HEADER};
pub use received::Received;
pub use server::ServerSession;
