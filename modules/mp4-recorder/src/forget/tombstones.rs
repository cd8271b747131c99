//! What `deleteRecordings` deleted stays deleted, whenever it would have arrived in its store.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::spool::{Place, Record, Spool, Stage};
use crate::stored::Line;

const FILE: &str = "tombstones";
/// Far more than there ever are.
const MAX_BYTES: u64 = 1 << 20;

/// What was deleted stays deleted: recordings of that time which were there then are not stored later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tombstone {
    /// Of which flow.
    pub flow: String,
    /// Milliseconds of Unix time.
    pub from: i64,
    /// Not included.
    pub to: i64,
    /// The last recording that there was.
    pub last: u64,
}

impl Tombstone {
    fn covers(&self, flow: &str, id: u64, start: i64, milliseconds: u64) -> bool {
        let end = start.saturating_add(i64::try_from(milliseconds).unwrap_or(i64::MAX));
        self.flow == flow && id <= self.last && start < self.to && end >= self.from
    }

    /// Whether it is of that time.
    pub fn covers_record(&self, record: &Record) -> bool {
        // What is being written has no length yet: it ends after now.
        let length = if record.stage == Stage::Writing { u64::MAX } else { record.milliseconds };
        record.start.is_some_and(|start| self.covers(&record.flow, record.id, start, length))
    }

    /// Whether what was stored is of that time.
    pub fn covers_line(&self, place: &Place, line: &Line) -> bool {
        self.covers(&place.0, line.id, line.start, line.milliseconds)
    }
}

/// All of them that still matter.
#[derive(Debug, Default)]
pub struct Tombstones {
    all: Mutex<Vec<Tombstone>>,
    /// They are changed one at a time.
    changing: Mutex<()>,
}

impl Tombstones {
    /// Of a spool that was opened. Its next recording is none of those that were deleted, also where it is empty now.
    ///
    /// # Errors
    /// They can't be read.
    pub fn load(&self, spool: &Spool) -> io::Result<()> {
        let mut text = Vec::new();
        match File::open(spool.dir().join(FILE)) {
            Ok(file) => file.take(MAX_BYTES).read_to_end(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let lines = text.split(|byte| *byte == b'\n');
        let stones: Vec<Tombstone> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        stones.iter().for_each(|stone| spool.continue_behind(stone.last));
        *self.locked() = stones;
        Ok(())
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Tombstone>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a recording was deleted before it was stored.
    pub fn cover(&self, record: &Record) -> bool {
        self.locked().iter().any(|stone| stone.covers_record(record))
    }

    /// All of them, as they are now.
    pub fn all(&self) -> Vec<Tombstone> {
        self.locked().clone()
    }

    /// Adds one, durable when this returns.
    ///
    /// # Errors
    /// The disk refuses: what there was holds.
    pub fn add(&self, spool: &Spool, stone: Tombstone) -> io::Result<()> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stones = self.all();
        stones.push(stone);
        self.write(spool, stones)
    }

    /// Takes one away that no recording of the spool is under.
    ///
    /// # Errors
    /// The disk refuses: it stays.
    pub fn drop_if_over(&self, spool: &Spool, stone: &Tombstone) -> io::Result<()> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // A recording whose clock was not set may turn out to be of that time.
        let is_under = |record: &Record| {
            let is_dated = record.start.is_some() && !record.unsure;
            stone.covers_record(record) || (record.flow == stone.flow && record.id <= stone.last && !is_dated)
        };
        if spool.any(|held| is_under(&held.record)) {
            return Ok(());
        }
        let mut stones = self.all();
        stones.retain(|other| other != stone);
        self.write(spool, stones)
    }

    fn write(&self, spool: &Spool, stones: Vec<Tombstone>) -> io::Result<()> {
        let (path, aside) = (spool.dir().join(FILE), spool.dir().join("tombstones.new"));
        let mut file = File::create(&aside)?;
        for stone in &stones {
            serde_json::to_writer(&mut file, stone)?;
            file.write_all(b"\n")?;
        }
        file.sync_all()?;
        std::fs::rename(&aside, &path)?;
        File::open(spool.dir())?.sync_all()?;
        *self.locked() = stones;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stone() -> Tombstone {
        Tombstone { flow: "cam".into(), from: 1000, to: 2000, last: 5 }
    }

    #[test]
    fn what_overlaps_and_was_there_is_under_the_stone_and_nothing_later() {
        let stone = stone();
        assert!(stone.covers("cam", 5, 500, 600) && stone.covers("cam", 1, 1999, 1));
        assert!(!stone.covers("cam", 5, 500, 400) && !stone.covers("cam", 5, 2000, 10));
        assert!(!stone.covers("cam", 6, 1500, 10) && !stone.covers("gate", 5, 1500, 10));
    }

    #[test]
    fn a_spool_that_was_emptied_gives_no_number_that_a_stone_covers() {
        let state = tempfile::tempdir().unwrap();
        let spool = Spool::open(state.path(), crate::spool::Limits::of(&serde_json::Map::new())).unwrap();
        let stones = Tombstones::default();
        stones.add(&spool, Tombstone { last: 700, ..stone() }).unwrap();
        drop(spool);
        let spool = Spool::open(state.path(), crate::spool::Limits::of(&serde_json::Map::new())).unwrap();
        stones.load(&spool).unwrap();
        assert_eq!(spool.next_id(), 701);
    }

    #[test]
    fn a_stone_stays_as_long_as_a_recording_may_be_under_it() {
        let state = tempfile::tempdir().unwrap();
        let spool = Spool::open(state.path(), crate::spool::Limits::of(&serde_json::Map::new())).unwrap();
        let (stones, stone) = (Tombstones::default(), stone());
        stones.add(&spool, stone.clone()).unwrap();
        let mut record = Record::of_file_name("000000000003.cam.disk.mp4").unwrap();
        record.stage = Stage::Complete;
        // Nobody knows when it was.
        spool.enter(record.clone(), &File::open(spool.dir()).unwrap()).unwrap();
        stones.drop_if_over(&spool, &stone).unwrap();
        assert_eq!(stones.all(), std::slice::from_ref(&stone));
        // It was at another time.
        (record.start, record.unsure) = (Some(5000), false);
        spool.update(record).unwrap();
        stones.drop_if_over(&spool, &stone).unwrap();
        assert_eq!(stones.all(), []);
        let again = Tombstones::default();
        again.load(&spool).unwrap();
        assert_eq!(again.all(), []);
    }
}
