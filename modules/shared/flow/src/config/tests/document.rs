use serde_json::json;

use super::*;
use crate::config::{OptionSpec, whole};

#[test]
fn an_empty_document_is_valid_and_has_every_default() {
    let desired = read(&json!({}));
    assert_eq!(desired.max_connections, 10_000);
    assert_eq!(desired.settings.log_level, Some(tracing::Level::INFO));
    assert_eq!(desired.settings.telemetry_interval_seconds, 0);
    assert!(desired.flows.is_empty() && desired.errors.is_empty() && desired.rejected.is_none());
}

#[test]
fn top_level_properties_are_read() {
    let desired = read(&json!({
        "$version": 7, "$metadata": {}, "schemaVersion": "1.3", "logLevel": "warning",
        "telemetryIntervalSeconds": 60, "publicHost": "[::1]", "maxConnections": 5, "flows": null
    }));
    assert_eq!(desired.settings.log_level, Some(tracing::Level::WARN));
    assert_eq!(desired.settings.telemetry_interval_seconds, 60);
    assert_eq!(desired.public_host.as_deref(), Some("::1"));
    assert_eq!(desired.max_connections, 5);
    assert!(desired.errors.is_empty(), "{:?}", desired.errors);
}

#[test]
fn another_major_version_or_flows_of_another_type_reject_the_document() {
    for (document, sentence) in [
        (
            json!({ "schemaVersion": "2.0", "flows": {} }),
            "schemaVersion: expected \"1.0\" or another 1.x, got \"2.0\"",
        ),
        (json!({ "schemaVersion": 1 }), "schemaVersion: expected \"1.0\" or another 1.x, got 1"),
        (json!({ "schemaVersion": "1.x" }), "schemaVersion: expected \"1.0\" or another 1.x, got \"1.x\""),
        (json!({ "flows": [] }), "flows: expected an object with flows by name, got a list"),
    ] {
        let desired = read(&document);
        assert_eq!(desired.rejected.as_deref(), Some(sentence));
        assert_eq!(desired.errors.get("_module").map(String::as_str), Some(sentence));
        assert!(desired.flows.is_empty());
    }
}

#[test]
fn a_fault_at_the_top_leaves_the_flows_alone() {
    let mut document = with_input(json!({ "listen": "rtmp://0.0.0.0/live/f" }));
    document["logLevel"] = json!("warn");
    document["maxConections"] = json!(5);
    document["spool"] = json!({});
    let desired = read(&document);
    assert_eq!(desired.flows.len(), 1);
    assert_eq!(desired.settings.log_level, None);
    assert_eq!(
        desired.errors["_module"],
        "maxConections: unknown property; is `maxConnections` meant?; `spool` belongs to mp4-recorder"
            .replace("; `spool`", "; spool: `spool`")
            + "; logLevel: expected one of trace, debug, info, warning, error, got \"warn\""
    );
}

#[test]
fn a_faulty_flow_costs_no_other_flow() {
    let desired = read(&json!({ "flows": {
        "cam1": { "input": { "listen": "rtmp://0.0.0.0/live/cam1" } },
        "cam2": { "input": { "listen": "rtmp://0.0.0.0/live/cam2", "idleTimeoutSeconds": "x" } },
        "cam3": null,
        "$cam4": 5
    } }));
    assert_eq!(desired.flows.keys().collect::<Vec<_>>(), ["cam1"]);
    assert_eq!(
        desired.errors.iter().collect::<Vec<_>>(),
        [(
            &"cam2".to_owned(),
            &"flows.cam2.input.idleTimeoutSeconds: expected a whole number from 1 to 3600, got \"x\""
                .to_owned()
        )]
    );
}

#[test]
fn a_name_that_cannot_be_a_key_is_an_error_of_the_module() {
    for name in ["", "a b", "a.b", "_module", "ü", &"x".repeat(65), "a\u{0}"] {
        let desired = read(&json!({ "flows": { name: { "input": { "listen": "rtmp://0.0.0.0/live/f" } } } }));
        assert_eq!(desired.errors.keys().collect::<Vec<_>>(), ["_module"], "{name}");
        assert!(desired.errors["_module"].contains("1 to 64 of A-Z a-z 0-9 - _"), "{name}");
        assert!(desired.flows.is_empty());
    }
    for name in ["a", "A-1_b", &"x".repeat(64)] {
        let document = json!({ "flows": { name: { "input": { "listen": "rtmp://0.0.0.0/live/f" } } } });
        assert_eq!(flow(&document).name, name);
    }
}

#[test]
fn errors_stay_within_512_bytes() {
    let flows = (0..50).map(|n| (format!("bad name {n}"), json!({}))).collect::<serde_json::Map<_, _>>();
    assert_eq!(read(&json!({ "flows": flows })).errors["_module"].len(), 512);
    let long = "ü".repeat(5000);
    for document in [
        with_input(json!({ "listen": "rtmp://0.0.0.0/live/f", &long: 1 })),
        with_input(json!({ "listen": format!("rtmp://{long}/live/f") })),
        with_input(json!({ "listen": "rtmp://0.0.0.0/live/f", "content": &long })),
        with_input(json!({ "listen": "rtmp://0.0.0.0/live/f", "idleTimeoutSeconds": { "a": &long } })),
    ] {
        assert!(error(&document).len() <= 512);
    }
}

#[test]
fn the_number_of_flows_and_outputs_is_bounded() {
    let flows = (0..=crate::config::MAX_FLOWS)
        .map(|n| (format!("f{n}"), json!({ "input": { "listen": "rtmp://0.0.0.0/live/{flow}" } })))
        .collect::<serde_json::Map<_, _>>();
    let desired = read(&json!({ "flows": flows }));
    assert_eq!(desired.rejected.as_deref(), Some("flows: 10001 flows; at most 10000 are allowed"));

    let outputs = (0..=crate::config::MAX_OUTPUTS)
        .map(|n| (format!("o{n}"), json!({ "serve": format!("rtmp://0.0.0.0/live/{n}") })))
        .collect::<serde_json::Map<_, _>>();
    let document =
        json!({ "flows": { "f": { "input": { "listen": "rtmp://0.0.0.0/a/b" }, "outputs": outputs } } });
    assert_eq!(error(&document), "flows.f.outputs: 257 outputs; at most 256 are allowed");
}

#[test]
fn unknown_properties_are_named_with_the_one_that_was_meant() {
    let mut document = with_input(json!({ "listen": "rtmp://0.0.0.0/live/f" }));
    document["flows"]["f"]["output"] = json!({});
    assert_eq!(error(&document), "flows.f.output: unknown property; is `outputs` meant?");
    assert_eq!(
        error(&with_input(json!({ "listen": "rtmp://0.0.0.0/live/f", "idleTimeOutSecond": 5 }))),
        "flows.f.input.idleTimeOutSecond: unknown property; is `idleTimeoutSeconds` meant?"
    );
    assert_eq!(
        error(&with_input(json!({ "listen": "rtmp://0.0.0.0/live/f", "quality": 5 }))),
        "flows.f.input.quality: unknown property"
    );
}

#[test]
fn nulls_and_dollar_keys_are_absent_everywhere() {
    let document = json!({ "flows": { "f": {
        "description": null, "$note": 1, "enabled": null,
        "input": { "listen": "rtmp://0.0.0.0/live/f", "pull": null, "auth": { "key": "k", "username": null }, "$x": 1 },
        "outputs": { "gone": null, "$o": 1, "o": { "serve": "rtmp://0.0.0.0/x/y", "join": null } }
    } } });
    let flow = flow(&document);
    assert_eq!(flow.outputs.keys().collect::<Vec<_>>(), ["o"]);
    assert!(flow.enabled && flow.description.is_none());
}

#[test]
fn a_flow_without_outputs_is_valid_and_one_without_an_input_is_not() {
    assert!(flow(&with_input(json!({ "listen": "rtmp://0.0.0.0/live/f" }))).outputs.is_empty());
    assert_eq!(error(&json!({ "flows": { "f": {} } })), "flows.f.input: expected an object, got nothing");
    assert_eq!(error(&json!({ "flows": { "f": 5 } })), "flows.f: expected an object, got a number");
}

#[test]
fn a_disabled_flow_is_validated() {
    let mut document = with_input(json!({ "listen": "rtmp://0.0.0.0/live/f" }));
    document["flows"]["f"]["enabled"] = json!(false);
    assert!(!flow(&document).enabled);
    document["flows"]["f"]["input"]["content"] = json!("none");
    assert!(error(&document).starts_with("flows.f.input.content: expected one of audioVideo"));
}

#[test]
fn no_debug_text_of_a_document_holds_a_secret() {
    let document = json!({ "flows": { "f": {
        "input": { "listen": "rtmp://0.0.0.0/live/f", "auth": { "key": ["hunter2", "hunter3"] } },
        "outputs": {
            "a": { "push": "rtmp://user:hunter4@example.com/app/hunter5?key=hunter6" },
            "b": { "push": "rtmp://example.com/app", "credentials": { "streamKey": "hunter7" } }
        }
    } } });
    let flow = flow(&document);
    assert!(!format!("{flow:?}").contains("hunter"), "{flow:?}");
}

#[test]
fn a_module_with_endpoints_of_two_owners_reads_both_in_one_flow() {
    let mut supports = splitter();
    supports.module = "hls-gateway";
    supports.outputs.insert(0, OutputSpec::of::<Pages>());
    let document = json!({
        "defaults": { "input": { "credentials": { "username": "viewer", "password": { "env": "CAM_PW" } } } },
        "flows": { "front-door": {
            "input": { "listen": "rtmp://0.0.0.0:1935/live/stream", "auth": { "key": { "env": "PUBLISH_KEY" } } },
            "outputs": {
                "viewers": { "serve": "http://0.0.0.0/live/stream", "content": "videoOnly", "windowSeconds": 60 },
                "cloud": { "push": "rtmp://ingest.example.com/app", "credentials": { "streamKey": "s" } }
            }
        } }
    });
    let desired = read_for(&supports, &document);
    assert!(desired.errors.is_empty(), "{:?}", desired.errors);
    let outputs = &desired.flows["front-door"].outputs;
    assert!(outputs["viewers"].endpoint.get::<Pages>().is_some() && outputs.len() == 2);
}

#[test]
fn a_rule_of_the_service_refuses_a_whole_flow_and_its_own_properties_are_checked() {
    let mut supports = splitter();
    supports.rules.push(|flow| match flow.outputs.is_empty() {
        false => Ok(()),
        true => Err(ConfigError::rule(format!("flows.{}.outputs", flow.name), "there have to be some")),
    });
    supports.properties.push(OptionSpec::new("disk", "", whole(1, 9, 2)));
    let mut document = with_input(json!({ "listen": "rtmp://0.0.0.0/live/f" }));
    document["disk"] = json!(3);
    let desired = read_for(&supports, &document);
    assert_eq!(desired.errors["f"], "flows.f.outputs: there have to be some");
    assert_eq!(desired.properties["disk"], 3);
    document["disk"] = json!(10);
    let desired = read_for(&supports, &document);
    assert_eq!(desired.errors["_module"], "disk: expected a whole number from 1 to 9, got 10");
    assert!(desired.properties.is_empty());
    assert_eq!(read(&document).errors["_module"], "disk: unknown property");
}
