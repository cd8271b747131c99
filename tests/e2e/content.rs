//! `content` as a filter: the other kind is dropped and not announced.

use av_tests::clip::Clip;
use av_tests::flv::Tag;
use av_tests::module::Module;
use av_tests::recording::{End, Kind, Recording, Times};
use av_tests::rtmp::{Player, Publisher, Value as Amf};
use av_tests::{needs, port};
use serde_json::{Value, json};

use crate::{cam, rtmp, twin};

/// What encoders say of pictures, of sound, and of neither.
const OF_VIDEO: [&str; 5] = ["width", "height", "framerate", "videodatarate", "videocodecid"];
const OF_AUDIO: [&str; 5] = ["audiocodecid", "audiodatarate", "audiosamplerate", "audiosamplesize", "stereo"];
const OF_NEITHER: [&str; 2] = ["encoder", "site"];

fn metadata(publisher: &mut Publisher) {
    let number = |name, number| (name, Amf::Number(number));
    publisher.metadata(&[
        number("width", 320.0),
        number("height", 180.0),
        number("framerate", 25.0),
        number("videodatarate", 500.0),
        number("videocodecid", 7.0),
        number("audiocodecid", 10.0),
        number("audiodatarate", 128.0),
        number("audiosamplerate", 48000.0),
        number("audiosamplesize", 16.0),
        ("stereo", Amf::Bool(true)),
        ("encoder", Amf::text("av-tests")),
        ("site", Amf::text("dock")),
    ]);
}

fn only(kind: Kind, tags: &[Tag]) -> Recording {
    let all = Recording::of_tags(tags);
    Recording(all.of(kind).into_iter().cloned().collect())
}

/// The player was told of these properties and of none of those, every time it was told.
fn told(player: &Player, of: &[&str], not: &[&str]) {
    let metadata = player.metadata();
    let last = metadata.iter().rfind(|values| values[0].as_text() == Some("onMetaData")).expect("onMetaData");
    for name in of.iter().chain(&OF_NEITHER) {
        assert!(last[1].get(name).is_some(), "no {name} in {last:?}");
    }
    for values in &metadata {
        let announced: Vec<_> =
            not.iter().filter(|name| values.iter().any(|v| v.get(name).is_some())).collect();
        assert!(announced.is_empty(), "{announced:?} in {values:?}");
    }
}

#[test]
fn an_output_gives_one_kind_and_speaks_of_no_other() {
    needs!(Ffmpeg);
    let port = port::free();
    let url = |name: &str| rtmp(port, &format!("live/{name}"));
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": { "input": { "listen": url("cam") }, "outputs": {
            "all": { "serve": url("cam") },
            "video": { "serve": url("video"), "content": "videoOnly" },
            "audio": { "serve": url("audio"), "content": "audioOnly" },
        } } })),
    );
    let names = ["cam", "video", "audio"];
    let early: Vec<_> = names.iter().map(|name| Player::keeping(&url(name))).collect();
    ["all", "video", "audio"].iter().for_each(|name| {
        splitter.wait_value(&format!("/flows/cam/outputs/{name}/clients"), 1);
    });
    let tags: Vec<_> = Clip::Pyramid.tags().into_iter().filter(|tag| tag.kind != 18).collect();
    let (first, rest) = tags.split_at(tags.len() / 2);
    let mut publisher = Publisher::to(&url("cam"));
    metadata(&mut publisher);
    publisher.play_out(first).unwrap();
    let late: Vec<_> = names.iter().map(|name| Player::keeping(&url(name))).collect();
    late[1].wait_frames(Kind::Video, 1);
    late[2].wait_frames(Kind::Audio, 1);
    publisher.play_out(rest).unwrap();

    let wanted = [Recording::of_tags(&tags), only(Kind::Video, &tags), only(Kind::Audio, &tags)];
    for players in [&early, &late] {
        for (player, wanted) in players.iter().zip(&wanted) {
            player.wait_last_of(wanted);
            player.recording().must_be(wanted, Times::Exact, End::Complete);
        }
        told(&players[0], &[OF_VIDEO, OF_AUDIO].concat(), &[]);
        told(&players[1], &OF_VIDEO, &OF_AUDIO);
        told(&players[2], &OF_AUDIO, &OF_VIDEO);
        let kinds = |player: &Player| player.tags().iter().map(|(tag, _)| tag.kind).collect::<Vec<_>>();
        assert!(!kinds(&players[1]).contains(&8), "a video-only player got an audio message");
        assert!(!kinds(&players[2]).contains(&9), "an audio-only player got a video message");
    }
    for name in ["all", "video", "audio"] {
        splitter.wait_value(&format!("/flows/cam/outputs/{name}/state"), "serving");
    }
}

#[test]
fn an_input_lets_one_kind_in_for_all_outputs() {
    needs!(Ffmpeg);
    let tags: Vec<_> = Clip::Plain.tags().into_iter().filter(|tag| tag.kind != 18).collect();
    for (content, kind, of, not) in
        [("videoOnly", Kind::Video, OF_VIDEO, OF_AUDIO), ("audioOnly", Kind::Audio, OF_AUDIO, OF_VIDEO)]
    {
        let (url, copy) = (rtmp(port::free(), "live/cam"), rtmp(port::free(), "live/cam"));
        let target = Module::start("rtmp-splitter", &cam(&copy, json!({}), json!({})));
        let mut document = cam(&url, json!({ "content": content }), json!({}));
        document["flows"]["cam"]["outputs"]["copy"] = json!({ "push": copy });
        let splitter = Module::start("rtmp-splitter", &document);
        let player = Player::start(&url);
        splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
        let pushed = Player::start(&copy);
        target.wait_value("/flows/cam/outputs/viewers/clients", 1);
        let mut publisher = Publisher::to(&url);
        metadata(&mut publisher);
        publisher.play_out(&tags).unwrap();
        let wanted = only(kind, &tags);
        for player in [&player, &pushed] {
            player.wait_last_of(&wanted);
            told(player, &of, &not);
            assert_eq!(player.recording().0.len(), player.recording().of(kind).len());
        }
        player.recording().must_be(&wanted, Times::Exact, End::Complete);
        let (shown, other) = if kind == Kind::Video { ("video", "audio") } else { ("audio", "video") };
        target.wait_status(&format!("/flows/cam/input/{shown}/codec"), Value::is_string);
        target.wait_status(&format!("/flows/cam/input/{other}"), Value::is_null);
        splitter.wait_value("/flows/cam/state", "running");
    }
}

#[test]
fn an_output_whose_kind_is_missing_waits_and_says_so() {
    needs!(Ffmpeg);
    let port = port::free();
    let url = |name: &str| rtmp(port, &format!("live/{name}"));
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({
            "cam": { "input": { "listen": url("cam") }, "outputs": {
                "all": { "serve": url("cam") },
                "served": { "serve": url("served"), "content": "audioOnly" },
                "pushed": { "push": url("copy"), "content": "audioOnly" },
            } },
            "copy": { "input": { "listen": url("copy") }, "outputs": {} },
        })),
    );
    let tags = Clip::VideoOnly.tags();
    let silent = Publisher::to(&url("cam")).run_endlessly(tags);
    splitter.wait_value("/flows/cam/outputs/all/state", "serving");
    let player = Player::start(&url("served"));
    for output in ["served", "pushed"] {
        let status = |key: &str| format!("/flows/cam/outputs/{output}/{key}");
        splitter.wait_status(&status("error"), |error| {
            error.as_str().is_some_and(|text| {
                text.contains(&format!("flows.cam.outputs.{output}")) && text.contains("audio")
            })
        });
        splitter.wait_value(&status("state"), "waiting");
    }
    // The input receives and one output serves: a wait is no fault of the flow.
    splitter.wait_value("/flows/cam/state", "running");
    splitter.wait_value("/flows/copy/state", "waiting");
    silent.stop();

    // Sound comes with the next publisher.
    let publishing = Publisher::to(&url("cam")).run_endlessly(Clip::Plain.tags());
    splitter.wait_value("/flows/cam/outputs/served/state", "serving");
    splitter.wait_value("/flows/cam/outputs/pushed/state", "pushing");
    splitter.wait_receiving("copy");
    for output in ["served", "pushed"] {
        splitter.wait_status(&format!("/flows/cam/outputs/{output}/error"), Value::is_null);
    }
    player.wait_frames(Kind::Audio, 10);
    assert_eq!(player.frames(Kind::Video), 0);
    publishing.stop();
}

#[test]
fn a_file_gives_one_kind_only() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/card");
    let source = Module::start(
        "mp4-source",
        &twin(json!({ "card": {
            "input": { "read": format!("file://{}", Clip::Plain.mp4().display()), "content": "audioOnly" },
            "outputs": { "viewers": { "serve": url } },
        } })),
    );
    let player = Player::start(&url);
    player.wait_frames(Kind::Audio, 100);
    assert_eq!(player.frames(Kind::Video), 0);
    source.wait_status("/flows/card/input/audio/codec", Value::is_string);
}

#[test]
fn filters_that_leave_nothing_are_an_error_of_the_output() {
    let port = port::free();
    let url = |name: &str| rtmp(port, &format!("live/{name}"));
    let flow = |name: &str, input: &str, output: &str| {
        json!({ "input": { "listen": url(name), "content": input },
                "outputs": { "viewers": { "serve": url(name), "content": output } } })
    };
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({
            "a": flow("a", "videoOnly", "audioOnly"),
            "b": flow("b", "audioOnly", "videoOnly"),
            "c": flow("c", "audioOnly", "audioVideo"),
        })),
    );
    for name in ["a", "b"] {
        splitter.wait_status(&format!("/config/errors/{name}"), |error| {
            error
                .as_str()
                .is_some_and(|text| text.starts_with(&format!("flows.{name}.outputs.viewers.content")))
        });
    }
    splitter.wait_value("/flows/c/state", "waiting");
    splitter.wait_status("/config/errors/c", Value::is_null);
}

#[test]
fn a_track_that_the_input_drops_says_so() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start("rtmp-splitter", &cam(&url, json!({ "content": "videoOnly" }), json!({})));
    let _publishing = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    splitter.wait_receiving("cam");
    splitter.wait_value("/flows/cam/input/audio/codec", "mp4a.40.2");
    splitter.wait_status("/flows/cam/input/audio/dropped", Value::is_string);
}
