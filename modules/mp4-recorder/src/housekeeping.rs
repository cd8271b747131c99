//! What the spool's own thread does: repairs what a dead process left, and looks after what is too old.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use av_edge::EventKind;

use crate::recorder::Recorder;
use crate::segment::{self, RepairError};
use crate::spool::{Record, Spool, Stage};
use crate::{expiry, forget};

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(30);
/// Rounds from one look at what is too old to the next.
const RETENTION_EVERY: u32 = 20;

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
            let frames = repaired.amount.pictures + repaired.amount.sounds;
            let index = if frames > 0 {
                format!("made an index of {frames} frames")
            } else {
                "it already had an index".into()
            };
            tracing::info!(flow = %place.0, output = %place.1, bytes = repaired.bytes, "repaired {}: {index}", path.display());
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

/// Asks stores what time it is, until one says so: where nothing is to be stored nobody else does.
async fn ask_the_time(recorder: Arc<Recorder>) {
    for lane in recorder.lanes() {
        lane.ask_the_time(&recorder).await;
        if recorder.belief.now().is_sure {
            return;
        }
    }
}

/// Keeps house for ever.
pub fn keep(keeper: &Weak<Recorder>, spool: &Arc<Spool>) {
    let mut waits_told = false;
    // What is due, and waits for the document or the clock.
    let (mut is_unburied, mut is_unexpired) = (false, false);
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
        spool.tidy_lately();
        let full = spool.is_nearly_full();
        if full && !nearly_full {
            let detail = format!("the spool holds {} MB, nine tenths of its capacity", spool.bytes() >> 20);
            tracing::warn!("{detail}");
            recorder.context.events.emit(av_edge::Event {
                kind: EventKind::SpoolNearlyFull,
                flow: None,
                output: None,
                detail,
            });
        }
        nearly_full = full;
        let told = recorder.belief.now();
        recorder.belief.save(spool.dir());
        let waits = !told.ages && recorder.deletes_by_age();
        if waits && !waits_told {
            tracing::info!(
                "no file is deleted by age until the kernel or the store confirms the clock, or a day has \
                 passed"
            );
        }
        waits_told = waits;
        is_unburied |= round % RETENTION_EVERY == 0;
        is_unexpired |= round % RETENTION_EVERY == 0;
        let is_idle = expiring.as_ref().is_none_or(|work| work.is_finished());
        if !is_idle || !recorder.is_configured() {
            continue;
        }
        if is_unexpired && !told.is_sure && recorder.deletes_by_age() {
            recorder.runtime.spawn(ask_the_time(recorder.clone()));
        }
        let (buries, expires) = (is_unburied, is_unexpired && told.ages);
        (is_unburied, is_unexpired) = (false, is_unexpired && !expires);
        if buries || expires {
            let (keeper, spool) = (recorder.clone(), spool.clone());
            expiring = Some(recorder.runtime.spawn(async move {
                if buries {
                    forget::bury(&keeper, &spool).await;
                }
                if expires {
                    forget::expire(keeper, spool, told.now).await;
                }
            }));
        }
    }
}
