//! What inputs and outputs share: which endpoint they are, and the options of servers and clients.

use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::access;
use super::error::{ConfigError, Fault, join};
use super::options::{
    ALLOW, AUTH, CLIENT_TLS, CONTENT, CREDENTIALS, RETRY, RETRY_INITIAL, RETRY_MAX, SERVER_TLS,
};
use super::secret::Secret;
use super::shape::{Options, host_name, sha256};
use super::supports::{Endpoint, Supports};
use super::types::{Auth, ClientTls, ConnectUrl, Content, Credentials, Retry, Scheme, ServerTls};
use super::url::{Stars, UserInfo};

/// The endpoint that an input or output is.
pub(super) struct Identity {
    pub(super) endpoint: Endpoint,
    pub(super) scheme: Scheme,
    /// With `{flow}` replaced.
    pub(super) url: String,
    /// Of the URL.
    pub(super) path: String,
}

const INPUT_KEYS: &str = "`listen`, `pull` and `read`";
const OUTPUT_KEYS: &str = "`serve`, `push`, `store` and `render`";

/// Finds out which of `kinds` there is. `flow` is the flow's name.
pub(super) fn identify(
    path: &str,
    map: &Map<String, Value>,
    kinds: &[Endpoint],
    flow: &str,
) -> Result<Identity, ConfigError> {
    let present = kinds.iter().filter(|kind| map.contains_key(kind.key())).collect::<Vec<_>>();
    let (endpoint, value) = match *present.as_slice() {
        [kind] => (*kind, map.get(kind.key()).unwrap_or(&Value::Null)),
        _ => {
            let expected = if kinds == Endpoint::INPUTS.as_slice() { INPUT_KEYS } else { OUTPUT_KEYS };
            let names = present.iter().map(|kind| format!("`{}`", kind.key())).collect::<Vec<_>>();
            let got = if names.is_empty() { "none".to_owned() } else { names.join(" and ") };
            return Err(ConfigError::new(path, Fault::Endpoint { expected, got }));
        }
    };
    let path = join(path, endpoint.key());
    let url = value.as_str().ok_or_else(|| ConfigError::expected_hidden(&path, "a URL", value))?;
    let url = url.replace("{flow}", flow);
    let scheme = Scheme::of(&url).map_err(|error| ConfigError::new(&path, error))?;
    Ok(Identity { endpoint, scheme, url, path })
}

impl Identity {
    /// Refuses what this module lacks, naming the module that has it.
    pub(super) fn check_support(&self, supports: &Supports) -> Result<(), ConfigError> {
        if supports.schemes(self.endpoint).contains(&self.scheme) {
            return Ok(());
        }
        Err(ConfigError::unsupported(&self.path, supports, self.endpoint, self.scheme))
    }

    /// The URL to connect to.
    pub(super) fn connect(&self, stars: Stars) -> Result<(ConnectUrl, Option<UserInfo>), ConfigError> {
        ConnectUrl::parse(&self.url, stars).map_err(|error| ConfigError::new(&self.path, error))
    }
}

/// `content`, where it is there.
pub(super) fn content(options: &Options<'_>) -> Result<Option<Content>, ConfigError> {
    let Some((path, value)) = options.get(&CONTENT) else { return Ok(None) };
    [Content::AudioVideo, Content::VideoOnly, Content::AudioOnly]
        .into_iter()
        .find(|content| value.as_str() == Some(content.as_str()))
        .map(Some)
        .ok_or_else(|| ConfigError::expected(&path, "one of audioVideo, videoOnly, audioOnly", value))
}

impl Content {
    /// As in a document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AudioVideo => "audioVideo",
            Self::VideoOnly => "videoOnly",
            Self::AudioOnly => "audioOnly",
        }
    }

    /// What is left behind both filters; `None` when nothing is.
    pub fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::AudioVideo, other) => Some(other),
            (own, Self::AudioVideo) => Some(own),
            (own, other) => (own == other).then_some(own),
        }
    }
}

pub(super) fn auth(options: &Options<'_>) -> Result<Option<Auth>, ConfigError> {
    options.get(&AUTH).map(|(path, value)| access::auth(&path, value)).transpose()
}

pub(super) fn allow(options: &Options<'_>) -> Result<Vec<IpNet>, ConfigError> {
    options.get(&ALLOW).map_or_else(|| Ok(Vec::new()), |(path, value)| access::networks(&path, value))
}

/// `credentials`, or the user info of the URL.
pub(super) fn credentials(
    options: &Options<'_>,
    user_info: Option<UserInfo>,
) -> Result<Option<Credentials>, ConfigError> {
    match (options.get(&CREDENTIALS), user_info) {
        (Some((path, _)), Some(_)) => Err(ConfigError::new(path, Fault::CredentialsTwice)),
        (Some((path, value)), None) => {
            access::credentials(&path, value, options.endpoint, options.scheme).map(Some)
        }
        (None, Some((username, password))) => {
            Ok(Some(Credentials::User { username, password: Secret::Plain(password) }))
        }
        (None, None) => Ok(None),
    }
}

pub(super) fn retry(options: &Options<'_>) -> Result<Retry, ConfigError> {
    let empty = Map::new();
    let nested = options.object(&RETRY).unwrap_or_else(|| options.with(&empty));
    let initial = nested.whole(&RETRY_INITIAL)?;
    let max = nested.whole(&RETRY_MAX)?;
    if initial > max.saturating_mul(1000) {
        return Err(ConfigError::new(join(&options.path, RETRY.name), Fault::RetryOrder { initial, max }));
    }
    Ok(Retry { initial: Duration::from_millis(initial), max: Duration::from_secs(max) })
}

pub(super) fn server_tls(options: &Options<'_>) -> Result<ServerTls, ConfigError> {
    let Some(nested) = options.object(&SERVER_TLS) else { return Ok(ServerTls::default()) };
    let file = |name| nested.named(name).map(|(path, value)| access::absolute_path(&path, value)).transpose();
    let tls = ServerTls {
        certificate_file: file("certificateFile")?,
        key_file: file("keyFile")?,
        host_name: nested.named("hostName").map(|(path, value)| host_name(&path, value)).transpose()?,
    };
    match (&tls.certificate_file, &tls.key_file) {
        (Some(_), None) => Err(half(&nested, "certificateFile", "keyFile")),
        (None, Some(_)) => Err(half(&nested, "keyFile", "certificateFile")),
        _ => Ok(tls),
    }
}

fn half(options: &Options<'_>, present: &'static str, missing: &'static str) -> ConfigError {
    ConfigError::new(options.path.clone(), Fault::Half { present, missing })
}

pub(super) fn client_tls(options: &Options<'_>) -> Result<ClientTls, ConfigError> {
    let Some(nested) = options.object(&CLIENT_TLS) else { return Ok(ClientTls::default()) };
    Ok(ClientTls {
        ca_file: nested
            .named("caFile")
            .map(|(path, value)| access::absolute_path(&path, value))
            .transpose()?,
        host_name: nested.named("hostName").map(|(path, value)| host_name(&path, value)).transpose()?,
        pin_sha256: nested.named("pinSha256").map(|(path, value)| sha256(&path, value)).transpose()?,
    })
}
