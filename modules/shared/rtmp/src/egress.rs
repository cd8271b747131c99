//! How messages leave on one stream.

use av_media::{Frame, Track};
use bytes::{Bytes, BytesMut};

use crate::Metadata;

/// Chunk size of everything that leaves, announced before the first media message. Chunk headers are then a
/// few bytes in 64 KiB.
pub const CHUNK_SIZE: u32 = 65_536;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A player: metadata goes out as `onMetaData`.
    Player,
    /// A server that is published to: metadata goes out as `@setDataFrame`, `onMetaData`.
    Server,
}

/// Serialises tracks, frames and metadata into chunks.
///
/// Each call appends whole messages: a type 0 chunk, then type 3 chunks, without reference to anything sent
/// before. So what one call wrote can be sent to any player, at any message boundary. `timestamp` is the
/// wire time in milliseconds, which the caller lets wrap at 2³².
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Egress {
    /// Most payload bytes per chunk: what was announced with Set Chunk Size.
    pub chunk_size: u32,
    /// Message stream id, from `createStream`.
    pub stream_id: u32,
    /// Who is at the other end.
    pub role: Role,
}

impl Egress {
    /// For every player of a [`ServerSession`](crate::ServerSession): [`CHUNK_SIZE`], stream 1. All players
    /// get the same bytes, so these are the same for all.
    pub const fn players() -> Self {
        Self { chunk_size: CHUNK_SIZE, stream_id: 1, role: Role::Player }
    }

    /// The decoder configuration of `track`; nothing for a codec that has none on the wire.
    pub fn sequence_header(&self, out: &mut BytesMut, track: &Track, timestamp: u32) {
        let _ = (out, track, timestamp);
    }

    /// One frame. `timestamp` is its dts on the wire; the composition offset is `frame.pts - frame.dts`.
    pub fn frame(&self, out: &mut BytesMut, track: &Track, frame: &Frame, timestamp: u32) {
        let _ = (out, track, frame, timestamp);
    }

    /// `onMetaData`: the publisher's own, completed from the tracks; made from the tracks where there is none.
    ///
    /// Properties of a kind that has no track in `tracks` are left out, unless `tracks` is empty.
    pub fn metadata(
        &self,
        out: &mut BytesMut,
        metadata: Option<&Metadata>,
        tracks: &[&Track],
        timestamp: u32,
    ) {
        let _ = (out, metadata, tracks, timestamp);
    }

    /// A data message, as it came in [`MediaItem::Data`](crate::MediaItem::Data).
    pub fn data(&self, out: &mut BytesMut, payload: &Bytes, timestamp: u32) {
        let _ = (out, payload, timestamp);
    }
}
