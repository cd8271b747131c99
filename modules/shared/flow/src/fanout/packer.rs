//! Serialises a stream once for all its players.
//!
//! Frames gather to a flush: a picture with the sound that waits in front of it. A flush is serialised once, whatever
//! the number of epochs: each epoch has headers of its own, and all share the payload.

mod epochs;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use av_media::{Frame, Kind, Timestamp, Track};

use super::pieces::{PieceWriter, Pieces};
use crate::stream::{Aside, Entry, Item, Tracks};
pub(super) use epochs::Seat;
use epochs::{Epoch, Epochs};

/// Sound waits at most that long for a picture to ride with (40 ms, less what timers are late).
const SOUND_WAIT: Duration = Duration::from_millis(36);
/// A GOP above that is not kept: who joins waits for the next sync frame.
const MAX_GOP_BYTES: usize = 32 << 20;
/// Headers of one message, and the sound that is copied in among them, generously.
const OVERHEAD: usize = 64;
const COPIED_SOUND: usize = 448;

/// How a protocol puts a stream on the wire, for many players at once.
///
/// Times on the wire are those since `zero`, a point of stream time that is near the one at which a player's first
/// frame lies.
pub trait Wire: Send + 'static {
    /// Players that start within so much stream time have the same zero.
    const EPOCH: Duration;
    /// Bytes of a frame at most: larger ones are left out.
    const MOST: usize = usize::MAX;

    /// Takes note of a message beside the frames. Whether it is sent where it stands; otherwise it describes the
    /// stream, or is of another protocol.
    fn note(&mut self, aside: &Aside) -> bool;

    /// Whether there is more, less or other to tell of the stream than when this was last asked: players are told
    /// with the next flush.
    fn take_news(&mut self) -> bool;

    /// The publisher is gone, and with it what was noted.
    fn forget(&mut self);

    /// Writes what a player has to know before the frame at `at`: tracks, and what was noted. With sound alone that
    /// is with every flush, so what takes time is kept; the same tracks are the same `Arc`.
    fn start(&mut self, out: &mut PieceWriter, tracks: &Arc<Tracks>, at: Timestamp, zero: Timestamp);

    /// Writes a frame.
    fn frame(&self, out: &mut PieceWriter, track: &Track, frame: &Frame, zero: Timestamp);

    /// Writes a message that is sent where it stands.
    fn aside(&self, out: &mut PieceWriter, tracks: &Tracks, aside: &Aside, zero: Timestamp);
}

/// See the module's text.
pub(super) struct Packer<W> {
    wire: W,
    batch: Duration,
    tracks: Option<Arc<Tracks>>,
    /// Players of every epoch have to be told of the stream with the next flush.
    announce: bool,
    pending: Vec<Unit>,
    /// When the oldest of `pending` was packed, and whether a picture is among them.
    since: Option<Instant>,
    picture: bool,
    /// Everything flushed since (and with) the last flush that a decoder can start at.
    gop: Vec<Unit>,
    gop_bytes: usize,
    gop_usable: bool,
    epochs: Epochs,
    /// `gop` as players of the newest epoch see it, as far as someone needed it: who joins, joins that.
    burst: Vec<Arc<Pieces>>,
    burst_units: usize,
}

/// What becomes one message.
#[derive(Clone)]
enum Unit {
    /// A frame, when it arrived, and whether a decoder may start there.
    Frame(Frame, Instant, bool),
    Aside(Aside, Timestamp),
}

impl Unit {
    fn time(&self) -> Timestamp {
        match self {
            Self::Frame(frame, ..) => frame.dts,
            Self::Aside(_, time) => *time,
        }
    }

    fn size(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Frame(frame, ..) => frame.data.len(),
                Self::Aside(aside, _) => aside.size,
            }
    }
}

/// What a player gets when it joins.
pub(super) struct Joining {
    pub(super) seat: Seat,
    /// Headers and the GOP so far; empty: the player waits for the next flush that a decoder can start at.
    pub(super) burst: Vec<Arc<Pieces>>,
}

/// What goes out at one moment.
pub(super) struct Flush {
    /// Whether a decoder can start here.
    pub(super) sync: bool,
    /// Frames in it, for the counters.
    pub(super) pictures: u32,
    pub(super) sounds: u32,
    /// When its newest frame arrived, by kind: for the delay inside the module.
    pub(super) arrived: [Option<Instant>; 2],
    /// By the index of the epoch.
    parts: Vec<Option<Part>>,
}

/// A flush as one epoch sees it.
pub(super) struct Part {
    epoch: u64,
    /// For a player that starts (again) here; `None` where nobody can, or where everybody is told.
    pub(super) headers: Option<Arc<Pieces>>,
    pub(super) pieces: Arc<Pieces>,
}

impl Flush {
    /// What a player with that seat is sent.
    pub(super) fn part(&self, seat: &Seat) -> Option<&Part> {
        self.parts.get(seat.index)?.as_ref().filter(|part| part.epoch == seat.epoch)
    }
}

impl<W: Wire> Packer<W> {
    pub(super) fn new(wire: W, batch: Duration) -> Self {
        Self {
            wire,
            batch,
            tracks: None,
            announce: false,
            pending: Vec::new(),
            since: None,
            picture: false,
            gop: Vec::new(),
            gop_bytes: 0,
            gop_usable: false,
            epochs: Epochs::default(),
            burst: Vec::new(),
            burst_units: 0,
        }
    }

    /// Takes the next entry. Call [`flush`](Self::flush) before when [`must_flush_before`] says so.
    ///
    /// [`must_flush_before`]: Self::must_flush_before
    pub(super) fn take(&mut self, entry: Entry, now: Instant) {
        let unit = match entry.item {
            Item::Frame(frame) => {
                self.picture |= frame.kind == Kind::Video;
                Unit::Frame(frame, entry.arrived.into_std(), entry.starts)
            }
            Item::Aside(aside) => match (self.wire.note(&aside), aside.time) {
                (true, Some(time)) => Unit::Aside(aside, time),
                _ => return,
            },
            Item::Tracks(tracks) => {
                let same = self.tracks.replace(tracks.clone()) == Some(tracks);
                self.announce = true;
                if !same {
                    self.forget_gop();
                }
                return;
            }
            Item::Lost(_) | Item::GivenUp => return self.forget_gop(),
            Item::Ended => {
                self.tracks = None;
                self.wire.forget();
                return self.forget_gop();
            }
            Item::Away => {
                self.wire.forget();
                return self.forget_gop();
            }
            Item::Gap(_) | Item::Anchor(_) => return,
        };
        self.since.get_or_insert(now);
        self.pending.push(unit);
    }

    /// A flush starts with what a decoder can start at, and ends before the tracks change.
    pub(super) fn must_flush_before(&self, entry: &Entry) -> bool {
        match &entry.item {
            Item::Frame(frame) => self.picture && frame.kind == Kind::Video && entry.starts,
            Item::Gap(_) | Item::Anchor(_) => false,
            Item::Aside(aside) => aside.keep_latest,
            Item::Tracks(_) | Item::Lost(_) | Item::GivenUp | Item::Away | Item::Ended => true,
        }
    }

    /// Whether what is pending should leave now that no more entries are at hand.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        (self.picture && self.batch.is_zero()) || self.due().is_some_and(|due| due <= now)
    }

    /// When what is pending must leave at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        Some(self.since? + self.batch.max(SOUND_WAIT))
    }

    /// Serialises what is pending for every epoch that has players.
    pub(super) fn flush(&mut self) -> Option<Flush> {
        let units = std::mem::take(&mut self.pending);
        self.since = None;
        self.picture = false;
        // What came before any track is of no use to anybody.
        let tracks = self.tracks.clone()?;
        let first = first(&units)?;
        let mut flush = Flush { sync: false, pictures: 0, sounds: 0, arrived: [None; 2], parts: Vec::new() };
        for unit in &units {
            let Unit::Frame(frame, arrived, starts) = unit else { continue };
            let [picture, sound] = &mut flush.arrived;
            flush.sync |= *starts;
            match frame.kind {
                Kind::Video => {
                    flush.pictures += 1;
                    *picture = Some(*arrived);
                }
                Kind::Audio => {
                    flush.sounds += 1;
                    *sound = Some(*arrived);
                }
            }
        }
        let announce = self.wire.take_news() | std::mem::take(&mut self.announce);
        self.epochs.retire();
        let (wire, sync) = (&mut self.wire, flush.sync);
        let room = units.len() * OVERHEAD + flush.sounds as usize * COPIED_SOUND;
        flush.parts = self.epochs.each(|epoch| {
            let zero = epoch.zero_from(sync.then_some(first))?;
            let mut out = PieceWriter::with_capacity(room);
            let headers = (announce || sync).then(|| {
                wire.start(&mut out, &tracks, first, zero);
                out.finish()
            });
            if announce && let Some(headers) = &headers {
                out.append(headers);
            }
            write(wire, &mut out, &tracks, &units, zero);
            let headers = headers.filter(|_| !announce);
            Some(Part { epoch: epoch.id, headers, pieces: out.finish() })
        });
        self.remember(units, sync);
        Some(flush)
    }

    fn remember(&mut self, units: Vec<Unit>, sync: bool) {
        if sync {
            self.forget_gop();
            self.gop_usable = true;
        }
        if !self.gop_usable {
            return;
        }
        self.gop_bytes += units.iter().map(Unit::size).sum::<usize>();
        self.gop.extend(units);
        if self.gop_bytes > MAX_GOP_BYTES {
            self.forget_gop();
        }
    }

    fn forget_gop(&mut self) {
        self.gop.clear();
        self.gop_bytes = 0;
        self.gop_usable = false;
        self.forget_burst();
    }

    fn forget_burst(&mut self) {
        self.burst = Vec::new();
        self.burst_units = 0;
    }

    /// Seats a player: at the last sync frame, or (`instant` false, or there is none) at the next.
    pub(super) fn join(&mut self, instant: bool) -> Joining {
        let start = first(&self.gop);
        let (epoch, is_new) = self.epochs.newest(|epoch: &Epoch| match (epoch.zero, start) {
            (Some(zero), Some(start)) => {
                let after = u128::try_from(start.nanos_since(zero));
                after.is_ok_and(|after| after < W::EPOCH.as_nanos())
            }
            (Some(_), None) => false,
            (None, _) => true,
        });
        let seat = epoch.seat();
        let zero = if instant { epoch.zero_from(start) } else { None };
        if is_new {
            self.forget_burst();
        }
        let mut burst = Vec::new();
        if let (true, Some(start), Some(zero), Some(tracks)) = (instant, start, zero, &self.tracks) {
            let mut out = PieceWriter::default();
            self.wire.start(&mut out, tracks, start, zero);
            burst.push(out.finish());
            let missing = self.gop.get(self.burst_units..).unwrap_or_default();
            if !missing.is_empty() {
                write(&self.wire, &mut out, tracks, missing, zero);
                self.burst.push(out.finish());
                self.burst_units = self.gop.len();
            }
            burst.extend(self.burst.iter().cloned());
        }
        Joining { seat, burst }
    }
}

/// Where players start: at the first frame. What stands beside frames may say any time, and often says 0.
fn first(units: &[Unit]) -> Option<Timestamp> {
    let frames = units.iter().filter(|unit| matches!(unit, Unit::Frame(..)));
    frames.map(Unit::time).min().or_else(|| units.iter().map(Unit::time).min())
}

fn write<W: Wire>(wire: &W, out: &mut PieceWriter, tracks: &Tracks, units: &[Unit], zero: Timestamp) {
    for unit in units {
        match unit {
            Unit::Frame(frame, ..) => {
                if let Some(track) = tracks.get(frame.kind) {
                    wire.frame(out, track, frame, zero);
                }
            }
            Unit::Aside(aside, _) => wire.aside(out, tracks, aside, zero),
        }
    }
}
