//! A JSON Schema (draft 2020-12) of desired documents, made of the tables that [`parse`](super::parse) goes by.
//!
//! It is for editors and for checks before a deployment. What takes a look at two places of a document stays with
//! the parser: a login or a certificate that `defaults` complete, filters that leave nothing, what flows can't
//! share. The schema is stricter in two things: an unknown key is refused even where it is null, and URL schemes
//! are written in lower case.

use serde_json::{Map, Value, json};

use super::access::{CREDENTIAL_KEY, MAX_KEYS, MAX_NETWORKS};
use super::document::{
    CONNECTIONS, LEVELS, MAX_FLOWS, MAX_TELEMETRY_INTERVAL, MOST_CACHE_MEGABYTES, MOST_CONNECTIONS,
};
use super::flow::MAX_OUTPUTS;
use super::options::{CONTENT, MAX_INSTANCES, OptionSpec, Shape};
use super::role::Role;
use super::scheme::Scheme;
use super::secret::MAX_SECRET_BYTES;
use super::supports::Supports;
use super::url::MAX_URL_BYTES;
use crate::catalogue;
use crate::registry::EndpointSpec;

/// Keys that are ignored.
const IGNORED: &str = "^\\$";
/// As [`is_name`](super::flow::is_name).
const NAME: &str = "^[A-Za-z0-9-][A-Za-z0-9_-]{0,63}$";
const NO_CONTROLS: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

/// The schema of a document for any of `modules`.
pub fn schema(modules: &[Supports]) -> Value {
    let names = modules.iter().map(|module| module.module).collect::<Vec<_>>().join(", ");
    let input = endpoint_of(modules, &Role::INPUTS);
    let output = endpoint_of(modules, &Role::OUTPUTS);
    let description = json!({ "type": "string", "maxLength": 1024, "pattern": NO_CONTROLS });
    let enabled = json!({ "type": "boolean", "default": true });
    let outputs = named(nullable(output), MAX_OUTPUTS);
    let flow = object(
        &[("input", input)],
        [
            ("description", described(description, "For people.")),
            ("enabled", described(enabled, "A disabled flow is checked and reported, but does not run.")),
            ("outputs", described(outputs, "Where the stream goes, by name.")),
        ],
    );
    let flows = named(reference("flow"), MAX_FLOWS);
    let version = json!({ "type": "string", "pattern": "^1(\\.[0-9]{1,9})?$", "default": "1.0" });
    let own = modules.iter().flat_map(|module| module.properties.iter().map(move |own| (module.module, own)));
    let own =
        own.map(|(module, own)| (own.name, described(value(own, Role::Listen), &about(own, &[module]))));
    let top = [
        ("schemaVersion", version),
        ("logLevel", json!({ "enum": LEVELS, "default": "info" })),
        ("telemetryIntervalSeconds", whole(0, MAX_TELEMETRY_INTERVAL, 0)),
        ("publicHost", host_name()),
        ("maxConnections", whole(1, MOST_CONNECTIONS, CONNECTIONS as u64)),
        ("cacheMegabytes", whole(0, MOST_CACHE_MEGABYTES, 0)),
        ("defaults", described(defaults(modules), "Options for every flow that does not set its own.")),
        ("flows", described(flows, "The flows by name.")),
    ];
    let mut schema = object(&[], top.into_iter().chain(own));
    let mut definitions = json!({
        "flow": nullable(flow),
        "secret": secret(),
        "auth": login(&[("key", keys())]),
    });
    let all = everything(modules).flat_map(|spec| spec.all_options());
    for keys in all.filter_map(|option| match option.shape {
        Shape::Credentials { keys } => Some(keys),
        _ => None,
    }) {
        let forms = keys.iter().map(|key| (*key, reference("secret"))).collect::<Vec<_>>();
        if let Some(definitions) = definitions.as_object_mut() {
            definitions.insert(credentials(keys), login(&forms));
        }
    }
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        schema.insert("title".into(), format!("Desired properties of {names}").into());
        schema.insert("$defs".into(), definitions);
    }
    schema
}

/// Every endpoint of these modules, and then of the project.
fn everything(modules: &[Supports]) -> impl Iterator<Item = EndpointSpec> + '_ {
    let own = modules.iter().flat_map(Supports::endpoints);
    own.chain(catalogue::ENDPOINTS.iter().map(|entry| entry.spec))
}

/// An input or an output: exactly one of the endpoints that a module has, then what goes with that one.
fn endpoint_of(modules: &[Supports], roles: &[Role]) -> Value {
    let has = |role: &Role| modules.iter().any(|module| !module.schemes(*role).is_empty());
    let there = roles.iter().copied().filter(has).collect::<Vec<_>>();
    let is = |role: &Role| json!({ "required": [role.key()], "properties": { (role.key()): { "type": "string" } } });
    let branches =
        there.iter().map(|role| json!({ "if": is(role), "then": endpoint(*role, modules, &there) }));
    json!({
        "description": "Exactly one endpoint, with its options.",
        "type": "object",
        "if": { "type": "object" },
        "then": { "oneOf": there.iter().map(is).collect::<Vec<_>>(), "allOf": branches.collect::<Vec<_>>() },
    })
}

/// One option of endpoints with one role, over all modules.
struct Row {
    option: &'static OptionSpec,
    /// Shapes that it has with one or the other scheme.
    forms: Vec<Value>,
    schemes: Vec<Scheme>,
    modules: Vec<&'static str>,
}

fn rows(role: Role, modules: &[Supports]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for module in modules {
        for spec in module.endpoints().filter(|spec| spec.role == role) {
            for option in spec.all_options() {
                let schemes = spec.schemes.iter().filter(|scheme| option.fits(**scheme, true));
                let schemes = schemes.copied().collect::<Vec<_>>();
                if schemes.is_empty() {
                    continue;
                }
                let form = value(option, role);
                match rows.iter_mut().find(|row| row.option.name == option.name) {
                    Some(row) => {
                        add(&mut row.forms, form);
                        schemes.into_iter().for_each(|scheme| add(&mut row.schemes, scheme));
                        add(&mut row.modules, module.module);
                    }
                    None => {
                        rows.push(Row { option, forms: vec![form], schemes, modules: vec![module.module] })
                    }
                }
            }
        }
    }
    rows
}

fn add<T: PartialEq>(list: &mut Vec<T>, entry: T) {
    if !list.contains(&entry) {
        list.push(entry);
    }
}

fn any_of(forms: Vec<Value>) -> Value {
    match <[Value; 1]>::try_from(forms) {
        Ok([form]) => form,
        Err(forms) => json!({ "anyOf": forms }),
    }
}

/// One kind of endpoint. `roles`: the others that can't stand beside it.
fn endpoint(role: Role, modules: &[Supports], roles: &[Role]) -> Value {
    let having = modules.iter().filter(|module| !module.schemes(role).is_empty()).map(|module| module.module);
    let mut schemes = Vec::new();
    for scheme in modules.iter().flat_map(|module| module.schemes(role)) {
        add(&mut schemes, scheme);
    }
    let url = json!({
        "description": format!("Modules that have it: {}.", having.collect::<Vec<_>>().join(", ")),
        "type": "string",
        "maxLength": MAX_URL_BYTES,
        "pattern": url_with(&schemes, "[^\\s#]+$"),
    });
    let others =
        roles.iter().filter(|other| **other != role).map(|other| (other.key(), json!({ "type": "null" })));
    let mut options = others.collect::<Vec<_>>();
    let mut narrower = Map::new();
    for Row { option, forms, schemes: fitting, modules } in rows(role, modules) {
        options.push((option.name, described(any_of(forms), &about(option, &modules))));
        let pattern_only = option.name == MAX_INSTANCES.name;
        if pattern_only || fitting.len() < schemes.len() {
            let end = if pattern_only { ".*/\\*/?$" } else { "" };
            let url = json!({ "properties": { (role.key()): { "pattern": url_with(&fitting, end) } } });
            let absent = json!({ "properties": { (option.name): { "type": "null" } } });
            narrower.insert(option.name.into(), json!({ "if": absent, "else": url }));
        }
    }
    let mut endpoint = object(&[(role.key(), url)], options);
    if let (Some(endpoint), false) = (endpoint.as_object_mut(), narrower.is_empty()) {
        endpoint.insert("dependentSchemas".into(), narrower.into());
    }
    endpoint
}

/// What an option is for, and which modules have it.
fn about(option: &OptionSpec, modules: &[&str]) -> String {
    let belongs = if option.belongs.is_empty() { String::new() } else { format!("For {}. ", option.belongs) };
    format!("{belongs}Modules that have it: {}.", modules.join(", "))
}

fn url_with(schemes: &[Scheme], rest: &str) -> String {
    let schemes = schemes.iter().map(|scheme| scheme.name.replace('+', "\\+")).collect::<Vec<_>>();
    format!("^({})://{rest}", schemes.join("|"))
}

/// `defaults`: every option that any kind of endpoint on that side has, of today's modules or not.
fn defaults(modules: &[Supports]) -> Value {
    object(&[], [("input", side(&Role::INPUTS, modules)), ("output", side(&Role::OUTPUTS, modules))])
}

fn side(roles: &[Role], modules: &[Supports]) -> Value {
    let all = || everything(modules).filter(|spec| roles.contains(&spec.role));
    let mut options: Vec<(&OptionSpec, Vec<Value>)> = Vec::new();
    for (role, option) in all().flat_map(|spec| spec.all_options().map(move |option| (spec.role, option))) {
        let form = match option.shape {
            // The properties may belong to several kinds of endpoint.
            Shape::Object { .. } => {
                let same = everything(modules).flat_map(|spec| spec.all_options());
                object(&[], same.filter(|other| other.name == option.name).flat_map(properties))
            }
            _ => value(option, role),
        };
        match options.iter_mut().find(|(other, _)| other.name == option.name) {
            Some((_, forms)) => add(forms, form),
            None => options.push((option, vec![form])),
        }
    }
    let options = options
        .into_iter()
        .map(|(option, forms)| (option.name, described(any_of(forms), &format!("For {}.", option.belongs))));
    object(&[], options)
}

fn properties(option: &OptionSpec) -> impl Iterator<Item = (&'static str, Value)> + use<> {
    let properties = match option.shape {
        Shape::Object { properties } => properties,
        _ => &[],
    };
    properties.iter().map(|property| (property.name, value(property, Role::Listen)))
}

/// The name of the definition of `credentials` with these keys.
fn credentials(keys: &[&str]) -> String {
    match keys {
        [CREDENTIAL_KEY] => "credentials".into(),
        _ => format!("credentials-{}", keys.join("-")),
    }
}

/// What an option takes at a kind of endpoint.
fn value(spec: &OptionSpec, role: Role) -> Value {
    match spec.shape {
        Shape::Flag { default } => json!({ "type": "boolean", "default": default }),
        Shape::Whole { min, max, default } => whole(min, max, default),
        Shape::Seconds { max } => json!({ "type": "number", "minimum": 0, "maximum": max, "default": 0 }),
        // An output that has none takes the input's.
        Shape::Word { words } if spec.name == CONTENT.name && !role.is_input() => {
            json!({ "enum": words })
        }
        Shape::Word { words } => json!({ "enum": words, "default": words.first() }),
        Shape::Words { words } => json!({
            "type": "array",
            "minItems": 1,
            "uniqueItems": true,
            "items": { "enum": words },
            "default": words,
        }),
        Shape::Text => text(1024, NO_CONTROLS),
        Shape::PortPair { default } => json!({
            "type": "string",
            "pattern": "^[0-9]{1,5}-[0-9]{1,5}$",
            "default": format!("{default}-{}", default.saturating_add(1)),
        }),
        Shape::Group => json!({ "type": "string", "pattern": "^2[0-9]{2}(\\.[0-9]{1,3}){3}$" }),
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
        Shape::Credentials { keys } => reference(&credentials(keys)),
        Shape::Keys { names } => object(&[], names.iter().map(|name| (*name, json!({})))),
        Shape::Object { .. } => object(&[], properties(spec)),
        Shape::Texts { most, .. } => {
            let one = text(1024, NO_CONTROLS);
            json!({ "anyOf": [one, { "type": "array", "minItems": 1, "maxItems": most, "items": one }] })
        }
        Shape::Objects { properties, most } => {
            let each = properties.iter().map(|property| (property.name, value(property, role)));
            let each = object(&each.collect::<Vec<_>>(), []);
            json!({ "type": "array", "maxItems": most, "items": each })
        }
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
