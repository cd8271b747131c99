//! `createOptions`: what of Docker's ContainerCreate body means something for a process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::ManifestError;
use super::document::At;
use crate::variables::Variables;

/// Docker's own time between SIGTERM and SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Where the manifest does not say.
const LOG_BYTES: u64 = 5 << 20;
/// createOptions may come in up to this many pieces (edgeAgent's `DockerConfig`).
const MAX_PIECES: usize = 100;

/// A TCP or UDP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Forwarded by `local-edge`.
    Tcp,
    /// Not forwarded: clients use the module's own address.
    Udp,
}

/// One entry of `PortBindings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// What the module listens on.
    pub container: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// `HostPort`: where people reach it on 127.0.0.1.
    pub host: u16,
    /// The variable that `HostPort` was given by.
    pub variable: Option<String>,
}

/// A directory that the module sees under another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The name the module's configuration uses.
    pub container: PathBuf,
    /// On this machine; absolute, or a volume's name below the state dir.
    pub host: HostPath,
    /// `:ro`.
    pub is_read_only: bool,
    /// A variable gives the outer side: it is this machine's, not the device's.
    pub is_variable: bool,
}

/// The outer side of a [`Bind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPath {
    /// A directory that exists, or that the operator has to make.
    Directory(PathBuf),
    /// A named volume: made below the state dir.
    Volume(String),
}

/// What is honoured.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// `Env`.
    pub env: BTreeMap<String, String>,
    /// `HostConfig.PortBindings`.
    pub ports: Vec<Port>,
    /// `HostConfig.Binds` and `HostConfig.Mounts`.
    pub binds: Vec<Bind>,
    /// `User`.
    pub user: Option<String>,
    /// `HostConfig.ReadonlyRootfs`.
    pub read_only_root: bool,
    /// `StopTimeout`.
    pub stop_timeout: Duration,
    /// `HostConfig.LogConfig.Config.max-size`.
    pub log_bytes: u64,
}

/// createOptions put together from its pieces.
pub(super) struct Assembled {
    pub value: Value,
    path: String,
}

impl Assembled {
    pub fn as_at(&self) -> At<'_> {
        At::named(&self.value, self.path.clone())
    }
}

/// Joins `createOptions`, `createOptions01`, ... and parses them; an object is taken as it is.
pub(super) fn assemble(settings: &At<'_>) -> Result<Assembled, ManifestError> {
    let path = format!("{}.createOptions", settings.path);
    let mut text = match settings.optional("createOptions")? {
        None => String::new(),
        Some(At { value: Value::String(text), .. }) => text.clone(),
        Some(At { value: Value::Object(object), .. }) => {
            return Ok(Assembled { value: Value::Object(object.clone()), path });
        }
        Some(other) => return Err(other.wrong("an object, or JSON as a text")),
    };
    for piece in 1..MAX_PIECES {
        match settings.optional(&format!("createOptions{piece:02}"))? {
            Some(piece) => text.push_str(piece.text()?),
            None => break,
        }
    }
    let value = if text.trim().is_empty() || text.trim() == "null" {
        Value::Object(Default::default())
    } else {
        serde_json::from_str(&text).map_err(|source| ManifestError::Options { path: path.clone(), source })?
    };
    Ok(Assembled { value, path })
}

/// Members that a process has anyway, that describe the image, or that only bound what it does: nothing to say about
/// them.
const SILENT: [&str; 9] =
    ["Env", "HostConfig", "StopTimeout", "ExposedPorts", "Labels", "Healthcheck", "Tty", "Hostname", "User"];
const SILENT_HOST: [&str; 12] = [
    "PortBindings",
    "Binds",
    "Mounts",
    "LogConfig",
    "RestartPolicy",
    "ReadonlyRootfs",
    "AutoRemove",
    "Tmpfs",
    "CapDrop",
    // A process has the devices and groups of whoever started it.
    "Devices",
    "GroupAdd",
    "Memory",
];

pub(super) fn parse(
    module: &str,
    at: &At<'_>,
    raw: Option<&Value>,
    variables: &Variables,
    notes: &mut Vec<String>,
) -> Result<Options, ManifestError> {
    let mut options = Options {
        env: BTreeMap::new(),
        ports: Vec::new(),
        binds: Vec::new(),
        user: None,
        read_only_root: false,
        stop_timeout: STOP_TIMEOUT,
        log_bytes: LOG_BYTES,
    };
    let host = at.optional("HostConfig")?;
    let mut unheeded: Vec<String> = Vec::new();
    unheeded.extend(at.object()?.keys().filter(|key| !SILENT.contains(&key.as_str())).cloned());
    if let Some(host) = &host {
        let others = host.object()?.keys().filter(|key| !SILENT_HOST.contains(&key.as_str()));
        unheeded.extend(others.map(|key| format!("HostConfig.{key}")));
        if host.optional("PortBindings")?.is_some_and(|bindings| has_host_ip(bindings.value)) {
            unheeded.push("HostIp of HostConfig.PortBindings".into());
        }
    }
    if !unheeded.is_empty() {
        let list = unheeded.join(", ");
        notes.push(format!("{module}: createOptions with no meaning for a process are ignored here: {list}"));
    }

    if let Some(env) = at.optional("Env")? {
        for item in env.array()? {
            let text = At::named(item, env.path.clone()).text()?;
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            options.env.insert(name.to_owned(), value.to_owned());
        }
    }
    if let Some(user) = at.optional("User")? {
        options.user = Some(user.text()?.to_owned()).filter(|user| !user.is_empty());
    }
    if let Some(timeout) = at.optional("StopTimeout")? {
        let seconds = timeout.value.as_u64().filter(|seconds| *seconds <= 3600);
        let seconds = seconds.ok_or_else(|| timeout.wrong("seconds, from 0 to 3600"))?;
        options.stop_timeout = Duration::from_secs(seconds);
    }
    let Some(host) = host else { return Ok(options) };
    options.read_only_root = host.value.get("ReadonlyRootfs") == Some(&Value::Bool(true));
    if let Some(bindings) = host.optional("PortBindings")? {
        let raw = raw.and_then(|raw| raw.pointer("/HostConfig/PortBindings"));
        ports(&bindings, raw, &mut options.ports)?;
    }
    if let Some(binds) = host.optional("Binds")? {
        let raw = raw.and_then(|raw| raw.pointer("/HostConfig/Binds"));
        for (index, item) in binds.array()?.iter().enumerate() {
            let at = At::named(item, binds.path.clone());
            let mut parts = at.text()?.split(':');
            let (Some(outer), Some(inner)) = (parts.next(), parts.next()) else {
                return Err(at.wrong("\"HOST:CONTAINER\" or \"HOST:CONTAINER:ro\""));
            };
            let mut bind = bind(outer, inner, &at, variables)?;
            bind.is_read_only = parts.any(|part| part.split(',').any(|option| option == "ro"));
            let raw = raw.and_then(|raw| raw.get(index)?.as_str());
            bind.is_variable = raw.is_some_and(|raw| raw.starts_with("${"));
            options.binds.push(bind);
        }
    }
    if let Some(mounts) = host.optional("Mounts")? {
        for item in mounts.array()? {
            let at = At::named(item, mounts.path.clone());
            if let Some(source) = at.optional("Source")? {
                let mut bind = bind(source.text()?, at.field("Target")?.text()?, &at, variables)?;
                bind.is_read_only = at.value.get("ReadOnly") == Some(&Value::Bool(true));
                options.binds.push(bind);
            }
        }
    }
    let size = host.value.pointer("/LogConfig/Config/max-size").and_then(Value::as_str);
    if let Some(bytes) = size.and_then(docker_size) {
        options.log_bytes = bytes;
    }
    Ok(options)
}

/// Whether ports are asked for on another address than where they are forwarded from.
fn has_host_ip(bindings: &Value) -> bool {
    let lists = bindings.as_object().into_iter().flatten().filter_map(|(_, list)| list.as_array());
    let mut addresses = lists.flatten().filter_map(|item| item.get("HostIp")?.as_str());
    addresses.any(|address| !["", "127.0.0.1"].contains(&address))
}

fn ports(bindings: &At<'_>, raw: Option<&Value>, out: &mut Vec<Port>) -> Result<(), ManifestError> {
    for (key, list) in bindings.object()? {
        let at = At::named(list, format!("{}.{key}", bindings.path));
        let (number, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(At::named(&Value::from(key.as_str()), at.path).wrong("PORT/tcp or PORT/udp")),
        };
        let container = number.parse().ok().filter(|port| *port != 0);
        let container = container.ok_or_else(|| {
            At::named(&Value::from(key.as_str()), at.path.clone()).wrong("PORT/tcp or PORT/udp")
        })?;
        if list.is_null() {
            continue;
        }
        for (index, item) in at.array()?.iter().enumerate() {
            let at = At::named(item, format!("{}.{index}", at.path));
            let host = at.field("HostPort")?;
            let port = host.text()?.parse().ok().filter(|port| *port != 0);
            let port = port.ok_or_else(|| host.wrong("a port number from 1 to 65535, as a text"))?;
            let raw = raw.and_then(|raw| raw.get(key)?.get(index)?.get("HostPort")?.as_str());
            let variable = raw.and_then(|raw| raw.strip_prefix("${")?.strip_suffix('}')).map(Into::into);
            out.push(Port { container, protocol, host: port, variable });
        }
    }
    Ok(())
}

fn bind(outer: &str, inner: &str, at: &At<'_>, variables: &Variables) -> Result<Bind, ManifestError> {
    let container = PathBuf::from(inner);
    if !container.is_absolute() || outer.is_empty() {
        return Err(at.wrong("an absolute path inside the container"));
    }
    // Docker takes a name without a slash for a volume; `.` and what starts with `./` or `../` is a path.
    let relative = outer.starts_with('.') || outer.contains('/');
    let host = if Path::new(outer).is_absolute() {
        HostPath::Directory(PathBuf::from(outer))
    } else if relative {
        HostPath::Directory(normal(&variables.folder().join(outer)))
    } else {
        HostPath::Volume(outer.to_owned())
    };
    Ok(Bind { container, host, is_read_only: false, is_variable: false })
}

/// Without `.` and `..`, so that texts show a plain path.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// `10m`, `512k`, `1g`, or bytes.
fn docker_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text.get(digits.len()..)?.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}
