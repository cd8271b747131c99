//! The clips of `testdata`, for tests.

use bytes::Bytes;

/// A whole clip.
pub(crate) fn clip(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

/// Where a file of `testdata` is.
pub(crate) fn path(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// The content of the first box of this type, found by its name: not by the reader under test.
pub(crate) fn config_box(name: &str, kind: &[u8; 4]) -> Bytes {
    let clip = clip(name);
    let at = clip.windows(4).position(|four| four == kind).unwrap();
    let size = u32::from_be_bytes(clip[at - 4..at].try_into().unwrap()) as usize;
    Bytes::from(clip).slice(at + 4..at - 4 + size)
}
