//! RTMP has no paths: it has an application and a stream name, and clients split a URL between the two where they
//! like. Here both are joined to one path and taken apart again.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::config::{ConnectUrl, bracketed, encoded_value};

/// The path that a client asks for, from `connect`'s `app` and the name of `publish` or `play`: both joined, without
/// queries, outer and doubled slashes; percent-decoded once where that gives text. Compare it with
/// [`ListenUrl::path`](crate::config::ListenUrl::path).
pub fn joined(application: &str, name: &str) -> String {
    let plain = [application, name].map(|text| text.split_once('?').map_or(text, |(before, _)| before));
    let segments = plain.into_iter().flat_map(|text| text.split('/')).filter(|segment| !segment.is_empty());
    segments.map(decoded).collect::<Vec<_>>().join("/")
}

/// Decoded where that gives a plain segment; as it came otherwise, so that nothing compares equal by accident.
fn decoded(segment: &str) -> String {
    match percent_decode_str(segment).decode_utf8() {
        Ok(text) if !text.contains(|c: char| c.is_control() || c == '/' || c == '?') => text.into_owned(),
        _ => segment.to_owned(),
    }
}

/// How to ask another server for a stream.
#[derive(Clone, PartialEq, Eq)]
pub struct RtmpTarget {
    /// `app` of `connect`.
    pub application: String,
    /// The name to publish or play, with its query. May be a secret or hold one.
    pub name: String,
    /// `tcUrl` of `connect`: without user info and query.
    pub tc_url: String,
}

/// Without the name.
impl fmt::Debug for RtmpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RtmpTarget({})", self.tc_url)
    }
}

impl RtmpTarget {
    /// Takes a URL apart. With `stream_key` the whole path is the application; without, its last segment is the
    /// name. The URL's query and `key` go behind the name.
    pub fn new(url: &ConnectUrl, stream_key: Option<&str>, key: Option<&str>) -> Self {
        let (application, mut name) = match (stream_key, url.path.rsplit_once('/')) {
            (Some(stream_key), _) => (url.path.as_str(), stream_key.to_owned()),
            (None, Some((application, name))) => (application, name.to_owned()),
            (None, None) => ("", url.path.clone()),
        };
        let key = key.map(|key| format!("key={}", encoded_value(key)));
        for part in url.query.iter().chain(&key) {
            name.push(if name.contains('?') { '&' } else { '?' });
            name.push_str(part);
        }
        let host = bracketed(&url.host);
        let tc_url = format!("{}://{host}:{}/{application}", url.scheme, url.port);
        Self { application: application.to_owned(), name, tc_url }
    }
}
