//! Some room for tidying up, which needs space of its own: a file that is deleted then.

use std::fs::File;
use std::io;

use super::{Spool, gone};

const BYTES: u64 = 1 << 20;
const NAME: &str = "ballast";

impl Spool {
    /// Does something small, at the cost of the ballast where the disk is full.
    pub(super) fn tidying<T>(&self, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.drop_ballast()?;
                work()
            }
            done => done,
        }
    }

    /// Keeps some room for tidying up, where there is room. It is no matter if there is none.
    pub fn restore_ballast(&self) {
        let path = self.dir.join(NAME);
        if std::fs::metadata(&path).is_ok_and(|file| file.len() == BYTES) {
            return;
        }
        let made = File::create(&path).and_then(|file| {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BYTES)?;
            file.sync_all()
        });
        if made.is_err() {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Gives that room to whoever is first.
    pub(super) fn drop_ballast(&self) -> io::Result<()> {
        gone(std::fs::remove_file(self.dir.join(NAME)))
    }
}
