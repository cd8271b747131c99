//! How often a source is read that nobody waits for.

use std::time::{Duration, Instant};

/// What may lie in a socket meanwhile: less than any system's buffer, or the source would have to wait.
const MOST_UNREAD: u32 = 32 << 10;
/// A shorter pause is not worth its timer.
const SHORTEST: Duration = Duration::from_millis(5);

/// Lets bytes gather in a socket as long as all readers of the stream have patience: one wake-up and one read for several
/// frames instead of one for each. What comes in a pause is bounded by what came in the time before it.
#[derive(Debug)]
pub(crate) struct Pace {
    /// A read of TLS gives one record, which says nothing of the socket: there is no pause then.
    is_plain: bool,
    /// Since the last pause began.
    since: Instant,
    bytes: u32,
    /// The last read left nothing.
    is_drained: bool,
}

impl Pace {
    pub(crate) fn new(is_plain: bool, now: Instant) -> Self {
        Self { is_plain, since: now, bytes: 0, is_drained: false }
    }

    /// A read gave so many bytes of those that it had room for.
    pub(crate) fn read(&mut self, bytes: usize, room: usize) {
        self.bytes = self.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.is_drained = bytes < room;
    }

    /// Waits before the next read, where that is worth it; `patience`: what the stream's readers have.
    pub(crate) async fn rest(&mut self, patience: Duration) {
        if let Some(pause) = self.pause(patience, Instant::now()) {
            tokio::time::sleep(pause).await;
        }
    }

    fn pause(&mut self, patience: Duration, now: Instant) -> Option<Duration> {
        if patience.is_zero() || !self.is_plain || !self.is_drained {
            return None;
        }
        let passed = now.saturating_duration_since(self.since);
        let pause = (passed * MOST_UNREAD).checked_div(self.bytes.max(1))?.min(patience);
        (self.since, self.bytes, self.is_drained) = (now, 0, false);
        (pause >= SHORTEST).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(40);

    #[test]
    fn a_slow_source_is_read_as_seldom_as_readers_bear() {
        let now = Instant::now();
        let mut pace = Pace::new(true, now);
        pace.read(8000, 16_384);
        let now = now + Duration::from_millis(33);
        assert_eq!(pace.pause(PATIENCE, now), Some(PATIENCE));
        // Nothing was read meanwhile.
        assert_eq!(pace.pause(PATIENCE, now), None);
    }

    #[test]
    fn of_a_fast_source_no_more_is_left_unread_than_a_socket_takes() {
        // 4 MB a second.
        let mut now = Instant::now();
        let mut pace = Pace::new(true, now);
        let mut pause = Duration::from_millis(1);
        for _ in 0..20 {
            now += pause;
            let unread = usize::try_from(pause.as_micros() * 4).unwrap();
            assert!(unread <= 40_000, "{unread}");
            pace.read(unread, usize::MAX);
            pause = pace.pause(PATIENCE, now).unwrap_or(Duration::from_millis(1));
        }
    }

    #[test]
    fn nothing_waits_where_a_reader_wants_it_at_once_or_more_is_at_hand() {
        let now = Instant::now() + Duration::from_secs(1);
        let mut pace = Pace::new(true, Instant::now());
        pace.read(100, 16_384);
        assert_eq!(pace.pause(Duration::ZERO, now), None);
        pace.read(16_384, 16_384);
        assert_eq!(pace.pause(PATIENCE, now), None);
        let mut secure = Pace::new(false, Instant::now());
        secure.read(100, 16_384);
        assert_eq!(secure.pause(PATIENCE, now), None);
    }
}
