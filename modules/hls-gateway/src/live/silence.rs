//! Time in which nothing comes, told piece by piece.

use std::time::{Duration, Instant, SystemTime};

use super::dates::nanos;
use super::shelf::Shelf;
use super::window::{Window, length};

/// See the module's text.
pub(super) struct Silence {
    /// When the next piece is over.
    pub(super) next: Instant,
    /// Where it begins.
    utc: Option<SystemTime>,
}

impl Silence {
    /// Behind what is listed.
    pub(super) fn behind(window: &Window, segment: Duration, now: Instant) -> Self {
        let utc = window.segments.back().and_then(|last| last.utc?.checked_add(length(last.duration)));
        Self { next: now + length(piece(window, segment)), utc }
    }

    /// Leaves out what nobody can ask for any more.
    pub(super) fn skip(&mut self, most: Duration, now: Instant) {
        if now.saturating_duration_since(self.next) > most {
            self.next = now;
        }
    }

    /// Adds the next piece. `true`: the segment is long enough with it.
    pub(super) fn tell_piece(&mut self, window: &mut Window, segment: Duration, shelf: &mut Shelf) -> bool {
        let piece = piece(window, segment);
        window.add_gap(piece, self.utc, shelf);
        let length = length(piece);
        self.next += length;
        self.utc = self.utc.and_then(|utc| utc.checked_add(length));
        let grown = window.open.as_ref().map_or(0, |open| open.duration);
        grown.saturating_add(piece / 2) >= nanos(segment)
    }
}

/// A part, or a segment where there are no parts, in nanoseconds.
fn piece(window: &Window, segment: Duration) -> i64 {
    window.numbers.part.map_or(nanos(segment), |part| part.nominal).max(1)
}
