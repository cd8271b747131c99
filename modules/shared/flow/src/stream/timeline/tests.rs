use super::*;
use Kind::{Audio, Video};

/// The same in milliseconds, which every time here is.
impl Timeline {
    fn ms(&mut self, kind: Kind, raw: i64, now: Instant) -> i64 {
        let Placed { dts, jumped } = self.place_ms(kind, raw, now);
        assert_eq!((dts, jumped), (Timestamp::from_millis(dts.millis()), None));
        dts.millis()
    }

    fn place_ms(&mut self, kind: Kind, raw: i64, now: Instant) -> Placed {
        self.map(kind, Timestamp::from_millis(raw), now)
    }
}

/// A frame at which the timeline was re-based.
fn jump(dts: i64, by: i64) -> Placed {
    Placed { dts: Timestamp::from_millis(dts), jumped: Some(by * 1_000_000) }
}

fn at(start: Instant, millis: u64) -> Instant {
    start + Duration::from_millis(millis)
}

#[test]
fn the_first_publishers_times_pass_unchanged_wherever_they_start() {
    for base in [0, (1 << 24) - 10_000, (1 << 31) - 10_000, (1 << 32) - 10_000] {
        let (mut timeline, start) = (Timeline::default(), Instant::now());
        for i in 0..600_i64 {
            let now = at(start, i as u64 * 40);
            assert_eq!(timeline.ms(Video, base + i * 40, now), base + i * 40);
            assert_eq!(timeline.ms(Audio, base + i * 40 - 7, now), base + i * 40 - 7);
        }
    }
}

#[test]
fn a_publisher_that_returns_at_zero_goes_on_after_the_time_it_was_away() {
    let (mut timeline, start) = (Timeline::default(), Instant::now());
    timeline.ms(Video, 5000, start);
    timeline.next_publisher();
    assert_eq!(timeline.ms(Video, 0, at(start, 2000)), 7000);
    assert_eq!(timeline.ms(Video, 33, at(start, 2033)), 7033);
}

#[test]
fn one_stray_frame_changes_nothing_for_the_frames_after_it() {
    let (mut timeline, start) = (Timeline::default(), Instant::now());
    for i in 0..10 {
        timeline.ms(Video, i * 40, at(start, i as u64 * 40));
    }
    assert_eq!(timeline.place_ms(Video, 9_800_000, at(start, 400)), jump(400, 9_799_600));
    assert_eq!(timeline.ms(Video, 440, at(start, 440)), 440);
}

#[test]
fn one_stray_frame_early_in_a_stream_changes_nothing_for_the_frames_after_it() {
    for stray in [0, 4000, 8000] {
        let (mut timeline, start) = (Timeline::default(), Instant::now());
        for i in 0..75 {
            timeline.ms(Video, i * 40, start);
            timeline.ms(Audio, i * 40 + 5, start);
        }
        assert_eq!(timeline.place_ms(Video, stray, start).dts, Timestamp::from_millis(3000));
        for i in 75..200 {
            assert_eq!(timeline.ms(Audio, i * 40 + 5, start), i * 40 + 5, "{stray}");
            assert_eq!(timeline.ms(Video, i * 40 + 40, start), i * 40 + 40, "{stray}");
        }
    }
}

#[test]
fn a_gap_in_a_stream_that_arrives_at_once_is_kept() {
    let (mut timeline, start) = (Timeline::default(), Instant::now());
    for i in 0..10 {
        timeline.ms(Video, i * 40, start);
    }
    timeline.ms(Video, 5000, start);
    for i in 1..10 {
        assert_eq!(timeline.ms(Video, 5000 + i * 40, start), 5000 + i * 40);
    }
}

#[test]
fn sound_that_is_muxed_late_keeps_its_distance_to_the_pictures() {
    let (mut timeline, start) = (Timeline::default(), Instant::now());
    for i in 0..45 {
        timeline.ms(Video, i * 40, start);
    }
    for i in 45..100 {
        assert_eq!(timeline.ms(Audio, (i - 45) * 40, start), (i - 45) * 40);
        assert_eq!(timeline.ms(Video, i * 40, start), i * 40);
    }
}

#[test]
fn a_step_back_for_good_is_one_jump() {
    let (mut timeline, start) = (Timeline::default(), Instant::now());
    for i in 0..10 {
        timeline.ms(Video, 100_000 + i * 40, at(start, i as u64 * 40));
    }
    assert_eq!(timeline.place_ms(Video, 0, at(start, 400)), jump(100_400, -100_400));
    assert_eq!(timeline.ms(Video, 40, at(start, 440)), 100_440);
    assert_eq!(timeline.ms(Audio, 50, at(start, 450)), 100_450);
}

#[test]
fn a_pause_that_the_wall_clock_explains_is_kept() {
    let (mut timeline, start) = (Timeline::default(), Instant::now());
    timeline.ms(Video, 0, start);
    assert_eq!(timeline.ms(Video, 60_000, at(start, 60_000)), 60_000);
}

#[test]
fn jitter_never_runs_back_within_a_track_and_no_two_frames_have_one_time() {
    let (mut timeline, start) = (Timeline::default(), Instant::now());
    timeline.ms(Video, 1000, start);
    let ninety_khz = std::num::NonZeroU32::new(90_000).unwrap();
    let ticks: Vec<_> = [990, 1000, 1000]
        .map(|raw| timeline.place_ms(Video, raw, start).dts)
        .map(|dts| (dts.ticks(ninety_khz), dts.millis()))
        .into();
    assert_eq!(ticks, [(90_001, 1000), (90_002, 1000), (90_003, 1000)]);
    assert_eq!(timeline.ms(Audio, 500, start), 500);
}

#[test]
fn pictures_that_begin_before_the_sound_of_a_takeover_keep_their_distances() {
    for behind in [40, 500, 1000] {
        let (mut timeline, start) = (Timeline::default(), Instant::now());
        for i in 0..50 {
            timeline.ms(Video, i * 40, start);
            timeline.ms(Audio, i * 40 + 5, start);
        }
        timeline.next_publisher();
        assert_eq!(timeline.ms(Audio, 7000, start), 2005);
        // All of the publisher moves, once.
        let first = timeline.place_ms(Video, 7000 - behind, start);
        assert_eq!(first.dts, Timestamp::from_millis(2000), "{behind}");
        assert!(first.jumped.is_some());
        for i in 1..100 {
            assert_eq!(timeline.ms(Video, 7000 - behind + i * 40, start), 2000 + i * 40, "{behind}");
        }
        let sound = timeline.ms(Audio, 8000, start);
        assert_eq!(sound, 2000 + behind + 1000, "sound and picture stay together");
    }
}

#[test]
fn the_earliest_of_the_frames_that_waited_begins() {
    let (mut timeline, start) = (Timeline::default(), Instant::now());
    timeline.ms(Audio, 1000, start);
    timeline.ms(Video, 1000, start);
    timeline.next_publisher();
    timeline.begin(Timestamp::from_millis(4200), at(start, 500));
    assert_eq!(timeline.ms(Audio, 5000, at(start, 500)), 2300);
    assert_eq!(timeline.ms(Video, 4200, at(start, 500)), 1500);
}
