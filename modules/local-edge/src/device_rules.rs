//! What runs at the desk and would not on a device: containers have their own files, their own loopback, and no door
//! that nobody opened.
//!
//! Desired properties are read here as any module's: by the names of the members that hold a URL or a path, wherever
//! they are. So this knows no service, and no protocol but its default port.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::manifest::{Bind, HostPath, Manifest, Module, Port, Protocol};
use crate::services::{self, Service};
use crate::twin::Object;

/// Members whose URL a module connects to, listens on, and reads or writes (a store can be a server, too).
const CONNECTS: [&str; 2] = ["pull", "push"];
const LISTENS: [&str; 2] = ["listen", "serve"];
const READS: &str = "read";
const WRITES: &str = "store";
/// Members that are paths by themselves.
const FILES: [&str; 4] = ["file", "certificateFile", "keyFile", "caFile"];
/// Ports of listeners that name none.
const DEFAULT_PORTS: [(&str, u16); 6] =
    [("rtmp", 1935), ("rtmps", 1936), ("rtsp", 8554), ("rtsps", 8322), ("http", 8080), ("https", 8443)];

/// Whom our images run as; their volumes and state belong to this user.
const IMAGE_USER: &str = "10001";

/// Everything in `manifest` that would fail on a device, one sentence each. `allowed` are the `allowed_bind_sources` of
/// the device's configuration, if that is at hand.
pub fn check(manifest: &Manifest, allowed: Option<&[PathBuf]>) -> Vec<String> {
    let mut found = Vec::new();
    for module in &manifest.modules {
        check_container(module, allowed, &mut found);
        if let Some(desired) = manifest.desired.get(&module.name) {
            found.extend(check_desired(module, desired, manifest));
        }
    }
    found
}

/// What is said of one of them where it is no error.
pub fn warning(text: &str) -> String {
    format!("on a device this fails: {text}")
}

/// As [`check`], for one module's desired properties.
pub fn check_desired(module: &Module, desired: &Object, manifest: &Manifest) -> Vec<String> {
    let mut found = Vec::new();
    let mut walk = Walk { module, manifest, found: &mut found };
    walk.object(desired, &mut Vec::new());
    found
}

/// Where the service of `module` keeps its state.
fn state_dir(module: &Module) -> PathBuf {
    Path::new("/var/lib").join(&module.service)
}

fn check_container(module: &Module, allowed: Option<&[PathBuf]>, found: &mut Vec<String>) {
    let name = &module.name;
    if services::find(&module.service) != Service::Missing {
        check_state(module, found);
    }
    for bind in &module.binds {
        let HostPath::Directory(path) = &bind.host else { continue };
        let is_allowed = allowed.is_none_or(|allowed| allowed.iter().any(|source| path.starts_with(source)));
        // What a variable gives is this machine's, not the device's.
        if !bind.is_variable && !is_allowed {
            found.push(format!(
                "{name}: {} is not below one of allowed_bind_sources in config.toml: a device that restricts \
                 containers leaves this bind out",
                path.display()
            ));
        }
    }
}

/// What keeps one of our own services from writing its state, or from finding it again.
fn check_state(module: &Module, found: &mut Vec<String>) {
    let (name, state) = (&module.name, state_dir(module));
    match bind_of(module, &state) {
        None if module.read_only_root => found.push(format!(
            "{name}: its root is read-only (ReadonlyRootfs) and no volume holds its state: nothing is kept; add \
             \"{name}:{}\" to HostConfig.Binds",
            state.display()
        )),
        None => found.push(format!(
            "{name}: no volume holds its state: a new container starts without its last good configuration; add \
             \"{name}:{}\" to HostConfig.Binds",
            state.display()
        )),
        Some(bind) if bind.is_read_only => {
            found.push(format!("{name}: its state lies in a bind that is read-only (:ro): nothing is kept"));
        }
        Some(_) => {}
    }
    let user = module.user.as_deref().unwrap_or(IMAGE_USER);
    if user.split(':').next() != Some(IMAGE_USER) {
        found.push(format!(
            "{name}: User of createOptions is {user}: what the image has for its state belongs to user {IMAGE_USER}, \
             and no other may write there (root neither, without its capabilities); leave User out"
        ));
    }
}

/// The bind that a path inside the container lies in.
fn bind_of<'a>(module: &'a Module, path: &Path) -> Option<&'a Bind> {
    let around = module.binds.iter().filter(|bind| path.starts_with(&bind.container));
    around.max_by_key(|bind| bind.container.components().count())
}

struct Walk<'a> {
    module: &'a Module,
    manifest: &'a Manifest,
    found: &'a mut Vec<String>,
}

impl Walk<'_> {
    fn object<'k>(&mut self, object: &'k Object, path: &mut Vec<&'k str>) {
        for (key, value) in object {
            path.push(key);
            self.value(key, value, path);
            path.pop();
        }
    }

    fn value<'k>(&mut self, key: &str, value: &'k Value, path: &mut Vec<&'k str>) {
        match value {
            Value::Object(object) => self.object(object, path),
            Value::Array(items) => items.iter().for_each(|item| self.value(key, item, path)),
            Value::String(text) if FILES.contains(&key) && text.starts_with('/') => {
                self.file(Path::new(text), false, path);
            }
            Value::String(text) => {
                let Some((scheme, rest)) = text.split_once("://") else { return };
                if scheme == "file" {
                    if key == READS || key == WRITES {
                        self.file(Path::new(rest), key == WRITES, path);
                    }
                } else if CONNECTS.contains(&key) || key == WRITES {
                    self.connection(rest, path);
                } else if LISTENS.contains(&key) {
                    self.listener(scheme, rest, path);
                }
            }
            _ => {}
        }
    }

    fn say(&mut self, path: &[&str], text: &str) {
        self.found.push(format!("{}: {}: {text}", self.module.name, path.join(".")));
    }

    fn file(&mut self, file: &Path, is_written: bool, path: &[&str]) {
        match bind_of(self.module, file) {
            None if file.starts_with(state_dir(self.module)) => {}
            None if is_written && self.module.read_only_root => self.say(
                path,
                &format!(
                    "{} lies outside every bind, on a root that is read-only (ReadonlyRootfs)",
                    file.display()
                ),
            ),
            None => self.say(
                path,
                &format!("{} lies outside every bind: its container has no such file", file.display()),
            ),
            Some(bind) if bind.is_read_only && is_written => {
                self.say(path, &format!("{} lies in a bind that is read-only (:ro)", file.display()));
            }
            Some(_) => {}
        }
    }

    fn connection(&mut self, rest: &str, path: &[&str]) {
        let (host, _) = host_and_port(rest);
        if is_loopback(&host) {
            self.say(
                path,
                &format!("{host} is the container's own loopback: other modules are reached by their names"),
            );
        }
    }

    fn listener(&mut self, scheme: &str, rest: &str, path: &[&str]) {
        let (host, port) = host_and_port(rest);
        if is_loopback(&host) {
            return self.say(path, &format!("{host} is the container's own loopback: nobody reaches it"));
        }
        let default = DEFAULT_PORTS.iter().find(|(name, _)| *name == scheme).map(|(_, port)| *port);
        let Some(port) = port.or(default) else { return };
        let is_port = |published: &Port| published.container == port && published.protocol == Protocol::Tcp;
        let is_published = self.module.ports.iter().any(is_port);
        if !is_published && !self.is_asked_for_by_another(port) {
            self.say(
                path,
                &format!(
                    "port {port} is not published: nothing outside reaches it; add \"{port}/tcp\" to \
                     HostConfig.PortBindings"
                ),
            );
        }
    }

    /// Whether another module of the manifest connects to this one's port.
    fn is_asked_for_by_another(&self, port: u16) -> bool {
        let others = self.manifest.desired.iter().filter(|(name, _)| **name != self.module.name);
        others.into_iter().any(|(_, desired)| connects_to(desired, &self.module.name, port))
    }
}

fn connects_to(object: &Object, name: &str, port: u16) -> bool {
    object.iter().any(|(key, value)| match value {
        Value::Object(inner) => connects_to(inner, name, port),
        Value::String(url) if CONNECTS.contains(&key.as_str()) => {
            let Some((scheme, rest)) = url.split_once("://") else { return false };
            let (host, given) = host_and_port(rest);
            let default = DEFAULT_PORTS.iter().find(|(known, _)| *known == scheme).map(|(_, port)| *port);
            host.eq_ignore_ascii_case(name) && given.or(default) == Some(port)
        }
        _ => false,
    })
}

/// Of what follows `://`: `user:password@host:port/path`, the host without brackets.
fn host_and_port(rest: &str) -> (String, Option<u16>) {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    if let Some((host, port)) = authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        return (host.to_owned(), port.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) => (host.to_owned(), port.parse().ok()),
        None => (authority.to_owned(), None),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `allowed_bind_sources` of a device's `config.toml`: one line of it, a list of texts. `None` where there is none.
pub fn allowed_bind_sources(config: &str) -> Option<Vec<PathBuf>> {
    let line = config.lines().find_map(|line| line.trim().strip_prefix("allowed_bind_sources"))?;
    let list = line.trim_start().strip_prefix('=')?.trim().strip_prefix('[')?.split(']').next()?;
    let texts = list.split(',').map(|item| item.trim().trim_matches('"'));
    Some(texts.filter(|text| !text.is_empty()).map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests;
