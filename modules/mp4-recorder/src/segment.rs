//! One file that is being recorded: what `av_media` says goes where, and when it is durable.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use av_media::mp4::{
    Amount, Finish, Mp4, Mp4Error, Mp4Fault, MuxError, Playback, Recording, RecoverError, Recovered, recover,
};
use av_media::{Frame, Kind, Timestamp, Track};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::lately::Stored;
use direct::Direct;

mod direct;

/// Blocks are allocated for so much at a time where commits are small.
pub const AHEAD: u64 = direct::AHEAD;
/// What the kernel takes in one call.
const MOST_PIECES: usize = 1024;

/// The first page of a file is written when it begins.
const PAGE: u64 = 4096;
/// Larger reserves are left as they are: there is one commit of a second for each twenty frames.
const MOST_FILLED: usize = 1 << 20;

/// Why a file can't be written.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The disk refuses.
    #[error("the spool's disk: {0}")]
    Io(#[from] io::Error),
    /// MP4 has no place for it.
    #[error("{0}")]
    Mux(#[from] MuxError),
}

/// A file that grows.
#[derive(Debug)]
pub struct Segment {
    file: Arc<File>,
    direct: Direct,
    recording: Recording,
    /// Since the last commit.
    frames: Vec<Frame>,
    /// Up to there it is on the disk for sure; `None`: nothing is.
    durable: Option<u64>,
    /// Since the last sync frame, and between the two before.
    gop: Amount,
    last_gop: Amount,
}

/// What a commit took.
#[derive(Debug, Default)]
pub struct Commit {
    /// That were written.
    pub bytes: u64,
    /// What is in the file now.
    pub frames: Vec<Stored>,
}

/// What the index of a file is expected to take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// Bytes of it.
    pub index: u64,
    /// What may come on top of that, each sample of it in as many bytes as a sample may take.
    pub more: Amount,
    /// Commits are small, and the disk has room for blocks that are only needed later. With the first ones they are in one
    /// piece: what is allocated little by little may lie anywhere.
    pub ahead: bool,
}

/// A file that is whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Finished {
    /// Of the file.
    pub bytes: u64,
    /// Written to make it whole.
    pub written: u64,
    /// From its first frame to the end of its last.
    pub duration: Duration,
    /// What is in it.
    pub amount: Amount,
    /// What its index took, and for how much more it kept room; nothing, where it was only repaired.
    pub index: Expected,
}

/// Whether MP4 carries a track.
///
/// # Errors
/// Why not.
pub fn carries(track: &Track) -> Result<(), MuxError> {
    Recording::reserve(std::slice::from_ref(track), Amount::default()).map(drop)
}

/// What a file takes before there is anything in it.
///
/// # Errors
/// MP4 does not carry a track.
pub fn begins_with(tracks: &[Track], expected: Expected) -> Result<u64, MuxError> {
    Ok(Recording::reserve(tracks, expected.more)?.saturating_add(expected.index))
}

impl Segment {
    /// Begins a file, with room for such an index. `origin`: about when its first frame is decoded. It has to be
    /// synced before its first commit: after a power cut a file without its head has no frame either.
    ///
    /// # Errors
    /// There is no room, or a track that MP4 does not carry.
    pub fn create(
        path: &Path,
        tracks: &[Track],
        origin: Timestamp,
        expected: Expected,
    ) -> Result<Self, SegmentError> {
        let reserve = begins_with(tracks, expected)?;
        let recording = Recording::start(tracks, origin, reserve)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let begun = allocate(&file, recording.reserve_end(), expected.ahead).and_then(|allocated| {
            recording.head().iter().try_for_each(|write| file.write_all_at(&write.bytes, write.offset))?;
            Ok(allocated)
        });
        let allocated = begun.inspect_err(|_| drop(std::fs::remove_file(path)))?;
        let [_, last] = recording.head();
        Ok(Self {
            file: Arc::new(file),
            direct: Direct::open(path, recording.size(), &last.bytes, allocated),
            recording,
            frames: Vec::new(),
            durable: None,
            gop: Amount::default(),
            last_gop: Amount::default(),
        })
    }

    /// Takes a frame. It is written at the next [`commit`](Self::commit).
    pub fn push(&mut self, frame: Frame) {
        match frame.kind {
            Kind::Video if frame.is_sync => {
                self.last_gop = std::mem::take(&mut self.gop);
                self.gop.pictures = 1;
            }
            Kind::Video => self.gop.pictures += 1,
            Kind::Audio => self.gop.sounds += 1,
        }
        self.frames.push(frame);
    }

    fn has_room_for(&self, more: Amount) -> bool {
        let pictures = self.frames.iter().filter(|frame| frame.kind == Kind::Video).count() as u64;
        let sounds = self.frames.len() as u64 - pictures;
        // A few commits come with it.
        self.recording.has_room_for(Amount {
            pictures: more.pictures + pictures,
            sounds: more.sounds + sounds,
            fragments: more.fragments + 8,
        })
    }

    /// Another GOP like the last one, and some more.
    fn another_gop(&self) -> Amount {
        let gop = |of: fn(&Amount) -> u64| 2 * of(&self.last_gop).max(of(&self.gop)) + 64;
        Amount { pictures: gop(|amount| amount.pictures), sounds: gop(|amount| amount.sounds), fragments: 16 }
    }

    /// Whether another GOP like the last one may not fit: the file should end at the next sync frame.
    pub fn is_nearly_full(&self) -> bool {
        !self.has_room_for(self.another_gop())
    }

    /// Whether not even a few frames more fit.
    pub fn is_full(&self) -> bool {
        !self.has_room_for(Amount { pictures: 2, sounds: 2, fragments: 2 })
    }

    /// Makes everything durable that was pushed, and says what that took. `next`: when the picture that follows is
    /// decoded, where that is known. `ahead`: the disk has room for blocks that are only needed later.
    ///
    /// # Errors
    /// The disk refuses: what was durable before still is, and this file takes nothing more.
    pub fn commit(&mut self, next: Option<Timestamp>, ahead: bool) -> Result<Commit, SegmentError> {
        let at = self.recording.size();
        let fragment = self.recording.fragment(&self.frames, next)?;
        let frames = std::mem::take(&mut self.frames);
        let Some(fragment) = fragment else { return Ok(Commit::default()) };
        let pieces = || fragment.pieces().map(|piece| &**piece);
        let is_small = fragment.size <= direct::MOST;
        // The first commit is of a part of a second. What the next one takes, most others take.
        let may_be_direct = is_small && self.durable.is_some();
        if self.direct.is_new() {
            if may_be_direct {
                fill(&self.file, self.recording.reserve_end())?;
            } else if !is_small {
                self.direct.close();
            }
        }
        if !may_be_direct || !self.direct.write(at, fragment.size, pieces(), ahead)? {
            let mut file = &*self.file;
            file.seek(SeekFrom::Start(at))?;
            write_all(file, &mut pieces().map(IoSlice::new).collect::<Vec<_>>())?;
        }
        self.direct.wrote(self.recording.size(), pieces());
        self.file.sync_data()?;
        self.durable = Some(self.recording.size());
        Ok(Commit { bytes: fragment.size, frames: stored(&frames, at + fragment.header.len() as u64) })
    }

    /// The file itself.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.recording.size()
    }

    /// Bytes of the disk that it takes while it is written: those of the file, and what is allocated behind them.
    pub fn room(&self) -> u64 {
        self.direct.allocated().max(self.bytes())
    }

    /// Bytes of the disk that so many more would take.
    pub fn room_for(&self, more: u64) -> u64 {
        (self.bytes() + more).saturating_sub(self.room())
    }

    /// Bytes that were written to begin it: the reserve is allocated, not written.
    pub fn begun(&self) -> u64 {
        self.recording.head().iter().map(|write| write.bytes.len() as u64).sum()
    }

    /// Up to where it is on the disk for sure; `None`: nothing is.
    pub fn durable(&self) -> Option<u64> {
        self.durable
    }

    /// Makes it an ordinary file.
    ///
    /// # Errors
    /// The disk refuses: what is durable is a fragmented file, which can be finished later.
    pub fn finish(self) -> Result<Finished, SegmentError> {
        if self.direct.is_longer() {
            self.file.set_len(self.recording.size())?;
        }
        let ahead = self.direct.is_open() && !self.direct.is_new();
        let index = Expected { index: self.recording.index_size(), more: self.another_gop(), ahead };
        Ok(Finished { index, ..finish(&self.file, self.recording)? })
    }
}

/// Where the frames of a fragment lie, whose first is at `offset`: each track's behind the other's.
fn stored(frames: &[Frame], mut offset: u64) -> Vec<Stored> {
    let mut stored = Vec::with_capacity(frames.len());
    for kind in [Kind::Video, Kind::Audio] {
        for frame in frames.iter().filter(|frame| frame.kind == kind) {
            let bytes = u32::try_from(frame.data.len()).unwrap_or(u32::MAX);
            let Frame { kind, dts, pts, is_sync, .. } = *frame;
            stored.push(Stored { offset, bytes, is_sync, kind, dts, pts });
            offset += u64::from(bytes);
        }
    }
    stored
}

fn finish(file: &File, recording: Recording) -> io::Result<Finished> {
    let (duration, amount) = (Duration::from_nanos(recording.duration_nanos()), recording.amount());
    let Finish { index, flip, size } = recording.finish();
    let mut written = flip.bytes.len() as u64;
    for write in &index {
        file.write_all_at(&write.bytes, write.offset)?;
        written += write.bytes.len() as u64;
    }
    file.sync_data()?;
    file.write_all_at(&flip.bytes, flip.offset)?;
    file.sync_data()?;
    Ok(Finished { bytes: size, written, duration, amount, ..Finished::default() })
}

/// Blocks of its own for the first `length` bytes, so that writing there later needs no room; `ahead`: for more, where the
/// file system has it. Gives up to where.
fn allocate(file: &File, length: u64, ahead: bool) -> io::Result<u64> {
    if ahead && fallocate(file, FallocateFlags::empty(), 0, length + AHEAD).is_ok() {
        return Ok(length + AHEAD);
    }
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = vec![0; usize::try_from(length).unwrap_or_default()];
            file.write_all_at(&zeros, 0)?;
        }
        done => done?,
    }
    Ok(length)
}

/// Writes what is only allocated in front of `end`. ext4 keeps a list of what is written and what is not, up to four pieces
/// inside the file's inode: with one piece less a commit changes three blocks less of its own.
fn fill(file: &File, end: u64) -> io::Result<()> {
    let empty = usize::try_from(end.saturating_sub(PAGE)).unwrap_or(usize::MAX);
    if empty > MOST_FILLED { Ok(()) } else { file.write_all_at(&vec![0; empty], PAGE) }
}

fn write_all(mut file: &File, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !pieces.is_empty() {
        let some = pieces.get(..pieces.len().min(MOST_PIECES)).unwrap_or_default();
        match file.write_vectored(some) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut pieces, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Why a file that was cut off is not whole now.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// No frame ever reached the disk.
    #[error("it is empty")]
    Nothing,
    /// The disk refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("{0}")]
    Beyond(String),
}

/// Makes a file whole that was cut off anywhere. `durable`: what is behind that was never confirmed by the disk.
///
/// # Errors
/// See [`RepairError`]; then the file is as it was, or shorter by what was not confirmed.
pub fn repair(path: &Path, durable: Option<u64>) -> Result<Finished, RepairError> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let bytes = file.metadata()?.len();
    if let Some(durable) = durable
        && durable < bytes
    {
        file.set_len(durable)?;
    }
    match recover(&mut file, durable.unwrap_or(0)) {
        Ok(Recovered::Complete { size }) => {
            Ok(Finished { bytes: size, duration: duration(file)?, ..Finished::default() })
        }
        Ok(Recovered::Open { recording, damaged }) => {
            let amount = recording.amount();
            if amount.pictures + amount.sounds == 0 {
                // What was never synced is one fragment at most.
                return if damaged == 0 || Content::of(&mut file)?.fragments <= 1 {
                    Err(RepairError::Nothing)
                } else {
                    Err(RepairError::Beyond(format!("all of its fragments ({damaged}) are damaged")))
                };
            }
            if damaged > 0 {
                tracing::warn!(fragments = damaged, "{}: what was not durable is left out", path.display());
            }
            file.set_len(recording.size())?;
            file.sync_all()?;
            Ok(finish(&file, recording)?)
        }
        Err(RecoverError::Io(error)) => Err(error.into()),
        Err(RecoverError::Boxes(Mp4Error { source: Mp4Fault::Io(error), .. })) => Err(error.into()),
        // As a fragmented file it plays all the same.
        Err(RecoverError::IndexFull { .. }) => {
            let bytes = file.metadata()?.len();
            Ok(Finished { bytes, duration: duration(file)?, ..Finished::default() })
        }
        Err(RecoverError::NoHead(_)) if Content::of(&mut file)?.is_part_of_a_head() => {
            Err(RepairError::Nothing)
        }
        Err(error) => Err(RepairError::Beyond(error.to_string())),
    }
}

/// What is in front of each fragment.
const FRAGMENT: &[u8] = b"freecrc1";
/// More than what a file begins with takes.
const HEAD_BYTES: usize = 16 << 10;

/// What is in a file that can't be read.
struct Content {
    fragments: usize,
    /// Bytes that are not zero.
    bytes: usize,
}

impl Content {
    fn of(file: &mut File) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        let mut found = Self { fragments: 0, bytes: 0 };
        let mut piece = vec![0; 1 << 16];
        let mut kept = 0;
        loop {
            let read = file.read(piece.get_mut(kept..).unwrap_or_default())?;
            if read == 0 {
                return Ok(found);
            }
            let bytes = piece.get(..kept + read).unwrap_or_default();
            found.fragments += bytes.windows(FRAGMENT.len()).filter(|window| *window == FRAGMENT).count();
            found.bytes += bytes.iter().skip(kept).filter(|byte| **byte != 0).count();
            // One may lie across two pieces.
            let rest = bytes.len().min(FRAGMENT.len() - 1);
            let from = bytes.len() - rest;
            piece.copy_within(from..from + rest, 0);
            kept = rest;
        }
    }

    /// A file that was only just begun.
    fn is_part_of_a_head(&self) -> bool {
        self.fragments == 0 && self.bytes <= HEAD_BYTES
    }
}

/// What a whole file says of itself; nothing, where it can't be read.
fn duration(file: File) -> io::Result<Duration> {
    match Mp4::open(file) {
        Ok(mp4) => {
            let end = Playback::new(mp4, Duration::ZERO).loop_start(1);
            Ok(Duration::from_nanos(u64::try_from(end.nanos()).unwrap_or_default()))
        }
        Err(Mp4Error { source: Mp4Fault::Io(error), .. }) => Err(error),
        Err(_) => Ok(Duration::ZERO),
    }
}

#[cfg(test)]
mod tests;
