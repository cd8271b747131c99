//! The tests' own tools against servers and players that are not ours: a fault found here is the harness's.

use av_tests::client::{PlayWith, PublishWith};
use av_tests::clip::Clip;
use av_tests::needs;
use av_tests::nginx::Nginx;
use av_tests::recording::{End, Kind, Recording, Times};
use av_tests::rtmp::{Player, Publisher};

use crate::rtmp;

#[test]
fn the_tests_own_player_sees_through_nginx_what_their_own_publisher_sends() {
    needs!(Ffmpeg, Nginx);
    let nginx = Nginx::start("");
    let url = rtmp(nginx.port, "live/own");
    let tags = Clip::Pyramid.tags();
    let published = Recording::of_tags(&tags);
    let player = Player::start(&url);

    let mut publisher = Publisher::to(&url);
    publisher.play_out(&tags).unwrap();
    player.wait_last_of(&published);
    publisher.finish().unwrap();

    // nginx drops all before the first sync frame after it has noticed the player, and shifts each track to
    // its own zero.
    let played = player.recording();
    assert!(played.of(Kind::Video).len() > 100, "{}", played.of(Kind::Video).len());
    for kind in [Kind::Video, Kind::Audio] {
        let only = |recording: &Recording| Recording(recording.of(kind).into_iter().cloned().collect());
        only(&played).must_be(&only(&published), Times::Exact, End::Complete);
    }
}

#[test]
fn every_player_sees_through_nginx_what_ffmpeg_publishes() {
    needs!(Ffmpeg, Ffprobe, Gst, Rtmpdump, Nginx);
    let nginx = Nginx::start("");
    let url = rtmp(nginx.port, "live/ffmpeg");
    let players = [PlayWith::Ffmpeg, PlayWith::Ffprobe, PlayWith::Gst, PlayWith::Rtmpdump];
    let publication = PublishWith::Ffmpeg.start(Clip::Pyramid, &url);
    let own = Player::start(&url);
    own.wait_frames(Kind::Video, 1);
    let playing: Vec<_> = players.iter().map(|player| (player, player.start(&url))).collect();
    let published = publication.finish();
    own.wait_last_of(&published);
    // Its players would stay for the next publisher.
    drop(nginx);
    for (player, playback) in playing {
        let played = playback.finish();
        assert!(played.of(Kind::Video).len() > 20, "{player:?} played {}", played.of(Kind::Video).len());
        let only =
            |recording: &Recording| Recording(recording.of(Kind::Video).into_iter().cloned().collect());
        if let Err(wrong) = only(&played).compare(&only(&published), player.times(), End::Anywhere) {
            panic!("{player:?}: {wrong}");
        }
    }
}

#[test]
fn frames_of_an_endless_publisher_can_be_told_apart() {
    needs!(Ffmpeg, Nginx);
    let nginx = Nginx::start("");
    let url = rtmp(nginx.port, "live/endless");
    let player = Player::start(&url);
    let publishing = Publisher::to(&url).run_endlessly(Clip::Pyramid.tags());
    // Into the second round of 150 pictures.
    player.wait_frames(Kind::Video, 180);
    let sent = publishing.stop();
    player.wait_last_of(&sent);
    for kind in [Kind::Video, Kind::Audio] {
        let only = |recording: &Recording| Recording(recording.of(kind).into_iter().cloned().collect());
        only(&player.recording()).must_be(&only(&sent), Times::Exact, End::Complete);
        let hashes: std::collections::HashSet<_> =
            sent.of(kind).iter().map(|packet| packet.hash.clone()).collect();
        assert_eq!(hashes.len(), sent.of(kind).len(), "two {kind:?} frames look alike");
    }
}
