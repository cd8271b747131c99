//! RTSP, SDP, RTP and RTCP on paper: bytes in, bytes and events out. No socket, no clock, no thread.

pub mod format;
mod obu;
mod packet;
pub mod packetize;

pub use packet::{INTERLEAVED_HEADER, Packet, RTP_HEADER};
