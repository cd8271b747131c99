//! One connection to the camera.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};

use super::media::{Media, index};
use super::{Reports, RtpInfo, Shared};
use crate::recording::Kind;

/// Seconds from 1900 to 1970.
const NTP: u64 = 2_208_988_800;
const KINDS: [Kind; 2] = [Kind::Video, Kind::Audio];

/// How a track travels.
enum Way {
    Channels(u8),
    Ports(UdpSocket, UdpSocket, SocketAddr),
}

struct Talk<'a> {
    shared: &'a Shared,
    stream: TcpStream,
    input: Vec<u8>,
    nonce: String,
    ways: [Option<Way>; 2],
    /// The next unit, once it plays.
    next: Option<usize>,
    pictures: usize,
    numbers: [u16; 2],
    ssrc: u32,
    session: usize,
    /// Packets by UDP so far, and the one that waits for another to overtake it.
    packets: usize,
    late: Option<(usize, Vec<u8>)>,
    reported: Option<Instant>,
    last_request: Instant,
}

/// Until one of both is tired of it.
pub(super) fn talk(stream: TcpStream, shared: &Shared) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let session = shared.sessions.fetch_add(1, Ordering::Relaxed);
    let mut talk = Talk {
        shared,
        stream,
        input: Vec::new(),
        nonce: format!("nonce{session}"),
        ways: [None, None],
        next: None,
        pictures: 0,
        numbers: [65_500, 10],
        ssrc: 0x1000 + session as u32 * 16,
        session,
        packets: 0,
        late: None,
        reported: None,
        last_request: Instant::now(),
    };
    // Each turn waits for requests a while.
    loop {
        if shared.over.load(Ordering::Relaxed) || talk.turn().is_err() {
            return;
        }
    }
}

fn over() -> io::Error {
    ErrorKind::ConnectionAborted.into()
}

impl Talk<'_> {
    fn turn(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(over()),
            Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        loop {
            match &self.input[..] {
                [b'$', _, high, low, ..] => {
                    let end = 4 + usize::from(u16::from_be_bytes([*high, *low]));
                    if self.input.len() < end {
                        break;
                    }
                    self.input.drain(..end);
                }
                [b'$', ..] => break,
                _ => {
                    let Some(end) = self.input.windows(4).position(|end| end == b"\r\n\r\n") else { break };
                    let head: Vec<u8> = self.input.drain(..end + 4).collect();
                    let head = String::from_utf8(head).unwrap();
                    let body = field(&head, "Content-Length").map_or(0, |length| length.parse().unwrap());
                    self.input.drain(..body);
                    self.request(&head)?;
                }
            }
        }
        let patience = self.shared.habits.timeout;
        if patience > 0 && self.last_request.elapsed() > Duration::from_secs(patience) {
            return Err(over());
        }
        self.play()
    }

    fn request(&mut self, head: &str) -> io::Result<()> {
        let shared = self.shared;
        let habits = &shared.habits;
        self.last_request = Instant::now();
        let mut words = head.split(' ');
        let (method, url) = (words.next().unwrap(), words.next().unwrap());
        shared.heard.lock().unwrap().push(format!("{method} {url}"));
        let cseq = field(head, "CSeq").unwrap();
        let session = format!(
            "Session: 4711{}\r\n",
            match habits.timeout {
                0 => habits.session_parameter.to_owned(),
                seconds => format!(";timeout={seconds}{}", habits.session_parameter),
            }
        );
        if let ("DESCRIBE" | "ANNOUNCE", Some(to)) = (method, &habits.redirects) {
            return self.answer("302 Moved Temporarily", cseq, &format!("Location: {to}\r\n"), "");
        }
        if let Some(status) = habits.refuses {
            return self.answer(status, cseq, "", "");
        }
        if let Some(login) = habits.login
            && method != "OPTIONS"
            && !self.knows(head, method, login)
        {
            return self.challenge(cseq, false);
        }
        let stale =
            || shared.stale.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if method == "SETUP" && stale().is_ok() {
            self.nonce.push('x');
            return self.challenge(cseq, true);
        }
        match method {
            "OPTIONS" => {
                let public = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n";
                self.answer("200 OK", cseq, public, "")
            }
            "DESCRIBE" => {
                let base = habits.content_base.map_or_else(|| format!("{url}/"), str::to_owned);
                let sdp = shared.media.sdp(habits);
                let kind = format!("application/sdp{}", habits.content_type);
                self.answer(
                    "200 OK",
                    cseq,
                    &format!("Content-Base: {base}\r\nContent-Type: {kind}\r\n"),
                    &sdp,
                )
            }
            "SETUP" => {
                let at = usize::from(url.ends_with("trackID=1"));
                let asked = field(head, "Transport").unwrap();
                let said = if habits.other_ssrc { 0xdead_0000 } else { self.ssrc };
                let (way, transport) = set_up(asked, self.stream.peer_addr()?, said + at as u32)?;
                self.ways[at] = Some(way);
                self.answer("200 OK", cseq, &format!("{session}Transport: {transport}\r\n"), "")
            }
            "PLAY" => {
                let first = shared.media.at(shared.began.elapsed());
                let info = self.rtp_info(url, first);
                self.answer("200 OK", cseq, &format!("{session}{info}"), "")?;
                self.next = (self.session >= habits.hangs).then_some(first);
                Ok(())
            }
            "TEARDOWN" => {
                self.answer("200 OK", cseq, &session, "")?;
                Err(over())
            }
            "SET_PARAMETER" if habits.breaks_on_set_parameter => Err(over()),
            _ => self.answer("200 OK", cseq, &session, ""),
        }
    }

    fn answer(&mut self, status: &str, cseq: &str, headers: &str, body: &str) -> io::Result<()> {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let text = format!("RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n{headers}{length}\r\n{body}");
        self.stream.write_all(text.as_bytes())
    }

    fn challenge(&mut self, cseq: &str, stale: bool) -> io::Result<()> {
        let stale = if stale { ", stale=\"true\"" } else { "" };
        let header =
            format!("WWW-Authenticate: Digest realm=\"camera\", nonce=\"{}\"{stale}\r\n", self.nonce);
        self.answer("401 Unauthorized", cseq, &header, "")
    }

    /// Whether the request shows the password (RFC 2617 §3.2.2, without `qop`).
    fn knows(&self, head: &str, method: &str, [user, password]: [&str; 2]) -> bool {
        let Some(shown) = field(head, "Authorization") else { return false };
        let part = |name: &str| {
            let (_, rest) = shown.split_once(&format!("{name}=\""))?;
            rest.split('"').next()
        };
        let hash =
            |text: String| -> String { Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect() };
        let uri = part("uri").unwrap_or_default();
        let (first, second) = (hash(format!("{user}:camera:{password}")), hash(format!("{method}:{uri}")));
        part("response") == Some(&hash(format!("{first}:{}:{second}", self.nonce)))
    }

    fn rtp_info(&self, url: &str, first: usize) -> String {
        let (unit, start) = self.shared.media.unit(first);
        let part = |kind: Kind| {
            let time = match self.shared.habits.rtp_info {
                // As if sound were where it should be.
                RtpInfo::Right => Media::time(kind, start + unit.at),
                _ => 0,
            };
            let number = self.numbers[index(kind)];
            format!("url={}/trackID={};seq={number};rtptime={time}", url.trim_end_matches('/'), index(kind))
        };
        let parts: Vec<_> =
            KINDS.into_iter().filter(|kind| self.ways[index(*kind)].is_some()).map(part).collect();
        match self.shared.habits.rtp_info {
            RtpInfo::Absent => String::new(),
            _ => format!("RTP-Info: {}\r\n", parts.join(",")),
        }
    }

    /// Sends what is due.
    fn play(&mut self) -> io::Result<()> {
        let shared = self.shared;
        let habits = &shared.habits;
        while let Some(next) = self.next {
            let (unit, start) = shared.media.unit(next);
            let now = shared.began.elapsed().as_millis() as i64;
            if start + unit.at > now {
                break;
            }
            self.next = Some(next + 1);
            let is_picture = unit.kind == Kind::Video;
            if is_picture && self.pictures == 0 && unit.is_sync == habits.starts_in_the_middle {
                // It begins with a picture of the kind that it should.
                continue;
            }
            if self.ways[index(unit.kind)].is_none() {
                continue;
            }
            let (at, first) = (Some(self.pictures), self.session == 0);
            self.pictures += usize::from(is_picture);
            if is_picture && first && habits.new_ssrc == at {
                self.ssrc += 0x1000_0000;
            }
            if is_picture && first && habits.old_numbers == at {
                self.numbers[0] = self.numbers[0].wrapping_sub(20_000);
            }
            let hour = if is_picture { 90_000 * 3600 } else { 48_000 * 3600 };
            let mut time = Media::time_of(unit, start);
            if !is_picture {
                time = time.wrapping_add((habits.sound_is_off * 48) as u32);
            }
            if is_picture && habits.stray == at {
                time = time.wrapping_add(5 * hour);
            }
            if habits.jump.is_some_and(|jump| self.pictures > jump) {
                time = time.wrapping_add(hour);
            }
            if self.reported.is_none_or(|reported| reported.elapsed() >= Duration::from_secs(1)) {
                self.reported = Some(Instant::now());
                self.report(start + unit.at)?;
            }
            for (payload, marker) in shared.media.payloads(unit, habits.no_sprop) {
                self.packet(unit.kind, time, marker, &payload)?;
            }
        }
        Ok(())
    }

    fn packet(&mut self, kind: Kind, time: u32, marker: bool, payload: &[u8]) -> io::Result<()> {
        let at = index(kind);
        let head = [0x80, (96 + at as u8) | if marker { 0x80 } else { 0 }];
        let ssrc = self.ssrc + at as u32;
        let numbers = self.numbers[at].to_be_bytes();
        self.numbers[at] = self.numbers[at].wrapping_add(1);
        let packet = [&head[..], &numbers, &time.to_be_bytes(), &ssrc.to_be_bytes(), payload].concat();
        match &self.ways[at] {
            Some(Way::Channels(channel)) => {
                let channel = *channel;
                self.interleaved(channel, &packet)
            }
            _ => self.datagram(at, packet),
        }
    }

    fn interleaved(&mut self, channel: u8, packet: &[u8]) -> io::Result<()> {
        let length = (packet.len() as u16).to_be_bytes();
        self.stream.write_all(&[&[b'$', channel], &length[..], packet].concat())
    }

    fn datagram(&mut self, at: usize, packet: Vec<u8>) -> io::Result<()> {
        let send = |at: usize, packet: &[u8]| -> io::Result<()> {
            let Some(Way::Ports(socket, _, to)) = &self.ways[at] else { return Ok(()) };
            // Nobody may listen there any more.
            let _ = socket.send_to(packet, to);
            Ok(())
        };
        self.packets += 1;
        if let Some(every) = self.shared.habits.loses_every {
            match self.packets % every {
                0 => return Ok(()),
                5 => {
                    self.late = Some((at, packet));
                    return Ok(());
                }
                _ => {}
            }
        }
        send(at, &packet)?;
        match self.late.take() {
            Some((at, late)) => send(at, &late),
            None => Ok(()),
        }
    }

    /// Sender reports of both tracks, of this moment of the media.
    fn report(&mut self, millis: i64) -> io::Result<()> {
        let reports = self.shared.habits.reports;
        if reports == Reports::Absent {
            return Ok(());
        }
        let off = self.shared.habits.sound_is_off;
        for kind in KINDS {
            let ntp = match reports {
                Reports::Implausible => (1 + 1000 * index(kind) as u64) << 32,
                _ => {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                    ((now.as_secs() + NTP) << 32) | ((u64::from(now.subsec_nanos()) << 32) / 1_000_000_000)
                }
            };
            // Of sound that is stamped late, the report tells the truth.
            let time = Media::time(kind, millis + if kind == Kind::Audio { off } else { 0 });
            let ssrc = self.ssrc + index(kind) as u32;
            let head = [&[0x80, 200, 0, 6][..], &ssrc.to_be_bytes()].concat();
            let packet = [&head[..], &ntp.to_be_bytes(), &time.to_be_bytes(), &[0; 8]].concat();
            match &self.ways[index(kind)] {
                Some(Way::Channels(channel)) => {
                    let channel = channel + 1;
                    self.interleaved(channel, &packet)?;
                }
                Some(Way::Ports(_, socket, to)) => {
                    let _ = socket.send_to(&packet, (to.ip(), to.port() + 1));
                }
                None => {}
            }
        }
        Ok(())
    }
}

/// The way that a `Transport` asks for, and the answer.
fn set_up(asked: &str, peer: SocketAddr, ssrc: u32) -> io::Result<(Way, String)> {
    let part = |name: &str| asked.split(';').find_map(|part| part.trim().strip_prefix(name));
    if let Some(channels) = part("interleaved=") {
        let first: u8 = channels.split('-').next().unwrap().parse().unwrap();
        // With what else cameras write into it.
        let answer = format!("RTP/AVP/TCP;unicast;interleaved={channels};ssrc={ssrc:08X};mode=\"play\"");
        return Ok((Way::Channels(first), answer));
    }
    let ports = part("client_port=").expect("TCP or UDP");
    let first: u16 = ports.split('-').next().unwrap().parse().unwrap();
    let (rtp, rtcp) = pair()?;
    let own = rtp.local_addr()?.port();
    let answer = format!("RTP/AVP;unicast;client_port={ports};server_port={own}-{}", own + 1);
    Ok((Way::Ports(rtp, rtcp, (peer.ip(), first).into()), answer))
}

/// Two ports in a row, the first one even.
fn pair() -> io::Result<(UdpSocket, UdpSocket)> {
    loop {
        let rtp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = rtp.local_addr()?.port();
        if port % 2 == 0
            && let Ok(rtcp) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port + 1))
        {
            return Ok((rtp, rtcp));
        }
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
