//! Messages to chunks.

use bytes::{BufMut, BytesMut};

use super::EXTENDED;

/// Longest message that the 24-bit length field can announce.
pub const MAX_LENGTH: usize = 0xFF_FFFF;

/// What the header of a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Chunk stream, 2 to 63: the one-byte form.
    pub csid: u8,
    /// Milliseconds, modulo 2³².
    pub timestamp: u32,
    /// Message type.
    pub type_id: u8,
    /// Message stream.
    pub stream_id: u32,
}

/// Appends a message, whose payload is `parts` joined: a type 0 chunk, then type 3 chunks that repeat the
/// extended timestamp, as every decoder in use expects.
///
/// It depends on nothing that was sent before. A payload above [`MAX_LENGTH`] cannot be said in RTMP: nothing
/// is written then, and the answer is `false`.
pub fn write_message(out: &mut BytesMut, chunk_size: u32, header: Header, parts: &[&[u8]]) -> bool {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let Some(wire_length) = u32::try_from(length).ok().filter(|_| length <= MAX_LENGTH) else {
        return false;
    };
    let chunk_size = usize::try_from(chunk_size).unwrap_or(usize::MAX).max(1);
    let csid = header.csid & 0x3F;
    let extended = (header.timestamp >= EXTENDED).then_some(header.timestamp);

    out.reserve(length + 16 + 5 * (length / chunk_size));
    out.put_u8(csid);
    out.put_uint(u64::from(header.timestamp.min(EXTENDED)), 3);
    out.put_uint(u64::from(wire_length), 3);
    out.put_u8(header.type_id);
    out.put_u32_le(header.stream_id);
    if let Some(timestamp) = extended {
        out.put_u32(timestamp);
    }

    let mut room = chunk_size;
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            if room == 0 {
                out.put_u8(0xC0 | csid);
                if let Some(timestamp) = extended {
                    out.put_u32(timestamp);
                }
                room = chunk_size;
            }
            let (now, later) = rest.split_at(rest.len().min(room));
            out.put_slice(now);
            room -= now.len();
            rest = later;
        }
    }
    true
}
