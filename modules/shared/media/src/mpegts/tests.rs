use std::collections::BTreeMap;

use super::tables::crc32;
use super::*;
use crate::fixture::{clip, stream_of};
use crate::nal::AnnexBUnits;

const WRAP: i64 = 1 << 33;

/// A PES packet, put together from its transport packets.
#[derive(Debug, Default)]
struct Pes {
    pid: u16,
    bytes: Vec<u8>,
    random_access: bool,
    clock: Option<i64>,
}

impl Pes {
    fn time(&self, at: usize) -> i64 {
        let b = &self.bytes[at..at + 5];
        assert!(b[0] & 1 == 1 && b[2] & 1 == 1 && b[4] & 1 == 1, "markers");
        i64::from(b[0] >> 1 & 7) << 30
            | i64::from(b[1]) << 22
            | i64::from(b[2] >> 1) << 15
            | i64::from(b[3]) << 7
            | i64::from(b[4] >> 1)
    }

    fn pts(&self) -> i64 {
        self.time(9)
    }

    fn dts(&self) -> i64 {
        if self.bytes[7] & 0x40 != 0 { self.time(14) } else { self.pts() }
    }

    fn payload(&self) -> &[u8] {
        &self.bytes[9 + usize::from(self.bytes[8])..]
    }
}

/// Takes a stream apart by the letter of the standard: every packet is looked at.
#[derive(Default)]
struct Demuxer {
    counters: BTreeMap<u16, u8>,
    clocks: Vec<i64>,
    sections: BTreeMap<u16, Vec<u8>>,
    done: Vec<Pes>,
    open: BTreeMap<u16, Pes>,
}

impl Demuxer {
    fn feed(&mut self, bytes: &[u8]) {
        assert_eq!(bytes.len() % 188, 0);
        for packet in bytes.chunks(188) {
            assert_eq!(packet[0], 0x47);
            let pid = u16::from_be_bytes([packet[1], packet[2]]) & 0x1fff;
            let (has_field, has_payload) = (packet[3] & 0x20 != 0, packet[3] & 0x10 != 0);
            let counter = packet[3] & 15;
            let before = self.counters.get(&pid).copied();
            if has_payload {
                assert!(before.is_none_or(|before| (before + 1) & 15 == counter), "{pid:x}");
                self.counters.insert(pid, counter);
            } else {
                assert!(before.is_none_or(|before| before == counter), "{pid:x}");
            }
            let mut at = 4;
            let (mut clock, mut random_access) = (None, false);
            if has_field {
                let length = usize::from(packet[4]);
                if length > 0 {
                    random_access = packet[5] & 0x40 != 0;
                    if packet[5] & 0x10 != 0 {
                        let base = u32::from_be_bytes(packet[6..10].try_into().unwrap());
                        clock = Some(i64::from(base) << 1 | i64::from(packet[10] >> 7));
                        self.clocks.extend(clock);
                    }
                }
                at += 1 + length;
                assert!(has_payload || at == 188);
            }
            let payload = &packet[at..];
            let starts = packet[1] & 0x40 != 0;
            if pid == 0 || pid == 0x1000 {
                assert!(starts && payload[0] == 0);
                let length = usize::from(u16::from_be_bytes([payload[2], payload[3]]) & 0xfff);
                let section = &payload[1..4 + length];
                assert_eq!(crc32(section), 0, "the checksum of a whole section is 0");
                self.sections.insert(pid, section.to_vec());
                continue;
            }
            if starts {
                self.done.extend(self.open.remove(&pid));
                self.open.insert(pid, Pes { pid, random_access, clock, ..Pes::default() });
            }
            if has_payload {
                self.open.get_mut(&pid).unwrap().bytes.extend_from_slice(payload);
            }
        }
    }

    fn end(&mut self) -> Vec<Pes> {
        self.done.extend(std::mem::take(&mut self.open).into_values());
        std::mem::take(&mut self.done)
    }
}

fn demuxed(tracks: &[Track], frames: &[Frame], size: usize, origin: Timestamp) -> (Demuxer, Vec<Pes>) {
    let mut muxer = TsMuxer::new(tracks, origin).unwrap();
    let mut demuxer = Demuxer::default();
    for (index, piece) in frames.chunks(size).enumerate() {
        let bytes = muxer.write(piece, index % 2 == 0);
        if index % 2 == 0 {
            assert_eq!((bytes[1] & 0x1f, bytes[2]), (0, 0), "the tables open a segment");
            assert_eq!((bytes[189] & 0x1f, bytes[190]), (0x10, 0));
        }
        demuxer.feed(&bytes);
    }
    assert_eq!(muxer.left_out(), 0);
    let pes = demuxer.end();
    (demuxer, pes)
}

fn of(kind: Kind, frames: &[Frame]) -> Vec<&Frame> {
    frames.iter().filter(|frame| frame.kind == kind).collect()
}

#[test]
fn pictures_and_sound_come_out_as_they_went_in() {
    for name in ["bframes.mp4", "hevc.mp4", "aac44100.mp4", "hevc10.mp4"] {
        let (tracks, frames) = stream_of(clip(name));
        let (demuxer, all) = demuxed(&tracks, &frames, 9, Timestamp::ZERO);
        let (mut pictures, mut sound): (Vec<_>, Vec<_>) = all.iter().partition(|pes| pes.pid == 0x100);
        pictures.sort_by_key(|pes| pes.dts());
        sound.sort_by_key(|pes| pes.pts());
        let video = of(Kind::Video, &frames);
        assert_eq!(pictures.len(), video.len(), "{name}");
        for (pes, frame) in pictures.iter().zip(&video) {
            assert_eq!(pes.dts(), ticks(frame.dts) + START);
            assert_eq!(pes.pts(), ticks(frame.pts) + START);
            assert_eq!(pes.random_access, frame.is_sync);
            assert_eq!(pes.clock, Some(pes.dts() - CLOCK_DELAY));
            let is_h264 = tracks[0].codec == Codec::H264;
            let mut units: Vec<&[u8]> = AnnexBUnits::new(pes.payload()).collect();
            assert_eq!(units.remove(0), if is_h264 { &[9, 0xf0][..] } else { &[0x46, 1, 0x50] });
            let sets = match (frame.is_sync, is_h264) {
                (false, _) => 0,
                (true, true) => 2,
                (true, false) => 3,
            };
            let is_set = |unit: &&[u8]| match is_h264 {
                true => matches!(unit[0] & 0x1f, 7 | 8),
                false => matches!(unit[0] >> 1 & 0x3f, 32..=34),
            };
            assert_eq!(units.iter().take_while(|unit| is_set(unit)).count(), sets);
            let theirs: Vec<&[u8]> = NalUnits::new(&frame.data, 4).flatten().collect();
            assert_eq!(units[sets..], theirs, "{name}");
        }
        let mut audio = of(Kind::Audio, &frames).into_iter();
        for pes in &sound {
            let mut at = 0;
            let mut expected = None;
            while at < pes.payload().len() {
                let header = AdtsHeader::parse(&pes.payload()[at..]).unwrap();
                let frame = audio.next().unwrap();
                expected.get_or_insert(ticks(frame.pts) + START);
                assert_eq!(&pes.payload()[at + 7..at + header.frame_length], &frame.data[..]);
                assert_eq!(header.sample_rate, tracks.last().unwrap().audio.sample_rate);
                at += header.frame_length;
            }
            assert_eq!(Some(pes.pts()), expected);
            let length = usize::from(u16::from_be_bytes([pes.bytes[4], pes.bytes[5]]));
            assert_eq!(length, pes.bytes.len() - 6);
        }
        assert!(audio.next().is_none(), "{name}");
        let pmt = &demuxer.sections[&0x1000];
        let clock_pid = u16::from_be_bytes([pmt[8], pmt[9]]) & 0x1fff;
        assert_eq!(clock_pid, if video.is_empty() { 0x101 } else { 0x100 });
    }
}

#[test]
fn times_wrap_at_33_bits() {
    let (tracks, frames) = stream_of(clip("bframes.mp4"));
    // The wrap is in the middle of the clip.
    let before = Timestamp::from_nanos(-(WRAP - START - 45_000) * 100_000 / 9);
    let (demuxer, all) = demuxed(&tracks, &frames, 20, before);
    let pictures: Vec<&Pes> = all.iter().filter(|pes| pes.pid == 0x100).collect();
    let late = pictures.iter().filter(|pes| pes.dts() < WRAP / 2).count();
    assert!(late > 0 && late < pictures.len());
    for (pes, frame) in pictures.iter().zip(of(Kind::Video, &frames)) {
        let distance = (pes.pts() - pes.dts()).rem_euclid(WRAP);
        assert_eq!(distance, ticks(frame.pts) - ticks(frame.dts));
    }
    let steps = demuxer.clocks.windows(2).map(|two| (two[1] - two[0]).rem_euclid(WRAP));
    assert!(steps.max().unwrap() <= 9_000, "the clock goes on");
}

#[test]
fn the_clock_is_told_ten_times_a_second_at_five_pictures_a_second() {
    let (tracks, frames) = stream_of(clip("bframes.mp4"));
    let mut kept = 0;
    let sparse: Vec<Frame> = frames
        .into_iter()
        .filter(|frame| {
            frame.kind == Kind::Audio || {
                kept += 1;
                kept % 5 == 1
            }
        })
        .collect();
    let (demuxer, _) = demuxed(&tracks, &sparse, sparse.len(), Timestamp::ZERO);
    let steps = demuxer.clocks.windows(2).map(|two| two[1] - two[0]);
    assert!(steps.max().unwrap() <= 9_000);
}

#[test]
fn what_a_transport_stream_has_no_place_for_is_refused() {
    for (name, codec) in [("av1.mp4", Codec::Av1), ("opus.mp4", Codec::Opus)] {
        let (tracks, _) = stream_of(clip(name));
        let error = TsMuxer::new(&tracks, Timestamp::ZERO).unwrap_err();
        assert_eq!(error, MuxError::Codec { container: "MPEG-TS", codec });
    }
    let error = TsMuxer::new(&[Track::other(Codec::H265)], Timestamp::ZERO).unwrap_err();
    assert_eq!(error, MuxError::NoConfig(Codec::H265));
}
