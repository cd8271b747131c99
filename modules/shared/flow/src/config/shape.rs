//! Whether a value has the shape that the table of options asks for, and what it is then.

use std::time::Duration;

use serde_json::{Map, Value};

use super::access;
use super::error::{ConfigError, Fault, closest, join};
use super::options::{MAX_INSTANCES, OptionSpec, Shape, TABLE};
use super::supports::Endpoint;
use super::types::Scheme;
use super::url;

impl OptionSpec {
    /// Checks one value for an endpoint that the option fits.
    pub(super) fn check(
        &self,
        path: &str,
        value: &Value,
        endpoint: Endpoint,
        scheme: Scheme,
    ) -> Result<(), ConfigError> {
        match self.shape {
            Shape::Flag { .. } => flag(path, value).map(drop),
            Shape::Whole { min, max, .. } => whole(path, value, min, max).map(drop),
            Shape::Seconds { max } => seconds(path, value, max).map(drop),
            Shape::Word { words } => word(path, value, words).map(drop),
            Shape::Text => text(path, value, 1024).map(drop),
            Shape::Path => access::absolute_path(path, value).map(drop),
            Shape::HostName => host_name(path, value).map(drop),
            Shape::Sha256 => sha256(path, value).map(drop),
            Shape::Networks => access::networks(path, value).map(drop),
            Shape::Auth => access::auth(path, value).map(drop),
            Shape::Credentials if endpoint == Endpoint::Store => access::store_credentials(path, value),
            Shape::Credentials => access::credentials(path, value, endpoint, scheme).map(drop),
            Shape::Object { properties } => {
                let map = object(path, value)?;
                for (key, value) in map {
                    let path = join(path, key);
                    match properties.iter().find(|property| property.name == key) {
                        Some(property) => property.check(&path, value, endpoint, scheme)?,
                        None => return Err(unknown(path, key, properties)),
                    }
                }
                Ok(())
            }
            Shape::AnyObject => object(path, value).map(drop),
            Shape::AnyList if value.is_array() => Ok(()),
            Shape::AnyList => Err(ConfigError::expected(path, "a list", value)),
        }
    }
}

fn unknown(path: String, key: &str, properties: &'static [OptionSpec]) -> ConfigError {
    let closest = closest(key, properties.iter().map(|property| property.name));
    ConfigError::new(path, Fault::Unknown { closest })
}

/// The properties of one endpoint, all of them known and of the right shape.
pub(super) struct Options<'a> {
    pub(super) path: String,
    pub(super) endpoint: Endpoint,
    pub(super) scheme: Scheme,
    map: &'a Map<String, Value>,
}

impl<'a> Options<'a> {
    /// Checks every property but the one that says what the endpoint is. `pattern`: a `listen` on one.
    pub(super) fn of(
        path: &str,
        map: &'a Map<String, Value>,
        endpoint: Endpoint,
        scheme: Scheme,
        pattern: bool,
    ) -> Result<Self, ConfigError> {
        for (key, value) in map.iter().filter(|(key, _)| *key != endpoint.key()) {
            let path = join(path, key);
            let Some(any) = OptionSpec::named(key).next() else {
                let here = TABLE.iter().filter(|spec| spec.fits(endpoint, scheme)).map(|spec| spec.name);
                let closest = closest(key, here.chain([endpoint.key()]));
                return Err(ConfigError::new(path, Fault::Unknown { closest }));
            };
            match OptionSpec::named(key).find(|spec| spec.fits(endpoint, scheme)) {
                Some(spec) if pattern || spec.name != MAX_INSTANCES.name => {
                    spec.check(&path, value, endpoint, scheme)?;
                }
                _ => {
                    return Err(ConfigError::new(
                        path,
                        Fault::Misplaced { option: any.name, belongs: any.belongs },
                    ));
                }
            }
        }
        Ok(Self { path: path.to_owned(), endpoint, scheme, map })
    }

    pub(super) fn get(&self, spec: &OptionSpec) -> Option<(String, &'a Value)> {
        self.named(spec.name)
    }

    /// A property of an object in the table, by its name.
    pub(super) fn named(&self, name: &str) -> Option<(String, &'a Value)> {
        self.map.get(name).map(|value| (join(&self.path, name), value))
    }

    pub(super) fn whole(&self, spec: &OptionSpec) -> Result<u64, ConfigError> {
        match (spec.shape, self.get(spec)) {
            (Shape::Whole { min, max, .. }, Some((path, value))) => whole(&path, value, min, max),
            (Shape::Whole { default, .. }, None) => Ok(default),
            _ => Ok(0),
        }
    }

    pub(super) fn size(&self, spec: &OptionSpec) -> Result<usize, ConfigError> {
        self.whole(spec).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
    }

    pub(super) fn flag(&self, spec: &OptionSpec) -> Result<bool, ConfigError> {
        match (spec.shape, self.get(spec)) {
            (_, Some((path, value))) => flag(&path, value),
            (Shape::Flag { default }, None) => Ok(default),
            _ => Ok(false),
        }
    }

    pub(super) fn seconds(&self, spec: &OptionSpec) -> Result<Duration, ConfigError> {
        match (spec.shape, self.get(spec)) {
            (Shape::Seconds { max }, Some((path, value))) => seconds(&path, value, max),
            _ => Ok(Duration::ZERO),
        }
    }

    /// Whether a word option has its first word, which is also the default.
    pub(super) fn is_first_word(&self, spec: &OptionSpec) -> Result<bool, ConfigError> {
        match (spec.shape, self.get(spec)) {
            (Shape::Word { words }, Some((path, value))) => {
                word(&path, value, words).map(|word| Some(&word) == words.first())
            }
            _ => Ok(true),
        }
    }

    /// The same endpoint with other properties.
    pub(super) fn with<'b>(&self, map: &'b Map<String, Value>) -> Options<'b> {
        Options { path: self.path.clone(), endpoint: self.endpoint, scheme: self.scheme, map }
    }

    /// An option that is an object, as properties of its own.
    pub(super) fn object(&self, spec: &OptionSpec) -> Option<Self> {
        let (path, value) = self.get(spec)?;
        Some(Self { path, map: value.as_object()?, ..*self })
    }
}

pub(super) fn object<'a>(path: &str, value: &'a Value) -> Result<&'a Map<String, Value>, ConfigError> {
    value.as_object().ok_or_else(|| ConfigError::expected_hidden(path, "an object", value))
}

pub(super) fn flag(path: &str, value: &Value) -> Result<bool, ConfigError> {
    value.as_bool().ok_or_else(|| ConfigError::expected(path, "true or false", value))
}

/// A whole number; `10.0` is one, as in JSON Schema.
pub(super) fn whole(path: &str, value: &Value, min: u64, max: u64) -> Result<u64, ConfigError> {
    let number = value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        // Every float in this range stands for exactly one integer.
        (number.fract() == 0.0 && (0.0..9e15).contains(&number)).then_some(number as u64)
    });
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| ConfigError::expected(path, format!("a whole number from {min} to {max}"), value))
}

fn seconds(path: &str, value: &Value, max: u64) -> Result<Duration, ConfigError> {
    value
        .as_f64()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| *duration <= Duration::from_secs(max))
        .ok_or_else(|| ConfigError::expected(path, format!("a number from 0 to {max}"), value))
}

pub(super) fn word<'a>(path: &str, value: &Value, words: &[&'a str]) -> Result<&'a str, ConfigError> {
    let given = value.as_str().unwrap_or_default();
    words
        .iter()
        .find(|word| **word == given)
        .copied()
        .ok_or_else(|| ConfigError::expected(path, format!("one of {}", words.join(", ")), value))
}

/// A text of 1 to `most` bytes without control characters.
pub(super) fn text<'a>(path: &str, value: &'a Value, most: usize) -> Result<&'a str, ConfigError> {
    value
        .as_str()
        .filter(|text| (1..=most).contains(&text.len()) && !text.contains(char::is_control))
        .ok_or_else(|| ConfigError::expected(path, format!("a text of 1 to {most} bytes"), value))
}

/// A DNS name or an IP address, IPv6 with or without brackets; given back without.
pub(super) fn host_name(path: &str, value: &Value) -> Result<String, ConfigError> {
    let text = value.as_str().unwrap_or_default();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if url::is_host_name(text) || bare.parse::<std::net::Ipv6Addr>().is_ok() {
        Ok(bare.to_ascii_lowercase())
    } else {
        Err(ConfigError::expected(path, "a host name or an IP address", value))
    }
}

pub(super) fn sha256(path: &str, value: &Value) -> Result<[u8; 32], ConfigError> {
    let wrong = || ConfigError::expected(path, "64 hexadecimal digits", value);
    let digits = value.as_str().filter(|text| text.len() <= 95).ok_or_else(wrong)?;
    let digits = digits.chars().filter(|c| *c != ':').map(|c| c.to_digit(16)).collect::<Option<Vec<_>>>();
    let digits = digits.filter(|digits| digits.len() == 64).ok_or_else(wrong)?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let number = pair.iter().fold(0, |number, digit| number * 16 + digit);
        *byte = u8::try_from(number).map_err(|_| wrong())?;
    }
    Ok(bytes)
}
