//! The way of finished files to their store, for one output: one after the other, as long as it takes.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use av_edge::EventKind;
use av_flow::Reason;
use av_flow::config::Content;
use av_flow::stream::{Reader, Tracks};
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts};
use rand::Rng;
use tokio::sync::{Notify, mpsc, watch};

use crate::azure::{BlobError, Blobs, Container, Described, Gone, Store};
use crate::clip::Asked;
use crate::clock::{self, Moment};
use crate::folder::{self, Stored};
use crate::forget;
use crate::name::{self, NameTemplate};
use crate::recorder::Recorder;
use crate::report::Report;
use crate::spool::{Place, Record, Spool, Stage};
use crate::store::{StoreConfig, Target};
use crate::stored::{Account, Line};

/// Between two tries, growing.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A place in a stream is kept so long for the output that follows.
const HANDOVER: Duration = Duration::from_secs(10);
/// After a start the document with the credentials comes a moment after the files.
const START: Duration = Duration::from_secs(10);
/// Events that are known by heart; those before are looked for on the disk.
const KNOWN_EVENTS: usize = 1000;
/// Names that are tried for one file.
const MOST_NAMES: u32 = 1000;

/// What an output is asked to do while it records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// End the file at the next sync frame.
    EndFile,
    /// Record a clip.
    Clip(Asked),
    /// What was recorded until now is deleted: end every file, and keep nothing for clips.
    Forget,
}

/// Something that records for an output.
struct Recording {
    wishes: mpsc::Sender<Wish>,
    /// What its files are called.
    template: NameTemplate,
}

/// Where an output left off in its stream: the one that follows it goes on there.
pub struct LeftOff {
    /// Which stream.
    pub stream: usize,
    /// What of it.
    pub content: Content,
    /// Has not given what comes next.
    pub reader: Reader,
    /// What the reader told last.
    pub tracks: Option<Arc<Tracks>>,
}

/// The lane of one output.
pub struct Lane {
    place: Place,
    notify: Notify,
    /// As configured now, names filled in; `None`: it is no longer.
    config: watch::Sender<Option<Configured>>,
    inner: Mutex<Inner>,
    blobs: Blobs,
    /// Blocks of one file are sent by one alone.
    pub(crate) staging: tokio::sync::Mutex<()>,
    /// How long storing each took.
    took: Option<Histogram>,
}

/// An output as it is configured now.
#[derive(Clone, Debug, PartialEq)]
pub struct Configured {
    /// The output.
    pub config: StoreConfig,
    /// Its `name`, everything but times and the instance filled in.
    pub template: NameTemplate,
}

#[derive(Default)]
struct Inner {
    reports: Vec<Weak<Report>>,
    trouble: Option<(Reason, String)>,
    recordings: Vec<Recording>,
    /// The names of clips that were asked for lately, by the event's id.
    events: VecDeque<(String, Vec<String>)>,
    /// Numbered, so that each is forgotten in its time.
    left_off: Vec<(u64, LeftOff)>,
    leaves: u64,
}

/// Why a file did not get to its store.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    #[error("{0}")]
    Folder(#[from] folder::FolderError),
    #[error("{0}")]
    Blob(#[from] BlobError),
    #[error("credentials: {0}")]
    Secret(String),
    #[error("the output is no longer configured, so there are no credentials for its store")]
    NoCredentials,
    #[error("the spool: {0}")]
    Spool(#[from] std::io::Error),
    #[error("the clock is not set, so files have no name yet; they wait in the spool")]
    Clock,
    #[error("the output is no longer configured and the recording's own account of its store is lost")]
    NoTarget,
    #[error("{MOST_NAMES} names like {0} are taken")]
    Names(String),
    #[error("{0} is gone: neither the spool nor the store has it")]
    Gone(String),
    #[error("its store is no longer configured")]
    OtherStore,
    #[error("the work on a file ended early")]
    Ended,
}

impl Lane {
    /// Puts a file into its store and into the account. `true`: it has another name than its first.
    async fn store_one(
        &self,
        recorder: &Arc<Recorder>,
        spool: &Arc<Spool>,
        mut record: Record,
    ) -> Result<(Line, bool), LaneError> {
        let configured = self.configured();
        let target = match &configured {
            Some(now) => now.config.target.clone(),
            None => Target::of_shown(&record.target).ok_or(LaneError::NoTarget)?,
        };
        let first = match &record.name {
            Some(name) => name.clone(),
            None => {
                record.set_start(start_of(&record)?);
                template(&record, configured.as_ref())?.at(record.start().unwrap_or(SystemTime::UNIX_EPOCH))
            }
        };
        record.stage = Stage::Delivering;
        record.target = target.shown();
        let (record, is_second) = match &target {
            Target::Folder(folder) => {
                let (root, spool) = (recorder.resolve(folder), spool.clone());
                let work = tokio::task::spawn_blocking(move || store_in_folder(&spool, &root, first, record));
                work.await.map_err(|_| LaneError::Ended)??
            }
            Target::Blobs(container) => {
                let config = configured.as_ref().map(|now| &now.config).ok_or(LaneError::NoCredentials)?;
                self.store_in_blob(recorder, spool, container, config, first, record).await?
            }
        };
        let retention = configured.and_then(|now| now.config.retention);
        let line = Line {
            id: record.id,
            target: record.target.clone(),
            name: record.name.clone().unwrap_or_default(),
            start: record.start.unwrap_or_default(),
            milliseconds: record.milliseconds,
            bytes: record.bytes,
            event: record.event.clone(),
            retention_days: retention.map_or(0, |kept| kept.as_secs() / 86_400),
        };
        let (spool, place, added) = (spool.clone(), self.place.clone(), line.clone());
        let work = tokio::task::spawn_blocking(move || {
            Account::new(spool.dir()).add(&place, &added)?;
            spool.remove(added.id)
        });
        work.await.map_err(|_| LaneError::Ended)??;
        Ok((line, is_second))
    }

    /// The container, with its credentials as they are now.
    pub(crate) async fn open(
        &self,
        recorder: &Recorder,
        container: &Container,
        config: &StoreConfig,
    ) -> Result<Arc<Store>, LaneError> {
        let credentials = config.credentials.as_ref().ok_or(LaneError::NoCredentials)?;
        let secret = recorder.secrets.get(credentials.secret()).await;
        let secret = secret.map_err(|error| LaneError::Secret(error.to_string()))?;
        Ok(self.blobs.store(&recorder.context, container, config, &secret).await?)
    }

    /// Deletes a file that this output stored.
    ///
    /// # Errors
    /// It may be there still.
    pub async fn delete(&self, recorder: &Recorder, line: &Line) -> Result<Gone, LaneError> {
        match Target::of_shown(&line.target).ok_or(LaneError::NoTarget)? {
            Target::Folder(folder) => {
                let path = recorder.resolve(&folder).join(&line.name);
                match tokio::fs::remove_file(path).await {
                    Ok(()) => Ok(Gone::Permanent),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Gone::Unknown),
                    Err(error) => Err(error.into()),
                }
            }
            Target::Blobs(container) => {
                let config = self.configured().ok_or(LaneError::NoCredentials)?.config;
                if config.target != Target::Blobs(container.clone()) {
                    return Err(LaneError::OtherStore);
                }
                let store = self.open(recorder, &container, &config).await?;
                Ok(store.delete(&line.name, line.bytes).await?)
            }
        }
    }

    /// Makes the store forget what it has of a recording that is not whole there.
    pub async fn discard(&self, recorder: &Recorder, record: &Record) {
        let (Some(_), Some(name), Some(now)) = (&record.upload, &record.name, self.configured()) else {
            return;
        };
        let Target::Blobs(container) = &now.config.target else { return };
        let discarded = match self.open(recorder, container, &now.config).await {
            Ok(store) => store.discard(name).await.map_err(LaneError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = discarded {
            tracing::warn!("blocks of {name}, which was deleted, wait in the store for a week: {error}");
        }
    }

    async fn store_in_blob(
        &self,
        recorder: &Arc<Recorder>,
        spool: &Arc<Spool>,
        container: &Container,
        config: &StoreConfig,
        first: String,
        mut record: Record,
    ) -> Result<(Record, bool), LaneError> {
        let credentials = config.credentials.as_ref().ok_or(LaneError::NoCredentials)?;
        let store = self.open(recorder, container, config).await?;
        let _alone = self.staging.lock().await;
        let mut number = 1;
        loop {
            let name = name::numbered(&first, number);
            if record.name.as_ref() != Some(&name) {
                // What was begun was begun under another name.
                record.upload = None;
            }
            record.name = Some(name.clone());
            let described =
                Described { name: &name, metadata: metadata(&recorder.context, &record), tags: &config.tags };
            match store.store(spool, &mut record, described).await {
                Ok(Stored::New | Stored::Already) => return Ok((record, number > 1)),
                Ok(Stored::NameTaken) if number < MOST_NAMES => number += 1,
                Ok(Stored::NameTaken) => return Err(LaneError::Names(first)),
                Ok(Stored::Gone) => return Err(LaneError::Gone(record.file_name())),
                Err(error) => {
                    if error.status() == Some(403) {
                        recorder.secrets.refused(credentials.secret());
                    }
                    return Err(error.into());
                }
            }
        }
    }
}

/// What a blob says of itself. Headers hold ASCII alone.
fn metadata(context: &av_edge::Context, record: &Record) -> HashMap<String, String> {
    let encoded =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::CONTROLS).to_string();
    let start = record.start().map(clock::text).unwrap_or_default();
    let seconds = Duration::from_millis(record.milliseconds).as_secs_f64();
    HashMap::from([
        ("device".to_owned(), encoded(&context.device)),
        ("module".to_owned(), encoded(&context.module)),
        ("flow".to_owned(), record.flow.clone()),
        ("output".to_owned(), record.output.clone()),
        ("start".to_owned(), start),
        ("duration".to_owned(), format!("{seconds:.3}")),
        ("codecs".to_owned(), record.codecs.join(",")),
    ])
}

impl LaneError {
    /// Whether the store could not be asked at all.
    pub fn is_out_of_reach(&self) -> bool {
        !matches!(self, Self::Folder(_) | Self::Spool(_) | Self::Blob(BlobError::Refused { .. }))
    }

    fn reason(&self) -> Reason {
        match self {
            Self::Folder(_) | Self::Spool(_) | Self::Names(_) => Reason::File,
            Self::Blob(error) => error.reason(),
            Self::Secret(_) | Self::NoCredentials => Reason::Secret,
            Self::Clock | Self::NoTarget | Self::OtherStore | Self::Gone(_) | Self::Ended => Reason::Internal,
        }
    }
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
            staging: tokio::sync::Mutex::default(),
            took: Histogram::with_opts(options).ok(),
        })
    }

    /// How long files took, as a metric family.
    pub fn took_family(&self) -> Option<MetricFamily> {
        self.took.as_ref().and_then(|took| took.collect().into_iter().next())
    }

    /// How old the oldest frame is that the disk was given and has not taken.
    pub fn lag(&self) -> Duration {
        let inner = self.inner();
        let reports = inner.reports.iter().filter_map(Weak::upgrade);
        reports.map(|report| report.lag()).max().unwrap_or_default()
    }

    /// Whose it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// As configured now.
    pub fn configured(&self) -> Option<Configured> {
        self.config.borrow().clone()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An output, or an instance of it, runs, and calls its files by `template`; what is given back are wishes for it.
    pub fn join(
        &self,
        configured: Configured,
        template: NameTemplate,
        report: &Arc<Report>,
    ) -> mpsc::Receiver<Wish> {
        let (sender, wishes) = mpsc::channel(16);
        let mut inner = self.inner();
        inner.reports.retain(|report| report.strong_count() > 0);
        inner.reports.push(Arc::downgrade(report));
        inner.recordings.retain(|recording| !recording.wishes.is_closed());
        inner.recordings.push(Recording { wishes: sender, template });
        if let Some((reason, why)) = &inner.trouble {
            report.storing(Some((*reason, why)));
        }
        drop(inner);
        self.config.send_if_modified(|config| {
            let is_news = config.as_ref() != Some(&configured);
            *config = Some(configured);
            is_news
        });
        wishes
    }

    /// Asks everything that records for this output. Returns how many there are.
    pub fn wish(&self, wish: &Wish) -> usize {
        let inner = self.inner();
        inner.recordings.iter().filter(|recording| recording.wishes.try_send(wish.clone()).is_ok()).count()
    }

    /// The names of the clips of an event, where it was asked for lately.
    pub fn clips_of(&self, id: &str) -> Option<Vec<String>> {
        self.inner().events.iter().find(|(known, _)| known == id).map(|(_, names)| names.clone())
    }

    /// Asks everything that records for this output for a clip, once for each id. Gives the names of the clips: none
    /// where nothing records.
    pub fn ask_for_clip(&self, asked: &Asked) -> Vec<String> {
        let mut inner = self.inner();
        if let Some((_, names)) = inner.events.iter().find(|(known, _)| *known == asked.id) {
            return names.clone();
        }
        let names: Vec<String> = inner
            .recordings
            .iter()
            .filter(|recording| recording.wishes.try_send(Wish::Clip(asked.clone())).is_ok())
            .map(|recording| asked.name(&recording.template))
            .collect();
        if !names.is_empty() {
            if inner.events.len() >= KNOWN_EVENTS {
                inner.events.pop_front();
            }
            inner.events.push_back((asked.id.clone(), names.clone()));
        }
        names
    }

    /// Waits until the output is configured with `uploadOpenSegment`.
    pub async fn until_open_segments_are_wanted(&self) {
        let wanted = |now: &Option<Configured>| now.as_ref().is_some_and(|now| now.config.upload_open);
        // The sender lives as long as this does.
        drop(self.config.subscribe().wait_for(wanted).await.map(drop));
    }

    /// Keeps a place in a stream for whoever follows, for a moment.
    pub fn leave_off(self: &Arc<Self>, left_off: LeftOff) {
        let mut inner = self.inner();
        inner.leaves += 1;
        let leave = inner.leaves;
        inner.left_off.retain(|(_, known)| known.stream != left_off.stream);
        inner.left_off.push((leave, left_off));
        drop(inner);
        let lane = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(HANDOVER).await;
            if let Some(lane) = lane.upgrade() {
                lane.inner().left_off.retain(|(kept, _)| *kept != leave);
            }
        });
    }

    /// Where the output before this one left off.
    pub fn go_on(&self, stream: usize, content: Content) -> Option<LeftOff> {
        let mut inner = self.inner();
        let at =
            inner.left_off.iter().position(|(_, left)| left.stream == stream && left.content == content)?;
        Some(inner.left_off.swap_remove(at).1)
    }

    /// There is something to do.
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
            tracing::warn!(flow = %self.place.0, output = %self.place.1, "files of an output that is gone: {why}");
        }
        inner.trouble = trouble.clone();
        drop(inner);
        for report in reports {
            report.storing(trouble.as_ref().map(|(reason, why)| (*reason, why.as_str())));
        }
    }

    /// Stores what there is to store, for ever.
    pub async fn run(self: Arc<Self>, recorder: Arc<Recorder>) {
        let mut opened = recorder.opened();
        let mut changed = self.config.subscribe();
        let Ok(spool) =
            opened.wait_for(|opened| matches!(opened, Some(Ok(_)))).await.map(|opened| opened.clone())
        else {
            return;
        };
        let Some(Ok(spool)) = spool else { return };
        let mut wait = FIRST_WAIT;
        let began = Instant::now();
        loop {
            let newest_first = self.configured().is_some_and(|now| now.config.newest_first);
            let Some(record) = spool.next_for(&self.place, newest_first) else {
                self.tell(None);
                tokio::select! {
                    () = self.notify.notified() => {}
                    _ = changed.changed() => {}
                }
                continue;
            };
            match self.store(&recorder, &spool, record).await {
                Ok(()) => {
                    wait = FIRST_WAIT;
                    self.tell(None);
                }
                Err(error) => {
                    if !matches!(error, LaneError::NoCredentials) || began.elapsed() > START {
                        self.tell(Some((error.reason(), error.to_string())));
                    }
                    tokio::select! {
                        // Shorter by up to a quarter: devices that lost one store do not come back in step.
                        () = tokio::time::sleep(wait.mul_f64(rand::rng().random_range(0.75..=1.0))) => wait = wait.saturating_mul(2).min(LONGEST_WAIT),
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
        if let Ok(start) = start_of(&record) {
            record.set_start(start);
        }
        // What may be in its store already has to be looked for there.
        if recorder.tombstones.cover(&record) && record.stage == Stage::Complete {
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
            // Nothing brings it back, and others wait behind it.
            let (flow, output) = &self.place;
            tracing::error!(%flow, %output, "{error}");
            recorder.totals.count(&self.place, |totals| totals.dropped += 1);
            recorder.emit(EventKind::SpoolDropped, &self.place, error.to_string());
            let spool = spool.clone();
            let work = tokio::task::spawn_blocking(move || spool.remove(id));
            work.await.map_err(|_| LaneError::Ended)??;
            return Ok(());
        }
        let (line, is_second) = stored?;
        if recorder.tombstones.cover(&record) {
            forget::late(recorder, self, spool, &line).await;
            return Ok(());
        }
        recorder.totals.count(&self.place, |totals| totals.stored += 1);
        recorder.totals.stored.fetch_add(line.bytes, Ordering::Relaxed);
        if let Some(took) = &self.took {
            took.observe(began.elapsed().as_secs_f64());
        }
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
        Ok(())
    }
}

/// Blocking. `true`: the file has another name than its first.
fn store_in_folder(
    spool: &Spool,
    root: &Path,
    first: String,
    mut record: Record,
) -> Result<(Record, bool), LaneError> {
    let mut number = 1;
    loop {
        let name = name::numbered(&first, number);
        // What is on its way is known before it is: the name of a file that arrived is never asked for twice.
        record.name = Some(name.clone());
        spool.update(record.clone())?;
        match folder::store(&spool.path(&record), root, &name)? {
            Stored::New | Stored::Already => return Ok((record, number > 1)),
            Stored::NameTaken if number < MOST_NAMES => number += 1,
            Stored::NameTaken => return Err(LaneError::Names(first)),
            Stored::Gone => return Err(LaneError::Gone(record.file_name())),
        }
    }
}

/// When its first frame was.
fn start_of(record: &Record) -> Result<SystemTime, LaneError> {
    if let Some(start) = record.start() {
        return Ok(start);
    }
    let now = Moment::now();
    if !now.is_believed() {
        return Err(LaneError::Clock);
    }
    if !record.boot.is_empty() && record.boot == clock::boot_id() {
        return Ok(now.utc_of(Duration::from_millis(record.since_boot)));
    }
    // The machine was started again before its clock was set: nobody knows. It was before now.
    Ok(now.utc)
}

/// What the files of a recording are called.
///
/// # Errors
/// Nobody knows any more.
pub fn template(record: &Record, configured: Option<&Configured>) -> Result<NameTemplate, LaneError> {
    if let Ok(template) = NameTemplate::parse(&record.template) {
        return Ok(template);
    }
    let template = configured.map(|now| now.template.clone()).ok_or(LaneError::NoTarget)?;
    Ok(record.instance.as_deref().map_or(template.clone(), |name| template.of_instance(name)))
}
