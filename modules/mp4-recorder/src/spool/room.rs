//! How much the spool may hold, and what goes to make room.

use std::io;
use std::path::Path;
use std::sync::{PoisonError, Weak};

use rustix::fs::statvfs;
use serde_json::{Map, Value};

use super::{Held, Record, Spool, SpoolError};

const MEBI: u64 = 1 << 20;
/// Inodes that are left to everybody else on the disk.
const MIN_FREE_INODES: u64 = 256;

/// `spool` of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `megabytes` in bytes; 0: 80 % of what is free and what the spool itself holds.
    pub bytes: u64,
    /// `minFreeMegabytes` in bytes.
    pub min_free: u64,
    /// `syncSeconds`.
    pub sync_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 0, min_free: 1024 * MEBI, sync_seconds: 1 }
    }
}

impl Limits {
    /// Of a checked `spool` property.
    pub fn of(properties: &Map<String, Value>) -> Self {
        let default = Self::default();
        let Some(spool) = properties.get("spool") else { return default };
        let number = |key: &str| {
            let value = spool.get(key)?;
            // `10.0` is a whole number too.
            value.as_u64().or_else(|| value.as_f64().map(|number| number as u64))
        };
        Self {
            bytes: number("megabytes").unwrap_or(0).saturating_mul(MEBI),
            min_free: number("minFreeMegabytes")
                .map_or(default.min_free, |number| number.saturating_mul(MEBI)),
            sync_seconds: number("syncSeconds").unwrap_or(default.sync_seconds),
        }
    }
}

/// What a disk has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Bytes for programs that are not root.
    pub free: u64,
    /// `None`: the file system does not count them.
    pub free_inodes: Option<u64>,
}

impl Disk {
    /// The one on which `path` lies.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(path: &Path) -> io::Result<Self> {
        let stat = statvfs(path)?;
        let free_inodes = (stat.f_files > 0).then_some(stat.f_favail);
        Ok(Self { free: stat.f_bavail.saturating_mul(stat.f_frsize), free_inodes })
    }
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The spool holds as much as it may.
    Spool {
        /// That much.
        limit: u64,
    },
    /// The disk has too little left.
    Disk {
        /// What it has.
        free: u64,
        /// What has to stay free.
        min_free: u64,
    },
    /// The disk can't hold more files.
    Inodes,
    /// A file takes more when it begins than the spool may hold at all.
    Begin {
        /// So much.
        bytes: u64,
        /// What the spool may hold.
        limit: u64,
    },
}

/// What a recording needs now.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Whose recording it is.
    pub flow: &'a str,
    /// Bytes.
    pub bytes: u64,
    /// It begins a file.
    pub opens: bool,
    /// `whenFull`: it takes the room of no recording of its own flow.
    pub deny_new: bool,
}

impl Full {
    /// Whether it may be others on the disk who took the room.
    pub fn may_be_of_others(self, limits: Limits) -> bool {
        match self {
            Self::Spool { .. } => limits.bytes == 0,
            Self::Disk { .. } | Self::Inodes => true,
            Self::Begin { .. } => false,
        }
    }
}

/// Whether what is wanted fits beside the `held` bytes.
pub fn check(limits: Limits, disk: Disk, held: u64, wanted: Wanted<'_>) -> Result<(), Full> {
    let more = wanted.bytes;
    if disk.free < limits.min_free.saturating_add(more) {
        return Err(Full::Disk { free: disk.free, min_free: limits.min_free });
    }
    if disk.free_inodes.is_some_and(|free| free < MIN_FREE_INODES) {
        return Err(Full::Inodes);
    }
    let limit = limit(limits, disk, held);
    if wanted.opens && more > limit {
        return Err(Full::Begin { bytes: more, limit });
    }
    if held.saturating_add(more) > limit { Err(Full::Spool { limit }) } else { Ok(()) }
}

/// The most bytes that the spool may hold.
pub fn limit(limits: Limits, disk: Disk, held: u64) -> u64 {
    match limits.bytes {
        0 => disk.free.saturating_add(held) / 10 * 8,
        bytes => bytes,
    }
}

/// The most bytes that the spool can hold: what it may, or less where the disk has to keep some free.
pub fn bound(limits: Limits, disk: Disk, held: u64) -> u64 {
    let left = disk.free.saturating_sub(limits.min_free);
    limit(limits, disk, held).min(held.saturating_add(left))
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Spool { limit } => {
                write!(f, "the spool has reached its limit of {} MB (spool.megabytes)", limit / MEBI)
            }
            Self::Disk { free, min_free } => write!(
                f,
                "the spool's disk has {} MB left, and {} MB must stay free (spool.minFreeMegabytes)",
                free / MEBI,
                min_free / MEBI
            ),
            Self::Begin { bytes, limit } => write!(
                f,
                "a file takes {:.1} MB when it begins (room for its index), and the spool may hold {:.1} MB; raise \
                 spool.megabytes, or lower segmentSeconds",
                *bytes as f64 / MEBI as f64,
                *limit as f64 / MEBI as f64
            ),
            Self::Inodes => write!(f, "the spool's disk has no inodes left: it holds too many files"),
        }
    }
}

/// What had to go to make room.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropped {
    /// The recording.
    pub record: Record,
    /// Of its file.
    pub bytes: u64,
}

impl Spool {
    /// Makes room for what is `wanted`, at the cost of what waits longest where that is allowed.
    ///
    /// Where it may be others who fill the disk, half of what goes makes room: at most twice as much goes as comes, however
    /// much others take, and however late the disk shows what was deleted.
    ///
    /// # Errors
    /// There is none, or the disk is not the one that it was. What was dropped before is in the list in any case.
    pub fn admit(&self, wanted: Wanted<'_>, dropped: &mut Vec<Dropped>) -> Result<(), SpoolError> {
        self.marker.check(&self.dir)?;
        let before = dropped.len();
        loop {
            let disk = self.disk()?;
            let full = {
                let inner = self.inner();
                let Err(full) = check(inner.limits, disk, inner.index.bytes(), wanted) else {
                    return Ok(());
                };
                if let Full::Begin { .. } = full {
                    // However much went, it would not fit.
                    return Err(SpoolError::Full(full));
                }
                if full == Full::Inodes && !wanted.opens && inner.index.victim(u64::MAX).is_some() {
                    // A file that is open needs none; the next one will get them.
                    return Ok(());
                }
                if full.may_be_of_others(inner.limits) {
                    let paid = match full {
                        // A recording has two names.
                        Full::Inodes => dropped.len() > before,
                        _ => inner.credit >= wanted.bytes,
                    };
                    if paid && disk.free >= wanted.bytes {
                        return Ok(());
                    }
                    if paid {
                        return Err(SpoolError::Full(full));
                    }
                }
                let of_flow = inner.index.bytes_of(wanted.flow).saturating_add(wanted.bytes);
                if wanted.deny_new && of_flow > inner.index.share(wanted.flow) {
                    return Err(SpoolError::Full(full));
                }
                full
            };
            let Some(held) = self.take_victim() else { return Err(SpoolError::Full(full)) };
            let id = held.record.id;
            if let Err(error) = self.remove(id) {
                self.set_busy(id, false);
                return Err(error.into());
            }
            self.let_go(id);
            let mut inner = self.inner();
            inner.credit = inner.credit.saturating_add(held.bytes / 2);
            drop(inner);
            dropped.push(Dropped { record: held.record, bytes: held.bytes });
        }
    }

    /// The next one that goes, in nobody else's hands from here on.
    pub(super) fn take_victim(&self) -> Option<Held> {
        let mut inner = self.inner();
        let most_aside = inner.index.bytes() / 10;
        let id = inner.index.victim(most_aside)?;
        inner.index.change(id, |held| held.busy = true);
        inner.index.get(id).cloned()
    }

    /// Whether `more` bytes fit as it is.
    pub fn has_room(&self, more: u64) -> bool {
        let Ok(disk) = self.disk() else { return false };
        let wanted = Wanted { flow: "", bytes: more, opens: false, deny_new: true };
        let inner = self.inner();
        check(inner.limits, disk, inner.index.bytes(), wanted).is_ok()
    }

    /// Closes what was kept open for clips that can't begin in it any more.
    pub fn tidy_lately(&self) {
        let all = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        for known in all.iter().filter_map(Weak::upgrade) {
            known.lock().unwrap_or_else(PoisonError::into_inner).tidy();
        }
    }

    /// A file that somebody keeps open takes its room even when it is deleted.
    fn let_go(&self, id: u64) {
        let all = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        for known in all.iter().filter_map(Weak::upgrade) {
            known.lock().unwrap_or_else(PoisonError::into_inner).let_go(id);
        }
    }

    fn disk(&self) -> Result<Disk, SpoolError> {
        #[cfg(test)]
        if let Some(disk) = self.inner().disk {
            return Ok(disk);
        }
        Disk::of(&self.dir).map_err(|source| SpoolError::Unusable { dir: self.dir.clone(), source })
    }

    /// Whether nine tenths of what it can hold are used.
    pub fn is_nearly_full(&self) -> bool {
        let Ok(disk) = self.disk() else { return false };
        let inner = self.inner();
        let held = inner.index.bytes();
        held > bound(inner.limits, disk, held) / 10 * 9
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limits(bytes: u64) -> Limits {
        Limits { bytes: bytes * MEBI, min_free: 100 * MEBI, sync_seconds: 1 }
    }

    fn bytes(bytes: u64) -> Wanted<'static> {
        Wanted { flow: "a", bytes, opens: true, deny_new: false }
    }

    fn disk(free: u64) -> Disk {
        Disk { free: free * MEBI, free_inodes: None }
    }

    #[test]
    fn what_is_said_nowhere_is_80_percent_of_what_there_is_to_have() {
        assert_eq!(limit(limits(0), disk(800), 200 * MEBI) / MEBI, 800);
        assert!(check(limits(0), disk(800), 200 * MEBI, bytes(600 * MEBI)).is_ok());
        assert!(matches!(
            check(limits(0), disk(800), 200 * MEBI, bytes(601 * MEBI)),
            Err(Full::Spool { .. })
        ));
    }

    #[test]
    fn a_file_that_takes_more_when_it_begins_than_the_spool_may_hold_is_told_as_that() {
        let full = check(limits(8), disk(800), 0, bytes(9 * MEBI)).unwrap_err();
        let why = full.to_string();
        assert!(why.contains("9.0 MB when it begins") && why.contains("segmentSeconds"), "{why}");
        let commit = Wanted { opens: false, ..bytes(9 * MEBI) };
        assert!(matches!(check(limits(8), disk(800), 0, commit), Err(Full::Spool { .. })));
    }

    #[test]
    fn the_disk_keeps_what_has_to_stay_free_whatever_the_spool_may_hold() {
        assert!(check(limits(5000), disk(101), 0, bytes(MEBI)).is_ok());
        assert!(matches!(check(limits(5000), disk(100), 0, bytes(MEBI)), Err(Full::Disk { .. })));
        let no_inodes = Disk { free_inodes: Some(3), ..disk(5000) };
        assert_eq!(check(limits(5000), no_inodes, 0, bytes(1)), Err(Full::Inodes));
    }

    #[test]
    fn a_disk_that_has_to_keep_some_free_bounds_the_spool_before_its_own_limit() {
        assert_eq!(bound(limits(5000), disk(300), 800 * MEBI) / MEBI, 1000);
        assert_eq!(bound(limits(5000), disk(50), 800 * MEBI) / MEBI, 800);
        assert_eq!(bound(limits(900), disk(300), 800 * MEBI) / MEBI, 900);
    }

    #[test]
    fn a_document_says_megabytes() {
        let document = json!({ "spool": { "megabytes": 7, "minFreeMegabytes": 0, "syncSeconds": 5.0 } });
        let read = Limits::of(document.as_object().unwrap());
        assert_eq!(read, Limits { bytes: 7 * MEBI, min_free: 0, sync_seconds: 5 });
        assert_eq!(Limits::of(&Map::new()), Limits::default());
    }
}
