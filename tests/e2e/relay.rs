//! Push and pull: to and from nginx, and between splitters.

use av_tests::client::{PlayWith, PublishWith};
use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::nginx::Nginx;
use av_tests::recording::{End, Kind, Recording, Times};
use av_tests::rtmp::{Player, Publisher};
use av_tests::{needs, port};
use serde_json::json;

use crate::{rtmp, twin};

fn only(recording: &Recording, kind: Kind) -> Recording {
    Recording(recording.of(kind).into_iter().cloned().collect())
}

#[test]
fn a_push_to_nginx_arrives_whole() {
    needs!(Ffmpeg, Nginx);
    let nginx = Nginx::start("");
    let (url, target) = (rtmp(port::free(), "live/cam"), rtmp(nginx.port, "live/pushed"));
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": { "input": { "listen": url }, "outputs": { "cloud": { "push": target } } } })),
    );
    let player = Player::start(&target);
    let publication = PublishWith::Ffmpeg.start(Clip::Pyramid, &url);
    splitter.wait_value("/flows/cam/outputs/cloud/state", "pushing");
    let published = publication.finish();
    player.wait_last_of(&published);
    // nginx gives each track a zero of its own.
    for kind in [Kind::Video, Kind::Audio] {
        only(&player.recording(), kind).must_be(&only(&published, kind), Times::Exact, End::Complete);
    }
}

#[test]
fn a_pull_from_nginx_arrives_whole() {
    needs!(Ffmpeg, Nginx);
    let nginx = Nginx::start("");
    let (source, url) = (rtmp(nginx.port, "live/source"), rtmp(port::free(), "live/cam"));
    let publication = PublishWith::Ffmpeg.start(Clip::Pyramid, &source);
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": { "input": { "pull": source }, "outputs": { "viewers": { "serve": url } } } })),
    );
    splitter.wait_receiving("cam");
    let player = Player::start(&url);
    let published = publication.finish();
    player.wait_last_of(&published);
    for kind in [Kind::Video, Kind::Audio] {
        only(&player.recording(), kind).must_be(&only(&published, kind), Times::Exact, End::Complete);
    }
}

#[test]
fn a_push_whose_target_dies_comes_back_and_costs_the_players_nothing() {
    needs!(Ffmpeg);
    let (url, target) = (rtmp(port::free(), "live/cam"), rtmp(port::free(), "live/copy"));
    let second = || {
        Module::start(
            "rtmp-splitter",
            &twin(
                json!({ "copy": { "input": { "listen": target }, "outputs": { "viewers": { "serve": target } } } }),
            ),
        )
    };
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": { "input": { "listen": url }, "outputs": {
            "viewers": { "serve": url },
            "copy": { "push": target, "retry": { "initialMilliseconds": 100, "maxSeconds": 1 } },
        } } })),
    );
    let publishing = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    splitter.wait_receiving("cam");
    let player = Player::start(&url);
    splitter.wait_value("/flows/cam/outputs/copy/state", "retrying");
    splitter.wait_value("/flows/cam/state", "retrying");
    splitter.wait_status("/flows/cam/outputs/copy/error", |error| {
        error.as_str().is_some_and(|text| !text.is_empty() && text.len() <= 512)
    });
    for _ in 0..2 {
        let copy = second();
        copy.wait_receiving("copy");
        splitter.wait_value("/flows/cam/outputs/copy/state", "pushing");
        Player::start(&target).wait_frames(Kind::Video, 10);
        drop(copy);
        splitter.wait_value("/flows/cam/outputs/copy/state", "retrying");
    }
    let sent = publishing.stop();
    player.wait_last_of(&sent);
    player.recording().must_be(&sent, Times::Exact, End::Complete);
}

#[test]
fn two_splitters_in_cascade_by_pull() {
    needs!(Ffmpeg, Ffprobe, Rtmpdump);
    let (first_url, second_url) = (rtmp(port::free(), "live/cam"), rtmp(port::free(), "live/cam"));
    let first = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": {
            "input": { "listen": first_url, "onPublisherLoss": "close" },
            "outputs": { "viewers": { "serve": first_url } },
        } })),
    );
    let second = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": {
            "input": { "pull": first_url, "retry": { "initialMilliseconds": 100, "maxSeconds": 1 } },
            "outputs": { "viewers": { "serve": second_url } },
        } })),
    );
    let early = Player::start(&second_url);
    let publication = PublishWith::Ffmpeg.start(Clip::Pyramid, &first_url);
    first.wait_receiving("cam");
    second.wait_receiving("cam");
    let rtmpdump = PlayWith::Rtmpdump.start(&second_url);
    let published = publication.finish();
    early.wait_last_of(&published);
    early.recording().must_be(&published, Times::Exact, End::Complete);
    assert_eq!(second.terminate().status.code(), Some(0));
    let played = rtmpdump.finish();
    assert!(played.of(Kind::Video).len() >= 25);
    played.must_be(&published, Times::Exact, End::Complete);
}

#[test]
fn a_pull_that_reconnects_shows_no_frame_twice() {
    needs!(Ffmpeg);
    let (first_url, second_url) = (rtmp(port::free(), "live/cam"), rtmp(port::free(), "live/cam"));
    let document = |extra: bool| {
        let mut outputs = json!({ "viewers": { "serve": first_url } });
        if extra {
            outputs["moved"] = json!({ "serve": first_url.replace("live/cam", "live/moved") });
        }
        twin(json!({ "cam": { "input": { "listen": first_url }, "outputs": outputs } }))
    };
    let first = Module::start("rtmp-splitter", &document(true));
    let second = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": {
            "input": { "pull": first_url.replace("live/cam", "live/moved"),
                       "retry": { "initialMilliseconds": 100, "maxSeconds": 1 } },
            "outputs": { "viewers": { "serve": second_url } },
        } })),
    );
    let publishing = Publisher::to(&first_url).run_endlessly(Clip::Pyramid.tags());
    second.wait_receiving("cam");
    let player = Player::start(&second_url);
    player.wait_frames(Kind::Video, 10);
    for _ in 0..3 {
        // Its output goes and comes back: the stream behind it never stops.
        first.set_twin(&document(false));
        second.wait_status("/flows/cam/input/state", |state| state != "receiving");
        first.set_twin(&document(true));
        second.wait_receiving("cam");
        let frames = player.frames(Kind::Video);
        player.wait_frames(Kind::Video, frames + 10);
    }
    let sent = publishing.stop();
    player.wait_last_of(&sent);
    let played = player.recording();
    for kind in [Kind::Video, Kind::Audio] {
        let mut seen = std::collections::HashSet::new();
        let twice = played.of(kind).into_iter().find(|packet| !seen.insert(packet.hash.clone()));
        assert_eq!(twice, None, "came twice");
        for pair in played.of(kind).windows(2) {
            assert!(pair[0].dts <= pair[1].dts, "time went back: {pair:?}");
        }
    }
    assert_eq!(player.ended(), None);
}

#[test]
fn a_pattern_flow_runs_an_instance_for_each_published_name() {
    needs!(Ffmpeg);
    let port = port::free();
    let (input, output) = (rtmp(port, "live/*"), rtmp(port, "watch/{match}"));
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "all": {
            "input": { "listen": input, "maxInstances": 2, "onPublisherLoss": "close" },
            "outputs": { "viewers": { "serve": output } },
        } })),
    );
    let tags = Clip::Plain.tags();
    let one = Publisher::to(&rtmp(port, "live/one")).run_endlessly(tags.clone());
    let two = Publisher::to(&rtmp(port, "live/two.b")).run_endlessly(tags.clone());
    splitter.wait_value("/flows/all/instances/active", 2);
    let player = Player::start(&rtmp(port, "watch/one"));
    player.wait_frames(Kind::Video, 10);
    Player::start(&rtmp(port, "watch/two.b")).wait_frames(Kind::Video, 10);

    let refused = Publisher::start(&rtmp(port, "live/three")).unwrap().err().expect("beyond maxInstances");
    assert!(refused.code.starts_with("NetStream.Publish."), "{refused:?}");
    splitter.wait_value("/flows/all/instances/refused", 1);

    let sent = one.stop();
    player.wait_end();
    player.recording().must_be(&sent, Times::Exact, End::Complete);
    splitter.wait_value("/flows/all/instances/active", 1);
    two.stop();
}
