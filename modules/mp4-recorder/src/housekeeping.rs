//! What the spool's own thread does: repairs what a dead process left, and deletes what is too old.

use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use av_edge::EventKind;

use crate::clock::Moment;
use crate::recorder::Recorder;
use crate::segment::{self, RepairError};
use crate::spool::{Record, Spool, Stage};
use crate::store::Target;
use crate::stored::{Account, Line};

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(30);
/// Rounds from one look at what is too old to the next.
const RETENTION_EVERY: u32 = 20;
/// A step of the clock that is believed to be a mistake, or the mending of one.
const STEP: Duration = Duration::from_secs(3600);
/// After such a step nothing is deleted by its age for so long.
const PATIENCE: Duration = Duration::from_secs(86_400);

/// Repairs what was being written when the last process ended.
pub fn begin(recorder: &Arc<Recorder>, spool: &Arc<Spool>) {
    for held in spool.broken() {
        repair(recorder, spool, held.record.id, None);
    }
    wake_all(recorder, spool);
}

fn wake_all(recorder: &Arc<Recorder>, spool: &Spool) {
    spool.places().iter().for_each(|place| recorder.wake(place));
}

/// Gives a file that was cut off its index. `durable`: what is behind that is not to be trusted.
pub fn repair(recorder: &Recorder, spool: &Spool, id: u64, durable: Option<u64>) {
    let Some(held) = spool.get(id) else { return };
    let path = spool.path(&held.record);
    let place = held.place();
    let done = match segment::repair(&path, durable) {
        Ok(repaired) => {
            tracing::info!(flow = %place.0, output = %place.1, bytes = repaired.bytes, "repaired {}", path.display());
            let milliseconds = u64::try_from(repaired.duration.as_millis()).unwrap_or(u64::MAX);
            let mut record =
                Record { stage: Stage::Complete, bytes: repaired.bytes, milliseconds, ..held.record.clone() };
            if record.template.is_empty() && record.start.is_none() {
                // Its record was lost: the file's own time says when it ended.
                let ended = std::fs::metadata(&path).and_then(|file| file.modified());
                let began = ended.ok().and_then(|ended| ended.checked_sub(repaired.duration));
                record.set_start(began.unwrap_or(SystemTime::UNIX_EPOCH));
            }
            spool.update(record).inspect(|()| spool.set_broken(id, false))
        }
        Err(RepairError::Nothing) => {
            tracing::info!(flow = %place.0, output = %place.1, "no frame had reached the disk in {}", path.display());
            spool.remove(id)
        }
        Err(RepairError::Io(error)) => Err(error),
        Err(RepairError::Beyond(why)) => {
            tracing::error!(flow = %place.0, output = %place.1, "{} can't be repaired and is kept in quarantine: {why}", path.display());
            let detail = format!("a recording can't be repaired and is in quarantine: {why}");
            recorder.emit(EventKind::SpoolDropped, &place, detail);
            spool.quarantine(id)
        }
    };
    match done {
        Ok(()) => recorder.wake(&place),
        // Tried again in the next round.
        Err(error) => tracing::warn!("{}: {error}", path.display()),
    }
}

/// Keeps house for ever.
pub fn keep(keeper: &Weak<Recorder>, spool: &Arc<Spool>) {
    let mut trust = Trust::default();
    let mut nearly_full = false;
    for round in 0_u32.. {
        std::thread::sleep(if round == 0 { Duration::from_secs(1) } else { ROUND });
        let Some(recorder) = keeper.upgrade() else { return };
        for held in spool.broken() {
            repair(&recorder, spool, held.record.id, None);
        }
        wake_all(&recorder, spool);
        spool.restore_ballast();
        let full = spool.is_nearly_full();
        if full && !nearly_full {
            let detail = format!("the spool holds {} MB, nine tenths of what it may", spool.bytes() >> 20);
            tracing::warn!("{detail}");
            recorder.context.events.emit(av_edge::Event {
                kind: EventKind::SpoolNearlyFull,
                flow: None,
                output: None,
                detail,
            });
        }
        nearly_full = full;
        let is_trusted = trust.look(Moment::now());
        if is_trusted && round % RETENTION_EVERY == 0 {
            expire(&recorder, &Account::new(spool.dir()), SystemTime::now());
        }
    }
}

/// Whether ages can be told.
#[derive(Debug, Default)]
struct Trust {
    last: Option<Moment>,
    /// Since boot.
    not_before: Duration,
}

impl Trust {
    fn look(&mut self, now: Moment) -> bool {
        if let Some(last) = self.last.replace(now) {
            let passed = now.since_boot.saturating_sub(last.since_boot);
            let expected = last.utc + passed;
            let step = now.utc.duration_since(expected).unwrap_or_else(|early| early.duration());
            if step > STEP {
                tracing::warn!(
                    seconds = step.as_secs(),
                    "the clock was set: nothing is deleted by its age for a day"
                );
                self.not_before = now.since_boot.saturating_add(PATIENCE);
            }
        }
        now.is_believed() && now.since_boot >= self.not_before
    }
}

/// Deletes what is too old from stores, by the account alone. A file that can't be deleted stays in it.
fn expire(recorder: &Recorder, account: &Account, now: SystemTime) {
    for place in account.places() {
        let configured = recorder.lanes().into_iter().find(|lane| *lane.place() == place);
        let configured = configured.and_then(|lane| lane.configured());
        for day in account.days(&place) {
            let Ok(lines) = Account::read(&day) else { continue };
            let retention = |line: &Line| match &configured {
                Some(now) => now.config.retention,
                None => (line.retention_days > 0)
                    .then(|| Duration::from_secs(line.retention_days.saturating_mul(86_400))),
            };
            let is_old = |line: &Line| {
                retention(line).is_some_and(|kept| now.duration_since(line.end()).is_ok_and(|age| age > kept))
            };
            let (old, mut kept): (Vec<_>, Vec<_>) = lines.into_iter().partition(is_old);
            if old.is_empty() {
                continue;
            }
            let mut deleted = 0;
            for line in old {
                match delete(recorder, &line) {
                    Ok(()) => deleted += 1,
                    Err(error) => {
                        tracing::warn!("{}/{} is overdue: {error}", line.target, line.name);
                        kept.push(line);
                    }
                }
            }
            if let Err(error) = Account::replace(&day, &kept) {
                tracing::warn!("{}: {error}", day.display());
            }
            if deleted > 0 {
                let detail = format!("deleted {deleted} files that were older than retentionDays");
                tracing::info!(flow = %place.0, output = %place.1, "{detail}");
                recorder.emit(EventKind::RecordingsDeleted, &place, detail);
            }
        }
    }
}

fn delete(recorder: &Recorder, line: &Line) -> io::Result<()> {
    let Some(Target::Folder(folder)) = Target::of_shown(&line.target) else {
        return Err(io::Error::other("its store is unknown"));
    };
    match std::fs::remove_file(recorder.resolve(&folder).join(&line.name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_step_of_the_clock_nothing_is_old_for_a_day() {
        let mut trust = Trust::default();
        let at = |utc: u64, since_boot: u64| Moment {
            utc: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + utc),
            since_boot: Duration::from_secs(since_boot),
        };
        assert!(trust.look(at(0, 100)));
        assert!(trust.look(at(30, 130)));
        assert!(!trust.look(at(30 + 7200, 160)));
        assert!(!trust.look(at(30 + 7200 + 80_000, 80_160)));
        assert!(trust.look(at(30 + 7200 + 90_000, 90_160)));
        // Back.
        assert!(!trust.look(at(0, 90_190)));
    }
}
