use std::time::Duration;

use serde_json::json;

use super::*;
use crate::config::*;
use crate::fanout::Join;
use crate::rtmp::{ListenConfig, PullConfig, PushConfig, ServeConfig};

fn listen(input: Value) -> ListenConfig {
    flow(&with_input(input)).input.endpoint.get::<ListenConfig>().unwrap().clone()
}

fn pull(input: Value) -> PullConfig {
    flow(&with_input(input)).input.endpoint.get::<PullConfig>().unwrap().clone()
}

fn serve(output: Value) -> ServeConfig {
    flow(&with_output(output)).outputs["o"].endpoint.get::<ServeConfig>().unwrap().clone()
}

fn push(output: Value) -> PushConfig {
    flow(&with_output(output)).outputs["o"].endpoint.get::<PushConfig>().unwrap().clone()
}

#[test]
fn a_listen_input_has_its_defaults_and_its_options() {
    let plain = listen(json!({ "listen": "rtmp://0.0.0.0/live/f" }));
    assert!(plain.takeover && plain.auth.is_none() && plain.allow.is_empty());
    assert_eq!(plain.max_message_bytes, 8192 * 1024);

    let document = with_input(json!({
        "listen": "rtmps://[::]/live/*", "onSecondPublisher": "reject",
        "auth": { "key": [{ "env": "K" }, { "file": "/run/k" }] },
        "allow": ["10.1.2.3/8", "::1"], "maxInstances": 7, "maxMessageKilobytes": 64.0,
        "tls": { "certificateFile": "/c.pem", "keyFile": "/k.pem", "hostName": "Gateway" }
    }));
    let input = &flow(&document).input;
    assert!(input.pattern && input.max_instances == 7);
    let full = input.endpoint.get::<ListenConfig>().unwrap();
    assert!(!full.takeover);
    assert_eq!(full.url.to_string(), "rtmps://[::]:1936/live/*");
    assert_eq!(full.auth, Some(Auth::Key(vec![Secret::Env("K".into()), Secret::File("/run/k".into())])));
    assert_eq!(full.allow.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "::1/128"]);
    assert_eq!(full.max_message_bytes, 64 * 1024);
    assert_eq!(full.tls.host_name.as_deref(), Some("gateway"));
}

#[test]
fn what_all_inputs_share_is_read() {
    let plain = flow(&with_input(json!({ "listen": "rtmp://0.0.0.0/live/f" })));
    let input = &plain.input;
    assert_eq!(input.content, Content::AudioVideo);
    assert_eq!((input.idle_timeout, input.track_wait), (Duration::from_secs(10), Duration::from_secs(1)));
    assert!(input.hold && input.hold_for.is_none() && !input.on_demand);

    let full = flow(&with_input(json!({
        "pull": "rtmp://a/b/c", "content": "videoOnly", "idleTimeoutSeconds": 3600,
        "trackWaitMilliseconds": 0, "onPublisherLoss": "close", "holdSeconds": 5, "onDemand": true
    })));
    let input = &full.input;
    assert_eq!(input.content, Content::VideoOnly);
    assert_eq!((input.idle_timeout, input.track_wait), (Duration::from_secs(3600), Duration::ZERO));
    assert_eq!((input.hold, input.hold_for), (false, Some(Duration::from_secs(5))));
    assert!(input.on_demand);
}

#[test]
fn a_pull_input_has_its_defaults_and_its_options() {
    let plain = pull(json!({ "pull": "rtmp://cam/live/f" }));
    assert_eq!(plain.retry, Retry { initial: Duration::from_millis(500), max: Duration::from_secs(30) });
    let full = pull(json!({
        "pull": "rtmps://cam/live/f", "retry": { "initialMilliseconds": 100, "maxSeconds": 5 },
        "credentials": { "key": "k" }, "maxMessageKilobytes": 65536,
        "tls": { "caFile": "/ca.pem", "hostName": "10.0.0.1", "pinSha256": "AB:".repeat(31) + "ab" }
    }));
    assert_eq!(full.retry, Retry { initial: Duration::from_millis(100), max: Duration::from_secs(5) });
    assert_eq!(full.credentials, Some(Credentials::Key(Secret::Plain("k".into()))));
    assert_eq!(full.tls.pin_sha256, Some([0xab; 32]));
    assert_eq!(full.url.port, 443);
}

#[test]
fn a_serve_output_has_its_defaults_and_its_options() {
    let plain = serve(json!({ "serve": "rtmp://0.0.0.0/x/y" }));
    assert!(plain.join == Join::Instant && plain.max_clients == 0 && plain.batch.is_zero());
    let full = json!({
        "serve": "rtmp://127.0.0.1:19350/x/y", "maxClients": 100000, "join": "live", "batchMilliseconds": 350,
        "allow": ["10.0.0.0/8"], "auth": { "username": "u", "password": { "env": "P" } }
    });
    let full = serve(full);
    assert_eq!(full.join, Join::Live);
    assert_eq!((full.max_clients, full.batch), (100_000, Duration::from_millis(350)));
    assert_eq!(full.auth, Some(Auth::User { username: "u".into(), password: Secret::Env("P".into()) }));
}

#[test]
fn a_push_output_takes_a_stream_key_or_user_info() {
    let keyed = push(json!({ "push": "rtmp://h/app", "credentials": { "streamKey": { "file": "/k" } } }));
    assert_eq!(keyed.credentials, Some(Credentials::StreamKey(Secret::File("/k".into()))));
    let user = push(json!({ "push": "rtmp://us%40er:p%2Fw@h/app/x" }));
    let password = Secret::Plain("p/w".into());
    assert_eq!(user.credentials, Some(Credentials::User { username: "us@er".into(), password }));
}

#[test]
fn a_push_is_shown_without_its_stream_key_and_with_its_whole_application() {
    for (output, shown) in [
        (json!({ "push": "rtmps://h/app/inst", "credentials": { "streamKey": "s" } }), "rtmps://h/app/inst"),
        (json!({ "push": "rtmp://h/app", "credentials": { "streamKey": "s" } }), "rtmp://h/app"),
        (json!({ "push": "rtmp://u:p@h/app/name?x=1" }), "rtmp://h/app"),
        (json!({ "push": "rtmp://h/app/name", "credentials": { "key": "k" } }), "rtmp://h/app"),
    ] {
        let flow = flow(&with_output(output));
        assert_eq!(flow.outputs["o"].endpoint.url(Some("gw")), shown);
    }
}

#[test]
fn ranges_are_inclusive_and_refused_beyond() {
    for (option, min, max) in [
        ("idleTimeoutSeconds", 1, 3600),
        ("trackWaitMilliseconds", 0, 10_000),
        ("holdSeconds", 0, 86_400),
        ("maxMessageKilobytes", 64, 65_536),
    ] {
        for good in [min, max] {
            flow(&with_input(json!({ "listen": "rtmp://0.0.0.0/live/f", option: good })));
        }
        for bad in [json!(min - 1), json!(max + 1), json!(1.5), json!("1"), json!(true), json!(1e300)] {
            let error = error(&with_input(json!({ "listen": "rtmp://0.0.0.0/live/f", option: bad })));
            let expected =
                format!("flows.f.input.{option}: expected a whole number from {min} to {max}, got {bad}");
            assert_eq!(error, expected);
        }
    }
}

#[test]
fn an_option_in_the_wrong_place_is_told_where_it_belongs() {
    for (document, sentence) in [
        (
            with_input(json!({ "listen": "rtmp://0.0.0.0/live/f", "maxClients": 5 })),
            "flows.f.input.maxClients: `maxClients` belongs to `serve` outputs",
        ),
        (
            with_input(json!({ "listen": "rtmp://0.0.0.0/live/f", "maxInstances": 5 })),
            "flows.f.input.maxInstances: `maxInstances` belongs to `listen` inputs whose path ends in `/*`",
        ),
        (
            with_input(json!({ "pull": "rtmp://h/live/f", "onSecondPublisher": "reject" })),
            "flows.f.input.onSecondPublisher: `onSecondPublisher` belongs to `listen` inputs",
        ),
        (
            with_input(json!({ "listen": "rtmp://0.0.0.0/live/f", "onDemand": true })),
            "flows.f.input.onDemand: `onDemand` belongs to `pull` inputs",
        ),
        (
            with_output(json!({ "push": "rtmp://h/live/f", "join": "live" })),
            "flows.f.outputs.o.join: `join` belongs to RTMP and RTSP `serve` outputs",
        ),
        (
            with_output(json!({ "serve": "rtmp://0.0.0.0/live/f", "variant": "fmp4" })),
            "flows.f.outputs.o.variant: `variant` belongs to HLS `serve` outputs",
        ),
        (
            with_output(json!({ "serve": "rtmp://0.0.0.0/live/f", "tls": {} })),
            "flows.f.outputs.o.tls: `tls` belongs to endpoints with TLS (rtmps, rtsps, https)",
        ),
        (
            with_output(json!({ "serve": "rtmps://0.0.0.0/live/f", "tls": { "caFile": "/x" } })),
            "flows.f.outputs.o.tls.caFile: unknown property",
        ),
    ] {
        assert_eq!(error(&document), sentence);
    }
}

#[test]
fn an_endpoint_of_another_module_names_that_module() {
    for (document, sentence) in [
        (
            with_output(json!({ "serve": "rtsp://0.0.0.0/live/f" })),
            "flows.f.outputs.o.serve: rtmp-splitter has no `serve` with rtsp, only with rtmp, rtmps; rtsp-gateway has",
        ),
        (
            with_output(json!({ "serve": "http://0.0.0.0/live/f", "variant": 5 })),
            "flows.f.outputs.o.serve: rtmp-splitter has no `serve` with http, only with rtmp, rtmps; hls-gateway has",
        ),
        (
            with_output(json!({ "store": "azblob://account/container" })),
            "flows.f.outputs.o.store: rtmp-splitter has no `store` with azblob; mp4-recorder has",
        ),
        (
            with_output(json!({ "render": "display://default" })),
            "flows.f.outputs.o.render: rtmp-splitter has no `render` with display; renderer has",
        ),
        (
            with_input(json!({ "read": "file:///x.mp4" })),
            "flows.f.input.read: rtmp-splitter has no `read` with file; mp4-source has",
        ),
        (
            with_input(json!({ "pull": "rtsps://h/x" })),
            "flows.f.input.pull: rtmp-splitter has no `pull` with rtsps, only with rtmp, rtmps; rtsp-gateway has",
        ),
    ] {
        assert_eq!(error(&document), sentence);
    }
}

#[test]
fn an_endpoint_is_exactly_one() {
    assert_eq!(
        error(&with_input(json!({}))),
        "flows.f.input: expected exactly one of `listen`, `pull` and `read`, got none"
    );
    assert_eq!(
        error(&with_output(json!({ "serve": "rtmp://0.0.0.0/a/b", "push": "rtmp://h/a/b" }))),
        "flows.f.outputs.o: expected exactly one of `serve`, `push`, `store` and `render`, got `serve` and `push`"
    );
}

#[test]
fn an_output_has_its_inputs_content_unless_it_narrows_it() {
    let content = |input: &str, output: Value| {
        let mut document = with_output(json!({ "serve": "rtmp://0.0.0.0/a/b", "content": output }));
        document["flows"]["f"]["input"]["content"] = json!(input);
        read(&document)
    };
    for (input, output, expected) in [
        ("audioVideo", json!(null), Content::AudioVideo),
        ("audioVideo", json!("audioOnly"), Content::AudioOnly),
        ("videoOnly", json!(null), Content::VideoOnly),
        ("videoOnly", json!("audioVideo"), Content::VideoOnly),
        ("audioOnly", json!("audioOnly"), Content::AudioOnly),
    ] {
        assert_eq!(content(input, output).flows["f"].outputs["o"].content, expected);
    }
    assert_eq!(
        content("videoOnly", json!("audioOnly")).errors["f"],
        "flows.f.outputs.o.content: `audioOnly` of an input that is `videoOnly` leaves nothing"
    );
}

#[test]
fn retry_may_not_end_faster_than_it_starts() {
    let retry = json!({ "initialMilliseconds": 2000, "maxSeconds": 1 });
    assert_eq!(
        error(&with_input(json!({ "pull": "rtmp://h/a/b", "retry": retry }))),
        "flows.f.input.retry: initialMilliseconds 2000 is more than maxSeconds 1"
    );
}
