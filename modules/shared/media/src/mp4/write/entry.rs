//! Sample entries of `stsd` (§8.5.2): from a track to its codec's boxes.

use bytes::{BufMut, Bytes};

use super::{MuxError, put_box, put_full_box};
use crate::av1::Av1Config;
use crate::h264::AvcConfig;
use crate::h265::{self, HevcConfig};
use crate::opus::OpusHead;
use crate::{Codec, Track};

/// A whole sample entry.
pub(super) fn sample_entry(track: &Track) -> Result<Vec<u8>, MuxError> {
    let needs_config = matches!(track.codec, Codec::H264 | Codec::H265 | Codec::Av1 | Codec::Aac);
    if needs_config && track.config.is_empty() {
        return Err(MuxError::NoConfig(track.codec));
    }
    let mut out = Vec::new();
    match track.codec {
        Codec::H264 => visual(&mut out, b"avc1", track, b"avcC", &avcc(track)?),
        Codec::H265 => visual(&mut out, b"hvc1", track, b"hvcC", &hvcc(track)?),
        Codec::Av1 => visual(&mut out, b"av01", track, b"av1C", &av1c(track)),
        Codec::Aac => sound(&mut out, b"mp4a", track, |out| esds(out, &track.config)),
        Codec::Opus => {
            let head = match track.config.is_empty() {
                false => OpusHead::parse(track.config.clone())?,
                true => OpusHead {
                    // More than two would need a mapping, which only the header has.
                    channels: if track.audio.channels == 1 { 1 } else { 2 },
                    pre_skip: 0,
                    input_rate: crate::opus::SAMPLE_RATE,
                    gain: 0,
                    family: 0,
                    mapping: Bytes::new(),
                },
            };
            sound(&mut out, b"Opus", track, |out| {
                put_box(out, b"dOps", |out| out.put_slice(&head.to_dops()))
            });
        }
        codec => return Err(MuxError::Codec { container: "MP4", codec }),
    }
    Ok(out)
}

/// The record, complete: players that read profile and chroma format from it fail where they are missing.
fn avcc(track: &Track) -> Result<Bytes, MuxError> {
    let config = AvcConfig::parse(track.config.clone())?;
    if config.sps.is_empty() || config.pps.is_empty() {
        return Err(MuxError::NoConfig(track.codec));
    }
    let rebuilt = AvcConfig::from_parameter_sets(config.sps.clone(), config.pps.clone())?;
    let fields = |config: &AvcConfig| (config.profile, config.compatibility, config.level);
    let says_the_same =
        fields(&config) == fields(&rebuilt) && (!config.extension.is_empty() || rebuilt.extension.is_empty());
    Ok(if says_the_same { track.config.clone() } else { rebuilt.build()? })
}

/// The record as `hvc1` wants it: no parameter sets of these types come in the samples (ISO/IEC 14496-15 §8.4.1).
fn hvcc(track: &Track) -> Result<Bytes, MuxError> {
    const SETS: [u8; 3] = [h265::NAL_VPS, h265::NAL_SPS, h265::NAL_PPS];
    let mut config = HevcConfig::parse(track.config.clone())?;
    if SETS.iter().any(|kind| config.units(*kind).next().is_none()) {
        return Err(MuxError::NoConfig(track.codec));
    }
    config.profile = config.true_profile();
    for array in &mut config.arrays {
        array.complete |= SETS.contains(&array.nal_type);
    }
    Ok(config.build()?)
}

/// The record, with what its sequence header says in front of it.
fn av1c(track: &Track) -> Bytes {
    let says = |header: &[u8]| Av1Config::from_sequence_header(header).ok();
    let (fields, header) = track.config.split_at_checked(4).unwrap_or_default();
    match says(header) {
        Some(rebuilt) if rebuilt.get(..3) != fields.get(..3) => rebuilt,
        _ => track.config.clone(),
    }
}

/// VisualSampleEntry (§12.1.3).
fn visual(out: &mut Vec<u8>, kind: &[u8; 4], track: &Track, record: &[u8; 4], config: &[u8]) {
    put_box(out, kind, |out| {
        out.put_bytes(0, 6);
        out.put_u16(1); // data_reference_index
        out.put_bytes(0, 16);
        out.put_u16(saturated(track.video.width));
        out.put_u16(saturated(track.video.height));
        out.put_u32(72 << 16); // horizresolution, in dots an inch
        out.put_u32(72 << 16);
        out.put_u32(0);
        out.put_u16(1); // frame_count
        out.put_bytes(0, 32); // compressorname
        out.put_u16(24); // depth: colour, no alpha
        out.put_i16(-1);
        put_box(out, record, |out| out.put_slice(config));
    });
}

/// AudioSampleEntry (§12.2.3).
fn sound(out: &mut Vec<u8>, kind: &[u8; 4], track: &Track, fill: impl FnOnce(&mut Vec<u8>)) {
    put_box(out, kind, |out| {
        out.put_bytes(0, 6);
        out.put_u16(1); // data_reference_index
        out.put_bytes(0, 8);
        out.put_u16(if track.audio.channels == 0 { 2 } else { track.audio.channels });
        out.put_u16(16); // samplesize
        out.put_u32(0);
        // 16.16; what does not fit is in the configuration alone.
        out.put_u16(u16::try_from(track.audio.sample_rate).unwrap_or(0));
        out.put_u16(0);
        fill(out);
    });
}

/// ES_Descriptor (ISO/IEC 14496-1 §7.2.6.5) around an AudioSpecificConfig.
fn esds(out: &mut Vec<u8>, config: &[u8]) {
    /// MPEG-4 audio, and stream type 5 with its reserved bit.
    const DECODER: [u8; 2] = [0x40, 0x15];
    let mut decoder = DECODER.to_vec();
    decoder.put_bytes(0, 3 + 4 + 4); // bufferSizeDB, maxBitrate, avgBitrate: not known
    put_descriptor(&mut decoder, 5, config);
    let mut stream = vec![0, 0, 0]; // ES_ID, flags
    put_descriptor(&mut stream, 4, &decoder);
    put_descriptor(&mut stream, 6, &[2]); // SLConfig: as MP4 files have it
    put_full_box(out, b"esds", 0, 0, |out| put_descriptor(out, 3, &stream));
}

/// A tag, its length in four bytes of seven bits each, and the content.
fn put_descriptor(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.put_u8(tag);
    let length = content.len();
    for shift in [21, 14, 7, 0] {
        let more = if shift == 0 { 0 } else { 0x80 };
        out.put_u8((length >> shift & 0x7f) as u8 | more);
    }
    out.put_slice(content);
}

pub(super) fn saturated(value: u32) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}
