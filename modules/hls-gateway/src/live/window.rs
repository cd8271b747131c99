//! What of a stream is listed, and what is kept beyond that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::muxer::Muxed;
use super::numbers::Numbers;
use super::pieces::Pieces;
use crate::options::{Shaped, Variant};

/// An init segment. Its name is made of its content: other bytes, another URI.
#[derive(Debug, PartialEq)]
pub(crate) struct Map {
    pub name: String,
    pub bytes: bytes::Bytes,
}

/// A part of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartEntry {
    pub number: u64,
    /// In nanoseconds.
    pub duration: i64,
    pub independent: bool,
    /// Nothing is there to be fetched.
    pub gap: bool,
}

/// A segment, finished or growing.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub number: u64,
    /// In nanoseconds: of its parts together.
    pub duration: i64,
    /// As long as they are listed.
    pub parts: Vec<PartEntry>,
    /// Media bytes.
    pub size: usize,
    /// Of its parts, while it grows.
    pieces: Vec<Pieces>,
    /// It does not go on where the one before it ends.
    pub discontinuity: bool,
    /// Its init segment, and whether the one before it has another.
    pub map: Option<(Arc<Map>, bool)>,
    pub utc: Option<SystemTime>,
    pub gap: bool,
}

/// What can be fetched.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    segments: VecDeque<Kept>,
    parts: VecDeque<(u64, Pieces)>,
    maps: VecDeque<Arc<Map>>,
    /// Of all finished segments.
    size: usize,
    /// What may be kept.
    most: Option<usize>,
}

/// A finished segment.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub number: u64,
    pub pieces: Pieces,
    /// Its first part's number.
    first_part: u64,
    /// Since when it is not listed any more, and how long it stays then.
    until: Option<Instant>,
    stays: Duration,
}

impl Shelf {
    /// A finished segment.
    pub(crate) fn segment(&self, number: u64) -> Option<Pieces> {
        let at = self.segments.binary_search_by_key(&number, |kept| kept.number).ok()?;
        self.segments.get(at).map(|kept| kept.pieces.clone())
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

    /// Bytes of finished segments.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    /// From now on that many bytes may be kept.
    pub(crate) fn set_most(&mut self, most: usize) {
        self.most = Some(most);
    }

    fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.size > most)
    }

    /// Another playlist begins, which counts its parts anew.
    pub(crate) fn forget_parts(&mut self) {
        self.parts.clear();
    }

    fn drop_old(&mut self, now: Instant) {
        let full = self.is_full();
        while let Some(until) = self.segments.front().and_then(|kept| kept.until)
            && (until <= now || full && self.is_full())
        {
            let size = self.segments.pop_front().map_or(0, |kept| kept.pieces.len());
            self.size = self.size.saturating_sub(size);
            let first = self.segments.front().map_or(u64::MAX, |kept| kept.first_part);
            while self.parts.front().is_some_and(|(number, _)| *number < first) {
                self.parts.pop_front();
            }
        }
    }
}

/// The segments of one media playlist.
#[derive(Debug)]
pub(crate) struct Window {
    pub numbers: Numbers,
    pub shaped: Shaped,
    /// Number of its first segment: what tells its parts from those of all others.
    pub run: u64,
    /// Of the URL.
    pub name: String,
    /// Finished and listed.
    pub segments: VecDeque<Segment>,
    pub open: Option<Segment>,
    /// EXT-X-DISCONTINUITY-SEQUENCE.
    pub discontinuities: u64,
    pub next_segment: u64,
    pub next_part: u64,
    pub ended: bool,
    listed: i64,
    map: Option<Arc<Map>>,
    /// The next segment does not go on where the last one ends.
    broken: bool,
    /// The map of the last segment that has one.
    last_map: Option<Arc<Map>>,
}

impl Window {
    /// Without any segment; the first will have number `run`.
    pub(crate) fn new(
        numbers: Numbers,
        shaped: Shaped,
        run: u64,
        discontinuities: u64,
        name: String,
    ) -> Self {
        Self {
            numbers,
            shaped,
            run,
            name,
            segments: VecDeque::new(),
            open: None,
            discontinuities,
            next_segment: run,
            next_part: 0,
            ended: false,
            listed: 0,
            map: None,
            broken: false,
            last_map: None,
        }
    }

    /// Above the discontinuity number of all segments, the next one included.
    pub(crate) fn last_discontinuity(&self) -> u64 {
        let listed = self.segments.iter().chain(&self.open).filter(|segment| segment.discontinuity).count();
        self.discontinuities.saturating_add(u64::try_from(listed).unwrap_or(0)).saturating_add(1)
    }

    /// How long the playlist is at least, in nanoseconds.
    fn length(&self) -> i64 {
        let window = i64::try_from(self.shaped.window.as_nanos()).unwrap_or(i64::MAX);
        window.max(self.numbers.target_nanos().saturating_mul(3))
    }

    /// What comes next does not go on where the last segment ends, and has this init segment.
    pub(crate) fn breaks(&mut self, map: Option<Arc<Map>>, shelf: &mut Shelf) {
        self.broken = !self.segments.is_empty();
        if let Some(map) = &map
            && !shelf.maps.contains(map)
        {
            // A stream that changes all the time keeps no more than the segments of a window need.
            while shelf.maps.len() >= 64 {
                shelf.maps.pop_front();
            }
            shelf.maps.push_back(map.clone());
        }
        self.map = map;
    }

    fn opened(&mut self, gap: bool, utc: Option<SystemTime>) -> &mut Segment {
        let (number, broken, map) = (self.next_segment, &mut self.broken, &self.map);
        let last = &mut self.last_map;
        self.open.get_or_insert_with(|| {
            let map = if gap { last.clone() } else { map.clone() };
            let changed = map.is_some() && map != *last;
            *last = map.clone().or(last.take());
            Segment {
                number,
                duration: 0,
                parts: Vec::new(),
                size: 0,
                pieces: Vec::new(),
                discontinuity: !gap && std::mem::take(broken),
                map: map.map(|map| (map, changed)),
                utc,
                gap,
            }
        })
    }

    /// Adds a part. `utc`: of its first frame.
    pub(crate) fn add(&mut self, muxed: Muxed, utc: Option<SystemTime>, shelf: &mut Shelf) {
        let Muxed { duration, independent, pieces } = muxed;
        let number = self.number_part();
        if self.lists_parts() {
            shelf.parts.push_back((number, pieces.clone()));
        }
        let segment = self.opened(false, utc);
        segment.duration = segment.duration.saturating_add(duration);
        segment.size = segment.size.saturating_add(pieces.len());
        segment.pieces.push(pieces);
        segment.parts.push(PartEntry { number, duration, independent, gap: false });
    }

    /// Adds time in which there is nothing.
    pub(crate) fn add_gap(&mut self, duration: i64, utc: Option<SystemTime>) {
        let number = self.number_part();
        let segment = self.opened(true, utc);
        segment.duration = segment.duration.saturating_add(duration);
        segment.parts.push(PartEntry { number, duration, independent: false, gap: true });
    }

    /// Finishes the segment that grows, if there is one.
    pub(crate) fn end_segment(&mut self, shelf: &mut Shelf, now: Instant) {
        let Some(mut segment) = self.open.take() else { return };
        self.next_segment = self.next_segment.saturating_add(1);
        let first_part = segment.parts.first().map_or(self.next_part, |part| part.number);
        let pieces = Pieces::joined(&std::mem::take(&mut segment.pieces));
        shelf.size = shelf.size.saturating_add(pieces.len());
        shelf.segments.push_back(Kept {
            number: segment.number,
            pieces,
            first_part,
            until: None,
            stays: nanos(segment.duration.saturating_add(self.length())),
        });
        self.listed = self.listed.saturating_add(segment.duration);
        self.segments.push_back(segment);
        shelf.drop_old(now);
        // Where there is no room, what is listed is shorter: never below three targets.
        let least = self.numbers.target_nanos().saturating_mul(3);
        while let Some(oldest) = self.segments.front()
            && let rest = self.listed.saturating_sub(oldest.duration)
            && (rest >= self.length() || shelf.is_full() && rest >= least)
        {
            let number = oldest.number;
            self.listed = self.listed.saturating_sub(oldest.duration);
            self.discontinuities = self.discontinuities.saturating_add(u64::from(oldest.discontinuity));
            self.segments.pop_front();
            if let Some(kept) = shelf.segments.iter_mut().rev().find(|kept| kept.number == number) {
                kept.until = now.checked_add(kept.stays);
            }
            shelf.drop_old(now);
        }
        self.forget_parts();
        shelf.drop_old(now);
    }

    /// Only the newest segments list their parts.
    fn forget_parts(&mut self) {
        let first = self.first_with_parts();
        let older = self.segments.iter_mut().take(first).rev();
        for segment in older.take_while(|segment| !segment.parts.is_empty()) {
            segment.parts = Vec::new();
        }
    }

    /// Index of the first segment whose parts are listed: those of the last three target durations, and at least the
    /// newest at which a decoder can start.
    pub(crate) fn first_with_parts(&self) -> usize {
        let most = self.numbers.target_nanos().saturating_mul(3);
        let mut behind = self.open.as_ref().map_or(0, |open| open.duration);
        let independent = |segment: &Segment| segment.parts.iter().any(|part| part.independent);
        let mut found = self.open.as_ref().is_some_and(independent);
        let mut first = self.segments.len();
        for (index, segment) in self.segments.iter().enumerate().rev() {
            if behind >= most && found {
                break;
            }
            found |= independent(segment);
            behind = behind.saturating_add(segment.duration);
            first = index;
        }
        first
    }

    fn number_part(&mut self) -> u64 {
        let number = self.next_part;
        self.next_part = number.saturating_add(1);
        number
    }

    pub(crate) fn lists_parts(&self) -> bool {
        self.shaped.variant == Variant::LowLatency
    }
}

fn nanos(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests;
