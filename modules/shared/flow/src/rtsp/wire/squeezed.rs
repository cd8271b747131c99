//! The times of what was sent before a player joined.

use av_media::{Kind, Timestamp};

use crate::rtsp::options::Join;

/// How far pictures are apart that were sent before the player came.
const STEP: i64 = 1_000_000;

/// When each frame since the last place to start is shown to a player that joins now; `None`: it is not sent.
///
/// With `edge`, pictures that are over are squeezed together just before the newest one: a player that maps the burst to
/// the moment of its arrival then is where everybody else is. Their order stays, and so do the times of pictures that
/// are still to be shown, which later ones may come before. Sound begins with what comes next.
pub(super) fn times(
    join: Join,
    frames: impl Iterator<Item = (Kind, Timestamp, Timestamp)> + Clone,
) -> Vec<Option<Timestamp>> {
    let has_pictures = frames.clone().any(|(kind, ..)| kind == Kind::Video);
    if join != Join::Edge || !has_pictures {
        return frames.map(|(_, _, pts)| Some(pts)).collect();
    }
    let pictures = frames.clone().filter(|(kind, ..)| *kind == Kind::Video);
    // No picture to come is shown before the newest is decoded.
    let edge = pictures.clone().map(|(_, dts, _)| dts).max().unwrap_or_default();
    let mut over: Vec<_> = pictures.map(|(_, _, pts)| pts).filter(|pts| *pts <= edge).collect();
    over.sort_unstable();
    frames
        .map(|(kind, _, pts)| {
            if kind != Kind::Video {
                return None;
            }
            match over.binary_search(&pts) {
                Ok(at) => {
                    let behind = i64::try_from(over.len() - 1 - at).unwrap_or(0);
                    let newest = over.last().copied().unwrap_or(edge);
                    // Pictures that are closer together than that stay so.
                    Some(newest.moved(-(behind.saturating_mul(STEP))).max(pts))
                }
                Err(_) => Some(pts),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn pictures(times: &[(i64, i64)]) -> Vec<(Kind, Timestamp, Timestamp)> {
        times.iter().map(|(dts, pts)| (Kind::Video, at(*dts), at(*pts))).collect()
    }

    fn squeezed(frames: &[(Kind, Timestamp, Timestamp)]) -> Vec<Option<i64>> {
        times(Join::Edge, frames.iter().copied())
            .into_iter()
            .map(|time| time.map(Timestamp::millis))
            .collect()
    }

    #[test]
    fn pictures_end_at_the_newest_a_millisecond_apart_and_sound_is_left_out() {
        let mut frames = pictures(&[(0, 0), (40, 40), (80, 80)]);
        frames.insert(1, (Kind::Audio, at(10), at(10)));
        assert_eq!(squeezed(&frames), [Some(78), None, Some(79), Some(80)]);
        let all = times(Join::Instant, frames.iter().copied());
        assert_eq!(all, frames.iter().map(|(_, _, pts)| Some(*pts)).collect::<Vec<_>>());
    }

    #[test]
    fn the_order_of_showing_stays_and_pictures_to_come_keep_their_times() {
        // I P B B P, decoded two pictures before they are shown.
        let frames = pictures(&[(-80, 0), (-40, 120), (0, 40), (40, 80), (80, 240)]);
        let squeezed = squeezed(&frames);
        assert_eq!(squeezed, [Some(78), Some(120), Some(79), Some(80), Some(240)]);
        // What comes next is shown after all that is over.
        assert!(squeezed.iter().flatten().filter(|time| **time <= 80).count() == 3);
    }

    #[test]
    fn sound_alone_keeps_its_times() {
        let frames = [(Kind::Audio, at(5), at(5))];
        assert_eq!(squeezed(&frames), [Some(5)]);
    }
}
