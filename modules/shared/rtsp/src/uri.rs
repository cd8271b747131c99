//! What a request's URI names.

use percent_encoding::percent_decode_str;

/// The parts of an RTSP URI, as far as a server needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `rtsp://host:port`, without user info; empty where the URI is a path alone.
    pub origin: String,
    /// The path between its slashes, as sent, without those at either end.
    pub raw_path: String,
    /// The same, percent-decoded once: as paths are written in a configuration.
    pub path: String,
    /// What followed the first `?`.
    pub query: Option<String>,
}

impl Target {
    /// Reads a URI; `None` where it is neither absolute nor a path, or its path is no UTF-8.
    pub fn parse(uri: &str) -> Option<Self> {
        let (origin, rest) = match uri.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                let (authority, rest) = rest.split_at(end);
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                (format!("{}://{host}", scheme.to_ascii_lowercase()), rest)
            }
            _ if uri.starts_with('/') => (String::new(), uri),
            _ => return None,
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (rest, None),
        };
        let raw_path = path.trim_matches('/').to_owned();
        let path = percent_decode_str(&raw_path).decode_utf8().ok()?.into_owned();
        Some(Self { origin, raw_path, path, query })
    }

    /// Absolute, with a slash at its end, without query and user info: what `Content-Base` and `a=control` begin
    /// with.
    pub fn base(&self) -> String {
        if self.raw_path.is_empty() {
            return format!("{}/", self.origin);
        }
        format!("{}/{}/", self.origin, self.raw_path)
    }

    /// Takes a medium's control off the end of the URI, where the client put it: behind the path (GStreamer) or
    /// behind the query (ffmpeg). `None`, and nothing changed, where it is not there.
    #[must_use]
    pub fn without(&self, control: &str) -> Option<Self> {
        if control.is_empty() {
            return None;
        }
        if let Some(query) = &self.query
            && let Some(before) = ending(query, control)
        {
            let query = before.trim_end_matches('/');
            let query = (!query.is_empty()).then(|| query.to_owned());
            return Some(Self { query, ..self.clone() });
        }
        let raw_path = ending(&self.raw_path, control)?.trim_end_matches('/').to_owned();
        let path = percent_decode_str(&raw_path).decode_utf8().ok()?.into_owned();
        Some(Self { raw_path, path, ..self.clone() })
    }
}

/// What stands before `end`, which must be a whole segment.
fn ending<'a>(text: &'a str, end: &str) -> Option<&'a str> {
    let before = text.strip_suffix(end)?;
    (before.is_empty() || before.ends_with('/')).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> Target {
        Target::parse(uri).unwrap()
    }

    #[test]
    fn a_base_has_neither_user_nor_query_and_ends_in_a_slash() {
        for uri in
            ["rtsp://u:p@cam:8554/live/one?key=a", "RTSP://cam:8554/live/one/", "rtsp://cam:8554/live/one"]
        {
            assert_eq!(parse(uri).base(), "rtsp://cam:8554/live/one/", "{uri}");
        }
        assert_eq!(parse("rtsp://cam").base(), "rtsp://cam/");
        assert_eq!(parse("rtsp://cam/a%20b").path, "a b");
        assert_eq!(parse("rtsp://cam/a%20b").base(), "rtsp://cam/a%20b/");
        assert_eq!(Target::parse("*"), None);
    }

    #[test]
    fn a_control_is_found_behind_path_and_query() {
        let gstreamer = parse("rtsp://cam/live/one/trackID=1?key=a").without("trackID=1").unwrap();
        let ffmpeg = parse("rtsp://cam/live/one?key=a/trackID=1").without("trackID=1").unwrap();
        assert_eq!(gstreamer, ffmpeg);
        assert_eq!((ffmpeg.path.as_str(), ffmpeg.query.as_deref()), ("live/one", Some("key=a")));
        assert_eq!(parse("rtsp://cam/live/one").without("trackID=1"), None);
        assert_eq!(parse("rtsp://cam/live/xtrackID=1").without("trackID=1"), None);
    }
}
