//! AV1 (RTP Payload Format For AV1, version 1.0, §4).

use av_media::Track;
use av_media::av1::Av1Config;
use bytes::{Bytes, BytesMut};

use super::{Joined, MAX_FRAME};
use crate::obu::{Obu, Obus, SEQUENCE_HEADER, leb128};
use crate::received::Received;

const Z: u8 = 0x80;
const Y: u8 = 0x40;

/// The track that a temporal unit's sequence header describes.
pub(super) fn track(temporal_unit: &Bytes) -> Option<Track> {
    let header = Obus::new(temporal_unit).flatten().find(|obu| obu.kind == SEQUENCE_HEADER)?;
    let config = Av1Config::from_sequence_header(&header.to_bytes()).ok()?;
    Track::av1(config).ok()
}

/// Puts temporal units together: OBUs with their sizes again.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    data: BytesMut,
    time: Option<u32>,
    /// An OBU that goes on in the next packet.
    open: Option<BytesMut>,
    is_sync: bool,
    is_broken: bool,
    /// Packets are missing before it: that it begins in its middle is nobody's fault.
    after_loss: bool,
}

impl Joiner {
    /// Packets are missing here. Whether a temporal unit went with them.
    pub(super) fn lose(&mut self) -> bool {
        let begun = self.time.is_some();
        self.open = None;
        self.is_broken = begun;
        self.after_loss = true;
        begun
    }

    pub(super) fn push(&mut self, packet: Received, joined: &mut Vec<Joined>) -> u64 {
        let mut malformed = 0;
        if self.time.is_some_and(|time| time != packet.time) {
            malformed += self.finish(joined);
        }
        self.time = Some(packet.time);
        if self.elements(&packet.payload).is_none() {
            malformed += u64::from(!self.is_broken && !self.after_loss);
            self.is_broken = true;
        }
        if packet.marker {
            malformed += self.finish(joined);
        }
        malformed
    }

    fn finish(&mut self, joined: &mut Vec<Joined>) -> u64 {
        let cut = self.open.take().is_some();
        let (data, is_sync) = (self.data.split().freeze(), std::mem::take(&mut self.is_sync));
        let is_broken = std::mem::take(&mut self.is_broken) || cut;
        self.after_loss = false;
        if let Some(time) = self.time.take()
            && !is_broken
            && !data.is_empty()
        {
            joined.push(Joined { time, later: 0, data, is_sync });
        }
        u64::from(cut)
    }

    /// `None`: it breaks the format, or more than fits came.
    fn elements(&mut self, payload: &Bytes) -> Option<()> {
        let (&first, _) = payload.split_first()?;
        let mut rest = payload.slice(1..);
        let count = usize::from(first >> 4 & 3);
        let mut index = 0;
        if first & Z == 0 {
            // What should have gone on does not.
            self.open.take().is_none().then_some(())?;
        }
        while !rest.is_empty() {
            index += 1;
            let element = if count > 0 && index >= count {
                std::mem::take(&mut rest)
            } else {
                let (size, size_len) = leb128(&rest)?;
                let end = size_len.checked_add(size).filter(|&end| end <= rest.len())?;
                let element = rest.slice(size_len..end);
                rest = rest.slice(end..);
                element
            };
            let goes_on = rest.is_empty() && first & Y != 0;
            let continues = index == 1 && first & Z != 0;
            if continues || goes_on {
                let mut open = match (continues, self.open.take()) {
                    (true, None) => return None,
                    (true, Some(open)) => open,
                    (false, _) => BytesMut::new(),
                };
                (open.len() + element.len() <= MAX_FRAME).then_some(())?;
                open.extend_from_slice(&element);
                if goes_on {
                    self.open = Some(open);
                } else {
                    self.put(&open.freeze())?;
                }
            } else {
                self.put(&element)?;
            }
        }
        Some(())
    }

    fn put(&mut self, element: &Bytes) -> Option<()> {
        if element.is_empty() {
            return Some(());
        }
        let obu = Obu::parse(element).ok()?;
        (self.data.len() + obu.len() <= MAX_FRAME).then_some(())?;
        if obu.travels() {
            self.is_sync |= obu.kind == SEQUENCE_HEADER;
            obu.put(&mut self.data);
        }
        Some(())
    }
}
