//! Clips: what `recordEvent` asks for, each a file of its own that begins before the call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use av_edge::EventKind;
use av_flow::config::Content;
use av_flow::stream::{Entry, Item, Keep, OutputStatus, Reader, Start, Stream};
use av_flow::{OutputContext, Reason};
use av_media::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::lane::Lane;
use crate::lately::Written;
use crate::name::{self, NameTemplate};
use crate::recorder::Recorder;
use crate::recording;
use crate::report::Report;
use crate::spool::Spool;
use crate::store::StoreConfig;
use crate::writer::{Job, Recall, Writer};

/// The longest `preRollSeconds`.
pub const LONGEST_PRE_ROLL: Duration = Duration::from_secs(60);
/// What a stream may keep for that: 60 s of 17 Mbit/s.
const PRE_ROLL_BYTES: usize = 128 << 20;
/// How far behind the disk may be.
const LAG: Duration = Duration::from_secs(30);
/// Media that stands still ends a clip so long after its time.
const PATIENCE: Duration = Duration::from_secs(10);
/// A GOP that is longer than this is cut within a clip.
const LONGEST_GOP: Duration = Duration::from_secs(60);
/// Media is handed on before its second is over when there is so much of it.
const MOST_WAITING: usize = 8 << 20;
/// Clips of one output at once.
pub const MOST_CLIPS: usize = 16;

/// What `recordEvent` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The caller's, or random.
    pub id: String,
    /// When; `None`: the clock is not set.
    pub at: Option<SystemTime>,
    /// `preRollSeconds`.
    pub pre_roll: Duration,
    /// `seconds`.
    pub length: Duration,
}

impl Asked {
    /// What the clip is called where files are called so; `None`: that shows when the clock is set.
    pub fn name(&self, template: &NameTemplate) -> Option<String> {
        Some(name::of_event(&template.at(self.at?), &self.id))
    }

    /// What its file is called by.
    fn template(&self, template: &NameTemplate) -> NameTemplate {
        match self.name(template) {
            Some(name) => NameTemplate::literal(&name),
            None => template.of_event(&self.id),
        }
    }
}

/// What is in files already, and how it goes on.
pub struct Before {
    /// What is durable.
    pub recalled: oneshot::Receiver<Vec<Written>>,
    /// What was read of the stream behind that.
    pub waiting: Vec<Entry>,
    /// Has not given what comes next.
    pub reader: Reader,
}

/// What a reader needs that begins now.
pub fn behind() -> Keep {
    Keep { pre_roll: Duration::ZERO, ..keep() }
}

/// What keeps enough for the longest pre-roll.
pub fn keep() -> Keep {
    Keep { pre_roll: LONGEST_PRE_ROLL, lag: LAG, bytes: PRE_ROLL_BYTES, patience: recording::PATIENCE }
}

/// The clips of one output, or of one instance of it.
pub struct Clips {
    stream: Stream,
    content: Content,
    sync: Duration,
    spool: Arc<Spool>,
    lane: Arc<Lane>,
    recorder: Arc<Recorder>,
    report: Arc<Report>,
    config: StoreConfig,
    template: NameTemplate,
    ended: CancellationToken,
    running: JoinSet<()>,
    /// When the last frame that was seen is decoded.
    last: Option<Timestamp>,
    /// When it arrived; `None`: there was none, or it has been deleted.
    arrived: Option<Instant>,
    /// Nobody publishes; then, whether the times of the next one begin anew.
    away: Option<bool>,
    /// What was before has been deleted.
    not_before: Option<Timestamp>,
}

impl Clips {
    /// Of an output as it is configured now. Where it records all the time, its state is not the clips'.
    pub fn new(
        output: &OutputContext,
        recorder: Arc<Recorder>,
        spool: Arc<Spool>,
        lane: Arc<Lane>,
        report: &Arc<Report>,
        config: StoreConfig,
        template: NameTemplate,
    ) -> Self {
        let report = if config.events_only {
            report.clone()
        } else {
            Report::new(OutputStatus::new(recorder.changes.clone()), &output.path)
        };
        Self {
            stream: output.stream.clone(),
            content: output.content,
            sync: Duration::from_secs(spool.limits().sync_seconds.max(1)),
            spool,
            lane,
            recorder,
            report,
            config,
            template,
            ended: CancellationToken::new(),
            running: JoinSet::new(),
            last: None,
            arrived: None,
            away: None,
            not_before: None,
        }
    }

    /// What was read of the stream.
    pub fn saw(&mut self, entries: &[Entry]) {
        for entry in entries {
            match &entry.item {
                Item::Frame(frame) => {
                    if self.away.take() == Some(true) {
                        (self.last, self.not_before) = (None, None);
                    }
                    self.last = self.last.max(Some(frame.dts));
                    self.arrived = Some(entry.arrived);
                }
                // What was before stays for clips until the next publisher comes.
                Item::Away | Item::Ended => {
                    let begins_anew = matches!(entry.item, Item::Ended) || self.away == Some(true);
                    self.away = Some(begins_anew);
                }
                _ => {}
            }
        }
    }

    /// What is decoded now, or would be, had the publisher not left.
    fn now(&self) -> Option<Timestamp> {
        let since = self.arrived.filter(|_| self.away.is_some()).map(|arrived| arrived.elapsed());
        Some(self.last?.moved(nanos(since.unwrap_or_default())))
    }

    /// When the first frame of a clip is to be decoded that is asked for now.
    fn from(&self, asked: &Asked) -> Option<Timestamp> {
        Some(back(self.now()?, asked.pre_roll))
    }

    /// Asks for what was written lately, where a clip wants it.
    pub fn recall(&self, asked: &Asked) -> Option<(Recall, oneshot::Receiver<Vec<Written>>)> {
        if asked.pre_roll.is_zero() {
            return None;
        }
        let (answer, recalled) = oneshot::channel();
        let is_away = self.away.is_some();
        let recall = Recall { from: self.from(asked)?, not_before: self.not_before, is_away, answer };
        Some((recall, recalled))
    }

    /// Begins one, which is counted as long as `counted` lives. `before`: with what is in files already.
    pub fn begin(&mut self, asked: &Asked, counted: Arc<()>, before: Option<Before>) {
        while self.running.try_join_next().is_some() {}
        let from = self.from(asked).max(self.not_before);
        let reader =
            self.stream.reader_from(self.content, from.map_or(Start::LastSync, Start::Time), behind());
        let length = asked.pre_roll + asked.length + LONGEST_GOP;
        let stopping = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            recorder: self.recorder.clone(),
            spool: self.spool.clone(),
            lane: self.lane.clone(),
            report: self.report.clone(),
            config: StoreConfig { segment: length, ..self.config.clone() },
            template: asked.template(&self.template),
            event: Some(asked.id.clone()),
            latency: None,
            stopping: stopping.clone(),
        };
        let (jobs, taken) = mpsc::channel(1);
        let spawned = std::thread::Builder::new()
            .name("clip".into())
            .stack_size(512 << 10)
            .spawn(move || writer.run(taken));
        if let Err(error) = spawned {
            return self.report.fails(av_flow::stream::State::Failed, Reason::Internal, &error);
        }
        let begins_anew = self.away == Some(true);
        let patience = if self.last.is_some() && self.away.is_none() { PATIENCE } else { Duration::ZERO };
        let clip = Clip {
            reader,
            before,
            jobs,
            stopping,
            ended: self.ended.clone(),
            from: self.not_before,
            to: self.now().filter(|_| !begins_anew).map(|now| now.moved(nanos(asked.length))),
            deadline: Instant::now() + asked.length + patience,
            is_away: self.away.is_some(),
            counted,
        };
        let (recorder, lane, ended) = (self.recorder.clone(), self.lane.clone(), self.ended.clone());
        let (id, sync) = (asked.id.clone(), self.sync);
        self.running.spawn(async move {
            if !clip.run(sync).await && !ended.is_cancelled() {
                tell_of_nothing(&recorder, &lane, &id);
            }
        });
    }

    /// What was recorded until now has been deleted: it is in no clip any more.
    pub fn forget(&mut self) {
        self.not_before = self.last;
        self.arrived = None;
        self.ended.cancel();
        self.ended = CancellationToken::new();
    }

    /// Ends all of them; what they have is durable afterwards.
    pub async fn end(mut self) {
        self.ended.cancel();
        while self.running.join_next().await.is_some() {}
    }
}

/// Somebody was told of a clip that has no frame.
fn tell_of_nothing(recorder: &Recorder, lane: &Lane, id: &str) {
    let place = lane.place();
    let detail = format!("the clip of event {id} was not recorded: no media arrived in its time");
    tracing::warn!(flow = %place.0, output = %place.1, "{detail}");
    recorder.totals.count(place, |totals| totals.dropped += 1);
    recorder.emit(EventKind::SpoolDropped, place, detail);
}

/// As far as that goes.
pub fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn back(time: Timestamp, by: Duration) -> Timestamp {
    time.moved(-nanos(by))
}

/// One that is being recorded.
struct Clip {
    /// Begins in memory.
    reader: Reader,
    /// Where there is any of it, the clip begins with that instead.
    before: Option<Before>,
    jobs: mpsc::Sender<Job>,
    stopping: Arc<AtomicBool>,
    ended: CancellationToken,
    /// Nothing before that.
    from: Option<Timestamp>,
    /// Up to there, where the stream's times are known.
    to: Option<Timestamp>,
    deadline: Instant,
    /// Nobody publishes: it has what there is, and what comes when somebody does.
    is_away: bool,
    counted: Arc<()>,
}

impl Clip {
    /// Whether there was anything to record.
    async fn run(self, sync: Duration) -> bool {
        let Self {
            mut reader,
            before,
            jobs,
            stopping,
            ended,
            mut from,
            mut to,
            deadline,
            mut is_away,
            counted: _counted,
        } = self;
        let asked_at = Instant::now();
        let mut has_frames = false;
        let mut ticks = tokio::time::interval(sync);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut new, mut waiting, mut bytes) = (Vec::new(), Vec::new(), 0);
        let (mut due, mut over) = (false, false);
        if let Some(before) = before
            && let Ok(Ok(written)) = tokio::time::timeout(PATIENCE, before.recalled).await
            && !written.is_empty()
        {
            if jobs.send(Job::Written(written)).await.is_err() {
                return true;
            }
            has_frames = true;
            reader = before.reader;
            // It has begun.
            from = None;
            waiting = before.waiting;
            over = !is_away && waiting.iter().any(|entry| matches!(entry.item, Item::Away | Item::Ended));
        }
        while !over {
            tokio::select! {
                biased;
                () = ended.cancelled() => break,
                () = tokio::time::sleep_until(deadline) => break,
                permit = jobs.reserve(), if due => {
                    let Ok(permit) = permit else { return true };
                    permit.send(Job::Batch(std::mem::take(&mut waiting)));
                    (bytes, due) = (0, false);
                }
                () = reader.recv(&mut new), if bytes < MOST_WAITING => {
                    for entry in new.drain(..) {
                        if is_away && matches!(entry.item, Item::Away | Item::Ended) {
                            // Times may begin anew behind it.
                            if matches!(entry.item, Item::Ended) {
                                (from, to) = (None, None);
                            }
                            waiting.push(entry);
                            continue;
                        }
                        match take(&entry, &mut from, to) {
                            Taken::No => {}
                            Taken::Yes => {
                                bytes += size(&entry);
                                let is_frame = matches!(entry.item, Item::Frame(_));
                                has_frames |= is_frame;
                                // What comes now is of the one who came back; with that one the clip ends.
                                is_away &= !is_frame || entry.arrived < asked_at;
                                waiting.push(entry);
                            }
                            Taken::End => {
                                over = true;
                                break;
                            }
                        }
                    }
                    due |= bytes >= MOST_WAITING;
                }
                _ = ticks.tick() => due |= !waiting.is_empty(),
            }
        }
        stopping.store(true, Ordering::Relaxed);
        let (done, stopped) = oneshot::channel();
        if jobs.send(Job::Batch(waiting)).await.is_ok() && jobs.send(Job::Stop { done }).await.is_ok() {
            let _ = stopped.await;
        }
        has_frames
    }
}

/// Whether an entry belongs to a clip of what comes after `from` and before `to`.
fn take(entry: &Entry, from: &mut Option<Timestamp>, to: Option<Timestamp>) -> Taken {
    match &entry.item {
        Item::Frame(frame) => {
            if from.is_some_and(|from| frame.dts <= from || !entry.starts) {
                return Taken::No;
            }
            *from = None;
            if to.is_some_and(|to| frame.dts >= to) { Taken::End } else { Taken::Yes }
        }
        // The publisher is gone, and with it what the clip is about.
        Item::Away | Item::Ended => Taken::End,
        _ => Taken::Yes,
    }
}

enum Taken {
    No,
    Yes,
    End,
}

fn size(entry: &Entry) -> usize {
    match &entry.item {
        Item::Frame(frame) => frame.data.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clip_is_called_as_files_are_and_by_its_id() {
        let template = NameTemplate::parse("a/100%%-%H.mp4").unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(7200);
        let asked = Asked {
            id: "door".into(),
            at: Some(at),
            pre_roll: Duration::ZERO,
            length: Duration::from_secs(1),
        };
        let name = asked.name(&template).unwrap();
        assert_eq!(name, "a/100%-02-event-door.mp4");
        assert_eq!(asked.template(&template).at(SystemTime::UNIX_EPOCH), name);
        assert!(!asked.template(&template).has_times());
        // By its first frame, when the clock is set.
        let undated = Asked { at: None, ..asked };
        assert_eq!(undated.name(&template), None);
        assert_eq!(undated.template(&template).at(at), name);
        assert!(undated.template(&template).has_times());
    }
}
