use av_media::aac::AudioConfig;
use av_media::{AudioFormat, nal};
use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::packet::Packet;
use crate::packetize::{Packetizer, Settings};

fn settings(mtu: u16, first_sequence: u16, first_time: u32) -> Settings {
    Settings { payload_type: 96, ssrc: 7, first_sequence, first_time, mtu, channel: 0 }
}

fn config_box(name: &str, kind: &[u8; 4]) -> Bytes {
    let path = format!("{}/../media/testdata/{name}", env!("CARGO_MANIFEST_DIR"));
    let clip = std::fs::read(path).unwrap();
    let at = clip.windows(4).position(|four| four == kind).unwrap();
    let size = u32::from_be_bytes(clip[at - 4..at].try_into().unwrap()) as usize;
    Bytes::from(clip).slice(at + 4..at - 4 + size)
}

fn h264() -> Track {
    Track::h264(config_box("bframes.mp4", b"avcC")).unwrap()
}

fn h265() -> Track {
    Track::h265(config_box("hevc.mp4", b"hvcC")).unwrap()
}

fn av1() -> Track {
    Track::av1(config_box("av1.mp4", b"av1C")).unwrap()
}

fn aac() -> Track {
    Track::aac(Bytes::from_static(&[0x11, 0x90])).unwrap()
}

fn sound(codec: Codec, sample_rate: u32, channels: u16) -> Track {
    Track { audio: AudioFormat { sample_rate, channels }, ..Track::other(codec) }
}

const AAC: Payload = Payload::Aac { size: 13, index: 3, delta: 3 };

fn depacketizer(payload: Payload, track: Option<&Track>) -> Depacketizer {
    let clock = track.map_or(crate::format::VIDEO_CLOCK, |track| crate::format::clock_rate(track).unwrap());
    Depacketizer::new(payload, clock, track.cloned(), AfterLoss::Drop)
}

fn received(packet: &Packet) -> Received {
    Received::parse(&packet.datagram().concat().into()).unwrap()
}

fn raw(sequence: u16, time: u32, marker: bool, payload: &[u8]) -> Ordered {
    let payload = Bytes::copy_from_slice(payload);
    Ordered::Packet(Received { ssrc: 7, payload_type: 96, sequence, time, marker, payload })
}

fn units(out: Vec<Output>) -> Vec<Unit> {
    out.into_iter()
        .filter_map(|output| match output {
            Output::Unit(unit) => Some(unit),
            Output::Track(_) => None,
        })
        .collect()
}

fn feed(depacketizer: &mut Depacketizer, packets: impl IntoIterator<Item = Ordered>) -> Vec<Unit> {
    let mut out = Vec::new();
    packets.into_iter().for_each(|packet| depacketizer.push(packet, &mut out));
    units(out)
}

fn prefixed(nals: &[&[u8]]) -> Bytes {
    nal::to_length_prefixed(nals.iter().copied()).unwrap().into()
}

#[test]
fn fragments_that_start_and_end_in_one_packet_are_whole_units() {
    let mut depacketizer = depacketizer(Payload::H264, Some(&h264()));
    let units = feed(&mut depacketizer, [raw(0, 0, true, &[0x7c, 0xc5, 0x88, 1, 2])]);
    assert_eq!(units, [Unit { time: 0, is_sync: true, data: prefixed(&[&[0x65, 0x88, 1, 2]]) }]);
    let mut depacketizer = self::depacketizer(Payload::H265, Some(&h265()));
    let units = feed(&mut depacketizer, [raw(0, 0, true, &[0x62, 1, 0xd3, 0x80, 2])]);
    assert_eq!(units, [Unit { time: 0, is_sync: true, data: prefixed(&[&[0x26, 1, 0x80, 2]]) }]);
}

#[test]
fn without_parameter_sets_in_the_description_those_of_the_stream_make_the_track() {
    for (payload, track, idr) in
        [(Payload::H264, h264(), &[0x65, 0x88, 1][..]), (Payload::H265, h265(), &[0x26, 1, 0x80, 1])]
    {
        let mut sender = Packetizer::new(&track, settings(1400, 0, 0)).unwrap();
        let mut depacketizer = depacketizer(payload, None);
        let mut out = Vec::new();
        let delta: &[u8] = if payload == Payload::H264 { &[0x41, 0x9a, 1] } else { &[2, 1, 0x80, 1] };
        depacketizer.push(raw(0, 0, true, delta), &mut out);
        assert!(out.is_empty() && depacketizer.track().is_none());
        assert_eq!(depacketizer.counts().before_sync, 1);
        let stamp = Timestamp::from_millis(40);
        let frame =
            Frame { kind: Kind::Video, dts: stamp, pts: stamp, is_sync: true, data: prefixed(&[idr]) };
        let mut packets = Vec::new();
        sender.packetize(&frame, &mut packets);
        packets.iter().for_each(|packet| depacketizer.push(Ordered::Packet(received(packet)), &mut out));
        let [Output::Track(found), Output::Unit(unit)] = &out[..] else { panic!("{out:?}") };
        assert_eq!(found.codec_string, track.codec_string);
        assert_eq!((unit.time, unit.is_sync, &unit.data), (3600, true, &frame.data));
    }
}

#[test]
fn after_a_loss_pictures_are_left_out_up_to_the_next_sync_frame_or_kept_where_that_is_wished() {
    let (idr, delta) = (&[0x65, 0x88, 1][..], &[0x41, 0x9a, 1][..]);
    let packets = || {
        [
            raw(0, 0, true, idr),
            raw(1, 3600, true, delta),
            Ordered::Lost(2),
            raw(4, 10_800, true, delta),
            raw(5, 14_400, true, delta),
            raw(6, 18_000, true, idr),
        ]
    };
    let mut careful = depacketizer(Payload::H264, Some(&h264()));
    let times: Vec<i64> = feed(&mut careful, packets()).iter().map(|unit| unit.time).collect();
    assert_eq!(times, [0, 3600, 18_000]);
    assert_eq!(careful.counts().lost, 2);
    let clock = crate::format::VIDEO_CLOCK;
    let mut bold = Depacketizer::new(Payload::H264, clock, Some(h264()), AfterLoss::Keep);
    assert_eq!(feed(&mut bold, packets()).len(), 5);
}

#[test]
fn a_picture_of_which_a_part_is_missing_is_left_out_whichever_part_it_is() {
    let parts = |skip: usize| {
        let all = [
            raw(0, 0, false, &[0x7c, 0x85, 0x88, 1]),
            raw(1, 0, false, &[0x7c, 0x05, 2]),
            raw(2, 0, true, &[0x7c, 0x45, 3]),
        ];
        let mut parts: Vec<Ordered> = all.into();
        parts[skip] = Ordered::Lost(1);
        parts.push(raw(3, 3600, true, &[0x65, 0x88, 9]));
        parts
    };
    for skip in 0..3 {
        let mut depacketizer = depacketizer(Payload::H264, Some(&h264()));
        let units = feed(&mut depacketizer, parts(skip));
        assert_eq!(units.len(), 1, "{skip}");
        assert_eq!(units[0].data, prefixed(&[&[0x65, 0x88, 9]]), "{skip}");
    }
}

#[test]
fn a_marker_that_never_comes_is_not_waited_for_and_one_behind_parameter_sets_is_no_end() {
    let mut depacketizer = depacketizer(Payload::H264, Some(&h264()));
    let units = feed(
        &mut depacketizer,
        [
            raw(0, 0, false, &[0x65, 0x88, 1]),
            raw(1, 3600, true, &[0x06, 5, 1, 0, 0x80]),
            raw(2, 3600, true, &[0x41, 0x9a, 1]),
        ],
    );
    let data: Vec<Bytes> = units.iter().map(|unit| unit.data.clone()).collect();
    assert_eq!(data, [prefixed(&[&[0x65, 0x88, 1]]), prefixed(&[&[6, 5, 1, 0, 0x80], &[0x41, 0x9a, 1]])]);
}

#[test]
fn adts_inside_raw_frames_is_taken_off() {
    let header =
        av_media::aac::AdtsHeader::for_frame(&AudioConfig::parse(&[0x11, 0x90]).unwrap(), 3).unwrap();
    let frame = [&header.build()[..], &[1, 2, 3]].concat();
    let size = ((frame.len() as u16) << 3).to_be_bytes();
    let packet = [&[0, 16, size[0], size[1]], &frame[..]].concat();
    let units = feed(&mut depacketizer(AAC, Some(&aac())), [raw(0, 0, true, &packet)]);
    assert_eq!(units[0].data, &[1, 2, 3][..]);
}

#[test]
fn several_access_units_of_one_packet_are_a_frame_apart() {
    let packet = [0, 32, 0, 2 << 3, 0, 1 << 3, 1, 2, 3];
    let units = feed(&mut depacketizer(AAC, Some(&aac())), [raw(0, 500, true, &packet)]);
    let seen: Vec<(i64, &[u8])> = units.iter().map(|unit| (unit.time, &unit.data[..])).collect();
    assert_eq!(seen, [(500, &[1, 2][..]), (1524, &[3])]);
    // HE-AAC: 1024 samples of the core are 2048 of what is heard.
    let he = Track::aac(Bytes::from_static(&[0x2b, 0x11, 0x88, 0x00])).unwrap();
    assert_eq!(he.audio.sample_rate, 48_000);
    let units = feed(&mut depacketizer(AAC, Some(&he)), [raw(0, 0, true, &packet)]);
    assert_eq!(units[1].time, 2048);
}

#[test]
fn latm_says_its_length_in_front() {
    let payload = [&[255, 2][..], &[9; 257]].concat();
    let mut depacketizer = depacketizer(Payload::Latm, Some(&aac()));
    let halves = [raw(0, 0, false, &payload[..100]), raw(1, 0, true, &payload[100..])];
    assert_eq!(feed(&mut depacketizer, halves)[0].data, [9; 257][..]);
    feed(&mut depacketizer, [raw(2, 1024, true, &[255, 255, 3, 1])]);
    assert_eq!(depacketizer.counts().malformed, 1);
}

#[test]
fn times_are_counted_on_where_they_wrap_in_both_directions() {
    let mut depacketizer = depacketizer(Payload::Whole(Codec::Opus), Some(&Track::opus(None).unwrap()));
    let times = [u32::MAX - 959, 0, u32::MAX - 959, 960];
    let packets = times.iter().zip(0..).map(|(&time, sequence)| raw(sequence, time, false, &[1]));
    let units = feed(&mut depacketizer, packets);
    let start = i64::from(u32::MAX - 959);
    let seen: Vec<i64> = units.iter().map(|unit| unit.time - start).collect();
    assert_eq!(seen, [0, 960, 0, 1920]);
    assert_eq!(depacketizer.extended(1920).map(|time| time - start), Some(2880));
}

#[test]
fn what_grows_without_end_is_given_up() {
    let mut depacketizer = depacketizer(Payload::H264, Some(&h264()));
    let part = [&[0x7c, 0x05][..], &[7; 60_000]].concat();
    let start = [&[0x7c, 0x85][..], &[7; 60_000]].concat();
    let parts = (1..400).map(|sequence| raw(sequence, 0, false, &part));
    assert!(feed(&mut depacketizer, [raw(0, 0, false, &start)].into_iter().chain(parts)).is_empty());
    let units = feed(&mut depacketizer, [raw(400, 3600, true, &[0x65, 0x88, 1])]);
    assert_eq!(units.len(), 1);
}

/// A NAL unit that no encoder would have to escape, and in which no SEI message marks a recovery point.
fn unit(header: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    (prop::sample::select(vec![1_usize, 20, 500, 1300, 1339, 1340, 1341, 3000, 9000]), 0x10_u8..0xff)
        .prop_map(move |(size, fill)| {
            let mut nal = header.clone();
            nal.resize(header.len() + size, fill);
            nal
        })
}

#[derive(Clone, Debug)]
struct Case {
    payload: Payload,
    track: Track,
    known: bool,
    /// Data and whether it is a sync frame.
    frames: Vec<(Bytes, bool)>,
}

fn pictures(payload: Payload, track: Track, idr: Vec<u8>, delta: Vec<u8>) -> impl Strategy<Value = Case> {
    let sei = if payload == Payload::H264 { vec![6, 5] } else { vec![0x4e, 1, 5] };
    let picture = (any::<bool>(), any::<bool>()).prop_flat_map(move |(is_sync, with_sei)| {
        let slice = unit(if is_sync { idr.clone() } else { delta.clone() });
        (slice, unit(sei.clone())).prop_map(move |(slice, sei)| {
            let nals: &[&[u8]] = if with_sei { &[&sei, &slice] } else { &[&slice] };
            (prefixed(nals), is_sync)
        })
    });
    (any::<bool>(), prop::collection::vec(picture, 1..8)).prop_map(move |(known, mut frames)| {
        if !known {
            // It begins with its parameter sets.
            frames.retain(|(_, is_sync)| *is_sync);
        }
        Case { payload, track: track.clone(), known, frames }
    })
}

fn temporal_units() -> impl Strategy<Value = Case> {
    let obu = (prop::sample::select(vec![3_u8, 5, 6]), any::<bool>(), 0_usize..4000);
    let unit = (any::<bool>(), prop::collection::vec(obu, 1..6));
    (any::<bool>(), prop::collection::vec(unit, 1..6)).prop_map(|(known, units)| {
        let track = av1();
        let header = track.config.slice(4..);
        let frames = units.into_iter().map(|(is_sync, obus)| {
            let mut data = BytesMut::new();
            if is_sync {
                data.extend_from_slice(&header);
            }
            for (kind, extension, size) in obus {
                data.extend_from_slice(&[kind << 3 | 2 | u8::from(extension) << 2]);
                if extension {
                    data.extend_from_slice(&[0x48]);
                }
                crate::obu::put_leb128(&mut data, size);
                data.extend_from_slice(&vec![kind; size]);
            }
            (data.freeze(), is_sync)
        });
        let frames = frames.filter(|(_, is_sync)| known || *is_sync).collect();
        Case { payload: Payload::Av1, track, known, frames }
    })
}

fn sounds() -> impl Strategy<Value = Case> {
    let kinds = vec![
        (AAC, aac(), 1_usize, 8191_usize),
        (Payload::Whole(Codec::Opus), Track::opus(None).unwrap(), 1, 1275),
        (Payload::Whole(Codec::PcmA), sound(Codec::PcmA, 8000, 1), 1, 500),
        (Payload::Whole(Codec::PcmU), sound(Codec::PcmU, 8000, 1), 1, 500),
        (Payload::Whole(Codec::G722), sound(Codec::G722, 16_000, 1), 1, 500),
        (Payload::Whole(Codec::L16), sound(Codec::L16, 44_100, 2), 4, 125),
    ];
    prop::sample::select(kinds).prop_flat_map(|(payload, track, unit, most)| {
        let sizes = prop::collection::vec((1..=most, 0_u8..0xf0), 1..10);
        sizes.prop_map(move |sizes| {
            let frames =
                sizes.into_iter().map(|(size, fill)| (vec![fill; unit * size].into(), true)).collect();
            Case { payload, track: track.clone(), known: true, frames }
        })
    })
}

/// MPEG-1 layer III at 48 kHz, of every bit rate.
fn mpeg_audio() -> impl Strategy<Value = Case> {
    let frame = (1_u8..15).prop_map(|index| {
        let head = [0xff, 0xfb, index << 4 | 4, 0];
        let length = av_media::mpeg_audio::Header::parse(&head).unwrap().length.unwrap();
        let mut data = head.to_vec();
        data.resize(length, index);
        (Bytes::from(data), true)
    });
    (any::<bool>(), prop::collection::vec(frame, 1..10)).prop_map(|(known, frames)| {
        let track = sound(Codec::Mp3, 48_000, 2);
        Case { payload: Payload::MpegAudio, track, known, frames }
    })
}

fn cases() -> impl Strategy<Value = Case> {
    prop_oneof![
        3 => pictures(Payload::H264, h264(), vec![0x65, 0x88], vec![0x41, 0x9a]),
        3 => pictures(Payload::H265, h265(), vec![0x26, 1, 0x80], vec![2, 1, 0x80]),
        3 => temporal_units(),
        2 => sounds(),
        1 => mpeg_audio(),
    ]
}

proptest! {
    #[test]
    fn what_was_packetized_comes_back_the_same(
        case in cases(),
        mtu in 576_u16..9000,
        first_sequence: u16,
        first_time: u32,
    ) {
        let Case { payload, track, known, frames } = case;
        let mut sender = Packetizer::new(&track, settings(mtu, first_sequence, first_time)).unwrap();
        let clock = sender.clock_rate();
        let mut depacketizer = Depacketizer::new(payload, clock, known.then(|| track.clone()), AfterLoss::Drop);
        let (mut out, mut sent) = (Vec::new(), Vec::new());
        for ((data, is_sync), index) in frames.into_iter().zip(0..) {
            let pts = Timestamp::from_ticks(index * 5000, clock);
            let frame = Frame { kind: track.kind(), dts: pts, pts, is_sync, data };
            let mut packets = Vec::new();
            prop_assert!(sender.packetize(&frame, &mut packets));
            for packet in &packets {
                prop_assert!(packet.len() <= usize::from(mtu) - 48 || payload == Payload::Whole(Codec::Opus));
                depacketizer.push(Ordered::Packet(received(packet)), &mut out);
            }
            sent.push(Unit { time: index * 5000, is_sync, data: frame.data });
        }
        let mut came = units(out);
        let start = came.first().map_or(0, |unit| unit.time);
        came.iter_mut().for_each(|unit| unit.time -= start);
        prop_assert_eq!(came, sent);
        prop_assert_eq!(depacketizer.counts(), Counts::default());
    }

    #[test]
    fn any_payloads_are_taken_without_harm(
        payload in prop::sample::select(vec![
            Payload::H264, Payload::H265, Payload::Av1, AAC, Payload::Aac { size: 32, index: 32, delta: 32 },
            Payload::Aac { size: 0, index: 0, delta: 0 }, Payload::Latm, Payload::MpegAudio,
        ]),
        packets in prop::collection::vec(
            (any::<u32>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..50), 0..5_u8), 0..50),
    ) {
        let mut depacketizer = depacketizer(payload, None);
        let mut out = Vec::new();
        for (time, marker, bytes, lost) in packets {
            if lost == 0 {
                depacketizer.push(Ordered::Lost(1), &mut out);
            }
            depacketizer.push(raw(0, time, marker, &bytes), &mut out);
        }
    }
}
