//! What publishers do to their clocks, and what players see of it.

use std::time::{Duration, Instant};

use av_tests::clip::Clip;
use av_tests::flv::Tag;
use av_tests::module::Module;
use av_tests::needs;
use av_tests::port;
use av_tests::recording::{End, Kind, Packet, Recording, Times};
use av_tests::rtmp::{Player, Publisher};
use serde_json::json;

use crate::{cam, rtmp};

/// A splitter, a player that was there first, a publisher.
struct Stage {
    splitter: Module,
    player: Player,
    publisher: Publisher,
}

impl Stage {
    fn new() -> Self {
        let url = rtmp(port::free(), "live/cam");
        let splitter = Module::start("rtmp-splitter", &cam(&url, json!({}), json!({})));
        let player = Player::start(&url);
        splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
        let publisher = Publisher::to(&url);
        Self { splitter, player, publisher }
    }

    /// Publishes `tags` in real time by the times of `clock`; gives what was played of them.
    fn play(mut self, clock: &[Tag], tags: &[Tag]) -> Recording {
        let start = Instant::now();
        for (when, tag) in clock.iter().zip(tags) {
            let due = Duration::from_millis(if tag.kind == 18 { 0 } else { when.timestamp.into() });
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            self.publisher.send(tag).unwrap();
        }
        self.player.wait_last_of(&Recording::of_tags(tags));
        assert_eq!(self.player.ended(), None);
        assert_eq!(self.splitter.log_lines("[ERR]"), Vec::<String>::new());
        self.player.recording()
    }
}

/// `tags` with the time of some of them changed.
fn moved(tags: &[Tag], time: impl Fn(usize, &Tag) -> i64) -> Vec<Tag> {
    let moved = |(i, tag): (usize, &Tag)| Tag { timestamp: time(i, tag) as u32, ..tag.clone() };
    tags.iter().enumerate().map(moved).collect()
}

/// Index of the first picture that is due at `millis` or later and is no sync frame.
fn picture_at(tags: &[Tag], millis: u32) -> usize {
    tags.iter().position(|tag| tag.kind == 9 && tag.timestamp >= millis && !tag.is_sync()).unwrap()
}

/// All frames came; times never ran back within a track, and never by more than `most` ahead from one frame to
/// the next.
fn steady(played: &Recording, published: &Recording, most: i64) {
    for kind in [Kind::Video, Kind::Audio] {
        let (played, sent) = (played.of(kind), published.of(kind));
        let hashes = |list: &[&Packet]| list.iter().map(|packet| packet.hash.clone()).collect::<Vec<_>>();
        assert_eq!(hashes(&played), hashes(&sent), "{kind:?}");
        for (i, pair) in played.windows(2).enumerate() {
            let step = pair[1].dts - pair[0].dts;
            assert!((0..=most).contains(&step), "{kind:?}: a step of {step} ms at frame {}", i + 1);
        }
        for (played, sent) in played.iter().zip(&sent) {
            assert_eq!(played.pts - played.dts, sent.pts - sent.dts, "{kind:?}: pts - dts changed");
        }
    }
}

/// The distance of both tracks to what was sent, at the end of a recording.
fn shifts_at_the_end(played: &Recording, published: &Recording) -> (i64, i64) {
    let shift = |kind| played.of(kind).last().unwrap().dts - published.of(kind).last().unwrap().dts;
    (shift(Kind::Video), shift(Kind::Audio))
}

#[test]
fn one_frame_with_a_time_far_ahead_moves_nothing_but_itself() {
    needs!(Ffmpeg);
    let tags = Clip::Pyramid.tags();
    let stray = picture_at(&tags, 3000);
    let sent = moved(&tags, |i, tag| i64::from(tag.timestamp) + if i == stray { 3_600_000 } else { 0 });
    let played = Stage::new().play(&tags, &sent);
    let published = Recording::of_tags(&tags);
    steady(&played, &published, 100);
    assert_eq!(shifts_at_the_end(&played, &published), (0, 0));
}

#[test]
fn one_frame_with_a_time_far_back_moves_nothing_but_itself() {
    needs!(Ffmpeg);
    let tags = Clip::Pyramid.tags();
    let stray = picture_at(&tags, 3000);
    // An hour into the stream.
    let clock = moved(&tags, |_, tag| i64::from(tag.timestamp) + 3_600_000);
    let sent = moved(&clock, |i, tag| if i == stray { 0 } else { tag.timestamp.into() });
    let played = Stage::new().play(&tags, &sent);
    let published = Recording::of_tags(&clock);
    steady(&played, &published, 100);
    let (video, audio) = shifts_at_the_end(&played, &published);
    assert_eq!(video, audio);
}

#[test]
fn a_step_of_the_publishers_clock_ahead_for_good_is_not_followed() {
    needs!(Ffmpeg);
    let tags = Clip::Pyramid.tags();
    let from = picture_at(&tags, 3000);
    let sent = moved(&tags, |i, tag| i64::from(tag.timestamp) + if i >= from { 3_600_000 } else { 0 });
    let played = Stage::new().play(&tags, &sent);
    let published = Recording::of_tags(&tags);
    steady(&played, &published, 150);
    let (video, audio) = shifts_at_the_end(&played, &published);
    assert_eq!(video, audio, "sound and pictures were moved apart");
    assert!(video.abs() <= 100, "moved by {video} ms");
}

#[test]
fn a_step_of_the_publishers_clock_back_to_zero_is_not_followed() {
    needs!(Ffmpeg);
    let tags = Clip::Pyramid.tags();
    let from = picture_at(&tags, 3000);
    let zero = i64::from(tags[from].timestamp);
    let sent = moved(&tags, |i, tag| {
        if i >= from {
            (i64::from(tag.timestamp) - zero).max(0)
        } else {
            i64::from(tag.timestamp) + 7_200_000
        }
    });
    let played = Stage::new().play(&tags, &sent);
    let published = Recording::of_tags(&tags);
    steady(&played, &published, 150);
    let first = |kind| played.of(kind)[0].dts - published.of(kind)[0].dts;
    let (video, audio) = shifts_at_the_end(&played, &published);
    assert_eq!(first(Kind::Video), first(Kind::Audio));
    assert!((video - audio).abs() <= 50, "sound and pictures were moved apart by {} ms", video - audio);
    assert!((video - first(Kind::Video)).abs() <= 100, "moved by {} ms", video - first(Kind::Video));
}

#[test]
fn a_publisher_whose_clock_is_fast_or_slow_keeps_its_own_times() {
    needs!(Ffmpeg);
    let tags = Clip::Pyramid.tags();
    for (fast, slow) in [(3, 2), (1, 2)] {
        let clock = moved(&tags, |_, tag| i64::from(tag.timestamp) * slow / fast / 2);
        let played = Stage::new().play(&clock, &tags);
        played.must_be(&Recording::of_tags(&tags), Times::Exact, End::Complete);
    }
}

#[test]
fn a_long_pause_of_the_publisher_is_a_pause_for_players() {
    needs!(Ffmpeg);
    let tags = Clip::Plain.tags();
    let from = picture_at(&tags, 1000);
    let sent =
        moved(&tags[..from + 50], |i, tag| i64::from(tag.timestamp) + if i >= from { 4000 } else { 0 });
    let played = Stage::new().play(&sent, &sent);
    played.must_be(&Recording::of_tags(&sent), Times::Exact, End::Complete);
}

#[test]
fn pictures_shown_long_after_they_are_decoded_or_before_stay_so() {
    needs!(Ffmpeg);
    let tags = Clip::Pyramid.tags();
    // Composition offsets longer than the GOP of one second, up to the field's 24 bits, and below zero.
    let with = |offset: fn(usize) -> i32| {
        let change = |(i, tag): (usize, &Tag)| {
            let mut tag = tag.clone();
            if tag.kind == 9 && tag.packet().is_some() {
                tag.body[2..5].copy_from_slice(&offset(i).to_be_bytes()[1..]);
            }
            tag
        };
        tags.iter().enumerate().map(change).collect::<Vec<_>>()
    };
    let offsets: [fn(usize) -> i32; 3] = [
        |i| 1500 + (i as i32 % 4) * 40,
        |i| if i % 50 == 0 { 0x7F_FFFF } else { 80 },
        |i| (i as i32 % 4) * 40 - 80,
    ];
    for offset in offsets {
        let sent = with(offset);
        let half = moved(&sent, |_, tag| i64::from(tag.timestamp) / 3);
        let played = Stage::new().play(&half, &sent);
        played.must_be(&Recording::of_tags(&sent), Times::Exact, End::Complete);
    }
}

#[test]
fn many_pictures_of_one_time_stay_so() {
    needs!(Ffmpeg);
    let tags = Clip::Plain.tags();
    // Three by three, as encoders with a coarse clock send them.
    let sent = moved(&tags, |_, tag| i64::from(tag.timestamp / 120 * 120));
    let played = Stage::new().play(&moved(&tags, |_, tag| i64::from(tag.timestamp) / 2), &sent);
    played.must_be(&Recording::of_tags(&sent), Times::Exact, End::Complete);
}

#[test]
fn one_frame_with_time_zero_early_in_a_stream_moves_nothing_but_itself() {
    needs!(Ffmpeg);
    let tags = Clip::Plain.tags();
    let stray = picture_at(&tags, 3000);
    let sent = moved(&tags, |i, tag| if i == stray { 0 } else { tag.timestamp.into() });
    let played = Stage::new().play(&moved(&tags, |_, _| 0), &sent);
    let published = Recording::of_tags(&tags);
    steady(&played, &published, 100);
    let (video, audio) = shifts_at_the_end(&played, &published);
    assert_eq!(video, audio);
}

#[test]
fn one_frame_a_few_seconds_ahead_moves_nothing_but_itself() {
    needs!(Ffmpeg);
    let tags = Clip::Plain.tags();
    let stray = picture_at(&tags, 3000);
    let sent = moved(&tags, |i, tag| i64::from(tag.timestamp) + if i == stray { 5000 } else { 0 });
    let played = Stage::new().play(&moved(&tags, |_, _| 0), &sent);
    let published = Recording::of_tags(&tags);
    steady(&played, &published, 100);
    let (video, audio) = shifts_at_the_end(&played, &published);
    assert_eq!(video, audio);
}

#[test]
fn sound_that_is_sent_behind_its_pictures_keeps_its_distance_to_them() {
    needs!(Ffmpeg);
    let tags = Clip::Plain.tags();
    let first = tags.iter().find(|tag| tag.kind == 9 && tag.packet().is_some()).unwrap().timestamp;
    // What sounds before the first picture is shown would be before a player's time zero.
    let tags: Vec<_> = tags.into_iter().filter(|tag| tag.is_header() || tag.timestamp >= first).collect();
    let mut sent = tags.clone();
    sent.sort_by_key(|tag| tag.timestamp + if tag.kind == 8 { 1800 } else { 0 });
    let played = Stage::new().play(&moved(&sent, |_, _| 0), &sent);
    played.must_be(&Recording::of_tags(&tags), Times::Exact, End::Complete);
}
