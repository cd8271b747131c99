//! Whether a value has the shape that the table of options asks for, and what it is then.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Map, Value};

use super::access;
use super::error::{ConfigError, Fault, closest, join};
use super::options::{OptionSpec, Shape};
use super::url;

impl OptionSpec {
    /// Checks one value.
    pub(super) fn check(&self, path: &str, value: &Value) -> Result<(), ConfigError> {
        match self.shape {
            Shape::Flag { .. } => flag(path, value).map(drop),
            Shape::Whole { min, max, .. } => whole(path, value, min, max).map(drop),
            Shape::Seconds { max } => seconds(path, value, max).map(drop),
            Shape::Word { words } => word(path, value, words).map(drop),
            Shape::Words { words } => self::words(path, value, words).map(drop),
            Shape::Text => text(path, value, 1024).map(drop),
            Shape::PortPair { .. } => port_pair(path, value).map(drop),
            Shape::Group => group(path, value).map(drop),
            Shape::Path => access::absolute_path(path, value).map(drop),
            Shape::HostName => host_name(path, value).map(drop),
            Shape::Sha256 => sha256(path, value).map(drop),
            Shape::Networks => access::networks(path, value).map(drop),
            Shape::Auth => access::auth(path, value).map(drop),
            Shape::Credentials { keys } => access::credentials(path, value, keys).map(drop),
            Shape::Keys { names } => access::keys(path, value, names),
            Shape::Object { properties } => known(path, object(path, value)?, properties),
            Shape::Texts { most, .. } => texts(path, value, most).map(drop),
            Shape::Objects { properties, most } => objects(path, value, properties, most),
            Shape::AnyObject => object(path, value).map(drop),
            Shape::AnyList if value.is_array() => Ok(()),
            Shape::AnyList => Err(ConfigError::expected(path, "a list", value)),
        }
    }
}

/// Checks an object that has these properties and no others.
fn known(path: &str, map: &Map<String, Value>, properties: &'static [OptionSpec]) -> Result<(), ConfigError> {
    map.iter().try_for_each(|(key, value)| {
        let path = join(path, key);
        match properties.iter().find(|property| property.name == key) {
            Some(property) => property.check(&path, value),
            None => Err(unknown(path, key, properties)),
        }
    })
}

/// A list of objects that have all of these properties.
fn objects(
    path: &str,
    value: &Value,
    properties: &'static [OptionSpec],
    most: usize,
) -> Result<(), ConfigError> {
    let list = value.as_array().filter(|list| list.len() <= most);
    let expected = || format!("a list of at most {most} objects");
    let list = list.ok_or_else(|| ConfigError::expected_entries(path, expected(), value))?;
    list.iter().enumerate().try_for_each(|(at, entry)| {
        let path = join(path, &at.to_string());
        let map = object(&path, entry)?;
        known(&path, map, properties)?;
        match properties.iter().find(|property| !map.contains_key(property.name)) {
            Some(missing) => Err(ConfigError::missing(&path, format!("`{}`", missing.name))),
            None => Ok(()),
        }
    })
}

/// A text, or a list of them.
pub(super) fn texts<'a>(path: &str, value: &'a Value, most: usize) -> Result<Vec<&'a str>, ConfigError> {
    let Value::Array(list) = value else { return Ok(vec![text(path, value, 1024)?]) };
    if list.is_empty() || list.len() > most {
        let expected = format!("a text or a list of 1 to {most} of them");
        return Err(ConfigError::expected_entries(path, expected, value));
    }
    list.iter().enumerate().map(|(at, entry)| text(&join(path, &at.to_string()), entry, 1024)).collect()
}

fn unknown(path: String, key: &str, properties: &'static [OptionSpec]) -> ConfigError {
    let closest = closest(key, properties.iter().map(|property| property.name));
    ConfigError::new(path, Fault::Unknown { closest })
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

pub(super) fn seconds(path: &str, value: &Value, max: u64) -> Result<Duration, ConfigError> {
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

/// One or more of some words, each once.
pub(super) fn words<'a>(path: &str, value: &Value, words: &[&'a str]) -> Result<Vec<&'a str>, ConfigError> {
    let list = value.as_array().filter(|list| !list.is_empty());
    let found = list.and_then(|list| {
        let known = |value: &Value| words.iter().find(|word| Some(**word) == value.as_str()).copied();
        list.iter().map(known).collect::<Option<Vec<_>>>()
    });
    let is_once = |found: &Vec<&str>| {
        (1..found.len()).all(|at| !found.iter().take(at).any(|one| found.get(at) == Some(one)))
    };
    found.filter(is_once).ok_or_else(|| {
        ConfigError::expected_entries(path, format!("a list of {}, each once", words.join(", ")), value)
    })
}

/// The first port of a pair.
pub(super) fn port_pair(path: &str, value: &Value) -> Result<u16, ConfigError> {
    let pair = value.as_str().and_then(|text| {
        let (first, second) = text.split_once('-')?;
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let number = |text: &str| text.parse::<u16>().ok().filter(|_| is_number(text));
        Some((number(first)?, number(second)?))
    });
    pair.filter(|(first, second)| *first > 0 && first % 2 == 0 && *second == first + 1)
        .map(|(first, _)| first)
        .ok_or_else(|| {
            ConfigError::expected(
                path,
                "two ports that follow each other, the first one even, as 8000-8001",
                value,
            )
        })
}

/// An IPv4 multicast address.
pub(super) fn group(path: &str, value: &Value) -> Result<Ipv4Addr, ConfigError> {
    let address = value.as_str().and_then(|text| text.parse::<Ipv4Addr>().ok());
    address
        .filter(Ipv4Addr::is_multicast)
        .ok_or_else(|| ConfigError::expected(path, "an IPv4 multicast address, as 239.1.2.3", value))
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
