//! The spool: one folder that holds what was recorded until its store has it.
//!
//! Each recording is a file and a [record](Record) beside it. A marker file, locked by the module that uses the folder,
//! tells that the disk which should be there is there.

mod ballast;
mod index;
mod lying;
mod marker;
mod record;
mod room;
mod spare;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use index::Index;
pub use lying::Lying;
pub use marker::{Marker, SpoolError, has_marker};
pub use record::{Record, Stage};
#[cfg(test)]
use room::Disk;
pub use room::{Dropped, Full, Limits, Wanted};
use spare::Spares;

use crate::lately::Lately;

const QUARANTINE: &str = "quarantine";
/// Recordings that are read before somebody is told.
const TOLD_EVERY: usize = 256;
/// What containers without a volume lie on.
const OVERLAY: rustix::fs::FsWord = 0x794c_7630;

/// One recording in the spool.
#[derive(Clone, Debug)]
pub struct Held {
    /// What is known of it.
    pub record: Record,
    /// Of its file, now.
    pub bytes: u64,
    /// That it takes of the disk: blocks are allocated ahead of what is written.
    pub room: u64,
    /// A writer or a delivery works on it.
    pub busy: bool,
    /// It was being written by a process that is gone, or its disk refused: to be repaired.
    pub broken: bool,
    /// What is behind that in a broken one was never confirmed by the disk.
    pub durable: Option<u64>,
}

impl Held {
    /// The flow and the output that recorded it.
    pub fn place(&self) -> Place {
        (self.record.flow.clone(), self.record.output.clone())
    }
}

/// A flow and an output.
pub type Place = (String, String);

/// The folder.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    marker: Marker,
    inner: Mutex<Inner>,
    /// Records are changed one at a time.
    changing: Mutex<()>,
    spares: Spares,
    /// What its writers keep open.
    lately: Mutex<Vec<Weak<Mutex<Lately>>>>,
    /// Everything that lay there at the start has been read.
    is_whole: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    index: Index,
    limits: Limits,
    last_id: u64,
    /// Bytes that were deleted while the disk was short, and not written again yet.
    credit: u64,
    #[cfg(test)]
    disk: Option<Disk>,
}

impl Spool {
    /// Opens the spool in `state`, or begins one. What lies in it is not looked at yet: see [`Self::take_in`].
    ///
    /// # Errors
    /// The folder can't be used; the sentence says what to do.
    pub fn begin(state: &Path, limits: Limits) -> Result<(Self, Lying), SpoolError> {
        let dir = state.join("spool");
        let marker = Marker::claim(state, &dir)?;
        if rustix::fs::statfs(&dir).is_ok_and(|disk| disk.f_type == OVERLAY) {
            tracing::warn!(
                "the spool {} is in the container's own layer and is lost with the container: mount a volume \
                 there",
                dir.display()
            );
        }
        let lying = Lying::of(&dir).map_err(|source| SpoolError::Unusable { dir: dir.clone(), source })?;
        let inner = Mutex::new(Inner { limits, last_id: lying.last_id(), ..Inner::default() });
        let (changing, spares, lately, is_whole) = Default::default();
        let spool = Self { dir, marker, inner, changing, spares, lately, is_whole };
        spool.restore_ballast();
        Ok((spool, lying))
    }

    /// With all that lies in it.
    #[cfg(test)]
    pub fn open(state: &Path, limits: Limits) -> Result<Self, SpoolError> {
        let (spool, lying) = Self::begin(state, limits)?;
        spool.take_in(lying, || {});
        Ok(spool)
    }

    /// Reads what lay there when it was opened, oldest first, which takes minutes where that is much. What is recorded
    /// meanwhile goes on. `told` now and then.
    pub fn take_in(&self, lying: Lying, mut told: impl FnMut()) {
        for (count, held) in lying.read(&self.dir).enumerate() {
            self.inner().index.insert(held);
            if count % TOLD_EVERY == 0 {
                told();
            }
        }
        self.is_whole.store(true, Ordering::Relaxed);
        told();
    }

    /// Whether everything that lies there is known.
    pub fn is_whole(&self) -> bool {
        self.is_whole.load(Ordering::Relaxed)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `spool` of a new document.
    pub fn set_limits(&self, limits: Limits) {
        self.inner().limits = limits;
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.inner().limits
    }

    /// Bytes in it, quarantine included.
    pub fn bytes(&self) -> u64 {
        self.inner().index.bytes()
    }

    /// Bytes in the spool, how many files are not in their store yet, and when the first of them began.
    pub fn waiting(&self) -> (u64, usize, Option<SystemTime>) {
        let inner = self.inner();
        let (files, oldest) = inner.index.waiting();
        let oldest = oldest.and_then(|millis| u64::try_from(millis).ok());
        (
            inner.index.bytes(),
            files,
            oldest.map(|millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis)),
        )
    }

    /// What is in it and is meant, in the order of recording.
    pub fn those(&self, mut are_meant: impl FnMut(&Held) -> bool) -> Vec<Held> {
        self.inner().index.all().filter(|held| are_meant(held)).cloned().collect()
    }

    /// Whether there is one such recording.
    pub fn any(&self, is_meant: impl FnMut(&Held) -> bool) -> bool {
        self.inner().index.all().any(is_meant)
    }

    #[cfg(test)]
    fn all(&self) -> Vec<Held> {
        self.those(|_| true)
    }

    /// Shows everything in it, in the order of recording. Nothing else gets on meanwhile.
    pub fn each(&self, show: impl FnMut(&Held)) {
        self.inner().index.all().for_each(show);
    }

    /// One recording.
    pub fn get(&self, id: u64) -> Option<Held> {
        self.inner().index.get(id).cloned()
    }

    /// Recordings that have to be repaired and that nothing works on.
    pub fn broken(&self) -> Vec<Held> {
        self.inner().index.broken().filter(|held| !held.busy).cloned().collect()
    }

    /// Whether a clip of an event is on its way to a store.
    pub fn sends_clip(&self) -> bool {
        self.inner().index.sends_clip()
    }

    /// Whether another recording than `id` goes to that store under that name, or has parts of it there.
    pub fn has_named(&self, target: &str, name: &str, id: u64) -> bool {
        self.any(|held| {
            let record = &held.record;
            record.name.as_deref() == Some(name) && record.target == target && record.id != id
        })
    }

    /// Recordings of an output that are being written.
    pub fn open_of(&self, (flow, output): &Place) -> Vec<Held> {
        let is_of = |held: &&Held| (&held.record.flow, &held.record.output) == (flow, output);
        self.inner().index.open().filter(is_of).cloned().collect()
    }

    /// Outputs that have something ready for their store.
    pub fn places(&self) -> Vec<Place> {
        self.inner().index.places()
    }

    /// The file of a recording.
    pub fn path(&self, record: &Record) -> PathBuf {
        if record.stage == Stage::Quarantined {
            self.dir.join(QUARANTINE).join(record.file_name())
        } else {
            self.dir.join(record.file_name())
        }
    }

    /// For what a writer keeps open of its last minute.
    pub fn lately(&self) -> Arc<Mutex<Lately>> {
        let new = Arc::default();
        let mut all = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(&new));
        new
    }

    /// What to say of a disk that has become read-only. Nothing of the spool keeps it open from here on: it has to be
    /// unmounted, checked and mounted again.
    pub fn read_only(&self) -> SpoolError {
        let all = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        for known in all.iter().filter_map(Weak::upgrade) {
            known.lock().unwrap_or_else(PoisonError::into_inner).forget();
        }
        drop(all);
        self.marker.let_go();
        SpoolError::ReadOnly(self.dir.clone())
    }

    /// Numbers up to that one were given before.
    pub fn continue_behind(&self, id: u64) {
        let mut inner = self.inner();
        inner.last_id = inner.last_id.max(id);
    }

    /// A number for the next recording.
    pub fn next_id(&self) -> u64 {
        let mut inner = self.inner();
        inner.last_id = inner.last_id.saturating_add(1);
        inner.last_id
    }

    /// Enters what is being written from now on. Its `file` is there already; what is in it becomes durable, too.
    ///
    /// # Errors
    /// The disk refuses; there is no record.
    pub fn enter(&self, record: Record, file: &File) -> io::Result<()> {
        // All of it is written before any of it is synced: so the file system notes most of it together. What is lost at a
        // sync is not found out by another one, so all of it goes then.
        let begun = self.tidying(|| record.begin(&self.dir, &self.spares))?;
        let synced = file
            .sync_data()
            .and_then(|()| begun.sync_data())
            .and_then(|()| File::open(&self.dir)?.sync_all());
        if let Err(error) = synced {
            drop(std::fs::remove_file(record.path(&self.dir, "json")));
            if error.kind() == io::ErrorKind::StorageFull {
                self.drop_ballast()?;
            }
            return Err(error);
        }
        let held = Held { bytes: 0, room: 0, busy: true, broken: false, durable: None, record };
        self.inner().index.insert(held);
        Ok(())
    }

    /// Tells how large a file has become, and how much of the disk it takes.
    pub fn grew(&self, id: u64, bytes: u64, room: u64) {
        let mut inner = self.inner();
        let grown = inner.index.change(id, |held| {
            held.bytes = bytes;
            room.saturating_sub(std::mem::replace(&mut held.room, room))
        });
        inner.credit = inner.credit.saturating_sub(grown.unwrap_or(0));
    }

    /// Replaces a record on disk and here.
    ///
    /// # Errors
    /// It can't be written; the one before holds.
    pub fn update(&self, record: Record) -> io::Result<()> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.replace(record)
    }

    /// Changes the record of what is being written. `false`: it is not any more.
    ///
    /// # Errors
    /// It can't be written; the one before holds.
    pub fn amend(&self, id: u64, change: impl FnOnce(&mut Record)) -> io::Result<bool> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.get(id);
        let Some(Held { mut record, broken: false, .. }) = held else { return Ok(false) };
        if record.stage != Stage::Writing {
            return Ok(false);
        }
        change(&mut record);
        self.replace(record).map(|()| true)
    }

    fn replace(&self, record: Record) -> io::Result<()> {
        self.write(&record)?;
        self.inner().index.change(record.id, |held| {
            if record.bytes > 0 {
                (held.bytes, held.room) = (record.bytes, record.bytes);
            }
            held.record = record;
        });
        Ok(())
    }

    /// A writer or a delivery takes or lets go of it. `false`: it is gone or taken.
    pub fn set_busy(&self, id: u64, busy: bool) -> bool {
        let set = |held: &mut Held| {
            let is_taken = busy && held.busy;
            held.busy = busy;
            !is_taken
        };
        self.inner().index.change(id, set).unwrap_or(false)
    }

    /// A file whose disk refused is left to be repaired. What is behind `durable` is in the next one, too.
    pub fn broke(&self, id: u64, durable: u64) {
        self.inner().index.change(id, |held| {
            (held.broken, held.busy, held.durable) = (true, false, Some(durable));
        });
    }

    /// It is whole.
    pub fn mended(&self, id: u64) {
        self.inner().index.change(id, |held| (held.broken, held.busy) = (false, false));
    }

    /// The next recording of a place that is ready for its store and not `put_off`.
    pub fn next_for(
        &self,
        place: &Place,
        newest_first: bool,
        put_off: impl Fn(u64) -> bool,
    ) -> Option<Record> {
        self.inner().index.next_for(place, newest_first, put_off).map(|held| held.record.clone())
    }

    /// Deletes a recording.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove(&self, id: u64) -> io::Result<()> {
        self.take_out(id, |record| std::fs::remove_file(record))
    }

    /// Deletes a recording that its store has. The next one gets the file of its record.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn stored(&self, id: u64) -> io::Result<()> {
        self.take_out(id, |record| self.spares.keep(record))
    }

    fn take_out(&self, id: u64, clear: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
        let Some(held) = self.get(id) else { return Ok(()) };
        // The file first, and for good: a record without one is nothing, a file without a record would be recorded again.
        let path = self.path(&held.record);
        self.tidying(|| gone(std::fs::remove_file(&path)))?;
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        self.tidying(|| gone(clear(&held.record.path(&self.dir, "json"))))?;
        self.inner().index.remove(id);
        Ok(())
    }

    /// Puts a file aside that can't be repaired.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn quarantine(&self, id: u64) -> io::Result<()> {
        let Some(held) = self.get(id) else { return Ok(()) };
        let record = Record { stage: Stage::Quarantined, bytes: held.bytes, ..held.record.clone() };
        std::fs::create_dir_all(self.dir.join(QUARANTINE))?;
        std::fs::rename(self.path(&held.record), self.path(&record))?;
        // There before the record says so, and here no more.
        for dir in [&self.dir.join(QUARANTINE), &self.dir] {
            File::open(dir)?.sync_all()?;
        }
        self.update(record)?;
        self.mended(id);
        Ok(())
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        self.tidying(|| record.write(&self.dir))
    }
}

/// What is gone already need not be deleted.
fn gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests;
