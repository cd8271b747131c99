//! A file that may change while it is played.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// A file that nobody has written to for that long is whole, or as whole as it is going to be.
pub(crate) const STILL: Duration = Duration::from_secs(1);

/// What tells a file from another one, and from itself before it was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    /// Device and inode.
    #[cfg(unix)]
    identity: (u64, u64),
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            #[cfg(unix)]
            identity: (metadata.dev(), metadata.ino()),
        }
    }

    /// `None`: there is nothing to see. Blocks.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::new(&metadata))
    }

    /// Whether the last write is [`STILL`] ago.
    pub(crate) fn is_still(&self) -> bool {
        let age = self.modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        age.is_some_and(|age| age >= STILL)
    }

    /// Whether this is the file of `before` with more in it.
    fn has_grown_from(&self, before: &Self) -> bool {
        #[cfg(unix)]
        if self.identity != before.identity {
            return false;
        }
        self.length >= before.length
    }
}

/// The file was written to since its index was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file changed while it was being read")]
pub(crate) struct Changed;

impl Changed {
    /// Whether reading failed because of that.
    pub(crate) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

/// An open file and what it has to be. What is read of it is what was there before it changed: it is looked at after
/// each reading, and a file's time of change is set before its content.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    file: Arc<File>,
    /// As it was opened.
    opened: Stamp,
    /// As it may be; `None` while a change is looked into.
    expected: Arc<Mutex<Option<Stamp>>>,
}

impl Watched {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = Arc::new(File::open(path)?);
        let opened = Stamp::new(&file.metadata()?);
        Ok(Self { file, opened, expected: Arc::new(Mutex::new(Some(opened))) })
    }

    /// As it was opened.
    pub(crate) const fn opened(&self) -> Stamp {
        self.opened
    }

    /// Looks into a change: whether the file has grown, and `holds` says that what was known of it still holds. Then
    /// this is what it may be.
    pub(crate) fn admits_growth(&self, holds: impl FnOnce() -> bool) -> bool {
        let Some(before) = self.expect(None) else { return false };
        let Ok(metadata) = self.file.metadata() else { return false };
        let now = Stamp::new(&metadata);
        let grown = now.has_grown_from(&before) && holds();
        self.expect(Some(if grown { now } else { before }));
        grown
    }

    /// Whether it is another one than it may be. Growth is for the next reading to look into. Blocks.
    pub(crate) fn is_another(&self) -> bool {
        let expected = *self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(expected), Ok(metadata)) = (expected, self.file.metadata()) else { return false };
        let now = Stamp::new(&metadata);
        now != expected && (now.length == expected.length || !now.has_grown_from(&expected))
    }

    /// How many hold the file open.
    #[cfg(test)]
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.file)
    }

    fn expect(&self, stamp: Option<Stamp>) -> Option<Stamp> {
        std::mem::replace(&mut *self.expected.lock().unwrap_or_else(PoisonError::into_inner), stamp)
    }
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&*self.file).read(buffer)?;
        let expected = *self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(expected) = expected
            && Stamp::new(&self.file.metadata()?) != expected
        {
            return Err(io::Error::other(Changed));
        }
        Ok(count)
    }
}

impl Seek for Watched {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self.file).seek(to)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read_all(watched: &mut Watched) -> io::Result<Vec<u8>> {
        watched.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        watched.read_to_end(&mut bytes).map(|_| bytes)
    }

    /// Writes at a time that is another one than that of the last write.
    fn write_later(path: &Path, change: impl Fn(&Path)) {
        let before = Stamp::of(path);
        while Stamp::of(path).map(|stamp| stamp.modified) == before.map(|stamp| stamp.modified) {
            change(path);
        }
    }

    #[test]
    fn a_file_that_is_written_over_is_not_read_on_and_one_that_grows_is_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clip");
        std::fs::write(&path, b"index and media").unwrap();
        let mut watched = Watched::open(&path).unwrap();
        assert_eq!(read_all(&mut watched).unwrap(), b"index and media");

        let append =
            |path: &Path| File::options().append(true).open(path).unwrap().write_all(b" and more").unwrap();
        write_later(&path, append);
        assert!(Changed::is(&read_all(&mut watched).unwrap_err()));
        assert!(!watched.is_another());
        assert!(!watched.admits_growth(|| false));
        assert!(watched.admits_growth(|| true));
        assert!(read_all(&mut watched).unwrap().starts_with(b"index and media and more"));

        // The same length, other bytes.
        let length = std::fs::metadata(&path).unwrap().len() as usize;
        write_later(&path, |path| {
            File::options().write(true).open(path).unwrap().write_all(&vec![b'x'; length]).unwrap()
        });
        assert!(Changed::is(&read_all(&mut watched).unwrap_err()));
        assert!(watched.is_another());

        // Shorter: whatever is said of it, it has not grown.
        std::fs::write(&path, b"x").unwrap();
        assert!(!watched.admits_growth(|| true));
    }

    #[test]
    fn a_file_that_another_one_takes_the_place_of_is_read_on() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("clip"), dir.path().join("new"));
        std::fs::write(&path, b"old").unwrap();
        std::fs::write(&aside, b"new").unwrap();
        let mut watched = Watched::open(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
        assert_eq!(read_all(&mut watched).unwrap(), b"old");
        assert_ne!(Stamp::of(&path), Some(watched.opened()));
        assert!(!watched.is_another());
    }
}
