//! What flows are asked to be: a desired document becomes typed values, or errors that name their path.
//!
//! [`parse`] reads a document for a module's [`Supports`]; [`Diff`] says what has to be started and stopped to
//! get from one set of flows to another; [`conflicts`] says which of a set of flows can't run side by side,
//! [`Claims`] whether one more can.

mod access;
mod conflicts;
mod defaults;
mod diff;
mod document;
mod endpoint;
mod error;
mod flow;
mod options;
mod pattern;
mod rtmp_path;
mod schema;
mod secret;
mod shape;
mod supports;
mod types;
mod url;

#[cfg(test)]
mod tests;

pub use conflicts::{Claims, conflicts};
pub use diff::{Diff, FlowDiff};
pub(crate) use document::CONNECTIONS;
pub use document::{MAX_FLOWS, MODULE, parse};
pub use error::{ConfigError, Fault, MAX_ERROR_BYTES};
pub use flow::MAX_OUTPUTS;
pub use options::{OptionSpec, Place, Shape, TABLE};
pub use pattern::valid_instance_name;
pub use rtmp_path::{RtmpPath, RtmpTarget};
pub use schema::schema;
pub use secret::{MAX_SECRET_BYTES, Secret, SecretError, SecretFault, SecretText};
pub use supports::{Endpoint, Supports};
pub use types::*;
pub use url::{MAX_URL_BYTES, UrlError};
