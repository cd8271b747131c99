//! A change to one flow never costs another flow, nor the flow's other outputs, a frame.

use std::time::{Duration, Instant};

use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::recording::{End, Kind, Times};
use av_tests::rtmp::{Player, Publisher};
use av_tests::{needs, port};
use serde_json::{Map, Value, json};

use crate::{long, rtmp, twin};

fn flow(url: &str) -> Value {
    json!({ "input": { "listen": url }, "outputs": { "viewers": { "serve": url } } })
}

#[test]
fn one_of_twenty_flows_is_edited_200_times_and_the_others_lose_nothing() {
    needs!(Ffmpeg);
    let port = port::free();
    let mut steady: Map<String, Value> =
        (1..20).map(|n| (format!("cam{n:02}"), flow(&rtmp(port, &format!("live/cam{n:02}"))))).collect();
    let splitter = Module::start("rtmp-splitter", &twin(Value::Object(steady.clone())));
    let tags = Clip::Plain.tags();
    let urls: Vec<_> = steady.keys().map(|name| rtmp(port, &format!("live/{name}"))).collect();
    let publishing: Vec<_> = urls.iter().map(|url| Publisher::to(url).run_endlessly(tags.clone())).collect();
    steady.keys().for_each(|name| splitter.wait_receiving(name));
    let players: Vec<_> = urls.iter().map(|url| Player::start(url)).collect();
    players.iter().for_each(|player| player.wait_frames(Kind::Video, 1));

    let start = Instant::now();
    let mut edits = 0;
    let mut edit = |flow: Option<Value>, pointer: &str, fits: &dyn Fn(&Value) -> bool| {
        match flow {
            Some(flow) => steady.insert("edited".into(), flow),
            None => steady.shift_remove("edited"),
        };
        splitter.set_twin(&twin(Value::Object(steady.clone())));
        splitter.wait_status(pointer, fits);
        edits += 1;
        edits
    };
    let (a, b) = (rtmp(port, "live/edited"), rtmp(port, "live/changed"));
    loop {
        // Added, changed, broken, removed.
        edit(Some(flow(&a)), "/flows/edited/state", &|state| state == "waiting");
        edit(Some(flow(&b)), "/flows/edited/outputs/viewers/url", &|url| url == b.as_str());
        let broken = json!({ "input": { "listen": "rtmp://nowhere/" }, "outputs": {} });
        edit(Some(broken), "/config/errors/edited", &|error| {
            error.as_str().is_some_and(|text| text.contains("flows.edited.input.listen"))
        });
        let done = edit(None, "/flows/edited", &|flow| flow.is_null());
        // The short run takes as many as go into a minute.
        if done >= 200 || (!long() && start.elapsed() > Duration::from_secs(50)) {
            break;
        }
    }
    println!("{edits} edits in {:.1} s", start.elapsed().as_secs_f64());
    assert!(edits >= 20, "only {edits} edits were applied in {} s", start.elapsed().as_secs());

    for (player, publisher) in players.iter().zip(publishing) {
        let sent = publisher.stop();
        player.wait_last_of(&sent);
        player.recording().must_be(&sent, Times::Exact, End::Complete);
        assert_eq!(player.ended(), None);
    }
}

#[test]
fn outputs_come_and_go_and_the_others_of_the_flow_lose_nothing() {
    needs!(Ffmpeg);
    let port = port::free();
    let url = rtmp(port, "live/cam");
    let with = |extra: Option<Value>| {
        let mut flow = flow(&url);
        if let Some(extra) = extra {
            flow["outputs"]["extra"] = extra;
        }
        twin(json!({ "cam": flow }))
    };
    let splitter = Module::start("rtmp-splitter", &with(None));
    let publishing = Publisher::to(&url).run_endlessly(Clip::Pyramid.tags());
    splitter.wait_receiving("cam");
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 1);
    for content in ["audioVideo", "videoOnly", "audioOnly"].iter().cycle().take(9) {
        let copy = rtmp(port, "live/copy");
        splitter.set_twin(&with(Some(json!({ "serve": copy, "content": content }))));
        splitter.wait_value("/flows/cam/outputs/extra/state", "serving");
        let other = Player::start(&copy);
        let kind = if *content == "audioOnly" { Kind::Audio } else { Kind::Video };
        other.wait_frames(kind, 5);
        match *content {
            "videoOnly" => assert_eq!(other.frames(Kind::Audio), 0),
            "audioOnly" => assert_eq!(other.frames(Kind::Video), 0),
            _ => {}
        }
        splitter.set_twin(&with(None));
        splitter.wait_status("/flows/cam/outputs/extra", Value::is_null);
        other.wait_end();
    }
    let sent = publishing.stop();
    player.wait_last_of(&sent);
    player.recording().must_be(&sent, Times::Exact, End::Complete);
}

#[test]
fn a_bad_edit_leaves_the_last_good_version_running_across_a_restart_too() {
    needs!(Ffmpeg);
    let port = port::free();
    let url = rtmp(port, "live/cam");
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": flow(&url), "other": flow(&rtmp(port, "live/other")) })),
    );
    let publishing = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    splitter.wait_receiving("cam");
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 1);

    let mut bad = flow(&url);
    bad["input"]["onPublisherLoss"] = json!("perhaps");
    let bad = twin(json!({ "cam": bad, "other": flow(&rtmp(port, "live/renamed")) }));
    splitter.set_twin(&bad);
    splitter.wait_status("/config/errors/cam", |error| {
        error.as_str().is_some_and(|text| text.starts_with("flows.cam.input.onPublisherLoss"))
    });
    splitter.wait_value("/config/status", "partial");
    splitter.wait_value("/flows/cam/usingVersion", 1);
    splitter.wait_value("/flows/other/outputs/viewers/url", rtmp(port, "live/renamed"));
    splitter.wait_status("/flows/other/usingVersion", Value::is_null);
    splitter.set_twin_text("{ this is not JSON");
    splitter.wait_value("/config/status", "rejected");
    let frames = player.frames(Kind::Video);
    player.wait_frames(Kind::Video, frames + 10);
    let sent = publishing.stop();
    player.wait_last_of(&sent);
    player.recording().must_be(&sent, Times::Exact, End::Complete);

    splitter.set_twin(&bad);
    splitter.wait_value("/config/status", "partial");
    let splitter = splitter.kill_and_restart(|setup| setup);
    splitter.wait_status("/config/errors/cam", Value::is_string);
    let publisher = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    splitter.wait_receiving("cam");
    drop(publisher);
    let splitter = splitter.kill_and_restart(|setup| setup.twin_text("not JSON at all"));
    splitter.wait_status("/flows/cam/state", Value::is_string);
    let _publisher = Publisher::to(&url);
}

#[test]
fn a_change_that_players_need_not_notice_costs_them_nothing() {
    needs!(Ffmpeg);
    let port = port::free();
    let (url, copy) = (rtmp(port, "live/cam"), rtmp(port, "live/copy"));
    let mut document = twin(json!({ "cam": { "input": { "listen": url }, "outputs": {
        "viewers": { "serve": url }, "other": { "serve": copy },
    } } }));
    let splitter = Module::start("rtmp-splitter", &document);
    let publishing = Publisher::to(&url).run_endlessly(Clip::Pyramid.tags());
    splitter.wait_receiving("cam");
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 1);
    let changes: [(&str, &str, Value); 6] = [
        ("/flows/cam", "description", json!("loading dock")),
        ("/flows/cam/outputs/other", "maxClients", json!(5)),
        ("/flows/cam/outputs/other", "serve", json!(rtmp(port, "live/elsewhere"))),
        ("", "publicHost", json!("gw.example")),
        ("", "logLevel", json!("info")),
        ("", "maxConnections", json!(50)),
    ];
    for (version, (place, key, value)) in (2..).zip(changes) {
        document.pointer_mut(place).unwrap()[key] = value;
        splitter.set_twin(&document);
        splitter.wait_value("/config/desiredVersion", version);
        splitter.wait_value("/config/status", "applied");
        let frames = player.frames(Kind::Video);
        player.wait_frames(Kind::Video, frames + 5);
    }
    // The same document again is no change at all.
    splitter.set_twin_text(&document.to_string());
    let frames = player.frames(Kind::Video);
    player.wait_frames(Kind::Video, frames + 10);
    let sent = publishing.stop();
    player.wait_last_of(&sent);
    player.recording().must_be(&sent, Times::Exact, End::Complete);
    assert_eq!(player.ended(), None);
}
