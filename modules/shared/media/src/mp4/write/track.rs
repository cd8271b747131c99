//! A track that is written: its timescale, and where its samples lie on it.

use std::num::NonZeroU32;

use super::MuxError;
use super::entry::sample_entry;
use crate::sound_clock::Length;
use crate::{Frame, Kind, Timestamp, Track};

/// Pictures are counted at MPEG's system clock: 24, 25, 30, 50 and 60 pictures a second, 29.97 and milliseconds are whole
/// ticks of it.
const VIDEO_TIMESCALE: NonZeroU32 = NonZeroU32::new(90_000).unwrap();
/// What is no longer a frame that came early or late, but a hole: in seconds.
const MOST_STRETCH: i64 = 1;

/// One sample as fragment headers and sample tables describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) duration: u32,
    pub(super) size: u32,
    /// From decoding to showing, in ticks.
    pub(super) composition: u32,
    pub(super) is_sync: bool,
}

/// A track, and how far it has been written.
#[derive(Debug)]
pub(super) struct TrackWriter {
    /// `track_ID`.
    pub(super) id: u32,
    pub(super) kind: Kind,
    pub(super) timescale: NonZeroU32,
    /// Its whole sample entry.
    pub(super) entry: Vec<u8>,
    pub(super) track: Track,
    length: Option<Length>,
    /// This tick of the stream is tick 0 here.
    origin: i64,
    /// Where the last sample begins, and where it ends: the next one begins there.
    last: i64,
    next: Option<i64>,
    /// Whether the length of a run's last picture can still be told otherwise by the run behind it.
    is_open: bool,
    /// When the last frame was due, and how long after the one before it.
    stamp: Option<i64>,
    interval: i64,
}

impl TrackWriter {
    pub(super) fn new(id: u32, track: &Track) -> Result<Self, MuxError> {
        let entry = sample_entry(track)?;
        let length = Length::of(track);
        let kind = track.kind();
        let rate = NonZeroU32::new(track.audio.sample_rate).unwrap_or(VIDEO_TIMESCALE);
        let timescale = match kind {
            Kind::Video => VIDEO_TIMESCALE,
            Kind::Audio => length.and_then(Length::rate).unwrap_or(rate),
        };
        let interval = i64::from(timescale.get() / 25);
        let track = track.clone();
        Ok(Self {
            id,
            kind,
            timescale,
            entry,
            track,
            length,
            origin: 0,
            last: 0,
            next: None,
            is_open: false,
            stamp: None,
            interval,
        })
    }

    /// This moment of the stream is the track's time 0. Each track rounds it to a tick of its own, so that frames of sound
    /// that lie on the grid of their samples stay on it.
    pub(super) fn set_origin(&mut self, origin: Timestamp) {
        self.origin = origin.ticks(self.timescale);
    }

    /// Each run of pictures begins when its first one is due: an index will say how long the picture before it lasted.
    pub(super) fn set_open(&mut self) {
        self.is_open = true;
    }

    /// Places frames of this track, in order, and counts their bytes: when the first one is decoded, and a sample for each.
    /// The last one lasts until `end`, or, where that is not known, as long as its codec says or the one before it did.
    ///
    /// Samples follow each other without a gap or an overlap of a tick, also across calls: a frame that comes a little
    /// earlier or later than it was waited for moves its decoding, not its showing. A hole in the sound that is longer than
    /// half a frame, and one in the pictures above a second, is left open. What is placed is appended to `samples`.
    pub(super) fn place<'a>(
        &mut self,
        frames: impl Iterator<Item = &'a Frame>,
        end: Option<Timestamp>,
        samples: &mut Vec<Sample>,
    ) -> Option<i64> {
        let mut start = None;
        let mut at = 0;
        let mut last: Option<&Frame> = None;
        for frame in frames {
            let stamp = self.tick(frame.dts);
            let began = if start.is_none() { self.begin(stamp) } else { stamp.max(at + 1) };
            if start.is_some() {
                finish(samples, began - at);
            }
            start.get_or_insert(began);
            at = began;
            let is_video = self.kind == Kind::Video;
            let shown = if is_video { self.tick(frame.pts).saturating_sub(at) } else { 0 };
            samples.push(Sample {
                duration: 0,
                size: u32::try_from(frame.data.len()).unwrap_or(u32::MAX),
                composition: u32::try_from(shown.max(0)).unwrap_or(u32::MAX),
                is_sync: !is_video || frame.is_sync,
            });
            if let Some(before) = self.stamp.replace(stamp) {
                self.interval = (stamp - before).clamp(1, i64::from(self.timescale.get()) * MOST_STRETCH);
            }
            last = Some(frame);
        }
        let last = last?;
        let by_codec = self.length.and_then(|length| length.samples(&last.data));
        let by_codec = by_codec.filter(|samples| samples.rate == self.timescale);
        let length = by_codec.map_or(self.interval, |samples| samples.count.into());
        let end = match end {
            Some(end) => self.tick(end),
            None => self.tick(last.dts).saturating_add(length),
        };
        let duration = (end - at).clamp(1, u32::MAX.into());
        finish(samples, duration);
        (self.last, self.next) = (at, Some(at + duration));
        start
    }

    /// Where a run of frames begins of which the first is due at `stamp`.
    fn begin(&self, stamp: i64) -> i64 {
        let Some(next) = self.next else { return stamp };
        let stretch = match self.kind {
            Kind::Video if self.is_open => return stamp.max(self.last + 1),
            Kind::Video => i64::from(self.timescale.get()) * MOST_STRETCH,
            Kind::Audio => self.interval / 2,
        };
        if stamp - next > stretch { stamp } else { next }
    }

    fn tick(&self, time: Timestamp) -> i64 {
        time.ticks(self.timescale).saturating_sub(self.origin).clamp(0, i64::MAX / 4)
    }
}

/// The last sample lasts so long.
fn finish(samples: &mut [Sample], duration: i64) {
    if let Some(last) = samples.last_mut() {
        last.duration = u32::try_from(duration).unwrap_or(u32::MAX);
    }
}

/// Video first, at most one track of a kind.
pub(super) fn writers(tracks: &[Track]) -> Result<Vec<TrackWriter>, MuxError> {
    let mut chosen: Vec<&Track> = Vec::new();
    for kind in [Kind::Video, Kind::Audio] {
        let mut of_kind = tracks.iter().filter(|track| track.kind() == kind);
        chosen.extend(of_kind.next());
        if of_kind.next().is_some() {
            return Err(MuxError::SecondTrack(kind));
        }
    }
    if chosen.is_empty() {
        return Err(MuxError::NoTrack);
    }
    (1..).zip(chosen).map(|(id, track)| TrackWriter::new(id, track)).collect()
}
