//! One file on its way to the store.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Configured, Lane, LaneError, MOST_NUMBER, ONE_BY_ONE};
use crate::azure::{Container, Described, Store};
use crate::clock::{self, Moment};
use crate::folder::{self, Stored};
use crate::mounted;
use crate::name::{self, NameTemplate};
use crate::recorder::Recorder;
use crate::spool::{Record, Spool, Stage};
use crate::store::{StoreConfig, Target};
use crate::stored::{Account, Line};

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
        let (first, number) = match &record.name {
            Some(name) => (name.clone(), 1),
            None => {
                record.set_start(start_of(&record)?);
                let start = record.start().unwrap_or(SystemTime::UNIX_EPOCH);
                let name = template(&record, configured.as_ref())?.at(start);
                let number = self.number_behind(&name);
                (name, number)
            }
        };
        record.stage = Stage::Delivering;
        record.target = target.shown();
        let name = first.clone();
        let (record, number) = match &target {
            Target::Folder(folder) => {
                let (root, spool) = (recorder.resolve(folder), spool.clone());
                let work = tokio::task::spawn_blocking(move || {
                    store_in_folder(&spool, &root, first, number, record)
                });
                work.await.map_err(|_| LaneError::Ended)??
            }
            Target::Blobs(container) => {
                let config = configured.as_ref().map(|now| &now.config).ok_or(LaneError::NoCredentials)?;
                self.store_in_blob(recorder, spool, container, config, (first, number), record).await?
            }
        };
        if number > 1 {
            self.inner().numbered = Some((name, number));
        }
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
        Ok((line, number > 1))
    }

    /// The number to try first for a name: one that was numbered before is not free now.
    fn number_behind(&self, name: &str) -> u32 {
        match &self.inner().numbered {
            Some((last, number)) if last == name => number.saturating_add(1),
            _ => 1,
        }
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
        let store = self.blobs.store(&recorder.context, container, config, secret.as_ref()).await?;
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

/// The number behind one that is taken. A name that thousands of files have takes a few looks for the next one, not thousands.
const fn next(number: u32) -> u32 {
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
    loop {
        let name = name::numbered(&first, number);
        // The name is durable before the file moves: after a crash the file is looked for under it.
        record.name = Some(name.clone());
        spool.update(record.clone())?;
        match folder::store(&spool.path(&record), root, &name)? {
            Stored::New | Stored::Already => return Ok((record, number)),
            Stored::NameTaken if number < MOST_NUMBER => number = next(number),
            Stored::NameTaken => return Err(LaneError::Names(first)),
            Stored::Gone => return Err(LaneError::Gone(record.file_name())),
        }
    }
}

/// When its first frame was.
pub(super) fn start_of(record: &Record) -> Result<SystemTime, LaneError> {
    let now = Moment::now();
    let is_of_this_run = || !record.boot.is_empty() && record.boot == clock::boot_id();
    if let Some(start) = record.start() {
        // A clock that was set since was wrong then: a board without a battery starts at its last shutdown.
        let by_now = now.utc_of(Duration::from_millis(record.since_boot));
        let step = by_now.duration_since(start).unwrap_or_else(|early| early.duration());
        let was_set = record.name.is_none() && step > STEP && now.is_believed() && is_of_this_run();
        return Ok(if was_set { by_now } else { start });
    }
    if !now.is_believed() {
        return Err(LaneError::Clock);
    }
    if is_of_this_run() {
        return Ok(now.utc_of(Duration::from_millis(record.since_boot)));
    }
    // The machine was started again before its clock was set, so nothing tells when it was, but before now.
    Ok(now.utc)
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

    #[test]
    fn a_name_that_many_files_have_takes_few_tries() {
        let tries = std::iter::successors(Some(1), |number| {
            Some(next(*number)).filter(|number| *number < MOST_NUMBER)
        });
        assert_eq!(tries.clone().take(17).collect::<Vec<_>>()[13..], [14, 15, 16, 32]);
        assert!(tries.count() < 45);
    }
}
