//! What a reader of a stream gets, as a playlist.

mod again;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use av_flow::stream::{Entry, Item, Tracks};
use av_media::{Frame, Kind, Timestamp};

use super::cutter::{Cut, Cutter, Intervals};
use super::dates::{Dates, nanos};
use super::measuring::Measuring;
use super::memory::Memory;
use super::muxer::Muxer;
use super::numbers::{MAX_GOP, Numbers};
use super::quiet::Quiet;
use super::shelf::Shelf;
use super::silence::Silence;
use super::version::{Looks, StreamInf, Version};
use super::window::Window;
use crate::options::Shaped;

/// Where nothing says how long frames are.
const DEFAULT_VIDEO: Duration = Duration::from_millis(40);
const DEFAULT_AUDIO: Duration = Duration::from_nanos(21_333_333);
/// Pictures that fail to come for so long are silence, unless they always come that slowly.
const SILENCE: Duration = Duration::from_secs(1);

/// Sound without pictures for so long is worth a word.
const UNSEEN: Duration = Duration::from_secs(5);

/// What there is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing yet.
    Waiting,
    Live,
    /// The publisher is away; the playlist goes on.
    Silent,
}

/// Packages one stream. Sans IO: it is told what came, and when it is.
pub(crate) struct Packager<M> {
    shaped: Shaped,
    memory: M,
    window: Option<Window>,
    tracks: Arc<Tracks>,
    muxer: Option<Muxer>,
    /// What the last version said of its tracks, and what of that is kept.
    shown: Looks,
    kept: Looks,
    cutter: Option<Cutter>,
    measuring: Measuring,
    dates: Dates,
    /// Added to all times, so that none is negative.
    shift: Option<i64>,
    /// When the last frame came that says where to cut.
    heard: Option<Instant>,
    silence: Option<Silence>,
    /// Since when sound comes and no picture, although there is to be one.
    unseen: Option<Instant>,
    intervals: Intervals,
    quiet: Quiet,
    /// dts of the newest pictures and of the newest sound.
    newest: [Option<Timestamp>; 2],
    /// The stream is read anew; whether something came that was known.
    rejoining: Option<bool>,
    serial: u64,
    changed: bool,
    /// What the cutter has given and the window has not taken; empty but for its memory.
    cuts: Vec<Cut>,
}

impl<M: Memory> Packager<M> {
    pub(crate) fn new(shaped: Shaped, memory: M) -> Self {
        Self {
            shaped,
            memory,
            window: None,
            tracks: Arc::default(),
            muxer: None,
            shown: Looks::default(),
            kept: Looks::default(),
            cutter: None,
            measuring: Measuring::default(),
            dates: Dates::default(),
            shift: None,
            heard: None,
            silence: None,
            unseen: None,
            intervals: Intervals { video: nanos(DEFAULT_VIDEO), audio: nanos(DEFAULT_AUDIO) },
            quiet: Quiet::default(),
            newest: [None; 2],
            rejoining: None,
            serial: 0,
            changed: false,
            cuts: Vec::new(),
        }
    }

    /// How long frames are, as far as the stream knows.
    pub(crate) fn frames_last(&mut self, video: Option<Duration>, audio: Option<Duration>) {
        let usable = |interval: Option<Duration>, or| interval.filter(|i| !i.is_zero()).unwrap_or(or);
        self.intervals = Intervals {
            video: nanos(usable(video, DEFAULT_VIDEO)),
            audio: nanos(usable(audio, DEFAULT_AUDIO)),
        };
    }

    /// Frames of sound that came when they had no place any more, since this was asked last.
    pub(crate) const fn take_late(&mut self) -> u64 {
        self.quiet.take_late()
    }

    /// Whether there is sound, and has been for long enough, and no picture, although there is to be one.
    pub(crate) fn lacks_pictures(&self, now: Instant) -> bool {
        let slow = Duration::from_nanos(u64::try_from(self.intervals.video.saturating_mul(4)).unwrap_or(0));
        self.unseen.is_some_and(|since| now.saturating_duration_since(since) >= UNSEEN.max(slow))
    }

    pub(crate) fn state(&self) -> State {
        match (&self.window, &self.silence) {
            (Some(window), None) if !window.segments.is_empty() && !window.ended => State::Live,
            (Some(window), Some(_)) if !window.ended => State::Silent,
            _ => State::Waiting,
        }
    }

    /// The URL at which a playlist will be that was there before, if one was and has not ended.
    pub(crate) fn expected_name(&self) -> Option<String> {
        if self.memory.has_ended(self.shaped) {
            return None;
        }
        self.memory.promised(self.shaped).map(|(_, name)| name)
    }

    /// A new version, where there is one.
    pub(crate) fn version(&mut self) -> Option<Version> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let window = self.window.as_mut()?;
        self.serial = self.serial.saturating_add(1);
        // Between two muxers, those of the one before.
        if let Some(muxer) = &self.muxer {
            // Not what the stream says of itself: timing information is often made up.
            let fps = muxer.track(Kind::Video).map(|_| 1e9 / self.intervals.video.max(1) as f64);
            self.shown = Looks::of(muxer.tracks(), fps);
            if !self.shown.is_like(&self.kept) {
                self.kept = self.shown.clone();
                self.memory.looks(&self.kept);
            }
        }
        let stream = StreamInf::of(window, self.shown.clone());
        Some(Version::of(window, self.serial, stream))
    }

    /// Whether an entry was taken before, when the stream was read the last time.
    fn is_known(&mut self, entry: &Entry, shelf: &mut Shelf, now: Instant) -> bool {
        match &entry.item {
            Item::Tracks(tracks) if self.rejoining.is_some() && **tracks == *self.tracks => return true,
            Item::Anchor(_) if self.rejoining.is_some() && self.cutter.is_some() => return true,
            Item::Frame(frame) => {
                let [video, audio] = &mut self.newest;
                let newest = if frame.kind == Kind::Video { video } else { audio };
                let is_known = newest.is_some_and(|newest| frame.dts <= newest);
                if !is_known {
                    *newest = Some(frame.dts);
                }
                if self.rejoining.is_some() && frame.kind == self.leading() {
                    let was_known = self.rejoining.replace(true);
                    if !is_known {
                        self.rejoining = None;
                        if was_known == Some(false) {
                            // There may have been something between.
                            self.interrupt(shelf, now);
                        }
                    }
                }
                return is_known;
            }
            Item::Aside(_) | Item::GivenUp | Item::Anchor(_) => {}
            Item::Ended => (self.rejoining, self.newest) = (None, [None; 2]),
            Item::Tracks(_) | Item::Gap(_) | Item::Away | Item::Lost(_) => self.rejoining = None,
        }
        false
    }

    /// What came.
    pub(crate) fn entry(&mut self, entry: Entry, shelf: &mut Shelf, now: Instant) {
        if self.is_known(&entry, shelf, now) {
            return;
        }
        match entry.item {
            Item::Tracks(tracks) => {
                self.interrupt(shelf, now);
                self.tracks = tracks;
                self.muxer = None;
            }
            Item::Anchor(anchor) => self.dates.anchor(anchor, entry.arrived.into()),
            Item::Gap(gap) => {
                self.interrupt(shelf, now);
                self.dates.anchor(gap.anchor, entry.arrived.into());
            }
            Item::Away => {
                self.interrupt(shelf, now);
                self.fall_silent(now);
            }
            Item::Lost(_) => self.interrupt(shelf, now),
            Item::Ended => self.end(shelf, now),
            Item::Frame(frame) => {
                self.dates.came(frame.dts, entry.arrived.into());
                self.frame(frame, entry.starts, shelf, now);
            }
            Item::Aside(_) | Item::GivenUp => {}
        }
    }

    /// What the machine's clock says, now and then.
    pub(crate) fn clock(&mut self, utc: SystemTime, now: Instant) {
        self.dates.clock(utc, now);
    }

    /// When to call [`tick`](Self::tick) although nothing came.
    pub(crate) fn due(&self) -> Option<Instant> {
        match (&self.silence, &self.window) {
            (Some(silence), _) => Some(silence.next),
            (None, Some(window)) if !window.ended => self.heard?.checked_add(self.patience(window)),
            _ => None,
        }
    }

    /// Time goes on.
    pub(crate) fn tick(&mut self, shelf: &mut Shelf, now: Instant) {
        if self.silence.is_none() && self.due().is_some_and(|due| due <= now) {
            self.interrupt(shelf, now);
            self.fall_silent(now);
        }
        let (Some(silence), Some(window)) = (&mut self.silence, &mut self.window) else { return };
        // After a sleep of the machine only what is listed is told.
        silence.skip(self.shaped.window.saturating_mul(2), now);
        while silence.next <= now {
            if silence.tell_piece(window, self.shaped.segment, shelf) {
                window.end_segment(shelf, now);
                self.memory.used(window.next_segment, window.last_discontinuity());
            }
            self.changed = true;
        }
    }

    fn patience(&self, window: &Window) -> Duration {
        let target = Duration::from_secs(u64::from(window.numbers.target));
        let slow =
            Duration::from_nanos(u64::try_from(self.leading_interval().saturating_mul(4)).unwrap_or(0));
        SILENCE.max(target / 2).max(slow)
    }

    fn leading(&self) -> Kind {
        let has_video = self.muxer.as_ref().is_some_and(|muxer| muxer.has(Kind::Video));
        if has_video { Kind::Video } else { Kind::Audio }
    }

    fn leading_interval(&self) -> i64 {
        match self.leading() {
            Kind::Video => self.intervals.video,
            Kind::Audio => self.intervals.audio,
        }
    }

    /// What comes next does not go on where this ends.
    fn interrupt(&mut self, shelf: &mut Shelf, now: Instant) {
        self.measuring = Measuring::default();
        if let Some(mut cutter) = self.cutter.take() {
            cutter.close(&mut self.cuts);
            self.take_cuts(shelf, now);
        }
        // Where no picture to go on with comes, that is silence as well.
        self.heard = self.window.as_ref().map(|_| now);
        self.unseen = None;
    }

    fn fall_silent(&mut self, now: Instant) {
        let Some(window) = self.window.as_ref().filter(|window| !window.ended && !window.segments.is_empty())
        else {
            return;
        };
        self.silence.get_or_insert_with(|| Silence::behind(window, self.shaped.segment, now));
    }

    /// The stream is over. If it begins again, that is another playlist.
    fn end(&mut self, shelf: &mut Shelf, now: Instant) {
        self.interrupt(shelf, now);
        self.silence = None;
        self.tracks = Arc::default();
        self.muxer = None;
        if let Some(window) = &mut self.window {
            window.end_segment(shelf, now);
            window.ended = true;
            self.memory.end();
            self.changed = true;
        }
    }

    fn frame(&mut self, mut frame: Frame, starts: bool, shelf: &mut Shelf, now: Instant) {
        if self.muxer.is_none() {
            self.muxer = Muxer::new(self.shaped.variant, &self.tracks);
        }
        let Some(muxer) = &self.muxer else { return };
        if !muxer.has(frame.kind) {
            return;
        }
        let leading = frame.kind == self.leading();
        if leading {
            self.unseen = None;
        } else {
            self.unseen.get_or_insert(now);
        }
        let first = self.shift.get_or_insert(0.max(frame.dts.nanos().saturating_neg()));
        frame.dts = frame.dts.moved(*first);
        // No negative composition offset.
        frame.pts = frame.pts.moved(*first).max(frame.dts);
        if leading && (starts || self.cutter.is_some()) {
            self.heard = Some(now);
        }
        if self.window.as_ref().is_none_or(|window| window.ended) && !self.measure(&frame, starts, shelf, now)
        {
            return;
        }
        for (frame, starts) in std::mem::take(&mut self.measuring).frames {
            self.cut(frame, starts, shelf, now);
        }
        self.cut(frame, starts, shelf, now);
    }

    /// Gathers frames until the numbers are known. Returns whether they are.
    fn measure(&mut self, frame: &Frame, starts: bool, shelf: &mut Shelf, now: Instant) -> bool {
        let leading = self.leading();
        let begins = starts && frame.kind == leading;
        let first = self.measuring.first();
        if first.is_none() && !begins {
            return false;
        }
        // Behind the end of a playlist nothing comes, whoever has ended it.
        let again = self.window.is_some() || self.memory.has_ended(self.shaped);
        if let Some((numbers, name)) = self.memory.promised(self.shaped) {
            let run = self.memory.first_number();
            let name = if again { self.name(numbers, Some(run)) } else { name };
            self.open(numbers, run, name, shelf, now);
            return true;
        }
        let gop = first.map_or(0, |first| frame.dts.nanos_since(first));
        let is_measured = match leading {
            Kind::Audio => true,
            Kind::Video => (begins && first.is_some()) || gop > nanos(MAX_GOP) || self.measuring.is_full(),
        };
        if is_measured {
            let gop = Duration::from_nanos(u64::try_from(gop).unwrap_or(0));
            let interval = self.measuring.interval(leading, self.leading_interval());
            let interval = Duration::from_nanos(u64::try_from(interval).unwrap_or(0));
            let numbers = Numbers::choose(self.shaped, interval, gop);
            let run = self.memory.first_number();
            let name = self.name(numbers, again.then_some(run));
            self.open(numbers, run, name, shelf, now);
            return true;
        }
        self.measuring.push(frame.clone(), starts);
        false
    }

    fn name(&self, numbers: Numbers, again: Option<u64>) -> String {
        let variant = self.shaped.variant.as_str();
        let part = numbers.part.map(|part| format!("-{}", part.target)).unwrap_or_default();
        let again = again.map(|run| format!("-{run}")).unwrap_or_default();
        format!("{variant}-{}{part}{again}", numbers.target)
    }

    fn open(&mut self, numbers: Numbers, run: u64, name: String, shelf: &mut Shelf, now: Instant) {
        shelf.begin(&name, now);
        self.memory.promise(self.shaped, numbers, &name);
        let discontinuities = self.memory.first_discontinuity();
        self.window = Some(Window::new(numbers, self.shaped, run, discontinuities, name));
    }

    fn cut(&mut self, frame: Frame, starts: bool, shelf: &mut Shelf, now: Instant) {
        let leading = self.leading();
        let could_begin = starts && frame.kind == leading;
        let is_off = |dates: &Dates| {
            dates.has_stepped() || dates.are_ahead(frame.dts, frame.pts, self.shift.unwrap_or(0))
        };
        if could_begin && self.cutter.is_some() && is_off(&self.dates) {
            self.interrupt(shelf, now);
            self.heard = Some(now);
        }
        if self.cutter.is_none() {
            if !could_begin {
                return;
            }
            self.begin(&frame, leading, shelf, now);
        }
        let Some(cutter) = &mut self.cutter else { return };
        let cuts = &mut self.cuts;
        match (leading, frame.kind) {
            (Kind::Video, Kind::Video) => {
                self.quiet.picture(frame.dts, |silent| cutter.push(silent, true, cuts));
                cutter.push(frame, starts, cuts);
            }
            (Kind::Video, Kind::Audio) => self.quiet.sound(frame, |sound| cutter.push(sound, true, cuts)),
            (Kind::Audio, _) => cutter.push(frame, starts, cuts),
        }
        self.take_cuts(shelf, now);
    }

    /// The first frame since the last break.
    fn begin(&mut self, frame: &Frame, leading: Kind, shelf: &mut Shelf, now: Instant) {
        // Nothing of what was before says how it goes on.
        self.muxer = Muxer::new(self.shaped.variant, &self.tracks);
        let (Some(window), Some(muxer)) = (&mut self.window, &self.muxer) else { return };
        if self.silence.take().is_some() {
            window.end_segment(shelf, now);
            self.memory.used(window.next_segment, window.last_discontinuity());
        }
        window.breaks(muxer.map(), shelf);
        self.quiet.begin(muxer.track(Kind::Audio), frame.dts);
        let shift = self.shift.unwrap_or(0);
        self.dates.begin(frame.dts, frame.pts, shift);
        let segment = nanos(self.shaped.segment);
        self.cutter = Some(Cutter::new(window.numbers, segment, leading, self.intervals));
    }

    fn take_cuts(&mut self, shelf: &mut Shelf, now: Instant) {
        let (Some(window), Some(muxer)) = (&mut self.window, &mut self.muxer) else { return };
        // How far time is told.
        let mut told = Timestamp::ZERO;
        for cut in self.cuts.drain(..) {
            match cut {
                Cut::Part(part) => {
                    if window.open.is_none()
                        && let Some(first) = part.frames.first()
                    {
                        self.dates.correct(first.dts, first.pts, self.shift.unwrap_or(0));
                    }
                    let utc = self.dates.of(part.start);
                    let (start, listed, gap) = (part.start, part.told, part.gap);
                    if let Some(muxed) = muxer.part(part, window.open.is_none()) {
                        let listed = listed.unwrap_or(muxed.duration);
                        told = start.moved(listed);
                        window.add(muxed, listed, gap, utc, shelf);
                        self.changed |= window.lists_parts();
                    }
                }
                Cut::Gap(length) => {
                    window.add_gap(length, self.dates.of(told), shelf);
                    told = told.moved(length);
                }
                Cut::Segment => {
                    window.end_segment(shelf, now);
                    self.memory.used(window.next_segment, window.last_discontinuity());
                    self.changed = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
