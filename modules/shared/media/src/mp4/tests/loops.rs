//! What a loop sounds and looks like.

use super::*;

/// The samples of the first `loops` loops as frames on one timeline, with the loop they are of.
fn frames(mut playback: Playback<File>, loops: u64) -> Vec<(u64, crate::Frame)> {
    let mut frames = Vec::new();
    while let Some(sample) = playback.next_sample(true).unwrap() {
        if sample.loop_index > loops {
            break;
        }
        frames.push((sample.loop_index, sample.frame(playback.loop_start(sample.loop_index))));
    }
    frames.retain(|(index, _)| *index < loops);
    frames
}

#[test]
fn the_period_is_the_end_of_the_longest_track() {
    assert_eq!(play("bframes.mp4").presentation().period().millis(), 1000);
    assert_eq!(play("fragmented-edits.mp4").presentation().period().millis(), 1000);
    // Without an edit list the priming frame is sound like any other.
    assert_eq!(play("fragmented.mp4").presentation().period().millis(), 1021);
    // Six frames of 1001/30000 s.
    assert_eq!(play("interlaced.mp4").presentation().period().rescale(NonZeroU32::MAX).millis(), 200);
    // Cut at 0.6 s.
    assert_eq!(play("cut.mp4").presentation().period().millis(), 400);
}

#[test]
fn every_loop_is_the_first_one_later() {
    for name in ["bframes.mp4", "fragmented.mp4", "hevc.mp4", "aac44100.mp4", "interlaced.mp4", "cut.mp4"] {
        let playback = play(name);
        let start = |index| playback.presentation().loop_start(index).millis();
        let starts: Vec<i64> = (0..300).map(start).collect();
        let frames = frames(play(name), 300);
        for kind in [Kind::Video, Kind::Audio] {
            let of_loop = |index: u64| -> Vec<(i64, i64)> {
                let all = frames.iter().filter(|(of, frame)| *of == index && frame.kind == kind);
                let from = starts[index as usize];
                all.map(|(_, frame)| (frame.dts.millis() - from, frame.pts.millis() - from)).collect()
            };
            let first = of_loop(0);
            for index in [1, 2, 150, 299] {
                assert_eq!(of_loop(index), first, "{name}: {kind:?} of loop {index}");
            }
        }
    }
}

#[test]
fn time_never_goes_back_from_loop_to_loop() {
    for name in ["bframes.mp4", "fragmented.mp4", "hevc.mp4", "opus.mp4", "aac44100.mp4", "cut.mp4"] {
        let frames = frames(play(name), 20);
        assert!(frames.is_sorted_by_key(|(_, frame)| frame.dts.millis()), "{name}");
        assert_eq!(frames[0].1.dts.millis(), 0);
    }
}

#[test]
fn ten_thousand_loops_do_not_drift() {
    let playback = play("interlaced.mp4");
    let exact = 10_000.0 * 6.0 * 1001.0 / 30.0;
    let start = playback.presentation().loop_start(10_000).millis();
    assert!((start as f64 - exact).abs() <= 0.5, "{start} and {exact}");
    assert_eq!(playback.presentation().loop_start(u64::MAX).millis(), i64::MAX);
}

#[test]
fn a_loop_that_may_not_begin_again_ends_on_all_tracks() {
    let mut playback = play("bframes.mp4");
    let mut counts = [[0; 2]; 3];
    loop {
        // The file is said to have changed as soon as a track has begun the second loop.
        let begun = counts[1] != [0, 0];
        let Some(sample) = playback.next_sample(!begun).unwrap() else { break };
        counts[sample.loop_index as usize][sample.kind as usize] += 1;
    }
    assert_eq!(counts[0], counts[1]);
    assert_eq!(counts[2], [0, 0]);
    assert!(playback.next_sample(false).unwrap().is_none());
}

#[test]
fn playback_starts_at_the_sync_sample_before_the_start_and_later_loops_are_whole() {
    let start = Duration::from_millis(700);
    // A sync sample every twelve frames of 40 ms.
    let whole = once(play("bframes.mp4"));
    let mut playback = Playback::new(open("bframes.mp4"), start);
    let first = playback.next_sample(true).unwrap().unwrap();
    assert!(first.is_sync && first.kind == Kind::Video);
    let from = of(Kind::Video, &whole)[12].clone();
    assert_eq!(first, from);
    let frame = first.frame(playback.loop_start(0));
    assert_eq!((frame.dts.millis(), frame.pts.millis()), (0, 80));

    let mut rest = vec![first];
    while let Some(sample) = playback.next_sample(true).unwrap() {
        if sample.loop_index == 2 {
            break;
        }
        rest.push(sample);
    }
    let of_loop = |index| rest.iter().filter(move |sample| sample.loop_index == index);
    let pictures = |index| of_loop(index).filter(|sample| sample.kind == Kind::Video).count();
    assert_eq!((pictures(0), pictures(1)), (13, 25));
    // Sound starts with the picture: the frame that holds 480 ms.
    let sound = of_loop(0).find(|sample| sample.kind == Kind::Audio).unwrap();
    assert_eq!(sound.pts.millis() - from.pts.millis(), -11);
    // The second loop follows the first without a gap: it was begun at 400 ms of 1000.
    assert_eq!(playback.loop_start(1).millis(), 1000 - 480);
}

#[test]
fn a_start_behind_the_end_takes_the_last_sync_sample() {
    let mut playback = Playback::new(open("bframes.mp4"), Duration::from_secs(9));
    let first = playback.next_sample(false).unwrap().unwrap();
    // Sync samples are pictures 0, 12 and 24.
    assert!(first.is_sync);
    assert_eq!(first, *of(Kind::Video, &once(play("bframes.mp4")))[24]);
}
