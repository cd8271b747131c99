use av_media::h264::AvcConfig;
use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const FRAME: i64 = 40;

fn order(depth: usize) -> DecodeOrder<usize> {
    DecodeOrder { depth, ..DecodeOrder::default() }
}

fn undeclared() -> DecodeOrder<usize> {
    DecodeOrder { is_declared: false, held: Some(VecDeque::new()), ..DecodeOrder::default() }
}

/// Pictures by when they are shown, the first a sync picture; what came out: index, dts.
fn run(order: &mut DecodeOrder<usize>, shown: &[i64]) -> Vec<(usize, i64)> {
    let mut out = Vec::new();
    for (index, &pts) in shown.iter().enumerate() {
        order.push(Timestamp::from_millis(pts), index == 0, index, &mut out);
    }
    order.flush(&mut out);
    check(&out);
    out.into_iter().map(|(_, dts, index)| (index, dts.millis())).collect()
}

fn check(out: &[Decodable<usize>]) {
    for (pts, dts, _) in out {
        assert!(dts <= pts, "{dts:?} {pts:?}");
    }
    for pair in out.windows(2) {
        assert!(pair[0].1 < pair[1].1, "{pair:?}");
    }
}

/// I P B b b, as x264 codes it: how often each is one frame time later than its place.
const PYRAMID: [i64; 9] = [0, 4, 2, 1, 3, 8, 6, 5, 7];

#[test]
fn without_reordering_pictures_are_decoded_when_they_are_shown() {
    let out = run(&mut order(0), &[0, 40, 80, 120]);
    assert_eq!(out, [(0, 0), (1, 40), (2, 80), (3, 120)]);
}

#[test]
fn with_a_pyramid_decoding_runs_two_pictures_ahead() {
    let shown = PYRAMID.map(|place| place * FRAME);
    let out = run(&mut order(2), &shown);
    let dts: Vec<i64> = out.iter().map(|(_, dts)| *dts).collect();
    assert_eq!(dts, (-2..7).map(|place| place * FRAME).collect::<Vec<_>>());
}

#[test]
fn where_nobody_says_it_the_first_pictures_tell() {
    let shown = PYRAMID.map(|place| place * FRAME);
    assert_eq!(run(&mut undeclared(), &shown).len(), shown.len());
    let plain: Vec<i64> = (0..20).map(|place| place * FRAME).collect();
    let out = run(&mut undeclared(), &plain);
    assert!(out.iter().all(|(index, dts)| *dts == plain[*index]), "no delay where nothing is reordered");
}

#[test]
fn more_reordering_than_was_said_costs_the_rest_of_the_gop_and_no_more() {
    let mut order = order(0);
    let mut out = Vec::new();
    let gop = |start: i64| PYRAMID.map(move |place| (start + place) * FRAME);
    for round in 0..6 {
        for (index, pts) in gop(round * 9).into_iter().enumerate() {
            order.push(Timestamp::from_millis(pts), index == 0, index, &mut out);
        }
    }
    check(&out);
    let last = &out[out.len() - 9..];
    assert!(last.iter().map(|(.., index)| *index).eq(0..9), "{last:?}");
    assert!(order.left_out() > 0);
}

#[test]
fn a_timeline_that_begins_anew_at_a_sync_picture_is_followed() {
    let mut order = order(2);
    let mut out = Vec::new();
    for start in [3_600_000, 0] {
        for (index, place) in PYRAMID.into_iter().enumerate() {
            order.push(Timestamp::from_millis(start + place * FRAME), index == 0, index, &mut out);
        }
    }
    assert_eq!((out.len(), order.left_out()), (18, 0));
    assert_eq!(out[9].1.millis(), -80);
}

#[test]
fn the_vui_says_how_many_are_reordered_and_how_fast() {
    // High 4:2:0, 128x96, with bitstream_restriction: max_num_reorder_frames 2.
    let clip = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../media/testdata/bframes.mp4")).unwrap();
    let at = clip.windows(4).position(|four| four == b"avcC").unwrap();
    let size = u32::from_be_bytes(clip[at - 4..at].try_into().unwrap()) as usize;
    let avcc = Bytes::from(clip).slice(at + 4..at - 4 + size);
    let declared = AvcConfig::parse(avcc.clone()).unwrap().first_sps().unwrap().declared_reorder_frames;
    let mut order = DecodeOrder::<()>::default();
    order.set_track(&Track::h264(avcc).unwrap());
    assert!(declared.is_some_and(|depth| depth > 0));
    assert_eq!(Some(order.depth), declared.map(usize::from));
    assert!(order.held.is_none());
}

proptest! {
    #[test]
    fn whatever_comes_decoding_times_rise_and_are_never_later(
        depth in 0_usize..20,
        known: bool,
        shown in prop::collection::vec((-1_000_000_i64..1_000_000, any::<bool>()), 0..200),
    ) {
        let mut order = if known { order(depth.min(MOST)) } else { undeclared() };
        let mut out = Vec::new();
        for (index, (pts, is_sync)) in shown.iter().enumerate() {
            let before = out.len();
            let restarted = order.last.is_none();
            let last = order.last;
            order.push(Timestamp::from_millis(*pts), *is_sync, index, &mut out);
            for (pts, dts, _) in &out[before..] {
                prop_assert!(dts <= pts);
            }
            // Within one timeline they rise.
            if let ([(_, dts, _)], Some(last), false, false) = (&out[before..], last, restarted, *is_sync) {
                prop_assert!(*dts > last);
            }
            prop_assert!(order.waiting.len() <= MOST + 1);
        }
    }

    #[test]
    fn a_row_that_is_reordered_within_its_depth_keeps_every_picture(
        depth in 0_usize..8,
        swaps in prop::collection::vec(0_usize..8, 1..100),
    ) {
        // Each picture stands at most `depth` places before its turn.
        let mut waiting: Vec<i64> = Vec::new();
        let mut coded = vec![0];
        let mut next = 1;
        for swap in swaps {
            while waiting.len() <= depth {
                waiting.push(next);
                next += 1;
            }
            waiting.sort_unstable();
            let place = swap.min(waiting.len() - 1);
            coded.push(waiting.remove(place));
        }
        waiting.sort_unstable();
        coded.extend(waiting);
        // How many were really coded before one and shown after it.
        let real = (0..coded.len())
            .map(|index| coded[..index].iter().filter(|before| **before > coded[index]).count())
            .max()
            .unwrap();
        let shown: Vec<i64> = coded.iter().map(|place| place * FRAME).collect();
        prop_assert_eq!(run(&mut order(real), &shown).len(), coded.len());
    }
}
