//! Serialises a stream once for all its players.
//!
//! Frames gather to a flush: a picture with the sound that waits in front of it. A flush is serialised once
//! per epoch, and every player of that epoch is sent the same bytes.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use av_media::{Frame, Kind};
use av_rtmp::Egress;
use bytes::{Bytes, BytesMut};

use super::incoming::{Body, Description, Message, write_headers};
use crate::stream::{Entry, Item, Tracks};

/// Sound waits at most that long for a picture to ride with (40 ms, less what timers are late).
const SOUND_WAIT: Duration = Duration::from_millis(36);
/// Players that join within that much stream time share their headers and time base.
const EPOCH_MILLIS: i64 = 10 * 60 * 1000;
/// A GOP above that is not kept: who joins waits for the next sync frame.
const MAX_GOP_BYTES: usize = 32 << 20;
/// Message headers and chunk headers of one message, generously.
const OVERHEAD: usize = 64;

/// See the module's text.
pub(super) struct Packer {
    egress: Egress,
    batch: Duration,
    tracks: Option<Arc<Tracks>>,
    /// What the publisher said of the stream, and what players were told of that.
    description: Option<Arc<Description>>,
    told: Option<Arc<Description>>,
    /// Players of every epoch have to be told of the tracks with the next flush.
    announce: bool,
    pending: Vec<Unit>,
    /// When the oldest of `pending` was packed, and whether a picture is among them.
    since: Option<Instant>,
    picture: bool,
    /// Everything flushed since (and with) the last flush that a decoder can start at.
    gop: Vec<Unit>,
    gop_bytes: usize,
    gop_usable: bool,
    epochs: Vec<Epoch>,
    next_epoch: u32,
}

/// What becomes one message.
#[derive(Clone)]
enum Unit {
    /// A frame, when it arrived, and whether a decoder may start there.
    Frame(Frame, Instant, bool),
    Passing(Arc<Body>, i64),
}

impl Unit {
    fn millis(&self) -> i64 {
        match self {
            Self::Frame(frame, ..) => frame.dts.millis(),
            Self::Passing(_, millis) => *millis,
        }
    }

    fn size(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Frame(frame, ..) => frame.data.len(),
                Self::Passing(body, _) => body.len(),
            }
    }
}

/// Players whose time starts at the same point of the stream.
struct Epoch {
    id: u32,
    /// Stream time that is zero for these players; `None` until the first frame goes out.
    base: Option<i64>,
    players: Arc<AtomicUsize>,
    /// `gop` as these players see it, as far as someone needed it.
    burst: Vec<Bytes>,
    burst_units: usize,
}

/// A player's place in an epoch.
pub(super) struct Seat {
    pub(super) epoch: u32,
    players: Arc<AtomicUsize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.players.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a player gets when it joins.
pub(super) struct Joining {
    pub(super) seat: Seat,
    /// Headers and the GOP so far; empty: the player waits for the next flush that a decoder can start at.
    pub(super) burst: Vec<Bytes>,
}

/// Bytes that go out at one moment.
pub(super) struct Flush {
    /// Whether a decoder can start here.
    pub(super) sync: bool,
    /// Frames in it, for the counters.
    pub(super) pictures: u32,
    pub(super) sounds: u32,
    /// When its newest frame arrived, by kind: for the delay inside the module.
    pub(super) arrived: [Option<Instant>; 2],
    parts: Vec<Part>,
}

/// A flush as one epoch sees it.
pub(super) struct Part {
    epoch: u32,
    /// For a player that starts (again) here; empty where nobody can.
    pub(super) headers: Bytes,
    pub(super) bytes: Bytes,
}

impl Flush {
    /// What a player of `epoch` is sent.
    pub(super) fn part(&self, epoch: u32) -> Option<&Part> {
        self.parts.iter().find(|part| part.epoch == epoch)
    }
}

impl Packer {
    pub(super) fn new(egress: Egress, batch: Duration) -> Self {
        Self {
            egress,
            batch,
            tracks: None,
            description: None,
            told: None,
            announce: false,
            pending: Vec::new(),
            since: None,
            picture: false,
            gop: Vec::new(),
            gop_bytes: 0,
            gop_usable: false,
            epochs: Vec::new(),
            next_epoch: 0,
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
            Item::Aside(aside) => match Message::of(&aside) {
                Some(Message::Description(description)) => {
                    self.description = Some(description);
                    return;
                }
                Some(Message::Passing(body, time)) => Unit::Passing(body, time.millis()),
                None => return,
            },
            Item::Tracks(tracks) => {
                let same = self.tracks.replace(tracks.clone()) == Some(tracks);
                self.announce = true;
                if !same {
                    self.forget_gop();
                }
                return;
            }
            Item::Lost(_) => return self.forget_gop(),
            Item::Ended => {
                self.tracks = None;
                self.description = None;
                return self.forget_gop();
            }
            Item::Away => {
                // The next publisher has one of its own, or none.
                self.description = None;
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
            Item::Tracks(_) | Item::Lost(_) | Item::Away | Item::Ended => true,
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
        let tracks = self.tracks.clone()?;
        if self.pending.is_empty() {
            return None;
        }
        let units = std::mem::take(&mut self.pending);
        self.since = None;
        self.picture = false;
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
        let first = units.iter().map(Unit::millis).min().unwrap_or(0);
        let size = units.iter().map(Unit::size).sum();
        let description = self.description.clone();
        let announce = std::mem::take(&mut self.announce) || self.told != description;
        self.told.clone_from(&description);
        let newest = self.epochs.last().map(|epoch| epoch.id);
        self.epochs.retain(|epoch| Some(epoch.id) == newest || epoch.players.load(Ordering::Relaxed) > 0);
        for epoch in &mut self.epochs {
            if epoch.players.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let base = match epoch.base {
                Some(base) => base,
                None if flush.sync => *epoch.base.insert(first),
                None => continue,
            };
            let mut out = BytesMut::with_capacity(size);
            let mut headers = Bytes::new();
            if announce || flush.sync {
                write_headers(&self.egress, &mut out, &tracks, description.as_deref(), wire(first, base));
                headers = out.split().freeze();
            }
            if announce {
                out.extend_from_slice(&headers);
                headers = Bytes::new();
            }
            write_units(&self.egress, &mut out, &tracks, &units, base);
            flush.parts.push(Part { epoch: epoch.id, headers, bytes: out.freeze() });
        }
        self.remember(units, size, flush.sync);
        Some(flush)
    }

    fn remember(&mut self, units: Vec<Unit>, size: usize, sync: bool) {
        if sync {
            self.forget_gop();
            self.gop_usable = true;
        }
        if !self.gop_usable {
            return;
        }
        self.gop.extend(units);
        self.gop_bytes += size;
        if self.gop_bytes > MAX_GOP_BYTES {
            self.forget_gop();
        }
    }

    fn forget_gop(&mut self) {
        self.gop.clear();
        self.gop_bytes = 0;
        self.gop_usable = false;
        for epoch in &mut self.epochs {
            epoch.burst.clear();
            epoch.burst_units = 0;
        }
    }

    /// Seats a player: at the last sync frame, or (`instant` false, or there is none) at the next.
    pub(super) fn join(&mut self, instant: bool) -> Joining {
        let start = self.gop.iter().map(Unit::millis).min();
        let fits = |epoch: &Epoch| match (epoch.base, start) {
            (Some(base), Some(start)) => (0..EPOCH_MILLIS).contains(&(start - base)),
            (Some(_), None) => false,
            (None, _) => true,
        };
        if !self.epochs.last().is_some_and(fits) {
            let id = self.next_epoch;
            self.next_epoch = self.next_epoch.wrapping_add(1);
            self.epochs.push(Epoch {
                id,
                base: None,
                players: Arc::default(),
                burst: Vec::new(),
                burst_units: 0,
            });
        }
        let (egress, gop, description) = (&self.egress, &self.gop, self.description.as_deref());
        let mut joining = Joining { seat: Seat { epoch: 0, players: Arc::default() }, burst: Vec::new() };
        let Some(epoch) = self.epochs.last_mut() else { return joining };
        epoch.players.fetch_add(1, Ordering::Relaxed);
        joining.seat = Seat { epoch: epoch.id, players: epoch.players.clone() };
        if let (true, Some(start), Some(tracks)) = (instant, start, &self.tracks) {
            let base = *epoch.base.get_or_insert(start);
            let mut out = BytesMut::new();
            write_headers(egress, &mut out, tracks, description, wire(start, base));
            joining.burst.push(out.split().freeze());
            let missing = gop.get(epoch.burst_units..).unwrap_or_default();
            if !missing.is_empty() {
                write_units(egress, &mut out, tracks, missing, base);
                epoch.burst.push(out.freeze());
                epoch.burst_units = gop.len();
            }
            joining.burst.extend(epoch.burst.iter().cloned());
        }
        joining
    }
}

/// A player's time: 32 bits of milliseconds since its epoch's base, wrapping.
fn wire(millis: i64, base: i64) -> u32 {
    (millis - base).max(0) as u32
}

fn write_units(egress: &Egress, out: &mut BytesMut, tracks: &Tracks, units: &[Unit], base: i64) {
    for unit in units {
        let timestamp = wire(unit.millis(), base);
        match unit {
            Unit::Frame(frame, ..) => {
                if let Some(track) = tracks.get(frame.kind) {
                    egress.frame(out, track, frame, timestamp);
                }
            }
            Unit::Passing(body, _) => body.write(egress, out, tracks, timestamp),
        }
    }
}
