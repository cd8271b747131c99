//! Many who wait, and one who takes nothing: the others have every part all the same.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use av_tests::clip::Clip;
use av_tests::program::Program;
use av_tests::rtmp::Publisher;
use av_tests::tool::Tool;
use av_tests::{needs, wait};
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::hls::Gateway;
use crate::hls_secure::{Secure, address};

/// Connections that one address may have, and some more.
const MOST: usize = 2000;
const MORE: usize = 100;

/// A connection on which a GET was sent. `buffer`: what the client's side holds at most.
fn asks(from: Ipv4Addr, port: u16, path: &str, buffer: Option<usize>) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if let Some(buffer) = buffer {
        socket.set_recv_buffer_size(buffer).unwrap();
    }
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(wait::LONG)).unwrap();
    // Whoever is refused may hear of it here.
    let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    stream
}

/// The status of an answer; `None` where the connection was refused.
fn status(stream: &mut TcpStream) -> Option<u16> {
    let mut line = [0; 12];
    stream.read_exact(&mut line).ok()?;
    std::str::from_utf8(&line).unwrap().split(' ').nth(1)?.parse().ok()
}

#[test]
fn thousands_of_parked_requests_and_a_client_that_takes_nothing_cost_nobody_else_a_part() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 4 }));
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Heavy.tags());
    let media = gateway.media();
    let playlist = gateway.get(&media).text();
    let first: u64 =
        playlist.split_once("#EXT-X-MEDIA-SEQUENCE:").unwrap().1.lines().next().unwrap().parse().unwrap();
    let next = first + playlist.matches("#EXTINF").count() as u64;
    // Megabytes, of which nothing is read.
    let segment = playlist.lines().find(|line| line.ends_with(".m4s")).unwrap();
    let mut idle = asks(Ipv4Addr::LOCALHOST, gateway.port, &format!("/live/cam/{segment}"), Some(4096));
    // They all wait for the segment after the next.
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let path = format!("{media}?_HLS_msn={}&_HLS_part=0", next + 1);
    let mut parked = (0..MOST + MORE).map(|_| asks(other, gateway.port, &path, None)).collect::<Vec<_>>();
    let hint = |text: &str| {
        let (_, hint) = text.split_once("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"").expect("a hint");
        hint.split('"').next().unwrap().to_owned()
    };
    let mut hinted = hint(&gateway.get(&media).text());
    for _ in 0..15 {
        let part = gateway.get(&format!("/live/cam/{hinted}"));
        assert_eq!(part.status, 200, "{hinted}");
        let text = gateway.get(&media).text();
        assert!(text.contains(&hinted), "{hinted} is in no playlist: {text}");
        hinted = hint(&text);
    }
    let answers = parked.iter_mut().map(status).collect::<Vec<_>>();
    let count = |wanted| answers.iter().filter(|answer| **answer == wanted).count();
    assert_eq!((count(Some(200)), count(None)), (MOST, MORE));
    wait::until_true("the client that takes nothing is cut off", wait::LONG, || {
        idle.write_all(b"\r\n").is_err()
    });
}

/// What a playlist says of the part that comes next, and of the segment after the one that grows.
fn next(playlist: &str) -> (String, u64) {
    let (_, hint) = playlist.split_once("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"").expect("a hint");
    let (_, first) = playlist.split_once("#EXT-X-MEDIA-SEQUENCE:").expect("a number");
    let first: u64 = first.lines().next().unwrap().parse().unwrap();
    (hint.split('"').next().unwrap().to_owned(), first + playlist.matches("#EXTINF").count() as u64 + 1)
}

#[test]
fn thousands_of_requests_on_a_few_connections_of_http_2_cost_nobody_else_a_part() {
    needs!(Ffmpeg, Curl, H2load);
    // On each connection as many as it may have at once.
    const CONNECTIONS: usize = 15;
    const STREAMS: usize = 200;
    let gateway = Secure::start_with(&json!({ "segmentSeconds": 4 }));
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    gateway.module.wait_receiving("cam");
    let index = gateway.playlist("/live/cam/index.m3u8", &[]).body;
    let media = format!("/live/cam/{}", index.lines().filter_map(address).next_back().unwrap());
    let get = |path: &str, more: &[&str]| {
        let got = gateway.get(path, &[&["--http2", "--interface", "127.0.0.2"], more].concat());
        assert_eq!((got.version.as_str(), got.status), ("2", 200), "{path}");
        got.body
    };
    // The crowd comes again and again, and waits for the segment after the next.
    for _ in 0..3 {
        let (mut hint, after) = next(&get(&media, &[]));
        let parked = format!("{media}?_HLS_msn={after}&_HLS_part=0");
        let mut crowd = Program::start(Tool::H2load.command().args([
            "-n",
            &(CONNECTIONS * STREAMS).to_string(),
            "-c",
            &CONNECTIONS.to_string(),
            "-m",
            &STREAMS.to_string(),
            &format!("https://127.0.0.1:{}{parked}", gateway.port),
        ]));
        while crowd.ended().is_none() {
            get(&format!("/live/cam/{hint}"), &["--output", "/dev/null"]);
            let text = get(&media, &[]);
            assert!(text.contains(&hint), "{hint} is in no playlist: {text}");
            (hint, _) = next(&text);
        }
        let told = crowd.finish(wait::LONG).stdout;
        let line = told.lines().find(|line| line.starts_with("status codes: ")).expect(&told);
        eprintln!("{line}");
        let count = |class: &str| {
            let word = line.split(", ").find(|part| part.ends_with(class)).expect(line);
            word.trim_start_matches("status codes: ").split(' ').next().unwrap().parse::<usize>().unwrap()
        };
        assert_eq!(count("2xx") + count("5xx"), CONNECTIONS * STREAMS, "{told}");
        assert!(count("2xx") >= MOST && count("5xx") > 0, "{told}");
    }
}
