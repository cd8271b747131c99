//! Frames to parts and segments.

use std::collections::VecDeque;

use av_media::{Frame, Kind, Timestamp};

use super::numbers::Numbers;

/// Sound that waits for pictures: beyond it the oldest goes.
const MAX_AUDIO: usize = 8192;
/// Frames of one part: where time stands still, a part ends all the same.
const MAX_FRAMES: usize = 4096;

/// Some frames in a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Part {
    /// Of both tracks, each in order.
    pub frames: Vec<Frame>,
    /// dts of the first one of the leading track.
    pub start: Timestamp,
    /// dts of the one behind them.
    pub end: Timestamp,
}

/// What the cutter gives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cut {
    /// The next part of the segment.
    Part(Part),
    /// It was the segment's last.
    Segment,
}

/// How long frames are, where the next one does not tell. In nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Intervals {
    pub video: i64,
    pub audio: i64,
}

impl Intervals {
    const fn get(&self, kind: Kind) -> i64 {
        match kind {
            Kind::Video => self.video,
            Kind::Audio => self.audio,
        }
    }
}

/// Cuts frames of one or two tracks into parts and segments. Pictures say where, or sound where there are none.
///
/// A frame's length is known when the next one is there: so a frame is given with the one behind it.
#[derive(Debug)]
pub(crate) struct Cutter {
    numbers: Numbers,
    /// `segmentSeconds`.
    segment: i64,
    leading: Kind,
    intervals: Intervals,
    /// Frames of the leading track that are in no part yet. The last one's length is not known.
    open: Vec<Frame>,
    /// The other track's.
    audio: VecDeque<Frame>,
    /// Sound from before the first picture has no place.
    began: Timestamp,
    part_start: Timestamp,
    segment_start: Timestamp,
    last_sync: Timestamp,
    /// Distance of the last two sync frames.
    gop: i64,
    /// The last two distances of frames: one lost frame alone makes no other rate.
    steps: [i64; 2],
}

impl Cutter {
    /// `leading`: the track whose frames say where to cut. `segment`: in nanoseconds.
    pub(crate) fn new(numbers: Numbers, segment: i64, leading: Kind, intervals: Intervals) -> Self {
        let step = intervals.get(leading);
        Self {
            numbers,
            segment,
            leading,
            intervals,
            open: Vec::new(),
            audio: VecDeque::new(),
            began: Timestamp::ZERO,
            part_start: Timestamp::ZERO,
            segment_start: Timestamp::ZERO,
            last_sync: Timestamp::ZERO,
            gop: 0,
            steps: [step; 2],
        }
    }

    /// Takes a frame. `starts`: a decoder can start at it.
    pub(crate) fn push(&mut self, frame: Frame, starts: bool, out: &mut Vec<Cut>) {
        if frame.kind == self.leading {
            self.lead(frame, starts, out);
        } else if !self.open.is_empty() && frame.dts >= self.began {
            if self.audio.len() >= MAX_AUDIO {
                self.audio.pop_front();
            }
            self.audio.push_back(frame);
        }
    }

    fn lead(&mut self, frame: Frame, starts: bool, out: &mut Vec<Cut>) {
        let at = frame.dts;
        let Some(last) = self.open.last() else {
            if starts {
                (self.began, self.part_start, self.segment_start, self.last_sync) = (at, at, at, at);
                self.open.push(frame);
            }
            return;
        };
        let step = at.nanos_since(last.dts);
        let [_, before] = self.steps;
        self.steps = [before, step];
        self.make_room(at, out);
        let usual = before.min(step).max(1);
        if starts && self.leading == Kind::Video {
            self.gop = at.nanos_since(self.last_sync);
            self.last_sync = at;
        }
        if self.ends_segment(at, starts, usual) {
            self.part(at, out);
            out.push(Cut::Segment);
            self.segment_start = at;
        } else if self.ends_part(at, starts, usual) {
            self.part(at, out);
        }
        self.open.push(frame);
    }

    /// Frames that come further apart than those before: what was to be all of a part, or of a segment, with the last one
    /// is too long now, and ends before that.
    fn make_room(&mut self, at: Timestamp, out: &mut Vec<Cut>) {
        let most = self.numbers.part.map_or(i64::MAX, |part| part.target_nanos());
        let part_is_full = at.nanos_since(self.part_start) > most;
        let segment_is_full = at.nanos_since(self.segment_start) > self.numbers.longest_segment();
        if self.open.len() < 2 || !(part_is_full || segment_is_full) {
            return;
        }
        let Some(last) = self.open.pop() else { return };
        self.part(last.dts, out);
        if segment_is_full {
            out.push(Cut::Segment);
            self.segment_start = last.dts;
        }
        self.open.push(last);
    }

    fn ends_segment(&self, at: Timestamp, starts: bool, usual: i64) -> bool {
        let elapsed = at.nanos_since(self.segment_start);
        let longest = self.numbers.longest_segment();
        if starts {
            let half = self.intervals.get(self.leading) / 2;
            elapsed >= self.segment.saturating_sub(half) || elapsed.saturating_add(self.gop) > longest
        } else {
            // No later frame would do.
            elapsed.saturating_add(usual) > longest
        }
    }

    fn ends_part(&self, at: Timestamp, starts: bool, usual: i64) -> bool {
        let elapsed = at.nanos_since(self.part_start);
        let Some(part) = self.numbers.part else { return self.open.len() >= MAX_FRAMES };
        let half = part.nominal / i64::from(part.frames.max(1)) / 2;
        let target = part.target_nanos();
        elapsed >= part.nominal.saturating_sub(half)
            || elapsed.saturating_add(usual) > target
            || (starts && elapsed >= target / 100 * 85)
            || self.open.len() >= MAX_FRAMES
    }

    /// Closes the part before the frame with dts `at`, with the sound that begins before it.
    fn part(&mut self, at: Timestamp, out: &mut Vec<Cut>) {
        let mut frames = std::mem::take(&mut self.open);
        while self.audio.front().is_some_and(|first| first.dts < at) {
            frames.extend(self.audio.pop_front());
        }
        out.push(Cut::Part(Part { frames, start: self.part_start, end: at }));
        self.part_start = at;
    }

    /// Gives what there is, as the end of a segment: nothing of this timeline follows. It can start again then.
    pub(crate) fn close(&mut self, out: &mut Vec<Cut>) {
        if let Some(last) = self.open.last() {
            let [before, step] = self.steps;
            let usual = before.min(step).max(1);
            let at = last.dts.moved(usual);
            // Sound may go on behind the last picture.
            self.open.extend(self.audio.drain(..));
            self.part(at, out);
            out.push(Cut::Segment);
        }
        self.audio.clear();
        self.steps = [self.intervals.get(self.leading); 2];
        self.gop = 0;
    }
}

#[cfg(test)]
mod tests;
