//! How finished files of one output get to their store: one after the other, as long as it takes.

mod deletion;
mod delivery;
mod error;
mod handover;
mod wishes;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use av_edge::EventKind;
use av_flow::Reason;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts};
use rand::Rng;
use tokio::sync::{Notify, watch};

use crate::azure::Blobs;
use crate::clock;
use crate::forget;
use crate::recorder::Recorder;
use crate::report::Report;
use crate::spool::{Place, Record, Spool, Stage};
use crate::store::Configured;
use crate::stored::Line;

pub(crate) use delivery::next;
pub use delivery::{start_of, template};
pub use error::LaneError;
pub use handover::LeftOff;
use wishes::Recording;
pub use wishes::Wish;

/// The pause between two tries; it doubles from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// After a start the document with the credentials may arrive a moment after the files are found.
const START: Duration = Duration::from_secs(10);
/// Up to this number names are tried one by one for one file, behind it ever further apart.
const ONE_BY_ONE: u32 = 16;
/// And up to this one at all.
const MOST_NUMBER: u32 = 1 << 30;
/// Files that are put off while others are stored. With more it is not the files.
const MOST_PUT_OFF: usize = 16;

/// The lane of one output.
pub struct Lane {
    place: Place,
    notify: Notify,
    /// The configuration of the present document, or of the last one that had this output; `None`: there was none since
    /// the module started.
    config: watch::Sender<Option<Configured>>,
    inner: Mutex<Inner>,
    blobs: Blobs,
    /// Held by whoever sends blocks of a recording.
    staging: Mutex<BTreeMap<u64, Weak<tokio::sync::Mutex<()>>>>,
    /// How long it took to store each file.
    took: Option<Histogram>,
}

#[derive(Default)]
struct Inner {
    reports: Vec<Weak<Report>>,
    trouble: Option<(Reason, String)>,
    recordings: Vec<Recording>,
    /// The names of clips that were asked for lately, by the event's id.
    events: VecDeque<(String, Vec<Option<String>>)>,
    /// Numbered, so that each is forgotten in its time.
    left_off: Vec<(u64, LeftOff)>,
    leaves: u64,
    /// The last name that had to be numbered, and the number.
    numbered: Option<(String, u32)>,
    /// When the store last refused to delete something.
    refused: Option<Instant>,
    /// Files that are too old and could not be deleted when that was last tried.
    overdue: u64,
}

impl Lane {
    /// A lane that does not run yet.
    pub fn new(place: Place) -> Arc<Self> {
        let buckets = vec![0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3600.0, 86_400.0];
        let options = HistogramOpts::new("av_segment_upload_seconds", "How long storing a file took")
            .buckets(buckets)
            .const_label("flow", &place.0)
            .const_label("output", &place.1);
        Arc::new(Self {
            place,
            notify: Notify::new(),
            config: watch::Sender::new(None),
            inner: Mutex::default(),
            blobs: Blobs::default(),
            staging: Mutex::default(),
            took: Histogram::with_opts(options).ok(),
        })
    }

    /// How long files took, as a metric family.
    pub fn took_family(&self) -> Option<MetricFamily> {
        self.took.as_ref().and_then(|took| took.collect().into_iter().next())
    }

    /// The age of the oldest frame that was handed to the disk and is not durable yet.
    pub fn lag(&self) -> Duration {
        let inner = self.inner();
        let reports = inner.reports.iter().filter_map(Weak::upgrade);
        reports.map(|report| report.lag()).max().unwrap_or_default()
    }

    /// The flow and the output.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The present configuration.
    pub fn configured(&self) -> Option<Configured> {
        self.config.borrow().clone()
    }

    /// What the document says of the output.
    pub fn configure(&self, configured: Configured) {
        let is_news = self.config.send_if_modified(|config| {
            let is_news = config.as_ref() != Some(&configured);
            *config = Some(configured);
            is_news
        });
        if is_news {
            self.refused(false);
        }
    }

    /// Why files of this output wait, where nothing that runs says so.
    pub fn trouble_of_nobody(&self) -> Option<String> {
        let inner = self.inner();
        let is_told = inner.reports.iter().any(|report| report.strong_count() > 0);
        inner.trouble.as_ref().filter(|_| !is_told).map(|(_, why)| why.clone())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the output is configured with `uploadOpenSegment`.
    pub async fn until_open_segments_are_wanted(&self) {
        let wanted = |now: &Option<Configured>| now.as_ref().is_some_and(|now| now.config.upload_open);
        // The sender lives as long as this does.
        drop(self.config.subscribe().wait_for(wanted).await.map(drop));
    }

    /// What is held while blocks of a recording are sent.
    pub(crate) fn staging(&self, id: u64) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, held| held.strong_count() > 0);
        if let Some(known) = all.get(&id).and_then(Weak::upgrade) {
            return known;
        }
        let new = Arc::default();
        all.insert(id, Arc::downgrade(&new));
        new
    }

    /// Tells the lane that a file may be ready.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    fn tell(&self, trouble: Option<(Reason, String)>) {
        let mut inner = self.inner();
        if inner.trouble == trouble {
            return;
        }
        let reports: Vec<_> = inner.reports.iter().filter_map(Weak::upgrade).collect();
        if reports.is_empty()
            && let Some((_, why)) = &trouble
        {
            tracing::warn!(flow = %self.place.0, output = %self.place.1, "files of an output that is not \
                 running can't be stored: {why}");
        }
        inner.trouble = trouble.clone();
        drop(inner);
        for report in reports {
            report.storing(trouble.as_ref().map(|(reason, why)| (*reason, why.as_str())));
        }
    }

    /// Stores files as they become ready, for ever.
    pub async fn run(self: Arc<Self>, recorder: Arc<Recorder>) {
        let mut opened = recorder.opened();
        let mut changed = self.config.subscribe();
        let Ok(spool) =
            opened.wait_for(|opened| matches!(opened, Some(Ok(_)))).await.map(|opened| opened.clone())
        else {
            return;
        };
        let Some(Ok(spool)) = spool else { return };
        let (mut wait, mut blocks) = (FIRST_WAIT, 0);
        // Files that did not get through for reasons of their own, until when, and how often they were tried.
        let mut put_off = BTreeMap::<u64, (Instant, u32)>::new();
        let began = Instant::now();
        // Since when the store takes nothing.
        let mut away: Option<Instant> = None;
        loop {
            let newest_first = self.configured().is_some_and(|now| now.config.newest_first);
            let now = Instant::now();
            put_off.retain(|id, _| spool.get(*id).is_some());
            let is_put_off = |id| put_off.get(&id).is_some_and(|(until, _)| *until > now);
            let Some(record) = spool.next_for(&self.place, newest_first, is_put_off) else {
                if put_off.is_empty() {
                    self.tell(None);
                }
                // One whose time has come and that is not offered is in somebody's hands.
                let next = put_off.values().map(|(until, _)| *until).filter(|until| *until > now).min();
                let next = next.or((!put_off.is_empty()).then(|| now + FIRST_WAIT));
                tokio::select! {
                    () = self.notify.notified() => {}
                    _ = changed.changed() => put_off.clear(),
                    () = tokio::time::sleep_until(next.unwrap_or(now).into()), if next.is_some() => {}
                }
                continue;
            };
            let id = record.id;
            match self.store(&recorder, &spool, record).await.map_err(|error| error.explained(&spool)) {
                Ok(()) => {
                    wait = FIRST_WAIT;
                    put_off.remove(&id);
                    if away.take().is_some_and(|since| since.elapsed() > LONGEST_WAIT) {
                        recorder.sample_anew();
                    }
                    if put_off.is_empty() {
                        self.tell(None);
                    }
                }
                Err(error)
                    if error.is_of_the_file()
                        && (put_off.contains_key(&id) || put_off.len() < MOST_PUT_OFF) =>
                {
                    self.tell(Some((error.reason(), error.to_string())));
                    let (until, tries) = put_off.entry(id).or_insert((now, 0));
                    // From now on: a try may take longer than the wait, and others come first after each.
                    *until = Instant::now() + FIRST_WAIT.saturating_mul(1 << *tries).min(LONGEST_WAIT);
                    *tries = (*tries + 1).min(16);
                }
                Err(error) => {
                    away.get_or_insert(now);
                    if !matches!(error, LaneError::NoCredentials) || began.elapsed() > START {
                        self.tell(Some((error.reason(), error.to_string())));
                    }
                    // A line that carries some blocks and then breaks is no store that is away.
                    let arrived = self.blobs.blocks();
                    if arrived != blocks {
                        (wait, blocks) = (FIRST_WAIT, arrived);
                    }
                    tokio::select! {
                        // Shorter by up to a quarter: devices that lost one store do not come back in step.
                        () = tokio::time::sleep(wait.mul_f64(rand::rng().random_range(0.75..=1.0))) => {
                            wait = wait.saturating_mul(2).min(LONGEST_WAIT);
                        }
                        _ = changed.changed() => wait = FIRST_WAIT,
                    }
                }
            }
        }
    }

    async fn store(
        self: &Arc<Self>,
        recorder: &Arc<Recorder>,
        spool: &Arc<Spool>,
        mut record: Record,
    ) -> Result<(), LaneError> {
        let began = Instant::now();
        let id = record.id;
        if !spool.set_busy(id, true) {
            return Ok(());
        }
        if let Ok(start) = start_of(&record, recorder.belief.now()) {
            record.set_start(start);
        }
        // A recording that was on its way may be in its store already, and has to be looked for there.
        if recorder.tombstones.cover(&record) && record.stage == Stage::Complete {
            let (flow, output) = &self.place;
            tracing::info!(%flow, %output, bytes = record.bytes, "a recording that was deleted before it was \
                 stored is removed");
            self.discard(recorder, &record).await;
            let removing = spool.clone();
            let removed = tokio::task::spawn_blocking(move || removing.remove(id)).await;
            spool.set_busy(id, false);
            removed.map_err(|_| LaneError::Ended)??;
            return Ok(());
        }
        let stored = self.store_one(recorder, spool, record.clone()).await;
        spool.set_busy(id, false);
        if let Err(error @ LaneError::Gone(_)) = &stored {
            return self.give_up(recorder, spool, id, error).await;
        }
        let (line, is_second) = stored?;
        if recorder.tombstones.cover(&record) {
            forget::late(recorder, self, spool, &line).await;
            return Ok(());
        }
        if let Some(took) = &self.took {
            took.observe(began.elapsed().as_secs_f64());
        }
        self.announce(recorder, &line, is_second);
        Ok(())
    }

    /// A file that is neither in the spool nor in the store: nothing brings it back, and others wait behind it.
    async fn give_up(
        &self,
        recorder: &Recorder,
        spool: &Arc<Spool>,
        id: u64,
        why: &LaneError,
    ) -> Result<(), LaneError> {
        let (flow, output) = &self.place;
        tracing::error!(%flow, %output, "{why}");
        recorder.totals.count(&self.place, |totals| totals.dropped += 1);
        recorder.emit(EventKind::SpoolDropped, &self.place, why.to_string());
        let spool = spool.clone();
        tokio::task::spawn_blocking(move || spool.remove(id)).await.map_err(|_| LaneError::Ended)??;
        Ok(())
    }

    /// Counts and announces a file that was stored. `is_second`: its first name was in use.
    fn announce(&self, recorder: &Recorder, line: &Line, is_second: bool) {
        recorder.totals.count(&self.place, |totals| totals.stored += 1);
        recorder.totals.stored.fetch_add(line.bytes, Ordering::Relaxed);
        let (flow, output) = &self.place;
        let start =
            SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(line.start).unwrap_or_default());
        let seconds = line.milliseconds as f64 / 1000.0;
        let url = format!("{}/{}", line.target, line.name);
        let taken = if is_second { "; its first name was in use" } else { "" };
        tracing::info!(%flow, %output, bytes = line.bytes, seconds, "stored {url}{taken}");
        let detail = serde_json::json!({
            "url": url, "start": clock::text(start), "durationSeconds": seconds, "bytes": line.bytes,
        });
        recorder.emit(EventKind::SegmentStored, &self.place, detail.to_string());
        recorder.changes.tick();
    }
}
