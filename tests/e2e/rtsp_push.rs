//! Streams that are pushed by RTSP to other servers.

use av_tests::camera::{Camera, Habits};
use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::program::Program;
use av_tests::tool::Tool;
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::rtsp::{must_be, must_be_the_same, original, rtsp, seen, udp_ports};
use crate::{rtmp, twin};

/// A gateway that takes `cam` by RTMP and pushes it by RTSP.
fn pusher(from: &str, to: &str, options: Value) -> Module {
    let mut output = json!({ "push": to });
    output.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let input = json!({ "listen": from, "onPublisherLoss": "close" });
    Module::start("rtsp-gateway", &twin(json!({ "cam": { "input": input, "outputs": { "there": output } } })))
}

/// A gateway that takes `cam` by RTSP from who has the password, and serves it by RTMP.
fn taker(from: &str, to: &str) -> Module {
    Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": {
                "listen": from,
                "onPublisherLoss": "close",
                "udpPorts": udp_ports(),
                "auth": { "username": "cam", "password": "open sesame" },
            },
            "outputs": { "viewers": { "serve": to } },
        } })),
    )
}

#[test]
fn a_stream_that_is_pushed_over_tcp_and_udp_has_the_same_access_units() {
    needs!(Ffmpeg);
    for (transport, clip) in [("tcp", Clip::Plain), ("tcp", Clip::Pyramid), ("udp", Clip::Plain)] {
        let (from, between) = (rtmp(port::free(), "live/cam"), rtsp(port::free(), "live/cam"));
        let to = rtmp(port::free(), "live/back");
        let second = taker(&between, &to);
        second.wait_value("/flows/cam/state", "waiting");
        let credentials = json!({ "username": "cam", "password": "open sesame" });
        let options = json!({ "transport": transport, "credentials": credentials });
        let first = pusher(&from, &between, options);
        must_be_the_same(clip, &from, &to, &second);
        assert!(first.log().contains("the target takes the stream"), "{}", first.log());
        assert!(!first.log().contains("open sesame"));
        assert_eq!(first.terminate().status.code(), Some(0));
        assert_eq!(second.terminate().status.code(), Some(0));
    }
}

#[test]
fn a_target_that_sends_the_stream_elsewhere_is_followed() {
    needs!(Ffmpeg);
    let (from, there) = (rtmp(port::free(), "live/cam"), rtsp(port::free(), "live/cam"));
    let to = rtmp(port::free(), "live/back");
    let taker = taker(&there, &to);
    taker.wait_value("/flows/cam/state", "waiting");
    let porter = Camera::start(Habits { redirects: Some(there), ..Habits::default() });
    let credentials = json!({ "username": "cam", "password": "open sesame" });
    let pusher = pusher(&from, &porter.url, json!({ "credentials": credentials }));
    must_be_the_same(Clip::Plain, &from, &to, &taker);
    pusher.wait_log(&["push: sent elsewhere"]);
    assert_eq!(porter.count("ANNOUNCE"), 1, "{:?}", porter.heard());
}

#[test]
fn a_target_that_refuses_the_password_is_named_and_tried_again() {
    needs!(Ffmpeg);
    let (from, between) = (rtmp(port::free(), "live/cam"), rtsp(port::free(), "live/cam"));
    let second = taker(&between, &rtmp(port::free(), "live/back"));
    second.wait_value("/flows/cam/state", "waiting");
    let credentials = json!({ "username": "cam", "password": "open barley" });
    let first = pusher(&from, &between, json!({ "credentials": credentials }));
    let publication = PublishWith::Ffmpeg.start(Clip::Plain, &from);
    first.wait_value("/flows/cam/outputs/there/state", "retrying");
    first.wait_log(&["flows.cam.outputs.there.push", "refused user or password", "check credentials"]);
    assert!(!first.log().contains("open barley"), "{}", first.log());
    drop(publication);
}

/// ffmpeg as a server: it takes one publisher, without a session id of its own choice.
#[test]
fn ffmpeg_that_listens_is_pushed_to() {
    needs!(Ffmpeg);
    let pictures = original(Clip::Plain);
    let (from, to) = (rtmp(port::free(), "live/cam"), rtsp(port::free(), "live/cam"));
    let mut command = Tool::Ffmpeg.command();
    command.args(["-hide_banner", "-nostdin", "-loglevel", "info", "-rtsp_flags", "listen", "-i", &to]);
    command.args([
        "-map",
        "0:v",
        "-fps_mode",
        "passthrough",
        "-enc_time_base",
        "1:90000",
        "-f",
        "framemd5",
        "-",
    ]);
    let server = Program::start(&mut command);
    let retry = json!({ "initialMilliseconds": 100, "maxSeconds": 1 });
    let gateway = pusher(&from, &to, json!({ "retry": retry }));
    let publication = PublishWith::Ffmpeg.start(Clip::Plain, &from);
    publication.finish();
    let ended = server.finish(wait::LONG);
    let count = must_be(&seen(&ended), &pictures, &format!("{}\n{}", ended.stderr, gateway.log()));
    assert!(count >= 50, "{count} pictures: {}\n{}", ended.stderr, gateway.log());
    assert_eq!(gateway.terminate().status.code(), Some(0));
}
