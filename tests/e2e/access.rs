//! Who may publish and play, and over TLS.

use std::path::{Path, PathBuf};
use std::process::Command;

use av_tests::clip::Clip;
use av_tests::module::{Module, Setup};
use av_tests::program::{Finished, Program};
use av_tests::recording::Kind;
use av_tests::rtmp::{Player, Publisher};
use av_tests::tool::Tool;
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::{rtmp, twin};

const KEY: &str = "correct-horse-battery";

fn guarded(url: &str, auth: &Value) -> Module {
    Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": {
            "input": { "listen": url, "auth": auth },
            "outputs": { "viewers": { "serve": url, "auth": auth } },
        } })),
    )
}

/// ffmpeg publishing the plain clip, at most to its end.
fn ffmpeg_publish(url: &str) -> Command {
    let mut command = Tool::Ffmpeg.command();
    command.args(["-hide_banner", "-nostdin", "-loglevel", "info", "-re", "-i"]).arg(Clip::Plain.mp4());
    command.args(["-map", "0", "-c", "copy", "-f", "flv", url]);
    command
}

/// ffmpeg playing until it has seen ten pictures.
fn ffmpeg_play(tool: Tool, url: &str) -> Finished {
    let mut command = tool.command();
    command.args(["-hide_banner", "-nostdin", "-loglevel", "info", "-i", url]);
    command.args(["-map", "0:v", "-c", "copy", "-frames:v", "10", "-f", "framemd5", "-"]);
    Program::run(&mut command, wait::LONG)
}

fn with_user(url: &str, user: &str) -> String {
    url.replace("rtmp://", &format!("rtmp://{user}@"))
}

#[test]
fn a_key_lets_ffmpeg_in_and_a_wrong_one_does_not() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = guarded(&url, &json!({ "key": KEY }));

    for wrong in [url.clone(), format!("{url}?key=wrong-guess")] {
        let refused = Program::run(&mut ffmpeg_publish(&wrong), wait::LONG);
        assert!(!refused.status.success(), "ffmpeg published to {wrong}");
    }
    splitter.wait_log(&["cam", "127.0.0.1:", "key"]);

    let _publishing = Program::start(&mut ffmpeg_publish(&format!("{url}?key={KEY}")));
    splitter.wait_receiving("cam");
    assert!(!ffmpeg_play(Tool::Ffmpeg, &url).status.success(), "played without a key");
    let played = ffmpeg_play(Tool::Ffmpeg, &format!("{url}?key={KEY}"));
    assert!(played.status.success(), "{}", played.stderr);
    no_secret(&splitter, &[KEY, "wrong-guess"]);
}

#[test]
fn a_user_with_a_password_gets_in_as_ffmpeg_and_obs_send_it() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = guarded(&url, &json!({ "username": "camera", "password": KEY }));

    for wrong in
        [url.clone(), with_user(&url, "camera:wrong-guess"), with_user(&url, &format!("other:{KEY}"))]
    {
        let refused = Program::run(&mut ffmpeg_publish(&wrong), wait::LONG);
        assert!(!refused.status.success(), "ffmpeg published to {wrong}");
    }
    splitter.wait_log(&["refused", "password", "127.0.0.1:"]);

    let right = with_user(&url, &format!("camera:{KEY}"));
    let _publishing = Program::start(&mut ffmpeg_publish(&right));
    splitter.wait_receiving("cam");
    let played = ffmpeg_play(Tool::Ffmpeg, &right);
    assert!(played.status.success(), "{}", played.stderr);
    no_secret(&splitter, &[KEY, "wrong-guess"]);
}

#[test]
fn a_module_shows_its_credentials_when_it_pushes_and_pulls() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let copy = rtmp(port::free(), "live/copy");
    let key = Setup::new("rtmp-splitter");
    let key_file = key.dir().join("key");
    std::fs::write(&key_file, format!("{KEY}\n")).unwrap();
    let guarded = guarded(&url, &json!({ "key": [ "another", KEY ] }));
    let user = json!({ "username": "camera", "password": { "env": "CAMERA_PASSWORD" } });
    let relay = key
        .env("CAMERA_PASSWORD", KEY)
        .twin(&twin(json!({
            "cam": {
                "input": { "pull": url, "credentials": { "key": { "file": key_file } } },
                "outputs": { "copy": { "push": copy, "credentials": user } },
            },
        })))
        .start();
    let target = Setup::new("rtmp-splitter")
        .env("CAMERA_PASSWORD", KEY)
        .twin(&twin(json!({ "copy": {
            "input": { "listen": copy, "auth": user }, "outputs": { "viewers": { "serve": copy } },
        } })))
        .start();
    let _publishing = Publisher::to(&format!("{url}?key={KEY}")).run_endlessly(Clip::Plain.tags());
    target.wait_receiving("copy");
    Player::start(&copy).wait_frames(Kind::Video, 10);
    for module in [&guarded, &relay, &target] {
        no_secret(module, &[KEY]);
    }
}

#[test]
fn a_stream_key_names_the_stream_and_is_not_shown() {
    needs!(Ffmpeg);
    let (url, copy) = (rtmp(port::free(), "live/cam"), port::free());
    let target = Module::start(
        "rtmp-splitter",
        &twin(json!({ "copy": {
            "input": { "listen": rtmp(copy, "app/sk-12345") },
            "outputs": { "viewers": { "serve": rtmp(copy, "app/copy") } },
        } })),
    );
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": {
            "input": { "listen": url },
            "outputs": { "cloud": { "push": rtmp(copy, "app"), "credentials": { "streamKey": "sk-12345" } } },
        } })),
    );
    let _publishing = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    target.wait_receiving("copy");
    splitter.wait_value("/flows/cam/outputs/cloud/state", "pushing");
    no_secret(&splitter, &["sk-12345"]);
}

#[test]
fn addresses_that_are_not_allowed_are_refused() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": {
            "input": { "listen": url, "allow": ["10.0.0.0/8"] },
            "outputs": { "viewers": { "serve": url, "allow": ["127.0.0.0/8"] } },
        } })),
    );
    assert!(!matches!(Publisher::start(&url), Ok(Ok(_))), "published from an address that is not allowed");
    splitter.wait_log(&["cam", "127.0.0.1:"]);
    let player = Player::start(&url);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    assert_eq!(player.ended(), None);
}

/// A CA-less certificate for 127.0.0.1 and localhost: (certificate file, key file).
pub(crate) fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (dir.join("server.pem"), dir.join("server.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

#[test]
fn rtmps_is_listened_to_served_pushed_and_pulled() {
    needs!(Ffmpeg, Ffmpeg9);
    let (tls, copy) = (port::free(), rtmp(port::free(), "live/copy"));
    let setup = Setup::new("rtmp-splitter");
    let (certificate, key) = certificate(setup.dir());
    let server = json!({ "certificateFile": certificate, "keyFile": key });
    let client = json!({ "caFile": certificate, "hostName": "localhost" });
    let secure = |path: &str| format!("rtmps://127.0.0.1:{tls}/{path}");
    let splitter = setup
        .twin(&twin(json!({
            "in": {
                "input": { "listen": secure("live/in"), "tls": server },
                "outputs": {
                    "viewers": { "serve": secure("live/in"), "tls": server },
                    "copy": { "push": secure("live/copy"), "tls": client },
                },
            },
            "copy": {
                "input": { "listen": secure("live/copy"), "tls": server },
                "outputs": { "viewers": { "serve": secure("live/copy"), "tls": server } },
            },
        })))
        .start();
    let puller = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": {
            "input": { "pull": secure("live/copy"), "tls": client, "retry": { "initialMilliseconds": 100, "maxSeconds": 1 } },
            "outputs": { "viewers": { "serve": copy } },
        } })),
    );
    let _publishing = Program::start(&mut ffmpeg_publish(&secure("live/in")));
    puller.wait_receiving("cam");
    let player = Player::start(&copy);
    player.wait_frames(Kind::Video, 10);
    let played = ffmpeg_play(Tool::Ffmpeg, &secure("live/in"));
    assert!(played.status.success(), "{}", played.stderr);

    // Plain RTMP on the TLS port is refused in one line; the stream goes on.
    assert!(Publisher::start(&rtmp(tls, "live/in")).is_err());
    splitter.wait_log(&["127.0.0.1:"]);
    let frames = player.frames(Kind::Video);
    player.wait_frames(Kind::Video, frames + 5);
}

#[test]
fn a_server_whose_certificate_is_not_trusted_is_not_pulled_from() {
    needs!(Ffmpeg);
    let tls = port::free();
    let setup = Setup::new("rtmp-splitter");
    let (certificate, key) = certificate(setup.dir());
    let url = format!("rtmps://127.0.0.1:{tls}/live/cam");
    let server = json!({ "certificateFile": certificate, "keyFile": key });
    let _server = setup
        .twin(&twin(json!({ "cam": {
            "input": { "listen": url, "tls": server }, "outputs": { "viewers": { "serve": url, "tls": server } },
        } })))
        .start();
    let puller = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": {
            "input": { "pull": url }, "outputs": { "viewers": { "serve": rtmp(port::free(), "live/cam") } },
        } })),
    );
    puller.wait_value("/flows/cam/input/state", "retrying");
    puller.wait_status("/flows/cam/input/error", |error| {
        error.as_str().is_some_and(|text| text.to_lowercase().contains("certificate"))
    });
}

/// No secret in anything that the module shows.
fn no_secret(module: &Module, secrets: &[&str]) {
    let shown = [module.log(), module.status().to_string(), module.get("/metrics").1].join("\n");
    for secret in secrets {
        let line = shown.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is shown");
    }
}
