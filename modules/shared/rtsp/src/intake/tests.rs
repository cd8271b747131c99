use std::time::Duration;

use av_media::{Codec, nal};

use super::*;
use crate::format::clock_rate;
use crate::packetize::{Packetizer, Settings};

/// A sender of a clip's H.264 with B-frames, and AAC.
struct Sender {
    video: Packetizer,
    audio: Packetizer,
    tracks: [Track; 2],
}

fn h264() -> Track {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../media/testdata/bframes.mp4");
    let clip = std::fs::read(path).unwrap();
    let at = clip.windows(4).position(|four| four == b"avcC").unwrap();
    let size = u32::from_be_bytes(clip[at - 4..at].try_into().unwrap()) as usize;
    Track::h264(Bytes::from(clip).slice(at + 4..at - 4 + size)).unwrap()
}

impl Sender {
    fn new() -> Self {
        let tracks = [h264(), Track::aac(Bytes::from_static(&[0x11, 0x90])).unwrap()];
        let settings = |payload_type, first_time| Settings {
            payload_type,
            ssrc: payload_type.into(),
            first_sequence: 65_530,
            first_time,
            mtu: 1400,
            channel: 0,
        };
        Self {
            video: Packetizer::new(&tracks[0], settings(96, u32::MAX - 90_000)).unwrap(),
            audio: Packetizer::new(&tracks[1], settings(97, 5)).unwrap(),
            tracks,
        }
    }

    fn packets(&mut self, frame: &Frame) -> Vec<Bytes> {
        let packetizer = if frame.kind == Kind::Video { &mut self.video } else { &mut self.audio };
        let mut packets = Vec::new();
        assert!(packetizer.packetize(frame, &mut packets));
        packets.iter().map(|packet| packet.datagram().concat().into()).collect()
    }

    fn intake(&self, in_band: bool) -> Intake {
        let aac = Coding::Aac {
            config: self.tracks[1].config.clone(),
            size_length: 13,
            index_length: 3,
            index_delta_length: 3,
        };
        let config = av_media::h264::AvcConfig::parse(self.tracks[0].config.clone()).unwrap();
        let (sps, pps) = if in_band { (vec![], vec![]) } else { (config.sps, config.pps) };
        let rate = |track: &Track| clock_rate(track).unwrap();
        let [video, audio] = &self.tracks;
        let h264 = Coding::H264 { sps, pps };
        Intake::new(Some((&h264, rate(video))), Some((&aac, rate(audio))), AfterLoss::Drop)
    }
}

/// GOPs of nine pictures, as `I P B b b P B b b`.
fn pictures(count: i64) -> Vec<Frame> {
    const SHOWN: [i64; 9] = [0, 4, 2, 1, 3, 8, 6, 5, 7];
    (0..count)
        .map(|index| {
            let (gop, place) = (index / 9 * 9, (index % 9) as usize);
            let slice: &[u8] = if place == 0 { &[0x65, 0x88, 1] } else { &[0x41, 0x9a, 1] };
            let nal = [slice, &[index as u8 | 1; 3000]].concat();
            Frame {
                kind: Kind::Video,
                dts: Timestamp::from_millis(index * 40),
                pts: Timestamp::from_millis((gop + SHOWN[place] + 2) * 40),
                is_sync: place == 0,
                data: nal::to_length_prefixed([&nal[..]]).unwrap().into(),
            }
        })
        .collect()
}

fn frames(events: &[Event]) -> Vec<&Frame> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Frame(frame) => Some(frame),
            Event::Track(_) => None,
        })
        .collect()
}

#[test]
fn pictures_come_out_with_the_decoding_times_that_they_had() {
    for in_band in [false, true] {
        let mut sender = Sender::new();
        let mut intake = sender.intake(in_band);
        assert_eq!(intake.tracks().count(), if in_band { 1 } else { 2 });
        let (start, mut out) = (Duration::from_secs(100), Vec::new());
        let sent = pictures(27);
        for frame in &sent {
            for packet in sender.packets(frame) {
                intake.rtp(Kind::Video, &packet, start, &mut out);
            }
        }
        assert_eq!(matches!(out.first(), Some(Event::Track(track)) if track.codec == Codec::H264), in_band);
        let came = frames(&out);
        assert_eq!(came.len(), sent.len());
        let shift = came[0].pts.nanos_since(sent[0].pts);
        for (came, sent) in came.iter().zip(&sent) {
            assert_eq!(came.data, sent.data);
            let (pts, dts) = (came.pts.nanos_since(sent.pts), came.dts.nanos_since(sent.dts));
            assert!((pts - shift).abs() < 11_112 && (dts - shift).abs() < 11_112, "{came:?}");
        }
        assert_eq!(intake.left_out(Kind::Video), LeftOut::default());
    }
}

#[test]
fn one_in_a_hundred_packets_lost_and_others_overtaken_cost_the_rest_of_a_gop_and_nothing_else() {
    let mut sender = Sender::new();
    let mut intake = sender.intake(false);
    let mut packets: Vec<(usize, Bytes)> = Vec::new();
    let sent = pictures(270);
    for (index, frame) in sent.iter().enumerate() {
        packets.extend(sender.packets(frame).into_iter().map(|packet| (index, packet)));
    }
    // Every eleventh is overtaken by two, every hundredth is lost, every thirtieth comes twice.
    let mut lost = Vec::new();
    let mut way: Vec<(usize, Bytes)> = Vec::new();
    for (number, (index, packet)) in packets.into_iter().enumerate() {
        if number % 100 == 50 {
            lost.push(index);
            continue;
        }
        let late = if number % 11 == 5 { 5 } else { 0 };
        way.push((number * 2 + late, packet.clone()));
        if number % 30 == 7 {
            way.push((number * 2 + 3, packet));
        }
    }
    way.sort_by_key(|(place, _)| *place);
    let (start, mut out) = (Duration::from_secs(100), Vec::new());
    for (place, packet) in way {
        intake.rtp(Kind::Video, &packet, start + Duration::from_millis(place as u64 * 6), &mut out);
    }
    intake.expire(start + Duration::from_secs(3600), &mut out);
    let came: Vec<&Bytes> = frames(&out).into_iter().map(|frame| &frame.data).collect();
    // What is left: of each GOP everything before the first picture that lost a packet.
    let expected: Vec<&Bytes> = sent
        .iter()
        .enumerate()
        .filter(|(index, _)| !lost.iter().any(|lost| lost / 9 == index / 9 && lost <= index))
        .map(|(_, frame)| &frame.data)
        .collect();
    assert_eq!(came, expected);
    let counted = intake.left_out(Kind::Video);
    assert_eq!(counted.packets, lost.len() as u64);
    assert_eq!(counted.malformed, 0);
}

#[test]
fn sound_and_pictures_are_put_together_by_the_reports_of_their_sender() {
    let mut sender = Sender::new();
    let mut intake = sender.intake(false);
    let (start, mut out) = (Duration::from_secs(100), Vec::new());
    let report = |packetizer: &Packetizer, ssrc| {
        rtcp::sender_report(
            &SenderReport {
                ssrc,
                ntp: Ntp::from_unix(Duration::from_secs(1_800_000_000)),
                rtp_time: packetizer.rtp_time(Timestamp::ZERO),
                packets: 1,
                octets: 1,
            },
            "sender",
        )
    };
    // The reports come before the first packets.
    assert!(!intake.rtcp(Kind::Video, &report(&sender.video, 96), start));
    assert!(!intake.rtcp(Kind::Audio, &report(&sender.audio, 97), start));
    let sound = |index: i64| {
        let time = Timestamp::from_ticks(index * 1024, NonZeroU32::new(48_000).unwrap());
        Frame { kind: Kind::Audio, dts: time, pts: time, is_sync: true, data: Bytes::from_static(&[7; 300]) }
    };
    // Sound takes half a second longer.
    for frame in pictures(20) {
        for packet in sender.packets(&frame) {
            intake.rtp(Kind::Video, &packet, start, &mut out);
        }
    }
    for index in 0..20 {
        for packet in sender.packets(&sound(index)) {
            intake.rtp(Kind::Audio, &packet, start + Duration::from_millis(500), &mut out);
        }
    }
    let all = frames(&out);
    let first = |kind| all.iter().filter(|frame| frame.kind == kind).map(|frame| frame.pts).min().unwrap();
    // The first picture is shown at 80 ms.
    let apart = first(Kind::Video).nanos_since(first(Kind::Audio));
    assert!((apart - 80_000_000).abs() < 100_000, "{apart}");
    let WallClock { stream, unix_nanos } = intake.wall_clock().unwrap();
    assert_eq!(unix_nanos, 1_800_000_000_000_000_000);
    assert!((first(Kind::Video).nanos_since(stream) - 80_000_000).abs() < 100_000);
    assert!(intake.rtcp(Kind::Video, &rtcp::bye(96, "sender"), start));
}

#[test]
fn a_receiver_report_tells_what_was_lost_since_the_last() {
    let mut sender = Sender::new();
    let mut intake = sender.intake(false);
    let (start, mut out) = (Duration::from_secs(100), Vec::new());
    assert!(intake.receiver_report(Kind::Video, 1, "us", start).is_none());
    let packets: Vec<Bytes> = pictures(90).iter().flat_map(|frame| sender.packets(frame)).collect();
    for (number, packet) in packets.iter().enumerate() {
        if number % 4 != 3 {
            intake.rtp(Kind::Video, packet, start, &mut out);
        }
    }
    intake.receiver_report(Kind::Video, 1, "us", start).unwrap();
    let report = intake.receiver_report(Kind::Video, 1, "us", start).unwrap();
    let messages = rtcp::parse(&report);
    let Message::ReceiverReport(blocks) = &messages[0] else { panic!("{messages:?}") };
    assert_eq!((blocks[0].ssrc, blocks[0].fraction_lost), (96, 0));
    assert!((45..68).contains(&blocks[0].lost), "{blocks:?}");
}
