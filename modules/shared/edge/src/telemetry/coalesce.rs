//! At most one event a flow, kind and minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::service::{Event, EventKind};

const WINDOW: Duration = Duration::from_secs(60);
/// Flows and kinds that may be in a window at once; beyond it events pass uncounted.
const MAX_KEYS: usize = 20_000;

/// An event, how often it happened, and when it did the last time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Counted {
    pub event: Event,
    pub at: Timestamp,
    pub count: u64,
}

/// The first of a kind passes at once; those that follow within the minute are counted and pass as one.
#[derive(Debug, Default)]
pub(super) struct Coalescer {
    windows: HashMap<(EventKind, Option<String>), Window>,
}

#[derive(Debug)]
struct Window {
    ends: Instant,
    waiting: Option<Counted>,
}

impl Coalescer {
    /// Whether the event passes now.
    pub fn add(&mut self, event: Event, at: Timestamp, now: Instant) -> Option<Counted> {
        let counted = Counted { event, at, count: 1 };
        if counted.event.kind == EventKind::SegmentStored {
            return Some(counted);
        }
        let key = (counted.event.kind, counted.event.flow.clone());
        if let Some(window) = self.windows.get_mut(&key) {
            let count = window.waiting.as_ref().map_or(0, |waiting| waiting.count);
            window.waiting = Some(Counted { count: count.saturating_add(1), ..counted });
            return None;
        }
        if self.windows.len() < MAX_KEYS {
            self.windows.insert(key, Window { ends: now + WINDOW, waiting: None });
        }
        Some(counted)
    }

    /// What was counted in windows that have ended.
    pub fn due(&mut self, now: Instant) -> Vec<Counted> {
        let mut due = Vec::new();
        self.windows.retain(|_, window| {
            if now < window.ends {
                return true;
            }
            window.ends = now + WINDOW;
            let waiting = window.waiting.take();
            let is_busy = waiting.is_some();
            due.extend(waiting);
            is_busy
        });
        due.sort_by_key(|counted| counted.at);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind, flow: &str, detail: &str) -> Event {
        Event { kind, flow: Some(flow.into()), output: None, detail: detail.into() }
    }

    #[test]
    fn a_burst_is_one_event_now_and_one_with_the_count_a_minute_later() {
        let (mut coalescer, start, at) = (Coalescer::default(), Instant::now(), Timestamp::now());
        assert_eq!(coalescer.add(event(EventKind::InputLost, "a", "1"), at, start).unwrap().count, 1);
        for detail in ["2", "3", "4"] {
            assert_eq!(coalescer.add(event(EventKind::InputLost, "a", detail), at, start), None);
        }
        assert!(coalescer.add(event(EventKind::InputLost, "b", "1"), at, start).is_some());
        assert!(coalescer.add(event(EventKind::InputConnected, "a", "1"), at, start).is_some());
        assert!(coalescer.due(start + WINDOW / 2).is_empty());
        let due = coalescer.due(start + WINDOW);
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].count, due[0].event.detail.as_str()), (3, "4"));
        // The minute that began with the report is still running.
        assert_eq!(coalescer.add(event(EventKind::InputLost, "a", "5"), at, start + WINDOW), None);
        assert_eq!(coalescer.due(start + WINDOW * 2)[0].count, 1);
        assert!(coalescer.due(start + WINDOW * 3).is_empty());
        assert!(coalescer.windows.is_empty());
    }

    #[test]
    fn each_stored_segment_is_told() {
        let mut coalescer = Coalescer::default();
        for _ in 0..5 {
            let stored = event(EventKind::SegmentStored, "a", "x.mp4");
            assert!(coalescer.add(stored, Timestamp::now(), Instant::now()).is_some());
        }
    }
}
