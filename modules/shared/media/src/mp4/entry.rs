//! Sample entries of `stsd` (§8.5.2): from a codec's boxes to its track.

use bytes::Bytes;
use mp4_atom::FourCC;

use super::IgnoredReason;
use super::boxes::{BadBox, BoxBody};
use super::error::BoxFault;
use super::esds::Esds;
use crate::opus::OpusHead;
use crate::{AudioFormat, Codec, Kind, MediaError, Track};

/// Bytes of fields before the boxes of a VisualSampleEntry (§12.1.3).
const VISUAL_FIELDS: usize = 78;
/// Bytes of fields before the boxes of an AudioSampleEntry (§12.2.3).
const AUDIO_FIELDS: usize = 28;
/// The same with what QuickTime's sound descriptions, versions 1 and 2, have more.
const QUICKTIME_V1_FIELDS: usize = AUDIO_FIELDS + 16;
const QUICKTIME_V2_FIELDS: usize = AUDIO_FIELDS + 36;

/// The sample entry's track, or why it is not carried. `stsd_version` tells the version 1 of ISO (1) from QuickTime's.
pub(super) fn track(entry: &BoxBody, kind: Kind, stsd_version: u8) -> Result<Track, IgnoredReason> {
    let kind_of_entry: [u8; 4] = entry.kind.into();
    if matches!(&kind_of_entry, b"encv" | b"enca" | b"drms" | b"drmi") {
        return Err(IgnoredReason::Encrypted);
    }
    match kind {
        Kind::Video => video(entry, &kind_of_entry),
        Kind::Audio => audio(entry, &kind_of_entry, stsd_version),
    }
}

fn video(entry: &BoxBody, kind_of_entry: &[u8; 4]) -> Result<Track, IgnoredReason> {
    let config = |name: &[u8; 4], make: fn(Bytes) -> Result<Track, MediaError>| {
        let record = entry.children(VISUAL_FIELDS).find(|child| child.is(name));
        made(record.ok_or_else(|| entry.bad(BoxFault::Missing(FourCC::new(name))))?, make)
    };
    // The names of Dolby Vision are those of the codec below it, read as such.
    let mut track = match kind_of_entry {
        b"avc1" | b"avc2" | b"avc3" | b"avc4" | b"dva1" | b"dvav" => config(b"avcC", Track::h264)?,
        b"hvc1" | b"hev1" | b"dvh1" | b"dvhe" => config(b"hvcC", Track::h265)?,
        b"av01" | b"dav1" => config(b"av1C", Track::av1)?,
        _ => return Err(IgnoredReason::Codec(entry.kind)),
    };
    if track.video.width == 0 || track.video.height == 0 {
        track.video.width = entry.u16_at(24).unwrap_or(0).into();
        track.video.height = entry.u16_at(26).unwrap_or(0).into();
    }
    Ok(track)
}

fn audio(entry: &BoxBody, kind_of_entry: &[u8; 4], stsd_version: u8) -> Result<Track, IgnoredReason> {
    let find = |name: &[u8; 4]| sound_box(entry, stsd_version, name);
    let need = |name: &[u8; 4]| find(name).ok_or_else(|| entry.bad(BoxFault::Missing(FourCC::new(name))));
    match kind_of_entry {
        b"mp4a" => described(entry, &need(b"esds")?),
        b"Opus" => made(need(b"dOps")?, |dops| Track::opus(Some(OpusHead::from_dops(dops)?.build()))),
        b".mp3" | b"ms\0U" => Ok(plain(Codec::Mp3, format_of(entry))),
        b"ac-3" | b"ec-3" => {
            let (name, codec) =
                if kind_of_entry == b"ac-3" { (b"dac3", Codec::Ac3) } else { (b"dec3", Codec::Eac3) };
            match (find(name), find(b"esds")) {
                (Some(config), _) => dolby(&config, codec).map_err(IgnoredReason::from),
                (None, Some(esds)) => described(entry, &esds),
                (None, None) => Err(entry.bad(BoxFault::Missing(FourCC::new(name))).into()),
            }
        }
        _ => match find(b"esds") {
            Some(esds) => described(entry, &esds).map_err(|_| IgnoredReason::Codec(entry.kind)),
            None => Err(IgnoredReason::Codec(entry.kind)),
        },
    }
}

/// A track from a decoder configuration.
fn made(record: BoxBody, make: impl Fn(Bytes) -> Result<Track, MediaError>) -> Result<Track, IgnoredReason> {
    // A copy: a slice would keep the whole index in memory for as long as the track lives.
    make(Bytes::copy_from_slice(&record.body)).map_err(|fault| record.bad(fault).into())
}

/// A track from its elementary stream descriptor.
fn described(entry: &BoxBody, esds: &BoxBody) -> Result<Track, IgnoredReason> {
    let descriptors = esds.body.slice(4.min(esds.body.len())..);
    let found = Esds::parse(descriptors).ok_or_else(|| {
        let (need, have) = (esds.body.len() as u64 + 1, esds.body.len() as u64);
        esds.bad(BoxFault::Truncated { need, have })
    })?;
    match found.object_type {
        // MPEG-4 audio, and the three profiles of MPEG-2 AAC.
        0x40 | 0x66..=0x68 => {
            let config = Bytes::copy_from_slice(&found.specific);
            Track::aac(config).map_err(|fault| esds.bad(fault).into())
        }
        // MPEG-2 and MPEG-1 audio: layer III, where nothing says otherwise.
        0x69 | 0x6b => Ok(plain(Codec::Mp3, format_of(entry))),
        0xa5 => Ok(plain(Codec::Ac3, format_of(entry))),
        0xa6 => Ok(plain(Codec::Eac3, format_of(entry))),
        other => Err(IgnoredReason::ObjectType(other)),
    }
}

fn plain(codec: Codec, audio: AudioFormat) -> Track {
    Track { audio, ..Track::other(codec) }
}

/// `channelcount` and `samplerate` of the entry itself.
fn format_of(entry: &BoxBody) -> AudioFormat {
    AudioFormat {
        sample_rate: entry.u32_at(24).map_or(0, |rate| rate >> 16),
        channels: entry.u16_at(16).filter(|channels| *channels <= 64).unwrap_or(0),
    }
}

/// `dac3` and `dec3` (ETSI TS 102 366 §F.4, §F.6): rate and channels; the stream itself needs no configuration.
fn dolby(config: &BoxBody, codec: Codec) -> Result<Track, BadBox> {
    // Fields begin after the rate and number of streams in `dec3`, which has a reserved bit and `asvc` besides.
    let (need, word) = match codec {
        Codec::Ac3 => {
            (3, config.body.first_chunk::<3>().map(|[a, b, c]| u32::from_be_bytes([*a, *b, *c, 0])))
        }
        _ => (
            5,
            config
                .body
                .get(2..)
                .and_then(|rest| rest.first_chunk::<3>())
                .map(|[a, b, c]| u32::from_be_bytes([*a, *b, *c, 0])),
        ),
    };
    let have = config.body.len() as u64;
    let word = word.ok_or_else(|| config.bad(BoxFault::Truncated { need, have }))?;
    let after_bsid = if codec == Codec::Ac3 { 7 } else { 9 };
    let bits = |at: u32, count: u32| word << at >> (32 - count);
    let sample_rate = match bits(0, 2) {
        0 => 48_000,
        1 => 44_100,
        2 => 32_000,
        _ => 0,
    };
    let full: u16 = match bits(after_bsid + 3, 3) {
        1 => 1,
        0 | 2 => 2,
        3 | 4 => 3,
        5 | 6 => 4,
        _ => 5,
    };
    let lfe = bits(after_bsid + 6, 1) as u16;
    Ok(plain(codec, AudioFormat { sample_rate, channels: full + lfe }))
}

/// A box of an audio sample entry; in QuickTime files it may be inside `wave`.
///
/// Where the boxes begin depends on the version, and on whose version it is: it is looked for at each place where they
/// may begin, the likeliest first.
fn sound_box(entry: &BoxBody, stsd_version: u8, name: &[u8; 4]) -> Option<BoxBody> {
    let places = match (entry.u16_at(8), stsd_version) {
        (Some(1), 0) => [QUICKTIME_V1_FIELDS, AUDIO_FIELDS, QUICKTIME_V2_FIELDS],
        (Some(2), _) => [QUICKTIME_V2_FIELDS, AUDIO_FIELDS, QUICKTIME_V1_FIELDS],
        _ => [AUDIO_FIELDS, QUICKTIME_V1_FIELDS, QUICKTIME_V2_FIELDS],
    };
    places.into_iter().find_map(|fields| {
        entry.children(fields).find_map(|child| match child.is(b"wave") {
            true => child.find(name),
            false => child.is(name).then_some(child),
        })
    })
}
