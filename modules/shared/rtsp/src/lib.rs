//! RTSP, SDP, RTP and RTCP on paper: bytes in, bytes and events out. No socket, no clock, no thread.

pub mod clock;
pub mod depacketize;
pub mod format;
mod obu;
pub mod order;
mod packet;
pub mod packetize;
mod received;
pub mod reorder;
pub mod rtcp;

pub use packet::{INTERLEAVED_HEADER, Packet, RTP_HEADER};
pub use received::Received;
