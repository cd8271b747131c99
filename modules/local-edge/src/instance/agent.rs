//! Direct methods of `$edgeAgent`, as a device answers them
//! (Azure/iotedge, `Microsoft.Azure.Devices.Edge.Agent.Core/requests` and `logs`).

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::Compression;
use flate2::bufread::GzEncoder;
use jiff::Timestamp;
use regex_lite::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Instance;
use crate::hub::MethodAnswer;
use crate::logs::Log;

/// Its name, in any case.
pub const AGENT: &str = "$edgeAgent";
/// A direct method's payload is 128 KB; edgeAgent leaves some for the rest.
const MAX_LOGS: usize = 127_000;
/// What a line without a level counts as (syslog's `info`).
const DEFAULT_LEVEL: u8 = 6;

/// Why a method is not done.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(
        "no method {0:?}: there are ping, GetModuleLogs, RestartModule, UploadModuleLogs, UploadSupportBundle"
    )]
    Unknown(String),
    #[error("the payload is not what {method} takes: {source}")]
    Payload { method: &'static str, source: serde_json::Error },
    #[error("{0}")]
    Restart(String),
    #[error("{0:?} is no regular expression: {1}")]
    Pattern(String, regex_lite::Error),
    #[error(
        "since and until are a time (2026-01-01T00:00:00Z, or seconds since 1970) or how long ago (10m, 2h, 1d), found {0:?}"
    )]
    Time(String),
    #[error(
        "{0} bytes of logs are more than the {MAX_LOGS} of a direct method: ask for less with tail, since or regex"
    )]
    TooMuch(usize),
    #[error("encoding is \"none\" or \"gzip\", found {0:?}")]
    Encoding(String),
    #[error(
        "{0} sends to a storage account, and there is none here: `local-edge logs` has what it would hold"
    )]
    Upload(&'static str),
}

#[derive(Deserialize)]
struct Restart {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogsRequest {
    items: Vec<Item>,
    #[serde(default)]
    encoding: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    /// `all`, or a regular expression for names of modules.
    id: String,
    #[serde(default)]
    filter: Filter,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    tail: Option<usize>,
    since: Option<Value>,
    until: Option<Value>,
    /// Equal, not up to.
    loglevel: Option<u8>,
    regex: Option<String>,
}

impl Instance {
    /// A direct method of `$edgeAgent`.
    pub fn agent_method(&self, name: &str, payload: Value) -> MethodAnswer {
        match self.do_agent_method(name, payload) {
            Ok(payload) => MethodAnswer { status: 200, payload },
            Err(refused) => MethodAnswer { status: 400, payload: json!({ "message": refused.to_string() }) },
        }
    }

    fn do_agent_method(&self, name: &str, payload: Value) -> Result<Value, Refused> {
        match name.to_ascii_lowercase().as_str() {
            "ping" => Ok(Value::Null),
            "restartmodule" => {
                let restart: Restart = serde_json::from_value(payload)
                    .map_err(|source| Refused::Payload { method: "RestartModule", source })?;
                self.restart(&restart.id).map_err(Refused::Restart)?;
                Ok(Value::Null)
            }
            "getmodulelogs" => {
                let request = serde_json::from_value(payload)
                    .map_err(|source| Refused::Payload { method: "GetModuleLogs", source })?;
                self.module_logs(request)
            }
            "uploadmodulelogs" => Err(Refused::Upload("UploadModuleLogs")),
            "uploadsupportbundle" => Err(Refused::Upload("UploadSupportBundle")),
            _ => Err(Refused::Unknown(name.chars().take(80).collect())),
        }
    }

    fn module_logs(&self, request: LogsRequest) -> Result<Value, Refused> {
        let encoding = request.encoding.unwrap_or_else(|| "none".into());
        let zipped = match encoding.to_ascii_lowercase().as_str() {
            "none" => false,
            "gzip" => true,
            _ => return Err(Refused::Encoding(encoding)),
        };
        let as_json = request.content_type.is_some_and(|kind| kind.eq_ignore_ascii_case("json"));
        let mut answers = Vec::new();
        for item in &request.items {
            let chosen = Chosen::new(&item.filter, Timestamp::now())?;
            let names =
                (!item.id.eq_ignore_ascii_case("all")).then(|| pattern(&item.id, true)).transpose()?;
            for module in self.modules.iter() {
                let name = &module.spec.name;
                if names.as_ref().is_some_and(|names| !names.is_match(name)) {
                    continue;
                }
                let lines = chosen.lines(&module.log);
                let payload = if as_json {
                    let messages = lines.iter().map(|line| self.message(name, line));
                    Value::Array(messages.collect()).to_string()
                } else {
                    lines.iter().fold(String::new(), |all, line| all + line + "\n")
                };
                let (member, payload) = match zipped {
                    true => ("payloadBytes", BASE64.encode(gzip(payload.as_bytes()))),
                    false => ("payload", payload),
                };
                if payload.len() > MAX_LOGS {
                    return Err(Refused::TooMuch(payload.len()));
                }
                answers.push(json!({ "id": name, member: payload }));
            }
        }
        Ok(Value::Array(answers))
    }

    fn message(&self, module: &str, line: &str) -> Value {
        let parsed = Line::parse(line);
        let names = &self.hub.names;
        json!({
            "iothub": names.iothub, "device": names.device, "id": module, "stream": "stderr",
            "loglevel": parsed.level, "text": parsed.text,
            "timestamp": parsed.at.map(|at| format!("{at:.3}")),
        })
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut zipped = Vec::new();
    // Reading from and writing to memory does not fail.
    let _ = GzEncoder::new(bytes, Compression::default()).read_to_end(&mut zipped);
    zipped
}

fn pattern(text: &str, any_case: bool) -> Result<Regex, Refused> {
    let built = RegexBuilder::new(text).case_insensitive(any_case).build();
    built.map_err(|error| Refused::Pattern(text.to_owned(), error))
}

/// A filter, ready to be used.
struct Chosen {
    tail: usize,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    level: Option<u8>,
    text: Option<Regex>,
}

impl Chosen {
    fn new(filter: &Filter, now: Timestamp) -> Result<Self, Refused> {
        let moment = |value: &Option<Value>| value.as_ref().map(|value| moment(value, now)).transpose();
        Ok(Self {
            tail: filter.tail.unwrap_or(usize::MAX),
            since: moment(&filter.since)?,
            until: moment(&filter.until)?,
            level: filter.loglevel,
            text: filter.regex.as_deref().map(|text| pattern(text, false)).transpose()?,
        })
    }

    /// The container engine gives the last lines of a time, and edgeAgent looks through those.
    fn lines(&self, log: &Log) -> Vec<String> {
        let (all, _) = log.tail(usize::MAX);
        let in_time: Vec<&str> = all
            .iter()
            .map(|line| &**line)
            .filter(|line| {
                let at = Line::parse(line).at;
                self.since.is_none_or(|since| at.is_none_or(|at| at >= since))
                    && self.until.is_none_or(|until| at.is_none_or(|at| at <= until))
            })
            .collect();
        let last = in_time.into_iter().rev().take(self.tail).collect::<Vec<_>>().into_iter().rev();
        last.filter(|line| self.fits(line)).map(str::to_owned).collect()
    }

    fn fits(&self, line: &str) -> bool {
        let line = Line::parse(line);
        self.level.is_none_or(|level| level == line.level)
            && self.text.as_ref().is_none_or(|text| text.is_match(line.text))
    }
}

/// `10m` ago, a time, or seconds since 1970.
fn moment(value: &Value, now: Timestamp) -> Result<Timestamp, Refused> {
    let wrong = || Refused::Time(value.to_string());
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
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit: u64 = match text.get(digits.len()..).unwrap_or_default().trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)?;
    now.checked_sub(std::time::Duration::from_secs(seconds)).map_err(|_| wrong())
}

/// A line as edgeAgent reads it: `<6> 2026-01-01 00:00:00.000 +00:00 text`.
struct Line<'a> {
    level: u8,
    at: Option<Timestamp>,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let (level, rest) = match line.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
            Some((digit, rest)) if digit.len() == 1 => match digit.parse() {
                Ok(level) => (level, rest.trim_start()),
                Err(_) => (DEFAULT_LEVEL, line),
            },
            _ => (DEFAULT_LEVEL, line),
        };
        let mut parts = rest.splitn(4, ' ');
        let (date, time, offset) = (parts.next(), parts.next(), parts.next());
        let at = match (date, time, offset) {
            (Some(date), Some(time), Some(offset)) => format!("{date}T{time}{offset}").parse().ok(),
            _ => None,
        };
        // Without its time it is no line of that form: text as it is.
        if at.is_none() {
            return Self { level: DEFAULT_LEVEL, at, text: line };
        }
        Self { level, at, text: parts.next().unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(chosen(json!({"loglevel": 3})), ["two"]);
        assert_eq!(chosen(json!({"loglevel": 6})), ["one", "all"]);
    }

    #[test]
    fn a_pattern_is_held_against_the_text_behind_the_time() {
        assert_eq!(chosen(json!({"regex": "^\\[(ERR|WRN)\\]"})), ["two", "three"]);
        assert_eq!(chosen(json!({"regex": "2026"})), [] as [&str; 0]);
    }

    #[test]
    fn the_last_lines_are_taken_before_they_are_looked_through() {
        assert_eq!(chosen(json!({"tail": 2})), ["four", "all"]);
        assert_eq!(chosen(json!({"tail": 2, "loglevel": 3})), [] as [&str; 0]);
        assert_eq!(chosen(json!({"tail": 3, "loglevel": 4})), ["three"]);
    }

    #[test]
    fn what_is_compressed_is_the_same_when_unpacked() {
        let text = "<6> 2026-01-01 00:00:00.000 +00:00 [INF] - one\n".repeat(1000);
        let zipped = gzip(text.as_bytes());
        assert!(zipped.len() < text.len() / 10);
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(&zipped[..]).read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, text);
    }

    #[test]
    fn times_are_moments_or_so_long_ago() {
        assert_eq!(chosen(json!({"since": "3s"})), ["three", "four", "all"]);
        assert_eq!(
            chosen(json!({"since": "2026-01-01T00:00:01Z", "until": 1_767_225_602})),
            ["two", "three", "all"]
        );
        for wrong in ["soon", "m", "-1h", "99999999999999999999h"] {
            assert!(moment(&wrong.into(), Timestamp::now()).is_err(), "{wrong}");
        }
    }
}
