//! Reading the media: the samples of all tracks in the order of their dts, once or in a loop.

use std::io::{Read, Seek};
use std::time::Duration;

use bytes::Bytes;
use mp4_atom::FourCC;

use super::boxes::read_at;
use super::movie::MovieTrack;
use super::presentation::{Presentation, Segment, TrackPlan};
use super::samples::{Cursor, SampleAt};
use super::{Mp4, Mp4Error, Mp4Fault, Mp4Track};
use crate::{Frame, Kind, Timestamp};

/// Neighbouring samples of a track are read together, up to this many bytes.
const READ_AHEAD: u64 = 256 << 10;
/// A sample larger than this is refused.
const MAX_SAMPLE: u32 = 32 << 20;

/// One sample of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Of which track.
    pub kind: Kind,
    /// When to decode, in ticks of the track since the start of the loop. The least of a loop is 0; it
    /// never goes back within a track.
    pub dts: Timestamp,
    /// When to show.
    pub pts: Timestamp,
    /// Whether a decoder may start here.
    pub is_sync: bool,
    /// As [`Frame::data`]. It shares memory with its neighbours of the same track.
    pub data: Bytes,
    /// How often the file was begun before: 0 the first time.
    pub loop_index: u64,
}

impl Sample {
    /// The sample as a frame in milliseconds, for a loop that begins at `loop_start`.
    ///
    /// dts and pts are rounded before `loop_start` is added, so every loop rounds alike.
    pub fn frame(&self, loop_start: Timestamp) -> Frame {
        let at = |time: Timestamp| Timestamp::from_millis(time.millis().saturating_add(loop_start.millis()));
        Frame {
            kind: self.kind,
            dts: at(self.dts),
            pts: at(self.pts),
            is_sync: self.is_sync,
            data: self.data.clone(),
        }
    }
}

/// Plays a file from its index: samples in the order of their dts.
///
/// Each track is read in sequence, some 256 KiB of its own samples at a time. Nothing is kept but the
/// index and one such block per track.
#[derive(Debug)]
pub struct Playback<R> {
    mp4: Mp4<R>,
    presentation: Presentation,
    heads: Vec<Head>,
    /// The last loop that a track has begun; the others follow.
    begun: u64,
    /// Where in its first loop the playback started.
    origin: i64,
}

/// Where one track is.
#[derive(Debug)]
struct Head {
    plan: TrackPlan,
    segment: usize,
    cursor: Cursor,
    loop_index: u64,
    due: Option<Due>,
    /// Milliseconds of the last sample, over all loops.
    last: i64,
    block: Block,
}

/// A sample that is next in its track.
#[derive(Clone, Copy, Debug)]
struct Due {
    sample: SampleAt,
    dts: Timestamp,
    pts: Timestamp,
    loop_index: u64,
    /// Ends the samples that may be read ahead.
    end: u32,
}

/// A piece of the file.
#[derive(Debug, Default)]
struct Block {
    offset: u64,
    data: Bytes,
}

impl<R: Read + Seek> Playback<R> {
    /// Starts at the sync sample that is shown at `start` or last before it. Later loops are whole.
    ///
    /// # Errors
    ///
    /// The edit lists leave nothing to show.
    pub fn new(mp4: Mp4<R>, start: Duration) -> Result<Self, Mp4Error> {
        let presentation = Presentation::of(&mp4.index, mp4.movie_timescale).ok_or(Mp4Error {
            name: FourCC::new(b"moov"),
            offset: 0,
            source: Mp4Fault::NothingPresented,
        })?;
        let heads = presentation.plans.iter().cloned().map(Head::new).collect();
        let mut playback = Self { mp4, presentation, heads, begun: 0, origin: 0 };
        if !start.is_zero() {
            playback.seek(start);
        }
        playback.fill(false);
        let first = playback.heads.iter().filter_map(|head| head.due).map(|due| due.dts.millis());
        playback.origin = first.min().unwrap_or(0);
        Ok(playback)
    }

    /// The tracks that are played.
    pub fn tracks(&self) -> impl Iterator<Item = &Mp4Track> {
        self.heads.iter().filter_map(|head| self.mp4.tracks.get(head.plan.track))
    }

    /// The file that is played.
    pub const fn mp4(&self) -> &Mp4<R> {
        &self.mp4
    }

    /// The length of a loop.
    pub const fn presentation(&self) -> &Presentation {
        &self.presentation
    }

    /// When a loop begins, counted from the first sample of this playback, in whole milliseconds. That of
    /// the first loop is negative where the playback started behind its beginning.
    pub fn loop_start(&self, index: u64) -> Timestamp {
        let start = self.presentation.loop_start(index).millis();
        Timestamp::from_millis(start.saturating_sub(self.origin))
    }

    /// The next sample by dts, the tracks merged over the border of two loops as well.
    ///
    /// `again` says whether a track that has reached its end begins the next loop; once one has, the
    /// others do too. `None`: all have reached their end, and `again` is false.
    ///
    /// # Errors
    ///
    /// The file can't be read, or ends before the sample does. The sample is passed over.
    pub fn next_sample(&mut self, again: bool) -> Result<Option<Sample>, Mp4Error> {
        self.fill(again);
        let earliest = self.heads.iter().enumerate().filter_map(|(index, head)| {
            let due = head.due?;
            let start = self.presentation.loop_start(due.loop_index).nanos();
            Some((start.saturating_add(due.dts.nanos()), index))
        });
        let Some((_, index)) = earliest.min() else { return Ok(None) };
        let Some(head) = self.heads.get_mut(index) else { return Ok(None) };
        let Some(due) = head.due.take() else { return Ok(None) };
        let Some(track) = self.mp4.index.get(head.plan.track) else { return Ok(None) };
        let data = head.read(&mut self.mp4.reader, track, &due)?;
        Ok(Some(Sample {
            kind: head.plan.kind,
            dts: due.dts,
            pts: due.pts,
            is_sync: due.sample.is_sync || head.plan.kind == Kind::Audio,
            data,
            loop_index: due.loop_index,
        }))
    }

    /// Finds the next sample of every track that has none waiting.
    fn fill(&mut self, again: bool) {
        // A track that begins the next loop draws along one that was asked before it.
        for _ in 0..2 {
            for head in &mut self.heads {
                let Some(track) = self.mp4.index.get(head.plan.track) else { continue };
                while head.due.is_none() {
                    if head.advance(track) {
                        continue;
                    }
                    if head.loop_index >= self.begun && !again {
                        break;
                    }
                    head.begin(head.loop_index + 1);
                    self.begun = self.begun.max(head.loop_index);
                }
                if let Some(due) = &mut head.due {
                    let start = self.presentation.loop_start(due.loop_index).millis();
                    head.last = due.keep_order(head.last, start);
                }
            }
        }
    }

    /// Moves every track to the sync sample of the video at or before `start`, or to the audio frame
    /// there.
    fn seek(&mut self, start: Duration) {
        let start = i64::try_from(start.as_nanos()).unwrap_or(i64::MAX);
        let start = start.saturating_add(self.presentation.start().nanos());
        let mut target = start;
        // Video comes before audio.
        for head in &mut self.heads {
            let Some(track) = self.mp4.index.get(head.plan.track) else { continue };
            if let Some(pts) = head.seek(track, target) {
                target = pts;
            }
        }
    }
}

impl Head {
    fn new(plan: TrackPlan) -> Self {
        let cursor = plan.segments.first().map(|segment| segment.from).unwrap_or_default();
        let block = Block::default();
        Self { plan, segment: 0, cursor, loop_index: 0, due: None, last: i64::MIN, block }
    }

    /// Goes to the beginning of a loop.
    fn begin(&mut self, loop_index: u64) {
        self.loop_index = loop_index;
        self.segment = 0;
        self.cursor = self.plan.segments.first().map(|segment| segment.from).unwrap_or_default();
    }

    /// Takes one step in the table, which may make a sample due; false at the end of the loop.
    fn advance(&mut self, track: &MovieTrack) -> bool {
        let Some(segment) = self.plan.segments.get(self.segment) else { return false };
        match self.cursor.next(&track.samples) {
            Some(sample) if sample.index < segment.end => {
                if sample.size > 0 {
                    self.due = Some(self.due(segment, sample));
                }
            }
            _ => {
                self.segment += 1;
                self.cursor = self.plan.segments.get(self.segment).map(|next| next.from).unwrap_or_default();
            }
        }
        true
    }

    fn due(&self, segment: &Segment, sample: SampleAt) -> Due {
        let time = |ticks: i64| {
            let ticks = ticks.saturating_add(segment.offset).saturating_add(self.plan.shift);
            Timestamp::new(ticks, self.plan.timescale)
        };
        let dts = if sample.index < segment.steady { segment.steady_dts } else { sample.dts };
        let hidden = sample.cts.saturating_add(sample.duration.max(1).into()) <= segment.visible_from;
        let pts = if hidden { dts } else { sample.cts.max(dts) };
        Due { sample, dts: time(dts), pts: time(pts), loop_index: self.loop_index, end: segment.end }
    }

    /// Stops before the sample to start with; gives when that is shown, in nanoseconds.
    fn seek(&mut self, track: &MovieTrack, target: i64) -> Option<i64> {
        let mut best: Option<(usize, Cursor, i64)> = None;
        for (index, segment) in self.plan.segments.iter().enumerate() {
            let mut cursor = segment.from;
            loop {
                let here = cursor;
                let Some(sample) = cursor.next(&track.samples) else { break };
                if sample.index >= segment.end {
                    break;
                }
                let pts = Timestamp::new(sample.cts.saturating_add(segment.offset), self.plan.timescale);
                let may_start = sample.is_sync || self.plan.kind == Kind::Audio;
                let pts = pts.nanos();
                if sample.index >= segment.shown && may_start && pts <= target {
                    best = Some((index, here, pts));
                }
            }
        }
        let (segment, cursor, pts) = best?;
        self.segment = segment;
        self.cursor = cursor;
        Some(pts)
    }

    /// The sample's bytes, from the block or from the file.
    fn read<R: Read + Seek>(
        &mut self,
        reader: &mut R,
        track: &MovieTrack,
        due: &Due,
    ) -> Result<Bytes, Mp4Error> {
        let sample = due.sample;
        let error = |source| Mp4Error { name: FourCC::new(b"mdat"), offset: sample.offset, source };
        if sample.size > MAX_SAMPLE {
            let (value, most) = (sample.size.into(), MAX_SAMPLE.into());
            return Err(error(Mp4Fault::TooMany { what: "bytes of a sample", value, most }));
        }
        if let Some(data) = self.block.get(&sample) {
            return Ok(data);
        }
        let size = self.read_ahead(track, due);
        let data = read_at(reader, sample.offset, size).map_err(|source| error(source.into()))?;
        self.block = Block { offset: sample.offset, data: data.into() };
        self.block.get(&sample).ok_or_else(|| {
            error(Mp4Fault::SampleTruncated {
                kind: self.plan.kind,
                sample: sample.index.saturating_add(1),
                size: sample.size,
                have: self.block.data.len(),
            })
        })
    }

    /// How many bytes of this track stand together from this sample on, up to the read-ahead. Only the
    /// track's own bytes are read, so that a small audio frame that is kept never keeps much else.
    fn read_ahead(&self, track: &MovieTrack, due: &Due) -> u64 {
        let start = due.sample.offset;
        let mut end = start.saturating_add(due.sample.size.into());
        // The cursor stands behind the sample that is due.
        let mut cursor = self.cursor;
        while let Some(next) = cursor.next(&track.samples) {
            let next_end = next.offset.saturating_add(next.size.into());
            if next.index >= due.end || next.offset != end || next_end - start > READ_AHEAD {
                break;
            }
            end = next_end;
        }
        end - start
    }
}

impl Due {
    /// Moves a sample that would go back behind the last one of its track, as the last frame of a loop
    /// and the first of the next may overlap. Times are milliseconds, of all loops.
    fn keep_order(&mut self, last: i64, loop_start: i64) -> i64 {
        let dts = loop_start.saturating_add(self.dts.millis());
        if dts >= last {
            return dts;
        }
        let late = Timestamp::from_millis(last.saturating_sub(loop_start)).rescale(self.dts.timescale);
        self.pts.ticks = self.pts.ticks.max(late.ticks);
        self.dts = late;
        last
    }
}

impl Block {
    fn get(&self, sample: &SampleAt) -> Option<Bytes> {
        let from = usize::try_from(sample.offset.checked_sub(self.offset)?).ok()?;
        let to = from.checked_add(sample.size as usize)?;
        (to <= self.data.len()).then(|| self.data.slice(from..to))
    }
}
