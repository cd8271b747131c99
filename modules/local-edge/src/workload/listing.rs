//! `GET /modules`: what runs, in the form of the daemon.

use serde::Serialize;
use serde_json::{Value, json};

use crate::process::ProcessState;
use crate::view::ModuleView;

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_status: Option<ExitStatus<'a>>,
    runtime_status: RuntimeStatus<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExitStatus<'a> {
    exit_time: &'a str,
    /// A number, as a text.
    status_code: String,
}

#[derive(Default, Serialize)]
struct RuntimeStatus<'a> {
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
}

/// The runtime's own modules, which are this process, and the others. Whoever asks runs, though its process may be
/// none of ours and not connected yet.
pub(super) fn list(caller: &str, mut modules: Vec<ModuleView>) -> Value {
    if modules.iter().all(|module| module.name != caller) {
        modules.push(ModuleView { name: caller.to_owned(), ..ModuleView::default() });
    }
    let own = ["edgeAgent", "edgeHub"].map(|name| {
        let runtime_status = RuntimeStatus { status: "running", description: None };
        entry(name, &Status { runtime_status, ..Status::default() })
    });
    let others = modules.iter().map(|module| {
        let runs = module.name == caller || module.runs();
        entry(&module.name, &describe(module, runs))
    });
    json!({ "modules": own.into_iter().chain(others).collect::<Vec<_>>() })
}

/// The daemon shows neither image nor environment of a module to the others.
fn entry(name: &str, status: &Status<'_>) -> Value {
    json!({ "id": name, "name": name, "type": "docker", "config": { "settings": {}, "env": [] }, "status": status })
}

fn describe(module: &ModuleView, runs: bool) -> Status<'_> {
    let process = &module.process;
    let failed = process.exit.as_ref().is_some_and(|exit| exit.code != 0);
    let (status, description) = match &process.state {
        ProcessState::Running { .. } => ("running", None),
        _ if runs => ("running", None),
        ProcessState::Starting | ProcessState::Stopped | ProcessState::NotRunHere { .. } => ("stopped", None),
        ProcessState::BackOff { ended, .. } | ProcessState::Ended { ended } => {
            (if failed { "failed" } else { "stopped" }, Some(ended.as_str()))
        }
        ProcessState::Failed { error } => ("failed", Some(error.as_str())),
    };
    Status {
        start_time: process.started_at.as_deref(),
        exit_status: process
            .exit
            .as_ref()
            .map(|exit| ExitStatus { exit_time: &exit.at, status_code: exit.code.to_string() }),
        runtime_status: RuntimeStatus { status, description },
    }
}
