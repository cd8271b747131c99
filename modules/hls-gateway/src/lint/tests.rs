use std::collections::BTreeSet;
use std::num::NonZeroU32;

use av_media::h264::AvcConfig;
use av_media::mp4::FragmentWriter;
use av_media::mpegts::TsMuxer;
use av_media::{Frame, Kind, Timestamp, Track, aac};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::history::History;
use super::media::{Init, Listed, Timeline, transport_stream};
use super::playlist::Playlist;
use super::rule::{self, Fault, Rule};
use super::*;

/// A version of a playlist as a good server has it: segments of 2 s, parts of 0.5 s, the first segment being `first`.
fn version(first: u64) -> String {
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n\
         #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.5,HOLD-BACK=6.0,CAN-SKIP-UNTIL=12.0\n\
         #EXT-X-PART-INF:PART-TARGET=0.5\n#EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-DISCONTINUITY-SEQUENCE:0\n\
         #EXT-X-MAP:URI=\"init.mp4\"\n"
    );
    for number in first..first + 6 {
        let (minute, second) = (number * 2 / 60, number * 2 % 60);
        text += &format!("#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:{minute:02}:{second:02}.000Z\n");
        if number >= first + 4 {
            (0..4).for_each(|part| text += &part_line(number, part));
        }
        text += &format!("#EXTINF:2.00000,\nseg-{number}.m4s\n");
    }
    let open = first + 6;
    (0..2).for_each(|part| text += &part_line(open, part));
    text + &format!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part-{open}-2.m4s\"\n")
}

fn part_line(number: u64, part: u64) -> String {
    let independent = if part == 0 { ",INDEPENDENT=YES" } else { "" };
    format!("#EXT-X-PART:DURATION=0.50000,URI=\"part-{number}-{part}.m4s\"{independent}\n")
}

const MULTIVARIANT: &str = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-STREAM-INF:BANDWIDTH=2000000,\
    CODECS=\"avc1.42c01e,mp4a.40.2\",RESOLUTION=320x180,FRAME-RATE=25.000\nmedia.m3u8\n";

/// The names of the rules that these versions break, two seconds apart.
fn broken(versions: &[String]) -> BTreeSet<&'static str> {
    let mut history = History::default();
    let mut found = BTreeSet::new();
    for (text, now) in versions.iter().zip(0_u32..) {
        let list = Playlist::parse(text);
        let mut faults = check::playlist(&list);
        if list.skipped.is_some() {
            faults.extend(history.delta(&list));
        } else if !list.is_multivariant() {
            faults.extend(history.take(&list, f64::from(now) * 2.0));
        }
        found.extend(faults.iter().map(|fault| fault.rule.name));
    }
    found
}

/// Four versions in a row.
fn versions() -> Vec<String> {
    (10..14).map(version).collect()
}

#[test]
fn a_good_stream_has_no_fault() {
    assert_eq!(broken(&versions()), BTreeSet::new());
    assert_eq!(broken(&[MULTIVARIANT.into()]), BTreeSet::new());
    assert_eq!(broken(&whole(8, |number| number == 14)), BTreeSet::new());
    assert_eq!(
        broken(&whole(8, |number| number <= 11)),
        BTreeSet::new(),
        "three segments are behind the gaps"
    );
    // A stream that just began is short: nothing was removed from it.
    let begins = version(10).replace("#EXTINF:2.00000", "#EXTINF:0.90000");
    assert!(!broken(&[begins.clone(), begins]).contains(rule::WINDOW.name));
    // Nor has one whose publisher is silent: its last part is a gap, and no other is hinted.
    let silent = |text: &String| {
        let (before, _) = text.split_once("#EXT-X-PRELOAD-HINT").unwrap();
        before.trim_end().to_owned() + ",GAP=YES\n"
    };
    assert_eq!(broken(&versions().iter().map(silent).collect::<Vec<_>>()), BTreeSet::new());
}

/// In every version, what is replaced by what.
fn everywhere(from: &str, to: &str) -> Vec<String> {
    let all: Vec<String> = versions().iter().map(|text| text.replace(from, to)).collect();
    assert_ne!(all, versions(), "{from} is there");
    all
}

/// In the last version only.
fn at_last(from: &str, to: &str) -> Vec<String> {
    let mut all = versions();
    let last = all.last_mut().unwrap();
    assert!(last.contains(from), "{from} is there");
    *last = last.replace(from, to);
    all
}

/// Without the lines that hold a word.
fn without(word: &str) -> Vec<String> {
    let drop =
        |text: &String| text.lines().filter(|line| !line.contains(word)).map(|l| format!("{l}\n")).collect();
    versions().iter().map(drop).collect()
}

/// Whole segments alone, as another version of the protocol has them, some of them gaps.
fn whole(protocol: u64, is_gap: impl Fn(u64) -> bool) -> Vec<String> {
    let drop = |line: &&str| !line.starts_with("#EXT-X-PART") && !line.starts_with("#EXT-X-PRELOAD-HINT");
    let bare = |text: String| text.lines().filter(drop).map(|line| format!("{line}\n")).collect::<String>();
    let gaps = |text: String| {
        (10..20).filter(|number| is_gap(*number)).fold(text, |text, number| {
            let segment = format!("#EXTINF:2.00000,\nseg-{number}.m4s");
            text.replace(&segment, &format!("#EXT-X-GAP\n{segment}"))
        })
    };
    let protocol = format!("VERSION:{protocol}");
    versions().into_iter().map(|text| gaps(bare(text)).replace("VERSION:9", &protocol)).collect()
}

fn then(mut all: Vec<String>, more: impl IntoIterator<Item = String>) -> Vec<String> {
    all.extend(more);
    all
}

fn multivariant(from: &str, to: &str) -> Vec<String> {
    assert!(MULTIVARIANT.contains(from));
    vec![MULTIVARIANT.replace(from, to)]
}

#[test]
fn every_fault_that_is_planted_in_a_playlist_is_found() {
    let skip = |count: u64| {
        let text = version(14)
            .replace("EXT-X-MAP:URI=\"init.mp4\"", &format!("EXT-X-SKIP:SKIPPED-SEGMENTS={count}"));
        let kept = text.split("#EXT-X-PROGRAM-DATE-TIME").enumerate();
        kept.filter(|(index, _)| *index == 0 || *index as u64 > count)
            .map(
                |(index, piece)| {
                    if index == 0 { piece.to_owned() } else { format!("#EXT-X-PROGRAM-DATE-TIME{piece}") }
                },
            )
            .collect::<String>()
    };
    assert_eq!(broken(&then(versions(), [version(14), skip(3)])), BTreeSet::new(), "a good delta");
    let ended = |first: u64| version(first) + "#EXT-X-ENDLIST\n";
    let only_parts = |text: &String| {
        let start = text.find("#EXT-X-PROGRAM").unwrap();
        let parts = text.find("#EXT-X-PART:DURATION=0.50000,URI=\"part-16-0").unwrap();
        format!("{}{}", &text[..start], &text[parts..])
    };
    let one_segment = |sequence: &str| {
        let text = only_parts(&version(10)).replace("MEDIA-SEQUENCE:10", sequence);
        text.replacen("#EXT-X-PART:", "#EXTINF:2.00000,\nseg-0.m4s\n#EXT-X-PART:", 1)
    };
    assert!(!broken(&[one_segment("MEDIA-SEQUENCE:1")]).contains(rule::FROM_ZERO.name));
    let planted: Vec<(&'static Rule, Vec<String>)> = vec![
        (&rule::EXTM3U, everywhere("#EXTM3U\n", "#EXTM3\n")),
        (&rule::SYNTAX, everywhere("PART-TARGET=0.5", "PART-TARGET=half")),
        (&rule::SYNTAX, everywhere("HOLD-BACK=6.0,", "HOLD-BACK=6.0,HOLD-BACK=7.0,")),
        (&rule::SYNTAX, everywhere("2026-01-01T00:00:28.000Z", "99999999999999999-01-01T00:00:00Z")),
        (&rule::QUOTES, everywhere("URI=\"init.mp4\"", "URI=init.mp4")),
        (&rule::QUOTES, everywhere("CAN-BLOCK-RELOAD=YES", "CAN-BLOCK-RELOAD=\"YES\"")),
        (&rule::QUOTES, everywhere(",HOLD-BACK=6.0", ",HOLD-BACK=\"6.0\"")),
        (
            &rule::TWICE,
            everywhere("#EXT-X-TARGETDURATION:2\n", "#EXT-X-TARGETDURATION:9\n#EXT-X-TARGETDURATION:2\n"),
        ),
        (&rule::TWICE, everywhere("#EXT-X-PART-INF", "#EXT-X-VERSION:9\n#EXT-X-PART-INF")),
        (&rule::NO_TARGET, without("TARGETDURATION")),
        (&rule::VERSION, everywhere("VERSION:9", "VERSION:3")),
        (&rule::VERSION, whole(7, |number| number == 14)),
        (&rule::ONLY_GAPS, whole(8, |_| true)),
        (&rule::GAPS_IN_FRONT, whole(8, |number| number < 14)),
        (&rule::GAPS_IN_FRONT, vec![whole(8, |number| number == 10).remove(0) + "#EXT-X-ENDLIST\n"]),
        (&rule::NO_EXTINF, everywhere("#EXTINF:2.00000,\nseg-14", "seg-14")),
        (&rule::EXTINF_OVER_TARGET, everywhere("#EXTINF:2.00000,\nseg-14", "#EXTINF:2.60000,\nseg-14")),
        (&rule::EXTINF_ZERO, everywhere("#EXTINF:2.00000,\nseg-14", "#EXTINF:0.00000,\nseg-14")),
        (&rule::NO_FINISHED, vec![only_parts(&version(10))]),
        (&rule::NO_PART_INF, without("PART-INF")),
        (
            &rule::PART_OVER_TARGET,
            everywhere("DURATION=0.50000,URI=\"part-15-1", "DURATION=0.50100,URI=\"part-15-1"),
        ),
        (
            &rule::PART_TOO_SHORT,
            everywhere("DURATION=0.50000,URI=\"part-15-1", "DURATION=0.40000,URI=\"part-15-1"),
        ),
        (&rule::NO_SERVER_CONTROL, everywhere("CAN-BLOCK-RELOAD=YES,", "")),
        (&rule::NO_PART_HOLD_BACK, everywhere("PART-HOLD-BACK=1.5,", "")),
        (&rule::PART_HOLD_BACK, everywhere("PART-HOLD-BACK=1.5", "PART-HOLD-BACK=0.9")),
        (&rule::NO_HOLD_BACK, everywhere(",HOLD-BACK=6.0", "")),
        (&rule::HOLD_BACK, everywhere(",HOLD-BACK=6.0", ",HOLD-BACK=4.0")),
        (&rule::CAN_SKIP, everywhere("CAN-SKIP-UNTIL=12.0", "CAN-SKIP-UNTIL=8.0")),
        (
            &rule::PART_BYTERANGE,
            everywhere("URI=\"part-15-1.m4s\"", "URI=\"part-15-1.m4s\",BYTERANGE=\"9@0\""),
        ),
        (&rule::NO_HINT, without("PRELOAD-HINT")),
        (&rule::NOT_INDEPENDENT, everywhere(",INDEPENDENT=YES", "")),
        (
            &rule::PART_ORDER,
            everywhere(
                "#EXT-X-PART:DURATION=0.50000,URI=\"part-15-3.m4s\"\n#EXTINF:2.00000,\n",
                "#EXTINF:2.00000,\n#EXT-X-PART:DURATION=0.50000,URI=\"part-15-3.m4s\"\n",
            ),
        ),
        (&rule::PART_SUM, everywhere("#EXTINF:2.00000,\nseg-15", "#EXTINF:0.90000,\nseg-15")),
        (&rule::WINDOW, everywhere("#EXTINF:2.00000", "#EXTINF:0.90000")),
        (&rule::NO_MAP, without("EXT-X-MAP")),
        (
            &rule::NO_DISCONTINUITY_SEQUENCE,
            without("DISCONTINUITY-SEQUENCE")
                .iter()
                .map(|text| {
                    text.replace("#EXTINF:2.00000,\nseg-14", "#EXT-X-DISCONTINUITY\n#EXTINF:2.00000,\nseg-14")
                })
                .collect(),
        ),
        (
            &rule::NO_DATE_AFTER,
            everywhere("#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:26.000Z", "#EXT-X-DISCONTINUITY"),
        ),
        (&rule::NO_CODECS, multivariant("CODECS=\"avc1.42c01e,mp4a.40.2\",", "")),
        (&rule::NO_BANDWIDTH, multivariant("BANDWIDTH=2000000,", "")),
        (&rule::BOM, versions().iter().map(|text| format!("\u{feff}{text}")).collect()),
        (&rule::REMOVED_OF_WHOLE, everywhere("#EXT-X-MAP", "#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-MAP")),
        (&rule::OPUS, multivariant("mp4a.40.2", "opus")),
        (&rule::ABSURD_FRAME_RATE, multivariant("25.000", "90000.000")),
        (&rule::ABSURD_FRAME_RATE, multivariant("25.000", "-1.000")),
        (&rule::HEV1, multivariant("avc1.42c01e", "hev1.1.6.L93.B0")),
        (&rule::WENT_BACK, then(versions(), [version(9)])),
        (&rule::FROM_ZERO, vec![one_segment("MEDIA-SEQUENCE:0")]),
        (&rule::URI_CHANGED, at_last("seg-15.m4s", "other-15.m4s")),
        (&rule::NUMBER_CHANGED, at_last("DISCONTINUITY-SEQUENCE:0", "DISCONTINUITY-SEQUENCE:1")),
        (&rule::DURATION_CHANGED, at_last("#EXTINF:2.00000,\nseg-14", "#EXTINF:1.98000,\nseg-14")),
        (&rule::PART_CHANGED, at_last("part-17-1.m4s", "other-17-1.m4s")),
        (&rule::TARGET_CHANGED, at_last("TARGETDURATION:2", "TARGETDURATION:3")),
        (&rule::PART_TARGET_CHANGED, at_last("PART-TARGET=0.5", "PART-TARGET=0.51")),
        (&rule::PART_HOLD_BACK_CHANGED, at_last("PART-HOLD-BACK=1.5", "PART-HOLD-BACK=1.6")),
        (&rule::HOLD_BACK_CHANGED, at_last(",HOLD-BACK=6.0", ",HOLD-BACK=7.0")),
        (
            &rule::MAP_CHANGED,
            at_last("#EXTINF:2.00000,\nseg-15", "#EXT-X-MAP:URI=\"other.mp4\"\n#EXTINF:2.00000,\nseg-15"),
        ),
        (&rule::HINT_WRONG, then(versions(), [version(14).replace("part-19-2.m4s", "late-19-2.m4s")])),
        (&rule::DATE_JUMP, everywhere("00:00:28.000Z", "00:00:31.000Z")),
        (&rule::DATE_JUMP, at_last("00:00:28.000Z", "00:00:28.400Z")),
        (&rule::STALE, then(versions(), [version(13), version(13), version(13)])),
        (&rule::AFTER_END, vec![ended(10), version(11)]),
        (&rule::SKIP_WRONG, then(versions(), [version(14), skip(3).replace("seg-18", "other-18")])),
        (&rule::SKIP_WRONG, then(versions(), [skip(3).replace("MEDIA-SEQUENCE:14", "MEDIA-SEQUENCE:40")])),
    ];
    let rules: BTreeSet<_> = planted.iter().map(|(rule, _)| rule.name).collect();
    assert!(rules.len() >= 40, "{}", rules.len());
    for (rule, versions) in &planted {
        let found = broken(versions);
        assert!(found.contains(rule.name), "{} is not among {found:?}", rule.name);
    }
}

/// A track of pictures and one of sound.
fn tracks() -> [Track; 2] {
    let (sps, pps) = (Bytes::from_static(&[0x67, 0x42, 0xc0, 0x1e, 0xda]), Bytes::from_static(&[0x68, 0xce]));
    let avcc = AvcConfig::from_parameter_sets(vec![sps], vec![pps]).unwrap().build().unwrap();
    let sound = aac::AudioConfig {
        object_type: aac::LC,
        sample_rate: 48_000,
        channel_config: 2,
        program_channels: 0,
        short_frames: false,
        extension: None,
    };
    [Track::h264(avcc).unwrap(), Track::aac(sound.build().unwrap()).unwrap()]
}

/// A second of them.
fn frames(second: i64, first_nal: u8, is_sync: bool) -> Vec<Frame> {
    let picture = |index: i64| {
        let dts = Timestamp::from_millis(index * 40);
        let data = Bytes::copy_from_slice(&[0, 0, 0, 2, if index % 25 == 0 { first_nal } else { 0x41 }, 9]);
        let is_sync = is_sync && index % 25 == 0;
        Frame { kind: Kind::Video, dts, pts: dts.moved(40_000_000), is_sync, data }
    };
    let sound = |index: i64| {
        let at = Timestamp::from_ticks(index * 1024, NonZeroU32::new(48_000).unwrap());
        Frame { kind: Kind::Audio, dts: at, pts: at, is_sync: true, data: Bytes::from_static(&[1, 2, 3]) }
    };
    (second * 25..second * 25 + 25).map(picture).chain((second * 46..second * 46 + 46).map(sound)).collect()
}

/// An init segment, and fragments of a second each.
fn stream(first_nal: u8, is_sync: bool) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut writer = FragmentWriter::new(&tracks(), Timestamp::ZERO).unwrap();
    let init = writer.init().to_vec();
    let fragments = (0..2).map(|second| {
        let fragment = writer.fragment(&frames(second, first_nal, is_sync), None).unwrap().unwrap();
        fragment.pieces().flat_map(|piece| piece.to_vec()).collect()
    });
    (init, fragments.collect())
}

fn place(bytes: &[u8], name: &[u8]) -> usize {
    bytes.windows(name.len()).position(|window| window == name).unwrap()
}

fn names(faults: &[Fault]) -> BTreeSet<&'static str> {
    faults.iter().map(|fault| fault.rule.name).collect()
}

/// What is found in an init segment and in fragments of a second each.
fn found(init: &[u8], fragments: &[Vec<u8>], duration: f64) -> BTreeSet<&'static str> {
    let (init, mut faults) = Init::parse(init);
    let mut timeline = Timeline::default();
    for (fragment, follows) in fragments.iter().zip([false, true]) {
        let listed = Listed { uri: "part.m4s", duration, part: None, independent: true, follows };
        faults.extend(init.iter().flat_map(|init| timeline.take(init, listed, fragment)));
    }
    names(&faults)
}

#[test]
fn every_fault_that_is_planted_in_media_is_found() {
    let (init, fragments) = stream(0x65, true);
    assert_eq!(found(&init, &fragments, 1.0), BTreeSet::new());
    let changed = |bytes: &[u8], name: &[u8], at: usize, value: u8| {
        let mut bytes = bytes.to_vec();
        let place = place(&bytes, name) + at;
        bytes[place] = value;
        bytes
    };
    let second = |fragment: Vec<u8>| vec![fragments[0].clone(), fragment];
    let is = |rule: &'static Rule, found: BTreeSet<&'static str>| {
        assert!(found.contains(rule.name), "{} is not among {found:?}", rule.name);
    };
    let mut sound_first = init.clone();
    let (video, audio) = (place(&init, b"vide"), place(&init, b"soun"));
    sound_first[video..video + 4].copy_from_slice(b"soun");
    sound_first[audio..audio + 4].copy_from_slice(b"vide");
    is(&rule::AUDIO_FIRST, found(&sound_first, &[], 1.0));
    is(&rule::AUDIO_FIRST, found(&sound_first, &fragments, 1.0));
    is(&rule::HEV1, found(&replaced(&init, b"avc1", b"hev1"), &[], 1.0));
    is(&rule::EDIT_LIST, found(&with_edit(&init), &[], 1.0));
    is(&rule::BOXES, found(&init[..40], &[], 1.0));
    is(&rule::BOXES, found(&init, &second(fragments[1][..50].to_vec()), 1.0));
    is(&rule::SHORT_TFDT, found(&init, &second(changed(&fragments[1], b"tfdt", 4, 0)), 1.0));
    let tick = fragments[1][place(&fragments[1], b"tfdt") + 15];
    is(&rule::TFDT_GAP, found(&init, &second(changed(&fragments[1], b"tfdt", 15, tick + 1)), 1.0));
    // The first sample's offset is behind its size; 40 ms become less than nothing.
    let mut negative = changed(&fragments[1], b"trun", 4, 1);
    let trun = place(&negative, b"trun");
    let offset = trun + place(&negative[trun..], &3600_u32.to_be_bytes());
    negative[offset] = 0xff;
    is(&rule::NEGATIVE_OFFSET, found(&init, &second(negative), 1.0));
    is(&rule::EXTINF_WRONG, found(&init, &fragments, 1.2));
    is(&rule::EXTINF_WRONG, found(&init, &fragments, 0.9));
    let (init, fragments) = stream(0x65, false);
    is(&rule::DEPENDENT, found(&init, &fragments, 1.0));
    let (init, fragments) = stream(0x67, true);
    is(&rule::SETS_IN_SAMPLES, found(&init, &fragments, 1.0));
    let mut muxer = TsMuxer::new(&tracks(), Timestamp::ZERO).unwrap();
    let frame = frames(0, 0x65, true).remove(0);
    let segment = muxer.write(std::slice::from_ref(&frame), true);
    assert!(transport_stream("a.ts", &segment).is_empty());
    // The name of the service in front, as ffmpeg writes it.
    let mut service = vec![0x47, 0x40, 0x11, 0x10];
    service.resize(188, 0xff);
    assert!(transport_stream("a.ts", &[&service[..], &segment].concat()).is_empty());
    let bare = muxer.write(&[frame], false);
    for wrong in [&bare[..], &segment[188..], &segment[..segment.len() - 1]] {
        assert_eq!(names(&transport_stream("a.ts", wrong)), [rule::TS_TABLES.name].into());
    }
}

#[test]
fn what_a_variant_says_of_its_init_segment_is_held_to_it() {
    let (mut bytes, _) = stream(0x65, true);
    // What these tracks do not know: 320 x 180.
    let size = place(&bytes, b"tkhd") + 80;
    bytes[size..size + 8].copy_from_slice(&[1, 64, 0, 0, 0, 180, 0, 0]);
    let (init, faults) = Init::parse(&bytes);
    assert!(faults.is_empty(), "{faults:?}");
    let told = |codecs: &str, more: &str| {
        let text = MULTIVARIANT.replace("avc1.42c01e,mp4a.40.2", codecs).replace(",RESOLUTION=320x180", more);
        let variant = Playlist::parse(&text).variants.remove(0).0;
        names(&init.iter().flat_map(|init| init.differs(&variant)).collect::<Vec<_>>())
    };
    assert_eq!(told("mp4a.40.2, AVC1.42C01E", ""), BTreeSet::new());
    for wrong in ["avc1.42c01f,mp4a.40.2", "avc1.42c01e"] {
        assert_eq!(told(wrong, ""), [rule::WRONG_CODECS.name].into(), "{wrong}");
    }
    let both = [rule::WRONG_CODECS.name, rule::NO_TRACK.name].into();
    assert_eq!(told("hvc1.1.6.L93.B0,mp4a.40.2", ""), both);
    let more = "avc1.42c01e,mp4a.40.2,Opus";
    assert_eq!(told(more, ""), [rule::NO_TRACK.name].into());
    assert_eq!(told(more, ",AUDIO=\"a\""), BTreeSet::new(), "another playlist has it");
    assert_eq!(told("avc1.42c01e,mp4a.40.2,stpp.ttml.im1t", ""), BTreeSet::new(), "text is not looked at");
    let other = told("avc1.42c01e,mp4a.40.2", ",RESOLUTION=1920x1080");
    assert_eq!(other, [rule::WRONG_RESOLUTION.name].into());
    assert_eq!(told("avc1.42c01e,mp4a.40.2", ",RESOLUTION=320x180"), BTreeSet::new());
    let bytes = replaced(&bytes, b"avcC\x01", b"avcC\x00");
    assert_eq!(names(&Init::parse(&bytes).1), [rule::AVCC.name].into());
}

#[test]
fn numbers_at_the_end_of_what_64_bits_hold_are_read_and_end_nothing() {
    let last = version(10).replace("MEDIA-SEQUENCE:10", "MEDIA-SEQUENCE:18446744073709551614");
    let skip = "EXT-X-SKIP:SKIPPED-SEGMENTS=18446744073709551615";
    let skipped = last.replace("EXT-X-MAP:URI=\"init.mp4\"", skip);
    let sequence = last.replace("DISCONTINUITY-SEQUENCE:0", "DISCONTINUITY-SEQUENCE:18446744073709551615");
    let begins = sequence.replace("#EXTINF", "#EXT-X-DISCONTINUITY\n#EXTINF");
    assert!(!broken(&[last.clone(), last, skipped, begins]).is_empty());
}

#[test]
fn text_that_is_no_utf_8_is_found() {
    let bytes = [MULTIVARIANT.as_bytes(), b"# caf\xe9\n"].concat();
    assert_eq!(names(&Playlist::of(&bytes).faults), [rule::NOT_UTF8.name].into());
}

#[test]
fn parts_of_a_segment_may_make_up_for_each_other_and_for_no_second() {
    let (init, fragments) = stream(0x65, true);
    let init = Init::parse(&init).0.unwrap();
    let found = |parts: [(f64, f64); 2]| {
        let mut timeline = Timeline::default();
        let pieces = fragments.iter().zip(parts).enumerate();
        let faults = pieces.flat_map(|(index, (fragment, (duration, gap)))| {
            let part = Some((index, gap));
            let listed = Listed { uri: "part.m4s", duration, part, independent: true, follows: index > 0 };
            timeline.take(&init, listed, fragment)
        });
        names(&faults.collect::<Vec<_>>())
    };
    for good in
        [[(0.7, 0.0), (1.3, 0.0)], [(1.2, 0.0), (0.8, 0.0)], [(0.2, 0.8), (0.1, 0.9)], [(1.0, 5.0); 2]]
    {
        assert_eq!(found(good), BTreeSet::new(), "{good:?}");
    }
    for wrong in [[(0.4, 0.0), (0.4, 0.0)], [(1.0, 0.0), (2.1, 0.0)]] {
        assert_eq!(found(wrong), [rule::EXTINF_WRONG.name].into(), "{wrong:?}");
    }
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = place(bytes, from);
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

/// The init segment with an edit list at the end of its first track.
fn with_edit(init: &[u8]) -> Vec<u8> {
    let mut out = init.to_vec();
    let (moov, trak) = (place(init, b"moov") - 4, place(init, b"trak") - 4);
    let size = |at: usize| u32::from_be_bytes(init[at..at + 4].try_into().unwrap());
    let end = trak + size(trak) as usize;
    let mut edts = Vec::new();
    edts.extend_from_slice(&36_u32.to_be_bytes());
    edts.extend_from_slice(b"edts");
    edts.extend_from_slice(&28_u32.to_be_bytes());
    edts.extend_from_slice(b"elst\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x07\0\x01\0\0");
    for at in [moov, trak] {
        let grown = size(at) + edts.len() as u32;
        out[at..at + 4].copy_from_slice(&grown.to_be_bytes());
    }
    out.splice(end..end, edts);
    out
}

#[test]
fn every_fault_that_is_planted_in_an_answer_is_found() {
    let good = [
        ("content-type", "application/vnd.apple.mpegurl"),
        ("cache-control", "max-age=1"),
        ("access-control-allow-origin", "*"),
        ("content-length", "100"),
    ];
    let answer = |drop: &str, add: &[(&'static str, &'static str)]| {
        let kept = good.iter().filter(|(name, _)| *name != drop).chain(add);
        let entries =
            kept.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        entries.collect::<HeaderMap>()
    };
    let of =
        |status, headers: HeaderMap, is_playlist| names(&http::headers("/a", status, &headers, is_playlist));
    let ok = StatusCode::OK;
    assert_eq!(of(ok, answer("", &[]), true), BTreeSet::new());
    let one = |rule: &'static Rule| BTreeSet::from([rule.name]);
    assert_eq!(of(ok, answer("cache-control", &[]), true), one(&rule::NO_CACHE_CONTROL));
    assert_eq!(of(ok, answer("access-control-allow-origin", &[]), true), one(&rule::NO_CORS));
    assert_eq!(of(ok, answer("content-length", &[]), false), one(&rule::NO_LENGTH));
    assert_eq!(
        of(ok, answer("content-type", &[("content-type", "text/plain")]), true),
        one(&rule::CONTENT_TYPE)
    );
    assert_eq!(of(StatusCode::FOUND, answer("", &[]), true), one(&rule::REDIRECT));
    assert_eq!(of(StatusCode::NOT_FOUND, answer("", &[]), false), one(&rule::STATUS));
}

mod followed;

/// Serves these files on a free port until it is dropped with its runtime.
async fn serve(files: Vec<(&'static str, &'static str, Vec<u8>)>) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                request.push(byte);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let path = request.split([' ', '?']).nth(1).unwrap_or_default();
            let found = files.iter().find(|(name, ..)| path == *name);
            let (status, kind, body) = match found {
                Some((_, kind, body)) => ("200 OK", *kind, &body[..]),
                None => ("404 Not Found", "text/plain", &b""[..]),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: max-age=1\r\n\
                 Access-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
        }
    });
    Url::parse(&format!("http://{address}/index.m3u8")).unwrap()
}

fn arguments(url: Url, seconds: u64, apple: bool) -> Arguments {
    Arguments { url, time: Duration::from_secs(seconds), apple, ca: None }
}

#[tokio::test]
async fn a_stream_is_followed_to_its_end_and_the_exit_code_tells() {
    const LIST: &str = "application/vnd.apple.mpegurl";
    let media = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:1\n#EXT-X-MAP:URI=\"init.mp4\"\n\
        #EXTINF:1.0,\n0.m4s\n#EXTINF:1.0,\n1.m4s\n#EXT-X-ENDLIST\n";
    let (init, mut fragments) = stream(0x65, true);
    let run = async |init: Vec<u8>, fragments: &[Vec<u8>], apple| {
        let url = serve(vec![
            ("/index.m3u8", LIST, MULTIVARIANT.into()),
            ("/media.m3u8", LIST, media.into()),
            ("/init.mp4", "video/mp4", init),
            ("/0.m4s", "video/mp4", fragments[0].clone()),
            ("/1.m4s", "video/mp4", fragments[1].clone()),
        ])
        .await;
        let mut out = Vec::new();
        let code = lint(arguments(url, 30, apple), &mut out).await;
        (code, String::from_utf8(out).unwrap())
    };
    let (code, text) = run(init.clone(), &fragments, false).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("2 versions of playlists and 3 pieces of media"), "{text}");
    let (code, text) = run(init.clone(), &fragments, true).await;
    assert!(code == 1 && text.contains("not-https"), "what Apple advises counts: {text}");
    fragments.swap(0, 1);
    let (code, text) = run(init, &fragments, false).await;
    assert!(code == 1 && text.contains("fault  tfdt-gap: 1.m4s"), "{text}");
}

#[tokio::test]
async fn media_that_is_encrypted_or_in_byte_ranges_is_not_looked_into() {
    const LIST: &str = "application/vnd.apple.mpegurl";
    let ranges = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:1\n\
        #EXT-X-MAP:URI=\"all.mp4\",BYTERANGE=\"700@0\"\n#EXTINF:1.0,\n#EXT-X-BYTERANGE:500@700\nall.mp4\n#EXT-X-ENDLIST\n";
    let encrypted = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:1\n#EXT-X-MAP:URI=\"init.mp4\"\n\
        #EXT-X-KEY:METHOD=AES-128,URI=\"key\"\n#EXTINF:1.0,\n0.m4s\n#EXT-X-ENDLIST\n";
    for (media, fetched) in [(ranges, 0), (encrypted, 0), (&encrypted.replace("AES-128", "NONE"), 2)] {
        let (init, fragments) = stream(0x65, true);
        let url = serve(vec![
            ("/index.m3u8", LIST, MULTIVARIANT.into()),
            ("/media.m3u8", LIST, media.into()),
            ("/init.mp4", "video/mp4", init),
            ("/0.m4s", "video/mp4", fragments[0].clone()),
        ])
        .await;
        let mut out = Vec::new();
        let code = lint(arguments(url, 30, false), &mut out).await;
        let text = String::from_utf8(out).unwrap();
        assert!(code == 0 && text.contains(&format!(" and {fetched} pieces of media")), "{text}");
    }
}

#[test]
fn the_page_has_a_row_for_every_rule() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/lint.md");
    let page = std::fs::read_to_string(page).unwrap();
    for Rule { name, breaks, why } in rule::ALL {
        let row = format!("| `{name}` | {breaks} | {why} |\n");
        assert!(page.contains(&row), "docs/lint.md lacks {row}");
    }
    assert_eq!(page.matches("\n| `").count(), rule::ALL.len());
}

#[test]
fn arguments_are_read_or_refused() {
    let read = |arguments: &[&str]| read(&arguments.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
    let all = read(&["--seconds", "5", "https://a/b.m3u8", "--apple"]).unwrap();
    assert_eq!((all.url.as_str(), all.time, all.apple), ("https://a/b.m3u8", Duration::from_secs(5), true));
    assert_eq!(read(&["--ca", "a.pem", "https://a"]).unwrap().ca, Some("a.pem".into()));
    for (wrong, says) in [
        (&["--seconds", "0", "http://a/b"][..], "--seconds \"0\": expected a whole number from 1 to 86400"),
        (&["http://a", "--seconds", "+-1"], "--seconds \"+-1\": expected"),
        (&["http://a", "--seconds"], "--seconds needs a number behind it"),
        (&[], "a URL is missing"),
        (&["http://a", "http://b"], "\"http://b\" is a second URL"),
        (&["--fast", "http://a"], "there is no option \"--fast\""),
        (&["http://a", "--ca"], "--ca needs a file behind it"),
        (
            &["a"],
            "\"a\" is no URL such as \"https://example.com/live/stream/index.m3u8\": relative URL without a base",
        ),
        (&["ftp://x/y"], "\"ftp://x/y\" can't be followed: ftp is neither http nor https"),
    ] {
        let error = read(wrong).err().unwrap();
        let text = follow::chain(&error);
        assert!(text.starts_with(says), "{text}");
    }
}

#[tokio::test]
async fn an_address_that_nobody_listens_at_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = http::Client::new(None).unwrap();
    let why = async |url: String| follow::chain(&client.get(&Url::parse(&url).unwrap()).await.unwrap_err());
    let refused = why(format!("http://{address}/x")).await;
    let says = format!("no connection to 127.0.0.1, port {}: Connection refused", address.port());
    assert!(refused.starts_with(&says), "{refused}");
    assert_eq!(why("ftp://host.invalid/x".into()).await, "ftp is neither http nor https");
}
