//! `rtsps`: players and publishers in TLS, and passwords that travel in it.

use std::path::Path;

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::module::{Module, Setup};
use av_tests::program::{Finished, Program};
use av_tests::rtmp::Publisher;
use av_tests::tool::Tool;
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::access::certificate;
use crate::rtsp::{must_be, original, rtsp, seen, times_of_pictures, udp_ports, watch, watch_with};
use crate::{rtmp, twin};

/// What a server answers in TLS that is checked, to each request of the list.
fn asked(port: u16, trusted: &Path, requests: &[String]) -> Finished {
    const SCRIPT: &str = "
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
raw = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 30)
with context.wrap_socket(raw, server_hostname='localhost') as way:
    for request in sys.argv[3:]:
        way.sendall(request.encode())
        answer = b''
        while b'\\r\\n\\r\\n' not in answer:
            answer += way.recv(4096)
        print(answer.decode())
";
    let mut command = Tool::Python.command();
    command.args(["-c", SCRIPT, &port.to_string()]).arg(trusted).args(requests);
    Program::run(&mut command, wait::LONG)
}

fn gateway(setup: Setup, input: Value, output: Value) -> Module {
    setup.twin(&twin(json!({ "cam": { "input": input, "outputs": { "viewers": output } } }))).start()
}

#[test]
fn players_in_tls_see_every_picture_and_udp_is_not_offered_beside_it() {
    needs!(Ffmpeg, Ffmpeg9, Gst);
    const PICTURES: usize = 50;
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let setup = Setup::new("rtsp-gateway");
    let (trusted, key) = certificate(setup.dir());
    let tls = json!({ "certificateFile": trusted, "keyFile": key });
    let url = format!("rtsps://localhost:{port}/live/cam");
    let serve = format!("rtsps://127.0.0.1:{port}/live/cam");
    let gateway = gateway(
        setup,
        json!({ "listen": from, "onPublisherLoss": "close" }),
        json!({ "serve": serve, "tls": tls }),
    );
    gateway.wait_value("/flows/cam/outputs/viewers/state", "waiting");
    let pictures = original(Clip::Plain);
    // The older one has no option for whom it trusts, and trusts everybody.
    let trusted = trusted.display().to_string();
    let options = [(Tool::Ffmpeg, vec![]), (Tool::Ffmpeg9, vec!["-ca_file", &trusted])];
    let refused = watch(Tool::Ffmpeg9, "tcp", &url, Some(PICTURES)).finish(wait::LONG);
    assert!(!refused.status.success(), "a certificate that nobody vouches for is refused");
    let players =
        options.map(|(tool, options)| (tool, watch_with(tool, "tcp", &url, Some(PICTURES), &options)));
    let publication = PublishWith::Ffmpeg.start(Clip::Plain, &from);
    for (tool, player) in players {
        let ended = player.finish(wait::LONG);
        let who = format!("{tool:?} in TLS ({})", gateway.log());
        assert_eq!(must_be(&seen(&ended), &pictures, &who), PICTURES, "{}", ended.stderr);
    }
    drop(publication);
    let publication = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    gateway.wait_receiving("cam");
    // It asks for UDP first, and takes what is left.
    let line = format!(
        "-v rtspsrc location={url} tls-validation-flags=0 name=s s. ! rtph264depay ! h264parse ! avdec_h264 \
         ! fakesink silent=false sync=false num-buffers={PICTURES}"
    );
    let ended = Program::run(Tool::Gst.command().args(line.split_whitespace()), wait::LONG);
    assert_eq!(times_of_pictures(&ended.stdout).len(), PICTURES, "{}\n{}", ended.stderr, gateway.log());
    drop(publication);
}

#[test]
fn basic_is_offered_in_tls_alone_and_lets_in_who_knows_the_password() {
    needs!(Python);
    let (plain, secure) = (port::free(), port::free());
    let setup = Setup::new("rtsp-gateway");
    let (trusted, key) = certificate(setup.dir());
    let auth = json!({ "username": "viewer", "password": "open sesame" });
    let gateway = setup
        .twin(&twin(json!({ "cam": {
            "input": { "listen": rtmp(port::free(), "live/cam") },
            "outputs": {
                "plain": { "serve": rtsp(plain, "live/cam"), "udpPorts": udp_ports(), "auth": auth },
                "secure": {
                    "serve": format!("rtsps://127.0.0.1:{secure}/live/cam"), "auth": auth,
                    "tls": { "certificateFile": trusted, "keyFile": key },
                },
            },
        } })))
        .start();
    gateway.wait_value("/flows/cam/outputs/secure/state", "waiting");
    let mut player = av_tests::rtsp::Player::connect(plain);
    let refused = player.ask("DESCRIBE", &rtsp(plain, "live/cam"), &[]);
    assert_eq!(refused.status, 401);
    assert!(refused.head.contains("Digest ") && !refused.head.contains("Basic "), "{}", refused.head);

    let ask = |cseq: u8, header: &str| {
        format!("DESCRIBE rtsps://localhost:{secure}/live/cam RTSP/1.0\r\nCSeq: {cseq}\r\n{header}\r\n")
    };
    // "viewer:open sesame", and there is no stream.
    let basic = ask(2, "Authorization: Basic dmlld2VyOm9wZW4gc2VzYW1l\r\n");
    let said = asked(secure, &trusted, &[ask(1, ""), basic]);
    let (first, second) = said.stdout.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{}", said.stderr));
    assert!(first.starts_with("RTSP/1.0 401 "), "{first}");
    assert!(first.contains("Digest ") && first.contains("Basic "), "{first}");
    assert!(second.trim_start().starts_with("RTSP/1.0 404 "), "{second}");
    assert!(!gateway.log().contains("sesame"));
}

/// Both ends are ours: what one asks for, the other gives.
#[test]
fn a_gateway_pulls_from_another_with_user_and_password_and_with_a_key() {
    let user = json!({ "username": "viewer", "password": "open sesame" });
    let key = json!({ "key": "abracadabra" });
    let setup = Setup::new("rtsp-gateway");
    let (trusted, private) = certificate(setup.dir());
    let tls = json!({ "certificateFile": trusted, "keyFile": private });
    let (from, plain, secure) = (rtmp(port::free(), "live/cam"), port::free(), port::free());
    let asking = setup
        .twin(&twin(json!({ "cam": { "input": { "listen": from }, "outputs": {
            "user": { "serve": rtsp(plain, "live/user"), "udpPorts": udp_ports(), "auth": user },
            "key": { "serve": rtsp(plain, "live/key"), "udpPorts": udp_ports(), "auth": key },
            "secure": {
                "serve": format!("rtsps://127.0.0.1:{secure}/live/user"), "tls": tls, "auth": user,
            },
        } } })))
        .start();
    let trust = json!({ "caFile": trusted });
    let pull = |url: String, credentials: &Value, tls: &Value| {
        let serve = json!({ "viewers": { "serve": rtmp(port::free(), "live/cam") } });
        let input = json!({ "pull": url, "credentials": credentials, "tls": tls });
        json!({ "input": input, "outputs": serve })
    };
    let pulling = Module::start(
        "rtsp-gateway",
        &twin(json!({
            "user": pull(rtsp(plain, "live/user"), &user, &Value::Null),
            "key": pull(rtsp(plain, "live/key"), &key, &Value::Null),
            "secure": pull(format!("rtsps://localhost:{secure}/live/user"), &user, &trust),
        })),
    );
    let publication = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    for flow in ["user", "key", "secure"] {
        pulling.wait_receiving(flow);
    }
    assert!(!pulling.log().contains("sesame") && !asking.log().contains("sesame"));
    drop(publication);
}

#[test]
fn publishers_in_tls_are_let_in_and_all_their_pictures_come_out() {
    needs!(Ffmpeg, Gst);
    for tool in [Tool::Ffmpeg, Tool::Gst] {
        let (port, to) = (port::free(), rtmp(port::free(), "live/cam"));
        let setup = Setup::new("rtsp-gateway");
        let (trusted, key) = certificate(setup.dir());
        let listen = format!("rtsps://127.0.0.1:{port}/live/cam");
        let tls = json!({ "certificateFile": trusted, "keyFile": key });
        let input = json!({ "listen": listen, "tls": tls, "onPublisherLoss": "close" });
        let gateway = gateway(setup, input, json!({ "serve": to }));
        gateway.wait_value("/flows/cam/state", "waiting");
        let (clip, url) = (Clip::Plain.mp4(), format!("rtsps://localhost:{port}/live/cam"));
        let mut command = tool.command();
        if tool == Tool::Gst {
            let line = format!(
                "-e filesrc location={} ! qtdemux name=d rtspclientsink location={url} protocols=tcp \
                 tls-validation-flags=0 name=s d.video_0 ! queue ! h264parse config-interval=-1 ! identity sync=true \
                 ! s. d.audio_0 ! queue ! aacparse ! s.",
                clip.display()
            );
            command.args(line.split_whitespace());
        } else {
            command.args(["-hide_banner", "-nostdin", "-loglevel", "info", "-re", "-i"]).arg(clip);
            command.args(["-c", "copy", "-f", "rtsp", "-rtsp_transport", "tcp", &url]);
        }
        let publication = Program::start(&mut command);
        gateway.wait_receiving("cam");
        let player = watch(Tool::Ffmpeg, "", &to, Some(50));
        let ended = player.finish(wait::LONG);
        let who = format!("{tool:?} ({})", gateway.log());
        assert_eq!(must_be(&seen(&ended), &original(Clip::Plain), &who), 50, "{}", ended.stderr);
        drop(publication);
        assert_eq!(gateway.terminate().status.code(), Some(0));
    }
}
