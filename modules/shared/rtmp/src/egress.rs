//! How messages leave on one stream.

use av_media::{Frame, Kind, Track};
use bytes::{Bytes, BytesMut};

use crate::Metadata;
use crate::amf0::{self, Value};
use crate::chunk::{Header, Out, Part, write_parts};
use crate::flv;
use crate::message::{AUDIO, DATA, VIDEO};

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

    /// Whether frames of `track` can be said in RTMP; others are left out.
    pub fn carries(track: &Track) -> bool {
        flv::carries(track)
    }

    /// The decoder configuration of `track`; nothing for a codec that has none on the wire.
    pub fn sequence_header(&self, out: &mut impl Out, track: &Track, timestamp: u32) {
        if let Some(header) = flv::sequence_header(track) {
            self.write(
                out,
                track.kind(),
                timestamp,
                &[Part::Copied(header.as_slice()), Part::Shared(&track.config)],
            );
        }
    }

    /// One frame. `timestamp` is its dts on the wire; the composition offset is `frame.pts - frame.dts`.
    /// A frame of 16 MiB or more cannot be said in RTMP and is left out.
    pub fn frame(&self, out: &mut impl Out, track: &Track, frame: &Frame, timestamp: u32) {
        if let Some(header) = flv::frame_header(track, frame) {
            self.write(
                out,
                track.kind(),
                timestamp,
                &[Part::Copied(header.as_slice()), Part::Shared(&frame.data)],
            );
        }
    }

    /// `onMetaData`: the publisher's own, completed from the tracks; made from the tracks where there is none.
    ///
    /// Properties of a kind that has no track in `tracks` are left out, unless `tracks` is empty.
    pub fn metadata(
        &self,
        out: &mut impl Out,
        metadata: Option<&Metadata>,
        tracks: &[&Track],
        timestamp: u32,
    ) {
        self.completed_metadata(out, &Metadata::completed(metadata, tracks), timestamp);
    }

    /// The same with the value of [`Metadata::completed`], for who sends it again and again.
    pub fn completed_metadata(&self, out: &mut impl Out, value: &Bytes, timestamp: u32) {
        let mut names = BytesMut::new();
        if self.role == Role::Server {
            amf0::encode(&mut names, &Value::from("@setDataFrame"));
        }
        amf0::encode(&mut names, &Value::from("onMetaData"));
        self.write_data(out, timestamp, &[Part::Copied(&names), Part::Shared(value)]);
    }

    /// A data message, as it came in [`MediaItem::Data`](crate::MediaItem::Data).
    pub fn data(&self, out: &mut impl Out, payload: &Bytes, timestamp: u32) {
        self.write_data(out, timestamp, &[Part::Shared(payload)]);
    }

    /// A message that only RTMP knows, as it came in [`MediaItem::Extra`](crate::MediaItem::Extra).
    pub fn extra(&self, out: &mut impl Out, kind: Kind, body: &Bytes, timestamp: u32) {
        self.write(out, kind, timestamp, &[Part::Shared(body)]);
    }

    fn write(&self, out: &mut impl Out, kind: Kind, timestamp: u32, parts: &[Part<'_>]) {
        let (csid, type_id) = match kind {
            Kind::Audio => (4, AUDIO),
            Kind::Video => (6, VIDEO),
        };
        write_parts(out, self.chunk_size, self.header(csid, type_id, timestamp), parts.iter().copied());
    }

    fn write_data(&self, out: &mut impl Out, timestamp: u32, parts: &[Part<'_>]) {
        write_parts(out, self.chunk_size, self.header(5, DATA, timestamp), parts.iter().copied());
    }

    const fn header(&self, csid: u8, type_id: u8, timestamp: u32) -> Header {
        Header { csid, timestamp, type_id, stream_id: self.stream_id }
    }
}
