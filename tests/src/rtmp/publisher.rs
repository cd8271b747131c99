//! A publisher that sends given tags at given times.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::amf::{self, Value};
use super::{Address, Connection};
use crate::flv::Tag;
use crate::recording::Recording;
use crate::wait;

/// A connection that publishes.
pub struct Publisher {
    connection: Connection,
    stream: u32,
}

/// The server said no.
#[derive(Debug)]
pub struct Refused {
    /// `NetStream.Publish.BadName`, ...
    pub code: String,
    /// For people.
    pub description: String,
}

impl Publisher {
    /// Publishes to `url` (on loopback). The outer error is the network's, the inner one the server's no.
    pub fn start(url: &str) -> io::Result<Result<Self, Refused>> {
        let address = Address::parse(url);
        let mut connection = Connection::open(address.port, None)?;
        let answer = connection.connect(address.port, &address.app)?;
        if let Some(refused) = Refused::of(&answer) {
            return Ok(Err(refused));
        }
        let stream = match publish(&mut connection, &address.name)? {
            Ok(stream) => stream,
            Err(refused) => return Ok(Err(refused)),
        };
        connection.set_chunk_size(4096)?;
        Ok(Ok(Self { connection, stream }))
    }

    /// Publishes again on the same connection, after [`stop`](Self::stop).
    pub fn again(&mut self, url: &str) -> io::Result<()> {
        self.stream = publish(&mut self.connection, &Address::parse(url).name)?
            .map_err(|refused| io::Error::other(format!("{refused:?}")))?;
        Ok(())
    }

    /// As [`start`](Self::start), and as encoders do it: a module that has just been started may not listen yet. Panics
    /// when it does not come to publishing.
    pub fn to(url: &str) -> Self {
        wait::until(&format!("{url} is listened to"), wait::LONG, || match Self::start(url) {
            Ok(Ok(publisher)) => Some(publisher),
            Ok(Err(refused)) => panic!("{url} refused: {refused:?}"),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => None,
            Err(error) => panic!("{url}: {error}"),
        })
    }

    /// The connection, for what is no media.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Sends one tag as it stands.
    pub fn send(&mut self, tag: &Tag) -> io::Result<()> {
        let csid = match tag.kind {
            8 => 4,
            9 => 6,
            _ => 5,
        };
        self.connection.send(csid, tag.kind, self.stream, tag.timestamp, &tag.body)
    }

    /// Sends `onMetaData` of these properties, as encoders do (`@setDataFrame`).
    pub fn metadata(&mut self, properties: &[(&str, Value)]) {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self.data(0, &[Value::text("@setDataFrame"), Value::text("onMetaData"), Value::Object(properties)]);
    }

    /// Sends a data message (type 18) of these values.
    pub fn data(&mut self, timestamp: u32, values: &[Value]) {
        self.connection.send(5, 18, self.stream, timestamp, &amf::encode(values)).unwrap();
    }

    /// Sends tags in real time, by their own timestamps.
    pub fn play_out(&mut self, tags: &[Tag]) -> io::Result<()> {
        let (start, Some(first)) = (Instant::now(), tags.iter().find(|tag| tag.kind != 18)) else {
            return Ok(());
        };
        for tag in tags {
            // The time may wrap on the way.
            let ahead = if tag.kind == 18 { 0 } else { tag.timestamp.wrapping_sub(first.timestamp) };
            let due = Duration::from_millis(ahead.into());
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            self.send(tag)?;
        }
        Ok(())
    }

    /// Sends `tags` over and over in real time, in a thread of its own, each frame different from all others,
    /// until told to stop.
    pub fn run_endlessly(self, tags: Vec<Tag>) -> Endless {
        self.run_faster(tags, 1)
    }

    /// The same, so many times as fast.
    pub fn run_faster(mut self, tags: Vec<Tag>, speed: u32) -> Endless {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            let mut sent = Recording::default();
            for (round, tag) in (0..).flat_map(|round| tags.iter().map(move |tag| (round, tag))) {
                if asked.load(Ordering::Relaxed) {
                    break;
                }
                let Some(tag) = tag.in_round(round, period(&tags)) else { continue };
                let due = Duration::from_millis(tag.timestamp.into()) / speed;
                std::thread::sleep(due.saturating_sub(start.elapsed()));
                self.send(&tag)?;
                sent.0.extend(tag.packet());
            }
            self.finish()?;
            Ok(sent)
        });
        Endless { stop, thread: Some(thread) }
    }

    /// Ends the stream as encoders do when told to stop.
    pub fn finish(mut self) -> io::Result<()> {
        self.stop()
    }

    /// As [`finish`](Self::finish); the connection stays.
    pub fn stop(&mut self) -> io::Result<()> {
        let number = Value::Number(self.stream.into());
        self.connection
            .command(0, &[Value::text("FCUnpublish"), Value::Number(6.0), Value::Null, Value::text("")])?;
        self.connection.command(0, &[Value::text("deleteStream"), Value::Number(7.0), Value::Null, number])
    }
}

/// `releaseStream` to `publish`, as encoders do; gives the message stream.
fn publish(connection: &mut Connection, name: &str) -> io::Result<Result<u32, Refused>> {
    let name = Value::text(name);
    connection.command(0, &[Value::text("releaseStream"), Value::Number(2.0), Value::Null, name.clone()])?;
    connection.command(0, &[Value::text("FCPublish"), Value::Number(3.0), Value::Null, name.clone()])?;
    let stream = connection.create_stream()?;
    let live = Value::text("live");
    connection.command(stream, &[Value::text("publish"), Value::Number(5.0), Value::Null, name, live])?;
    loop {
        let answer = connection.answer("onStatus", None)?;
        if let Some(refused) = Refused::of(&answer) {
            return Ok(Err(refused));
        }
        let code = answer.iter().find_map(|value| value.get("code")?.as_text());
        // What is said of an earlier stream of this connection may come first.
        if code == Some("NetStream.Publish.Start") {
            return Ok(Ok(stream));
        }
    }
}

/// A publisher that goes on until it is stopped; see [`Publisher::run_endlessly`].
pub struct Endless {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Recording>>>,
}

impl Endless {
    /// Ends the stream; gives what was sent. Panics when the server had cut it off.
    pub fn stop(mut self) -> Recording {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap().expect("publishing went on until the end")
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The length of a clip in milliseconds, up to where its next round begins.
fn period(tags: &[Tag]) -> u32 {
    let last = tags.iter().map(|tag| tag.timestamp).max().unwrap_or(0);
    last + 40
}

impl Refused {
    fn of(answer: &[Value]) -> Option<Self> {
        let info = answer.iter().rev().find(|value| value.get("code").is_some());
        let text =
            |key| info.and_then(|info| info.get(key)).and_then(Value::as_text).unwrap_or_default().to_owned();
        let error = answer.first().and_then(Value::as_text) == Some("_error") || text("level") == "error";
        error.then(|| Self { code: text("code"), description: text("description") })
    }
}
