//! How often the state of one flow may be reported.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

/// A state that flaps is reported once in this time.
const REFILL: Duration = Duration::from_secs(60);
/// Changes of state that may follow each other at once: lost and back again.
const BURST: u32 = 2;

/// Holds back flows whose state flaps. One bucket a flow; full buckets are forgotten.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    buckets: HashMap<String, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: u32,
    since: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        while self.left < BURST && now.duration_since(self.since) >= REFILL {
            self.left += 1;
            self.since += REFILL;
        }
    }
}

/// A document in which flapping flows are as the hub holds them.
pub(crate) struct Paced {
    pub document: Map<String, Value>,
    /// When the first of the flows that were held back may be reported.
    pub until: Option<Instant>,
    changed: Vec<String>,
}

impl Pace {
    /// Replaces what may not be reported yet by what the hub holds.
    pub fn hold_back(
        &mut self,
        held: &Map<String, Value>,
        mut document: Map<String, Value>,
        now: Instant,
    ) -> Paced {
        self.buckets.retain(|_, bucket| {
            bucket.refill(now);
            bucket.left < BURST
        });
        let (mut changed, mut moved) = (Vec::new(), Vec::new());
        let mut until: Option<Instant> = None;
        let held_flows = held.get("flows").and_then(Value::as_object);
        if let (Some(held_flows), Some(Value::Object(flows))) = (held_flows, document.get_mut("flows")) {
            for (name, flow) in flows.iter_mut() {
                let Some(old) =
                    held_flows.get(name).filter(|old| is_certain(old) && states(old) != states(flow))
                else {
                    continue;
                };
                match self.buckets.get(name) {
                    Some(bucket) if bucket.left == 0 => {
                        let free = bucket.since + REFILL;
                        until = Some(until.map_or(free, |until| until.min(free)));
                        moved.push((flow.get("state").cloned(), old.get("state").cloned()));
                        *flow = old.clone();
                    }
                    _ => changed.push(name.clone()),
                }
            }
        }
        // The sums flap with the flow, and agree with what is said of it.
        match held.get("summary").filter(|summary| is_certain(summary)) {
            Some(summary) if until.is_some() && changed.is_empty() => {
                document.insert("summary".into(), summary.clone());
            }
            _ => {
                for (from, to) in moved {
                    count(&mut document, from, |sum| sum.saturating_sub(1));
                    count(&mut document, to, |sum| sum.saturating_add(1));
                }
            }
        }
        Paced { document, until, changed }
    }

    /// The document was sent.
    pub fn sent(&mut self, paced: &Paced, now: Instant) {
        for name in &paced.changed {
            let bucket = self.buckets.entry(name.clone()).or_insert(Bucket { left: BURST, since: now });
            if bucket.left == BURST {
                bucket.since = now;
            }
            bucket.left = bucket.left.saturating_sub(1);
        }
    }
}

/// Changes how many flows of a state the summary counts.
fn count(document: &mut Map<String, Value>, state: Option<Value>, change: impl Fn(u64) -> u64) {
    let summary = document.get_mut("summary").and_then(Value::as_object_mut);
    let sum = summary.zip(state).and_then(|(summary, state)| summary.get_mut(state.as_str()?));
    if let Some(sum) = sum
        && let Some(value) = sum.as_u64()
    {
        *sum = change(value).into();
    }
}

/// The flow's state, since when, and the states of its ends: what flaps. Counts and details may change as often
/// as reports go.
fn states(flow: &Value) -> Vec<Option<&Value>> {
    let outputs = flow.get("outputs").and_then(Value::as_object);
    let outputs = outputs.into_iter().flat_map(|outputs| outputs.values());
    let ends = outputs.chain(flow.get("input")).map(|end| end.get("state"));
    [flow.get("state"), flow.get("since")].into_iter().chain(ends).collect()
}

fn is_certain(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(object) => object.values().all(is_certain),
        _ => true,
    }
}
