//! What the spool's own thread does: repairs what a dead process left, and looks after what is too old.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use av_edge::EventKind;

use crate::clock::Moment;
use crate::recorder::Recorder;
use crate::segment::{self, RepairError};
use crate::spool::{Record, Spool, Stage};
use crate::{expiry, forget};

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
        repair(recorder, spool, held.record.id, held.durable);
    }
    wake_all(recorder, spool);
}

/// Something may be ready for stores.
pub fn wake_all(recorder: &Arc<Recorder>, spool: &Spool) {
    spool.places().iter().for_each(|place| recorder.wake(place));
}

/// Gives a file that was cut off its index. `durable`: what is behind that is not to be trusted.
pub fn repair(recorder: &Recorder, spool: &Spool, id: u64, durable: Option<u64>) {
    let Some(held) = spool.get(id) else { return };
    let path = spool.path(&held.record);
    let place = held.place();
    // Whoever repairs it changes its time.
    let ended = std::fs::metadata(&path).and_then(|file| file.modified());
    let done = match segment::repair(&path, durable) {
        Ok(repaired) => {
            tracing::info!(flow = %place.0, output = %place.1, bytes = repaired.bytes, "repaired {}", path.display());
            let milliseconds = u64::try_from(repaired.duration.as_millis()).unwrap_or(u64::MAX);
            let mut record =
                Record { stage: Stage::Complete, bytes: repaired.bytes, milliseconds, ..held.record.clone() };
            if record.template.is_empty() && record.start.is_none() {
                // Its record was lost: the file's own time says when it ended.
                let began = ended.ok().and_then(|ended| ended.checked_sub(repaired.duration));
                record.set_start(began.unwrap_or(SystemTime::UNIX_EPOCH));
            }
            spool.update(record).inspect(|()| spool.mended(id))
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
    let mut expiring: Option<tokio::task::JoinHandle<()>> = None;
    for round in 0_u32.. {
        std::thread::sleep(if round == 0 { Duration::from_secs(1) } else { ROUND });
        let Some(recorder) = keeper.upgrade() else { return };
        for held in spool.broken() {
            repair(&recorder, spool, held.record.id, held.durable);
        }
        recorder.sample();
        recorder.runtime.spawn(expiry::look(recorder.clone(), jiff::Timestamp::now()));
        wake_all(&recorder, spool);
        spool.restore_ballast();
        let full = spool.is_nearly_full();
        if full && !nearly_full {
            let detail = format!("the spool holds {} MB, nine tenths of what it can", spool.bytes() >> 20);
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
        let is_idle = expiring.as_ref().is_none_or(|work| work.is_finished());
        if is_trusted && is_idle && round % RETENTION_EVERY == 0 {
            let work = forget::expire(recorder.clone(), spool.clone(), SystemTime::now());
            expiring = Some(recorder.runtime.spawn(work));
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
