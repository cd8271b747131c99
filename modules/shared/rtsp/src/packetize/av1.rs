//! AV1 (RTP Payload Format For AV1, version 1.0, §4).
//!
//! OBUs lose their size fields and temporal delimiters go (§5). Small OBUs ride in front of a large one, which begins in
//! that packet and goes on in packets of its own.

use bytes::{Bytes, BytesMut};

use super::sheet::Sheet;
use crate::obu::{Obu, Obus, SEQUENCE_HEADER, put_leb128};

/// OBUs up to that are copied in among the headers.
const SMALL: usize = 160;
/// Aggregation header (§4.4): the first element goes on from the packet before, the last one goes on in the next, one
/// element, a coded video sequence begins.
const Z: u8 = 0x80;
const Y: u8 = 0x40;
const ONE_ELEMENT: u8 = 0x10;
const N: u8 = 0x08;

/// The sequence header OBU of an `av1C`, as it stands there; empty where there is none.
pub(super) fn sequence_header(av1c: &Bytes) -> Bytes {
    let obus = av1c.slice(av1c.len().min(4)..);
    let found = Obus::new(&obus).flatten().find(|obu| obu.kind == SEQUENCE_HEADER);
    // Without what surrounds it: its memory may be a whole message's.
    found.map(|obu| obu.to_bytes()).unwrap_or_default()
}

/// Writes a temporal unit. `false`: there is nothing in it, or it is no row of OBUs.
pub(super) fn put(sheet: &mut Sheet<'_>, sequence_header: Option<&Bytes>, data: &Bytes) -> bool {
    let Ok(obus) = Obus::new(data).collect::<Result<Vec<Obu>, _>>() else { return false };
    let mut obus: Vec<Obu> = obus.into_iter().filter(Obu::travels).collect();
    if obus.is_empty() {
        return false;
    }
    if let Some(header) = sequence_header
        && !obus.iter().any(|obu| obu.kind == SEQUENCE_HEADER)
        && let Some(Ok(obu)) = Obus::new(header).next()
    {
        obus.insert(0, obu);
    }
    let begins = obus.iter().any(|obu| obu.kind == SEQUENCE_HEADER);
    let mut first = if begins { N } else { 0 };
    let limit = sheet.limit();
    let mut small = BytesMut::new();
    for obu in obus {
        // A size takes two bytes at most here.
        let room = limit.saturating_sub(1 + small.len() + 2);
        let size = obu.len();
        if size <= SMALL {
            if size > room {
                sheet.put(&[&[std::mem::take(&mut first)][..], &small.split()].concat(), Bytes::new());
            }
            put_leb128(&mut small, size);
            small.extend_from_slice(obu.header());
            small.extend_from_slice(&obu.payload);
            continue;
        }
        put_large(sheet, &mut first, &mut small, &obu);
    }
    if !small.is_empty() {
        sheet.put(&[&[first][..], &small].concat(), Bytes::new());
    }
    sheet.mark();
    true
}

/// The last element of one packet, and the only one of those that follow.
fn put_large(sheet: &mut Sheet<'_>, first: &mut u8, small: &mut BytesMut, obu: &Obu) {
    let limit = sheet.limit();
    if !small.is_empty() && limit.saturating_sub(1 + small.len() + 3) < SMALL {
        sheet.put(&[&[std::mem::take(first)][..], &small.split()].concat(), Bytes::new());
    }
    let mut rest = obu.payload.clone();
    let mut head = vec![std::mem::take(first)];
    if small.is_empty() {
        if let Some(byte) = head.first_mut() {
            *byte |= ONE_ELEMENT;
        }
        head.extend_from_slice(obu.header());
        let part = rest.split_to(rest.len().min(limit - head.len()));
        if let (false, Some(byte)) = (rest.is_empty(), head.first_mut()) {
            *byte |= Y;
        }
        sheet.put(&head, part);
    } else {
        // Each element has its length in front of it (W = 0).
        head.extend_from_slice(&small.split());
        let part = rest.split_to(rest.len().min(limit - head.len() - 2 - obu.header().len()));
        let mut length = BytesMut::new();
        put_leb128(&mut length, obu.header().len() + part.len());
        head.extend_from_slice(&length);
        head.extend_from_slice(obu.header());
        if let (false, Some(byte)) = (rest.is_empty(), head.first_mut()) {
            *byte |= Y;
        }
        sheet.put(&head, part);
    }
    // The rest in equal parts.
    let each = rest.len().div_ceil(rest.len().div_ceil(limit - 1).max(1));
    while !rest.is_empty() {
        let part = rest.split_to(rest.len().min(each));
        let more = if rest.is_empty() { 0 } else { Y };
        sheet.put(&[Z | more | ONE_ELEMENT], part);
    }
}
