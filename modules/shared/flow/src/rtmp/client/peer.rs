//! The server at the other end, for tests of `pull` and `push`: a real session on a real socket.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_media::{Frame, Kind, Timestamp, Track};
use av_rtmp::{Connect, Egress, MediaItem, Refusal, RequestId, ServerEvent, ServerOutput, ServerSession};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::{ClientTls, ConnectUrl, Content, Retry, Secret};
use crate::endpoint::Module;
use crate::net::Listener;
use crate::net::tests::context;
use crate::stream::{Cache, Changes, Current, InputStatus, Publisher, Settings, State, Status, Stream};

/// What a test waits for takes far less; only a fault takes as long.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not in time"),
    }
}

/// Waits for a state.
pub(crate) async fn state(status: &Status, wanted: State) -> Current {
    soon(&format!("state {wanted:?}"), async {
        loop {
            let current = status.get();
            if current.state == wanted {
                return current;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

pub(crate) fn listener() -> Listener {
    Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

/// `rtmp://server.example:PORT/PATH`, where `server.example` is this machine.
pub(crate) fn url(address: SocketAddr, path: &str) -> ConnectUrl {
    ConnectUrl {
        scheme: crate::rtmp::options::RTMP,
        host: "server.example".into(),
        port: address.port(),
        path: path.into(),
        query: None,
    }
}

pub(crate) fn module() -> Arc<Module> {
    Module::new(context([("server.example", [127, 0, 0, 1])]))
}

pub(crate) fn no_tls() -> ClientTls {
    ClientTls::default()
}

pub(crate) fn retry() -> Retry {
    Retry { initial: Duration::from_millis(20), max: Duration::from_millis(50) }
}

pub(crate) fn plain(text: &str) -> Secret {
    Secret::Plain(text.into())
}

pub(crate) fn stream() -> Stream {
    let settings = Settings {
        content: Content::AudioVideo,
        track_wait: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(10),
        hold: true,
        hold_for: None,
    };
    Stream::new(settings, InputStatus::new(Changes::default()), &Cache::default())
}

pub(crate) fn video() -> Track {
    let avcc =
        b"\x01\x64\0\x1e\xff\xe1\0\x1a\x67\x64\0\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x11\0\0\x03\0\x01\0\0\
                 \x03\0\x32\x0f\x16\x2d\x96\x01\0\x04\x68\xef\x8f\xcb\xfd\xf8\xf8\0";
    Track::h264(Bytes::from_static(avcc)).unwrap()
}

pub(crate) fn audio() -> Track {
    Track::aac(Bytes::from_static(b"\x12\x10")).unwrap()
}

/// A picture whose content is its own; with an offset as B-frames have it.
pub(crate) fn picture(dts: i64, is_sync: bool) -> Frame {
    let nal: u8 = if is_sync { 0x65 } else { 0x41 };
    let mut data = vec![0, 0, 0, 10, nal, 0x88];
    data.extend_from_slice(&dts.to_be_bytes());
    Frame {
        kind: Kind::Video,
        dts: Timestamp::from_millis(dts),
        pts: Timestamp::from_millis(dts + 80),
        is_sync,
        data: data.into(),
    }
}

pub(crate) fn sound(dts: i64) -> Frame {
    let time = Timestamp::from_millis(dts);
    let data = dts.to_be_bytes().to_vec().into();
    Frame { kind: Kind::Audio, dts: time, pts: time, is_sync: true, data }
}

/// Pictures every 40 ms with a sync frame each second, and a sound frame 10 ms behind every picture.
pub(crate) fn live(millis: std::ops::Range<i64>) -> Vec<Frame> {
    let pictures = (millis.start..millis.end).step_by(40);
    pictures.flat_map(|dts| [picture(dts, dts % 1000 == 0), sound(dts + 10)]).collect()
}

/// Gives a publisher its tracks.
pub(crate) fn announce(publisher: &mut Publisher) {
    publisher.track(video(), Instant::now()).unwrap();
    publisher.track(audio(), Instant::now()).unwrap();
}

pub(crate) fn feed(publisher: &mut Publisher, frames: &[Frame]) {
    for frame in frames {
        publisher.frame(frame.clone(), Instant::now()).unwrap();
    }
}

/// Frames moved in time.
pub(crate) fn moved(frames: &[Frame], by: i64) -> Vec<Frame> {
    let at = |time: Timestamp| Timestamp::from_millis(time.millis() + by);
    frames.iter().map(|frame| Frame { dts: at(frame.dts), pts: at(frame.pts), ..frame.clone() }).collect()
}

/// One accepted connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) session: ServerSession,
    events: VecDeque<ServerEvent>,
}

impl Peer {
    pub(crate) async fn accept(listener: &Listener) -> Self {
        let (stream, _) = soon("a connection", listener.accept()).await;
        Self { stream, session: ServerSession::new(av_rtmp::Limits::default()), events: VecDeque::new() }
    }

    /// Sends what the session has to say; keeps what happened.
    pub(crate) async fn flush(&mut self) {
        while let Some(output) = self.session.poll().unwrap() {
            match output {
                ServerOutput::Send(bytes) => self.stream.write_all(&bytes).await.unwrap(),
                ServerOutput::Event(event) => self.events.push_back(event),
            }
        }
    }

    /// What the client does next; `None`: it closed.
    pub(crate) async fn event(&mut self) -> Option<ServerEvent> {
        soon("an event", async {
            loop {
                self.flush().await;
                if let Some(event) = self.events.pop_front() {
                    return Some(event);
                }
                let mut buffer = [0; 16_384];
                match self.stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(read) => self.session.handle_input(&buffer[..read]),
                }
            }
        })
        .await
    }

    pub(crate) async fn connect(&mut self) -> Connect {
        match self.event().await {
            Some(ServerEvent::Connect(connect)) => connect,
            other => panic!("no connect but {other:?}"),
        }
    }

    /// Up to `publish` or `play`: application, name, query.
    pub(crate) async fn asked(&mut self) -> (RequestId, String, String, Option<String>) {
        let connect = self.connect().await;
        self.session.accept_connect();
        match self.event().await {
            Some(ServerEvent::Publish { id, name, query } | ServerEvent::Play { id, name, query }) => {
                (id, connect.app, name, query)
            }
            other => panic!("neither publish nor play but {other:?}"),
        }
    }

    /// A publisher that is let in: application, name, query.
    pub(crate) async fn publisher(listener: &Listener) -> (Self, String, String, Option<String>) {
        let mut peer = Self::accept(listener).await;
        let (id, app, name, query) = peer.asked().await;
        peer.session.accept_publish(id);
        peer.flush().await;
        (peer, app, name, query)
    }

    /// A player that is let in: application, name, query.
    pub(crate) async fn player(listener: &Listener) -> (Self, String, String, Option<String>) {
        let mut peer = Self::accept(listener).await;
        let (id, app, name, query) = peer.asked().await;
        peer.session.accept_play(id);
        peer.flush().await;
        (peer, app, name, query)
    }

    pub(crate) async fn reject(&mut self, id: RequestId, code: &'static str, description: &str) {
        self.session.reject(id, Refusal { code, description: description.into() });
        self.flush().await;
    }

    /// What a publisher sends next.
    pub(crate) async fn media(&mut self) -> MediaItem {
        match self.event().await {
            Some(ServerEvent::Media(item)) => item,
            other => panic!("no media but {other:?}"),
        }
    }

    /// So many frames that a publisher sends next, leaving out the rest.
    pub(crate) async fn frames(&mut self, count: usize) -> Vec<Frame> {
        let mut frames = Vec::new();
        while frames.len() < count {
            if let MediaItem::Frame(frame) = self.media().await {
                frames.push(frame);
            }
        }
        frames
    }

    /// To a player: headers and frames.
    pub(crate) async fn play(&mut self, frames: &[Frame]) {
        let (egress, mut out) = (Egress::players(), BytesMut::new());
        egress.metadata(&mut out, None, &[&video(), &audio()], 0);
        for track in [video(), audio()] {
            egress.sequence_header(&mut out, &track, 0);
        }
        self.stream.write_all(&out).await.unwrap();
        self.send(frames).await;
    }

    /// To a player: more frames.
    pub(crate) async fn send(&mut self, frames: &[Frame]) {
        let (video, audio) = (video(), audio());
        let mut out = BytesMut::new();
        for frame in frames {
            let track = if frame.kind == Kind::Video { &video } else { &audio };
            Egress::players().frame(&mut out, track, frame, frame.dts.millis() as u32);
        }
        self.stream.write_all(&out).await.unwrap();
    }
}
