//! An RTSP player that shares no code with the modules. It does what it is told, and nothing by itself: no keep-alive,
//! no report.

mod relay;
mod way;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub use relay::{Fate, Relay};
pub use way::{Tunnel, Way, WebSocket};

use crate::wait;

/// A connection.
pub struct Player {
    way: Box<dyn Way>,
    input: Vec<u8>,
    cseq: u32,
    session: Option<String>,
    server_ports: Option<(u16, u16)>,
    frames: VecDeque<(u8, Vec<u8>)>,
}

/// What a request is answered with.
#[derive(Clone, Debug)]
pub struct Answer {
    /// As 200.
    pub status: u16,
    /// Start line and headers.
    pub head: String,
    /// What is behind them.
    pub body: String,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

impl Player {
    /// Connects to a port of 127.0.0.1.
    pub fn connect(port: u16) -> Self {
        Self::on(Box::new(TcpStream::connect(("127.0.0.1", port)).unwrap()))
    }

    /// On a connection that is there.
    pub fn on(way: Box<dyn Way>) -> Self {
        way.wait_at_most(Duration::from_millis(200));
        Self { way, input: Vec::new(), cseq: 0, session: None, server_ports: None, frames: VecDeque::new() }
    }

    /// Sends a request and waits for its answer; media that comes before it is kept.
    pub fn ask(&mut self, method: &str, url: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask_with(method, url, headers, "")
    }

    /// The same with a body.
    pub fn ask_with(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.cseq += 1;
        let mut request = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\n", self.cseq);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(session) = &self.session {
            request.push_str(&format!("Session: {session}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.way.write_all(format!("{request}\r\n{body}").as_bytes()).unwrap();
        let answer = wait::until(&format!("an answer to {method}"), wait::LONG, || {
            let answer = self.take_answer();
            if answer.is_none() {
                assert!(self.read(), "the connection ended before {method} was answered");
            }
            answer
        });
        assert_eq!(answer.header("CSeq"), Some(self.cseq.to_string().as_str()), "{}", answer.head);
        if let Some(session) = answer.header("Session") {
            self.session = session.split(';').next().map(str::to_owned);
        }
        answer
    }

    /// DESCRIBE, SETUP of every medium, and PLAY, whose answer is given. `transport` is asked for each medium.
    pub fn play(&mut self, url: &str, transport: impl Fn(usize) -> String) -> Answer {
        let described = self.ask("DESCRIBE", url, &[("Accept", "application/sdp")]);
        assert_eq!(described.status, 200, "{}", described.head);
        let media = described.body.split("\nm=").skip(1);
        let controls = media.filter_map(|medium| medium.split("\na=control:").nth(1)?.lines().next());
        for (medium, control) in controls.enumerate() {
            let answer = self.ask("SETUP", control.trim(), &[("Transport", &transport(medium))]);
            assert_eq!(answer.status, 200, "{}", answer.head);
            let ports = answer.header("Transport").and_then(|header| header.split("server_port=").nth(1));
            let pair = ports.and_then(|ports| ports.split(';').next()?.split_once('-'));
            self.server_ports = pair.map(|(rtp, rtcp)| (rtp.parse().unwrap(), rtcp.parse().unwrap()));
        }
        let playing = self.ask("PLAY", url, &[("Range", "npt=now-")]);
        assert_eq!(playing.status, 200, "{}", playing.head);
        playing
    }

    /// The server's ports of RTP and RTCP, where media comes in datagrams.
    pub fn server_ports(&self) -> Option<(u16, u16)> {
        self.server_ports
    }

    /// The next interleaved packet and its channel, if one comes within that time. Panics where the connection has ended.
    pub fn frame_within(&mut self, limit: Duration) -> Option<(u8, Vec<u8>)> {
        let start = Instant::now();
        loop {
            self.take_answers();
            let frame = self.frames.pop_front();
            if frame.is_some() {
                return frame;
            }
            assert!(self.read(), "the connection ended");
            if start.elapsed() > limit {
                self.take_answers();
                return self.frames.pop_front();
            }
        }
    }

    /// The next interleaved packet and its channel; `None` where the connection has ended.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        wait::until("a packet or the end", wait::LONG, || {
            self.take_answers();
            if let Some(frame) = self.frames.pop_front() {
                return Some(Some(frame));
            }
            (!self.read()).then_some(None)
        })
    }

    /// Sends a packet.
    pub fn send_frame(&mut self, channel: u8, packet: &[u8]) {
        let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
        self.way.write_all(&[&[b'$', channel, length[0], length[1]], packet].concat()).unwrap();
    }

    /// Takes what is there and forgets it. Whether the connection is still open.
    pub fn drain(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(50) {
            if !self.read() {
                return false;
            }
            self.take_answers();
            self.frames.clear();
        }
        true
    }

    fn take_answers(&mut self) {
        while self.take_answer().is_some() {}
    }

    /// The next answer; packets before it are kept.
    fn take_answer(&mut self) -> Option<Answer> {
        while let [b'$', channel, high, low, rest @ ..] = self.input.as_slice() {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let packet = rest.get(..length)?.to_vec();
            self.frames.push_back((*channel, packet));
            self.input.drain(..4 + length);
        }
        if self.input.is_empty() {
            return None;
        }
        assert!(b"RTSP/1.0 ".starts_with(self.input.get(..9)?), "neither an answer nor a packet");
        let end = self.input.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.input[..end].to_vec()).unwrap();
        let mut answer = Answer { status: head[9..12].parse().unwrap(), head, body: String::new() };
        let length = answer.header("Content-Length").map_or(0, |length| length.parse().unwrap());
        answer.body = String::from_utf8(self.input.get(end..end + length)?.to_vec()).unwrap();
        self.input.drain(..end + length);
        Some(answer)
    }

    /// Reads for a moment. Whether the connection is open.
    fn read(&mut self) -> bool {
        let mut buffer = vec![0; 64 << 10];
        match self.way.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.input.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

/// The `Transport` of a medium that travels in the connection, on the channels that everybody has.
pub fn interleaved(medium: usize) -> String {
    format!("RTP/AVP/TCP;unicast;interleaved={}-{}", 2 * medium, 2 * medium + 1)
}
