//! AAC: RFC 3640 §3.2, and LATM with its configuration outside (RFC 6416 §6.1).

use av_media::aac::AdtsHeader;
use bytes::{Bytes, BytesMut};

use super::{Joined, MAX_FRAME};
use crate::received::Received;

/// Access units in a packet.
const MAX_UNITS: usize = 256;

/// Finds the access units in packets.
#[derive(Debug)]
pub(super) struct Joiner {
    /// Bits of size, index and index delta; `None`: LATM.
    lengths: Option<[u8; 3]>,
    frame_ticks: u32,
    /// An access unit that comes in several packets.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    time: u32,
    data: BytesMut,
    /// Bytes of the whole.
    size: usize,
}

impl Joiner {
    pub(super) fn new(lengths: [u8; 3], frame_ticks: u32) -> Self {
        Self { lengths: Some(lengths), frame_ticks, open: None }
    }

    pub(super) fn latm() -> Self {
        Self { lengths: None, frame_ticks: 0, open: None }
    }

    /// Packets are missing here. Whether an access unit went with them.
    pub(super) fn lose(&mut self) -> bool {
        self.open.take().is_some()
    }

    pub(super) fn push(&mut self, packet: Received, joined: &mut Vec<Joined>) -> u64 {
        match self.lengths {
            Some(lengths) => self.generic(&packet, lengths, joined),
            None => self.latm_packet(&packet, joined),
        }
    }

    fn generic(&mut self, packet: &Received, lengths: [u8; 3], joined: &mut Vec<Joined>) -> u64 {
        let Some((sizes, data)) = headers(&packet.payload, lengths) else { return 1 };
        if let [size] = *sizes
            && size > data.len()
        {
            return self.fragment(packet, size, data, joined);
        }
        let cut = u64::from(self.open.take().is_some());
        let mut rest = data;
        for (size, index) in sizes.into_iter().zip(0_u32..) {
            if size > rest.len() {
                return cut + 1;
            }
            let data = without_adts(rest.split_to(size));
            if data.is_empty() {
                continue;
            }
            let later = index.wrapping_mul(self.frame_ticks);
            joined.push(Joined { time: packet.time, later, data, is_sync: true });
        }
        cut
    }

    /// A part of an access unit (§3.2.3.1): each says the size of the whole.
    fn fragment(&mut self, packet: &Received, size: usize, part: Bytes, joined: &mut Vec<Joined>) -> u64 {
        let before = self.open.take();
        if size > MAX_FRAME {
            return u64::from(before.is_some()) + 1;
        }
        let fits = |open: &Open| (open.time, open.size) == (packet.time, size);
        let cut = u64::from(before.as_ref().is_some_and(|open| !fits(open)));
        let fresh = || Open { time: packet.time, data: BytesMut::new(), size };
        let mut open = before.filter(fits).unwrap_or_else(fresh);
        open.data.extend_from_slice(&part);
        if open.data.len() < size {
            self.open = Some(open);
            return cut;
        }
        if open.data.len() > size {
            return cut + 1;
        }
        let data = without_adts(open.data.freeze());
        joined.push(Joined { time: packet.time, later: 0, data, is_sync: true });
        cut
    }

    /// A row of bytes of 255 and a last one say the length of the frame that follows; the marker ends it.
    fn latm_packet(&mut self, packet: &Received, joined: &mut Vec<Joined>) -> u64 {
        let before = self.open.take();
        let fits = |open: &Open| open.time == packet.time;
        let cut = u64::from(before.as_ref().is_some_and(|open| !fits(open)));
        let fresh = || Open { time: packet.time, data: BytesMut::new(), size: 0 };
        let mut open = before.filter(fits).unwrap_or_else(fresh);
        if open.data.len() + packet.payload.len() > MAX_FRAME {
            return cut + 1;
        }
        open.data.extend_from_slice(&packet.payload);
        if !packet.marker {
            self.open = Some(open);
            return cut;
        }
        let all = open.data.freeze();
        let full = all.iter().take_while(|&&byte| byte == 255).count();
        let Some(&last) = all.get(full) else { return cut + 1 };
        let (start, length) = (full + 1, 255 * full + usize::from(last));
        if length == 0 || start + length > all.len() {
            return cut + 1;
        }
        let data = all.slice(start..start + length);
        joined.push(Joined { time: packet.time, later: 0, data, is_sync: true });
        cut
    }
}

/// The sizes of a packet's access units, and what is behind its headers (§3.2.1).
fn headers(payload: &Bytes, [size, index, delta]: [u8; 3]) -> Option<(Vec<usize>, Bytes)> {
    // Without headers: one access unit.
    if size == 0 {
        return Some((vec![payload.len()], payload.clone()));
    }
    let (bits, rest) = payload.split_first_chunk::<2>()?;
    let mut bits = usize::from(u16::from_be_bytes(*bits));
    let length = bits.div_ceil(8);
    let header = rest.get(..length)?;
    let mut sizes = Vec::new();
    let mut at = 0;
    let mut other = index;
    while bits >= usize::from(size) + usize::from(other) && sizes.len() < MAX_UNITS {
        sizes.push(number(header, at, size)?);
        let whole = usize::from(size) + usize::from(other);
        at += whole;
        bits -= whole;
        other = delta;
    }
    (!sizes.is_empty()).then(|| (sizes, payload.slice(2 + length..)))
}

/// So many bits, at most 32, from a place on.
fn number(bytes: &[u8], at: usize, count: u8) -> Option<usize> {
    let mut value = 0_usize;
    for place in at..at + usize::from(count.min(32)) {
        let bit = bytes.get(place / 8)? >> (7 - place % 8) & 1;
        value = value << 1 | usize::from(bit);
    }
    Some(value)
}

/// Some cameras leave the ADTS header in front of what is said to be a raw frame.
fn without_adts(data: Bytes) -> Bytes {
    match AdtsHeader::parse(&data) {
        Ok(header) if header.frame_length == data.len() && header.header_length < data.len() => {
            data.slice(header.header_length..)
        }
        _ => data,
    }
}
