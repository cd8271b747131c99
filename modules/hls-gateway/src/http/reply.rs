//! Answers: conditional, in part, compressed, and for pages of other origins.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use av_flow::stream::OutputStatus;
use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};

use super::body::Body;
use crate::live::Pieces;
use crate::options::Cors;

/// What never changes under its URL.
pub(crate) const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// What is another the next moment.
pub(crate) const A_MOMENT: &str = "public, max-age=1";
/// What nobody keeps.
pub(crate) const NEVER: &str = "no-store";

/// What is sent where nothing speaks against it.
pub(crate) struct Content {
    pub kind: &'static str,
    pub cache: &'static str,
    /// Without quotes.
    pub tag: String,
    pub source: Source,
    /// The same compressed, for a client that takes that.
    pub gzip: Option<Bytes>,
    /// There may be a compressed form.
    pub varies: bool,
    /// A part of it may be asked for.
    pub ranges: bool,
}

/// Where the content is.
pub(crate) enum Source {
    Memory(Pieces),
    One(Bytes),
    /// And its length.
    File(Arc<File>, u64),
}

impl From<Pieces> for Source {
    fn from(pieces: Pieces) -> Self {
        Self::Memory(pieces)
    }
}

impl From<Bytes> for Source {
    fn from(bytes: Bytes) -> Self {
        Self::One(bytes)
    }
}

impl Source {
    fn len(&self) -> usize {
        match self {
            Self::Memory(pieces) => pieces.len(),
            Self::One(bytes) => bytes.len(),
            Self::File(_, len) => usize::try_from(*len).unwrap_or(usize::MAX),
        }
    }

    fn body(&self, range: Range<usize>) -> Body {
        let len = (range.end - range.start) as u64;
        match self {
            Self::Memory(pieces) => Body::many(pieces.range(range), len),
            Self::One(bytes) => Body::one(bytes.slice(range)),
            Self::File(file, _) => Body::file(file.clone(), range.start as u64..range.end as u64),
        }
    }
}

/// A short answer in words.
pub(crate) fn words(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut text = text.into();
    text.push('\n');
    let len = text.len();
    let mut response = Response::new(Body::one(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(NEVER));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// What must not be found in a cache.
pub(crate) fn kept_by_none(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.remove(header::ETAG);
    insert(headers, header::CACHE_CONTROL, NEVER);
    response
}

/// A HEAD is answered without the content that its headers tell of (RFC 9110 §9.3.2).
pub(crate) fn without_content(response: Response<Body>) -> Response<Body> {
    response.map(|_| Body::empty())
}

/// Only these methods are answered (RFC 9110 §15.5.6).
pub(crate) fn only(methods: &'static str) -> Response<Body> {
    let mut refused = words(StatusCode::METHOD_NOT_ALLOWED, format!("the allowed methods are {methods}"));
    refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    refused
}

/// Nothing is there.
pub(crate) fn nothing() -> Response<Body> {
    words(StatusCode::NOT_FOUND, "not found")
}

impl Content {
    /// The answer to a GET or HEAD. `counted`: who sends it.
    pub(crate) fn answer(
        self,
        method: &Method,
        asked: &HeaderMap,
        counted: Option<&Arc<OutputStatus>>,
    ) -> Response<Body> {
        let gzip = self.gzip;
        let tag = if gzip.is_some() { format!("\"{}-gz\"", self.tag) } else { format!("\"{}\"", self.tag) };
        // Before all other conditions (RFC 9110 §13.2.2). Nothing here has a date of its last change, and so
        // If-Unmodified-Since and If-Modified-Since have to be passed over (§13.1.3, §13.1.4).
        if !may_be(asked, &tag) {
            return words(StatusCode::PRECONDITION_FAILED, "If-Match names none of what is here");
        }
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        insert(headers, header::CACHE_CONTROL, self.cache);
        insert(headers, header::ETAG, &tag);
        if self.varies {
            insert(headers, header::VARY, "Accept-Encoding");
        }
        if matches(asked, &tag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        insert(headers, header::CONTENT_TYPE, self.kind);
        let len = gzip.as_ref().map_or(self.source.len(), Bytes::len);
        if gzip.is_some() {
            insert(headers, header::CONTENT_ENCODING, "gzip");
        }
        let mut range = 0..len;
        if self.ranges {
            insert(headers, header::ACCEPT_RANGES, "bytes");
            // A range is asked for by GET alone (RFC 9110 §14.2).
            let wanted = if method == Method::GET { wanted(asked, &tag, len) } else { Wanted::All };
            match wanted {
                Wanted::All => {}
                Wanted::Range(part) => {
                    let text = format!("bytes {}-{}/{len}", part.start, part.end.saturating_sub(1));
                    insert(headers, header::CONTENT_RANGE, &text);
                    range = part;
                    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                }
                Wanted::Nothing => {
                    let mut response = words(StatusCode::RANGE_NOT_SATISFIABLE, "no such range");
                    insert(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{len}"));
                    return response;
                }
            }
        }
        let sent = range.end - range.start;
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(sent));
        if method != Method::HEAD {
            let body = match gzip {
                Some(gzip) => Body::one(gzip),
                None => self.source.body(range),
            };
            *response.body_mut() = match counted {
                Some(status) => body.counted(status),
                None => body,
            };
        }
        response
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The tags that a condition names, `*` among them.
fn tags(asked: &HeaderMap, condition: HeaderName) -> impl Iterator<Item = &str> {
    let values = asked.get_all(condition).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Whether `If-None-Match` names the tag (RFC 9110 §13.1.2: compared weakly).
fn matches(asked: &HeaderMap, tag: &str) -> bool {
    tags(asked, header::IF_NONE_MATCH)
        .any(|given| given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag)
}

/// Whether `If-Match` is not there or names the tag (RFC 9110 §13.1.1: compared strongly).
fn may_be(asked: &HeaderMap, tag: &str) -> bool {
    !asked.contains_key(header::IF_MATCH)
        || tags(asked, header::IF_MATCH).any(|given| given == "*" || given == tag)
}

/// Whether a client takes what is compressed.
pub(crate) fn takes_gzip(asked: &HeaderMap) -> bool {
    let Some(encodings) = text(asked, header::ACCEPT_ENCODING) else { return false };
    // Whether it is wanted, where it is named.
    let wants = |wanted: &str| {
        encodings.split(',').find_map(|encoding| {
            let mut words = encoding.split(';').map(str::trim);
            words.next().filter(|name| name.eq_ignore_ascii_case(wanted))?;
            let weight = words.find_map(|word| word.strip_prefix("q=")?.trim().parse::<f32>().ok());
            Some(weight.is_none_or(|weight| weight > 0.0))
        })
    };
    wants("gzip").or_else(|| wants("*")).unwrap_or(false)
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Range(Range<usize>),
    Nothing,
}

/// One range (RFC 9110 §14); whoever asks for several or for what makes no sense gets all.
fn wanted(asked: &HeaderMap, tag: &str, len: usize) -> Wanted {
    let condition = text(asked, header::IF_RANGE);
    // A gap's segment has no bytes, and no range of them: players that know no gaps ask for it all the same.
    if len == 0 || condition.is_some_and(|condition| condition != tag) {
        return Wanted::All;
    }
    let Some(range) = text(asked, header::RANGE).and_then(|range| range.trim().strip_prefix("bytes=")) else {
        return Wanted::All;
    };
    let Some((first, last)) = range.split_once('-').filter(|_| !range.contains(',')) else {
        return Wanted::All;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        // What does not fit is behind every end.
        digits.then(|| text.parse::<usize>().unwrap_or(usize::MAX))
    };
    match (number(first.trim()), number(last.trim())) {
        (Some(first), Some(last)) if first <= last => {
            if first >= len {
                Wanted::Nothing
            } else {
                Wanted::Range(first..last.saturating_add(1).min(len))
            }
        }
        (Some(first), None) if last.trim().is_empty() => {
            if first >= len {
                Wanted::Nothing
            } else {
                Wanted::Range(first..len)
            }
        }
        (None, Some(last)) if first.trim().is_empty() => {
            if last == 0 {
                Wanted::Nothing
            } else {
                Wanted::Range(len.saturating_sub(last)..len)
            }
        }
        _ => Wanted::All,
    }
}

/// Lets pages of other origins have the answer (Fetch §3.2).
pub(crate) fn share(response: &mut Response<Body>, cors: &Cors, origin: Option<&HeaderValue>) {
    let headers = response.headers_mut();
    match cors {
        Cors::All => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        Cors::Listed(origins) => {
            // In one line: caches as nginx 1.22 look at the last one alone.
            let vary = match headers.contains_key(header::VARY) {
                true => "Accept-Encoding, Origin",
                false => "Origin",
            };
            insert(headers, header::VARY, vary);
            let Some(origin) = origin else { return };
            if !origins.iter().any(|listed| listed.as_bytes().eq_ignore_ascii_case(origin.as_bytes())) {
                return;
            }
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Age, Content-Length, Content-Range, Date, ETag"),
    );
}

/// What may be asked for, before it is. Fields that a page wants to send are harmless, whatever they are.
pub(crate) fn options(asked: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    insert(headers, header::ALLOW, "GET, HEAD, OPTIONS");
    insert(headers, header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS");
    if let Some(fields) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fields.clone());
    }
    insert(headers, header::ACCESS_CONTROL_MAX_AGE, "86400");
    insert(headers, header::CACHE_CONTROL, NEVER);
    response
}

/// What the server itself takes (`OPTIONS *`, RFC 9110 §9.3.7).
pub(crate) fn options_of_all() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    insert(response.headers_mut(), header::ALLOW, "GET, HEAD, POST, OPTIONS");
    insert(response.headers_mut(), header::CACHE_CONTROL, NEVER);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn one_range_is_given_and_what_is_odd_gets_all() {
        let of = |range| wanted(&asked(header::RANGE, range), "\"t\"", 100);
        assert_eq!(of("bytes=0-0"), Wanted::Range(0..1));
        let nothing = HeaderMap::from_iter([(header::RANGE, "bytes=0-".parse().unwrap())]);
        assert_eq!(wanted(&nothing, "tag", 0), Wanted::All, "all of nothing is there");
        assert_eq!(of("bytes=90-"), Wanted::Range(90..100));
        assert_eq!(of("bytes=90-8388607"), Wanted::Range(90..100));
        assert_eq!(of("bytes=-5"), Wanted::Range(95..100));
        assert_eq!(of("bytes=-500"), Wanted::Range(0..100));
        assert_eq!(of("bytes=0-99999999999999999999999"), Wanted::Range(0..100));
        for none in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(of(none), Wanted::Nothing, "{none}");
        }
        for all in ["bytes=", "bytes=-", "bytes=5-4", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b", "bytes=+1-2"]
        {
            assert_eq!(of(all), Wanted::All, "{all}");
        }
    }

    #[test]
    fn compression_is_for_those_who_take_it() {
        for (yes, value) in [
            (true, "gzip"),
            (true, "deflate, GZIP;q=0.5"),
            (true, "*"),
            (false, "gzip;q=0"),
            (false, "gzip;q=0, *"),
            (true, "*;q=0, gzip"),
            (false, "br"),
            (false, ""),
        ] {
            assert_eq!(takes_gzip(&asked(header::ACCEPT_ENCODING, value)), yes, "{value}");
        }
    }

    #[test]
    fn a_tag_that_is_known_is_not_sent_again() {
        for (known, value) in [
            (true, "\"a\""),
            (true, "W/\"a\""),
            (true, "\"b\", \"a\""),
            (true, "*"),
            (false, "\"b\""),
            (false, "a"),
        ] {
            assert_eq!(matches(&asked(header::IF_NONE_MATCH, value), "\"a\""), known, "{value}");
        }
    }

    #[test]
    fn what_is_another_than_if_match_names_is_not_sent_and_dates_are_passed_over() {
        let status = |conditions: &[(HeaderName, &'static str)]| {
            let content = Content {
                kind: "video/mp4",
                cache: FOR_EVER,
                tag: "a".into(),
                source: Bytes::from_static(b"media").into(),
                gzip: None,
                varies: false,
                ranges: true,
            };
            let fields =
                conditions.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            let answer = content.answer(&Method::GET, &fields.collect(), None);
            (answer.status().as_u16(), answer.headers().get(header::CACHE_CONTROL).unwrap().clone())
        };
        for value in ["\"b\"", "a", "W/\"a\"", "\"b\", \"c\"", ""] {
            assert_eq!(
                status(&[(header::IF_MATCH, value)]),
                (412, HeaderValue::from_static(NEVER)),
                "{value}"
            );
        }
        for value in ["\"a\"", "*", "\"b\", \"a\""] {
            assert_eq!(status(&[(header::IF_MATCH, value)]).0, 200, "{value}");
        }
        // It comes before the others.
        let both = |first| {
            status(&[
                (header::IF_MATCH, first),
                (header::IF_NONE_MATCH, "\"a\""),
                (header::RANGE, "bytes=0-1"),
            ])
        };
        assert_eq!((both("\"b\"").0, both("\"a\"").0), (412, 304));
        let old = "Sat, 01 Jan 2000 00:00:00 GMT";
        assert_eq!(status(&[(header::IF_UNMODIFIED_SINCE, old)]).0, 200);
        assert_eq!(status(&[(header::IF_MODIFIED_SINCE, old)]).0, 200);
    }

    #[test]
    fn an_origin_that_is_listed_is_echoed_and_no_other() {
        let one = |varies: bool| {
            let mut response = words(StatusCode::OK, "");
            if varies {
                insert(response.headers_mut(), header::VARY, "Accept-Encoding");
            }
            share(&mut response, &Cors::Listed(Vec::new()), None);
            let lines = response.headers().get_all(header::VARY).into_iter();
            lines.map(|line| line.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!((one(false), one(true)), (vec!["Origin".into()], vec!["Accept-Encoding, Origin".into()]));
        let shared = |cors: &Cors, origin: Option<&'static str>| {
            let mut response = words(StatusCode::OK, "");
            share(&mut response, cors, origin.map(HeaderValue::from_static).as_ref());
            let headers = response.headers();
            let get = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap().to_owned());
            (get(header::ACCESS_CONTROL_ALLOW_ORIGIN), get(header::ACCESS_CONTROL_ALLOW_CREDENTIALS))
        };
        let listed = Cors::Listed(vec!["https://a.example".into()]);
        assert_eq!(shared(&Cors::All, Some("https://b.example")), (Some("*".into()), None));
        let echoed = (Some("https://a.example".into()), Some("true".into()));
        assert_eq!(shared(&listed, Some("https://a.example")), echoed);
        let other_case = shared(&listed, Some("HTTPS://A.Example"));
        assert_eq!(other_case, (Some("HTTPS://A.Example".into()), Some("true".into())));
        assert_eq!(shared(&listed, Some("https://b.example")), (None, None));
        assert_eq!(shared(&listed, None), (None, None));
    }
}
