//! An index of the recordings in the spool, with sums that are kept up to date on each change: with a hundred thousand
//! files a commit costs what it costs with ten.

use std::collections::{BTreeMap, BTreeSet};

use super::{Held, Place, Stage};

/// All recordings, sums over them, and the sets that are asked for often.
#[derive(Debug, Default)]
pub struct Index {
    held: BTreeMap<u64, Held>,
    bytes: u64,
    flows: BTreeMap<String, OfFlow>,
    /// Ready for their store, by output.
    ready: BTreeMap<Place, Ready>,
    /// Not in their store yet, with their start in milliseconds of Unix time: ready, being stored, or to be repaired.
    waiting: BTreeSet<(Option<i64>, u64)>,
    broken: BTreeSet<u64>,
    /// Being written.
    open: BTreeSet<u64>,
    /// In quarantine, and may go.
    aside: BTreeSet<u64>,
    /// Clips of events that are on their way.
    clips: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Ready {
    all: BTreeSet<u64>,
    /// Clips of events: they go first.
    clips: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct OfFlow {
    files: usize,
    bytes: u64,
    may_go: BTreeSet<u64>,
}

/// The part of a recording that the sums and sets depend on.
#[derive(PartialEq, Eq)]
struct Counts {
    bytes: u64,
    ready: bool,
    may_go: bool,
    waiting: Option<Option<i64>>,
    broken: bool,
    open: bool,
    aside: bool,
    is_clip: bool,
}

impl Counts {
    fn of(held: &Held) -> Self {
        let is_whole = matches!(held.record.stage, Stage::Complete | Stage::Delivering);
        let untouched = !held.busy && !held.broken;
        Self {
            bytes: held.room,
            ready: is_whole && untouched,
            may_go: untouched && !held.record.protected && is_whole,
            waiting: (is_whole || held.broken).then_some(held.record.start),
            broken: held.broken,
            open: held.record.stage == Stage::Writing && !held.broken,
            aside: held.record.stage == Stage::Quarantined && !held.record.protected && !held.busy,
            is_clip: is_whole && held.busy && held.record.event.is_some(),
        }
    }
}

impl Index {
    /// An index of all of these.
    #[cfg(test)]
    pub fn of(held: BTreeMap<u64, Held>) -> Self {
        let mut index = Self::default();
        held.into_values().for_each(|held| index.insert(held));
        index
    }

    /// One recording.
    pub fn get(&self, id: u64) -> Option<&Held> {
        self.held.get(&id)
    }

    /// All recordings, in the order of recording.
    pub fn all(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// Adds a recording, or replaces it.
    pub fn insert(&mut self, held: Held) {
        self.remove(held.record.id);
        self.count(&held);
        self.held.insert(held.record.id, held);
    }

    /// Removes a recording.
    pub fn remove(&mut self, id: u64) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.discount(&held);
        Some(held)
    }

    /// Changes a recording, except for its flow and output. `None`: it is not there.
    pub fn change<T>(&mut self, id: u64, change: impl FnOnce(&mut Held) -> T) -> Option<T> {
        let held = self.held.get_mut(&id)?;
        let before = Counts::of(held);
        let changed = change(held);
        let after = Counts::of(held);
        let grown = Counts { bytes: before.bytes, ..Counts::of(held) } == before;
        if grown {
            // The frequent case: a file that is being written grows once a second.
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
        if counts.open {
            self.open.insert(id);
        }
        if counts.aside {
            self.aside.insert(id);
        }
        if counts.is_clip {
            self.clips.insert(id);
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
        self.open.remove(&id);
        self.aside.remove(&id);
        self.clips.remove(&id);
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes of one flow.
    pub fn bytes_of(&self, flow: &str) -> u64 {
        self.flows.get(flow).map_or(0, |flow| flow.bytes)
    }

    /// What each flow would hold if all held as much, `flow` among them.
    pub fn share(&self, flow: &str) -> u64 {
        let others = self.flows.keys().filter(|known| *known != flow).count() as u64;
        self.bytes / (others + 1)
    }

    /// The oldest recording that may be deleted, of the flow that holds the most bytes. Where more than `most_aside` bytes
    /// are in quarantine, the oldest of that goes first, and otherwise where nothing else is left.
    pub fn victim(&self, most_aside: u64) -> Option<u64> {
        let aside = self.aside.iter().filter_map(|id| self.held.get(id)).map(|held| held.room);
        let oldest_aside = || self.aside.first().copied();
        if aside.sum::<u64>() > most_aside {
            return oldest_aside();
        }
        let flows = self.flows.values().filter_map(|flow| Some((flow.bytes, *flow.may_go.first()?)));
        let oldest = flows.max_by_key(|(bytes, id)| (*bytes, std::cmp::Reverse(*id))).map(|(_, id)| id);
        oldest.or_else(oldest_aside)
    }

    /// The next recording of an output that is ready for its store and not `put_off`: clips first, oldest first.
    pub fn next_for(
        &self,
        place: &Place,
        newest_first: bool,
        put_off: impl Fn(u64) -> bool,
    ) -> Option<&Held> {
        let ready = self.ready.get(place)?;
        let may = |id: &&u64| !put_off(**id);
        let in_order = || {
            let mut all = ready.all.iter();
            if newest_first { all.rfind(may) } else { all.find(may) }
        };
        self.held.get(ready.clips.iter().find(may).or_else(in_order)?)
    }

    /// Whether a clip of an event is on its way to a store.
    pub fn sends_clip(&self) -> bool {
        !self.clips.is_empty()
    }

    /// Outputs that have something ready for their store.
    pub fn places(&self) -> Vec<Place> {
        self.ready.keys().cloned().collect()
    }

    /// How many recordings are not in their store yet, and when the first of them began, in milliseconds of Unix time.
    pub fn waiting(&self) -> (usize, Option<i64>) {
        let dated = self.waiting.range((Some(i64::MIN), 0)..).next();
        (self.waiting.len(), dated.and_then(|(start, _)| *start))
    }

    /// The recordings that have to be repaired.
    pub fn broken(&self) -> impl Iterator<Item = &Held> {
        self.broken.iter().filter_map(|id| self.held.get(id))
    }

    /// The recordings that are being written.
    pub fn open(&self) -> impl Iterator<Item = &Held> {
        self.open.iter().filter_map(|id| self.held.get(id))
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
        Held { record, bytes, room: bytes, busy: false, broken: false, durable: None }
    }

    /// The index equals one that is built anew.
    fn must_be_right(index: &Index) {
        let anew = Index::of(index.held.iter().map(|(id, held)| (*id, held.clone())).collect());
        assert_eq!(format!("{index:?}"), format!("{anew:?}"));
    }

    #[test]
    fn a_clip_that_is_on_its_way_is_known() {
        let mut index = Index::default();
        let mut clip = held(2, "a", 10);
        clip.record.event = Some("door".into());
        index.insert(held(1, "a", 10));
        index.insert(clip);
        index.change(1, |held| held.busy = true);
        assert!(!index.sends_clip());
        index.change(2, |held| held.busy = true);
        assert!(index.sends_clip());
        index.remove(2);
        assert!(!index.sends_clip());
    }

    #[test]
    fn sums_and_sets_stay_right_through_any_change() {
        let mut index = Index::default();
        for id in 0..20 {
            index.insert(held(id, ["a", "b", "c"][id as usize % 3], id * 10));
            must_be_right(&index);
        }
        assert_eq!(index.bytes(), 1900);
        assert_eq!(index.waiting(), (20, Some(981)));
        for id in (0..20).step_by(2) {
            index.change(id, |held| held.busy = true);
            index.change(id, |held| held.room += 7);
            must_be_right(&index);
            index.change(id, |held| held.broken = id % 4 == 0);
            index.change(id, |held| held.record.stage = Stage::Writing);
            must_be_right(&index);
        }
        let ids = |held: &mut dyn Iterator<Item = &Held>| held.map(|held| held.record.id).collect::<Vec<_>>();
        assert_eq!(ids(&mut index.broken()), [0, 4, 8, 12, 16]);
        assert_eq!(ids(&mut index.open()), [2, 6, 10, 14, 18]);
        for id in 0..20 {
            index.remove(id);
            must_be_right(&index);
        }
        assert_eq!((index.bytes(), index.waiting(), index.victim(u64::MAX)), (0, (0, None), None));
    }

    #[test]
    fn what_is_in_quarantine_is_the_last_to_go() {
        let mut index = Index::default();
        (0..3).for_each(|id| index.insert(held(id, "a", 10)));
        index.change(0, |held| held.record.stage = Stage::Quarantined);
        must_be_right(&index);
        assert_eq!((index.victim(9), index.victim(10)), (Some(0), Some(1)));
        for id in [1, 2, 0] {
            assert_eq!(index.victim(u64::MAX), Some(id));
            index.remove(id);
        }
        assert_eq!(index.victim(u64::MAX), None);
    }

    #[test]
    fn no_operation_walks_a_hundred_thousand_recordings() {
        let mut index = Index::default();
        for id in 0..100_000 {
            index.insert(held(id, &format!("flow{}", id % 10), 100));
        }
        // A walk in each of these turns would take hours.
        for id in 0..100_000 {
            index.change(id, |held| held.room += 1);
            assert!(index.bytes() > 0 && index.victim(u64::MAX).is_some());
            assert_eq!(index.waiting().0, 100_000);
            assert!(index.next_for(&("flow3".into(), "out".into()), false, |_| false).is_some());
        }
    }
}
