//! Enhanced RTMP's extended tag headers (v1 "Defining Additional Video Codecs"; v2 "ExVideoTagHeader",
//! "ExAudioTagHeader").

use av_media::{Codec, Kind, RtmpFraming};
use bytes::{BufMut, Bytes, BytesMut};

use super::{FRAME_COMMAND, Fields, FlvError, Tag, frame, is_sync};
use crate::message::slice_of;
use crate::{SkipReason, Slot};

/// Packet types that audio and video share.
pub(super) const SEQUENCE_START: u8 = 0;
pub(super) const CODED_FRAMES: u8 = 1;
const SEQUENCE_END: u8 = 2;
/// Video only: coded frames whose composition offset is zero and left out.
pub(super) const CODED_FRAMES_X: u8 = 3;
/// Video: colour information and the like. Audio: which channel is which.
const METADATA: u8 = 4;
/// Video only: the header of AV1 in MPEG-2 TS.
const MPEG2_TS_SEQUENCE_START: u8 = 5;
const VIDEO_MULTITRACK: u8 = 6;
const AUDIO_MULTITRACK: u8 = 5;
const MOD_EX: u8 = 7;

/// Multitrack layouts (v2 "AvMultitrackType").
const ONE_TRACK: u8 = 0;
const MANY_CODECS: u8 = 2;
/// Tracks in one message: OBS sends up to 6, one each.
const MAX_TRACKS: usize = 32;

/// The FourCC of a codec, where Enhanced RTMP has one.
pub(crate) const fn four_cc(codec: Codec) -> Option<[u8; 4]> {
    Some(*match codec {
        Codec::H264 => b"avc1",
        Codec::H265 => b"hvc1",
        Codec::Av1 => b"av01",
        Codec::Vp8 => b"vp08",
        Codec::Vp9 => b"vp09",
        Codec::Aac => b"mp4a",
        Codec::Opus => b"Opus",
        Codec::Flac => b"fLaC",
        Codec::Ac3 => b"ac-3",
        Codec::Eac3 => b"ec-3",
        Codec::Mp3 => b".mp3",
        _ => return None,
    })
}

/// The codec of a FourCC, where it is known and of that kind.
pub(crate) fn codec_of_four_cc(kind: Kind, four_cc: [u8; 4]) -> Option<Codec> {
    let codec = match &four_cc {
        b"avc1" => Codec::H264,
        b"hvc1" => Codec::H265,
        b"av01" => Codec::Av1,
        b"vp08" => Codec::Vp8,
        b"vp09" => Codec::Vp9,
        b"mp4a" => Codec::Aac,
        b"Opus" => Codec::Opus,
        b"fLaC" => Codec::Flac,
        b"ac-3" => Codec::Ac3,
        b"ec-3" => Codec::Eac3,
        b".mp3" => Codec::Mp3,
        _ => return None,
    };
    (codec.kind() == kind).then_some(codec)
}

pub(super) fn parse_video(body: &Bytes) -> Result<Tag, FlvError> {
    let mut fields = Fields::new("extended video tag", body, 0);
    let first = fields.u8()?;
    let frame_type = first >> 4 & 7;
    let packet_type = without_mod_ex(&mut fields, first & 0x0F)?;
    if packet_type != METADATA && frame_type == FRAME_COMMAND {
        return Ok(Tag::Skipped(SkipReason::Command));
    }
    parse_tracks(Kind::Video, first, fields, packet_type, is_sync(frame_type))
}

pub(super) fn parse_audio(body: &Bytes) -> Result<Tag, FlvError> {
    let mut fields = Fields::new("extended audio tag", body, 0);
    let first = fields.u8()?;
    let packet_type = without_mod_ex(&mut fields, first & 0x0F)?;
    parse_tracks(Kind::Audio, first, fields, packet_type, true)
}

/// Steps over modifiers (the only one that is defined refines timestamps to nanoseconds) and gives the packet
/// type behind them.
fn without_mod_ex(fields: &mut Fields<'_>, mut packet_type: u8) -> Result<u8, FlvError> {
    while packet_type == MOD_EX {
        let mut size = usize::from(fields.u8()?) + 1;
        if size == 256 {
            size = usize::from(u16::from_be_bytes(fields.array()?)) + 1;
        }
        fields.skip(size)?;
        packet_type = fields.u8()? & 0x0F;
    }
    Ok(packet_type)
}

/// Takes a multitrack message apart; other messages are track 0. What belongs to another track leaves as a message
/// of its own.
fn parse_tracks(
    kind: Kind,
    first: u8,
    mut fields: Fields<'_>,
    packet_type: u8,
    is_sync: bool,
) -> Result<Tag, FlvError> {
    let multitrack = match kind {
        Kind::Video => VIDEO_MULTITRACK,
        Kind::Audio => AUDIO_MULTITRACK,
    };
    if packet_type != multitrack {
        let whole = fields.body.clone();
        let four_cc = fields.array()?;
        return match configures(kind, packet_type) {
            Some(slot) if packet_type != SEQUENCE_START => {
                Ok(Tag::Extra { kind, slot: Some(slot), body: whole })
            }
            _ => parse_packet(kind, fields, packet_type, four_cc, is_sync),
        };
    }
    let second = fields.u8()?;
    let (layout, packet_type) = (second >> 4, second & 0x0F);
    if layout > MANY_CODECS {
        return Err(FlvError::Undefined { what: "AvMultitrackType", value: layout });
    }
    let mut four_cc = if layout == MANY_CODECS { [0; 4] } else { fields.array()? };
    let mut tags = Vec::new();
    while fields.at < fields.body.len() {
        if layout == MANY_CODECS {
            four_cc = fields.array()?;
        }
        let track = fields.u8()?;
        let size = if layout == ONE_TRACK {
            fields.body.len().saturating_sub(fields.at)
        } else {
            usize::try_from(fields.u24()?).unwrap_or(usize::MAX)
        };
        let start = fields.at;
        fields.skip(size)?;
        let range = start..fields.at;
        let slot = configures(kind, packet_type).map(|slot| Slot { track, ..slot });
        let tag = if track == 0 && (slot.is_none() || packet_type == SEQUENCE_START) {
            let body = slice_of(fields.body, range);
            let inner = Fields::new("track 0 of a multitrack tag", &body, 0);
            parse_packet(kind, inner, packet_type, four_cc, is_sync)?
        } else if layout == ONE_TRACK {
            Tag::Extra { kind, slot, body: fields.body.clone() }
        } else {
            let body = fields.body.get(range).unwrap_or_default();
            Tag::Extra { kind, slot, body: alone(kind, first, packet_type, four_cc, track, body) }
        };
        if layout == ONE_TRACK {
            return Ok(tag);
        }
        tags.push(tag);
        if tags.len() > MAX_TRACKS {
            return Err(FlvError::Tracks { limit: MAX_TRACKS });
        }
    }
    Ok(Tag::Several(tags))
}

/// What a packet of this type configures, on track 0.
const fn configures(kind: Kind, packet_type: u8) -> Option<Slot> {
    match (kind, packet_type) {
        (_, SEQUENCE_START | METADATA) | (Kind::Video, MPEG2_TS_SEQUENCE_START) => {
            Some(Slot { kind, packet_type, track: 0 })
        }
        _ => None,
    }
}

/// A multitrack message with one track in it.
fn alone(kind: Kind, first: u8, packet_type: u8, four_cc: [u8; 4], track: u8, body: &[u8]) -> Bytes {
    let multitrack = match kind {
        Kind::Video => VIDEO_MULTITRACK,
        Kind::Audio => AUDIO_MULTITRACK,
    };
    let mut out = BytesMut::with_capacity(7 + body.len());
    out.put_u8(first & 0xF0 | multitrack);
    out.put_u8(ONE_TRACK << 4 | packet_type);
    out.put_slice(&four_cc);
    out.put_u8(track);
    out.put_slice(body);
    out.freeze()
}

fn parse_packet(
    kind: Kind,
    mut fields: Fields<'_>,
    packet_type: u8,
    four_cc: [u8; 4],
    is_sync: bool,
) -> Result<Tag, FlvError> {
    let Some(codec) = codec_of_four_cc(kind, four_cc) else {
        return Ok(Tag::Skipped(SkipReason::FourCc(kind, four_cc)));
    };
    let framing = RtmpFraming::Enhanced;
    Ok(match packet_type {
        SEQUENCE_START => Tag::SequenceHeader { codec, framing, config: fields.rest() },
        CODED_FRAMES => {
            // Only these two carry a composition offset (v2 "ExVideoTagBody").
            let offset = if has_composition(codec) { fields.signed24()? } else { 0 };
            frame(codec, framing, is_sync, offset, fields.rest())
        }
        CODED_FRAMES_X if kind == Kind::Video => frame(codec, framing, is_sync, 0, fields.rest()),
        SEQUENCE_END => Tag::End(codec),
        value => return Err(FlvError::Undefined { what: "packet type", value }),
    })
}

/// Whether a coded frame of this codec says its composition offset.
pub(super) const fn has_composition(codec: Codec) -> bool {
    matches!(codec, Codec::H264 | Codec::H265)
}
