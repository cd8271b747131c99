//! The blocking half of `read`: opening an MP4 file and taking frames from it, a piece at a time.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use av_media::mp4::{Mp4, Mp4Error, Mp4Fault, Playback};
use av_media::{Frame, Timestamp, Track};

/// A piece is about that long, or that large.
const PIECE_MILLIS: i64 = 500;
const PIECE_BYTES: usize = 1 << 20;

/// Why a file is not played.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ReadError {
    #[error("{}: there is no such file", .0.display())]
    Missing(PathBuf),
    #[error("{}: the file can't be read: {}", path.display(), why(source))]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: this is not a regular file", .0.display())]
    NotAFile(PathBuf),
    #[error("{}: {}", path.display(), explained(source))]
    Mp4 { path: PathBuf, source: Mp4Error },
    #[error("reading the file was given up")]
    Stopped,
}

/// The system's word, without the number behind it.
fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// What is wrong, then where.
fn explained(error: &Mp4Error) -> String {
    use std::error::Error;
    let mut text = error.source.to_string();
    let mut cause = error.source.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    format!("{text} (box {} at byte {})", error.name, error.offset)
}

impl ReadError {
    /// Whether time can mend it; what is wrong inside a file only another file can mend.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Missing(_) | Self::Unreadable { .. } | Self::Stopped => true,
            Self::NotAFile(_) => false,
            Self::Mp4 { source, .. } => matches!(source.source, Mp4Fault::Io(_)),
        }
    }
}

/// What tells that a path leads to another file than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
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
    pub(super) fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::new(&metadata))
    }
}

/// Where in which file.
pub(super) struct Reading {
    /// As configured, for people.
    shown: PathBuf,
    /// On this machine.
    path: PathBuf,
    repeat: bool,
    stamp: Stamp,
    playback: Playback<File>,
    /// Told before the first frame.
    tracks: Option<Vec<Track>>,
    loop_index: u64,
    /// Milliseconds at which this file began.
    base: i64,
}

/// Some frames in a row and what comes after them.
pub(super) struct Piece {
    /// The tracks, in front of a file's first frame.
    pub(super) tracks: Option<Vec<Track>>,
    /// By dts, milliseconds since the first frame of all.
    pub(super) frames: Vec<Frame>,
    pub(super) then: Then,
}

pub(super) enum Then {
    /// More of the same, or of the file that took its place.
    More(Box<Reading>),
    /// The file is over at that millisecond and is not played again.
    End {
        at: i64,
    },
    Failed(ReadError),
}

impl Reading {
    /// Reads the index. Blocks.
    pub(super) fn open(
        shown: &Path,
        path: &Path,
        repeat: bool,
        start: Duration,
        base: i64,
    ) -> Result<Self, ReadError> {
        let unreadable = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => ReadError::Missing(shown.to_path_buf()),
            _ => ReadError::Unreadable { path: shown.to_path_buf(), source },
        };
        // Opening a pipe would wait for its writer.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(ReadError::NotAFile(shown.to_path_buf()));
        }
        let file = File::open(path).map_err(unreadable)?;
        let stamp = Stamp::new(&file.metadata().map_err(unreadable)?);
        let playback = Mp4::open(file).and_then(|mp4| Playback::new(mp4, start));
        let playback = playback.map_err(|source| ReadError::Mp4 { path: shown.to_path_buf(), source })?;
        for ignored in playback.mp4().ignored() {
            tracing::info!(file = %shown.display(), track = ignored.id, "track left aside: {}", ignored.reason);
        }
        let tracks = playback.tracks().map(|track| track.track.clone()).collect();
        Ok(Self {
            shown: shown.to_path_buf(),
            path: path.to_path_buf(),
            repeat,
            stamp,
            playback,
            tracks: Some(tracks),
            loop_index: 0,
            base,
        })
    }

    /// The next frames. At the end of a loop a file that is another one by now takes this one's place.
    /// Blocks.
    pub(super) fn piece(mut self: Box<Self>) -> Piece {
        let again = self.repeat && Stamp::of(&self.path) == Some(self.stamp);
        let tracks = self.tracks.take();
        let (mut frames, mut bytes) = (Vec::new(), 0_usize);
        loop {
            match self.playback.next_sample(again) {
                Ok(Some(sample)) => {
                    self.loop_index = self.loop_index.max(sample.loop_index);
                    let begin =
                        self.playback.loop_start(sample.loop_index).millis().saturating_add(self.base);
                    let frame = sample.frame(Timestamp::from_millis(begin));
                    bytes = bytes.saturating_add(frame.data.len());
                    let first = frames.first().map_or(&frame, |first: &Frame| first).dts.millis();
                    let full =
                        bytes >= PIECE_BYTES || frame.dts.millis().saturating_sub(first) >= PIECE_MILLIS;
                    frames.push(frame);
                    if full {
                        return Piece { tracks, frames, then: Then::More(self) };
                    }
                }
                Ok(None) => return Piece { tracks, frames, then: self.over() },
                Err(source) => {
                    let path = self.shown;
                    return Piece { tracks, frames, then: Then::Failed(ReadError::Mp4 { path, source }) };
                }
            }
        }
    }

    fn over(self) -> Then {
        let next = self.loop_index.saturating_add(1);
        let at = self.playback.loop_start(next).millis().saturating_add(self.base);
        if !self.repeat {
            return Then::End { at };
        }
        match Self::open(&self.shown, &self.path, true, Duration::ZERO, at) {
            Ok(reading) => Then::More(Box::new(reading)),
            Err(error) => Then::Failed(error),
        }
    }
}
