//! No frame twice: what an input that connects again does with the cache of the server it comes back to.
//!
//! A server starts every player at its last sync frame, so after a reconnect the first frames are often ones
//! that arrived before the connection broke. They are found by what they are (a hash), which also gives how the
//! times of the two connections relate; from there on times decide.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use av_media::{Frame, Kind, Timestamp};
use tokio::time::Instant;

use super::Incoming;

/// Frames remembered: a minute and more of pictures and sound, of which only the last GOPs are kept.
const MAX_KNOWN: usize = 4096;
/// Sync frames behind which nothing is remembered.
const MAX_GOPS: usize = 3;
/// Sound-only streams: frames remembered, and frames in a row that have to be the same.
const MAX_SOUND: usize = 512;
const SOUND_RUN: usize = 8;
/// What may be held while it is not yet decided.
const MAX_HELD: usize = 256;
const MAX_HELD_BYTES: usize = 4 << 20;
const MAX_HELD_FOR: Duration = Duration::from_secs(1);
/// How far a server's clock may be ahead of what passed here and still be the same clock.
const CLOCK_SLACK: i64 = 1_000_000_000;
/// What is known comes out of the server's cache, all at once. What comes at the pace of life is new: some file that is
/// published once more. That shows after `PACE`, and at the latest after `BURST`.
const BURST: Duration = Duration::from_secs(5);
const PACE: Duration = Duration::from_secs(2);

/// How what follows relates to what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seam {
    /// The next frame of each track is the one after the last: nothing is missing, nothing comes twice, and
    /// times go on as if the connection had not broken.
    Continues,
    /// Something is missing, or it is another stream: times are this connection's own.
    New,
}

/// What is to be done, in order.
#[derive(Debug, PartialEq)]
pub enum Passed {
    /// Before the first item of a connection; once more if `Continues` proves wrong.
    Seam(Seam),
    /// To the stream.
    Item(Incoming),
}

/// Remembers the last frames of a stream over connections.
#[derive(Debug, Default)]
pub struct Dedup {
    known: VecDeque<Known>,
    /// The last sync picture, should its GOP be too long for `known`.
    last_sync: Option<Known>,
    last: [Option<i64>; 2],
    last_arrival: Option<Instant>,
    phase: Phase,
    /// What was left out of this connection so far, while that may prove wrong.
    doubtful: Option<Doubtful>,
}

/// Frames that look as if they were known.
#[derive(Debug, Default)]
struct Doubtful {
    frames: Vec<Frame>,
    bytes: usize,
}

impl Doubtful {
    /// Whether the frames up to this one came as fast as they are to be shown, in so much time.
    fn is_at_pace(&self, next: &Frame, passed: Duration) -> bool {
        let Some(first) = self.frames.first() else { return false };
        let length = i128::from(next.dts.nanos()) - i128::from(first.dts.nanos());
        let passed = i128::try_from(passed.as_nanos()).unwrap_or(i128::MAX);
        (passed * 8 / 10..=passed * 11 / 10).contains(&length)
    }
}

/// A frame in the times of the stream (nanoseconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    kind: Kind,
    dts: i64,
    hash: u64,
    is_sync: bool,
}

#[derive(Debug, Default)]
enum Phase {
    /// The connection has brought no media yet.
    #[default]
    Fresh,
    /// Held until it is clear what it is.
    Searching { held: Vec<Incoming>, bytes: usize, since: Instant },
    /// Frames are those known, moved by `shift`, until each track is past its end.
    Overlap { shift: i64, since: Instant, past: [bool; 2] },
    /// All is new.
    Passing { shift: i64 },
}

impl Known {
    fn of(frame: &Frame, shift: i64) -> Self {
        // SipHash with fixed keys: the same frame gives the same hash within this process, which is all it
        // takes.
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(u8::from(frame.kind == Kind::Video));
        hasher.write(&frame.data);
        let dts = frame.dts.moved(shift).nanos();
        Self { kind: frame.kind, dts, hash: hasher.finish(), is_sync: frame.is_sync }
    }

    fn same_frame(&self, other: &Self) -> bool {
        self.kind == other.kind && self.hash == other.hash && self.is_sync == other.is_sync
    }
}

impl Dedup {
    /// Another connection begins.
    pub fn reconnected(&mut self) {
        self.phase = Phase::Fresh;
    }

    /// Takes what the connection brought; appends to `out` what is to be done about it, perhaps later.
    pub fn push(&mut self, item: Incoming, now: Instant, out: &mut Vec<Passed>) {
        if matches!(self.phase, Phase::Fresh) {
            if self.known.is_empty() {
                self.begin(Seam::New, 0, now, out);
            } else {
                self.phase = Phase::Searching { held: Vec::new(), bytes: 0, since: now };
            }
        }
        let Phase::Searching { held, bytes, since } = &mut self.phase else {
            return self.pass(item, now, out);
        };
        *bytes = bytes.saturating_add(size(&item));
        held.push(item);
        let patience_over = held.len() >= MAX_HELD
            || *bytes >= MAX_HELD_BYTES
            || now.saturating_duration_since(*since) >= MAX_HELD_FOR;
        let held = std::mem::take(held);
        match self.decide(&held, patience_over, now) {
            Some((seam, shift)) => {
                self.begin(seam, shift, now, out);
                for item in held {
                    self.pass(item, now, out);
                }
            }
            None => {
                if let Phase::Searching { held: empty, .. } = &mut self.phase {
                    *empty = held;
                }
            }
        }
    }

    /// Lets go of what is still held, as the connection is over: without a decision it is of no use.
    pub fn disconnected(&mut self) {
        self.phase = Phase::Fresh;
        self.doubtful = None;
    }

    fn begin(&mut self, seam: Seam, shift: i64, now: Instant, out: &mut Vec<Passed>) {
        self.doubtful = None;
        self.phase = match seam {
            Seam::Continues => {
                self.doubtful = Some(Doubtful::default());
                Phase::Overlap { shift, since: now, past: self.last.map(|last| last.is_none()) }
            }
            Seam::New => {
                self.known.clear();
                self.last_sync = None;
                self.last = [None; 2];
                Phase::Passing { shift: 0 }
            }
        };
        out.push(Passed::Seam(seam));
    }

    /// What the held items are; `None` while that is open.
    fn decide(&self, held: &[Incoming], patience_over: bool, now: Instant) -> Option<(Seam, i64)> {
        let has_video = self.known.iter().chain(&self.last_sync).any(|known| known.kind == Kind::Video);
        let frames = |kind: Kind| {
            held.iter().filter_map(move |item| match item {
                Incoming::Frame(frame) if frame.kind == kind => Some(Known::of(frame, 0)),
                _ => None,
            })
        };
        let kind = if has_video && frames(Kind::Video).next().is_some() { Kind::Video } else { Kind::Audio };
        if has_video && kind == Kind::Audio && !patience_over {
            // Pictures tell best, and a cache starts with one.
            return None;
        }
        let run: Vec<Known> = frames(kind).take(SOUND_RUN).collect();
        let Some(first) = run.first() else {
            return patience_over.then_some((Seam::New, 0));
        };
        // The same clock: the frame is where it was, or where it would be by now.
        if self.of(kind).any(|known| known == first) {
            return Some((Seam::Continues, 0));
        }
        if let (Some(last), Some(arrived)) = (self.last(kind), self.last_arrival) {
            let away = i64::try_from(now.saturating_duration_since(arrived).as_nanos()).unwrap_or(i64::MAX);
            let ahead = first.dts.saturating_sub(last);
            if ahead > 0 && ahead <= away.saturating_add(CLOCK_SLACK) {
                return Some((Seam::New, 0));
            }
        }
        // Another clock.
        let found = match kind {
            // Of pictures that look the same the last one is meant: a cache holds the last GOP.
            Kind::Video => self.of(kind).filter(|known| known.same_frame(first)).last(),
            // Silence is always the same: it takes a run that occurs once.
            Kind::Audio if run.len() < SOUND_RUN && !patience_over => return None,
            Kind::Audio => self.only_run(&run),
        };
        Some(match found {
            Some(known) => (Seam::Continues, known.dts.saturating_sub(first.dts)),
            None => (Seam::New, 0),
        })
    }

    /// The first frame of the one place where these sound frames occur in a row; the end of what is known may
    /// cut the row short, but not below half.
    fn only_run(&self, run: &[Known]) -> Option<&Known> {
        let sound: Vec<&Known> = self.of(Kind::Audio).collect();
        let mut places = (0..sound.len()).filter(|start| {
            let tail = sound.get(*start..).unwrap_or_default();
            let len = tail.len().min(run.len());
            len >= SOUND_RUN / 2 && tail.iter().zip(run).all(|(known, new)| known.same_frame(new))
        });
        match (places.next(), places.next()) {
            (Some(only), None) => sound.get(only).copied(),
            _ => None,
        }
    }

    /// Frames known of a kind, oldest first.
    fn of(&self, kind: Kind) -> impl Iterator<Item = &Known> {
        self.last_sync.iter().chain(&self.known).filter(move |known| known.kind == kind)
    }

    fn last(&self, kind: Kind) -> Option<i64> {
        let [video, audio] = self.last;
        if kind == Kind::Video { video } else { audio }
    }

    fn pass(&mut self, item: Incoming, now: Instant, out: &mut Vec<Passed>) {
        let shift = match self.phase {
            Phase::Overlap { shift, .. } | Phase::Passing { shift } => shift,
            Phase::Fresh | Phase::Searching { .. } => 0,
        };
        match item {
            Incoming::Frame(frame) => self.frame(frame, shift, now, out),
            Incoming::Aside(mut aside) => {
                aside.time = aside.time.map(|time| time.moved(shift));
                let newest = self.last.iter().flatten().max();
                let known = |time: Timestamp| newest.is_some_and(|last| time.nanos() <= *last);
                if matches!(self.phase, Phase::Overlap { .. }) && aside.time.is_some_and(known) {
                    return;
                }
                out.push(Passed::Item(Incoming::Aside(aside)));
            }
            Incoming::WallClock { time, utc } => {
                out.push(Passed::Item(Incoming::WallClock { time: time.moved(shift), utc }));
            }
            other @ (Incoming::Track(_) | Incoming::Expect { .. }) => {
                // Frames that came before it are of the track before it.
                self.doubtful = None;
                out.push(Passed::Item(other));
            }
        }
    }

    fn frame(&mut self, frame: Frame, shift: i64, now: Instant, out: &mut Vec<Passed>) {
        if let Phase::Overlap { since, mut past, .. } = self.phase
            && !*of_kind(&mut past, frame.kind)
        {
            match self.judge(&Known::of(&frame, shift)) {
                Judged::Known if !self.is_live(&frame, now.saturating_duration_since(since)) => {
                    return self.doubt(frame);
                }
                Judged::New => {
                    self.doubtful = None;
                    *of_kind(&mut past, frame.kind) = true;
                    let all = past.iter().all(|past| *past);
                    self.phase =
                        if all { Phase::Passing { shift } } else { Phase::Overlap { shift, since, past } };
                }
                Judged::Known | Judged::Foreign => {
                    let doubtful = self.doubtful.take().unwrap_or_default();
                    self.begin(Seam::New, 0, now, out);
                    for frame in doubtful.frames.into_iter().chain([frame]) {
                        self.let_through(frame, 0, now, out);
                    }
                    return;
                }
            }
        }
        self.let_through(frame, shift, now, out);
    }

    /// Whether a frame that looks known can't be out of a cache.
    fn is_live(&self, frame: &Frame, passed: Duration) -> bool {
        let at_pace = |doubtful: &Doubtful| passed >= PACE && doubtful.is_at_pace(frame, passed);
        passed >= BURST || self.doubtful.as_ref().is_some_and(at_pace)
    }

    /// Leaves a frame out.
    fn doubt(&mut self, frame: Frame) {
        if let Some(doubtful) = &mut self.doubtful {
            doubtful.bytes = doubtful.bytes.saturating_add(frame.data.len());
            doubtful.frames.push(frame);
        }
        let is_much =
            |doubtful: &Doubtful| doubtful.bytes > MAX_HELD_BYTES || doubtful.frames.len() > MAX_KNOWN;
        self.doubtful.take_if(|doubtful| is_much(doubtful));
    }

    fn let_through(&mut self, mut frame: Frame, shift: i64, now: Instant, out: &mut Vec<Passed>) {
        self.remember(Known::of(&frame, shift), now);
        frame.dts = frame.dts.moved(shift);
        frame.pts = frame.pts.moved(shift);
        out.push(Passed::Item(Incoming::Frame(frame)));
    }

    /// Whether a frame (in the times of the stream) is one that is known.
    fn judge(&self, frame: &Known) -> Judged {
        let Some(last) = self.last(frame.kind) else { return Judged::New };
        if frame.dts > last {
            return Judged::New;
        }
        if self.of(frame.kind).any(|known| known == frame) {
            return Judged::Known;
        }
        if frame.dts == last {
            // Two frames of one time, of which the first had come.
            return Judged::New;
        }
        // Older than what is remembered in one piece: nothing to compare with.
        match self.known.iter().find(|known| known.kind == frame.kind) {
            Some(oldest) if frame.dts >= oldest.dts => Judged::Foreign,
            _ => Judged::Known,
        }
    }

    fn remember(&mut self, frame: Known, now: Instant) {
        let last = of_kind(&mut self.last, frame.kind);
        *last = Some(last.map_or(frame.dts, |last| last.max(frame.dts)));
        self.last_arrival = Some(now);
        self.known.push_back(frame);
        let sync_picture = frame.kind == Kind::Video && frame.is_sync;
        if sync_picture {
            let is_sync = |known: &Known| known.kind == Kind::Video && known.is_sync;
            let syncs = self.known.iter().filter(|known| is_sync(known)).count();
            if syncs > MAX_GOPS {
                self.known.pop_front();
                while self.known.front().is_some_and(|known| !is_sync(known)) {
                    self.known.pop_front();
                }
            }
            self.last_sync = None;
        }
        let bound = if self.last(Kind::Video).is_some() { MAX_KNOWN } else { MAX_SOUND };
        while self.known.len() > bound {
            if let Some(oldest) = self.known.pop_front()
                && oldest.kind == Kind::Video
                && oldest.is_sync
            {
                self.last_sync = Some(oldest);
            }
        }
    }
}

enum Judged {
    New,
    Known,
    /// At a time that is known there was another frame: the match was a mistake.
    Foreign,
}

fn of_kind<T>([video, audio]: &mut [T; 2], kind: Kind) -> &mut T {
    match kind {
        Kind::Video => video,
        Kind::Audio => audio,
    }
}

fn size(item: &Incoming) -> usize {
    match item {
        Incoming::Frame(frame) => frame.data.len(),
        Incoming::Aside(aside) => aside.size,
        Incoming::Track(track) => track.config.len(),
        Incoming::Expect { .. } | Incoming::WallClock { .. } => 0,
    }
}

#[cfg(test)]
mod tests;
