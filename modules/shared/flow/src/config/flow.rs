//! One flow of a document.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::endpoint::{self, Identity, identify};
use super::error::{ConfigError, Fault, closest, join};
use super::options::{
    BATCH, HOLD, IDLE_TIMEOUT, JOIN, LOOP, MAX_CLIENTS, MAX_INSTANCES, MAX_MESSAGE, ON_PUBLISHER_LOSS,
    ON_SECOND_PUBLISHER, START, TRACK_WAIT,
};
use super::shape::{Options, flag, object, text};
use super::supports::{Endpoint, Supports};
use super::types::{
    Content, FlowConfig, InputConfig, InputEndpoint, ListenConfig, ListenUrl, OutputConfig, OutputEndpoint,
    PullConfig, PushConfig, ReadConfig, ServeConfig,
};
use super::url::{Stars, parse_file};

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
    let stars = match &input.endpoint {
        InputEndpoint::Listen(listen) if listen.url.is_pattern() => Stars::Needed,
        _ => Stars::Refused,
    };
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
            let output = output_of(&path, object(&path, value)?, name, input.content, stars, supports)?;
            outputs.insert(key.clone(), output);
        }
    }
    Ok(FlowConfig { name: name.to_owned(), description, enabled, input, outputs, source })
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
    let identity = identify(path, map, &Endpoint::INPUTS, flow)?;
    identity.check_support(supports)?;
    let at_url = |error| ConfigError::new(&identity.path, error);
    let options = |pattern| Options::of(path, map, identity.endpoint, identity.scheme, pattern);
    let (endpoint, options) = match identity.endpoint {
        Endpoint::Listen => {
            let url = ListenUrl::parse(&identity.url, Stars::Pattern).map_err(at_url)?;
            let options = options(url.is_pattern())?;
            (InputEndpoint::Listen(listen(url, &options)?), options)
        }
        Endpoint::Pull => {
            let options = options(false)?;
            (InputEndpoint::Pull(pull(&identity, &options)?), options)
        }
        _ => {
            let options = options(false)?;
            let path = parse_file(&identity.url).map_err(at_url)?;
            let (repeat, start) = (options.flag(&LOOP)?, options.seconds(&START)?);
            (InputEndpoint::Read(ReadConfig { path, repeat, start }), options)
        }
    };
    let hold_for = options.whole(&HOLD)?;
    Ok(InputConfig {
        endpoint,
        content: endpoint::content(&options)?.unwrap_or_default(),
        idle_timeout: Duration::from_secs(options.whole(&IDLE_TIMEOUT)?),
        track_wait: Duration::from_millis(options.whole(&TRACK_WAIT)?),
        hold: options.is_first_word(&ON_PUBLISHER_LOSS)?,
        hold_for: (hold_for > 0).then(|| Duration::from_secs(hold_for)),
    })
}

fn listen(url: ListenUrl, options: &Options<'_>) -> Result<ListenConfig, ConfigError> {
    Ok(ListenConfig {
        url,
        takeover: options.is_first_word(&ON_SECOND_PUBLISHER)?,
        auth: endpoint::auth(options)?,
        allow: endpoint::allow(options)?,
        max_instances: options.size(&MAX_INSTANCES)?,
        max_message_bytes: options.size(&MAX_MESSAGE)?.saturating_mul(1024),
        tls: endpoint::server_tls(options)?,
    })
}

fn pull(identity: &Identity, options: &Options<'_>) -> Result<PullConfig, ConfigError> {
    let (url, user_info) = identity.connect(Stars::Plain)?;
    Ok(PullConfig {
        url,
        credentials: endpoint::credentials(options, user_info)?,
        retry: endpoint::retry(options)?,
        max_message_bytes: options.size(&MAX_MESSAGE)?.saturating_mul(1024),
        tls: endpoint::client_tls(options)?,
    })
}

fn output_of(
    path: &str,
    map: &Map<String, Value>,
    flow: &str,
    input: Content,
    stars: Stars,
    supports: &Supports,
) -> Result<OutputConfig, ConfigError> {
    let identity = identify(path, map, &Endpoint::OUTPUTS, flow)?;
    identity.check_support(supports)?;
    let options = Options::of(path, map, identity.endpoint, identity.scheme, false)?;
    let endpoint = match identity.endpoint {
        Endpoint::Serve => {
            let url = ListenUrl::parse(&identity.url, stars)
                .map_err(|error| ConfigError::new(&identity.path, error))?;
            OutputEndpoint::Serve(serve(url, &options)?)
        }
        Endpoint::Push => OutputEndpoint::Push(push(&identity, &options, stars)?),
        // The types have no place for the others before a module has them.
        other => return Err(ConfigError::unsupported(&identity.path, supports, other, identity.scheme)),
    };
    let content = match endpoint::content(&options)? {
        None => input,
        Some(own) => input.and(own).ok_or_else(|| {
            let fault = Fault::ContentContradiction { output: own.as_str(), input: input.as_str() };
            ConfigError::new(join(path, "content"), fault)
        })?,
    };
    Ok(OutputConfig { content, endpoint })
}

fn serve(url: ListenUrl, options: &Options<'_>) -> Result<ServeConfig, ConfigError> {
    Ok(ServeConfig {
        url,
        auth: endpoint::auth(options)?,
        allow: endpoint::allow(options)?,
        max_clients: options.size(&MAX_CLIENTS)?,
        join_instant: options.is_first_word(&JOIN)?,
        batch: Duration::from_millis(options.whole(&BATCH)?),
        tls: endpoint::server_tls(options)?,
    })
}

fn push(identity: &Identity, options: &Options<'_>, stars: Stars) -> Result<PushConfig, ConfigError> {
    let (url, user_info) = identity.connect(stars)?;
    Ok(PushConfig {
        url,
        credentials: endpoint::credentials(options, user_info)?,
        retry: endpoint::retry(options)?,
        tls: endpoint::client_tls(options)?,
    })
}
