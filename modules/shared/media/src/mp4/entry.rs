//! Sample entries of `stsd` (§8.5.2): from a codec's boxes to its track.

use bytes::Bytes;
use mp4_atom::{Esds, FourCC};

use super::boxes::BoxBody;
use super::{IgnoredReason, Mp4Error, Mp4Fault};
use crate::opus::OpusHead;
use crate::{Kind, Track};

/// Bytes of fields before the boxes of a VisualSampleEntry (§12.1.3).
const VISUAL_FIELDS: usize = 78;
/// Bytes of fields before the boxes of an AudioSampleEntry (§12.2.3).
const AUDIO_FIELDS: usize = 28;

/// The sample entry's track, or why it is not carried.
pub(super) fn track(entry: &BoxBody, kind: Kind) -> Result<Result<Track, IgnoredReason>, Mp4Error> {
    let config = |name| config_box(entry, kind, name);
    let made = |record: BoxBody, make: fn(Bytes) -> Result<Track, crate::MediaError>| {
        // A copy: a slice would keep the whole index in memory for as long as the track lives.
        make(Bytes::copy_from_slice(&record.body)).map_err(|fault| record.error(fault))
    };
    let kind_of_entry: [u8; 4] = entry.kind.into();
    let mut track = match (kind, &kind_of_entry) {
        (Kind::Video, b"avc1" | b"avc3") => made(config(b"avcC")?, Track::h264)?,
        (Kind::Video, b"hvc1" | b"hev1") => made(config(b"hvcC")?, Track::h265)?,
        (Kind::Video, b"av01") => made(config(b"av1C")?, Track::av1)?,
        (Kind::Audio, b"mp4a") => match aac(&config(b"esds")?)? {
            Ok(track) => track,
            Err(reason) => return Ok(Err(reason)),
        },
        (Kind::Audio, b"Opus") => {
            made(config(b"dOps")?, |dops| Track::opus(Some(OpusHead::from_dops(dops)?.build())))?
        }
        _ => return Ok(Err(IgnoredReason::Codec(entry.kind))),
    };
    if kind == Kind::Video && (track.video.width == 0 || track.video.height == 0) {
        track.video.width = u16_at(entry, 24).into();
        track.video.height = u16_at(entry, 26).into();
    }
    Ok(Ok(track))
}

/// An AAC track from its elementary stream descriptor (ISO/IEC 14496-14 §6.7.2).
fn aac(esds: &BoxBody) -> Result<Result<Track, IgnoredReason>, Mp4Error> {
    let descriptor = esds.decode::<Esds>()?.es_desc.dec_config;
    // MPEG-4 audio, and the three profiles of MPEG-2 AAC.
    if !matches!(descriptor.object_type_indication, 0x40 | 0x66..=0x68) {
        return Ok(Err(IgnoredReason::ObjectType(descriptor.object_type_indication)));
    }
    let config = descriptor.dec_specific.map(|specific| specific.raw).unwrap_or_default();
    Track::aac(config.into()).map(Ok).map_err(|fault| esds.error(fault))
}

/// The box with the decoder's configuration; in QuickTime files it may be inside `wave`.
fn config_box(entry: &BoxBody, kind: Kind, name: &[u8; 4]) -> Result<BoxBody, Mp4Error> {
    let fields = match kind {
        Kind::Video => VISUAL_FIELDS,
        // QuickTime's sound descriptions, versions 1 and 2, have more fields.
        Kind::Audio => match u16_at(entry, 8) {
            1 => AUDIO_FIELDS + 16,
            2 => AUDIO_FIELDS + 36,
            _ => AUDIO_FIELDS,
        },
    };
    for child in entry.children(fields)? {
        let child = child?;
        if child.is(name) {
            return Ok(child);
        }
        if child.is(b"wave")
            && let Some(found) = child.find(name)?
        {
            return Ok(found);
        }
    }
    Err(entry.error(Mp4Fault::Missing(FourCC::new(name))))
}

fn u16_at(entry: &BoxBody, at: usize) -> u16 {
    entry.body.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}
