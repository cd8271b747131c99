//! What of a stream is listed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::attic::{Record, Restored};
use super::dates::nanos;
use super::muxer::Muxed;
use super::numbers::Numbers;
use super::pieces::Pieces;
use super::playlist::Chunk;
use super::shelf::{Map, Shelf, Span};
use crate::options::{Shaped, Variant};

/// Numbers that are reserved at once: so many may be gaps after a restart.
const BLOCK: u64 = 8;

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
    /// The discontinuity number of the last finished segment.
    breaks: u64,
    /// Numbers below this one are reserved in the attic.
    reserved: u64,
    /// Texts of the oldest segments.
    pub(super) older: VecDeque<Chunk>,
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
            breaks: discontinuities,
            reserved: 0,
            older: VecDeque::new(),
            map: None,
            broken: false,
            last_map: None,
        }
    }

    /// Above the discontinuity number of all segments, the next one included.
    pub(crate) fn last_discontinuity(&self) -> u64 {
        let open = self.open.as_ref().is_some_and(|open| open.discontinuity);
        self.breaks.saturating_add(u64::from(open)).saturating_add(1)
    }

    /// A finished segment, as it has to be known to be listed again.
    fn record(&self, segment: &Segment, len: usize) -> Record {
        let since = segment.utc.and_then(|utc| utc.duration_since(SystemTime::UNIX_EPOCH).ok());
        Record {
            number: segment.number,
            duration: segment.duration,
            breaks: self.breaks.saturating_add(u64::from(segment.discontinuity)),
            discontinuity: segment.discontinuity,
            map: segment.map.as_ref().map(|(map, _)| map.name.clone()),
            utc: since.and_then(|since| u64::try_from(since.as_nanos()).ok()),
            len,
        }
    }

    /// Lists again what was listed before a restart, and says that what follows is lost up to `reserved`: some of these
    /// numbers may have been seen.
    pub(crate) fn restore(&mut self, restored: Restored, shelf: &mut Shelf, now: Instant) {
        let Restored { records, maps, reserved, .. } = restored;
        let Some(first) = records.first() else { return };
        self.discontinuities = first.breaks.saturating_sub(u64::from(first.discontinuity));
        self.breaks = self.discontinuities;
        self.next_segment = first.number;
        shelf.restore(&self.name, first.number, &maps);
        for record in records {
            let map = record.map.as_ref().and_then(|name| maps.iter().find(|map| map.name == *name)).cloned();
            let changed = map.is_some() && map != self.last_map;
            self.last_map = map.clone().or(self.last_map.take());
            self.breaks = record.breaks;
            self.next_segment = record.number.saturating_add(1);
            self.listed = self.listed.saturating_add(record.duration);
            self.segments.push_back(Segment {
                number: record.number,
                duration: record.duration,
                parts: Vec::new(),
                size: record.len,
                pieces: Vec::new(),
                discontinuity: record.discontinuity,
                map: map.map(|map| (map, changed)),
                utc: record.utc.map(|since| SystemTime::UNIX_EPOCH + Duration::from_nanos(since)),
                gap: record.len == 0,
            });
            let stays = length(record.duration.saturating_add(self.length()));
            shelf.add_stored(record, stays);
        }
        // Names of parts are made of it: it has never been used.
        self.run = self.next_segment.max(reserved);
        let piece = self.numbers.part.map_or(i64::MAX, |part| part.nominal);
        while self.next_segment < reserved {
            let mut rest = self.numbers.target_nanos().min(nanos(self.shaped.segment));
            while rest > 0 {
                let length = rest.min(piece);
                self.add_gap(length, None, shelf);
                rest = rest.saturating_sub(length);
            }
            self.end_segment(shelf, now);
        }
        self.broken = true;
    }

    /// How long the playlist is at least, in nanoseconds.
    fn length(&self) -> i64 {
        let window = i64::try_from(self.shaped.window.as_nanos()).unwrap_or(i64::MAX);
        window.max(self.numbers.target_nanos().saturating_mul(3))
    }

    /// What comes next does not go on where the last segment ends, and has this init segment.
    pub(crate) fn breaks(&mut self, map: Option<Arc<Map>>, shelf: &mut Shelf) {
        self.broken = !self.segments.is_empty();
        if let Some(map) = &map {
            shelf.add_map(map);
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

    /// Adds a part that is `listed` so long, of whose time so much comes behind it as a `gap`. `utc`: of its first frame.
    pub(crate) fn add(
        &mut self,
        muxed: Muxed,
        listed: i64,
        gap: i64,
        utc: Option<SystemTime>,
        shelf: &mut Shelf,
    ) {
        let Muxed { duration, independent, pieces } = muxed;
        let number = self.number_part(pieces.clone(), shelf);
        let segment = self.opened(false, utc);
        segment.duration = segment.duration.saturating_add(duration.saturating_sub(gap));
        segment.size = segment.size.saturating_add(pieces.len());
        segment.pieces.push(pieces);
        segment.parts.push(PartEntry { number, duration: listed, independent, gap: false });
    }

    /// Adds time in which there is nothing.
    pub(crate) fn add_gap(&mut self, duration: i64, utc: Option<SystemTime>, shelf: &mut Shelf) {
        let number = self.number_part(Pieces::default(), shelf);
        let segment = self.opened(true, utc);
        segment.duration = segment.duration.saturating_add(duration);
        segment.parts.push(PartEntry { number, duration, independent: false, gap: true });
    }

    /// Finishes the segment that grows, if there is one.
    pub(crate) fn end_segment(&mut self, shelf: &mut Shelf, now: Instant) {
        let Some(mut segment) = self.open.take() else { return };
        self.next_segment = self.next_segment.saturating_add(1);
        let first_part = segment.parts.first().map_or(self.next_part, |part| part.number);
        let parts = Span { run: self.run, numbers: first_part..self.next_part };
        let pieces = Pieces::joined(&std::mem::take(&mut segment.pieces));
        let record = self.record(&segment, pieces.len());
        if self.reserved < self.next_segment.saturating_add(BLOCK / 2) && shelf.outlives() {
            self.reserved = self.next_segment.saturating_add(BLOCK);
            shelf.reserve(self.reserved);
        }
        let stays = length(segment.duration.saturating_add(self.length()));
        shelf.add(record, pieces, parts, stays);
        self.listed = self.listed.saturating_add(segment.duration);
        self.breaks = self.breaks.saturating_add(u64::from(segment.discontinuity));
        self.segments.push_back(segment);
        shelf.tidy(now);
        // Where there is no room, what is listed is shorter: never below three targets.
        let least = self.numbers.target_nanos().saturating_mul(3);
        while let Some(oldest) = self.segments.front()
            && let rest = self.listed.saturating_sub(oldest.duration)
            && (rest >= self.length() || shelf.lacks_room(oldest.number) && rest >= least)
        {
            let number = oldest.number;
            self.listed = self.listed.saturating_sub(oldest.duration);
            self.discontinuities = self.discontinuities.saturating_add(u64::from(oldest.discontinuity));
            self.segments.pop_front();
            shelf.unlist(number, now);
            shelf.drop_old(now);
        }
        self.forget_parts(shelf, now);
        shelf.drop_old(now);
    }

    /// Only the newest segments list their parts.
    fn forget_parts(&mut self, shelf: &mut Shelf, now: Instant) {
        let first = self.first_with_parts();
        let older = self.segments.iter_mut().take(first).rev();
        for segment in older.take_while(|segment| !segment.parts.is_empty()) {
            segment.parts = Vec::new();
        }
        let listed = self.segments.iter().chain(&self.open).skip(first);
        let oldest = listed.flat_map(|segment| &segment.parts).next();
        shelf.unlist_parts(self.run, oldest.map_or(self.next_part, |part| part.number), now);
    }

    /// Index of the first segment whose parts are listed: those of the last three target durations, and where media is
    /// among them, at least the newest at which a decoder can start.
    pub(crate) fn first_with_parts(&self) -> usize {
        let most = self.numbers.target_nanos().saturating_mul(3);
        let mut behind = self.open.as_ref().map_or(0, |open| open.duration);
        let independent = |segment: &Segment| segment.parts.iter().any(|part| part.independent);
        let mut found = self.open.as_ref().is_some_and(independent);
        let mut media = self.open.as_ref().is_some_and(|open| !open.gap);
        let mut first = self.segments.len();
        for (index, segment) in self.segments.iter().enumerate().rev() {
            // Nobody starts in silence; and what has no parts any more, or was made by an earlier process, lists none.
            if behind >= most && (found || !media) || segment.parts.is_empty() {
                break;
            }
            found |= independent(segment);
            media |= !segment.gap;
            behind = behind.saturating_add(segment.duration);
            first = index;
        }
        first
    }

    /// Puts the next part where it can be fetched, and for three target durations more than it is listed. One without bytes
    /// is a gap.
    fn number_part(&mut self, pieces: Pieces, shelf: &mut Shelf) -> u64 {
        let number = self.next_part;
        self.next_part = number.saturating_add(1);
        if self.lists_parts() {
            let stays = length(self.numbers.target_nanos().saturating_mul(3));
            shelf.add_part(self.run, number, pieces, stays);
        }
        number
    }

    pub(crate) fn lists_parts(&self) -> bool {
        self.shaped.variant == Variant::LowLatency
    }
}

/// So many nanoseconds; none below 0.
pub(super) fn length(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}
