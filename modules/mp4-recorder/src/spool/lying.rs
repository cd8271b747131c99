//! What lies in a spool that is opened, whoever left it there: names first, which is quick, and what is in them later.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{Held, QUARANTINE, Record, Stage, gone, spare};

/// Names of recordings, by their numbers.
#[derive(Debug, Default)]
pub struct Lying(BTreeMap<u64, Name>);

#[derive(Debug)]
struct Name {
    /// Of the file.
    file: Box<str>,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Spool,
    Quarantine,
    /// There is a record alone.
    Nowhere,
}

impl Lying {
    /// Looks for names. Records that were not written whole are removed: later they may be somebody's.
    ///
    /// # Errors
    /// A folder can't be read.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let mut names = BTreeMap::new();
        let mut records = Vec::new();
        for (folder, place) in [(dir.to_owned(), Place::Spool), (dir.join(QUARANTINE), Place::Quarantine)] {
            let entries = match std::fs::read_dir(&folder) {
                Err(error) if place == Place::Quarantine && error.kind() == io::ErrorKind::NotFound => {
                    continue;
                }
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
                if place == Place::Spool && (name.ends_with(".new") || spare::is_one(&name)) {
                    gone(std::fs::remove_file(entry.path()))?;
                } else if let Some(stem) = name.strip_suffix(".json").filter(|_| place == Place::Spool) {
                    records.push(format!("{stem}.mp4"));
                } else if let Some(bare) = Record::of_file_name(&name) {
                    names.insert(bare.id, Name { file: name.into(), place });
                }
            }
        }
        for file in records {
            if let Some(bare) = Record::of_file_name(&file) {
                names.entry(bare.id).or_insert_with(|| Name { file: file.into(), place: Place::Nowhere });
            }
        }
        Ok(Self(names))
    }

    /// The last number that is in use.
    pub fn last_id(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(id, _)| *id)
    }

    /// Reads them, in the order of recording.
    pub fn read(self, dir: &Path) -> impl Iterator<Item = Held> {
        self.0.into_values().filter_map(move |name| match name.place {
            Place::Nowhere => without_file(dir, &name.file),
            place => with_file(dir, &name.file, place),
        })
    }
}

fn with_file(dir: &Path, name: &str, place: Place) -> Option<Held> {
    let bare = Record::of_file_name(name)?;
    let quarantined = place == Place::Quarantine;
    let path = if quarantined { dir.join(QUARANTINE).join(name) } else { dir.join(name) };
    let bytes = match std::fs::metadata(&path) {
        Ok(file) => file.len(),
        Err(error) => {
            tracing::warn!("{} can't be read and is left as it is: {error}", path.display());
            return None;
        }
    };
    let mut record = Record::read(&bare.path(dir, "json")).ok().flatten().unwrap_or(bare);
    if quarantined {
        record.stage = Stage::Quarantined;
    }
    let broken = record.stage == Stage::Writing;
    Some(Held { record, bytes, room: bytes, busy: false, broken, durable: None })
}

/// A file that was on its way to its store may have arrived just before the process ended: then there is a record without
/// a file. Any other record without a file is left over from deleting both.
fn without_file(dir: &Path, name: &str) -> Option<Held> {
    let path = Record::of_file_name(name)?.path(dir, "json");
    let left = match Record::read(&path) {
        Ok(Some(record)) if record.stage == Stage::Delivering => {
            return Some(Held { record, bytes: 0, room: 0, busy: false, broken: false, durable: None });
        }
        Ok(_) => gone(std::fs::remove_file(&path)),
        // One bad sector costs that record, not the spool.
        Err(error) => Err(error),
    };
    if let Err(error) = left {
        tracing::warn!("{} can't be read and is left as it is: {error}", path.display());
    }
    None
}
