//! What flows are asked to be: a desired document becomes typed values, or errors that name their path.
//!
//! [`parse`] reads a document for a module's [`Supports`]; [`Diff`] says what has to be started and stopped to
//! get from one set of flows to another; [`conflicts`] says which of a set of flows can't run side by side,
//! [`Claims`] whether one more can. What an endpoint's own options mean is known to its owner alone, who reads them
//! from [`Options`].

mod access;
mod conflicts;
mod defaults;
mod diff;
mod document;
mod error;
mod flow;
mod options;
mod pattern;
mod read;
mod reference;
mod role;
mod schema;
mod scheme;
mod secret;
mod shape;
mod supports;
mod types;
mod url;

#[cfg(test)]
mod tests;

pub use conflicts::{Claim, ClaimedPath, Claims, Conflict, conflicts};
pub use diff::{Diff, FlowDiff};
pub(crate) use document::CONNECTIONS;
pub use document::{MAX_FLOWS, MODULE, parse};
pub(crate) use error::shortened;
pub use error::{ConfigError, Fault, MAX_ERROR_BYTES};
pub use flow::MAX_OUTPUTS;
pub use options::{
    ALLOW, AUTH, CLIENT_TLS, CONTENT, CREDENTIALS, MAX_CLIENTS, ON_SECOND_PUBLISHER, OptionSpec, RETRY,
    SERVER_TLS, Shape, When, credentials, shared, whole, word,
};
pub use pattern::valid_instance_name;
pub use read::Options;
pub use reference::reference;
pub use role::Role;
pub use schema::schema;
pub use scheme::Scheme;
pub use secret::{MAX_SECRET_BYTES, Secret, SecretError, SecretFault, SecretText};
pub use supports::{Rule, Supports};
pub use types::*;
pub use url::{MAX_URL_BYTES, UrlError, UserInfo};
pub(crate) use url::{bracketed, encoded_value};
