//! What the NAL units of a picture say of it, before any decoder has seen them.

use crate::bits::{BitReader, unescape};
use crate::{Codec, h264, h265};

/// How an access unit, or a part of one that came by itself, begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture {
    /// With the first slice of a picture.
    Begins,
    /// With another slice of the picture before it.
    Continues,
    /// Nothing can be told: another codec, or not NAL units.
    Unknown,
}

/// What one NAL unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A parameter set: 0 VPS, 1 SPS, 2 PPS.
    Set(usize),
    /// An access unit delimiter, or filler: of no use behind lengths.
    Padding,
    /// A coded slice.
    Slice(Slice),
    /// Supplemental information: says that decoding may start here (H.264 §D.2.8, H.265 §D.3.8).
    Recovery,
    /// Anything else.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    /// It is the first of its picture.
    pub(crate) begins: bool,
    /// Its picture is an IDR picture, or another intra random access picture.
    pub(crate) random_access: bool,
    /// It refers to no other picture. H.264 only.
    pub(crate) intra: bool,
}

impl Part {
    /// `codec` is H.264 or H.265.
    pub(crate) fn of(codec: Codec, nal: &[u8]) -> Self {
        if codec == Codec::H265 { Self::of_h265(nal) } else { Self::of_h264(nal) }
    }

    fn of_h264(nal: &[u8]) -> Self {
        match h264::nal_type(nal) {
            kind @ (1 | 2 | h264::NAL_IDR) => {
                // first_mb_in_slice, slice_type: 18 bytes hold the longest of both.
                let rbsp = unescape(nal.get(1..nal.len().min(19)).unwrap_or_default());
                let mut bits = BitReader::new("slice header", &rbsp);
                let (first, slice_type) = (bits.ue(), bits.ue());
                Self::Slice(Slice {
                    begins: first.is_ok_and(|first| first == 0),
                    random_access: kind == h264::NAL_IDR,
                    intra: slice_type.is_ok_and(|kind| matches!(kind, 2 | 4 | 7 | 9)),
                })
            }
            // Partitions B and C of a slice.
            3 | 4 => Self::Slice(Slice { begins: false, random_access: false, intra: false }),
            6 => recovery(nal.get(1..)),
            h264::NAL_SPS => Self::Set(1),
            h264::NAL_PPS => Self::Set(2),
            9 | 12 => Self::Padding,
            _ => Self::Other,
        }
    }

    fn of_h265(nal: &[u8]) -> Self {
        match h265::nal_type(nal) {
            0..=31 => Self::Slice(Slice {
                // first_slice_segment_in_pic_flag
                begins: nal.get(2).is_some_and(|byte| byte & 0x80 != 0),
                random_access: h265::is_irap_nal(nal),
                intra: false,
            }),
            h265::NAL_VPS => Self::Set(0),
            h265::NAL_SPS => Self::Set(1),
            h265::NAL_PPS => Self::Set(2),
            35 | 38 => Self::Padding,
            39 => recovery(nal.get(2..)),
            _ => Self::Other,
        }
    }
}

/// Looks for a recovery point among the messages of an SEI unit (H.264 §7.3.2.3.1, H.265 §7.3.5).
fn recovery(messages: Option<&[u8]>) -> Part {
    const RECOVERY_POINT: usize = 6;
    /// It comes first, or in a unit of its own; other messages may be long.
    const MOST: usize = 4096;
    let messages = messages.unwrap_or_default();
    let rbsp = unescape(messages.get(..messages.len().min(MOST)).unwrap_or_default());
    let mut rest = rbsp.as_slice();
    // What follows the last message is one byte.
    while rest.len() > 2 {
        let Some((kind, size)) = number(&mut rest).zip(number(&mut rest)) else { break };
        if kind == RECOVERY_POINT {
            return Part::Recovery;
        }
        rest = rest.get(size..).unwrap_or_default();
    }
    Part::Other
}

/// A number as SEI messages write it: bytes of 255 and a last one, added up.
fn number(rest: &mut &[u8]) -> Option<usize> {
    let mut sum = 0_usize;
    loop {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        sum = sum.saturating_add(byte.into());
        if byte != 255 {
            return Some(sum);
        }
    }
}
