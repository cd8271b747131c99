//! What a request asks for: its path, decoded once, and its query.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::live::Asked;

/// What can't stand for itself in a query or in a segment of a path.
const RESERVED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b'/')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}')
    .add(b',')
    .add(b'\'');
/// The longest path.
const MOST_BYTES: usize = 4096;

/// A text as it stands in a URI.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The path without its outer slash, percent-decoded once. `None`: nobody writes a path so who means well.
pub(crate) fn path(raw: &str) -> Option<String> {
    let raw = raw.strip_prefix('/').filter(|raw| raw.len() <= MOST_BYTES)?;
    if raw.is_empty() {
        return Some(String::new());
    }
    let segments = raw.split('/').map(segment).collect::<Option<Vec<_>>>()?;
    Some(segments.join("/"))
}

/// The key in front of a path, `/k/KEY/PATH`, and that path. A key may hold a slash, percent-encoded.
pub(crate) fn keyed(raw: &str) -> Option<(String, String)> {
    let (key, rest) = raw.strip_prefix("/k/").filter(|raw| raw.len() <= MOST_BYTES)?.split_once('/')?;
    let key = percent_decode_str(key).decode_utf8().ok().filter(|key| !matches!(&**key, "" | "." | ".."))?;
    Some((key.into_owned(), path(&format!("/{rest}"))?))
}

fn segment(raw: &str) -> Option<String> {
    let mut rest = raw;
    while let Some(at) = rest.find('%') {
        let digits = rest.get(at + 1..at + 3)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        rest = rest.get(at + 3..)?;
    }
    let decoded = percent_decode_str(raw).decode_utf8().ok()?;
    let odd = decoded.is_empty()
        || matches!(&*decoded, "." | "..")
        || decoded.contains(|c: char| c.is_control() || c == '/' || c == '\\');
    (!odd).then(|| decoded.into_owned())
}

/// A query that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Senseless;

/// A number as it is written here: one number has one name.
pub(crate) fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|digit| digit.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// Directives of delivery (RFC 8216bis §6.2.5), each at most once. What is not known is passed over.
pub(crate) fn asked(query: Option<&str>) -> Result<Asked, Senseless> {
    let (mut segment, mut part, mut skip) = (None, None, None);
    for pair in query.unwrap_or_default().split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // Caches take each query for an answer of its own: one question has one.
        let number = || number(value).ok_or(Senseless);
        let before = match name {
            "_HLS_msn" => segment.replace(number()?).is_some(),
            "_HLS_part" => part.replace(number()?).is_some(),
            "_HLS_skip" => skip.replace(matches!(value, "YES" | "v2")).is_some(),
            _ => false,
        };
        if before {
            return Err(Senseless);
        }
    }
    let after = match (segment, part) {
        (Some(segment), part) => Some((segment, part)),
        (None, Some(_)) => return Err(Senseless),
        (None, None) => None,
    };
    Ok(Asked { after, skip: skip.unwrap_or(false) })
}

/// The value of a parameter of a query, decoded; the first where there are several.
pub(crate) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(other, _)| *other == name)?;
    percent_decode_str(value).decode_utf8().ok().map(|value| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_never_leads_elsewhere() {
        for (raw, decoded) in [
            ("/", ""),
            ("/live/stream/index.m3u8", "live/stream/index.m3u8"),
            ("/live/my%20cam/index.m3u8", "live/my cam/index.m3u8"),
            ("/live/%C3%BC", "live/ü"),
            ("/live/%252e%252e", "live/%2e%2e"),
        ] {
            assert_eq!(path(raw).as_deref(), Some(decoded), "{raw}");
        }
        for raw in [
            "",
            "live",
            "//",
            "/live//x",
            "/live/",
            "/../x",
            "/live/..",
            "/live/%2e%2e/x",
            "/live/.",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%",
            "/a%4",
            "/a%zz",
            "/%ff",
            "/%c0%ae%c0%ae/x",
            "/a%0a",
        ] {
            assert_eq!(path(raw), None, "{raw}");
        }
    }

    #[test]
    fn a_key_in_front_of_a_path_may_hold_what_a_path_may_not() {
        let of = |key: &str, path: &str| Some((key.to_owned(), path.to_owned()));
        assert_eq!(keyed("/k/a%2Fb+c%3D/live/my%20cam.m3u8"), of("a/b+c=", "live/my cam.m3u8"));
        assert_eq!(keyed("/k/abc/live/x"), of("abc", "live/x"));
        for raw in [
            "/k/a",
            "/k//live/x",
            "/live/k/a",
            "/k/a/live/%2e%2e",
            "/k/a/b%2Fc",
            "/k/%ff/live",
            "/k/../live/x",
        ] {
            assert_eq!(keyed(raw), None, "{raw}");
        }
    }

    #[test]
    fn directives_are_read_and_everything_else_is_passed_over() {
        let after = |segment, part| Ok(Asked { after: Some((segment, part)), skip: false });
        assert_eq!(asked(None), Ok(Asked::default()));
        assert_eq!(asked(Some("CMCD=br%3D3&x")), Ok(Asked::default()));
        assert_eq!(asked(Some("_HLS_msn=7")), after(7, None));
        assert_eq!(asked(Some("_HLS_part=2&key=k&_HLS_msn=7")), after(7, Some(2)));
        assert_eq!(asked(Some("_HLS_skip=v2")), Ok(Asked { after: None, skip: true }));
        assert_eq!(asked(Some("_HLS_msn=0&_HLS_part=0")), after(0, Some(0)));
        for wrong in [
            "_HLS_msn=",
            "_HLS_msn=-1",
            "_HLS_msn=x",
            "_HLS_part=1",
            "_HLS_msn=99999999999999999999",
            "_HLS_msn=+7",
            "_HLS_msn=007",
            "_HLS_msn=7&_HLS_part=00",
            "_HLS_msn=7&_HLS_msn=7",
            "_HLS_msn=7&_HLS_part=1&_HLS_part=2",
            "_HLS_skip=YES&_HLS_skip=YES",
        ] {
            assert_eq!(asked(Some(wrong)), Err(Senseless), "{wrong}");
        }
    }
}
