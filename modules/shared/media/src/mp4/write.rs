//! Writing MP4 (ISO/IEC 14496-12): fragments for HLS, and recordings.
//!
//! Boxes are put together here and not by `mp4-atom`: a codec's configuration goes out byte for byte as the track has
//! it, and the header of a fragment is one allocation of the right size.

mod entry;
mod error;
mod fragment;
mod header;
mod recording;
mod tables;
mod track;

pub use error::MuxError;
pub use fragment::{Fragment, FragmentWriter, Span};
pub use recording::{Amount, Finish, Recording, RecoverError, Recovered, Write, recover};

use bytes::BufMut;

/// Appends a box (§4.2) with what `fill` appends as its content.
fn put_box(out: &mut Vec<u8>, kind: &[u8; 4], fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u32(0);
    out.put_slice(kind);
    fill(out);
    // Boxes in memory stay far below 4 GiB: the writers bound what goes into one.
    let size = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&size.to_be_bytes());
    }
}

/// Appends a full box (§4.2.2).
fn put_full_box(out: &mut Vec<u8>, kind: &[u8; 4], version: u8, flags: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    put_box(out, kind, |out| {
        out.put_u32(u32::from(version) << 24 | flags);
        fill(out);
    });
}
