//! A playlist that goes on: after a restart, with another configuration, or until another one takes its place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Cutter, Measuring, Memory, Packager, Shaped, Shelf, Window};
use crate::live::attic::Restored;
use crate::live::dates::nanos;

/// Numbers that may have been used and are not known any more: a playlist with more is not gone on with.
const MOST_LOST: u64 = 64;

impl<M: Memory> Packager<M> {
    /// Lists again what an earlier process has listed. The publisher is away until it comes.
    pub(crate) fn restore(&mut self, restored: Restored, shelf: &mut Shelf, now: Instant) {
        let Some((numbers, name)) = self.memory.promised(self.shaped) else { return };
        if self.memory.has_ended(self.shaped) {
            return;
        }
        let Some((first, last)) = restored.records.first().zip(restored.records.last()) else { return };
        let longest = numbers.longest_segment();
        if name != restored.name
            || restored.records.iter().any(|record| record.duration > longest)
            || restored.reserved > last.number.saturating_add(MOST_LOST)
        {
            return;
        }
        let mut window = Window::new(numbers, self.shaped, first.number, first.breaks, name);
        window.restore(restored, shelf, now);
        self.memory.used(window.next_segment, window.last_discontinuity());
        self.window = Some(window);
        self.shown = self.memory.looked(self.shaped).unwrap_or_default();
        self.kept = self.shown.clone();
        self.fall_silent(now);
        self.changed = true;
    }

    /// Whether the playlist can be `shaped` and stay the same: none of the numbers that it has promised is another.
    pub(crate) fn can_be(&self, shaped: Shaped) -> bool {
        let gop = self.cutter.as_ref().map_or(0, Cutter::gop);
        let gop = Duration::from_nanos(u64::try_from(gop).unwrap_or(0));
        match &self.window {
            Some(window) if !window.ended => window.numbers.keep(self.shaped, shaped, gop),
            _ => self.shaped.variant == shaped.variant,
        }
    }

    /// From now on with another configuration; the playlist is the same, see [`can_be`](Self::can_be). The stream is read
    /// anew from its last sync frame on, or (`is_same` is false) it is another one.
    pub(crate) fn resume(&mut self, shaped: Shaped, is_same: bool, shelf: &mut Shelf, now: Instant) {
        self.shaped = shaped;
        if let Some(window) = self.window.as_mut().filter(|window| !window.ended) {
            window.shaped = shaped;
            self.memory.promise(shaped, window.numbers, &window.name);
        }
        if let Some(cutter) = &mut self.cutter {
            cutter.segments_last(nanos(shaped.segment));
        }
        self.changed = true;
        self.measuring = Measuring::default();
        self.rejoining = is_same.then_some(false);
        if !is_same {
            self.interrupt(shelf, now);
            (self.tracks, self.muxer, self.shift, self.newest) = (Arc::default(), None, None, [None; 2]);
            self.fall_silent(now);
        }
    }

    /// Another playlist is about to take the place of this one. Up to then it goes on with gaps: players of it ask again and
    /// again for something new.
    pub(crate) fn retire(&mut self, shelf: &mut Shelf, now: Instant) {
        self.interrupt(shelf, now);
        self.fall_silent(now);
    }

    /// Whether there is a playlist: its numbers are taken.
    pub(crate) const fn has_begun(&self) -> bool {
        self.window.is_some()
    }
}
