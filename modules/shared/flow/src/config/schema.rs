//! A JSON Schema (draft 2020-12) of desired documents, made of the tables that [`parse`](super::parse) goes by.
//!
//! It is for editors and for checks before a deployment. What takes a look at two places of a document stays with
//! the parser: a login or a certificate that `defaults` complete, filters that leave nothing, what flows can't
//! share. The schema is stricter in two things: an unknown key is refused even where it is null, and URL schemes
//! are written in lower case.

use serde_json::{Map, Value, json};

use super::access::{MAX_KEYS, MAX_NETWORKS, STORE_FORMS};
use super::document::{CONNECTIONS, LEVELS, MAX_FLOWS, MAX_TELEMETRY_INTERVAL, MOST_CONNECTIONS};
use super::flow::MAX_OUTPUTS;
use super::options::{CONTENT, MAX_INSTANCES, OptionSpec, Shape, TABLE};
use super::secret::MAX_SECRET_BYTES;
use super::supports::{Endpoint, Supports};
use super::types::Scheme;
use super::url::MAX_URL_BYTES;

/// Keys that are ignored.
const IGNORED: &str = "^\\$";
/// As [`is_name`](super::flow::is_name).
const NAME: &str = "^[A-Za-z0-9-][A-Za-z0-9_-]{0,63}$";
const NO_CONTROLS: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

/// The schema of a document for any of `modules`.
pub fn schema(modules: &[Supports]) -> Value {
    let names = modules.iter().map(|module| module.module).collect::<Vec<_>>().join(", ");
    let input = endpoint_of(modules, &Endpoint::INPUTS);
    let output = endpoint_of(modules, &Endpoint::OUTPUTS);
    let description = json!({ "type": "string", "maxLength": 1024, "pattern": NO_CONTROLS });
    let enabled = json!({ "type": "boolean", "default": true });
    let outputs = named(nullable(output), MAX_OUTPUTS);
    let flow = object(
        &[("input", input)],
        [
            ("description", described(description, "For people.")),
            ("enabled", described(enabled, "A disabled flow is checked and reported, and runs nothing.")),
            ("outputs", described(outputs, "Where the stream goes, by name.")),
        ],
    );
    let flows = named(reference("flow"), MAX_FLOWS);
    let version = json!({ "type": "string", "pattern": "^1(\\.[0-9]{1,9})?$", "default": "1.0" });
    let mut schema = object(
        &[],
        [
            ("schemaVersion", version),
            ("logLevel", json!({ "enum": LEVELS, "default": "info" })),
            ("telemetryIntervalSeconds", whole(0, MAX_TELEMETRY_INTERVAL, 0)),
            ("publicHost", host_name()),
            ("maxConnections", whole(1, MOST_CONNECTIONS, CONNECTIONS as u64)),
            ("defaults", described(defaults(), "Options for every flow that does not say otherwise.")),
            ("flows", described(flows, "The flows by name.")),
        ],
    );
    let definitions = json!({
        "flow": nullable(flow),
        "secret": secret(),
        "auth": login(&[("key", keys())]),
        "pullCredentials": login(&[("key", reference("secret"))]),
        "pushCredentials": login(&[("key", reference("secret")), ("streamKey", reference("secret"))]),
    });
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        schema.insert("title".into(), format!("Desired properties of {names}").into());
        schema.insert("$defs".into(), definitions);
    }
    schema
}

/// An input or an output: exactly one of the endpoints that a module has, then what goes with that one.
fn endpoint_of(modules: &[Supports], kinds: &[Endpoint]) -> Value {
    let has = |kind: &Endpoint| modules.iter().any(|module| !module.schemes(*kind).is_empty());
    let there = kinds.iter().copied().filter(has).collect::<Vec<_>>();
    let is = |kind: &Endpoint| json!({ "required": [kind.key()], "properties": { (kind.key()): { "type": "string" } } });
    let branches =
        there.iter().map(|kind| json!({ "if": is(kind), "then": endpoint(*kind, modules, &there) }));
    json!({
        "description": "Exactly one endpoint, with its options.",
        "type": "object",
        "if": { "type": "object" },
        "then": { "oneOf": there.iter().map(is).collect::<Vec<_>>(), "allOf": branches.collect::<Vec<_>>() },
    })
}

/// One kind of endpoint. `kinds`: the others that can't stand beside it.
fn endpoint(kind: Endpoint, modules: &[Supports], kinds: &[Endpoint]) -> Value {
    let having = modules.iter().filter(|module| !module.schemes(kind).is_empty()).map(|module| module.module);
    let has = |scheme: &Scheme| modules.iter().any(|module| module.schemes(kind).contains(scheme));
    let schemes = Scheme::ALL.into_iter().filter(has).collect::<Vec<_>>();
    let url = json!({
        "description": format!("Modules that have it: {}.", having.collect::<Vec<_>>().join(", ")),
        "type": "string",
        "maxLength": MAX_URL_BYTES,
        "pattern": url_with(&schemes, "[^\\s#]+$"),
    });
    let others =
        kinds.iter().filter(|other| **other != kind).map(|other| (other.key(), json!({ "type": "null" })));
    let mut options = others.collect::<Vec<_>>();
    let mut narrower = Map::new();
    for spec in TABLE {
        let fitting = schemes.iter().copied().filter(|scheme| spec.fits(kind, *scheme)).collect::<Vec<_>>();
        if fitting.is_empty() {
            continue;
        }
        options.push((spec.name, described(value(spec, kind), &format!("For {}.", spec.belongs))));
        let pattern_only = spec.name == MAX_INSTANCES.name;
        if pattern_only || fitting.len() < schemes.len() {
            let end = if pattern_only { ".*/\\*/?$" } else { "" };
            let url = json!({ "properties": { (kind.key()): { "pattern": url_with(&fitting, end) } } });
            let absent = json!({ "properties": { (spec.name): { "type": "null" } } });
            narrower.insert(spec.name.into(), json!({ "if": absent, "else": url }));
        }
    }
    let mut endpoint = object(&[(kind.key(), url)], options);
    if let (Some(endpoint), false) = (endpoint.as_object_mut(), narrower.is_empty()) {
        endpoint.insert("dependentSchemas".into(), narrower.into());
    }
    endpoint
}

fn url_with(schemes: &[Scheme], rest: &str) -> String {
    let schemes = schemes.iter().map(|scheme| scheme.as_str().replace('+', "\\+")).collect::<Vec<_>>();
    format!("^({})://{rest}", schemes.join("|"))
}

/// `defaults`: every option that any kind of endpoint on that side has, of today's modules or not.
fn defaults() -> Value {
    object(&[], [("input", side(&Endpoint::INPUTS)), ("output", side(&Endpoint::OUTPUTS))])
}

fn side(kinds: &[Endpoint]) -> Value {
    let mut options = Map::new();
    for spec in TABLE {
        for (kind, _) in spec.places.iter().filter(|(kind, _)| kinds.contains(kind)) {
            let value = match spec.shape {
                // The properties may belong to several kinds of endpoint.
                Shape::Object { .. } => object(&[], OptionSpec::named(spec.name).flat_map(properties)),
                _ => value(spec, *kind),
            };
            let forms = options.entry(spec.name).or_insert_with(|| json!([]));
            if let Some(forms) = forms.as_array_mut().filter(|forms| !forms.contains(&value)) {
                forms.push(value);
            }
        }
    }
    let options = options.iter().map(|(name, forms)| {
        let form = match forms.as_array().map(Vec::as_slice) {
            Some([form]) => form.clone(),
            _ => json!({ "anyOf": forms }),
        };
        let belongs = OptionSpec::named(name).next().map_or("", |spec| spec.belongs);
        (name.as_str(), described(form, &format!("For {belongs}.")))
    });
    object(&[], options)
}

fn properties(spec: &OptionSpec) -> impl Iterator<Item = (&'static str, Value)> + use<> {
    let properties = match spec.shape {
        Shape::Object { properties } => properties,
        _ => &[],
    };
    properties.iter().map(|property| (property.name, value(property, Endpoint::Listen)))
}

/// What an option takes at a kind of endpoint.
fn value(spec: &OptionSpec, kind: Endpoint) -> Value {
    match spec.shape {
        Shape::Flag { default } => json!({ "type": "boolean", "default": default }),
        Shape::Whole { min, max, default } => whole(min, max, default),
        Shape::Seconds { max } => json!({ "type": "number", "minimum": 0, "maximum": max, "default": 0 }),
        // An output that has none takes the input's.
        Shape::Word { words } if spec.name == CONTENT.name && Endpoint::OUTPUTS.contains(&kind) => {
            json!({ "enum": words })
        }
        Shape::Word { words } => json!({ "enum": words, "default": words.first() }),
        Shape::Text => text(1024, NO_CONTROLS),
        Shape::Path => path(),
        Shape::HostName => host_name(),
        Shape::Sha256 => json!({ "type": "string", "maxLength": 95, "pattern": "^(:*[0-9A-Fa-f]){64}:*$" }),
        Shape::Networks => json!({
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_NETWORKS,
            "items": { "type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$" },
        }),
        Shape::Auth => reference("auth"),
        Shape::Credentials => match kind {
            Endpoint::Store => object(&[], STORE_FORMS.map(|form| (form, json!({})))),
            Endpoint::Push => reference("pushCredentials"),
            _ => reference("pullCredentials"),
        },
        Shape::Object { .. } => object(&[], properties(spec)),
        Shape::AnyObject => json!({ "type": "object" }),
        Shape::AnyList => json!({ "type": "array" }),
    }
}

/// User and password, of which `defaults` may hold the other, or one of some keys.
fn login(keys: &[(&str, Value)]) -> Value {
    let user = [("username", text(256, NO_CONTROLS)), ("password", reference("secret"))];
    let absent = |name| (name, json!({ "type": "null" }));
    let mut forms =
        vec![object(&[], user.clone().into_iter().chain(keys.iter().map(|(key, _)| absent(*key))))];
    for (key, value) in keys {
        let others = user.iter().chain(keys).map(|(name, _)| *name).filter(|name| name != key);
        forms.push(object(&[(key, value.clone())], others.map(absent)));
    }
    json!({ "anyOf": forms })
}

fn keys() -> Value {
    let key = reference("secret");
    json!({ "anyOf": [key, { "type": "array", "minItems": 1, "maxItems": MAX_KEYS, "items": key }] })
}

fn secret() -> Value {
    let absent = json!({ "type": "null" });
    json!({
        "description": "The text itself, an environment variable, or a file that is read again when it changes.",
        "anyOf": [
            text(MAX_SECRET_BYTES, "^[^\\u0000\\r\\n]*$"),
            object(&[("env", text(256, "^[^=\\u0000]*$"))], [("file", absent.clone())]),
            object(&[("file", path())], [("env", absent)]),
        ],
    })
}

/// An object that holds nothing else; `optional` properties may be null, which counts as absent.
fn object<'a>(required: &[(&'a str, Value)], optional: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let own = required.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    let optional = optional.into_iter().map(|(name, value)| (name.to_owned(), nullable(value)));
    let properties = own.chain(optional).collect::<Map<_, _>>();
    let required = required.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    json!({
        "type": "object",
        "required": required,
        "properties": properties,
        "patternProperties": { (IGNORED): true },
        "additionalProperties": false,
    })
}

/// Entries by name, each null or what it is.
fn named(value: Value, most: usize) -> Value {
    json!({
        "type": "object",
        "maxProperties": most,
        "patternProperties": { (IGNORED): true, (NAME): value },
        "additionalProperties": false,
    })
}

fn nullable(mut schema: Value) -> Value {
    let absent = json!({ "type": "null" });
    let Some(map) = schema.as_object_mut() else { return schema };
    if let Some(target) = map.remove("$ref") {
        map.insert("anyOf".into(), json!([{ "$ref": target }, absent]));
    } else if let Some(Value::Array(forms)) = map.get_mut("anyOf") {
        forms.push(absent);
    } else if let Some(Value::Array(words)) = map.get_mut("enum") {
        words.push(Value::Null);
    } else if let Some(Value::String(kind)) = map.get("type").filter(|kind| *kind != "null") {
        let either = json!([kind, "null"]);
        map.insert("type".into(), either);
    }
    schema
}

fn described(mut schema: Value, text: &str) -> Value {
    if let Some(map) = schema.as_object_mut() {
        map.insert("description".into(), text.into());
    }
    schema
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn whole(min: u64, max: u64, default: u64) -> Value {
    json!({ "type": "integer", "minimum": min, "maximum": max, "default": default })
}

/// JSON Schema counts characters, the parser bytes: no text that the parser takes is too long here.
fn text(most: usize, pattern: &str) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": most, "pattern": pattern })
}

fn path() -> Value {
    text(1024, "^/[^\\u0000-\\u001f\\u007f-\\u009f]*$")
}

fn host_name() -> Value {
    text(253, "^([A-Za-z0-9._-]+|\\[?[0-9A-Fa-f:.]+\\]?)$")
}
