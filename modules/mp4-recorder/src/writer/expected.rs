//! What the next file of an output will take.

use std::time::Duration;

use av_media::mp4::Amount;

use crate::segment::{Expected, Finished};

/// Before anything is known: 60 pictures and 50 frames of sound a second.
pub(super) fn of_a_fast_camera(length: Duration) -> Expected {
    let seconds = length.as_secs() + 5;
    let more = Amount { pictures: seconds * 60, sounds: seconds * 50, fragments: seconds + 16 };
    Expected { index: 0, more, ahead: false }
}

/// What a file of `length` takes where another one took so much: half as much again, because what follows may come in steps
/// that are less even. `None`: it was too short to tell.
pub(super) fn longer(finished: &Finished, length: Duration) -> Option<Expected> {
    let Finished { index, duration, .. } = *finished;
    if duration < Duration::from_secs(2) {
        return None;
    }
    let most = u128::from(index.index) * length.max(duration).as_millis() / duration.as_millis().max(1);
    Some(Expected { index: u64::try_from(most / 2 * 3).unwrap_or(u64::MAX), ..index })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_file_has_room_for_half_as_much_again_as_the_last_one_at_its_length() {
        let minute = Duration::from_secs(60);
        let more = Amount { pictures: 300, sounds: 0, fragments: 16 };
        let index = Expected { index: 5000, more, ahead: true };
        let last = Finished { duration: Duration::from_secs(10), index, ..Finished::default() };
        let next = longer(&last, minute).unwrap();
        assert_eq!((next.index, next.more, next.ahead), (45_000, more, true));
        assert!(longer(&Finished { duration: Duration::from_millis(300), ..last }, minute).is_none());
    }
}
