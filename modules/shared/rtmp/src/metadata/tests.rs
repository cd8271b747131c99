//! `onMetaData` in and out.

use av_media::{AudioFormat, VideoFormat};

use super::*;

fn array(properties: &[(&str, Value)]) -> Bytes {
    let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    amf0::encode_all([&Value::EcmaArray(properties)])
}

fn h264() -> Track {
    let video = VideoFormat { width: 640, height: 360, fps: Some(25.0) };
    Track { video, ..Track::other(Codec::H264) }
}

fn aac() -> Track {
    let audio = AudioFormat { sample_rate: 48_000, channels: 2 };
    Track { audio, ..Track::other(Codec::Aac) }
}

fn numbers(raw: &Bytes) -> Vec<(String, f64)> {
    let value = Reader::new(raw).value().unwrap().unwrap();
    let members = value.properties().unwrap().iter();
    members.map(|(name, value)| (name.clone(), value.as_number().unwrap_or(f64::NAN))).collect()
}

#[test]
fn codecs_are_read_as_number_four_cc_number_or_four_cc_string() {
    for (value, id) in [
        (Value::from(7.0), CodecId::Classic(7)),
        (Value::from(f64::from(u32::from_be_bytes(*b"hvc1"))), CodecId::FourCc(*b"hvc1")),
        (Value::from("av01"), CodecId::FourCc(*b"av01")),
    ] {
        assert_eq!(Metadata::parse(&array(&[("videocodecid", value)])).unwrap().video_codec, Some(id));
    }
    for odd in
        [Value::from(f64::NAN), Value::from(-1.0), Value::from(1e300), Value::from("h264!"), Value::Null]
    {
        assert_eq!(Metadata::parse(&array(&[("videocodecid", odd)])).unwrap().video_codec, None);
    }
    assert_eq!(CodecId::Classic(7).codec(Kind::Video), Some(Codec::H264));
    assert_eq!(CodecId::Classic(7).codec(Kind::Audio), Some(Codec::PcmA));
    assert_eq!(CodecId::FourCc(*b"Opus").codec(Kind::Video), None);
}

#[test]
fn complete_metadata_goes_on_untouched() {
    let raw = array(&[
        ("width", Value::from(1.0)),
        ("height", Value::from(1.0)),
        ("framerate", Value::from(1.0)),
        ("videocodecid", Value::from(7.0)),
        ("custom", Value::Date { millis: 5.0, zone: 0 }),
    ]);
    let metadata = Metadata::parse(&raw).unwrap();
    assert_eq!(Metadata::completed(Some(&metadata), &[&h264()]), raw);
    assert_eq!(Metadata::completed(Some(&metadata), &[]), raw);
}

#[test]
fn what_is_missing_is_taken_from_the_tracks() {
    let metadata =
        Metadata::parse(&array(&[("videoframerate", Value::from(24.0)), ("width", Value::from(2.0))]));
    let sent = Metadata::completed(Some(&metadata.unwrap()), &[&h264(), &aac()]);
    let expected = [
        ("videoframerate", 24.0),
        ("width", 2.0),
        ("height", 360.0),
        ("videocodecid", 7.0),
        ("audiocodecid", 10.0),
        ("audiosamplerate", 48_000.0),
        ("audiochannels", 2.0),
    ];
    assert_eq!(numbers(&sent), expected.map(|(name, number)| (name.to_owned(), number)));
}

#[test]
fn a_stream_without_metadata_gets_some() {
    let track = Track { framing: RtmpFraming::Enhanced, ..Track::other(Codec::H265) };
    let sent = numbers(&Metadata::completed(None, &[&track]));
    assert_eq!(sent, [("videocodecid".to_owned(), 1_752_589_105.0)]);
}

#[test]
fn a_kind_that_is_filtered_out_is_not_announced() {
    let metadata = Metadata::parse(&array(&[
        ("hasAudio", Value::Boolean(true)),
        ("audiocodecid", Value::from(10.0)),
        ("stereo", Value::Boolean(true)),
        ("width", Value::from(2.0)),
        ("height", Value::from(2.0)),
        ("framerate", Value::from(2.0)),
        ("videocodecid", Value::from(7.0)),
    ]))
    .unwrap();
    let names: Vec<String> = numbers(&Metadata::completed(Some(&metadata), &[&h264()]))
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["width", "height", "framerate", "videocodecid"]);
}

#[test]
fn metadata_that_is_no_object_counts_as_empty() {
    for raw in [Bytes::new(), amf0::encode_all([&Value::Null]), amf0::encode_all([&Value::from("x")])] {
        assert_eq!(Metadata::parse(&raw).unwrap(), Metadata::default());
    }
}

#[test]
fn what_stands_behind_the_metadata_is_not_kept_with_it() {
    let message = Bytes::from([&array(&[("width", Value::from(1.0))])[..], &[5; 10_000]].concat());
    let metadata = Metadata::parse(&message).unwrap();
    assert_eq!(metadata.width, Some(1.0));
    assert!(!message.as_ptr_range().contains(&metadata.raw.as_ptr()));
}
