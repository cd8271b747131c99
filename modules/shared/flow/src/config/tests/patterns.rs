use serde_json::json;

use super::*;
use crate::config::valid_instance_name;
use crate::rtmp::{PushConfig, ServeConfig};

fn pattern(listen: &str, outputs: Value) -> Value {
    json!({ "flows": { "f": { "input": { "listen": listen }, "outputs": outputs } } })
}

#[test]
fn an_instance_has_its_name_in_input_and_outputs() {
    let flow = flow(&pattern(
        "rtmp://0.0.0.0/live/*",
        json!({
            "a": { "serve": "rtmp://0.0.0.0/{flow}/{match}" },
            "b": { "push": "rtmp://h/app/cam-*" },
            "c": { "push": "rtmp://h/app/x?cam={match}" },
            "d": { "push": "rtmp://h/*", "credentials": { "streamKey": "s" } }
        }),
    ));
    assert!(flow.is_pattern());
    let outputs = flow.instance_outputs("cam.1");
    let paths = outputs.values().map(|output| match output.endpoint.get::<ServeConfig>() {
        Some(serve) => serve.url.path.clone(),
        None => {
            let url = &output.endpoint.get::<PushConfig>().unwrap().url;
            format!("{}?{}", url.path, url.query.as_deref().unwrap_or(""))
        }
    });
    assert_eq!(paths.collect::<Vec<_>>(), ["f/cam.1", "app/cam-cam.1?", "app/x?cam=cam.1", "cam.1?"]);
}

#[test]
fn every_output_of_a_pattern_needs_the_match_and_no_other_may_have_it() {
    assert_eq!(
        error(&pattern("rtmp://0.0.0.0/live/*", json!({ "o": { "serve": "rtmp://0.0.0.0/x/y" } }))),
        "flows.f.outputs.o.serve: the input listens on a pattern, so `*` or {match} must occur in the path or query"
    );
    for url in ["rtmp://0.0.0.0/x/*", "rtmp://0.0.0.0/x/{match}"] {
        assert_eq!(
            error(&pattern("rtmp://0.0.0.0/live/f", json!({ "o": { "serve": url } }))),
            "flows.f.outputs.o.serve: `*` and {match} need an input that listens on a pattern, such as /live/*"
        );
    }
    assert_eq!(
        error(&pattern("rtmp://0.0.0.0/live/*", json!({ "o": { "push": "rtmp://*.example.com/x/y" } }))),
        "flows.f.outputs.o.push: `*.example.com` is neither a host name nor an IP address (IPv6 in brackets)"
    );
}

#[test]
fn instance_names_mean_the_same_everywhere() {
    for good in ["a", "A-1_.b", "...", &"x".repeat(64)] {
        assert!(valid_instance_name(good), "{good}");
    }
    for bad in ["", ".", "..", "a/b", "a b", "ü", "a?b", "%41", "*", "a\0", &"x".repeat(65)] {
        assert!(!valid_instance_name(bad), "{bad}");
    }
}
