//! Serialises a stream once for all its players.
//!
//! Frames gather to a flush: a picture with the sound that waits in front of it. A flush is serialised once, whatever
//! the number of epochs: each epoch has headers of its own, and all share the payload.

mod epochs;
mod squeeze;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_media::{Frame, Kind, Timestamp, Track};
use bytes::Bytes;

use super::pieces::{PieceWriter, Pieces};
use crate::stream::{Anchor, Aside, Entry, Gap, Item, Tracks};
use epochs::Epochs;
pub(super) use epochs::Seat;

/// Sound waits at most that long for a picture to ride with (40 ms, less what timers are late).
const SOUND_WAIT: Duration = Duration::from_millis(36);
/// A GOP above that is not kept: who joins waits for the next sync frame.
const MAX_GOP_BYTES: usize = 32 << 20;
/// Headers of one message, and the sound that is copied in among them, generously.
const OVERHEAD: usize = 64;
const COPIED_SOUND: usize = 448;

/// How a protocol puts a stream on the wire, for many players at once.
///
/// Times on the wire are those since `view.zero`, a point of stream time that is near the one at which a player's first
/// frame lies.
pub trait Wire: Send + 'static {
    /// What a frame becomes once for all players, whatever they see of it; kept with the frames that a joining player
    /// gets.
    type Packed: Clone + Send;
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

    /// Whether there is a word for a track. Where there is none, its frames are left out.
    fn carries(_track: &Track) -> bool {
        true
    }

    /// Whether frames of a track are sent as things stand.
    fn sends(&self, track: &Track) -> bool {
        Self::carries(track)
    }

    /// What follows is coded so.
    fn tracks(&mut self, _tracks: &Arc<Tracks>) {}

    /// Whether players that are there can go on with these tracks; otherwise they are sent away.
    fn goes_on(&self, _tracks: &Tracks) -> bool {
        true
    }

    /// What time it is in the world at a point of the stream.
    fn anchor(&mut self, _anchor: &Anchor) {}

    /// When there is something to say beside the frames, whether or not frames come.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Whether there is something of that kind now: [`say`](Self::say) writes it in front of the flush.
    fn speaks(&mut self, _now: Instant) -> bool {
        false
    }

    /// Writes what there is to say beside the frames.
    fn say(&self, _out: &mut PieceWriter, _view: View) {}

    /// Takes the next frame: each once, in order, before it is written for anybody.
    fn pack(&mut self, track: &Track, frame: &Frame) -> Self::Packed;

    /// How the protocol calls the point at which a player's stream of that kind begins: at `first`, or at what is packed
    /// next. `at` is the moment at which the whole stream of the player begins, the same for all kinds; `None` where that
    /// is the next frame. For the player's greeting.
    fn mark(&self, _kind: Kind, _first: Option<&Self::Packed>, _at: Option<Timestamp>) -> u64 {
        0
    }

    /// Writes what a player has to know before the frame at `at`: tracks, and what was noted. With sound alone that
    /// is with every flush, so what takes time is kept; the same tracks are the same `Arc`.
    fn start(&mut self, out: &mut PieceWriter, tracks: &Arc<Tracks>, at: Timestamp, view: View);

    /// Writes a frame. Its times may be others than those it was packed with: those of a player that joined at the edge.
    fn frame(&self, out: &mut PieceWriter, track: &Track, frame: &Frame, packed: &Self::Packed, view: View);

    /// Writes a message that is sent where it stands.
    fn aside(&self, out: &mut PieceWriter, tracks: &Tracks, aside: &Aside, view: View);
}

/// How some players see a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Stream time that is zero for them.
    pub zero: Timestamp,
    /// What they take of the stream, as the protocol numbers it.
    pub variant: u32,
}

/// Where the stream of a player begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Join {
    /// At the last sync frame, at once, with the times of its frames.
    #[default]
    Instant,
    /// At the next sync frame.
    Live,
    /// At the last sync frame, at once, with the times of all pictures so far squeezed together just before the newest
    /// one; sound from then on.
    Edge,
}

impl Join {
    /// All of them, as the option `join` spells them.
    pub const WORDS: [&'static str; 3] = ["instant", "live", "edge"];

    /// By one of [`WORDS`](Self::WORDS).
    pub fn of(word: &str) -> Self {
        match word {
            "live" => Self::Live,
            "edge" => Self::Edge,
            _ => Self::Instant,
        }
    }
}

/// Where a player's stream of one kind begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Of which track.
    pub kind: Kind,
    /// By [`Wire::mark`].
    pub mark: u64,
}

/// What a player is told in front of everything else, once it is known where its stream begins. `None`: what it asks for
/// is not here any more, and its sink goes back.
pub type Greeting = Box<dyn FnOnce(&[Opening]) -> Option<Bytes> + Send>;

/// See the module's text.
pub(super) struct Packer<W: Wire> {
    wire: W,
    batch: Duration,
    tracks: Option<Arc<Tracks>>,
    /// Players of every epoch have to be told of the stream with the next flush.
    announce: bool,
    pending: Vec<Unit<W::Packed>>,
    /// When the oldest of `pending` was packed, and whether a picture is among them.
    since: Option<Instant>,
    picture: bool,
    /// Everything flushed since (and with) the last flush that a decoder can start at.
    gop: Vec<Unit<W::Packed>>,
    gop_bytes: usize,
    gop_usable: bool,
    epochs: Epochs,
    /// `gop` as players of an epoch see it, as far as someone needed it: who joins, joins that.
    bursts: HashMap<u64, Burst>,
    /// When the newest frame was flushed.
    newest: Timestamp,
}

/// What was made of so many units for who joins.
#[derive(Default)]
struct Burst {
    pieces: Vec<Arc<Pieces>>,
    units: usize,
}

/// What becomes one message.
enum Unit<P> {
    /// A frame, when it arrived, and whether a decoder may start there; packed when it is flushed.
    Frame(Frame, Instant, bool, Option<P>),
    Aside(Aside, Timestamp),
}

impl<P> Unit<P> {
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
    /// Where its stream begins, as far as that is known.
    pub(super) openings: Vec<Opening>,
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
            bursts: HashMap::new(),
            newest: Timestamp::ZERO,
        }
    }

    /// Takes the next entry. Call [`flush`](Self::flush) before when [`must_flush_before`] says so.
    ///
    /// [`must_flush_before`]: Self::must_flush_before
    pub(super) fn take(&mut self, entry: Entry, now: Instant) {
        let unit = match entry.item {
            Item::Frame(frame) => {
                self.picture |= frame.kind == Kind::Video;
                Unit::Frame(frame, entry.arrived.into_std(), entry.starts, None)
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

    /// Whether frames of that kind are left out, because there is no word for their track.
    pub(super) fn leaves_out(&self, kind: Kind) -> bool {
        let track = self.tracks.as_ref().and_then(|tracks| tracks.get(kind));
        track.is_some_and(|track| !self.wire.sends(track))
    }

    /// Whether players that are there can go on with these tracks.
    pub(super) fn goes_on(&self, tracks: &Tracks) -> bool {
        self.wire.goes_on(tracks)
    }

    /// Serialises what is pending for every epoch that has players.
    pub(super) fn flush(&mut self, now: Instant) -> Option<Flush> {
        let mut units = std::mem::take(&mut self.pending);
        self.since = None;
        self.picture = false;
        let speaks = self.wire.speaks(now);
        // What came before any track is of no use to anybody.
        let tracks = self.tracks.clone()?;
        let first = first(&units).or(speaks.then_some(self.newest))?;
        let mut flush = Flush { sync: false, pictures: 0, sounds: 0, arrived: [None; 2], parts: Vec::new() };
        for unit in &mut units {
            let Unit::Frame(frame, arrived, starts, packed) = unit else { continue };
            let track = tracks.get(frame.kind);
            *packed = track.map(|track| self.wire.pack(track, frame));
            self.newest = frame.dts;
            let [picture, sound] = &mut flush.arrived;
            flush.sync |= *starts;
            if !track.is_some_and(|track| self.wire.sends(track)) {
                continue;
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
            let view = View { zero: epoch.zero_from(sync.then_some(first))?, variant: epoch.variant };
            let mut out = PieceWriter::with_capacity(room);
            let headers = (announce || sync).then(|| {
                wire.start(&mut out, &tracks, first, view);
                out.finish()
            });
            if announce && let Some(headers) = &headers {
                out.append(headers);
            }
            if speaks {
                wire.say(&mut out, view);
            }
            write(wire, &mut out, &tracks, &units, view);
            let headers = headers.filter(|_| !announce);
            Some(Part { epoch: epoch.id, headers, pieces: out.finish() })
        });
        self.remember(units, sync);
        Some(flush)
    }

    fn remember(&mut self, units: Vec<Unit<W::Packed>>, sync: bool) {
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
        self.bursts.clear();
    }

    /// Seats a player.
    pub(super) fn join(&mut self, join: Join, variant: u32) -> Joining {
        let start = first(&self.gop).filter(|_| join != Join::Live);
        let epoch = self.epochs.newest(variant, |epoch| match (epoch.zero, first(&self.gop)) {
            (Some(zero), Some(start)) => {
                let after = u128::try_from(start.nanos_since(zero));
                after.is_ok_and(|after| after < W::EPOCH.as_nanos())
            }
            (Some(_), None) => false,
            (None, _) => true,
        });
        let (seat, id, zero) = (epoch.seat(), epoch.id, epoch.zero_from(start));
        let tracks = self.tracks.clone();
        let (Some(start), Some(zero), Some(tracks)) = (start, zero, &tracks) else {
            // Which picture a decoder can start at is not known yet; sound starts with the next.
            let waits = tracks.is_none_or(|tracks| tracks.get(Kind::Video).is_some());
            let openings = if waits { Vec::new() } else { self.openings(None, false) };
            return Joining { seat, openings, burst: Vec::new() };
        };
        let view = View { zero, variant };
        let mut out = PieceWriter::default();
        let mut burst = Vec::new();
        if join == Join::Edge {
            let squeezed = squeeze::squeezed(&self.gop);
            if squeezed.is_empty() {
                // Sound alone: it begins with the next.
                return Joining { seat, openings: self.openings(None, false), burst };
            }
            let openings = self.openings(squeezed.first().map(|(frame, packed)| (frame, *packed)), false);
            let at = squeezed.first().map_or(start, |(frame, _)| frame.dts);
            self.wire.start(&mut out, tracks, at, view);
            burst.push(out.finish());
            // The same for all who join between two flushes.
            let known = self.bursts.entry(id).or_default();
            if known.units != self.gop.len() {
                for (frame, packed) in &squeezed {
                    if let Some(track) = tracks.get(frame.kind) {
                        self.wire.frame(&mut out, track, frame, packed, view);
                    }
                }
                *known = Burst { pieces: vec![out.finish()], units: self.gop.len() };
            }
            burst.extend(known.pieces.iter().cloned());
            return Joining { seat, openings, burst };
        }
        self.wire.start(&mut out, tracks, start, view);
        burst.push(out.finish());
        let known = self.bursts.entry(id).or_default();
        let missing = self.gop.get(known.units..).unwrap_or_default();
        if !missing.is_empty() {
            write(&self.wire, &mut out, tracks, missing, view);
            known.pieces.push(out.finish());
            known.units = self.gop.len();
        }
        burst.extend(known.pieces.iter().cloned());
        Joining { seat, openings: self.openings(None, true), burst }
    }

    /// Where the stream of a player begins that joins now: at `picture` and the sound that comes next, at the first
    /// frames of the GOP, or at what comes next. All kinds begin at one moment, that of the first picture.
    fn openings(&self, picture: Option<(&Frame, &W::Packed)>, with_gop: bool) -> Vec<Opening> {
        let gop = if with_gop { self.gop.as_slice() } else { &[] };
        let first = |kind: Kind| {
            let kept = gop.iter().find_map(|unit| match unit {
                Unit::Frame(frame, .., Some(packed)) if frame.kind == kind => Some((frame, packed)),
                _ => None,
            });
            picture.filter(|(frame, _)| frame.kind == kind).or(kept)
        };
        let at = first(Kind::Video).or_else(|| first(Kind::Audio)).map(|(frame, _)| frame.pts);
        let tracks = self.tracks.iter().flat_map(|tracks| tracks.iter()).map(|track| track.kind());
        let opening =
            |kind| Opening { kind, mark: self.wire.mark(kind, first(kind).map(|(_, packed)| packed), at) };
        tracks.map(opening).collect()
    }
}

/// Where players start: at the first frame. What stands beside frames may say any time, and often says 0.
fn first<P>(units: &[Unit<P>]) -> Option<Timestamp> {
    let frames = units.iter().filter(|unit| matches!(unit, Unit::Frame(..)));
    frames.map(Unit::time).min().or_else(|| units.iter().map(Unit::time).min())
}

fn write<W: Wire>(wire: &W, out: &mut PieceWriter, tracks: &Tracks, units: &[Unit<W::Packed>], view: View) {
    for unit in units {
        match unit {
            Unit::Frame(frame, .., Some(packed)) => {
                if let Some(track) = tracks.get(frame.kind) {
                    wire.frame(out, track, frame, packed, view);
                }
            }
            Unit::Frame(..) => {}
            Unit::Aside(aside, _) => wire.aside(out, tracks, aside, view),
        }
    }
}
