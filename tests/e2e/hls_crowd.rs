//! Many who wait, and one who takes nothing: the others have every part all the same.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use av_tests::clip::Clip;
use av_tests::rtmp::Publisher;
use av_tests::{needs, wait};
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::hls::Gateway;

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
