//! What the module tells without being asked: events as they happen, counters at intervals.

mod coalesce;
mod outbox;
mod stats;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

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
    let mut cadence = Cadence::new(Instant::now());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let interval = settings.borrow_and_update().map_or(0, |settings| settings.telemetry_interval_seconds);
        cadence.set(Duration::from_secs(interval.into()), Instant::now());
        tokio::select! {
            event = queue.recv() => {
                let Some(event) = event else { return };
                if let Some(counted) = coalescer.add(event, jiff::Timestamp::now(), std::time::Instant::now()) {
                    outbox.push(Output::Events, event_body(&counted));
                }
            }
            _ = ticks.tick() => {
                for counted in coalescer.due(std::time::Instant::now()) {
                    outbox.push(Output::Events, event_body(&counted));
                }
                module.telemetry_dropped.store(outbox.dropped(), Ordering::Relaxed);
            }
            () = cadence.due() => {
                for body in stats::bodies(&module.status(), jiff::Timestamp::now()) {
                    outbox.push(Output::Stats, body);
                }
            }
            Ok(()) = settings.changed() => {}
        }
    }
}

/// When counters are due: at moments that are so far apart, however long it takes to notice one.
struct Cadence {
    /// Zero: never.
    every: Duration,
    next: Instant,
}

impl Cadence {
    fn new(now: Instant) -> Self {
        Self { every: Duration::ZERO, next: now }
    }

    /// The first moment of another interval is one such interval away; the same interval goes on as it is.
    fn set(&mut self, every: Duration, now: Instant) {
        if self.every != every {
            *self = Self { every, next: now + every };
        }
    }

    /// Waits for the next moment. Those that passed unnoticed, as while the machine slept, are not made up for.
    async fn due(&mut self) {
        if self.every.is_zero() {
            std::future::pending().await
        }
        tokio::time::sleep_until(self.next).await;
        let now = Instant::now();
        self.next += self.every;
        if self.next <= now {
            self.next = now + self.every;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds between moments, each noticed so much late.
    async fn gaps(every: u64, late: Duration, count: usize) -> Vec<f64> {
        let mut cadence = Cadence::new(Instant::now());
        cadence.set(Duration::from_secs(every), Instant::now());
        let mut last = Instant::now();
        let mut gaps = Vec::new();
        for _ in 0..count {
            cadence.due().await;
            tokio::time::sleep(late).await;
            gaps.push(std::mem::replace(&mut last, Instant::now()).elapsed().as_secs_f64());
        }
        gaps
    }

    #[tokio::test(start_paused = true)]
    async fn counters_come_as_often_as_they_are_asked_for_however_late_each_is_noticed() {
        for every in [1, 3] {
            let gaps = gaps(every, Duration::from_millis(70), 100).await;
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            assert!((mean - every as f64).abs() < 0.01, "{mean}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn moments_that_passed_unnoticed_are_not_made_up_for() {
        let mut cadence = Cadence::new(Instant::now());
        cadence.set(Duration::from_secs(2), Instant::now());
        tokio::time::advance(Duration::from_secs(61)).await;
        cadence.due().await;
        let began = Instant::now();
        cadence.due().await;
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
        // The same interval once more is no reason to begin anew.
        cadence.set(Duration::from_secs(2), Instant::now() + Duration::from_secs(1));
        cadence.due().await;
        assert!(began.elapsed() <= Duration::from_secs(5), "{:?}", began.elapsed());
        cadence.set(Duration::ZERO, Instant::now());
        assert!(tokio::time::timeout(Duration::from_secs(3600), cadence.due()).await.is_err());
    }
}
