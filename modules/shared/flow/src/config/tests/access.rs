use serde_json::json;

use super::*;

fn auth_error(auth: Value) -> String {
    let error = error(&with_input(json!({ "listen": "rtmp://0.0.0.0/live/f", "auth": auth })));
    error.strip_prefix("flows.f.input.auth").unwrap().to_owned()
}

fn push_error(credentials: Value) -> String {
    let error = error(&with_output(json!({ "push": "rtmp://h/a/b", "credentials": credentials })));
    error.strip_prefix("flows.f.outputs.o.credentials").unwrap().to_owned()
}

#[test]
fn auth_is_one_form_with_one_to_four_keys() {
    for (auth, sentence) in [
        (json!({}), ": expected {key} or {username, password}, got nothing"),
        (
            json!({ "key": "k", "username": "u" }),
            ": expected one of {key} or {username, password}, got a mixture",
        ),
        (json!({ "username": "u" }), ": `username` needs `password` beside it"),
        (json!({ "key": [] }), ".key: expected a secret or a list of 1 to 4 of them, got an empty list"),
        (
            json!({ "key": ["a", "b", "c", "d", "e"] }),
            ".key: expected a secret or a list of 1 to 4 of them, got a list of 5",
        ),
        (json!({ "key": "" }), ".key: a secret can't be empty"),
        (json!({ "key": "a\nb" }), ".key: a secret can't hold a line break or NUL"),
        (json!({ "keys": "k" }), ".keys: unknown property; is `key` meant?"),
    ] {
        assert_eq!(auth_error(auth), sentence);
    }
}

#[test]
fn an_error_about_a_secret_never_shows_it() {
    for secret in [
        json!(4711),
        json!(["hunter2"]),
        json!({ "text": "hunter2" }),
        json!({ "env": "A", "file": "/hunter2" }),
    ] {
        let error = auth_error(json!({ "username": "u", "password": secret }));
        assert!(error.starts_with(".password: expected a secret"), "{error}");
        assert!(!error.contains("hunter2") && !error.contains("4711"), "{error}");
    }
    assert!(!auth_error(json!("hunter2")).contains("hunter2"));
    assert!(!push_error(json!("hunter2")).contains("hunter2"));
}

#[test]
fn secrets_in_files_have_absolute_paths() {
    assert_eq!(
        auth_error(json!({ "key": { "file": "run/key" } })),
        ".key.file: expected an absolute path, got \"run/key\""
    );
    assert_eq!(
        auth_error(json!({ "key": { "env": "A=B" } })),
        ".key.env: expected the name of a variable, got \"A=B\""
    );
}

#[test]
fn credentials_have_the_forms_of_their_place() {
    assert_eq!(
        push_error(json!({ "key": "k", "streamKey": "s" })),
        ": expected one of {username, password}, {key} or {streamKey}, got a mixture"
    );
    assert_eq!(push_error(json!({ "sas": "s" })), ": `sas` belongs to `store` outputs");
    assert_eq!(
        error(&with_input(json!({ "pull": "rtmp://h/a/b", "credentials": { "streamKey": "s" } }))),
        "flows.f.input.credentials: `streamKey` belongs to RTMP `push` outputs"
    );
    assert_eq!(
        error(&with_input(json!({ "pull": "rtmp://u:p@h/a/b", "credentials": { "key": "s" } }))),
        "flows.f.input.credentials: user info in the URL and `credentials` mean the same; only one of them can be there"
    );
}

#[test]
fn allow_takes_networks_and_an_empty_list_is_no_way_to_let_all_in() {
    let allow =
        |allow: Value| error(&with_input(json!({ "listen": "rtmp://0.0.0.0/live/f", "allow": allow })));
    for (value, got) in [
        (json!([]), "an empty list"),
        (json!(vec!["10.0.0.0/8"; 257]), "a list of 257"),
        (json!("10.0.0.0/8"), "\"10.0.0.0/8\""),
    ] {
        let expected = "expected a list of 1 to 256 networks such as \"10.0.0.0/8\"";
        assert_eq!(allow(value), format!("flows.f.input.allow: {expected}, got {got}"));
    }
    assert_eq!(
        allow(json!(["10.0.0.0/33"])),
        "flows.f.input.allow: expected networks such as \"10.0.0.0/8\", got \"10.0.0.0/33\""
    );
}

#[test]
fn server_certificates_come_with_their_keys() {
    assert_eq!(
        error(&with_input(json!({ "listen": "rtmps://0.0.0.0/live/f", "tls": { "keyFile": "/k" } }))),
        "flows.f.input.tls: `keyFile` needs `certificateFile` beside it"
    );
    assert_eq!(
        error(&with_input(json!({ "pull": "rtmps://h/live/f", "tls": { "pinSha256": "abc" } }))),
        "flows.f.input.tls.pinSha256: expected 64 hexadecimal digits, got \"abc\""
    );
}
