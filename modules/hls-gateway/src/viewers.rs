//! Who watches. HTTP knows requests only: a viewer is an address and a program that asked for a playlist a moment ago.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use av_flow::stream::OutputStatus;

/// Who has not asked for that long is gone, or for two target durations: players without low latency ask that seldom.
const AWAY: Duration = Duration::from_secs(10);
/// So often a viewer is noted.
const AGAIN: Duration = Duration::from_secs(2);
/// Viewers that are told apart.
const MOST: usize = 100_000;

/// What tells two viewers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Viewer(u64);

impl Viewer {
    pub(crate) fn new(address: IpAddr, program: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        (address, program).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// The viewers of one output.
#[derive(Debug)]
pub(crate) struct Viewers {
    seen: Mutex<HashMap<Viewer, Instant>>,
    status: Arc<OutputStatus>,
    /// `maxClients`; 0 = no bound.
    most: usize,
    /// The playlist's target duration, in seconds.
    target: AtomicU32,
}

impl Viewers {
    pub(crate) fn new(status: Arc<OutputStatus>, most: usize) -> Self {
        Self { seen: Mutex::default(), status, most, target: AtomicU32::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Viewer, Instant>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the playlist has this target duration.
    pub(crate) fn set_target(&self, seconds: u32) {
        self.target.store(seconds, Ordering::Relaxed);
    }

    fn away(&self) -> Duration {
        AWAY.max(Duration::from_secs(self.target.load(Ordering::Relaxed).into()).saturating_mul(2))
    }

    /// Notes a viewer. `false`: there are as many as there may be.
    pub(crate) fn watches(&self, viewer: Viewer, now: Instant) -> bool {
        let mut seen = self.lock();
        if let Some(last) = seen.get_mut(&viewer) {
            *last = now;
            return true;
        }
        let bound = if self.most == 0 { MOST } else { self.most };
        if seen.len() >= bound {
            // Some may have left since the last sweep.
            seen.retain(|_, last| now.saturating_duration_since(*last) < self.away());
        }
        if seen.len() >= bound {
            return self.most == 0;
        }
        seen.insert(viewer, now);
        self.count(seen.len());
        true
    }

    /// Whether anybody watches.
    pub(crate) fn has_any(&self) -> bool {
        self.status.clients.load(Ordering::Relaxed) > 0
    }

    /// Once a second.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut seen = self.lock();
        seen.retain(|_, last| now.saturating_duration_since(*last) < self.away());
        self.count(seen.len());
    }

    fn count(&self, viewers: usize) {
        if self.status.clients.swap(viewers, Ordering::Relaxed) != viewers {
            self.status.status.touch();
        }
    }
}

/// What one connection remembers of its viewer, so that not each of its requests is noted.
#[derive(Debug, Default)]
pub(crate) struct Noted(Mutex<Option<(usize, Viewer, Instant)>>);

impl Noted {
    /// Notes a viewer where that is due. `false`: there are too many.
    pub(crate) fn watches(&self, viewers: &Viewers, viewer: Viewer, now: Instant) -> bool {
        let whose = std::ptr::from_ref(viewers).addr();
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = noted.is_some_and(|(of, who, at)| {
            of == whose && who == viewer && now.saturating_duration_since(at) < AGAIN
        });
        if known {
            return true;
        }
        let admitted = viewers.watches(viewer, now);
        *noted = admitted.then_some((whose, viewer, now));
        admitted
    }
}

#[cfg(test)]
mod tests {
    use av_flow::stream::Changes;

    use super::*;

    #[test]
    fn a_viewer_counts_once_and_until_it_has_not_asked_for_a_while() {
        let status = OutputStatus::new(Changes::default());
        let viewers = Viewers::new(status.clone(), 2);
        let clients = || status.clients.load(Ordering::Relaxed);
        let viewer = |last, program: &[u8]| Viewer::new(IpAddr::from([192, 0, 2, last]), program);
        let now = Instant::now();
        assert!(viewers.watches(viewer(1, b"vlc"), now) && viewers.watches(viewer(1, b"vlc"), now));
        assert_eq!(clients(), 1);
        assert!(viewers.watches(viewer(1, b"firefox"), now + AWAY / 2));
        assert!(!viewers.watches(viewer(2, b"vlc"), now + AWAY / 2), "two are the most");
        assert_eq!(clients(), 2);
        assert!(viewers.watches(viewer(2, b"vlc"), now + AWAY), "the first has gone");
        viewers.sweep(now + AWAY * 2);
        assert_eq!(clients(), 0);
        // Of segments of 20 s a player asks every 20 s.
        viewers.set_target(20);
        assert!(viewers.watches(viewer(1, b"vlc"), now));
        viewers.sweep(now + AWAY * 3);
        assert_eq!(clients(), 1);
        viewers.sweep(now + AWAY * 4);
        assert_eq!(clients(), 0);
    }
}
