//! Peers that break the rules: they lose their connection, nobody else loses anything.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::recording::{End, Kind, Times};
use av_tests::rtmp::{Connection, Player, Publisher};
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::{rtmp, twin};

fn splitter(url: &str, input: &Value) -> Module {
    let mut all = json!({ "listen": url });
    all.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
    Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": { "input": all, "outputs": { "viewers": { "serve": url } } } })),
    )
}

/// Waits until the server has closed the connection.
fn wait_closed(mut socket: &TcpStream) {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut bytes = [0; 4096];
    wait::until_true("the server closes the connection", wait::LONG, || match socket.read(&mut bytes) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    });
}

#[test]
fn garbage_costs_its_sender_the_connection_and_one_line() {
    needs!(Ffmpeg);
    let port = port::free();
    let url = rtmp(port, "live/cam");
    let splitter = splitter(&url, &json!({}));
    let publishing = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    splitter.wait_receiving("cam");
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 1);

    // Before the handshake, after it, and after connect.
    let mut early = TcpStream::connect(("127.0.0.1", port)).unwrap();
    early.write_all(b"GET / HTTP/1.1\r\nHost: camera\r\n\r\n").unwrap();
    let mut peers = vec![early];
    for connected in [false, true] {
        let mut connection = Connection::open(port, None).unwrap();
        if connected {
            connection.connect(port, "live").unwrap();
        }
        // A type 3 header on a chunk stream that never had a type 0.
        let mut socket = connection.socket().try_clone().unwrap();
        socket.write_all(&[0xC0 | 40; 64]).unwrap();
        peers.push(socket);
    }
    for peer in &peers {
        let address = peer.local_addr().unwrap().to_string();
        wait_closed(peer);
        let line = splitter.wait_log(&[&address, "byte"]);
        assert!(line.contains("] - "), "not in the log format: {line}");
        let lines = splitter.log_lines(&address);
        let loud: Vec<_> = lines.iter().filter(|line| !line.contains("[DBG]")).collect();
        assert_eq!(loud.len(), 1, "{loud:#?}");
    }

    let sent = publishing.stop();
    player.wait_last_of(&sent);
    player.recording().must_be(&sent, Times::Exact, End::Complete);
}

#[test]
fn a_message_longer_than_allowed_is_refused_before_it_is_sent() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = splitter(&url, &json!({ "maxMessageKilobytes": 64 }));
    let mut publisher = Publisher::to(&url);
    let address = publisher.connection().socket().local_addr().unwrap().to_string();
    let before = splitter.program().resident_bytes();
    // The header of a video message of 15 MiB, and none of its bytes.
    let mut socket = publisher.connection().socket().try_clone().unwrap();
    socket.write_all(&[6, 0, 0, 0, 0xF0, 0, 0, 9, 1, 0, 0, 0]).unwrap();
    wait_closed(&socket);
    let line = splitter.wait_log(&[&address, "byte"]);
    assert!(line.contains("15728640") && line.contains("65536"), "the numbers are missing: {line}");
    assert!(splitter.program().resident_bytes() < before + (4 << 20));
}

#[test]
fn unfinished_messages_cannot_fill_the_memory() {
    let port = port::free();
    let splitter = splitter(&rtmp(port, "live/cam"), &json!({}));
    let before = splitter.program().resident_bytes();
    // Before publish: 50 connections begin a message of 16 MiB on each of 60 chunk streams.
    let mut connections: Vec<_> = (0..50).map(|_| Connection::open(port, None).unwrap()).collect();
    for connection in &mut connections {
        let mut socket = connection.socket().try_clone().unwrap();
        for csid in 3..63 {
            let mut chunk = vec![csid, 0, 0, 0, 0xFF, 0xFF, 0xFF, 9, 1, 0, 0, 0];
            chunk.extend([0; 128]);
            if socket.write_all(&chunk).is_err() {
                break;
            }
        }
    }
    connections.iter().for_each(|connection| wait_closed(connection.socket()));
    let grown = splitter.program().resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{} KiB for 50 connections that never published", grown / 1024);
}

#[test]
fn a_peer_that_does_not_finish_the_handshake_is_sent_away() {
    let port = port::free();
    let _splitter = splitter(&rtmp(port, "live/cam"), &json!({}));
    let silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut partial = TcpStream::connect(("127.0.0.1", port)).unwrap();
    partial.write_all(&[3, 0, 0, 0, 0]).unwrap();
    let start = Instant::now();
    wait_closed(&silent);
    wait_closed(&partial);
    assert!(
        start.elapsed() > Duration::from_secs(5),
        "sent away after {:?}: encoders need longer",
        start.elapsed()
    );
}

#[test]
fn no_more_connections_than_allowed() {
    needs!(Ffmpeg);
    let port = port::free();
    let url = rtmp(port, "live/cam");
    let flows = json!({ "cam": { "input": { "listen": url }, "outputs": { "viewers": { "serve": url } } } });
    let mut document = twin(flows);
    document["maxConnections"] = json!(3);
    let splitter = Module::start("rtmp-splitter", &document);
    let publishing = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    splitter.wait_receiving("cam");
    let players: Vec<_> = (0..2).map(|_| Player::start(&url)).collect();
    players.iter().for_each(|player| player.wait_frames(Kind::Video, 1));

    let fourth = Player::start(&url);
    fourth.wait_end();
    assert_eq!(fourth.frames(Kind::Video), 0);
    splitter.wait_log(&["maxConnections"]);
    drop(players);
    // A place that is given up can be taken.
    wait::until_true("a place is free again", wait::LONG, || {
        let next = Player::start(&url);
        wait::until("it plays or is refused", wait::LONG, || {
            (next.frames(Kind::Video) > 0).then_some(true).or_else(|| next.ended().map(|_| false))
        })
    });
    publishing.stop();
}

#[test]
fn no_more_players_than_allowed() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": {
            "input": { "listen": url }, "outputs": { "viewers": { "serve": url, "maxClients": 1 } },
        } })),
    );
    let _publishing = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    splitter.wait_receiving("cam");
    let first = Player::start(&url);
    first.wait_frames(Kind::Video, 1);
    let second = Player::start(&url);
    second.wait_end();
    assert_eq!(second.frames(Kind::Video), 0);
    splitter.wait_log(&["maxClients"]);
    assert_eq!(first.ended(), None);
}

#[test]
fn a_publisher_with_a_name_of_no_flow_is_told_so() {
    let port = port::free();
    let splitter = splitter(&rtmp(port, "live/cam"), &json!({}));
    let refused = Publisher::start(&rtmp(port, "live/other")).unwrap().err().expect("refused");
    assert_eq!(refused.code, "NetStream.Publish.BadName", "{refused:?}");
    splitter.wait_log(&["live/other", "127.0.0.1:"]);
    let player = Player::start(&rtmp(port, "live/other"));
    player.wait_end();
    assert!(
        player.status().iter().any(|code| code == "NetStream.Play.StreamNotFound"),
        "{:?}",
        player.status()
    );
}
