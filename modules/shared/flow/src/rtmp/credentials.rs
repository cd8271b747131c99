//! User and password as RTMP's sessions want them.

use av_rtmp::Credentials;

use crate::config::Secret;
use crate::net::{SecretUnavailable, Secrets};

/// User and password as they are now. After they have been refused, or somebody was for their sake, say so with
/// [`Secrets::refused`].
pub(super) async fn credentials(
    secrets: &Secrets,
    username: &str,
    password: &Secret,
) -> Result<Credentials, SecretUnavailable> {
    let password = secrets.get(password).await?;
    Ok(Credentials { username: username.to_owned(), password: password.expose().to_owned() })
}
