//! Reading playlists (RFC 8216bis), with what is wrong in them.

use std::collections::BTreeSet;

use super::attributes::Attributes;
use super::date;
use super::rule::{self, Fault};

/// Lines that are read at most.
const MAX_LINES: usize = 100_000;
/// Tags that a playlist has once at most (§4.4.1.2, §4.4.2, §4.4.3, §4.4.5.2), behind `#EXT-X-`.
const ONCE: [&str; 12] = [
    "VERSION",
    "INDEPENDENT-SEGMENTS",
    "START",
    "TARGETDURATION",
    "MEDIA-SEQUENCE",
    "DISCONTINUITY-SEQUENCE",
    "ENDLIST",
    "PLAYLIST-TYPE",
    "I-FRAMES-ONLY",
    "PART-INF",
    "SERVER-CONTROL",
    "SKIP",
];

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) uri: String,
    pub(super) duration: f64,
    pub(super) independent: bool,
    pub(super) gap: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) uri: String,
    pub(super) duration: f64,
    pub(super) parts: Vec<Part>,
    pub(super) gap: bool,
    /// Its discontinuity number, and whether it is the first of that.
    pub(super) discontinuity: u64,
    pub(super) begins: bool,
    /// Seconds since 1970.
    pub(super) date: Option<f64>,
    pub(super) map: Option<String>,
    /// Encrypted or in byte ranges: what is at its URI is not its media alone, or can't be read.
    pub(super) opaque: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Playlist {
    pub(super) version: u64,
    pub(super) target: Option<f64>,
    pub(super) sequence: u64,
    pub(super) discontinuity_sequence: Option<u64>,
    pub(super) control: Option<Attributes>,
    pub(super) part_target: Option<f64>,
    pub(super) segments: Vec<Segment>,
    /// Parts of the segment that is not finished.
    pub(super) parts: Vec<Part>,
    /// That segment begins with a discontinuity.
    pub(super) open_begins: bool,
    /// The init segment that holds at the end.
    pub(super) map: Option<String>,
    pub(super) hint: Option<String>,
    pub(super) skipped: Option<u64>,
    pub(super) ended: bool,
    /// Variants with their attributes and URIs, and renditions.
    pub(super) variants: Vec<(Attributes, String)>,
    pub(super) renditions: Vec<Attributes>,
    pub(super) byteranges: bool,
    /// The segment that is not finished is opaque.
    pub(super) open_opaque: bool,
    /// EXT-X-INDEPENDENT-SEGMENTS; EXT-X-RENDITION-REPORT; EXT-X-PLAYLIST-TYPE, of which nothing is ever removed.
    pub(super) independent: bool,
    pub(super) reports: bool,
    pub(super) whole: bool,
    pub(super) faults: Vec<Fault>,
}

impl Playlist {
    /// Of an answer's body.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut list = Self::parse(&String::from_utf8_lossy(bytes));
        if std::str::from_utf8(bytes).is_err() {
            list.faults.push(Fault::new(&rule::NOT_UTF8, "bytes that are not text"));
        }
        list
    }

    pub(super) fn parse(text: &str) -> Self {
        Reader::default().read(text)
    }

    pub(super) fn is_multivariant(&self) -> bool {
        !self.variants.is_empty()
    }

    /// An attribute of EXT-X-SERVER-CONTROL.
    pub(super) fn control(&self, name: &str) -> Option<f64> {
        self.control.as_ref()?.number(name)
    }

    pub(super) fn has_parts(&self) -> bool {
        !self.parts.is_empty() || self.segments.iter().any(|segment| !segment.parts.is_empty())
    }

    /// The media sequence number of the segment that is not finished.
    pub(super) fn next_number(&self) -> u64 {
        self.sequence.saturating_add(self.skipped.unwrap_or(0)).saturating_add(self.segments.len() as u64)
    }
}

#[derive(Default)]
struct Reader {
    list: Playlist,
    next: Segment,
    has_duration: bool,
    /// `EXT-X-STREAM-INF` that waits for its URI.
    variant: Option<Attributes>,
    map: Option<String>,
    map_in_range: bool,
    encrypted: bool,
    discontinuities: u64,
    /// Of the tags that may be there once, those that were.
    once: BTreeSet<&'static str>,
}

impl Reader {
    fn read(mut self, text: &str) -> Playlist {
        let bare = text.strip_prefix('\u{feff}');
        if bare.is_some() {
            self.list.faults.push(Fault::new(&rule::BOM, "the text begins with one"));
        }
        let text = bare.unwrap_or(text);
        let mut lines = text.lines().take(MAX_LINES).enumerate();
        if lines.next().is_none_or(|(_, first)| first.trim_end() != "#EXTM3U") {
            self.list.faults.push(Fault::new(&rule::EXTM3U, "the first line is another"));
        }
        for (index, line) in lines {
            let line = line.trim_end();
            if !line.is_empty() && self.line(line).is_none() {
                let shown: String = line.chars().take(120).collect();
                self.list.faults.push(Fault::new(&rule::SYNTAX, format!("line {}: {shown}", index + 1)));
            }
        }
        if self.has_duration {
            self.list.faults.push(Fault::new(&rule::SYNTAX, "EXTINF without a URI at the end"));
        }
        self.list.open_opaque = self.next.opaque || self.encrypted || self.map_in_range;
        self.list.parts = self.next.parts;
        self.list.open_begins = self.next.begins;
        self.list.map = self.map;
        let first = self.list.sequence.saturating_add(self.list.skipped.unwrap_or(0));
        let discontinuity = self.list.discontinuity_sequence.unwrap_or(0);
        for (index, segment) in self.list.segments.iter_mut().enumerate() {
            segment.number = first.saturating_add(index as u64);
            segment.discontinuity = segment.discontinuity.saturating_add(discontinuity);
        }
        self.list
    }

    /// `None` where it can't be read.
    fn line(&mut self, line: &str) -> Option<()> {
        let Some(tag) = line.strip_prefix("#EXT") else {
            return if line.starts_with('#') { Some(()) } else { self.uri(line) };
        };
        let (name, value) = tag.split_once(':').unwrap_or((tag, ""));
        let list = &mut self.list;
        if let Some(tag) = ONCE.into_iter().find(|once| name.strip_prefix("-X-") == Some(*once))
            && !self.once.insert(tag)
        {
            list.faults.push(Fault::new(&rule::TWICE, format!("EXT-X-{tag}")));
        }
        match name {
            "INF" => {
                let duration = value.split_once(',').map_or(value, |(duration, _)| duration);
                self.next.duration = duration.parse().ok().filter(|d: &f64| d.is_finite() && *d >= 0.0)?;
                self.has_duration = true;
            }
            "-X-VERSION" => list.version = value.parse().ok()?,
            "-X-TARGETDURATION" => list.target = Some(value.parse::<u64>().ok()? as f64),
            "-X-MEDIA-SEQUENCE" => list.sequence = value.parse().ok()?,
            "-X-DISCONTINUITY-SEQUENCE" => list.discontinuity_sequence = Some(value.parse().ok()?),
            "-X-SERVER-CONTROL" => list.control = Some(Attributes::read(name, value, &mut list.faults)?),
            "-X-PART-INF" => {
                list.part_target =
                    Some(Attributes::read(name, value, &mut list.faults)?.number("PART-TARGET")?)
            }
            "-X-PART" => {
                let part = Attributes::read(name, value, &mut list.faults)?;
                self.part(&part)?;
            }
            "-X-PRELOAD-HINT" => {
                let hint = Attributes::read(name, value, &mut list.faults)?;
                list.byteranges |= hint.get("BYTERANGE-START").is_some();
                let uri = hint.get("URI")?.to_owned();
                if hint.get("TYPE")? == "PART" {
                    list.hint = Some(uri);
                }
            }
            "-X-SKIP" => {
                list.skipped = Some(
                    Attributes::read(name, value, &mut list.faults)?.get("SKIPPED-SEGMENTS")?.parse().ok()?,
                );
            }
            "-X-GAP" => self.next.gap = true,
            "-X-INDEPENDENT-SEGMENTS" => list.independent = true,
            "-X-PLAYLIST-TYPE" => list.whole = true,
            "-X-DISCONTINUITY" => {
                self.discontinuities += 1;
                self.next.begins = true;
            }
            "-X-MAP" => {
                let map = Attributes::read(name, value, &mut list.faults)?;
                self.map = Some(map.get("URI")?.to_owned());
                self.map_in_range = map.get("BYTERANGE").is_some();
            }
            "-X-BYTERANGE" => self.next.opaque = true,
            "-X-KEY" => {
                self.encrypted = Attributes::read(name, value, &mut list.faults)?.get("METHOD")? != "NONE"
            }
            "-X-PROGRAM-DATE-TIME" => self.next.date = Some(date::seconds(value)?),
            "-X-ENDLIST" => list.ended = true,
            "-X-STREAM-INF" => self.variant = Some(Attributes::read(name, value, &mut list.faults)?),
            "-X-MEDIA" => list.renditions.push(Attributes::read(name, value, &mut list.faults)?),
            "-X-RENDITION-REPORT" => {
                Attributes::read(name, value, &mut list.faults)?;
                list.reports = true;
            }
            "-X-DATERANGE" | "-X-I-FRAME-STREAM-INF" | "-X-START" | "-X-DEFINE" => {
                Attributes::read(name, value, &mut list.faults)?;
            }
            _ => {}
        }
        Some(())
    }

    fn part(&mut self, part: &Attributes) -> Option<()> {
        if self.has_duration {
            self.list.faults.push(Fault::new(&rule::PART_ORDER, format!("part {:?}", part.get("URI"))));
        }
        self.list.byteranges |= part.get("BYTERANGE").is_some();
        self.next.parts.push(Part {
            uri: part.get("URI")?.to_owned(),
            duration: part.number("DURATION")?,
            independent: part.is("INDEPENDENT"),
            gap: part.is("GAP"),
        });
        Some(())
    }

    fn uri(&mut self, uri: &str) -> Option<()> {
        if let Some(variant) = self.variant.take() {
            self.list.variants.push((variant, uri.to_owned()));
            return Some(());
        }
        if !std::mem::take(&mut self.has_duration) {
            self.list.faults.push(Fault::new(&rule::NO_EXTINF, uri));
        }
        let mut segment = std::mem::take(&mut self.next);
        segment.uri = uri.to_owned();
        segment.map.clone_from(&self.map);
        segment.opaque |= self.encrypted || self.map_in_range;
        segment.discontinuity = self.discontinuities;
        self.list.segments.push(segment);
        Some(())
    }
}
