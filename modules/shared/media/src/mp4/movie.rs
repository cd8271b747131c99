//! `moov` (§8.2): the tracks of a file.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use mp4_atom::{Elst, FourCC, Mdhd, Mvhd, Tkhd, Trex};

use super::boxes::BoxBody;
use super::samples::SampleTable;
use super::{IgnoredReason, IgnoredTrack, Mp4Error, Mp4Fault, Mp4Track, entry, tables};
use crate::{Kind, Track};

/// Edits of one track that are read at most; files have one or two.
const MAX_EDITS: usize = 32;
/// Tracks with defaults for fragments that are known at most.
const MAX_TRACKS: usize = 4096;

/// What `moov` says, and then what the fragments add.
#[derive(Debug)]
pub(super) struct Movie {
    pub(super) timescale: NonZeroU32,
    pub(super) tracks: Vec<MovieTrack>,
    pub(super) ignored: Vec<IgnoredTrack>,
    /// `trex` by `track_ID`.
    pub(super) defaults: BTreeMap<u32, Trex>,
    max_samples: u32,
}

/// A track that is read.
#[derive(Debug)]
pub(super) struct MovieTrack {
    pub(super) id: u32,
    pub(super) track: Track,
    pub(super) timescale: NonZeroU32,
    pub(super) edits: Vec<Edit>,
    /// The sample description that the track's configuration is from.
    pub(super) description: u32,
    pub(super) samples: SampleTable,
}

/// One entry of an edit list (§8.6.6).
#[derive(Clone, Copy, Debug)]
pub(super) struct Edit {
    /// Ticks of the movie's timescale; 0 for all that there is.
    pub(super) duration: u64,
    /// Where in the media it starts, in ticks of the track's timescale; `None` presents nothing.
    pub(super) media_time: Option<i64>,
}

impl Movie {
    /// Reads `moov`; all tracks together, the fragments' samples included, may have `max_samples`.
    pub(super) fn parse(moov: &BoxBody, max_samples: u32) -> Result<Self, Mp4Error> {
        let mvhd_box = moov.need(b"mvhd")?;
        let timescale = timescale(&mvhd_box, mvhd_box.decode::<Mvhd>()?.timescale)?;
        let mut movie = Self {
            timescale,
            tracks: Vec::new(),
            ignored: Vec::new(),
            defaults: BTreeMap::new(),
            max_samples,
        };
        if let Some(mvex) = moov.find(b"mvex")? {
            for child in mvex.children(0)? {
                let child = child?;
                if child.is(b"trex") {
                    let defaults: Trex = child.decode()?;
                    movie.defaults.insert(defaults.track_id, defaults);
                }
                if movie.defaults.len() > MAX_TRACKS {
                    let (value, most) = (movie.defaults.len() as u64, MAX_TRACKS as u64);
                    return Err(mvex.error(Mp4Fault::TooMany { what: "tracks", value, most }));
                }
            }
        }
        for child in moov.children(0)? {
            let child = child?;
            if child.is(b"trak") {
                movie.add(&child)?;
            }
        }
        movie.tracks.sort_by_key(|track| track.track.kind());
        Ok(movie)
    }

    /// Reads a `trak`: into the tracks, or into those left aside.
    fn add(&mut self, trak: &BoxBody) -> Result<(), Mp4Error> {
        let tkhd: Tkhd = trak.need(b"tkhd")?.decode()?;
        let id = tkhd.track_id;
        match self.read(trak, &tkhd)? {
            Ok(track) => self.tracks.push(track),
            Err(reason) => self.ignored.push(IgnoredTrack { id, reason }),
        }
        Ok(())
    }

    fn read(&self, trak: &BoxBody, tkhd: &Tkhd) -> Result<Result<MovieTrack, IgnoredReason>, Mp4Error> {
        let mdia = trak.need(b"mdia")?;
        let handler = handler(&mdia.need(b"hdlr")?)?;
        let kind = match &handler.into() {
            b"vide" => Kind::Video,
            b"soun" => Kind::Audio,
            _ => return Ok(Err(IgnoredReason::Handler(handler))),
        };
        if !tkhd.enabled {
            return Ok(Err(IgnoredReason::Disabled));
        }
        let stbl = mdia.need(b"minf")?.need(b"stbl")?;
        let stsd = stbl.need(b"stsd")?;
        // Version, flags and entry_count stand before the entries.
        let first = stsd.children(8)?.next().transpose()?;
        let first = first.ok_or_else(|| stsd.error(Mp4Fault::Value { field: "entry_count", value: 0 }))?;
        let track = match entry::track(&first, kind)? {
            Ok(track) => track,
            Err(reason) => return Ok(Err(reason)),
        };
        if self.tracks.iter().any(|other| other.track.kind() == kind) {
            return Ok(Err(IgnoredReason::Second(kind)));
        }
        let tables = tables::read(&stbl, self.samples_left())?;
        if tables.description != Some(1) {
            return Ok(Err(IgnoredReason::SeveralDescriptions));
        }
        let mdhd_box = mdia.need(b"mdhd")?;
        let timescale = timescale(&mdhd_box, mdhd_box.decode::<Mdhd>()?.timescale)?;
        Ok(Ok(MovieTrack {
            id: tkhd.track_id,
            track,
            timescale,
            edits: edits(trak)?,
            description: 1,
            samples: tables.samples,
        }))
    }

    /// Samples that may still come.
    pub(super) fn samples_left(&self) -> u32 {
        self.tracks.iter().fold(self.max_samples, |left, track| left.saturating_sub(track.samples.count()))
    }

    /// Puts empty tracks aside, and fills in what only the whole table tells.
    pub(super) fn finish(&mut self) {
        let ignored = &mut self.ignored;
        self.tracks.retain(|track| {
            let empty = track.samples.count() == 0;
            if empty {
                ignored.push(IgnoredTrack { id: track.id, reason: IgnoredReason::Empty });
            }
            !empty
        });
        for track in &mut self.tracks {
            track.samples.shrink();
            let ticks = track.samples.duration();
            if track.track.kind() == Kind::Video && track.track.video.fps.is_none() && ticks > 0 {
                let seconds = ticks as f64 / f64::from(track.timescale.get());
                track.track.video.fps = Some(f64::from(track.samples.count()) / seconds);
            }
        }
    }
}

impl MovieTrack {
    pub(super) fn describe(&self) -> Mp4Track {
        Mp4Track {
            id: self.id,
            track: self.track.clone(),
            timescale: self.timescale,
            sample_count: self.samples.count(),
        }
    }
}

fn timescale(header: &BoxBody, timescale: u32) -> Result<NonZeroU32, Mp4Error> {
    NonZeroU32::new(timescale).ok_or_else(|| header.error(Mp4Fault::Value { field: "timescale", value: 0 }))
}

/// `handler_type` (§8.4.3). The name behind it may be in any encoding and is left alone.
fn handler(hdlr: &BoxBody) -> Result<FourCC, Mp4Error> {
    let handler = hdlr.body.get(8..).and_then(|rest| rest.first_chunk::<4>());
    let have = hdlr.body.len() as u64;
    handler.map(FourCC::new).ok_or_else(|| hdlr.error(Mp4Fault::Truncated { need: 12, have }))
}

fn edits(trak: &BoxBody) -> Result<Vec<Edit>, Mp4Error> {
    let Some(edts) = trak.find(b"edts")? else { return Ok(Vec::new()) };
    let Some(elst_box) = edts.find(b"elst")? else { return Ok(Vec::new()) };
    let elst: Elst = elst_box.decode()?;
    if elst.entries.len() > MAX_EDITS {
        let (value, most) = (elst.entries.len() as u64, MAX_EDITS as u64);
        return Err(elst_box.error(Mp4Fault::TooMany { what: "edits", value, most }));
    }
    let edit = |entry: &mp4_atom::ElstEntry| {
        let media_time = entry.media_time.and_then(|ticks| i64::try_from(ticks).ok());
        // A rate of 0 shows one picture for the whole edit: nothing has to be sent for that.
        let dwell = entry.media_rate == 0.into();
        Edit { duration: entry.segment_duration, media_time: media_time.filter(|_| !dwell) }
    };
    Ok(elst.entries.iter().map(edit).collect())
}

/// The fields of `trex` for a track that has none.
pub(super) const NO_DEFAULTS: Trex = Trex {
    track_id: 0,
    default_sample_description_index: 1,
    default_sample_duration: 0,
    default_sample_size: 0,
    default_sample_flags: 0,
};
