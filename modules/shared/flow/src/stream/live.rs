//! What happens when something is written: everything here runs under the stream's lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use av_media::{Frame, Kind, Samples, SoundClock, Timestamp, Track};
use tokio::time::Instant;

use super::interval::Measured;
use super::ring::{MAX_BYTES, Ring, Told};
use super::timeline::{JITTER, Timeline};
use super::writer::{Held, Opening, Writer};
use super::{
    Anchor, Aside, Entry, Gap, GapCause, InputStatus, Item, Kick, KickReason, KnownBy, LeftOut, Lost,
    Settings, Skip, Tracks,
};

mod frames;
mod reading;

pub(super) use reading::Step;

/// Pictures that wait for a sync frame are shown as left out after that long: longer than most GOPs.
const SYNC_PATIENCE: Duration = Duration::from_secs(5);
/// What the source's clock says is news where it differs by so much.
const CLOCKS_AGREE: Duration = Duration::from_millis(1);
/// Messages beside the frames that wait with them for a publisher's second track.
const MAX_HELD_ASIDES: usize = 4096;

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
    /// The newest picture's time.
    last_video: Option<Timestamp>,
    uncounted: Uncounted,
    counted_bytes: u64,
    counted_reanchors: u64,
    ticked: Option<Instant>,
}

/// What waited for a second track and went to nobody; [`Live::tick`] counts it.
#[derive(Debug, Default)]
struct Uncounted {
    frames: Lost,
    /// Messages beside them for which there was no room.
    asides: u64,
}

impl Uncounted {
    fn add(&mut self, held: &Held) {
        held.frames.iter().for_each(|(frame, _)| self.frames.add(frame.kind));
    }
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
            last_video: None,
            uncounted: Uncounted::default(),
            counted_bytes: 0,
            counted_reanchors: 0,
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

    /// What the present publisher sends, once readers were told of it.
    pub(super) fn published(&self) -> Option<Arc<Tracks>> {
        self.writer.as_ref().filter(|writer| writer.held.is_none())?;
        self.tracks()
    }

    pub(super) fn kick(&self) -> Option<Kick> {
        self.writer.as_ref().map(|writer| writer.kick.clone())
    }

    /// Changed settings. A kind that `content` admits from now on joins, one that it no longer admits leaves.
    pub(super) fn configure(&mut self, settings: Settings, now: Instant) {
        if self.settings.content != settings.content {
            // By what was set when it came.
            self.whole_picture();
        }
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
            writer.held.iter().for_each(|held| self.uncounted.add(held));
            self.push(Item::Away, now);
            cause = GapCause::TakenOver;
        }
        self.writers += 1;
        self.timeline.next_publisher();
        self.sound.restart();
        self.pictures.restart();
        self.ring.forget_starts();
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
        if let Some(held) = self.writer.take().and_then(|writer| writer.held) {
            self.uncounted.add(&held);
        }
        // Places further back stay for those who ask for what was before it left.
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
            let bytes = held.bytes.saturating_add(aside.size);
            if aside.time.is_some() && held.asides.len() < MAX_HELD_ASIDES && bytes <= MAX_BYTES / 4 {
                held.bytes = bytes;
                held.asides.push((held.frames.len(), aside, now));
            } else if aside.time.is_some() {
                self.uncounted.asides += 1;
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
        let Some(Held { mut frames, mut asides, .. }) = writer.held.take_if(|held| held.since.is_some())
        else {
            return;
        };
        let content = self.settings.content;
        let admits = |(frame, _): &(Frame, Instant)| content.admits(frame.kind);
        if !frames.iter().all(admits) {
            // It was changed since they came.
            for (place, ..) in &mut asides {
                *place = frames.iter().take(*place).filter(|frame| admits(frame)).count();
            }
            for dropped in frames.extract_if(.., |frame| !admits(frame)) {
                self.uncounted.frames.add(dropped.0.kind);
            }
        }
        if let Some((first, arrived)) = frames.first() {
            // One of the others may lie before it.
            let near = first.dts.moved(-JITTER);
            let earliest = frames.iter().map(|(frame, _)| frame.dts).filter(|dts| *dts >= near).min();
            self.timeline.begin(earliest.unwrap_or(first.dts), *arrived);
        }
        let placed: Vec<_> = frames.into_iter().map(|(frame, arrived)| self.place(frame, arrived)).collect();
        let first = placed.iter().min_by_key(|placed| placed.frame.dts);
        let opening =
            first.and_then(|first| Some((self.open(first.frame.dts, first.arrived)?, first.arrived)));
        if let Some((Item::Gap(gap), arrived)) = &opening {
            self.push(Item::Gap(*gap), *arrived);
        }
        self.tell(now);
        if let Some((Item::Anchor(anchor), arrived)) = opening {
            self.push(Item::Anchor(anchor), arrived);
        }
        self.tell_wall_clock(now);
        let mut asides = asides.into_iter().peekable();
        for (index, placed) in placed.into_iter().enumerate() {
            while let Some((_, aside, arrived)) = asides.next_if(|(place, ..)| *place <= index) {
                self.pass(aside, arrived);
            }
            self.append(placed);
        }
        asides.for_each(|(_, aside, arrived)| self.pass(aside, arrived));
    }

    /// What the publisher says of its own clock.
    pub(super) fn wall_clock(
        &mut self,
        id: u64,
        time: Timestamp,
        utc: SystemTime,
        now: Instant,
    ) -> Option<()> {
        let writer = self.writer(id)?;
        writer.wall_clock = Some((time, utc));
        if writer.opening.is_none() {
            self.tell_wall_clock(now);
        }
        Some(())
    }

    /// Tells readers what the source's clock says of the anchor, where that is news.
    fn tell_wall_clock(&mut self, now: Instant) {
        let Some((time, utc)) = self.writer.as_ref().and_then(|writer| writer.wall_clock) else { return };
        let Some(mut anchor) = self.told.as_ref().and_then(|told| told.anchor) else { return };
        let away = anchor.time.nanos_since(self.timeline.shift(time));
        let distance = Duration::from_nanos(away.unsigned_abs());
        let by_source = if away < 0 { utc.checked_sub(distance) } else { utc.checked_add(distance) };
        let Some(by_source) = by_source else { return };
        let is_known = anchor.by_source.is_some_and(|known| {
            let apart = known.duration_since(by_source).unwrap_or_else(|error| error.duration());
            apart < CLOCKS_AGREE
        });
        if !is_known {
            anchor.by_source = Some(by_source);
            self.told.get_or_insert_default().anchor = Some(anchor);
            self.push(Item::Anchor(anchor), now);
        }
    }

    fn pass(&mut self, mut aside: Aside, arrived: Instant) {
        aside.time = aside.time.map(|time| self.timeline.shift(time));
        self.push(Item::Aside(aside), arrived);
    }

    /// A publisher's first frame goes to readers: from here on its anchor holds. What they are told of it.
    fn open(&mut self, time: Timestamp, arrived: Instant) -> Option<Item> {
        let opening = self.writer.as_mut()?.opening.take()?;
        let anchor = self.anchor(time, arrived);
        Some(match opening {
            Opening::First => Item::Anchor(anchor),
            Opening::After(cause) => Item::Gap(Gap { cause, anchor }),
        })
    }

    /// From now on `time` is what it was by UTC when the frame of that time arrived.
    fn anchor(&mut self, time: Timestamp, arrived: Instant) -> Anchor {
        let utc = SystemTime::now();
        let utc = utc.checked_sub(arrived.elapsed()).unwrap_or(utc);
        let anchor = Anchor { time, utc, known_by: KnownBy::Arrival, by_source: None };
        self.told.get_or_insert_default().anchor = Some(anchor);
        anchor
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

    fn count_left(&mut self, input: &InputStatus) {
        let Uncounted { frames, asides } = std::mem::take(&mut self.uncounted);
        [Kind::Video, Kind::Audio].into_iter().for_each(|kind| input.dropped.add(kind, frames.get(kind)));
        if asides > 0 {
            input.skipped.add(Skip::TooLarge, asides);
            input.said.note("sends too many messages before its first frame: some are left out");
        }
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
        let reanchored = self.sound.reanchored();
        let more = reanchored - std::mem::replace(&mut self.counted_reanchors, reanchored);
        input.reanchored.fetch_add(more, Ordering::Relaxed);
        self.count_left(input);
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
                let why = "no picture at which a decoder can start has arrived yet";
                let track = LeftOut { codec: track.codec_string.clone(), dropped: why.to_owned() };
                input.leave_out(Kind::Video, Some(track));
                input.said.note(&format!("sends pictures that are left out: {why}"));
            }
            if all {
                writer.kick.fire(KickReason::Idle);
            }
            if writer.held.is_some() && self.complete(now) {
                self.announce(now);
                return true;
            }
            return self.flush_due(now);
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
