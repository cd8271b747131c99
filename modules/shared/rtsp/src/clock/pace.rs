//! Whether pictures come at the pace that their stamps say.

use av_media::Timestamp;

pub(super) const MILLION: i64 = 1_000_000;
/// Nanoseconds of arrival that are judged at once.
const WINDOW: i64 = 5_000_000_000;
/// So many windows in a row that say the same are believed: a network that was slow makes up for it.
const ROW: u32 = 3;
/// One part in so many is more than clocks differ.
const LEAST: i64 = 20;
/// One part in so many is more than cameras get wrong: such a stream is no live one, or it stood still.
const MOST: i64 = 3;

/// Stream time and arrival.
type Moment = (Timestamp, Timestamp);

/// Compares the time of pictures with their arrival, and with what sound says of the network.
#[derive(Debug, Default)]
pub(super) struct Pace {
    window: Option<Mark>,
    /// Where the first window of the row began, and whether its pictures were slow.
    row: Option<(Mark, bool)>,
    windows: u32,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    picture: Moment,
    sound: Option<Moment>,
}

/// What pictures are to be put right by.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Off {
    /// Their time ought to pass more slowly by so many millionths.
    pub millionths: i64,
    /// Nanoseconds that they fell behind in the meantime; negative: they are ahead.
    pub behind: i64,
}

/// Nanoseconds of arrival, and by how many more than of stream time.
fn passed(from: Moment, to: Moment) -> (i64, i64) {
    let came = to.1.nanos_since(from.1);
    (came, came.saturating_sub(to.0.nanos_since(from.0)))
}

impl Mark {
    /// Whether pictures were slow from here to `to`; nothing: neither slow nor fast by themselves.
    fn is_slow(&self, to: &Self) -> Option<bool> {
        let (came, late) = passed(self.picture, to.picture);
        if late.abs() <= came / LEAST || late.abs() > came / MOST {
            return None;
        }
        // What holds up sound as well is the network, or a sender with a pace of its own.
        if let (Some(from), Some(to)) = (self.sound, to.sound) {
            let by_sound = passed(from, to).1;
            if by_sound.signum() == late.signum() && by_sound.abs() > late.abs() / 2 {
                return None;
            }
        }
        Some(late > 0)
    }
}

impl Pace {
    /// A picture was given the stream time and came at the arrival of `picture`; `sound` is of the last one that came.
    pub(super) fn picture(&mut self, picture: Moment, sound: Option<Moment>) -> Option<Off> {
        let here = Mark { picture, sound };
        let window = *self.window.get_or_insert(here);
        if passed(window.picture, picture).0 < WINDOW {
            return None;
        }
        self.window = Some(here);
        let is_slow = window.is_slow(&here);
        match (is_slow, self.row) {
            (Some(now), Some((_, before))) if now == before => self.windows += 1,
            _ => {
                self.row = is_slow.map(|is_slow| (window, is_slow));
                self.windows = u32::from(is_slow.is_some());
            }
        }
        let (from, _) = self.row.filter(|_| self.windows >= ROW)?;
        let (came, behind) = passed(from.picture, picture);
        *self = Self::default();
        // Above 0 by far: it is at least two thirds of `came`.
        let stamped = came.saturating_sub(behind).max(1);
        Some(Off { millionths: behind / 1_000 * MILLION / (stamped / 1_000).max(1), behind })
    }
}
