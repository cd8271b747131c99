//! A deployment manifest, read as edgeAgent and the editors' template tools read it.

mod document;
mod image;
mod module;
mod options;
mod schema;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::route::{Route, RouteError};
use crate::twin::{LimitError, Object, check_desired};
use crate::variables::{ExpandError, Variables};
use document::{expand, section};

pub use image::is_placeholder;
pub use module::{Module, RestartPolicy};
pub use options::{Bind, HostPath, Port, Protocol};

/// A manifest is read up to this size.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What a manifest asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// The modules, in the order they are started in.
    pub modules: Vec<Module>,
    /// Desired properties by module name; a name that is in `modules` or will be by `local-edge env`.
    pub desired: BTreeMap<String, Object>,
    /// The routes of `$edgeHub`, by name.
    pub routes: BTreeMap<String, Route>,
    /// What can't be honoured here, one line each.
    pub notes: Vec<String>,
}

/// Why a manifest can't be used. Every text names the place.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Reading failed.
    #[error("cannot be read: {0}; name a manifest with --manifest")]
    Read(std::io::Error),
    /// Larger than any deployment may be.
    #[error("larger than {MAX_FILE_BYTES} bytes, so not a manifest")]
    Size,
    /// Not strict JSON, or a name twice.
    #[error("{not}{0}", not = if .0.is_data() { "" } else { "not JSON: " })]
    Json(#[from] serde_json::Error),
    /// Something else than the schema has there.
    #[error("{path}: expected {expected}, found {found}")]
    Shape {
        /// Dotted path from the top.
        path: String,
        /// In words.
        expected: &'static str,
        /// The value, shortened.
        found: String,
    },
    /// A name that is none of a deployment manifest's.
    #[error("{path}: a deployment manifest has no such member there; it has {known}")]
    Unknown {
        /// Dotted path from the top.
        path: String,
        /// Those it has.
        known: String,
    },
    /// A `${NAME}` without a value.
    #[error("{path}: {source}")]
    Variable {
        /// Dotted path from the top.
        path: String,
        /// Which.
        source: ExpandError,
    },
    /// `createOptions` is a text that is not JSON.
    #[error("{path}: createOptions is not JSON: {source}")]
    Options {
        /// Dotted path from the top.
        path: String,
        /// Where it breaks off.
        source: serde_json::Error,
    },
    /// A bad route.
    #[error("$edgeHub.routes.{name}: {source}")]
    Route {
        /// The route's name.
        name: String,
        /// Why.
        source: RouteError,
    },
    /// A name that can't be a module's.
    #[error("{0:?} can't be a module's name: 1 to 128 of letters, digits and -_.:!~*'()% are allowed")]
    ModuleName(String),
    /// IoT Hub refuses such a twin.
    #[error("{module}.properties.desired: IoT Hub refuses this: {source}")]
    Desired {
        /// Whose.
        module: String,
        /// Why.
        source: LimitError,
    },
}

impl Manifest {
    /// Reads and resolves a manifest or a template of one.
    pub fn load(path: &Path, variables: &Variables) -> Result<Self, ManifestError> {
        use std::io::Read;
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(ManifestError::Read)?;
        let length = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(ManifestError::Read)?;
        if u64::try_from(length).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
            return Err(ManifestError::Size);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        Self::parse(&text, variables, folder.unwrap_or(Path::new(".")))
    }

    /// As [`load`](Self::load), from text. `module.json` files are looked for in `folder/modules/NAME`.
    pub fn parse(text: &str, variables: &Variables, folder: &Path) -> Result<Self, ManifestError> {
        let raw: Value = av_edge::json::from_slice(text.as_bytes())?;
        let resolved = expand(&raw, variables, "")?;
        let raw = document::At::new(&raw).field("modulesContent")?;
        let content = document::At::new(&resolved).field("modulesContent")?;
        let mut manifest = Self::default();

        let agent = section(&content, "$edgeAgent")?;
        check_schema(&agent, "$edgeAgent", 1)?;
        let is_whole = is_whole(&content, "$edgeAgent")?;
        let at = Value::Object(agent.clone());
        schema::check_agent(&document::At::named(&at, "$edgeAgent"), is_whole)?;
        let agent_raw = section(&raw, "$edgeAgent")?;
        if let Some(modules) = agent.get("modules") {
            let raw_modules = agent_raw.get("modules").and_then(Value::as_object);
            let modules = document::At::named(modules, "$edgeAgent.modules").object()?;
            for (name, spec) in modules {
                check_module_name(name)?;
                let at = document::At::named(spec, format!("$edgeAgent.modules.{name}"));
                let raw = raw_modules.and_then(|modules| modules.get(name));
                let module = module::parse(name, &at, raw, variables, folder, &mut manifest.notes)?;
                manifest.modules.push(module);
            }
        }
        // As edgeAgent: lower first; those with the same order as they are written.
        manifest.modules.sort_by_key(|module| module.startup_order);

        let hub = section(&content, "$edgeHub")?;
        check_schema(&hub, "$edgeHub", 3)?;
        if is_whole {
            content.field("$edgeHub")?;
        }
        let at = Value::Object(hub.clone());
        schema::check_hub(&document::At::named(&at, "$edgeHub"), self::is_whole(&content, "$edgeHub")?)?;
        if let Some(routes) = hub.get("routes") {
            for (name, route) in document::At::named(routes, "$edgeHub.routes").object()? {
                if let Some(route) = parse_route(name, route)? {
                    manifest.routes.insert(name.clone(), route);
                }
            }
        }

        for name in content.object()?.keys().filter(|name| !name.starts_with('$')) {
            check_module_name(name)?;
            let desired = section(&content, name)?;
            check_desired(&desired)
                .map_err(|source| ManifestError::Desired { module: name.clone(), source })?;
            manifest.desired.insert(name.clone(), desired);
        }
        Ok(manifest)
    }
}

/// Whether the manifest has all of a section, and not the parts that a layer adds.
fn is_whole(content: &document::At<'_>, name: &str) -> Result<bool, ManifestError> {
    let entry = content.optional(name)?;
    Ok(entry.is_some_and(|entry| entry.value.get("properties.desired").is_some()))
}

/// edgeAgent and edgeHub refuse everything where `schemaVersion` is not one of theirs, from 1.0 on.
fn check_schema(section: &Object, name: &str, newest: u32) -> Result<(), ManifestError> {
    let Some(version) = section.get("schemaVersion") else { return Ok(()) };
    let at = document::At::named(version, format!("{name}.schemaVersion"));
    let mut parts = at.text()?.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(1)), Some(Ok(minor))) if minor <= newest => Ok(()),
        _ => Err(at.wrong("1.0, 1.1 or another version that IoT Edge has")),
    }
}

/// Whether a module may be called that. `$edgeAgent` and `$edgeHub` are not modules here.
pub fn check_module_name(name: &str) -> Result<(), ManifestError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:!~*'()%".contains(c);
    let dots = name.chars().all(|c| c == '.');
    if name.len() > 128 || dots || !name.chars().all(allowed) {
        return Err(ManifestError::ModuleName(name.chars().take(140).collect()));
    }
    Ok(())
}

fn parse_route(name: &str, value: &Value) -> Result<Option<Route>, ManifestError> {
    let at = document::At::named(value, format!("$edgeHub.routes.{name}"));
    let text = match value {
        // Null takes a route away in a layered deployment.
        Value::Null => return Ok(None),
        Value::String(text) => text.clone(),
        _ => at.field("route")?.text()?.to_owned(),
    };
    let route = Route::parse(&text);
    Ok(Some(route.map_err(|source| ManifestError::Route { name: name.to_owned(), source })?))
}

#[cfg(test)]
mod tests;
