//! Movie fragments (§8.8): `moof` boxes append to the sample tables.
//!
//! A fragment that is damaged gives the samples that it describes well, and costs no other fragment.

use std::num::NonZeroU32;

use super::boxes::BoxBody;
use super::media_time::MediaTime;
use super::movie::{Movie, MovieTrack};
use super::samples::{BETWEEN_CHECKS, NewSample};

const NANOS: NonZeroU32 = NonZeroU32::new(1_000_000_000).unwrap();
/// Tracks of one recording end within so many seconds.
const APART: i64 = 2;
/// `sample_is_non_sync_sample` (§8.8.3.1).
const NON_SYNC: u32 = 0x0001_0000;

/// What samples of a track are where their run does not say (`trex`, §8.8.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    description: u32,
    duration: u32,
    size: u32,
    flags: u32,
}

impl Defaults {
    /// For a track that has none.
    const NONE: Self = Self { description: 1, duration: 0, size: 0, flags: 0 };

    /// With its `track_ID`.
    pub(super) fn of(trex: &BoxBody) -> Option<(u32, Self)> {
        let (description, duration) = (trex.u32_at(8)?, trex.u32_at(12)?);
        Some((
            trex.u32_at(4)?,
            Self { description, duration, size: trex.u32_at(16)?, flags: trex.u32_at(20)? },
        ))
    }
}

/// Appends the samples of a `moof` to the tracks that may be read. Gives whether all of it could be read.
pub(super) fn append(movie: &mut Movie, moof: &BoxBody, file_end: u64) -> bool {
    // Where the data of the traf before ended: the base of one that names none (§8.8.7.1). Not known behind one that
    // can't be read.
    let mut data_end = Some(moof.offset);
    let mut whole = moof.promised.is_none();
    for traf in moof.children(0).filter(|child| child.is(b"traf")) {
        let Some(header) = traf.find(b"tfhd").and_then(|tfhd| Header::of(&tfhd)) else {
            (whole, data_end) = (false, None);
            continue;
        };
        let left = movie.samples_left();
        let room = movie.bytes_left();
        let defaults = *movie.defaults.get(&header.track_id).unwrap_or(&Defaults::NONE);
        let index = movie.tracks.iter().position(|track| track.id == header.track_id);
        if let (Some(index), Some(time)) = (index, begins_at(&traf)) {
            continue_at(movie, index, time);
        }
        let track = index.and_then(|index| movie.tracks.get_mut(index));
        let own = header.base_data_offset.or(header.base_is_moof.then_some(moof.offset));
        let Some(base) = own.or(data_end) else {
            whole = false;
            continue;
        };
        let defaults = header.over(defaults);
        let mut fragment = Fragment { track, defaults, base, at: base, left, most: 0, file_end };
        let before = fragment.bytes();
        fragment.most = before.saturating_add(room);
        let is_whole = fragment.read(&traf);
        whole &= is_whole;
        data_end = is_whole.then_some(fragment.at);
        movie.index_bytes = movie.index_bytes.saturating_sub(before).saturating_add(fragment.bytes());
    }
    whole
}

/// `tfdt` (§8.8.12): when the first sample of a fragment is decoded.
fn begins_at(traf: &BoxBody) -> Option<i64> {
    let tfdt = traf.find(b"tfdt")?;
    match tfdt.version() {
        1 => tfdt.u64_at(4).and_then(|time| i64::try_from(time).ok()),
        _ => tfdt.u32_at(4).map(i64::from),
    }
}

/// Where the clock of a track goes back, what follows is put behind what came before: behind that of all tracks, and by
/// the same time in those whose clock does so too, so that they stay together. A little is no more than a last sample
/// that was taken to be too long.
fn continue_at(movie: &mut Movie, index: usize, time: i64) {
    let (shift, ends) = (movie.shift, movie.tracks.iter().filter_map(MovieTrack::decoded));
    let Some(track) = movie.tracks.get(index) else { return };
    let (timescale, second) = (track.samples.timescale(), i64::from(track.samples.timescale().get()));
    let goes_back = |last: i64| time.saturating_add(track.shift) < last.saturating_sub(second / 10);
    let mut own = track.shift;
    if let (Some(end), true) = (track.decoded(), track.samples.last_dts().is_some_and(goes_back)) {
        let in_ticks = |nanos: i64| MediaTime::new(nanos, NANOS).rescale(timescale).ticks;
        let least = track.samples.next_dts().saturating_sub(time);
        let more = in_ticks(shift).saturating_sub(least);
        // Another track's clock has gone back already, and by as much.
        own = in_ticks(shift);
        let is_known = own > track.shift && (-second / 10..=second.saturating_mul(APART)).contains(&more);
        if !is_known {
            let apart = APART.saturating_mul(NANOS.get().into());
            let behind = ends.filter(|other| *other <= end.saturating_add(apart)).max().unwrap_or(end);
            own = least.max(in_ticks(behind).saturating_sub(time));
            movie.shift = MediaTime::new(own, timescale).nanos();
        }
    }
    if let Some(track) = movie.tracks.get_mut(index) {
        track.shift = own;
        track.samples.continue_at(time.saturating_add(own));
    }
}

/// `tfhd` (§8.8.7).
struct Header {
    track_id: u32,
    base_data_offset: Option<u64>,
    base_is_moof: bool,
    description: Option<u32>,
    duration: Option<u32>,
    size: Option<u32>,
    flags: Option<u32>,
}

impl Header {
    fn of(tfhd: &BoxBody) -> Option<Self> {
        let has = tfhd.flags();
        let track_id = tfhd.u32_at(4)?;
        let mut at = 8;
        let base_data_offset = match has & 1 != 0 {
            true => {
                at += 8;
                Some(tfhd.u64_at(8)?)
            }
            false => None,
        };
        let mut field = |bit: u32| {
            if has & bit == 0 {
                return Some(None);
            }
            at += 4;
            tfhd.u32_at(at - 4).map(Some)
        };
        Some(Self {
            track_id,
            base_data_offset,
            base_is_moof: has & 0x02_0000 != 0,
            description: field(0x02)?,
            duration: field(0x08)?,
            size: field(0x10)?,
            flags: field(0x20)?,
        })
    }

    fn over(&self, defaults: Defaults) -> Defaults {
        Defaults {
            description: self.description.unwrap_or(defaults.description),
            duration: self.duration.unwrap_or(defaults.duration),
            size: self.size.unwrap_or(defaults.size),
            flags: self.flags.unwrap_or(defaults.flags),
        }
    }
}

struct Fragment<'a> {
    /// `None` for a track that is left aside: only its data is counted.
    track: Option<&'a mut MovieTrack>,
    defaults: Defaults,
    base: u64,
    /// Where the data of the next run stands, unless it says otherwise.
    at: u64,
    /// Samples that may still come.
    left: u32,
    /// Memory that the track's samples may take.
    most: usize,
    file_end: u64,
}

impl Fragment<'_> {
    /// Memory that the track's samples take.
    fn bytes(&self) -> usize {
        self.track.as_ref().map_or(0, |track| track.samples.bytes())
    }

    fn read(&mut self, traf: &BoxBody) -> bool {
        let mut whole = true;
        for trun in traf.children(0).filter(|child| child.is(b"trun")) {
            whole &= self.run(&trun);
        }
        whole
    }

    /// A `trun` (§8.8.8). One that announces more samples than it describes gives those, and so does one whose samples
    /// take too much memory.
    fn run(&mut self, trun: &BoxBody) -> bool {
        let has = trun.flags();
        let Some(count) = trun.u32_at(4) else { return false };
        let mut fields = 8;
        if has & 1 != 0 {
            let Some(offset) = trun.u32_at(fields) else { return false };
            self.at = self.base.saturating_add_signed((offset as i32).into());
            fields += 4;
        }
        let first_flags = (has & 4 != 0).then(|| trun.u32_at(fields)).flatten();
        if has & 4 != 0 {
            fields += 4;
        }
        let columns = [0x100, 0x200, 0x400, 0x800].map(|bit| has & bit != 0);
        let [has_duration, has_size, has_flags, has_composition] = columns;
        let entry = 4 * columns.iter().filter(|has| **has).count();
        let described = match (trun.body.len().saturating_sub(fields)).checked_div(entry) {
            Some(described) => u32::try_from(described).unwrap_or(u32::MAX),
            // All alike: only as many as there is data for.
            None if self.defaults.size == 0 => 0,
            None => {
                let data = self.file_end.saturating_sub(self.at) / u64::from(self.defaults.size);
                u32::try_from(data).unwrap_or(u32::MAX)
            }
        };
        let taken = count.min(described).min(self.left);
        self.left -= taken;
        match &mut self.track {
            Some(track) => track.samples.place(self.at),
            // Nothing bounds how often that is said of samples that nobody counts: no round for each.
            None if !has_size => {
                self.at = self.at.saturating_add(u64::from(taken) * u64::from(self.defaults.size));
                return taken == count;
            }
            None => {}
        }
        let mut at = fields;
        for index in 0..taken {
            if index.is_multiple_of(BETWEEN_CHECKS) && self.bytes() > self.most {
                return false;
            }
            let mut column = |has: bool| {
                let value = has.then(|| trun.u32_at(at)).flatten();
                at += if has { 4 } else { 0 };
                value
            };
            let (duration, size) = (column(has_duration), column(has_size));
            let flags =
                column(has_flags).or(first_flags.filter(|_| index == 0)).unwrap_or(self.defaults.flags);
            let composition = column(has_composition).unwrap_or(0) as i32;
            let size = size.unwrap_or(self.defaults.size);
            self.at = self.at.saturating_add(size.into());
            if let Some(track) = &mut self.track {
                let description = track.configuration(self.defaults.description);
                track.samples.push(NewSample {
                    duration: duration.unwrap_or(self.defaults.duration),
                    composition,
                    size,
                    is_sync: flags & NON_SYNC == 0,
                    description,
                });
            }
        }
        taken == count
    }
}
