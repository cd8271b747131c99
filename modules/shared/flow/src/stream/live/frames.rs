//! A frame on its way into the ring.

use std::time::Duration;

use av_media::{Frame, Kind, Normal, Picture, Timestamp};
use tokio::time::Instant;

use super::Live;
use crate::stream::ring::StartPoint;
use crate::stream::timeline::LEAST_STEP;
use crate::stream::writer::Last;
use crate::stream::{Entry, Gap, GapCause, InputStatus, Item, Skip, State};

/// A start point whose picture stands still is at most that old.
const MAX_STILL: Duration = Duration::from_secs(10);
/// The still is given again that many nanoseconds before the sound.
const STILL_BEFORE: i64 = 500_000_000;
/// Readers of a stream whose video is silent start at sound after that long.
const VIDEO_PATIENCE: Duration = Duration::from_secs(2);
/// While it stays silent, the sound at which they start is at most about that old.
const SOUND_START: Duration = Duration::from_secs(1);
/// Slices that are added to a picture; more are set apart, so that nobody makes us copy without end.
const MAX_SLICES: u8 = 64;
/// And bytes of the picture with them.
const MAX_PICTURE: usize = 32 << 20;

/// A frame on the stream's timeline.
pub(super) struct Placed {
    pub(super) frame: Frame,
    /// Its dts as the source stamped it.
    stamped: Timestamp,
    /// The timeline was re-based for it.
    jumped: Option<i64>,
    pub(super) arrived: Instant,
}

impl Live {
    /// Something came that was no frame in the end. `None`: the caller is displaced.
    pub(in crate::stream) fn heard(
        &mut self,
        id: u64,
        kind: Kind,
        size: usize,
        now: Instant,
        input: &InputStatus,
    ) -> Option<()> {
        self.writer(id)?.hears(kind, now);
        input.bytes.add(kind, size as u64);
        Some(())
    }

    /// Takes a frame in the publisher's own times, `size` bytes as it came. `None`: the caller is displaced.
    pub(in crate::stream) fn frame(
        &mut self,
        id: u64,
        normal: Normal,
        size: usize,
        now: Instant,
        input: &InputStatus,
    ) -> Option<()> {
        let Normal { frame, picture } = normal;
        let content = self.settings.content;
        let kind = frame.kind;
        self.heard(id, kind, size, now, input)?;
        if picture == Picture::Continues && self.add_slice(&frame, now) {
            return Some(());
        }
        self.whole_picture();
        input.frames.add(kind, 1);
        let writer = self.writer(id)?;
        let waits_for_sync = kind == Kind::Video && writer.needs_sync && !frame.is_sync;
        if !content.admits(kind) || writer.tracks.get(kind).is_none() || waits_for_sync {
            input.dropped.add(kind, 1);
            writer.picture = writer.picture.filter(|_| kind != Kind::Video);
            if waits_for_sync && content.admits(kind) {
                input.skipped.add(Skip::BeforeSync, 1);
                writer.waits_for_sync.get_or_insert(now);
            }
            if let (false, Some(held)) = (content.admits(kind), &mut writer.held) {
                // Should nothing else come, readers are told that what they wait for is missing.
                held.since.get_or_insert(now);
                if self.complete(now) {
                    self.announce(now);
                }
            }
            return Some(());
        }
        if kind == Kind::Video {
            writer.needs_sync = false;
            if writer.waits_for_sync.take().is_some() {
                input.leave_out(kind, None);
            }
            writer.begin_picture(&frame);
        }
        if let Some(held) = &mut writer.held {
            held.since.get_or_insert(now);
            held.bytes += frame.data.len();
            held.frames.push((frame, now));
            if self.complete(now) {
                self.announce(now);
            }
        } else if kind == Kind::Video && writer.is_sliced {
            writer.pending = Some((frame, now));
        } else {
            self.deliver(frame, now);
        }
        input.status.set(State::Running, None);
        Some(())
    }

    /// Adds another slice to the picture that came last, if it is one of that picture. From then on pictures wait a little,
    /// as they may not be whole: also where a reader was quicker this time and has the first part already.
    fn add_slice(&mut self, slice: &Frame, now: Instant) -> bool {
        let Some(writer) = &mut self.writer else { return false };
        let Some(last) = writer.picture.as_mut().filter(|last| last.time == slice.dts) else { return false };
        let Last { slices, bytes, .. } = *last;
        let sum = bytes.saturating_add(slice.data.len());
        if slices >= MAX_SLICES || sum > MAX_PICTURE {
            return false;
        }
        (last.slices, last.bytes) = (slices + 1, sum);
        writer.is_sliced = true;
        if writer.add_slice(&slice.data, now) {
            return true;
        }
        if writer.held.is_some() {
            return false;
        }
        let Some(given_up) = self.ring.add_slice(&slice.data) else { return false };
        if given_up {
            self.push(Item::GivenUp, now);
        }
        true
    }

    /// The picture that waited for more of its slices goes to readers when it has waited for long enough. Returns whether
    /// it did.
    pub(super) fn flush_due(&mut self, now: Instant) -> bool {
        let due =
            self.writer.as_ref().and_then(|writer| writer.pending_until()).is_some_and(|due| due <= now);
        if due {
            self.whole_picture();
        }
        due
    }

    /// The picture that waited for more of its slices goes to readers.
    pub(super) fn whole_picture(&mut self) {
        if let Some((frame, arrived)) = self.writer.as_mut().and_then(|writer| writer.pending.take()) {
            self.deliver(frame, arrived);
        }
    }

    /// To readers, who know the tracks.
    fn deliver(&mut self, frame: Frame, now: Instant) {
        let placed = self.place(frame, now);
        if let Some(opening) = self.open(placed.frame.dts, now) {
            self.push(opening, now);
        } else if let Some(nanos) = placed.jumped {
            let anchor = self.anchor(placed.frame.dts, now);
            self.push(Item::Gap(Gap { cause: GapCause::Jump { nanos }, anchor }), now);
        }
        self.append(placed);
    }

    /// Puts a frame on the stream's timeline, and sound on its grid.
    pub(super) fn place(&mut self, mut frame: Frame, arrived: Instant) -> Placed {
        let offset = frame.pts.nanos_since(frame.dts);
        let placed = self.timeline.map(frame.kind, frame.dts, arrived);
        if placed.jumped.is_some() {
            self.sound.restart();
            self.pictures.restart();
        }
        frame.dts = match frame.kind {
            Kind::Video => {
                // A still that was given again may lie behind it.
                let dts = self.last_video.map_or(placed.dts, |last| placed.dts.max(last.moved(LEAST_STEP)));
                self.last_video = Some(dts);
                self.pictures.frame(dts);
                dts
            }
            Kind::Audio => self.sound.place(placed.dts, &frame.data),
        };
        let stamped = if frame.kind == Kind::Video { frame.dts } else { placed.dts };
        frame.pts = frame.dts.moved(offset);
        Placed { frame, stamped, jumped: placed.jumped, arrived }
    }

    pub(super) fn append(&mut self, placed: Placed) {
        if placed.frame.kind == Kind::Audio {
            self.repeat_still(&placed);
        }
        let Placed { frame, stamped, arrived, .. } = placed;
        let starts = self.may_start(&frame, arrived);
        if let (Kind::Video, Some(writer)) = (frame.kind, &mut self.writer) {
            writer.pictures = true;
        }
        if starts && let Some(told) = &self.told {
            self.ring.start_here(told.clone());
        }
        self.write(Entry { item: Item::Frame(frame), arrived, starts }, stamped);
    }

    /// A picture that stands still is no place to start at for ever, or who joins would be as far behind: while sound
    /// goes on, it is given again. Where more than one picture came since the start point, that is given up.
    fn repeat_still(&mut self, sound: &Placed) {
        let Some(StartPoint { seq, told }) = self.ring.start() else { return };
        let (start, now) = (*seq, sound.arrived);
        let silent =
            self.writer.as_ref().map(|writer| now.saturating_duration_since(writer.heard(Kind::Video)));
        if silent.is_none_or(|silent| silent < VIDEO_PATIENCE) {
            return;
        }
        let told = told.clone();
        let Some((Entry { item: Item::Frame(still), arrived, .. }, stamped)) = self.ring.take(start) else {
            return;
        };
        if still.kind != Kind::Video || now.saturating_duration_since(arrived) < MAX_STILL {
            return;
        }
        let pictures = self.ring.frames_before(self.ring.end()).get(Kind::Video)
            - self.ring.frames_before(start).get(Kind::Video);
        if pictures > 1 {
            return self.ring.forget_start();
        }
        // By the time that has passed, but a little before the sound, so that the picture that comes next, which may be
        // muxed late, is behind it.
        let passed = still.dts.saturating_add(now.saturating_duration_since(arrived));
        let least = self.last_video.unwrap_or(still.dts).moved(LEAST_STEP);
        let dts = passed.min(sound.frame.dts.moved(-STILL_BEFORE)).max(least);
        let moved = dts.nanos_since(still.dts);
        let frame = Frame { dts, pts: still.pts.moved(moved), ..still };
        let stamped = stamped.moved(moved);
        self.last_video = Some(dts);
        self.ring.start_here(told);
        self.write(Entry { item: Item::Frame(frame), arrived: now, starts: true }, stamped);
    }

    /// The rule where a decoder may start: at a sync picture; at sound where there are no pictures, or none yet, as
    /// the first one will be a sync frame. About once a second there, so that who joins late is not given all of it.
    fn may_start(&self, frame: &Frame, now: Instant) -> bool {
        if frame.kind == Kind::Video {
            return frame.is_sync;
        }
        let has_video = self.told.as_ref().is_some_and(|told| told.tracks.video.is_some());
        let Some(writer) = self.writer.as_ref().filter(|_| has_video) else { return !has_video };
        let silent = now.saturating_duration_since(writer.heard(Kind::Video)) > VIDEO_PATIENCE;
        let is_due = self.ring.start_frame().is_none_or(|(kind, arrived)| {
            kind == Kind::Audio && now.saturating_duration_since(arrived) >= SOUND_START
        });
        is_due && (!writer.pictures || silent)
    }
}
