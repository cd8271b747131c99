//! Program specific information (§2.4.4): one program, and what is in it.

use bytes::BufMut;

use super::packet::Pid;
use crate::Codec;

const PROGRAM: u16 = 1;

/// The program association section.
pub(super) fn pat() -> Vec<u8> {
    section(0, 1, |out| {
        out.put_u16(PROGRAM);
        out.put_u16(0xe000 | Pid::Map as u16);
    })
}

/// The program map section.
pub(super) fn pmt(video: Option<Codec>, audio: bool) -> Vec<u8> {
    let clock = if video.is_some() { Pid::Video } else { Pid::Audio };
    section(2, PROGRAM, |out| {
        out.put_u16(0xe000 | clock as u16);
        out.put_u16(0xf000); // no descriptors of the program
        match video {
            Some(Codec::H265) => {
                // With its registration, which some players look for.
                put_stream(out, 0x24, Pid::Video, b"\x05\x04HEVC");
            }
            Some(_) => put_stream(out, 0x1b, Pid::Video, &[]),
            None => {}
        }
        if audio {
            put_stream(out, 0x0f, Pid::Audio, &[]); // AAC with ADTS
        }
    })
}

fn put_stream(out: &mut Vec<u8>, stream_type: u8, pid: Pid, descriptors: &[u8]) {
    out.put_u8(stream_type);
    out.put_u16(0xe000 | pid as u16);
    out.put_u16(0xf000 | descriptors.len() as u16);
    out.put_slice(descriptors);
}

/// A section in the long form, current, the only one, with its checksum.
fn section(table: u8, extension: u16, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u16(extension);
    body.put_slice(&[0b1100_0001, 0, 0]); // version 0, current_next_indicator, section 0 of 0
    fill(&mut body);
    let mut out = vec![table];
    out.put_u16(0xb000 | (body.len() + 4) as u16);
    out.put_slice(&body);
    let sum = crc32(&out);
    out.put_u32(sum);
    out
}

/// The checksum of §2.4.4.1 and annex A: not reflected, as that of files is.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte) << 24, |sum, _| {
            if sum & 0x8000_0000 != 0 { sum << 1 ^ 0x04c1_1db7 } else { sum << 1 }
        })
    })
}
