//! Decoding times, which RTP does not carry: rebuilt from the order of presentation.
//!
//! Where at most `n` pictures are coded before a picture and shown after it, the `n`-th picture from here is decoded when
//! the earliest of those that wait is shown. So a decoding time is never later than the presentation time, and rises.

use std::collections::{BTreeMap, VecDeque};

use av_media::h264::AvcConfig;
use av_media::h265::HevcConfig;
use av_media::{Codec, Timestamp, Track};

#[cfg(test)]
mod tests;

/// More pictures than that are never reordered (H.264 and H.265 Annex A).
const MOST: usize = 16;
/// Where nobody says how pictures are reordered, the first so many are looked at.
const LOOK: usize = 4;
/// A step where none is known yet: 25 pictures a second.
const STEP: i64 = 40_000_000;
/// Two decoding times are never closer: a tick at 90 kHz.
const LEAST: i64 = 11_112;

/// Gives pictures their decoding times.
#[derive(Debug)]
pub struct DecodeOrder<T> {
    /// How many pictures are coded before one and shown after it.
    depth: usize,
    /// The parameter sets say so.
    is_declared: bool,
    step: i64,
    /// Presentation times of the newest `depth` pictures that were not used as decoding times yet, and how often each.
    waiting: BTreeMap<Timestamp, usize>,
    waits: usize,
    last: Option<Timestamp>,
    /// The first pictures, while it is not known how they are reordered.
    held: Option<VecDeque<(Timestamp, bool, T)>>,
    /// Up to the next sync picture nothing goes out.
    is_lost: bool,
    left_out: u64,
}

/// What comes out: presentation time, decoding time, and the picture.
pub type Decodable<T> = (Timestamp, Timestamp, T);

impl<T> Default for DecodeOrder<T> {
    fn default() -> Self {
        Self {
            depth: 0,
            is_declared: true,
            step: STEP,
            waiting: BTreeMap::new(),
            waits: 0,
            last: None,
            held: None,
            is_lost: false,
            left_out: 0,
        }
    }
}

impl<T> DecodeOrder<T> {
    /// Pictures left out because they were shown earlier than anything that was announced allows.
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// What follows is coded so.
    pub fn set_track(&mut self, track: &Track) {
        let (declared, fps) = match track.codec {
            Codec::H264 => {
                let sps = AvcConfig::parse(track.config.clone()).ok().and_then(|config| config.first_sps());
                let depth = sps.as_ref().and_then(|sps| match sps.reorder_frames() {
                    0 => Some(0),
                    _ => sps.declared_reorder_frames,
                });
                (depth, track.video.fps)
            }
            Codec::H265 => {
                let sps = HevcConfig::parse(track.config.clone()).ok().and_then(|config| config.first_sps());
                (sps.map(|sps| sps.reorder_frames), track.video.fps)
            }
            _ => (Some(0), None),
        };
        let rate = fps.or(track.video.fps).filter(|fps| (1.0..=1000.0).contains(fps));
        // Between a millisecond and a second.
        self.step = rate.map_or(STEP, |fps| (1e9 / fps) as i64);
        self.is_declared = declared.is_some();
        let depth = usize::from(declared.unwrap_or_default()).min(MOST);
        if depth != self.depth || !self.is_declared {
            self.depth = depth;
            self.restart();
        }
    }

    /// The timeline begins anew.
    pub fn restart(&mut self) {
        self.waiting.clear();
        self.waits = 0;
        self.held = (!self.is_declared).then(VecDeque::new);
    }

    /// Takes the next picture in coding order; appends those whose decoding time is known now.
    pub fn push(&mut self, pts: Timestamp, is_sync: bool, picture: T, out: &mut Vec<Decodable<T>>) {
        let Some(held) = &mut self.held else { return self.place(pts, is_sync, picture, out) };
        held.push_back((pts, is_sync, picture));
        if held.len() > LOOK {
            self.flush(out);
        }
    }

    /// Does not wait for more.
    pub fn flush(&mut self, out: &mut Vec<Decodable<T>>) {
        let Some(held) = self.held.take() else { return };
        // How many pictures stand before one and are shown after it.
        let shown: Vec<Timestamp> = held.iter().map(|(pts, ..)| *pts).collect();
        let overtaken = shown
            .iter()
            .enumerate()
            .map(|(index, pts)| shown.iter().take(index).filter(|before| *before > pts).count());
        self.depth = self.depth.max(overtaken.max().unwrap_or_default()).min(MOST);
        for (pts, is_sync, picture) in held {
            self.place(pts, is_sync, picture, out);
        }
    }

    fn place(&mut self, pts: Timestamp, is_sync: bool, picture: T, out: &mut Vec<Decodable<T>>) {
        if is_sync {
            self.is_lost = false;
            // Nothing that is shown before it follows, as a rule: so what is far from it belongs to another timeline.
            let far = |time: &Timestamp| time.nanos_since(pts).abs() > 10_000_000_000;
            if self.waiting.keys().any(far) || self.last.as_ref().is_some_and(far) {
                self.restart_at_once();
            }
        }
        if self.is_lost {
            self.left_out += 1;
            return;
        }
        let dts = self.next(pts);
        let dts = match self.last {
            Some(last) if dts <= last => last.moved(LEAST),
            _ => dts,
        };
        if dts > pts {
            // More pictures are reordered than was said: from the next sync picture on it is one more.
            self.left_out += 1;
            self.is_lost = true;
            self.depth = (self.depth + 1).min(MOST);
            self.restart_at_once();
            return;
        }
        self.last = Some(dts);
        out.push((pts, dts, picture));
    }

    fn restart_at_once(&mut self) {
        self.waiting.clear();
        self.waits = 0;
        self.last = None;
    }

    fn next(&mut self, pts: Timestamp) -> Timestamp {
        *self.waiting.entry(pts).or_default() += 1;
        self.waits += 1;
        if self.waits <= self.depth {
            // The first ones: as many steps before the first that is shown.
            let first = self.waiting.first_key_value().map_or(pts, |(first, _)| *first);
            let steps = i64::try_from(self.depth + 1 - self.waits).unwrap_or_default();
            return first.moved(-steps * self.step);
        }
        let Some(mut entry) = self.waiting.first_entry() else { return pts };
        let dts = *entry.key();
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
        self.waits -= 1;
        dts
    }
}
