//! A stream outlives its publisher.

use std::time::Duration;

use av_tests::client::PlayWith;
use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::port;
use av_tests::recording::{End, Kind, Recording, Times};
use av_tests::rtmp::{Player, Publisher};
use av_tests::{long_only, needs};
use serde_json::{Value, json};

use crate::{rtmp, twin};

fn splitter(url: &str, options: &Value) -> Module {
    let mut input = json!({ "listen": url });
    input.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": { "input": input, "outputs": { "viewers": { "serve": url } } } })),
    )
}

/// A publisher is killed, comes back after `away`, and starts its clock at zero again.
fn publisher_comes_back_after(away: Duration) {
    needs!(Ffmpeg, Rtmpdump);
    let url = rtmp(port::free(), "live/cam");
    let splitter = splitter(&url, &json!({}));
    let tags = Clip::Pyramid.tags();
    let published = Recording::of_tags(&tags);
    let own = Player::start(&url);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);

    let mut first = Publisher::to(&url);
    first.play_out(&tags).unwrap();
    own.wait_last_of(&published);
    let mut rtmpdump = PlayWith::Rtmpdump.start(&url);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 2);
    // No farewell: the process died.
    drop(first);
    splitter.wait_value("/flows/cam/input/state", "waiting");
    std::thread::sleep(away);

    let second: Vec<_> =
        tags.iter().filter_map(|tag| tag.in_round(1, 0).or_else(|| Some(tag.clone()))).collect();
    let again = Recording::of_tags(&second);
    let mut publisher = Publisher::to(&url);
    publisher.play_out(&second).unwrap();
    own.wait_last_of(&again);

    assert_eq!(own.ended(), None, "the player was disconnected");
    assert!(rtmpdump.playing(), "rtmpdump was disconnected");
    let all = own.recording();
    let (before, after): (Vec<_>, Vec<_>) =
        all.0.iter().cloned().partition(|packet| published.0.iter().any(|sent| sent.hash == packet.hash));
    Recording(before).must_be(&published, Times::Exact, End::Complete);
    Recording(after).must_be(&again, Times::Exact, End::Complete);
    for kind in [Kind::Video, Kind::Audio] {
        for pair in all.of(kind).windows(2) {
            assert!(pair[0].dts <= pair[1].dts, "{kind:?} time went back: {pair:?}");
        }
    }

    drop(publisher);
    assert_eq!(splitter.terminate().status.code(), Some(0));
    let played = rtmpdump.finish();
    for pair in played.of(Kind::Video).windows(2) {
        assert!(pair[0].dts <= pair[1].dts, "rtmpdump saw time go back: {pair:?}");
    }
    // What was still under way when the splitter ended is the system's.
    let last = &played.of(Kind::Video).last().unwrap().hash;
    assert!(again.of(Kind::Video).iter().any(|sent| sent.hash == *last), "rtmpdump played on");
}

#[test]
fn players_stay_when_the_publisher_is_away_for_two_seconds() {
    publisher_comes_back_after(Duration::from_secs(2));
}

#[test]
fn players_stay_when_the_publisher_is_away_for_twenty_seconds() {
    long_only!();
    publisher_comes_back_after(Duration::from_secs(20));
}

#[test]
fn players_are_sent_away_where_the_flow_says_close() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = splitter(&url, &json!({ "onPublisherLoss": "close" }));
    let tags = Clip::Plain.tags();
    let mut publisher = Publisher::to(&url);
    tags.iter().take(100).for_each(|tag| publisher.send(tag).unwrap());
    splitter.wait_receiving("cam");
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 1);
    drop(publisher);
    player.wait_end();
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 0);
}

#[test]
fn a_second_publisher_takes_over_and_the_first_one_does_not_take_back() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = splitter(&url, &json!({ "onSecondPublisher": "takeover" }));
    let tags = Clip::Plain.tags();
    let first = Publisher::to(&url).run_endlessly(tags.clone());
    splitter.wait_receiving("cam");
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 10);

    let second = Publisher::to(&url).run_endlessly(tags.clone());
    // The first one is cut off; it tries again at once, as encoders do. Both have one address and call themselves the
    // same: what tells them apart is that the first was sending when it was cut off.
    let refused = av_tests::wait::until("the displaced publisher is refused", av_tests::wait::LONG, || {
        Publisher::start(&url).ok()?.err()
    });
    assert_eq!(refused.code, "NetStream.Publish.BadName", "{refused:?}");
    drop(first);

    let before = player.frames(Kind::Video);
    player.wait_frames(Kind::Video, before + 50);
    assert_eq!(player.ended(), None, "the player stays through a takeover");
    let sent = second.stop();
    player.wait_last_of(&sent);
    for pair in player.recording().of(Kind::Video).windows(2) {
        assert!(pair[0].dts <= pair[1].dts, "time went back: {pair:?}");
    }
}

#[test]
fn an_encoder_whose_network_comes_and_goes_is_let_in_each_time() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = splitter(&url, &json!({ "idleTimeoutSeconds": 30 }));
    let tags = Clip::Plain.tags();
    let mut silent = Vec::new();
    for _ in 0..4 {
        // Refused, it panics.
        let mut publisher = Publisher::to(&url);
        publisher.play_out(&tags[..150]).unwrap();
        splitter.wait_status("/flows/cam/input/bitrateBps", |rate| *rate != 0);
        // Its network is gone: nothing more comes, and nobody closes the connection.
        silent.push(publisher);
        splitter.wait_value("/flows/cam/input/bitrateBps", 0);
    }
}

#[test]
fn a_second_publisher_is_refused_where_the_flow_says_reject() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = splitter(&url, &json!({ "onSecondPublisher": "reject" }));
    let first = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    splitter.wait_receiving("cam");
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 1);

    let refused = Publisher::start(&url).unwrap().err().expect("refused");
    assert_eq!(refused.code, "NetStream.Publish.BadName", "{refused:?}");
    splitter.wait_log(&["flow=cam", "refused", "another publisher is live", "127.0.0.1:"]);

    let sent = first.stop();
    player.wait_last_of(&sent);
    player.recording().must_be(&sent, Times::Exact, End::Complete);
}

#[test]
fn a_displaced_publisher_is_welcome_again_when_the_other_is_gone() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = splitter(&url, &json!({}));
    let tags = Clip::Plain.tags();
    let first = Publisher::to(&url).run_endlessly(tags.clone());
    splitter.wait_receiving("cam");
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 5);
    let second = Publisher::to(&url).run_endlessly(tags.clone());
    av_tests::wait::until("the displaced publisher is refused", av_tests::wait::LONG, || {
        Publisher::start(&url).ok()?.err()
    });
    drop(first);
    second.stop();
    splitter.wait_value("/flows/cam/input/state", "waiting");
    let _first = Publisher::to(&url).run_endlessly(tags);
    let before = player.frames(Kind::Video);
    player.wait_frames(Kind::Video, before + 10);
    for pair in player.recording().of(Kind::Video).windows(2) {
        assert!(pair[0].dts <= pair[1].dts, "time went back: {pair:?}");
    }
    assert_eq!(player.ended(), None);
}

#[test]
fn one_connection_may_publish_again_and_again() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = splitter(&url, &json!({}));
    let tags = Clip::Plain.tags();
    let player = Player::start(&url);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let mut publisher = Publisher::to(&url);
    for _ in 0..3 {
        let before = player.frames(Kind::Video);
        publisher.play_out(&tags[..80]).unwrap();
        player.wait_frames(Kind::Video, before + 20);
        publisher.stop().unwrap();
        splitter.wait_value("/flows/cam/input/state", "waiting");
        publisher.again(&url).unwrap();
    }
    assert_eq!(player.ended(), None);
}
