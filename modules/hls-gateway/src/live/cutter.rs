//! Frames to parts and segments.

use std::collections::VecDeque;

use av_media::{Frame, Kind, Timestamp};

use super::numbers::Numbers;

/// Sound that waits for pictures: beyond it the oldest goes.
const MAX_AUDIO: usize = 8192;
/// Frames of one part: where time stands still, a part ends all the same.
const MAX_FRAMES: usize = 4096;
/// Two ticks at 90 kHz: as much longer or shorter may a part be when its times are rounded to ticks.
const ROUNDING: i64 = 22_224;
/// So far may what is listed be behind media, in nanoseconds: players bear a second (hls.js moves its timeline beyond it).
const MOST_OWED: i64 = 1_000_000_000;

/// Some frames in a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Part {
    /// Of both tracks, each in order.
    pub frames: Vec<Frame>,
    /// dts of the first one of the leading track.
    pub start: Timestamp,
    /// dts of the one behind them.
    pub end: Timestamp,
    /// How long it is listed, in nanoseconds, where that is not what its times say.
    pub told: Option<i64>,
}

/// What the cutter gives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cut {
    /// The next part of the segment.
    Part(Part),
    /// A part of so many nanoseconds in which nothing can be fetched: a frame stands for much longer than a part may last.
    Gap(i64),
    /// It was the segment's last.
    Segment,
    /// What follows is listed as another timeline: what is listed has fallen too far behind media.
    Break,
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
    /// A decoder can start where the segment does.
    segment_starts: bool,
    last_sync: Timestamp,
    /// Distance of the last two sync frames.
    gop: i64,
    /// A frame that comes late stands for longer than a part may be listed: so much is owed, and listed by the parts behind
    /// it, which have room. A gap would stop players: behind one, hls.js waits for a sync frame.
    owed: i64,
    /// What was owed when the segment began.
    carried: i64,
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
            segment_starts: true,
            last_sync: Timestamp::ZERO,
            gop: 0,
            owed: 0,
            carried: 0,
            steps: [step; 2],
        }
    }

    /// From the next segment on they last that long, in nanoseconds.
    pub(crate) const fn segments_last(&mut self, segment: i64) {
        self.segment = segment;
    }

    /// Distance of the last two sync frames in nanoseconds; 0 where it is not known.
    pub(crate) const fn gop(&self) -> i64 {
        self.gop
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
                self.segment_starts = true;
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
        let length = at.nanos_since(self.part_start);
        if self.ends_segment(at, starts, usual) {
            self.part(at, out);
            self.segment(at, starts, out);
        } else if length > self.longest_part() || self.ends_part(length, starts, usual) {
            let is_short = length.saturating_add(self.owed) < self.shortest_part();
            self.part(at, out);
            // What is shorter than a part has to be is the last of its segment.
            if is_short {
                self.segment(at, starts, out);
            }
        }
        self.open.push(frame);
    }

    /// How long the segment is when it ends at `at` and owes nothing.
    fn elapsed(&self, at: Timestamp) -> i64 {
        at.nanos_since(self.segment_start).saturating_add(self.carried)
    }

    /// The longest part, with room for times that are rounded to ticks.
    fn longest_part(&self) -> i64 {
        self.numbers.part.map_or(i64::MAX, |part| part.target_nanos().saturating_sub(ROUNDING))
    }

    /// The shortest part that is not the last of its segment: 85 % of PART-TARGET (RFC 8216bis §4.4.4.9).
    fn shortest_part(&self) -> i64 {
        self.numbers.part.map_or(0, |part| (part.target_nanos() / 100 * 85).saturating_add(ROUNDING))
    }

    /// Frames that come further apart than those before: what was to be all of a part, or of a segment, with the last one
    /// is too long now, and ends before that.
    fn make_room(&mut self, at: Timestamp, out: &mut Vec<Cut>) {
        let part_is_full = at.nanos_since(self.part_start) > self.longest_part();
        let segment_is_full = self.elapsed(at) > self.numbers.longest_segment();
        if !(part_is_full || segment_is_full) {
            return;
        }
        let Some(last) = self.open.pop() else { return };
        if self.open.is_empty() {
            // The part has this frame alone. Its segment may end all the same.
            if segment_is_full && last.dts > self.segment_start {
                self.segment(last.dts, self.last_sync == last.dts, out);
            }
        } else {
            let told = last.dts.nanos_since(self.part_start).saturating_add(self.owed);
            let is_short = told < self.shortest_part();
            self.part(last.dts, out);
            if segment_is_full || is_short {
                self.segment(last.dts, self.last_sync == last.dts, out);
            }
        }
        self.open.push(last);
    }

    fn ends_segment(&self, at: Timestamp, starts: bool, usual: i64) -> bool {
        let elapsed = self.elapsed(at);
        let longest = self.numbers.longest_segment();
        if starts {
            let half = self.intervals.get(self.leading) / 2;
            let wants = !self.segment_starts && self.leading == Kind::Video;
            wants
                || elapsed >= self.segment.saturating_sub(half)
                || elapsed.saturating_add(self.gop) > longest
        } else {
            // No later frame would do.
            elapsed.saturating_add(usual) > longest
        }
    }

    fn ends_part(&self, length: i64, starts: bool, usual: i64) -> bool {
        let is_crowded = self.open.len() >= MAX_FRAMES;
        let Some(part) = self.numbers.part else { return is_crowded };
        let half = part.nominal / i64::from(part.frames.max(1)) / 2;
        let is_long = length >= self.shortest_part();
        // With the next frame it would be too long: where it is too short without, so is its segment.
        let is_last = length.saturating_add(usual) > self.longest_part();
        is_crowded || is_last || is_long && (starts || length >= part.nominal.saturating_sub(half))
    }

    /// Ends the segment before the frame with dts `at`. `starts`: a decoder can start there.
    fn segment(&mut self, at: Timestamp, starts: bool, out: &mut Vec<Cut>) {
        if out.last() != Some(&Cut::Segment) {
            out.push(Cut::Segment);
        }
        // A camera that has become slower than its parts may be listed: time to be even.
        if starts && self.owed > MOST_OWED / 2 {
            self.owed = 0;
            out.push(Cut::Break);
        }
        self.carried = self.owed;
        (self.segment_start, self.segment_starts) = (at, starts);
    }

    /// Closes the part before the frame with dts `at`, with the sound that begins before it.
    fn part(&mut self, at: Timestamp, out: &mut Vec<Cut>) {
        let mut frames = std::mem::take(&mut self.open);
        while self.audio.front().is_some_and(|first| first.dts < at) {
            frames.extend(self.audio.pop_front());
        }
        let start = self.part_start;
        let longest = self.longest_part();
        let listed = self.elapsed(start).saturating_sub(self.owed);
        let mut room = self.numbers.longest_segment().saturating_sub(listed);
        let length = at.nanos_since(start);
        let due = length.saturating_add(self.owed);
        let told = due.min(longest).min(room);
        // Where it fits, what its times say when they are rounded to ticks is what is told.
        let is_exact = told == length;
        out.push(Cut::Part(Part { frames, start, end: at, told: (!is_exact).then_some(told) }));
        let mut rest = due.saturating_sub(told);
        room = room.saturating_sub(told);
        self.owed = 0;
        if rest <= MOST_OWED && self.numbers.part.is_some() {
            self.owed = std::mem::take(&mut rest);
        }
        while rest > 0 {
            if room <= 0 {
                let told = at.moved(rest.saturating_neg());
                self.segment(told, false, out);
                room = self.numbers.target_nanos();
            }
            let piece = rest.min(longest).min(room);
            out.push(Cut::Gap(piece));
            (rest, room) = (rest.saturating_sub(piece), room.saturating_sub(piece));
        }
        if self.segment_start > start {
            // Media begins a segment of its own.
            self.segment(at, false, out);
        }
        self.part_start = at;
    }

    /// Gives what there is, as the end of a segment: nothing of this timeline follows. It can start again then.
    pub(crate) fn close(&mut self, out: &mut Vec<Cut>) {
        if let Some(last) = self.open.last() {
            let [before, step] = self.steps;
            // No longer than there is room for.
            let room = self.longest_part().saturating_sub(last.dts.nanos_since(self.part_start));
            let longest = self.numbers.longest_segment();
            let room = room.min(longest.saturating_sub(self.elapsed(last.dts)));
            let at = last.dts.moved(before.min(step).min(room).max(ROUNDING));
            // Sound may go on behind the last picture.
            self.open.extend(self.audio.drain(..));
            self.part(at, out);
            self.segment(at, false, out);
        }
        self.audio.clear();
        (self.owed, self.carried) = (0, 0);
        self.steps = [self.intervals.get(self.leading); 2];
        self.gop = 0;
    }
}

#[cfg(test)]
mod tests;
