//! Telemetry that a route carried to `$upstream`: what IoT Hub would have got.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast;

/// Kept for `local-edge events`.
const MAX_EVENTS: usize = 500;
const MAX_BYTES: usize = 4 << 20;

/// One message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When it came, RFC 3339.
    pub at: String,
    /// From whom.
    pub module: String,
    /// The output it was sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Its property bag, system properties with their `$.`.
    pub properties: BTreeMap<String, String>,
    /// Parsed where it is JSON, otherwise as text.
    pub body: Value,
}

/// The last of them, and those to come.
pub struct Events {
    kept: Mutex<Kept>,
    live: broadcast::Sender<Arc<Event>>,
}

#[derive(Default)]
struct Kept {
    events: VecDeque<(usize, Arc<Event>)>,
    bytes: usize,
}

impl Default for Events {
    fn default() -> Self {
        Self { kept: Mutex::default(), live: broadcast::channel(256).0 }
    }
}

impl Events {
    /// Adds one; `bytes` is what it takes, about.
    pub(super) fn push(&self, event: Event, bytes: usize) {
        let event = Arc::new(event);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.events.push_back((bytes, Arc::clone(&event)));
        kept.bytes = kept.bytes.saturating_add(bytes);
        while kept.events.len() > MAX_EVENTS || kept.bytes > MAX_BYTES {
            let Some((bytes, _)) = kept.events.pop_front() else { break };
            kept.bytes = kept.bytes.saturating_sub(bytes);
        }
        let _ = self.live.send(event);
    }

    /// Those that are kept, and a receiver of what follows them.
    pub fn since_start(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.events.iter().map(|(_, event)| Arc::clone(event)).collect(), self.live.subscribe())
    }
}
