//! When to ask for the whole twin.

use std::time::{Duration, Instant};

/// edgeHub asks the cloud first, falls back to its store only after 50 s and more than one try, and takes one request
/// of a connection after the other. An answer that takes longer than this may be lost.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(120);
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const MAX_BACK_OFF: Duration = Duration::from_secs(60);
/// Covers whatever was never pushed, as a change made while the device was offline; up to half more, so that modules
/// spread.
const PERIOD: Duration = Duration::from_secs(600);
/// Requests of one connection whose answers may still come.
const MAX_UNANSWERED: usize = 16;

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// All subscriptions anew; [`Gets::subscribed`] when they are made. edgeHub can lose those of a connection that
    /// is up, and its answers with them.
    Subscribe,
    /// A request for the whole twin, under this id.
    Get(u64),
}

/// Requests for the whole twin on one connection. The answer to any of them will do.
#[derive(Debug)]
pub(super) struct Gets {
    /// Ids without an answer, oldest first.
    unanswered: Vec<u64>,
    /// Since when an answer, or subscriptions, are waited for.
    waiting: Option<Instant>,
    /// Whether the subscriptions are made anew before the next request.
    anew: bool,
    next: Option<Instant>,
    last: Option<Instant>,
    /// What the last answer left in doubt is not asked for at once again.
    settled: bool,
    back_off: Duration,
}

impl Default for Gets {
    fn default() -> Self {
        Self {
            unanswered: Vec::new(),
            waiting: None,
            anew: false,
            next: None,
            last: None,
            settled: false,
            back_off: FIRST_BACK_OFF,
        }
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
        if self.next.is_none_or(|next| time < next) {
            self.next = Some(time);
            self.anew = false;
        }
    }

    /// The hub does not know yet, is throttled or failed.
    pub fn ask_later(&mut self, now: Instant) {
        self.next = Some(now + self.back_off);
        self.back_off = (self.back_off * 2).min(MAX_BACK_OFF);
    }

    /// All is well; asked again in ten to fifteen minutes.
    pub fn settled(&mut self, now: Instant) {
        self.settled = true;
        self.anew = true;
        self.next = Some(now + PERIOD + PERIOD.mul_f64(rand::random_range(0.0..0.5)));
    }

    /// When [`poll`](Self::poll) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.map(|since| since + ANSWER_TIME).or(self.next)
    }

    /// What to send now.
    pub fn poll(&mut self, now: Instant, new_id: impl FnOnce() -> u64) -> Option<Due> {
        if let Some(since) = self.waiting {
            if now.duration_since(since) < ANSWER_TIME {
                return None;
            }
            self.waiting = None;
            self.next = Some(now);
            self.anew = true;
        }
        if self.next.is_none_or(|next| now < next) {
            return None;
        }
        self.waiting = Some(now);
        if std::mem::take(&mut self.anew) {
            return Some(Due::Subscribe);
        }
        if self.unanswered.len() >= MAX_UNANSWERED {
            self.unanswered.remove(0);
        }
        let id = new_id();
        self.unanswered.push(id);
        self.last = Some(now);
        self.next = None;
        Some(Due::Get(id))
    }

    /// The subscriptions that [`poll`](Self::poll) wanted are made: the request follows at once.
    pub fn subscribed(&mut self, now: Instant) {
        self.waiting = None;
        self.anew = false;
        self.next = Some(now);
    }

    /// Whether this is the answer to one of the requests; the others need none any more.
    pub fn on_answer(&mut self, id: u64) -> bool {
        let is_ours = self.unanswered.contains(&id);
        if is_ours {
            self.unanswered.clear();
            self.waiting = None;
        }
        is_ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is due, the ids counted from 1.
    struct Asking {
        gets: Gets,
        ids: u64,
    }

    impl Asking {
        fn start(now: Instant) -> Self {
            let mut gets = Gets::default();
            gets.ask(now);
            Self { gets, ids: 0 }
        }

        fn poll(&mut self, now: Instant) -> Option<Due> {
            let ids = &mut self.ids;
            self.gets.poll(now, || {
                *ids += 1;
                *ids
            })
        }
    }

    #[test]
    fn a_late_answer_is_asked_for_again_over_new_subscriptions_and_either_answer_will_do() {
        let start = Instant::now();
        for answered in [1, 2] {
            let mut asking = Asking::start(start);
            assert_eq!(asking.poll(start), Some(Due::Get(1)));
            assert_eq!(asking.poll(start + ANSWER_TIME / 2), None);
            let late = start + ANSWER_TIME;
            assert_eq!(asking.poll(late), Some(Due::Subscribe));
            assert_eq!(asking.poll(late), None);
            asking.gets.subscribed(late);
            assert_eq!(asking.poll(late), Some(Due::Get(2)));
            assert!(!asking.gets.on_answer(3));
            assert!(asking.gets.on_answer(answered));
            assert!(!asking.gets.on_answer(3 - answered), "nobody waits for the other any more");
        }
    }

    #[test]
    fn subscriptions_that_are_not_confirmed_are_made_again() {
        let start = Instant::now();
        let mut asking = Asking::start(start);
        assert_eq!(asking.poll(start), Some(Due::Get(1)));
        for round in 1..4 {
            assert_eq!(asking.poll(start + ANSWER_TIME * round), Some(Due::Subscribe));
        }
        assert!(asking.gets.on_answer(1), "an answer may come at any time");
    }

    #[test]
    fn answers_that_never_come_are_not_remembered_without_bound() {
        let start = Instant::now();
        let mut asking = Asking::start(start);
        for round in 0..200 {
            let now = start + ANSWER_TIME * round;
            if asking.poll(now) == Some(Due::Subscribe) {
                asking.gets.subscribed(now);
                asking.poll(now);
            }
        }
        assert_eq!(asking.gets.unanswered.len(), MAX_UNANSWERED);
        assert!(asking.gets.on_answer(asking.ids));
    }

    #[test]
    fn a_quiet_twin_is_looked_at_every_ten_to_fifteen_minutes() {
        let start = Instant::now();
        let mut asking = Asking::start(start);
        asking.poll(start);
        asking.gets.on_answer(1);
        asking.gets.settled(start);
        let minute = Duration::from_secs(60);
        assert_eq!(asking.poll(start + minute * 10 - Duration::from_secs(1)), None);
        assert_eq!(asking.poll(start + minute * 15), Some(Due::Subscribe));
    }

    #[test]
    fn a_doubt_after_an_answer_that_helped_is_asked_about_at_once() {
        let start = Instant::now();
        let mut asking = Asking::start(start);
        for round in 0..20 {
            let now = start + Duration::from_secs(2) * round;
            asking.gets.ask(now);
            assert_eq!(asking.poll(now), Some(Due::Get(u64::from(round) + 1)));
            assert!(asking.gets.on_answer(u64::from(round) + 1));
            asking.gets.settled(now);
        }
    }

    #[test]
    fn a_twin_that_stays_in_doubt_is_asked_for_ever_more_rarely() {
        let start = Instant::now();
        let mut asking = Asking::start(start);
        let mut now = start;
        while now < start + Duration::from_secs(300) {
            if asking.gets.deadline().is_none() {
                asking.gets.ask(now);
            }
            if let Some(Due::Get(id)) = asking.poll(now) {
                asking.gets.on_answer(id);
                asking.gets.ask(now);
            }
            now += Duration::from_millis(100);
        }
        assert!((8..=14).contains(&asking.ids), "{}", asking.ids);
    }
}
