//! `onDemand`: a pull that is connected while somebody watches.

use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::recording::Kind;
use av_tests::rtmp::{Endless, Player, Publisher};
use av_tests::tool::Tool;
use av_tests::{http, needs, port, wait};
use serde_json::{Value, json};

use crate::rtsp::{rtsp, seen, udp_ports, watch};
use crate::{rtmp, twin};

/// A stream by RTMP and RTSP that never ends.
struct Source {
    module: Module,
    rtmp: String,
    rtsp: String,
    _publishing: Endless,
}

impl Source {
    fn start() -> Self {
        let (from, rtmp_url) = (rtmp(port::free(), "live/cam"), rtmp(port::free(), "live/cam"));
        let rtsp_url = rtsp(port::free(), "live/cam");
        let module = Module::start(
            "rtsp-gateway",
            &twin(json!({ "cam": {
                "input": { "listen": from },
                "outputs": {
                    "rtmp": { "serve": rtmp_url },
                    "rtsp": { "serve": rtsp_url, "udpPorts": udp_ports() },
                },
            } })),
        );
        let publishing = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
        module.wait_receiving("cam");
        Self { module, rtmp: rtmp_url, rtsp: rtsp_url, _publishing: publishing }
    }

    fn wait_clients(&self, rtmp: usize, rtsp: usize) {
        self.module.wait_value("/flows/cam/outputs/rtmp/clients", rtmp);
        self.module.wait_value("/flows/cam/outputs/rtsp/clients", rtsp);
    }
}

fn pulling(module: &str, from: &str, outputs: Value) -> Module {
    Module::start(
        module,
        &twin(json!({ "cam": { "input": { "pull": from, "onDemand": true }, "outputs": outputs } })),
    )
}

/// It has no connection, and says why.
fn waits_for_a_viewer(module: &Module) {
    module.wait_status("/flows/cam/input/error", |error| {
        error.as_str().is_some_and(|error| error.starts_with("flows.cam.input.onDemand: nobody watches"))
    });
    module.wait_value("/flows/cam/input/state", "waiting");
    module.wait_value("/flows/cam/state", "waiting");
}

#[test]
fn players_of_every_protocol_wake_a_pull_and_the_last_one_lets_it_go() {
    needs!(Ffmpeg);
    let source = Source::start();
    let (by_rtmp, by_rtsp, web) = (rtmp(port::free(), "a/cam"), rtsp(port::free(), "a/cam"), port::free());
    let splitter = pulling("rtmp-splitter", &source.rtmp, json!({ "viewers": { "serve": by_rtmp } }));
    let gateway = pulling(
        "rtsp-gateway",
        &source.rtsp,
        json!({ "viewers": { "serve": by_rtsp, "transports": ["tcp"] } }),
    );
    let hls = pulling(
        "hls-gateway",
        &source.rtmp,
        json!({ "web": { "serve": format!("http://127.0.0.1:{web}/a/cam"), "segmentSeconds": 1 } }),
    );
    let all = [&splitter, &gateway, &hls];
    all.into_iter().for_each(waits_for_a_viewer);
    source.wait_clients(0, 0);

    // Twice: what was let go is woken again.
    for _ in 0..2 {
        let player = Player::start(&by_rtmp);
        player.wait_frames(Kind::Video, 25);
        let watched = watch(Tool::Ffmpeg, "tcp", &by_rtsp, Some(25)).finish(wait::LONG);
        assert_eq!(seen(&watched).len(), 25, "{}\n{}", watched.stderr, gateway.log());
        wait::until_true("a playlist", wait::LONG, || {
            http::get(web, "/a/cam/index.m3u8").is_some_and(|(status, _)| status == 200)
        });
        splitter.wait_receiving("cam");
        hls.wait_receiving("cam");
        drop(player);
        all.into_iter().for_each(waits_for_a_viewer);
        source.wait_clients(0, 0);
    }
}

#[test]
fn a_push_wants_the_stream_from_the_first_moment_on() {
    needs!(Ffmpeg);
    let source = Source::start();
    let target = rtmp(port::free(), "live/copy");
    let copy = Module::start(
        "rtmp-splitter",
        &twin(
            json!({ "copy": { "input": { "listen": target }, "outputs": { "viewers": { "serve": target } } } }),
        ),
    );
    let splitter = pulling("rtmp-splitter", &source.rtmp, json!({ "cloud": { "push": target } }));
    copy.wait_receiving("copy");
    splitter.wait_receiving("cam");
    source.wait_clients(1, 0);
}
