//! RTSP inside of HTTP and of a WebSocket, on the port of RTSP.

use std::io::{Read, Write};
use std::net::TcpStream;

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::program::Program;
use av_tests::rtmp::Publisher;
use av_tests::rtsp::{Player, Tunnel, WebSocket, interleaved};
use av_tests::tool::Tool;
use av_tests::{needs, port, wait};
use serde_json::json;

use crate::rtsp::{must_be, original, rtsp, seen, times_of_pictures, watch};
use crate::{rtmp, twin};

/// A gateway that serves `live/cam` on that port over TCP.
fn gateway(from: &str, port: u16) -> Module {
    Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": { "listen": from, "onPublisherLoss": "close" },
            "outputs": { "viewers": { "serve": rtsp(port, "live/cam"), "transports": ["tcp"] } },
        } })),
    )
}

#[test]
fn ffmpeg_plays_through_http_every_picture_at_its_time() {
    needs!(Ffmpeg, Ffmpeg9);
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let pictures = original(Clip::Plain);
    let gateway = gateway(&from, port);
    gateway.wait_value("/flows/cam/outputs/viewers/state", "waiting");
    let url = rtsp(port, "live/cam");
    let players = [Tool::Ffmpeg, Tool::Ffmpeg9].map(|tool| (tool, watch(tool, "http", &url, Some(50))));
    let publication = PublishWith::Ffmpeg.start(Clip::Plain, &from);
    for (tool, player) in players {
        let ended = player.finish(wait::LONG);
        let who = format!("{tool:?} through HTTP ({})", gateway.log());
        assert_eq!(must_be(&seen(&ended), &pictures, &who), 50, "{}", ended.stderr);
    }
    drop(publication);
    assert_eq!(gateway.terminate().status.code(), Some(0));
}

#[test]
fn gstreamer_plays_through_http() {
    needs!(Ffmpeg, Gst);
    const PICTURES: usize = 50;
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let gateway = gateway(&from, port);
    let publication = Publisher::to(&from).run_endlessly(Clip::Pyramid.tags());
    gateway.wait_receiving("cam");
    let line = format!(
        "-v rtspsrc location=rtsph://127.0.0.1:{port}/live/cam name=s s. ! rtph264depay ! h264parse ! avdec_h264 \
         ! fakesink silent=false sync=false num-buffers={PICTURES}"
    );
    let ended = Program::run(Tool::Gst.command().args(line.split_whitespace()), wait::LONG);
    let times = times_of_pictures(&ended.stdout);
    assert_eq!(times.len(), PICTURES, "{}\n{}", ended.stderr, gateway.log());
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "time went back: {times:?}");
    drop(publication);
}

/// Numbers of the packets on a channel.
fn numbers(player: &mut Player, channel: u8, count: usize) -> Vec<u16> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let (on, packet) = player.frame().expect("the stream goes on");
        if on == channel {
            numbers.push(u16::from_be_bytes([packet[2], packet[3]]));
        }
    }
    numbers
}

#[test]
fn a_websocket_and_a_tunnel_carry_a_stream_and_answers_without_a_hole() {
    needs!(Ffmpeg);
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let gateway = gateway(&from, port);
    let publication = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    gateway.wait_receiving("cam");
    let url = rtsp(port, "live/cam");
    let pongs = std::cell::RefCell::default();
    let plain = || Player::connect(port);
    let tunnel = || Player::on(Box::new(Tunnel::open(port, "/live/cam", "one")));
    let socket = || {
        let mut socket = WebSocket::open(port, "/live/cam");
        socket.ping(b"are you there?");
        pongs.replace(socket.pongs.clone());
        Player::on(Box::new(socket))
    };
    let ways: [&dyn Fn() -> Player; 3] = [&plain, &tunnel, &socket];
    for open in ways {
        let mut player = open();
        player.play(&url, interleaved);
        let seen = numbers(&mut player, 0, 100);
        assert!(seen.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "{seen:?}");
        assert_eq!(player.ask("GET_PARAMETER", &url, &[]).status, 200);
        assert_eq!(player.ask("TEARDOWN", &url, &[]).status, 200);
    }
    assert_eq!(*pongs.into_inner().lock().unwrap(), [b"are you there?"]);
    drop(publication);
    assert_eq!(gateway.terminate().status.code(), Some(0));
}

/// All of what is answered until the connection is closed.
fn answered(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(wait::LONG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn what_is_no_tunnel_or_half_of_one_gets_one_answer_and_is_closed() {
    let port = port::free();
    let gateway = gateway(&rtmp(port::free(), "live/cam"), port);
    gateway.wait_value("/flows/cam/outputs/viewers/state", "waiting");
    let get = |headers: &str| format!("GET /live/cam HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    let down = get("x-sessioncookie: half\r\n");
    let upgrade =
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13\r\n";
    for (request, said) in [
        (get(""), "HTTP/1.1 400 "),
        (get(&format!("{upgrade}Sec-WebSocket-Protocol: chat\r\n")), "HTTP/1.1 400 "),
        ("POST /live/cam HTTP/1.0\r\nx-sessioncookie: nobody\r\n\r\n".to_owned(), "HTTP/1.1 404 "),
    ] {
        let answer = answered(port, &request);
        assert!(answer.starts_with(said), "{request}: {answer}");
    }
    // A second way down with one cookie is refused, and the first ends when nobody comes.
    let mut first = TcpStream::connect(("127.0.0.1", port)).unwrap();
    first.set_read_timeout(Some(wait::LONG)).unwrap();
    first.write_all(down.as_bytes()).unwrap();
    let mut begun = [0; 12];
    first.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"HTTP/1.0 200");
    assert!(answered(port, &down).starts_with("HTTP/1.1 409 "));
    let mut rest = String::new();
    first.read_to_string(&mut rest).unwrap();
    gateway.wait_log(&["connection ended", "no way up within 10 s"]);
    // What is no base64 ends both.
    let mut tunnel = Tunnel::open(port, "/live/cam", "half");
    let mut raw = [0; 1];
    av_tests::rtsp::Way::wait_at_most(&tunnel, wait::LONG);
    tunnel.write_up(b"OPTIONS * RTSP/1.0\r\n\r\n");
    assert_eq!(tunnel.read(&mut raw).unwrap_or(0), 0);
    gateway.wait_log(&["connection ended", "no base64"]);
}
