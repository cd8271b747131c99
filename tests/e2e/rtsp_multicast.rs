//! RTSP players that share one group: everything is sent once.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::program::Program;
use av_tests::recording::Packet;
use av_tests::rtmp::Publisher;
use av_tests::rtsp::{Player, interleaved};
use av_tests::tool::{self, Tool};
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::rtsp::{must_be, original, rtsp, seen, times_of_pictures, watch};
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

/// One that listens to the group without having been asked.
fn listener(group: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((group, port)).into()).unwrap();
    socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}

#[test]
fn gstreamer_players_of_one_group_are_sent_each_packet_once_and_its_reports() {
    needs!(Ffmpeg, Gst);
    const PICTURES: usize = 150;
    let (from, to) = (rtmp(port::free(), "live/cam"), rtsp(port::free(), "live/cam"));
    let (group, port) = group(1);
    let gateway = gateway(&from, &to, json!({ "group": group, "port": port, "interface": "127.0.0.1" }));
    let [packets, reports] = [0, 1].map(|behind| listener(group, port + behind));
    let publication = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    gateway.wait_receiving("cam");
    let players = [(); 2].map(|()| {
        let line = format!(
            "-v rtspsrc location={to} protocols=udp-mcast multicast-iface=lo name=s s. ! rtph264depay ! h264parse \
             ! avdec_h264 ! fakesink silent=false sync=false num-buffers={PICTURES}"
        );
        Program::start(Tool::Gst.command().args(line.split_whitespace()))
    });
    let mut numbers = HashSet::new();
    let mut together = false;
    let mut buffer = [0; 2048];
    wait::until_true("many packets while two players are there", wait::LONG, || {
        together |= gateway.status().pointer("/flows/cam/outputs/viewers/clients") == Some(&json!(2));
        for _ in 0..20 {
            let Ok(count) = packets.recv(&mut buffer) else { break };
            assert!(count > 12 && buffer[0] >> 6 == 2, "no RTP");
            let number = u16::from_be_bytes([buffer[2], buffer[3]]);
            assert!(numbers.insert(number), "packet {number} came twice");
        }
        together && numbers.len() > 100
    });
    let count = reports.recv(&mut buffer).expect("a sender's report");
    assert!(count >= 28 && buffer[1] == 200, "{:?}", &buffer[..count]);
    for player in players {
        let ended = player.finish(wait::LONG);
        let times = times_of_pictures(&ended.stdout);
        assert_eq!(times.len(), PICTURES, "{}\n{}", ended.stderr, gateway.log());
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "time went back: {times:?}");
    }
    // Nobody is there any more: nothing is sent.
    gateway.wait_value("/flows/cam/outputs/viewers/clients", 0);
    wait::until_true("silence in the group", wait::LONG, || packets.recv(&mut buffer).is_err());
    drop(publication);
    assert_eq!(gateway.terminate().status.code(), Some(0));
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

#[test]
fn players_are_served_alone_while_a_group_can_t_be_sent_to_and_by_it_when_it_can() {
    needs!(Ffmpeg);
    let (from, number) = (rtmp(port::free(), "live/cam"), port::free());
    let ((group, port), to) = (group(4), rtsp(number, "live/cam"));
    // Another program that shares the port with nobody.
    let other = UdpSocket::bind(("0.0.0.0", port)).unwrap();
    let gateway = gateway(&from, &to, json!({ "group": group, "port": port, "interface": "127.0.0.1" }));
    let publication = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    gateway.wait_value("/flows/cam/outputs/viewers/state", "serving");
    let error = gateway.wait_status("/flows/cam/outputs/viewers/error", Value::is_string);
    let said = format!("flows.cam.outputs.viewers.multicast: the group {group}, ports {port}-");
    assert!(error.as_str().unwrap().starts_with(&said), "{error}");
    let asked_for_group = || {
        let mut player = Player::connect(number);
        assert_eq!(player.ask("DESCRIBE", &to, &[]).status, 200);
        player.ask("SETUP", &format!("{to}/trackID=0"), &[("Transport", "RTP/AVP;multicast")]).status
    };
    assert_eq!(asked_for_group(), 461);
    let mut alone = Player::connect(number);
    alone.play(&to, interleaved);
    assert!(alone.frame().is_some());
    drop(other);
    gateway.wait_status("/flows/cam/outputs/viewers/error", Value::is_null);
    assert_eq!(asked_for_group(), 200);
    assert!(alone.drain(), "who came before is still there");
    assert_eq!(gateway.log_lines("can't be sent to").len(), 1, "{}", gateway.log());
    drop(publication);
}
