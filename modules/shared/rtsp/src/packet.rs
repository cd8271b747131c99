//! One RTP packet on its way out (RFC 3550 §5.1), and how RTSP frames it on TCP.

use bytes::{Bytes, BytesMut};

/// Bytes of an RTP header without contributing sources and extension.
pub const RTP_HEADER: usize = 12;
/// Bytes of `$`, channel and length in front of a packet on the RTSP connection (RFC 2326 §10.12).
pub const INTERLEAVED_HEADER: usize = 4;

const TIME: usize = INTERLEAVED_HEADER + 4;

/// An RTP packet: some bytes of headers, and a part of a frame that is not copied.
///
/// The headers begin with those of RTSP's interleaved framing, so that one buffer serves both transports. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    head: Bytes,
    body: Bytes,
}

impl Packet {
    /// `head`: interleaved framing, RTP header, payload header.
    pub(crate) const fn new(head: Bytes, body: Bytes) -> Self {
        Self { head, body }
    }

    /// As it goes over the RTSP connection: framing and headers, then media.
    pub const fn interleaved(&self) -> [&Bytes; 2] {
        [&self.head, &self.body]
    }

    /// As it goes into a datagram: headers, then media.
    pub fn datagram(&self) -> [&[u8]; 2] {
        [self.head.get(INTERLEAVED_HEADER..).unwrap_or_default(), &self.body]
    }

    /// Bytes of the packet, without the interleaved framing.
    pub fn len(&self) -> usize {
        (self.head.len() + self.body.len()).saturating_sub(INTERLEAVED_HEADER)
    }

    /// Never: a packet has a header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes behind the RTP header: what sender reports count (RFC 3550 §6.4.1).
    pub fn payload_len(&self) -> usize {
        self.len().saturating_sub(RTP_HEADER)
    }

    /// Its sequence number.
    pub fn sequence(&self) -> u16 {
        self.number(INTERLEAVED_HEADER + 2).map_or(0, u16::from_be_bytes)
    }

    /// Its RTP time.
    pub fn time(&self) -> u32 {
        self.number(TIME).map_or(0, u32::from_be_bytes)
    }

    /// Whether it closes a picture (or, for sound, what the payload format says).
    pub fn marker(&self) -> bool {
        self.head.get(INTERLEAVED_HEADER + 1).is_some_and(|byte| byte & 0x80 != 0)
    }

    /// The same packet at another RTP time.
    #[must_use]
    pub fn at(&self, time: u32) -> Self {
        self.patched(TIME, &time.to_be_bytes())
    }

    /// The same packet on another channel of the RTSP connection.
    #[must_use]
    pub fn on_channel(&self, channel: u8) -> Self {
        self.patched(1, &[channel])
    }

    fn patched(&self, at: usize, bytes: &[u8]) -> Self {
        let mut head = BytesMut::from(&*self.head);
        if let Some(place) = head.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        Self { head: head.freeze(), body: self.body.clone() }
    }

    fn number<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.head.get(at..at + N)?.try_into().ok()
    }
}
