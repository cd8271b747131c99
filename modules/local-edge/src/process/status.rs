//! What is known of a module's process.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a module's process does at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum ProcessState {
    /// Not started yet.
    #[default]
    Starting,
    /// The manifest says `stopped`, or everything stops.
    Stopped,
    /// It runs.
    Running {
        /// Its process id.
        pid: u32,
    },
    /// It ended and will be started again.
    BackOff {
        /// How it ended.
        ended: String,
        /// Milliseconds it waits in all.
        delay: u64,
    },
    /// It ended and stays so, by its restart policy.
    Ended {
        /// How it ended.
        ended: String,
    },
    /// It could not be started: tried again as after an end, but for a service that is nowhere.
    Failed {
        /// Why.
        error: String,
    },
    /// Not ours to run: whoever wants it here is it, with the environment that `env` prints.
    NotRunHere {
        /// Its image, somebody else's; none where the manifest does not have the module at all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<String>,
    },
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code; 128 and the number of the signal that ended it.
    pub code: i32,
    /// RFC 3339.
    pub at: String,
}

impl Exit {
    /// Now, with this status.
    pub(super) fn new(status: ExitStatus) -> Self {
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
        Self { code, at: now() }
    }
}

/// State and restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessStatus {
    /// Now.
    #[serde(flatten)]
    pub state: ProcessState,
    /// Starts after the first one.
    pub restarts: u32,
    /// Its last start, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// Its last end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
}

impl From<ProcessState> for ProcessStatus {
    /// One that never ran.
    fn from(state: ProcessState) -> Self {
        Self { state, ..Self::default() }
    }
}

/// The time, RFC 3339.
pub(super) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// How a process ended, for texts.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
