//! Files that were cut off: their samples are in their fragments still.

use std::io::{self, Read, Seek, SeekFrom};

use super::{CHECKSUM, CHECKSUM_NAME, FTYP, MAX_RESERVE, MDAT_HEADER, PAGE, Recording, checksum_box};
use crate::mp4::boxes::{BoxBody, FileBoxes, read_at};
use crate::mp4::movie::Movie;
use crate::mp4::write::fragment::{FragmentWriter, NON_SYNC_FLAG};
use crate::mp4::write::track::Sample;
use crate::mp4::{MAX_INDEX, MAX_SAMPLES, Mp4Error};
use crate::{Kind, Timestamp, Track};

/// The head of a fragment is read into memory; larger ones are not written here.
const MAX_HEAD: u64 = 8 << 20;
/// Media is read in such pieces for its checksum.
const PIECE: u64 = 1 << 17;
/// How often a file is read at most.
const MOST_READ: u64 = 4;

/// What became of a file.
#[derive(Debug)]
pub enum Recovered {
    /// It had been finished.
    Complete {
        /// Bytes of the file.
        size: u64,
    },
    /// It had not: after its length has been cut to [`Recording::size`], it can be finished.
    Open {
        /// With all samples of its whole fragments.
        recording: Recording,
        /// Pieces of the file that never reached the disk, or were damaged there: they are left out.
        damaged: u64,
    },
}

/// Why a file can't be recovered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// It can't be read.
    #[error("it can't be read")]
    Io(#[from] io::Error),
    /// Its boxes can't be read.
    #[error("its boxes can't be read")]
    Boxes(#[from] Mp4Error),
    /// It does not begin as a recording does, or was cut before its tracks were written.
    #[error("it is not a recording, or was cut off in its first {0} bytes")]
    NoHead(u64),
    /// The index of its samples does not fit the reserve: as a fragmented file it plays all the same.
    #[error("its index takes more than the {reserve} bytes that are kept for it")]
    IndexFull {
        /// Bytes of the reserve.
        reserve: u64,
    },
}

/// Reads what is in a recording, whether it had been finished or not. Up to byte `trusted` it is taken as it is (a sync
/// was confirmed behind it); what follows is read as a whole and held against its checksums. Memory is bounded by the
/// file's reserve.
///
/// # Errors
///
/// It can't be read, it is no recording, or its head never reached the disk.
pub fn recover<R: Read + Seek>(reader: &mut R, trusted: u64) -> Result<Recovered, RecoverError> {
    let size = reader.seek(SeekFrom::End(0))?;
    let reserve_end = match head(reader, size)? {
        Head::Complete => return Ok(Recovered::Complete { size }),
        Head::Open { reserve_end } => reserve_end,
    };
    let no_head = RecoverError::NoHead(reserve_end);
    let mut boxes = FileBoxes::starting_at(reader, reserve_end)?;
    let moov = match boxes.next_box()? {
        Some(found) if found.kind == b"moov".into() && found.cut(size).is_none() => {
            boxes.load(&found, MAX_HEAD)?
        }
        _ => return Err(no_head),
    };
    let Some(writer) = writer_of(&moov) else { return Err(no_head) };
    let mut recording = Recording::with(writer, reserve_end);
    if recording.size != boxes.at() {
        return Err(no_head);
    }
    let damaged = fragments(reader, size, trusted, &mut recording)?;
    Ok(Recovered::Open { recording, damaged })
}

/// Takes all fragments that are whole. Gives how many pieces between them are not.
fn fragments<R: Read + Seek>(
    reader: &mut R,
    size: u64,
    trusted: u64,
    recording: &mut Recording,
) -> Result<u64, RecoverError> {
    let (mut damaged, mut at) = (0, recording.size);
    // What looks like a fragment inside of media costs reading, so not for ever.
    let mut budget = size.saturating_mul(MOST_READ);
    let (mut is_lost, mut was_whole) = (false, false);
    while budget > 0 {
        if let Some((found, end)) = Found::at(reader, at, size)? {
            budget = budget.saturating_sub(end - at);
            let is_sure = end <= trusted && !is_lost;
            let is_intact = is_sure || found.is_intact(reader, end)?;
            if let Some(runs) = is_intact.then(|| found.runs(recording, end)).flatten() {
                recording.take(&runs, end)?;
                damaged += u64::from(is_lost);
                (is_lost, was_whole, at) = (false, false, end);
                continue;
            }
            was_whole = true;
        }
        is_lost = true;
        let Some(next) = next_checksum(reader, at + 1)? else { break };
        budget = budget.saturating_sub(next - at);
        at = next;
    }
    // The last one may simply not be whole yet.
    Ok(damaged + u64::from(is_lost && was_whole))
}

/// Where the next box with a checksum begins, from `at` on.
fn next_checksum<R: Read + Seek>(reader: &mut R, mut at: u64) -> Result<Option<u64>, RecoverError> {
    let wanted: Vec<u8> = checksum_box(0).into_iter().take(CHECKSUM - 4).collect();
    loop {
        let piece = read_at(reader, at, PIECE)?;
        if let Some(found) = piece.windows(wanted.len()).position(|bytes| bytes == wanted) {
            return Ok(Some(at + found as u64));
        }
        if (piece.len() as u64) < PIECE {
            return Ok(None);
        }
        at += PIECE - wanted.len() as u64;
    }
}

enum Head {
    Complete,
    Open { reserve_end: u64 },
}

/// `ftyp`, and the reserve in one of its two states.
fn head<R: Read + Seek>(reader: &mut R, size: u64) -> Result<Head, RecoverError> {
    let no_head = || RecoverError::NoHead(FTYP + 8);
    let mut boxes = FileBoxes::new(reader)?;
    let is = |kind: &[u8; 4], wanted: &[u8; 4]| kind == wanted;
    let first = boxes.next_box()?.ok_or_else(no_head)?;
    if !is(&first.kind.into(), b"ftyp") || boxes.at() != FTYP {
        return Err(no_head());
    }
    let second = boxes.next_box()?.ok_or_else(no_head)?;
    let reserve_end = match &second.kind.into() {
        b"free" => boxes.at(),
        b"moov" => {
            let index_end = boxes.at();
            let _free =
                boxes.next_box()?.filter(|found| is(&found.kind.into(), b"free")).ok_or_else(no_head)?;
            let reserve_end = boxes.at() + MDAT_HEADER;
            let mdat =
                boxes.next_box()?.filter(|found| is(&found.kind.into(), b"mdat")).ok_or_else(no_head)?;
            if mdat.cut(size).is_none() && boxes.at() == size && index_end < size {
                return Ok(Head::Complete);
            }
            reserve_end
        }
        _ => return Err(no_head()),
    };
    if reserve_end > size || reserve_end > FTYP + MAX_RESERVE + PAGE {
        return Err(no_head());
    }
    Ok(Head::Open { reserve_end })
}

/// What writes these tracks, if it is this writer that did.
fn writer_of(moov: &BoxBody) -> Option<FragmentWriter> {
    let movie = Movie::parse(moov, MAX_SAMPLES, MAX_INDEX);
    let described: Vec<_> = movie.tracks.iter().map(|track| track.describe()).collect();
    let tracks: Vec<Track> =
        described.iter().filter_map(|track| track.configurations.first().cloned()).collect();
    let writer = FragmentWriter::new(&tracks, Timestamp::ZERO).ok()?;
    let same = writer.tracks().len() == described.len()
        && writer.tracks().iter().all(|own| {
            described
                .iter()
                .any(|track| (track.id, track.kind, track.timescale) == (own.id, own.kind, own.timescale))
        });
    same.then_some(writer)
}

/// A fragment with the checksum in front of it.
struct Found {
    offset: u64,
    sum: u32,
    moof: BoxBody,
    media: u64,
}

/// Samples of one track in a fragment, and where they begin in the file.
pub(super) struct Run {
    track: usize,
    decode_time: u64,
    samples: Vec<Sample>,
    offset: u64,
}

impl Found {
    /// The fragment at byte `at` and where it ends, if all its boxes are there.
    fn at<R: Read + Seek>(reader: &mut R, at: u64, size: u64) -> Result<Option<(Self, u64)>, RecoverError> {
        let mut boxes = FileBoxes::starting_at(reader, at)?;
        let Some(sum) = boxes.next_box()? else { return Ok(None) };
        if sum.kind != b"free".into() || boxes.at() - at != CHECKSUM as u64 {
            return Ok(None);
        }
        let body = boxes.load(&sum, CHECKSUM as u64)?;
        let (Some(name), Some(value)) = (body.u32_at(0), body.u32_at(4)) else { return Ok(None) };
        if name.to_be_bytes() != *CHECKSUM_NAME {
            return Ok(None);
        }
        let Some(moof) = boxes.next_box()? else { return Ok(None) };
        if moof.kind != b"moof".into() || moof.cut(size).is_some() || boxes.at() - moof.offset > MAX_HEAD {
            return Ok(None);
        }
        let head = boxes.load(&moof, MAX_HEAD)?;
        let media = boxes.at() + 8;
        match boxes.next_box()? {
            Some(mdat) if mdat.kind == b"mdat".into() && mdat.cut(size).is_none() => {}
            _ => return Ok(None),
        }
        Ok(Some((Self { offset: at, sum: value, moof: head, media }, boxes.at())))
    }

    fn is_intact<R: Read + Seek>(&self, reader: &mut R, end: u64) -> Result<bool, RecoverError> {
        let mut sum = crc32fast::Hasher::new();
        let mut at = self.offset + CHECKSUM as u64;
        while at < end {
            let piece = read_at(reader, at, PIECE.min(end - at))?;
            if piece.is_empty() {
                return Ok(false);
            }
            sum.update(&piece);
            at += piece.len() as u64;
        }
        Ok(sum.finalize() == self.sum)
    }

    /// What `moof` says, if all of it is in the file.
    fn runs(&self, recording: &Recording, end: u64) -> Option<Vec<Run>> {
        let trafs = self.moof.children(0).filter(|child| child.is(b"traf"));
        let runs: Vec<Run> = trafs.map(|traf| self.run(recording, &traf, end)).collect::<Option<_>>()?;
        (!runs.is_empty()).then_some(runs)
    }

    fn run(&self, recording: &Recording, traf: &BoxBody, end: u64) -> Option<Run> {
        let (tfhd, tfdt, trun) = (traf.find(b"tfhd")?, traf.find(b"tfdt")?, traf.find(b"trun")?);
        let id = tfhd.u32_at(4)?;
        let (track, writer) = recording.writer.tracks().iter().enumerate().find(|(_, t)| t.id == id)?;
        let mut at = 8;
        let mut field = |body: &BoxBody, is_there: bool| {
            at += if is_there { 4 } else { 0 };
            if is_there { body.u32_at(at - 4) } else { Some(0) }
        };
        let duration = field(&tfhd, tfhd.flags() & 0x08 != 0)?;
        let default_flags = field(&tfhd, tfhd.flags() & 0x20 != 0)?;
        let flags = trun.flags();
        let has = |bit: u32| flags & bit != 0;
        // The sizes are always there, so that a count is never more than there are bytes.
        if !has(0x01) || !has(0x200) {
            return None;
        }
        let decode_time = tfdt.u64_at(4)?;
        let offset = self.moof.offset + u64::from(trun.u32_at(8)?);
        at = 12;
        let mut field = |is_there: bool, default: u32| {
            if !is_there {
                return Some(default);
            }
            at += 4;
            trun.u32_at(at - 4)
        };
        let first_flags = field(has(0x04), default_flags)?;
        let mut samples = Vec::new();
        let mut bytes = 0;
        for index in 0..trun.u32_at(4)? {
            let duration = field(has(0x100), duration)?;
            let size = field(true, 0)?;
            let flags = field(has(0x400), if index == 0 { first_flags } else { default_flags })?;
            let composition = field(has(0x800), 0)?;
            bytes += u64::from(size);
            let is_video = writer.kind == Kind::Video;
            samples.push(Sample {
                duration,
                size,
                composition: if is_video { composition } else { 0 },
                is_sync: !is_video || flags & NON_SYNC_FLAG == 0,
            });
        }
        let is_inside = offset >= self.media && offset.saturating_add(bytes) <= end;
        (is_inside && !samples.is_empty()).then_some(Run { track, decode_time, samples, offset })
    }
}

impl Recording {
    /// Takes a fragment that is in the file already and ends at `end`.
    fn take(&mut self, runs: &[Run], end: u64) -> Result<(), RecoverError> {
        let mut more = super::Amount { fragments: 1, ..Default::default() };
        for run in runs {
            let is_video = self.writer.tracks().get(run.track).is_some_and(|t| t.kind == Kind::Video);
            *if is_video { &mut more.pictures } else { &mut more.sounds } += run.samples.len() as u64;
        }
        if !self.has_room_for(more) {
            return Err(RecoverError::IndexFull { reserve: self.reserve_end - FTYP });
        }
        for run in runs {
            if let Some(tables) = self.tables.get_mut(run.track) {
                tables.push(run.decode_time, &run.samples, run.offset);
            }
        }
        self.add(more, end);
        Ok(())
    }
}
