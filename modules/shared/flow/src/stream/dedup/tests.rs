use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use Kind::{Audio, Video};

/// A frame whose content is the number `what`.
fn frame(kind: Kind, dts: i64, what: u64, is_sync: bool) -> Incoming {
    Incoming::Frame(Frame {
        kind,
        dts: Timestamp::from_millis(dts),
        pts: Timestamp::from_millis(dts + if kind == Video { 80 } else { 0 }),
        is_sync,
        data: Bytes::copy_from_slice(&what.to_be_bytes()),
    })
}

/// Ten seconds of pictures (GOP of 1 s, B-frames' offsets) and sound, interleaved by time; every frame is
/// another one.
fn live() -> Vec<Incoming> {
    let mut frames: Vec<(i64, Incoming)> = Vec::new();
    for i in 0..250 {
        frames.push((i * 40, frame(Video, i * 40, i as u64, i % 25 == 0)));
    }
    for i in 0..430 {
        // Sound lies 7 ms beside pictures, and is not on whole steps.
        let dts = i * 1024 * 1000 / 44_100 + 7;
        frames.push((dts, frame(Audio, dts, 1_000_000 + i as u64, true)));
    }
    frames.sort_by_key(|(dts, _)| *dts);
    frames.into_iter().map(|(_, frame)| frame).collect()
}

fn moved(item: &Incoming, by: i64) -> Incoming {
    match item {
        Incoming::Frame(frame) => Incoming::Frame(Frame {
            dts: Timestamp::from_millis(frame.dts.millis() + by),
            pts: Timestamp::from_millis(frame.pts.millis() + by),
            ..frame.clone()
        }),
        other => other.clone(),
    }
}

fn is_sync_picture(item: &Incoming) -> bool {
    matches!(item, Incoming::Frame(frame) if frame.kind == Video && frame.is_sync)
}

/// Where a server starts a player who comes when `position` is the next frame to be sent.
fn cache_start(frames: &[Incoming], position: usize) -> usize {
    frames[..position].iter().rposition(is_sync_picture).unwrap_or(0)
}

#[derive(Default)]
struct Pull {
    dedup: Dedup,
    seams: Vec<Seam>,
    items: Vec<Incoming>,
}

impl Pull {
    fn connection<'a>(&mut self, frames: impl IntoIterator<Item = &'a Incoming>, now: Instant) {
        self.dedup.reconnected();
        let mut out = Vec::new();
        for frame in frames {
            self.dedup.push(frame.clone(), now, &mut out);
        }
        for passed in out {
            match passed {
                Passed::Seam(seam) => self.seams.push(seam),
                Passed::Item(item) => self.items.push(item),
            }
        }
    }
}

fn after(start: Instant, millis: u64) -> Instant {
    start + Duration::from_millis(millis)
}

#[test]
fn the_first_connection_passes_everything() {
    let (mut pull, live) = (Pull::default(), live());
    pull.connection(&live, Instant::now());
    assert_eq!(pull.seams, [Seam::New]);
    assert_eq!(pull.items, live);
}

#[test]
fn on_the_same_clock_the_cached_gop_is_not_repeated() {
    let (mut pull, live, start) = (Pull::default(), live(), Instant::now());
    pull.connection(&live[..300], start);
    pull.connection(&live[cache_start(&live, 310)..], after(start, 2000));
    assert_eq!(pull.seams, [Seam::New, Seam::Continues]);
    assert_eq!(pull.items, live);
}

#[test]
fn on_another_clock_the_cached_gop_is_not_repeated_and_times_go_on() {
    let (mut pull, live, start) = (Pull::default(), live(), Instant::now());
    pull.connection(&live[..300], start);
    let from = cache_start(&live, 320);
    let rebased: Vec<_> = live[from..].iter().map(|item| moved(item, -4000)).collect();
    pull.connection(&rebased, after(start, 500));
    assert_eq!(pull.seams, [Seam::New, Seam::Continues]);
    assert_eq!(pull.items, live);
}

#[test]
fn without_an_overlap_everything_is_new_and_in_order() {
    let (mut pull, live, start) = (Pull::default(), live(), Instant::now());
    pull.connection(&live[..100], start);
    let from = cache_start(&live, 400);
    for by in [0, -7000, 100_000] {
        let mut pull = Pull { dedup: std::mem::take(&mut pull.dedup), ..Pull::default() };
        // Sound in front of the first picture.
        let later: Vec<_> = live[from - 2..].iter().map(|item| moved(item, by)).collect();
        pull.connection(&later, after(start, 6000));
        assert_eq!(pull.seams, [Seam::New], "{by}");
        assert_eq!(pull.items, later, "{by}");
    }
}

#[test]
fn a_connection_that_brings_nothing_changes_nothing() {
    let (mut pull, live, start) = (Pull::default(), live(), Instant::now());
    pull.connection(&live[..300], start);
    let from = cache_start(&live, 300);
    pull.connection([], start);
    // One that breaks before the first picture is as if it had not been.
    pull.connection(live[from..].iter().filter(|item| !is_sync_picture(item)).take(1), start);
    pull.connection(&live[from..], start);
    assert_eq!(pull.seams, [Seam::New, Seam::Continues]);
    assert_eq!(pull.items.len(), live.len());
}

#[test]
fn a_loop_that_repeats_its_pictures_on_a_running_clock_is_new() {
    let (mut pull, live, start) = (Pull::default(), live(), Instant::now());
    pull.connection(&live, start);
    // The same ten seconds once more; the first one was missed while away.
    let again: Vec<_> = live[cache_start(&live, 70)..].iter().map(|item| moved(item, 10_000)).collect();
    pull.connection(&again, after(start, 1500));
    assert_eq!(pull.seams, [Seam::New, Seam::New]);
    assert_eq!(pull.items[live.len()..], again);
}

#[test]
fn known_frames_that_come_at_the_pace_of_life_are_new() {
    let (mut pull, live, start) = (Pull::default(), live(), Instant::now());
    pull.connection(&live, start);
    pull.dedup.reconnected();
    // A loop on a clock that starts anew looks like an overlap until its pace gives it away.
    let (mut out, mut lost) = (Vec::new(), 0);
    let gop = cache_start(&live, live.len());
    for i in 0..20 {
        pull.dedup.push(moved(&live[gop], -9000), after(start, 60_000 + i * 500), &mut out);
        lost = i;
        if out.contains(&Passed::Seam(Seam::New)) {
            break;
        }
    }
    assert_eq!(lost, 10);
    let frames = out.iter().filter(|passed| matches!(passed, Passed::Item(_))).count();
    assert_eq!(frames, 11, "what had been left out comes then: {out:?}");
}

#[test]
fn a_file_that_is_published_once_more_is_passed_whole_after_two_seconds() {
    for clock in [0, -700] {
        let (mut pull, live, start) = (Pull::default(), live(), Instant::now());
        pull.connection(&live[..190], start);
        pull.dedup.reconnected();
        let again: Vec<Incoming> = live.iter().map(|item| moved(item, clock)).collect();
        let mut out = Vec::new();
        for item in &again[..190] {
            let Incoming::Frame(frame) = item else { unreachable!() };
            let passed = u64::try_from(frame.dts.millis() - clock).unwrap();
            pull.dedup.push(item.clone(), after(start, 10_000 + passed), &mut out);
            assert_eq!(out.len() > 1, passed >= 2000, "{passed}");
        }
        let seams = out.iter().filter(|passed| matches!(passed, Passed::Seam(_)));
        assert_eq!(seams.count(), 2);
        let items: Vec<Passed> = again[..190].iter().cloned().map(Passed::Item).collect();
        let passed: Vec<Passed> =
            out.into_iter().filter(|passed| matches!(passed, Passed::Item(_))).collect();
        assert_eq!(passed, items);
    }
}

#[test]
fn a_match_that_proves_wrong_is_given_up() {
    let (mut pull, live, start) = (Pull::default(), live(), Instant::now());
    pull.connection(&live[..300], start);
    // The same black picture starts another programme, on another clock.
    let from = cache_start(&live, 300);
    let mut other = vec![moved(&live[from], 50_000)];
    other.extend((1..25).map(|i| frame(Video, 54_000 + i * 40, 500 + i as u64, false)));
    pull.connection(&other, after(start, 9000));
    assert_eq!(pull.seams, [Seam::New, Seam::Continues, Seam::New]);
    assert_eq!(pull.items[300..], other[..]);
}

fn sound(from: u64, count: u64, base: i64, what: impl Fn(u64) -> u64) -> Vec<Incoming> {
    (from..from + count).map(|i| frame(Audio, base + i as i64 * 23, what(i), true)).collect()
}

#[test]
fn sound_alone_is_matched_by_time_or_by_a_run() {
    let start = Instant::now();
    for base in [0, 90_000, -2000] {
        let mut pull = Pull::default();
        pull.connection(&sound(0, 300, 0, |i| i), start);
        pull.connection(&sound(250, 100, base, |i| i), after(start, 1000));
        assert_eq!(pull.seams, [Seam::New, Seam::Continues], "{base}");
        assert_eq!(pull.items, sound(0, 350, 0, |i| i), "{base}");
    }
}

#[test]
fn silence_on_another_clock_is_new() {
    let (mut pull, start) = (Pull::default(), Instant::now());
    pull.connection(&sound(0, 300, 0, |_| 7), start);
    pull.connection(&sound(0, 100, -500, |_| 7), after(start, 1000));
    assert_eq!(pull.seams, [Seam::New, Seam::New]);
    assert_eq!(pull.items.len(), 400);
}

#[test]
fn other_items_keep_their_place_and_old_data_messages_are_dropped() {
    let (mut pull, live, start) = (Pull::default(), live(), Instant::now());
    pull.connection(&live[..300], start);
    let content = std::sync::Arc::new("text");
    let data = |millis| {
        let time = Some(Timestamp::from_millis(millis));
        Incoming::Aside(crate::stream::Aside { time, content: content.clone(), size: 4, keep_latest: false })
    };
    let from = cache_start(&live, 300);
    let mut second = live[from..320].to_vec();
    second.insert(5, data(4001));
    second.push(data(4700));
    pull.connection(&second, start);
    assert_eq!(pull.items[..320], live[..320]);
    assert_eq!(pull.items[320..], [data(4700)]);
}

#[test]
fn memory_is_bounded_however_long_a_gop_is() {
    let mut dedup = Dedup::default();
    let (mut out, start) = (Vec::new(), Instant::now());
    let first = frame(Video, 0, 0, true);
    dedup.push(first.clone(), start, &mut out);
    for i in 1..20_000 {
        dedup.push(frame(Video, i * 40, i as u64, false), start, &mut out);
        out.clear();
    }
    assert!(dedup.known.len() <= MAX_KNOWN);
    // And the start of that GOP is still known, on any clock.
    dedup.reconnected();
    for i in 0..20_000 {
        let picture = frame(Video, i * 40 - 700_000, i as u64, i == 0);
        dedup.push(picture, start, &mut out);
    }
    assert_eq!(out, [Passed::Seam(Seam::Continues)]);
}

proptest! {
    /// Wherever connections break, and whether the server's clock is the stream's, a shifted one, or starts at
    /// zero for each player: every frame passes once.
    #[test]
    fn every_frame_passes_exactly_once(
        cuts in prop::collection::vec((1usize..120, 0usize..20, 0u8..3), 1..8)
    ) {
        let (mut pull, live, mut now) = (Pull::default(), live(), Instant::now());
        let dts = |item: &Incoming| match item {
            Incoming::Frame(frame) => frame.dts.millis(),
            _ => unreachable!(),
        };
        let (mut from, mut position) = (0, 0);
        for (length, missed, clock) in cuts {
            let end = (position + length).min(live.len());
            let by = match clock {
                0 => 0,
                1 => -600_000,
                _ => -dts(&live[from]),
            };
            let part: Vec<_> = live[from..end].iter().map(|item| moved(item, by)).collect();
            pull.connection(&part, now);
            position = end;
            now += Duration::from_millis(200);
            // What the server meanwhile took in is in its cache, as long as no new GOP began.
            let server = (end..(end + missed).min(live.len())).take_while(|i| !is_sync_picture(&live[*i])).last();
            from = cache_start(&live, server.unwrap_or(end).max(1));
        }
        prop_assert!(pull.seams[1..].iter().all(|seam| *seam == Seam::Continues), "{:?}", pull.seams);
        let base = dts(&pull.items[0]) - dts(&live[0]);
        let expected: Vec<_> = live[..position].iter().map(|item| moved(item, base)).collect();
        prop_assert_eq!(pull.items, expected);
    }
}
