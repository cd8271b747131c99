use std::time::Duration;

use super::*;

const VIDEO: NonZeroU32 = NonZeroU32::new(90_000).unwrap();
const AUDIO: NonZeroU32 = NonZeroU32::new(48_000).unwrap();

fn clock() -> Clock<u32> {
    Clock::new(Some(VIDEO), Some(AUDIO))
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn ntp(millis: u64) -> Ntp {
    Ntp::from_unix(Duration::from_millis(1_800_000_000_000 + millis))
}

impl Clock<u32> {
    /// Milliseconds of what goes on.
    fn take(&mut self, kind: Kind, ticks: i64, arrival: i64) -> Vec<i64> {
        let mut out = Vec::new();
        self.push(kind, ticks, at(arrival), 0, &mut out);
        out.into_iter().map(|(time, _)| time.millis()).collect()
    }
}

#[test]
fn without_a_word_of_the_server_tracks_begin_when_they_come() {
    let mut clock = clock();
    assert_eq!(clock.take(Kind::Video, 1_000_000, 100), [100]);
    assert_eq!(clock.take(Kind::Audio, 7, 130), [130]);
    assert_eq!(clock.take(Kind::Video, 1_003_600, 260), [140], "what is late keeps its time");
    assert_eq!(clock.take(Kind::Audio, 7 + 1024, 150), [151]);
}

#[test]
fn rtp_info_of_all_tracks_says_which_times_belong_together() {
    let mut clock = clock();
    clock.info(Kind::Video, 900_000);
    clock.info(Kind::Audio, 48_000);
    assert_eq!(clock.take(Kind::Video, 903_600, 500), [40]);
    assert_eq!(clock.take(Kind::Audio, 48_480, 700), [10]);
    // One track alone says nothing, and neither does what is hours away.
    let mut clock = self::clock();
    clock.info(Kind::Video, 900_000);
    assert_eq!(clock.take(Kind::Video, 903_600, 500), [500]);
    let mut clock = self::clock();
    clock.info(Kind::Video, 900_000);
    clock.info(Kind::Audio, 0);
    assert_eq!(clock.take(Kind::Audio, 480_000_000, 600), [600]);
}

#[test]
fn both_sender_reports_put_sound_right_at_once_and_later_only_slowly() {
    let mut clock = clock();
    clock.take(Kind::Video, 0, 0);
    clock.take(Kind::Audio, 0, 0);
    // Sound was taken 300 ms earlier than its first packet's arrival says.
    clock.report(Kind::Video, ntp(1000), 90_000);
    assert_eq!(clock.take(Kind::Audio, 1024, 21), [21]);
    clock.report(Kind::Audio, ntp(1300), 48_000);
    assert_eq!(clock.take(Kind::Audio, 2048, 43), [343]);
    assert_eq!(clock.take(Kind::Video, 3600, 40), [40]);
    // From now on half a percent: 100 ms more take 20 s.
    clock.report(Kind::Audio, ntp(1500), 52_800);
    assert_eq!(clock.target, 400_000_000);
    let mut last = 343;
    for index in 3..1000_i64 {
        let [time] = clock.take(Kind::Audio, index * 1024, index * 21)[..] else { panic!("{index}") };
        assert!((21..=23).contains(&(time - last)), "{index}: {}", time - last);
        last = time;
    }
    assert_eq!(clock.correction, 400_000_000);
}

#[test]
fn sound_that_is_put_right_backwards_is_left_out_until_it_is_new() {
    let mut clock = clock();
    clock.take(Kind::Video, 0, 0);
    for index in 0..50 {
        assert_eq!(clock.take(Kind::Audio, index * 960, index * 20).len(), 1);
    }
    clock.report(Kind::Video, ntp(1110), 90_000);
    clock.report(Kind::Audio, ntp(1000), 48_000);
    let times: Vec<i64> =
        (50..60).flat_map(|index| clock.take(Kind::Audio, index * 960, index * 20)).collect();
    assert_eq!(times, [990, 1010, 1030, 1050, 1070]);
    assert_eq!(clock.left_out(), 5);
}

#[test]
fn a_little_off_is_never_a_jump_and_a_wall_clock_without_sense_is_ignored() {
    let mut clock = clock();
    clock.take(Kind::Video, 0, 0);
    clock.take(Kind::Audio, 0, 0);
    clock.report(Kind::Video, Ntp(0), 90_000);
    clock.report(Kind::Video, ntp(1000), 90_000);
    clock.report(Kind::Audio, Ntp::from_unix(Duration::from_secs(5)), 48_000);
    assert_eq!(clock.target, 0);
    // The two tracks' clocks are a day apart.
    clock.report(Kind::Audio, ntp(86_400_000), 48_000);
    assert_eq!(clock.target, 0);
    let mut clock = self::clock();
    clock.take(Kind::Video, 0, 0);
    clock.take(Kind::Audio, 0, 0);
    clock.report(Kind::Video, ntp(1000), 90_000);
    clock.report(Kind::Audio, ntp(1030), 48_000);
    assert_eq!((clock.target, clock.correction), (30_000_000, 0));
    // One report that jumps is not believed; a second that agrees with it is.
    clock.report(Kind::Audio, ntp(6030), 96_000);
    assert_eq!(clock.target, 30_000_000);
    clock.report(Kind::Audio, ntp(7030), 144_000);
    assert_eq!(clock.target, 4_030_000_000);
}

#[test]
fn a_single_frame_hours_away_is_left_out_and_three_in_a_row_are_another_timeline() {
    let mut clock = clock();
    assert_eq!(clock.take(Kind::Video, 0, 0), [0]);
    assert!(clock.take(Kind::Video, 7200 * 90_000, 40).is_empty());
    assert_eq!(clock.take(Kind::Video, 7200, 80), [80]);
    assert_eq!(clock.left_out(), 1);
    let far = -3600 * 90_000;
    assert!(clock.take(Kind::Video, far, 120).is_empty());
    assert!(clock.take(Kind::Video, far + 3600, 160).is_empty());
    assert_eq!(clock.take(Kind::Video, far + 7200, 200), [120, 160, 200]);
    assert_eq!(clock.take(Kind::Video, far + 10_800, 240), [240]);
    // A pause is no jump: RTP time went on as the clock did.
    assert_eq!(clock.take(Kind::Video, far + 10_800 + 60 * 90_000, 60_240), [60_240]);
    assert_eq!(clock.left_out(), 1);
}

#[test]
fn the_senders_own_wall_clock_is_that_of_its_reports() {
    let mut clock = clock();
    assert_eq!(clock.wall_clock(), None);
    clock.take(Kind::Video, 0, 0);
    clock.take(Kind::Audio, 0, 0);
    clock.report(Kind::Audio, ntp(500), 24_000);
    let WallClock { stream, unix_nanos } = clock.wall_clock().unwrap();
    assert_eq!((stream.millis(), unix_nanos / 1_000_000), (500, 1_800_000_000_500));
    clock.report(Kind::Video, ntp(2000), 180_000);
    assert_eq!(clock.wall_clock().unwrap().stream.millis(), 2000);
}

/// Plays `seconds` of pictures that come `sent` times a second and are stamped for `stamped`, and of sound at 48 kHz that
/// comes at `sound` times its pace: by how much the time of pictures, and that of sound, is off their arrival at last.
fn off_after(seconds: i64, sent: i64, stamped: i64, sound: Option<(i64, i64)>) -> (i64, i64) {
    let mut clock = clock();
    let (mut pictures, mut sounds) = (0, 0);
    let mut next = 0;
    for index in 0..seconds * sent {
        let arrival = index * 1000 / sent;
        if let Some((numerator, denominator)) = sound {
            while next * 20 * denominator / numerator <= arrival {
                let came = next * 20 * denominator / numerator;
                if let Some(time) = clock.take(Kind::Audio, next * 960, came).last() {
                    sounds = time - came;
                }
                next += 1;
            }
        }
        let before = pictures;
        if let Some(time) = clock.take(Kind::Video, index * 90_000 / stamped, arrival).last() {
            pictures = time - arrival;
        }
        assert!(index == 0 || pictures >= before - 100, "{index}: {before} and then {pictures}");
    }
    (pictures, sounds)
}

#[test]
fn pictures_that_are_stamped_for_another_pace_go_by_the_one_at_which_they_come() {
    // Stamped for 25, 21 sent.
    let (pictures, sounds) = off_after(600, 21, 25, Some((1, 1)));
    assert!(pictures.abs() < 300 && sounds == 0, "{pictures} and {sounds} ms");
    assert!(off_after(600, 21, 25, None).0.abs() < 300);
    // Stamped for 25, 30 sent: sound follows the pictures, which were ahead.
    let (pictures, sounds) = off_after(600, 30, 25, Some((1, 1)));
    assert!(pictures > 1_000 && (pictures - sounds).abs() < 300, "{pictures} and {sounds} ms");
}

#[test]
fn a_slow_network_a_fast_sender_and_a_clock_that_drifts_change_no_pace() {
    // Each as far off as its stamps are.
    assert_eq!(off_after(60, 22, 25, Some((22, 25))).0, 59_954 * 22 / 25 - 59_954 + 1);
    assert_eq!(off_after(60, 250, 25, None).0, 59_996 * 9);
    assert!((off_after(600, 102, 100, None).0 - 12_000).abs() < 100);
}

#[test]
fn a_stream_that_stood_still_and_made_up_for_it_keeps_its_times() {
    let mut clock = clock();
    for index in 0..3_000 {
        // Every other ten seconds' pictures come in the second half of these.
        let (sent, slow) = (index * 40, index / 250 % 2 == 1);
        let arrival = if slow { (sent - sent % 10_000) + 5_000 + sent % 10_000 / 2 } else { sent };
        assert_eq!(clock.take(Kind::Video, index * 3_600, arrival), [sent]);
    }
}
