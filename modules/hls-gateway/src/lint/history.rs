//! What holds from one version of a playlist to the next.

use std::collections::{BTreeMap, VecDeque};

use super::check::PRINTED;
use super::playlist::{Part, Playlist, Segment};
use super::rule::{self, Fault, Rule};

/// Segments whose identity is remembered.
const REMEMBERED: usize = 20_000;

/// All versions of one media playlist so far.
#[derive(Debug, Default)]
pub(super) struct History {
    segments: BTreeMap<u64, Segment>,
    /// Parts of the segment that was open, by its number.
    open: Option<(u64, Vec<Part>)>,
    hints: VecDeque<(u64, usize, String)>,
    constants: Option<[Option<f64>; 4]>,
    first: u64,
    /// The newest segment and how many parts are behind it, and when that was first seen.
    newest: (u64, usize),
    since: f64,
    was_stale: bool,
    ended: bool,
}

/// A path without its query: two addresses of one thing.
fn path(uri: &str) -> &str {
    uri.split(['?', '#']).next().unwrap_or(uri)
}

impl History {
    /// Takes a version that came at `now`, in seconds of the linter's own clock.
    pub(super) fn take(&mut self, list: &Playlist, now: f64) -> Vec<Fault> {
        let mut faults = Vec::new();
        let is_first = self.constants.is_none();
        self.constants(list, &mut faults);
        if !is_first {
            self.identity(list, &mut faults);
            self.parts(list, &mut faults);
            self.window(list, &mut faults);
        }
        self.dates(list, &mut faults);
        self.life(list, now, &mut faults);
        for segment in &list.segments {
            self.segments.insert(segment.number, segment.clone());
        }
        while self.segments.len() > REMEMBERED {
            self.segments.pop_first();
        }
        self.open = Some((list.next_number(), list.parts.clone()));
        if let Some(hint) = &list.hint {
            self.hints.push_back((list.next_number(), list.parts.len(), path(hint).to_owned()));
            if self.hints.len() > 64 {
                self.hints.pop_front();
            }
        }
        self.first = self.first.max(list.sequence);
        self.ended |= list.ended;
        faults
    }

    fn constants(&mut self, list: &Playlist, faults: &mut Vec<Fault>) {
        let now = [list.target, list.part_target, list.control("PART-HOLD-BACK"), list.control("HOLD-BACK")];
        let rules: [&'static Rule; 4] = [
            &rule::TARGET_CHANGED,
            &rule::PART_TARGET_CHANGED,
            &rule::PART_HOLD_BACK_CHANGED,
            &rule::HOLD_BACK_CHANGED,
        ];
        let before = self.constants.replace(now).unwrap_or(now);
        for ((rule, was), is) in rules.into_iter().zip(before).zip(now) {
            if was != is {
                faults.push(Fault::new(rule, format!("{was:?} became {is:?}")));
            }
        }
    }

    fn identity(&self, list: &Playlist, faults: &mut Vec<Fault>) {
        let mut add = |rule: &'static Rule, detail: String| faults.push(Fault::new(rule, detail));
        if list.sequence < self.first || list.next_number() < self.newest.0 {
            let (first, next) = (list.sequence, list.next_number());
            add(&rule::WENT_BACK, format!("{first} to {next} after {} to {}", self.first, self.newest.0));
        }
        if self.ended && (!list.ended || list.next_number() != self.newest.0) {
            add(&rule::AFTER_END, "it had ended".into());
        }
        for segment in &list.segments {
            let number = segment.number;
            let Some(known) = self.segments.get(&number) else { continue };
            if path(&known.uri) != path(&segment.uri) {
                add(&rule::URI_CHANGED, format!("{number}: {} became {}", known.uri, segment.uri));
            }
            if known.discontinuity != segment.discontinuity && list.skipped.is_none() {
                let (was, is) = (known.discontinuity, segment.discontinuity);
                add(&rule::NUMBER_CHANGED, format!("segment {number}: {was} became {is}"));
            }
            if (known.duration - segment.duration).abs() > PRINTED {
                let (was, is) = (known.duration, segment.duration);
                add(&rule::DURATION_CHANGED, format!("segment {number}: {was} s became {is} s"));
            }
            for (was, is) in known.parts.iter().zip(&segment.parts) {
                part_changed(number, was, is, faults_of(&mut add));
            }
        }
        let pairs = list.segments.iter().zip(list.segments.iter().skip(1));
        for (before, after) in pairs.filter(|(before, after)| before.map != after.map && !after.begins) {
            let (was, is) = (&before.map, &after.map);
            add(&rule::MAP_CHANGED, format!("segment {}: {was:?} became {is:?}", after.number));
        }
    }

    /// RFC 8216bis §6.2.2: nothing is removed while less than three target durations would be left. A stream that
    /// just began is shorter.
    fn window(&self, list: &Playlist, faults: &mut Vec<Fault>) {
        let target = list.target.unwrap_or_default();
        let window: f64 = list.segments.iter().map(|segment| segment.duration).sum();
        let has_slid = list.sequence > self.first && list.skipped.is_none();
        if list.sequence > self.first && list.whole {
            faults.push(Fault::new(&rule::REMOVED_OF_WHOLE, format!("{} became the first", list.sequence)));
        }
        if has_slid && !list.ended && window + PRINTED < 3.0 * target {
            faults.push(Fault::new(&rule::WINDOW, format!("{window:.3} s, target {target} s")));
        }
    }

    fn parts(&mut self, list: &Playlist, faults: &mut Vec<Fault>) {
        let mut add = |rule: &'static Rule, detail: String| faults.push(Fault::new(rule, detail));
        let of = |number: u64| match list.segments.iter().find(|segment| segment.number == number) {
            Some(segment) => Some(&segment.parts),
            None => (number == list.next_number()).then_some(&list.parts),
        };
        if let Some((number, known)) = &self.open
            && let Some(now) = of(*number).filter(|now| !now.is_empty())
        {
            for (was, is) in known.iter().zip(now) {
                part_changed(*number, was, is, faults_of(&mut add));
            }
        }
        self.hints.retain(|(number, index, hint)| {
            let is_finished = list.segments.iter().any(|segment| segment.number == *number);
            // A segment that ended makes the hint one of the next.
            let came = of(*number).and_then(|parts| parts.get(*index)).or_else(|| {
                is_finished.then(|| of(number.saturating_add(1))).flatten().and_then(|parts| parts.first())
            });
            let Some(came) = came else { return !is_finished && *number >= list.sequence };
            if path(&came.uri) != hint {
                add(&rule::HINT_WRONG, format!("{hint} was hinted, {} came", came.uri));
            }
            false
        });
    }

    fn dates(&self, list: &Playlist, faults: &mut Vec<Fault>) {
        let pairs = list.segments.iter().zip(list.segments.iter().skip(1));
        for (before, after) in pairs.filter(|(_, after)| !after.begins) {
            let Some((was, is)) = before.date.zip(after.date) else { continue };
            let off = is - was - before.duration;
            if off.abs() > list.target.unwrap_or(1.0) / 2.0 {
                let number = after.number;
                faults.push(Fault::new(&rule::DATE_JUMP, format!("segment {number} is {off:.3} s off")));
            }
        }
        for segment in &list.segments {
            let known = self.segments.get(&segment.number).and_then(|known| known.date);
            if let Some((was, is)) = known.zip(segment.date)
                && (was - is).abs() > 0.0015
            {
                let number = segment.number;
                let off = is - was;
                faults.push(Fault::new(
                    &rule::DATE_JUMP,
                    format!("the date of segment {number} moved {off:.3} s"),
                ));
            }
        }
    }

    fn life(&mut self, list: &Playlist, now: f64, faults: &mut Vec<Fault>) {
        let newest = (list.next_number(), list.parts.len());
        if newest.0 > self.newest.0 || newest.1 > self.newest.1 && newest.0 == self.newest.0 {
            if newest.0 > self.newest.0 {
                self.since = now;
                self.was_stale = false;
            }
            self.newest = newest;
        }
        let target = list.target.unwrap_or(f64::INFINITY);
        let silent = now - self.since;
        if silent > 1.5 * target && !list.ended && !self.was_stale {
            self.was_stale = true;
            let detail = format!("no new segment for {silent:.1} s, target {target} s");
            faults.push(Fault::new(&rule::STALE, detail));
        }
    }

    /// How many parts a finished segment has.
    pub(super) fn parts_of(&self, number: u64) -> Option<usize> {
        self.segments.get(&number).map(|segment| segment.parts.len())
    }

    /// Whether a delta update continues what is known: what it skips was there.
    pub(super) fn delta(&self, list: &Playlist) -> Option<Fault> {
        let skipped = list.skipped?;
        let missing = (list.sequence..list.sequence.saturating_add(skipped))
            .find(|number| !self.segments.contains_key(number));
        let wrong = list.segments.iter().find(|segment| {
            self.segments.get(&segment.number).is_some_and(|known| path(&known.uri) != path(&segment.uri))
        });
        match (missing, wrong) {
            (Some(number), _) => {
                Some(Fault::new(&rule::SKIP_WRONG, format!("segment {number} was never listed")))
            }
            (_, Some(segment)) => {
                let (number, uri) = (segment.number, &segment.uri);
                Some(Fault::new(&rule::SKIP_WRONG, format!("segment {number} is {uri} in the delta")))
            }
            _ => None,
        }
    }
}

fn faults_of<'a>(add: &'a mut impl FnMut(&'static Rule, String)) -> impl FnMut(String) + 'a {
    |detail| add(&rule::PART_CHANGED, detail)
}

fn part_changed(number: u64, was: &Part, is: &Part, mut add: impl FnMut(String)) {
    if path(&was.uri) != path(&is.uri) || (was.duration - is.duration).abs() > PRINTED {
        add(format!(
            "segment {number}: {} of {} s became {} of {} s",
            was.uri, was.duration, is.uri, is.duration
        ));
    }
}
