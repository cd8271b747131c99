//! Edit lists (§8.6.6): what of the media is played, when, and how long one loop is.
//!
//! Pure arithmetic on the index; nothing is read here. All of it happens in whole ticks of the track's
//! timescale, and every track's loop begins at the same millisecond, so that the distance of sound and
//! picture never changes from loop to loop.

use std::cmp::Ordering;
use std::num::NonZeroU32;

use super::movie::{Edit, MovieTrack};
use super::samples::{Cursor, SampleTable};
use super::media_time::MediaTime;
use crate::Kind;

const NANOS: NonZeroU32 = NonZeroU32::new(1_000_000_000).unwrap();

/// What is played in one loop, and its length.
#[derive(Clone, Debug)]
pub struct Presentation {
    period: MediaTime,
    start: MediaTime,
    pub(super) plans: Vec<TrackPlan>,
}

/// One track's part of a loop.
#[derive(Clone, Debug)]
pub(super) struct TrackPlan {
    /// Which of the file's tracks.
    pub(super) track: usize,
    pub(super) kind: Kind,
    pub(super) timescale: NonZeroU32,
    /// Added to presentation time, so that the least dts of all tracks is 0.
    pub(super) shift: i64,
    pub(super) segments: Vec<Segment>,
}

/// The samples of one edit, in decoding order.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Before the first sample that is sent: the last sync sample at or before the first that is shown.
    pub(super) from: Cursor,
    /// The first sample that is shown.
    pub(super) shown: u32,
    /// Behind the last sample that only the decoder needs, and the decoding time there: until then
    /// everything goes out at once, so that hidden pictures take no time.
    pub(super) steady: u32,
    pub(super) steady_dts: i64,
    /// What ends before this composition time is not shown.
    pub(super) visible_from: i64,
    /// Behind the last sample that is shown.
    pub(super) end: u32,
    /// From media time to presentation time.
    pub(super) offset: i64,
}

/// Where a track's part starts and ends in presentation time, and its least dts.
struct Extent {
    start: MediaTime,
    end: MediaTime,
    dts: MediaTime,
}

impl Presentation {
    /// `None` where nothing is shown for a millisecond.
    pub(super) fn of(tracks: &[MovieTrack], movie_timescale: NonZeroU32) -> Option<Self> {
        let mut plans = Vec::new();
        let mut extents = Vec::new();
        for (index, track) in tracks.iter().enumerate() {
            let windows = windows(&track.edits, movie_timescale, track.timescale);
            let kind = track.track.kind();
            if let Some((segments, extent)) = cut(&track.samples, kind, &windows, track.timescale) {
                plans.push(TrackPlan { track: index, kind, timescale: track.timescale, shift: 0, segments });
                extents.push(extent);
            }
        }
        let start = extents.iter().map(|extent| extent.start).min_by(compare)?;
        let end = extents.iter().map(|extent| extent.end).max_by(compare)?;
        let dts = extents.iter().map(|extent| extent.dts).min_by(compare)?;
        for plan in &mut plans {
            plan.shift = dts.rescale(plan.timescale).ticks.saturating_neg();
        }
        // Time in which no track shows anything is not waited for at the start of every loop.
        let period = if start.ticks > 0 {
            let ticks = end.rescale(NANOS).ticks.saturating_sub(start.rescale(NANOS).ticks);
            MediaTime::new(ticks, NANOS)
        } else {
            end
        };
        (period.millis() > 0).then_some(Self { period, start, plans })
    }

    /// The end of the longest track, which is when every track begins again.
    pub const fn period(&self) -> MediaTime {
        self.period
    }

    /// When the first thing is shown, on the timeline of the edit lists.
    pub const fn start(&self) -> MediaTime {
        self.start
    }

    /// When loop `index` begins: `index` periods, rounded once to a whole millisecond. The rounding does
    /// not add up, and as all times inside a loop are counted from here, every loop looks like the first.
    pub fn loop_start(&self, index: u64) -> MediaTime {
        let timescale = i128::from(self.period.timescale.get());
        let scaled = i128::from(index)
            .saturating_mul(self.period.ticks.into())
            .saturating_mul(1000)
            .saturating_add(timescale / 2);
        MediaTime::from_millis(i64::try_from(scaled / timescale).unwrap_or(i64::MAX))
    }
}

/// Media from `from` to `to`, in composition time, is shown at `from + offset`.
#[derive(Clone, Copy, Debug)]
struct Window {
    from: i64,
    to: i64,
    offset: i64,
}

/// The edit list in ticks of the track. Without one, all media is shown at its composition time.
fn windows(edits: &[Edit], movie: NonZeroU32, track: NonZeroU32) -> Vec<Window> {
    if edits.is_empty() {
        return vec![Window { from: i64::MIN, to: i64::MAX, offset: 0 }];
    }
    let in_track =
        |ticks: u64| MediaTime::new(i64::try_from(ticks).unwrap_or(i64::MAX), movie).rescale(track).ticks;
    let mut at = 0_u64;
    let mut windows = Vec::new();
    for edit in edits {
        if let Some(from) = edit.media_time {
            let length = if edit.duration == 0 { i64::MAX } else { in_track(edit.duration) };
            let offset = in_track(at).saturating_sub(from);
            windows.push(Window { from, to: from.saturating_add(length), offset });
        }
        at = at.saturating_add(edit.duration);
    }
    windows
}

/// Finds the samples of each window in one walk over the table.
fn cut(
    table: &SampleTable,
    kind: Kind,
    windows: &[Window],
    timescale: NonZeroU32,
) -> Option<(Vec<Segment>, Extent)> {
    let mut found: Vec<(Window, Option<Found>)> = windows.iter().map(|window| (*window, None)).collect();
    let mut cursor = table.cursor();
    let mut last_sync = cursor;
    loop {
        let here = cursor;
        let Some(sample) = cursor.next(table) else { break };
        // Audio is dropped by whole frames, so it starts at the first that is shown.
        if sample.is_sync || kind == Kind::Audio {
            last_sync = here;
        }
        let end = sample.cts.saturating_add(sample.duration.max(1).into());
        for (window, found) in &mut found {
            if end <= window.from
                && let Some(found) = found
            {
                found.steady = sample.index + 1;
                found.steady_dts = sample.dts.saturating_add(sample.duration.into());
            }
            // An empty sample says that nothing new is shown.
            if sample.size == 0 || end <= window.from || sample.cts >= window.to {
                continue;
            }
            let (start, stop) = (sample.cts.max(window.from), end.min(window.to));
            let found = found.get_or_insert(Found {
                from: last_sync,
                shown: sample.index,
                steady: sample.index,
                steady_dts: sample.dts,
                end: 0,
                start,
                stop,
            });
            found.end = sample.index + 1;
            found.start = found.start.min(start);
            found.stop = found.stop.max(stop);
        }
    }
    let shown: Vec<(Window, Found)> =
        found.into_iter().filter_map(|(window, found)| Some((window, found?))).collect();
    let time = |ticks: i64, window: &Window| ticks.saturating_add(window.offset);
    let at = |ticks| MediaTime::new(ticks, timescale);
    let extent = Extent {
        start: at(shown.iter().map(|(window, found)| time(found.start, window)).min()?),
        end: at(shown.iter().map(|(window, found)| time(found.stop, window)).max()?),
        dts: at(shown.iter().map(|(window, found)| time(found.steady_dts, window)).min()?),
    };
    let segment = |(window, found): (Window, Found)| Segment {
        from: found.from,
        shown: found.shown,
        steady: found.steady,
        steady_dts: found.steady_dts,
        visible_from: window.from,
        end: found.end,
        offset: window.offset,
    };
    Some((shown.into_iter().map(segment).collect(), extent))
}

/// What one window shows.
struct Found {
    from: Cursor,
    shown: u32,
    steady: u32,
    steady_dts: i64,
    end: u32,
    start: i64,
    stop: i64,
}

fn compare(one: &MediaTime, other: &MediaTime) -> Ordering {
    let left = i128::from(one.ticks) * i128::from(other.timescale.get());
    let right = i128::from(other.ticks) * i128::from(one.timescale.get());
    left.cmp(&right)
}
