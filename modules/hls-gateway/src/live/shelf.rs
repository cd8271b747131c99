//! What can be fetched: the segments and parts in memory, and what is left to the attic.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::attic::{Attic, Fate, Record, Slip};
use super::fleeting::{self, Held};
use super::pieces::Pieces;

/// What is newer stays in memory, as long as there is room.
const HOT: i64 = 60 * 1_000_000_000;
/// Segments that are brought to the attic again at once.
const MOST_RETRIES: usize = 8;
/// Segments that may be on their way to the attic while memory has no room for them.
const MOST_PENDING: usize = 8;

/// Init segments that are kept whether or not they are needed.
const MOST_MAPS: usize = 64;

/// An init segment. Its name is made of its content: other bytes, another URI.
#[derive(Debug, PartialEq)]
pub(crate) struct Map {
    pub name: String,
    pub bytes: bytes::Bytes,
}

impl Map {
    /// Its name is made of its bytes.
    pub(crate) fn of(bytes: bytes::Bytes) -> Self {
        let mut name = "init-".to_owned();
        for byte in Sha256::digest(&bytes).iter().take(8) {
            let _ = write!(name, "{byte:02x}");
        }
        name.push_str(".mp4");
        Self { name, bytes }
    }
}

/// What can be fetched.
#[derive(Default)]
pub(crate) struct Shelf {
    segments: VecDeque<Kept>,
    parts: VecDeque<KeptPart>,
    maps: VecDeque<Arc<Map>>,
    /// Bytes of segments that are in memory, and of parts of others.
    size: usize,
    /// What may be kept there.
    most: Option<usize>,
    /// Where segments go that memory has no room for.
    attic: Option<Arc<dyn Attic>>,
    /// All segments go there when they are finished, to be there again after a restart. Otherwise only those do that memory
    /// has no room for, or that are about to go.
    eager: bool,
    /// It does not take, or not fast enough, what memory has no room for.
    refused: bool,
    /// The attic knows of the playlist of this name.
    begun: bool,
    name: String,
    /// Bytes that there was no room for.
    lacking: usize,
    /// Older segments are in memory no more.
    cold: u64,
}

/// Where a finished segment is.
pub(crate) enum Found {
    Memory(Pieces),
    /// In the attic; so many bytes.
    Attic(usize),
}

/// A finished segment.
#[derive(Debug)]
struct Kept {
    number: u64,
    /// `None`: in the attic alone.
    pieces: Option<Pieces>,
    len: usize,
    record: Record,
    /// What has become of it in the attic.
    slip: Option<Arc<Slip>>,
    was_retried: bool,
    /// It is in the attic for so short that it costs nothing there.
    fleeting: Option<Held>,
    /// Its parts.
    parts: Span,
    /// Since when it is not listed any more, and how long it stays then.
    until: Option<Instant>,
    stays: Duration,
}

/// Parts in a row, of one playlist.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    pub run: u64,
    pub numbers: Range<u64>,
}

/// A part.
#[derive(Debug)]
struct KeptPart {
    run: u64,
    number: u64,
    pieces: Pieces,
    /// No segment in memory has its bytes.
    alone: bool,
    /// As of a segment.
    until: Option<Instant>,
    stays: Duration,
}

impl Kept {
    /// In the attic alone.
    fn new(record: Record, stays: Duration) -> Self {
        Self {
            number: record.number,
            len: record.len,
            pieces: None,
            record,
            slip: None,
            was_retried: false,
            fleeting: None,
            parts: Span::default(),
            until: None,
            stays,
        }
    }

    /// It is not listed any more, and most of the time for which it stays then is over.
    fn goes_soon(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until.saturating_duration_since(now) <= fleeting::STAYS)
    }

    /// Whether it goes soon, and costs nothing in the attic until then.
    fn is_fleeting(&mut self, attic: &dyn Attic, now: Instant) -> bool {
        if self.fleeting.is_none() && self.slip.is_none() && self.goes_soon(now) {
            self.fleeting = attic.hold(self.len);
        }
        self.fleeting.is_some()
    }

    fn fate(&self) -> Fate {
        match (&self.slip, &self.pieces) {
            (Some(slip), _) => slip.fate(),
            (None, None) => Fate::Kept,
            // It is from before there was an attic.
            (None, Some(_)) => Fate::Failed,
        }
    }
}

impl Shelf {
    /// A finished segment.
    pub(crate) fn segment(&self, number: u64) -> Option<Found> {
        let at = self.segments.binary_search_by_key(&number, |kept| kept.number).ok()?;
        let kept = self.segments.get(at)?;
        Some(kept.pieces.clone().map_or(Found::Attic(kept.len), Found::Memory))
    }

    /// A part of the playlist of that run.
    pub(crate) fn part(&self, run: u64, number: u64) -> Option<Pieces> {
        let at = self.parts.binary_search_by_key(&(run, number), |part| (part.run, part.number)).ok()?;
        self.parts.get(at).map(|part| part.pieces.clone())
    }

    /// An init segment.
    pub(crate) fn map(&self, name: &str) -> Option<Arc<Map>> {
        self.maps.iter().find(|map| map.name == name).cloned()
    }

    /// Bytes of media in memory.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    /// How many pieces of segments and parts are of that memory; those that a segment and its parts share count once.
    #[cfg(test)]
    pub(super) fn held(&self, bytes: &bytes::Bytes) -> usize {
        let segments = self.segments.iter().filter_map(|kept| kept.pieces.as_ref());
        let parts = self.parts.iter().filter(|part| part.alone).map(|part| &part.pieces);
        let pieces = segments.chain(parts).flat_map(Pieces::iter);
        pieces.filter(|piece| piece.as_ptr() == bytes.as_ptr()).count()
    }

    /// From now on that many bytes may be kept in memory.
    pub(crate) fn set_most(&mut self, most: usize) {
        self.most = Some(most);
    }

    /// From now on there is an attic, for all segments (`eager`) or those that memory need not keep.
    pub(crate) fn set_attic(&mut self, attic: Arc<dyn Attic>, eager: bool) {
        let attic = self.attic.get_or_insert(attic).clone();
        if eager && !self.eager {
            self.eager = true;
            // What it was given before was not all.
            self.begun = false;
            self.begin_attic(&*attic);
        }
    }

    /// Tells the attic what it is about to be given segments of.
    fn begin_attic(&mut self, attic: &dyn Attic) {
        if !self.begun && !self.name.is_empty() {
            self.begun = true;
            attic.begin(&self.name);
            self.maps.iter().for_each(|map| attic.keep_map(map));
        }
    }

    fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.size > most)
    }

    /// Whether it helps when the segment goes.
    pub(super) fn lacks_room(&self, number: u64) -> bool {
        let at = self.segments.binary_search_by_key(&number, |kept| kept.number).ok();
        let in_memory = at.and_then(|at| self.segments.get(at)).is_some_and(|kept| kept.pieces.is_some());
        if self.attic.is_some() && !self.eager {
            return self.is_full() && self.refused;
        }
        in_memory && self.is_full() || self.lacking > 0
    }

    /// Another playlist begins, which counts its parts anew; what was listed is not any more.
    pub(crate) fn begin(&mut self, name: &str, now: Instant) {
        for kept in &mut self.segments {
            kept.until = kept.until.or_else(|| now.checked_add(kept.stays));
        }
        for part in &mut self.parts {
            part.until = part.until.or_else(|| now.checked_add(part.stays));
        }
        name.clone_into(&mut self.name);
        if let Some(attic) = self.attic.clone().filter(|_| self.eager || self.begun) {
            self.begun = false;
            self.begin_attic(&*attic);
        }
    }

    /// Puts a finished segment here and in the attic; it stays for so long when it is not listed any more.
    pub(super) fn add(&mut self, record: Record, pieces: Pieces, parts: Span, stays: Duration) {
        self.size = self.size.saturating_add(pieces.len());
        self.set_alone(&parts, false);
        let attic = self.attic.as_ref().filter(|_| self.eager);
        let slip = attic.map(|attic| attic.keep(record.clone(), pieces.clone()));
        let kept = Kept { slip, parts, pieces: Some(pieces), ..Kept::new(record, stays) };
        self.segments.push_back(kept);
    }

    /// Whether parts have their bytes for themselves.
    fn set_alone(&mut self, span: &Span, alone: bool) {
        let place = |part: &KeptPart| (part.run, part.number);
        let from = self.parts.partition_point(|part| place(part) < (span.run, span.numbers.start));
        let to = self.parts.partition_point(|part| place(part) < (span.run, span.numbers.end));
        for part in self.parts.range_mut(from..to.max(from)).filter(|part| part.alone != alone) {
            part.alone = alone;
            let len = part.pieces.len();
            self.size = if alone { self.size.saturating_add(len) } else { self.size.saturating_sub(len) };
        }
    }

    /// What was listed before a restart: the attic has its segments, and no others.
    pub(super) fn restore(&mut self, name: &str, first: u64, maps: &[Arc<Map>]) {
        // The attic goes on with it.
        (self.name, self.begun) = (name.to_owned(), true);
        self.cold = first;
        self.maps.extend(maps.iter().cloned());
    }

    /// A finished segment that the attic has.
    pub(super) fn add_stored(&mut self, record: Record, stays: Duration) {
        self.segments.push_back(Kept::new(record, stays));
    }

    /// A part of the segment that grows; it stays for so long when it is not listed any more.
    pub(super) fn add_part(&mut self, run: u64, number: u64, pieces: Pieces, stays: Duration) {
        self.size = self.size.saturating_add(pieces.len());
        self.parts.push_back(KeptPart { run, number, pieces, alone: true, until: None, stays });
    }

    /// Parts below that number are not listed any more.
    pub(super) fn unlist_parts(&mut self, run: u64, below: u64, now: Instant) {
        let end = self.parts.partition_point(|part| (part.run, part.number) < (run, below));
        for part in self.parts.range_mut(..end).rev().take_while(|part| part.until.is_none()) {
            part.until = now.checked_add(part.stays);
        }
    }

    /// Whether what is listed is there again after a restart.
    pub(super) const fn outlives(&self) -> bool {
        self.eager
    }

    /// Numbers below `number` may have been seen after a restart.
    pub(super) fn reserve(&self, number: u64) {
        if let Some(attic) = &self.attic {
            attic.reserve(number);
        }
    }

    /// A segment is not listed any more.
    pub(super) fn unlist(&mut self, number: u64, now: Instant) {
        if let Ok(at) = self.segments.binary_search_by_key(&number, |kept| kept.number)
            && let Some(kept) = self.segments.get_mut(at)
        {
            kept.until = now.checked_add(kept.stays);
        }
    }

    pub(super) fn add_map(&mut self, map: &Arc<Map>) {
        if let Some(at) = self.maps.iter().position(|known| known == map) {
            // Those that are in use stay longest.
            let map = self.maps.remove(at);
            self.maps.extend(map);
            return;
        }
        if self.maps.len() >= MOST_MAPS {
            // A stream that changes all the time has those that its segments need, of which the last one is not finished.
            let needed = self.segments.iter().filter_map(|kept| kept.record.map.as_deref());
            let needed = needed.collect::<HashSet<_>>();
            let last = self.maps.pop_back();
            self.maps.retain(|map| needed.contains(map.name.as_str()));
            self.maps.extend(last);
        }
        self.maps.push_back(map.clone());
        if let Some(attic) = self.attic.as_ref().filter(|_| self.begun) {
            attic.keep_map(map);
        }
    }

    /// What the attic has need not be in memory, where it is older than [`HOT`], about to go or memory is full. What it was
    /// not given yet is then.
    fn release(&mut self, now: Instant) {
        let Some(attic) = self.attic.clone() else { return };
        let from = self.segments.partition_point(|kept| kept.number < self.cold);
        let mut newer: i64 = self.segments.range(from..).map(|kept| kept.record.duration).sum();
        let (mut retries, mut pending, mut all_kept) = (0, 0, true);
        (self.lacking, self.refused) = (0, false);
        for at in from..self.segments.len() {
            let full = self.is_full();
            let Some(kept) = self.segments.get_mut(at) else { return };
            newer = newer.saturating_sub(kept.record.duration);
            let is_old = if self.eager { newer >= HOT } else { kept.is_fleeting(&*attic, now) };
            if !full && !is_old {
                return;
            }
            let (number, fate) = (kept.number, kept.fate());
            match fate {
                Fate::Pending => {
                    pending += 1;
                    self.refused |= pending > MOST_PENDING;
                }
                Fate::Kept => {
                    if let Some(pieces) = kept.pieces.take() {
                        let parts = kept.parts.clone();
                        self.size = self.size.saturating_sub(pieces.len());
                        self.set_alone(&parts, true);
                    }
                }
                Fate::Failed | Fate::NoRoom if retries < MOST_RETRIES => {
                    retries += 1;
                    self.refused |= kept.slip.is_some();
                    // Room may have come since. If it has not, something has to go before the next try.
                    if fate == Fate::NoRoom && self.eager && std::mem::take(&mut kept.was_retried) {
                        self.lacking = self.lacking.saturating_add(kept.len);
                    } else {
                        kept.was_retried = true;
                        let pieces = kept.pieces.clone().unwrap_or_default();
                        let record = kept.record.clone();
                        self.begin_attic(&*attic);
                        if let Some(kept) = self.segments.get_mut(at) {
                            kept.slip = Some(attic.keep(record, pieces));
                        }
                    }
                }
                Fate::Failed | Fate::NoRoom => {}
            }
            all_kept &= fate == Fate::Kept;
            if all_kept {
                self.cold = number.saturating_add(1);
            }
        }
    }

    /// Parts go when their time is over, or where memory has no room, when they are not listed.
    fn drop_parts(&mut self, now: Instant) {
        while self
            .parts
            .front()
            .and_then(|part| part.until)
            .is_some_and(|until| until <= now || self.is_full())
        {
            let Some(gone) = self.parts.pop_front().filter(|part| part.alone) else { continue };
            self.size = self.size.saturating_sub(gone.pieces.len());
        }
    }

    /// A segment has been finished: what need not be in memory, or here at all, goes.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.release(now);
        self.drop_old(now);
    }

    /// The same in between.
    pub(crate) fn sweep(&mut self, now: Instant) {
        // An eager attic that has no room makes the window shorter with each second try: once a segment is enough.
        if !self.eager {
            self.release(now);
        }
        self.drop_old(now);
    }

    pub(super) fn drop_old(&mut self, now: Instant) {
        self.drop_parts(now);
        while let Some((until, number)) =
            self.segments.front().and_then(|kept| Some((kept.until?, kept.number)))
            && (until <= now || self.lacks_room(number))
        {
            let is_kept =
                |kept: &Kept| kept.len > 0 && (self.eager || kept.slip.is_some() || kept.pieces.is_none());
            let is_kept = self.segments.front().is_some_and(is_kept);
            if let Some(attic) = self.attic.as_ref().filter(|_| is_kept)
                && !attic.remove(number)
            {
                return;
            }
            let Some(gone) = self.segments.pop_front() else { return };
            match gone.pieces {
                Some(pieces) => {
                    self.size = self.size.saturating_sub(pieces.len());
                    self.set_alone(&gone.parts, true);
                    self.drop_parts(now);
                }
                None => self.lacking = self.lacking.saturating_sub(gone.len),
            }
        }
    }
}
