//! `store`: reads the stream and hands it to the thread that writes, once a second.
//!
//! The stream's own memory is what a disk that stalls is bridged with: what the thread can't take yet stays there, for
//! half a minute.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use av_flow::config::Content;
use av_flow::stream::{Entry, Item, Keep, Reader, Start, State, Tracks};
use av_flow::{OutputContext, Reason};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::clip::{self, Before, Clips};
use crate::lane::{Lane, LeftOff, Wish};
use crate::name::Fields;
use crate::recorder::Recorder;
use crate::report::Report;
use crate::spool::Spool;
use crate::store::StoreConfig;
use crate::writer::{Job, Writer};

/// How far behind the disk may be.
const LAG: Duration = Duration::from_secs(30);
/// What the stream may keep for that.
const LAG_BYTES: usize = 64 << 20;
/// What comes is durable a second later: a read for each frame gains nothing.
pub const PATIENCE: Duration = Duration::from_millis(40);
/// Media is handed on before its second is over when there is so much of it.
const MOST_WAITING: usize = 8 << 20;
/// A disk that takes nothing for so long is told of.
const STALL: Duration = Duration::from_secs(5);

/// Records until cancelled.
pub async fn record(output: OutputContext, config: StoreConfig) {
    let report = Report::new(output.status.clone(), &output.path);
    let Some(recorder) = output.module.extension::<Recorder>() else {
        return report.fails(State::Failed, Reason::Internal, &"this service has no recorder");
    };
    let place = (output.flow.to_string(), output.output.to_string());
    let Some(lane) = recorder.lane(&place) else { return };
    let context = &recorder.context;
    let fields = Fields { device: &context.device, module: &context.module, flow: &output.flow };
    let template = match config.template(output.of_instance).filled(fields) {
        Ok(template) => template,
        Err(error) => return report.fails(State::Failed, Reason::Internal, &error),
    };
    let template = config.instance.as_deref().map_or(template.clone(), |name| template.of_instance(name));
    let wishes = lane.join(template.clone(), &report);
    // Identifies the stream as long as it lives.
    let stream = Arc::as_ptr(output.stream.input()).addr();
    let content = output.content;
    // The reader starts before the spool is open: frames that arrive until then wait in memory.
    let begun = (!config.events_only).then(|| match lane.go_on(stream, content) {
        Some(left_off) => (left_off.reader, left_off.tracks),
        None => {
            let keep = Keep { pre_roll: Duration::ZERO, lag: LAG, bytes: LAG_BYTES, patience: PATIENCE };
            (output.stream.reader_from(content, Start::LastSync, keep).loses_little(), None)
        }
    });
    let Some(spool) = spool(&output, &recorder, &report).await else {
        if let Some((reader, tracks)) = begun {
            lane.leave_off(LeftOff { stream, content, reader, tracks });
        }
        return;
    };

    let clips = Clips::new(
        &output,
        recorder.clone(),
        spool.clone(),
        lane.clone(),
        &report,
        config.clone(),
        template.clone(),
    );
    let Some((reader, tracks)) = begun else { return wait_for_events(output, report, wishes, clips).await };
    let stopping = Arc::new(AtomicBool::new(false));
    let of_output = spool.clone();
    let writer = Writer {
        spool,
        lane: lane.clone(),
        report: report.clone(),
        config,
        template,
        event: None,
        latency: Some(output.module.latency("mp4")),
        stopping: stopping.clone(),
        recorder,
    };
    // One is being written while the next one waits.
    let (jobs, taken) = mpsc::channel(1);
    let spawned = std::thread::Builder::new()
        .name("writer".into())
        .stack_size(512 << 10)
        .spawn(move || writer.run(taken));
    if let Err(error) = spawned {
        return report.fails(State::Failed, Reason::Internal, &error);
    }
    Recording { output, report, jobs, wishes, clips, stopping, lane, stream, spool: of_output }
        .run(reader, tracks)
        .await;
}

/// Waits for the spool, and says why it takes so long.
async fn spool(output: &OutputContext, recorder: &Arc<Recorder>, report: &Report) -> Option<Arc<Spool>> {
    let mut opened = recorder.opened();
    loop {
        let now = opened.borrow_and_update().clone();
        match now {
            Some(Ok(spool)) => {
                report.ready();
                return Some(spool);
            }
            Some(Err(why)) => report.fails(State::Failed, Reason::File, &why),
            None => {}
        }
        tokio::select! {
            () = output.cancel.cancelled() => return None,
            changed = opened.changed() => changed.ok()?,
        }
    }
}

/// Records nothing but clips.
async fn wait_for_events(
    output: OutputContext,
    report: Arc<Report>,
    mut wishes: mpsc::Receiver<Wish>,
    mut clips: Clips,
) {
    let mut reader = output.stream.reader_from(output.content, Start::LastSync, clip::keep());
    let mut seen = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = output.cancel.cancelled() => break,
            wish = wishes.recv() => match wish {
                Some(Wish::Clip(asked, counted)) => clips.begin(&asked, counted, None),
                Some(Wish::Forget) => clips.forget(),
                Some(Wish::EndFile) => {}
                None => break,
            },
            () = reader.recv(&mut seen) => {
                clips.saw(&seen);
                tell_what_is_lacking(&report, output.content, &seen);
                seen.clear();
            }
        }
    }
    clips.end().await;
}

struct Recording {
    output: OutputContext,
    report: Arc<Report>,
    jobs: mpsc::Sender<Job>,
    wishes: mpsc::Receiver<Wish>,
    clips: Clips,
    stopping: Arc<AtomicBool>,
    lane: Arc<Lane>,
    /// Which stream it is.
    stream: usize,
    spool: Arc<Spool>,
}

impl Recording {
    /// `syncSeconds`, as it is configured now.
    fn sync(&self) -> Duration {
        Duration::from_secs(self.spool.limits().sync_seconds.max(1))
    }

    async fn run(mut self, mut reader: Reader, mut tracks: Option<Arc<Tracks>>) {
        let content = self.output.content;
        let mut waiting: Vec<Entry> = Vec::new();
        let (mut bytes, mut read) = (0, 0);
        if let Some(tracks) = &tracks {
            waiting.push(Entry {
                item: Item::Tracks(tracks.clone()),
                arrived: Instant::now(),
                starts: false,
            });
        }
        let mut sync = self.sync();
        let mut ticks = commits(sync);
        // Since when there is something that the thread should have taken.
        let mut due: Option<Instant> = None;
        let mut end_file = None;
        // What came before the file is to end goes into it first.
        let mut is_flushing = false;
        let mut recalls = VecDeque::new();
        loop {
            if bytes >= MOST_WAITING && due.is_none() {
                due = Some(Instant::now());
            }
            tokio::select! {
                biased;
                () = self.output.cancel.cancelled() => break,
                permit = self.jobs.reserve(), if due.is_some() || end_file.is_some() || !recalls.is_empty() => {
                    let Ok(permit) = permit else { break };
                    // Before what is waiting, which the clip has got.
                    if let Some(recall) = recalls.pop_front() {
                        permit.send(Job::Recall(recall));
                        continue;
                    }
                    if !is_flushing && let Some(forget) = end_file.take() {
                        permit.send(Job::EndFile { forget });
                        continue;
                    }
                    (due, is_flushing) = (None, false);
                    (bytes, read) = (0, 0);
                    permit.send(Job::Batch(std::mem::take(&mut waiting)));
                }
                // What the thread can't take stays in the stream's memory, which is bounded.
                () = reader.recv(&mut waiting), if due.is_none() => {
                    let new = waiting.get(read..).unwrap_or_default();
                    self.clips.saw(new);
                    tell_what_is_lacking(&self.report, content, new);
                    bytes += new.iter().map(size).sum::<usize>();
                    tracks = told_last(new, tracks);
                    // Nothing comes after that for a while: it need not wait for its second.
                    if due.is_none() && new.iter().any(|entry| matches!(entry.item, Item::Away | Item::Ended)) {
                        due = Some(Instant::now());
                    }
                    read = waiting.len();
                }
                _ = ticks.tick() => {
                    if !waiting.is_empty() && due.is_none() {
                        due = Some(Instant::now());
                    }
                    self.watch(due);
                    if self.sync() != sync {
                        sync = self.sync();
                        ticks = commits(sync);
                    }
                }
                wish = self.wishes.recv() => match wish {
                    Some(Wish::EndFile) => end_file = end_file.or(Some(false)),
                    Some(Wish::Clip(asked, counted)) => {
                        let before = self.clips.recall(&asked).map(|(recall, recalled)| {
                            recalls.push_back(recall);
                            Before {
                                recalled,
                                waiting: waiting.clone(),
                                reader: reader.twin(clip::behind()),
                            }
                        });
                        self.clips.begin(&asked, counted, before);
                    }
                    Some(Wish::Forget) => {
                        self.clips.forget();
                        end_file = Some(true);
                        is_flushing = !waiting.is_empty();
                    }
                    None => break,
                },
            }
        }
        // What had come by now may be unread: the disk was behind.
        let ended = Instant::now();
        let is_later = |entry: &Entry| entry.arrived >= ended;
        while !waiting.get(read..).unwrap_or_default().iter().any(is_later) && bytes <= LAG_BYTES {
            read = waiting.len();
            if tokio::time::timeout(2 * PATIENCE, reader.recv(&mut waiting)).await.is_err() {
                break;
            }
            let new = waiting.get(read..).unwrap_or_default();
            bytes += new.iter().map(size).sum::<usize>();
            tracks = told_last(new, tracks);
        }
        if self.jobs.is_closed() {
            let why = "the writer thread has ended, see the log; restart the flow";
            self.report.fails(State::Failed, Reason::Internal, &why);
        }
        self.stopping.store(true, Ordering::Relaxed);
        let (done, stopped) = oneshot::channel();
        if self.jobs.send(Job::Batch(waiting)).await.is_ok()
            && self.jobs.send(Job::Stop { done }).await.is_ok()
        {
            let _ = stopped.await;
        }
        let Self { lane, stream, clips, .. } = self;
        clips.end().await;
        lane.leave_off(LeftOff { stream, content, reader, tracks });
    }

    /// Tells of a disk that takes nothing.
    fn watch(&self, due: Option<Instant>) {
        let Some(stalled) = due.map(|since| since.elapsed()).filter(|since| *since >= STALL) else { return };
        if self.output.status.status.get().state == State::Failed {
            return;
        }
        let why = format!(
            "the spool's disk has accepted nothing for more than {} s; up to {} s are kept in memory",
            STALL.as_secs(),
            LAG.as_secs()
        );
        let state = if stalled < LAG { State::Retrying } else { State::Failed };
        self.report.fails(state, Reason::Silent, &why);
    }
}

/// The stream may have only what `content` filters out.
fn tell_what_is_lacking(report: &Report, content: Content, new: &[Entry]) {
    let lacks = |entry: &Entry| match &entry.item {
        Item::Tracks(tracks) => Some(tracks.is_empty().then(|| content.missing())),
        Item::Ended => Some(None),
        _ => None,
    };
    if let Some(lacking) = new.iter().rev().find_map(lacks) {
        report.lacks(lacking);
    }
}

/// The tracks that hold behind what is `new`.
fn told_last(new: &[Entry], before: Option<Arc<Tracks>>) -> Option<Arc<Tracks>> {
    new.iter().fold(before, |tracks, entry| match &entry.item {
        Item::Tracks(told) => Some(told.clone()),
        Item::Ended => None,
        _ => tracks,
    })
}

fn commits(sync: Duration) -> Interval {
    let mut ticks = tokio::time::interval_at(next_commit(sync), sync);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// When this output commits next. All outputs commit at the same moments: the file system makes what they sync together
/// durable with one write of its journal.
fn next_commit(sync: Duration) -> Instant {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    let passed = FIRST.elapsed().as_nanos() % sync.as_nanos().max(1);
    Instant::now() + sync - Duration::from_nanos(u64::try_from(passed).unwrap_or_default())
}

fn size(entry: &Entry) -> usize {
    match &entry.item {
        Item::Frame(frame) => frame.data.len(),
        _ => 0,
    }
}

impl Lane {
    /// Ends the files of this output at their next sync frames. Clips end when it is their time.
    pub fn end_files(&self) -> usize {
        if self.configured().is_some_and(|now| now.config.events_only) {
            return 0;
        }
        self.wish(&Wish::EndFile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn outputs_that_begin_at_different_moments_commit_at_the_same_ones() {
        let sync = Duration::from_secs(2);
        let first = next_commit(sync);
        for millis in [1, 350, 1200, 1999] {
            tokio::time::advance(Duration::from_millis(millis)).await;
            let next = next_commit(sync);
            assert!(next > Instant::now() && next <= Instant::now() + sync);
            assert_eq!((next - first).as_nanos() % sync.as_nanos(), 0, "{millis}");
        }
    }
}
