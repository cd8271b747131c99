//! Tag bodies, read and written.

use av_media::{Frame, Kind, Timestamp, Track};
use proptest::prelude::*;

use super::*;

fn video(bytes: &[u8]) -> Result<Tag, FlvError> {
    parse_video(&Bytes::copy_from_slice(bytes))
}

fn audio(bytes: &[u8]) -> Result<Tag, FlvError> {
    parse_audio(&Bytes::copy_from_slice(bytes))
}

fn coded(codec: Codec, framing: RtmpFraming, is_sync: bool, composition_ms: i32, data: &'static [u8]) -> Tag {
    let data = Bytes::from_static(data);
    Tag::Frame { codec, framing, is_sync, composition_ms, audio: AudioFormat::default(), data }
}

#[test]
fn classic_video_is_read() {
    let classic = RtmpFraming::Classic;
    let config = Bytes::from_static(b"cfg");
    assert_eq!(
        video(b"\x17\x00\x00\x00\x00cfg"),
        Ok(Tag::SequenceHeader { codec: Codec::H264, framing: classic, config })
    );
    assert_eq!(video(b"\x17\x01\x00\x00\x50nal"), Ok(coded(Codec::H264, classic, true, 80, b"nal")));
    assert_eq!(video(b"\x2c\x01\xff\xff\xb0nal"), Ok(coded(Codec::H265, classic, false, -80, b"nal")));
    assert_eq!(video(b"\x17\x02\x00\x00\x00"), Ok(Tag::End(Codec::H264)));
}

#[test]
fn enhanced_video_is_read() {
    let enhanced = RtmpFraming::Enhanced;
    assert_eq!(video(b"\x91hvc1\x00\x00\x28nal"), Ok(coded(Codec::H265, enhanced, true, 40, b"nal")));
    assert_eq!(video(b"\xa3hvc1nal"), Ok(coded(Codec::H265, enhanced, false, 0, b"nal")));
    assert_eq!(video(b"\xa1avc1\xff\xff\xffnal"), Ok(coded(Codec::H264, enhanced, false, -1, b"nal")));
    assert_eq!(video(b"\x91av01obu"), Ok(coded(Codec::Av1, enhanced, true, 0, b"obu")));
    assert_eq!(video(b"\x91vp09vvv"), Ok(coded(Codec::Vp9, enhanced, true, 0, b"vvv")));
    assert_eq!(video(b"\x92hvc1"), Ok(Tag::End(Codec::H265)));
    assert_eq!(video(b"\x91vvc1nal"), Ok(Tag::Skipped(SkipReason::FourCc(Kind::Video, *b"vvc1"))));
}

#[test]
fn modifiers_before_a_packet_are_stepped_over() {
    // Nanosecond offset of 3 bytes; then one of 256 + 1 bytes, whose size takes the long form.
    let frame = coded(Codec::Av1, RtmpFraming::Enhanced, true, 0, b"obu");
    assert_eq!(video(b"\x97\x02abc\x01av01obu"), Ok(frame.clone()));
    let long = [&b"\x97\xff\x01\x00"[..], &[0; 257], b"\x01av01obu"].concat();
    assert_eq!(video(&long), Ok(frame));
    assert!(matches!(video(b"\x97\x02ab"), Err(FlvError::Short { needed: 5, length: 4, .. })));
}

#[test]
fn track_0_is_taken_from_a_multitrack_message() {
    let frame = coded(Codec::H264, RtmpFraming::Enhanced, true, 0, b"nal");
    assert_eq!(video(b"\x96\x03avc1\x00nal"), Ok(frame.clone()));
    let other = |four_cc: &[u8]| Tag::Extra {
        kind: Kind::Video,
        slot: None,
        body: [b"\x96\x03", four_cc, b"\x01xx"].concat().into(),
    };
    assert_eq!(
        video(b"\x96\x13avc1\x01\x00\x00\x02xx\x00\x00\x00\x03nal"),
        Ok(Tag::Several(vec![other(b"avc1"), frame.clone()]))
    );
    assert_eq!(
        video(b"\x96\x23vp09\x01\x00\x00\x02xxavc1\x00\x00\x00\x03nal"),
        Ok(Tag::Several(vec![other(b"vp09"), frame]))
    );
    assert!(matches!(video(b"\x96\x33avc1\x01nal"), Err(FlvError::Undefined { value: 3, .. })));
    assert!(matches!(video(b"\x96\x13avc1\x01\x00\x00\x09xx"), Err(FlvError::Short { .. })));
    // What is track 0 must not read beyond it.
    assert!(matches!(video(b"\x96\x11avc1\x00\x00\x00\x02xxyy"), Err(FlvError::Short { .. })));
    assert_eq!(
        audio(b"\x95\x11mp4a\x00\x00\x00\x01a"),
        Ok(Tag::Several(vec![coded(Codec::Aac, RtmpFraming::Enhanced, true, 0, b"a")]))
    );
    let many = [&b"\x96\x13avc1"[..], &b"\x01\x00\x00\x00".repeat(33)].concat();
    assert_eq!(video(&many), Err(FlvError::Tracks { limit: 32 }));
}

#[test]
fn what_only_rtmp_knows_is_taken_as_it_came_with_the_slot_that_it_fills() {
    let cases = [
        // Colour information, a layout of channels, AV1's header in MPEG-2 TS.
        (Kind::Video, &b"\x94av01\x02\x00\x09colorInfo"[..], Some((4, 0))),
        (Kind::Audio, b"\x94Opus\x01\x02\x00\x00\x00\x03", Some((4, 0))),
        (Kind::Video, b"\x95av01ts", Some((5, 0))),
        // Another track: its header, its frame, its colour information.
        (Kind::Video, b"\x96\x00av01\x02cfg", Some((0, 2))),
        (Kind::Video, b"\xa6\x01av01\x02obu", None),
        (Kind::Video, b"\x96\x04av01\x02xx", Some((4, 2))),
        (Kind::Audio, b"\x95\x00mp4a\x01\x12\x10", Some((0, 1))),
    ];
    for (kind, body, slot) in cases {
        let read = if kind == Kind::Video { video(body) } else { audio(body) };
        let slot = slot.map(|(packet_type, track)| Slot { kind, packet_type, track });
        assert_eq!(read, Ok(Tag::Extra { kind, slot, body: Bytes::copy_from_slice(body) }));
    }
}

#[test]
fn audio_is_read() {
    let config = Bytes::from_static(b"\x11\x90");
    assert_eq!(
        audio(b"\xaf\x00\x11\x90"),
        Ok(Tag::SequenceHeader { codec: Codec::Aac, framing: RtmpFraming::Classic, config })
    );
    assert_eq!(audio(b"\xaf\x01raw"), Ok(coded(Codec::Aac, RtmpFraming::Classic, true, 0, b"raw")));
    for (four_cc, codec) in [
        (b"Opus", Codec::Opus),
        (b"mp4a", Codec::Aac),
        (b"fLaC", Codec::Flac),
        (b"ac-3", Codec::Ac3),
        (b"ec-3", Codec::Eac3),
        (b".mp3", Codec::Mp3),
    ] {
        let body = [&b"\x91"[..], four_cc, b"raw"].concat();
        assert_eq!(audio(&body), Ok(coded(codec, RtmpFraming::Enhanced, true, 0, b"raw")));
    }
    let format = |bytes: &[u8]| match audio(bytes) {
        Ok(Tag::Frame { codec, audio, .. }) => (codec, audio.sample_rate, audio.channels),
        other => panic!("{other:?}"),
    };
    assert_eq!(format(b"\x2fmp3"), (Codec::Mp3, 44_100, 2));
    assert_eq!(format(b"\x2amp3"), (Codec::Mp3, 22_050, 1));
    assert_eq!(format(b"\xe2mp3"), (Codec::Mp3, 8000, 1));
    assert_eq!(format(b"\x72pcm"), (Codec::PcmA, 8000, 1));
    assert_eq!(format(b"\x82pcm"), (Codec::PcmU, 8000, 1));
}

#[test]
fn what_cannot_be_carried_is_skipped_with_its_reason() {
    assert_eq!(video(b""), Ok(Tag::Skipped(SkipReason::Empty(Kind::Video))));
    assert_eq!(audio(b""), Ok(Tag::Skipped(SkipReason::Empty(Kind::Audio))));
    assert_eq!(audio(b"\xaf\x01"), Ok(Tag::Skipped(SkipReason::Empty(Kind::Audio))));
    assert_eq!(video(b"\x12xx"), Ok(Tag::Skipped(SkipReason::VideoCodec(2))));
    assert_eq!(audio(b"\xb2xx"), Ok(Tag::Skipped(SkipReason::AudioCodec(11))));
    assert_eq!(video(b"\x57\x00"), Ok(Tag::Skipped(SkipReason::Command)));
    assert_eq!(video(b"\xd1\x00"), Ok(Tag::Skipped(SkipReason::Command)));
}

#[test]
fn what_breaks_the_format_is_refused() {
    assert!(matches!(video(b"\x17"), Err(FlvError::Short { needed: 2, length: 1, .. })));
    assert!(matches!(video(b"\x17\x01\x00"), Err(FlvError::Short { needed: 5, length: 3, .. })));
    assert!(matches!(video(b"\x17\x03\x00\x00\x00"), Err(FlvError::Undefined { value: 3, .. })));
    assert!(matches!(audio(b"\xaf\x02"), Err(FlvError::Undefined { value: 2, .. })));
    assert!(matches!(video(b"\x91hvc"), Err(FlvError::Short { needed: 5, length: 4, .. })));
    assert!(matches!(video(b"\x91hvc1\x00"), Err(FlvError::Short { needed: 8, length: 6, .. })));
    assert!(matches!(video(b"\x99hvc1nal"), Err(FlvError::Undefined { value: 9, .. })));
    assert!(matches!(audio(b"\x93Opusraw"), Err(FlvError::Undefined { value: 3, .. })));
}

/// Reads a body and writes it again.
fn again(kind: Kind, body: &[u8]) -> Vec<u8> {
    let tag = match kind {
        Kind::Video => video(body),
        Kind::Audio => audio(body),
    };
    match tag.unwrap() {
        Tag::Frame { codec, framing, is_sync, composition_ms, audio, data } => {
            let track = Track { framing, audio, ..Track::other(codec) };
            let frame = Frame {
                kind,
                dts: Timestamp::from_millis(7),
                pts: Timestamp::from_millis(7 + i64::from(composition_ms)),
                is_sync,
                data,
            };
            [frame_header(&track, &frame).unwrap().as_slice(), &frame.data].concat()
        }
        Tag::SequenceHeader { codec, framing, config } => {
            let track = Track { framing, config, ..Track::other(codec) };
            [sequence_header(&track).unwrap().as_slice(), &track.config].concat()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn streams_leave_byte_for_byte_as_they_came() {
    let videos: [&[u8]; 11] = [
        b"\x17\x00\x00\x00\x00cfg",
        b"\x1c\x00\x00\x00\x00cfg",
        b"\x17\x01\x00\x00\x50nal",
        b"\x27\x01\xff\xff\xb0nal",
        b"\x2c\x01\x80\x00\x00nal",
        b"\x90hvc1cfg",
        b"\x90av01cfg",
        b"\x91hvc1\x00\x00\x28nal",
        b"\xa3hvc1nal",
        b"\xa1av01obu",
        b"\x91vp09vvv",
    ];
    for body in videos {
        assert_eq!(again(Kind::Video, body), body);
    }
    let audios: [&[u8]; 12] = [
        b"\xaf\x00\x11\x90",
        b"\xaf\x01raw",
        b"\x2fmp3",
        b"\x2amp3",
        b"\x26mp3",
        b"\xe2mp3",
        b"\x72pcm",
        b"\x83pcm",
        b"\x90OpusOpusHead",
        b"\x91Opusraw",
        b"\x91mp4araw",
        b"\x91.mp3raw",
    ];
    for body in audios {
        assert_eq!(again(Kind::Audio, body), body);
    }
}

proptest! {
    #[test]
    fn frames_keep_time_and_bytes(
        codec in prop::sample::select(vec![Codec::H264, Codec::H265]),
        enhanced: bool,
        is_sync: bool,
        offset in -0x80_0000i32..0x80_0000,
        data in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let framing = if enhanced { RtmpFraming::Enhanced } else { RtmpFraming::Classic };
        let data = Bytes::from(data);
        let track = Track { framing, ..Track::other(codec) };
        let dts = Timestamp::from_millis(1 << 40);
        let pts = Timestamp::from_millis((1 << 40) + i64::from(offset));
        let frame = Frame { kind: Kind::Video, dts, pts, is_sync, data: data.clone() };
        let body = [frame_header(&track, &frame).unwrap().as_slice(), &data].concat();
        let expected = Tag::Frame { codec, framing, is_sync, composition_ms: offset, audio: AudioFormat::default(), data };
        prop_assert_eq!(video(&body), Ok(expected));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = video(&bytes);
        let _ = audio(&bytes);
    }
}

#[test]
fn a_small_frame_does_not_keep_the_large_message_that_it_came_in() {
    let other = [&b"\x96\x13avc1\x01\x00\x10\x00"[..], &[0; 4096], b"\x00\x00\x00\x03nal"].concat();
    let modifiers = [&b"\x97\xff\x0f\xff"[..], &[0; 4096], b"\x01av01obu"].concat();
    let alone = [&b"\x91av01"[..], &[7; 4096]].concat();
    for (message, copied) in [(other, true), (modifiers, true), (alone, false)] {
        let body = Bytes::from(message);
        let read = parse_video(&body).unwrap();
        let frame = match &read {
            Tag::Several(tags) => tags.last().unwrap(),
            tag => tag,
        };
        let Tag::Frame { data, .. } = frame else { panic!("{frame:?}") };
        assert_ne!(body.as_ptr_range().contains(&data.as_ptr()), copied, "{} bytes", data.len());
    }
}
