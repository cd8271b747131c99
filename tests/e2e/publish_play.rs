//! A real publisher, the splitter, real players: every frame, every time.

use av_tests::client::{PlayWith, PublishWith};
use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::recording::{End, Kind, Recording, Times};
use av_tests::rtmp::Player;
use av_tests::{needs, port, tool};
use serde_json::json;

use crate::{cam, rtmp, twin};

use PlayWith::{Ffmpeg, Ffmpeg9, Ffprobe, Gst, Rtmpdump};

/// Publishes `clip` through a splitter to all `players` at once, and to one of the tests' own.
fn walk(clip: Clip, publisher: PublishWith, players: &[PlayWith]) {
    walk_at("live/cam", clip, publisher, players);
}

fn walk_at(path: &str, clip: Clip, publisher: PublishWith, players: &[PlayWith]) {
    let url = rtmp(port::free(), path);
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": {
            "input": { "listen": url, "onPublisherLoss": "close", "idleTimeoutSeconds": 120 },
            "outputs": { "viewers": { "serve": url } },
        } })),
    );
    let publication = publisher.start(clip, &url);
    splitter.wait_receiving("cam");
    // The clip must not end before the last player is there, however long it takes to start.
    publication.pause();
    let own = Player::start(&url);
    let playing: Vec<_> = players.iter().map(|player| (*player, player.start(&url))).collect();
    splitter.wait_value("/flows/cam/outputs/viewers/clients", players.len() as u64 + 1);
    publication.resume();

    let mut published = publication.finish();
    own.wait_end();
    let own = own.recording();
    if publisher == PublishWith::Gst {
        // rtmp2sink lets go of what it holds when it ends: what it sent ends where all that was taken does.
        published.end_with(&own);
    }
    own.must_be(&published, Times::Exact, End::Complete);
    for (player, playback) in playing {
        let played = playback.finish();
        // rtmp2src lets go of what it holds when the server closes: the last frames may be in it.
        let end = if player == Gst { End::Anywhere } else { End::Complete };
        let found = match played.compare(&published, player.times(), end) {
            Ok(found) => found,
            Err(wrong) => panic!("{publisher:?} to {player:?}: {wrong}\n{}", splitter.log()),
        };
        assert!(found.video + found.audio >= 25, "{player:?} saw too little to tell: {found:?}");
        let last = |recording: &Recording| recording.0.iter().map(|packet| packet.dts).max().unwrap();
        let early = last(&published) - (last(&played) - found.shift);
        let most = if player == Gst { 1000 } else { 50 };
        assert!(early <= most, "{player:?} lost the last {early} ms");
        for kind in [Kind::Video, Kind::Audio] {
            assert_eq!(played.of(kind).is_empty(), published.of(kind).is_empty(), "{player:?}: {kind:?}");
        }
    }
    assert_eq!(splitter.terminate().status.code(), Some(0));
}

/// ffmpeg asks for `mp4:cam.mp4` and for `cam`, librtmp for `mp4:cam`.
#[test]
fn a_path_that_ends_like_a_file_is_reached_by_whatever_clients_make_of_it() {
    needs!(Ffmpeg, Rtmpdump, Gst);
    for path in ["live/cam.mp4", "live/cam.flv"] {
        walk_at(path, Clip::Plain, PublishWith::Ffmpeg, &[Ffmpeg, Rtmpdump, Gst]);
    }
}

#[test]
fn plain_h264_from_ffmpeg() {
    needs!(Ffmpeg, Ffprobe, Gst, Rtmpdump, Ffmpeg9);
    walk(Clip::Plain, PublishWith::Ffmpeg, &[Ffmpeg, Ffmpeg9, Ffprobe, Gst, Rtmpdump]);
}

#[test]
fn plain_h264_from_ffmpeg_9() {
    needs!(Ffmpeg, Ffprobe, Gst, Rtmpdump, Ffmpeg9);
    walk(Clip::Plain, PublishWith::Ffmpeg9, &[Ffmpeg, Ffmpeg9, Ffprobe, Gst, Rtmpdump]);
}

#[test]
fn plain_h264_from_gstreamer() {
    needs!(Ffmpeg, Ffprobe, Gst, Rtmpdump, Ffmpeg9);
    walk(Clip::Plain, PublishWith::Gst, &[Ffmpeg, Ffmpeg9, Ffprobe, Gst, Rtmpdump]);
}

#[test]
fn a_pyramid_of_b_frames_from_ffmpeg() {
    needs!(Ffmpeg, Ffprobe, Gst, Rtmpdump, Ffmpeg9);
    walk(Clip::Pyramid, PublishWith::Ffmpeg, &[Ffmpeg, Ffmpeg9, Ffprobe, Gst, Rtmpdump]);
}

#[test]
fn a_pyramid_of_b_frames_from_ffmpeg_9() {
    needs!(Ffmpeg, Ffprobe, Gst, Rtmpdump, Ffmpeg9);
    walk(Clip::Pyramid, PublishWith::Ffmpeg9, &[Ffmpeg, Ffmpeg9, Ffprobe, Gst, Rtmpdump]);
}

#[test]
fn a_pyramid_of_b_frames_from_gstreamer() {
    needs!(Ffmpeg, Ffprobe, Gst, Rtmpdump, Ffmpeg9);
    walk(Clip::Pyramid, PublishWith::Gst, &[Ffmpeg, Ffmpeg9, Ffprobe, Gst, Rtmpdump]);
}

#[test]
fn sound_alone() {
    needs!(Ffmpeg, Ffprobe, Gst, Rtmpdump);
    walk(Clip::AudioOnly, PublishWith::Ffmpeg, &[Ffmpeg, Ffprobe, Gst, Rtmpdump]);
}

#[test]
fn pictures_alone() {
    needs!(Ffmpeg, Ffprobe, Gst, Rtmpdump);
    walk(Clip::VideoOnly, PublishWith::Ffmpeg, &[Ffmpeg, Ffprobe, Gst, Rtmpdump]);
}

#[test]
fn h265_by_enhanced_rtmp() {
    needs!(Ffmpeg9, Rtmpdump, Gst);
    walk(Clip::H265, PublishWith::Ffmpeg9, &[Ffmpeg9, Rtmpdump, Gst]);
}

#[test]
fn av1_and_opus_by_enhanced_rtmp() {
    needs!(Ffmpeg9, Rtmpdump, Gst);
    walk(Clip::Av1Opus, PublishWith::Ffmpeg9, &[Ffmpeg9, Rtmpdump, Gst]);
}

#[test]
fn codecs_are_reported_as_they_are() {
    needs!(Ffmpeg9);
    for (clip, video, audio) in [
        (Clip::Plain, "avc1.", "mp4a.40.2"),
        (Clip::H265, "hvc1.", "mp4a.40.2"),
        (Clip::Av1Opus, "av01.", "opus"),
    ] {
        let url = rtmp(port::free(), "live/cam");
        let splitter = Module::start(
            "rtmp-splitter",
            &twin(
                json!({ "cam": { "input": { "listen": url }, "outputs": { "viewers": { "serve": url } } } }),
            ),
        );
        let _publication = PublishWith::Ffmpeg9.start(clip, &url);
        let starts = |value: &serde_json::Value, prefix: &str| {
            value.as_str().is_some_and(|codec| codec.to_ascii_lowercase().starts_with(prefix))
        };
        splitter.wait_status("/flows/cam/input/video/codec", |codec| starts(codec, video));
        splitter.wait_status("/flows/cam/input/audio/codec", |codec| starts(codec, audio));
        splitter.wait_value("/flows/cam/input/video/width", 320);
        splitter.wait_value("/flows/cam/input/audio/sampleRate", 48000);
    }
}

#[test]
fn a_player_that_came_before_the_publisher_gets_the_stream_from_its_first_frame() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": { "input": { "listen": url }, "outputs": { "viewers": { "serve": url } } } })),
    );
    let early = Player::start(&url);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let published = PublishWith::Ffmpeg.start(Clip::Pyramid, &url).finish();
    early.wait_last_of(&published);
    let found = early.recording().must_be(&published, Times::Exact, End::Complete);
    assert_eq!(found.head, 0);
    assert_eq!(early.ended(), None, "onPublisherLoss is hold: the player stays");
}

#[test]
fn one_listener_has_clients_by_ipv6_and_by_ipv4() {
    needs!(Ffmpeg, Rtmpdump);
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return tool::skip("publish_play::one_listener_has_clients_by_ipv6_and_by_ipv4", "no IPv6 here");
    }
    let port = port::free();
    let url = |host: &str| format!("rtmp://{host}:{port}/live/cam");
    let splitter = Module::start(
        "rtmp-splitter",
        &cam(&url("[::]"), json!({ "onPublisherLoss": "close", "allow": ["::1"] }), json!({})),
    );
    let players = [Ffmpeg.start(&url("[::1]")), Rtmpdump.start(&url("127.0.0.1"))];
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 2);
    let published = PublishWith::Ffmpeg.start(Clip::Plain, &url("[::1]")).finish();
    for (playback, player) in players.into_iter().zip([Ffmpeg, Rtmpdump]) {
        playback.finish().must_be(&published, player.times(), End::Complete);
    }
}

#[test]
fn the_test_card_tells_its_frame_numbers() {
    needs!(Ffmpeg, Python);
    let card = tool::test_card();
    let read = tool::tests_dir().join("testcard/read.py");
    let read = av_tests::program::Program::run(
        tool::Tool::Python.command().arg(read).arg(card),
        av_tests::wait::LONG,
    );
    let numbers: Vec<usize> = read.stdout.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (0..240).collect::<Vec<_>>());
}
