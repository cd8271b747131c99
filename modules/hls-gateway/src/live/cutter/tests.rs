use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::options::{Shaped, Variant};

const MILLI: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;

fn shaped(segment: u64, part: u64) -> Shaped {
    Shaped {
        variant: Variant::LowLatency,
        segment: Duration::from_secs(segment),
        part: Duration::from_millis(part),
        window: Duration::from_secs(30),
    }
}

fn numbers(interval: i64, gop: i64) -> Numbers {
    let duration = |nanos: i64| Duration::from_nanos(nanos.unsigned_abs());
    Numbers::choose(shaped(2, 200), duration(interval), duration(gop))
}

fn frame(kind: Kind, at: i64, is_sync: bool) -> Frame {
    let time = Timestamp::from_nanos(at);
    Frame { kind, dts: time, pts: time, is_sync, data: Bytes::from_static(&[0; 8]) }
}

/// What is listed: a part, or time in which nothing can be fetched.
struct Piece {
    part: Option<Part>,
    length: i64,
    /// What it is of its segment.
    lasts: i64,
}

impl Piece {
    fn frames(&self) -> &[Frame] {
        self.part.as_ref().map_or(&[], |part| &part.frames)
    }
}

fn segments_of(cuts: Vec<Cut>) -> Vec<Vec<Piece>> {
    let mut segments = vec![Vec::new()];
    for cut in cuts {
        let piece = match cut {
            Cut::Part(part) => {
                let media = part.end.nanos_since(part.start);
                let (length, lasts) = (part.told.unwrap_or(media), media - part.gap);
                Piece { part: Some(part), length, lasts }
            }
            Cut::Gap(length) => Piece { part: None, length, lasts: length },
            Cut::Segment => {
                segments.push(Vec::new());
                continue;
            }
        };
        segments.last_mut().unwrap().push(piece);
    }
    assert!(segments.pop().unwrap().is_empty(), "the end is the end of a segment");
    segments
}

/// Cuts pictures with these times; `syncs` says which of them a decoder can start at.
fn cut(numbers: Numbers, interval: i64, times: &[i64], syncs: impl Fn(usize) -> bool) -> Vec<Vec<Piece>> {
    let intervals = Intervals { video: interval, audio: 21_333_333 };
    let mut cutter = Cutter::new(numbers, 2 * SECOND, Kind::Video, intervals);
    let mut cuts = Vec::new();
    for (index, at) in times.iter().enumerate() {
        cutter.push(frame(Kind::Video, *at, syncs(index)), syncs(index), &mut cuts);
    }
    cutter.close(&mut cuts);
    segments_of(cuts)
}

/// As RTMP gives them: whole milliseconds.
fn at_rate(fps: i64, seconds: i64) -> Vec<i64> {
    (0..fps * seconds).map(|index| index * 1000 / fps * MILLI).collect()
}

/// What players hold a playlist to, whatever the camera does.
fn hold(numbers: Numbers, segments: &[Vec<Piece>]) {
    let target = numbers.part.unwrap().target_nanos();
    let mut begins = None;
    let mut scattered = false;
    for segment in segments {
        let long: i64 = segment.iter().map(|piece| piece.lasts).sum();
        assert!((long + SECOND / 2) / SECOND <= i64::from(numbers.target), "EXTINF {long}");
        let media = segment.iter().filter(|piece| piece.part.is_some()).count();
        assert!(media == 0 || segment[0].part.is_some(), "a gap, and then media in one segment");
        let starts = segment[0].frames().first().is_some_and(|frame| frame.is_sync);
        scattered &= !starts;
        assert!(!scattered || media <= 1, "parts that hls.js does not take");
        scattered |= media < segment.len();
        let first = segment[0].part.as_ref().map(|part| part.start.nanos());
        let start = begins.or(first).unwrap();
        assert!(first.is_none_or(|first| first == start), "a segment begins where the one before ends");
        let mut at = start;
        for (index, piece) in segment.iter().enumerate() {
            let Piece { part, length, .. } = piece;
            assert!((1..=target).contains(length), "{length} of {target}");
            let is_last = index + 1 == segment.len();
            assert!(part.is_none() || is_last || length * 100 >= target * 85, "{length} of {target}");
            if let Some(part) = part {
                let off = part.start.nanos() - at;
                assert!((-target..=BEHIND).contains(&off), "listed {off} too early");
            }
            at += length;
        }
        begins = Some(start + long);
    }
}

#[test]
fn rounded_times_make_parts_of_85_to_100_per_cent_and_segments_at_sync_frames() {
    for fps in [5, 8, 10, 12, 15, 24, 25, 30, 48, 50, 60] {
        let numbers = numbers(SECOND / fps, SECOND);
        let segments = cut(numbers, SECOND / fps, &at_rate(fps, 20), |index| index as i64 % fps == 0);
        hold(numbers, &segments);
        assert_eq!(segments.len(), 10, "{fps}");
        assert!(segments.iter().all(|segment| segment[0].frames()[0].is_sync));
    }
}

#[test]
fn a_lost_frame_fits_where_a_part_has_six_or_more() {
    let numbers = numbers(SECOND / 30, SECOND);
    let times = at_rate(30, 10);
    let kept = (0..times.len()).filter(|index| index % 17 != 3).collect::<Vec<_>>();
    let lossy = kept.iter().map(|index| times[*index]).collect::<Vec<_>>();
    hold(numbers, &cut(numbers, SECOND / 30, &lossy, |index| kept[index] % 30 == 0));
}

#[test]
fn a_camera_that_changes_its_rate_both_ways_keeps_to_the_numbers() {
    let numbers = numbers(SECOND / 25, 2 * SECOND);
    let mut times = Vec::new();
    let mut at = 0;
    for fps in [25, 50, 12, 6, 30, 25] {
        for _ in 0..fps * 4 {
            times.push(at);
            at += SECOND / fps;
        }
    }
    hold(numbers, &cut(numbers, SECOND / 25, &times, |index| index % 50 == 0));
}

#[test]
fn a_slow_camera_that_is_early_late_and_leaves_pictures_out_has_no_gap_before_a_sync_frame() {
    let numbers = numbers(SECOND / 5, 20 * SECOND);
    let late = |index: i64| (index * 7919 % 13 - 6) * 5 * MILLI;
    let times = (0..600).filter(|index| index % 20 != 7).map(|index| index * SECOND / 5 + late(index));
    let times = times.map(|at| at - late(0)).collect::<Vec<_>>();
    let syncs = |index: usize| times[index] % (20 * SECOND) < SECOND / 5;
    let segments = cut(numbers, SECOND / 5, &times, syncs);
    hold(numbers, &segments);
    for pair in segments.windows(2) {
        let is_gap = pair[0].iter().any(|piece| piece.part.is_none());
        assert!(!is_gap || pair[1][0].frames()[0].is_sync);
    }
}

#[test]
fn a_picture_that_is_a_little_late_is_listed_by_the_parts_behind_it() {
    let numbers = numbers(SECOND / 5, 2 * SECOND);
    let mut times = at_rate(5, 10);
    times.iter_mut().skip(3).for_each(|at| *at += 40 * MILLI);
    let segments = cut(numbers, SECOND / 5, &times, |index| index % 10 == 0);
    hold(numbers, &segments);
    let pieces = segments.iter().flatten().collect::<Vec<_>>();
    assert!(pieces.iter().all(|piece| piece.part.is_some()));
    let off: i64 = segments[0].iter().map(|piece| piece.lasts - piece.length).sum();
    assert!(off.abs() < SECOND / 5, "{off}");
}

#[test]
fn a_camera_that_becomes_too_slow_for_its_parts_has_no_gap_and_segments_as_long_as_their_media() {
    let numbers = numbers(SECOND / 12, 2 * SECOND);
    let segments = cut(numbers, SECOND / 12, &at_rate(5, 60), |index| index % 10 == 0);
    hold(numbers, &segments);
    assert!(segments.iter().flatten().all(|piece| piece.part.is_some()));
    assert!(segments.iter().all(|segment| segment[0].frames()[0].is_sync));
}

#[test]
fn a_gop_that_does_not_fit_any_more_is_cut_at_another_frame() {
    let numbers = numbers(SECOND / 25, 2 * SECOND);
    let segments = cut(numbers, SECOND / 25, &at_rate(25, 40), |index| index == 0 || index % 500 == 50);
    hold(numbers, &segments);
    let starts = segments.iter().map(|segment| segment[0].frames()[0].is_sync).collect::<Vec<_>>();
    assert!(starts[0] && starts[1] && !starts[2], "{starts:?}");
}

#[test]
fn parts_behind_a_late_or_lost_picture_make_up_for_it_and_segments_begin_at_sync_frames_alone() {
    let numbers = numbers(SECOND / 5, 20 * SECOND);
    let mut times = Vec::new();
    for index in 0..500 {
        // One in twenty is lost; the others are up to 30 ms early or late.
        if index % 20 != 7 {
            times.push((index * 200 + index * 7919 % 61 - 30 + if index == 0 { 30 } else { 0 }) * MILLI);
        }
    }
    let segments = cut(numbers, SECOND / 5, &times, |index| index % 95 == 0);
    hold(numbers, &segments);
    assert_eq!(segments.len(), 5);
    assert!(segments.iter().flatten().all(|piece| piece.part.is_some()));
}

#[test]
fn a_camera_that_is_faster_for_good_is_cut_at_its_sync_frames_all_the_same() {
    let numbers = numbers(SECOND / 5, 2 * SECOND);
    let mut times = at_rate(5, 4);
    times.extend((0..60).map(|index| 4 * SECOND + index * SECOND / 6));
    let segments = cut(numbers, SECOND / 5, &times, |index| index % 10 == 0);
    hold(numbers, &segments);
    assert!(segments.iter().all(|segment| segment[0].frames().first().is_some_and(|frame| frame.is_sync)));
}

#[test]
fn a_part_is_as_long_as_its_media_where_frames_come_evenly() {
    let numbers = numbers(SECOND / 25, 2 * SECOND);
    let segments = cut(numbers, SECOND / 25, &at_rate(25, 20), |index| index % 50 == 0);
    assert!(
        segments.iter().flatten().filter_map(|piece| piece.part.as_ref()).all(|part| part.told.is_none())
    );
}

#[test]
fn behind_a_hole_that_no_part_makes_up_for_each_part_is_a_segment_up_to_the_next_sync_frame() {
    let numbers = numbers(SECOND / 5, 4 * SECOND);
    let mut times = at_rate(5, 8);
    times.drain(7..12);
    let segments = cut(numbers, SECOND / 5, &times, |index| matches!(index, 0 | 15));
    hold(numbers, &segments);
    let parts = segments.iter().map(|segment| segment.iter().filter(|piece| piece.part.is_some()).count());
    let mut expected = vec![7];
    expected.extend([1; 8]);
    expected.push(20);
    assert_eq!(parts.collect::<Vec<_>>(), expected);
}

#[test]
fn a_gop_of_twenty_seconds_is_one_segment() {
    let numbers = numbers(SECOND / 10, 20 * SECOND);
    assert_eq!(numbers.target, 20);
    let segments = cut(numbers, SECOND / 10, &at_rate(10, 60), |index| index % 200 == 0);
    hold(numbers, &segments);
    assert_eq!(segments.len(), 3);
}

#[test]
fn sound_goes_with_the_pictures_it_is_heard_with_and_none_is_lost() {
    let numbers = numbers(40 * MILLI, SECOND);
    let intervals = Intervals { video: 40 * MILLI, audio: 21_333_333 };
    let mut cutter = Cutter::new(numbers, 2 * SECOND, Kind::Video, intervals);
    let mut cuts = Vec::new();
    let mut sound = 0;
    for index in 0..250 {
        let at = index * 40 * MILLI;
        cutter.push(frame(Kind::Video, at, index % 25 == 0), index % 25 == 0, &mut cuts);
        while sound * 21_333_333 < at + 40 * MILLI {
            cutter.push(frame(Kind::Audio, sound * 21_333_333, true), true, &mut cuts);
            sound += 1;
        }
    }
    cutter.close(&mut cuts);
    let parts = cuts.iter().filter_map(|cut| match cut {
        Cut::Part(part) => Some(part),
        Cut::Gap(_) | Cut::Segment => None,
    });
    let mut heard = Vec::new();
    for part in parts {
        for frame in part.frames.iter().filter(|frame| frame.kind == Kind::Audio) {
            assert!(frame.dts < part.end);
            heard.push(frame.dts.nanos());
        }
    }
    assert_eq!(heard, (0..sound).map(|index| index * 21_333_333).collect::<Vec<_>>());
}

#[test]
fn sound_alone_is_cut_into_whole_frames() {
    let interval = 21_333_333;
    let numbers = numbers(interval, 0);
    let mut cutter = Cutter::new(numbers, 2 * SECOND, Kind::Audio, Intervals { video: 0, audio: interval });
    let mut cuts = Vec::new();
    for index in 0..1000 {
        cutter.push(frame(Kind::Audio, index * interval, true), true, &mut cuts);
    }
    cutter.close(&mut cuts);
    let segments = segments_of(cuts);
    hold(numbers, &segments);
    assert_eq!(segments.iter().flatten().map(|piece| piece.frames().len()).sum::<usize>(), 1000);
}

/// Distances of frames that come in stretches: a rate for some frames, then another, and single ones that are off.
fn steps() -> impl Strategy<Value = Vec<i64>> {
    let step = prop_oneof![
        8 => 4 * MILLI..300 * MILLI,
        2 => 11_112..4 * MILLI,
        1 => 300 * MILLI..9 * SECOND,
    ];
    let stretch = (step, 1_usize..60, 0_i64..30 * MILLI);
    proptest::collection::vec(stretch, 1..20).prop_map(|stretches| {
        let mut steps = Vec::new();
        for (step, count, jitter) in stretches {
            let off = |index: i64| (index * 7919 % 13 - 6) * jitter / 6;
            steps.extend((0..count as i64).map(|index| (step + off(index)).max(11_112)));
        }
        steps
    })
}

proptest! {
    #[test]
    fn whatever_times_frames_have_players_get_what_was_promised(
        steps in steps(),
        interval in 4 * MILLI..SECOND,
        gop in 0..20 * SECOND,
        sync_every in 1_usize..300,
        configured in (1_u64..=10, 100_u64..=1000),
    ) {
        let duration = |nanos: i64| Duration::from_nanos(nanos.unsigned_abs());
        let numbers =
            Numbers::choose(shaped(configured.0, configured.1), duration(interval), duration(gop));
        let mut times = vec![0];
        times.extend(steps.iter().scan(0, |at, step| {
            *at += step;
            Some(*at)
        }));
        let intervals = Intervals { video: interval, audio: 21_333_333 };
        let segment = configured.0.cast_signed() * SECOND;
        let mut cutter = Cutter::new(numbers, segment, Kind::Video, intervals);
        let mut cuts = Vec::new();
        for (index, at) in times.iter().enumerate() {
            let starts = index % sync_every == 0;
            cutter.push(frame(Kind::Video, *at, starts), starts, &mut cuts);
        }
        cutter.close(&mut cuts);
        let segments = segments_of(cuts);
        hold(numbers, &segments);
        let frames = segments.iter().flatten().flat_map(Piece::frames).map(|frame| frame.dts.nanos());
        prop_assert_eq!(frames.collect::<Vec<_>>(), times);
        // Where a segment does not begin at a sync frame, none is first in a later part of it: it would have ended there.
        for segment in &segments {
            let begins = |piece: &Piece| piece.frames().first().is_some_and(|frame| frame.is_sync);
            prop_assert!(begins(&segment[0]) || !segment.iter().any(begins));
        }
    }
}
