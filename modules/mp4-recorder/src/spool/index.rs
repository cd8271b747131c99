//! What the spool holds, counted as it changes: a spool of a hundred thousand files costs a writer no more than one of ten.

use std::collections::{BTreeMap, BTreeSet};

use super::{Held, Place, Stage};

/// All recordings, and sums over them.
#[derive(Debug, Default)]
pub struct Index {
    held: BTreeMap<u64, Held>,
    bytes: u64,
    flows: BTreeMap<String, OfFlow>,
    /// Whole and untouched, by their output.
    ready: BTreeMap<Place, Ready>,
    /// Wait for their store, or for repair and then their store; with their starts.
    waiting: BTreeSet<(Option<i64>, u64)>,
    broken: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Ready {
    all: BTreeSet<u64>,
    /// Those that somebody waits for.
    clips: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct OfFlow {
    files: usize,
    bytes: u64,
    may_go: BTreeSet<u64>,
}

/// What a recording counts as.
#[derive(PartialEq, Eq)]
struct Counts {
    bytes: u64,
    ready: bool,
    may_go: bool,
    waiting: Option<Option<i64>>,
    broken: bool,
}

impl Counts {
    fn of(held: &Held) -> Self {
        let is_whole = matches!(held.record.stage, Stage::Complete | Stage::Delivering);
        let untouched = !held.busy && !held.broken;
        Self {
            bytes: held.bytes,
            ready: is_whole && untouched,
            may_go: untouched && !held.record.protected && held.record.stage != Stage::Writing,
            waiting: (is_whole || held.broken).then_some(held.record.start),
            broken: held.broken,
        }
    }
}

impl Index {
    /// Of what was found.
    pub fn of(held: BTreeMap<u64, Held>) -> Self {
        let mut index = Self::default();
        held.into_values().for_each(|held| index.insert(held));
        index
    }

    /// One of them.
    pub fn get(&self, id: u64) -> Option<&Held> {
        self.held.get(&id)
    }

    /// All of them, in the order of recording.
    pub fn all(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// Adds one.
    pub fn insert(&mut self, held: Held) {
        self.remove(held.record.id);
        self.count(&held);
        self.held.insert(held.record.id, held);
    }

    /// Takes one out.
    pub fn remove(&mut self, id: u64) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.discount(&held);
        Some(held)
    }

    /// Changes one, but for whose it is; `None`: it is gone.
    pub fn change<T>(&mut self, id: u64, change: impl FnOnce(&mut Held) -> T) -> Option<T> {
        let held = self.held.get_mut(&id)?;
        let before = Counts::of(held);
        let changed = change(held);
        let after = Counts::of(held);
        let grown = Counts { bytes: before.bytes, ..Counts::of(held) } == before;
        if grown {
            // What is being written grows each second.
            self.bytes = self.bytes.saturating_sub(before.bytes).saturating_add(after.bytes);
            if let Some(flow) = self.flows.get_mut(&held.record.flow) {
                flow.bytes = flow.bytes.saturating_sub(before.bytes).saturating_add(after.bytes);
            }
        } else {
            let held = held.clone();
            self.discount_as(&held, &before);
            self.count(&held);
        }
        Some(changed)
    }

    fn count(&mut self, held: &Held) {
        let (id, counts) = (held.record.id, Counts::of(held));
        self.bytes = self.bytes.saturating_add(counts.bytes);
        let flow = self.flows.entry(held.record.flow.clone()).or_default();
        flow.files += 1;
        flow.bytes = flow.bytes.saturating_add(counts.bytes);
        if counts.may_go {
            flow.may_go.insert(id);
        }
        if counts.ready {
            let ready = self.ready.entry(held.place()).or_default();
            ready.all.insert(id);
            if held.record.event.is_some() {
                ready.clips.insert(id);
            }
        }
        if let Some(start) = counts.waiting {
            self.waiting.insert((start, id));
        }
        if counts.broken {
            self.broken.insert(id);
        }
    }

    fn discount(&mut self, held: &Held) {
        self.discount_as(held, &Counts::of(held));
    }

    fn discount_as(&mut self, held: &Held, counts: &Counts) {
        let id = held.record.id;
        self.bytes = self.bytes.saturating_sub(counts.bytes);
        if let Some(flow) = self.flows.get_mut(&held.record.flow) {
            flow.files -= 1;
            flow.bytes = flow.bytes.saturating_sub(counts.bytes);
            flow.may_go.remove(&id);
            if flow.files == 0 {
                self.flows.remove(&held.record.flow);
            }
        }
        if counts.ready {
            let place = held.place();
            if let Some(ready) = self.ready.get_mut(&place) {
                ready.all.remove(&id);
                ready.clips.remove(&id);
                if ready.all.is_empty() {
                    self.ready.remove(&place);
                }
            }
        }
        if let Some(start) = counts.waiting {
            self.waiting.remove(&(start, id));
        }
        self.broken.remove(&id);
    }

    /// Of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The oldest recording that may go, of the flow that holds most.
    pub fn victim(&self) -> Option<u64> {
        let flows = self.flows.values().filter_map(|flow| Some((flow.bytes, *flow.may_go.first()?)));
        flows.max_by_key(|(bytes, id)| (*bytes, std::cmp::Reverse(*id))).map(|(_, id)| id)
    }

    /// The next one of a place that is ready for its store: clips first, the oldest of them.
    pub fn next_for(&self, place: &Place, newest_first: bool) -> Option<&Held> {
        let ready = self.ready.get(place)?;
        let in_order = if newest_first { ready.all.last() } else { ready.all.first() };
        self.held.get(ready.clips.first().or(in_order)?)
    }

    /// Places that have something ready for their store.
    pub fn places(&self) -> Vec<Place> {
        self.ready.keys().cloned().collect()
    }

    /// How many wait, and when the first of them began, in milliseconds of Unix time.
    pub fn waiting(&self) -> (usize, Option<i64>) {
        let dated = self.waiting.range((Some(i64::MIN), 0)..).next();
        (self.waiting.len(), dated.and_then(|(start, _)| *start))
    }

    /// To be repaired.
    pub fn broken(&self) -> Vec<u64> {
        self.broken.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Record;

    fn held(id: u64, flow: &str, bytes: u64) -> Held {
        let mut record = Record::of_file_name(&format!("{id:012x}.{flow}.out.mp4")).unwrap();
        record.stage = Stage::Complete;
        record.start = Some(1000 - i64::try_from(id).unwrap());
        Held { record, bytes, busy: false, broken: false }
    }

    /// Everything that is counted, counted anew.
    fn must_be_right(index: &Index) {
        let anew = Index::of(index.held.iter().map(|(id, held)| (*id, held.clone())).collect());
        assert_eq!(format!("{index:?}"), format!("{anew:?}"));
    }

    #[test]
    fn what_is_counted_is_what_is_there_whatever_changes() {
        let mut index = Index::default();
        for id in 0..20 {
            index.insert(held(id, ["a", "b", "c"][id as usize % 3], id * 10));
            must_be_right(&index);
        }
        assert_eq!(index.bytes(), 1900);
        assert_eq!(index.waiting(), (20, Some(981)));
        for id in (0..20).step_by(2) {
            index.change(id, |held| held.busy = true);
            index.change(id, |held| held.bytes += 7);
            must_be_right(&index);
            index.change(id, |held| held.broken = id % 4 == 0);
            index.change(id, |held| held.record.stage = Stage::Writing);
            must_be_right(&index);
        }
        assert_eq!(index.broken(), [0, 4, 8, 12, 16]);
        for id in 0..20 {
            index.remove(id);
            must_be_right(&index);
        }
        assert_eq!((index.bytes(), index.waiting(), index.victim()), (0, (0, None), None));
    }

    #[test]
    fn a_hundred_thousand_recordings_are_not_walked() {
        let mut index = Index::default();
        for id in 0..100_000 {
            index.insert(held(id, &format!("flow{}", id % 10), 100));
        }
        // As many turns as a walk each would not end within hours.
        for id in 0..100_000 {
            index.change(id, |held| held.bytes += 1);
            assert!(index.bytes() > 0 && index.victim().is_some());
            assert_eq!(index.waiting().0, 100_000);
            assert!(index.next_for(&("flow3".into(), "out".into()), false).is_some());
        }
    }
}
