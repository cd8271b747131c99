//! A monotonic clock that runs faster, for what takes an hour.

use tempfile::TempDir;

use crate::module::Setup;
use crate::preload;

/// A monotonic clock for one module, and all that waits by it. The time of day stays the machine's.
#[derive(Debug)]
pub struct FastClock {
    library: String,
    speed: u32,
    _dir: TempDir,
}

impl FastClock {
    /// So many seconds in one. `None`: there is no C compiler.
    pub fn of(speed: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let library = preload::library(dir.path(), "fast_clock", include_str!("fast_clock.c"))?;
        Some(Self { library: library.to_str().unwrap().to_owned(), speed, _dir: dir })
    }

    /// Makes a module use it. It is in use as long as the module runs.
    pub fn put_into(&self, setup: Setup) -> Setup {
        setup.env("LD_PRELOAD", &self.library).env("FAST_CLOCK", &self.speed.to_string())
    }
}
