//! Messages: what is inside a payload (RTMP 1.0 §5.4, §6.2, §7.1).

use std::ops::RangeBounds;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::RtmpError;
use crate::chunk::{Header, RawMessage, write_message};

/// Acknowledgement.
pub const ACKNOWLEDGEMENT: u8 = 3;
/// Audio.
pub const AUDIO: u8 = 8;
/// Video.
pub const VIDEO: u8 = 9;
/// Data in AMF0.
pub const DATA: u8 = 18;
/// Command in AMF0.
pub const COMMAND: u8 = 20;

/// A message by its type. Set Chunk Size and Abort are dealt with by the chunk reader.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Type 3: bytes received so far, modulo 2³².
    Acknowledgement(u32),
    /// Type 4.
    UserControl(UserControl),
    /// Type 5: acknowledge after so many bytes.
    WindowAckSize(u32),
    /// Type 6: the peer asks us to send no more than this unacknowledged.
    PeerBandwidth(u32),
    /// Type 8: an FLV audio tag body.
    Audio(Bytes),
    /// Type 9: an FLV video tag body.
    Video(Bytes),
    /// Type 18, or 15 with its AMF3 prefix taken off.
    Data(Bytes),
    /// Type 20, or 17 with its AMF3 prefix taken off.
    Command(Bytes),
    /// Type 22: several messages in one, see [`split_aggregate`].
    Aggregate(Bytes),
    /// Shared objects and types that RTMP 1.0 does not define.
    Other(u8),
}

/// User control messages (RTMP 1.0 §7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserControl {
    /// Event 0, with the stream's id.
    StreamBegin(u32),
    /// Event 1, with the stream's id.
    StreamEof(u32),
    /// Event 2, with the stream's id.
    StreamDry(u32),
    /// Event 3.
    SetBufferLength {
        /// Message stream.
        stream_id: u32,
        /// How much the client buffers.
        millis: u32,
    },
    /// Event 4, with the stream's id.
    StreamIsRecorded(u32),
    /// Event 6, with a time to echo.
    PingRequest(u32),
    /// Event 7, with the time of the request.
    PingResponse(u32),
    /// Any other event: Flash's buffer and SWF verification events among them.
    Other(u16),
}

impl Message {
    /// Reads a message by its type.
    ///
    /// # Errors
    ///
    /// [`RtmpError::ShortMessage`] for protocol control and user control messages that are cut.
    pub fn parse(raw: &RawMessage) -> Result<Self, RtmpError> {
        let payload = &raw.payload;
        Ok(match raw.type_id {
            3 => Self::Acknowledgement(word(raw, 0)?),
            4 => Self::UserControl(UserControl::parse(raw)?),
            5 => Self::WindowAckSize(word(raw, 0)?),
            6 => Self::PeerBandwidth(word(raw, 0)?),
            AUDIO => Self::Audio(payload.clone()),
            VIDEO => Self::Video(payload.clone()),
            15 => Self::Data(without_amf3_prefix(payload)),
            17 => Self::Command(without_amf3_prefix(payload)),
            DATA => Self::Data(payload.clone()),
            COMMAND => Self::Command(payload.clone()),
            22 => Self::Aggregate(payload.clone()),
            other => Self::Other(other),
        })
    }
}

impl UserControl {
    fn parse(raw: &RawMessage) -> Result<Self, RtmpError> {
        let event = raw.payload.first_chunk().copied().map(u16::from_be_bytes);
        Ok(match event.ok_or_else(|| short(raw, 2))? {
            0 => Self::StreamBegin(word(raw, 2)?),
            1 => Self::StreamEof(word(raw, 2)?),
            2 => Self::StreamDry(word(raw, 2)?),
            3 => Self::SetBufferLength { stream_id: word(raw, 2)?, millis: word(raw, 6)? },
            4 => Self::StreamIsRecorded(word(raw, 2)?),
            6 => Self::PingRequest(word(raw, 2)?),
            7 => Self::PingResponse(word(raw, 2)?),
            other => Self::Other(other),
        })
    }

    fn write(self, out: &mut BytesMut) {
        let mut payload = BytesMut::with_capacity(10);
        let (event, words) = match self {
            Self::StreamBegin(id) => (0, [Some(id), None]),
            Self::StreamEof(id) => (1, [Some(id), None]),
            Self::StreamDry(id) => (2, [Some(id), None]),
            Self::SetBufferLength { stream_id, millis } => (3, [Some(stream_id), Some(millis)]),
            Self::StreamIsRecorded(id) => (4, [Some(id), None]),
            Self::PingRequest(time) => (6, [Some(time), None]),
            Self::PingResponse(time) => (7, [Some(time), None]),
            Self::Other(event) => (event, [None, None]),
        };
        payload.put_u16(event);
        words.into_iter().flatten().for_each(|word| payload.put_u32(word));
        write_control(out, 4, &payload);
    }
}

/// Parts of one aggregate message at most: a second of pictures and sound has a hundred.
const MAX_PARTS: usize = 4096;

/// A part of a message that is kept longer than the message: it holds the whole of it, so a small part is copied.
pub(crate) fn slice_of(message: &Bytes, range: impl RangeBounds<usize>) -> Bytes {
    let part = message.slice(range);
    if part.len() < message.len() / 2 { Bytes::copy_from_slice(&part) } else { part }
}

/// Splits an aggregate message; times are moved so that the first sub-message has the aggregate's own time
/// (RTMP 1.0 §7.1.6). Calls `each` for one after the other and stops at its first error.
///
/// # Errors
///
/// [`RtmpError::Aggregate`] when a sub-message runs beyond the end, [`RtmpError::AggregateParts`] when there are more
/// than any encoder puts in one.
pub fn split_aggregate(
    aggregate: &RawMessage,
    mut each: impl FnMut(RawMessage) -> Result<(), RtmpError>,
) -> Result<(), RtmpError> {
    const TAG_HEADER: usize = 11;
    const BACK_POINTER: usize = 4;
    let whole = &aggregate.payload;
    let length = whole.len();
    let mut rest = whole.clone();
    let mut first = None;
    let mut parts = 0;
    while !rest.is_empty() {
        if parts == MAX_PARTS {
            return Err(RtmpError::AggregateParts { limit: MAX_PARTS });
        }
        parts += 1;
        let at = length - rest.len();
        let cut = RtmpError::Aggregate { length, at };
        if rest.len() < TAG_HEADER {
            return Err(cut);
        }
        let type_id = rest.get_u8() & 0x1F;
        let size = usize::try_from(rest.get_uint(3)).unwrap_or(usize::MAX);
        // FLV's order: 24 low bits, then the 8 high ones (FLV §E.4.1).
        let low = u32::try_from(rest.get_uint(3)).unwrap_or_default();
        let timestamp = u32::from(rest.get_u8()) << 24 | low;
        rest.advance(3);
        if rest.len() < size {
            return Err(cut);
        }
        let begin = length - rest.len();
        let payload = slice_of(whole, begin..begin + size);
        rest.advance(size);
        // Some senders leave the last back pointer out.
        rest.advance(rest.len().min(BACK_POINTER));
        let offset = timestamp.wrapping_sub(*first.get_or_insert(timestamp));
        each(RawMessage {
            timestamp: aggregate.timestamp.wrapping_add(offset),
            type_id,
            stream_id: aggregate.stream_id,
            payload,
        })?;
    }
    Ok(())
}

/// Appends a protocol control message: chunk stream 2, message stream 0 (RTMP 1.0 §5.4).
pub(crate) fn write_control(out: &mut BytesMut, type_id: u8, payload: &[u8]) {
    write_message(out, 128, Header { csid: 2, timestamp: 0, type_id, stream_id: 0 }, &[payload]);
}

/// Set Chunk Size, at once in effect for what follows.
pub(crate) fn write_chunk_size(out: &mut BytesMut, size: u32) {
    write_control(out, 1, &size.to_be_bytes());
}

/// Acknowledgement of everything received so far.
pub(crate) fn write_acknowledgement(out: &mut BytesMut, received: u64) {
    let modulo = u32::try_from(received & u64::from(u32::MAX)).unwrap_or_default();
    write_control(out, ACKNOWLEDGEMENT, &modulo.to_be_bytes());
}

/// Window Acknowledgement Size.
pub(crate) fn write_window(out: &mut BytesMut, size: u32) {
    write_control(out, 5, &size.to_be_bytes());
}

/// Set Peer Bandwidth, limit type "dynamic".
pub(crate) fn write_peer_bandwidth(out: &mut BytesMut, size: u32) {
    let [a, b, c, d] = size.to_be_bytes();
    write_control(out, 6, &[a, b, c, d, 2]);
}

/// A user control message.
pub(crate) fn write_user_control(out: &mut BytesMut, message: UserControl) {
    message.write(out);
}

/// AMF3 messages of every known sender carry AMF0 behind a zero byte.
fn without_amf3_prefix(payload: &Bytes) -> Bytes {
    if payload.first() == Some(&0) { payload.slice(1..) } else { payload.clone() }
}

fn short(raw: &RawMessage, needed: usize) -> RtmpError {
    RtmpError::ShortMessage { type_id: raw.type_id, length: raw.payload.len(), needed }
}

fn word(raw: &RawMessage, at: usize) -> Result<u32, RtmpError> {
    let bytes = raw.payload.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().map(u32::from_be_bytes).ok_or_else(|| short(raw, at + 4))
}

#[cfg(test)]
mod tests;
