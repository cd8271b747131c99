//! What a module shows of addresses and secrets, in its log, status, metrics and errors.

use av_tests::clip::Clip;
use av_tests::module::{Module, Setup};
use av_tests::recording::Kind;
use av_tests::rtmp::{Player, Publisher};
use av_tests::{needs, port};
use serde_json::{Value, json};

use crate::{cam, rtmp, twin};

/// Everything a module says.
fn said(module: &Module) -> String {
    [module.log(), module.status().to_string(), module.get("/metrics").1].join("\n")
}

fn says_none_of(module: &Module, secrets: &[&str]) {
    let said = said(module);
    for secret in secrets {
        assert_eq!(said.lines().find(|line| line.contains(secret)), None, "{secret} is shown");
    }
}

#[test]
fn the_public_host_stands_for_wildcards_in_urls() {
    let (four, six) = (port::free(), port::free());
    let document = |host: Option<&str>| {
        let mut document = twin(json!({ "cam": {
            "input": { "listen": format!("rtmp://0.0.0.0:{four}/live/cam") },
            "outputs": {
                "four": { "serve": format!("rtmp://0.0.0.0:{four}/live/cam") },
                "six": { "serve": format!("rtmp://[::]:{six}/live/cam") },
                "own": { "serve": format!("rtmp://127.0.0.1:{}/live/cam", port::free()) },
            },
        } }));
        if let Some(host) = host {
            document["publicHost"] = json!(host);
        }
        document
    };
    // All but the address bound to: the test must not listen to the world.
    let splitter = Setup::new("rtmp-splitter")
        .arg("--bind")
        .arg("127.0.0.1")
        .twin(&document(Some("gw.site7.example")))
        .start();
    let url = |name: &str| format!("/flows/cam/outputs/{name}/url");
    splitter.wait_value(&url("four"), format!("rtmp://gw.site7.example:{four}/live/cam"));
    splitter.wait_value(&url("six"), format!("rtmp://gw.site7.example:{six}/live/cam"));
    splitter
        .wait_status(&url("own"), |url| url.as_str().is_some_and(|url| url.starts_with("rtmp://127.0.0.1:")));
    // It is only shown: nothing is started again for it.
    let since = splitter.status()["flows"]["cam"]["since"].clone();
    splitter.set_twin(&document(Some("192.0.2.7")));
    splitter.wait_value(&url("four"), format!("rtmp://192.0.2.7:{four}/live/cam"));
    assert_eq!(splitter.status()["flows"]["cam"]["since"], since);
}

#[test]
fn no_secret_is_shown_whatever_goes_wrong_with_it() {
    needs!(Ffmpeg);
    let (port, nobody, other) = (port::free(), port::free(), port::free());
    let url = |name: &str| rtmp(port, &format!("live/{name}"));
    // A server that refuses, and says in its own log what it was asked for.
    let _other = Module::start("rtmp-splitter", &cam(&rtmp(other, "live/cam"), json!({}), json!({})));
    let secret = [
        "s3cr-listen",
        "s3cr-serve",
        "s3cr-user",
        "s3cr-pull",
        "s3cr-query",
        "s3cr-stream",
        "s3cr-env",
        "s3cr-file",
    ];
    let setup = Setup::new("rtmp-splitter").env("KEY_OF_TEST", secret[6]);
    let file = setup.dir().join("key");
    std::fs::write(&file, secret[7]).unwrap();
    let splitter = setup
        .twin(&twin(json!({
            "cam": {
                "input": { "listen": url("cam"), "auth": { "key": secret[0] } },
                "outputs": {
                    "viewers": { "serve": url("cam"), "auth": { "key": [secret[1], { "env": "KEY_OF_TEST" }, { "file": file }] } },
                    "nobody": { "push": format!("rtmp://relay:{}@127.0.0.1:{nobody}/app/{}?token={}", secret[2], secret[5], secret[4]) },
                    "refused": { "push": rtmp(other, &format!("app/{}", secret[5])) },
                    "keyed": { "push": rtmp(other, "app"), "credentials": { "streamKey": secret[5] } },
                },
            },
            "pulled": {
                "input": { "pull": format!("rtmp://127.0.0.1:{port}/live/cam?key={}", secret[3]) },
                "outputs": { "viewers": { "serve": url("pulled") } },
            },
        })))
        .start();
    let _publishing =
        Publisher::to(&format!("{}?key={}", url("cam"), secret[0])).run_endlessly(Clip::Plain.tags());
    for key in [secret[1], secret[6], secret[7]] {
        Player::start(&format!("{}?key={key}", url("cam"))).wait_frames(Kind::Video, 1);
    }
    // Keys of other places, keys nobody has, names that are keys.
    for wrong in [
        "cam?key=s3cr-guess",
        "cam?key=s3cr-serve",
        "s3cr-name?key=s3cr-guess",
        "cam?user=s3cr-u&key=s3cr-guess",
    ] {
        assert!(Publisher::start(&url(wrong)).unwrap().is_err(), "{wrong}");
        Player::start(&url(&wrong.replace("s3cr-serve", "s3cr-listen"))).wait_end();
    }
    for output in ["nobody", "refused", "keyed"] {
        splitter.wait_value(&format!("/flows/cam/outputs/{output}/state"), "retrying");
        splitter.wait_status(&format!("/flows/cam/outputs/{output}/error"), Value::is_string);
    }
    splitter.wait_value("/flows/pulled/input/state", "retrying");
    splitter.wait_value("/flows/cam/outputs/nobody/url", rtmp(nobody, "app"));
    says_none_of(&splitter, &secret);
    says_none_of(&splitter, &["s3cr-guess", "relay:"]);
}

#[test]
fn no_error_repeats_what_may_be_a_secret() {
    let port = port::free();
    let url = |name: &str| rtmp(port, &format!("live/{name}"));
    let flow =
        |name: &str, auth: Value| json!({ "input": { "listen": url(name), "auth": auth }, "outputs": {} });
    let push = |name: &str, push: &str, credentials: Value| json!({ "input": { "listen": url(name) }, "outputs": { "out": { "push": push, "credentials": credentials } } });
    let long = "s3cr".repeat(2000);
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({
            "good": { "input": { "listen": url("good") }, "outputs": {} },
            "a": flow("a", json!("s3cr-a")),
            "b": flow("b", json!({ "key": { "env": "X", "s3cr-b": 1 } })),
            "c": flow("c", json!({ "kee": "s3cr-c" })),
            "d": flow("d", json!({ "username": "u", "password": ["s3cr-d"] })),
            "e": flow("e", json!({ "key": long })),
            "f": flow("f", json!({ "key": "s3cr-f\nline" })),
            "g": flow("g", json!({ "key": ["s3cr-g", "s3cr-g", "s3cr-g", "s3cr-g", "s3cr-g"] })),
            "h": push("h", "rtmp://u:s3cr-h@127.0.0.1/app/x", json!({ "key": "s3cr-h" })),
            "i": push("i", "rtmp://u:s3cr@i@127.0.0.1/app/x", json!(null)),
            "j": push("j", "rtmp://u:s3cr#j@127.0.0.1/app/x", json!(null)),
            "k": push("k", "rtmp://127.0.0.1:99999/app/s3cr-k?key=s3cr-k", json!(null)),
            "l": push("l", "rtmp://127.0.0.1/app/x", json!({ "streamKey": 5_3727, "password": "s3cr-l" })),
            "m": { "input": { "listen": format!("rtmp://127.0.0.1:{port}/live/m?key=s3cr-m") }, "outputs": {} },
            "n": { "input": { "pull": "rtmp://u:s3cr-n@/live/x" }, "outputs": {} },
            "o": { "input": { "pull": "rtmp://127.0.0.1/live/x", "credentials": { "username": "s3cr-o" } }, "outputs": {} },
            "p": { "input": { "pull": "rtmp://127.0.0.1/live/x", "password": "s3cr-p" }, "outputs": {} },
        })),
    );
    splitter.wait_value("/config/status", "partial");
    let errors = splitter.status()["config"]["errors"].clone();
    for name in "abcdefghijklmnop".chars() {
        let error =
            errors[name.to_string()].as_str().unwrap_or_else(|| panic!("{name} is accepted: {errors:#}"));
        assert!(error.len() <= 512 && error.starts_with(&format!("flows.{name}.")), "{error}");
    }
    says_none_of(&splitter, &["s3cr", "53727"]);
}
