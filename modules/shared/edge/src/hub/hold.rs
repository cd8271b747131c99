//! Telemetry that costs the connection: edgeHub closes it over a message that its store has no room for.

use std::time::{Duration, Instant};

/// One may be chance.
const MANY: u32 = 2;
const PAUSE: Duration = Duration::from_secs(600);

/// Whether telemetry waits, so that twin and methods go on.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// Closings in a row with telemetry under way and none of it acknowledged.
    closings: u32,
    until: Option<Instant>,
}

impl Hold {
    /// The hub took a message.
    pub fn taken(&mut self) {
        self.closings = 0;
    }

    /// The hub closed the connection while telemetry was under way.
    pub fn closed(&mut self, now: Instant) {
        // After a pause one is enough: nothing was taken since.
        self.closings = (self.closings + 1).min(MANY);
        if self.closings == MANY {
            self.until = Some(now + PAUSE);
            tracing::warn!(
                minutes = PAUSE.as_secs() / 60,
                "the hub closes the connection whenever it is sent telemetry: is its disk full? Telemetry \
                 waits; twin and methods keep working"
            );
        }
    }

    /// Whether nothing may be sent now.
    pub fn holds(&mut self, now: Instant) -> bool {
        self.until = self.until.filter(|until| now < *until);
        self.until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_closings_hold_telemetry_for_ten_minutes_and_then_one_is_enough() {
        let (mut hold, start) = (Hold::default(), Instant::now());
        hold.closed(start);
        assert!(!hold.holds(start));
        hold.closed(start);
        assert!(hold.holds(start + PAUSE - Duration::from_secs(1)));
        assert!(!hold.holds(start + PAUSE));
        hold.closed(start + PAUSE);
        assert!(hold.holds(start + PAUSE));
    }

    #[test]
    fn a_message_that_was_taken_makes_up_for_a_closing() {
        let (mut hold, now) = (Hold::default(), Instant::now());
        for _ in 0..5 {
            hold.closed(now);
            assert!(!hold.holds(now));
            hold.taken();
        }
    }
}
