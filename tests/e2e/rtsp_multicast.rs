//! RTSP players that share one group: everything is sent once.

use std::net::{Ipv4Addr, UdpSocket};

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::recording::Packet;
use av_tests::tool::{self, Tool};
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::rtsp::{must_be, original, rtsp, seen, watch};
use crate::{rtmp, twin};

/// A group that no other test uses, and four free ports.
fn group(last: u8) -> (Ipv4Addr, u16) {
    let is_free = |port: &u16| UdpSocket::bind(("0.0.0.0", *port)).is_ok();
    let ports = std::iter::repeat_with(|| port::free() & !1)
        .find(|first| *first < 65_530 && (*first..first + 4).all(|port| is_free(&port)));
    (Ipv4Addr::new(239, 255, 83, last), ports.unwrap())
}

fn gateway(from: &str, to: &str, multicast: Value) -> Module {
    Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": { "listen": from, "onPublisherLoss": "close" },
            "outputs": { "viewers": { "serve": to, "transports": ["tcp"], "multicast": multicast } },
        } })),
    )
}

#[test]
fn ffmpeg_plays_from_a_group_every_picture_at_its_time() {
    needs!(Ffmpeg, Ffmpeg9);
    let (group, port) = group(2);
    // ffmpeg can't be told an interface.
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    if probe.connect((group, port)).is_err() {
        return tool::skip("rtsp_multicast", "no route leads to a multicast group");
    }
    let (from, to) = (rtmp(port::free(), "live/cam"), rtsp(port::free(), "live/cam"));
    let pictures = original(Clip::Plain);
    let gateway = gateway(&from, &to, json!({ "group": group, "port": port }));
    gateway.wait_value("/flows/cam/outputs/viewers/state", "waiting");
    let players =
        [Tool::Ffmpeg, Tool::Ffmpeg9].map(|tool| (tool, watch(tool, "udp_multicast", &to, Some(50))));
    let publication = PublishWith::Ffmpeg.start(Clip::Plain, &from);
    for (tool, player) in players {
        let ended = player.finish(wait::LONG);
        let who = format!("{tool:?} ({})", gateway.log());
        let seen = seen(&ended);
        // Who comes while the group is sent to begins in the middle of a GOP, and shows what it makes of that.
        let is_whole = |seen: &Packet| pictures.iter().any(|sent| sent.hash == seen.hash);
        let start = seen.iter().position(is_whole).unwrap_or(seen.len());
        assert!(start < 25, "{who}: nothing for {start} pictures: {}", ended.stderr);
        must_be(&seen[start..], &pictures, &who);
    }
    drop(publication);
}

#[test]
fn a_group_is_refused_with_tls_with_a_pattern_and_where_another_output_has_it() {
    let group = json!({ "group": "239.255.83.3", "port": 5004 });
    let (first, second) = (port::free(), port::free());
    let flow = |name: &str, port: u16, scheme: &str, path: &str, group: &Value| {
        json!({
            "input": { "listen": rtmp(port::free(), &format!("live/{path}")) },
            "outputs": { "viewers": {
                "serve": format!("{scheme}://127.0.0.1:{port}/{name}/{path}"),
                "transports": ["tcp"], "multicast": group,
            } },
        })
    };
    let inside = json!({ "group": "239.255.83.3", "port": 5006, "interface": "127.0.0.1" });
    let gateway = Module::start(
        "rtsp-gateway",
        &twin(json!({
            "a": flow("a", first, "rtsp", "x", &json!({ "group": "239.255.83.3", "interface": "127.0.0.1" })),
            "b": flow("b", first, "rtsp", "x", &inside),
            "c": flow("c", second, "rtsps", "x", &group),
            "d": flow("d", first, "rtsp", "*", &group),
            "e": flow("e", first, "rtsp", "x", &json!({ "group": "192.0.2.1" })),
            "f": flow("f", first, "rtsp", "x", &json!({ "port": 6000 })),
            "g": flow("g", first, "rtsp", "x", &json!({ "group": "239.255.83.3", "port": 6001 })),
        })),
    );
    gateway.wait_value("/flows/a/state", "waiting");
    for (flow, said) in [
        ("b", "multicast 239.255.83.3:5006 is taken by flows.a.outputs.viewers.serve"),
        ("c", "multicast: expected nothing with rtsps"),
        ("d", "multicast: expected nothing in a flow with a pattern"),
        ("e", "multicast.group: expected an IPv4 multicast address"),
        ("f", "multicast: expected an object with a group"),
        ("g", "multicast.port: expected an even port"),
    ] {
        let error = gateway.wait_status(&format!("/config/errors/{flow}"), Value::is_string);
        assert!(error.as_str().unwrap().contains(said), "{flow}: {error}");
    }
}
