//! `defaults`: what every flow gets that does not say otherwise.
//!
//! A default reaches an endpoint only where the option has a meaning for it and the value is right there: `join`
//! skips a push, `tls.caFile` skips a listener, `credentials.streamKey` skips what takes none.
//! `tls` and `retry` are merged key by key, and so are user name and password; any other value of the flow's own
//! replaces the default whole. A URL's user info replaces default `credentials`.

use serde_json::{Map, Value};

use super::access;
use super::error::{ConfigError, Fault, closest, join};
use super::options::{AUTH, CREDENTIALS, OptionSpec, Shape};
use super::read::is_pattern;
use super::role::Role;
use super::shape::object;
use super::supports::Supports;

/// Checked `defaults`.
#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    input: Map<String, Value>,
    output: Map<String, Value>,
}

impl Defaults {
    /// Reads `defaults`, from which nulls have been removed.
    pub(super) fn of(value: &Value, supports: &Supports) -> Result<Self, ConfigError> {
        const KEYS: [&str; 2] = ["input", "output"];
        let mut defaults = Self::default();
        for (key, value) in object("defaults", value)? {
            let path = join("defaults", key);
            match key.as_str() {
                "input" => defaults.input = side(&path, value, &Role::INPUTS, supports)?,
                "output" => defaults.output = side(&path, value, &Role::OUTPUTS, supports)?,
                _ => {
                    let closest = closest(key, KEYS.into_iter());
                    return Err(ConfigError::new(path, Fault::Unknown { closest }));
                }
            }
        }
        Ok(defaults)
    }

    /// Fills in what a flow does not say. Leaves alone what is not a flow: that is said when it is read.
    pub(super) fn fill(&self, flow: &mut Map<String, Value>, supports: &Supports) {
        if let Some(Value::Object(input)) = flow.get_mut("input") {
            fill(&self.input, input, &Role::INPUTS, supports);
        }
        if let Some(Value::Object(outputs)) = flow.get_mut("outputs") {
            for output in outputs.values_mut().filter_map(Value::as_object_mut) {
                fill(&self.output, output, &Role::OUTPUTS, supports);
            }
        }
    }
}

/// Every default must be right for at least one kind of endpoint, of whatever module.
fn side(
    path: &str,
    value: &Value,
    roles: &[Role],
    supports: &Supports,
) -> Result<Map<String, Value>, ConfigError> {
    let map = object(path, value)?;
    for (key, value) in map {
        let path = join(path, key);
        let Some(any) = supports.option(key) else {
            let all = supports.known().flat_map(|spec| spec.all_options());
            let closest = closest(key, all.map(|option| option.name));
            return Err(ConfigError::new(path, Fault::Unknown { closest }));
        };
        let here = || {
            let specs = supports.known().filter(|spec| roles.contains(&spec.role));
            specs.flat_map(|spec| spec.all_options()).filter(|option| option.name == key)
        };
        let mut fault = None;
        let mut fits = false;
        for option in here() {
            match usable(option, supports, &path, value) {
                Ok(()) => fits = true,
                Err(error) => fault = fault.or(Some(error)),
            }
        }
        if !fits {
            let misplaced = Fault::Misplaced { option: any.name, belongs: any.belongs };
            return Err(fault.unwrap_or_else(|| ConfigError::new(path, misplaced)));
        }
    }
    Ok(map.clone())
}

/// As [`OptionSpec::check`], but the properties of an object may belong to several kinds of endpoint.
fn usable(option: &OptionSpec, supports: &Supports, path: &str, value: &Value) -> Result<(), ConfigError> {
    let Shape::Object { .. } = option.shape else { return right(option, path, value) };
    for (key, value) in object(path, value)? {
        let path = join(path, key);
        let properties = || {
            let all = supports.known().flat_map(|spec| spec.all_options());
            all.filter(|other| other.name == option.name).flat_map(|other| match other.shape {
                Shape::Object { properties } => properties,
                _ => &[],
            })
        };
        match properties().find(|property| property.name == key) {
            Some(property) => property.check(&path, value)?,
            None => {
                let closest = closest(key, properties().map(|property| property.name));
                return Err(ConfigError::new(path, Fault::Unknown { closest }));
            }
        }
    }
    Ok(())
}

fn fill(defaults: &Map<String, Value>, own: &mut Map<String, Value>, roles: &[Role], supports: &Supports) {
    let mut present = roles.iter().filter_map(|role| Some((*role, own.get(role.key())?)));
    let (Some((role, url)), None) = (present.next(), present.next()) else { return };
    let url = url.as_str().unwrap_or_default();
    let Ok(scheme) = supports.scheme_of(url) else { return };
    let Some(spec) = supports.endpoint(role, scheme) else { return };
    let pattern = is_pattern(role, url);
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next());
    let logs_in = authority.is_some_and(|authority| authority.contains('@'));
    for (key, value) in defaults {
        let fits = |option: &&OptionSpec| option.name == key && option.fits(scheme, pattern);
        let Some(option) = spec.all_options().find(fits) else { continue };
        if let (Shape::Object { properties }, Value::Object(value)) = (option.shape, value) {
            let fitting = value.iter().filter(|(key, _)| properties.iter().any(|one| one.name == *key));
            let fitting = fitting.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>();
            if !fitting.is_empty() {
                merge(own, key, fitting);
            }
        } else if right(option, key, value).is_ok() {
            let login = option.name == AUTH.name || option.name == CREDENTIALS.name;
            match (own.get(key), value) {
                (None, _) if option.name == CREDENTIALS.name && logs_in => {}
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

/// As [`OptionSpec::check`], but half a login will do: the flow has the other half, or an error that says what is missing.
fn right(option: &OptionSpec, path: &str, value: &Value) -> Result<(), ConfigError> {
    match (option.shape, value) {
        (Shape::Auth | Shape::Credentials { .. }, Value::Object(login))
            if login.len() == 1 && is_user(login) =>
        {
            access::half_login(path, login)
        }
        _ => option.check(path, value),
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
