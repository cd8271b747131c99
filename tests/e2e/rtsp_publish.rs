//! Publishers that push by RTSP: every picture comes out by RTMP, in order, at its time.

use std::net::UdpSocket;
use std::time::Duration;

use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::program::Program;
use av_tests::recording::Packet;
use av_tests::rtsp::{Fate, Player, Relay, interleaved};
use av_tests::tool::Tool;
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::rtsp::{must_be, original, rtsp, seen, udp_ports, watch};
use crate::{rtmp, twin};

/// A gateway that takes `cam` by RTSP and serves it by RTMP.
fn gateway(from: &str, to: &str, options: Value) -> Module {
    let mut input = json!({ "listen": from, "onPublisherLoss": "close", "udpPorts": udp_ports() });
    input.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": { "input": input, "outputs": { "viewers": { "serve": to } } } })),
    )
}

/// Publishes a clip in real time with ffmpeg.
fn publish(tool: Tool, clip: Clip, transport: &str, url: &str) -> Program {
    let mut command = tool.command();
    command.args(["-hide_banner", "-nostdin", "-loglevel", "info", "-re", "-i"]).arg(clip.mp4());
    Program::start(command.args(["-c", "copy", "-f", "rtsp", "-rtsp_transport", transport, url]))
}

fn walk(clip: Clip, publishers: &[(Tool, &str)]) {
    let pictures = original(clip);
    for (tool, transport) in publishers {
        let (from, to) = (rtsp(port::free(), "live/cam"), rtmp(port::free(), "live/cam"));
        let gateway = gateway(&from, &to, json!({}));
        let publication = publish(*tool, clip, transport, &from);
        gateway.wait_receiving("cam");
        let player = watch(clip.tool(), "", &to, None);
        let published = publication.finish(wait::LONG);
        let played = player.finish(wait::LONG);
        let who = format!("{clip:?} by {tool:?} over {transport}: {}", published.stderr);
        let count = must_be(&seen(&played), &pictures, &format!("{who}\n{}", gateway.log()));
        assert!(count >= 50, "{who}: {count} pictures\n{}", gateway.log());
        assert_eq!(gateway.terminate().status.code(), Some(0));
    }
}

const ALL: [(Tool, &str); 3] = [(Tool::Ffmpeg, "tcp"), (Tool::Ffmpeg, "udp"), (Tool::Ffmpeg9, "tcp")];

#[test]
fn h264_without_b_frames_comes_in_over_tcp_and_udp() {
    needs!(Ffmpeg, Ffmpeg9);
    walk(Clip::Plain, &ALL);
}

#[test]
fn h264_with_a_pyramid_of_b_frames_comes_in_over_tcp_and_udp() {
    needs!(Ffmpeg, Ffmpeg9);
    walk(Clip::Pyramid, &ALL);
}

#[test]
fn a_publisher_shows_its_key_or_its_password() {
    needs!(Ffmpeg);
    let user = json!({ "auth": { "username": "cam", "password": "open sesame" } });
    let key = json!({ "auth": { "key": "open sesame" } });
    for (auth, right, wrong) in [
        (user, "rtsp://cam:open%20sesame@127.0.0.1:PORT/live/cam", "rtsp://cam:x@127.0.0.1:PORT/live/cam"),
        (key, "rtsp://127.0.0.1:PORT/live/cam?key=open%20sesame", "rtsp://127.0.0.1:PORT/live/cam?key=x"),
    ] {
        let number = port::free();
        let gateway = gateway(&rtsp(number, "live/cam"), &rtmp(port::free(), "live/cam"), auth);
        gateway.wait_value("/flows/cam/state", "waiting");
        let url = |pattern: &str| pattern.replace("PORT", &number.to_string());
        let refused = publish(Tool::Ffmpeg, Clip::Plain, "tcp", &url(wrong)).finish(wait::LONG);
        assert!(!refused.status.success(), "{}", gateway.log());
        gateway.wait_log(&["publisher refused: flows.cam.input.listen: ", "wrong"]);
        assert!(!gateway.log().contains("open sesame") && !gateway.log().contains("open%20sesame"));
        let accepted = publish(Tool::Ffmpeg, Clip::Plain, "tcp", &url(right));
        gateway.wait_receiving("cam");
        drop(accepted);
    }
}

/// The same program from the same address: nothing but its own packets tells that the first one is still there.
#[test]
fn a_second_publisher_is_refused_while_the_first_one_sends() {
    needs!(Ffmpeg);
    for transport in ["tcp", "udp"] {
        let from = rtsp(port::free(), "live/cam");
        let options = json!({ "onSecondPublisher": "reject" });
        let gateway = gateway(&from, &rtmp(port::free(), "live/cam"), options);
        gateway.wait_value("/flows/cam/state", "waiting");
        let mut command = Tool::Ffmpeg.command();
        command.args(["-nostdin", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i"]);
        command.arg(Clip::Plain.mp4()).args([
            "-c",
            "copy",
            "-f",
            "rtsp",
            "-rtsp_transport",
            transport,
            &from,
        ]);
        let mut first = Program::start(&mut command);
        gateway.wait_receiving("cam");
        // Longer than a publisher may be silent before it gives way to itself.
        let frames = || gateway.metrics().sum("av_input_frames_total", &[("kind", "video")]);
        wait::until_true("three seconds of pictures", wait::LONG, || frames() > Some(75.0));
        let second = publish(Tool::Ffmpeg, Clip::Plain, transport, &from).finish(wait::LONG);
        assert!(!second.status.success(), "{transport}: {}", gateway.log());
        gateway.wait_log(&["publisher refused", "another publisher is live on this stream"]);
        assert!(first.ended().is_none(), "{transport}: {}", gateway.log());
        assert_eq!(gateway.log_lines("publisher gone"), Vec::<String>::new());
    }
}

#[test]
fn a_transport_that_is_not_offered_is_refused_at_the_first_setup() {
    needs!(Ffmpeg);
    let from = rtsp(port::free(), "live/cam");
    let gateway = gateway(&from, &rtmp(port::free(), "live/cam"), json!({ "transports": ["tcp"] }));
    gateway.wait_value("/flows/cam/state", "waiting");
    let refused = publish(Tool::Ffmpeg, Clip::Plain, "udp", &from).finish(wait::LONG);
    assert!(refused.stderr.contains("461"), "{}", refused.stderr);
    let accepted = publish(Tool::Ffmpeg, Clip::Plain, "tcp", &from);
    gateway.wait_receiving("cam");
    drop(accepted);
}

/// GStreamer spells the mode in capitals and appends controls to the path.
#[test]
fn gstreamer_publishes_over_tcp_and_udp() {
    needs!(Gst, Ffmpeg);
    for transport in ["tcp", "udp"] {
        let (from, to) = (rtsp(port::free(), "live/cam"), rtmp(port::free(), "live/cam"));
        let gateway = gateway(&from, &to, json!({}));
        gateway.wait_value("/flows/cam/state", "waiting");
        let mut command = Tool::Gst.command();
        let publication = Program::start(
            command
                .arg("filesrc")
                .arg(format!("location={}", Clip::Plain.mp4().display()))
                .args(["!", "qtdemux", "!", "identity", "sync=true", "!", "h264parse", "!", "rtspclientsink"])
                .args([format!("location={from}"), format!("protocols={transport}")]),
        );
        gateway.wait_receiving("cam");
        let played = watch(Tool::Ffmpeg, "", &to, Some(25)).finish(wait::LONG);
        assert_eq!(seen(&played).len(), 25, "{transport}: {}\n{}", played.stderr, gateway.log());
        drop(publication);
    }
}

/// Publishes a clip by UDP over a bad network; the pictures that came out of it, in order.
fn over_a_bad_network(fate: fn(u64) -> Fate, options: Value) -> (Vec<Packet>, Module) {
    let (listening, to) = (port::free(), rtmp(port::free(), "live/cam"));
    let gateway = gateway(&rtsp(listening, "live/cam"), &to, options);
    gateway.wait_value("/flows/cam/state", "waiting");
    let relay = Relay::start(listening, fate);
    let publication = publish(Tool::Ffmpeg, Clip::Plain, "udp", &rtsp(relay.port, "live/cam"));
    gateway.wait_receiving("cam");
    let player = watch(Tool::Ffmpeg, "", &to, None);
    publication.finish(wait::LONG);
    (seen(&player.finish(wait::LONG)), gateway)
}

/// The indices of pictures in the clip; `None`: one that was never sent, so it is broken.
fn indices(pictures: &[Packet]) -> Vec<Option<usize>> {
    let clip = original(Clip::Plain);
    let index = |seen: &Packet| clip.iter().position(|picture| picture.hash == seen.hash);
    pictures.iter().map(index).collect()
}

fn whole(pictures: &[Packet]) -> Vec<usize> {
    indices(pictures).into_iter().map(|index| index.expect("no picture is broken")).collect()
}

#[test]
fn packets_that_overtake_each_other_cost_no_picture() {
    needs!(Ffmpeg);
    let (pictures, gateway) =
        over_a_bad_network(|number| if number % 5 == 0 { Fate::Late } else { Fate::Arrives }, json!({}));
    let pictures = whole(&pictures);
    assert!(pictures.len() >= 50, "{} pictures\n{}", pictures.len(), gateway.log());
    assert!(pictures.windows(2).all(|pair| pair[1] == pair[0] + 1), "{pictures:?}\n{}", gateway.log());
}

/// Pictures from one key frame of the clip to the next.
const GOP: usize = 25;

fn one_in_a_hundred_is_lost(number: u64) -> Fate {
    if number % 100 == 60 { Fate::Lost } else { Fate::Arrives }
}

#[test]
fn a_packet_in_a_hundred_lost_costs_pictures_up_to_the_next_key_frame_and_breaks_none() {
    needs!(Ffmpeg);
    let (pictures, gateway) = over_a_bad_network(one_in_a_hundred_is_lost, json!({}));
    let pictures = whole(&pictures);
    let gaps: Vec<_> = pictures.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
    assert!(!gaps.is_empty(), "nothing was lost: {pictures:?}");
    assert!(gaps.iter().all(|pair| pair[1] > pair[0] && pair[1] % GOP == 0), "{pictures:?}");
    assert!(pictures.len() >= 50, "{pictures:?}\n{}", gateway.log());
    gateway.wait_log(&["lost packets on the way"]);
}

#[test]
fn with_keep_a_lost_packet_costs_its_own_picture_alone() {
    needs!(Ffmpeg);
    let (pictures, gateway) = over_a_bad_network(one_in_a_hundred_is_lost, json!({ "onPacketLoss": "keep" }));
    let first = indices(&pictures).first().copied().flatten().expect("the first picture is whole");
    // By their times: what follows a loss looks different.
    let place = |picture: &Packet| first + ((picture.pts - pictures[0].pts + 20) / 40) as usize;
    let places: Vec<_> = pictures.iter().map(place).collect();
    let gaps: Vec<_> = places.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
    assert!(gaps.iter().any(|pair| pair[1] % GOP != 0), "{places:?}\n{}", gateway.log());
    gateway.wait_log(&["incomplete pictures are left out"]);
}

const TELEPHONE: &str =
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\na=control:trackID=0\r\n";

/// A publisher of telephone sound by UDP, each byte of which is the same, that sends from another port than it announces.
struct Rewritten {
    connection: Player,
    socket: UdpSocket,
    sent: u16,
    byte: u8,
}

impl Rewritten {
    fn start(url: &str, byte: u8) -> Self {
        let mut connection = Player::connect(url.split([':', '/']).nth(4).unwrap().parse().unwrap());
        let content = [("Content-Type", "application/sdp")];
        assert_eq!(connection.ask_with("ANNOUNCE", url, &content, TELEPHONE).status, 200);
        let transport = [("Transport", "RTP/AVP;unicast;client_port=5004-5005;mode=record")];
        let answer = connection.ask("SETUP", &format!("{url}/trackID=0"), &transport);
        let ports =
            answer.header("Transport").and_then(|header| header.split("server_port=").nth(1)).unwrap();
        let port: u16 = ports.split('-').next().unwrap().parse().unwrap();
        assert_eq!(connection.ask("RECORD", url, &[]).status, 200);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", port)).unwrap();
        Self { connection, socket, sent: 0, byte }
    }

    /// 20 ms of it.
    fn send(&mut self) {
        let mut packet = vec![0x80, 0];
        packet.extend(self.sent.to_be_bytes());
        packet.extend((u32::from(self.sent) * 160).to_be_bytes());
        packet.extend([0, 0, 0, self.byte]);
        packet.resize(12 + 160, self.byte);
        self.socket.send(&packet).unwrap();
        self.sent += 1;
    }
}

#[test]
fn publishers_behind_one_address_with_rewritten_ports_get_nothing_of_each_other() {
    let (port, to) = (port::free(), port::free());
    let flow = |name: &str, ports: &str| {
        json!({
            "input": { "listen": rtsp(port, name), "udpPorts": ports },
            "outputs": { "viewers": { "serve": rtsp(to, name), "transports": ["tcp"] } },
        })
    };
    let ports = udp_ports();
    let flows = json!({ "one": flow("live/one", &ports), "two": flow("live/two", &ports) });
    let gateway = Module::start("rtsp-gateway", &twin(flows));
    let mut publishers: Vec<Rewritten> = Vec::new();
    for (name, byte) in [("one", 0xaa), ("two", 0x55)] {
        gateway.wait_value(&format!("/flows/{name}/state"), "waiting");
        publishers.push(Rewritten::start(&rtsp(port, &format!("live/{name}")), byte));
        // The first one goes on while the second one begins.
        wait::until_true(&format!("{name} to be received"), wait::LONG, || {
            publishers.iter_mut().for_each(Rewritten::send);
            gateway.status()["flows"][name]["input"]["state"] == "receiving"
        });
    }
    for (name, byte) in [("one", 0xaa), ("two", 0x55)] {
        let mut player = Player::connect(to);
        player.play(&rtsp(to, &format!("live/{name}")), interleaved);
        let mut heard = 0;
        wait::until_true(&format!("sound of {name}"), wait::LONG, || {
            (0..10).for_each(|_| publishers.iter_mut().for_each(Rewritten::send));
            while let Some((channel, packet)) = player.frame_within(Duration::ZERO) {
                let is_own = channel == 1 || packet[12..].iter().all(|sound| *sound == byte);
                assert!(is_own, "{name} got {:x}\n{}", packet[12], gateway.log());
                heard += usize::from(channel == 0);
            }
            heard >= 50
        });
    }
    assert!(publishers.iter_mut().all(|publisher| publisher.connection.drain()), "{}", gateway.log());
}
