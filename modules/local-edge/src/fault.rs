//! Bad days on purpose: what `local-edge fault` makes go wrong.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

/// Longest outage, and how many times something is done at most.
const MAX_SECONDS: u64 = 86_400;
const MAX_TIMES: i64 = 1_000_000;

/// What can be made to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Subcommand)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "name")]
pub enum Fault {
    /// edgeHub is gone: connections are cut and new ones refused
    HubDown {
        /// How long
        #[arg(value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
        seconds: u64,
    },
    /// edgeHub stops answering: connections stay as they are, nothing comes
    Hang {
        /// How long
        #[arg(value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
        seconds: u64,
    },
    /// Every connection to edgeHub is cut, without a goodbye
    Cut {
        /// Not now, but in the middle of the next answer to a twin request
        #[arg(long)]
        in_get: bool,
    },
    /// A new CA joins the trust bundle, and edgeHub restarts with a certificate from it, RSA if `openssl` is installed
    RotateCertificate,
    /// edgeHub finds every token expired: it drops the connections and takes no such token again
    ExpireTokens,
    /// Desired properties change without the module being told
    LosePatches {
        /// How many of the next patches
        #[arg(value_parser = clap::value_parser!(u32).range(1..=MAX_TIMES))]
        count: u32,
    },
    /// edgeHub answers each twin request of a connection late, one after the other, as while its cloud is away
    SlowTwin {
        /// How long each takes; 0 ends it
        #[arg(value_parser = clap::value_parser!(u64).range(0..=600))]
        seconds: u64,
    },
    /// edgeHub's disk is full: it closes every connection that gives it a message
    StoreFull {
        /// How long
        #[arg(value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
        seconds: u64,
    },
    /// edgeHub forgets the subscriptions of its present connections
    LostSubscriptions,
    /// Every module and edgeHub restart, as when the daemon is upgraded
    RestartAll,
    /// Everything that edgeHub sends comes late, until told otherwise
    Delay {
        /// How late; 0 ends it
        #[arg(value_parser = clap::value_parser!(u64).range(0..=60_000))]
        milliseconds: u64,
    },
    /// The workload API answers every call with 500
    WorkloadDown {
        /// How long
        #[arg(value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
        seconds: u64,
    },
    /// edgeHub refuses connections
    Refuse {
        /// CONNACK code: 5 (not authorised) or 3 (server unavailable)
        #[arg(value_parser = clap::value_parser!(u8).range(3..=5))]
        code: u8,
        /// How many of the next CONNECTs
        #[arg(value_parser = clap::value_parser!(u32).range(1..=MAX_TIMES))]
        count: u32,
    },
    /// Server certificates from the workload API are valid only for a short time
    ShortCertificates {
        /// How long; 0 ends it
        #[arg(value_parser = clap::value_parser!(u64).range(0..=MAX_SECONDS))]
        seconds: u64,
    },
    /// End all of the above
    Clear,
}

/// What goes wrong at this moment.
#[derive(Debug, Default)]
pub struct Faults {
    /// The hub is away.
    pub hub_down: Outage,
    /// The hub is there and does nothing.
    pub hang: Outage,
    state: Mutex<State>,
}

/// A time during which something is out of order.
#[derive(Debug, Default)]
pub struct Outage(watch::Sender<Option<Instant>>);

#[derive(Debug, Default)]
struct State {
    cut_in_get: bool,
    lost_patches: u32,
    delay: Duration,
    workload_down: Option<Instant>,
    slow_twin: Duration,
    store_full: Option<Instant>,
    refusals: (u8, u32),
    certificate_life: Option<Duration>,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a fault; what has to be done at once is its caller's.
    pub fn set(&self, fault: Fault) {
        let after = |seconds| Instant::now().checked_add(Duration::from_secs(seconds));
        let mut state = self.state();
        match fault {
            Fault::HubDown { seconds } => drop(self.hub_down.0.send_replace(after(seconds))),
            Fault::Hang { seconds } => drop(self.hang.0.send_replace(after(seconds))),
            Fault::Cut { in_get } => state.cut_in_get |= in_get,
            Fault::LosePatches { count } => state.lost_patches = count,
            Fault::Delay { milliseconds } => state.delay = Duration::from_millis(milliseconds),
            Fault::WorkloadDown { seconds } => state.workload_down = after(seconds),
            Fault::Refuse { code, count } => state.refusals = (code, count),
            Fault::ShortCertificates { seconds } => {
                state.certificate_life = (seconds > 0).then(|| Duration::from_secs(seconds));
            }
            Fault::SlowTwin { seconds } => state.slow_twin = Duration::from_secs(seconds),
            Fault::StoreFull { seconds } => state.store_full = after(seconds),
            Fault::RotateCertificate | Fault::ExpireTokens | Fault::LostSubscriptions | Fault::RestartAll => {
            }
            Fault::Clear => {
                *state = State::default();
                self.hub_down.0.send_replace(None);
                self.hang.0.send_replace(None);
            }
        }
    }

    /// Whether the connection is to be cut in this answer.
    pub fn cuts_this_get(&self) -> bool {
        std::mem::take(&mut self.state().cut_in_get)
    }

    /// Whether this patch gets lost.
    pub fn loses_this_patch(&self) -> bool {
        let mut state = self.state();
        let lost = state.lost_patches > 0;
        state.lost_patches = state.lost_patches.saturating_sub(1);
        lost
    }

    /// How late everything is.
    pub fn delay(&self) -> Duration {
        self.state().delay
    }

    /// How long each twin request takes.
    pub fn slow_twin(&self) -> Duration {
        self.state().slow_twin
    }

    /// Whether there is no room for messages.
    pub fn is_store_full(&self) -> bool {
        self.state().store_full.is_some_and(|until| until > Instant::now())
    }

    /// Whether the workload API fails.
    pub fn is_workload_down(&self) -> bool {
        self.state().workload_down.is_some_and(|until| until > Instant::now())
    }

    /// The code that this CONNECT gets, if it is refused.
    pub fn refuses_this_connect(&self) -> Option<u8> {
        let mut state = self.state();
        let (code, left) = state.refusals;
        state.refusals = (code, left.saturating_sub(1));
        (left > 0).then_some(code)
    }

    /// How long server certificates live, if not as usual.
    pub fn certificate_life(&self) -> Option<Duration> {
        self.state().certificate_life
    }
}

impl Outage {
    /// Returns when it begins, or has begun.
    pub async fn begins(&self) {
        let mut outage = self.0.subscribe();
        // The sender lives as long as `self`.
        let _ = outage.wait_for(|until| until.is_some_and(|until| until > Instant::now())).await;
    }

    /// Returns when it is over; at once where there is none.
    pub async fn is_over(&self) {
        let mut outage = self.0.subscribe();
        loop {
            let until = *outage.borrow_and_update();
            let Some(until) = until.filter(|until| *until > Instant::now()) else { return };
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                _ = outage.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_outage_ends_by_itself_or_when_cleared() {
        let faults = Faults::default();
        faults.hub_down.is_over().await;
        faults.set(Fault::HubDown { seconds: 1 });
        faults.hub_down.begins().await;
        faults.hub_down.is_over().await;
        faults.set(Fault::HubDown { seconds: 86_400 });
        faults.hub_down.begins().await;
        tokio::join!(faults.hub_down.is_over(), async { faults.set(Fault::Clear) });
    }

    #[test]
    fn what_is_counted_happens_that_often() {
        let faults = Faults::default();
        assert!(!faults.loses_this_patch() && faults.refuses_this_connect().is_none());
        faults.set(Fault::LosePatches { count: 2 });
        assert_eq!([(); 3].map(|()| faults.loses_this_patch()), [true, true, false]);
        faults.set(Fault::Refuse { code: 3, count: 1 });
        assert_eq!([(); 2].map(|()| faults.refuses_this_connect()), [Some(3), None]);
        faults.set(Fault::Cut { in_get: true });
        assert!(faults.cuts_this_get() && !faults.cuts_this_get());
    }
}
