//! One file on its way to the store.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Lane, LaneError, MOST_NUMBER, ONE_BY_ONE};
use crate::azure::{Container, Described, Store};
use crate::belief::Told;
use crate::clock;
use crate::folder::{self, Stored};
use crate::mounted;
use crate::name::{self, NameTemplate};
use crate::recorder::Recorder;
use crate::spool::{Record, Spool, Stage};
use crate::store::{Configured, StoreConfig, Target};
use crate::stored::{Account, Line, Unsure};

/// A clock that differs by so much from what it was has been set.
const STEP: Duration = Duration::from_secs(60);

impl Lane {
    /// Puts a file into its store and into the account. `true`: its first name was in use.
    pub(super) async fn store_one(
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
        if record.target != target.shown() {
            if record.stage == Stage::Delivering && self.has_arrived(recorder, spool, &record).await? {
                return Ok((self.enter(recorder, spool, record).await?, false));
            }
            // What its store before has of it would be found there later, and be recovered beside the file. That is tried
            // once: a store that is away holds up no file that goes elsewhere.
            self.discard(recorder, &record).await;
            record.upload = None;
            record.target = target.shown();
            spool.update(record.clone())?;
        }
        let (first, number) = match &record.name {
            Some(name) => first_of(&record, name, configured.as_ref()),
            None => {
                if !recorder.belief.now().is_sure {
                    self.ask_the_time(recorder).await;
                }
                record.set_start(start_of(&record, recorder.belief.now())?);
                let start = record.start().unwrap_or(SystemTime::UNIX_EPOCH);
                let name = template(&record, configured.as_ref())?.at(start);
                let number = self.free_number(spool, &target.shown(), &name, record.id);
                (name, number)
            }
        };
        record.stage = Stage::Delivering;
        record.target = target.shown();
        let name = first.clone();
        let (record, number) = match &target {
            Target::Folder(folder) => {
                let (root, spool) = (recorder.resolve(folder), spool.clone());
                // Who still sends what was being written makes no partial file behind this.
                let alone = self.staging(record.id).lock_owned().await;
                let work = tokio::task::spawn_blocking(move || {
                    let _alone = alone;
                    store_in_folder(&spool, &root, first, number, record)
                });
                work.await.map_err(|_| LaneError::Ended)??
            }
            Target::Blobs(container) => {
                let config = match &configured {
                    Some(now) => now.config.clone(),
                    None => without_tags(recorder.opens(self, container).ok_or(LaneError::NoCredentials)?),
                };
                self.store_in_blob(recorder, spool, container, &config, (first, number), record).await?
            }
        };
        if number > 1 {
            self.inner().numbered = Some((name, number));
        }
        Ok((self.enter(recorder, spool, record).await?, number > 1))
    }

    /// Enters a file that its store has into the account, and takes it out of the spool.
    async fn enter(
        &self,
        recorder: &Recorder,
        spool: &Arc<Spool>,
        record: Record,
    ) -> Result<Line, LaneError> {
        let retention = self.configured().and_then(|now| now.config.retention);
        let (aged, unsure) = age_of(&record, recorder.belief.now());
        let line = Line {
            id: record.id,
            target: record.target.clone(),
            name: record.name.clone().unwrap_or_default(),
            start: record.start.unwrap_or_default(),
            milliseconds: record.milliseconds,
            bytes: record.bytes,
            event: record.event.clone(),
            aged,
            unsure,
            retention_days: retention.map_or(0, |kept| kept.as_secs() / 86_400),
        };
        let (spool, place, added) = (spool.clone(), self.place.clone(), line.clone());
        let work = tokio::task::spawn_blocking(move || {
            Account::new(spool.dir()).add(&place, &added)?;
            spool.stored(added.id)
        });
        work.await.map_err(|_| LaneError::Ended)??;
        Ok(line)
    }

    /// Whether a recording that was on its way when `store` was changed has arrived where it was to go then.
    async fn has_arrived(
        &self,
        recorder: &Recorder,
        spool: &Arc<Spool>,
        record: &Record,
    ) -> Result<bool, LaneError> {
        let Some(name) = record.name.clone() else { return Ok(false) };
        let path = spool.path(record);
        match Target::of_shown(&record.target) {
            Some(Target::Folder(folder)) => {
                let (root, spool) = (recorder.resolve(&folder), spool.clone());
                let work = tokio::task::spawn_blocking(move || {
                    let is_held = path.try_exists()?;
                    // It is there or nowhere: one has to be able to look.
                    if !is_held {
                        mounted::check(spool.dir(), &root)?;
                    }
                    Ok::<_, LaneError>(folder::has(&path, &root, &name)?)
                });
                work.await.map_err(|_| LaneError::Ended)?
            }
            Some(Target::Blobs(container)) => {
                let Some(upload) = &record.upload else { return Ok(false) };
                // Without credentials nobody can look: rather twice than never.
                let Some(config) = recorder.opens(self, &container) else { return Ok(false) };
                let store = self.open(recorder, &container, &config).await?;
                Ok(store.has(&name, upload, record.bytes).await?)
            }
            None => Ok(false),
        }
    }

    /// Asks the store what time it is, where one can believe it.
    pub async fn ask_the_time(&self, recorder: &Recorder) {
        let Some(now) = self.configured() else { return };
        if let Target::Blobs(container) = &now.config.target
            && container.service.starts_with("https://")
            && let Ok(store) = self.open(recorder, container, &now.config).await
        {
            store.ask_the_time().await;
        }
    }

    /// The number to try first for a name: one that was numbered before is not free now, nor is one under which another
    /// recording of the spool is on its way.
    pub(crate) fn free_number(&self, spool: &Spool, target: &str, name: &str, id: u64) -> u32 {
        let mut number = match &self.inner().numbered {
            Some((last, number)) if last == name => number.saturating_add(1),
            _ => 1,
        };
        while number < MOST_NUMBER && spool.has_named(target, &name::numbered(name, number), id) {
            number = next(number);
        }
        number
    }

    /// The container, with its credentials as they are now.
    pub(crate) async fn open(
        &self,
        recorder: &Recorder,
        container: &Container,
        config: &StoreConfig,
    ) -> Result<Arc<Store>, LaneError> {
        let credentials = config.credentials.as_ref().ok_or(LaneError::NoCredentials)?;
        let secret = match credentials.secret() {
            None => None,
            Some(secret) => {
                let read = recorder.secrets.get(secret).await;
                Some(read.map_err(|error| LaneError::Secret(error.to_string()))?)
            }
        };
        let store =
            self.blobs.store(&recorder.context, &recorder.belief, container, config, secret.as_ref()).await?;
        store.share(recorder.lanes().len());
        Ok(store)
    }

    async fn store_in_blob(
        &self,
        recorder: &Arc<Recorder>,
        spool: &Arc<Spool>,
        container: &Container,
        config: &StoreConfig,
        (first, mut number): (String, u32),
        mut record: Record,
    ) -> Result<(Record, u32), LaneError> {
        let credentials = config.credentials.as_ref().ok_or(LaneError::NoCredentials)?;
        let store = self.open(recorder, container, config).await?;
        let staging = self.staging(record.id);
        let _alone = staging.lock().await;
        // Of the whole file, which is the same under any name.
        let mut md5 = None;
        loop {
            let name = name::numbered(&first, number);
            if record.name.as_ref() != Some(&name) {
                // The upload that was begun has another name.
                md5 = record.upload.take().map(|upload| upload.md5).filter(|md5| !md5.is_empty()).or(md5);
            }
            record.name = Some(name.clone());
            let described = Described {
                name: &name,
                metadata: metadata(&recorder.context, &record),
                tags: &config.tags,
                md5: md5.clone(),
            };
            match store.store(spool, &mut record, described).await {
                Ok(Stored::New | Stored::Already) => {
                    tokio::spawn(async move { store.look_as_a_player(&name).await });
                    return Ok((record, number));
                }
                Ok(Stored::NameTaken) if number < MOST_NUMBER => number = next(number),
                Ok(Stored::NameTaken) => return Err(LaneError::Names(first)),
                Ok(Stored::Gone) => return Err(LaneError::Gone(record.file_name())),
                Err(error) => {
                    if error.status() == Some(403)
                        && let Some(secret) = credentials.secret()
                    {
                        recorder.secrets.refused(secret);
                    }
                    return Err(error.into());
                }
            }
        }
    }
}

/// Of another output: its tags are its own.
fn without_tags(config: StoreConfig) -> StoreConfig {
    StoreConfig { tags: BTreeMap::new(), ..config }
}

/// A name as it is without its number, and that number.
fn first_of(record: &Record, name: &str, configured: Option<&Configured>) -> (String, u32) {
    let first =
        template(record, configured).ok().zip(record.start()).map(|(template, start)| template.at(start));
    let numbered = first.and_then(|first| Some((name::number_of(&first, name)?, first)));
    numbered.map_or_else(|| (name.to_owned(), 1), |(number, first)| (first, number))
}

/// The number behind one that is taken. A name that thousands of files have takes a few looks for the next one, not thousands.
pub(crate) const fn next(number: u32) -> u32 {
    if number < ONE_BY_ONE { number + 1 } else { number.saturating_mul(2) }
}

/// Blocking. Gives the number that its name got.
fn store_in_folder(
    spool: &Spool,
    root: &Path,
    first: String,
    mut number: u32,
    mut record: Record,
) -> Result<(Record, u32), LaneError> {
    mounted::check(spool.dir(), root)?;
    let part = record.part();
    loop {
        let name = name::numbered(&first, number);
        // The name is durable before the file moves: after a crash the file is looked for under it.
        record.name = Some(name.clone());
        spool.update(record.clone())?;
        match folder::store(&spool.path(&record), root, &name, &part)? {
            Stored::New | Stored::Already => return Ok((record, number)),
            Stored::NameTaken if number < MOST_NUMBER => {
                number = next(number);
                folder::call(root, &name, &name::numbered(&first, number), &part)?;
            }
            Stored::NameTaken => return Err(LaneError::Names(first)),
            Stored::Gone => return Err(LaneError::Gone(record.file_name())),
        }
    }
}

/// When its first frame was.
///
/// # Errors
/// Its file has no name yet, and nobody knows what time it is.
pub fn start_of(record: &Record, told: Told) -> Result<SystemTime, LaneError> {
    let now = told.now;
    let by_now = is_of_this_run(record).then(|| now.utc_of(Duration::from_millis(record.since_boot)));
    match (record.start(), by_now) {
        // Its name is chosen, or somebody knew what time it was.
        (Some(start), _) if record.name.is_some() || !record.unsure => Ok(start),
        (Some(start), None) => Ok(start),
        _ if !told.names => Err(LaneError::Clock),
        // A clock that was set since was wrong then: a board without a battery starts at its last shutdown.
        (Some(start), Some(by_now)) => Ok(if differs(start, by_now) { by_now } else { start }),
        (None, Some(by_now)) => Ok(by_now),
        // The machine was started again before its clock was set, so nothing tells when it was, but before now.
        (None, None) => Ok(now.utc),
    }
}

fn is_of_this_run(record: &Record) -> bool {
    !record.boot.is_empty() && record.boot == clock::boot_id()
}

fn differs(one: SystemTime, other: SystemTime) -> bool {
    other.duration_since(one).unwrap_or_else(|early| early.duration()) > STEP
}

/// From when on the age of a file counts that is stored now, where that is not its end by its name, and what is kept
/// where nobody knows yet.
fn age_of(record: &Record, told: Told) -> (Option<i64>, Option<Unsure>) {
    if !record.unsure {
        return (None, None);
    }
    let since_boot = record.since_boot.saturating_add(record.milliseconds);
    let unsure = Unsure { boot: record.boot.clone(), since_boot };
    if told.is_sure { (Some(unsure.at(told.now, &clock::boot_id())), None) } else { (None, Some(unsure)) }
}

/// The name template of a recording.
///
/// # Errors
/// The record is lost, and the output is not configured any more.
pub fn template(record: &Record, configured: Option<&Configured>) -> Result<NameTemplate, LaneError> {
    if let Ok(template) = NameTemplate::parse(&record.template) {
        return Ok(template);
    }
    let template = configured.map(|now| now.template.clone()).ok_or(LaneError::NoTarget)?;
    Ok(record.instance.as_deref().map_or(template.clone(), |name| template.of_instance(name)))
}

/// The metadata of a blob. Headers hold ASCII alone.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;

    const HOUR: Duration = Duration::from_secs(3600);

    fn told(utc: SystemTime, since_boot: Duration, is_sure: bool, names: bool) -> Told {
        Told { now: Moment { utc, since_boot }, is_sure, names, ages: is_sure }
    }

    /// Of a recording that began an hour after the start of the machine, by a clock that was two months late.
    fn late() -> (Record, SystemTime) {
        let mut record = Record::of_file_name("000000000001.cam.disk.mp4").unwrap();
        record.boot = clock::boot_id();
        record.since_boot = 3_600_000;
        record.milliseconds = 60_000;
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        record.set_start(start);
        (record, start)
    }

    #[test]
    fn a_file_waits_for_its_name_until_the_clock_names_files_and_gets_the_right_one() {
        let (mut record, start) = late();
        let right = start + 60 * 24 * HOUR;
        assert!(matches!(
            start_of(&record, told(start + HOUR, 2 * HOUR, false, false)),
            Err(LaneError::Clock)
        ));
        // Nobody has said anything for long: the clock may be right.
        assert_eq!(start_of(&record, told(start + HOUR, 2 * HOUR, false, true)).unwrap(), start);
        assert_eq!(start_of(&record, told(right + HOUR, 2 * HOUR, true, true)).unwrap(), right);
        // It has its name, or its clock was right.
        let named = Record { name: Some("a.mp4".into()), ..record.clone() };
        assert_eq!(start_of(&named, told(right + HOUR, 2 * HOUR, true, true)).unwrap(), start);
        record.unsure = false;
        assert_eq!(start_of(&record, told(right + HOUR, 2 * HOUR, true, true)).unwrap(), start);
    }

    #[test]
    fn the_age_of_what_was_recorded_by_a_late_clock_does_not_count_from_its_name() {
        let (mut record, start) = late();
        let right = start + 60 * 24 * HOUR;
        let millis = |time: SystemTime| {
            i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap()
        };
        let ended = Duration::from_secs(60);
        let (aged, unsure) = age_of(&record, told(start + HOUR, 2 * HOUR, false, true));
        assert_eq!((aged, unsure.unwrap().since_boot), (None, 3_660_000));
        assert_eq!(
            age_of(&record, told(right + HOUR, 2 * HOUR, true, true)),
            (Some(millis(right + ended)), None)
        );
        // Of a run that is over.
        record.boot = "other".into();
        let now = right + HOUR;
        assert_eq!(age_of(&record, told(now, 2 * HOUR, true, true)), (Some(millis(now)), None));
        record.unsure = false;
        assert_eq!(age_of(&record, told(now, 2 * HOUR, true, true)), (None, None));
    }

    #[test]
    fn a_name_that_many_files_have_takes_few_tries() {
        let tries = std::iter::successors(Some(1), |number| {
            Some(next(*number)).filter(|number| *number < MOST_NUMBER)
        });
        assert_eq!(tries.clone().take(17).collect::<Vec<_>>()[13..], [14, 15, 16, 32]);
        assert!(tries.count() < 45);
    }
}
