//! The packets of one frame while they are made.

use bytes::{BufMut, Bytes, BytesMut};

use super::Settings;
use crate::packet::{INTERLEAVED_HEADER, Packet, RTP_HEADER};

const MARKER: u8 = 0x80;
/// Headers of a packet, generously.
const HEAD: usize = INTERLEAVED_HEADER + RTP_HEADER + 4;

/// Headers of all packets stand in one buffer: one allocation a frame.
pub(super) struct Sheet<'a> {
    settings: &'a Settings,
    sequence: u16,
    time: u32,
    limit: usize,
    heads: BytesMut,
    /// Where the head of the last packet begins.
    last: usize,
    /// Where each head ends, and its media.
    parts: Vec<(usize, Bytes)>,
}

impl<'a> Sheet<'a> {
    /// `limit`: bytes behind an RTP header at most.
    pub(super) fn new(settings: &'a Settings, sequence: u16, time: u32, limit: usize, size: usize) -> Self {
        let count = size / limit + 2;
        Self {
            settings,
            sequence,
            time,
            limit,
            heads: BytesMut::with_capacity(count * HEAD),
            last: 0,
            parts: Vec::with_capacity(count),
        }
    }

    /// Bytes of payload that fit a packet, its payload header included.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Adds a packet: its payload is `head` and `body`.
    pub(super) fn put(&mut self, head: &[u8], body: Bytes) {
        self.last = self.heads.len();
        let length = RTP_HEADER + head.len() + body.len();
        self.heads.put_slice(b"$");
        self.heads.put_u8(self.settings.channel);
        // What is longer never comes here.
        self.heads.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
        self.heads.put_slice(&[0x80, self.settings.payload_type & 0x7f]);
        self.heads.put_u16(self.sequence);
        self.heads.put_u32(self.time);
        self.heads.put_u32(self.settings.ssrc);
        self.heads.put_slice(head);
        self.sequence = self.sequence.wrapping_add(1);
        self.parts.push((self.heads.len(), body));
    }

    /// What follows is so many ticks later.
    pub(super) const fn advance(&mut self, ticks: u32) {
        self.time = self.time.wrapping_add(ticks);
    }

    /// Sets the last packet's marker bit.
    pub(super) fn mark(&mut self) {
        if self.parts.is_empty() {
            return;
        }
        if let Some(byte) = self.heads.get_mut(self.last + INTERLEAVED_HEADER + 1) {
            *byte |= MARKER;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn finish(self, out: &mut Vec<Packet>) {
        let heads = self.heads.freeze();
        let mut start = 0;
        out.extend(self.parts.into_iter().map(|(end, body)| {
            let head = heads.slice(start..end);
            start = end;
            Packet::new(head, body)
        }));
    }
}
