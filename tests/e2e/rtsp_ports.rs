//! Ports for datagrams that another program has: TCP is served meanwhile, and UDP once they are free.

use std::net::UdpSocket;

use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::program::Program;
use av_tests::rtmp::Publisher;
use av_tests::rtsp::{Player, interleaved};
use av_tests::tool::Tool;
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::rtsp::{rtsp, seen, udp_ports, watch};
use crate::{rtmp, twin};

const UDP: &str = "RTP/AVP;unicast;client_port=51000-51001";

/// What the first SETUP for UDP is answered with.
fn asked_for_udp(port: u16) -> u16 {
    let (mut player, url) = (Player::connect(port), rtsp(port, "live/cam"));
    let described = player.ask("DESCRIBE", &url, &[("Accept", "application/sdp")]);
    assert_eq!(described.status, 200, "{}", described.head);
    let control = described.body.split("\na=control:").nth(2).unwrap().lines().next().unwrap();
    player.ask("SETUP", control.trim(), &[("Transport", UDP)]).status
}

#[test]
fn tcp_is_served_while_another_program_has_the_ports_of_udp_and_udp_when_they_are_free() {
    needs!(Ffmpeg);
    let (from, port, ports) = (rtmp(port::free(), "live/cam"), port::free(), udp_ports());
    let first: u16 = ports.split('-').next().unwrap().parse().unwrap();
    let other = UdpSocket::bind(("127.0.0.1", first)).unwrap();
    let gateway = Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": { "listen": from },
            "outputs": { "viewers": { "serve": rtsp(port, "live/cam"), "udpPorts": ports } },
        } })),
    );
    let _publication = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    gateway.wait_value("/flows/cam/outputs/viewers/state", "serving");
    let error = gateway.wait_status("/flows/cam/outputs/viewers/error", Value::is_string);
    let error = error.as_str().unwrap();
    assert!(
        error.starts_with(&format!("flows.cam.outputs.viewers.udpPorts: 127.0.0.1 has no ports {ports}")),
        "{error}"
    );
    assert_eq!(asked_for_udp(port), 461);
    // ffmpeg asks for UDP first, and then for TCP by itself.
    let playing = {
        let mut command = Tool::Ffmpeg.command();
        command.args(["-hide_banner", "-nostdin", "-i", &rtsp(port, "live/cam")]);
        command.args(["-map", "0:v", "-fps_mode", "passthrough", "-enc_time_base", "1:90000"]);
        Program::start(command.args(["-frames:v", "25", "-f", "framemd5", "-"]))
    };
    let ended = playing.finish(wait::LONG);
    assert_eq!(seen(&ended).len(), 25, "{}\n{}", ended.stderr, gateway.log());
    let mut staying = Player::connect(port);
    staying.play(&rtsp(port, "live/cam"), interleaved);
    drop(other);
    gateway.wait_status("/flows/cam/outputs/viewers/error", Value::is_null);
    assert_eq!(asked_for_udp(port), 200);
    let ended = watch(Tool::Ffmpeg, "udp", &rtsp(port, "live/cam"), Some(25)).finish(wait::LONG);
    assert_eq!(seen(&ended).len(), 25, "{}\n{}", ended.stderr, gateway.log());
    // Whoever came before is still there.
    assert!(staying.drain());
    assert_eq!(gateway.log_lines("has no ports").len(), 1, "{}", gateway.log());
}

#[test]
fn publishers_by_tcp_are_let_in_and_those_with_udp_alone_wait_while_the_ports_are_taken() {
    needs!(Ffmpeg);
    let (port, only_udp, ports) = (port::free(), port::free(), udp_ports());
    let first: u16 = ports.split('-').next().unwrap().parse().unwrap();
    let other = UdpSocket::bind(("127.0.0.1", first + 1)).unwrap();
    let output = |name: &str| json!({ "all": { "serve": rtmp(port::free(), name) } });
    let gateway = Module::start(
        "rtsp-gateway",
        &twin(json!({
            "cam": {
                "input": { "listen": rtsp(port, "live/cam"), "udpPorts": ports }, "outputs": output("live/cam"),
            },
            "only": {
                "input": { "listen": rtsp(only_udp, "live/cam"), "udpPorts": ports, "transports": ["udp"] },
                "outputs": output("live/only"),
            },
        })),
    );
    for flow in ["cam", "only"] {
        gateway.wait_status(&format!("/flows/{flow}/input/error"), |error| {
            error.as_str().is_some_and(|error| error.contains("has no ports"))
        });
    }
    gateway.wait_value("/flows/cam/input/state", "waiting");
    gateway.wait_value("/flows/only/input/state", "retrying");
    let publish = |transport: &str, url: &str| {
        let mut command = Tool::Ffmpeg.command();
        command.args(["-hide_banner", "-nostdin", "-re", "-i"]).arg(Clip::Plain.mp4());
        command.args(["-c", "copy", "-f", "rtsp", "-rtsp_transport", transport, url]);
        Program::start(&mut command)
    };
    let refused = publish("udp", &rtsp(port, "live/cam")).finish(wait::LONG);
    assert!(refused.stderr.contains("461"), "{}", refused.stderr);
    let _by_tcp = publish("tcp", &rtsp(port, "live/cam"));
    gateway.wait_receiving("cam");
    drop(other);
    gateway.wait_value("/flows/only/input/state", "waiting");
    let _by_udp = publish("udp", &rtsp(only_udp, "live/cam"));
    gateway.wait_receiving("only");
}
