//! Which lines of a module's log edgeAgent answers with
//! (Azure/iotedge, `Microsoft.Azure.Devices.Edge.Agent.Core/logs`).

use std::time::Duration;

use jiff::Timestamp;
use regex_lite::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::logs::Log;

/// What a line without a level counts as (syslog's `info`).
const DEFAULT_LEVEL: u8 = 6;

/// Why a filter is none.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("{0:?} is not a regular expression: {1}")]
    Pattern(String, regex_lite::Error),
    #[error(
        "since and until are a time (2026-01-01T00:00:00Z, or seconds since 1970) or how long ago (10m, 1 day, 2h 30m), found {0}"
    )]
    Time(String),
}

/// A filter as it is asked for, its names in lower case.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Filter {
    #[serde(deserialize_with = "number")]
    tail: Option<u64>,
    since: Option<Value>,
    until: Option<Value>,
    /// Equal, not up to.
    #[serde(deserialize_with = "number")]
    loglevel: Option<u64>,
    regex: Option<String>,
}

/// A whole number, or the text of one.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Option::<Value>::deserialize(deserializer)? {
        None => Ok(None),
        Some(value) => {
            let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
            let wrong = || serde::de::Error::custom(format!("expected a whole number, found {value}"));
            number.map(Some).ok_or_else(wrong)
        }
    }
}

/// A regular expression, where it can be one.
pub fn pattern(text: &str, any_case: bool) -> Result<Regex, FilterError> {
    let built = RegexBuilder::new(text).case_insensitive(any_case).build();
    built.map_err(|error| FilterError::Pattern(text.to_owned(), error))
}

/// A filter, ready to be used.
pub struct Chosen {
    tail: usize,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    level: Option<u64>,
    text: Option<Regex>,
}

impl Chosen {
    /// Times that say how long ago count from `now`.
    pub fn new(filter: &Filter, now: Timestamp) -> Result<Self, FilterError> {
        let moment = |value: &Option<Value>| value.as_ref().map(|value| moment(value, now)).transpose();
        let tail = filter.tail.and_then(|tail| usize::try_from(tail).ok());
        Ok(Self {
            tail: tail.unwrap_or(usize::MAX),
            since: moment(&filter.since)?,
            until: moment(&filter.until)?,
            level: filter.loglevel,
            text: filter.regex.as_deref().map(|text| pattern(text, false)).transpose()?,
        })
    }

    /// The container engine gives the last lines of a log, those of the time asked for, and edgeAgent looks through
    /// them. Only between two times it is edgeAgent that counts the last lines, when all else is done.
    pub fn lines(&self, log: &Log) -> Vec<String> {
        let (all, _) = log.tail(usize::MAX);
        let mut lines: Vec<&str> = all.iter().map(|line| &**line).collect();
        if self.since.is_none() || self.until.is_none() {
            self.keep_last(&mut lines);
        }
        lines.retain(|line| {
            let line = Line::parse(line);
            self.is_in_time(&line) && self.fits(&line)
        });
        self.keep_last(&mut lines);
        lines.into_iter().map(str::to_owned).collect()
    }

    fn keep_last(&self, lines: &mut Vec<&str>) {
        lines.drain(..lines.len().saturating_sub(self.tail));
    }

    fn is_in_time(&self, line: &Line<'_>) -> bool {
        self.since.is_none_or(|since| line.at.is_none_or(|at| at >= since))
            && self.until.is_none_or(|until| line.at.is_none_or(|at| at <= until))
    }

    fn fits(&self, line: &Line<'_>) -> bool {
        self.level.is_none_or(|level| level == u64::from(line.level))
            && self.text.as_ref().is_none_or(|text| text.is_match(line.text))
    }
}

/// `1h 30m` ago, a time, or seconds since 1970.
fn moment(value: &Value, now: Timestamp) -> Result<Timestamp, FilterError> {
    let wrong = || FilterError::Time(value.to_string());
    if let Some(seconds) = value.as_i64() {
        return Timestamp::from_second(seconds).map_err(|_| wrong());
    }
    let text = value.as_str().ok_or_else(wrong)?.trim();
    if let Ok(seconds) = text.parse::<i64>() {
        return Timestamp::from_second(seconds).map_err(|_| wrong());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let seconds = duration(text).ok_or_else(wrong)?;
    now.checked_sub(Duration::from_secs(seconds)).map_err(|_| wrong())
}

/// Seconds of `90m`, `1 day`, `2 days 3 hours 2 minutes`.
fn duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut seconds: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let (unit, after) =
            after.split_at(after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len()));
        let unit: u64 = match unit {
            "s" | "sec" | "second" | "seconds" => 1,
            "m" | "min" | "minute" | "minutes" => 60,
            "h" | "hr" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86_400,
            "w" | "week" | "weeks" => 7 * 86_400,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = after.trim_start();
    }
    (!text.is_empty()).then_some(seconds)
}

/// A line as edgeAgent reads it: `<6> 2026-01-01 00:00:00.000 +00:00 text`, level and time each where it has them.
pub struct Line<'a> {
    pub level: u8,
    pub at: Option<Timestamp>,
    pub text: &'a str,
}

impl<'a> Line<'a> {
    pub fn parse(line: &'a str) -> Self {
        let level = match line.as_bytes() {
            [b'<', digit @ b'0'..=b'9', b'>', ..] => Some(digit - b'0'),
            _ => None,
        };
        let rest = level.and_then(|_| line.get(3..)).unwrap_or(line).trim_start();
        let mut parts = rest.splitn(4, char::is_whitespace);
        let at = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(date), Some(time), Some(offset), Some(text)) => {
                time_of(date, time, offset).map(|at| (at, text))
            }
            _ => None,
        };
        let (at, text) = at.map_or((None, rest), |(at, text)| (Some(at), text.trim_start()));
        // Where nothing is left, the line is its own text.
        let text = if text.is_empty() { line } else { text };
        Self { level: level.unwrap_or(DEFAULT_LEVEL), at, text }
    }
}

/// Of `2026-01-01`, `00:00:00.000` and `+00:00`, in that form and no other.
fn time_of(date: &str, time: &str, offset: &str) -> Option<Timestamp> {
    let is_form = date.len() == 10 && time.len() == 12 && offset.len() == 6 && offset.starts_with(['+', '-']);
    is_form.then(|| format!("{date}T{time}{offset}").parse().ok())?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn log() -> Log {
        let log = Log::in_memory();
        for (second, line) in
            ["<6> T [INF] - one", "<3> T [ERR] - two", "<4> T [WRN] - three", "<7> T [DBG] - four"]
                .iter()
                .enumerate()
        {
            log.push(&line.replace('T', &format!("2026-01-01 00:00:0{second}.000 +00:00")));
        }
        log.push("no form at all");
        log
    }

    fn chosen(filter: Value) -> Vec<String> {
        let filter: Filter = serde_json::from_value(filter).unwrap();
        let now = "2026-01-01T00:00:05Z".parse().unwrap();
        let words = |line: &String| line.rsplit(' ').next().unwrap().to_owned();
        Chosen::new(&filter, now).unwrap().lines(&log()).iter().map(words).collect()
    }

    #[test]
    fn a_level_means_that_level_and_a_line_without_one_counts_as_information() {
        assert_eq!(chosen(json!({"loglevel": 4})), ["three"]);
        assert_eq!(chosen(json!({"loglevel": "3"})), ["two"]);
        assert_eq!(chosen(json!({"loglevel": 6})), ["one", "all"]);
    }

    #[test]
    fn a_pattern_is_held_against_the_text_behind_the_time() {
        assert_eq!(chosen(json!({"regex": "^\\[(ERR|WRN)\\]"})), ["two", "three"]);
        assert_eq!(chosen(json!({"regex": "2026"})), [] as [&str; 0]);
        assert_eq!(chosen(json!({"regex": "^\\[(ERR|WRN)\\]", "loglevel": 4})), ["three"]);
    }

    #[test]
    fn the_last_lines_are_taken_before_they_are_looked_through() {
        assert_eq!(chosen(json!({"tail": 2})), ["four", "all"]);
        assert_eq!(chosen(json!({"tail": "2"})), ["four", "all"]);
        assert_eq!(chosen(json!({"tail": 0})), [] as [&str; 0]);
        assert_eq!(chosen(json!({"tail": 2, "loglevel": 3})), [] as [&str; 0]);
        assert_eq!(chosen(json!({"tail": 3, "loglevel": 4})), ["three"]);
        assert_eq!(chosen(json!({"tail": 2, "until": "2026-01-01T00:00:01Z"})), ["all"]);
    }

    #[test]
    fn between_two_times_the_last_lines_are_those_that_are_left() {
        let times = json!({"tail": 1, "since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:02Z"});
        assert_eq!(chosen(times.clone()), ["all"]);
        let filter = |name: &str, value: Value| {
            let mut filter = times.clone();
            filter[name] = value;
            chosen(filter)
        };
        assert_eq!(filter("loglevel", json!(3)), ["two"]);
        assert_eq!(filter("regex", json!("^\\[(INF|ERR)\\]")), ["two"]);
    }

    #[test]
    fn times_are_moments_or_so_long_ago() {
        assert_eq!(chosen(json!({"since": "3s"})), ["three", "four", "all"]);
        assert_eq!(
            chosen(json!({"since": "2026-01-01T00:00:01Z", "until": 1_767_225_602})),
            ["two", "three", "all"]
        );
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        for (text, seconds) in [
            ("90m", 5400),
            ("1 day", 86_400),
            ("2 days 3 hours 2 minutes", 183_720),
            ("1h30m", 5400),
            ("1w", 604_800),
        ] {
            let ago = now.as_second() - moment(&text.into(), now).unwrap().as_second();
            assert_eq!(ago, seconds, "{text}");
        }
        for wrong in ["", "soon", "m", "-1h", "1 fortnight", "1h 30", "99999999999999999999h"] {
            assert!(moment(&wrong.into(), Timestamp::now()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_has_level_time_and_text_each_for_itself() {
        let time = "2019-02-14 16:15:35.243 -08:00";
        for (line, level, is_timed, text) in [
            (format!("<3> {time} [INF] - x"), 3, true, "[INF] - x"),
            (format!(" {time} [INF] - x"), 6, true, "[INF] - x"),
            ("<4> no time".to_owned(), 4, false, "no time"),
            ("<4>tight".to_owned(), 4, false, "tight"),
            ("<12> two digits".to_owned(), 6, false, "<12> two digits"),
            (
                "<6> 2019-02-14 16:15:35.243 [INF] - x".to_owned(),
                6,
                false,
                "2019-02-14 16:15:35.243 [INF] - x",
            ),
            ("2019-02-14 16:15:35 +00:00 x".to_owned(), 6, false, "2019-02-14 16:15:35 +00:00 x"),
            (format!("<5> {time} "), 5, true, &format!("<5> {time} ")),
            (String::new(), 6, false, ""),
        ] {
            let found = Line::parse(&line);
            assert_eq!((found.level, found.at.is_some(), found.text), (level, is_timed, text), "{line}");
        }
    }
}
