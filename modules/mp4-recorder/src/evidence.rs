//! `uploadOpenSegment`: what is being written goes to the store as it comes, so that theft or fire costs seconds and not
//! the whole file. At its close a file is stored as any other: what is there already is not sent again.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::azure::OTHER_BLOCKS;
use crate::belief::Told;
use crate::folder;
use crate::lane::{Lane, LaneError, next, start_of, template};
use crate::mounted;
use crate::name;
use crate::recorder::Recorder;
use crate::spool::{Held, Record, Spool};
use crate::store::{StoreConfig, Target};

/// With the second until it is durable, and the time that a block takes, less than five.
const EVERY: Duration = Duration::from_secs(2);
/// After a store refused.
const PAUSE: Duration = Duration::from_secs(10);
/// Names that are tried for one file.
const MOST_NAMES: usize = 20;

/// What this process knows of files that are being written.
#[derive(Debug, Default)]
struct Sent {
    /// Blocks that the store has, by recording.
    blocks: HashMap<u64, usize>,
    /// Left alone until they are whole.
    left: HashSet<u64>,
}

/// Sends what one output writes, for ever.
pub async fn run(lane: Arc<Lane>, recorder: Arc<Recorder>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = Sent::default();
    let mut told = false;
    loop {
        lane.until_open_segments_are_wanted().await;
        ticks.tick().await;
        let (Some(spool), Some(now)) = (recorder.spool(), lane.configured()) else { continue };
        let open: Vec<Held> = spool.open_of(lane.place()).into_iter().filter(|held| held.busy).collect();
        sent.blocks.retain(|id, _| open.iter().any(|held| held.record.id == *id));
        sent.left.retain(|id| open.iter().any(|held| held.record.id == *id));
        for held in open {
            if sent.left.contains(&held.record.id) {
                continue;
            }
            let done = match &now.config.target {
                Target::Folder(folder) => {
                    let root = recorder.resolve(folder);
                    append(&lane, &spool, &root, held, recorder.belief.now(), &mut sent).await
                }
                Target::Blobs(_) => stage(&lane, &recorder, &spool, &now.config, held, &mut sent).await,
            };
            if let Err(error) = &done {
                if !told {
                    let (flow, output) = lane.place();
                    tracing::warn!(%flow, %output, "the file that is being written can't be sent to the store \
                         yet: {error}");
                }
                tokio::time::sleep(PAUSE).await;
            }
            told = done.is_err();
        }
    }
}

/// Names under which a file that is being written may be stored, in the order of trying; `None`: the clock is not set.
/// One under which another recording is on its way is none of them: when that arrives, the store forgets these blocks.
fn names(lane: &Lane, spool: &Spool, record: &Record, told: Told) -> Option<Vec<String>> {
    let first = template(record, None).ok()?.at(start_of(record, told).ok()?);
    let number = lane.free_number(spool, &record.target, &first, record.id);
    let numbers = std::iter::successors(Some(number), |number| Some(next(*number)));
    let names = numbers.map(|number| name::numbered(&first, number));
    let is_free = |name: &String| !spool.has_named(&record.target, name, record.id);
    Some(names.take(MOST_NAMES).filter(is_free).collect())
}

async fn stage(
    lane: &Arc<Lane>,
    recorder: &Arc<Recorder>,
    spool: &Arc<Spool>,
    config: &StoreConfig,
    held: Held,
    sent: &mut Sent,
) -> Result<(), LaneError> {
    let Target::Blobs(container) = &config.target else { return Ok(()) };
    let store = lane.open(recorder, container, config).await?;
    let id = held.record.id;
    let (name, upload) = match (held.record.name.clone(), held.record.upload.clone()) {
        (Some(name), Some(upload)) => (name, upload),
        _ => {
            let Some(names) = names(lane, spool, &held.record, recorder.belief.now()) else {
                store.ask_the_time().await;
                return Ok(());
            };
            let upload = store.begin_open(&held.record.flow);
            let mut free = None;
            for name in names {
                if store.is_free(&name, &upload).await? {
                    free = Some(name);
                    break;
                }
            }
            let Some(name) = free else {
                sent.left.insert(id);
                return Ok(());
            };
            (name, upload)
        }
    };
    // From here on the file may be stored as a whole by somebody else.
    let staging = lane.staging(id);
    let _alone = staging.lock().await;
    let mut ends = upload.staged.clone();
    let path = spool.path(&held.record);
    let mut index = sent.blocks.get(&id).copied().unwrap_or(0);
    loop {
        // On a thin line events come first.
        if spool.sends_clip() {
            return Ok(());
        }
        let at = index.checked_sub(1).and_then(|last| ends.get(last)).copied().unwrap_or(0);
        let end = match ends.get(index) {
            Some(end) => *end,
            None => held.bytes.min(at.saturating_add(store.most_open())),
        };
        if end <= at {
            return Ok(());
        }
        if index >= ends.len() {
            ends.push(end);
        }
        // Written down before it is sent: what the store may have is known after a crash.
        let (amending, noted, named) = (spool.clone(), upload.clone(), name.clone());
        let staged = ends.clone();
        let is_open = tokio::task::spawn_blocking(move || {
            amending.amend(id, |record| {
                record.name = Some(named);
                record.upload = Some(crate::azure::Upload { staged, ..noted });
            })
        });
        if !is_open.await.map_err(|_| LaneError::Ended)?? {
            return Ok(());
        }
        match store.stage_open(&name, &path, &upload, at, end - at).await {
            Err(error) if error.code() == Some(OTHER_BLOCKS) => {
                sent.left.insert(id);
                return Ok(());
            }
            staged => staged?,
        }
        index += 1;
        sent.blocks.insert(id, index);
    }
}

/// Appends to the partial file beside the one that it will be, where that is another disk.
async fn append(
    lane: &Arc<Lane>,
    spool: &Arc<Spool>,
    root: &std::path::Path,
    held: Held,
    told: Told,
    sent: &mut Sent,
) -> Result<(), LaneError> {
    let id = held.record.id;
    let (lane, spool, root) = (lane.clone(), spool.clone(), root.to_owned());
    // From here on the file may be stored as a whole by somebody else.
    let alone = lane.staging(id).lock_owned().await;
    let work = tokio::task::spawn_blocking(move || {
        let _alone = alone;
        if !spool.open_of(lane.place()).iter().any(|held| held.record.id == id) {
            return Ok(true);
        }
        mounted::check(spool.dir(), &root)?;
        // It is as safe there as in the spool.
        if std::fs::metadata(&root)?.dev() == std::fs::metadata(spool.dir())?.dev() {
            return Ok(false);
        }
        let name = match &held.record.name {
            Some(name) => name.clone(),
            None => {
                let Some(names) = names(&lane, &spool, &held.record, told) else { return Ok(true) };
                let Some(name) = names.into_iter().find(|name| !root.join(name).exists()) else {
                    return Ok(false);
                };
                let named = name.clone();
                if !spool.amend(id, |record| record.name = Some(named))? {
                    return Ok(true);
                }
                name
            }
        };
        folder::append(&spool.path(&held.record), &root, &name, &held.record.part(), held.bytes)?;
        Ok::<_, LaneError>(true)
    });
    if !work.await.map_err(|_| LaneError::Ended)?? {
        sent.left.insert(id);
    }
    Ok(())
}
