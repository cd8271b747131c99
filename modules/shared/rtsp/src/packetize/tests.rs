use av_media::{AudioFormat, Kind};

use super::*;
use crate::packet::INTERLEAVED_HEADER;

pub(super) fn settings(mtu: u16) -> Settings {
    Settings {
        payload_type: 96,
        ssrc: 0x1234_5678,
        first_sequence: 0xfffe,
        first_time: 0xffff_ff00,
        mtu,
        channel: 2,
    }
}

fn h264() -> Track {
    let sets = (
        vec![Bytes::from_static(&[0x67, 0x42, 0xc0, 0x1e, 0xd9])],
        vec![Bytes::from_static(&[0x68, 0xce, 0x3c, 0x80])],
    );
    Track::h264(AvcConfig::from_parameter_sets(sets.0, sets.1).unwrap().build().unwrap()).unwrap()
}

fn sound(codec: Codec, sample_rate: u32, channels: u16) -> Track {
    Track { audio: AudioFormat { sample_rate, channels }, ..Track::other(codec) }
}

fn frame(kind: Kind, is_sync: bool, pts: i64, data: Vec<u8>) -> Frame {
    let pts = Timestamp::from_nanos(pts);
    Frame { kind, dts: pts, pts, is_sync, data: data.into() }
}

fn nal(header: u8, len: usize) -> Vec<u8> {
    let mut nal = (len as u32).to_be_bytes().to_vec();
    nal.push(header);
    nal.resize(4 + len, 7);
    nal
}

fn packets(packetizer: &mut Packetizer, frame: &Frame) -> Vec<Packet> {
    let mut out = Vec::new();
    assert!(packetizer.packetize(frame, &mut out));
    out
}

fn payload(packet: &Packet) -> Vec<u8> {
    packet.datagram().concat()[RTP_HEADER..].to_vec()
}

#[test]
fn a_sync_picture_brings_its_parameter_sets_in_one_packet_and_large_units_in_equal_fragments() {
    let mut packetizer = Packetizer::new(&h264(), settings(1400)).unwrap();
    let picture = frame(Kind::Video, true, 0, [nal(0x06, 20), nal(0x65, 5000)].concat());
    let packets = packets(&mut packetizer, &picture);
    assert_eq!(payload(&packets[0]), b"\x78\x00\x05\x67\x42\xc0\x1e\xd9\x00\x04\x68\xce\x3c\x80");
    assert_eq!(payload(&packets[1])[0], 0x06);
    let fragments = &packets[2..];
    let lengths: Vec<usize> = fragments.iter().map(Packet::len).collect();
    assert_eq!(lengths, [1264, 1264, 1264, 1263]);
    let headers: Vec<Vec<u8>> = fragments.iter().map(|packet| payload(packet)[..2].to_vec()).collect();
    assert_eq!(headers, [[0x7c, 0x85], [0x7c, 5], [0x7c, 5], [0x7c, 0x45]]);
    let markers: Vec<bool> = packets.iter().map(Packet::marker).collect();
    assert_eq!(markers, [false, false, false, false, false, true]);
    let sequence: Vec<u16> = packets.iter().map(Packet::sequence).collect();
    assert_eq!(sequence, [0xfffe, 0xffff, 0, 1, 2, 3], "it wraps");
    assert_eq!(packetizer.next_sequence(), 4);
}

#[test]
fn media_is_not_copied() {
    let mut packetizer = Packetizer::new(&h264(), settings(1400)).unwrap();
    let picture = frame(Kind::Video, false, 0, nal(0x41, 5000));
    let range = picture.data.as_ptr_range();
    for packet in packets(&mut packetizer, &picture) {
        assert!(range.contains(&packet.interleaved()[1].as_ptr()));
    }
}

#[test]
fn the_interleaved_form_says_channel_and_length() {
    let mut packetizer = Packetizer::new(&h264(), settings(1400)).unwrap();
    let picture = frame(Kind::Video, false, 0, nal(0x41, 300));
    let [packet] = &*packets(&mut packetizer, &picture) else { panic!() };
    let bytes = packet.interleaved().map(|part| part.to_vec()).concat();
    assert_eq!(bytes[..INTERLEAVED_HEADER], [b'$', 2, 1, 56]);
    assert_eq!(bytes.len(), INTERLEAVED_HEADER + 312);
    assert_eq!(bytes[INTERLEAVED_HEADER..], packet.datagram().concat());
    assert_eq!(packet.on_channel(6).interleaved()[0][1], 6);
    assert_eq!((packet.at(77).time(), packet.at(77).len()), (77, packet.len()));
}

#[test]
fn no_packet_is_larger_than_the_mtu_on_any_network() {
    for mtu in [576, 1200, 1400, 9000] {
        let mut packetizer = Packetizer::new(&h264(), settings(mtu)).unwrap();
        let limit = usize::from(mtu) - 40 - 8;
        let largest = packets(&mut packetizer, &frame(Kind::Video, true, 0, nal(0x65, 100_000)));
        assert!(largest.iter().all(|packet| packet.len() <= limit));
        let single = packets(&mut packetizer, &frame(Kind::Video, false, 0, nal(0x41, limit - RTP_HEADER)));
        assert_eq!((single.len(), single[0].len()), (1, limit), "what fits is not cut");
    }
}

#[test]
fn times_are_rounded_by_themselves_and_wrap() {
    let packetizer = Packetizer::new(&h264(), settings(1400)).unwrap();
    let at = |index: i64| {
        packetizer.rtp_time(Timestamp::from_nanos((index * 1_001_000_000_000 + 15_000) / 30_000))
    };
    // 30000/1001 pictures a second for 24 hours, over seven wraps: 3003 ticks each.
    for index in (0..2_589_410_i64).step_by(997) {
        assert_eq!(at(index), 0xffff_ff00_u32.wrapping_add((index * 3003) as u32));
    }
}

#[test]
fn times_of_sound_are_those_of_its_samples() {
    let rate = |track: &Track| Packetizer::new(track, settings(1400)).map(|p| p.clock_rate().get());
    assert_eq!(rate(&Track::aac(Bytes::from_static(&[0x12, 0x10])).unwrap()), Ok(44_100));
    assert_eq!(rate(&Track::opus(None).unwrap()), Ok(48_000));
    assert_eq!(rate(&sound(Codec::PcmA, 8000, 1)), Ok(8000));
    assert_eq!(rate(&sound(Codec::G722, 16_000, 1)), Ok(8000));
    assert_eq!(rate(&sound(Codec::L16, 44_100, 2)), Ok(44_100));
    assert_eq!(rate(&sound(Codec::Mp3, 48_000, 2)), Ok(90_000));
    assert_eq!(rate(&Track::other(Codec::Flac)), Err(Unfit::Codec("flac".into())));
    assert_eq!(rate(&Track::other(Codec::L16)), Err(Unfit::Rate("twos".into())));
}

#[test]
fn an_access_unit_of_aac_says_its_size_in_every_fragment() {
    let track = Track::aac(Bytes::from_static(&[0x11, 0x90])).unwrap();
    let mut packetizer = Packetizer::new(&track, settings(576)).unwrap();
    let small = packets(&mut packetizer, &frame(Kind::Audio, true, 0, vec![1; 371]));
    assert_eq!(
        (small.len(), &payload(&small[0])[..4], small[0].marker()),
        (1, &[0, 16, 0x0b, 0x98][..], true)
    );
    let large = packets(&mut packetizer, &frame(Kind::Audio, true, 0, vec![1; 1000]));
    assert_eq!(large.len(), 2);
    assert!(large.iter().all(|packet| payload(packet)[..4] == [0, 16, 0x1f, 0x40]));
    assert_eq!(large.iter().map(Packet::marker).collect::<Vec<_>>(), [false, true]);
    let mut out = Vec::new();
    assert!(!packetizer.packetize(&frame(Kind::Audio, true, 0, vec![1; 8192]), &mut out));
    assert!(!packetizer.packetize(&frame(Kind::Audio, true, 0, vec![]), &mut out));
    assert!(out.is_empty() && packetizer.next_sequence() == 1);
}

#[test]
fn telephone_sound_is_cut_where_samples_end_and_each_piece_has_its_time() {
    let mut packetizer = Packetizer::new(&sound(Codec::L16, 48_000, 2), settings(577)).unwrap();
    let pieces = packets(&mut packetizer, &frame(Kind::Audio, true, 0, vec![3; 1203]));
    let lengths: Vec<usize> = pieces.iter().map(Packet::payload_len).collect();
    assert_eq!(lengths, [516, 516, 168], "half a sample is left out");
    let times: Vec<u32> = pieces.iter().map(|piece| piece.time().wrapping_sub(pieces[0].time())).collect();
    assert_eq!(times, [0, 129, 258]);
}

#[test]
fn other_parameter_sets_go_in_band_and_numbers_go_on() {
    let mut packetizer = Packetizer::new(&h264(), settings(1400)).unwrap();
    packets(&mut packetizer, &frame(Kind::Video, true, 0, nal(0x65, 100)));
    let before = packetizer.next_sequence();
    let sets = AvcConfig::from_parameter_sets(vec![Bytes::from_static(&[0x67, 0x64, 0, 0x28, 0xac])], vec![])
        .unwrap();
    packetizer.set_track(&Track::h264(sets.build().unwrap()).unwrap()).unwrap();
    let packets = packets(&mut packetizer, &frame(Kind::Video, true, 0, nal(0x65, 100)));
    assert_eq!(packets[0].sequence(), before);
    assert_eq!(payload(&packets[0]), [0x67, 0x64, 0, 0x28, 0xac]);
}

#[test]
fn the_same_frame_makes_the_same_packets_at_another_time() {
    let mut packetizer = Packetizer::new(&h264(), settings(1400)).unwrap();
    let picture = frame(Kind::Video, true, 40_000_000, nal(0x65, 3000));
    let first = packetizer.next_sequence();
    let packets = packets(&mut packetizer, &picture);
    let mut again = Vec::new();
    assert!(packetizer.packetize_at(&picture, first, 5, &mut again));
    assert_eq!(again, packets.iter().map(|packet| packet.at(5)).collect::<Vec<_>>());
    assert_eq!(packetizer.next_sequence(), first.wrapping_add(4));
}
