//! What the spool knows of one recording: a small file beside it. A record that is lost costs that record: its file says
//! most of it.
//!
//! The file has two slots, each with a record or spaces. What changes is written over the older one, and the newest whose
//! checksum is right holds: so a change asks nothing of the file system but to write these bytes. A slot is a line with the
//! checksum and the number of the change, and a line of JSON. Where a record outgrows its slot, or an earlier version wrote it
//! (one checksum, one record), a whole file is written aside and renamed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::spare::Spares;
use crate::azure::Upload;

/// Far more than two records have.
const MAX_BYTES: u64 = 256 * 1024;
/// What a slot takes at least: a write inside a page of the page cache would write all of it.
const LEAST_SLOT: usize = 4096;

/// How far a recording is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Its file grows.
    Writing,
    /// Whole, and waits for the store.
    Complete,
    /// It goes to the store under `name`, and may be there already.
    Delivering,
    /// It can't be repaired: kept for somebody to look at.
    Quarantined,
}

/// One recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// In the order of recording.
    pub id: u64,
    /// The flow's name.
    pub flow: String,
    /// The output's name.
    pub output: String,
    /// The name of the instance, on a pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// How far it is.
    pub stage: Stage,
    /// The store's URL; empty where the record was lost.
    pub target: String,
    /// `name` with everything but times filled in.
    pub template: String,
    /// The name in the store, once it was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Milliseconds of Unix time of its first frame; `None`: the clock was not set.
    pub start: Option<i64>,
    /// Nobody had said that the clock was right when it began.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsure: bool,
    /// Which start of the machine it was made in.
    pub boot: String,
    /// Milliseconds from that start to its first frame.
    pub since_boot: u64,
    /// Of its file, when it was whole.
    pub bytes: u64,
    /// From its first frame to the end of its last, when it was whole.
    pub milliseconds: u64,
    /// As RFC 6381 writes them.
    pub codecs: Vec<String>,
    /// Never deleted to make room.
    #[serde(default)]
    pub protected: bool,
    /// The event whose clip it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// An upload of it that was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
    /// Random digits that its partial file in a folder has in its name: recorders that share a folder count alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
}

impl Record {
    /// Digits for the partial file of one recording.
    pub fn new_part() -> String {
        format!("{:016x}", rand::rng().random::<u64>())
    }

    /// The digits of this one's. Earlier versions took its number.
    pub fn part(&self) -> String {
        self.part.clone().unwrap_or_else(|| format!("{:012x}", self.id))
    }

    /// UTC of the first frame.
    pub fn start(&self) -> Option<SystemTime> {
        let millis = u64::try_from(self.start?).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
    }

    /// Says when the first frame was.
    pub fn set_start(&mut self, start: SystemTime) {
        let since = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.start = i64::try_from(since.as_millis()).ok();
    }

    /// `ID.FLOW.OUTPUT.mp4`, and the instance before the extension where there is one: enough to begin again without
    /// a record.
    pub fn file_name(&self) -> String {
        let instance = self.instance.as_ref().map(|name| format!(".{name}")).unwrap_or_default();
        format!("{:012x}.{}.{}{instance}.mp4", self.id, self.flow, self.output)
    }

    /// What a file's name says, where the record is lost.
    pub fn of_file_name(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".mp4")?;
        let mut fields = stem.splitn(4, '.');
        let id = u64::from_str_radix(fields.next()?, 16).ok()?;
        let (flow, output) = (fields.next()?, fields.next()?);
        if flow.is_empty() || output.is_empty() {
            return None;
        }
        let record = Self {
            id,
            flow: flow.to_owned(),
            output: output.to_owned(),
            instance: fields.next().map(str::to_owned),
            stage: Stage::Writing,
            target: String::new(),
            template: String::new(),
            name: None,
            start: None,
            unsure: true,
            boot: String::new(),
            since_boot: 0,
            bytes: 0,
            milliseconds: 0,
            codecs: Vec::new(),
            protected: false,
            event: None,
            upload: None,
            part: None,
        };
        (record.file_name() == name).then_some(record)
    }

    /// Writes the first record of a file that has just begun. It has to be synced, and so has `dir`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn begin(&self, dir: &Path, spares: &Spares) -> io::Result<File> {
        let path = self.path(dir, "json");
        if spares.take(&path)
            && let Ok(Some(file)) = self.write_over(&path)
        {
            return Ok(file);
        }
        // Nobody else ever had its number: nothing is there that has to stay until this is whole.
        self.put(&path)
    }

    /// Writes it into `dir`; it is there, whole, when this returns.
    ///
    /// # Errors
    /// What the disk says; then an earlier record is still there.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let (aside, path) = (self.path(dir, "new"), self.path(dir, "json"));
        // A disk that refused may believe since that it has what it has not: all is written anew.
        let written = self.write_over(&path);
        if let Ok(Some(file)) = written
            && file.sync_data().is_ok()
        {
            return Ok(());
        }
        self.put(&aside)?.sync_all()?;
        std::fs::rename(&aside, path)?;
        File::open(dir)?.sync_all()
    }

    /// Over the older slot, unsynced. `None`: there is none that it fits.
    fn write_over(&self, path: &Path) -> io::Result<Option<File>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let content = content(&file)?;
        let [first, second] = slots(&content).map(Slot::parse);
        let changes = |slot: &Option<Slot<'_>>| slot.as_ref().and_then(|slot| slot.changes);
        let (changes, at) = match (changes(&first), changes(&second)) {
            (Some(first), second) if second.is_none_or(|second| first > second) => (first, content.len() / 2),
            (_, Some(second)) => (second, 0),
            _ => return Ok(None),
        };
        let slot = self.slot(changes.saturating_add(1))?;
        if slot.len() * 2 != content.len() {
            return Ok(None);
        }
        file.write_all_at(&slot, at as u64)?;
        Ok(Some(file))
    }

    /// Writes a whole file, which is not synced yet.
    fn put(&self, path: &Path) -> io::Result<File> {
        let mut text = self.slot(1)?;
        // Blocks for both: what is written over later changes nothing but them.
        let slot = text.len();
        text.resize(2 * slot - 1, b' ');
        text.push(b'\n');
        let mut file = File::create(path)?;
        file.write_all(&text)?;
        Ok(file)
    }

    fn slot(&self, changes: u64) -> io::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let mut text = format!("{} {changes}\n", checksum(Some(changes), &json)).into_bytes();
        text.extend_from_slice(&json);
        // The end of the line is behind the spaces, for who looks at it.
        text.resize((text.len() + 1).next_power_of_two().max(LEAST_SLOT) - 1, b' ');
        text.push(b'\n');
        Ok(text)
    }

    /// Reads a record; `None`: what is there is none.
    ///
    /// # Errors
    /// It can't be read at all.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let content = content(&File::open(path)?)?;
        // The file may have been another recording's.
        let is_own = |record: &Self| record.path(Path::new(""), "json").file_name() == path.file_name();
        let record =
            |slot: Slot<'_>| Some((slot.changes, serde_json::from_slice(slot.json).ok().filter(is_own)?));
        let records = slots(&content).into_iter().filter_map(Slot::parse).filter_map(record);
        Ok(records.max_by_key(|(changes, _)| *changes).map(|(_, record)| record))
    }

    /// The record's own file.
    pub fn path(&self, dir: &Path, extension: &str) -> PathBuf {
        dir.join(self.file_name()).with_extension(extension)
    }
}

/// One of the two records in a file.
struct Slot<'a> {
    /// How many were written into this file before and with it; `None`: an earlier version wrote it, alone.
    changes: Option<u64>,
    json: &'a [u8],
}

impl<'a> Slot<'a> {
    /// `None`: it was not written whole.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let (head, json) = (std::str::from_utf8(lines.next()?).ok()?, lines.next()?.trim_ascii_end());
        let (sum, changes) = match head.split_once(' ') {
            Some((sum, changes)) => (sum, Some(changes.parse().ok()?)),
            None => (head, None),
        };
        (checksum(changes, json) == sum).then_some(Self { changes, json })
    }
}

fn content(file: &File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut content)?;
    Ok(content)
}

/// The two halves; a record that was written alone is found in the first, which is given as a whole.
fn slots(content: &[u8]) -> [&[u8]; 2] {
    [content, content.get(content.len() / 2..).unwrap_or_default()]
}

fn checksum(changes: Option<u64>, json: &[u8]) -> String {
    let mut sum = Sha256::new();
    if let Some(changes) = changes {
        sum.update(format!("{changes}\n"));
    }
    sum.update(json);
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record {
        let mut record = Record::of_file_name("0000000000ff.cam-1.cloud.live.a.mp4").unwrap();
        record.target = "file:///rec".into();
        record.set_start(SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_323_045_067));
        record
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let record = record();
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(&record.path(dir.path(), "json")).unwrap(), Some(record));
    }

    #[test]
    fn a_record_of_an_earlier_version_has_its_number_as_the_digits_of_its_partial_file() {
        assert_eq!(record().part(), "0000000000ff");
        let part = Record::new_part();
        assert_eq!(Record { part: Some(part.clone()), ..record() }.part(), part);
    }

    /// As versions wrote it that had no slots.
    fn write_alone(record: &Record, path: &Path) {
        let json = serde_json::to_vec(record).unwrap();
        std::fs::write(path, [checksum(None, &json).as_bytes(), b"\n", &json].concat()).unwrap();
    }

    #[test]
    fn a_record_that_is_torn_or_of_zeros_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let record = record();
        let path = record.path(dir.path(), "json");
        let torn = |whole: &[u8], least: usize| {
            for end in 0..whole.len() {
                std::fs::write(&path, &whole[..end]).unwrap();
                let expected = (end >= least).then(|| record.clone());
                assert_eq!(Record::read(&path).unwrap(), expected, "{end}");
            }
            std::fs::write(&path, vec![0; whole.len()]).unwrap();
            assert_eq!(Record::read(&path).unwrap(), None);
        };
        write_alone(&record, &path);
        let alone = std::fs::read(&path).unwrap();
        torn(&alone, alone.len());
        record.begin(dir.path(), &Spares::default()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        torn(&whole, whole.iter().rposition(|byte| *byte == b'}').unwrap() + 1);
    }

    #[test]
    fn a_record_of_an_earlier_version_is_read_and_gets_slots_with_its_next_change() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = record();
        let path = record.path(dir.path(), "json");
        write_alone(&record, &path);
        assert_eq!(Record::read(&path).unwrap(), Some(record.clone()));
        for bytes in 1..4 {
            record.bytes = bytes;
            record.write(dir.path()).unwrap();
            assert_eq!(Record::read(&path).unwrap(), Some(record.clone()));
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 * LEAST_SLOT as u64);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn changes_are_written_into_the_file_that_is_there_and_a_person_can_read_them() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let mut record = record();
        let path = record.path(dir.path(), "json");
        record.begin(dir.path(), &Spares::default()).unwrap();
        let inode = std::fs::metadata(&path).unwrap().ino();
        record.stage = Stage::Complete;
        record.write(dir.path()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].ends_with(" 1") && lines[1].contains("\"stage\":\"writing\""), "{text}");
        assert!(lines[2].ends_with(" 2") && lines[3].contains("\"stage\":\"complete\""), "{text}");
        // A record that outgrows its slot gets a larger file.
        record.template = "x".repeat(5000);
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(&path).unwrap(), Some(record.clone()));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 4 * LEAST_SLOT as u64);
        record.template = "x".repeat(60_000);
        record.write(dir.path()).unwrap();
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(&path).unwrap(), Some(record));
    }

    #[test]
    fn a_record_in_the_file_of_another_recording_is_its_own_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let spares = Spares::default();
        let mut before = record();
        before.begin(dir.path(), &spares).unwrap();
        before.write(dir.path()).unwrap();
        spares.keep(&before.path(dir.path(), "json")).unwrap();
        let old = std::fs::read(before.path(dir.path(), "spare")).unwrap();
        before.id += 1;
        let record = before;
        record.begin(dir.path(), &spares).unwrap();
        let path = record.path(dir.path(), "json");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(Record::read(&path).unwrap(), Some(record.clone()));
        let new = std::fs::read(&path).unwrap();
        assert!(old.len() == new.len() && old[LEAST_SLOT..] == new[LEAST_SLOT..]);
        // Its name came to the disk, and what is in it did not.
        std::fs::write(&path, &old).unwrap();
        assert_eq!(Record::read(&path).unwrap(), None);
        std::fs::write(&path, &new).unwrap();
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(&path).unwrap(), Some(record.clone()));
        spares.keep(&path).unwrap();
        for id in 0..20 {
            let other = Record { id, ..record.clone() };
            other.begin(dir.path(), &Spares::default()).unwrap();
            spares.keep(&other.path(dir.path(), "json")).unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 16);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_change_that_is_cut_off_anywhere_leaves_the_record_before_or_the_new_one(
            changes in 1_u64..6,
            sectors in prop::collection::vec(any::<bool>(), 2 * LEAST_SLOT / 512),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut record = record();
            // More than one sector.
            record.template = "{flow}/%Y/".repeat(150);
            record.begin(dir.path(), &Spares::default()).unwrap();
            let path = record.path(dir.path(), "json");
            for bytes in 1..=changes {
                let (before, old) = (record.clone(), std::fs::read(&path).unwrap());
                record.bytes = bytes;
                record.write(dir.path()).unwrap();
                let new = std::fs::read(&path).unwrap();
                prop_assert_eq!(old.len(), new.len());
                let mut cut = old;
                for (at, _) in sectors.iter().enumerate().filter(|(_, arrived)| **arrived) {
                    cut[at * 512..(at + 1) * 512].copy_from_slice(&new[at * 512..(at + 1) * 512]);
                }
                let is_whole = cut == new;
                std::fs::write(&path, &cut).unwrap();
                let read = Record::read(&path).unwrap();
                prop_assert_eq!(read.as_ref(), Some(if is_whole { &record } else { &before }));
                // Whatever is left there, the next change holds.
                record.milliseconds += 1;
                record.write(dir.path()).unwrap();
                prop_assert_eq!(Record::read(&path).unwrap(), Some(record.clone()));
            }
        }
    }

    #[test]
    fn a_file_name_says_whose_it_is_and_nothing_else_is_taken_for_one() {
        let record = record();
        assert_eq!((record.id, &*record.flow, &*record.output), (255, "cam-1", "cloud"));
        assert_eq!(record.instance.as_deref(), Some("live.a"));
        for name in ["x.mp4", "ff.cam.cloud.mp4", "0000000000ff.cam.mp4", "0000000000ff.cam.cloud.mov"] {
            assert_eq!(Record::of_file_name(name), None, "{name}");
        }
    }
}
