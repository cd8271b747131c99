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
    let message = raw(9, 40, b"\x27\x01\0\0\x28nal");
    let items = feed(&mut ingest, &message);
    let [MediaItem::Frame(frame)] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!(frame.data.as_ptr(), message.payload[5..].as_ptr());
}

#[test]
fn frames_before_their_configuration_are_skipped_where_it_is_needed() {
    let mut ingest = Ingest::default();
    let skipped = |codec| MediaItem::Skipped { reason: SkipReason::NoSequenceHeader(codec) };
    assert_eq!(feed(&mut ingest, &raw(9, 0, b"\x17\x01\0\0\0nal")), [skipped(Codec::H264)]);
    assert_eq!(feed(&mut ingest, &raw(8, 0, b"\xaf\x01raw")), [skipped(Codec::Aac)]);
    let items = feed(&mut ingest, &raw(8, 0, b"\x2fmp3"));
    let [MediaItem::Track(track), MediaItem::Frame(_)] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!((track.codec, track.audio.sample_rate, track.audio.channels), (Codec::Mp3, 44_100, 2));
    assert_eq!(feed(&mut ingest, &raw(8, 0, b"\x2fmp3")).len(), 1);
}

#[test]
fn a_flood_of_messages_that_carry_nothing_is_said_once() {
    let mut ingest = Ingest::default();
    let items: Vec<MediaItem> = (0..1000).flat_map(|_| feed(&mut ingest, &raw(8, 0, b""))).collect();
    assert_eq!(items, [MediaItem::Skipped { reason: SkipReason::Empty(Kind::Audio) }]);
    feed(&mut ingest, &raw(8, 0, b"\x2fmp3"));
    assert_eq!(feed(&mut ingest, &raw(8, 0, b"")).len(), 1);
}

#[test]
fn a_sequence_header_that_cannot_be_read_is_an_error_that_names_the_codec() {
    let mut ingest = Ingest::default();
    let error = ingest.message(&raw(9, 0, b"\x17\0\0\0\0\x01\x64"), &mut |_| ()).unwrap_err();
    assert!(matches!(error, RtmpError::Flv(FlvError::Config { codec: Codec::H264, .. })), "{error:?}");
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
