//! Who may come in, and what is shown at the door of others: secrets, `auth`, `credentials`, `allow`.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::error::{ConfigError, Fault, closest, join};
use super::secret::{self, Secret};
use super::types::{Auth, Credentials};
use crate::catalogue;

const SECRET: &str = "a secret (a text, {\"env\": NAME} or {\"file\": PATH})";
pub(super) const MAX_KEYS: usize = 4;
pub(super) const MAX_NETWORKS: usize = 256;

/// The property of `auth` and `credentials` that is a key.
pub(super) const CREDENTIAL_KEY: &str = "key";

/// A SECRET.
pub(super) fn secret(path: &str, value: &Value) -> Result<Secret, ConfigError> {
    match value {
        Value::String(text) => {
            secret::check(text).map_err(|fault| ConfigError::new(path, fault))?;
            Ok(Secret::Plain(text.clone()))
        }
        Value::Object(map) => {
            let mut entries = map.iter();
            match (entries.next(), entries.next()) {
                (Some((key, Value::String(name))), None) if key == "env" => {
                    let usable = (1..=256).contains(&name.len()) && !name.contains(['=', '\0']);
                    let wrong = || {
                        ConfigError::expected(
                            &join(path, "env"),
                            "the name of a variable",
                            &name.as_str().into(),
                        )
                    };
                    usable.then(|| Secret::Env(name.clone())).ok_or_else(wrong)
                }
                (Some((key, file)), None) if key == "file" => {
                    Ok(Secret::File(absolute_path(&join(path, "file"), file)?))
                }
                _ => Err(ConfigError::expected_hidden(path, SECRET, value)),
            }
        }
        _ => Err(ConfigError::expected_hidden(path, SECRET, value)),
    }
}

/// An absolute path of at most 1024 bytes.
pub(super) fn absolute_path(path: &str, value: &Value) -> Result<PathBuf, ConfigError> {
    value
        .as_str()
        .filter(|text| text.starts_with('/') && text.len() <= 1024 && !text.contains(char::is_control))
        .map(PathBuf::from)
        .ok_or_else(|| ConfigError::expected(path, "an absolute path", value))
}

/// `auth`.
pub(super) fn auth(path: &str, value: &Value) -> Result<Auth, ConfigError> {
    const EXPECTED: &str = "{key} or {username, password}";
    let map = value.as_object().ok_or_else(|| ConfigError::expected_hidden(path, EXPECTED, value))?;
    known(path, map, &[CREDENTIAL_KEY, "username", "password"])?;
    let Some(key) = map.get(CREDENTIAL_KEY) else {
        return user(path, map, EXPECTED).map(|(username, password)| Auth::User { username, password });
    };
    if map.len() > 1 {
        return Err(ConfigError::new(path, both_forms(EXPECTED)));
    }
    let path = join(path, "key");
    let Value::Array(keys) = key else { return Ok(Auth::Key(vec![secret(&path, key)?])) };
    if keys.is_empty() || keys.len() > MAX_KEYS {
        let expected = format!("a secret or a list of 1 to {MAX_KEYS} of them");
        return Err(ConfigError::expected_entries(&path, expected, key));
    }
    keys.iter().map(|key| secret(&path, key)).collect::<Result<_, _>>().map(Auth::Key)
}

/// `credentials` of an endpoint that connects; `keys`: those that it takes instead of a user.
pub(super) fn credentials(
    path: &str,
    value: &Value,
    keys: &[&'static str],
) -> Result<Credentials, ConfigError> {
    let forms = keys.iter().map(|key| format!("{{{key}}}")).collect::<Vec<_>>();
    let expected = match forms.split_last() {
        None => "{username, password}".to_owned(),
        Some((last, [])) => format!("{{username, password}} or {last}"),
        Some((last, others)) => format!("{{username, password}}, {} or {last}", others.join(", ")),
    };
    let map = value.as_object().ok_or_else(|| ConfigError::expected_hidden(path, &expected, value))?;
    let elsewhere = catalogue::CREDENTIAL_KEYS.iter().filter(|(key, _)| !keys.contains(key));
    for (option, belongs) in elsewhere {
        if map.contains_key(*option) {
            return Err(ConfigError::new(path, Fault::Misplaced { option, belongs }));
        }
    }
    known(path, map, &[&["username", "password"], keys].concat())?;
    let single = keys.iter().find_map(|key| Some((*key, map.get(*key)?)));
    match single {
        Some(_) if map.len() > 1 => Err(ConfigError::new(path, both_forms(&expected))),
        Some((key, value)) => {
            let secret = secret(&join(path, key), value)?;
            let is_key = key == CREDENTIAL_KEY;
            Ok(if is_key { Credentials::Key(secret) } else { Credentials::StreamKey(secret) })
        }
        None => {
            user(path, map, &expected).map(|(username, password)| Credentials::User { username, password })
        }
    }
}

/// An object with no other keys than `names`.
pub(super) fn keys(path: &str, value: &Value, names: &[&'static str]) -> Result<(), ConfigError> {
    let map = value.as_object().ok_or_else(|| ConfigError::expected_hidden(path, "an object", value))?;
    known(path, map, names)
}

/// `allow`. An address without a prefix length is itself alone.
pub(super) fn networks(path: &str, value: &Value) -> Result<Vec<IpNet>, ConfigError> {
    let expected = || format!("a list of 1 to {MAX_NETWORKS} networks such as \"10.0.0.0/8\"");
    let list = value.as_array().filter(|list| (1..=MAX_NETWORKS).contains(&list.len()));
    let list = list.ok_or_else(|| ConfigError::expected_entries(path, expected(), value))?;
    list.iter()
        .map(|entry| {
            let text = entry.as_str().unwrap_or_default();
            let network = text.parse::<IpNet>().ok();
            network
                .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
                .map(|network| network.trunc())
                .ok_or_else(|| ConfigError::expected(path, "networks such as \"10.0.0.0/8\"", entry))
        })
        .collect()
}

fn user(path: &str, map: &Map<String, Value>, expected: &str) -> Result<(String, Secret), ConfigError> {
    match (map.get("username"), map.get("password")) {
        (Some(username), Some(password)) => {
            Ok((user_name(path, username)?, secret(&join(path, "password"), password)?))
        }
        (Some(_), None) => {
            Err(ConfigError::new(path, Fault::Half { present: "username", missing: "password" }))
        }
        (None, Some(_)) => {
            Err(ConfigError::new(path, Fault::Half { present: "password", missing: "username" }))
        }
        (None, None) => Err(ConfigError::missing(path, expected)),
    }
}

/// A user name or a password alone, as `defaults` may have it where each flow has the other half.
pub(super) fn half_login(path: &str, map: &Map<String, Value>) -> Result<(), ConfigError> {
    known(path, map, &["username", "password"])?;
    if let Some(username) = map.get("username") {
        user_name(path, username)?;
    }
    if let Some(password) = map.get("password") {
        secret(&join(path, "password"), password)?;
    }
    Ok(())
}

fn user_name(path: &str, value: &Value) -> Result<String, ConfigError> {
    let usable = |text: &&str| (1..=256).contains(&text.len()) && !text.contains(char::is_control);
    value.as_str().filter(usable).map(str::to_owned).ok_or_else(|| {
        ConfigError::expected_hidden(&join(path, "username"), "a text of 1 to 256 bytes", value)
    })
}

fn both_forms(expected: &str) -> Fault {
    Fault::Expected { expected: format!("one of {expected}"), got: "a mixture".into() }
}

fn known(path: &str, map: &Map<String, Value>, names: &[&'static str]) -> Result<(), ConfigError> {
    match map.keys().find(|key| !names.contains(&key.as_str())) {
        Some(key) => {
            let closest = closest(key, names.iter().copied());
            Err(ConfigError::new(join(path, key), Fault::Unknown { closest }))
        }
        None => Ok(()),
    }
}
