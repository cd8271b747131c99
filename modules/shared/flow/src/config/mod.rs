//! What flows are asked to be: a desired document becomes typed values, or errors that name their path.

mod diff;
mod pattern;
mod rtmp_path;
mod secret;
mod supports;
mod types;
mod url;

pub use diff::{Diff, FlowDiff};
pub use pattern::valid_instance_name;
pub use rtmp_path::{RtmpPath, RtmpTarget};
pub use secret::{MAX_SECRET_BYTES, Secret, SecretError, SecretFault, SecretText};
pub use supports::{Endpoint, Supports};
pub use types::*;
pub use url::{MAX_URL_BYTES, UrlError};
