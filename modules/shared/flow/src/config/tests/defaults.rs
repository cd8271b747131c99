use std::time::Duration;

use serde_json::json;

use super::*;
use crate::config::*;
use crate::fanout::Join;
use crate::rtmp::{PullConfig, PushConfig, ServeConfig};

fn document(defaults: Value, input: Value, output: Value) -> Value {
    json!({ "defaults": defaults, "flows": { "f": { "input": input, "outputs": { "o": output } } } })
}

const SERVE: &str = "rtmp://0.0.0.0/x/y";

#[test]
fn a_default_holds_until_the_flow_says_otherwise() {
    let defaults =
        json!({ "input": { "idleTimeoutSeconds": 20, "holdSeconds": 60 }, "output": { "join": "live" } });
    let input = json!({ "listen": "rtmp://0.0.0.0/live/f", "idleTimeoutSeconds": 30 });
    let flow = flow(&document(defaults, input, json!({ "serve": SERVE })));
    assert_eq!(flow.input.idle_timeout, Duration::from_secs(30));
    assert_eq!(flow.input.hold_for, Some(Duration::from_secs(60)));
    assert_eq!(flow.outputs["o"].endpoint.get::<ServeConfig>().unwrap().join, Join::Live);
}

#[test]
fn a_default_skips_endpoints_it_has_no_meaning_for() {
    let defaults = json!({
        "input": {
            "maxInstances": 5, "onSecondPublisher": "reject", "loop": false, "transport": "udp",
            "tls": { "certificateFile": "/c", "keyFile": "/k", "caFile": "/ca" }, "auth": { "key": "k" }
        },
        "output": {
            "join": "live", "maxClients": 5, "segmentSeconds": 600, "credentials": { "streamKey": "s" },
            "retry": { "maxSeconds": 5 }
        }
    });
    let push = json!({ "push": "rtmp://h/app", "retry": { "initialMilliseconds": 10 } });
    let flow = flow(&document(defaults, json!({ "pull": "rtmps://h/a/b" }), push));
    let pull = flow.input.endpoint.get::<PullConfig>().unwrap();
    assert_eq!(pull.tls, ClientTls { ca_file: Some("/ca".into()), ..ClientTls::default() });
    assert!(pull.credentials.is_none());
    let push = flow.outputs["o"].endpoint.get::<PushConfig>().unwrap();
    assert_eq!(push.credentials, Some(Credentials::StreamKey(Secret::Plain("s".into()))));
    assert_eq!(push.retry, Retry { initial: Duration::from_millis(10), max: Duration::from_secs(5) });
}

#[test]
fn user_name_and_password_merge_and_other_credentials_replace() {
    let defaults =
        json!({ "input": { "credentials": { "username": "viewer", "password": { "env": "CAM_PW" } } } });
    let credentials = |input: Value| {
        let flow = flow(&document(defaults.clone(), input, json!({ "serve": SERVE })));
        flow.input.endpoint.get::<PullConfig>().unwrap().credentials.clone().unwrap()
    };
    let user = |username: &str, password: Secret| Credentials::User { username: username.into(), password };
    assert_eq!(credentials(json!({ "pull": "rtmp://h/a/b" })), user("viewer", Secret::Env("CAM_PW".into())));
    assert_eq!(
        credentials(json!({ "pull": "rtmp://h/a/b", "credentials": { "username": "me" } })),
        user("me", Secret::Env("CAM_PW".into()))
    );
    assert_eq!(
        credentials(json!({ "pull": "rtmp://h/a/b", "credentials": { "password": { "file": "/p" } } })),
        user("viewer", Secret::File("/p".into()))
    );
    assert_eq!(
        credentials(json!({ "pull": "rtmp://h/a/b", "credentials": { "key": "k" } })),
        Credentials::Key(Secret::Plain("k".into()))
    );
    assert_eq!(credentials(json!({ "pull": "rtmp://u:p@h/a/b" })), user("u", Secret::Plain("p".into())));
}

#[test]
fn half_a_login_is_completed_by_the_flow_and_never_used_alone() {
    let half =
        json!({ "input": { "credentials": { "username": "u" } }, "output": { "auth": { "password": "s" } } });
    let read = |input: Value, output: Value| document(half.clone(), input, output);
    let serve = json!({ "serve": SERVE, "auth": { "username": "staff" } });
    let pull = json!({ "pull": "rtmp://h/a/b", "credentials": { "password": "p" } });
    let flow = flow(&read(pull.clone(), serve.clone()));
    let credentials = flow.input.endpoint.get::<PullConfig>().unwrap().credentials.clone();
    let password = Secret::Plain("p".into());
    assert_eq!(credentials, Some(Credentials::User { username: "u".into(), password }));
    let auth = flow.outputs["o"].endpoint.get::<ServeConfig>().unwrap().auth.clone();
    assert_eq!(auth, Some(Auth::User { username: "staff".into(), password: Secret::Plain("s".into()) }));

    // Nobody is let in, or sent somewhere, without what was meant to be asked for.
    assert_eq!(
        error(&read(json!({ "pull": "rtmp://h/a/b" }), serve)),
        "flows.f.input.credentials: `username` needs `password` beside it"
    );
    assert_eq!(
        error(&read(pull, json!({ "serve": SERVE }))),
        "flows.f.outputs.o.auth: `password` needs `username` beside it"
    );
    for (half, sentence) in [
        (json!({ "username": 5 }), "defaults.input.credentials.username: expected a text of 1 to 256 bytes"),
        (json!({ "password": "" }), "defaults.input.credentials.password: "),
    ] {
        let defaults = json!({ "input": { "credentials": half } });
        let input = json!({ "listen": "rtmp://0.0.0.0/live/f" });
        let said = error(&document(defaults, input, json!({ "serve": SERVE })));
        assert!(said.starts_with(sentence), "{said}");
    }
}

#[test]
fn a_faulty_default_is_named_as_such_in_every_flow() {
    for (defaults, sentence) in [
        (
            json!({ "input": { "idleTimeoutSeconds": 0 } }),
            "defaults.input.idleTimeoutSeconds: expected a whole number from 1 to 3600, got 0",
        ),
        (
            json!({ "input": { "join": "live" } }),
            "defaults.input.join: `join` belongs to RTMP and RTSP `serve` outputs",
        ),
        (json!({ "input": { "listen": "rtmp://0.0.0.0/a" } }), "defaults.input.listen: unknown property"),
        (json!({ "outputs": {} }), "defaults.outputs: unknown property; is `output` meant?"),
        (
            json!({ "output": { "maxClient": 5 } }),
            "defaults.output.maxClient: unknown property; is `maxClients` meant?",
        ),
        (
            json!({ "output": { "tls": { "caFile": "x" } } }),
            "defaults.output.tls.caFile: expected an absolute path, got \"x\"",
        ),
        (json!({ "output": { "retry": { "max": 1 } } }), "defaults.output.retry.max: unknown property"),
        (json!([]), "defaults: expected an object, got a list"),
    ] {
        let input = json!({ "listen": "rtmp://0.0.0.0/live/f" });
        assert_eq!(error(&document(defaults.clone(), input, json!({ "serve": SERVE }))), sentence);
        assert_eq!(read(&json!({ "defaults": defaults })).errors["_module"], sentence);
    }
}

#[test]
fn a_default_may_be_right_for_one_of_two_options_of_a_name() {
    for (seconds, good) in [(1, true), (10, true), (3600, true), (3601, false)] {
        let desired = read(&json!({ "defaults": { "output": { "segmentSeconds": seconds } } }));
        assert_eq!(desired.errors.is_empty(), good, "{seconds}");
    }
}

#[test]
fn the_source_of_a_flow_has_its_defaults_in_it() {
    let defaults = json!({ "input": { "holdSeconds": 60, "loop": true } });
    let flow =
        flow(&document(defaults, json!({ "listen": "rtmp://0.0.0.0/live/f" }), json!({ "serve": SERVE })));
    assert_eq!(flow.source["input"], json!({ "listen": "rtmp://0.0.0.0/live/f", "holdSeconds": 60 }));
}
