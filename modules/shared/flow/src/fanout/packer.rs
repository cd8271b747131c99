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
use crate::stream::{Anchor, Aside, Entry, Gap, Item, Tracks};
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
/// frame lies. A wire whose packets are numbered makes them [`ONCE`](Self::ONCE) instead.
///
/// Players may differ in how they want the same bytes: by their `variant`, a number whose meaning is the wire's own.
pub trait Wire: Send + 'static {
    /// Players that start within so much stream time have the same zero.
    const EPOCH: Duration;
    /// Frames become bytes once, in [`take`](Self::take), whether or not there is a player; all players have the same
    /// times, and what a player that joins is given is kept by the wire.
    const ONCE: bool = false;
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

    /// What follows is coded so.
    fn tracks(&mut self, _tracks: &Arc<Tracks>) {}

    /// What time it is in the world at a point of the stream.
    fn anchor(&mut self, _anchor: &Anchor) {}

    /// Whether players that are there can go on with these tracks.
    fn goes_on(&self, _tracks: &Tracks) -> bool {
        true
    }

    /// Of a wire that makes bytes [once](Self::ONCE): takes a frame of the next flush. `starts`: a decoder can start there.
    fn take(&mut self, _track: &Track, _frame: &Frame, _starts: bool) {}

    /// Lets go of what was sent so far: it is no place to start at any more.
    fn forget_sent(&mut self) {}

    /// When there is something to say beside the frames, whether or not frames come.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Whether there is something of that kind now: it is written with the flush that follows.
    fn speak(&mut self, _now: Instant) -> bool {
        false
    }

    /// Of a wire that makes bytes once: writes what it says and the frames that it took since the last flush.
    fn write(&self, _out: &mut PieceWriter, _variant: u32) {}

    /// Of a wire that makes bytes once: for a player that joins now, what was sent since the last place to start and where
    /// that begins; `None`: it waits for the next such place.
    fn join(&mut self, _out: &mut PieceWriter, _variant: u32, _now: Instant) -> Option<Beginning> {
        None
    }

    /// Writes what a player has to know before the frame at `at`: tracks, and what was noted. With sound alone that
    /// is with every flush, so what takes time is kept; the same tracks are the same `Arc`.
    fn start(
        &mut self,
        out: &mut PieceWriter,
        tracks: &Arc<Tracks>,
        at: Timestamp,
        zero: Timestamp,
        variant: u32,
    );

    /// Writes a frame.
    fn frame(&self, _out: &mut PieceWriter, _track: &Track, _frame: &Frame, _zero: Timestamp) {}

    /// Writes a message that is sent where it stands.
    fn aside(&self, _out: &mut PieceWriter, _tracks: &Tracks, _aside: &Aside, _zero: Timestamp) {}
}

/// Where a player's bytes begin, of each kind: pictures, sound.
pub type Beginning = [Option<Mark>; 2];

/// A place in what a wire sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The number of the packet there.
    pub number: u16,
    /// Its time, as it stands in the packet.
    pub time: u32,
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
    /// Where the burst begins, where the wire tells.
    pub(super) beginning: Option<Beginning>,
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
                self.wire.tracks(&tracks);
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
            Item::Gap(Gap { anchor, .. }) | Item::Anchor(anchor) => return self.wire.anchor(&anchor),
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

    /// When what is pending, or what the wire has to say, must leave at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        let pending = self.since.map(|since| since + self.batch.max(SOUND_WAIT));
        pending.into_iter().chain(self.wire.due()).min()
    }

    /// Whether players that are there can go on with these tracks.
    pub(super) fn goes_on(&self, tracks: &Tracks) -> bool {
        self.wire.goes_on(tracks)
    }

    /// Serialises what is pending for every epoch that has players.
    pub(super) fn flush(&mut self, now: Instant) -> Option<Flush> {
        let units = std::mem::take(&mut self.pending);
        self.since = None;
        self.picture = false;
        // What came before any track is of no use to anybody.
        let spoken = self.wire.speak(now);
        let tracks = self.tracks.clone()?;
        let first = first(&units).or(spoken.then_some(Timestamp::ZERO))?;
        let mut flush = Flush { sync: false, pictures: 0, sounds: 0, arrived: [None; 2], parts: Vec::new() };
        for unit in &units {
            let Unit::Frame(frame, arrived, starts) = unit else { continue };
            let [picture, sound] = &mut flush.arrived;
            flush.sync |= *starts;
            if let Some(track) = tracks.get(frame.kind).filter(|_| W::ONCE) {
                if *starts {
                    self.gop_bytes = 0;
                }
                self.wire.take(track, frame, *starts);
            }
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
            let zero = epoch.zero_from((sync || W::ONCE).then_some(first))?;
            let mut out = PieceWriter::with_capacity(room);
            let headers = (announce || sync).then(|| {
                wire.start(&mut out, &tracks, first, zero, epoch.variant);
                out.finish()
            });
            if announce && let Some(headers) = &headers {
                out.append(headers);
            }
            if W::ONCE {
                wire.write(&mut out, epoch.variant);
            } else {
                write(wire, &mut out, &tracks, &units, zero);
            }
            let headers = headers.filter(|_| !announce);
            Some(Part { epoch: epoch.id, headers, pieces: out.finish() })
        });
        self.remember(units, sync);
        Some(flush)
    }

    fn remember(&mut self, units: Vec<Unit>, sync: bool) {
        if sync {
            if !W::ONCE {
                self.forget_gop();
            }
            self.gop_usable = true;
        }
        if !self.gop_usable {
            return;
        }
        self.gop_bytes += units.iter().map(Unit::size).sum::<usize>();
        if !W::ONCE {
            self.gop.extend(units);
        }
        if self.gop_bytes > MAX_GOP_BYTES {
            self.forget_gop();
        }
    }

    fn forget_gop(&mut self) {
        self.wire.forget_sent();
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
    pub(super) fn join(&mut self, instant: bool, variant: u32, now: Instant) -> Joining {
        if W::ONCE {
            let seat = self.epochs.of(variant).seat();
            let mut out = PieceWriter::default();
            let beginning = self.wire.join(&mut out, variant, now);
            let burst = beginning.is_some().then(|| out.finish()).into_iter().collect();
            return Joining { seat, beginning, burst };
        }
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
            self.wire.start(&mut out, tracks, start, zero, variant);
            burst.push(out.finish());
            let missing = self.gop.get(self.burst_units..).unwrap_or_default();
            if !missing.is_empty() {
                write(&self.wire, &mut out, tracks, missing, zero);
                self.burst.push(out.finish());
                self.burst_units = self.gop.len();
            }
            burst.extend(self.burst.iter().cloned());
        }
        Joining { seat, beginning: None, burst }
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
