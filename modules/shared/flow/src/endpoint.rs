//! What every endpoint is given.
//!
//! An endpoint is an async function that runs until `cancel` fires, and reports through its status.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use av_edge::{Event, EventKind};
use tokio_util::sync::CancellationToken;

use crate::config::Content;
use crate::net::Net;
use crate::rtmp::Ports;
use crate::stream::{InputStatus, OutputStatus, Stream};

/// What all endpoints of the module share.
pub struct Module {
    /// From the edge runtime.
    pub context: av_edge::Context,
    /// Sockets, TLS, secrets.
    pub net: Net,
    /// RTMP listeners, shared by all flows that name the same address.
    pub ports: Ports,
    /// For lines about single players: at most one a second for the whole module.
    pub player_log: Throttle,
}

impl Module {
    /// Hands an event to telemetry.
    pub fn emit(&self, kind: EventKind, flow: &str, output: Option<&str>, detail: impl Into<String>) {
        self.context.events.emit(Event {
            kind,
            flow: Some(flow.to_owned()),
            output: output.map(str::to_owned),
            detail: detail.into(),
        });
    }
}

/// What an input endpoint needs.
#[derive(Clone)]
pub struct InputContext {
    /// Shared by the module.
    pub module: Arc<Module>,
    /// The flow's name.
    pub flow: Arc<str>,
    /// `flows.NAME.input`.
    pub path: Arc<str>,
    /// Where frames go.
    pub stream: Stream,
    /// State and counters; the same as `stream.input()`.
    pub status: Arc<InputStatus>,
    /// The input's idle time-out.
    pub idle_timeout: Duration,
    /// Fires when the endpoint has to end.
    pub cancel: CancellationToken,
}

/// What an output endpoint needs.
#[derive(Clone)]
pub struct OutputContext {
    /// Shared by the module.
    pub module: Arc<Module>,
    /// The flow's name.
    pub flow: Arc<str>,
    /// The output's name.
    pub output: Arc<str>,
    /// `flows.NAME.outputs.NAME`.
    pub path: Arc<str>,
    /// Where frames come from.
    pub stream: Stream,
    /// Kinds to take.
    pub content: Content,
    /// State and counters.
    pub status: Arc<OutputStatus>,
    /// Fires when the endpoint has to end.
    pub cancel: CancellationToken,
}

/// Lets one line a second through and counts the others.
pub struct Throttle {
    started: Instant,
    /// Milliseconds since `started` of the last line, plus one; 0 = none yet.
    last: AtomicU64,
    held_back: AtomicU64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { started: Instant::now(), last: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }
}

impl Throttle {
    /// `Some(n)`: say it now, and that `n` lines were held back before; `None`: hold it back.
    pub fn admit(&self) -> Option<u64> {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let last = self.last.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= 1000;
        if due && self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}
