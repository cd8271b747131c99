//! The stream's memory: the last GOP and a little more, for readers to walk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use av_media::{Kind, Timestamp};
use bytes::{Bytes, BytesMut};

use super::{Anchor, Aside, Entry, Item, Lost, Tracks};

/// Entries before the last sync frame are kept that long, for readers that are a little behind.
const KEEP: Duration = Duration::from_secs(3);
/// Bound of one stream's memory. A GOP that does not fit is given up: new readers wait for the next one.
pub(super) const MAX_BYTES: usize = 48 << 20;
/// Bound in number, for streams of tiny frames.
const MAX_ENTRIES: usize = 65_536;

/// What an entry keeps in memory, beside itself.
fn size(item: &Item) -> usize {
    match item {
        Item::Frame(frame) => frame.data.len(),
        Item::Aside(aside) => aside.size,
        Item::Tracks(tracks) => tracks.iter().map(|track| track.config.len()).sum(),
        Item::Anchor(_) | Item::Gap(_) | Item::Away | Item::Lost(_) | Item::Ended => 0,
    }
}

/// Two parts of one picture.
pub(super) fn joined(one: &Bytes, other: &Bytes) -> Bytes {
    let mut both = BytesMut::with_capacity(one.len() + other.len());
    both.extend_from_slice(one);
    both.extend_from_slice(other);
    both.freeze()
}

/// Entries by number, and where a new reader starts.
#[derive(Debug, Default)]
pub(super) struct Ring {
    slots: VecDeque<Slot>,
    /// Number of the first entry.
    first: u64,
    bytes: usize,
    start: Option<StartPoint>,
    /// Frames ever written.
    written: Lost,
    /// Entries before this one were handed to a reader.
    taken: u64,
}

#[derive(Debug)]
struct Slot {
    entry: Entry,
    /// A frame's dts as its source stamped it.
    stamped: Timestamp,
    /// Frames written before it.
    before: Lost,
}

/// What a reader that begins has to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) tracks: Arc<Tracks>,
    pub(super) aside: Option<Aside>,
    pub(super) anchor: Option<Anchor>,
}

/// An entry at which a decoder may start.
#[derive(Clone, Debug)]
pub(super) struct StartPoint {
    pub(super) seq: u64,
    pub(super) told: Told,
}

impl Ring {
    /// Where a new reader starts.
    pub(super) const fn start(&self) -> Option<&StartPoint> {
        self.start.as_ref()
    }

    /// What was written so far is no place to start at.
    pub(super) fn forget_start(&mut self) {
        self.start = None;
    }

    /// A reader may start at what is written next.
    pub(super) fn start_here(&mut self, told: Told) {
        self.start = Some(StartPoint { seq: self.end(), told });
    }

    /// The number that the next entry gets.
    pub(super) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
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

    /// Adds another slice to the picture that was written last. False: something follows it, or a reader has it.
    pub(super) fn add_slice(&mut self, slice: &Bytes) -> bool {
        if self.taken >= self.end() {
            return false;
        }
        match self.slots.back_mut().map(|slot| &mut slot.entry.item) {
            Some(Item::Frame(frame)) if frame.kind == Kind::Video => {
                frame.data = joined(&frame.data, slice);
                self.bytes += slice.len();
                true
            }
            _ => false,
        }
    }

    /// Frames that were written before `seq`.
    pub(super) fn frames_before(&self, seq: u64) -> Lost {
        self.slot(seq).map_or(self.written, |slot| slot.before)
    }

    fn slot(&self, seq: u64) -> Option<&Slot> {
        let index = seq.checked_sub(self.first)?;
        self.slots.get(usize::try_from(index).ok()?)
    }

    pub(super) fn push(&mut self, entry: Entry, stamped: Timestamp) {
        self.bytes += size(&entry.item);
        let (arrived, before) = (entry.arrived, self.written);
        if let Item::Frame(frame) = &entry.item {
            self.written.add(frame.kind);
        }
        self.slots.push_back(Slot { entry, stamped, before });
        let start = self.start.as_ref().map_or(self.end(), |start| start.seq);
        while let Some(Slot { entry: oldest, .. }) = self.slots.front() {
            let old = self.first < start && arrived.saturating_duration_since(oldest.arrived) > KEEP;
            if !old && self.bytes <= MAX_BYTES && self.slots.len() <= MAX_ENTRIES {
                break;
            }
            self.bytes -= size(&oldest.item);
            self.slots.pop_front();
            self.first += 1;
        }
        if self.start.as_ref().is_some_and(|start| start.seq < self.first) {
            self.start = None;
        }
    }
}
