//! H.264 in packetization mode 1 (RFC 6184 §6.3) and H.265 without DONL (RFC 7798 §4.4).
//!
//! A NAL unit that fits is a packet, a larger one becomes fragments of equal size (but the last), so that the network
//! stack can cut them out of one buffer. Parameter sets go together in one packet before each sync frame.

use av_media::nal::NalUnits;
use bytes::Bytes;

use super::sheet::Sheet;

/// Whose NAL units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Units {
    H264,
    H265,
}

/// RFC 6184 §5.7.1, §5.8.
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
/// RFC 7798 §4.4.2, §4.4.3.
const AP: u8 = 48;
const FU: u8 = 49;

const START: u8 = 0x80;
const END: u8 = 0x40;

/// Writes an access unit, `sets` in front of it. `false`: there is nothing in it.
pub(super) fn put(
    sheet: &mut Sheet<'_>,
    units: Units,
    sets: &[Bytes],
    data: &Bytes,
    length_size: u8,
) -> bool {
    put_sets(sheet, units, sets);
    let mut found = false;
    for nal in NalUnits::new(data, length_size).flatten() {
        if nal.len() >= units.header() {
            found = true;
            put_unit(sheet, units, &data.slice_ref(nal));
        }
    }
    sheet.mark();
    found
}

impl Units {
    /// Bytes of a NAL unit's header.
    const fn header(self) -> usize {
        match self {
            Self::H264 => 1,
            Self::H265 => 2,
        }
    }
}

/// In one packet where they fit.
fn put_sets(sheet: &mut Sheet<'_>, units: Units, sets: &[Bytes]) {
    let size = units.header() + sets.iter().map(|set| 2 + set.len()).sum::<usize>();
    if sets.len() < 2 || size > sheet.limit() {
        return sets.iter().for_each(|set| put_unit(sheet, units, set));
    }
    let mut payload = Vec::with_capacity(size);
    match units {
        Units::H264 => {
            let first = |set: &Bytes| set.first().copied().unwrap_or_default();
            let forbidden = sets.iter().fold(0, |bits, set| bits | first(set) & 0x80);
            let reference = sets.iter().map(|set| first(set) & 0x60).max().unwrap_or_default();
            payload.push(forbidden | reference | STAP_A);
        }
        // Layer 0, temporal id 0: that of parameter sets.
        Units::H265 => payload.extend([AP << 1, 1]),
    }
    for set in sets {
        // They fit a packet.
        payload.extend(u16::try_from(set.len()).unwrap_or_default().to_be_bytes());
        payload.extend_from_slice(set);
    }
    sheet.put(&payload, Bytes::new());
}

fn put_unit(sheet: &mut Sheet<'_>, units: Units, nal: &Bytes) {
    if nal.len() <= sheet.limit() {
        return sheet.put(&[], nal.clone());
    }
    let (mut head, kind) = match (units, nal.as_ref()) {
        (Units::H264, &[header, ..]) => ([header & 0xe0 | FU_A, 0, 0], header & 0x1f),
        (Units::H265, &[first, second, ..]) => ([first & 0x81 | FU << 1, second, 0], first >> 1 & 0x3f),
        _ => return,
    };
    let size = units.header() + 1;
    let rest = nal.slice(units.header()..);
    let count = rest.len().div_ceil(sheet.limit() - size);
    let each = rest.len().div_ceil(count);
    let mut at = 0;
    while at < rest.len() {
        let end = rest.len().min(at + each);
        let edges = (if at == 0 { START } else { 0 }) | (if end == rest.len() { END } else { 0 });
        if let Some(last) = head.get_mut(size - 1) {
            *last = edges | kind;
        }
        sheet.put(head.get(..size).unwrap_or_default(), rest.slice(at..end));
        at = end;
    }
}
