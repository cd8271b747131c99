//! Where segments go that are too many for memory, as far as packaging knows: somebody keeps them, and gives them back
//! after a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde::{Deserialize, Serialize};

use super::fleeting::Held;
use super::pieces::Pieces;
use super::shelf::Map;

/// A finished segment, as it must be known to be listed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub number: u64,
    /// In nanoseconds.
    pub duration: i64,
    /// Its discontinuity number, and whether it is the first with it.
    pub breaks: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    pub discontinuity: bool,
    /// Name of its init segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<String>,
    /// Nanoseconds of Unix time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utc: Option<u64>,
    /// Bytes; 0: it is a gap.
    pub len: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this form")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What has become of a segment that was to be kept.
#[derive(Debug, Default)]
pub(crate) struct Slip(AtomicU8);

/// See [`Slip`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Pending,
    Kept,
    /// Not this time.
    Failed,
    /// There was no room.
    NoRoom,
}

impl Slip {
    pub(crate) fn fate(&self) -> Fate {
        match self.0.load(Ordering::Acquire) {
            0 => Fate::Pending,
            1 => Fate::Kept,
            2 => Fate::Failed,
            _ => Fate::NoRoom,
        }
    }

    pub(crate) fn settle(&self, fate: Fate) {
        let value = match fate {
            Fate::Pending => 0,
            Fate::Kept => 1,
            Fate::Failed => 2,
            Fate::NoRoom => 3,
        };
        self.0.store(value, Ordering::Release);
    }
}

/// Keeps segments of one stream. Nothing of it waits.
pub(crate) trait Attic: Send + Sync {
    /// Another playlist begins; what was kept of the one before is not listed any more.
    fn begin(&self, name: &str);
    /// Keeps a segment, and that it was listed.
    fn keep(&self, record: Record, pieces: Pieces) -> Arc<Slip>;
    /// So many bytes of a segment that will be removed before anything of it is written to a disk; `None`: they would be.
    fn hold(&self, len: usize) -> Option<Held>;
    fn keep_map(&self, map: &Arc<Map>);
    /// Numbers below this one may have been used.
    fn reserve(&self, below: u64);
    /// Removes a segment. `false`: there is more to do than can be noted, and it has to be said again.
    fn remove(&self, number: u64) -> bool;
}

/// What was kept by an earlier process.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// Of the playlist.
    pub name: String,
    /// One after the other, without a hole.
    pub records: Vec<Record>,
    pub maps: Vec<Arc<Map>>,
    /// Numbers below this one may have been used.
    pub reserved: u64,
}
