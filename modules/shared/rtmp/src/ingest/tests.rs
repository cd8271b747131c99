//! Messages to tracks and frames, and their times.

use super::*;
use crate::amf0::{encode_all, object};

const AVCC: &[u8] = b"\x17\0\0\0\0\x01\x64\0\x1e\xff\xe1\0\x1a\x67\x64\0\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x11\0\0\x03\0\x01\0\0\x03\0\x32\x0f\x16\x2d\x96\x01\0\x04\x68\xef\x8f\xcb\xfd\xf8\xf8\0";

fn raw(type_id: u8, timestamp: u32, payload: &[u8]) -> RawMessage {
    RawMessage { timestamp, type_id, stream_id: 1, payload: Bytes::copy_from_slice(payload) }
}

fn feed(ingest: &mut Ingest, message: &RawMessage) -> Vec<MediaItem> {
    let mut items = Vec::new();
    ingest.message(message, &mut |item| items.push(item)).unwrap();
    items
}

/// The unwrapped time of an audio frame at each wire time.
fn unwrapped(times: &[u32]) -> Vec<i64> {
    let mut ingest = Ingest::default();
    feed(&mut ingest, &raw(8, times[0], b"\xaf\x00\x11\x90"));
    let frames = times.iter().flat_map(|time| feed(&mut ingest, &raw(8, *time, b"\xaf\x01raw")));
    let times = frames.map(|item| match item {
        MediaItem::Frame(frame) => frame.dts.millis(),
        other => panic!("{other:?}"),
    });
    times.collect()
}

#[test]
fn time_goes_on_through_24_31_and_32_bits() {
    for border in [1i64 << 24, 1 << 31, 1 << 32] {
        let times: Vec<i64> = (-10_000..10_000).step_by(250).map(|offset| border + offset).collect();
        let wire: Vec<u32> = times.iter().map(|time| *time as u32).collect();
        assert_eq!(unwrapped(&wire), times);
    }
}

#[test]
fn each_time_is_the_nearest_to_the_one_before() {
    assert_eq!(unwrapped(&[u32::MAX - 9, 10, u32::MAX - 4]), [(1 << 32) - 10, (1 << 32) + 10, (1 << 32) - 5]);
    assert_eq!(unwrapped(&[5, u32::MAX - 4]), [5, -5]);
    assert_eq!(unwrapped(&[5_000_000, 0]), [5_000_000, 0]);
}

#[test]
fn a_sender_that_wraps_at_31_bits_goes_on_too() {
    let times: Vec<i64> = (-5000i64..5000).step_by(250).map(|offset| (1 << 31) + offset).collect();
    let wire: Vec<u32> = times.iter().map(|time| (*time & 0x7FFF_FFFF) as u32).collect();
    assert_eq!(unwrapped(&wire), times);
    // Audio and video are not quite in order.
    assert_eq!(
        unwrapped(&[0x7FFF_FFFE, 4, 0x7FFF_FFFF, 9]),
        [(1 << 31) - 2, (1 << 31) + 4, (1 << 31) - 1, (1 << 31) + 9]
    );
}

#[test]
fn the_clock_starts_with_a_frame_not_with_a_header_at_zero() {
    let mut ingest = Ingest::default();
    feed(&mut ingest, &raw(8, 0, b"\xaf\x00\x11\x90"));
    let items = feed(&mut ingest, &raw(8, u32::MAX, b"\xaf\x01raw"));
    let [MediaItem::Frame(frame)] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!(frame.dts.millis(), i64::from(u32::MAX));
}

#[test]
fn audio_and_video_share_one_clock() {
    let mut ingest = Ingest::default();
    feed(&mut ingest, &raw(9, u32::MAX - 99, AVCC));
    feed(&mut ingest, &raw(8, u32::MAX - 99, b"\xaf\x00\x11\x90"));
    feed(&mut ingest, &raw(9, u32::MAX - 59, b"\x17\x01\0\0\0nal"));
    feed(&mut ingest, &raw(9, 20, b"\x17\x01\0\0\0nal"));
    let items = feed(&mut ingest, &raw(8, 0, b"\xaf\x01raw"));
    let [MediaItem::Frame(frame)] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!(frame.dts, Timestamp::from_millis(1 << 32));
}

#[test]
fn data_messages_with_time_zero_do_not_move_the_clock() {
    let mut ingest = Ingest::default();
    let text = encode_all([&Value::from("onTextData"), &object([("text", Value::from("hi"))])]);
    feed(&mut ingest, &raw(9, 1 << 31, AVCC));
    feed(&mut ingest, &raw(18, 0, &text));
    let items = feed(&mut ingest, &raw(9, (1 << 31) + 40, b"\x27\x01\0\0\x28nal"));
    let [MediaItem::Frame(frame)] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!(
        (frame.dts.millis(), frame.pts.millis(), frame.is_sync),
        ((1 << 31) + 40, (1 << 31) + 80, false)
    );
}

#[test]
fn a_sequence_header_becomes_a_track_and_a_picture_a_slice_of_its_message() {
    let mut ingest = Ingest::default();
    let items = feed(&mut ingest, &raw(9, 0, AVCC));
    let [MediaItem::Track(track)] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!((track.codec, track.video.width, track.video.height), (Codec::H264, 640, 360));
    let message = raw(9, 40, b"\x27\x01\0\0\x28a picture");
    let items = feed(&mut ingest, &message);
    let [MediaItem::Frame(frame)] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!(frame.data.as_ptr(), message.payload[5..].as_ptr());
}

#[test]
fn frames_before_their_configuration_are_skipped_where_it_is_needed() {
    let mut ingest = Ingest::default();
    let skipped = |codec| MediaItem::Skipped { reason: SkipReason::NoSequenceHeader(codec), count: 1 };
    assert_eq!(feed(&mut ingest, &raw(9, 0, b"\x17\x01\0\0\0nal")), [skipped(Codec::H264)]);
    assert_eq!(feed(&mut ingest, &raw(8, 0, b"\xaf\x01raw")), [skipped(Codec::Aac)]);
    let items = feed(&mut ingest, &raw(8, 0, b"\x2fmp3"));
    let [MediaItem::Track(track), MediaItem::Frame(_)] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!((track.codec, track.audio.sample_rate, track.audio.channels), (Codec::Mp3, 44_100, 2));
    assert_eq!(feed(&mut ingest, &raw(8, 0, b"\x2fmp3")).len(), 1);
}

#[test]
fn messages_that_are_skipped_for_the_same_reason_become_one_item() {
    let mut last: Option<MediaItem> = None;
    let mut ingest = Ingest::default();
    for _ in 0..1000 {
        for item in feed(&mut ingest, &raw(8, 0, b"")) {
            match &mut last {
                Some(last) => assert!(last.absorb(&item)),
                None => last = Some(item),
            }
        }
    }
    assert_eq!(last, Some(MediaItem::Skipped { reason: SkipReason::Empty(Kind::Audio), count: 1000 }));
    let other = feed(&mut ingest, &raw(9, 0, b""));
    assert!(!last.unwrap().absorb(&other[0]));
}

/// Why a message was left out, with everything behind it.
fn left_out(ingest: &mut Ingest, message: &RawMessage) -> String {
    let items = feed(ingest, message);
    let [MediaItem::Skipped { reason, count: 1 }] = items.as_slice() else { panic!("{items:?}") };
    let mut error: &dyn std::error::Error = reason;
    let mut text = error.to_string();
    while let Some(source) = error.source() {
        text = format!("{text}: {source}");
        error = source;
    }
    text
}

#[test]
fn a_malformed_message_is_left_out_with_the_rule_that_it_broke() {
    let mut ingest = Ingest::default();
    feed(&mut ingest, &raw(9, 0, AVCC));
    for (message, rule) in [
        (raw(9, 0, b"\x17\0\0\0\0\x01\x64"), "H264 sequence header cannot be read"),
        (raw(9, 0, b"\x17\0\0\0\0\x01"), "H264 sequence header cannot be read"),
        (raw(8, 0, b"\xaf\0\x12"), "Aac sequence header cannot be read"),
        (raw(9, 0, b"\x17"), "video tag of 1 bytes needs 2"),
        (raw(9, 0, b"\x17\x09\0\0\0nal"), "AVCPacketType 9 is not defined"),
        (raw(8, 0, b"\x9c"), "extended audio tag of 1 bytes needs 5"),
        (raw(18, 0, b"hello"), "unknown AMF0 marker 0x68"),
        (raw(15, 0, &[&[0][..], &encode_all([&Value::from("onMetaData")]), &[0x11, 0x0A]].concat()), "AMF3"),
        (raw(22, 0, &[9, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]), "aggregate message of 11 bytes is cut"),
    ] {
        let text = left_out(&mut ingest, &message);
        assert!(text.starts_with("message left out: ") && text.contains(rule), "{text}");
    }
    // The track is what it was.
    assert_eq!(feed(&mut ingest, &raw(9, 40, b"\x17\x01\0\0\0nal")).len(), 1);
}

#[test]
fn the_parts_of_an_aggregate_before_the_cut_are_taken() {
    let mut ingest = Ingest::default();
    let whole = [&[8, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0][..], b"\x2fmp3", &[0; 4]].concat();
    let items = feed(&mut ingest, &raw(22, 0, &[&whole[..], &[8, 0, 0, 9]].concat()));
    assert!(
        matches!(&items[..], [MediaItem::Track(_), MediaItem::Frame(_), MediaItem::Skipped { .. }]),
        "{items:?}"
    );
}

#[test]
fn a_hundred_malformed_messages_and_nothing_good_between_them_are_an_error() {
    let mut ingest = Ingest::default();
    for _ in 0..3 {
        (0..99).for_each(|_| drop(left_out(&mut ingest, &raw(9, 0, b"\x17"))));
        // What is not carried is not good either, but sound is.
        feed(&mut ingest, &raw(9, 0, b"\x22sorenson"));
        feed(&mut ingest, &raw(8, 0, b"\x2fmp3"));
    }
    (0..99).for_each(|_| drop(left_out(&mut ingest, &raw(9, 0, b"\x17"))));
    feed(&mut ingest, &raw(9, 0, b"\x22sorenson"));
    let error = ingest.message(&raw(9, 0, b"\x17"), &mut |_| ()).unwrap_err();
    assert!(matches!(error, RtmpError::NothingGood { count: 100, .. }), "{error}");
}

#[test]
fn metadata_beyond_its_bound_is_left_out_and_said() {
    let name = Value::from("onMetaData");
    let info = object([("keyframes", Value::String("k".repeat(1 << 20)))]);
    let items = feed(&mut Ingest::default(), &raw(18, 0, &encode_all([&name, &info])));
    assert!(
        matches!(&items[..], [MediaItem::Skipped { reason: SkipReason::TooLarge { .. }, count: 1 }]),
        "{items:?}"
    );
    let many = object([("list", Value::StrictArray(vec![Value::Null; 70_000]))]);
    let text = left_out(&mut Ingest::default(), &raw(18, 0, &encode_all([&name, &many])));
    assert!(text.contains("more than 65536 AMF0 values"), "{text}");
}

/// The `hvcC` that a camera sends under H.264's number; the second one's parameter sets travel in the stream.
#[test]
fn h265_under_number_7_is_known_by_its_configuration_and_leaves_as_it_came() {
    let set = |kind: u8, unit: &[u8]| [&[0x80 | kind, 0, 1, 0, unit.len() as u8][..], unit].concat();
    let head = |arrays: u8| {
        let mut head = b"\x01\x01\x60\0\0\0\x90\0\0\0\0\0\x5d\xf0\0\xfc\xfd\xf8\xf8\0\0\x0f".to_vec();
        head.push(arrays);
        head
    };
    let sets = [set(32, b"\x40\x01\x0c"), set(33, b"\x42\x01\x01"), set(34, b"\x44\x01\xc1")].concat();
    for hvcc in [[head(3), sets].concat(), head(0)] {
        let mut ingest = Ingest::default();
        let items = feed(&mut ingest, &raw(9, 0, &[b"\x17\0\0\0\0", &hvcc[..]].concat()));
        let [MediaItem::Track(track)] = items.as_slice() else { panic!("{items:?}") };
        assert_eq!((track.codec, track.framing), (Codec::H265, RtmpFraming::ClassicAsH264));
        let items = feed(&mut ingest, &raw(9, 40, b"\x27\x01\0\0\x28\0\0\0\x03\x02\x01a"));
        let [MediaItem::Frame(frame)] = items.as_slice() else { panic!("{items:?}") };
        let mut out = bytes::BytesMut::new();
        crate::Egress::players().frame(&mut out, track, frame, 40);
        assert!(out.ends_with(b"\x27\x01\0\0\x28\0\0\0\x03\x02\x01a"), "{out:?}");
        // H.264 may follow, and is told by its own configuration.
        let items = feed(&mut ingest, &raw(9, 80, AVCC));
        assert!(matches!(&items[..], [MediaItem::Track(track)] if track.codec == Codec::H264), "{items:?}");
        assert_eq!(feed(&mut ingest, &raw(9, 80, b"\x17\x01\0\0\0nal")).len(), 1);
    }
}

#[test]
fn what_is_kept_for_who_joins_is_bounded() {
    let mut ingest = Ingest::default();
    let header = |track: u8, length: usize| [&b"\x96\x00av01"[..], &[track], &vec![0; length]].concat();
    let kept =
        |items: Vec<MediaItem>| matches!(&items[..], [MediaItem::Extra(extra)] if extra.slot.is_some());
    for track in 1..=32 {
        assert!(kept(feed(&mut ingest, &raw(9, 0, &header(track, 40)))));
    }
    assert!(kept(feed(&mut ingest, &raw(9, 0, &header(7, 80)))), "one that is known may change");
    for body in [header(33, 40), header(1, 16 << 10)] {
        let items = feed(&mut ingest, &raw(9, 0, &body));
        assert!(matches!(&items[..], [MediaItem::Skipped { .. }]), "{items:?}");
    }
}

#[test]
fn metadata_is_told_from_other_data_with_and_without_set_data_frame() {
    let mut ingest = Ingest::default();
    let (set, name) = (Value::from("@setDataFrame"), Value::from("onMetaData"));
    let info = object([("width", Value::from(2.0))]);
    for payload in [encode_all([&set, &name, &info]), encode_all([&name, &info])] {
        let items = feed(&mut ingest, &raw(18, 0, &payload));
        let [MediaItem::Metadata(metadata)] = items.as_slice() else { panic!("{items:?}") };
        assert_eq!((metadata.width, &metadata.raw), (Some(2.0), &encode_all([&info])));
    }
    let cue = encode_all([&Value::from("onCuePoint"), &info]);
    let wrapped = encode_all([&set, &Value::from("onCuePoint"), &info]);
    for payload in [&cue, &wrapped] {
        let expected = [MediaItem::Data { timestamp_ms: 3, payload: cue.clone() }];
        assert_eq!(feed(&mut ingest, &raw(18, 3, payload)), expected);
    }
}

#[test]
fn set_data_frame_with_nothing_behind_it_is_nothing() {
    let set = Value::from("@setDataFrame");
    assert_eq!(feed(&mut Ingest::default(), &raw(18, 0, &encode_all([&set]))), []);
    let items = feed(&mut Ingest::default(), &raw(18, 0, &encode_all([&set, &Value::from("onMetaData")])));
    assert_eq!(items, [MediaItem::Metadata(Metadata::default())]);
    assert_eq!(feed(&mut Ingest::default(), &raw(18, 0, &[])), []);
}

#[test]
fn an_aggregate_gives_its_parts_and_does_not_nest() {
    let mut ingest = Ingest::default();
    feed(&mut ingest, &raw(8, 990, b"\xaf\x00\x11\x90"));
    let part = |type_id: u8, time: u8, payload: &[u8]| {
        [&[type_id, 0, 0, payload.len() as u8, 0, 0, time, 0, 0, 0, 0], payload, &[0; 4]].concat()
    };
    let inner = part(8, 0, b"\xaf\x01zzz");
    let payload = [part(8, 5, b"\xaf\x01aaa"), part(22, 7, &inner), part(8, 28, b"\xaf\x01bbb")].concat();
    let times: Vec<i64> = feed(&mut ingest, &raw(22, 1000, &payload))
        .into_iter()
        .map(|item| match item {
            MediaItem::Frame(frame) => frame.dts.millis(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(times, [1000, 1023]);
}
