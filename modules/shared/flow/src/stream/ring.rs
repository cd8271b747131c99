//! The stream's memory: the GOP of now, and what readers need beyond it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use av_media::{Kind, Timestamp};
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::{Anchor, Aside, Entry, Item, Lost, Tracks};

/// Bound of one stream's memory, unless a reader needs more. A GOP that does not fit is given up: new readers wait for
/// the next one.
pub(super) const MAX_BYTES: usize = 48 << 20;
/// Bound in number, for streams of tiny frames.
const MAX_ENTRIES: usize = 65_536;
/// What an entry costs beside its bytes: its slot here and in a fan-out, both in rows that double, and the allocation.
const OVERHEAD: usize = 512;

/// What a reader needs kept beyond the GOP of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// What came before now, from the sync frame before that on: a recording may begin there.
    pub pre_roll: Duration,
    /// How far behind the reader may be and still lose nothing.
    pub lag: Duration,
    /// Bytes that the stream may keep for it.
    pub bytes: usize,
    /// How long what comes may lie unread in its source, so that much is read at once. Zero: somebody is watching.
    pub patience: Duration,
}

impl Default for Keep {
    /// Nothing from before, and 3 s for a reader that is a little behind.
    fn default() -> Self {
        Self {
            pre_roll: Duration::ZERO,
            lag: Duration::from_secs(3),
            bytes: MAX_BYTES,
            patience: Duration::ZERO,
        }
    }
}

/// What so many bytes take in memory. Pieces of all sizes come and go, and leave holes that the next ones do not fill:
/// measured with glibc's allocator after half a minute, up to a sixth of what is in use.
const fn held(bytes: usize) -> usize {
    bytes.saturating_add(bytes / 6)
}

/// What an entry keeps in memory.
fn size(item: &Item) -> usize {
    let bytes = match item {
        Item::Frame(frame) => frame.data.len(),
        Item::Aside(aside) => aside.size,
        Item::Tracks(tracks) => tracks.iter().map(|track| track.config.len()).sum(),
        Item::Anchor(_) | Item::Gap(_) | Item::Away | Item::GivenUp | Item::Lost(_) | Item::Ended => 0,
    };
    OVERHEAD.saturating_add(held(bytes))
}

/// Two parts of one picture.
pub(super) fn joined(one: &Bytes, other: &Bytes) -> Bytes {
    let mut both = BytesMut::with_capacity(one.len() + other.len());
    both.extend_from_slice(one);
    both.extend_from_slice(other);
    both.freeze()
}

/// Entries by number, where readers start and what they need.
#[derive(Debug, Default)]
pub(super) struct Ring {
    slots: VecDeque<Slot>,
    /// Number of the first entry, and what readers were told before it.
    first: u64,
    base: Told,
    bytes: usize,
    /// The newest entry at which a reader may start.
    start: Option<StartPoint>,
    /// All that are kept, oldest first.
    starts: VecDeque<u64>,
    /// Frames ever written.
    written: Lost,
    /// Entries before this one were handed to a reader.
    taken: u64,
    places: Vec<Place>,
    last_place: u64,
}

#[derive(Debug)]
struct Slot {
    entry: Entry,
    /// A frame's dts as its source stamped it.
    stamped: Timestamp,
    /// Frames written before it.
    before: Lost,
}

/// Where a reader is.
#[derive(Debug)]
struct Place {
    id: u64,
    /// `None`: it waits for a place to start.
    cursor: Option<u64>,
    keep: Keep,
}

/// What a reader that begins has to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) tracks: Arc<Tracks>,
    pub(super) aside: Option<Aside>,
    pub(super) anchor: Option<Anchor>,
}

impl Told {
    fn hear(&mut self, item: &Item) {
        match item {
            Item::Tracks(tracks) => self.tracks = tracks.clone(),
            Item::Aside(aside) if aside.keep_latest => self.aside = Some(aside.clone()),
            Item::Anchor(anchor) => self.anchor = Some(*anchor),
            Item::Gap(gap) => self.anchor = Some(gap.anchor),
            Item::Away | Item::Ended => self.aside = None,
            _ => {}
        }
    }
}

/// An entry at which a decoder may start.
#[derive(Clone, Debug)]
pub(super) struct StartPoint {
    pub(super) seq: u64,
    pub(super) told: Told,
}

impl Ring {
    /// The newest place to start.
    pub(super) const fn start(&self) -> Option<&StartPoint> {
        self.start.as_ref()
    }

    /// The newest place to start whose time is `time` or before it; the oldest where none is that old.
    pub(super) fn start_at(&self, time: Timestamp) -> Option<StartPoint> {
        let dts = |seq: &u64| match self.slot(*seq).map(|slot| &slot.entry.item) {
            Some(Item::Frame(frame)) => Some(frame.dts),
            _ => None,
        };
        let after = self.starts.partition_point(|seq| dts(seq).is_some_and(|dts| dts <= time));
        let seq = *self.starts.get(after.saturating_sub(1))?;
        let mut told = self.base.clone();
        let count = usize::try_from(seq.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.slots.iter().take(count).for_each(|slot| told.hear(&slot.entry.item));
        Some(StartPoint { seq, told })
    }

    /// The oldest entry at which a decoder can start, whoever published it.
    pub(super) fn oldest_start(&self) -> Option<StartPoint> {
        let count = self.slots.iter().position(|slot| slot.entry.starts)?;
        let mut told = self.base.clone();
        self.slots.iter().take(count).for_each(|slot| told.hear(&slot.entry.item));
        Some(StartPoint { seq: self.first + count as u64, told })
    }

    /// Who joins waits for what is written next. Places further back stay for those who ask for what was before.
    pub(super) fn forget_start(&mut self) {
        self.start = None;
    }

    /// What was written so far is no place to start at.
    pub(super) fn forget_starts(&mut self) {
        self.start = None;
        self.starts.clear();
    }

    /// Of which kind the frame at the newest place to start is, and when it arrived.
    pub(super) fn start_frame(&self) -> Option<(Kind, Instant)> {
        let Entry { item: Item::Frame(frame), arrived, .. } = &self.slot(self.start.as_ref()?.seq)?.entry
        else {
            return None;
        };
        Some((frame.kind, *arrived))
    }

    /// A reader may start at what is written next.
    pub(super) fn start_here(&mut self, told: Told) {
        self.start = Some(StartPoint { seq: self.end(), told });
        self.starts.push_back(self.end());
    }

    /// The number that the next entry gets.
    pub(super) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Bytes in memory.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether what was at `seq` is no longer kept.
    pub(super) const fn is_gone(&self, seq: u64) -> bool {
        seq < self.first
    }

    /// The entry with that number and how its source stamped it, unless it is gone or not written yet.
    pub(super) fn take(&mut self, seq: u64) -> Option<(Entry, Timestamp)> {
        let slot = self.slot(seq)?;
        let taken = (slot.entry.clone(), slot.stamped);
        self.taken = self.taken.max(seq + 1);
        Some(taken)
    }

    /// Frames that were written before `seq`.
    pub(super) fn frames_before(&self, seq: u64) -> Lost {
        self.slot(seq).map_or(self.written, |slot| slot.before)
    }

    fn slot(&self, seq: u64) -> Option<&Slot> {
        let index = seq.checked_sub(self.first)?;
        self.slots.get(usize::try_from(index).ok()?)
    }

    /// Another reader. Gives the number by which it is known.
    pub(super) fn enter(&mut self, keep: Keep) -> u64 {
        self.last_place += 1;
        self.places.push(Place { id: self.last_place, cursor: None, keep });
        self.last_place
    }

    /// Where a reader is now.
    pub(super) fn moved(&mut self, id: u64, cursor: Option<u64>) {
        if let Some(place) = self.places.iter_mut().find(|place| place.id == id) {
            place.cursor = cursor;
        }
    }

    /// A reader has gone.
    pub(super) fn leave(&mut self, id: u64) {
        self.places.retain(|place| place.id != id);
    }

    /// How long all readers have patience. Who joins next finds what is unread in the stream before long.
    pub(super) fn patience(&self) -> Duration {
        self.places.iter().map(|place| place.keep.patience).min().unwrap_or_default()
    }

    /// Adds another slice to the picture that was written last. `None`: something follows it, or a reader has it.
    /// Otherwise whether the GOP of now had to be given up for it.
    pub(super) fn add_slice(&mut self, slice: &Bytes) -> Option<bool> {
        if self.taken >= self.end() {
            return None;
        }
        let Entry { item: Item::Frame(frame), arrived, .. } = &mut self.slots.back_mut()?.entry else {
            return None;
        };
        if frame.kind != Kind::Video {
            return None;
        }
        let arrived = *arrived;
        let before = held(frame.data.len());
        frame.data = joined(&frame.data, slice);
        self.bytes += held(frame.data.len()).saturating_sub(before);
        Some(self.tidy(arrived))
    }

    /// Returns whether the GOP of now had to be given up for it.
    pub(super) fn push(&mut self, entry: Entry, stamped: Timestamp) -> bool {
        self.bytes += size(&entry.item);
        let (arrived, before) = (entry.arrived, self.written);
        if let Item::Frame(frame) = &entry.item {
            self.written.add(frame.kind);
        }
        self.slots.push_back(Slot { entry, stamped, before });
        self.tidy(arrived)
    }

    /// Lets go of what nobody needs, and of what is too much. Returns whether the GOP of now was part of that.
    pub(super) fn tidy(&mut self, now: Instant) -> bool {
        let most = self.places.iter().map(|place| place.keep.bytes).max().unwrap_or(0).max(MAX_BYTES);
        let pre_roll = self.places.iter().map(|place| place.keep.pre_roll).max().unwrap_or_default();
        let mut given_up = false;
        while let Some(oldest) = self.slots.front() {
            let too_much = self.bytes > most || self.slots.len() > MAX_ENTRIES;
            if !too_much && self.is_needed(oldest.entry.arrived, pre_roll, now) {
                break;
            }
            given_up |= self.drop_oldest();
        }
        given_up
    }

    /// Whether somebody needs the oldest entry.
    fn is_needed(&self, arrived: Instant, pre_roll: Duration, now: Instant) -> bool {
        if self.start.as_ref().is_some_and(|start| self.first >= start.seq) {
            return true;
        }
        let age = |arrived: Instant| now.saturating_duration_since(arrived);
        let is_behind = |place: &Place| place.cursor.is_some_and(|cursor| cursor <= self.first);
        if self.places.iter().any(|place| is_behind(place) && age(arrived) <= place.keep.lag) {
            return true;
        }
        // The pre-roll begins where a decoder can: at the newest such place that is old enough.
        let mut starts = self.starts.iter();
        let in_it = starts.next().is_some_and(|start| *start <= self.first);
        let next = starts.next().and_then(|next| self.slot(*next));
        in_it && !pre_roll.is_zero() && next.is_none_or(|next| age(next.entry.arrived) < pre_roll)
    }

    /// Returns whether it belonged to the GOP of now, which is no place to start any more.
    fn drop_oldest(&mut self) -> bool {
        let Some(slot) = self.slots.pop_front() else { return false };
        self.bytes = self.bytes.saturating_sub(size(&slot.entry.item));
        self.base.hear(&slot.entry.item);
        self.first += 1;
        while self.starts.front().is_some_and(|start| *start < self.first) {
            self.starts.pop_front();
        }
        self.start.take_if(|start| start.seq < self.first).is_some()
    }

    /// Lets go of what every reader has passed, as far as nobody needs it by the time of the newest entry.
    pub(super) fn tidy_passed(&mut self) {
        if let Some(newest) = self.slots.back().map(|slot| slot.entry.arrived) {
            self.tidy(newest);
        }
    }

    /// Lets go of all before the newest place to start; where there is nothing before it, of everything. Readers are
    /// left what they have not read yet, unless that is all there is. `None`: there was nothing at all. Otherwise
    /// whether the GOP of now was part of it.
    pub(super) fn give_up(&mut self) -> Option<bool> {
        let start = self.start.as_ref().map(|start| start.seq).filter(|start| *start > self.first);
        let all = start.unwrap_or(self.end());
        let unread = self.places.iter().filter_map(|place| place.cursor).min().unwrap_or(all);
        let until = if unread > self.first { all.min(unread) } else { all };
        if until == self.first {
            return None;
        }
        let mut given_up = false;
        while self.first < until {
            given_up |= self.drop_oldest();
        }
        Some(given_up)
    }
}
