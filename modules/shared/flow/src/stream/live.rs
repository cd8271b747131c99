//! What happens when something is written: everything here runs under the stream's lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use av_media::{Frame, Kind, Normal, Picture, Samples, SoundClock, Timestamp, Track};
use tokio::time::Instant;

use super::interval::Measured;
use super::reader::From;
use super::ring::{Keep, MAX_BYTES, Ring, StartPoint, Told};
use super::timeline::{JITTER, Timeline};
use super::writer::{Held, Opening, Writer};
use super::{
    Anchor, Aside, Entry, Gap, GapCause, InputStatus, Item, Kick, KickReason, KnownBy, LeftOut, Lost,
    Settings, Skip, State, Tracks,
};

/// A start point whose picture stands still is at most that old.
const MAX_STILL: Duration = Duration::from_secs(10);
/// The still is given again that many nanoseconds before the sound.
const STILL_BEFORE: i64 = 500_000_000;
/// Readers of a stream whose video is silent start at sound after that long.
const VIDEO_PATIENCE: Duration = Duration::from_secs(2);
/// Pictures that wait for a sync frame are shown as left out after that long: longer than most GOPs.
const SYNC_PATIENCE: Duration = Duration::from_secs(5);
/// Messages beside the frames that wait with them for a publisher's second track.
const MAX_HELD_ASIDES: usize = 4096;
/// Slices that are added to a picture; more are set apart, so that nobody makes us copy without end.
const MAX_SLICES: u8 = 64;
/// And bytes.
const MAX_PICTURE: usize = 32 << 20;

/// One stream: its entries, its publisher, what readers were told.
#[derive(Debug)]
pub(super) struct Live {
    settings: Settings,
    timeline: Timeline,
    sound: SoundClock,
    pictures: Measured,
    ring: Ring,
    /// What readers know.
    told: Option<Told>,
    writer: Option<Writer>,
    writers: u64,
    /// Since when there is no publisher although there was one.
    lost_at: Option<Instant>,
    counted_bytes: u64,
    ticked: Option<Instant>,
}

/// A frame on the stream's timeline.
struct Placed {
    frame: Frame,
    /// Its dts as the source stamped it.
    stamped: Timestamp,
    /// The timeline was re-based for it.
    jumped: Option<i64>,
    arrived: Instant,
}

/// A reader's next position, or why it has none.
pub(super) enum Step {
    /// The entry at the cursor, and its dts as its source stamped it.
    Entry(Entry, Timestamp),
    /// Nothing new.
    Wait(Option<Instant>),
    /// The reader fell behind: it has to start again.
    Behind,
    /// Start here. Tracks are told where any are known.
    Start { seq: u64, told: Option<Told>, before: Lost },
}

impl Live {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            timeline: Timeline::default(),
            sound: SoundClock::default(),
            pictures: Measured::default(),
            ring: Ring::default(),
            told: None,
            writer: None,
            writers: 0,
            lost_at: None,
            counted_bytes: 0,
            ticked: None,
        }
    }

    pub(super) fn tracks(&self) -> Option<Arc<Tracks>> {
        self.told.as_ref().map(|told| told.tracks.clone())
    }

    /// How long a frame of a kind is, as far as that is known.
    pub(super) fn frame_interval(&self, kind: Kind) -> Option<Duration> {
        match kind {
            Kind::Video => {
                let video = self.told.as_ref()?.tracks.video.as_ref()?;
                self.pictures.or_said(video.video.fps)
            }
            Kind::Audio => {
                let Samples { count, rate } = self.sound.samples()?;
                let nanos = Timestamp::from_ticks(count.into(), rate).nanos();
                Some(Duration::from_nanos(nanos.unsigned_abs()))
            }
        }
    }

    /// A track that the publisher sends and `content` drops.
    pub(super) fn dropped(&self) -> Option<Arc<Track>> {
        let tracks = &self.writer.as_ref()?.tracks;
        tracks.iter().find(|track| !self.settings.content.admits(track.kind())).cloned()
    }

    pub(super) const fn has_publisher(&self) -> bool {
        self.writer.is_some()
    }

    pub(super) fn kick(&self) -> Option<Kick> {
        self.writer.as_ref().map(|writer| writer.kick.clone())
    }

    /// Changed settings. A kind that `content` admits from now on joins, one that it no longer admits leaves.
    pub(super) fn configure(&mut self, settings: Settings, now: Instant) {
        let before = std::mem::replace(&mut self.settings, settings).content;
        let Some(writer) = &mut self.writer else { return };
        if before == settings.content {
            return;
        }
        if settings.content.admits(Kind::Video) && !before.admits(Kind::Video) {
            writer.restart_pictures();
        }
        self.tracks_changed(before.admits(Kind::Video) != settings.content.admits(Kind::Video), now);
    }

    /// Makes `kick`'s owner the one who writes.
    pub(super) fn begin(&mut self, kick: Kick, now: Instant) -> u64 {
        let mut cause = GapCause::Returned;
        self.whole_picture();
        if let Some(writer) = self.writer.take() {
            writer.kick.fire(KickReason::TakenOver);
            self.push(Item::Away, now);
            cause = GapCause::TakenOver;
        }
        self.writers += 1;
        self.timeline.next_publisher();
        self.sound.restart();
        self.pictures.restart();
        self.ring.forget_start();
        let opening = match &mut self.told {
            Some(told) => {
                told.aside = None;
                Opening::After(cause)
            }
            None => Opening::First,
        };
        self.writer = Some(Writer::new(self.writers, kick, opening, now));
        self.writers
    }

    /// The publisher is gone. Returns whether it was the present one.
    pub(super) fn lost(&mut self, id: u64, now: Instant) -> bool {
        if self.writer.as_ref().is_none_or(|writer| writer.id != id) {
            return false;
        }
        self.whole_picture();
        // What waited for a second track is all there is.
        self.announce(now);
        self.writer = None;
        self.ring.forget_start();
        if let Some(told) = &mut self.told {
            told.aside = None;
        }
        self.push(Item::Away, now);
        if self.settings.hold {
            self.lost_at = Some(now);
        } else {
            self.end(now);
        }
        true
    }

    pub(super) fn end(&mut self, now: Instant) {
        self.lost_at = None;
        if self.told.take().is_some() {
            self.push(Item::Ended, now);
        }
    }

    fn writer(&mut self, id: u64) -> Option<&mut Writer> {
        self.writer.as_mut().filter(|writer| writer.id == id)
    }

    /// A track's (new) configuration. `None`: the caller is displaced.
    pub(super) fn track(&mut self, id: u64, track: Track, now: Instant) -> Option<()> {
        let content = self.settings.content;
        self.writer(id)?;
        self.whole_picture();
        let writer = self.writer(id)?;
        let (kind, known) = (track.kind(), writer.tracks.get(track.kind()).cloned());
        if known.as_ref().is_some_and(|known| **known == track) {
            return Some(());
        }
        let same_decoder = known.is_some_and(|known| known.decodes_like(&track));
        let track = Arc::new(track);
        writer.tracks.set(track.clone());
        if same_decoder {
            // Only what is said of it is news, which concerns no decoder.
            if let Some(told) = &mut self.told
                && told.tracks.get(kind).is_some_and(|told| told.decodes_like(&track))
            {
                Arc::make_mut(&mut told.tracks).set(track);
            }
            return Some(());
        }
        if kind == Kind::Video {
            writer.restart_pictures();
            self.pictures.forget();
        } else {
            self.sound.set_track(&track);
        }
        if content.admits(kind) {
            self.tracks_changed(kind == Kind::Video, now);
        }
        Some(())
    }

    /// Which kinds the publisher says that it sends.
    pub(super) fn expect(&mut self, id: u64, expected: [bool; 2], now: Instant) -> Option<()> {
        self.writer(id)?.expected = expected;
        if self.complete(now) {
            self.announce(now);
        }
        Some(())
    }

    /// A message in the publisher's own time: passed on once media flows.
    pub(super) fn aside(&mut self, id: u64, aside: Aside, now: Instant) -> Option<()> {
        self.writer(id)?;
        self.whole_picture();
        let writer = self.writer(id)?;
        if aside.keep_latest && writer.aside.replace(aside.clone()).as_ref() == Some(&aside) {
            return Some(());
        }
        if let Some(held) = &mut writer.held {
            if aside.time.is_some() && held.asides.len() < MAX_HELD_ASIDES && held.bytes < MAX_BYTES / 4 {
                held.bytes += aside.size;
                held.asides.push((held.frames.len(), aside, now));
            }
            return Some(());
        }
        if aside.keep_latest
            && let Some(told) = &mut self.told
        {
            told.aside = Some(aside.clone());
        }
        self.pass(aside, now);
        Some(())
    }

    fn tracks_changed(&mut self, video: bool, now: Instant) {
        let Some(writer) = &self.writer else { return };
        if writer.held.is_some() {
            if self.complete(now) {
                self.announce(now);
            }
            return;
        }
        if video {
            self.ring.forget_start();
        }
        self.tell(now);
    }

    /// Tells readers of the tracks that are admitted, where that is news, and of what describes the stream.
    fn tell(&mut self, now: Instant) {
        let Some(writer) = &self.writer else { return };
        let (tracks, aside) = (writer.tracks.filtered(self.settings.content), writer.aside.clone());
        let known = self.told.as_ref();
        let tracks_known = known.is_some_and(|told| *told.tracks == tracks);
        let aside_known = known.and_then(|told| told.aside.as_ref()) == aside.as_ref();
        let anchor = known.and_then(|told| told.anchor);
        let told = Told { tracks: Arc::new(tracks), aside: aside.clone(), anchor };
        let tracks = told.tracks.clone();
        self.told = Some(told);
        if !tracks_known {
            self.push(Item::Tracks(tracks), now);
        }
        if let (false, Some(aside)) = (aside_known, aside) {
            self.push(Item::Aside(aside), now);
        }
    }

    /// Whether every track that may come is there, or was waited for long enough.
    fn complete(&self, now: Instant) -> bool {
        let Some(writer) = &self.writer else { return false };
        let Some(held) = &writer.held else { return true };
        let Some(since) = held.since else { return false };
        if now.saturating_duration_since(since) >= self.settings.track_wait || held.bytes > MAX_BYTES / 4 {
            return true;
        }
        [Kind::Video, Kind::Audio].into_iter().all(|kind| {
            writer.tracks.get(kind).is_some() || !self.settings.content.admits(kind) || !writer.expects(kind)
        })
    }

    /// Tells readers of the tracks and lets the frames through that waited for it.
    fn announce(&mut self, now: Instant) {
        let Some(writer) = &mut self.writer else { return };
        let Some(Held { frames, asides, .. }) = writer.held.take_if(|held| held.since.is_some()) else {
            return;
        };
        if let Some((first, arrived)) = frames.first() {
            // One of the others may lie before it.
            let near = first.dts.moved(-JITTER);
            let earliest = frames.iter().map(|(frame, _)| frame.dts).filter(|dts| *dts >= near).min();
            self.timeline.begin(earliest.unwrap_or(first.dts), *arrived);
        }
        let placed: Vec<_> = frames.into_iter().map(|(frame, arrived)| self.place(frame, arrived)).collect();
        let first = placed.iter().map(|placed| placed.frame.dts).min();
        let opening =
            first.zip(placed.first()).and_then(|(time, placed)| Some((self.open(time)?, placed.arrived)));
        if let Some((Item::Gap(gap), arrived)) = &opening {
            self.push(Item::Gap(*gap), *arrived);
        }
        self.tell(now);
        if let Some((Item::Anchor(anchor), arrived)) = opening {
            self.push(Item::Anchor(anchor), arrived);
        }
        let mut asides = asides.into_iter().peekable();
        for (index, placed) in placed.into_iter().enumerate() {
            while let Some((_, aside, arrived)) = asides.next_if(|(place, ..)| *place <= index) {
                self.pass(aside, arrived);
            }
            self.append(placed);
        }
        asides.for_each(|(_, aside, arrived)| self.pass(aside, arrived));
    }

    fn pass(&mut self, mut aside: Aside, arrived: Instant) {
        aside.time = aside.time.map(|time| self.timeline.shift(time));
        self.push(Item::Aside(aside), arrived);
    }

    /// A publisher's first frame goes to readers: from here on its anchor holds. What they are told of it.
    fn open(&mut self, time: Timestamp) -> Option<Item> {
        let opening = self.writer.as_mut()?.opening.take()?;
        let anchor = self.anchor(time);
        Some(match opening {
            Opening::First => Item::Anchor(anchor),
            Opening::After(cause) => Item::Gap(Gap { cause, anchor }),
        })
    }

    /// From now on `time` is what it is now by UTC.
    fn anchor(&mut self, time: Timestamp) -> Anchor {
        let anchor = Anchor { time, utc: SystemTime::now(), known_by: KnownBy::Arrival };
        self.told.get_or_insert_default().anchor = Some(anchor);
        anchor
    }

    /// Something came that was no frame in the end. `None`: the caller is displaced.
    pub(super) fn heard(
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
    pub(super) fn frame(
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
        if picture == Picture::Continues && self.add_slice(&frame) {
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
            writer.picture = Some((frame.dts, 0));
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

    /// Adds another slice to the picture that came last, if it is one of that picture. From then on pictures wait until
    /// something else comes, as they may not be whole.
    fn add_slice(&mut self, slice: &Frame) -> bool {
        let Some(writer) = &mut self.writer else { return false };
        let Some((time, slices)) = writer.picture.filter(|(time, _)| *time == slice.dts) else {
            return false;
        };
        writer.is_sliced = true;
        if slices >= MAX_SLICES || slice.data.len() > MAX_PICTURE / usize::from(MAX_SLICES) {
            return false;
        }
        writer.picture = Some((time, slices + 1));
        writer.add_slice(&slice.data) || (writer.held.is_none() && self.ring.add_slice(&slice.data))
    }

    /// The picture that waited for more of its slices goes to readers.
    fn whole_picture(&mut self) {
        if let Some((frame, arrived)) = self.writer.as_mut().and_then(|writer| writer.pending.take()) {
            self.deliver(frame, arrived);
        }
    }

    /// To readers, who know the tracks.
    fn deliver(&mut self, frame: Frame, now: Instant) {
        let placed = self.place(frame, now);
        if let Some(opening) = self.open(placed.frame.dts) {
            self.push(opening, now);
        } else if let Some(nanos) = placed.jumped {
            let anchor = self.anchor(placed.frame.dts);
            self.push(Item::Gap(Gap { cause: GapCause::Jump { nanos }, anchor }), now);
        }
        self.append(placed);
    }

    /// Puts a frame on the stream's timeline, and sound on its grid.
    fn place(&mut self, mut frame: Frame, arrived: Instant) -> Placed {
        let offset = frame.pts.nanos_since(frame.dts);
        let placed = self.timeline.map(frame.kind, frame.dts, arrived);
        if placed.jumped.is_some() {
            self.sound.restart();
            self.pictures.restart();
        }
        frame.dts = match frame.kind {
            Kind::Video => {
                self.pictures.frame(placed.dts);
                placed.dts
            }
            Kind::Audio => self.sound.place(placed.dts, &frame.data),
        };
        frame.pts = frame.dts.moved(offset);
        Placed { frame, stamped: placed.dts, jumped: placed.jumped, arrived }
    }

    fn append(&mut self, placed: Placed) {
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
        let Some((Entry { item: Item::Frame(still), arrived, .. }, _)) = self.ring.take(start) else {
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
        // A little before the sound, so that the picture that comes next, which may be muxed late, is behind it.
        let offset = still.pts.nanos_since(still.dts);
        let dts = sound.frame.dts.moved(-STILL_BEFORE);
        let frame = Frame { dts, pts: dts.moved(offset), ..still };
        let stamped = sound.stamped.moved(-STILL_BEFORE);
        self.ring.start_here(told);
        self.ring.push(Entry { item: Item::Frame(frame), arrived: now, starts: true }, stamped);
    }

    /// The rule where a decoder may start: at a sync picture; at sound where there are no pictures, or none yet, as
    /// the first one will be a sync frame.
    fn may_start(&self, frame: &Frame, now: Instant) -> bool {
        if frame.kind == Kind::Video {
            return frame.is_sync;
        }
        let has_video = self.told.as_ref().is_some_and(|told| told.tracks.video.is_some());
        let Some(writer) = self.writer.as_ref().filter(|_| has_video) else { return !has_video };
        let silent = now.saturating_duration_since(writer.heard(Kind::Video)) > VIDEO_PATIENCE;
        self.ring.start().is_none() && (!writer.pictures || silent)
    }

    fn push(&mut self, item: Item, arrived: Instant) {
        self.write(Entry::new(item, arrived), Timestamp::ZERO);
    }

    fn write(&mut self, entry: Entry, stamped: Timestamp) {
        let arrived = entry.arrived;
        if self.ring.push(entry, stamped) {
            self.ring.push(Entry::new(Item::GivenUp, arrived), Timestamp::ZERO);
        }
    }

    /// Bytes that are kept for readers.
    pub(super) fn bytes(&self) -> usize {
        let writer = self.writer.as_ref();
        let held = writer.and_then(|writer| writer.held.as_ref()).map_or(0, |held| held.bytes);
        let pending =
            writer.and_then(|writer| writer.pending.as_ref()).map_or(0, |(frame, _)| frame.data.len());
        self.ring.bytes().saturating_add(held).saturating_add(pending)
    }

    /// Makes room for other streams. Returns whether there was anything to give up.
    pub(super) fn give_up(&mut self, now: Instant) -> bool {
        // What waits for a second track has waited long enough.
        self.announce(now);
        let given_up = self.ring.give_up();
        if given_up == Some(true) {
            self.push(Item::GivenUp, now);
        }
        given_up.is_some()
    }

    /// A reader begins; see [`Ring::enter`].
    pub(super) fn enter(&mut self, keep: Keep) -> u64 {
        self.ring.enter(keep)
    }

    /// Where a reader is now.
    pub(super) fn moved(&mut self, place: u64, cursor: Option<u64>) {
        self.ring.moved(place, cursor);
    }

    /// A reader has gone.
    pub(super) fn leave(&mut self, place: u64) {
        self.ring.leave(place);
    }

    /// What a reader at `cursor` does next; where it has none, it starts as `from` says.
    pub(super) fn step(&mut self, cursor: Option<u64>, from: From, now: Instant) -> Step {
        if self.writer.as_ref().is_some_and(|writer| writer.held.is_some()) && self.complete(now) {
            self.announce(now);
        }
        let Some(cursor) = cursor else {
            // Whatever is written next, a decoder can start at it.
            let fresh = self.writer.as_ref().is_none_or(|writer| !writer.pictures);
            let start = match from {
                From::LastSync => self.ring.start().cloned(),
                From::NextSync { after } => self.ring.start().filter(|start| start.seq >= after).cloned(),
                From::Oldest => self.ring.start_at(Timestamp::from_nanos(i64::MIN)),
                From::Time(time) => self.ring.start_at(time),
            };
            let (seq, told) = match start {
                Some(StartPoint { seq, told }) => (seq, Some(told)),
                None if fresh => (self.ring.end(), self.told.clone()),
                None => return Step::Wait(self.due()),
            };
            return Step::Start { seq, told, before: self.ring.frames_before(seq) };
        };
        if self.ring.is_gone(cursor) {
            return Step::Behind;
        }
        match self.ring.take(cursor) {
            Some((entry, stamped)) => Step::Entry(entry, stamped),
            None => Step::Wait(self.due()),
        }
    }

    /// The number that the next entry gets.
    pub(super) fn end_of_ring(&self) -> u64 {
        self.ring.end()
    }

    /// Whether the last place to start at lies ahead of a cursor.
    pub(super) fn start_is_ahead(&self, cursor: u64) -> bool {
        self.ring.start().is_some_and(|start| start.seq > cursor)
    }

    /// When the wait for a second track ends.
    fn due(&self) -> Option<Instant> {
        let held = self.writer.as_ref()?.held.as_ref()?;
        Some(held.since? + self.settings.track_wait)
    }

    /// Once a second. Returns whether entries were added.
    pub(super) fn tick(&mut self, now: Instant, input: &InputStatus) -> bool {
        let total = input.bytes.sum();
        if let Some(before) = self.ticked.replace(now) {
            let seconds = now.saturating_duration_since(before).as_secs_f64().max(0.001);
            let bits = (total.saturating_sub(self.counted_bytes)) as f64 * 8.0 / seconds;
            input.bitrate.store(bits as u64, Ordering::Relaxed);
        }
        self.counted_bytes = total;
        // What was kept for readers that have gone on since.
        self.ring.tidy_passed();
        let idle = self.settings.idle_timeout;
        if let Some(writer) = &self.writer {
            let mut all = true;
            for (kind, stalled) in [Kind::Video, Kind::Audio].into_iter().zip(&input.stalled) {
                let is_silent = now.saturating_duration_since(writer.heard(kind)) >= idle;
                all &= is_silent;
                let is_stalled = is_silent && writer.tracks.get(kind).is_some();
                if stalled.swap(is_stalled, Ordering::Relaxed) != is_stalled {
                    input.status.touch();
                }
            }
            if let (Some(since), Some(track)) = (writer.waits_for_sync, &writer.tracks.video)
                && now.saturating_duration_since(since) >= SYNC_PATIENCE
            {
                let why = "no picture came yet at which a decoder can start";
                let track = LeftOut { codec: track.codec_string.clone(), dropped: why.to_owned() };
                input.leave_out(Kind::Video, Some(track));
                input.said.note(&format!("sends what is left out: {why}"));
            }
            if all {
                writer.kick.fire(KickReason::Idle);
            }
            if writer.held.is_some() && self.complete(now) {
                self.announce(now);
                return true;
            }
            return false;
        }
        let Settings { hold, hold_for, .. } = self.settings;
        let is_over =
            |lost| !hold || hold_for.is_some_and(|hold_for| now.saturating_duration_since(lost) >= hold_for);
        let ends = self.lost_at.is_some_and(is_over);
        if ends {
            self.end(now);
        }
        ends
    }
}
