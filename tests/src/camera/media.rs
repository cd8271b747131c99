//! What the camera sees and hears, in packets.

use std::time::Duration;

use super::Habits;
use crate::clip::Clip;
use crate::flv::Tag;
use crate::recording::{Kind, Packet, Recording};

/// Where RTP times start.
const BASES: [u32; 2] = [0x7fff_0000, 0x1234_5678];
/// Ticks of a millisecond.
const TICKS: [i64; 2] = [90, 48];
/// Bytes of a payload.
const PAYLOAD: usize = 1200;

/// A clip, over and over.
pub(super) struct Media {
    units: Vec<Unit>,
    /// Milliseconds of a round.
    period: i64,
    parameter_sets: Vec<Vec<u8>>,
    audio_config: Vec<u8>,
}

/// A picture or a piece of sound.
pub(super) struct Unit {
    pub kind: Kind,
    /// When it leaves, in milliseconds of its round.
    pub at: i64,
    /// RTP ticks since the start of its round.
    ticks: i64,
    pub is_sync: bool,
    nals: Vec<Vec<u8>>,
    packet: Packet,
}

pub(super) const fn index(kind: Kind) -> usize {
    matches!(kind, Kind::Audio) as usize
}

/// NAL units behind their lengths.
fn nals(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some((length, rest)) = data.split_at_checked(4) {
        let (nal, rest) = rest.split_at(u32::from_be_bytes(length.try_into().unwrap()) as usize);
        found.push(nal.to_vec());
        data = rest;
    }
    found
}

impl Media {
    pub(super) fn new() -> Self {
        let tags = Clip::Plain.tags();
        let header = |kind| tags.iter().find(|tag: &&Tag| tag.kind == kind && tag.is_header()).unwrap();
        let avcc = &header(9).body[5..];
        let sps_length = usize::from(u16::from_be_bytes([avcc[6], avcc[7]]));
        let pps = &avcc[8 + sps_length..];
        let pps_length = usize::from(u16::from_be_bytes([pps[1], pps[2]]));
        let parameter_sets = vec![avcc[8..8 + sps_length].to_vec(), pps[3..3 + pps_length].to_vec()];
        let mut sounds = 0;
        let mut first_sound = None;
        let units = tags.iter().filter_map(|tag| {
            let packet = tag.packet()?;
            let at = i64::from(tag.timestamp);
            Some(match packet.kind {
                Kind::Video => Unit {
                    kind: Kind::Video,
                    at,
                    ticks: packet.pts * TICKS[0],
                    is_sync: tag.is_sync(),
                    nals: nals(&tag.body[5..]),
                    packet,
                },
                Kind::Audio => {
                    let first = *first_sound.get_or_insert(at);
                    let ticks = first * TICKS[1] + sounds * 1024;
                    sounds += 1;
                    Unit {
                        kind: Kind::Audio,
                        at,
                        ticks,
                        is_sync: true,
                        nals: vec![tag.body[2..].to_vec()],
                        packet,
                    }
                }
            })
        });
        let units: Vec<_> = units.collect();
        let period = units.iter().map(|unit| unit.at).max().unwrap() + 40;
        Self { units, period, parameter_sets, audio_config: header(8).body[2..].to_vec() }
    }

    pub(super) fn recorded(&self, elapsed: Duration) -> Recording {
        let until = elapsed.as_millis() as i64;
        let rounds = (0..=until / self.period).map(|round| round * self.period);
        let packets = rounds.flat_map(|start| {
            self.units.iter().filter(move |unit| start + unit.at <= until).map(move |unit| {
                let Packet { kind, dts, pts, hash } = unit.packet.clone();
                Packet { kind, dts: dts + start, pts: pts + start, hash }
            })
        });
        Recording(packets.collect())
    }

    /// The `n`th unit since the beginning, and when its round began.
    pub(super) fn unit(&self, n: usize) -> (&Unit, i64) {
        (&self.units[n % self.units.len()], (n / self.units.len()) as i64 * self.period)
    }

    /// The first unit that does not leave before this moment.
    pub(super) fn at(&self, elapsed: Duration) -> usize {
        let now = elapsed.as_millis() as i64;
        (0..)
            .find(|n| {
                let (unit, start) = self.unit(*n);
                start + unit.at >= now
            })
            .unwrap()
    }

    /// RTP time of a moment in milliseconds.
    pub(super) fn time(kind: Kind, millis: i64) -> u32 {
        BASES[index(kind)].wrapping_add((millis * TICKS[index(kind)]) as u32)
    }

    pub(super) fn sdp(&self, habits: &Habits) -> String {
        let [before, behind] = habits.more_media;
        let sprop = if habits.no_sprop {
            String::new()
        } else {
            let sets: Vec<_> = self.parameter_sets.iter().map(|set| base64(set)).collect();
            format!(";sprop-parameter-sets={}", sets.join(","))
        };
        let config: String = self.audio_config.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\n{before}\
             m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1{sprop}\r\n\
             a=control:trackID=0\r\n\
             m=audio 0 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/48000/1\r\n\
             a=fmtp:97 streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;\
             config={config}\r\na=control:trackID=1\r\n{behind}"
        )
    }

    /// Payloads of a unit, with the marker of each.
    pub(super) fn payloads(&self, unit: &Unit, in_band: bool) -> Vec<(Vec<u8>, bool)> {
        if unit.kind == Kind::Audio {
            let data = &unit.nals[0];
            let header = [0, 16, (data.len() >> 5) as u8, (data.len() << 3) as u8];
            return vec![([&header[..], data].concat(), true)];
        }
        let sets = if in_band && unit.is_sync { &self.parameter_sets[..] } else { &[] };
        let mut payloads: Vec<_> = sets.iter().chain(&unit.nals).flat_map(|nal| split(nal)).collect();
        if let Some((_, marker)) = payloads.last_mut() {
            *marker = true;
        }
        payloads
    }

    /// RTP time of a unit.
    pub(super) fn time_of(unit: &Unit, start: i64) -> u32 {
        Self::time(unit.kind, start).wrapping_add(unit.ticks as u32)
    }
}

/// A NAL unit, alone or in fragments.
fn split(nal: &[u8]) -> Vec<(Vec<u8>, bool)> {
    if nal.len() <= PAYLOAD {
        return vec![(nal.to_vec(), false)];
    }
    let (head, last) = (nal[0], (nal.len() - 2) / PAYLOAD);
    let fragments = nal[1..].chunks(PAYLOAD).enumerate();
    let flags = |at: usize| {
        if at == 0 {
            0x80
        } else if at == last {
            0x40
        } else {
            0
        }
    };
    fragments
        .map(|(at, part)| ([&[(head & 0xe0) | 28, flags(at) | (head & 0x1f)], part].concat(), false))
        .collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks(3).map(|group| {
        let bits =
            group.iter().fold(0, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - group.len()));
        let digit = |at: usize| char::from(DIGITS[((bits >> (18 - 6 * at)) & 63) as usize]);
        (0..4).map(|at| if at <= group.len() { digit(at) } else { '=' }).collect::<String>()
    });
    groups.collect()
}
