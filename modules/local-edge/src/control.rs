//! How a second terminal asks the running instance: one line of JSON each way over a unix socket, the
//! answers as many lines as there are.

mod client;
mod server;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::Fault;
use crate::twin::Object;

pub use client::{ClientError, Connection};
pub use server::serve;

/// A question is at most this long: a desired document and some.
const MAX_LINE: usize = 1 << 20;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "ask")]
pub enum Ask {
    /// A [`View`](crate::view::View).
    Ps,
    /// The twin as the module gets it.
    TwinShow {
        /// Whose.
        module: String,
    },
    /// Two items: `{version, connected}`, and then what the module reports, if it does.
    TwinSet {
        /// Whose.
        module: String,
        /// A merge patch, or the document.
        desired: Object,
        /// The whole document.
        replace: bool,
    },
    /// `{status, payload}`.
    Method {
        /// Of whom.
        module: String,
        /// Which.
        name: String,
        /// Its argument.
        payload: Value,
        /// As `responseTimeoutInSeconds` of IoT Hub.
        timeout_seconds: u64,
    },
    /// Lines.
    Logs {
        /// None: of all, with their names.
        module: Option<String>,
        /// The last so many.
        tail: usize,
        /// And what follows.
        follow: bool,
    },
    /// Messages that went upstream.
    Events {
        /// And what follows.
        follow: bool,
    },
    /// Nothing comes back.
    Restart {
        /// Which.
        module: String,
    },
    /// Nothing comes back.
    Fault {
        /// Which.
        fault: Fault,
    },
    /// `KEY=VALUE` lines.
    Env {
        /// Any name; its identity is made if it has none.
        module: String,
        /// The developer's form.
        connection_string: bool,
    },
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// What was asked for, or a part of it.
    Item(Value),
    /// The last line: it could not be done.
    Error(String),
    /// The last line: that was all.
    Done,
}

#[cfg(test)]
mod tests;
