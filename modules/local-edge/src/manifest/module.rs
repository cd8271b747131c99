//! One entry of `$edgeAgent`'s `modules`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::document::At;
use super::image::service_of;
use super::options::{self, Options};
use super::{Bind, ManifestError, Port};
use crate::variables::Variables;

/// When a module that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// However it ended.
    #[default]
    Always,
    /// When its exit code was not 0 (`on-unhealthy` means the same here: nothing asks for its health).
    OnFailure,
    /// Never.
    Never,
}

/// A module as the manifest asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// Its name on the device.
    pub name: String,
    /// Its image, as the manifest has it.
    pub image: String,
    /// What its image runs; several modules may run the same.
    pub service: String,
    /// `status` is `running`.
    pub running: bool,
    /// `restartPolicy`.
    pub restart: RestartPolicy,
    /// Lower is started first.
    pub startup_order: u32,
    /// From `env`, then from createOptions' `Env`.
    pub env: BTreeMap<String, String>,
    /// `PortBindings`.
    pub ports: Vec<Port>,
    /// `Binds` and `Mounts`.
    pub binds: Vec<Bind>,
    /// `User`: whom its processes run as, where the manifest says so.
    pub user: Option<String>,
    /// `ReadonlyRootfs`: it may write in its volumes alone.
    pub read_only_root: bool,
    /// Between SIGTERM and SIGKILL.
    pub stop_timeout: Duration,
    /// Its log file is begun anew at this size (`LogConfig`'s `max-size`).
    pub log_bytes: u64,
}

pub(super) fn parse(
    name: &str,
    at: &At<'_>,
    raw: Option<&Value>,
    variables: &Variables,
    folder: &Path,
    notes: &mut Vec<String>,
) -> Result<Module, ManifestError> {
    let settings = at.field("settings")?;
    let image = settings.field("image")?;
    let image_name = image.text()?.trim().to_owned();
    let service = service_of(&image_name, folder)
        .ok_or_else(|| image.wrong("an image such as ${MODULES.NAME} or registry/NAME:1.0.0-amd64"))?;
    let running = match at.optional("status")? {
        None => true,
        Some(status) => match status.text()? {
            "running" => true,
            "stopped" => false,
            _ => return Err(status.wrong("\"running\" or \"stopped\"")),
        },
    };
    let restart = match at.optional("restartPolicy")? {
        None => RestartPolicy::Always,
        Some(policy) => match policy.text()? {
            "always" => RestartPolicy::Always,
            "on-failure" | "on-unhealthy" => RestartPolicy::OnFailure,
            "never" => RestartPolicy::Never,
            _ => {
                return Err(policy.wrong("\"always\", \"on-failure\", \"on-unhealthy\" or \"never\""));
            }
        },
    };
    let startup_order = match at.optional("startupOrder")? {
        None => u32::MAX,
        Some(order) => {
            let number = order.value.as_u64().and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| order.wrong("a whole number from 0 to 4294967295"))?
        }
    };

    let create = options::assemble(&settings)?;
    // The same place before `${}` was replaced tells which variable a port came from.
    let raw_settings = raw.and_then(|raw| raw.get("settings"));
    let raw_create = raw_settings.and_then(|raw| options::assemble(&At::named(raw, "")).ok());
    let Options { env, ports, binds, user, read_only_root, stop_timeout, log_bytes } =
        options::parse(name, &create.as_at(), raw_create.as_ref().map(|raw| &raw.value), variables, notes)?;
    let mut module = Module {
        name: name.to_owned(),
        image: image_name,
        service,
        running,
        restart,
        startup_order,
        env,
        ports,
        binds,
        user,
        read_only_root,
        stop_timeout,
        log_bytes,
    };
    if let Some(env) = at.optional("env")? {
        for (key, value) in env.object()? {
            let at = At::named(value, format!("{}.env.{key}", at.path));
            let value = at.field("value")?;
            let text = match value.value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.value.to_string(),
                _ => return Err(value.wrong("a text")),
            };
            module.env.insert(key.clone(), text);
        }
    }
    Ok(module)
}
