//! From a stream's entries to the bytes that go to a target.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use av_media::Kind;
use av_rtmp::Egress;
use bytes::{Buf, BytesMut};
use prometheus::Histogram;

use crate::endpoint::OutputContext;
use crate::fitting::Fitting;
use crate::rtmp::incoming::{Description, Message, completed, write_headers};
use crate::rtmp::wire::MAX_FRAME;
use crate::stream::{Entry, Item, OutputStatus, Tracks};

/// Sound waits at most that long for a picture to leave with (40 ms, less what timers are late).
const SOUND_WAIT: Duration = Duration::from_millis(36);
/// While more waits to be written, nothing is added.
const ROOM: usize = 256 * 1024;

/// Serialises entries for one connection, and says when they have to leave.
///
/// A picture leaves at once, in one write with the sound in front of it.
pub(super) struct Sender {
    egress: Egress,
    status: Arc<OutputStatus>,
    latency: [Histogram; 2],
    began: Instant,
    tracks: Option<Arc<Tracks>>,
    description: Option<Arc<Description>>,
    /// The target is told of both before the next message.
    announce: bool,
    /// Stream time that is zero on this connection.
    base: Option<i64>,
    /// Wire time of the last message.
    last: u32,
    /// Whole messages, the first perhaps half written.
    out: BytesMut,
    /// `out` has to leave now.
    flush: bool,
    /// The writer may hold bytes back (TLS) until it is flushed.
    unflushed: bool,
    /// When the oldest sound in `out` came in here.
    since: Option<Instant>,
    /// Arrival of the newest picture and sound in `out`.
    arrived: [Option<Instant>; 2],
    sent_media: bool,
    over: bool,
    /// Which frames a message can hold.
    pub(super) fitting: Fitting,
}

/// When to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Now,
    At(Instant),
    Never,
}

impl Sender {
    /// `protocol`: for the metric of latency.
    pub(super) fn new(egress: Egress, output: &OutputContext, protocol: &str) -> Self {
        Self {
            egress,
            status: output.status.clone(),
            latency: output.module.latency(protocol),
            began: Instant::now(),
            tracks: None,
            description: None,
            announce: false,
            base: None,
            last: 0,
            out: BytesMut::new(),
            flush: false,
            unflushed: false,
            since: None,
            arrived: [None; 2],
            sent_media: false,
            over: false,
            fitting: Fitting::new(MAX_FRAME),
        }
    }

    /// Something the session has to say: between whole messages, as `out` always is at its end.
    pub(super) fn control(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.flush = true;
    }

    /// The connection's time starts with the earliest frame of those that come first.
    pub(super) fn base_from(&mut self, entries: &VecDeque<Entry>) {
        if self.base.is_none() {
            self.base = entries
                .iter()
                .filter_map(|entry| match &entry.item {
                    Item::Frame(frame) => Some(frame.dts.millis()),
                    _ => None,
                })
                .min();
        }
    }

    /// Serialises an entry.
    pub(super) fn take(&mut self, entry: Entry, now: Instant) {
        match entry.item {
            Item::Tracks(tracks) => {
                self.announce = true;
                self.tracks = Some(tracks);
            }
            Item::Frame(frame) => {
                self.headers();
                let Some(track) = self.tracks.as_ref().and_then(|tracks| tracks.get(frame.kind)) else {
                    return;
                };
                if !Egress::carries(track) {
                    self.status.dropped.add(frame.kind, 1);
                    return;
                }
                let time = wire(frame.dts.millis(), self.base);
                self.egress.frame(&mut self.out, track, &frame, time);
                self.last = time;
                self.status.frames.add(frame.kind, 1);
                self.sent_media = true;
                let [picture, sound] = &mut self.arrived;
                match frame.kind {
                    Kind::Video => {
                        *picture = Some(entry.arrived.into_std());
                        self.flush = true;
                    }
                    Kind::Audio => {
                        *sound = Some(entry.arrived.into_std());
                        self.since.get_or_insert(now);
                    }
                }
            }
            Item::Aside(aside) => match Message::of(&aside) {
                Some(Message::Description(description)) => {
                    self.announce |= self.description.as_ref() != Some(&description);
                    self.description = Some(description);
                }
                Some(Message::Passing(body, time)) => {
                    self.headers();
                    if let Some(tracks) = &self.tracks {
                        body.write(&self.egress, &mut self.out, tracks, wire(time.millis(), self.base));
                    }
                    self.since.get_or_insert(now);
                }
                None => {}
            },
            Item::Lost(lost) => {
                for kind in [Kind::Video, Kind::Audio] {
                    self.status.dropped.add(kind, lost.get(kind));
                }
            }
            Item::Away => {
                // The next publisher has one of its own, or none.
                self.announce |= self.description.take().is_some();
            }
            Item::Gap(_) | Item::Anchor(_) | Item::GivenUp => {}
            Item::Ended => self.over = true,
        }
    }

    /// What the target has to know before the next message.
    fn headers(&mut self) {
        if let (true, Some(tracks)) = (std::mem::take(&mut self.announce), &self.tracks) {
            let said = self.description.as_deref();
            let metadata = completed(tracks, said);
            write_headers(&self.egress, &mut self.out, tracks, (said, &metadata), self.last);
        }
    }

    /// An entry that was taken from the stream and will not be sent.
    pub(super) fn dropped(&self, entry: &Entry) {
        if let Item::Frame(frame) = &entry.item {
            self.status.dropped.add(frame.kind, 1);
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.out.len() < ROOM && !self.over
    }

    pub(super) fn due(&self, now: Instant) -> Due {
        if self.out.is_empty() {
            return if self.unflushed { Due::Now } else { Due::Never };
        }
        match self.since.map(|since| since + SOUND_WAIT) {
            _ if self.flush || self.over || !self.has_room() => Due::Now,
            Some(at) if at > now => Due::At(at),
            _ => Due::Now,
        }
    }

    /// What has to be written; empty when it only has to be flushed.
    pub(super) fn pending(&self) -> &[u8] {
        &self.out
    }

    /// So much of it is written; 0: flushed.
    pub(super) fn written(&mut self, bytes: usize, now: Instant) {
        if bytes == 0 {
            self.unflushed = false;
            return;
        }
        self.unflushed = true;
        self.status.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.out.advance(bytes.min(self.out.len()));
        // What is begun is finished without waiting for more.
        self.flush = !self.out.is_empty();
        if self.out.is_empty() {
            self.since = None;
            for (arrived, histogram) in self.arrived.iter_mut().zip(&self.latency) {
                // Frames from before the connection waited for it, not in here.
                if let Some(arrived) = arrived.take().filter(|arrived| *arrived >= self.began) {
                    let delay = now.saturating_duration_since(arrived);
                    self.status.latency.observe(delay);
                    histogram.observe(delay.as_secs_f64());
                }
            }
        }
    }

    pub(super) fn sent_media(&self) -> bool {
        self.sent_media
    }

    /// The stream ended; nothing more is taken.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn into_pending(self) -> BytesMut {
        self.out
    }
}

/// RTMP time: milliseconds since the connection's base, modulo 2^32. What is earlier counts as the base.
fn wire(millis: i64, base: Option<i64>) -> u32 {
    millis.saturating_sub(base.unwrap_or(millis)).max(0) as u32
}
