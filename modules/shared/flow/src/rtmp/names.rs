//! Paths as clients write them.
//!
//! Where a URL ends in `.mp4` or `.f4v`, ffmpeg asks for `mp4:cam.mp4` and librtmp for `mp4:cam`; of `cam.flv` both
//! leave `cam`. Flash and its servers write `flv:cam` and `mp4:cam` for live streams too. None of it is in RTMP 1.0:
//! it is how Adobe's server names files.

use crate::net::{Found, Routes};

/// Prefixes, and the extensions that they stand for, the first one first.
const PREFIXES: [(&str, &[&str]); 4] =
    [("mp4:", &[".mp4", ".f4v"]), ("f4v:", &[".f4v", ".mp4"]), ("flv:", &["", ".flv"]), ("mp3:", &[".mp3"])];
const EXTENSIONS: [&str; 4] = [".mp4", ".f4v", ".flv", ".mp3"];

/// Where a path leads, and how it is written there. The path as it came is meant before anything else, and paths that
/// are configured before patterns.
pub(super) fn find<T>(routes: &Routes<T>, path: &str) -> Option<(Found<T>, String)> {
    let found = meant(routes, path);
    if found.as_ref().is_some_and(|(found, _)| found.rest.is_none()) {
        return found;
    }
    let trimmed = trimmed(path);
    let mended = if trimmed == path { None } else { meant(routes, &trimmed) };
    mended.or(found)
}

/// Whoever types a URL into an encoder leaves a space.
pub(super) fn trimmed(path: &str) -> String {
    let segments = path.split('/').map(str::trim).filter(|segment| !segment.is_empty());
    segments.collect::<Vec<_>>().join("/")
}

fn meant<T>(routes: &Routes<T>, path: &str) -> Option<(Found<T>, String)> {
    let exact = |path: String| routes.exact(&path).map(|route| (Found { route, rest: None }, path));
    let plain = without_prefix(path);
    let found = exact(path.to_owned()).or_else(|| match &plain {
        Some((plain, _)) if extension(plain).is_some() => exact(plain.clone()),
        Some((plain, extensions)) => {
            let mut guesses = extensions.iter().chain(&[""]).map(|extension| format!("{plain}{extension}"));
            guesses.find_map(exact)
        }
        None => exact(format!("{path}.flv")),
    });
    let plain = plain.map(|(plain, _)| plain);
    found
        .or_else(|| {
            let path = plain.as_deref().unwrap_or(path);
            Some((routes.find(path)?, path.to_owned()))
        })
        // The extension may be the client's own idea of what is in the stream.
        .or_else(|| {
            let plain = plain.as_deref()?;
            exact(plain.strip_suffix(extension(plain)?)?.to_owned())
        })
}

/// The path without the first prefix in it, and the extensions that the prefix stands for.
fn without_prefix(path: &str) -> Option<(String, &'static [&'static str])> {
    let mut at = 0;
    for segment in path.split('/') {
        for (prefix, extensions) in PREFIXES {
            let (found, rest) = segment.split_at_checked(prefix.len()).unwrap_or_default();
            if found.eq_ignore_ascii_case(prefix) && !rest.is_empty() {
                let (before, after) = path.split_at_checked(at)?;
                return Some((format!("{before}{}", after.get(prefix.len()..)?), extensions));
            }
        }
        at += segment.len() + 1;
    }
    None
}

fn extension(path: &str) -> Option<&'static str> {
    EXTENSIONS.into_iter().find(|extension| path.ends_with(extension))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::net::Place;

    /// What each asked path leads to, where these are configured.
    fn leads(configured: &[&str], asked: &str) -> Option<String> {
        let routes = Routes::default();
        let guards: Vec<_> =
            configured.iter().map(|path| routes.add(Place::of(path), Arc::new((*path).to_owned()))).collect();
        let found = find(&routes, asked).map(|(found, path)| match found.rest {
            Some(name) => format!("{} as {name} at {path}", found.route),
            None => {
                assert_eq!(*found.route, path);
                path
            }
        });
        drop(guards);
        found
    }

    #[test]
    fn a_path_is_reached_by_whatever_clients_make_of_it() {
        for (configured, asked) in [
            ("live/cam.mp4", &["live/mp4:cam.mp4", "live/mp4:cam", "live/cam.mp4", "live/MP4:cam.mp4"][..]),
            ("live/cam.f4v", &["live/mp4:cam.f4v", "live/mp4:cam", "live/f4v:cam"]),
            ("live/cam.flv", &["live/cam", "live/flv:cam", "live/flv:cam.flv", "live/cam.flv"]),
            ("live/cam.mp3", &["live/mp3:cam", "live/mp3:cam.mp3"]),
            (
                "live/cam",
                &["live/flv:cam", "live/mp4:cam", "live/mp3:cam", "live/mp4:cam.f4v", "live/flv:cam.flv"],
            ),
            ("live/floor/cam.mp4", &["live/mp4:floor/cam.mp4", "live/floor/mp4:cam.mp4"]),
            ("cam.mp4", &["mp4:cam.mp4", "mp4:cam"]),
            ("live/my cam", &[" live/my cam", "live / my cam "]),
        ] {
            for asked in asked {
                assert_eq!(leads(&[configured], asked).as_deref(), Some(configured), "{asked}");
            }
        }
    }

    #[test]
    fn what_is_written_as_asked_wins_and_two_paths_are_never_taken_for_one_another() {
        let all = ["live/cam", "live/cam.mp4", "live/cam.flv", "live/mp4:cam"];
        for path in all {
            assert_eq!(leads(&all, path).as_deref(), Some(path));
        }
        assert_eq!(leads(&all, "live/mp4:cam.mp4").as_deref(), Some("live/cam.mp4"));
        assert_eq!(leads(&all, "live/flv:cam").as_deref(), Some("live/cam"));
        assert_eq!(leads(&all, "live/flv:cam.flv").as_deref(), Some("live/cam.flv"));
        // librtmp's form of /live/cam.mp4, which says that it is no other.
        assert_eq!(leads(&all[..3], "live/mp4:cam").as_deref(), Some("live/cam.mp4"));
        for (configured, asked) in [
            ("live/cam.mp4", "live/cam"),
            ("live/cam.mp4", "live/cam.f4v"),
            ("live/cam.mp4", "live/mp4:cam.f4v"),
            ("live/cam", "live/cam.mp4"),
            ("live/cam", "live/cam.flv"),
            ("live/cam", "live/mp4:"),
            ("live", "live/mp4:"),
        ] {
            assert_eq!(leads(&[configured], asked), None, "{configured} for {asked}");
        }
    }

    #[test]
    fn a_pattern_gets_the_name_without_its_prefix_unless_a_path_is_configured() {
        let all = ["any/*", "any/door.mp4", "any/gate"];
        assert_eq!(leads(&all, "any/mp4:cam.mp4").as_deref(), Some("any/* as cam.mp4 at any/cam.mp4"));
        assert_eq!(leads(&all, "any/cam").as_deref(), Some("any/* as cam at any/cam"));
        assert_eq!(leads(&all, "any/mp4:door").as_deref(), Some("any/door.mp4"));
        assert_eq!(leads(&all, "any/mp4:gate.mp4").as_deref(), Some("any/* as gate.mp4 at any/gate.mp4"));
    }

    #[test]
    fn a_pattern_does_not_take_a_path_that_only_has_to_be_trimmed() {
        let all = ["live/*", "live/cam"];
        assert_eq!(leads(&all, "live/cam ").as_deref(), Some("live/cam"));
        assert_eq!(leads(&all, "live/mp4:cam ").as_deref(), Some("live/cam"));
        assert_eq!(leads(&all, " live/door ").as_deref(), Some("live/* as door at live/door"));
        // What leads nowhere without its spaces is taken as it is.
        assert_eq!(leads(&all, "live/ ").as_deref(), Some("live/* as   at live/ "));
    }
}
