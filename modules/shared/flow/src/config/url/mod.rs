//! The URLs of a document: what they may hold, and how they are shown without their secrets.
//!
//! Paths are percent-decoded once. What is decoded must be UTF-8 without control characters or `/`; where paths end
//! in a name it must not hold `?` either, since nothing could tell it from the start of a query again. No error repeats any
//! part of a URL that may hold a secret.

mod error;
mod parts;
mod path;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use parts::{Parts, bad_host, ip_literal};
use path::{check_query, decode, decode_path, encoded};

use super::conflicts::{Claim, ClaimedPath};
use super::scheme::Scheme;
use super::types::{ConnectUrl, ListenUrl, ServerTls};

pub use error::UrlError;
pub(super) use path::Stars;
pub(crate) use path::encoded_value;

/// The longest URL, in bytes.
pub const MAX_URL_BYTES: usize = 2048;

impl ListenUrl {
    /// Reads the URL of a `listen` or `serve` in which `{flow}` has been replaced.
    ///
    /// # Errors
    /// Whatever the grammar of listening addresses does not allow.
    pub(super) fn parse(text: &str, scheme: Scheme, stars: Stars) -> Result<Self, UrlError> {
        let parts = Parts::of(text)?;
        if parts.user_info.is_some() {
            return Err(UrlError::UserInfoNotHere);
        }
        if parts.host.is_empty() {
            return Err(UrlError::NoHost);
        }
        let ip = ip_literal(parts.host)
            .ok_or_else(|| UrlError::NotAnAddress(parts.host.chars().take(64).collect()))?;
        if parts.query.is_some() {
            return Err(UrlError::QueryNotHere);
        }
        let path = decode_path(parts.path, scheme, stars)?;
        if path.is_empty() {
            return Err(UrlError::NoPath);
        }
        if stars == Stars::Needed && !path.contains('*') {
            return Err(UrlError::MatchMissing);
        }
        let port = parts.port.unwrap_or(scheme.listen_port);
        Ok(Self { scheme, address: SocketAddr::new(ip, port), path })
    }

    /// Whether the last segment stands for any name.
    pub fn is_pattern(&self) -> bool {
        self.path == "*" || self.path.ends_with("/*")
    }

    /// The address of one instance of a pattern.
    pub fn instance(&self, name: &str) -> Self {
        Self { path: self.path.replace('*', name), ..self.clone() }
    }

    /// The right to this address and this path.
    pub fn claim(&self, tls: &ServerTls) -> Claim {
        self.claimed(tls, ClaimedPath::Exact(self.path.clone()))
    }

    /// The right to this address, this path and every path below it.
    pub fn claim_below(&self, tls: &ServerTls) -> Claim {
        self.claimed(tls, ClaimedPath::Below(self.path.clone()))
    }

    fn claimed(&self, tls: &ServerTls, path: ClaimedPath) -> Claim {
        Claim {
            address: self.address,
            protocol: self.scheme.name,
            tls: tls.clone(),
            path,
            shown: self.to_string(),
        }
    }

    /// The URL for people, with `public_host` in place of a wildcard address.
    pub fn shown(&self, public_host: Option<&str>) -> String {
        match public_host.filter(|_| self.address.ip().is_unspecified()) {
            Some(host) => {
                format!(
                    "{}://{}:{}/{}",
                    self.scheme,
                    bracketed(host),
                    self.address.port(),
                    encoded(&self.path)
                )
            }
            None => self.to_string(),
        }
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/{}", self.scheme, self.address, encoded(&self.path))
    }
}

/// User name and password out of a URL, decoded.
pub type UserInfo = (String, String);

impl ConnectUrl {
    /// Reads the URL of a `pull` or `push` in which `{flow}` has been replaced, and the user info in it.
    ///
    /// # Errors
    /// Whatever the grammar of addresses to connect to does not allow.
    pub(super) fn parse(
        text: &str,
        scheme: Scheme,
        stars: Stars,
    ) -> Result<(Self, Option<UserInfo>), UrlError> {
        let parts = Parts::of(text)?;
        let user_info = parts.user_info.map(user_info).transpose()?;
        if parts.host.is_empty() {
            return Err(UrlError::NoHost);
        }
        let host = match ip_literal(parts.host) {
            Some(ip) => ip.to_string(),
            None if is_host_name(parts.host) => parts.host.to_ascii_lowercase(),
            None => return Err(bad_host(parts.host)),
        };
        let path = decode_path(parts.path, scheme, stars)?;
        if path.is_empty() && scheme.named {
            return Err(UrlError::NoPath);
        }
        let in_query = check_query(parts.query, stars)?;
        if stars == Stars::Needed && !in_query && !path.contains('*') {
            return Err(UrlError::MatchMissing);
        }
        let port = parts.port.unwrap_or(scheme.connect_port);
        let query = parts.query.map(str::to_owned);
        Ok((Self { scheme, host, port, path, query }, user_info))
    }

    /// The address to connect to for one instance of a pattern.
    pub fn instance(&self, name: &str) -> Self {
        Self {
            path: self.path.replace('*', name),
            query: self.query.as_deref().map(|query| query.replace("{match}", name)),
            ..self.clone()
        }
    }

    /// The URL for people: never with a query. `path_is_secret`: the last segment may be a key and is left out.
    pub fn shown(&self, path_is_secret: bool) -> String {
        let path = match self.path.rsplit_once('/') {
            _ if !path_is_secret => self.path.as_str(),
            Some((before, _)) => before,
            None => "",
        };
        let host = bracketed(&self.host);
        let slash = if path.is_empty() { "" } else { "/" };
        let path = encoded(path);
        if self.port == self.scheme.connect_port {
            format!("{}://{host}{slash}{path}", self.scheme)
        } else {
            format!("{}://{host}:{}{slash}{path}", self.scheme, self.port)
        }
    }
}

/// Leaves the last segment out where it might be a stream key.
impl fmt::Display for ConnectUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown(self.scheme.named))
    }
}

impl fmt::Debug for ConnectUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectUrl({self})")
    }
}

/// Reads `file:///directory/name`: an absolute path.
///
/// # Errors
/// Whatever the grammar of file URLs does not allow.
pub(super) fn parse_file(text: &str, scheme: Scheme) -> Result<PathBuf, UrlError> {
    let parts = Parts::of(text)?;
    if !parts.host.is_empty() || parts.port.is_some() || parts.user_info.is_some() || parts.query.is_some() {
        return Err(UrlError::BadFile);
    }
    let path = decode_path(parts.path, scheme, Stars::Plain)?;
    if path.is_empty() { Err(UrlError::BadFile) } else { Ok(PathBuf::from(format!("/{path}"))) }
}

fn user_info(text: &str) -> Result<UserInfo, UrlError> {
    let (user, password) = text.split_once(':').ok_or(UrlError::HalfUserInfo)?;
    if user.is_empty() || password.is_empty() {
        return Err(UrlError::HalfUserInfo);
    }
    match (decode(user), decode(password)) {
        (Some(user), Some(password))
            if super::secret::check(&password).is_ok() && !user.contains(char::is_control) =>
        {
            Ok((user, password))
        }
        _ => Err(UrlError::BadUserInfo),
    }
}

/// Letters, digits, `-`, `_` and dots between labels; what DNS itself refuses shows when resolving.
pub(super) fn is_host_name(host: &str) -> bool {
    host.len() <= 253
        && host.strip_suffix('.').unwrap_or(host).split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// A host as URLs write it.
pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}
