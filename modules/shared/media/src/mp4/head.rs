//! Where one track of a playback is, and its read-ahead.

use std::io::{Read, Seek};

use bytes::Bytes;
use mp4_atom::FourCC;

use super::boxes::read_at;
use super::media_time::MediaTime;
use super::movie::MovieTrack;
use super::presentation::{Segment, TrackPlan};
use super::samples::{Cursor, SampleAt, SyncRule};
use super::sync::Backwards;
use super::{Mp4Error, Mp4Fault};
use crate::Kind;

/// Neighbouring samples of a track are read together, up to this many bytes.
const READ_AHEAD: u64 = 256 << 10;

/// Where one track is.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) plan: TrackPlan,
    segment: usize,
    cursor: Cursor,
    pub(super) loop_index: u64,
    pub(super) due: Option<Due>,
    /// Milliseconds of the last sample, over all loops.
    pub(super) last: i64,
    block: Block,
}

/// A sample that is next in its track.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) sample: SampleAt,
    pub(super) dts: MediaTime,
    pub(super) pts: MediaTime,
    pub(super) loop_index: u64,
    /// Ends the samples that may be read ahead.
    end: u32,
}

/// A piece of the file.
#[derive(Debug, Default)]
struct Block {
    offset: u64,
    data: Bytes,
}

impl Head {
    pub(super) fn new(plan: TrackPlan) -> Self {
        let cursor = plan.segments.first().map(|segment| segment.from).unwrap_or_default();
        let block = Block::default();
        Self { plan, segment: 0, cursor, loop_index: 0, due: None, last: i64::MIN, block }
    }

    /// Goes to the beginning of a loop.
    pub(super) fn begin(&mut self, loop_index: u64) {
        self.loop_index = loop_index;
        self.segment = 0;
        self.cursor = self.plan.segments.first().map(|segment| segment.from).unwrap_or_default();
    }

    /// Takes one step in the table, which may make a sample due; false at the end of the loop.
    pub(super) fn advance(&mut self, track: &MovieTrack) -> bool {
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
            MediaTime::new(ticks, self.plan.timescale)
        };
        let dts = if sample.index < segment.steady { segment.steady_dts } else { sample.dts };
        let hidden = sample.end() <= segment.visible_from;
        let pts = if hidden { dts } else { sample.cts.max(dts) };
        Due { sample, dts: time(dts), pts: time(pts), loop_index: self.loop_index, end: segment.end }
    }

    /// Stops before the sample to start with; gives when that is shown, in nanoseconds. What the table does not say of
    /// sync samples is looked for in the file.
    pub(super) fn seek<R: Read + Seek>(
        &mut self,
        reader: &mut R,
        track: &MovieTrack,
        target: i64,
    ) -> Option<i64> {
        let is_listed = self.plan.kind == Kind::Audio || track.samples.sync_rule == SyncRule::Listed;
        let mut best: Option<(usize, Cursor, i64)> = None;
        let mut candidates = Backwards::default();
        for (index, segment) in self.plan.segments.iter().enumerate() {
            let mut cursor = segment.from;
            loop {
                let here = cursor;
                let Some(sample) = cursor.next(&track.samples) else { break };
                if sample.index >= segment.end {
                    break;
                }
                let pts = MediaTime::new(sample.cts.saturating_add(segment.offset), self.plan.timescale);
                let may_start = sample.is_sync || self.plan.kind == Kind::Audio;
                let pts = pts.nanos();
                if sample.index >= segment.shown && pts <= target {
                    match is_listed {
                        true if may_start => best = Some((index, here, pts)),
                        true => {}
                        false => candidates.add((index, here, pts), sample),
                    }
                }
            }
        }
        if !is_listed {
            best = candidates.find(reader, track).0;
        }
        let (segment, cursor, pts) = best?;
        self.segment = segment;
        self.cursor = cursor;
        Some(pts)
    }

    /// The sample's bytes, from the block or from the file.
    pub(super) fn read<R: Read + Seek>(
        &mut self,
        reader: &mut R,
        track: &MovieTrack,
        due: &Due,
    ) -> Result<Bytes, Mp4Error> {
        let sample = due.sample;
        let error = |source| Mp4Error { name: FourCC::new(b"mdat"), offset: sample.offset, source };
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
    pub(super) fn keep_order(&mut self, last: i64, loop_start: i64) -> i64 {
        let dts = loop_start.saturating_add(self.dts.millis());
        if dts >= last {
            return dts;
        }
        let late = MediaTime::from_millis(last.saturating_sub(loop_start)).rescale(self.dts.timescale);
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
