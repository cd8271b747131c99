//! What `local-edge` holds a manifest and its modules to, because a device does.

use std::process::Command;

use av_tests::edge::Edge;
use av_tests::program::{Finished, Program};
use av_tests::rtmp::Publisher;
use av_tests::{tool, wait};
use serde_json::{Value, json};

use crate::hub_faults::{flow, splitter_alone, wait_applied};
use crate::rtmp;

/// Starts `manifest` under the rules of a device, beside the repository's `config.toml`; it is to end by itself.
fn refused(manifest: &Value) -> Finished {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("deployment.template.json");
    std::fs::write(&file, manifest.to_string()).unwrap();
    let config = "edge-config/config.toml";
    std::fs::create_dir(dir.path().join("edge-config")).unwrap();
    std::fs::copy(tool::repository().join(config), dir.path().join(config)).unwrap();
    let mut command = Command::new(tool::binary("local-edge"));
    command.args(["up", "--device-rules", "--port", "1", "--state-dir"]).arg(dir.path().join("state"));
    command.arg("--manifest").arg(&file);
    command.arg("--env").arg(tool::repository().join("edge-config/local.env"));
    Program::run(&mut command, wait::LONG)
}

fn repository_manifest() -> Value {
    let text = std::fs::read_to_string(tool::repository().join("deployment.template.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Manifests that run at the desk, each with one sin for which a device does not.
#[test]
fn each_sin_ends_the_start_by_its_place() {
    let modules = "/modulesContent/$edgeAgent/properties.desired/modules";
    let splitter = &format!("{modules}/rtmp-splitter");
    let host_config = &format!("{splitter}/settings/createOptions/HostConfig");
    let flows = "/modulesContent/rtmp-splitter/properties.desired/flows";
    let sin = |input: Value, output: Value| json!({ "input": input, "outputs": { "one": output } });
    let listen = || json!({ "listen": "rtmp://0.0.0.0:1935/live/sin" });
    let serve = || json!({ "serve": "rtmp://0.0.0.0:1935/live/sin" });
    let guarded = |name: &str, value: Value| {
        let mut output = serve();
        output[name] = value;
        output
    };
    let state = "rtmp-splitter:/var/lib/rtmp-splitter";
    let sins = [
        // What `az iot edge set-modules` refuses.
        (splitter, "restartPolcy", json!("always"), "restartPolcy: a deployment manifest has no such member"),
        (
            &format!("{splitter}/settings"),
            "creatOptions",
            json!({}),
            "settings.creatOptions: a deployment manifest has",
        ),
        (splitter, "type", json!("process"), "rtmp-splitter.type: expected \"docker\""),
        (splitter, "type", Value::Null, "rtmp-splitter.type: expected a value"),
        (splitter, "restartPolicy", Value::Null, "rtmp-splitter.restartPolicy: expected a value"),
        // Files.
        (
            &flows.to_owned(),
            "sin",
            sin(listen(), guarded("auth", json!({ "key": { "file": "/keys/play" } }))),
            "flows.sin.outputs.one.auth.key.file: /keys/play lies outside every bind",
        ),
        (
            &"/modulesContent/mp4-source/properties.desired/flows/testcard/input".to_owned(),
            "read",
            json!("file:///clips/testcard.mp4"),
            "mp4-source: flows.testcard.input.read: /clips/testcard.mp4 lies outside every bind",
        ),
        (
            &format!("{modules}/mp4-recorder/settings/createOptions/HostConfig"),
            "Binds",
            json!(["/RECORDINGS-DIR:/recordings:ro", "mp4-recorder:/var/lib/mp4-recorder"]),
            "mp4-recorder: flows.testcard.outputs.disk.store: /recordings lies in a bind that is read-only (:ro)",
        ),
        (
            &format!("{modules}/mp4-recorder/settings/createOptions/HostConfig"),
            "Binds",
            json!(["mp4-recorder:/var/lib/mp4-recorder"]),
            "/recordings lies outside every bind, on a root that is read-only (ReadonlyRootfs)",
        ),
        (
            host_config,
            "Binds",
            json!([state, "/home/me:/data"]),
            "rtmp-splitter: /home/me is not below one of allowed_bind_sources in config.toml",
        ),
        // State.
        (
            host_config,
            "Binds",
            json!([]),
            "rtmp-splitter: its root is read-only (ReadonlyRootfs) and no volume holds its state",
        ),
        (
            host_config,
            "Binds",
            json!([format!("{state}:ro")]),
            "rtmp-splitter: its state lies in a bind that is read-only (:ro)",
        ),
        (
            &format!("{splitter}/settings/createOptions"),
            "User",
            json!("0"),
            "rtmp-splitter: User of createOptions is 0",
        ),
        // Networks.
        (
            &flows.to_owned(),
            "sin",
            sin(json!({ "pull": "rtmp://127.0.0.1/live/cam" }), serve()),
            "rtmp-splitter: flows.sin.input.pull: 127.0.0.1 is the container's own loopback",
        ),
        (
            &flows.to_owned(),
            "sin",
            sin(listen(), json!({ "push": "rtmp://localhost:1936/live/cam" })),
            "flows.sin.outputs.one.push: localhost is the container's own loopback",
        ),
        (
            &flows.to_owned(),
            "sin",
            sin(json!({ "listen": "rtmp://127.0.0.1:1935/live/sin" }), serve()),
            "flows.sin.input.listen: 127.0.0.1 is the container's own loopback: nobody reaches it",
        ),
        (
            &flows.to_owned(),
            "sin",
            sin(listen(), json!({ "serve": "rtmp://0.0.0.0:1940/live/sin" })),
            "flows.sin.outputs.one.serve: port 1940 is not published",
        ),
    ];
    for (place, key, value, text) in sins {
        let mut manifest = repository_manifest();
        manifest.pointer_mut(place).unwrap()[key] = value;
        let ended = refused(&manifest);
        assert_eq!(ended.status.code(), Some(78), "{text}: {}", ended.stderr);
        assert!(ended.stderr.contains(text), "{text}: {}", ended.stderr);
        // Nothing else is wrong with it.
        let found = ended.stderr.lines().filter(|line| line.starts_with("  ")).count();
        assert!(found <= 1, "{text}: {}", ended.stderr);
    }
}

#[test]
fn at_the_desk_a_sin_is_a_warning_and_is_said_once() {
    let (mut manifest, ports) = splitter_alone(json!({ "sin": flow("live/sin") }));
    let url = "rtmp://127.0.0.1:9/live/cam";
    let sin =
        json!({ "input": { "pull": url }, "outputs": { "viewers": { "serve": "rtmp://0.0.0.0:1935/x" } } });
    manifest["modulesContent"]["rtmp-splitter"]["properties.desired"]["flows"]["sin"] = sin;
    let edge = Edge::start(&manifest, ports);
    wait_applied(&edge);
    let set = edge.patch_twin("rtmp-splitter", &json!({ "flows": { "two": flow("live/two") } }));
    assert!(set.status.success(), "{}{}", set.stdout, set.stderr);
    let said = edge.ask(&["logs", "local-edge"]).stdout;
    let warning = "on a device this fails: rtmp-splitter: flows.sin.input.pull: 127.0.0.1 is";
    assert_eq!(said.matches(warning).count(), 1, "{said}");
    assert_eq!(edge.interrupt().status.code(), Some(0));
}

#[test]
fn what_is_set_later_is_held_to_the_same_rules() {
    let (manifest, ports) = splitter_alone(json!({ "good": flow("live/good") }));
    let edge = Edge::start_under_device_rules(&manifest, ports);
    wait_applied(&edge);
    let set = |flow: Value| edge.patch_twin("rtmp-splitter", &json!({ "flows": { "more": flow } }));
    let good = set(flow("live/more"));
    assert!(good.status.success(), "{}{}", good.stdout, good.stderr);
    let bad = set(json!({ "input": { "listen": null, "pull": "rtmp://localhost:9/live/x" } }));
    assert!(!bad.status.success() && bad.stderr.contains("flows.more.input.pull: localhost is"), "{bad:?}");
    assert_eq!(edge.interrupt().status.code(), Some(0));
}

#[test]
fn a_module_that_ends_is_started_again_as_seldom_as_on_a_device() {
    let (mut manifest, ports) = splitter_alone(json!({}));
    let modules = &mut manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"];
    // No such format: the module ends at once.
    modules["rtmp-splitter"]["env"] = json!({ "AV_LOG_FORMAT": { "value": "verse" } });
    for (device_rules, first) in [(false, 500), (true, 10_000)] {
        let edge = match device_rules {
            true => Edge::start_under_device_rules(&manifest, ports.clone()),
            false => Edge::start(&manifest, ports.clone()),
        };
        let waits = wait::until("it waits", wait::LONG, || {
            let process = edge.ps()["modules"][0]["process"].clone();
            (process["state"] == "backOff").then(|| process["delay"].as_u64()).flatten()
        });
        // At a desk it may be the second wait that is seen, or a later one.
        assert!(if device_rules { waits == first } else { waits >= first && waits < 10_000 }, "{waits}");
        let agent = edge.ask(&[
            "method",
            "$edgeAgent",
            "RestartModule",
            r#"{"schemaVersion":"1.0","id":"rtmp-splitter"}"#,
        ]);
        assert!(!device_rules || agent.stdout.contains("because it is not running"), "{agent:?}");
        assert_eq!(edge.interrupt().status.code(), Some(0));
    }
}

#[test]
fn a_module_has_the_variables_of_its_manifest_and_none_of_this_machine() {
    let guarded = |path: &str, variable: &str| {
        let mut flow = flow(path);
        flow["input"]["auth"] = json!({ "key": { "env": variable } });
        flow
    };
    // `Edge` gives RECORDINGS_DIR to local-edge.
    let flows = json!({ "given": guarded("live/given", "PUBLISH_KEY"), "leaked": guarded("live/leaked", "RECORDINGS_DIR") });
    let (mut manifest, ports) = splitter_alone(flows);
    let modules = &mut manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"];
    modules["rtmp-splitter"]["env"] = json!({ "PUBLISH_KEY": { "value": "s3same" } });
    let edge = Edge::start(&manifest, ports);
    wait_applied(&edge);
    let publish = |path: &str| {
        Publisher::start(&rtmp(edge.host_ports(1935)[0], &format!("{path}?key=s3same"))).unwrap()
    };
    assert!(publish("live/given").is_ok());
    assert!(publish("live/leaked").is_err());
    wait::until_true("the log says why", wait::LONG, || {
        edge.ask(&["logs", "rtmp-splitter"]).stdout.contains("environment variable RECORDINGS_DIR is not set")
    });
    assert_eq!(edge.interrupt().status.code(), Some(0));
}
