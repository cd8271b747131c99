//! When to ask for the whole twin.

use std::time::{Duration, Instant};

/// An answer that takes longer is lost.
const ANSWER_TIME: Duration = Duration::from_secs(30);
const MAX_MISSES: u32 = 3;
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const MAX_BACK_OFF: Duration = Duration::from_secs(60);
/// Covers whatever was never pushed; up to a quarter more, so that modules spread.
const PERIOD: Duration = Duration::from_secs(3600);

/// Requests for the whole twin on one connection; one at a time.
#[derive(Debug)]
pub(super) struct Gets {
    under_way: Option<(u64, Instant)>,
    next: Option<Instant>,
    last: Option<Instant>,
    /// What the last answer left in doubt is not asked for at once again.
    settled: bool,
    back_off: Duration,
    misses: u32,
}

impl Default for Gets {
    fn default() -> Self {
        Self { under_way: None, next: None, last: None, settled: false, back_off: FIRST_BACK_OFF, misses: 0 }
    }
}

impl Gets {
    /// The twin is in doubt. Asked at once, unless that has just been done and did not help.
    pub fn ask(&mut self, now: Instant) {
        let recently = self.last.filter(|last| now.duration_since(*last) < MAX_BACK_OFF);
        if self.settled || recently.is_none() {
            self.back_off = FIRST_BACK_OFF;
        }
        let time = recently.map_or(now, |last| (last + self.back_off).max(now));
        if recently.is_some() && !self.settled {
            self.back_off = (self.back_off * 2).min(MAX_BACK_OFF);
        }
        self.settled = false;
        self.next = Some(self.next.map_or(time, |next| next.min(time)));
    }

    /// The hub does not know yet, is throttled or failed.
    pub fn ask_later(&mut self, now: Instant) {
        self.next = Some(now + self.back_off);
        self.back_off = (self.back_off * 2).min(MAX_BACK_OFF);
    }

    /// All is well; asked again in an hour.
    pub fn settled(&mut self, now: Instant) {
        self.settled = true;
        self.next = Some(now + PERIOD + PERIOD.mul_f64(rand::random_range(0.0..0.25)));
    }

    /// When [`poll`](Self::poll) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.under_way.map(|(_, sent)| sent + ANSWER_TIME).or(self.next)
    }

    /// Whether to send a request now, under this id.
    pub fn poll(&mut self, now: Instant, new_id: impl FnOnce() -> u64) -> Option<u64> {
        if let Some((_, sent)) = self.under_way {
            if now.duration_since(sent) < ANSWER_TIME {
                return None;
            }
            self.under_way = None;
            self.misses += 1;
            self.next = Some(now);
        }
        if self.next.is_none_or(|next| now < next) {
            return None;
        }
        let id = new_id();
        self.under_way = Some((id, now));
        self.last = Some(now);
        self.next = None;
        Some(id)
    }

    /// Whether this is the answer that is awaited.
    pub fn on_answer(&mut self, id: u64) -> bool {
        let is_ours = self.under_way.take_if(|(awaited, _)| *awaited == id).is_some();
        if is_ours {
            self.misses = 0;
        }
        is_ours
    }

    /// Whether so many answers were lost that the connection must be bad.
    pub fn wants_reconnect(&self) -> bool {
        self.misses >= MAX_MISSES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_answer_is_asked_for_again_under_a_new_id() {
        let (mut gets, start) = (Gets::default(), Instant::now());
        gets.ask(start);
        assert_eq!(gets.poll(start, || 1), Some(1));
        assert_eq!(gets.poll(start + ANSWER_TIME / 2, || 2), None);
        assert_eq!(gets.poll(start + ANSWER_TIME, || 2), Some(2));
        assert!(!gets.on_answer(1));
        assert!(gets.on_answer(2));
        assert!(!gets.wants_reconnect());
    }

    #[test]
    fn three_lost_answers_condemn_the_connection() {
        let (mut gets, start) = (Gets::default(), Instant::now());
        gets.ask(start);
        for round in 0..4 {
            gets.poll(start + ANSWER_TIME * round, || u64::from(round));
        }
        assert!(gets.wants_reconnect());
    }

    #[test]
    fn a_doubt_after_an_answer_that_helped_is_asked_about_at_once() {
        let (mut gets, start) = (Gets::default(), Instant::now());
        for round in 0..20 {
            let now = start + Duration::from_secs(2) * round;
            gets.ask(now);
            assert_eq!(gets.poll(now, || u64::from(round)), Some(u64::from(round)));
            assert!(gets.on_answer(u64::from(round)));
            gets.settled(now);
        }
    }

    #[test]
    fn a_twin_that_stays_in_doubt_is_asked_for_ever_more_rarely() {
        let (mut gets, start) = (Gets::default(), Instant::now());
        let (mut now, mut asked) = (start, 0);
        while now < start + Duration::from_secs(300) {
            if gets.deadline().is_none() {
                gets.ask(now);
            }
            if let Some(id) = gets.poll(now, || asked) {
                asked += 1;
                gets.on_answer(id);
                gets.ask(now);
            }
            now += Duration::from_millis(100);
        }
        assert!((8..=14).contains(&asked), "{asked}");
    }
}
