//! The few bytes before a configuration or frame.

use av_media::{Codec, Frame, Kind, RtmpFraming, Track};

use super::enhanced::{CODED_FRAMES, CODED_FRAMES_X, SEQUENCE_START, four_cc, has_composition};

/// At most: one byte, a FourCC, a composition offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TagHeader {
    bytes: [u8; 8],
    len: usize,
}

impl TagHeader {
    fn put(mut self, bytes: &[u8]) -> Self {
        let room = self.bytes.iter_mut().skip(self.len);
        for (to, from) in room.zip(bytes) {
            *to = *from;
        }
        self.len = (self.len + bytes.len()).min(self.bytes.len());
        self
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// FLV's `CodecID` or `SoundFormat`, where there is one.
pub(crate) const fn classic_number(codec: Codec, framing: RtmpFraming) -> Option<u8> {
    Some(match codec {
        Codec::H264 => 7,
        Codec::H265 if matches!(framing, RtmpFraming::ClassicAsH264) => 7,
        Codec::H265 => 12,
        Codec::Mp3 => 2,
        Codec::PcmA => 7,
        Codec::PcmU => 8,
        Codec::Aac => 10,
        _ => return None,
    })
}

/// Which form a track leaves in: the FourCC where it came so or where there is no number.
enum Form {
    Classic(u8),
    FourCc([u8; 4]),
}

fn form(track: &Track) -> Option<Form> {
    if matches!(track.codec, Codec::PcmA | Codec::PcmU) && !matches!(track.audio.sample_rate, 0 | 8000) {
        // It says no other rate (FLV §E.4.2.1).
        return None;
    }
    let number = classic_number(track.codec, track.framing);
    match (four_cc(track.codec), track.framing) {
        (Some(four_cc), RtmpFraming::Enhanced) => Some(Form::FourCc(four_cc)),
        (four_cc, _) => number.map(Form::Classic).or(four_cc.map(Form::FourCc)),
    }
}

/// Whether there is a word for a track.
pub(crate) fn carries(track: &Track) -> bool {
    form(track).is_some()
}

/// Before the decoder configuration; `None` for a codec without one.
pub(crate) fn sequence_header(track: &Track) -> Option<TagHeader> {
    if track.config.is_empty() {
        return None;
    }
    let header = TagHeader::default();
    match (form(track)?, track.kind()) {
        (Form::Classic(number), Kind::Video) => Some(header.put(&[0x10 | number, 0, 0, 0, 0])),
        (Form::Classic(10), Kind::Audio) => Some(header.put(&[AAC, 0])),
        (Form::Classic(_), Kind::Audio) => None,
        (Form::FourCc(four_cc), Kind::Video) => Some(header.put(&[0x90 | SEQUENCE_START]).put(&four_cc)),
        (Form::FourCc(four_cc), Kind::Audio) => Some(header.put(&[0x90 | SEQUENCE_START]).put(&four_cc)),
    }
}

/// Before a frame; `None` for a codec that RTMP cannot carry.
pub(crate) fn frame_header(track: &Track, frame: &Frame) -> Option<TagHeader> {
    let header = TagHeader::default();
    let frame_type = if frame.is_sync { 1 << 4 } else { 2 << 4 };
    Some(match (form(track)?, track.kind()) {
        (Form::Classic(number), Kind::Video) => {
            header.put(&[frame_type | number, 1]).put(&composition(frame))
        }
        (Form::Classic(10), Kind::Audio) => header.put(&[AAC, 1]),
        (Form::Classic(number), Kind::Audio) => header.put(&[sound(track, number)]),
        (Form::FourCc(four_cc), Kind::Audio) => header.put(&[0x90 | CODED_FRAMES]).put(&four_cc),
        (Form::FourCc(four_cc), Kind::Video) => {
            let first = 0x80 | frame_type;
            let offset = composition(frame);
            if !has_composition(track.codec) {
                header.put(&[first | CODED_FRAMES]).put(&four_cc)
            } else if offset == [0; 3] {
                header.put(&[first | CODED_FRAMES_X]).put(&four_cc)
            } else {
                header.put(&[first | CODED_FRAMES]).put(&four_cc).put(&offset)
            }
        }
    })
}

/// AAC always says 44 kHz, 16 bit, stereo; the truth is in its configuration (FLV §E.4.2.1).
const AAC: u8 = 0xAF;

/// `SoundFormat`, rate, size and type of a codec whose only configuration these are.
fn sound(track: &Track, number: u8) -> u8 {
    let (number, rate) = match (track.codec, track.audio.sample_rate) {
        (Codec::Mp3, 8000) => (14, 0),
        (Codec::PcmA | Codec::PcmU, _) => (number, 0),
        (_, 1..=8000) => (number, 0),
        (_, 8001..=16_000) => (number, 1),
        (_, 16_001..=32_000) => (number, 2),
        _ => (number, 3),
    };
    let stereo = u8::from(track.audio.channels != 1);
    number << 4 | rate << 2 | 1 << 1 | stereo
}

/// `pts - dts` in milliseconds, kept within the signed 24 bits of the wire.
fn composition(frame: &Frame) -> [u8; 3] {
    let offset = frame.pts.millis().saturating_sub(frame.dts.millis()).clamp(-0x80_0000, 0x7F_FFFF);
    let [.., a, b, c] = offset.to_be_bytes();
    [a, b, c]
}
