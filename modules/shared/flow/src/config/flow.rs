//! One flow of a document.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::error::{ConfigError, Fault, closest, join};
use super::options::{CONTENT, HOLD, IDLE_TIMEOUT, MAX_INSTANCES, ON_DEMAND, ON_PUBLISHER_LOSS, TRACK_WAIT};
use super::read::{Options, asked};
use super::role::Role;
use super::shape::{flag, object, text};
use super::supports::Supports;
use super::types::{FlowConfig, InputConfig, OutputConfig};
use super::url::Stars;
use crate::registry::{InputSpec, OutputSpec};

/// The most outputs of one flow.
pub const MAX_OUTPUTS: usize = 256;

/// Reads a flow that is whole: defaults merged in, no nulls.
pub(super) fn flow(
    name: &str,
    source: Map<String, Value>,
    supports: &Supports,
) -> Result<FlowConfig, ConfigError> {
    const KEYS: [&str; 4] = ["description", "enabled", "input", "outputs"];
    let at = join("flows", name);
    if let Some(key) = source.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let fault = Fault::Unknown { closest: closest(key, KEYS.into_iter()) };
        return Err(ConfigError::new(join(&at, key), fault));
    }
    let description =
        source.get("description").map(|value| description(&join(&at, "description"), value)).transpose()?;
    let enabled = source.get("enabled").map_or(Ok(true), |value| flag(&join(&at, "enabled"), value))?;
    let input_path = join(&at, "input");
    let input = source.get("input").ok_or_else(|| ConfigError::missing(&input_path, "an object"))?;
    let input = input_of(&input_path, object(&input_path, input)?, name, supports)?;
    let mut outputs = BTreeMap::new();
    if let Some(value) = source.get("outputs") {
        let path = join(&at, "outputs");
        let map = object(&path, value)?;
        if map.len() > MAX_OUTPUTS {
            let fault = Fault::TooMany { what: "outputs", count: map.len(), most: MAX_OUTPUTS };
            return Err(ConfigError::new(path, fault));
        }
        for (key, value) in map {
            let path = join(&path, key);
            if !is_name(key) {
                return Err(ConfigError::new(path, Fault::Name));
            }
            let output = output_of(&path, object(&path, value)?, name, &input, supports)?;
            outputs.insert(key.clone(), output);
        }
    }
    let flow = FlowConfig { name: name.to_owned(), description, enabled, input, outputs, source };
    supports.rules.iter().try_for_each(|rule| rule(&flow))?;
    Ok(flow)
}

/// Names of flows and outputs: 1 to 64 of `A-Z a-z 0-9 - _`, not starting with `_`.
pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && !name.starts_with('_')
}

/// May be empty: that is what a form field sends.
fn description(path: &str, value: &Value) -> Result<String, ConfigError> {
    if value.as_str() == Some("") { Ok(String::new()) } else { text(path, value, 1024).map(str::to_owned) }
}

fn input_of(
    path: &str,
    map: &Map<String, Value>,
    flow: &str,
    supports: &Supports,
) -> Result<InputConfig, ConfigError> {
    let asked = asked(path, map, &Role::INPUTS, flow, supports)?;
    let fits =
        |input: &&InputSpec| input.spec.role == asked.role && input.spec.schemes.contains(&asked.scheme);
    let found = supports.inputs.iter().find(fits).ok_or_else(|| asked.unsupported(supports))?;
    let stars = if asked.role == Role::Listen { Stars::Pattern } else { Stars::Plain };
    let options = Options::of(path, map, &asked, &found.spec, stars, supports)?;
    let hold_for = options.whole(&HOLD)?;
    Ok(InputConfig {
        endpoint: (found.read)(&options)?,
        pattern: asked.is_pattern(),
        max_instances: options.size(&MAX_INSTANCES)?,
        content: options.content()?.unwrap_or_default(),
        idle_timeout: Duration::from_secs(options.whole(&IDLE_TIMEOUT)?),
        track_wait: Duration::from_millis(options.whole(&TRACK_WAIT)?),
        hold: options.is_first_word(&ON_PUBLISHER_LOSS)?,
        hold_for: (hold_for > 0).then(|| Duration::from_secs(hold_for)),
        on_demand: asked.role == Role::Pull && options.flag(&ON_DEMAND)?,
        auth: options.auth()?,
    })
}

fn output_of(
    path: &str,
    map: &Map<String, Value>,
    flow: &str,
    input: &InputConfig,
    supports: &Supports,
) -> Result<OutputConfig, ConfigError> {
    let asked = asked(path, map, &Role::OUTPUTS, flow, supports)?;
    let fits =
        |output: &&OutputSpec| output.spec.role == asked.role && output.spec.schemes.contains(&asked.scheme);
    let found = supports.outputs.iter().find(fits).ok_or_else(|| asked.unsupported(supports))?;
    let stars = if input.pattern { Stars::Needed } else { Stars::Refused };
    let options = Options::of(path, map, &asked, &found.spec, stars, supports)?;
    let endpoint = (found.read)(&options)?;
    let content = match options.content()? {
        None => input.content,
        Some(own) => input.content.and(own).ok_or_else(|| {
            let fault = Fault::ContentContradiction { output: own.as_str(), input: input.content.as_str() };
            ConfigError::new(join(path, CONTENT.name), fault)
        })?,
    };
    Ok(OutputConfig { content, endpoint, auth: options.auth()? })
}
