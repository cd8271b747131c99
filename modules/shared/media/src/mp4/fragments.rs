//! Movie fragments (§8.8): `moof` boxes append to the sample tables.

use mp4_atom::{Tfdt, Tfhd, Trex, Trun};

use super::boxes::BoxBody;
use super::movie::{Movie, MovieTrack, NO_DEFAULTS};
use super::samples::NewSample;
use super::{Mp4Error, Mp4Fault};

/// `sample_is_non_sync_sample` (§8.8.3.1).
const NON_SYNC: u32 = 0x0001_0000;

/// Appends the samples of a `moof` to the tracks that are read.
pub(super) fn append(movie: &mut Movie, moof: &BoxBody) -> Result<(), Mp4Error> {
    // Where the data of the traf before ended: the base of one that names none (§8.8.7.1).
    let mut data_end = moof.offset;
    for traf in moof.children(0)? {
        let traf = traf?;
        if !traf.is(b"traf") {
            continue;
        }
        let tfhd: Tfhd = traf.need(b"tfhd")?.decode()?;
        let left = movie.samples_left();
        let defaults = movie.defaults.get(&tfhd.track_id);
        let defaults = defaults.unwrap_or(&NO_DEFAULTS);
        let track = movie.tracks.iter_mut().find(|track| track.id == tfhd.track_id);
        let base = match tfhd.base_data_offset {
            Some(base) => base,
            None if tfhd.default_base_is_moof => moof.offset,
            None => data_end,
        };
        let mut fragment = Fragment { track, tfhd, base, at: base, left, defaults };
        fragment.read(&traf)?;
        data_end = fragment.at;
    }
    Ok(())
}

struct Fragment<'a> {
    /// `None` for a track that is left aside: only its data is counted.
    track: Option<&'a mut MovieTrack>,
    tfhd: Tfhd,
    base: u64,
    /// Where the data of the next run stands, unless it says otherwise.
    at: u64,
    /// Samples that may still come.
    left: u32,
    defaults: &'a Trex,
}

impl Fragment<'_> {
    fn read(&mut self, traf: &BoxBody) -> Result<(), Mp4Error> {
        if let Some(track) = &mut self.track {
            let used = self.tfhd.sample_description_index;
            let used = used.unwrap_or(self.defaults.default_sample_description_index);
            if used != track.description {
                let field = "sample_description_index";
                return Err(traf.error(Mp4Fault::Value { field, value: used.into() }));
            }
            if let Some(tfdt) = traf.find(b"tfdt")? {
                let time = tfdt.decode::<Tfdt>()?.base_media_decode_time;
                let ticks = i64::try_from(time)
                    .map_err(|_| tfdt.error(Mp4Fault::Value { field: "baseMediaDecodeTime", value: time }))?;
                track.samples.continue_at(ticks);
            }
        }
        for child in traf.children(0)? {
            let child = child?;
            if child.is(b"trun") {
                self.run(&child)?;
            }
        }
        Ok(())
    }

    fn run(&mut self, trun_box: &BoxBody) -> Result<(), Mp4Error> {
        let trun: Trun = trun_box.decode()?;
        let count = u32::try_from(trun.samples.len()).unwrap_or(u32::MAX);
        if count > self.left {
            let (value, most) = (count.into(), self.left.into());
            return Err(trun_box.error(Mp4Fault::TooMany { what: "samples", value, most }));
        }
        self.left -= count;
        if let Some(offset) = trun.data_offset {
            self.at = self.base.saturating_add_signed(offset.into());
        }
        if let Some(track) = &mut self.track {
            track.samples.place(self.at);
        }
        for entry in &trun.samples {
            let sample = self.sample(entry);
            self.at = self.at.saturating_add(sample.size.into());
            if let Some(track) = &mut self.track {
                track.samples.push(sample);
            }
        }
        Ok(())
    }

    /// What the run leaves out is in `tfhd`, and what that leaves out in `trex`.
    fn sample(&self, entry: mp4_atom::TrunEntry) -> NewSample {
        let flags = entry.flags.or(self.tfhd.default_sample_flags);
        let flags = flags.unwrap_or(self.defaults.default_sample_flags);
        let duration = entry.duration.or(self.tfhd.default_sample_duration);
        let size = entry.size.or(self.tfhd.default_sample_size);
        NewSample {
            duration: duration.unwrap_or(self.defaults.default_sample_duration),
            composition: entry.cts.unwrap_or(0) as i32,
            size: size.unwrap_or(self.defaults.default_sample_size),
            is_sync: flags & NON_SYNC == 0,
        }
    }
}
