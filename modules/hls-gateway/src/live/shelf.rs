//! What can be fetched: the segments and parts in memory, and what is left to the attic.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::attic::{Attic, Fate, Record, Slip};
use super::pieces::Pieces;

/// What is newer stays in memory, as long as there is room.
const HOT: i64 = 60 * 1_000_000_000;
/// Segments that are brought to the attic again at once.
const MOST_RETRIES: usize = 8;

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
    parts: VecDeque<(u64, Pieces)>,
    maps: VecDeque<Arc<Map>>,
    /// Of all finished segments that are in memory.
    size: usize,
    /// What may be kept there.
    most: Option<usize>,
    /// Where segments go that memory has no room for.
    attic: Option<Arc<dyn Attic>>,
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
    /// Its first part's number.
    first_part: u64,
    /// Since when it is not listed any more, and how long it stays then.
    until: Option<Instant>,
    stays: Duration,
}

impl Kept {
    /// In the attic alone.
    const fn new(record: Record, stays: Duration) -> Self {
        Self {
            number: record.number,
            len: record.len,
            pieces: None,
            record,
            slip: None,
            was_retried: false,
            first_part: 0,
            until: None,
            stays,
        }
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

    /// A part.
    pub(crate) fn part(&self, number: u64) -> Option<Pieces> {
        let at = self.parts.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.parts.get(at).map(|(_, pieces)| pieces.clone())
    }

    /// An init segment.
    pub(crate) fn map(&self, name: &str) -> Option<Arc<Map>> {
        self.maps.iter().find(|map| map.name == name).cloned()
    }

    /// Bytes of finished segments in memory.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    /// From now on that many bytes may be kept in memory.
    pub(crate) fn set_most(&mut self, most: usize) {
        self.most = Some(most);
    }

    /// From now on there is an attic. `name`: of the playlist, if there is one.
    pub(super) fn set_attic(&mut self, attic: Arc<dyn Attic>, name: Option<&str>) {
        if let Some(name) = name.filter(|_| self.attic.is_none()) {
            attic.begin(name);
            self.maps.iter().for_each(|map| attic.keep_map(map));
        }
        self.attic = Some(attic);
    }

    fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.size > most)
    }

    /// Whether it helps when the segment goes.
    pub(super) fn lacks_room(&self, number: u64) -> bool {
        let at = self.segments.binary_search_by_key(&number, |kept| kept.number).ok();
        let in_memory = at.and_then(|at| self.segments.get(at)).is_some_and(|kept| kept.pieces.is_some());
        in_memory && self.is_full() || self.lacking > 0
    }

    /// Another playlist begins, which counts its parts anew; what was listed is not any more.
    pub(crate) fn begin(&mut self, name: &str, now: Instant) {
        self.parts.clear();
        for kept in &mut self.segments {
            kept.until = kept.until.or_else(|| now.checked_add(kept.stays));
            // Of a numbering that is over: it says nothing of the parts to come.
            kept.first_part = 0;
        }
        if let Some(attic) = &self.attic {
            attic.begin(name);
            self.maps.iter().for_each(|map| attic.keep_map(map));
        }
    }

    /// Puts a finished segment here and in the attic; it stays for so long when it is not listed any more.
    pub(super) fn add(&mut self, record: Record, pieces: Pieces, first_part: u64, stays: Duration) {
        self.size = self.size.saturating_add(pieces.len());
        let slip = self.attic.as_ref().map(|attic| attic.keep(record.clone(), pieces.clone()));
        let kept = Kept { slip, first_part, pieces: Some(pieces), ..Kept::new(record, stays) };
        self.segments.push_back(kept);
    }

    /// What was listed before a restart: the attic has its segments, and no others.
    pub(super) fn restore(&mut self, first: u64, maps: &[Arc<Map>]) {
        self.cold = first;
        self.maps.extend(maps.iter().cloned());
    }

    /// A finished segment that the attic has.
    pub(super) fn add_stored(&mut self, record: Record, stays: Duration) {
        self.segments.push_back(Kept::new(record, stays));
    }

    pub(super) fn add_part(&mut self, number: u64, pieces: Pieces) {
        self.parts.push_back((number, pieces));
    }

    pub(super) const fn has_attic(&self) -> bool {
        self.attic.is_some()
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
        if self.maps.contains(map) {
            return;
        }
        // A stream that changes all the time keeps no more than the segments of a window need.
        while self.maps.len() >= 64 {
            self.maps.pop_front();
        }
        self.maps.push_back(map.clone());
        if let Some(attic) = &self.attic {
            attic.keep_map(map);
        }
    }

    /// What the attic has need not be in memory, where it is older than [`HOT`] or memory is full.
    pub(super) fn release(&mut self) {
        let Some(attic) = self.attic.clone() else { return };
        let from = self.segments.partition_point(|kept| kept.number < self.cold);
        let mut newer: i64 = self.segments.range(from..).map(|kept| kept.record.duration).sum();
        let (mut retries, mut all_kept) = (0, true);
        self.lacking = 0;
        for at in from..self.segments.len() {
            let full = self.is_full();
            let Some(kept) = self.segments.get_mut(at) else { return };
            newer = newer.saturating_sub(kept.record.duration);
            if newer < HOT && !full {
                return;
            }
            let fate = kept.fate();
            match fate {
                Fate::Pending => {}
                Fate::Kept => {
                    let size = kept.pieces.take().map_or(0, |pieces| pieces.len());
                    self.size = self.size.saturating_sub(size);
                }
                Fate::Failed | Fate::NoRoom if retries < MOST_RETRIES => {
                    retries += 1;
                    // Room may have come since. If it has not, something has to go before the next try.
                    if fate == Fate::NoRoom && std::mem::take(&mut kept.was_retried) {
                        self.lacking = self.lacking.saturating_add(kept.len);
                    } else {
                        kept.was_retried = true;
                        let pieces = kept.pieces.clone().unwrap_or_default();
                        kept.slip = Some(attic.keep(kept.record.clone(), pieces));
                    }
                }
                Fate::Failed | Fate::NoRoom => {}
            }
            all_kept &= fate == Fate::Kept;
            if all_kept {
                self.cold = kept.number.saturating_add(1);
            }
        }
    }

    pub(super) fn drop_old(&mut self, now: Instant) {
        while let Some((until, number)) =
            self.segments.front().and_then(|kept| Some((kept.until?, kept.number)))
            && (until <= now || self.lacks_room(number))
        {
            let is_kept = self.segments.front().is_some_and(|kept| kept.len > 0);
            if let Some(attic) = self.attic.as_ref().filter(|_| is_kept)
                && !attic.remove(number)
            {
                return;
            }
            let Some(gone) = self.segments.pop_front() else { return };
            match gone.pieces {
                Some(pieces) => self.size = self.size.saturating_sub(pieces.len()),
                None => self.lacking = self.lacking.saturating_sub(gone.len),
            }
            let first = self.segments.front().map_or(u64::MAX, |kept| kept.first_part);
            while self.parts.front().is_some_and(|(number, _)| *number < first) {
                self.parts.pop_front();
            }
        }
    }
}
