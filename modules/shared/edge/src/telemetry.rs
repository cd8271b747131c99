//! What the module tells without being asked: events as they happen, counters at intervals.

mod coalesce;
mod outbox;
mod stats;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;

use crate::module::Module;
use crate::service::Event;
use coalesce::{Coalescer, Counted};
pub(crate) use outbox::{Message, Outbox, Output};

/// How often counted events are looked after.
const TICK: Duration = Duration::from_secs(1);

/// Takes events where nobody listens, so that the queue never looks full.
pub(crate) async fn discard(mut queue: mpsc::Receiver<Event>) {
    while let Some(event) = queue.recv().await {
        tracing::debug!(
            flow = event.flow,
            output = event.output,
            "{}: {}",
            event.kind.as_str(),
            event.detail
        );
    }
}

/// Fills the outbox with events and, when the configuration asks for them, counters. Never returns while
/// events can come.
pub(crate) async fn collect(module: Arc<Module>, mut queue: mpsc::Receiver<Event>, outbox: Arc<Outbox>) {
    let mut coalescer = Coalescer::default();
    let mut settings = module.settings();
    let mut last_stats = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = queue.recv() => {
                let Some(event) = event else { return };
                if let Some(counted) = coalescer.add(event, jiff::Timestamp::now(), Instant::now()) {
                    outbox.push(Output::Events, event_body(&counted));
                }
            }
            _ = ticks.tick() => {
                let now = Instant::now();
                for counted in coalescer.due(now) {
                    outbox.push(Output::Events, event_body(&counted));
                }
                let interval = settings.borrow_and_update().map_or(0, |settings| settings.telemetry_interval_seconds);
                if interval > 0 && now.duration_since(last_stats) >= Duration::from_secs(interval.into()) {
                    last_stats = now;
                    for body in stats::bodies(&module.status(), jiff::Timestamp::now()) {
                        outbox.push(Output::Stats, body);
                    }
                }
                module.telemetry_dropped.store(outbox.dropped(), Ordering::Relaxed);
            }
        }
    }
}

fn event_body(counted: &Counted) -> String {
    let event = &counted.event;
    let mut detail = event.detail.clone();
    detail.truncate(detail.floor_char_boundary(4096));
    json!({
        "event": event.kind.as_str(), "flow": event.flow, "output": event.output,
        "at": format!("{:.3}", counted.at), "detail": detail, "count": counted.count,
    })
    .to_string()
}
