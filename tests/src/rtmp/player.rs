//! A player that keeps every frame's hash and time, and can be told to stop reading.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::amf::{self, Value};
use super::{Address, Connection};
use crate::flv::Tag;
use crate::recording::{Kind, Recording};
use crate::wait;

/// What a player does with its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// As fast as it comes.
    On,
    /// Not at all, but the connection stays.
    Off,
    /// Closed.
    Done,
}

/// A connection that plays, in a thread of its own.
pub struct Player {
    reading: Arc<AtomicU8>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    recording: Recording,
    metadata: Vec<Vec<Value>>,
    headers: usize,
    first_message: Option<u32>,
    local: Option<SocketAddr>,
    status: Vec<String>,
    ended: Option<String>,
    /// All that came, where it was asked for.
    kept: Option<Vec<(Tag, Instant)>>,
}

impl Player {
    /// Plays `url` (on loopback).
    pub fn start(url: &str) -> Self {
        Self::with_buffer(url, None)
    }

    /// As [`start`](Self::start) with a kernel receive buffer of about that many bytes.
    pub fn with_buffer(url: &str, receive_buffer: Option<usize>) -> Self {
        Self::run(url, receive_buffer, Seen::default())
    }

    /// As [`start`](Self::start); keeps every message, see [`tags`](Self::tags).
    pub fn keeping(url: &str) -> Self {
        Self::run(url, None, Seen { kept: Some(Vec::new()), ..Seen::default() })
    }

    fn run(url: &str, receive_buffer: Option<usize>, seen: Seen) -> Self {
        let address = Address::parse(url);
        let reading = Arc::new(AtomicU8::new(Reading::On as u8));
        let seen = Arc::new(Mutex::new(seen));
        let (asked, shared) = (Arc::clone(&reading), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            let end = play(&address, receive_buffer, &asked, &shared).err();
            shared.lock().unwrap().ended =
                Some(end.map_or_else(|| "stopped".into(), |error| error.to_string()));
        });
        Self { reading, seen, thread: Some(thread) }
    }

    /// Changes what it does with its socket.
    pub fn set(&self, reading: Reading) {
        self.reading.store(reading as u8, Ordering::Relaxed);
    }

    /// Frames so far.
    pub fn recording(&self) -> Recording {
        self.seen.lock().unwrap().recording.clone()
    }

    /// Number of frames of `kind` so far.
    pub fn frames(&self, kind: Kind) -> usize {
        self.seen.lock().unwrap().recording.of(kind).len()
    }

    /// Values of each data message so far (`onMetaData`, ...).
    pub fn metadata(&self) -> Vec<Vec<Value>> {
        self.seen.lock().unwrap().metadata.clone()
    }

    /// Every audio, video and data message so far, in the order and at the moment of their coming. Empty but
    /// for a player that is [`keeping`](Self::keeping).
    pub fn tags(&self) -> Vec<(Tag, Instant)> {
        self.seen.lock().unwrap().kept.clone().unwrap_or_default()
    }

    /// Decoder configurations so far.
    pub fn headers(&self) -> usize {
        self.seen.lock().unwrap().headers
    }

    /// The time on the first frame or header, in milliseconds.
    pub fn first_time(&self) -> Option<u32> {
        self.seen.lock().unwrap().first_message
    }

    /// Its own address, as the server's log names it.
    pub fn address(&self) -> SocketAddr {
        wait::until("the player connects", wait::LONG, || self.seen.lock().unwrap().local)
    }

    /// `onStatus` codes so far.
    pub fn status(&self) -> Vec<String> {
        self.seen.lock().unwrap().status.clone()
    }

    /// Why it ended, if it has.
    pub fn ended(&self) -> Option<String> {
        self.seen.lock().unwrap().ended.clone()
    }

    /// Waits until it has `count` frames of `kind`.
    pub fn wait_frames(&self, kind: Kind, count: usize) {
        wait::until_true(&format!("{count} {kind:?} frames played"), wait::LONG, || {
            let frames = self.frames(kind);
            if frames < count
                && let Some(why) = self.ended()
            {
                panic!("ended after {frames} of {count} {kind:?} frames: {why}; status {:?}", self.status());
            }
            frames >= count
        });
    }

    /// Waits until the server ended it.
    pub fn wait_end(&self) -> String {
        wait::until("the player ends", wait::LONG, || self.ended())
    }

    /// Waits until it has the last frame of each kind that `published` ends with.
    pub fn wait_last_of(&self, published: &Recording) {
        for kind in [Kind::Video, Kind::Audio] {
            if let Some(last) = published.of(kind).last() {
                wait::until_true(&format!("the last {kind:?} frame was played"), wait::LONG, || {
                    self.recording().of(kind).last().is_some_and(|packet| packet.hash == last.hash)
                });
            }
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.set(Reading::Done);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn play(address: &Address, buffer: Option<usize>, reading: &AtomicU8, seen: &Mutex<Seen>) -> io::Result<()> {
    let mut connection = Connection::open(address.port, buffer)?;
    seen.lock().unwrap().local = Some(connection.socket().local_addr()?);
    let connected = connection.connect_to_play(address.port, &address.app)?;
    refused(&connected)?;
    let stream = connection.create_stream()?;
    connection.command(
        stream,
        &[
            Value::text("play"),
            Value::Number(3.0),
            Value::Null,
            Value::text(&address.name),
            Value::Number(-2000.0),
        ],
    )?;
    loop {
        match reading.load(Ordering::Relaxed) {
            on if on == Reading::On as u8 => {}
            off if off == Reading::Off as u8 => {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            _ => return Ok(()),
        }
        let message = match connection.read(Instant::now() + Duration::from_millis(200)) {
            Ok(message) => message,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => continue,
            Err(error) => return Err(error),
        };
        let mut seen = seen.lock().unwrap();
        if let (8 | 9 | 18, Some(kept)) = (message.kind, &mut seen.kept) {
            let tag = Tag { kind: message.kind, timestamp: message.timestamp, body: message.body.clone() };
            kept.push((tag, Instant::now()));
        }
        match message.kind {
            8 | 9 => {
                seen.first_message.get_or_insert(message.timestamp);
                let tag = Tag { kind: message.kind, timestamp: message.timestamp, body: message.body };
                seen.headers += usize::from(tag.is_header());
                seen.recording.0.extend(tag.packet());
            }
            18 => seen.metadata.push(amf::decode(&message.body)),
            20 => {
                let values = amf::decode(&message.body);
                if values.first().and_then(Value::as_text) == Some("onStatus") {
                    let code = values.get(3).and_then(|info| info.get("code")).and_then(Value::as_text);
                    seen.status.push(code.unwrap_or("?").to_owned());
                }
            }
            _ => {}
        }
    }
}

/// An `_error` as an error that says why.
fn refused(answer: &[Value]) -> io::Result<()> {
    if answer.first().and_then(Value::as_text) == Some("_error") {
        return Err(io::Error::other(format!("refused: {answer:?}")));
    }
    Ok(())
}
