//! `GET /modules`: what runs, in the form of the daemon.

use serde_json::{Value, json};

use crate::process::{ProcessState, ProcessStatus};

/// The runtime's own modules, which are this process, and those of the manifest.
pub(super) fn list(modules: &[(String, ProcessStatus)]) -> Value {
    let own =
        ["edgeAgent", "edgeHub"].map(|name| entry(name, json!({ "runtimeStatus": { "status": "running" } })));
    let others = modules.iter().map(|(name, status)| entry(name, describe(status)));
    json!({ "modules": own.into_iter().chain(others).collect::<Vec<_>>() })
}

/// The daemon shows neither image nor environment of a module to the others.
fn entry(name: &str, status: Value) -> Value {
    json!({ "id": name, "name": name, "type": "docker", "config": { "settings": {}, "env": [] }, "status": status })
}

fn describe(status: &ProcessStatus) -> Value {
    let (word, description) = match &status.state {
        ProcessState::Running { .. } => ("running", None),
        ProcessState::Starting | ProcessState::Stopped | ProcessState::NotRunHere { .. } => ("stopped", None),
        ProcessState::BackOff { ended, .. } | ProcessState::Ended { ended } => {
            let failed = status.exit.as_ref().is_some_and(|exit| exit.code != 0);
            (if failed { "failed" } else { "stopped" }, Some(ended))
        }
        ProcessState::Failed { error } => ("failed", Some(error)),
    };
    let mut shown = json!({ "runtimeStatus": { "status": word } });
    if let Some(description) = description {
        shown["runtimeStatus"]["description"] = description.as_str().into();
    }
    if let Some(started) = &status.started_at {
        shown["startTime"] = started.as_str().into();
    }
    if let Some(exit) = &status.exit {
        shown["exitStatus"] = json!({ "exitTime": exit.at, "statusCode": exit.code.to_string() });
    }
    shown
}
