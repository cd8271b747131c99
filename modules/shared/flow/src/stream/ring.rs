//! The stream's memory: the last GOP and a little more, for readers to walk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_media::{Frame, Kind, Timestamp, Track};
use av_rtmp::Metadata;
use bytes::Bytes;

use super::timeline::Timeline;
use super::{Entry, InputStatus, Item, Kick, KickReason, Settings, State, Tracks};

/// Entries before the last sync frame are kept that long, for readers that are a little behind.
const KEEP: Duration = Duration::from_secs(3);
/// Bound of one stream's memory. A GOP that does not fit is given up: new readers wait for the next one.
const MAX_BYTES: usize = 48 << 20;
/// Bound in number, for streams of tiny frames.
const MAX_ENTRIES: usize = 65_536;
/// Readers of a stream whose video is silent start at sound after that long.
const VIDEO_PATIENCE: Duration = Duration::from_secs(2);

/// Whether `onMetaData` speaks of the other kind only, or denies this one.
fn excludes(metadata: &Metadata, kind: Kind) -> bool {
    let (video, audio) = (metadata.video_codec.is_some(), metadata.audio_codec.is_some());
    match kind {
        Kind::Video => {
            metadata.has_video == Some(false) || (audio && !video && metadata.has_video != Some(true))
        }
        Kind::Audio => {
            metadata.has_audio == Some(false) || (video && !audio && metadata.has_audio != Some(true))
        }
    }
}

/// What an entry keeps in memory, beside itself.
fn size(item: &Item) -> usize {
    match item {
        Item::Frame(frame) => frame.data.len(),
        Item::Data { payload, .. } => payload.len(),
        Item::Tracks(tracks) => {
            let configs: usize = tracks.iter().map(|track| track.config.len()).sum();
            configs + tracks.metadata.as_ref().map_or(0, |metadata| metadata.raw.len())
        }
        Item::Gap | Item::Away | Item::Lost { .. } | Item::Ended => 0,
    }
}

/// One stream's entries and everything decided while they are written.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) settings: Settings,
    timeline: Timeline,
    entries: VecDeque<Entry>,
    /// Sequence number of the first entry.
    first: u64,
    bytes: usize,
    /// Where a new reader starts.
    sync: Option<SyncPoint>,
    /// What readers know.
    announced: Option<Arc<Tracks>>,
    /// A track that the publisher sends and `content` drops.
    dropped: Option<Arc<Track>>,
    writer: Option<Writer>,
    writers: u64,
    /// Since when there is no publisher although there was one.
    lost_at: Option<Instant>,
    counted_bytes: u64,
    ticked: Option<Instant>,
}

#[derive(Debug, Clone)]
struct SyncPoint {
    seq: u64,
    tracks: Arc<Tracks>,
}

/// The present publisher.
#[derive(Debug)]
struct Writer {
    id: u64,
    kick: Kick,
    tracks: Tracks,
    /// Frames that wait for the second track; `None` once readers were told of the tracks.
    held: Option<Held>,
    /// Pictures are of no use before the next sync frame.
    needs_sync: bool,
    /// Readers were given pictures of the present configuration.
    pictures: bool,
    heard: [Option<Instant>; 2],
    began: Instant,
}

#[derive(Debug, Default)]
struct Held {
    frames: Vec<(Frame, Instant)>,
    bytes: usize,
    since: Option<Instant>,
}

/// A reader's next position, or why it has none.
pub(super) enum Step {
    /// The entry at the cursor, and the cursor after it.
    Entry(Entry, u64),
    /// Nothing new.
    Wait(Option<Instant>),
    /// The reader fell behind: it has to start again, this many entries later.
    Behind(u64),
    /// Start here, with these tracks if any are known.
    Start(u64, Option<Arc<Tracks>>),
}

impl Ring {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            timeline: Timeline::default(),
            entries: VecDeque::new(),
            first: 0,
            bytes: 0,
            sync: None,
            announced: None,
            dropped: None,
            writer: None,
            writers: 0,
            lost_at: None,
            counted_bytes: 0,
            ticked: None,
        }
    }

    pub(super) fn announced(&self) -> Option<Arc<Tracks>> {
        self.announced.clone()
    }

    pub(super) fn dropped(&self) -> Option<Arc<Track>> {
        self.dropped.clone()
    }

    pub(super) fn has_publisher(&self) -> bool {
        self.writer.is_some()
    }

    pub(super) fn publisher_heard(&self) -> Option<Instant> {
        let writer = self.writer.as_ref()?;
        Some(writer.heard.iter().flatten().max().copied().unwrap_or(writer.began))
    }

    pub(super) fn kick(&self) -> Option<Kick> {
        self.writer.as_ref().map(|writer| writer.kick.clone())
    }

    /// Makes `kick`'s owner the one who writes.
    pub(super) fn begin(&mut self, kick: Kick, now: Instant) -> u64 {
        if let Some(writer) = self.writer.take() {
            writer.kick.fire(KickReason::TakenOver);
            self.push(Item::Away, now);
        }
        self.writers += 1;
        self.timeline.next_publisher();
        self.sync = None;
        self.dropped = None;
        self.writer = Some(Writer {
            id: self.writers,
            kick,
            tracks: Tracks::default(),
            held: Some(Held::default()),
            needs_sync: true,
            pictures: false,
            heard: [None; 2],
            began: now,
        });
        self.writers
    }

    /// The publisher is gone. Returns whether it was the present one.
    pub(super) fn lost(&mut self, id: u64, now: Instant) -> bool {
        if self.writer.as_ref().is_none_or(|writer| writer.id != id) {
            return false;
        }
        // What waited for a second track is all there is.
        self.announce(now);
        self.writer = None;
        self.sync = None;
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
        if self.announced.take().is_some() {
            self.push(Item::Ended, now);
        }
    }

    fn writer(&mut self, id: u64) -> Option<&mut Writer> {
        self.writer.as_mut().filter(|writer| writer.id == id)
    }

    /// A track's (new) configuration. `None`: the caller is displaced.
    pub(super) fn track(&mut self, id: u64, track: Track, now: Instant) -> Option<()> {
        let content = self.settings.content;
        let writer = self.writer(id)?;
        let kind = track.kind();
        if !content.admits(kind) {
            self.dropped = Some(Arc::new(track));
            return Some(());
        }
        if writer.tracks.get(kind).is_some_and(|known| **known == track) {
            return Some(());
        }
        if kind == Kind::Video {
            writer.needs_sync = true;
            writer.pictures = false;
        }
        writer.tracks.set(Arc::new(track));
        self.tracks_changed(id, kind == Kind::Video, now);
        Some(())
    }

    /// The publisher's `onMetaData`.
    pub(super) fn metadata(&mut self, id: u64, metadata: Metadata, now: Instant) -> Option<()> {
        let writer = self.writer(id)?;
        if writer.tracks.metadata.as_ref().is_none_or(|known| **known != metadata) {
            writer.tracks.metadata = Some(Arc::new(metadata));
            self.tracks_changed(id, false, now);
        }
        Some(())
    }

    fn tracks_changed(&mut self, id: u64, video: bool, now: Instant) {
        let Some(writer) = self.writer(id) else { return };
        if writer.held.is_some() {
            if self.complete(now) {
                self.announce(now);
            }
            return;
        }
        let tracks = Arc::new(writer.tracks.clone());
        if video {
            self.sync = None;
        }
        self.announced = Some(tracks.clone());
        self.push(Item::Tracks(tracks), now);
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
            writer.tracks.get(kind).is_some()
                || !self.settings.content.admits(kind)
                || writer.tracks.metadata.as_ref().is_some_and(|metadata| excludes(metadata, kind))
        })
    }

    /// Tells readers of the tracks and lets the frames through that waited for it.
    fn announce(&mut self, now: Instant) {
        let Some(writer) = &mut self.writer else { return };
        let Some(held) = writer.held.take_if(|held| held.since.is_some()) else { return };
        let tracks = Arc::new(writer.tracks.clone());
        let known = self.announced.as_deref() == Some(&*tracks);
        if self.announced.is_some() {
            self.push(Item::Gap, now);
        }
        if !known {
            self.announced = Some(tracks.clone());
            self.push(Item::Tracks(tracks), now);
        }
        for (frame, arrived) in held.frames {
            self.append(frame, arrived);
        }
    }

    /// Takes a frame in the publisher's own times. `None`: the caller is displaced.
    pub(super) fn frame(
        &mut self,
        id: u64,
        mut frame: Frame,
        now: Instant,
        input: &InputStatus,
    ) -> Option<()> {
        let content = self.settings.content;
        let writer = self.writer(id)?;
        let (kind, size) = (frame.kind, frame.data.len());
        input.bytes.add(kind, size as u64);
        input.frames.add(kind, 1);
        let [video, audio] = &mut writer.heard;
        *(if kind == Kind::Video { video } else { audio }) = Some(now);
        let video = kind == Kind::Video;
        if !content.admits(kind)
            || writer.tracks.get(kind).is_none()
            || (video && writer.needs_sync && !frame.is_sync)
        {
            input.dropped.add(kind, 1);
            if let (false, Some(held)) = (content.admits(kind), &mut writer.held) {
                // Should nothing else come, readers are told that what they wait for is missing.
                held.since.get_or_insert(now);
                if self.complete(now) {
                    self.announce(now);
                }
            }
            return Some(());
        }
        if video {
            writer.needs_sync = false;
        }
        let (dts, offset) = (frame.dts.millis(), frame.pts.millis().saturating_sub(frame.dts.millis()));
        let placed = self.timeline.map(kind, dts, now);
        frame.dts = Timestamp::from_millis(placed.dts);
        frame.pts = Timestamp::from_millis(placed.dts.saturating_add(offset));
        let writer = self.writer(id)?;
        if let Some(held) = &mut writer.held {
            held.since.get_or_insert(now);
            held.bytes += size;
            held.frames.push((frame, now));
            if self.complete(now) {
                self.announce(now);
            }
        } else {
            if placed.jumped {
                self.push(Item::Gap, now);
            }
            self.append(frame, now);
        }
        input.status.set(State::Running, None);
        Some(())
    }

    /// A data message in the publisher's own time: passed on only once media flows.
    pub(super) fn data(&mut self, id: u64, payload: Bytes, millis: i64, now: Instant) -> Option<()> {
        let writer = self.writer(id)?;
        if writer.held.is_none() && !writer.tracks.is_empty() {
            let millis = self.timeline.shift(millis);
            self.push(Item::Data { payload, millis }, now);
        }
        Some(())
    }

    fn append(&mut self, frame: Frame, arrived: Instant) {
        let starts = match frame.kind {
            Kind::Video => frame.is_sync,
            Kind::Audio => self.sound_may_start(arrived),
        };
        if frame.kind == Kind::Video
            && let Some(writer) = &mut self.writer
        {
            writer.pictures = true;
        }
        if starts && let Some(tracks) = &self.announced {
            self.sync = Some(SyncPoint { seq: self.end_seq(), tracks: tracks.clone() });
        }
        self.push(Item::Frame(frame), arrived);
    }

    /// Readers start at sound where there are no pictures, or none yet: the first one will be a sync frame.
    fn sound_may_start(&self, now: Instant) -> bool {
        let has_video = self.announced.as_ref().is_some_and(|tracks| tracks.video.is_some());
        if !has_video {
            return true;
        }
        let Some(writer) = &self.writer else { return false };
        if self.sync.is_none() && !writer.pictures {
            return true;
        }
        let [video, _] = &writer.heard;
        self.sync.is_none() && now.saturating_duration_since(video.unwrap_or(writer.began)) > VIDEO_PATIENCE
    }

    fn push(&mut self, item: Item, arrived: Instant) {
        self.bytes += size(&item);
        self.entries.push_back(Entry { item, arrived });
        let sync = self.sync.as_ref().map_or(self.end_seq(), |sync| sync.seq);
        while let Some(oldest) = self.entries.front() {
            let old = self.first < sync && arrived.saturating_duration_since(oldest.arrived) > KEEP;
            if !old && self.bytes <= MAX_BYTES && self.entries.len() <= MAX_ENTRIES {
                break;
            }
            self.bytes -= size(&oldest.item);
            self.entries.pop_front();
            self.first += 1;
        }
        if self.sync.as_ref().is_some_and(|sync| sync.seq < self.first) {
            self.sync = None;
        }
    }

    fn end_seq(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// What a reader at `cursor` does next.
    pub(super) fn step(&mut self, cursor: Option<u64>, now: Instant) -> Step {
        if self.writer.as_ref().is_some_and(|writer| writer.held.is_some()) && self.complete(now) {
            self.announce(now);
        }
        let Some(cursor) = cursor else {
            // Whatever is written next, a decoder can start at it.
            let fresh = self.writer.as_ref().is_none_or(|writer| !writer.pictures);
            return match &self.sync {
                Some(sync) => Step::Start(sync.seq, Some(sync.tracks.clone())),
                None if fresh => Step::Start(self.end_seq(), self.announced.clone()),
                None => Step::Wait(self.due()),
            };
        };
        if cursor < self.first {
            return Step::Behind(self.first - cursor);
        }
        match self.entries.get((cursor - self.first) as usize) {
            Some(entry) => Step::Entry(entry.clone(), cursor + 1),
            None => Step::Wait(self.due()),
        }
    }

    /// Entries between a cursor and the last sync point, if that lies ahead of it.
    pub(super) fn to_sync(&self, cursor: u64) -> Option<u64> {
        self.sync.as_ref().and_then(|sync| sync.seq.checked_sub(cursor)).filter(|ahead| *ahead > 0)
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
            input.bitrate.store(bits as u64, std::sync::atomic::Ordering::Relaxed);
        }
        self.counted_bytes = total;
        let idle = self.settings.idle_timeout;
        if let Some(writer) = &self.writer {
            let silent = |heard: &Option<Instant>| {
                now.saturating_duration_since(heard.unwrap_or(writer.began)) >= idle
            };
            let mut all = true;
            for ((kind, heard), stalled) in
                [Kind::Video, Kind::Audio].into_iter().zip(&writer.heard).zip(&input.stalled)
            {
                let is = silent(heard);
                all &= is;
                let is = is && writer.tracks.get(kind).is_some();
                if stalled.swap(is, std::sync::atomic::Ordering::Relaxed) != is {
                    input.status.touch();
                }
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
