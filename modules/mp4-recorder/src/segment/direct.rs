//! Small commits go to the disk in whole sectors, past the page cache, which would write the last page of the commit before
//! again: on a slow stream a sixth of all. Blocks are allocated ahead of them, so that the file system notes few changes.
//!
//! Where the file system or the disk does not take such writes (512 bytes at any sector), all go through the page cache.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;

/// The least that a disk writes.
const SECTOR: usize = 512;
/// Where the memory begins that a disk reads from.
const ALIGNED: usize = 4096;
/// Larger commits go through the page cache, from which they are then sent: a page that is written twice is little there.
pub const MOST: u64 = 128 << 10;
/// Blocks are allocated for so much at a time.
pub const AHEAD: u64 = 1 << 20;

/// How the end of a file is written.
#[derive(Debug)]
pub struct Direct {
    /// Opened once more, for such writes; `None`: they are not taken here.
    file: Option<File>,
    /// What the last sector holds already.
    odd: Vec<u8>,
    /// Up to there the file has blocks.
    allocated: u64,
    /// On the disk the file may be longer than what it holds: zeros are behind it.
    is_longer: bool,
    /// Nothing was written so yet.
    is_new: bool,
}

impl Direct {
    /// For the file at `path`, which ends at `end` with `last` and has blocks up to `allocated`.
    pub fn open(path: &Path, end: u64, last: &[u8], allocated: u64) -> Self {
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or_default();
        let opened = OpenOptions::new().write(true).custom_flags(flags).open(path);
        let file = opened.inspect_err(not_taken).ok();
        let is_longer = allocated > end;
        let mut direct = Self { file, odd: Vec::new(), allocated, is_longer, is_new: true };
        direct.wrote(end, std::iter::once(last));
        direct
    }

    /// None at all.
    #[cfg(test)]
    pub fn none(end: u64) -> Self {
        Self { file: None, odd: Vec::new(), allocated: end, is_longer: false, is_new: true }
    }

    /// The next write begins inside a sector.
    #[cfg(test)]
    pub fn forget_odd(&mut self) {
        self.odd.clear();
    }

    /// Whether such writes are taken, as far as is known.
    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Whether the next one is the first.
    pub fn is_new(&self) -> bool {
        self.is_open() && self.is_new
    }

    /// None from here on.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// Up to there the file has blocks.
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Whether the file has to be cut to its length at its end.
    pub fn is_longer(&self) -> bool {
        self.is_longer
    }

    /// Writes `size` bytes behind what is there, which ends at `at`; `ahead`: more blocks may be allocated than that takes.
    /// `false`: such writes are not taken here, and what is behind `at` is to be written in another way.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write<'a>(
        &mut self,
        at: u64,
        size: u64,
        pieces: impl Iterator<Item = &'a [u8]>,
        ahead: bool,
    ) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let Ok(bytes) = usize::try_from(size) else { return Ok(false) };
        let length = (self.odd.len() + bytes).next_multiple_of(SECTOR);
        let mut memory = vec![0; length + ALIGNED];
        let skipped = memory.as_ptr().align_offset(ALIGNED);
        let Some(sectors) = memory.get_mut(skipped..skipped + length) else { return Ok(false) };
        let mut rest = &mut *sectors;
        rest.write_all(&self.odd)?;
        for piece in pieces {
            rest.write_all(piece)?;
        }
        let from = at - self.odd.len() as u64;
        let end = from + length as u64;
        (self.is_longer, self.is_new) = (true, false);
        if ahead && end > self.allocated {
            let until = end + AHEAD;
            // It is no matter if there is less.
            if fallocate(file, FallocateFlags::empty(), self.allocated, until - self.allocated).is_ok() {
                self.allocated = until;
            }
        }
        match file.write_all_at(sectors, from) {
            Err(error) if is_unsupported(&error) => {
                not_taken(&error);
                self.close();
                Ok(false)
            }
            done => done.map(|()| true),
        }
    }

    /// So it ends now, at `end`, however that was written.
    pub fn wrote<'a>(&mut self, end: u64, pieces: impl Iterator<Item = &'a [u8]>) {
        let mut odd = std::mem::take(&mut self.odd);
        for piece in pieces {
            odd.extend_from_slice(piece.get(piece.len().saturating_sub(SECTOR)..).unwrap_or_default());
            drop(odd.drain(..odd.len().saturating_sub(SECTOR)));
        }
        let length = usize::try_from(end % SECTOR as u64).unwrap_or_default();
        self.odd = odd.split_off(odd.len().saturating_sub(length));
        self.allocated = self.allocated.max(end);
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::OPNOTSUPP].map(Errno::raw_os_error).map(Some).contains(&error.raw_os_error())
}

fn not_taken(error: &io::Error) {
    tracing::debug!(
        "the spool's disk does not support direct writes, so all writes go through the page \
                     cache: {error}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_that_fills_no_sector_is_known_whatever_it_came_in() {
        let content: Vec<u8> = (0..40_000_u32).map(|at| (at % 253) as u8).collect();
        let mut direct = Direct::none(0);
        let (mut end, mut size) = (0, 1);
        while end + 8 * size < content.len() {
            let pieces = content[end..end + 7 * size].chunks(size);
            end += 7 * size;
            direct.wrote(end as u64, pieces);
            assert_eq!(direct.odd, content[end / SECTOR * SECTOR..end], "{end}");
            size = (size * 3 + 1) % 1500;
        }
        assert!(end > 20_000);
    }
}
