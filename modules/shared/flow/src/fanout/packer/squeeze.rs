//! Joining at the edge: the times of what is past.
//!
//! A player that is sent the GOP so far with its own times keeps that much delay for ever, or maps a burst of pictures to
//! one moment. So all that is past gets times a millisecond apart that end at the newest picture, whose time stays: the
//! next one follows it as if nothing had happened.

use std::collections::BTreeSet;

use av_media::{Frame, Kind, Timestamp};

use super::Unit;

/// What RTMP can just tell apart.
const STEP: i64 = 1_000_000;

/// The pictures of `units` in their order, at their new times.
pub(super) fn squeezed<P>(units: &[Unit<P>]) -> Vec<(Frame, &P)> {
    let pictures = || {
        units.iter().filter_map(|unit| match unit {
            Unit::Frame(frame, .., Some(packed)) if frame.kind == Kind::Video => Some((frame, packed)),
            _ => None,
        })
    };
    let Some(newest) = pictures().map(|(frame, _)| frame.dts).max() else { return Vec::new() };
    // Every time once, in order: so no two become one, none overtakes another, and pts stays behind dts.
    let past: BTreeSet<Timestamp> =
        pictures().flat_map(|(frame, _)| [frame.dts, frame.pts]).filter(|time| *time <= newest).collect();
    let past: Vec<Timestamp> = past.into_iter().collect();
    let moved = |time: Timestamp| match past.binary_search(&time) {
        Ok(rank) => {
            let after = past.len().saturating_sub(rank + 1);
            let steps = i64::try_from(after).unwrap_or(i64::MAX);
            // Never earlier than it was.
            time.max(newest.moved(steps.saturating_mul(-STEP)))
        }
        // What is shown after the newest was decoded.
        Err(_) => time,
    };
    let at = |frame: &Frame| Frame { dts: moved(frame.dts), pts: moved(frame.pts), ..frame.clone() };
    pictures().map(|(frame, packed)| (at(frame), packed)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    fn picture(dts: i64, pts: i64) -> Unit<()> {
        let [dts, pts] = [dts, pts].map(Timestamp::from_millis);
        let frame = Frame { kind: Kind::Video, dts, pts, is_sync: false, data: Default::default() };
        Unit::Frame(frame, Instant::now(), false, Some(()))
    }

    fn times(units: &[Unit<()>]) -> Vec<(i64, i64)> {
        squeezed(units).iter().map(|(frame, ())| (frame.dts.millis(), frame.pts.millis())).collect()
    }

    #[test]
    fn what_is_past_ends_a_millisecond_apart_at_the_newest_picture() {
        let units: Vec<_> = (0..5).map(|index| picture(index * 40, index * 40)).collect();
        assert_eq!(times(&units), [(156, 156), (157, 157), (158, 158), (159, 159), (160, 160)]);
    }

    #[test]
    fn pictures_that_are_shown_in_another_order_keep_it() {
        // I P B B P B B, shown two pictures later.
        let shown = [80, 200, 120, 160, 320, 240, 280];
        let units: Vec<_> = shown.iter().zip(0..).map(|(&pts, index)| picture(index * 40, pts)).collect();
        let at = times(&units);
        assert_eq!(at.iter().map(|(dts, _)| *dts).collect::<Vec<_>>(), [234, 235, 236, 237, 238, 239, 240]);
        assert_eq!(at.iter().map(|(_, pts)| *pts).collect::<Vec<_>>(), [236, 239, 237, 238, 320, 240, 280]);
    }

    #[test]
    fn one_picture_alone_keeps_its_time() {
        assert_eq!(times(&[picture(7, 47)]), [(7, 47)]);
        assert!(times(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn order_is_kept_and_nothing_is_earlier_than_it_was(
            steps in prop::collection::vec((1_i64..100, 0_i64..400), 1..200),
        ) {
            let mut dts = 0;
            let units: Vec<_> = steps
                .iter()
                .map(|&(step, offset)| {
                    dts += step;
                    picture(dts, dts + offset)
                })
                .collect();
            let before: Vec<(i64, i64)> = units
                .iter()
                .map(|unit| (unit.time().millis(), match unit {
                    Unit::Frame(frame, ..) => frame.pts.millis(),
                    Unit::Aside(..) => unreachable!(),
                }))
                .collect();
            let after = times(&units);
            prop_assert_eq!(after.last().unwrap().0, before.last().unwrap().0);
            for (one, (dts, pts)) in after.iter().enumerate() {
                prop_assert!(pts >= dts && *dts >= before[one].0 && *pts >= before[one].1);
                for other in 0..one {
                    prop_assert!(after[other].0 < *dts);
                    prop_assert_eq!(after[other].1.cmp(pts), before[other].1.cmp(&before[one].1));
                }
            }
        }
    }
}
