//! Whether decoding may start at a picture, by what is in it.

use super::{NAL_IDR, nal_type};
use crate::bits::BitReader;
use crate::nal::NalUnits;

/// `nal_unit_type` of supplemental enhancement information.
const NAL_SEI: u8 = 6;

/// What the first slice of a picture says of where decoding may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture {
    /// An IDR picture: here.
    Idr,
    /// Intra coded, with a recovery point message (§D.2.8): here, if pictures that are shown earlier don't matter.
    Recovery,
    /// Intra coded.
    Intra,
    /// Predicted from other pictures.
    Inter,
    /// There is no slice, or it can't be read.
    Unknown,
}

/// Looks at an access unit of length-prefixed NAL units as far as its first slice.
pub fn picture(access_unit: &[u8], length_size: u8) -> Picture {
    let mut recovery = false;
    for nal in NalUnits::new(access_unit, length_size).flatten() {
        match nal_type(nal) {
            NAL_IDR => return Picture::Idr,
            NAL_SEI => recovery |= has_recovery_point(nal.get(1..).unwrap_or_default()),
            // A slice, or its first partition.
            1 | 2 => {
                return match slice_type(nal.get(1..).unwrap_or_default()) {
                    Some(2 | 4) if recovery => Picture::Recovery,
                    Some(2 | 4) => Picture::Intra,
                    Some(_) => Picture::Inter,
                    None => Picture::Unknown,
                };
            }
            _ => {}
        }
    }
    Picture::Unknown
}

/// `slice_type` (§7.4.3): 0 P, 1 B, 2 I, 3 SP, 4 SI.
fn slice_type(header: &[u8]) -> Option<u32> {
    let mut bits = BitReader::new("slice header", header.get(..16).unwrap_or(header));
    bits.ue().ok()?; // first_mb_in_slice
    Some(bits.ue().ok()? % 5)
}

/// Whether an SEI unit (§7.3.2.3) holds a recovery point message.
fn has_recovery_point(mut messages: &[u8]) -> bool {
    const RECOVERY_POINT: usize = 6;
    // A number in as many bytes as it takes: 255 says that there is more.
    let number = |rest: &mut &[u8]| {
        let mut number = 0_usize;
        while let Some((&byte, after)) = rest.split_first() {
            *rest = after;
            number += usize::from(byte);
            if byte != 255 {
                return Some(number);
            }
        }
        None
    };
    // One byte alone is the trailing bits.
    while messages.len() > 1 {
        let (Some(kind), Some(size)) = (number(&mut messages), number(&mut messages)) else { return false };
        if kind == RECOVERY_POINT {
            return true;
        }
        messages = messages.get(size..).unwrap_or_default();
    }
    false
}
