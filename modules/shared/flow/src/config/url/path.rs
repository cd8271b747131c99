//! Paths and queries: decoding with all their rules, and encoding.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::UrlError;
use crate::config::scheme::Scheme;

/// What `*` and `{match}` mean in a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Stars {
    /// `pull`, `read`: an ordinary character; `{match}` is unknown.
    Plain,
    /// `listen`: the whole last segment makes a pattern.
    Pattern,
    /// An output of a pattern: must occur.
    Needed,
    /// An output of an exact flow: must not occur.
    Refused,
}

/// Decodes a path and checks its segments. `{match}` becomes `*`.
pub(super) fn decode_path(path: &str, scheme: Scheme, stars: Stars) -> Result<String, UrlError> {
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
        || (scheme.named && decoded.contains('?'))
        || (stars != Stars::Plain && hidden('*'))
    {
        return Err(UrlError::BadEncoded);
    }
    Ok(decoded)
}

/// Strict percent-decoding: each `%` has its two digits, and the result is UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
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

/// Whether `{match}` is in the query.
pub(super) fn check_query(query: Option<&str>, stars: Stars) -> Result<bool, UrlError> {
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

/// A decoded path as URLs write it. An `@` behind a port is taken for the end of a password, so it is encoded too.
pub(super) fn encoded(path: &str) -> String {
    const SHOWN: &AsciiSet = &PATH.add(b'@');
    utf8_percent_encode(path, SHOWN).to_string()
}

/// A value of a query parameter.
pub(crate) fn encoded_value(value: &str) -> String {
    const VALUE: &AsciiSet = &PATH.add(b'&').add(b'+').add(b'=').add(b'/');
    utf8_percent_encode(value, VALUE).to_string()
}
