//! Requests and responses (RFC 2326 §4 to §7), and the HTTP requests that open a tunnel.
//!
//! Reading is more tolerant than `rtsp-types` is: a request's URI stays the text that was sent (Digest hashes that
//! text), lines may end in LF alone, and a header that can't be understood is left out.

use std::fmt::Write as _;

use bytes::Bytes;
pub use rtsp_types::{Method, StatusCode};

/// Headers of one message, in order. Names compare without case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

/// Most headers that are kept of one message; clients send a dozen.
const MAX_HEADERS: usize = 64;

impl Headers {
    /// The value of the first header of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The values of all headers of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Puts one more behind the others. What could end the line is left out of the value.
    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        let mut value: String = value.into();
        value.retain(|c| !c.is_control());
        self.0.push((name.to_owned(), value));
    }

    /// Every header, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Reads header lines. One without a colon is left out; one that begins with a blank continues the one before.
    fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = headers.last_mut() {
                    value.push(' ');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':')
                && headers.len() < MAX_HEADERS
            {
                headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
        }
        Self(headers)
    }

    fn write(&self, out: &mut String) {
        for (name, value) in &self.0 {
            // Writing to a String does not fail.
            let _ = write!(out, "{name}: {value}\r\n");
        }
    }
}

/// A request (RFC 2326 §6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub method: Method,
    /// Of what: the text as it was sent, `*` included.
    pub uri: String,
    /// `RTSP/1.0`, with other numbers where another version is spoken.
    pub version: String,
    /// Headers.
    pub headers: Headers,
    /// Body; empty where there is none.
    pub body: Bytes,
}

impl Request {
    /// A request of RTSP 1.0 without body.
    pub fn new(method: Method, uri: &str) -> Self {
        let (uri, version) = (uri.to_owned(), "RTSP/1.0".to_owned());
        Self { method, uri, version, headers: Headers::default(), body: Bytes::new() }
    }

    /// The same with one header more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// As it goes on the wire; `Content-Length` is added where there is a body.
    pub fn to_bytes(&self) -> Bytes {
        let method: &str = (&self.method).into();
        let start = format!("{method} {} {}\r\n", self.uri, self.version);
        whole(start, &self.headers, &self.body)
    }
}

/// A response (RFC 2326 §7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// How it went.
    pub status: StatusCode,
    /// For people.
    pub reason: String,
    /// Headers.
    pub headers: Headers,
    /// Body; empty where there is none.
    pub body: Bytes,
}

impl Response {
    /// A response with the status's usual words and without body.
    pub fn new(status: StatusCode) -> Self {
        // `OK` is how everybody spells it.
        let reason = if status == StatusCode::Ok { "OK".to_owned() } else { status.to_string() };
        Self { status, reason, headers: Headers::default(), body: Bytes::new() }
    }

    /// The same with one header more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// As it goes on the wire; `Content-Length` is added where there is a body.
    pub fn to_bytes(&self) -> Bytes {
        let start = format!("RTSP/1.0 {} {}\r\n", u16::from(self.status), self.reason);
        whole(start, &self.headers, &self.body)
    }
}

fn whole(mut text: String, headers: &Headers, body: &Bytes) -> Bytes {
    headers.write(&mut text);
    if !body.is_empty() {
        let _ = write!(text, "Content-Length: {}\r\n", body.len());
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes.into()
}

/// An HTTP request on the RTSP port: a tunnel is asked for, or somebody is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// `GET`, `POST`, ...
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// Headers.
    pub headers: Headers,
}

/// A message without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Request(Request),
    Response(Response),
    Http(HttpRequest),
}

impl Head {
    /// Reads start line and headers; `None` where the start line is neither of RTSP nor of HTTP.
    pub(crate) fn read(block: &[u8]) -> Option<Self> {
        // A user agent in Latin-1 is no reason to end.
        let text = String::from_utf8_lossy(block);
        let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        let start = lines.next()?.trim_end();
        let headers = Headers::read(lines.take_while(|line| !line.is_empty()));
        if start.starts_with("RTSP/") {
            let mut parts = start.splitn(3, ' ');
            let (_version, status) = (parts.next()?, parts.next()?);
            let status = status.parse::<u16>().ok().filter(|status| (100..1000).contains(status))?;
            let reason = parts.next().unwrap_or_default().trim().to_owned();
            return Some(Self::Response(Response {
                status: status.into(),
                reason,
                headers,
                body: Bytes::new(),
            }));
        }
        // A URI with a blank in it is wrong, and is what a user typed.
        let (method, rest) = start.split_once(' ')?;
        let (uri, version) = rest.trim().rsplit_once(' ')?;
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') {
            return None;
        }
        let uri = uri.trim();
        if version.starts_with("HTTP/1.") {
            let (method, target) = (method.to_owned(), uri.to_owned());
            return Some(Self::Http(HttpRequest { method, target, headers }));
        }
        version.strip_prefix("RTSP/").filter(|number| !number.is_empty())?;
        let (uri, version) = (uri.to_owned(), version.to_owned());
        Some(Self::Request(Request { method: method.into(), uri, version, headers, body: Bytes::new() }))
    }

    pub(crate) const fn headers(&self) -> &Headers {
        match self {
            Self::Request(request) => &request.headers,
            Self::Response(response) => &response.headers,
            Self::Http(request) => &request.headers,
        }
    }
}
