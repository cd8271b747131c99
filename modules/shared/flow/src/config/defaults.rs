//! `defaults`: what every flow gets that does not say otherwise.
//!
//! A default reaches an endpoint only where the option has a meaning for it and the value is right there: `join`
//! skips a push, `tls.caFile` skips a listener, `credentials.streamKey` skips whatever is not an RTMP push.
//! `tls` and `retry` are merged key by key, and so are user name and password; any other value of the flow's own
//! replaces the default whole. A URL's user info replaces default `credentials`.

use serde_json::{Map, Value};

use super::error::{ConfigError, Fault, closest, join};
use super::options::{AUTH, CREDENTIALS, OptionSpec, Shape, TABLE};
use super::shape::object;
use super::supports::Endpoint;
use super::types::Scheme;

/// Checked `defaults`.
#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    input: Map<String, Value>,
    output: Map<String, Value>,
}

impl Defaults {
    /// Reads `defaults`, from which nulls have been removed.
    pub(super) fn of(value: &Value) -> Result<Self, ConfigError> {
        const KEYS: [&str; 2] = ["input", "output"];
        let mut defaults = Self::default();
        for (key, value) in object("defaults", value)? {
            let path = join("defaults", key);
            match key.as_str() {
                "input" => defaults.input = side(&path, value, &Endpoint::INPUTS)?,
                "output" => defaults.output = side(&path, value, &Endpoint::OUTPUTS)?,
                _ => {
                    let closest = closest(key, KEYS.into_iter());
                    return Err(ConfigError::new(path, Fault::Unknown { closest }));
                }
            }
        }
        Ok(defaults)
    }

    /// Fills in what a flow does not say. Leaves alone what is not a flow: that is said when it is read.
    pub(super) fn fill(&self, flow: &mut Map<String, Value>) {
        if let Some(Value::Object(input)) = flow.get_mut("input") {
            fill(&self.input, input, &Endpoint::INPUTS);
        }
        if let Some(Value::Object(outputs)) = flow.get_mut("outputs") {
            for output in outputs.values_mut().filter_map(Value::as_object_mut) {
                fill(&self.output, output, &Endpoint::OUTPUTS);
            }
        }
    }
}

/// Every default must be right for at least one kind of endpoint.
fn side(path: &str, value: &Value, kinds: &[Endpoint]) -> Result<Map<String, Value>, ConfigError> {
    let map = object(path, value)?;
    for (key, value) in map {
        let path = join(path, key);
        let specs = OptionSpec::named(key).collect::<Vec<_>>();
        let Some(first) = specs.first() else {
            let closest = closest(key, TABLE.iter().map(|spec| spec.name));
            return Err(ConfigError::new(path, Fault::Unknown { closest }));
        };
        let mut fault = None;
        let mut fits = false;
        for spec in specs.iter() {
            for (kind, schemes) in spec.places.iter().filter(|(kind, _)| kinds.contains(kind)) {
                // Only `credentials` look at the scheme, and only whether it is RTMP, which comes first.
                if let Some(scheme) = schemes.first() {
                    match usable(spec, &path, value, *kind, *scheme) {
                        Ok(()) => fits = true,
                        Err(error) => fault = fault.or(Some(error)),
                    }
                }
            }
        }
        if !fits {
            let misplaced = Fault::Misplaced { option: first.name, belongs: first.belongs };
            return Err(fault.unwrap_or_else(|| ConfigError::new(path, misplaced)));
        }
    }
    Ok(map.clone())
}

/// As [`OptionSpec::check`], but the properties of an object may belong to several kinds of endpoint.
fn usable(
    spec: &OptionSpec,
    path: &str,
    value: &Value,
    endpoint: Endpoint,
    scheme: Scheme,
) -> Result<(), ConfigError> {
    let Shape::Object { .. } = spec.shape else { return spec.check(path, value, endpoint, scheme) };
    for (key, value) in object(path, value)? {
        let path = join(path, key);
        let properties = || {
            OptionSpec::named(spec.name).flat_map(|spec| match spec.shape {
                Shape::Object { properties } => properties,
                _ => &[],
            })
        };
        match properties().find(|property| property.name == key) {
            Some(property) => property.check(&path, value, endpoint, scheme)?,
            None => {
                let closest = closest(key, properties().map(|property| property.name));
                return Err(ConfigError::new(path, Fault::Unknown { closest }));
            }
        }
    }
    Ok(())
}

fn fill(defaults: &Map<String, Value>, own: &mut Map<String, Value>, kinds: &[Endpoint]) {
    let mut present = kinds.iter().filter_map(|kind| Some((*kind, own.get(kind.key())?)));
    let (Some((endpoint, url)), None) = (present.next(), present.next()) else { return };
    let url = url.as_str().unwrap_or_default();
    let Ok(scheme) = Scheme::of(url) else { return };
    let pattern = url.trim_end_matches('/').ends_with("/*");
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next());
    let logs_in = authority.is_some_and(|authority| authority.contains('@'));
    for (key, value) in defaults {
        let Some(spec) = OptionSpec::named(key).find(|spec| spec.fits(endpoint, scheme)) else { continue };
        if spec.name == super::options::MAX_INSTANCES.name && !pattern {
            continue;
        }
        if let (Shape::Object { properties }, Value::Object(value)) = (spec.shape, value) {
            let fitting = value.iter().filter(|(key, _)| properties.iter().any(|spec| spec.name == *key));
            let fitting = fitting.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>();
            if !fitting.is_empty() {
                merge(own, key, fitting);
            }
        } else if spec.check(key, value, endpoint, scheme).is_ok() {
            let login = spec.name == AUTH.name || spec.name == CREDENTIALS.name;
            match (own.get(key), value) {
                (None, _) if spec.name == CREDENTIALS.name && logs_in => {}
                (None, _) => {
                    own.insert(key.clone(), value.clone());
                }
                (Some(Value::Object(mine)), Value::Object(value))
                    if login && is_user(mine) && is_user(value) =>
                {
                    merge(own, key, value.clone());
                }
                (Some(_), _) => {}
            }
        }
    }
}

fn is_user(login: &Map<String, Value>) -> bool {
    login.keys().all(|key| key == "username" || key == "password")
}

/// Adds to an object what it lacks.
fn merge(own: &mut Map<String, Value>, key: &str, defaults: Map<String, Value>) {
    let mine = own.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(mine) = mine {
        for (key, value) in defaults {
            mine.entry(key).or_insert(value);
        }
    }
}
