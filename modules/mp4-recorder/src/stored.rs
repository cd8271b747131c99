//! What this module put into its stores, by its own account: a line for each file, in a text file for each day. What is
//! not in there is never deleted from a store.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Moment;
use crate::spool::Place;

/// A day's lines of one output: files of two seconds make some 10 MB.
const MAX_DAY_BYTES: u64 = 64 << 20;

/// A day is read and written anew, or gets a line.
static CHANGING: Mutex<()> = Mutex::new(());

/// A moment of a run of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unsure {
    /// Which run.
    pub boot: String,
    /// Milliseconds since its start.
    pub since_boot: u64,
}

impl Unsure {
    /// The moment in milliseconds of Unix time, or now where that run is over: it was before, and nobody knows when.
    pub fn at(&self, now: Moment, boot: &str) -> i64 {
        let is_of_this_run = !boot.is_empty() && self.boot == boot;
        let utc = if is_of_this_run { now.utc_of(Duration::from_millis(self.since_boot)) } else { now.utc };
        let since = utc.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// One file in a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// The recording's number.
    pub id: u64,
    /// The store's URL.
    pub target: String,
    /// The file's name there.
    pub name: String,
    /// Milliseconds of Unix time of its first frame.
    pub start: i64,
    /// From its first frame to the end of its last.
    pub milliseconds: u64,
    /// Of the file.
    pub bytes: u64,
    /// The event whose clip it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Its age counts from then on, in milliseconds of Unix time, where that is not its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aged: Option<i64>,
    /// When it ended, where nobody had said that the clock was right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsure: Option<Unsure>,
    /// `retentionDays` when it was stored, for outputs that are no longer configured.
    #[serde(default)]
    pub retention_days: u64,
}

impl Line {
    /// From when on its age counts: when its last frame ended. `None`: the clock may have been wrong then.
    pub fn ages_from(&self) -> Option<SystemTime> {
        if self.unsure.is_some() {
            return None;
        }
        let start = Duration::from_millis(u64::try_from(self.start).unwrap_or_default());
        let end = start.saturating_add(Duration::from_millis(self.milliseconds));
        let aged = self.aged.map(|aged| Duration::from_millis(u64::try_from(aged).unwrap_or_default()));
        Some(SystemTime::UNIX_EPOCH + aged.unwrap_or(end))
    }

    fn day(&self) -> String {
        let start = jiff::Timestamp::from_millisecond(self.start).unwrap_or_default();
        start.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
    }
}

/// The account.
#[derive(Clone, Debug)]
pub struct Account {
    dir: PathBuf,
}

impl Account {
    /// In the spool folder.
    pub fn new(spool: &Path) -> Self {
        Self { dir: spool.join("stored") }
    }

    fn of(&self, (flow, output): &Place) -> PathBuf {
        self.dir.join(format!("{flow}.{output}"))
    }

    /// Adds a line. It is there when this returns. A line may come twice, where the process ended in between.
    ///
    /// # Errors
    /// What the disk says.
    pub fn add(&self, place: &Place, line: &Line) -> io::Result<()> {
        let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.of(place);
        std::fs::create_dir_all(&dir)?;
        let path = self.day_of(place, line);
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path)?;
        let length = file.seek(SeekFrom::End(0))?;
        let mut text = String::new();
        if length > 0 {
            // What is left of a line that the power cut off is on a line of its own.
            let mut last = [0; 1];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                text.push('\n');
            }
        }
        text.push_str(&written(line)?);
        file.seek(SeekFrom::End(0))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if length == 0 {
            for new in [dir.as_path(), self.dir.as_path(), self.dir.parent().unwrap_or(&self.dir)] {
                File::open(new)?.sync_all()?;
            }
        }
        Ok(())
    }

    /// Every place that has an account.
    pub fn places(&self) -> Vec<Place> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let place = |entry: io::Result<std::fs::DirEntry>| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let (flow, output) = name.split_once('.')?;
            Some((flow.to_owned(), output.to_owned()))
        };
        entries.filter_map(place).collect()
    }

    /// The days of a place, oldest first.
    pub fn days(&self, place: &Place) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.of(place)) else { return Vec::new() };
        let lines = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "lines");
        let mut days: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(lines).collect();
        days.sort();
        days
    }

    /// The lines of one day; what is damaged is left out.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read(day: &Path) -> io::Result<Vec<Line>> {
        let mut text = Vec::new();
        File::open(day)?.take(MAX_DAY_BYTES).read_to_end(&mut text)?;
        let mut lines: Vec<Line> = text.split(|byte| *byte == b'\n').filter_map(read).collect();
        lines.sort_by_key(|line| (line.id, line.start));
        lines.dedup_by_key(|line| (line.id, line.start));
        Ok(lines)
    }

    /// Shows the lines of one day, one after the other, as they were written: one may come twice.
    ///
    /// # Errors
    /// What the disk says.
    pub fn each(day: &Path, mut show: impl FnMut(Line)) -> io::Result<()> {
        let mut file = BufReader::new(File::open(day)?.take(MAX_DAY_BYTES));
        let mut text = Vec::new();
        while file.read_until(b'\n', &mut text)? > 0 {
            if let Some(line) = read(text.strip_suffix(b"\n").unwrap_or(&text)) {
                show(line);
            }
            text.clear();
        }
        Ok(())
    }

    /// The day that a line is in.
    pub fn day_of(&self, place: &Place, line: &Line) -> PathBuf {
        self.of(place).join(format!("{}.lines", line.day()))
    }

    /// Says when files of a day ended, now that the clock is right.
    ///
    /// # Errors
    /// What the disk says.
    pub fn settle(day: &Path, now: Moment, boot: &str) -> io::Result<()> {
        let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = Self::read(day)?;
        let mut settled = 0;
        for line in &mut lines {
            if let Some(unsure) = line.unsure.take() {
                line.aged = Some(unsure.at(now, boot));
                settled += 1;
            }
        }
        if settled == 0 { Ok(()) } else { Self::replace(day, &lines) }
    }

    /// Takes lines out of a day, by number and start.
    ///
    /// # Errors
    /// What the disk says.
    pub fn forget(day: &Path, gone: &[(u64, i64)]) -> io::Result<()> {
        let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = Self::read(day)?;
        lines.retain(|line| !gone.contains(&(line.id, line.start)));
        Self::replace(day, &lines)
    }

    /// Replaces the lines of one day; a day without any is deleted.
    ///
    /// # Errors
    /// What the disk says.
    fn replace(day: &Path, lines: &[Line]) -> io::Result<()> {
        if lines.is_empty() {
            return std::fs::remove_file(day);
        }
        let aside = day.with_extension("new");
        let mut file = File::create(&aside)?;
        for line in lines {
            file.write_all(written(line)?.as_bytes())?;
        }
        file.sync_all()?;
        std::fs::rename(&aside, day)?;
        day.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }
}

fn written(line: &Line) -> io::Result<String> {
    let json = serde_json::to_string(line)?;
    Ok(format!("{} {json}\n", checksum(json.as_bytes())))
}

fn read(text: &[u8]) -> Option<Line> {
    let (sum, json) = text.split_at_checked(16)?;
    let json = json.get(1..)?;
    if checksum(json).as_bytes() != sum {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: u64, day: i64) -> Line {
        Line {
            id,
            target: "file:///rec".into(),
            name: format!("{id}.mp4"),
            start: 1_767_323_045_067 + day * 86_400_000,
            milliseconds: 2000,
            bytes: 5,
            event: None,
            aged: None,
            unsure: None,
            retention_days: 0,
        }
    }

    #[test]
    fn lines_are_found_by_day_and_a_torn_one_costs_itself_alone() {
        let dir = tempfile::tempdir().unwrap();
        let account = Account::new(dir.path());
        let place = ("cam".to_owned(), "disk".to_owned());
        for (id, day) in [(1, 0), (2, 0), (2, 0), (3, 1)] {
            account.add(&place, &line(id, day)).unwrap();
        }
        assert_eq!(account.places(), std::slice::from_ref(&place));
        let days = account.days(&place);
        assert_eq!(days.len(), 2);
        assert_eq!(Account::read(&days[0]).unwrap(), [line(1, 0), line(2, 0)]);

        let whole = std::fs::read(&days[0]).unwrap();
        std::fs::write(&days[0], &whole[..whole.len() - 3]).unwrap();
        account.add(&place, &line(4, 0)).unwrap();
        let mut shown = Vec::new();
        Account::each(&days[0], |line| shown.push(line.id)).unwrap();
        assert_eq!(shown, [1, 2, 4]);
        assert_eq!(Account::read(&days[0]).unwrap(), [line(1, 0), line(2, 0), line(4, 0)]);

        Account::forget(&days[0], &[(1, line(1, 0).start), (2, line(2, 0).start)]).unwrap();
        assert_eq!(Account::read(&days[0]).unwrap(), [line(4, 0)]);
        Account::forget(&days[0], &[(4, line(4, 0).start)]).unwrap();
        assert_eq!(account.days(&place).len(), 1);
    }

    #[test]
    fn what_was_stored_while_the_clock_was_late_has_an_age_when_it_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let account = Account::new(dir.path());
        let place = ("cam".to_owned(), "disk".to_owned());
        let unsure = |id, boot: &str| {
            let unsure = Some(Unsure { boot: boot.to_owned(), since_boot: 90_000 });
            Line { unsure, ..line(id, 0) }
        };
        account.add(&place, &line(1, 0)).unwrap();
        account.add(&place, &unsure(2, "this")).unwrap();
        account.add(&place, &unsure(3, "one before")).unwrap();
        let days = account.days(&place);
        assert_eq!(
            Account::read(&days[0]).unwrap().iter().filter(|line| line.ages_from().is_none()).count(),
            2
        );
        let utc = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Account::settle(&days[0], Moment { utc, since_boot: Duration::from_secs(100) }, "this").unwrap();
        let ages: Vec<_> = Account::read(&days[0]).unwrap().iter().map(Line::ages_from).collect();
        let by_its_name = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_323_047_067);
        assert_eq!(ages, [Some(by_its_name), Some(utc - Duration::from_secs(10)), Some(utc)]);
    }
}
