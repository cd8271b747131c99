//! RTSP players as cheap as can be: they look where pictures end, and how old these are, and discard the rest.

use std::error::Error;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use av_bench::stamp::{self, Ages};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

type Failure = Box<dyn Error + Send + Sync>;

/// What is played and how.
#[derive(Clone)]
pub struct Target {
    url: String,
    address: String,
    udp: bool,
}

impl Target {
    /// Of `rtsp://HOST:PORT/PATH`.
    pub fn parse(url: &str, udp: bool) -> Self {
        let address = url.strip_prefix("rtsp://").and_then(|rest| rest.split('/').next());
        let address = address.unwrap_or_else(|| panic!("{url}: not rtsp://HOST:PORT/PATH")).to_owned();
        Self { url: url.to_owned(), address, udp }
    }
}

/// What all players together have seen.
#[derive(Default)]
pub struct Crowd {
    pictures: AtomicUsize,
    bytes: AtomicU64,
    lost: AtomicUsize,
    /// Milliseconds from connect to the first whole key picture.
    first: Mutex<Vec<f64>>,
    /// Of pictures with a stamp, when their last packet has come.
    pub ages: Ages,
}

impl Crowd {
    /// Starts a player.
    pub fn play(self: &Arc<Self>, target: &Target) {
        let (target, crowd) = (target.clone(), Arc::clone(self));
        tokio::spawn(async move {
            if let Err(error) = play(&target, &crowd).await
                && crowd.lost.fetch_add(1, Ordering::Relaxed) == 0
            {
                eprintln!("rtsp-load: {error}");
            }
        });
    }

    /// Until that many players have had a picture; `false` when they do not come to it.
    pub async fn wait_pictures(&self, players: usize) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.pictures.load(Ordering::Relaxed) < players {
            if Instant::now() > deadline {
                eprintln!("rtsp-load: only {} of {players} play", self.pictures.load(Ordering::Relaxed));
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    /// Of those who came since [`forget`](Self::forget).
    pub fn first_pictures(&self) -> Vec<f64> {
        self.first.lock().unwrap().clone()
    }

    /// Who came so far does not count.
    pub fn forget(&self) {
        self.first.lock().unwrap().clear();
    }

    /// Bytes of media so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Players that ended.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }

    fn picture(&self, since: Instant) {
        self.first.lock().unwrap().push(since.elapsed().as_secs_f64() * 1e3);
        self.pictures.fetch_add(1, Ordering::Relaxed);
    }

    fn received(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// An RTSP connection.
struct Talk {
    stream: TcpStream,
    input: Vec<u8>,
    cseq: u32,
    session: Option<String>,
}

impl Talk {
    /// Head and body of the answer. What is interleaved before it, or behind it, waits.
    async fn ask(&mut self, method: &str, url: &str, header: &str) -> Result<(String, String), Failure> {
        self.cseq += 1;
        let session = self.session.as_ref().map_or(String::new(), |id| format!("Session: {id}\r\n"));
        let request = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\n{session}{header}\r\n", self.cseq);
        self.stream.write_all(request.as_bytes()).await?;
        // Some servers have a player in their fan-out before they answer it.
        let mut early = Vec::new();
        loop {
            while let [b'$', _, high, low, rest @ ..] = &self.input[..] {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if rest.len() < length {
                    break;
                }
                early.extend(self.input.drain(..4 + length));
            }
            let end = self.input.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
            if let Some(end) = end.filter(|_| !self.input.starts_with(b"$")) {
                let head = String::from_utf8_lossy(&self.input[..end]).into_owned();
                let length = field(&head, "Content-Length").map_or(Ok(0), str::parse)?;
                if self.input.len() >= end + length {
                    let body = String::from_utf8_lossy(&self.input[end..end + length]).into_owned();
                    self.input.splice(..end + length, early);
                    if !head.starts_with("RTSP/1.0 200") {
                        return Err(format!("{method}: {head}").into());
                    }
                    if let Some(session) = field(&head, "Session") {
                        self.session = session.split(';').next().map(str::to_owned);
                    }
                    return Ok((head, body));
                }
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(format!("closed at {method}").into());
            }
        }
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| {
        let (own, value) = line.split_once(':')?;
        own.eq_ignore_ascii_case(name).then(|| value.trim())
    };
    head.lines().find_map(value)
}

/// What a player sees of its pictures.
struct Watch {
    since: Instant,
    /// The first picture that a decoder can start with, an IDR: none yet, begun, had.
    begun: bool,
    had: bool,
    /// When the picture that is coming was sent, by this clock.
    sent: Option<Instant>,
}

impl Watch {
    /// Of a player that came then.
    fn new(since: Instant) -> Self {
        Self { since, begun: false, had: false, sent: None }
    }

    /// A packet of pictures.
    fn packet(&mut self, packet: &[u8], crowd: &Crowd) {
        let Some([unit, next, ..]) = packet.get(12..) else { return };
        // One unit, several of them (then the first counts: parameter sets), or a fragment (RFC 6184 §5.2).
        self.begun |= match unit & 31 {
            5 => true,
            28 => next & 31 == 5 && next & 0x80 != 0,
            _ => false,
        };
        // A stamp is at the beginning of a picture, in a packet of its own or behind parameter sets.
        if let Some(age) = stamp::ages(&packet[..packet.len().min(256)]).next() {
            self.sent = Instant::now().checked_sub(Duration::from_secs_f64(age.max(0.0) / 1e3));
        }
        if packet[1] & 0x80 == 0 {
            return;
        }
        if let Some(sent) = self.sent.take() {
            crowd.ages.add(sent.elapsed().as_secs_f64() * 1e3);
        }
        if self.begun && !self.had {
            self.had = true;
            crowd.picture(self.since);
        }
    }
}

async fn play(target: &Target, crowd: &Arc<Crowd>) -> Result<(), Failure> {
    let start = Instant::now();
    let stream = TcpStream::connect(&target.address).await?;
    let mut talk = Talk { stream, input: Vec::new(), cseq: 0, session: None };
    let (head, sdp) = talk.ask("DESCRIBE", &target.url, "Accept: application/sdp\r\n").await?;
    let base = field(&head, "Content-Base").map_or_else(|| format!("{}/", target.url), str::to_owned);
    let media = sdp.split("\nm=").skip(1).filter_map(|medium| {
        let control = medium.split("\na=control:").nth(1)?.lines().next()?.trim().to_owned();
        let control = if control.contains("://") { control } else { format!("{base}{control}") };
        Some((control, medium.starts_with("video")))
    });
    let media: Vec<(String, bool)> = media.collect();
    let mut sockets = Vec::new();
    for (index, (control, is_video)) in media.iter().enumerate() {
        let transport = if target.udp {
            let (port, rtp, rtcp) = pair().await?;
            sockets.push((rtp, *is_video));
            sockets.push((rtcp, false));
            format!("RTP/AVP;unicast;client_port={port}-{}", port + 1)
        } else {
            format!("RTP/AVP/TCP;unicast;interleaved={}-{}", 2 * index, 2 * index + 1)
        };
        talk.ask("SETUP", control, &format!("Transport: {transport}\r\n")).await?;
    }
    let video = media.iter().position(|(_, is_video)| *is_video).unwrap_or(0);
    for (socket, is_video) in sockets {
        tokio::spawn(datagrams(socket, is_video.then_some(start), Arc::clone(crowd)));
    }
    talk.ask("PLAY", &target.url, "Range: npt=0.000-\r\n").await?;
    interleaved(&mut talk, 2 * video, Watch::new(start), crowd).await
}

async fn interleaved(
    talk: &mut Talk,
    channel: usize,
    mut watch: Watch,
    crowd: &Crowd,
) -> Result<(), Failure> {
    talk.input.reserve(64 << 10);
    loop {
        let mut rest = &talk.input[..];
        while let [b'$', own, high, low, behind @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some((packet, behind)) = behind.split_at_checked(length) else { break };
            if usize::from(*own) == channel {
                watch.packet(packet, crowd);
            }
            rest = behind;
        }
        let done = talk.input.len() - rest.len();
        talk.input.drain(..done);
        let count = talk.stream.read_buf(&mut talk.input).await?;
        if count == 0 {
            return Err("closed".into());
        }
        crowd.received(count);
    }
}

async fn datagrams(socket: UdpSocket, since: Option<Instant>, crowd: Arc<Crowd>) {
    let mut watch = since.map(Watch::new);
    let mut buffer = vec![0; 2048];
    while let Ok(count) = socket.recv(&mut buffer).await {
        crowd.received(count);
        if let Some(watch) = &mut watch {
            watch.packet(&buffer[..count], &crowd);
        }
    }
}

/// Two ports in a row, the first one even.
async fn pair() -> Result<(u16, UdpSocket, UdpSocket), Failure> {
    for _ in 0..1000 {
        let rtp = UdpSocket::bind("127.0.0.1:0").await?;
        let port = rtp.local_addr()?.port();
        if port % 2 == 0
            && let Ok(rtcp) = UdpSocket::bind(("127.0.0.1", port + 1)).await
        {
            return Ok((port, rtp, rtcp));
        }
    }
    Err("no two ports in a row".into())
}
