//! Times of HLS to the tick, read from the boxes of segments by code of its own.

use std::time::Duration;

use av_tests::flv::Tag;
use av_tests::rtmp::Publisher;
use serde_json::json;

use crate::hls::{Gateway, Watch};

const RATE: u64 = 44_100;
const SAMPLES: u64 = 1024;

/// Boxes one behind the other: type and content.
fn boxes(mut bytes: &[u8]) -> Vec<([u8; 4], &[u8])> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let size = word(bytes, 0) as usize;
        all.push((bytes[4..8].try_into().unwrap(), &bytes[8..size]));
        bytes = &bytes[size..];
    }
    all
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn find<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> &'a [u8] {
    boxes(bytes).into_iter().find(|(known, _)| known == kind).unwrap().1
}

/// Of each fragment of one track: sequence number, decode time, and how many samples it has and how long they are together.
fn fragments(segment: &[u8]) -> Vec<(u32, u64, u64, u64)> {
    let moofs = boxes(segment).into_iter().filter(|(kind, _)| kind == b"moof");
    let read = moofs.map(|(_, moof)| {
        let (traf, mfhd) = (find(moof, b"traf"), find(moof, b"mfhd"));
        let (tfhd, tfdt, trun) = (find(traf, b"tfhd"), find(traf, b"tfdt"), find(traf, b"trun"));
        assert_eq!(tfdt[0], 1, "64 bits");
        let time = u64::from(word(tfdt, 4)) << 32 | u64::from(word(tfdt, 8));
        let has = |full: &[u8], flag: u32| word(full, 0) & 0xff_ffff & flag != 0;
        let before = [0x1_u32, 0x2].iter().zip([8, 4]).filter(|(flag, _)| has(tfhd, **flag));
        let default = 8 + before.map(|(_, size)| size).sum::<usize>();
        let default = has(tfhd, 0x8).then(|| u64::from(word(tfhd, default)));
        let count = word(trun, 4) as usize;
        let first = 8 + [0x1, 0x4].iter().filter(|flag| has(trun, **flag)).count() * 4;
        let size = [0x100, 0x200, 0x400, 0x800].iter().filter(|flag| has(trun, **flag)).count() * 4;
        let durations = (0..count).map(|index| match default {
            _ if has(trun, 0x100) => u64::from(word(trun, first + index * size)),
            Some(default) => default,
            None => panic!("no duration"),
        });
        (word(mfhd, 4), time, count as u64, durations.sum())
    });
    read.collect()
}

/// Sound of so many seconds, much faster than it is heard: times in whole milliseconds, as RTMP has them.
fn has_exactly_its_samples(seconds: u64) {
    let output = json!({ "variant": "fmp4", "segmentSeconds": 10, "windowSeconds": 7200 });
    let gateway = Gateway::start(&json!({ "onPublisherLoss": "close" }), &output);
    let mut publisher = Publisher::to(&gateway.rtmp);
    let tag = |index: u64, body: &[u8]| Tag {
        kind: 8,
        timestamp: u32::try_from(index * SAMPLES * 1000 / RATE).unwrap(),
        body: body.to_vec(),
    };
    // AAC LC, 44.1 kHz, two channels.
    publisher.send(&tag(0, &[0xaf, 0, 0x12, 0x10])).unwrap();
    let frames = seconds * RATE / SAMPLES;
    let mut watch = None::<Watch>;
    for index in 0..frames {
        let mut body = vec![0xaf, 1, 0x21, 0x10, 4, 0x60, 0x8c, 0x1c];
        body.extend(index.to_be_bytes());
        publisher.send(&tag(index, &body)).unwrap();
        // Slow enough for a busy machine to keep up.
        if index % 43 == 42 {
            std::thread::sleep(Duration::from_millis(8));
        }
        if watch.is_none() && index == 43 * 25 {
            watch = Some(Watch::new(&gateway));
        }
    }
    publisher.finish().unwrap();
    let mut watch = watch.unwrap();
    watch.until(gateway.port, "the end", |text| text.ends_with("#EXT-X-ENDLIST\n"));
    let text = watch.last_text;
    assert!(!text.contains("#EXT-X-DISCONTINUITY\n") && !text.contains("GAP"), "{text}");
    let listed = text.lines().filter_map(|line| line.strip_prefix("#EXTINF:"));
    let listed = listed.map(|duration| duration.trim_end_matches(',').parse::<f64>().unwrap());
    let uris = text.lines().filter(|line| !line.starts_with('#'));
    let (mut next, mut sequence, mut count) = (0, None, 0);
    for (uri, listed) in uris.zip(listed) {
        let mut length = 0;
        for (number, time, samples, duration) in fragments(&watch.contents[uri]) {
            assert!(sequence.is_none_or(|last| number == last + 1), "{uri}: {number} after {sequence:?}");
            assert_eq!((time, duration), (next, samples * SAMPLES), "{uri}");
            (sequence, next) = (Some(number), time + duration);
            length += duration;
            count += samples;
        }
        assert!((length as f64 / RATE as f64 - listed).abs() < 0.000_011, "{uri}: {length} as {listed}");
    }
    assert_eq!((count, next), (frames, frames * SAMPLES));
}

#[test]
fn minutes_of_sound_at_44100_hertz_have_exactly_their_samples() {
    av_tests::needs!(Ffmpeg);
    has_exactly_its_samples(if crate::long() { 3600 } else { 300 });
}
