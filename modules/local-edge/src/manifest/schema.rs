//! What `az iot edge set-modules` and IoT Hub refuse of a deployment manifest, and what edgeAgent and edgeHub would not
//! see of it: members that are missing, and names that are none of theirs.
//! (Azure/azure-iot-cli-extension, `azext_iot/assets/azure-iot-edgeagent-deployment-1.0.json` and its neighbours.)

use serde_json::Value;

use super::ManifestError;
use super::document::At;

const AGENT: [&str; 4] = ["schemaVersion", "runtime", "systemModules", "modules"];
const MODULE: [&str; 8] =
    ["version", "type", "status", "restartPolicy", "startupOrder", "imagePullPolicy", "env", "settings"];
const SETTINGS: [&str; 3] = ["image", "createOptions", "digest"];
const RUNTIME: [&str; 2] = ["type", "settings"];
const RUNTIME_SETTINGS: [&str; 3] = ["minDockerVersion", "loggingOptions", "registryCredentials"];
const CREDENTIALS: [&str; 3] = ["username", "password", "address"];
const HUB: [&str; 4] = ["schemaVersion", "routes", "storeAndForwardConfiguration", "mqttBroker"];
const ROUTE: [&str; 3] = ["route", "priority", "timeToLiveSecs"];
const KEPT: [&str; 2] = ["timeToLiveSecs", "storeLimits"];

/// The desired properties of `$edgeAgent`. `is_whole` where the manifest has them as one, and not the parts that a layer
/// adds.
pub(super) fn check_agent(agent: &At<'_>, is_whole: bool) -> Result<(), ManifestError> {
    only(agent, &AGENT)?;
    if is_whole {
        for name in AGENT {
            agent.field(name)?;
        }
    }
    if let Some(runtime) = agent.optional("runtime")? {
        only(&runtime, &RUNTIME)?;
        docker(&runtime.field("type")?)?;
        let settings = runtime.field("settings")?;
        only(&settings, &RUNTIME_SETTINGS)?;
        for name in ["minDockerVersion", "loggingOptions"] {
            settings.optional(name)?.iter().try_for_each(|text| text.text().map(drop))?;
        }
        if let Some(registries) = settings.optional("registryCredentials")? {
            for registry in members(&registries)? {
                only(&registry, &CREDENTIALS)?;
                for name in CREDENTIALS {
                    registry.field(name)?.text()?;
                }
                let address = registry.field("address")?;
                if address.text()?.is_empty() || address.text()?.contains(char::is_whitespace) {
                    return Err(address.wrong("a host name without blanks"));
                }
            }
        }
    }
    if let Some(system) = agent.optional("systemModules")? {
        only(&system, &["edgeAgent", "edgeHub"])?;
        for (name, required) in [
            ("edgeAgent", &["type", "settings"][..]),
            ("edgeHub", &["type", "settings", "status", "restartPolicy"][..]),
        ] {
            let module = if is_whole { Some(system.field(name)?) } else { system.optional(name)? };
            module.iter().try_for_each(|module| check_module(module, required))?;
        }
    }
    if let Some(modules) = agent.optional("modules")? {
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        };
        names(&modules, is_name, "names of letters, digits, - and _")?;
        for module in members(&modules)? {
            check_module(&module, &["type", "settings", "status", "restartPolicy"])?;
        }
    }
    Ok(())
}

fn check_module(module: &At<'_>, required: &[&str]) -> Result<(), ManifestError> {
    only(module, &MODULE)?;
    for name in required {
        module.field(name)?;
    }
    docker(&module.field("type")?)?;
    module.optional("version")?.iter().try_for_each(|version| version.text().map(drop))?;
    let settings = module.field("settings")?;
    let is_piece = |name: &str| {
        name.strip_prefix("createOptions")
            .is_some_and(|number| number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let own = settings
        .object()?
        .keys()
        .map(String::as_str)
        .find(|name| !SETTINGS.contains(name) && !is_piece(name));
    own.map_or(Ok(()), |name| Err(unknown(&settings, name, &SETTINGS)))?;
    settings.field("image")?.text()?;
    if let Some(policy) = module.optional("imagePullPolicy")?
        && !["on-create", "never"].contains(&policy.text()?)
    {
        return Err(policy.wrong("\"on-create\" or \"never\""));
    }
    if let Some(env) = module.optional("env")? {
        let is_name = |name: &str| {
            !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || "+#$.".contains(c))
        };
        names(&env, is_name, "names without blanks, +, #, $ and dots")?;
        for variable in members(&env)? {
            only(&variable, &["value"])?;
            let value = variable.field("value")?;
            if !(value.value.is_string() || value.value.is_number() || value.value.is_boolean()) {
                return Err(value.wrong("a text, a number or a boolean"));
            }
        }
    }
    Ok(())
}

/// The desired properties of `$edgeHub`.
pub(super) fn check_hub(hub: &At<'_>, is_whole: bool) -> Result<(), ManifestError> {
    only(hub, &HUB)?;
    if is_whole {
        hub.field("schemaVersion")?;
        hub.field("routes")?;
    }
    if let Some(kept) = hub.optional("storeAndForwardConfiguration")? {
        only(&kept, &KEPT)?;
        // A negative one is for ever.
        let seconds = kept.field("timeToLiveSecs")?;
        seconds.value.as_i64().ok_or_else(|| seconds.wrong("a whole number of seconds"))?;
    }
    if let Some(routes) = hub.optional("routes")? {
        let is_name = |name: &str| !name.is_empty() && !name.contains([' ', '#', '$', '.']);
        names(&routes, is_name, "names without blanks, #, $ and dots")?;
        for route in members(&routes)?.into_iter().filter(|route| route.value.is_object()) {
            only(&route, &ROUTE)?;
            if let Some(priority) = route.optional("priority")? {
                whole_number(&priority, 9, "a whole number from 0 to 9")?;
            }
            if let Some(seconds) = route.optional("timeToLiveSecs")? {
                whole_number(&seconds, u64::from(u32::MAX), "a whole number of seconds")?;
            }
        }
    }
    Ok(())
}

fn whole_number(at: &At<'_>, most: u64, expected: &'static str) -> Result<(), ManifestError> {
    let fits = at.value.as_u64().is_some_and(|number| number <= most);
    if fits { Ok(()) } else { Err(at.wrong(expected)) }
}

fn docker(kind: &At<'_>) -> Result<(), ManifestError> {
    if kind.text()? == "docker" { Ok(()) } else { Err(kind.wrong("\"docker\"")) }
}

/// Every member of an object has such a name.
fn names(at: &At<'_>, is_name: impl Fn(&str) -> bool, expected: &'static str) -> Result<(), ManifestError> {
    let other = at.object()?.keys().find(|name| !is_name(name));
    other.map_or(Ok(()), |name| Err(At::named(&Value::from(name.as_str()), at.path.as_str()).wrong(expected)))
}

/// The members of an object that are there, each with its path.
fn members<'a>(at: &At<'a>) -> Result<Vec<At<'a>>, ManifestError> {
    let there = at.object()?.iter().filter(|(_, value)| !value.is_null());
    Ok(there.map(|(name, value)| At::named(value, format!("{}.{name}", at.path))).collect())
}

fn only(at: &At<'_>, known: &[&str]) -> Result<(), ManifestError> {
    let other = at.object()?.keys().find(|name| !known.contains(&name.as_str()));
    other.map_or(Ok(()), |name| Err(unknown(at, name, known)))
}

fn unknown(at: &At<'_>, name: &str, known: &[&str]) -> ManifestError {
    ManifestError::Unknown {
        path: format!("{}.{}", at.path, name.chars().take(80).collect::<String>()),
        known: known.join(", "),
    }
}
