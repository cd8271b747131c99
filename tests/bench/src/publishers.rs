//! Publishers of a clip: in real time, ahead of it, and such as never send a second key frame. With stamps each picture
//! says when it was sent, so that whoever finds it knows how old it is.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use av_bench::stamp;
use av_tests::flv::{self, Tag};
use av_tests::rtmp::Publisher;

/// Stream time from one frame to the next where it runs ahead of real time: no server takes that for a jump.
const STRIDE: u32 = 5_000;
/// Of these frames one is a key frame.
const STRIDES_OF_A_GOP: u32 = 10;
/// An H.264 slice of no content, at the composition time 0.
const LITTLE: [u8; 17] = [0x27, 1, 0, 0, 0, 0, 0, 0, 8, 0x41, 0x9A, 0, 0, 0, 0, 0, 0x80];

/// What is published, over and over.
pub struct Clip {
    headers: Vec<Tag>,
    /// From a key frame on, the first of them at 0.
    frames: Vec<Tag>,
    /// Milliseconds up to where the next round begins.
    period: u32,
    /// Each picture says when it was sent.
    stamped: bool,
}

impl Clip {
    /// Of an FLV file. `stamped`: each picture will say when it was sent.
    pub fn read(path: &Path, stamped: bool) -> Self {
        let (headers, mut frames): (Vec<_>, Vec<_>) =
            flv::read(path).into_iter().filter(|tag| tag.kind != 18).partition(Tag::is_header);
        let first = frames.iter().position(Tag::is_sync).unwrap_or_else(|| panic!("{path:?}: no key frame"));
        frames.drain(..first);
        let begin = frames[0].timestamp;
        frames.iter_mut().for_each(|tag| tag.timestamp = tag.timestamp.saturating_sub(begin));
        let period = frames.iter().map(|tag| tag.timestamp).max().unwrap_or(0) + 33;
        Self { headers, frames, period, stamped }
    }
}

/// One publisher, at some moment of its stream.
pub struct Source {
    publisher: Publisher,
    clip: Arc<Clip>,
    time: u32,
}

impl Source {
    /// Comes to publishing, and sends the decoder configurations and the first key frame.
    pub fn start(url: &str, clip: &Arc<Clip>) -> io::Result<Self> {
        let publisher = Publisher::start(url)?.map_err(|refused| io::Error::other(format!("{refused:?}")))?;
        let mut source = Self { publisher, clip: Arc::clone(clip), time: 0 };
        for tag in clip.headers.iter().chain(clip.frames.first()) {
            source.send(tag, 0)?;
        }
        Ok(source)
    }

    fn send(&mut self, tag: &Tag, time: u32) -> io::Result<()> {
        let mut tag = Tag { timestamp: time, ..tag.clone() };
        if self.clip.stamped && tag.kind == 9 && !tag.is_header() {
            tag.body.splice(5..5, stamp::now());
        }
        self.publisher.send(&tag)
    }

    /// Sends that much stream time at once, one small frame every five seconds of it.
    pub fn forward(&mut self, time: Duration) -> io::Result<()> {
        let strides = u32::try_from(time.as_millis()).unwrap() / STRIDE;
        let clip = Arc::clone(&self.clip);
        let little = Tag { kind: 9, timestamp: 0, body: LITTLE.to_vec() };
        for stride in 1..=strides {
            self.time += STRIDE;
            // The last one is a key frame: where whoever comes next begins.
            let is_key = (strides - stride).is_multiple_of(STRIDES_OF_A_GOP);
            self.send(if is_key { &clip.frames[0] } else { &little }, self.time)?;
            // Players keep up.
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Sends `bytes` as fast as they are taken, none of them a key frame.
    pub fn flood(&mut self, bytes: usize) -> io::Result<()> {
        let clip = Arc::clone(&self.clip);
        let mut sent = 0;
        for tag in clip.frames.iter().filter(|tag| tag.kind == 9 && !tag.is_sync()).cycle() {
            if sent >= bytes {
                break;
            }
            self.time += 33;
            self.send(tag, self.time)?;
            sent += tag.body.len();
        }
        Ok(())
    }

    /// Goes on in real time until told to stop, in a thread of its own; with `keys` false without key frames.
    pub fn live(mut self, keys: bool, stop: &Arc<AtomicBool>) -> JoinHandle<io::Result<()>> {
        let stop = Arc::clone(stop);
        std::thread::spawn(move || {
            let (start, begin, clip) = (Instant::now(), self.time + 33, Arc::clone(&self.clip));
            for round in 0.. {
                for tag in clip.frames.iter().filter(|tag| keys || !tag.is_sync()) {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    let after = round * clip.period + tag.timestamp;
                    std::thread::sleep(Duration::from_millis(after.into()).saturating_sub(start.elapsed()));
                    self.send(tag, begin + after)?;
                }
            }
            Ok(())
        })
    }
}
