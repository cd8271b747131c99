//! Direct methods of `$edgeAgent`, as a device answers them
//! (Azure/iotedge, `Microsoft.Azure.Devices.Edge.Agent.Core/requests`).

mod filter;

use std::collections::BTreeSet;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::Compression;
use flate2::bufread::GzEncoder;
use jiff::Timestamp;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::Instance;
use crate::hub::MethodAnswer;
use crate::process::ProcessState;
use filter::{Chosen, Filter, FilterError, Line, pattern};

/// Its name, in any case.
pub const AGENT: &str = "$edgeAgent";
/// A direct method's payload is 128 KB; edgeAgent leaves some for the rest.
const MAX_LOGS: usize = 127_000;

/// Why a method is not done.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(
        "no method {0:?}: there are ping, GetModuleLogs, RestartModule, UploadModuleLogs, UploadSupportBundle"
    )]
    Unknown(String),
    #[error("the payload does not fit {method}: {source}")]
    Payload { method: &'static str, source: serde_json::Error },
    #[error("the payload's schemaVersion is \"1.0\", found {0:?}")]
    SchemaVersion(String),
    #[error("{0}")]
    Restart(String),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(
        "{0} bytes of logs are more than the {MAX_LOGS} of a direct method: ask for less with tail, since or regex"
    )]
    TooMuch(usize),
    #[error("encoding is \"none\" or \"gzip\", found {0:?}")]
    Encoding(String),
    #[error("contentType is \"text\" or \"json\", found {0:?}")]
    ContentType(String),
    #[error(
        "{0} sends to a storage account, and there is none here: `local-edge logs` has what it would hold"
    )]
    Upload(&'static str),
}

impl Refused {
    /// 400 for what is asked wrongly, 500 for what can't be done.
    const fn status(&self) -> u16 {
        match self {
            Self::Restart(_) | Self::SchemaVersion(_) => 500,
            _ => 400,
        }
    }
}

#[derive(Deserialize)]
struct Restart {
    schemaversion: String,
    id: String,
}

#[derive(Deserialize)]
struct LogsRequest {
    schemaversion: String,
    #[serde(deserialize_with = "one_or_several")]
    items: Vec<Item>,
    encoding: Option<String>,
    contenttype: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    /// `all`, or a regular expression for names of modules.
    id: String,
    filter: Option<Filter>,
}

/// One alone needs no list.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Item>, D::Error> {
    let items = match Value::deserialize(deserializer)? {
        Value::Array(items) => items,
        one => vec![one],
    };
    items.into_iter().map(|item| serde_json::from_value(item).map_err(D::Error::custom)).collect()
}

impl Instance {
    /// A direct method of `$edgeAgent`.
    pub fn agent_method(&self, name: &str, payload: Value) -> MethodAnswer {
        match self.do_agent_method(name, payload) {
            Ok(payload) => MethodAnswer { status: 200, payload },
            Err(refused) => {
                MethodAnswer { status: refused.status(), payload: json!({ "message": refused.to_string() }) }
            }
        }
    }

    fn do_agent_method(&self, name: &str, payload: Value) -> Result<Value, Refused> {
        match name.to_ascii_lowercase().as_str() {
            "ping" => Ok(Value::Null),
            "restartmodule" => {
                let restart: Restart = read("RestartModule", payload)?;
                check_version(&restart.schemaversion)?;
                self.restart_running(&restart.id).map_err(Refused::Restart)?;
                Ok(Value::Null)
            }
            "getmodulelogs" => {
                let request: LogsRequest = read("GetModuleLogs", payload)?;
                check_version(&request.schemaversion)?;
                self.module_logs(request)
            }
            "uploadmodulelogs" => Err(Refused::Upload("UploadModuleLogs")),
            "uploadsupportbundle" => Err(Refused::Upload("UploadSupportBundle")),
            _ => Err(Refused::Unknown(name.chars().take(80).collect())),
        }
    }

    /// edgeAgent restarts what runs, and nothing else.
    fn restart_running(&self, name: &str) -> Result<(), String> {
        let module = self.modules.iter().find(|module| module.spec.name == name);
        match module.map(|module| module.status().state) {
            Some(ProcessState::Stopped | ProcessState::Ended { .. } | ProcessState::BackOff { .. }) => {
                Err(format!("{name} can't be restarted because it is not running"))
            }
            _ => self.restart(name),
        }
    }

    fn module_logs(&self, request: LogsRequest) -> Result<Value, Refused> {
        let is = |given: &Option<String>, name: &str| {
            given.as_ref().is_some_and(|given| given.eq_ignore_ascii_case(name))
        };
        let zipped = is(&request.encoding, "gzip");
        let as_json = is(&request.contenttype, "json");
        if let Some(other) = request.encoding.filter(|given| !zipped && !given.eq_ignore_ascii_case("none")) {
            return Err(Refused::Encoding(other));
        }
        if let Some(other) =
            request.contenttype.filter(|given| !as_json && !given.eq_ignore_ascii_case("text"))
        {
            return Err(Refused::ContentType(other));
        }
        let (mut answers, mut size) = (Vec::new(), 0_usize);
        // The first item that a module's name fits counts.
        let mut answered = BTreeSet::new();
        for item in request.items {
            let chosen = Chosen::new(&item.filter.unwrap_or_default(), Timestamp::now())?;
            let names =
                (!item.id.eq_ignore_ascii_case("all")).then(|| pattern(&item.id, true)).transpose()?;
            for module in self.modules.iter() {
                let name = &module.spec.name;
                if names.as_ref().is_some_and(|names| !names.is_match(name)) || !answered.insert(name) {
                    continue;
                }
                let lines = chosen.lines(&module.log);
                let logs = if as_json {
                    let messages = lines.iter().map(|line| self.message(name, line));
                    Value::Array(messages.collect()).to_string()
                } else {
                    lines.iter().fold(String::new(), |all, line| all + line + "\n")
                };
                answers.push(if zipped {
                    let zipped = gzip(logs.as_bytes());
                    size = size.saturating_add(zipped.len());
                    json!({ "id": name, "payloadBytes": BASE64.encode(zipped) })
                } else {
                    size = size.saturating_add(logs.len());
                    json!({ "id": name, "payload": logs })
                });
            }
        }
        if size > MAX_LOGS { Err(Refused::TooMuch(size)) } else { Ok(Value::Array(answers)) }
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

/// A payload, whose names are read in any case as edgeAgent reads them.
fn read<T: DeserializeOwned>(method: &'static str, payload: Value) -> Result<T, Refused> {
    serde_json::from_value(lower(payload)).map_err(|source| Refused::Payload { method, source })
}

/// Names in lower case, at any depth.
fn lower(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), lower(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(lower).collect(),
        other => other,
    }
}

/// Another major version is not understood.
fn check_version(version: &str) -> Result<(), Refused> {
    let is_known = version.split_once('.').is_some_and(|(major, minor)| {
        major == "1" && !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit())
    });
    if is_known { Ok(()) } else { Err(Refused::SchemaVersion(version.chars().take(80).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_is_the_same_when_unpacked() {
        let text = "<6> 2026-01-01 00:00:00.000 +00:00 [INF] - one\n".repeat(1000);
        let zipped = gzip(text.as_bytes());
        assert!(zipped.len() < text.len() / 10);
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(&zipped[..]).read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, text);
    }
}
