//! Libraries of the tests' own that stand before the system's.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles C into a library in `dir` for `LD_PRELOAD`. `None`: there is no C compiler.
pub fn library(dir: &Path, name: &str, code: &str) -> Option<PathBuf> {
    let (source, library) = (dir.join(name).with_extension("c"), dir.join(name).with_extension("so"));
    std::fs::write(&source, code).unwrap();
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
    let made = command.output().ok()?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(library)
}
