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
/// So far may the parts of a segment be listed behind their media, in nanoseconds: hls.js moves its timeline where they are a
/// second apart.
const BEHIND: i64 = 900_000_000;

/// Some frames in a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Part {
    /// Of both tracks, each in order.
    pub frames: Vec<Frame>,
    /// dts of the first one of the leading track.
    pub start: Timestamp,
    /// dts of the one behind them.
    pub end: Timestamp,
    /// How long it is listed as a part, in nanoseconds, where that is not what its times say.
    pub told: Option<i64>,
    /// So much of its time is listed as a gap behind it, in nanoseconds.
    pub gap: i64,
}

/// What the cutter gives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cut {
    /// The next part of the segment.
    Part(Part),
    /// A part of so many nanoseconds in which nothing can be fetched: a frame stands for longer than can be listed.
    Gap(i64),
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
///
/// Parts have to be 85 to 100 % of a length, whatever times frames have. Where they can't, because a picture comes late or
/// is lost, a part is listed as long as it may be, and those behind it make up for that within their segment, which is listed as
/// long as its media are. A gap would be worse: behind one, hls.js takes no part up to the next sync frame. So would be a
/// segment that ends there: who begins at the next one has no sync frame.
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
    /// How long the parts and gaps of this segment are listed.
    told: i64,
    /// So much of the segment's time up to `part_start` is listed in none of them. Below 0: it is listed already.
    owed: i64,
    /// A decoder can start where the segment does.
    segment_starts: bool,
    /// Behind a gap between parts, up to the next sync frame: each part is a segment.
    scattered: bool,
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
            told: 0,
            owed: 0,
            segment_starts: true,
            scattered: false,
            last_sync: Timestamp::ZERO,
            gop: 0,
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
                (self.began, self.part_start, self.last_sync) = (at, at, at);
                (self.told, self.owed) = (0, 0);
                (self.segment_starts, self.scattered) = (true, false);
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
            self.part(at, true, starts, out);
        } else if self.ends_part(self.wanted(at), starts, usual) {
            self.part(at, false, starts, out);
        }
        self.open.push(frame);
    }

    /// How long a part that ends at `at` would have to be listed.
    fn wanted(&self, at: Timestamp) -> i64 {
        at.nanos_since(self.part_start).saturating_add(self.owed)
    }

    /// How long the segment would be if it ended at `at`.
    fn elapsed(&self, at: Timestamp) -> i64 {
        self.told.saturating_add(self.wanted(at))
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
        let part_is_full = self.wanted(at) > self.longest_part();
        let segment_is_full = self.elapsed(at) > self.numbers.longest_segment();
        if !(part_is_full || segment_is_full) {
            return;
        }
        let Some(last) = self.open.pop() else { return };
        let starts = self.last_sync == last.dts;
        if !self.open.is_empty() {
            // What is too short without this frame is listed as long as it may be, with it.
            if segment_is_full || self.wanted(last.dts) >= self.shortest_part() {
                self.part(last.dts, segment_is_full, starts, out);
            }
        } else if segment_is_full && self.told > 0 {
            // The part has this frame alone. Its segment may end all the same.
            self.segment(starts, out);
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

    fn ends_part(&self, wanted: i64, starts: bool, usual: i64) -> bool {
        let is_crowded = self.open.len() >= MAX_FRAMES;
        let Some(part) = self.numbers.part else { return is_crowded };
        let half = part.nominal / i64::from(part.frames.max(1)) / 2;
        let is_long = wanted >= self.shortest_part();
        // With the next frame it would be too long.
        let is_last = wanted.saturating_add(usual) > self.longest_part();
        is_crowded || is_last || is_long && (starts || wanted >= part.nominal.saturating_sub(half))
    }

    /// Ends the segment, which is as long as its media, however long its parts are listed. `starts`: a decoder can start at
    /// the next one.
    fn segment(&mut self, starts: bool, out: &mut Vec<Cut>) {
        if !matches!(out.last(), Some(Cut::Segment)) {
            out.push(Cut::Segment);
        }
        (self.told, self.owed, self.segment_starts) = (0, 0, starts);
        self.scattered &= !starts;
    }

    /// Tells what is `owed` as a gap.
    fn gap(&mut self, mut owed: i64, out: &mut Vec<Cut>) {
        let mut room = self.numbers.longest_segment().saturating_sub(self.told);
        while owed > 0 {
            if room <= 0 {
                self.segment(false, out);
                room = self.numbers.target_nanos();
            }
            let piece = owed.min(self.longest_part()).min(room);
            out.push(Cut::Gap(piece));
            self.told = self.told.saturating_add(piece);
            owed = owed.saturating_sub(piece);
            room = room.saturating_sub(piece);
        }
    }

    /// Closes the part before the frame with dts `at`, with the sound that begins before it. `starts`: a decoder can start
    /// there. `ends`: the segment does.
    fn part(&mut self, at: Timestamp, ends: bool, starts: bool, out: &mut Vec<Cut>) {
        let mut frames = std::mem::take(&mut self.open);
        while self.audio.front().is_some_and(|first| first.dts < at) {
            frames.extend(self.audio.pop_front());
        }
        let wanted = self.wanted(at);
        let longest = self.longest_part();
        let room = self.numbers.longest_segment().saturating_sub(self.told);
        let has_parts = self.numbers.part.is_some();
        // It may be listed longer than it is by less than a frame, which those behind it make up for. What is too short even so
        // is the last of its segment.
        let ahead = self.steps.into_iter().min().unwrap_or(0).max(0) / 5 * 4;
        let is_short = has_parts && wanted < self.shortest_part().saturating_sub(ahead);
        let ends = ends || is_short || self.scattered || wanted.max(self.shortest_part()) > room;
        let least = if ends { ROUNDING } else { self.shortest_part().max(ROUNDING) };
        let told = wanted.max(least).min(longest).min(room).max(ROUNDING);
        let owed = wanted.saturating_sub(told);
        // Where nothing is made up for, what its times say when they are rounded to ticks is what is told.
        let is_exact = self.owed == 0 && owed == 0;
        let start = std::mem::replace(&mut self.part_start, at);
        // No segment is longer than may be listed.
        let is_gap = owed > if has_parts { BEHIND.min(room.saturating_sub(told)) } else { 0 };
        let gap = if is_gap { owed } else { 0 };
        out.push(Cut::Part(Part { frames, start, end: at, told: (!is_exact).then_some(told), gap }));
        self.told = self.told.saturating_add(told);
        self.owed = owed;
        if is_gap {
            self.gap(owed, out);
        }
        if is_gap || ends {
            // Media begins a segment of its own. Behind a gap hls.js takes whole segments at once, and parts up to the next
            // sync frame not at all.
            self.scattered |= is_gap && has_parts;
            self.segment(starts, out);
        }
    }

    /// Gives what there is, as the end of a segment: nothing of this timeline follows. It can start again then.
    pub(crate) fn close(&mut self, out: &mut Vec<Cut>) {
        if let Some(last) = self.open.last() {
            let [before, step] = self.steps;
            // No longer than there is room for.
            let room = self.longest_part().saturating_sub(self.wanted(last.dts));
            let longest = self.numbers.longest_segment();
            let room = room.min(longest.saturating_sub(self.elapsed(last.dts)));
            let at = last.dts.moved(before.min(step).min(room).max(ROUNDING));
            // Sound may go on behind the last picture.
            self.open.extend(self.audio.drain(..));
            self.part(at, true, false, out);
        }
        self.owed = 0;
        self.audio.clear();
        self.steps = [self.intervals.get(self.leading); 2];
        self.gop = 0;
    }
}

#[cfg(test)]
mod tests;
