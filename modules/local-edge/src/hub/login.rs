//! Who may connect: edgeHub's reading of an MQTT CONNECT.

use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode};

use super::Hub;
use crate::sas::{self, Audience, SasError};

/// A module that may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub module: String,
    /// When its token expires, in seconds since 1970.
    pub expires: u64,
}

/// Why not. [`code`](Self::code) is what the module gets to see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("no user name or password")]
    Anonymous,
    #[error(
        "user name {0:?}: expected {{iothub}}/{{device}}/{{module}}/?api-version=..., with a / nowhere else \
         (percent-encode it in DeviceClientType)"
    )]
    UserName(String),
    #[error("client id {found:?}: expected {expected:?}, as in the user name")]
    ClientId { found: String, expected: String },
    #[error("no module {module:?} on device {device:?}; `local-edge env NAME` makes one")]
    Unknown { device: String, module: String },
    #[error("{0}")]
    Token(#[from] SasError),
}

impl Refusal {
    /// 3 where edgeHub's check throws, 5 where it says no.
    pub fn code(&self) -> ConnectReturnCode {
        match self {
            Self::UserName(_) => ConnectReturnCode::ServiceUnavailable,
            _ => ConnectReturnCode::NotAuthorized,
        }
    }
}

/// Device and module of a user name `{iothub}/{device}/{module}/?api-version=..&..`; for a device there is
/// no module.
fn parse_user_name(text: &str) -> Option<(&str, Option<&str>)> {
    let parts: Vec<&str> = text.split('/').collect();
    let (device, module, query) = match parts.as_slice() {
        [_, device, query] => (*device, None, *query),
        [_, device, module, query] => (*device, Some(*module), *query),
        _ => return None,
    };
    let query = query.strip_prefix('?').unwrap_or(query);
    let version =
        query.split('&').any(|pair| pair.strip_prefix("api-version=").is_some_and(|v| !v.is_empty()));
    (version && !device.is_empty() && module.is_none_or(|module| !module.is_empty()))
        .then_some((device, module))
}

/// Checks a CONNECT. `now` in seconds since 1970.
pub(super) fn check(hub: &Hub, connect: &Connect, now: u64) -> Result<Login, Refusal> {
    let login = connect.login.as_ref().ok_or(Refusal::Anonymous)?;
    let shown = || login.username.chars().take(200).collect::<String>();
    let (device, module) = parse_user_name(&login.username).ok_or_else(|| Refusal::UserName(shown()))?;
    let expected = match module {
        Some(module) => format!("{device}/{module}"),
        None => device.to_owned(),
    };
    if connect.client_id != expected {
        return Err(Refusal::ClientId { found: connect.client_id.chars().take(200).collect(), expected });
    }
    let module = module.unwrap_or_default();
    let expires = check_token(hub, device, module, &login.password, now)?;
    Ok(Login { module: module.to_owned(), expires })
}

/// Checks that a token is of that module, and gives when it expires. `now` in seconds since 1970.
pub(super) fn check_token(
    hub: &Hub,
    device: &str,
    module: &str,
    token: &str,
    now: u64,
) -> Result<u64, Refusal> {
    let unknown = || Refusal::Unknown { device: device.to_owned(), module: module.to_owned() };
    if device != hub.names.device {
        return Err(unknown());
    }
    let (identity, expired) =
        hub.modules.read(module, |state| (state.identity.clone(), state.expired)).ok_or_else(unknown)?;
    let hosts = [hub.names.iothub.as_str(), hub.names.gateway.as_str()];
    let audience = Audience { hosts: &hosts, device, module };
    let expires = sas::check(token, &identity.key, audience, now)?;
    if expires <= expired {
        return Err(SasError::Expired(0).into());
    }
    Ok(expires)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_are_read_as_edge_hub_reads_them() {
        let module = "hub.net/dev/mod/?api-version=2021-04-12&DeviceClientType=av%2F1";
        assert_eq!(parse_user_name(module), Some(("dev", Some("mod"))));
        assert_eq!(parse_user_name("h/dev/mod/api-version=1"), Some(("dev", Some("mod"))));
        assert_eq!(parse_user_name("h/dev/?api-version=1"), Some(("dev", None)));
        for wrong in [
            "",
            "h/dev",
            "h/dev/mod/?DeviceClientType=x",
            "h/dev/mod/?api-version=",
            "h/dev/mod/?api-version=1&DeviceClientType=a/b",
            "h/dev//?api-version=1",
        ] {
            assert_eq!(parse_user_name(wrong), None, "{wrong}");
        }
    }
}
