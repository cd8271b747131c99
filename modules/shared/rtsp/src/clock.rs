//! One timeline for the tracks of a sender, whose RTP times have nothing in common.
//!
//! Where the server said which RTP times belong together (`RTP-Info`) that holds, otherwise the moments at which the first
//! packets came. Once both tracks had a sender report, sound is put right by them: at once if it is off by more than 40
//! ms or none of it was given out yet, later only as slowly as nobody hears. Some cameras stamp single frames hours away:
//! these are left out, and three in a row are another timeline. Others stamp for 25 pictures a second and send 21: their
//! pictures go by the pace at which they come.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use av_media::{Kind, Timestamp};

use crate::rtcp::{Ntp, WallClock};

mod pace;
#[cfg(test)]
mod tests;

use pace::{MILLION, Pace};

/// Nanoseconds by which RTP time and arrival may differ from one frame to the next.
const JUMP: i64 = 10_000_000_000;
/// So many frames in a row make another timeline.
const ROW: usize = 3;
/// Nanoseconds that sound may be off before it is put right at once.
const OFF: i64 = 40_000_000;
/// Reports are of whole ticks: what sound is off by less may be nothing.
const NOISE: i64 = 1_000_000;
/// Reports of one track agree to so many nanoseconds, or else the newer one is not believed yet.
const AGREE: i64 = 1_000_000_000;
/// One part in so many is the most by which sound is made faster or slower.
const SLEW: i64 = 200;

/// See the module's text. `T` is what waits together with its time.
#[derive(Debug)]
pub struct Clock<T> {
    video: Option<Track<T>>,
    audio: Option<Track<T>>,
    /// Nanoseconds by which sound is later than by its own base, and by which it ought to be.
    correction: i64,
    target: i64,
    /// The first word of the sender reports was heard.
    is_aligned: bool,
    left_out: u64,
    /// Of pictures.
    pace: Pace,
}

#[derive(Debug)]
struct Track<T> {
    rate: NonZeroU32,
    /// By how many millionths the track's time passes more slowly than it is stamped.
    stretch: i64,
    /// RTP time at which stream time is zero, by the server.
    info: Option<i64>,
    /// This RTP time is this stream time.
    base: Option<(i64, Timestamp)>,
    /// RTP time, stream time and arrival of the last frame.
    last: Option<(i64, Timestamp, Timestamp)>,
    /// Frames that don't belong to the timeline so far.
    strays: VecDeque<(i64, Timestamp, T)>,
    /// A wall clock time in nanoseconds since 1970, and its RTP time.
    report: Option<(i64, i64)>,
    /// The report before agrees.
    is_believed: bool,
}

impl<T> Track<T> {
    const fn new(rate: NonZeroU32) -> Self {
        Self {
            rate,
            stretch: 0,
            info: None,
            base: None,
            last: None,
            strays: VecDeque::new(),
            report: None,
            is_believed: false,
        }
    }

    fn nanos(&self, ticks: i64) -> i64 {
        let stamped = Timestamp::from_ticks(ticks, self.rate).nanos();
        let (whole, rest) = (stamped / MILLION, stamped % MILLION);
        stamped
            .saturating_add(whole.saturating_mul(self.stretch))
            .saturating_add(rest * self.stretch / MILLION)
    }

    /// Stream time by the base alone.
    fn time(&self, ticks: i64) -> Option<Timestamp> {
        let (base, time) = self.base?;
        Some(time.moved(self.nanos(ticks.saturating_sub(base))))
    }

    /// Whether a frame that came at `arrival` follows one of the same timeline.
    fn follows(&self, (ticks, arrival): (i64, Timestamp), before: (i64, Timestamp)) -> bool {
        let by_rtp = self.nanos(ticks.saturating_sub(before.0));
        by_rtp.saturating_sub(arrival.nanos_since(before.1)).abs() <= JUMP
    }

    /// Wall clock time less stream time.
    fn offset(&self) -> Option<i64> {
        let (wall, ticks) = self.report.filter(|_| self.is_believed)?;
        Some(wall.saturating_sub(self.time(ticks)?.nanos()))
    }
}

impl<T> Clock<T> {
    /// For tracks by their RTP ticks a second.
    pub fn new(video: Option<NonZeroU32>, audio: Option<NonZeroU32>) -> Self {
        Self {
            video: video.map(Track::new),
            audio: audio.map(Track::new),
            correction: 0,
            target: 0,
            is_aligned: false,
            left_out: 0,
            pace: Pace::default(),
        }
    }

    /// Frames left out, because their time was far from that of all others, or before that of sound that was given out.
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    fn track(&mut self, kind: Kind) -> Option<&mut Track<T>> {
        match kind {
            Kind::Video => self.video.as_mut(),
            Kind::Audio => self.audio.as_mut(),
        }
    }

    /// `rtptime` of a track, its wraps counted: where stream time is zero. Of use where all tracks have one.
    pub fn info(&mut self, kind: Kind, ticks: i64) {
        if let Some(track) = self.track(kind) {
            track.info = Some(ticks);
        }
    }

    /// `ticks` of a track's RTP time were at `time`, by what is known of it before its first frame.
    pub fn begins(&mut self, kind: Kind, ticks: i64, time: Timestamp) {
        if let Some(track) = self.track(kind) {
            track.base.get_or_insert((ticks, time));
            self.align();
        }
    }

    /// The time of a frame at `ticks` of RTP time, wraps counted, that came at `arrival` (since any moment, the same for
    /// all); appends what goes on: none, this one, or those that waited as well.
    pub fn push(
        &mut self,
        kind: Kind,
        ticks: i64,
        arrival: Timestamp,
        item: T,
        out: &mut Vec<(Timestamp, T)>,
    ) {
        let tracks = [&self.video, &self.audio];
        let by_info = tracks.into_iter().flatten().all(|track| track.info.is_some());
        let Some(track) = self.track(kind) else { return };
        if track.base.is_none() {
            // An `rtptime` that is far from what comes is a server's mistake.
            let info = track.info.filter(|info| track.nanos(ticks.saturating_sub(*info)).abs() <= JUMP);
            let info = info.filter(|_| by_info);
            track.base = Some(info.map_or((ticks, arrival), |info| (info, Timestamp::ZERO)));
            // Reports may have come before.
            self.align();
        }
        let Some(track) = self.track(kind) else { return };
        let here = (ticks, arrival);
        match track.last {
            Some((last, time, came)) if !track.follows(here, (last, came)) => {
                let alone = track.strays.back().is_some_and(|stray| !track.follows(here, (stray.0, stray.1)));
                if alone {
                    let strays = std::mem::take(&mut track.strays);
                    self.left_out += strays.len() as u64;
                }
                let Some(track) = self.track(kind) else { return };
                track.strays.push_back((ticks, arrival, item));
                if track.strays.len() < ROW {
                    return;
                }
                // Another timeline: it follows the one before by when its first frame came.
                let strays = std::mem::take(&mut track.strays);
                if let Some((first, at, _)) = strays.front() {
                    let after = at.nanos_since(came).clamp(1_000_000, JUMP);
                    track.base = Some((*first, time.moved(after)));
                    track.report = None;
                    track.is_believed = false;
                    if kind == Kind::Audio {
                        (self.correction, self.target) = (0, 0);
                    }
                    self.is_aligned = false;
                    self.pace = Pace::default();
                }
                for (ticks, arrival, item) in strays {
                    self.give(kind, ticks, arrival, item, out);
                }
            }
            _ => {
                let strays = track.strays.len() as u64;
                track.strays.clear();
                self.left_out += strays;
                self.give(kind, ticks, arrival, item, out);
            }
        }
    }

    fn give(&mut self, kind: Kind, ticks: i64, arrival: Timestamp, item: T, out: &mut Vec<(Timestamp, T)>) {
        let wanted = self.target.saturating_sub(self.correction);
        let correction = self.correction;
        let sound = self.audio.as_ref().and_then(|audio| audio.last).map(|(_, time, came)| (time, came));
        let Some(track) = (match kind {
            Kind::Video => self.video.as_mut(),
            Kind::Audio => self.audio.as_mut(),
        }) else {
            return;
        };
        let Some(mut time) = track.time(ticks) else { return };
        let last = track.last.map(|(_, time, _)| time);
        if kind == Kind::Audio {
            let elapsed = last.map_or(0, |last| time.moved(correction).nanos_since(last).max(0));
            let correction = correction.saturating_add(wanted.clamp(-elapsed / SLEW, elapsed / SLEW));
            time = time.moved(correction);
            let is_late = last.is_some_and(|last| time <= last);
            if !is_late {
                track.last = Some((ticks, time, arrival));
                self.correction = correction;
                out.push((time, item));
                return;
            }
            // It was put right, and this was heard already.
            track.last = last.map(|last| (ticks, last, arrival));
            self.left_out += 1;
            return;
        }
        track.last = Some((ticks, time, arrival));
        if let Some(off) = self.pace.picture((time, arrival), sound) {
            time = time.moved(off.behind.max(0));
            track.base = Some((ticks, time));
            track.last = Some((ticks, time, arrival));
            track.stretch += off.millionths + track.stretch * off.millionths / MILLION;
            // Nothing goes back: where pictures are ahead, sound follows.
            let ahead = off.behind.min(0).saturating_neg();
            self.correction = self.correction.saturating_add(ahead);
            self.target = self.target.saturating_add(ahead);
        }
        out.push((time, item));
    }

    /// A sender report of a track: `ticks` of its RTP time, wraps counted, were at `ntp`.
    pub fn report(&mut self, kind: Kind, ntp: Ntp, ticks: i64) {
        if !ntp.is_plausible() {
            return;
        }
        let wall = ntp.unix_nanos();
        let Some(track) = self.track(kind) else { return };
        let agrees = track.report.is_none_or(|(before, at)| {
            let by_rtp = track.nanos(ticks.saturating_sub(at));
            wall.saturating_sub(before).saturating_sub(by_rtp).abs() <= AGREE
        });
        track.report = Some((wall, ticks));
        track.is_believed = agrees;
        if agrees {
            self.align();
        }
    }

    /// What the reports of both tracks say of sound.
    fn align(&mut self) {
        let offset = |track: &Option<Track<T>>| track.as_ref().and_then(Track::offset);
        let (Some(video), Some(audio)) = (offset(&self.video), offset(&self.audio)) else { return };
        let target = audio.saturating_sub(video);
        if target.saturating_abs() > JUMP {
            return;
        }
        let is_first = !std::mem::replace(&mut self.is_aligned, true);
        if target.saturating_sub(self.target).abs() < NOISE {
            return;
        }
        self.target = target;
        let is_unheard = self.audio.as_ref().is_some_and(|audio| audio.last.is_none());
        if is_unheard || is_first && target.saturating_sub(self.correction).abs() > OFF {
            self.correction = target;
        }
    }

    /// Which wall clock time stream time is, by the sender's reports.
    pub fn wall_clock(&self) -> Option<WallClock> {
        let of = |track: &Option<Track<T>>, later: i64| {
            let track = track.as_ref()?;
            let (unix_nanos, ticks) = track.report.filter(|_| track.is_believed)?;
            Some(WallClock { stream: track.time(ticks)?.moved(later), unix_nanos })
        };
        of(&self.video, 0).or_else(|| of(&self.audio, self.correction))
    }
}
