//! Many players, and one that does not keep up.

use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::recording::{End, Kind, Recording, Times};
use av_tests::rtmp::{Player, Publisher, Reading};
use av_tests::{needs, port};
use serde_json::json;

use crate::{rtmp, twin};

fn splitter(url: &str) -> Module {
    Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": { "input": { "listen": url }, "outputs": { "viewers": { "serve": url } } } })),
    )
}

#[test]
fn one_player_of_twenty_stops_reading_and_the_others_lose_nothing() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = splitter(&url);
    let tags = Clip::Heavy.tags();
    let published = Recording::of_tags(&tags);
    let slow = Player::with_buffer(&url, Some(64 * 1024));
    let others: Vec<_> = (0..19).map(|_| Player::start(&url)).collect();
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 20);

    let mut publisher = Publisher::to(&url);
    // What runs of the stream before memory is looked at: the ring and the GOP cache are full by then.
    let (begin, rest) = tags.split_at(tags.len() / 3);
    publisher.play_out(begin).unwrap();
    slow.wait_frames(Kind::Video, 1);
    let address = slow.address();
    slow.set(Reading::Off);
    let before = splitter.program().resident_bytes();
    publisher.play_out(rest).unwrap();

    for player in &others {
        player.wait_last_of(&published);
        let found = player.recording().must_be(&published, Times::Exact, End::Complete);
        assert_eq!(found.head, 0);
    }
    let grown = splitter.program().resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "memory grew by {} KiB for one player", grown / 1024);
    let dropped = av_tests::wait::until("drops are counted", av_tests::wait::LONG, || {
        splitter
            .metrics()
            .sum("av_output_frames_dropped_total", &[("flow", "cam")])
            .filter(|count| *count > 0.0)
    });
    assert!(dropped > 0.0);
    splitter.wait_log(&[&address.to_string(), "slow"]);
}

#[test]
fn a_slow_player_goes_on_at_a_sync_frame() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = splitter(&url);
    let slow = Player::with_buffer(&url, Some(64 * 1024));
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let tags = Clip::Heavy.tags();
    let sync: Vec<_> =
        tags.iter().filter(|tag| tag.is_sync()).filter_map(|tag| Some(tag.packet()?.hash)).collect();
    let publishing = Publisher::to(&url).run_endlessly(tags);
    slow.wait_frames(Kind::Video, 1);
    slow.set(Reading::Off);
    av_tests::wait::until_true("frames were dropped", av_tests::wait::LONG, || {
        splitter
            .metrics()
            .sum("av_output_frames_dropped_total", &[("flow", "cam")])
            .is_some_and(|count| count > 0.0)
    });
    slow.set(Reading::On);
    let sent_so_far = slow.frames(Kind::Video);
    slow.wait_frames(Kind::Video, sent_so_far + 100);
    let sent = publishing.stop();

    // Where a picture does not follow the one sent before it, it is a sync frame.
    let order: Vec<_> = sent.of(Kind::Video).into_iter().map(|packet| packet.hash.clone()).collect();
    let at = |hash: &str| order.iter().position(|sent| sent == hash).expect("a picture that was sent");
    let played = slow.recording();
    let mut jumps = 0;
    for pair in played.of(Kind::Video).windows(2) {
        let (from, to) = (at(&pair[0].hash), at(&pair[1].hash));
        if to != from + 1 {
            assert!(to > from, "went back from picture {from} to {to}");
            // Later rounds carry a mark, so compare by place in the clip.
            assert!(to % 25 == 0 || sync.contains(&pair[1].hash), "went on at picture {to}, no sync frame");
            jumps += 1;
        }
    }
    assert!(jumps >= 1, "nothing was skipped");
}

#[test]
fn sound_does_not_wait_for_the_next_picture() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = splitter(&url);
    let player = Player::start(&url);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let tags = Clip::OnePictureASecond.tags();
    let mut publisher = Publisher::to(&url);
    let (mut video, mut audio) = (0, 0);
    // Each frame is sent when the one before has been played: an audio frame that is held back for a picture
    // that is not sent yet would hold up the test for ever.
    for tag in &tags {
        publisher.send(tag).unwrap();
        let Some(packet) = tag.packet() else { continue };
        match packet.kind {
            Kind::Video => video += 1,
            // A player starts at a picture: what came before it is not for it.
            Kind::Audio if video == 0 => {}
            Kind::Audio => audio += 1,
        }
        // Outputs wait a second for the second track.
        if video > 0 && audio > 0 {
            player.wait_frames(Kind::Audio, audio);
            player.wait_frames(Kind::Video, video);
        }
    }
    assert!(audio > 300 && video >= 7, "{audio} audio frames, {video} pictures");
}

#[test]
fn more_players_than_one_task_takes_all_get_everything() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = splitter(&url);
    let tags: Vec<_> = Clip::VideoOnly.tags().into_iter().filter(|tag| tag.timestamp <= 3000).collect();
    let published = Recording::of_tags(&tags);
    let mut players: Vec<_> = (0..290).map(|_| Player::start(&url)).collect();
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 290);
    let mut publisher = Publisher::to(&url);
    let (begin, rest) = tags.split_at(tags.len() / 2);
    publisher.play_out(begin).unwrap();
    // Some leave in the middle, from the front and from behind, and some come.
    players.drain(280..);
    players.drain(..5);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 275);
    let late: Vec<_> = (0..10).map(|_| Player::start(&url)).collect();
    late.iter().for_each(|player| player.wait_frames(Kind::Video, 1));
    publisher.play_out(rest).unwrap();
    for player in players.iter().chain(&late) {
        player.wait_last_of(&published);
        player.recording().must_be(&published, Times::Exact, End::Complete);
    }
    splitter.wait_value("/flows/cam/outputs/viewers/framesDropped", 0);
    drop(splitter.terminate());
    players.iter().chain(&late).for_each(|player| drop(player.wait_end()));
}
