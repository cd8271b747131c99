//! MPEG-1 and MPEG-2 audio (RFC 2250 §3.5).

use std::num::NonZeroU32;

use av_media::mpeg_audio::Header;
use av_media::{AudioFormat, Codec, Track};
use bytes::{Bytes, BytesMut};

use super::Joined;
use crate::received::Received;

/// No frame is longer.
const MAX_FRAME: usize = 8192;

/// The track that a frame's header describes.
pub(super) fn track(frame: &[u8]) -> Option<Track> {
    let header = Header::parse(frame)?;
    let audio = AudioFormat { sample_rate: header.sample_rate.get(), channels: header.channels };
    Some(Track { audio, ..Track::other(Codec::Mp3) })
}

/// Finds the frames in packets: several whole ones, or a part of one.
#[derive(Debug)]
pub(super) struct Joiner {
    clock: NonZeroU32,
    /// A frame that comes in several packets.
    open: Option<(u32, BytesMut)>,
}

impl Joiner {
    pub(super) const fn new(clock: NonZeroU32) -> Self {
        Self { clock, open: None }
    }

    /// Packets are missing here. Whether a frame went with them.
    pub(super) fn lose(&mut self) -> bool {
        self.open.take().is_some()
    }

    pub(super) fn push(&mut self, packet: Received, joined: &mut Vec<Joined>) -> u64 {
        let Some((&[_, _, high, low], _)) = packet.payload.split_first_chunk::<4>() else { return 1 };
        let (offset, part) = (usize::from(u16::from_be_bytes([high, low])), packet.payload.slice(4..));
        let before = self.open.take();
        if offset == 0 {
            return u64::from(before.is_some()) + self.frames(packet.time, part, joined);
        }
        let Some((time, mut data)) =
            before.filter(|(time, data)| (*time, data.len()) == (packet.time, offset))
        else {
            return 1;
        };
        data.extend_from_slice(&part);
        self.frames(time, data.freeze(), joined)
    }

    fn frames(&mut self, time: u32, mut rest: Bytes, joined: &mut Vec<Joined>) -> u64 {
        let mut later = 0_u32;
        while !rest.is_empty() {
            let Some(header) = Header::parse(&rest) else { return 1 };
            let Some(length) = header.length else { return 1 };
            if length > rest.len() {
                if length > MAX_FRAME || !joined.is_empty() {
                    return 1;
                }
                self.open = Some((time, BytesMut::from(&*rest)));
                return 0;
            }
            joined.push(Joined { time, later, data: rest.split_to(length), is_sync: true });
            let ticks = u64::from(header.samples) * u64::from(self.clock.get());
            // A frame is shorter than a second.
            later = later.wrapping_add((ticks / u64::from(header.sample_rate.get())) as u32);
        }
        0
    }
}
