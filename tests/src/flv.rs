//! FLV: what RTMP's audio and video messages hold, and what players write to disk
//! (Adobe FLV 10.1 Annex E, Enhanced RTMP v2).

use std::path::Path;

use crate::recording::{Kind, Packet, Recording};

/// One audio (8), video (9) or script (18) tag; its body is what an RTMP message carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// 8, 9 or 18.
    pub kind: u8,
    /// Milliseconds.
    pub timestamp: u32,
    /// The message's payload.
    pub body: Vec<u8>,
}

impl Tag {
    /// Whether it holds a decoder configuration, which must come before the frames.
    pub fn is_header(&self) -> bool {
        self.kind != 18 && self.parts().is_some_and(|parts| parts.header)
    }

    /// Whether a player may start here.
    pub fn is_sync(&self) -> bool {
        self.kind == 9 && self.body.first().is_some_and(|first| first >> 4 & 7 == 1) && !self.is_header()
    }

    /// The coded frame; `None` for headers, metadata and end-of-sequence.
    pub fn packet(&self) -> Option<Packet> {
        let parts = self.parts()?;
        if parts.header || parts.data.is_empty() {
            return None;
        }
        let kind = if self.kind == 9 { Kind::Video } else { Kind::Audio };
        let dts = i64::from(self.timestamp);
        Some(Packet::new(kind, dts, dts + i64::from(parts.composition), parts.data))
    }

    /// This tag in a later round of a clip that lasts `period` milliseconds: moved in time, and with the
    /// round's number appended where that leaves the frame well-formed, so that no two rounds look alike.
    /// Headers and metadata belong to the first round alone.
    pub fn in_round(&self, round: u32, period: u32) -> Option<Self> {
        if round == 0 {
            return Some(self.clone());
        }
        if self.is_header() || self.kind == 18 {
            return None;
        }
        let mut tag = Self { timestamp: self.timestamp + round * period, ..self.clone() };
        if self.kind == 9 {
            // An SEI unit (type 6) behind its length, with user data (type 5): a UUID and the round, seven bits a byte
            // so that none looks like a start code's zero.
            tag.body.extend([0, 0, 0, 24, 6, 5, 20]);
            tag.body.extend([0x61; 16]);
            tag.body.extend([21, 14, 7, 0].map(|shift| (round >> shift) as u8 | 0x80));
            tag.body.push(0x80);
        } else {
            tag.body.extend(round.to_be_bytes());
        }
        Some(tag)
    }

    /// This tag in another publication of its clip: at the same time, no frame like that of another publication, and
    /// decoders take it without a word. Zeros behind an AAC frame are skipped; anything else would be a frame.
    pub fn in_publication(&self, number: u32) -> Self {
        let mut tag = match self.kind {
            9 => self.in_round(number, 0).unwrap_or_else(|| self.clone()),
            _ => self.clone(),
        };
        if self.kind == 8 && !self.is_header() {
            tag.body.resize(self.body.len() + number as usize, 0);
        }
        tag
    }

    fn parts(&self) -> Option<Parts<'_>> {
        match self.kind {
            8 => audio(&self.body),
            9 => video(&self.body),
            _ => None,
        }
    }
}

struct Parts<'a> {
    header: bool,
    composition: i32,
    data: &'a [u8],
}

fn video(body: &[u8]) -> Option<Parts<'_>> {
    let first = *body.first()?;
    if first & 0x80 != 0 {
        // Enhanced: packet type in the low bits, then the FourCC.
        let fourcc = body.get(1..5)?;
        return match first & 0x0F {
            0 => Some(Parts { header: true, composition: 0, data: &body[5..] }),
            1 if fourcc == b"hvc1" || fourcc == b"avc1" => {
                Some(Parts { header: false, composition: signed24(body.get(5..8)?), data: &body[8..] })
            }
            1 | 3 => Some(Parts { header: false, composition: 0, data: &body[5..] }),
            _ => None,
        };
    }
    match (first & 0x0F, body.get(1)?) {
        // H.264, and H.265 under the unofficial number.
        (7 | 12, 0) => Some(Parts { header: true, composition: 0, data: body.get(5..)? }),
        (7 | 12, 1) => {
            Some(Parts { header: false, composition: signed24(body.get(2..5)?), data: &body[5..] })
        }
        _ => None,
    }
}

fn audio(body: &[u8]) -> Option<Parts<'_>> {
    match body.first()? >> 4 {
        10 => Some(Parts { header: *body.get(1)? == 0, composition: 0, data: &body[2..] }),
        // Enhanced.
        9 => match body[0] & 0x0F {
            0 => Some(Parts { header: true, composition: 0, data: body.get(5..)? }),
            1 => Some(Parts { header: false, composition: 0, data: body.get(5..)? }),
            _ => None,
        },
        _ => Some(Parts { header: false, composition: 0, data: body.get(1..)? }),
    }
}

fn signed24(bytes: &[u8]) -> i32 {
    i32::from_be_bytes([bytes[0], bytes[1], bytes[2], 0]) >> 8
}

/// All whole tags of a file; what a killed player left of the last one is ignored.
pub fn read(path: &Path) -> Vec<Tag> {
    let file = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(file.starts_with(b"FLV"), "{} is no FLV file ({} bytes)", path.display(), file.len());
    let mut tags = Vec::new();
    // Header, then a 4-byte size before each tag.
    let mut at = u32::from_be_bytes([file[5], file[6], file[7], file[8]]) as usize + 4;
    while let Some(head) = file.get(at..at + 11) {
        let size = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
        let timestamp = u32::from_be_bytes([head[7], head[4], head[5], head[6]]);
        let Some(body) = file.get(at + 11..at + 11 + size) else { break };
        tags.push(Tag { kind: head[0] & 0x1F, timestamp, body: body.to_vec() });
        at += 11 + size + 4;
    }
    tags
}

/// The coded frames of a file.
pub fn recording(path: &Path) -> Recording {
    Recording::of_tags(&read(path))
}
