//! `name`: what files are called in the store.

use std::fmt;
use std::time::SystemTime;

use jiff::tz::TimeZone;

/// Where a document says nothing.
pub const DEFAULT: &str = "{device}/{flow}/%Y/%m/%d/{flow}-%Y%m%dT%H%M%S.%3fZ.mp4";
/// The same on a pattern, where each instance needs names of its own.
pub const DEFAULT_OF_PATTERN: &str = "{device}/{flow}/{match}/%Y/%m/%d/{match}-%Y%m%dT%H%M%S.%3fZ.mp4";
/// What a store takes: Azure's blob names end there.
const MAX_BYTES: usize = 1024;
/// What file systems take in one segment.
const MAX_SEGMENT: usize = 255;
/// Times that are longer than their fields, and a number.
const GROWS: usize = 24;
/// The name of an instance, with a character behind its last dot.
const MAX_MATCH: usize = 65;
/// `-event-ID`.
const OF_AN_EVENT: usize = 72;
/// What is left for a name with everything filled in, and for each of its segments.
const MOST: usize = MAX_BYTES - GROWS - OF_AN_EVENT;
const MOST_OF_SEGMENT: usize = MAX_SEGMENT - GROWS;

/// A name with fields in it, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTemplate(String);

/// Why a text is no such name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Players and browsers go by it.
    #[error("a name must end in .mp4")]
    Extension,
    /// A field that there is none of.
    #[error(
        "{0} is not a field; the fields are {{device}} {{module}} {{flow}} {{match}} %Y %m %d %H %M %S \
             %3f %%"
    )]
    Field(String),
    /// What would lead out of the store, or be another name there.
    #[error("no segment of a name may be empty, `.` or `..`, or end in a dot")]
    Segment,
    /// What stores change on their own or can't hold.
    #[error("a name can't contain backslashes or control characters")]
    Character,
    /// Longer than stores take.
    #[error(
        "a name with its fields filled in can have at most {MOST} bytes, and each of its segments \
             {MOST_OF_SEGMENT}"
    )]
    Length,
}

/// What stands in place of fields, times apart.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// `{device}`.
    pub device: &'a str,
    /// `{module}`.
    pub module: &'a str,
    /// `{flow}`.
    pub flow: &'a str,
}

enum Part<'a> {
    Text(&'a str),
    Field(&'a str),
    Time(&'a str),
}

fn parts(text: &str) -> Result<Vec<Part<'_>>, NameError> {
    const TIMES: [&str; 8] = ["%Y", "%m", "%d", "%H", "%M", "%S", "%3f", "%%"];
    const FIELDS: [&str; 4] = ["{device}", "{module}", "{flow}", "{match}"];
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let at = rest.find(['%', '{', '}']).unwrap_or(rest.len());
        let (before, after) = rest.split_at(at);
        if !before.is_empty() {
            parts.push(Part::Text(before));
        }
        if after.is_empty() {
            break;
        }
        let time = TIMES.iter().find(|time| after.starts_with(**time));
        let field = FIELDS.iter().find(|field| after.starts_with(**field));
        let taken = match (time, field) {
            (Some(time), _) => {
                parts.push(Part::Time(time));
                time.len()
            }
            (None, Some(field)) => {
                parts.push(Part::Field(field));
                field.len()
            }
            (None, None) => return Err(NameError::Field(after.chars().take(8).collect())),
        };
        rest = after.get(taken..).unwrap_or_default();
    }
    Ok(parts)
}

impl NameTemplate {
    /// Checks a name as a document has it.
    ///
    /// # Errors
    /// What no store would take, or what would be another name there.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if !text.ends_with(".mp4") {
            return Err(NameError::Extension);
        }
        if text.contains('\\') || text.contains(char::is_control) {
            return Err(NameError::Character);
        }
        parts(text)?;
        let stem = text.strip_suffix(".mp4").unwrap_or_default();
        let file = stem.rsplit('/').next().unwrap_or_default();
        if file.is_empty() || text.split('/').any(|segment| segment.is_empty() || segment.ends_with('.')) {
            return Err(NameError::Segment);
        }
        // What it is when it is filled in shows then.
        if text.len() > MAX_BYTES {
            return Err(NameError::Length);
        }
        Ok(Self(text.to_owned()))
    }

    /// The start and nothing else.
    pub fn plain() -> Self {
        Self("%Y%m%dT%H%M%S.%3fZ.mp4".into())
    }

    /// A name in which nothing is filled in any more.
    pub fn literal(name: &str) -> Self {
        Self(literal(name).replace(['{', '}'], "_"))
    }

    /// The same for the clip of an event.
    pub fn of_event(&self, id: &str) -> Self {
        Self::parse(&of_event(&self.0, id)).unwrap_or_else(|_| Self::plain())
    }

    /// Whether a name depends on the time.
    pub fn has_times(&self) -> bool {
        parts(&self.0)
            .unwrap_or_default()
            .iter()
            .any(|part| matches!(part, Part::Time(time) if *time != "%%"))
    }

    /// As a pattern has it: `*` is {match}, as in URLs.
    pub fn of_pattern(&self) -> Self {
        Self(self.0.replace('*', "{match}"))
    }

    /// Whether it tells the instances of a pattern apart.
    pub fn has_match(&self) -> bool {
        self.0.contains("{match}")
    }

    /// The same with one instance's name in it.
    pub fn of_instance(&self, name: &str) -> Self {
        let filled = self.0.replace("{match}", &literal(name));
        // Stores take a dot at the end of a segment away.
        let segments = filled.split('/');
        let kept =
            segments.map(|segment| format!("{segment}{}", if segment.ends_with('.') { "_" } else { "" }));
        Self(kept.collect::<Vec<_>>().join("/"))
    }

    /// The same with everything but times filled in.
    ///
    /// # Errors
    /// It has become too long.
    pub fn filled(&self, fields: Fields<'_>) -> Result<Self, NameError> {
        let mut filled = String::new();
        for part in parts(&self.0)? {
            match part {
                Part::Text(text) | Part::Time(text) => filled.push_str(text),
                Part::Field("{device}") => filled.push_str(&literal(&safe(fields.device))),
                Part::Field("{module}") => filled.push_str(&literal(&safe(fields.module))),
                Part::Field("{flow}") => filled.push_str(&literal(fields.flow)),
                Part::Field(other) => filled.push_str(other),
            }
        }
        let longest = Self(filled.replace("{match}", &"x".repeat(MAX_MATCH))).at(SystemTime::UNIX_EPOCH);
        let too_long =
            longest.len() > MOST || longest.split('/').any(|segment| segment.len() > MOST_OF_SEGMENT);
        if too_long { Err(NameError::Length) } else { Ok(Self(filled)) }
    }

    /// The name of what began at that time.
    pub fn at(&self, start: SystemTime) -> String {
        let start = jiff::Timestamp::try_from(start).unwrap_or_default().to_zoned(TimeZone::UTC);
        let mut name = String::new();
        for part in parts(&self.0).unwrap_or_default() {
            match part {
                Part::Text(text) | Part::Field(text) => name.push_str(text),
                Part::Time("%Y") => name.push_str(&format!("{:04}", start.year())),
                Part::Time("%m") => name.push_str(&format!("{:02}", start.month())),
                Part::Time("%d") => name.push_str(&format!("{:02}", start.day())),
                Part::Time("%H") => name.push_str(&format!("{:02}", start.hour())),
                Part::Time("%M") => name.push_str(&format!("{:02}", start.minute())),
                Part::Time("%S") => name.push_str(&format!("{:02}", start.second())),
                Part::Time("%3f") => name.push_str(&format!("{:03}", start.millisecond())),
                Part::Time(_) => name.push('%'),
            }
        }
        name
    }

    /// As text, for what is kept.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `name` with `-2`, `-3`, ... before its extension.
pub fn numbered(name: &str, number: u32) -> String {
    let stem = name.strip_suffix(".mp4").unwrap_or(name);
    if number < 2 { name.to_owned() } else { format!("{stem}-{number}.mp4") }
}

/// The number that `name` has among those of `first`; `None`: it is none of them.
pub fn number_of(first: &str, name: &str) -> Option<u32> {
    if name == first {
        return Some(1);
    }
    let stem = first.strip_suffix(".mp4").unwrap_or(first);
    let number = name.strip_prefix(stem)?.strip_prefix('-')?.strip_suffix(".mp4")?.parse().ok()?;
    (number > 1 && numbered(first, number) == name).then_some(number)
}

/// A name that leaves room for `more` bytes in its last segment: what is too long of that is cut in front of the extension.
pub fn shortened(name: &str, more: usize) -> String {
    let (folders, file) = name.rsplit_once('/').map_or(("", name), |(folders, file)| (folders, file));
    let stem = file.strip_suffix(".mp4").unwrap_or(file);
    let most = MAX_SEGMENT.saturating_sub(more + ".mp4".len());
    if stem.len() <= most {
        return name.to_owned();
    }
    let end = (0..=most).rev().find(|at| stem.is_char_boundary(*at)).unwrap_or(0);
    let kept = stem.get(..end).unwrap_or_default();
    let slash = if folders.is_empty() { "" } else { "/" };
    format!("{folders}{slash}{kept}.mp4")
}

/// `name` of the clip of an event, which is told from all others by the id.
pub fn of_event(name: &str, id: &str) -> String {
    let behind = format!("-event-{id}");
    let name = shortened(name, behind.len() + GROWS);
    format!("{}{behind}.mp4", name.strip_suffix(".mp4").unwrap_or(&name))
}

/// A text in which nothing is a field any more.
fn literal(text: &str) -> String {
    text.replace('%', "%%")
}

/// A device or module id as one segment that is the same in every store.
fn safe(id: &str) -> String {
    let kept = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '=' | '+');
    let name: String = id.chars().map(|c| if kept(c) { c } else { '_' }).take(128).collect();
    let name = name.trim_end_matches('.');
    if name.is_empty() { "_".into() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const FIELDS: Fields<'_> = Fields { device: "gate#1%", module: "recorder", flow: "front" };

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_323_045_067)
    }

    #[test]
    fn the_default_name_is_the_start_in_utc() {
        let name = NameTemplate::parse(DEFAULT).unwrap().filled(FIELDS).unwrap().at(start());
        assert_eq!(name, "gate_1_/front/2026/01/02/front-20260102T030405.067Z.mp4");
    }

    #[test]
    fn every_field_is_filled_and_a_percent_sign_is_one() {
        let template = NameTemplate::parse("{module}/{match}/100%%-%H.%M.mp4").unwrap();
        assert!(template.has_match());
        let name = template.of_instance("a%Yb").filled(FIELDS).unwrap().at(start());
        assert_eq!(name, "recorder/a%Yb/100%-03.04.mp4");
    }

    #[test]
    fn an_instance_whose_name_ends_in_a_dot_has_files_of_a_name_that_stores_leave_alone() {
        let template = NameTemplate::parse("{match}/{match}x/%H.mp4").unwrap();
        assert_eq!(template.of_instance("a.").as_str(), "a._/a.x/%H.mp4");
        assert_eq!(template.of_instance("...").as_str(), "..._/...x/%H.mp4");
        let long = NameTemplate::parse(&format!("{}-{{match}}.mp4", "x".repeat(180))).unwrap();
        assert_eq!(long.filled(FIELDS), Err(NameError::Length));
    }

    #[test]
    fn what_no_store_takes_is_refused_with_the_reason() {
        for (text, error) in [
            ("a.mov", NameError::Extension),
            ("%y.mp4", NameError::Field("%y.mp4".into())),
            ("{flow.mp4", NameError::Field("{flow.mp".into())),
            ("50%.mp4", NameError::Field("%.mp4".into())),
            ("/a.mp4", NameError::Segment),
            ("a//b.mp4", NameError::Segment),
            ("a/../b.mp4", NameError::Segment),
            ("a./b.mp4", NameError::Segment),
            ("a/.mp4", NameError::Segment),
            (".mp4", NameError::Segment),
            ("a\\b.mp4", NameError::Character),
            ("a\nb.mp4", NameError::Character),
        ] {
            assert_eq!(NameTemplate::parse(text), Err(error), "{text}");
        }
        assert_eq!(NameTemplate::parse(&format!("{}.mp4", "x".repeat(1100))), Err(NameError::Length));
    }

    #[test]
    fn a_clip_of_a_long_name_has_one_that_every_store_takes() {
        let long = format!("a/{}.mp4", "\u{e9}".repeat(115));
        let name = of_event(&long, &"i".repeat(64));
        assert!(name.starts_with("a/\u{e9}") && name.ends_with("iii.mp4"), "{name}");
        assert!(name.len() - 2 <= MOST_OF_SEGMENT && name.len() > 200, "{}", name.len());
        assert_eq!(of_event("a/b.mp4", "x"), "a/b-event-x.mp4");
    }

    #[test]
    fn a_second_of_a_name_has_its_number_before_the_extension() {
        assert_eq!((numbered("a/b.mp4", 1), numbered("a/b.mp4", 2)), ("a/b.mp4".into(), "a/b-2.mp4".into()));
        for (name, number) in [
            ("a/b.mp4", Some(1)),
            ("a/b-3.mp4", Some(3)),
            ("a/b-03.mp4", None),
            ("a/b-1.mp4", None),
            ("a/c.mp4", None),
        ] {
            assert_eq!(number_of("a/b.mp4", name), number, "{name}");
        }
    }
}
