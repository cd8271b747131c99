//! What readers see of a stream, and how much of it is kept for them.

use std::time::Duration;

use av_media::Timestamp;
use tokio::time::Instant;

use super::Live;
use crate::stream::reader::From;
use crate::stream::ring::{Keep, StartPoint, Told};
use crate::stream::{Entry, Item, Lost};

/// A reader's next position, or why it has none.
pub(in crate::stream) enum Step {
    /// The entry at the cursor, and its dts as its source stamped it.
    Entry(Entry, Timestamp),
    /// Nothing new.
    Wait(Option<Instant>),
    /// The reader fell behind: it has to start again.
    Behind,
    /// Start here. Tracks are told where any are known. `away`: nothing is kept, and nobody publishes.
    Start { seq: u64, told: Option<Told>, before: Lost, away: bool },
}

impl Live {
    /// Bytes that are kept for readers.
    pub(in crate::stream) fn bytes(&self) -> usize {
        let writer = self.writer.as_ref();
        let held = writer.and_then(|writer| writer.held.as_ref()).map_or(0, |held| held.bytes);
        let pending =
            writer.and_then(|writer| writer.pending.as_ref()).map_or(0, |(frame, _)| frame.data.len());
        self.ring.bytes().saturating_add(held).saturating_add(pending)
    }

    /// Makes room for other streams. Returns whether there was anything to give up.
    pub(in crate::stream) fn give_up(&mut self, now: Instant) -> bool {
        // What waits for a second track, or for more of its picture, has waited long enough.
        self.whole_picture();
        self.announce(now);
        let asides = self.give_up_asides();
        let given_up = self.ring.give_up();
        if given_up == Some(true) {
            self.push(Item::GivenUp, now);
        }
        asides || given_up.is_some()
    }

    /// Lets go of messages that wait for a first frame. Returns whether there were any.
    fn give_up_asides(&mut self) -> bool {
        let Some(held) = self.writer.as_mut().and_then(|writer| writer.held.as_mut()) else { return false };
        let asides = std::mem::take(&mut held.asides);
        held.bytes = asides.iter().fold(held.bytes, |bytes, (_, aside, _)| bytes.saturating_sub(aside.size));
        self.uncounted.asides += asides.len() as u64;
        !asides.is_empty()
    }

    /// A reader begins; see [`Ring::enter`].
    pub(in crate::stream) fn enter(&mut self, keep: Keep) -> u64 {
        self.ring.enter(keep)
    }

    /// Where a reader is now.
    pub(in crate::stream) fn patience(&self) -> Duration {
        self.ring.patience()
    }

    pub(in crate::stream) fn moved(&mut self, place: u64, cursor: Option<u64>) {
        self.ring.moved(place, cursor);
    }

    /// A reader has gone.
    pub(in crate::stream) fn leave(&mut self, place: u64) {
        self.ring.leave(place);
    }

    /// What a reader at `cursor` does next; where it has none, it starts as `from` says.
    pub(in crate::stream) fn step(&mut self, cursor: Option<u64>, from: From, now: Instant) -> Step {
        self.flush_due(now);
        if self.writer.as_ref().is_some_and(|writer| writer.held.is_some()) && self.complete(now) {
            self.announce(now);
        }
        let Some(cursor) = cursor else {
            // Whatever is written next, a decoder can start at it.
            let fresh = self.writer.as_ref().is_none_or(|writer| !writer.pictures);
            let start = match from {
                From::LastSync => self.ring.start().cloned(),
                From::NextSync { after } => self.ring.start().filter(|start| start.seq >= after).cloned(),
                From::Oldest => self.ring.start_at(Timestamp::from_nanos(i64::MIN)),
                From::Time(time) => self.ring.start_at(time),
                From::Kept => self.ring.oldest_start(),
            };
            let away = start.is_none() && self.writer.is_none();
            let (seq, told) = match start {
                Some(StartPoint { seq, told }) => (seq, Some(told)),
                None if fresh => (self.ring.end(), self.told.clone()),
                None => return Step::Wait(self.due()),
            };
            return Step::Start { seq, told, before: self.ring.frames_before(seq), away };
        };
        if self.ring.is_gone(cursor) {
            return Step::Behind;
        }
        match self.ring.take(cursor) {
            Some((entry, stamped)) => Step::Entry(entry, stamped),
            None => Step::Wait(self.due()),
        }
    }

    /// The number that the next entry gets.
    pub(in crate::stream) fn end_of_ring(&self) -> u64 {
        self.ring.end()
    }

    /// Whether the last place to start at lies ahead of a cursor.
    pub(in crate::stream) fn start_is_ahead(&self, cursor: u64) -> bool {
        self.ring.start().is_some_and(|start| start.seq > cursor)
    }

    /// When the wait for a second track, or for more of a picture, ends.
    fn due(&self) -> Option<Instant> {
        let writer = self.writer.as_ref()?;
        if let Some(until) = writer.pending_until() {
            return Some(until);
        }
        let held = writer.held.as_ref()?;
        Some(held.since? + self.settings.track_wait)
    }
}
