//! RTP packets as they come in (RFC 3550 §5.1).

use bytes::Bytes;
use rtp_types::{RtpPacket, RtpParseError};

/// One packet, without what nobody here asks for: contributing sources, extension, padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who sends it.
    pub ssrc: u32,
    /// As the description says it.
    pub payload_type: u8,
    /// Counts packets, and wraps.
    pub sequence: u16,
    /// In ticks of the track's clock, from anywhere, and wraps.
    pub time: u32,
    /// By the payload format's rules: the end of a picture, as a rule.
    pub marker: bool,
    /// A slice of what came.
    pub payload: Bytes,
}

impl Received {
    /// Reads a packet.
    ///
    /// # Errors
    ///
    /// It is none: too short, of another version, or its parts overrun it.
    pub fn parse(bytes: &Bytes) -> Result<Self, RtpParseError> {
        let packet = RtpPacket::parse(bytes)?;
        Ok(Self {
            ssrc: packet.ssrc(),
            payload_type: packet.payload_type(),
            sequence: packet.sequence_number(),
            time: packet.timestamp(),
            marker: packet.marker_bit(),
            payload: bytes.slice_ref(packet.payload()),
        })
    }
}
