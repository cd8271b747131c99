//! A whole desired document.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::conflicts::conflicts;
use super::defaults::Defaults;
use super::error::{ConfigError, Fault, MAX_ERROR_BYTES, closest, join, shortened};
use super::flow::{flow, is_name};
use super::shape::{host_name, whole, word};
use super::supports::Supports;
use super::types::{Desired, FlowConfig};
use crate::catalogue;

/// The most flows of one document.
pub const MAX_FLOWS: usize = 10_000;

/// The key of errors that are not a flow's.
pub const MODULE: &str = "_module";

pub(super) const LEVELS: [&str; 5] = ["trace", "debug", "info", "warning", "error"];
pub(super) const MAX_TELEMETRY_INTERVAL: u64 = 86_400;
/// `maxConnections` where it is absent.
pub(crate) const CONNECTIONS: usize = 10_000;
pub(super) const MOST_CONNECTIONS: u64 = 1_000_000;

/// A tebibyte.
pub(super) const MOST_CACHE_MEGABYTES: u64 = 1 << 20;

/// Those of every module.
pub(super) const KEYS: [&str; 8] = [
    "schemaVersion",
    "logLevel",
    "telemetryIntervalSeconds",
    "publicHost",
    "maxConnections",
    "cacheMegabytes",
    "defaults",
    "flows",
];

/// Reads a desired document for a module that has the endpoints of `supports`.
///
/// A faulty flow costs that flow alone, a faulty default all flows; what is wrong elsewhere at the top is in
/// `errors` under `_module` and leaves the default in force. Only a document of another major `schemaVersion`, or
/// one whose `flows` can't be told apart, is rejected as a whole.
pub fn parse(document: &Map<String, Value>, supports: &Supports) -> Desired {
    let mut desired = Desired { max_connections: CONNECTIONS, ..Desired::default() };
    let top = Top { document, errors: Vec::new() };
    match top.read(supports, &mut desired) {
        Ok(()) => desired,
        Err(error) => Desired {
            max_connections: CONNECTIONS,
            rejected: Some(error.sentence()),
            errors: [(MODULE.to_owned(), error.sentence())].into(),
            ..Desired::default()
        },
    }
}

struct Top<'a> {
    document: &'a Map<String, Value>,
    /// Those that go under `_module`.
    errors: Vec<String>,
}

impl<'a> Top<'a> {
    fn read(mut self, supports: &Supports, desired: &mut Desired) -> Result<(), ConfigError> {
        self.check_version()?;
        self.settings(supports, desired);
        let flows = self.get("flows").map(|flows| match flows {
            Value::Object(flows) => Ok(flows),
            other => Err(ConfigError::expected_hidden("flows", "an object with flows by name", other)),
        });
        let flows = flows.transpose()?;
        let wanted =
            flows.into_iter().flatten().filter(|(name, flow)| is_there(name, flow)).collect::<Vec<_>>();
        if wanted.len() > MAX_FLOWS {
            let fault = Fault::TooMany { what: "flows", count: wanted.len(), most: MAX_FLOWS };
            return Err(ConfigError::new("flows", fault));
        }
        desired.wanted = wanted.len();
        let defaults = self
            .get("defaults")
            .map_or_else(|| Ok(Defaults::default()), |value| Defaults::of(&cleaned(value), supports));
        if let (Err(error), true) = (&defaults, wanted.is_empty()) {
            self.errors.push(error.sentence());
        }
        for (name, value) in wanted {
            if !is_name(name) {
                self.errors.push(ConfigError::new(join("flows", name), Fault::Name).sentence());
                continue;
            }
            let parsed = defaults
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|defaults| one(name, value, defaults, supports));
            match parsed {
                Ok(flow) => drop(desired.flows.insert(name.clone(), Arc::new(flow))),
                Err(error) => drop(desired.errors.insert(name.clone(), error.sentence())),
            }
        }
        for (name, error) in conflicts(&desired.flows) {
            desired.flows.remove(&name);
            desired.errors.insert(name, error.sentence());
        }
        if !self.errors.is_empty() {
            let errors = shortened(self.errors.join("; "), MAX_ERROR_BYTES);
            desired.errors.insert(MODULE.to_owned(), errors);
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.document.get(key).filter(|value| !value.is_null())
    }

    /// Any 1.x will do: what a later minor version adds is an unknown key here, and said as such.
    fn check_version(&self) -> Result<(), ConfigError> {
        let Some(version) = self.get("schemaVersion") else { return Ok(()) };
        let text = version.as_str().unwrap_or_default();
        let numeric =
            |text: &str| !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
        let major = match text.split_once('.') {
            Some((major, minor)) if numeric(minor) => major,
            None => text,
            Some(_) => "",
        };
        if major == "1" {
            Ok(())
        } else {
            Err(ConfigError::expected("schemaVersion", "\"1.0\" or another 1.x", version))
        }
    }

    fn settings(&mut self, supports: &Supports, desired: &mut Desired) {
        let foreign = || catalogue::PROPERTIES.iter().filter(|(name, _)| supports.property(name).is_none());
        let known = || {
            let own = supports.properties.iter().map(|property| property.name);
            KEYS.into_iter().chain(own).chain(foreign().map(|(name, _)| *name))
        };
        let unknown = self
            .document
            .iter()
            .filter(|(key, value)| is_there(key, value) && !known().any(|name| name == *key));
        let unknown = unknown.map(|(key, _)| {
            let closest = closest(key, known());
            ConfigError::new(join("", key), Fault::Unknown { closest }).sentence()
        });
        self.errors = unknown.take(MAX_ERROR_BYTES).collect();
        for (option, belongs) in
            foreign().filter(|(name, _)| self.document.get(*name).is_some_and(|value| !value.is_null()))
        {
            self.errors.push(ConfigError::new(*option, Fault::Misplaced { option, belongs }).to_string());
        }
        for property in &supports.properties {
            let Some(value) = self.get(property.name).map(cleaned) else { continue };
            match property.check(property.name, &value) {
                Ok(()) => drop(desired.properties.insert(property.name.to_owned(), value)),
                Err(error) => self.errors.push(error.sentence()),
            }
        }
        let level = self.optional("logLevel", |path, value| word(path, value, &LEVELS));
        desired.settings.log_level = match level.map(|level| level.unwrap_or("info")) {
            Some("trace") => Some(tracing::Level::TRACE),
            Some("debug") => Some(tracing::Level::DEBUG),
            Some("info") => Some(tracing::Level::INFO),
            Some("warning") => Some(tracing::Level::WARN),
            Some("error") => Some(tracing::Level::ERROR),
            _ => None,
        };
        let interval = self.optional("telemetryIntervalSeconds", |path, value| {
            whole(path, value, 0, MAX_TELEMETRY_INTERVAL)
        });
        desired.settings.telemetry_interval_seconds =
            interval.flatten().and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(0);
        let connections =
            self.optional("maxConnections", |path, value| whole(path, value, 1, MOST_CONNECTIONS));
        if let Some(connections) = connections.flatten() {
            desired.max_connections = usize::try_from(connections).unwrap_or(usize::MAX);
        }
        let cache =
            self.optional("cacheMegabytes", |path, value| whole(path, value, 0, MOST_CACHE_MEGABYTES));
        desired.cache_megabytes = cache.flatten().unwrap_or(0);
        desired.public_host = self.optional("publicHost", host_name).flatten();
    }

    /// `None` after a fault, `Some(None)` where the property is absent.
    fn optional<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str, &Value) -> Result<T, ConfigError>,
    ) -> Option<Option<T>> {
        match self.get(key).map(|value| read(key, value)).transpose() {
            Ok(value) => Some(value),
            Err(error) => {
                self.errors.push(error.sentence());
                None
            }
        }
    }
}

fn one(
    name: &str,
    value: &Value,
    defaults: &Defaults,
    supports: &Supports,
) -> Result<FlowConfig, ConfigError> {
    let Value::Object(mut source) = cleaned(value) else {
        return Err(ConfigError::expected_hidden(&join("flows", name), "an object", value));
    };
    defaults.fill(&mut source, supports);
    flow(name, source, supports)
}

fn is_there(key: &str, value: &Value) -> bool {
    !key.starts_with('$') && !value.is_null()
}

/// Without null properties and those that start with `$`.
fn cleaned(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(key, value)| is_there(key, value))
                .map(|(key, value)| (key.clone(), cleaned(value)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.iter().map(cleaned).collect()),
        other => other.clone(),
    }
}
