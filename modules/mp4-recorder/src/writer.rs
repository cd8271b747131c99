//! The thread that writes what one output records: a card that stalls holds up this thread and nothing else.

mod expected;
mod tracks;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use av_edge::EventKind;
use av_flow::Reason;
use av_flow::stream::{Entry, Item, Lost, State, Tracks};
use av_media::{Frame, Kind, Timestamp, Track};
use prometheus::Histogram;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::clock;
use crate::cut::Cutter;
use crate::housekeeping;
use crate::lane::Lane;
use crate::lately::{Lately, Written};
use crate::name::NameTemplate;
use crate::recorder::Recorder;
use crate::report::Report;
use crate::segment::{self, Expected, Segment, SegmentError};
use crate::spool::{Dropped, Record, Spool, SpoolError, Stage, Wanted};
use crate::store::StoreConfig;

use expected::{longer, of_a_fast_camera};
use tracks::NewSound;

/// Between two tries to write what could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// Sound that comes behind the pictures that a file begins with may be so much older than they are.
const SOUND_BEHIND: Duration = Duration::from_secs(2);
/// Bytes of another thread's files that are read before they are committed.
const MOST_AT_ONCE: usize = 8 << 20;
/// What a new file takes before there is anything in it, at least.
const HEADROOM: u64 = 1 << 20;

/// What the thread is told.
pub enum Job {
    /// Media, which is durable when the next job is taken.
    Batch(Vec<Entry>),
    /// The file ends at the next sync frame.
    EndFile {
        /// And what was written until now is deleted.
        forget: bool,
    },
    /// What was written lately is wanted for a clip.
    Recall(Recall),
    /// What another thread wrote lately.
    Written(Vec<Written>),
    /// The file ends here, and so does the thread.
    Stop {
        /// Told when everything is durable.
        done: oneshot::Sender<()>,
    },
}

/// What a clip begins with.
#[derive(Debug)]
pub struct Recall {
    /// When its first frame is to be decoded.
    pub from: Timestamp,
    /// What was before has been deleted.
    pub not_before: Option<Timestamp>,
    /// Nobody publishes: it is about the one before.
    pub is_away: bool,
    /// Told what was written since; nothing, where that is not kept.
    pub answer: oneshot::Sender<Vec<Written>>,
}

/// What one output records.
pub struct Writer {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) spool: Arc<Spool>,
    pub(crate) lane: Arc<Lane>,
    pub(crate) report: Arc<Report>,
    pub(crate) config: StoreConfig,
    /// `name` with everything but times filled in.
    pub(crate) template: NameTemplate,
    /// The event whose clip it records.
    pub(crate) event: Option<String>,
    /// The delay of pictures and of sound until they are durable. A clip has none: it begins in the past.
    pub(crate) latency: Option<[Histogram; 2]>,
    /// The process, or the output, ends: nothing is tried twice any more.
    pub(crate) stopping: Arc<AtomicBool>,
}

/// A frame that is not durable yet.
struct Pending {
    frame: Frame,
    arrived: Instant,
}

struct Running {
    writer: Writer,
    cutter: Cutter,
    tracks: Arc<Tracks>,
    /// Those of them that files carry.
    carried: Vec<Track>,
    open: Option<Open>,
    /// Since the last commit.
    pending: Vec<Pending>,
    boot: String,
    /// Of a file of the configured length.
    expected: Expected,
    lately: Arc<Mutex<Lately>>,
    /// The sound has changed since the last sync picture.
    new_sound: Option<NewSound>,
    /// Frames that found no room when the process was to end.
    given_up: Lost,
}

struct Open {
    record: Record,
    segment: Segment,
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error("spool folder: {0}")]
    Record(std::io::Error),
}

impl WriteError {
    fn is_of_a_read_only_disk(&self) -> bool {
        let (Self::Record(source)
        | Self::Segment(SegmentError::Io(source))
        | Self::Spool(SpoolError::Unusable { source, .. })) = self
        else {
            return false;
        };
        source.kind() == std::io::ErrorKind::ReadOnlyFilesystem
    }
}

impl Writer {
    /// Does what it is told until it is told to stop.
    pub fn run(self, mut jobs: mpsc::Receiver<Job>) {
        let mut running = Running {
            cutter: Cutter::new(self.config.segment),
            tracks: Arc::default(),
            carried: Vec::new(),
            open: None,
            pending: Vec::new(),
            boot: clock::boot_id(),
            expected: of_a_fast_camera(self.config.segment),
            lately: self.spool.lately(),
            new_sound: None,
            given_up: Lost::default(),
            writer: self,
        };
        while let Some(job) = jobs.blocking_recv() {
            match job {
                Job::Batch(entries) => running.batch(entries),
                Job::EndFile { forget } => {
                    running.cutter.end_soon();
                    if forget {
                        running.lately().forget();
                    }
                }
                Job::Recall(Recall { from, not_before, is_away, answer }) => {
                    // Whoever asked may have given up.
                    let _ = answer.send(running.lately().since(from, not_before, is_away));
                }
                Job::Written(written) => running.written(&written),
                Job::Stop { done } => {
                    running.close();
                    let _ = done.send(());
                    return;
                }
            }
        }
        running.close();
    }
}

impl Writer {
    fn admit(&self, bytes: u64, opens: bool, dropped: &mut Vec<Dropped>) -> Result<(), SpoolError> {
        let wanted = Wanted { flow: &self.lane.place().0, bytes, opens, deny_new: self.config.deny_new };
        self.spool.admit(wanted, dropped)
    }
}

impl Running {
    fn lately(&self) -> MutexGuard<'_, Lately> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn batch(&mut self, entries: Vec<Entry>) {
        let is_frame = |entry: &&Entry| matches!(entry.item, Item::Frame(_));
        self.writer.report.behind(entries.iter().find(is_frame).map(|entry| entry.arrived));
        for entry in entries {
            match entry.item {
                Item::Tracks(tracks) => self.tracks(tracks),
                Item::Frame(frame) => self.frame(frame, entry.arrived),
                Item::Gap(_) => self.break_here(),
                Item::Lost(lost) => {
                    self.break_here();
                    self.lost(lost);
                }
                // Whoever publishes next begins a file of its own, and this one can be stored.
                Item::Away | Item::Ended => {
                    self.close();
                    self.lately().over();
                }
                Item::Anchor(_) | Item::Aside(_) | Item::GivenUp => {}
            }
        }
        self.commit();
        self.writer.report.behind(None);
    }

    /// What comes next does not go on where the last frame was.
    fn break_here(&mut self) {
        self.commit();
        self.cutter.break_here();
        self.lately().forget();
    }

    /// Takes what another thread wrote as if it came from the stream.
    fn written(&mut self, written: &[Written]) {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for written in written {
            match written.read() {
                Ok(read) => {
                    entries.extend(read);
                    bytes += written.bytes();
                }
                Err(error) => {
                    let (flow, output) = self.writer.lane.place();
                    tracing::warn!(%flow, %output, "a clip has a gap, because recorded data can't be read: \
                         {error}");
                    self.batch(std::mem::take(&mut entries));
                    self.cutter.break_here();
                }
            }
            if bytes >= MOST_AT_ONCE {
                self.batch(std::mem::take(&mut entries));
                bytes = 0;
            }
        }
        self.batch(entries);
    }

    fn lost(&self, lost: Lost) {
        let status = self.writer.report.status();
        status.dropped.add(Kind::Video, lost.video);
        status.dropped.add(Kind::Audio, lost.audio);
        let detail = format!("{} frames were lost: the disk was too slow for too long", lost.total());
        let place = self.writer.lane.place();
        tracing::warn!(flow = %place.0, output = %place.1, "{detail}");
        self.writer.recorder.totals.count(place, |totals| totals.dropped += 1);
        self.writer.recorder.emit(EventKind::SpoolDropped, place, detail);
    }

    fn frame(&mut self, frame: Frame, arrived: Instant) {
        let Some(frame) = self.keep_new_sound(frame, arrived) else { return };
        if !self.carries(frame.kind) {
            self.writer.report.status().dropped.add(frame.kind, 1);
            return;
        }
        let has_video = self.carries(Kind::Video);
        if self.open.as_ref().is_some_and(|open| open.segment.is_nearly_full()) {
            self.cutter.end_soon();
        }
        if self.open.as_ref().is_some_and(|open| open.segment.is_full()) {
            self.cutter.break_here();
        }
        if self.cutter.begins(&frame, has_video) {
            self.finish(Some(frame.dts));
            self.begin_with_new_sound();
        }
        self.pending.push(Pending { frame: frame.clone(), arrived });
        if self.open.is_none() {
            // What is pending goes into the new file, and this frame with it.
            self.rewrite(None);
        } else if let Some(open) = &mut self.open {
            open.segment.push(frame);
        }
    }

    /// Makes durable what is pending.
    fn commit(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        match self.try_commit(None) {
            Ok(()) => {}
            Err(error) => self.rewrite(Some(error)),
        }
    }

    fn try_commit(&mut self, next: Option<Timestamp>) -> Result<(), WriteError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if self.pending.is_empty() {
            return Ok(());
        }
        let media: u64 = self.pending.iter().map(|pending| pending.frame.data.len() as u64).sum();
        let more = open.segment.room_for(media);
        let mut dropped = Vec::new();
        let admitted = self.writer.admit(more, false, &mut dropped);
        self.writer.recorder.announce(dropped);
        admitted?;
        let ahead = more > 0 && self.writer.spool.has_room(more + segment::AHEAD);
        let written = open.segment.commit(next, ahead)?;
        self.writer.spool.grew(open.record.id, open.segment.bytes(), open.segment.room());
        self.writer.recorder.totals.written.fetch_add(written.bytes, Ordering::Relaxed);
        let status = self.writer.report.status();
        status.bytes.fetch_add(written.bytes, Ordering::Relaxed);
        if let Some(first) = self.pending.first()
            && self.writer.event.is_none()
        {
            let of = (open.record.id, open.segment.file());
            let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
            lately.wrote(of, &self.tracks, first.arrived, written.frames);
        }
        for Pending { frame, arrived } in self.pending.drain(..) {
            status.frames.add(frame.kind, 1);
            if let Some([video, audio]) = &self.writer.latency {
                let delay = arrived.elapsed();
                let histogram = if frame.kind == Kind::Video { video } else { audio };
                histogram.observe(delay.as_secs_f64());
                status.latency.observe(delay);
            }
        }
        self.writer.report.recorded();
        Ok(())
    }

    /// Ends the file that is open, if one is, and writes what is pending into a new one, however long that takes.
    fn rewrite(&mut self, mut why: Option<WriteError>) {
        let mut tries = 0;
        loop {
            if let Some(mut error) = why.take() {
                self.abandon();
                if error.is_of_a_read_only_disk() {
                    self.lately().forget();
                    error = self.writer.spool.read_only().into();
                }
                tries += 1;
                // A second file in a row that can't be written: it is not the file.
                let is_lasting = matches!(error, WriteError::Spool(_)) || tries > 1;
                let state = if is_lasting { State::Failed } else { State::Retrying };
                self.writer.report.fails(state, Reason::File, &error);
                if self.writer.stopping.load(Ordering::Relaxed) {
                    return self.give_up();
                }
                std::thread::sleep(RETRY);
            }
            let opened = self.open_file().and_then(|()| {
                if let Some(open) = &mut self.open {
                    self.pending.iter().for_each(|pending| open.segment.push(pending.frame.clone()));
                }
                // The first frame alone is no reason for a commit of its own.
                if self.pending.len() > 1 { self.try_commit(None) } else { Ok(()) }
            });
            match opened {
                Ok(()) => return,
                Err(error) => why = Some(error),
            }
        }
    }

    /// The process ends, and there is no room for what is pending. It is told when all is.
    fn give_up(&mut self) {
        self.lately().forget();
        for pending in std::mem::take(&mut self.pending) {
            match pending.frame.kind {
                Kind::Video => self.given_up.video += 1,
                Kind::Audio => self.given_up.audio += 1,
            }
        }
        self.cutter.ended();
    }

    fn tell_what_was_given_up(&mut self) {
        let lost = std::mem::take(&mut self.given_up);
        if lost.total() > 0 {
            self.lost(lost);
        }
    }

    /// A disk that refused once is not asked again on the same descriptor: what it holds for sure is a file.
    fn abandon(&mut self) {
        let Some(open) = self.open.take() else { return };
        let (id, durable) = (open.record.id, open.segment.durable());
        drop(open);
        let spool = &self.writer.spool;
        spool.broke(id, durable.unwrap_or(0));
        match durable {
            None => drop(spool.remove(id)),
            Some(length) => housekeeping::repair(&self.writer.recorder, spool, id, Some(length)),
        }
    }

    /// A new file for what is pending.
    fn open_file(&mut self) -> Result<(), WriteError> {
        let writer = &self.writer;
        let arrived = self.pending.first().map_or_else(Instant::now, |pending| pending.arrived);
        let told = writer.recorder.belief.now();
        let began = told.now.before(arrived.elapsed());
        let mut dropped = Vec::new();
        let tracks = &self.carried;
        let begins_with = segment::begins_with(tracks, self.expected).map_err(SegmentError::from)?;
        let admitted = writer.admit(begins_with.max(HEADROOM), true, &mut dropped);
        writer.recorder.announce(dropped);
        admitted?;
        let place = writer.lane.place();
        let mut record = Record {
            id: writer.spool.next_id(),
            flow: place.0.clone(),
            output: place.1.clone(),
            instance: writer.config.instance.clone(),
            stage: Stage::Writing,
            target: writer.config.target.shown(),
            template: writer.template.as_str().to_owned(),
            name: None,
            start: None,
            boot: self.boot.clone(),
            unsure: !told.is_sure,
            since_boot: u64::try_from(began.since_boot.as_millis()).unwrap_or(u64::MAX),
            bytes: 0,
            milliseconds: 0,
            codecs: tracks.iter().map(|track| track.codec_string.clone()).collect(),
            protected: writer.config.deny_new,
            event: writer.event.clone(),
            upload: None,
            part: Some(Record::new_part()),
        };
        if began.is_plausible() {
            record.set_start(began.utc);
        }
        let first = self.pending.iter().map(|pending| pending.frame.dts).min().unwrap_or_default();
        let origin = first.saturating_sub(SOUND_BEHIND);
        let path = writer.spool.path(&record);
        let ahead = self.expected.ahead && writer.spool.has_room(begins_with + segment::AHEAD);
        let segment = Segment::create(&path, tracks, origin, Expected { ahead, ..self.expected })?;
        writer.recorder.totals.written.fetch_add(segment.begun(), Ordering::Relaxed);
        if let Err(error) = writer.spool.enter(record.clone(), segment.file()) {
            let _ = std::fs::remove_file(&path);
            return Err(WriteError::Record(error));
        }
        writer.spool.grew(record.id, segment.bytes(), segment.room());
        self.open = Some(Open { record, segment, path });
        Ok(())
    }

    /// Ends the file. `next`: when the frame after its last one is decoded.
    fn finish(&mut self, next: Option<Timestamp>) {
        if let Err(error) = self.try_commit(next) {
            self.rewrite(Some(error));
        }
        let Some(Open { record, segment, path }) = self.open.take() else { return };
        let (id, durable) = (record.id, segment.durable().unwrap_or(0));
        let spool = &self.writer.spool;
        let finished = segment.finish().map_err(WriteError::from).and_then(|finished| {
            self.writer.recorder.totals.written.fetch_add(finished.written, Ordering::Relaxed);
            if let Some(expected) = longer(&finished, self.writer.config.segment) {
                self.expected = expected;
            }
            let whole = spool.amend(id, |record| {
                record.stage = Stage::Complete;
                record.bytes = finished.bytes;
                record.milliseconds = u64::try_from(finished.duration.as_millis()).unwrap_or(u64::MAX);
            });
            whole.map(drop).map_err(WriteError::Record)
        });
        match finished {
            Ok(()) => {
                spool.set_busy(id, false);
                self.writer.recorder.wake(self.writer.lane.place());
            }
            Err(error) => {
                tracing::warn!("{}: can't be finished yet: {error}", path.display());
                spool.broke(id, durable);
            }
        }
    }

    /// Nothing follows for now.
    fn close(&mut self) {
        self.finish(None);
        self.end_new_sound();
        self.cutter.ended();
        self.writer.report.idle();
    }
}
