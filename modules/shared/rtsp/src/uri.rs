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

    /// The stream's own URI out of that of one of its media: without its control, which clients put behind the path
    /// (GStreamer) or behind everything, the query too (ffmpeg). `None` where it is not there.
    pub fn of_stream(uri: &str, control: &str) -> Option<Self> {
        if control.is_empty() {
            return None;
        }
        if let Some(before) = ending(uri, control) {
            return Self::parse(before.trim_end_matches('/'));
        }
        let (path, query) = uri.split_once('?')?;
        Self::parse(&format!("{}?{query}", ending(path, control)?))
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
        let stream = |uri| Target::of_stream(uri, "trackID=1");
        let gstreamer = stream("rtsp://cam/live/one/trackID=1?key=a").unwrap();
        let ffmpeg = stream("rtsp://cam/live/one?key=a/trackID=1").unwrap();
        assert_eq!(gstreamer, ffmpeg);
        assert_eq!((ffmpeg.path.as_str(), ffmpeg.query.as_deref()), ("live/one", Some("key=a")));
        assert_eq!(stream("rtsp://cam/live/one"), None);
        assert_eq!(stream("rtsp://cam/live/xtrackID=1"), None);
    }
}
