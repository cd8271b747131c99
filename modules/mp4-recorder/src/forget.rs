//! Deleting what was recorded: because it is too old (`retentionDays`), or because somebody asks for it
//! (`deleteRecordings`). What goes from a store is what this module put there, by its own account.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use av_edge::{EventKind, MethodReply};
use serde_json::{Value, json};

use crate::azure::Gone;
use crate::clip::LONGEST_PRE_ROLL;
use crate::clock::{self, Moment};
use crate::lane::{Lane, Wish};
use crate::methods::refused;
use crate::recorder::Recorder;
use crate::spool::{Held, Place, Record, Spool, Stage};
use crate::stored::{Account, Line};
use tombstones::Tombstone;

pub use tombstones::Tombstones;

mod tombstones;

const EXPECTED: &str = "expected {\"flow\": \"NAME\", \"from\": \"UTC\", \"to\": \"UTC\"}";
/// The answer waits so long; the work goes on.
const ANSWER: Duration = Duration::from_secs(20);

/// How far a deletion is.
#[derive(Debug, Default)]
struct Progress {
    permanent: AtomicU64,
    soft: AtomicU64,
    unknown: AtomicU64,
    failed: AtomicU64,
    why: Mutex<Option<String>>,
    /// A store said no: it will say so for a while.
    refused: AtomicBool,
    /// Stores that do not answer: each file of theirs would wait for nothing as long as the first.
    away: Mutex<BTreeSet<String>>,
}

impl Progress {
    fn gone(&self, gone: Gone) {
        let counter = match gone {
            Gone::Permanent => &self.permanent,
            Gone::Soft => &self.soft,
            Gone::Unknown => &self.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn away(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, why: &dyn std::fmt::Display) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.to_string());
    }

    fn body(&self, is_done: bool) -> Value {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (permanent, soft, unknown) = (get(&self.permanent), get(&self.soft), get(&self.unknown));
        let mut body = json!({
            "count": permanent + soft + unknown, "permanent": permanent, "soft": soft, "unknown": unknown,
        });
        let failed = get(&self.failed);
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(body) = body.as_object_mut() {
            if failed > 0 {
                body.insert("failed".into(), failed.into());
                body.insert("error".into(), why.into());
            }
            if !is_done {
                body.insert("unfinished".into(), true.into());
            }
        }
        body
    }
}

/// Answers `deleteRecordings`.
pub async fn delete_recordings(recorder: &Arc<Recorder>, payload: &Value) -> MethodReply {
    let Some((flow, from, to)) = payload_of(payload) else { return refused(400, EXPECTED) };
    let spool = match recorder.whole_spool() {
        Ok(spool) => spool,
        Err(why) => return refused(409, why),
    };
    let now = jiff::Timestamp::now().as_millisecond();
    let lanes: Vec<_> = recorder.lanes().into_iter().filter(|lane| lane.place().0 == flow).collect();
    // Also what a clock that was fast dated later than now.
    let stone = Tombstone { flow: flow.clone(), from, to, last: spool.next_id() };
    let (looked, keeper, at, is_there) = (spool.clone(), recorder.clone(), stone.clone(), !lanes.is_empty());
    let began = tokio::task::spawn_blocking(move || {
        let is_known = is_there
            || Account::new(looked.dir()).places().iter().any(|(known, _)| *known == at.flow)
            || looked.any(|held| held.record.flow == at.flow);
        // What nobody recorded needs no tombstone: a flow of that name that comes later is not meant.
        if is_known { keeper.tombstones.add(&looked, at).map(|()| true) } else { Ok(false) }
    });
    match began.await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => return refused(404, format!("no flow that records is named {flow:?}")),
        Ok(Err(error)) => return refused(500, format!("nothing was deleted: {error}")),
        Err(_) => return refused(500, "nothing was deleted"),
    }
    let pre_roll = i64::try_from(LONGEST_PRE_ROLL.as_millis()).unwrap_or(i64::MAX);
    let is_held = spool.any(|held| held.record.stage == Stage::Writing && stone.covers_record(&held.record));
    if is_held || to > now.saturating_sub(pre_roll) {
        for lane in &lanes {
            lane.wish(&Wish::Forget);
        }
    }
    let progress = Arc::new(Progress::default());
    let work = tokio::spawn(delete(recorder.clone(), spool, stone, progress.clone()));
    let is_done = tokio::time::timeout(ANSWER, work).await.is_ok();
    MethodReply { status: 200, body: progress.body(is_done) }
}

fn payload_of(payload: &Value) -> Option<(String, i64, i64)> {
    let map = payload.as_object()?;
    if map.keys().any(|key| !["flow", "from", "to"].contains(&key.as_str())) {
        return None;
    }
    let time = |key: &str| {
        let text = map.get(key)?.as_str()?;
        text.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond())
    };
    let (from, to) = (time("from")?, time("to")?);
    (from < to).then_some((map.get("flow")?.as_str()?.to_owned(), from, to))
}

async fn delete(recorder: Arc<Recorder>, spool: Arc<Spool>, stone: Tombstone, progress: Arc<Progress>) {
    let mut counts: BTreeMap<Place, u64> = BTreeMap::new();
    for held in spool.those(|held| stone.covers_record(&held.record)) {
        let place = (held.record.flow.clone(), held.record.output.clone());
        match from_spool(&recorder, &spool, held).await {
            Ok(gone) => {
                progress.gone(gone);
                *counts.entry(place).or_default() += 1;
            }
            Err(error) => progress.failed(&error),
        }
    }
    let _alone = recorder.burying.lock().await;
    from_accounts(&recorder, &spool, &stone, &progress, &mut counts).await;
    for (place, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        announce(&recorder, &place, &format!("deleted {count} recordings, as deleteRecordings requested"));
    }
}

/// Deletes what a tombstone covers from stores.
async fn from_accounts(
    recorder: &Arc<Recorder>,
    spool: &Arc<Spool>,
    stone: &Tombstone,
    progress: &Progress,
    counts: &mut BTreeMap<Place, u64>,
) {
    let account = Account::new(spool.dir());
    for place in places(&account).await.into_iter().filter(|(flow, _)| *flow == stone.flow) {
        let Some(lane) = recorder.lane(&place) else { continue };
        let is_meant = |line: &Line| stone.covers_line(&place, line);
        for day in days(&account, &place).await {
            let deleted = from_store(recorder, &lane, &day, &is_meant, progress).await;
            *counts.entry(place.clone()).or_default() += deleted;
        }
    }
}

/// Goes through the accounts again for what was to be deleted and is there still: a store did not let it go, it arrived late,
/// or the process ended before. A tombstone that covers nothing any more goes, too.
pub async fn bury(recorder: &Arc<Recorder>, spool: &Arc<Spool>) {
    for stone in recorder.tombstones.all() {
        let _alone = recorder.burying.lock().await;
        let (progress, mut counts) = (Progress::default(), BTreeMap::new());
        from_accounts(recorder, spool, &stone, &progress, &mut counts).await;
        for (place, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            announce(
                recorder,
                &place,
                &format!(
                    "deleted {count} recordings that deleteRecordings could not \
                 delete before"
                ),
            );
        }
        let failed = progress.failed.load(Ordering::Relaxed);
        if failed > 0 {
            tracing::warn!(flow = %stone.flow, files = failed, "recordings that should be deleted are still \
                 there: {}", progress.body(true));
            continue;
        }
        let (keeper, spool) = (recorder.clone(), spool.clone());
        let dropped =
            tokio::task::spawn_blocking(move || keeper.tombstones.drop_if_over(&spool, &stone)).await;
        if let Ok(Err(error)) = dropped {
            tracing::warn!("the tombstones can't be written: {error}");
        }
    }
}

/// Says what has gone.
pub fn announce(recorder: &Recorder, place: &Place, detail: &str) {
    tracing::info!(flow = %place.0, output = %place.1, "{detail}");
    recorder.emit(EventKind::RecordingsDeleted, place, detail.to_owned());
}

/// Takes one out of the spool. What somebody works on goes when that is done: its tombstone waits.
async fn from_spool(recorder: &Arc<Recorder>, spool: &Arc<Spool>, held: Held) -> io::Result<Gone> {
    let id = held.record.id;
    let is_under_way = |record: &Record| matches!(record.stage, Stage::Writing | Stage::Delivering);
    if is_under_way(&held.record) || !spool.set_busy(id, true) {
        return Ok(Gone::Unknown);
    }
    // It may have been on its way between the look and now.
    let Some(Held { record, .. }) = spool.get(id).filter(|held| !is_under_way(&held.record)) else {
        spool.set_busy(id, false);
        return Ok(Gone::Unknown);
    };
    if let Some(lane) = recorder.lane(&(record.flow.clone(), record.output.clone())) {
        lane.discard(recorder, &record).await;
    }
    let removing = spool.clone();
    let removed = tokio::task::spawn_blocking(move || removing.remove(id)).await.map_err(io::Error::other)?;
    spool.set_busy(id, false);
    removed.map(|()| Gone::Permanent)
}

/// Deletes the files of one day that are meant, and gives how many that were.
async fn from_store(
    recorder: &Arc<Recorder>,
    lane: &Arc<Lane>,
    day: &Path,
    is_meant: &(dyn Fn(&Line) -> bool + Send + Sync),
    progress: &Progress,
) -> u64 {
    let reading = day.to_owned();
    let lines = tokio::task::spawn_blocking(move || Account::read(&reading)).await;
    let lines = lines.ok().and_then(Result::ok).unwrap_or_default();
    let mut gone = Vec::new();
    for line in lines.into_iter().filter(|line| is_meant(line)) {
        if progress.away().contains(&line.target) {
            progress.failed(&format!("{} does not answer", line.target));
            continue;
        }
        match lane.delete(recorder, &line).await {
            Ok(how) => {
                progress.gone(how);
                gone.push((line.id, line.start));
            }
            Err(error) => {
                progress.failed(&format!("{}/{}: {error}", line.target, line.name));
                progress.refused.fetch_or(error.is_refused(), Ordering::Relaxed);
                if error.is_out_of_reach() {
                    progress.away().insert(line.target);
                }
            }
        }
    }
    let count = gone.len() as u64;
    if count > 0 {
        forget_lines(day.to_owned(), gone).await;
    }
    count
}

async fn places(account: &Account) -> Vec<Place> {
    let account = account.clone();
    tokio::task::spawn_blocking(move || account.places()).await.unwrap_or_default()
}

async fn days(account: &Account, place: &Place) -> Vec<PathBuf> {
    let (account, place) = (account.clone(), place.clone());
    tokio::task::spawn_blocking(move || account.days(&place)).await.unwrap_or_default()
}

/// What was stored before anybody knew what time it was gets its age.
async fn settle(day: PathBuf, now: Moment) {
    let shown = day.display().to_string();
    let settled = tokio::task::spawn_blocking(move || Account::settle(&day, now, &clock::boot_id())).await;
    if let Ok(Err(error)) = settled {
        tracing::warn!("{shown}: {error}");
    }
}

async fn forget_lines(day: PathBuf, gone: Vec<(u64, i64)>) {
    let shown = day.display().to_string();
    let forgotten = tokio::task::spawn_blocking(move || Account::forget(&day, &gone)).await;
    if let Ok(Err(error)) = forgotten {
        tracing::warn!("{shown}: {error}");
    }
}

/// A recording was stored after it was deleted: it goes again.
pub async fn late(recorder: &Arc<Recorder>, lane: &Arc<Lane>, spool: &Spool, line: &Line) {
    let account = Account::new(spool.dir());
    let progress = Progress::default();
    let day = account.day_of(lane.place(), line);
    let (id, start) = (line.id, line.start);
    let is_it = move |line: &Line| (line.id, line.start) == (id, start);
    if from_store(recorder, lane, &day, &is_it, &progress).await == 0 {
        tracing::warn!(
            "a deleted recording is still in its store; the deletion is tried again: {}",
            progress.body(true)
        );
    }
}

/// Deletes what is too old from stores; `now` is right. A file that can't be deleted stays in the account.
pub async fn expire(recorder: Arc<Recorder>, spool: Arc<Spool>, now: Moment) {
    let account = Account::new(spool.dir());
    for place in places(&account).await {
        let lanes = recorder.lanes();
        let known = lanes.into_iter().find(|lane| *lane.place() == place);
        let configured = known.as_ref().and_then(|lane| lane.configured());
        let retention = |line: &Line| match &configured {
            Some(now) => now.config.retention,
            None => (line.retention_days > 0)
                .then(|| Duration::from_secs(line.retention_days.saturating_mul(86_400))),
        };
        let is_old = |line: &Line| {
            let age = line.ages_from().and_then(|from| now.utc.duration_since(from).ok());
            retention(line).zip(age).is_some_and(|(kept, age)| age > kept)
        };
        let Some(lane) = known.or_else(|| recorder.lane(&place)) else { continue };
        if lane.refused_lately() {
            continue;
        }
        let (progress, mut deleted) = (Progress::default(), 0);
        for day in days(&account, &place).await {
            settle(day.clone(), now).await;
            deleted += from_store(&recorder, &lane, &day, &is_old, &progress).await;
        }
        lane.refused(progress.refused.load(Ordering::Relaxed));
        let failed = progress.failed.load(Ordering::Relaxed);
        lane.set_overdue(failed);
        if failed > 0 {
            let why = progress.why.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default();
            tracing::warn!(flow = %place.0, output = %place.1, files = failed, "files older than \
                 retentionDays can't be deleted: {why}");
        }
        if deleted > 0 {
            announce(
                &recorder,
                &place,
                &format!("deleted {deleted} files that were older than retentionDays"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_needs_a_flow_and_a_time_that_is_one() {
        let read = payload_of(
            &json!({ "flow": "cam", "from": "2026-01-02T00:00:00Z", "to": "2026-01-03T00:00:00Z" }),
        );
        assert_eq!(read.map(|(flow, from, to)| (flow, to - from)), Some(("cam".into(), 86_400_000)));
        for wrong in [
            json!({ "flow": "cam", "from": "2026-01-02T00:00:00Z" }),
            json!({ "flow": "cam", "from": "2026-01-03T00:00:00Z", "to": "2026-01-02T00:00:00Z" }),
            json!({ "from": "2026-01-02T00:00:00Z", "to": "2026-01-03T00:00:00Z" }),
            json!({ "flow": "cam", "from": "today", "to": "2026-01-03T00:00:00Z" }),
        ] {
            assert_eq!(payload_of(&wrong), None, "{wrong}");
        }
    }
}
