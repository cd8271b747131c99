//! A wall clock that a test sets, by libfaketime.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::module::Setup;

/// A wall clock for one module. Its monotonic clock stays the machine's.
#[derive(Debug)]
pub struct FakeClock {
    library: PathBuf,
    dir: TempDir,
}

impl FakeClock {
    /// A clock that shows `time`: `+3600` and `-3d` are offsets, `@1971-02-03 04:05:06` is where it starts. `None`:
    /// libfaketime is not installed.
    pub fn of(time: &str) -> Option<Self> {
        let inside = |folder: std::fs::DirEntry| folder.path().join("faketime/libfaketime.so.1");
        let folders = std::fs::read_dir("/usr/lib").ok()?;
        let library = folders.flatten().map(inside).find(|path| path.exists())?;
        let clock = Self { library, dir: tempfile::tempdir().unwrap() };
        clock.set(time);
        Some(clock)
    }

    /// Steps the clock.
    pub fn set(&self, time: &str) {
        let aside = self.dir.path().join("new");
        std::fs::write(&aside, time).unwrap();
        std::fs::rename(aside, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("clock")
    }

    /// Makes a module use it.
    pub fn put_into(&self, setup: Setup) -> Setup {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        setup
            .env("LD_PRELOAD", &text(&self.library))
            .env("FAKETIME_TIMESTAMP_FILE", &text(&self.file()))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("TZ", "UTC")
    }
}
