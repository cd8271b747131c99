//! Peers that mean no good to an RTSP port: each of them loses its own connection, and nobody else anything.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::rtmp::Publisher;
use av_tests::rtsp::{Player, interleaved};
use av_tests::{needs, port, wait};
use serde_json::json;

use crate::rtsp::{rtsp, udp_ports};
use crate::{rtmp, twin};

fn gateway(from: &str, port: u16) -> Module {
    Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": { "listen": from },
            "outputs": { "viewers": { "serve": rtsp(port, "live/cam"), "udpPorts": udp_ports() } },
        } })),
    )
}

/// Writes as much as is taken; whether the connection was ended, and what was answered until then.
fn ended_after(port: u16, bytes: &[u8], patience: Duration) -> (bool, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    let _ = stream.write_all(bytes);
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break (true, String::from_utf8_lossy(&answer).into_owned()),
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                break (true, String::from_utf8_lossy(&answer).into_owned());
            }
            Err(_) => break (false, String::from_utf8_lossy(&answer).into_owned()),
        }
    }
}

#[test]
fn what_is_no_rtsp_or_too_much_of_it_costs_its_own_connection_alone() {
    needs!(Ffmpeg);
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let gateway = gateway(&from, port);
    let _publication = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    gateway.wait_receiving("cam");
    let mut watching = Player::connect(port);
    watching.play(&rtsp(port, "live/cam"), interleaved);
    let before = gateway.program().resident_bytes();
    let line = "X".repeat(1 << 20);
    let long_header = format!("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nX: {line}");
    let many_headers = format!("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n{}", "X: y\r\n".repeat(200_000));
    let body = "ANNOUNCE rtsp://h/live/cam RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 4000000000\r\n\r\n";
    // Nobody reads the answers.
    let pipeline = "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n".repeat(100_000);
    for (name, bytes, ends) in [
        ("noise", "\u{1}\u{2}\u{3}noise without a line".repeat(10_000), true),
        ("a long header", long_header, true),
        ("many headers", many_headers, true),
        ("a huge body", body.to_owned(), true),
        ("many requests", pipeline, false),
    ] {
        let patience = if ends { wait::LONG } else { Duration::from_secs(1) };
        let (ended, answer) = ended_after(port, bytes.as_bytes(), patience);
        assert!(ended || !ends, "{name} is still there: {answer:?}\n{}", gateway.log());
        // The one that watches is none the worse for it.
        for _ in 0..20 {
            assert!(watching.frame().is_some(), "after {name}\n{}", gateway.log());
        }
    }
    let grown = gateway.program().resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    gateway.wait_log(&["connection ended: peer broke RTSP"]);
    assert_eq!(gateway.terminate().status.code(), Some(0));
}

#[test]
fn who_guesses_keys_loses_its_connection_and_keeps_nobody_else_out() {
    needs!(Ffmpeg);
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let output =
        json!({ "serve": rtsp(port, "live/cam"), "transports": ["tcp"], "auth": { "key": "right" } });
    let gateway = Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": { "input": { "listen": from }, "outputs": { "viewers": output } } })),
    );
    let publication = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    gateway.wait_receiving("cam");
    let mut guesser = Player::connect(port);
    for _ in 0..5 {
        let refused = guesser.ask("DESCRIBE", &rtsp(port, "live/cam?key=wrong"), &[]);
        assert_eq!(refused.status, 403, "{}", refused.head);
    }
    assert!(guesser.frame().is_none(), "it is closed");
    gateway.wait_log(&["showed 5 wrong keys or passwords"]);
    // One that mistypes, from the same address.
    let mut player = Player::connect(port);
    assert_eq!(player.ask("DESCRIBE", &rtsp(port, "live/cam?key=rihgt"), &[]).status, 403);
    player.play(&rtsp(port, "live/cam?key=right"), interleaved);
    assert!(player.frame().is_some());
    drop(publication);
}

#[test]
fn datagrams_go_to_the_address_that_asked_whatever_destination_it_names() {
    needs!(Ffmpeg);
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let gateway = gateway(&from, port);
    let _publication = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    gateway.wait_receiving("cam");
    let bound = |address: &str, port| {
        let socket = UdpSocket::bind((address, port)).ok()?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Some(socket)
    };
    let (first, own, other) = wait::until("ports on two addresses", wait::LONG, || {
        let first = port::free() & !3;
        let all = |address| (0..4).map(|more| bound(address, first + more)).collect::<Option<Vec<_>>>();
        Some((first, all("127.0.0.1")?, all("127.0.0.2")?))
    });
    let mut player = Player::connect(port);
    player.play(&rtsp(port, "live/cam"), |medium| {
        let rtp = first + 2 * medium as u16;
        format!("RTP/AVP;unicast;destination=127.0.0.2;client_port={rtp}-{}", rtp + 1)
    });
    let mut buffer = [0; 2048];
    for _ in 0..30 {
        wait::until_true("a packet", wait::LONG, || own[0].recv(&mut buffer).is_ok());
    }
    for socket in &other {
        assert!(socket.recv(&mut buffer).is_err(), "a packet where nobody asked for it");
    }
}
