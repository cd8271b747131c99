//! Edit lists (§8.6.6): what of the media is played, when, and how long one loop is.
//!
//! Pure arithmetic on the index; nothing is read here. All of it happens in whole ticks of the track's
//! timescale, and every track's loop begins at the same millisecond, so that the distance of sound and
//! picture never changes from loop to loop.

use std::cmp::Ordering;
use std::num::NonZeroU32;

use super::IgnoredReason;
use super::media_time::MediaTime;
use super::movie::{Edit, MovieTrack};
use super::samples::{Cursor, SampleTable};
use crate::Kind;

const NANOS: NonZeroU32 = NonZeroU32::new(1_000_000_000).unwrap();
/// Samples that all edits of a track may take together, those included that only the decoder needs: this many, and so
/// many times what the track has.
const MAX_TAKEN: u64 = 50_000_000;
const MAX_TIMES_TAKEN: u64 = 32;

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
    extent: Extent,
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
#[derive(Clone, Copy, Debug)]
struct Extent {
    start: MediaTime,
    end: MediaTime,
    dts: MediaTime,
}

impl TrackPlan {
    /// What the edit list shows of a track.
    pub(super) fn of(track: &MovieTrack, movie: Option<NonZeroU32>) -> Result<Self, IgnoredReason> {
        let timescale = track.samples.timescale();
        let windows = windows(&track.edits, movie, timescale);
        let (segments, extent) = cut(&track.samples, track.kind, &windows)?;
        Ok(Self { track: 0, kind: track.kind, timescale, shift: 0, segments, extent })
    }

    /// Refuses edits that take too long to walk, once it is known where each begins: one of a single picture may need
    /// all pictures before it. `count` is what the track has.
    pub(super) fn bound(&self, count: u32) -> Result<(), IgnoredReason> {
        let taken = |segment: &Segment| u64::from(segment.end.saturating_sub(segment.from.index()));
        let most = most_taken(count);
        match self.segments.iter().map(taken).sum::<u64>() > most {
            true => Err(IgnoredReason::Repeated(most)),
            false => Ok(()),
        }
    }
}

impl Presentation {
    /// All tracks together. `None` where nothing is shown for a millisecond.
    pub(super) fn of(mut plans: Vec<TrackPlan>) -> Option<Self> {
        let extents = || plans.iter().map(|plan| plan.extent);
        let start = extents().map(|extent| extent.start).min_by(compare)?;
        let end = extents().map(|extent| extent.end).max_by(compare)?;
        let dts = extents().map(|extent| extent.dts).min_by(compare)?;
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

/// The edit list in ticks of the track. Without one, all media is shown at its composition time. Where it can't be said
/// how long an edit lasts, the first one shows all from where it begins.
fn windows(edits: &[Edit], movie: Option<NonZeroU32>, track: NonZeroU32) -> Vec<Window> {
    let all = |from: i64, offset| Window { from, to: i64::MAX, offset };
    if edits.is_empty() {
        return vec![all(i64::MIN, 0)];
    }
    let Some(movie) = movie else {
        let from = edits.iter().find_map(|edit| edit.media_time).unwrap_or(0).max(0);
        return vec![all(from, from.saturating_neg())];
    };
    let in_track =
        |ticks: u64| MediaTime::new(i64::try_from(ticks).unwrap_or(i64::MAX), movie).rescale(track).ticks;
    let mut at = 0_u64;
    let mut windows = Vec::new();
    for edit in edits {
        if let Some(from) = edit.media_time {
            let length = if edit.duration == 0 { i64::MAX } else { in_track(edit.duration) };
            let to = from.saturating_add(length);
            // One that begins before the media shows it from its start, and is that much shorter: as players do.
            let from = from.max(0);
            windows.push(Window { from, to, offset: in_track(at).saturating_sub(from) });
        }
        at = at.saturating_add(edit.duration);
    }
    windows
}

/// Samples that all edits of a track of so many may take.
fn most_taken(count: u32) -> u64 {
    u64::from(count).saturating_mul(MAX_TIMES_TAKEN).saturating_add(MAX_TAKEN)
}

/// Finds the samples of each window in one walk over the table, which asks each sample of the windows that it may be
/// in, and no others.
fn cut(table: &SampleTable, kind: Kind, windows: &[Window]) -> Result<(Vec<Segment>, Extent), IgnoredReason> {
    let mut found: Vec<Option<Found>> = vec![None; windows.len()];
    let mut by_start: Vec<usize> = (0..windows.len()).collect();
    by_start.sort_by_key(|index| windows.get(*index).map(|window| window.from));
    let mut later = by_start.into_iter().peekable();
    let mut active: Vec<usize> = Vec::new();
    let latest = table.latest_composition();
    let most = most_taken(table.count());
    let mut asked = 0_u64;

    let mut cursor = table.cursor();
    let mut last_sync = cursor;
    loop {
        let here = cursor;
        let Some(sample) = cursor.next(table) else { break };
        // Audio is dropped by whole frames, so it starts at the first that is shown.
        if sample.is_sync || kind == Kind::Audio {
            last_sync = here;
        }
        let end = sample.end();
        // No sample from here on is shown before its dts, and this one not after that.
        let reach = end.max(sample.dts.saturating_add(latest).saturating_add(1));
        let window = |index: usize| windows.get(index).copied();
        while let Some(index) =
            later.next_if(|index| window(*index).is_some_and(|window| window.from < reach))
        {
            active.push(index);
        }
        active.retain(|index| window(*index).is_some_and(|window| window.to > sample.dts));
        asked = asked.saturating_add(active.len() as u64);
        if asked > most {
            return Err(IgnoredReason::Repeated(most));
        }
        for index in &active {
            let (Some(window), Some(found)) = (window(*index), found.get_mut(*index)) else { continue };
            if end <= window.from
                && let Some(found) = found
            {
                found.steady = sample.index + 1;
                found.steady_dts =
                    sample.dts.saturating_add(i64::try_from(sample.duration).unwrap_or(i64::MAX));
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
        windows.iter().zip(found).filter_map(|(window, found)| Some((*window, found?))).collect();
    let extent = extent(&shown, table.timescale()).ok_or(IgnoredReason::EditedAway)?;
    let segment = |(window, found): (Window, Found)| Segment {
        from: found.from,
        shown: found.shown,
        steady: found.steady,
        steady_dts: found.steady_dts,
        visible_from: window.from,
        end: found.end,
        offset: window.offset,
    };
    Ok((shown.into_iter().map(segment).collect(), extent))
}

/// `None`: no window shows anything.
fn extent(shown: &[(Window, Found)], timescale: NonZeroU32) -> Option<Extent> {
    let time = |ticks: i64, window: &Window| ticks.saturating_add(window.offset);
    let at = |ticks| MediaTime::new(ticks, timescale);
    Some(Extent {
        start: at(shown.iter().map(|(window, found)| time(found.start, window)).min()?),
        end: at(shown.iter().map(|(window, found)| time(found.stop, window)).max()?),
        dts: at(shown.iter().map(|(window, found)| time(found.steady_dts, window)).min()?),
    })
}

/// What one window shows.
#[derive(Clone, Copy)]
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
