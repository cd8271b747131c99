use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::AudioFormat;
use crate::aac::LC;

fn aac_at(rate: u32) -> Track {
    let config = AudioConfig {
        object_type: LC,
        sample_rate: rate,
        channel_config: 2,
        program_channels: 0,
        short_frames: false,
        extension: None,
    };
    Track::aac(config.build().unwrap()).unwrap()
}

fn clock(track: &Track) -> SoundClock {
    let mut clock = SoundClock::default();
    clock.set_track(track);
    clock
}

fn rate(rate: u32) -> NonZeroU32 {
    NonZeroU32::new(rate).unwrap()
}

/// An hour of frames whose stamps are whole milliseconds and off by what `jitter` says: the samples between the first
/// and the last, and whether each frame is exactly its samples behind the one before.
fn an_hour(hertz: u32, start: i64, mut jitter: impl FnMut(i64) -> i64) -> (i64, bool, u64) {
    let (mut clock, rate) = (clock(&aac_at(hertz)), rate(hertz));
    let frames = i64::from(hertz) * 3600 / 1024;
    let mut times = Vec::new();
    for index in 0..frames {
        let millis = start + index * 1024 * 1000 / i64::from(hertz) + jitter(index);
        times.push(clock.place(Timestamp::from_millis(millis), b"aac").ticks(rate));
    }
    let exact = times.windows(2).all(|two| two[1] - two[0] == 1024);
    (times[times.len() - 1] - times[0], exact, clock.reanchored())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn an_hour_of_milliseconds_with_jitter_is_exactly_its_samples(
        hertz in prop::sample::select(vec![44_100_u32, 48_000]),
        start in 0_i64..1 << 40,
        seed in any::<u64>(),
        most in 0_u64..10,
    ) {
        let mut state = seed | 1;
        let jitter = |index: i64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if index == 0 { 0 } else { ((state >> 33) % (2 * most + 1)) as i64 - most as i64 }
        };
        let frames = i64::from(hertz) * 3600 / 1024;
        prop_assert_eq!(an_hour(hertz, start, jitter), ((frames - 1) * 1024, true, 0));
    }
}

#[test]
fn a_lost_frame_leaves_a_hole_of_a_frame_and_the_grid_holds() {
    for hertz in [44_100, 48_000] {
        let mut clock = clock(&aac_at(hertz));
        let at = |index: i64| Timestamp::from_millis(index * 1024 * 1000 / i64::from(hertz));
        let mut times = Vec::new();
        for index in (0..1000).filter(|index| *index != 300 && !(500..520).contains(index)) {
            times.push(clock.place(at(index), b"aac").ticks(rate(hertz)) / 1024);
        }
        let expected: Vec<i64> =
            (0..1000).filter(|index| *index != 300 && !(500..520).contains(index)).collect();
        assert_eq!(times, expected);
        assert_eq!(clock.reanchored(), 2);
    }
}

/// `ffmpeg -stream_loop -1 -c copy`: a round of 376 frames is a frame longer than its 8 s, and the next begins on time.
#[test]
fn a_file_looped_with_a_frame_too_many_is_counted_once_a_round_and_stays_on_the_grid() {
    let mut clock = clock(&aac_at(48_000));
    let stamp = |round: i64, index: i64| round * 8000 + (index * 1024 + 24) / 48;
    let mut last = Timestamp::ZERO;
    for round in 0..100 {
        for index in 0..376 {
            let millis = stamp(round, index);
            let placed = clock.place(Timestamp::from_millis(millis), b"aac");
            assert!(placed > last || round + index == 0, "{placed:?} follows {last:?}");
            assert!(placed.nanos_since(Timestamp::from_millis(millis)).abs() <= 1_000_000);
            last = placed;
        }
    }
    assert_eq!(clock.reanchored(), 99);
}

#[test]
fn a_source_that_drifts_is_followed_by_whole_samples_and_counted() {
    let mut clock = clock(&aac_at(48_000));
    let mut last = None;
    // Three in a thousand slow.
    for index in 0..10_000_i64 {
        let stamp = Timestamp::from_nanos(index * 21_400_000);
        let time = clock.place(stamp, b"aac");
        assert_eq!(Timestamp::from_ticks(time.ticks(rate(48_000)), rate(48_000)), time);
        assert!(time.nanos_since(stamp).abs() < 22_000_000);
        assert!(last.is_none_or(|last| last < time));
        last = Some(time);
    }
    assert!((20..60).contains(&clock.reanchored()), "{}", clock.reanchored());
}

#[test]
fn a_source_that_never_agrees_keeps_its_own_times() {
    // It says 8 kHz and means 16.
    let mut track = Track::other(Codec::PcmU);
    track.audio = AudioFormat { sample_rate: 8000, channels: 1 };
    let mut clock = clock(&track);
    let times: Vec<_> =
        (0..200).map(|i| clock.place(Timestamp::from_millis(i * 20), &[0; 320]).millis()).collect();
    assert_eq!(times[100..], (100..200).map(|i| i * 20).collect::<Vec<_>>());
    assert!(times.is_sorted());
}

#[test]
fn a_source_that_never_agrees_keeps_its_own_times_for_good() {
    let mut track = Track::other(Codec::PcmU);
    track.audio = AudioFormat { sample_rate: 8000, channels: 1 };
    let mut clock = clock(&track);
    for i in 0..3000 {
        let time = clock.place(Timestamp::from_millis(i * 20), &[0; 320]);
        assert!(i < 100 || time == Timestamp::from_millis(i * 20), "{i}: {time:?}");
    }
}

#[test]
fn a_burst_of_loss_does_not_turn_the_grid_off() {
    let (mut clock, rate) = (clock(&aac_at(48_000)), rate(48_000));
    // Every other frame is lost for a while.
    for index in (0..200).filter(|index| !(100..130).contains(index) || index % 2 == 0) {
        let time = clock.place(Timestamp::from_millis(index * 1024 / 48), b"aac");
        assert_eq!(time.ticks(rate), index * 1024, "{index}");
    }
}

#[test]
fn times_that_were_wild_for_a_while_come_back_to_the_grid() {
    let (mut clock, rate) = (clock(&aac_at(44_100)), rate(44_100));
    let times: Vec<i64> = (0..1000_i64)
        .map(|index| {
            let wild = if (100..140).contains(&index) { index % 5 * 35 } else { 0 };
            clock.place(Timestamp::from_millis(index * 1_024_000 / 44_100 + wild), b"aac").ticks(rate)
        })
        .collect();
    let is_exact = |times: &[i64]| times.windows(2).all(|two| two[1] - two[0] == 1024);
    assert!(is_exact(&times[..100]) && !is_exact(&times[150..600]) && is_exact(&times[700..]), "{times:?}");
}

#[test]
fn a_rate_that_no_sound_has_says_nothing_and_a_long_frame_does_not_hide_what_is_missing() {
    let mut track = Track::other(Codec::PcmU);
    track.audio = AudioFormat { sample_rate: 1, channels: 1 };
    let mut slow = clock(&track);
    slow.place(Timestamp::ZERO, &[0; 8000]);
    assert_eq!(slow.samples(), None);
    track.audio = AudioFormat { sample_rate: 8000, channels: 1 };
    // Two seconds in a frame, of which half is missing.
    let mut long = clock(&track);
    long.place(Timestamp::ZERO, &[0; 16_000]);
    assert_eq!(long.place(Timestamp::from_millis(3000), &[0; 16_000]), Timestamp::from_millis(3000));
}

#[test]
fn stamps_that_stand_still_never_give_one_time_twice() {
    for track in [aac_at(96_000), Track::other(Codec::Flac)] {
        let mut clock = clock(&track);
        let times: Vec<_> =
            (0..100).map(|_| clock.place(Timestamp::from_millis(5), b"?").ticks(rate(90_000))).collect();
        assert!(times.windows(2).all(|two| two[0] < two[1]), "{times:?}");
    }
}

#[test]
fn every_codec_says_how_long_its_frames_are() {
    let samples = |track: &Track, frame: &[u8]| {
        let mut clock = clock(track);
        clock.place(Timestamp::ZERO, frame);
        clock.samples().map(|Samples { count, rate }| (count, rate.get()))
    };
    let aac = |config: &'static [u8]| Track::aac(Bytes::from_static(config)).unwrap();
    assert_eq!(samples(&aac(&[0x12, 0x10]), b""), Some((1024, 44_100)));
    // frameLengthFlag.
    assert_eq!(samples(&aac(&[0x11, 0x94]), b""), Some((960, 48_000)));
    // HE-AAC: 24 kHz core, 48 kHz out.
    let he = AudioConfig {
        object_type: LC,
        sample_rate: 24_000,
        channel_config: 2,
        program_channels: 0,
        short_frames: false,
        extension: Some(crate::aac::Extension { sample_rate: 48_000, ps: false, hierarchical: true }),
    };
    assert_eq!(samples(&Track::aac(he.build().unwrap()).unwrap(), b""), Some((2048, 48_000)));
    let opus = Track::opus(None).unwrap();
    for (packet, count) in [
        (&[0b0111_1000_u8][..], 960), // hybrid, 20 ms
        (&[0b0000_0000], 480),        // SILK, 10 ms
        (&[0b0001_1001], 5760),       // SILK, 60 ms twice
        (&[0b1000_0000], 120),        // CELT, 2.5 ms
        (&[0b1111_1011, 3], 2880),    // CELT, 20 ms, three of them
    ] {
        assert_eq!(samples(&opus, packet), Some((count, 48_000)), "{packet:?}");
    }
    assert_eq!(samples(&opus, &[0b0001_1011, 63]), None, "longer than 120 ms");
    assert_eq!(samples(&opus, &[]), None);
    let mut g711 = Track::other(Codec::PcmA);
    assert_eq!(samples(&g711, &[0; 160]), Some((160, 8000)));
    g711.audio.channels = 2;
    assert_eq!(samples(&g711, &[0; 160]), Some((80, 8000)));
    let mp3 = Track::other(Codec::Mp3);
    assert_eq!(samples(&mp3, &[0xff, 0xfb, 0x90, 0x64]), Some((1152, 44_100)));
    assert_eq!(samples(&mp3, &[0xff, 0xf3, 0x94, 0x64]), Some((576, 24_000)));
    assert_eq!(samples(&mp3, &[0xff, 0xe3, 0x98, 0x64]), Some((576, 8000)));
    assert_eq!(samples(&mp3, b"ID3"), None);
    assert_eq!(samples(&Track::other(Codec::Ac3), &[0x0b, 0x77, 0, 0, 0x40]), Some((1536, 44_100)));
}

proptest! {
    #[test]
    fn whatever_comes_time_rises(
        stamps in prop::collection::vec(any::<i64>(), 1..60),
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..60),
        codec in prop::sample::select(vec![Codec::Opus, Codec::Mp3, Codec::Ac3, Codec::PcmA, Codec::Flac]),
    ) {
        let mut clock = clock(&Track::other(codec));
        let mut last = None;
        for (stamp, frame) in stamps.iter().zip(&frames) {
            // Beyond that stream times do not go.
            let time = clock.place(Timestamp::from_nanos(stamp / 4), frame);
            prop_assert!(last.is_none_or(|last| last < time));
            last = Some(time);
        }
    }
}
