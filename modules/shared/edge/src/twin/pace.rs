//! How often the state of one flow may be reported.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

/// A state that flaps is reported once in this time.
const REFILL: Duration = Duration::from_secs(60);
/// Changes of state that may follow each other at once: lost and back again.
const BURST: u32 = 2;

/// What has lasted that long does not flap: after a short outage nobody reads for a minute that it goes on.
const STEADY: Duration = Duration::from_secs(15);

/// Holds back flows whose state flaps. One bucket a flow; full buckets are forgotten.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    buckets: HashMap<String, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: u32,
    since: Instant,
    /// What is held back, and since when it is that.
    held_back: Option<(Value, Instant)>,
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        while self.left < BURST && now.duration_since(self.since) >= REFILL {
            self.left += 1;
            self.since += REFILL;
        }
    }

    /// When this state of the flow may be reported.
    fn free(&mut self, flow: &Value, now: Instant) -> Instant {
        if self.left > 0 {
            return now;
        }
        let moving = moving(flow);
        let since = match &self.held_back {
            Some((held, since)) if *held == moving => *since,
            _ => now,
        };
        self.held_back = Some((moving, since));
        let due = self.since + REFILL;
        // Only one is taken ahead of its time.
        if self.since > now { due } else { due.min(since + STEADY) }
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
        let mut changed = Vec::new();
        let mut summary = document.shift_remove("summary");
        let mut until: Option<Instant> = None;
        let held_flows = held.get("flows").and_then(Value::as_object);
        if let (Some(held_flows), Some(Value::Object(flows))) = (held_flows, document.get_mut("flows")) {
            for (name, flow) in flows.iter_mut() {
                let mut bucket = self.buckets.get_mut(name);
                let Some(old) = held_flows.get(name).filter(|old| is_certain(old) && has_moved(old, flow))
                else {
                    bucket.iter_mut().for_each(|bucket| bucket.held_back = None);
                    continue;
                };
                match bucket.map(|bucket| bucket.free(flow, now)) {
                    Some(free) if free > now => {
                        until = Some(until.map_or(free, |until| until.min(free)));
                        summary.iter_mut().for_each(|summary| recount(summary, flow, old));
                        *flow = old.clone();
                    }
                    _ => changed.push(name.clone()),
                }
            }
        }
        document.extend(summary.map(|summary| ("summary".to_owned(), summary)));
        Paced { document, until, changed }
    }

    /// The document was sent.
    pub fn sent(&mut self, paced: &Paced, now: Instant) {
        for name in &paced.changed {
            let bucket = self.buckets.entry(name.clone()).or_insert(Bucket {
                left: BURST,
                since: now,
                held_back: None,
            });
            if bucket.left == BURST {
                bucket.since = now;
            }
            match bucket.left.checked_sub(1) {
                Some(left) => bucket.left = left,
                // The next minute's.
                None => bucket.since += REFILL,
            }
            bucket.held_back = None;
        }
    }
}

/// Makes the sums agree with what is said of a flow: `old` in place of `new`.
fn recount(summary: &mut Value, new: &Value, old: &Value) {
    let state = |flow: &Value| flow.get("state").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut add = |name: &str, by: i64| {
        if let Some(sum) = summary.get_mut(name)
            && let Some(value) = sum.as_i64()
        {
            *sum = value.saturating_add(by).max(0).into();
        }
    };
    add(&state(new), -1);
    add(&state(old), 1);
    add("clients", clients(old).saturating_sub(clients(new)));
}

fn clients(flow: &Value) -> i64 {
    ends(flow).filter_map(|(_, end)| end.get("clients")?.as_i64()).sum()
}

/// Whether the flow's state, since when, or the state of one of its ends is another: what flaps. Counts and details
/// may change as often as reports go; what only one of both has came or went with a configuration, or with the room
/// that there is.
fn has_moved(old: &Value, new: &Value) -> bool {
    let differs =
        |old: Option<&Value>, new: Option<&Value>| old.zip(new).is_some_and(|(old, new)| old != new);
    differs(old.get("state"), new.get("state"))
        || differs(old.get("since"), new.get("since"))
        || ends(old).any(|(name, end)| {
            let now = ends(new).find(|(other, _)| *other == name).map(|(_, now)| now);
            differs(end.get("state"), now.and_then(|now| now.get("state")))
        })
}

/// What [`has_moved`] looks at.
fn moving(flow: &Value) -> Value {
    let ends: Vec<_> = ends(flow).map(|(name, end)| json!([name, end.get("state")])).collect();
    json!([flow.get("state"), flow.get("since"), ends])
}

/// Outputs by name, and the input without one.
fn ends(flow: &Value) -> impl Iterator<Item = (Option<&String>, &Value)> {
    let outputs = flow.get("outputs").and_then(Value::as_object).into_iter().flatten();
    outputs.map(|(name, output)| (Some(name), output)).chain(flow.get("input").map(|input| (None, input)))
}

fn is_certain(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(object) => object.values().all(is_certain),
        _ => true,
    }
}
