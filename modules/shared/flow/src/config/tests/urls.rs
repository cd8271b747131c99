use std::path::PathBuf;

use super::{scheme, splitter};
use crate::config::url::{Stars, parse_file};
use crate::config::{ConnectUrl, ListenUrl, UrlError};
use crate::rtmp::{RtmpTarget, joined};

fn listen(text: &str) -> Result<String, UrlError> {
    let scheme = splitter().scheme_of(text)?;
    ListenUrl::parse(text, scheme, Stars::Pattern).map(|url| url.to_string())
}

fn pull(text: &str) -> Result<ConnectUrl, UrlError> {
    ConnectUrl::parse(text, splitter().scheme_of(text)?, Stars::Plain).map(|(url, _)| url)
}

#[test]
fn listening_addresses_are_literals_with_a_default_port() {
    for (text, shown) in [
        ("rtmp://0.0.0.0/live/a", "rtmp://0.0.0.0:1935/live/a"),
        ("RTMPS://[::]/live/a/", "rtmps://[::]:1936/live/a"),
        ("rtsp://127.0.0.1/a", "rtsp://127.0.0.1:8554/a"),
        ("rtsps://127.0.0.1/a", "rtsps://127.0.0.1:8322/a"),
        ("http://127.0.0.1/a", "http://127.0.0.1:8080/a"),
        ("https://127.0.0.1/a", "https://127.0.0.1:8443/a"),
        ("rtmp://[::ffff:10.0.0.1]:65535/a", "rtmp://10.0.0.1:65535/a"),
        ("rtmp://0.0.0.0/live/*", "rtmp://0.0.0.0:1935/live/*"),
        ("rtmp://0.0.0.0/*", "rtmp://0.0.0.0:1935/*"),
        ("rtmp://0.0.0.0/a%20b/%C3%BC", "rtmp://0.0.0.0:1935/a%20b/%C3%BC"),
        ("rtmp://0.0.0.0/a/ü", "rtmp://0.0.0.0:1935/a/%C3%BC"),
    ] {
        assert_eq!(listen(text).as_deref(), Ok(shown), "{text}");
        assert_eq!(listen(shown).as_deref(), Ok(shown), "{shown}");
    }
}

#[test]
fn each_rule_of_the_grammar_has_its_own_error() {
    for (text, error) in [
        ("0.0.0.0:1935/live/a", UrlError::NoScheme),
        ("rtmp://localhost/a", UrlError::NotAnAddress("localhost".into())),
        ("rtmp://[::1/a", UrlError::BadHost("[::1".into())),
        ("rtmp://:1935/a", UrlError::NoHost),
        ("rtmp://0.0.0.0:0/a", UrlError::BadPort),
        ("rtmp://0.0.0.0:/a", UrlError::BadPort),
        ("rtmp://0.0.0.0:65536/a", UrlError::BadPort),
        ("rtmp://0.0.0.0:+1/a", UrlError::BadPort),
        ("rtmp://0.0.0.0", UrlError::NoPath),
        ("rtmp://0.0.0.0/", UrlError::NoPath),
        ("rtmp://0.0.0.0//a", UrlError::EmptySegment),
        ("rtmp://0.0.0.0/a//", UrlError::EmptySegment),
        ("rtmp://0.0.0.0/a/../b", UrlError::DotSegment),
        ("rtmp://0.0.0.0/a/%2e%2E", UrlError::DotSegment),
        ("rtmp://0.0.0.0/a/.", UrlError::DotSegment),
        ("rtmp://0.0.0.0/a%", UrlError::BadPercent),
        ("rtmp://0.0.0.0/a%2", UrlError::BadPercent),
        ("rtmp://0.0.0.0/a%zz", UrlError::BadPercent),
        ("rtmp://0.0.0.0/a%ff", UrlError::BadPercent),
        ("rtmp://0.0.0.0/a%00", UrlError::BadEncoded),
        ("rtmp://0.0.0.0/a%2fb", UrlError::BadEncoded),
        ("rtmp://0.0.0.0/a%3Fb", UrlError::BadEncoded),
        ("rtmp://0.0.0.0/live/%2A", UrlError::BadEncoded),
        ("rtmp://0.0.0.0/a b", UrlError::Blank),
        ("rtmp://0.0.0.0/a#b", UrlError::Fragment),
        ("rtmp://0.0.0.0/a?key=k", UrlError::QueryNotHere),
        ("rtmp://u:p@0.0.0.0/a", UrlError::UserInfoNotHere),
        ("rtmp://0.0.0.0/*/a", UrlError::StarPlace),
        ("rtmp://0.0.0.0/a/b*", UrlError::StarPlace),
        ("rtmp://0.0.0.0/a/{match}", UrlError::UnknownField),
        ("rtmp://0.0.0.0/a/{name}", UrlError::UnknownField),
    ] {
        assert_eq!(listen(text), Err(error), "{text}");
    }
    assert_eq!(
        listen("srt://0.0.0.0/a").unwrap_err().to_string(),
        "unknown scheme; there are rtmp, rtmps, rtsp, rtsps, http, https, file, azblob, azblob+http, azblob+https \
         and display"
    );
    assert_eq!(listen(&format!("rtmp://0.0.0.0/{}", "a".repeat(3000))), Err(UrlError::TooLong(3015)));
}

#[test]
fn addresses_to_connect_to_have_names_or_literals_and_other_default_ports() {
    for (text, shown, port) in [
        ("rtmp://Cam.local/live/a", "rtmp://cam.local/live/a", 1935),
        ("rtmp://cam_1:1936/live/a?x=1", "rtmp://cam_1:1936/live/a", 1936),
        ("rtmps://h/a", "rtmps://h/a", 443),
        ("rtsp://[fe80::1]/", "rtsp://[fe80::1]", 554),
        ("rtsps://h", "rtsps://h", 322),
        ("rtmp://h/a/*/%2A", "rtmp://h/a/*/*", 1935),
    ] {
        let url = pull(text).unwrap();
        assert_eq!((url.shown(false).as_str(), url.port), (shown, port), "{text}");
    }
    for (text, error) in [
        ("rtmp://h", UrlError::NoPath),
        ("rtmp:///a", UrlError::NoHost),
        ("rtmp://h o/a", UrlError::Blank),
        ("rtmp://h{match}/a", UrlError::BadHost("h{match}".into())),
        ("rtmp://a..b/a", UrlError::BadHost("a..b".into())),
        ("rtmp://::1/a", UrlError::BadPort),
        ("rtmp://h/a?x={match}", UrlError::UnknownField),
    ] {
        assert_eq!(pull(text), Err(error), "{text}");
    }
}

#[test]
fn user_info_is_decoded_and_what_breaks_it_is_named_without_showing_it() {
    let (url, user) =
        ConnectUrl::parse("rtmp://us%65r:p%40%3Aw:d@h/a/b", scheme("rtmp"), Stars::Plain).unwrap();
    assert_eq!(user, Some(("user".into(), "p@:w:d".into())));
    assert_eq!(url.shown(false), "rtmp://h/a/b");
    for (text, error) in [
        ("rtmp://user:hun@ter2@h/a", UrlError::AtInUserInfo),
        ("rtmp://user:hun#ter2@h/a", UrlError::HashInUserInfo),
        ("rtmp://user:hun/ter2@h/a", UrlError::AtInUserInfo),
        ("rtmp://user:hun?ter2@h/a", UrlError::AtInUserInfo),
        // Nobody looks for a host named `user`.
        ("rtmp://user:12/hunter2@h/a", UrlError::AtBehindPort),
        ("rtmp://user:12?hunter2@h/a", UrlError::AtBehindPort),
        ("rtmp://user@h/a", UrlError::HalfUserInfo),
        ("rtmp://:hunter2@h/a", UrlError::HalfUserInfo),
        ("rtmp://user:@h/a", UrlError::HalfUserInfo),
        ("rtmp://user:hunter2%0A@h/a", UrlError::BadUserInfo),
        ("rtmp://user:hunter2%@h/a", UrlError::BadUserInfo),
    ] {
        assert_eq!(pull(text), Err(error.clone()), "{text}");
        assert!(!error.to_string().contains("hun"));
    }
}

#[test]
fn an_at_sign_in_a_path_is_no_password_where_no_port_stands_before_it_or_it_is_encoded() {
    for text in ["rtmp://h/@a/b", "rtmp://h:1935/a/@b", "rtmp://h:1935/%40a/b", "rtmp://u:p@h:1935/@a/b"] {
        assert!(pull(text).is_ok(), "{text}");
    }
}

#[test]
fn files_are_absolute_and_on_this_machine() {
    let parse_file = |text: &str| parse_file(text, scheme("file"));
    assert_eq!(parse_file("file:///media/a%20b.mp4"), Ok(PathBuf::from("/media/a b.mp4")));
    for text in ["file://media/a.mp4", "file:///", "file:///a?b", "file://u:p@/a"] {
        assert_eq!(parse_file(text), Err(UrlError::BadFile), "{text}");
    }
    assert_eq!(parse_file("file:///a/../b"), Err(UrlError::DotSegment));
}

#[test]
fn the_stream_key_of_a_push_is_not_shown() {
    let url = pull("rtmp://h:1936/app/inst/hunter2?key=hunter3").unwrap();
    assert_eq!(url.shown(true), "rtmp://h:1936/app/inst");
    assert_eq!(format!("{url} {url:?}"), "rtmp://h:1936/app/inst ConnectUrl(rtmp://h:1936/app/inst)");
    assert_eq!(pull("rtmp://h/hunter2").unwrap().shown(true), "rtmp://h");
}

#[test]
fn wildcards_are_shown_as_the_public_host() {
    let url = ListenUrl::parse("rtmp://0.0.0.0/live/a", scheme("rtmp"), Stars::Refused).unwrap();
    assert_eq!(url.shown(Some("gw")), "rtmp://gw:1935/live/a");
    assert_eq!(url.shown(Some("::1")), "rtmp://[::1]:1935/live/a");
    assert_eq!(url.shown(None), "rtmp://0.0.0.0:1935/live/a");
    let url = ListenUrl::parse("rtmp://10.0.0.1/live/a", scheme("rtmp"), Stars::Refused).unwrap();
    assert_eq!(url.shown(Some("gw")), "rtmp://10.0.0.1:1935/live/a");
}

#[test]
fn a_path_is_the_same_wherever_a_client_splits_it() {
    for (application, name) in [
        ("live/room", "cam"),
        ("live", "room/cam"),
        ("/live/", "/room/cam/"),
        ("live/room/cam", ""),
        ("", "live/room/cam"),
        ("live?x=1", "room/cam?key=k%26"),
        ("live/%72oom", "cam"),
    ] {
        assert_eq!(joined(application, name), "live/room/cam", "{application} {name}");
    }
    assert_eq!(joined("live?x=1", "a?y=2&key=k%26"), "live/a");
    assert_eq!(joined("live", "a%2Fb"), "live/a%2Fb");
    assert_eq!(joined("live", "50%"), "live/50%");
}

#[test]
fn the_last_segment_of_a_push_is_the_name_unless_a_stream_key_is() {
    let target = |url: &str, stream_key, key| {
        let target = RtmpTarget::new(&pull(url).unwrap(), stream_key, key);
        (target.application, target.name, target.tc_url)
    };
    let own = |a: &str, n: &str, t: &str| (a.to_owned(), n.to_owned(), t.to_owned());
    assert_eq!(target("rtmp://h/a/b/c", None, None), own("a/b", "c", "rtmp://h:1935/a/b"));
    assert_eq!(target("rtmp://h/a", None, None), own("", "a", "rtmp://h:1935/"));
    assert_eq!(target("rtmp://[::1]/a?t=1", Some("s"), None), own("a", "s?t=1", "rtmp://[::1]:1935/a"));
    assert_eq!(target("rtmp://h/a?t=1", Some("s?x"), None), own("a", "s?x&t=1", "rtmp://h:1935/a"));
    assert_eq!(
        target("rtmps://h/a/b", None, Some("k&=/é")),
        own("a", "b?key=k%26%3D%2F%C3%A9", "rtmps://h:443/a")
    );
}
