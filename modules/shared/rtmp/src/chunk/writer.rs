//! Messages to chunks.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

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

/// Where serialised messages go: into one buffer, or somewhere that keeps payload by reference.
pub trait Out {
    /// So many bytes are going to follow.
    fn reserve(&mut self, bytes: usize);

    /// Appends bytes of headers.
    fn copy(&mut self, bytes: &[u8]);

    /// Appends a part of a payload, which may be kept as it is.
    fn share(&mut self, payload: &Bytes, range: Range<usize>);
}

impl Out for BytesMut {
    fn reserve(&mut self, bytes: usize) {
        Self::reserve(self, bytes);
    }

    fn copy(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }

    fn share(&mut self, payload: &Bytes, range: Range<usize>) {
        self.put_slice(payload.get(range).unwrap_or_default());
    }
}

/// A part of a message's payload.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// A header in front of the media.
    Copied(&'a [u8]),
    /// Media.
    Shared(&'a Bytes),
}

impl Part<'_> {
    fn len(self) -> usize {
        match self {
            Self::Copied(bytes) => bytes.len(),
            Self::Shared(bytes) => bytes.len(),
        }
    }

    fn write(self, out: &mut impl Out, range: Range<usize>) {
        match self {
            Self::Copied(bytes) => out.copy(bytes.get(range).unwrap_or_default()),
            Self::Shared(bytes) => out.share(bytes, range),
        }
    }
}

/// As [`write_parts`], of bytes that are copied.
pub fn write_message(out: &mut BytesMut, chunk_size: u32, header: Header, parts: &[&[u8]]) -> bool {
    write_parts(out, chunk_size, header, parts.iter().map(|part| Part::Copied(part)))
}

/// Appends a message, whose payload is `parts` joined: a type 0 chunk, then type 3 chunks that repeat the
/// extended timestamp, as every decoder in use expects.
///
/// It depends on nothing that was sent before. A payload above [`MAX_LENGTH`] cannot be said in RTMP: nothing
/// is written then, and the answer is `false`.
pub fn write_parts<'a>(
    out: &mut impl Out,
    chunk_size: u32,
    header: Header,
    parts: impl Iterator<Item = Part<'a>> + Clone,
) -> bool {
    let length: usize = parts.clone().map(Part::len).sum();
    let Some(wire_length) = u32::try_from(length).ok().filter(|_| length <= MAX_LENGTH) else {
        return false;
    };
    let chunk_size = usize::try_from(chunk_size).unwrap_or(usize::MAX).max(1);
    let csid = header.csid & 0x3F;
    let extended = header.timestamp.to_be_bytes();
    let extended = if header.timestamp >= EXTENDED { &extended[..] } else { &[] };

    out.reserve(length + 16 + 5 * (length / chunk_size));
    let [_, time @ ..] = header.timestamp.min(EXTENDED).to_be_bytes();
    let [_, wire_length @ ..] = wire_length.to_be_bytes();
    out.copy(&[csid]);
    out.copy(&time);
    out.copy(&wire_length);
    out.copy(&[header.type_id]);
    out.copy(&header.stream_id.to_le_bytes());
    out.copy(extended);

    let mut room = chunk_size;
    for part in parts {
        let mut from = 0;
        while from < part.len() {
            if room == 0 {
                out.copy(&[0xC0 | csid]);
                out.copy(extended);
                room = chunk_size;
            }
            let to = part.len().min(from + room);
            part.write(out, from..to);
            room -= to - from;
            from = to;
        }
    }
    true
}
