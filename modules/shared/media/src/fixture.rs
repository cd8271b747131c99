//! The clips of `testdata`, for tests.

use std::io::Cursor;
use std::time::Duration;

use bytes::Bytes;

use crate::mp4::{Mp4, Playback};
use crate::{Frame, Normaliser, Track};

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

/// The tracks and frames of a clip, as a stream would have them.
pub(crate) fn stream_of(file: Vec<u8>) -> (Vec<Track>, Vec<Frame>) {
    let mut playback = Playback::new(Mp4::open(Cursor::new(file)).unwrap(), Duration::ZERO);
    let mut normaliser = Normaliser::default();
    let configurations = playback.tracks().map(|track| track.configurations[0].clone());
    let mut tracks: Vec<Track> = configurations.map(|track| normaliser.track(track)).collect();
    let mut frames = Vec::new();
    while let Some(sample) = playback.next_sample(false).unwrap() {
        let normal = normaliser.frame(sample.frame(playback.loop_start(0)));
        tracks[0] = normal.track.unwrap_or(tracks[0].clone());
        frames.extend(normal.frame.map(|normal| normal.frame));
    }
    (tracks, frames)
}
