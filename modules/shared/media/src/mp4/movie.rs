//! `moov` (§8.2): the tracks of a file.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use mp4_atom::FourCC;

use super::boxes::{BadBox, BoxBody};
use super::error::BoxFault;
use super::fragments::Defaults;
use super::samples::{Lost, SampleTable, UNUSABLE};
use super::{IgnoredReason, IgnoredTrack, MediaTime, Mp4Track, entry, tables};
use crate::{Kind, Track};

/// Edits of one track that are read at most.
const MAX_EDITS: usize = 8192;
/// Tracks that are looked at, and tracks with defaults for fragments, at most.
const MAX_TRACKS: usize = 4096;
/// Sample entries of a track that are looked at, at most.
const MAX_ENTRIES: usize = 256;

/// What `moov` says, and then what the fragments add.
#[derive(Debug)]
pub(super) struct Movie {
    /// Ticks per second of edit durations; `None` where the header can't be read.
    pub(super) timescale: Option<NonZeroU32>,
    /// Those that could be played.
    pub(super) tracks: Vec<MovieTrack>,
    /// The others, each with its place among all.
    pub(super) ignored: Vec<(usize, IgnoredTrack)>,
    /// `trex` by `track_ID`.
    pub(super) defaults: BTreeMap<u32, Defaults>,
    /// Nanoseconds that the fragments of the last track are later than they say whose clock went back.
    pub(super) shift: i64,
    max_samples: u32,
    /// Memory that the samples of all tracks take.
    pub(super) index_bytes: usize,
    max_bytes: usize,
}

/// A track that can be played, if it has samples.
#[derive(Debug)]
pub(super) struct MovieTrack {
    pub(super) id: u32,
    /// Its place among all tracks.
    pub(super) order: usize,
    pub(super) kind: Kind,
    pub(super) codec: FourCC,
    pub(super) enabled: bool,
    /// By content: sample entries that say the same are one.
    pub(super) configurations: Vec<Track>,
    /// For each sample entry, which configuration it is.
    entries: Vec<u16>,
    pub(super) edits: Vec<Edit>,
    /// Ticks, by the track's header; 0 where it doesn't say.
    pub(super) media_duration: u64,
    pub(super) samples: SampleTable,
    /// Samples that can't be given, once the table is settled.
    pub(super) lost: Lost,
    /// Ticks that its fragments are later than they say: their clock went back.
    pub(super) shift: i64,
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
    /// Reads `moov`; all tracks together, the fragments' samples included, may have `max_samples`, which may
    /// take `max_bytes`.
    pub(super) fn parse(moov: &BoxBody, max_samples: u32, max_bytes: usize) -> Self {
        let timescale = moov.find(b"mvhd").and_then(|mvhd| NonZeroU32::new(header_timescale(&mvhd).ok()?));
        let mut movie = Self {
            timescale,
            tracks: Vec::new(),
            ignored: Vec::new(),
            defaults: BTreeMap::new(),
            shift: 0,
            max_samples,
            index_bytes: 0,
            max_bytes,
        };
        for trex in moov.children(0).filter(|child| child.is(b"mvex")).flat_map(|mvex| mvex.children(0)) {
            if trex.is(b"trex")
                && movie.defaults.len() < MAX_TRACKS
                && let Some((id, defaults)) = Defaults::of(&trex)
            {
                movie.defaults.insert(id, defaults);
            }
        }
        let traks = moov.children(0).filter(|child| child.is(b"trak"));
        for (order, trak) in traks.take(MAX_TRACKS).enumerate() {
            movie.add(&trak, order);
        }
        movie
    }

    /// Reads a `trak`: into the tracks, or into those left aside.
    fn add(&mut self, trak: &BoxBody, order: usize) {
        let tkhd = trak.find(b"tkhd");
        let header = tkhd.as_ref().and_then(track_header);
        let (id, enabled) = header.unwrap_or((0, true));
        let mut about = IgnoredTrack { id, kind: None, codec: None, reason: IgnoredReason::Empty };
        match self.read(trak, &mut about) {
            Ok(mut track) => {
                track.order = order;
                track.enabled = enabled;
                self.index_bytes = self.index_bytes.saturating_add(track.samples.bytes());
                self.tracks.push(track);
            }
            Err(reason) => self.ignored.push((order, IgnoredTrack { reason, ..about })),
        }
    }

    fn read(&self, trak: &BoxBody, about: &mut IgnoredTrack) -> Result<MovieTrack, IgnoredReason> {
        let mdia = trak.need(b"mdia")?;
        let stbl = mdia.need(b"minf").and_then(|minf| minf.need(b"stbl"));
        let stsd = stbl.clone().and_then(|stbl| stbl.need(b"stsd"));
        // Version, flags and entry_count stand before the entries.
        let first = stsd.iter().flat_map(|stsd| stsd.children(8)).next();
        about.codec = first.as_ref().map(|entry| entry.kind);
        let handler = handler(&mdia.need(b"hdlr")?)?;
        let kind = match &handler.into() {
            b"vide" => Kind::Video,
            b"soun" => Kind::Audio,
            _ => return Err(IgnoredReason::Handler(handler)),
        };
        about.kind = Some(kind);
        let (stbl, stsd) = (stbl?, stsd?);
        let codec = first.ok_or_else(|| stsd.bad(BoxFault::Value { field: "entry_count", value: 0 }))?.kind;
        let (configurations, entries) = configurations(&stsd, kind)?;
        let mdhd = mdia.need(b"mdhd")?;
        let timescale = header_timescale(&mdhd)?;
        let timescale = NonZeroU32::new(timescale)
            .ok_or_else(|| mdhd.bad(BoxFault::Value { field: "timescale", value: 0 }))?;
        let mut track = MovieTrack {
            id: about.id,
            order: 0,
            kind,
            codec,
            enabled: true,
            configurations,
            entries,
            edits: edits(trak)?,
            media_duration: media_duration(&mdhd),
            samples: SampleTable::new(timescale),
            lost: Lost::default(),
            shift: 0,
        };
        let (most, room) = (self.samples_left(), self.bytes_left());
        track.samples = tables::read(&stbl, timescale, |index| track.configuration(index), most, room)?;
        Ok(track)
    }

    /// Samples that may still come.
    pub(super) fn samples_left(&self) -> u32 {
        self.tracks.iter().fold(self.max_samples, |left, track| left.saturating_sub(track.samples.count()))
    }

    /// Memory that samples may still take.
    pub(super) const fn bytes_left(&self) -> usize {
        self.max_bytes.saturating_sub(self.index_bytes)
    }

    /// Whether no track has a sample.
    pub(super) fn is_empty(&self) -> bool {
        self.tracks.iter().all(|track| track.samples.count() == 0)
    }
}

impl MovieTrack {
    /// Which configuration a `sample_description_index` leads to. One that leads nowhere is taken for the first.
    pub(super) fn configuration(&self, index: u32) -> u16 {
        let named = (index as usize).checked_sub(1).and_then(|index| self.entries.get(index));
        named.or(self.entries.first()).copied().unwrap_or(UNUSABLE)
    }

    pub(super) fn describe(&self) -> Mp4Track {
        Mp4Track {
            id: self.id,
            kind: self.kind,
            configurations: self.configurations.clone(),
            timescale: self.samples.timescale(),
            sample_count: self.samples.count(),
        }
    }

    pub(super) fn ignored(&self, reason: IgnoredReason) -> (usize, IgnoredTrack) {
        let (kind, codec) = (Some(self.kind), Some(self.codec));
        (self.order, IgnoredTrack { id: self.id, kind, codec, reason })
    }

    /// Nanoseconds up to which there are samples, by their decoding times.
    pub(super) fn decoded(&self) -> Option<i64> {
        let end = MediaTime::new(self.samples.next_dts(), self.samples.timescale());
        (self.samples.count() > 0).then(|| end.nanos())
    }

    /// Fills in what only the whole table tells.
    pub(super) fn settle(&mut self, file_end: u64) {
        self.samples.settle(file_end, self.media_duration);
        self.lost = self.samples.lost();
        let (ticks, count) = (self.samples.duration(), self.samples.count());
        let seconds = ticks as f64 / f64::from(self.samples.timescale().get());
        for track in &mut self.configurations {
            if self.kind == Kind::Video && track.video.fps.is_none() && ticks > 0 {
                track.video.fps = Some(f64::from(count) / seconds);
            }
        }
    }
}

/// The different configurations of a track, and which of them each sample entry is.
fn configurations(stsd: &BoxBody, kind: Kind) -> Result<(Vec<Track>, Vec<u16>), IgnoredReason> {
    let (mut configurations, mut entries) = (Vec::<Track>::new(), Vec::new());
    let mut fault = None;
    for entry in stsd.children(8).take(MAX_ENTRIES) {
        let known = match entry::track(&entry, kind, stsd.version()) {
            Ok(track) => match configurations.iter().position(|known| *known == track) {
                Some(known) => u16::try_from(known).unwrap_or(UNUSABLE),
                None => {
                    configurations.push(track);
                    u16::try_from(configurations.len() - 1).unwrap_or(UNUSABLE)
                }
            },
            Err(reason) => {
                fault.get_or_insert(reason);
                UNUSABLE
            }
        };
        entries.push(known);
    }
    match fault {
        Some(fault) if configurations.is_empty() => Err(fault),
        _ => Ok((configurations, entries)),
    }
}

/// `track_ID` and whether the track is enabled (§8.3.2).
fn track_header(tkhd: &BoxBody) -> Option<(u32, bool)> {
    let id = tkhd.u32_at(if tkhd.version() == 1 { 20 } else { 12 })?;
    Some((id, tkhd.flags() & 1 != 0))
}

/// `timescale` of `mvhd` and `mdhd` (§8.2.2, §8.4.2), which begin alike.
fn header_timescale(header: &BoxBody) -> Result<u32, BadBox> {
    header.need_u32(if header.version() == 1 { 20 } else { 12 })
}

/// `duration` of `mdhd`; all ones say that it is not known.
fn media_duration(mdhd: &BoxBody) -> u64 {
    let duration = match mdhd.version() {
        1 => mdhd.u64_at(24).filter(|duration| *duration != u64::MAX),
        _ => mdhd.u32_at(16).filter(|duration| *duration != u32::MAX).map(u64::from),
    };
    duration.unwrap_or(0)
}

/// `handler_type` (§8.4.3). The name behind it may be in any encoding and is left alone.
fn handler(hdlr: &BoxBody) -> Result<FourCC, BadBox> {
    hdlr.need_u32(8).map(|handler| FourCC::from(handler.to_be_bytes()))
}

/// The edit list: entries as they are, media times below -1 too.
fn edits(trak: &BoxBody) -> Result<Vec<Edit>, BadBox> {
    let elst = trak.find(b"edts").and_then(|edts| edts.find(b"elst"));
    let Some(elst) = elst else { return Ok(Vec::new()) };
    let edit = |duration, media_time: i64, rate: u32| {
        // A rate of 0 shows one picture for the whole edit: nothing has to be sent for that.
        let dwell = rate == 0;
        Edit { duration, media_time: (media_time != -1 && !dwell).then_some(media_time) }
    };
    let edits: Vec<Edit> = if elst.version() == 1 {
        let entry = |entry: &[u8; 20]| {
            let (numbers, rate) = entry.split_first_chunk::<16>()?;
            let (duration, media_time) = numbers.split_first_chunk::<8>()?;
            let media_time = i64::from_be_bytes(*media_time.first_chunk()?);
            Some(edit(u64::from_be_bytes(*duration), media_time, u32::from_be_bytes(*rate.first_chunk()?)))
        };
        elst.table::<20>().iter().take(MAX_EDITS + 1).filter_map(entry).collect()
    } else {
        let entry = |entry: &[u8; 12]| {
            let (duration, rest) = entry.split_first_chunk::<4>()?;
            let (media_time, rate) = rest.split_first_chunk::<4>()?;
            let media_time = i32::from_be_bytes(*media_time).into();
            Some(edit(
                u32::from_be_bytes(*duration).into(),
                media_time,
                u32::from_be_bytes(*rate.first_chunk()?),
            ))
        };
        elst.table::<12>().iter().take(MAX_EDITS + 1).filter_map(entry).collect()
    };
    if edits.len() > MAX_EDITS {
        let (value, most) = (elst.u32_at(4).unwrap_or(0).into(), MAX_EDITS as u64);
        return Err(elst.bad(BoxFault::TooMany { what: "edits", value, most }));
    }
    Ok(edits)
}
