//! A URL taken apart.

use std::net::{IpAddr, Ipv6Addr};

use super::{MAX_URL_BYTES, UrlError};

/// A URL taken apart, nothing decoded yet.
pub(super) struct Parts<'a> {
    pub(super) user_info: Option<&'a str>,
    pub(super) host: &'a str,
    pub(super) port: Option<u16>,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

impl<'a> Parts<'a> {
    pub(super) fn of(text: &'a str) -> Result<Self, UrlError> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong(text.len()));
        }
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
        // `user:12/ss@host` looks like port 12, and the rest of the password would go to name servers and into logs. An
        // address is nobody's name, and cameras have paths such as `user=admin&password=p@ss`.
        let first = path.split('/').nth(1).unwrap_or_default();
        let behind = if path.is_empty() { query.unwrap_or_default() } else { first };
        let may_end = behind.split_once('@').is_some_and(|(before, _)| !before.contains('='));
        if user_info.is_none() && port.is_some() && may_end && ip_literal(host).is_none() {
            return Err(UrlError::AtBehindPort);
        }
        Ok(Self { user_info, host, port, path, query: query.filter(|query| !query.is_empty()) })
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

pub(super) fn bad_host(host: &str) -> UrlError {
    UrlError::BadHost(host.chars().take(64).collect())
}

/// An IP literal; an IPv4 address written as IPv6 is the IPv4 address.
pub(super) fn ip_literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(|ip| IpAddr::V6(ip).to_canonical()),
        None => host.parse().ok().filter(IpAddr::is_ipv4),
    }
}
