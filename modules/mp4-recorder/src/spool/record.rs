//! What the spool knows of one recording: a small file beside it, with a checksum, written aside and renamed. A record
//! that is lost costs that record: its file says most of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::azure::Upload;

/// Far more than a record has.
const MAX_BYTES: u64 = 64 * 1024;

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
}

impl Record {
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
        };
        (record.file_name() == name).then_some(record)
    }

    /// Writes it into `dir`; it is there, whole, when this returns.
    ///
    /// # Errors
    /// What the disk says; then an earlier record is still there.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let json = serde_json::to_vec(self)?;
        let (aside, path) = (self.path(dir, "new"), self.path(dir, "json"));
        let mut file = File::create(&aside)?;
        file.write_all(checksum(&json).as_bytes())?;
        file.write_all(b"\n")?;
        file.write_all(&json)?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(&aside, path)?;
        File::open(dir)?.sync_all()
    }

    /// Reads a record; `None`: what is there is none.
    ///
    /// # Errors
    /// It can't be read at all.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let mut content = Vec::new();
        File::open(path)?.take(MAX_BYTES).read_to_end(&mut content)?;
        let Some(at) = content.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let (sum, json) = content.split_at(at);
        let json = json.get(1..).unwrap_or_default();
        if checksum(json).as_bytes() != sum {
            return Ok(None);
        }
        Ok(serde_json::from_slice(json).ok())
    }

    /// The record's own file.
    pub fn path(&self, dir: &Path, extension: &str) -> PathBuf {
        dir.join(self.file_name()).with_extension(extension)
    }
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
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
    fn a_record_that_is_torn_or_of_zeros_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let record = record();
        record.write(dir.path()).unwrap();
        let path = record.path(dir.path(), "json");
        let whole = std::fs::read(&path).unwrap();
        for end in 0..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(Record::read(&path).unwrap(), None, "{end}");
        }
        std::fs::write(&path, vec![0; whole.len()]).unwrap();
        assert_eq!(Record::read(&path).unwrap(), None);
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
