//! What holds of each version of a playlist by itself.

use super::playlist::{Part, Playlist};
use super::rule::{self, Fault, Rule};

/// Durations are printed with so many seconds of doubt.
pub(super) const PRINTED: f64 = 0.0011;

/// All faults of one version.
pub(super) fn playlist(list: &Playlist) -> Vec<Fault> {
    let mut faults = list.faults.clone();
    if list.is_multivariant() {
        multivariant(list, &mut faults);
        return faults;
    }
    let mut add = |rule: &'static Rule, detail: String| faults.push(Fault::new(rule, detail));
    let Some(target) = list.target else {
        add(&rule::NO_TARGET, "no EXT-X-TARGETDURATION".into());
        return faults;
    };
    let needs = match list {
        _ if list.skipped.is_some() => 9,
        _ if list.segments.iter().any(|segment| segment.gap) => 8,
        _ if list.segments.iter().any(|segment| segment.map.is_some()) => 6,
        _ if list.segments.iter().any(|segment| segment.duration.fract() != 0.0) => 3,
        _ => 1,
    };
    if list.version.max(1) < needs {
        add(&rule::VERSION, format!("version {} where {needs} is needed", list.version));
    }
    for segment in &list.segments {
        let (number, duration) = (segment.number, segment.duration);
        if duration.round() > target {
            add(&rule::EXTINF_OVER_TARGET, format!("segment {number}: {duration} s of {target} s"));
        }
        if duration == 0.0 {
            add(&rule::EXTINF_ZERO, format!("segment {number}"));
        }
        let path = segment.uri.split('?').next().unwrap_or_default();
        let is_fragment = [".m4s", ".mp4", ".cmfv", ".cmfa", ".m4v"].iter().any(|end| path.ends_with(end));
        // A delta update may leave it with the segments that it skips.
        if is_fragment && segment.map.is_none() && list.skipped.is_none() {
            add(&rule::NO_MAP, format!("segment {number}: {path}"));
        }
        let parts: f64 = segment.parts.iter().map(|part| part.duration).sum();
        // The part of a picture that is late can't be listed as long as it is. From a second on hls.js moves its timeline.
        let doubt = 1.0 + PRINTED * (segment.parts.len() + 1) as f64;
        if !segment.parts.is_empty() && (parts - duration).abs() > doubt {
            add(&rule::PART_SUM, format!("segment {number}: parts of {parts:.4} s, EXTINF {duration} s"));
        }
    }
    let begins = list.segments.iter().filter(|segment| segment.begins);
    if list.discontinuity_sequence.is_none() && begins.clone().count() > 0 {
        add(&rule::NO_DISCONTINUITY_SEQUENCE, "with EXT-X-DISCONTINUITY".into());
    }
    if list.segments.iter().any(|segment| segment.date.is_some()) {
        for segment in begins.filter(|segment| segment.date.is_none() && !segment.gap) {
            add(&rule::NO_DATE_AFTER, format!("segment {}", segment.number));
        }
    }
    match list.control("HOLD-BACK") {
        None if !list.ended => add(&rule::NO_HOLD_BACK, "no HOLD-BACK".into()),
        Some(back) if back + PRINTED < 3.0 * target => {
            add(&rule::HOLD_BACK, format!("{back} s, target {target} s"));
        }
        _ => {}
    }
    if let Some(until) = list.control("CAN-SKIP-UNTIL").filter(|until| until + PRINTED < 6.0 * target) {
        add(&rule::CAN_SKIP, format!("{until} s, target {target} s"));
    }
    if list.byteranges {
        add(&rule::PART_BYTERANGE, "a part or hint with a byte range".into());
    }
    gaps(list, target, &mut faults);
    if list.has_parts() && !list.ended {
        parts(list, &mut faults);
    }
    faults
}

/// A gap is nothing that can be played: it does no harm where players are past it when they begin, three target durations
/// behind live or, once it has ended, with the first segment. A delta update does not say what it leaves out.
fn gaps(list: &Playlist, target: f64, faults: &mut Vec<Fault>) {
    let Some(first) = list.segments.first().filter(|_| list.skipped.is_none()) else { return };
    let media = || list.segments.iter().filter(|segment| !segment.gap);
    let seconds: f64 = media().map(|segment| segment.duration).sum();
    if media().next().is_none() && list.parts.iter().all(|part| part.gap) {
        let count = list.segments.len();
        faults.push(Fault::new(&rule::ONLY_GAPS, format!("{count} segments from {}", first.number)));
    } else if first.gap && (list.ended || seconds + PRINTED < 3.0 * target) {
        let detail = format!("{seconds:.3} s of media behind the gap {}", first.number);
        faults.push(Fault::new(&rule::GAPS_IN_FRONT, detail));
    }
}

fn parts(list: &Playlist, faults: &mut Vec<Fault>) {
    let mut add = |rule: &'static Rule, detail: String| faults.push(Fault::new(rule, detail));
    if list.segments.is_empty() && list.skipped.is_none() {
        add(&rule::NO_FINISHED, "parts alone".into());
    }
    if list.next_number() == 1 {
        add(&rule::FROM_ZERO, "the only segment is 0".into());
    }
    if !list.control.as_ref().is_some_and(|control| control.is("CAN-BLOCK-RELOAD")) {
        add(&rule::NO_SERVER_CONTROL, "parts without CAN-BLOCK-RELOAD=YES".into());
    }
    // Of silence there is nothing to fetch early.
    let last = list.segments.iter().flat_map(|segment| &segment.parts).chain(&list.parts).next_back();
    if list.hint.is_none() && !last.is_some_and(|part| part.gap) {
        add(&rule::NO_HINT, "no EXT-X-PRELOAD-HINT of a part".into());
    }
    let Some(target) = list.part_target else {
        add(&rule::NO_PART_INF, "no EXT-X-PART-INF".into());
        return;
    };
    match list.control("PART-HOLD-BACK") {
        None => add(&rule::NO_PART_HOLD_BACK, "no PART-HOLD-BACK".into()),
        Some(back) if back + PRINTED < 2.0 * target => {
            add(&rule::PART_HOLD_BACK, format!("{back} s, PART-TARGET {target} s"));
        }
        Some(_) => {}
    }
    let all = || list.segments.iter().flat_map(|segment| &segment.parts).chain(&list.parts);
    for part in all().filter(|part| part.duration > target) {
        add(&rule::PART_OVER_TARGET, format!("{}: {} s of {target} s", part.uri, part.duration));
    }
    let is_short = |part: &&Part| !part.gap && part.duration + PRINTED < 0.85 * target;
    let but_last = |parts: &[Part]| parts.len().saturating_sub(1);
    let inner = list.segments.iter().flat_map(|segment| segment.parts.iter().take(but_last(&segment.parts)));
    // Of the open segment nobody knows yet which part is the last.
    for part in inner.chain(list.parts.iter().take(but_last(&list.parts))).filter(is_short) {
        add(&rule::PART_TOO_SHORT, format!("{}: {} s of {target} s", part.uri, part.duration));
    }
    if all().any(|part| !part.gap) && !all().any(|part| part.independent) {
        add(&rule::NOT_INDEPENDENT, "no part with INDEPENDENT=YES is listed".into());
    }
}

fn multivariant(list: &Playlist, faults: &mut Vec<Fault>) {
    for (attributes, uri) in &list.variants {
        if attributes.number("BANDWIDTH").is_none() {
            faults.push(Fault::new(&rule::NO_BANDWIDTH, uri));
        }
        if let Some(rate) =
            attributes.number("FRAME-RATE").filter(|rate| !(0.0..=rule::MOST_PICTURES).contains(rate))
        {
            faults.push(Fault::new(&rule::ABSURD_FRAME_RATE, format!("{uri}: {rate}")));
        }
        match attributes.get("CODECS").filter(|codecs| !codecs.is_empty()) {
            None => faults.push(Fault::new(&rule::NO_CODECS, uri)),
            Some(codecs) if codecs.split(',').any(|codec| codec.trim() == "opus") => {
                faults.push(Fault::new(&rule::OPUS, codecs));
            }
            Some(codecs) if codecs.contains("hev1") => faults.push(Fault::new(&rule::HEV1, codecs)),
            Some(_) => {}
        }
    }
}
