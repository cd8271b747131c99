//! The text of playlists (RFC 8216bis).

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::shelf::Map;
use super::window::{PartEntry, Segment, Window};
use crate::options::Variant;

/// Stands behind each URI in a text until it is known what comes there.
pub(super) const SUFFIX: char = '\u{1}';
/// A playlist may leave out what is older than that many target durations (§4.4.3.8: at least six).
const SKIP_TARGETS: i64 = 6;

/// Which text of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// All of the playlist.
    Full,
    /// A delta update (§6.2.5.1).
    Delta,
}

/// The texts that a version is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts {
    /// Up to the first segment.
    pub head: String,
    /// The first segment's init segment, where the segment itself does not tell it.
    pub map: String,
    /// Segments that a delta update leaves out, and how many they are.
    pub older: Vec<Arc<str>>,
    pub skipped: usize,
    /// The others.
    pub newer: String,
}

impl Texts {
    pub(super) fn of(window: &mut Window) -> Self {
        let with_parts = if window.lists_parts() { window.first_with_parts() } else { usize::MAX };
        let is_delta = window.lists_parts();
        // Without delta updates the text of older segments is kept all the same.
        let skipped = skippable(window).min(with_parts);
        let older = older(window, skipped);
        let window = &*window;
        let mut map = String::new();
        if let Some((first, false)) =
            window.segments.front().or(window.open.as_ref()).and_then(|one| one.map.as_ref())
        {
            map_tag(&mut map, first);
        }
        let skipped_by_delta = if is_delta { skipped } else { 0 };
        let mut texts =
            Self { head: head(window), map, older, skipped: skipped_by_delta, newer: String::new() };
        let out = &mut texts.newer;
        for (index, segment) in window.segments.iter().enumerate().skip(skipped) {
            finished(out, window, segment, index >= with_parts);
        }
        if window.ended {
            out.push_str("#EXT-X-ENDLIST\n");
        } else if window.lists_parts() {
            let gap = match &window.open {
                Some(open) => {
                    begins(out, open);
                    parts(out, window, &open.parts);
                    open.gap
                }
                None => window.segments.back().is_some_and(|last| last.gap),
            };
            if !gap {
                let name = part_name(window, window.next_part);
                let _ = writeln!(out, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{name}{SUFFIX}\"");
            }
        }
        texts
    }
}

/// Texts of so many segments from the first one on, as far as they have been made before. They never change.
fn older(window: &mut Window, skipped: usize) -> Vec<Arc<str>> {
    let first = window.segments.front().map_or(window.next_segment, |segment| segment.number);
    let end = first.saturating_add(skipped as u64);
    let mut chunks = std::mem::take(&mut window.older);
    if chunks.back().is_some_and(|last| last.numbers.end > end) {
        chunks.clear();
    }
    while chunks.front().is_some_and(|chunk| chunk.numbers.end <= first) {
        chunks.pop_front();
    }
    let make = |numbers: Range<u64>| {
        let mut text = String::new();
        let at = usize::try_from(numbers.start.saturating_sub(first)).unwrap_or(usize::MAX);
        let count = usize::try_from(numbers.end.saturating_sub(numbers.start)).unwrap_or(0);
        for segment in window.segments.iter().skip(at).take(count) {
            finished(&mut text, window, segment, false);
        }
        Chunk { numbers, text: text.into() }
    };
    if let Some(chunk) = chunks.front_mut().filter(|chunk| chunk.numbers.start < first) {
        *chunk = make(first..chunk.numbers.end);
    }
    let mut next = chunks.back().map_or(first, |last| last.numbers.end);
    while next < end {
        let last = chunks.pop_back_if(|last| last.numbers.end.saturating_sub(last.numbers.start) < CHUNK);
        let start = last.map_or(next, |last| last.numbers.start);
        next = end.min(start.saturating_add(CHUNK));
        chunks.push_back(make(start..next));
    }
    let texts = chunks.iter().map(|chunk| chunk.text.clone()).collect();
    window.older = chunks;
    texts
}

/// Text of some segments.
#[derive(Debug)]
pub(super) struct Chunk {
    numbers: Range<u64>,
    text: Arc<str>,
}

/// Segments of one text.
const CHUNK: u64 = 64;

/// A finished segment.
fn finished(out: &mut String, window: &Window, segment: &Segment, with_parts: bool) {
    begins(out, segment);
    if with_parts {
        parts(out, window, &segment.parts);
    }
    if segment.gap {
        out.push_str("#EXT-X-GAP\n");
    }
    let seconds = Seconds(segment.duration);
    let _ = write!(out, "#EXTINF:{seconds},\n{}{SUFFIX}\n", segment_name(window, segment.number));
}

/// `123.m4s`: one number, one name, for ever.
pub(super) fn segment_name(window: &Window, number: u64) -> String {
    let end = if window.shaped.variant == Variant::Mpegts { "ts" } else { "m4s" };
    format!("{number}.{end}")
}

/// `p123.4.m4s`: parts are counted through, so that the next one's name is known whatever segment it is in.
fn part_name(window: &Window, number: u64) -> String {
    format!("p{}.{number}.m4s", window.run)
}

fn head(window: &Window) -> String {
    let numbers = &window.numbers;
    let target = numbers.target;
    let version = match window.shaped.variant {
        // EXT-X-SKIP; EXT-X-GAP.
        Variant::LowLatency => 9,
        Variant::Fmp4 | Variant::Mpegts => 8,
    };
    let mut out = format!("#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-TARGETDURATION:{target}\n");
    let hold_back = target.saturating_mul(3);
    match numbers.part {
        Some(part) => {
            let skip = i64::from(target).saturating_mul(SKIP_TARGETS);
            let part = part.target_nanos();
            let (part, part_hold_back) = (Seconds(part), Seconds(part.saturating_mul(3)));
            let _ = write!(
                out,
                "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL={skip}.0,HOLD-BACK={hold_back}.0,\
                 PART-HOLD-BACK={part_hold_back}\n#EXT-X-PART-INF:PART-TARGET={part}\n"
            );
        }
        None => {
            let _ = writeln!(out, "#EXT-X-SERVER-CONTROL:HOLD-BACK={hold_back}.0");
        }
    }
    let first = window.segments.front().map_or(window.next_segment, |segment| segment.number);
    let discontinuities = window.discontinuities;
    let _ = write!(out, "#EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuities}\n");
    out
}

/// How many segments lie before the border that CAN-SKIP-UNTIL draws.
fn skippable(window: &Window) -> usize {
    let border = window.numbers.target_nanos().saturating_mul(SKIP_TARGETS);
    let mut behind = window.open.as_ref().map_or(0, |open| open.duration);
    let mut newer = 0;
    for segment in window.segments.iter().rev() {
        // It is left out when all of it is behind the border.
        if behind >= border {
            break;
        }
        behind = behind.saturating_add(segment.duration);
        newer += 1;
    }
    window.segments.len().saturating_sub(newer)
}

fn map_tag(out: &mut String, map: &Map) {
    let _ = writeln!(out, "#EXT-X-MAP:URI=\"{}{SUFFIX}\"", map.name);
}

fn begins(out: &mut String, segment: &Segment) {
    if segment.discontinuity {
        out.push_str("#EXT-X-DISCONTINUITY\n");
    }
    if let Some((map, true)) = &segment.map {
        map_tag(out, map);
    }
    if let Some(utc) = segment.utc {
        let _ = writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", Utc(utc));
    }
}

fn parts(out: &mut String, window: &Window, parts: &[PartEntry]) {
    for part in parts {
        let (seconds, name) = (Seconds(part.duration), part_name(window, part.number));
        let independent = if part.independent { ",INDEPENDENT=YES" } else { "" };
        let gap = if part.gap { ",GAP=YES" } else { "" };
        let _ = writeln!(out, "#EXT-X-PART:DURATION={seconds},URI=\"{name}{SUFFIX}\"{independent}{gap}");
    }
}

/// Nanoseconds as seconds with five digits behind the point: a tick at 90 kHz is 0.00001.
struct Seconds(i64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hundredths = self.0.max(0).saturating_add(5_000) / 10_000;
        write!(f, "{}.{:05}", hundredths / 100_000, hundredths % 100_000)
    }
}

/// A time as RFC 3339 has it, to the millisecond.
pub(crate) struct Utc(pub SystemTime);

impl std::fmt::Display for Utc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        // Days since 1 March of year 0, in eras of 400 years.
        let days = days + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let of_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let millis = since.subsec_millis();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_players_read_them() {
        let utc = |millis| Utc(SystemTime::UNIX_EPOCH + Duration::from_millis(millis)).to_string();
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(utc(1_795_805_999_999), "2026-11-27T18:59:59.999Z");
        assert_eq!(utc(4_107_542_399_000), "2100-02-28T23:59:59.000Z");
        assert_eq!(Seconds(2_000_000_000).to_string(), "2.00000");
        assert_eq!(Seconds(33_333_333).to_string(), "0.03333");
    }
}
