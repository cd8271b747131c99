//! The URLs of a document: what they may hold, and how they are shown without their secrets.
//!
//! Paths are percent-decoded once. What is decoded must be UTF-8 without control characters or `/`; in RTMP it
//! must not hold `?` either, since nothing could tell it from the start of a query again. No error repeats any
//! part of a URL that may hold a secret.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::types::{ConnectUrl, ListenUrl, Scheme};

/// The longest URL, in bytes.
pub const MAX_URL_BYTES: usize = 2048;

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// No `scheme://`.
    #[error("expected a URL that starts with a scheme and `://`")]
    NoScheme,
    /// Not one of ours.
    #[error(
        "unknown scheme; there are rtmp, rtmps, rtsp, rtsps, http, https, file, azblob, azblob+http, azblob+https and display"
    )]
    UnknownScheme,
    /// Longer than [`MAX_URL_BYTES`].
    #[error("a URL of {0} bytes; at most {MAX_URL_BYTES} are allowed")]
    TooLong(usize),
    /// A space or a control character.
    #[error("a URL can't hold spaces or control characters; a space in a path is written %20")]
    Blank,
    /// `#` in front of an `@`.
    #[error("an unescaped `#` in the user name or password; write %23")]
    HashInUserInfo,
    /// Two `@`, or one behind the authority of a URL whose port makes no sense.
    #[error("an unescaped `@`, `/` or `?` in the user name or password; write %40, %2F or %3F")]
    AtInUserInfo,
    /// `#`.
    #[error("a URL here has no fragment; `#` is written %23")]
    Fragment,
    /// User info where nobody logs in.
    #[error("user and password belong to pull and push only; use `auth` here")]
    UserInfoNotHere,
    /// `user@` or `:password@`.
    #[error("user info needs a user name and a password: user:password@")]
    HalfUserInfo,
    /// Percent-decoding of the user info gave no usable text.
    #[error("user info must be percent-encoded UTF-8 without line breaks")]
    BadUserInfo,
    /// `scheme:///`.
    #[error("a host is missing")]
    NoHost,
    /// Neither a name nor an address.
    #[error("`{0}` is neither a host name nor an IP address (IPv6 in brackets)")]
    BadHost(String),
    /// A name where an address is needed.
    #[error("listening needs an IP address such as 0.0.0.0 or [::], got `{0}`")]
    NotAnAddress(String),
    /// Port 0, above 65535, or no number.
    #[error("a port is a number from 1 to 65535")]
    BadPort,
    /// `//` in the path.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.` or `..`.
    #[error("the path has a `.` or `..` segment")]
    DotSegment,
    /// `%` without two hex digits, or bytes that are not text.
    #[error("the path is not percent-encoded UTF-8; a `%` itself is written %25")]
    BadPercent,
    /// Something that must not be hidden behind percent-encoding.
    #[error("the path holds an encoded control character, `/`, `?` or `*`")]
    BadEncoded,
    /// RTMP, RTSP and HTTP tell streams apart by path.
    #[error("a path is missing, such as /live/stream")]
    NoPath,
    /// A query where only an address is meant.
    #[error("an address to listen on has no query; keys belong to `auth`")]
    QueryNotHere,
    /// A file URL with host or query, or without a path.
    #[error("a file is written file:///directory/name")]
    BadFile,
    /// `*` in the wrong place of a `listen`.
    #[error("`*` can only be the whole last segment of a `listen` path")]
    StarPlace,
    /// `*` or `{match}` in a flow whose input has no pattern.
    #[error("`*` and {{match}} need an input that listens on a pattern, such as /live/*")]
    NoPattern,
    /// An output of a pattern that would be the same for all instances.
    #[error("the input listens on a pattern, so `*` or {{match}} must occur in the path or query")]
    MatchMissing,
    /// `{` or `}` of no field.
    #[error(
        "unknown field; there are {{flow}} and, in outputs of a pattern, {{match}} (a brace itself is written %7B or %7D)"
    )]
    UnknownField,
}

impl Scheme {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Rtmp,
        Self::Rtmps,
        Self::Rtsp,
        Self::Rtsps,
        Self::Http,
        Self::Https,
        Self::File,
        Self::Azblob,
        Self::AzblobHttp,
        Self::AzblobHttps,
        Self::Display,
    ];

    /// As written in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
            Self::Rtmps => "rtmps",
            Self::Rtsp => "rtsp",
            Self::Rtsps => "rtsps",
            Self::Http => "http",
            Self::Https => "https",
            Self::File => "file",
            Self::Azblob => "azblob",
            Self::AzblobHttp => "azblob+http",
            Self::AzblobHttps => "azblob+https",
            Self::Display => "display",
        }
    }

    /// The scheme of a URL, in any case.
    ///
    /// # Errors
    /// [`UrlError::NoScheme`] or [`UrlError::UnknownScheme`].
    pub fn of(url: &str) -> Result<Self, UrlError> {
        let (scheme, _) = url.split_once("://").ok_or(UrlError::NoScheme)?;
        Self::ALL
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(scheme))
            .ok_or(UrlError::UnknownScheme)
    }

    /// Whether the connection is TLS from its first byte.
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Rtmps | Self::Rtsps | Self::Https | Self::Azblob | Self::AzblobHttps)
    }

    /// `rtmp` or `rtmps`.
    pub const fn is_rtmp(self) -> bool {
        matches!(self, Self::Rtmp | Self::Rtmps)
    }

    /// The port to listen on where the URL names none. Unprivileged, other than for connecting.
    const fn listen_port(self) -> u16 {
        match self {
            Self::Rtmp => 1935,
            Self::Rtmps => 1936,
            Self::Rtsp => 8554,
            Self::Rtsps => 8322,
            Self::Https | Self::Azblob | Self::AzblobHttps => 8443,
            Self::Http | Self::AzblobHttp | Self::File | Self::Display => 8080,
        }
    }

    /// The port to connect to where the URL names none.
    const fn connect_port(self) -> u16 {
        match self {
            Self::Rtmp => 1935,
            Self::Rtsp => 554,
            Self::Rtsps => 322,
            Self::Rtmps | Self::Https | Self::Azblob | Self::AzblobHttps => 443,
            Self::Http | Self::AzblobHttp | Self::File | Self::Display => 80,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What `*` and `{match}` mean in a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stars {
    /// `pull`, `read`: an ordinary character; `{match}` is unknown.
    Plain,
    /// `listen`: the whole last segment makes a pattern.
    Pattern,
    /// An output of a pattern: must occur.
    Needed,
    /// An output of an exact flow: must not occur.
    Refused,
}

/// A URL taken apart, nothing decoded yet.
struct Parts<'a> {
    scheme: Scheme,
    user_info: Option<&'a str>,
    host: &'a str,
    port: Option<u16>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Result<Self, UrlError> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong(text.len()));
        }
        let scheme = Scheme::of(text)?;
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(UrlError::Blank);
        }
        let rest = text.split_once("://").map_or("", |(_, rest)| rest);
        if let Some((_, after)) = rest.split_once('#') {
            return Err(if after.contains('@') { UrlError::HashInUserInfo } else { UrlError::Fragment });
        }
        let (before, query) = match rest.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (rest, None),
        };
        let (authority, path) = before.find('/').map_or((before, ""), |at| before.split_at(at));
        let (user_info, host_port) = match authority.rsplit_once('@') {
            Some((user_info, host_port)) => (Some(user_info), host_port),
            None => (None, authority),
        };
        if user_info.is_some_and(|text| text.contains('@')) {
            return Err(UrlError::AtInUserInfo);
        }
        let (host, port) = split_port(host_port).map_err(|error| {
            // `user:pa/ss@host` looks like the port `pa`.
            let behind = rest.get(authority.len()..).unwrap_or_default();
            if user_info.is_none() && behind.contains('@') { UrlError::AtInUserInfo } else { error }
        })?;
        Ok(Self { scheme, user_info, host, port, path, query: query.filter(|query| !query.is_empty()) })
    }
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), UrlError> {
    let at = if text.starts_with('[') {
        text.find(']').map(|at| at.saturating_add(1)).ok_or_else(|| bad_host(text))?
    } else {
        text.find(':').unwrap_or(text.len())
    };
    let (host, port) = text.split_at(at);
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        None => Err(bad_host(host)),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
            Ok(0) | Err(_) => Err(UrlError::BadPort),
            Ok(port) => Ok((host, Some(port))),
        },
        Some(_) => Err(UrlError::BadPort),
    }
}

fn bad_host(host: &str) -> UrlError {
    UrlError::BadHost(host.chars().take(64).collect())
}

/// An IP literal; an IPv4 address written as IPv6 is the IPv4 address.
fn ip_literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(|ip| IpAddr::V6(ip).to_canonical()),
        None => host.parse().ok().filter(IpAddr::is_ipv4),
    }
}

/// Decodes a path and checks its segments. `{match}` becomes `*`.
fn decode_path(path: &str, scheme: Scheme, stars: Stars) -> Result<String, UrlError> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(String::new());
    }
    let mut decoded = Vec::new();
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let segment = decode_segment(segment, scheme, stars)?;
        if stars == Stars::Pattern && segment.contains('*') && (segment != "*" || segments.peek().is_some()) {
            return Err(UrlError::StarPlace);
        }
        decoded.push(segment);
    }
    Ok(decoded.join("/"))
}

fn decode_segment(segment: &str, scheme: Scheme, stars: Stars) -> Result<String, UrlError> {
    if segment.is_empty() {
        return Err(UrlError::EmptySegment);
    }
    let starred = match stars {
        Stars::Needed => segment.replace("{match}", "*"),
        Stars::Refused if segment.contains("{match}") => return Err(UrlError::NoPattern),
        _ => segment.to_owned(),
    };
    if starred.contains(['{', '}']) {
        return Err(UrlError::UnknownField);
    }
    if stars == Stars::Refused && starred.contains('*') {
        return Err(UrlError::NoPattern);
    }
    let decoded = decode(&starred).ok_or(UrlError::BadPercent)?;
    if decoded == "." || decoded == ".." {
        return Err(UrlError::DotSegment);
    }
    // What is a literal character only because it was encoded.
    let hidden = |c: char| decoded.matches(c).count() > starred.matches(c).count();
    if decoded.chars().any(char::is_control)
        || decoded.contains('/')
        || (scheme.is_rtmp() && decoded.contains('?'))
        || (stars != Stars::Plain && hidden('*'))
    {
        return Err(UrlError::BadEncoded);
    }
    Ok(decoded)
}

/// Strict percent-decoding: each `%` has its two digits, and the result is UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut rest = text.split('%');
    rest.next();
    for behind in rest {
        let digits = behind.as_bytes().get(..2)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
    }
    percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned())
}

fn check_query(query: Option<&str>, stars: Stars) -> Result<bool, UrlError> {
    let Some(query) = query else { return Ok(false) };
    let has_match = query.contains("{match}");
    match stars {
        Stars::Refused if has_match => Err(UrlError::NoPattern),
        _ if query.replace("{match}", "").contains(['{', '}']) => Err(UrlError::UnknownField),
        Stars::Needed => Ok(has_match),
        _ if has_match => Err(UrlError::UnknownField),
        _ => Ok(false),
    }
}

impl ListenUrl {
    /// Reads the URL of a `listen` or `serve` in which `{flow}` has been replaced.
    ///
    /// # Errors
    /// Whatever the grammar of listening addresses does not allow.
    pub(super) fn parse(text: &str, stars: Stars) -> Result<Self, UrlError> {
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
        let path = decode_path(parts.path, parts.scheme, stars)?;
        if path.is_empty() {
            return Err(UrlError::NoPath);
        }
        if stars == Stars::Needed && !path.contains('*') {
            return Err(UrlError::MatchMissing);
        }
        let port = parts.port.unwrap_or(parts.scheme.listen_port());
        Ok(Self { scheme: parts.scheme, address: SocketAddr::new(ip, port), path })
    }

    /// Whether the last segment stands for any name.
    pub fn is_pattern(&self) -> bool {
        self.path == "*" || self.path.ends_with("/*")
    }

    /// What `*` stands for when `path` is asked for; `None` where this is no pattern or does not fit. The name
    /// still has to pass [`valid_instance_name`](super::valid_instance_name).
    pub fn pattern_match<'a>(&self, path: &'a str) -> Option<&'a str> {
        let name = path.strip_prefix(self.path.strip_suffix('*').filter(|_| self.is_pattern())?)?;
        (!name.is_empty() && !name.contains('/')).then_some(name)
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
pub(super) type UserInfo = (String, String);

impl ConnectUrl {
    /// Reads the URL of a `pull` or `push` in which `{flow}` has been replaced, and the user info in it.
    ///
    /// # Errors
    /// Whatever the grammar of addresses to connect to does not allow.
    pub(super) fn parse(text: &str, stars: Stars) -> Result<(Self, Option<UserInfo>), UrlError> {
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
        let path = decode_path(parts.path, parts.scheme, stars)?;
        if path.is_empty() && parts.scheme.is_rtmp() {
            return Err(UrlError::NoPath);
        }
        let in_query = check_query(parts.query, stars)?;
        if stars == Stars::Needed && !in_query && !path.contains('*') {
            return Err(UrlError::MatchMissing);
        }
        let port = parts.port.unwrap_or(parts.scheme.connect_port());
        let query = parts.query.map(str::to_owned);
        Ok((Self { scheme: parts.scheme, host, port, path, query }, user_info))
    }

    /// The URL for people: never with a query. `path_is_secret`: the last segment is a stream key (an RTMP push
    /// without `credentials.streamKey`) and is left out.
    pub fn shown(&self, path_is_secret: bool) -> String {
        let path = match self.path.rsplit_once('/') {
            _ if !path_is_secret => self.path.as_str(),
            Some((before, _)) => before,
            None => "",
        };
        let host = bracketed(&self.host);
        let slash = if path.is_empty() { "" } else { "/" };
        let path = encoded(path);
        if self.port == self.scheme.connect_port() {
            format!("{}://{host}{slash}{path}", self.scheme)
        } else {
            format!("{}://{host}:{}{slash}{path}", self.scheme, self.port)
        }
    }
}

/// Leaves the last segment out where it might be a stream key.
impl fmt::Display for ConnectUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown(self.scheme.is_rtmp()))
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
pub(super) fn parse_file(text: &str) -> Result<PathBuf, UrlError> {
    let parts = Parts::of(text)?;
    if !parts.host.is_empty() || parts.port.is_some() || parts.user_info.is_some() || parts.query.is_some() {
        return Err(UrlError::BadFile);
    }
    let path = decode_path(parts.path, parts.scheme, Stars::Plain)?;
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
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// What a path can't hold as it is (RFC 3986 §3.3), and `%` itself.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

fn encoded(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

/// A value of a query parameter.
pub(super) fn encoded_value(value: &str) -> String {
    const VALUE: &AsciiSet = &PATH.add(b'&').add(b'+').add(b'=').add(b'/');
    utf8_percent_encode(value, VALUE).to_string()
}
