//! Chunks to messages.

use bytes::Bytes;

use super::{EXTENDED, RawMessage};
use crate::{Limits, RtmpError};

/// Longest chunk header: 3 bytes of basic header, 11 of message header, 4 of extended timestamp.
const MAX_HEADER: usize = 18;

/// Joins chunks to messages, one buffer per chunk stream.
///
/// Set Chunk Size and Abort act here, because they change how the very next byte is read; all other messages
/// are given out. The payload is copied once, from the input into the message.
#[derive(Debug)]
pub struct ChunkReader {
    chunk_size: usize,
    max_message: usize,
    max_unfinished: usize,
    max_streams: usize,
    /// Few: searched linearly.
    streams: Vec<ChunkStream>,
    /// Bytes held in `streams`, and the room that is reserved for them.
    unfinished: usize,
    reserved: usize,
    /// The chunk whose payload is being read: index in `streams`, bytes left.
    chunk: Option<(usize, usize)>,
    /// The beginning of a header that the input was cut in.
    carry: Carry,
    position: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Carry {
    bytes: [u8; MAX_HEADER],
    len: usize,
}

/// What the next header of a chunk stream may inherit, and its unfinished message.
#[derive(Debug)]
struct ChunkStream {
    csid: u32,
    /// The last timestamp or delta, after extension.
    field: u32,
    /// Whether `field` came as an extended timestamp.
    extended: bool,
    timestamp: u32,
    length: usize,
    type_id: u8,
    stream_id: u32,
    payload: Vec<u8>,
    /// A message has begun and is not complete.
    open: bool,
}

/// A chunk header as read; the message fields are there as its type has them.
#[derive(Clone, Copy, Debug)]
struct ChunkHeader {
    /// Bytes it takes.
    size: usize,
    csid: u32,
    fmt: u8,
    field: u32,
    extended: bool,
    message: Option<(usize, u8)>,
    stream_id: Option<u32>,
}

impl ChunkReader {
    /// At the first byte after the handshake, with the limits for a peer that does not publish.
    pub fn new(limits: &Limits) -> Self {
        Self {
            chunk_size: 128,
            max_message: limits.max_message_bytes.min(limits.max_unfinished_before_publish),
            max_unfinished: limits.max_unfinished_before_publish,
            max_streams: limits.max_chunk_streams,
            streams: Vec::new(),
            unfinished: 0,
            reserved: 0,
            chunk: None,
            carry: Carry::default(),
            position: 0,
        }
    }

    /// Bounds for messages that begin from now on.
    pub fn set_limits(&mut self, max_message: usize, max_unfinished: usize) {
        self.max_message = max_message;
        self.max_unfinished = max_unfinished.max(max_message);
    }

    /// Bytes consumed; after an error, the offset of the header (or payload) that was wrong.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Frees spare capacity.
    pub fn shrink(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.payload.shrink_to_fit());
        self.reserved = self.streams.iter().map(|stream| stream.payload.capacity()).sum();
        self.streams.shrink_to_fit();
    }

    /// The next whole message; `None` when `input` is used up.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<RawMessage>, RtmpError> {
        loop {
            if self.chunk.is_none() && !self.begin_chunk(input)? {
                return Ok(None);
            }
            let Some(message) = self.read_payload(input)? else {
                if self.chunk.is_some() {
                    return Ok(None);
                }
                continue;
            };
            match message.type_id {
                1 => self.set_chunk_size(&message.payload)?,
                2 => self.abort(&message.payload),
                _ => return Ok(Some(message)),
            }
        }
    }

    /// Reads one chunk header; `false` when the input ends in it.
    fn begin_chunk(&mut self, input: &mut &[u8]) -> Result<bool, RtmpError> {
        let held = self.carry.len;
        if held == 0 {
            // The usual case: the header lies whole in the input.
            if let Some(header) = self.parse_header(input) {
                self.apply(header)?;
                self.advance(input, header.size);
                return Ok(true);
            }
        }
        let taken = self.carry.fill(input);
        let Some(header) = self.parse_header(self.carry.as_slice()) else {
            *input = input.get(taken..).unwrap_or_default();
            return Ok(false);
        };
        self.apply(header)?;
        self.position += header.size as u64;
        // Peeking for an extended timestamp may have held back payload: then it stays in the carry.
        self.carry.len = held;
        self.carry.drop_front(header.size);
        *input = input.get(header.size.saturating_sub(held)..).unwrap_or_default();
        Ok(true)
    }

    fn advance(&mut self, input: &mut &[u8], count: usize) {
        *input = input.get(count..).unwrap_or_default();
        self.position += count as u64;
    }

    /// Reads a chunk header (RTMP 1.0 §5.3.1) from the start of `bytes`; `None` when more bytes are needed.
    fn parse_header(&self, bytes: &[u8]) -> Option<ChunkHeader> {
        let mut fields = Fields { bytes, at: 0 };
        let first = fields.be(1)?;
        let fmt = u8::try_from(first >> 6).unwrap_or_default();
        let csid = match first & 0x3F {
            0 => fields.be(1)? + 64,
            1 => fields.be(1)? + (fields.be(1)? << 8) + 64,
            csid => csid,
        };
        let mut header =
            ChunkHeader { size: 0, csid, fmt, field: 0, extended: false, message: None, stream_id: None };
        if fmt < 3 {
            header.field = fields.be(3)?;
        }
        if fmt < 2 {
            let length = usize::try_from(fields.be(3)?).unwrap_or(usize::MAX);
            header.message = Some((length, u8::try_from(fields.be(1)?).unwrap_or_default()));
        }
        if fmt == 0 {
            header.stream_id = Some(fields.be(4)?.swap_bytes());
        }
        if fmt < 3 && header.field == EXTENDED {
            header.extended = true;
            header.field = fields.be(4)?;
        }
        if let (3, Some(stream)) = (fmt, self.streams.iter().find(|stream| stream.csid == csid)) {
            (header.field, header.extended) = (stream.field, stream.extended);
            // Most senders repeat the extended timestamp on type 3 chunks, as §5.3.1.3 says; some do not.
            // Four bytes that equal it are taken for it, anything else is payload.
            let expected = stream.field.to_be_bytes();
            let next = fields.peek(expected.len());
            if stream.extended && expected.starts_with(next) {
                if next.len() < expected.len() {
                    return None;
                }
                fields.at += expected.len();
            }
        }
        header.size = fields.at;
        Some(header)
    }

    /// Opens or continues a message.
    fn apply(&mut self, header: ChunkHeader) -> Result<(), RtmpError> {
        let ChunkHeader { csid, fmt, .. } = header;
        let index = match self.streams.iter().position(|stream| stream.csid == csid) {
            Some(index) => index,
            // Type 1 lacks only the stream id and the absolute time. librtmp opens chunk stream 2 with it.
            None if fmt > 1 => return Err(RtmpError::NoPreviousHeader { csid, fmt }),
            None if self.streams.len() >= self.max_streams => {
                return Err(RtmpError::TooManyChunkStreams { limit: self.max_streams });
            }
            None => {
                self.streams.push(ChunkStream::new(csid));
                self.streams.len() - 1
            }
        };
        let Some(stream) = self.streams.get_mut(index) else {
            return Err(RtmpError::NoPreviousHeader { csid, fmt });
        };
        if stream.open && fmt != 3 {
            let missing = stream.length.saturating_sub(stream.payload.len());
            return Err(RtmpError::HeaderInsideMessage { csid, fmt, missing });
        }
        if !stream.open {
            (stream.field, stream.extended) = (header.field, header.extended);
            // A type 3 after a type 0 adds the timestamp itself (§5.3.1.2.4).
            stream.timestamp =
                if fmt == 0 { header.field } else { stream.timestamp.wrapping_add(header.field) };
            (stream.length, stream.type_id) = header.message.unwrap_or((stream.length, stream.type_id));
            stream.stream_id = header.stream_id.unwrap_or(stream.stream_id);
            if stream.length > self.max_message {
                let (length, limit) = (stream.length, self.max_message);
                return Err(RtmpError::MessageTooLong { length, limit });
            }
            stream.open = true;
        }
        let left = stream.length.saturating_sub(stream.payload.len());
        self.chunk = Some((index, left.min(self.chunk_size)));
        Ok(())
    }

    /// Takes payload of the current chunk; a message when it completes one.
    fn read_payload(&mut self, input: &mut &[u8]) -> Result<Option<RawMessage>, RtmpError> {
        let Some((index, mut left)) = self.chunk else { return Ok(None) };
        if self.carry.len > 0 {
            let held = self.carry;
            let from_carry = held.as_slice().get(..left.min(held.len)).unwrap_or_default();
            self.append(index, from_carry)?;
            self.carry.drop_front(from_carry.len());
            self.position += from_carry.len() as u64;
            left -= from_carry.len();
        }
        let from_input = input.get(..left.min(input.len())).unwrap_or_default();
        self.append(index, from_input)?;
        self.advance(input, from_input.len());
        left -= from_input.len();
        self.chunk = (left > 0).then_some((index, left));
        if left > 0 {
            return Ok(None);
        }
        let Some(stream) = self.streams.get_mut(index) else { return Ok(None) };
        if stream.payload.len() < stream.length {
            return Ok(None);
        }
        self.unfinished = self.unfinished.saturating_sub(stream.payload.len());
        self.reserved = self.reserved.saturating_sub(stream.payload.capacity());
        stream.open = false;
        Ok(Some(RawMessage {
            timestamp: stream.timestamp,
            type_id: stream.type_id,
            stream_id: stream.stream_id,
            payload: Bytes::from(std::mem::take(&mut stream.payload)),
        }))
    }

    fn append(&mut self, index: usize, bytes: &[u8]) -> Result<(), RtmpError> {
        let Some(stream) = self.streams.get_mut(index) else { return Ok(()) };
        if bytes.len() > self.max_unfinished.saturating_sub(self.unfinished) {
            return Err(RtmpError::UnfinishedTooMuch { limit: self.max_unfinished });
        }
        let wanted = stream.payload.len() + bytes.len();
        if wanted > stream.payload.capacity() {
            // The first step is a share of the bound, so that all chunk streams together stay near it.
            let first = self.max_unfinished / 256;
            let mut target =
                if wanted <= first { stream.length.min(first) } else { capacity(stream.length, wanted) };
            if self.reserved + target > self.max_unfinished {
                target = stream.length.min(stream.payload.capacity() * 2);
            }
            let before = stream.payload.capacity();
            stream.payload.reserve_exact(target.max(wanted) - stream.payload.len());
            self.reserved += stream.payload.capacity().saturating_sub(before);
        }
        stream.payload.extend_from_slice(bytes);
        self.unfinished += bytes.len();
        Ok(())
    }

    /// Set Chunk Size (RTMP 1.0 §5.4.1).
    fn set_chunk_size(&mut self, payload: &[u8]) -> Result<(), RtmpError> {
        let size = control_word(1, payload)?;
        if size == 0 || size > 0x7FFF_FFFF {
            return Err(RtmpError::ChunkSize(size));
        }
        self.chunk_size = usize::try_from(size).unwrap_or(usize::MAX);
        Ok(())
    }

    /// Abort Message (RTMP 1.0 §5.4.2). One that does not say what it aborts aborts nothing.
    fn abort(&mut self, payload: &[u8]) {
        let Ok(csid) = control_word(2, payload) else { return };
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.csid == csid) {
            self.unfinished = self.unfinished.saturating_sub(stream.payload.len());
            self.reserved = self.reserved.saturating_sub(stream.payload.capacity());
            stream.payload = Vec::new();
            stream.open = false;
        }
    }
}

/// How much to reserve for a message of `length` bytes of which `wanted` are there: all of it once an eighth has
/// arrived, an eighth once a sixty-fourth has, and so on. A peer that announces much and sends little holds
/// little, and of a long message at most a seventh is ever copied again.
fn capacity(length: usize, wanted: usize) -> usize {
    let mut capacity = length;
    while capacity / 8 >= wanted {
        capacity /= 8;
    }
    capacity
}

impl ChunkStream {
    const fn new(csid: u32) -> Self {
        Self {
            csid,
            field: 0,
            extended: false,
            timestamp: 0,
            length: 0,
            type_id: 0,
            stream_id: 0,
            payload: Vec::new(),
            open: false,
        }
    }
}

impl Carry {
    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Takes as much of `input` as there is room for, and says how much that was.
    fn fill(&mut self, input: &[u8]) -> usize {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let taken = room.len().min(input.len());
        for (to, from) in room.iter_mut().zip(input) {
            *to = *from;
        }
        self.len += taken;
        taken
    }

    fn drop_front(&mut self, count: usize) {
        let count = count.min(self.len);
        self.bytes.copy_within(count..self.len, 0);
        self.len -= count;
    }
}

/// Big-endian fields from the front of a slice.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn be(&mut self, count: usize) -> Option<u32> {
        let field = self.bytes.get(self.at..self.at + count)?;
        self.at += count;
        Some(field.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }

    fn peek(&self, most: usize) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        rest.get(..most).unwrap_or(rest)
    }
}

/// The 4 bytes that begin a protocol control message.
fn control_word(type_id: u8, payload: &[u8]) -> Result<u32, RtmpError> {
    let word =
        payload.first_chunk().ok_or(RtmpError::ShortMessage { type_id, length: payload.len(), needed: 4 })?;
    Ok(u32::from_be_bytes(*word))
}

#[cfg(test)]
mod tests;
