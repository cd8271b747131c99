//! Who publishes when two want to: takeover without ping-pong.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A displaced publisher that comes back within this time is refused while the new one is live.
const MEMORY: Duration = Duration::from_secs(30);
/// Displaced publishers remembered.
const MAX_REMEMBERED: usize = 16;

/// What tells one encoder from another: encoders reconnect from other ports, so the address alone counts, and
/// what the encoder calls itself tells apart those behind one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) address: IpAddr,
    pub(super) program: String,
}

/// The publishers of one stream, now and lately.
#[derive(Debug, Default)]
pub(super) struct Seats {
    present: Option<Identity>,
    displaced: VecDeque<(Identity, Instant)>,
}

/// Why a second publisher is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Taken {
    #[error("another publisher is live on this stream (onSecondPublisher is reject)")]
    Reject,
    #[error("another publisher took this stream over; try again in 30 s or after it has ended")]
    Displaced,
    #[error("the flow was changed or stopped at this moment; try again")]
    Over,
}

impl Seats {
    /// Decides about `who` while a publisher is `live` or not, and seats it when the answer is yes.
    pub(super) fn enter(
        &mut self,
        who: Identity,
        live: bool,
        takeover: bool,
        now: Instant,
    ) -> Result<(), Taken> {
        self.displaced.retain(|(_, at)| now.saturating_duration_since(*at) < MEMORY);
        if live {
            if !takeover {
                return Err(Taken::Reject);
            }
            if self.displaced.iter().any(|(identity, _)| *identity == who) {
                return Err(Taken::Displaced);
            }
            if let Some(before) = self.present.take() {
                if self.displaced.len() == MAX_REMEMBERED {
                    self.displaced.pop_front();
                }
                self.displaced.push_back((before, now));
            }
        }
        self.present = Some(who);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(last: u8, program: &str) -> Identity {
        Identity { address: IpAddr::from([10, 0, 0, last]), program: program.into() }
    }

    #[test]
    fn a_displaced_publisher_is_refused_while_the_new_one_is_live_and_remembered() {
        let (mut seats, now) = (Seats::default(), Instant::now());
        assert_eq!(seats.enter(who(1, "a"), false, true, now), Ok(()));
        assert_eq!(seats.enter(who(2, "b"), true, true, now), Ok(()));
        assert_eq!(
            seats.enter(who(1, "a"), true, true, now + Duration::from_secs(29)),
            Err(Taken::Displaced)
        );
        // The new one ended: come in.
        assert_eq!(seats.enter(who(1, "a"), false, true, now + Duration::from_secs(29)), Ok(()));
    }

    #[test]
    fn after_half_a_minute_it_may_take_over_again() {
        let (mut seats, now) = (Seats::default(), Instant::now());
        seats.enter(who(1, "a"), false, true, now).unwrap();
        seats.enter(who(2, "b"), true, true, now).unwrap();
        assert_eq!(seats.enter(who(1, "a"), true, true, now + Duration::from_secs(31)), Ok(()));
    }

    #[test]
    fn with_reject_the_first_stays() {
        let (mut seats, now) = (Seats::default(), Instant::now());
        seats.enter(who(1, "a"), false, false, now).unwrap();
        assert_eq!(seats.enter(who(2, "b"), true, false, now), Err(Taken::Reject));
        assert_eq!(seats.enter(who(2, "b"), false, false, now), Ok(()));
    }
}
