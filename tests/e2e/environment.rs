//! What surrounds a module: names, paths, ports, files with secrets.

use std::net::TcpListener;

use av_tests::clip::Clip;
use av_tests::module::{Module, Setup};
use av_tests::recording::Kind;
use av_tests::rtmp::{Player, Publisher};
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::{cam, rtmp, twin};

#[test]
fn host_names_and_paths_are_resolved_as_the_module_is_told() {
    needs!(Ffmpeg);
    let (port, url) = (port::free(), rtmp(port::free(), "live/copy"));
    let files = tempfile::tempdir().unwrap();
    std::fs::create_dir(files.path().join("deep")).unwrap();
    std::fs::copy(Clip::Plain.mp4(), files.path().join("deep/clip.mp4")).unwrap();
    let paths = format!("/media=/nowhere,/media/clips={}", files.path().display());
    let source = Setup::new("mp4-source")
        .env("AV_PATHS", &paths)
        .twin(&twin(json!({ "clip": {
            "input": { "read": "file:///media/clips/deep/clip.mp4" },
            "outputs": { "viewers": { "serve": rtmp(port, "live/clip") } },
        } })))
        .start();
    let splitter = Setup::new("rtmp-splitter")
        .arg("--hosts")
        .arg("other.example=192.0.2.1,mp4-source=127.0.0.1")
        .twin(&twin(json!({ "copy": {
            "input": { "pull": format!("rtmp://mp4-source:{port}/live/clip") },
            "outputs": { "viewers": { "serve": url } },
        } })))
        .start();
    source.wait_value("/flows/clip/state", "running");
    splitter.wait_receiving("copy");
    Player::start(&url).wait_frames(Kind::Video, 5);
}

#[test]
fn a_port_that_is_taken_is_said_and_taken_when_it_is_free() {
    needs!(Ffmpeg);
    let (taken, free) = (port::free(), port::free());
    let other = TcpListener::bind(("127.0.0.1", taken)).unwrap();
    let flow = |port| json!({ "input": { "listen": rtmp(port, "live/x") }, "outputs": { "out": { "serve": rtmp(port, "live/x") } } });
    let splitter =
        Module::start("rtmp-splitter", &twin(json!({ "blocked": flow(taken), "fine": flow(free) })));
    splitter.wait_value("/flows/blocked/state", "retrying");
    for endpoint in ["input", "outputs/out"] {
        splitter.wait_status(&format!("/flows/blocked/{endpoint}/error"), |error| {
            error
                .as_str()
                .is_some_and(|text| text.contains(&taken.to_string()) && text.contains("flows.blocked."))
        });
    }
    let _fine = Publisher::to(&rtmp(free, "live/x")).run_endlessly(Clip::Plain.tags());
    Player::start(&rtmp(free, "live/x")).wait_frames(Kind::Video, 5);
    drop(other);
    splitter.wait_value("/flows/blocked/state", "waiting");
    splitter.wait_status("/flows/blocked/input/error", Value::is_null);
    let _blocked = Publisher::to(&rtmp(taken, "live/x"));
}

#[test]
fn a_secret_in_a_file_is_exchanged_without_a_restart() {
    needs!(Ffmpeg);
    let (source, target) = (rtmp(port::free(), "live/cam"), rtmp(port::free(), "live/cam"));
    let files = tempfile::tempdir().unwrap();
    let (key, copy) = (files.path().join("key"), files.path().join("copy-of-key"));
    std::fs::write(&key, "monday\n").unwrap();
    // The one who pushes has it wrong at first.
    std::fs::write(&copy, "sunday\n").unwrap();
    let guarded = Module::start(
        "rtmp-splitter",
        &cam(&target, json!({ "auth": { "key": { "file": key } } }), json!({})),
    );
    let mut document = cam(&source, json!({}), json!({}));
    document["flows"]["cam"]["outputs"]["copy"] = json!({
        "push": target, "credentials": { "key": { "file": copy } },
        "retry": { "initialMilliseconds": 100, "maxSeconds": 1 },
    });
    let splitter = Module::start("rtmp-splitter", &document);
    let publishing = Publisher::to(&source).run_endlessly(Clip::Plain.tags());
    splitter.wait_value("/flows/cam/outputs/copy/state", "retrying");
    std::fs::write(&copy, "monday\n").unwrap();
    splitter.wait_value("/flows/cam/outputs/copy/state", "pushing");
    guarded.wait_receiving("cam");
    publishing.stop();

    // The server's own key is exchanged: who has the new one gets in, if not the first time then soon.
    std::fs::write(&key, "tuesday").unwrap();
    wait::until("the new key is taken", wait::LONG, || {
        Publisher::start(&format!("{target}?key=tuesday")).unwrap().ok()
    });
    assert!(Publisher::start(&format!("{target}?key=monday")).unwrap().is_err(), "the old key still opens");
}
