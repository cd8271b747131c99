//! A recording: an MP4 file that is whole at any moment, and an ordinary one in the end, without ever being rewritten.
//!
//! ```text
//! while it is written   ftyp  free (the reserve)             moov  moof mdat  moof mdat ...
//! when it is finished   ftyp  moov (the index)  free  mdat ( moov  moof mdat  moof mdat ... )
//! ```
//!
//! The first is a fragmented file with a hole in front, which players read. At the end the index goes into the hole with
//! what is left of it and the header of an `mdat` around all the rest; when that is durable, one write of eight bytes
//! inside one sector turns `free` into `moov`. Before each fragment stands a checksum in a `free` box of 16 bytes: after a
//! power cut it tells what was written from what only has the length of it.

use std::num::NonZeroU32;

use bytes::{BufMut, Bytes};

use super::fragment::{Fragment, FragmentWriter};
use super::header::{Durations, put_fragmented_moov, put_ftyp, put_mvhd, put_trak};
use super::tables::Tables;
use super::track::TrackWriter;
use super::{MuxError, put_box, put_full_box};
use crate::{Frame, Kind, Timestamp, Track};

mod recover;

pub use recover::{RecoverError, Recovered, recover};

/// Bytes of `ftyp`: the box behind it, whose header is changed at the end, lies inside one sector.
const FTYP: u64 = 32;
/// The last thing in the reserve: an `mdat` header with a size of 64 bits.
const MDAT_HEADER: u64 = 16;
/// Reserves end where a page of the file ends.
const PAGE: u64 = 4096;
/// The index is one box with a size of 32 bits, and stays one that readers take.
const MAX_RESERVE: u64 = 64 << 20;
/// The box in front of a fragment.
pub(super) const CHECKSUM: usize = 16;
const CHECKSUM_NAME: &[u8; 4] = b"crc1";
/// Ticks of the movie: pictures are exact, sound is to 6 us.
const MOVIE_TIMESCALE: NonZeroU32 = NonZeroU32::new(90_000).unwrap();
/// `moov`, `mvhd`, and of a track what is neither its sample entry nor its tables: at most.
const MOVIE_BOXES: u64 = 8 + 120;
const TRACK_BOXES: u64 = 8 + 104 + 64 + 8 + 44 + 45 + 8 + 20 + 36 + 8 + 16 + 5 * 16 + 20;

/// Bytes, and where in the file they belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// From the start of the file.
    pub offset: u64,
    /// What goes there.
    pub bytes: Bytes,
}

/// How an open file becomes a finished one: all of `index`, a sync, `flip`, a sync. The fragments have to be durable
/// before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Into the reserve.
    pub index: Vec<Write>,
    /// Eight bytes inside one sector of 512 bytes.
    pub flip: Write,
    /// Bytes of the file; what is behind them, after a crash, is cut off before.
    pub size: u64,
}

/// How much of what is in a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Pictures.
    pub pictures: u64,
    /// Frames of sound.
    pub sounds: u64,
    /// Fragments.
    pub fragments: u64,
}

/// A file that is being recorded.
#[derive(Debug)]
pub struct Recording {
    writer: FragmentWriter,
    tables: Vec<Tables>,
    /// Where the reserve ends and the fragmented file begins.
    reserve_end: u64,
    /// Where the next fragment goes.
    size: u64,
    amount: Amount,
}

impl Recording {
    /// Starts a file for these tracks; `origin` is about when its first frame is decoded, and none before it is placed
    /// right. `reserve` is how many bytes are kept for the index: see [`reserve`](Self::reserve).
    ///
    /// # Errors
    ///
    /// As [`FragmentWriter::new`].
    pub fn start(tracks: &[Track], origin: Timestamp, reserve: u64) -> Result<Self, MuxError> {
        let writer = FragmentWriter::new(tracks, origin)?;
        let reserve = reserve.min(MAX_RESERVE).max(fixed(writer.tracks()) + 8 + MDAT_HEADER);
        let reserve_end = (FTYP + reserve).next_multiple_of(PAGE);
        Ok(Self::with(writer, reserve_end))
    }

    fn with(mut writer: FragmentWriter, reserve_end: u64) -> Self {
        writer.set_open();
        let tables = writer.tracks().iter().map(|track| Tables::new(track.kind)).collect();
        let mut moov = Vec::new();
        put_fragmented_moov(&mut moov, writer.tracks());
        let size = reserve_end + moov.len() as u64;
        Self { writer, tables, reserve_end, size, amount: Amount::default() }
    }

    /// A reserve that holds the index of so much.
    ///
    /// # Errors
    ///
    /// As [`FragmentWriter::new`].
    pub fn reserve(tracks: &[Track], amount: Amount) -> Result<u64, MuxError> {
        let writer = FragmentWriter::new(tracks, Timestamp::ZERO)?;
        Ok(fixed(writer.tracks()) + growth(amount) + 8 + MDAT_HEADER)
    }

    /// What the file begins with. Between the two lies the reserve: it has to be allocated, whatever is in it.
    pub fn head(&self) -> [Write; 2] {
        let mut front = Vec::new();
        put_ftyp(&mut front, &[b"isom", b"iso6", b"mp41", b"mp42"]);
        front.put_u32((self.reserve_end - FTYP) as u32);
        front.put_slice(b"free");
        let mut moov = Vec::new();
        put_fragmented_moov(&mut moov, self.writer.tracks());
        [Write { offset: 0, bytes: front.into() }, Write { offset: self.reserve_end, bytes: moov.into() }]
    }

    /// Appends frames as one fragment, as [`FragmentWriter::fragment`]; it goes to where [`size`](Self::size) was before.
    ///
    /// # Errors
    ///
    /// Its samples do not fit the index any more, and nothing was taken: the file has to end before them. Or it is
    /// larger than 2 GiB.
    pub fn fragment(
        &mut self,
        frames: &[Frame],
        end: Option<Timestamp>,
    ) -> Result<Option<Fragment>, MuxError> {
        let pictures = frames.iter().filter(|frame| frame.kind == Kind::Video).count() as u64;
        let more = Amount { pictures, sounds: frames.len() as u64 - pictures, fragments: 1 };
        if !self.has_room_for(more) {
            return Err(MuxError::IndexFull { reserve: self.reserve_end - FTYP });
        }
        let Some(fragment) = self.writer.fragment_behind(CHECKSUM, frames, end)? else { return Ok(None) };
        let offset = self.size + fragment.header.len() as u64;
        let fragment = Fragment { header: with_checksum(&fragment), ..fragment };
        let mut at = offset;
        for run in self.writer.runs() {
            if let Some(tables) = self.tables.get_mut(run.track) {
                tables.push(run.decode_time, self.writer.samples(run), at);
            }
            at += run.bytes;
        }
        self.add(more, self.size + fragment.size);
        Ok(Some(fragment))
    }

    /// So much more is in the file, which ends at `end` now.
    fn add(&mut self, more: Amount, end: u64) {
        self.size = end;
        self.amount.pictures += more.pictures;
        self.amount.sounds += more.sounds;
        self.amount.fragments += more.fragments;
    }

    /// Bytes of the file so far: where the next fragment goes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Where the reserve ends: what is in front of it has to be allocated.
    pub const fn reserve_end(&self) -> u64 {
        self.reserve_end
    }

    /// How much was recorded.
    pub const fn amount(&self) -> Amount {
        self.amount
    }

    /// Bytes that the index would take now, at most.
    pub fn index_size(&self) -> u64 {
        fixed(self.writer.tracks()) + self.tables.iter().map(Tables::bytes).sum::<u64>()
    }

    /// Whether the index of so much more still fits the reserve, however it turns out. Where a GOP like the last one does
    /// not fit, the file should end at this sync frame.
    pub fn has_room_for(&self, more: Amount) -> bool {
        let needed = self.index_size() + growth(more) + 8 + MDAT_HEADER;
        FTYP + needed <= self.reserve_end
    }

    /// Memory that the sample tables take, in bytes.
    pub fn memory(&self) -> usize {
        self.tables.iter().map(Tables::memory).sum()
    }

    /// How long the file plays, in nanoseconds, as far as its samples are written.
    pub fn duration_nanos(&self) -> u64 {
        let tracks = self.writer.tracks().iter().zip(&self.tables);
        let nanos = tracks.map(|(track, tables)| {
            let ticks = i64::try_from(tables.duration()).unwrap_or(i64::MAX);
            Timestamp::from_ticks(ticks, track.timescale).nanos().unsigned_abs()
        });
        nanos.max().unwrap_or(0)
    }

    /// Ends the file.
    pub fn finish(mut self) -> Finish {
        self.tables.iter_mut().for_each(Tables::close);
        let moov = self.index();
        let reserve = self.reserve_end - FTYP;
        // Both fit: see `has_room_for`.
        let size = moov.len() as u64;
        let free = reserve.saturating_sub(size + MDAT_HEADER);
        let (head, body) = moov.split_at(8.min(moov.len()));
        let mut rest = body.to_vec();
        rest.put_u32(free as u32);
        rest.put_slice(b"free");
        let mut mdat = Vec::new();
        mdat.put_u32(1);
        mdat.put_slice(b"mdat");
        mdat.put_u64(MDAT_HEADER + self.size - self.reserve_end);
        let index = vec![
            Write { offset: FTYP + 8, bytes: rest.into() },
            Write { offset: self.reserve_end - MDAT_HEADER, bytes: mdat.into() },
        ];
        let flip = Write { offset: FTYP, bytes: Bytes::copy_from_slice(head) };
        Finish { index, flip, size: self.size }
    }

    /// A whole `moov` with sample tables and edit lists (§8.6.6): where a track is shown first, and what of it.
    fn index(&self) -> Vec<u8> {
        let tracks = || self.writer.tracks().iter().zip(&self.tables).filter(|(_, t)| t.count() > 0);
        let shown = |(track, tables): (&TrackWriter, &Tables)| {
            let (start, composition) = tables.first().unwrap_or_default();
            in_movie(start + u64::from(composition), track.timescale)
        };
        let zero = tracks().map(shown).min().unwrap_or(0);
        let mut movie = 0;
        let plans: Vec<_> = tracks()
            .map(|(track, tables)| {
                let wait = shown((track, tables)) - zero;
                let length = in_movie_up(tables.shown(), track.timescale);
                movie = movie.max(wait + length);
                (track, tables, wait, length)
            })
            .collect();
        let mut out = Vec::with_capacity(usize::try_from(self.index_size()).unwrap_or(0));
        put_box(&mut out, b"moov", |out| {
            put_mvhd(out, MOVIE_TIMESCALE, movie, self.writer.tracks());
            for (track, tables, wait, length) in plans {
                let media_time = tables.first().map_or(0, |(_, composition)| composition);
                put_trak(
                    out,
                    track,
                    Durations { movie: wait + length, media: tables.duration() },
                    |out| put_edits(out, wait, length, media_time),
                    |out| tables.put(out),
                );
            }
        });
        out
    }
}

/// Bytes of an index without samples, at most.
fn fixed(tracks: &[TrackWriter]) -> u64 {
    let tracks = tracks.iter().map(|track| TRACK_BOXES + track.entry.len() as u64);
    MOVIE_BOXES + tracks.sum::<u64>()
}

/// Bytes that so much more adds to an index at most.
fn growth(more: Amount) -> u64 {
    more.pictures * Tables::PICTURE + more.sounds * Tables::SOUND + more.fragments * 2 * Tables::CHUNK
}

/// `elst`: nothing for so long, then all of the track from this time of its media on.
fn put_edits(out: &mut Vec<u8>, wait: u64, length: u64, media_time: u32) {
    put_box(out, b"edts", |out| {
        put_full_box(out, b"elst", 1, 0, |out| {
            out.put_u32(if wait > 0 { 2 } else { 1 });
            if wait > 0 {
                out.put_u64(wait);
                out.put_i64(-1);
                out.put_u32(0x1_0000);
            }
            out.put_u64(length);
            out.put_i64(media_time.into());
            out.put_u32(0x1_0000);
        });
    });
}

/// Ticks of a track in those of the movie, to the nearest.
fn in_movie(ticks: u64, timescale: NonZeroU32) -> u64 {
    scaled(ticks, timescale, u128::from(timescale.get()) / 2)
}

/// The same, rounded up: no sample's end is cut off.
fn in_movie_up(ticks: u64, timescale: NonZeroU32) -> u64 {
    scaled(ticks, timescale, u128::from(timescale.get()) - 1)
}

fn scaled(ticks: u64, timescale: NonZeroU32, round: u128) -> u64 {
    let product = u128::from(ticks) * u128::from(MOVIE_TIMESCALE.get()) + round;
    u64::try_from(product / u128::from(timescale.get())).unwrap_or(u64::MAX)
}

/// The fragment's header with the checksum of all that is behind it in the room that was left in front.
fn with_checksum(fragment: &Fragment) -> Bytes {
    let mut header = fragment.header.to_vec();
    let mut sum = crc32fast::Hasher::new();
    sum.update(header.get(CHECKSUM..).unwrap_or_default());
    fragment.media.iter().for_each(|piece| sum.update(piece));
    if let Some(room) = header.first_chunk_mut::<CHECKSUM>() {
        *room = checksum_box(sum.finalize());
    }
    header.into()
}

fn checksum_box(sum: u32) -> [u8; CHECKSUM] {
    let mut out = [0; CHECKSUM];
    let mut rest = &mut out[..];
    rest.put_u32(CHECKSUM as u32);
    rest.put_slice(b"free");
    rest.put_slice(CHECKSUM_NAME);
    rest.put_u32(sum);
    out
}

#[cfg(test)]
mod tests;
