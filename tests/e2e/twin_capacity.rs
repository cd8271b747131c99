//! A twin as full as IoT Hub takes it, through `local-edge`.

use std::time::Instant;

use av_tests::clip::Clip;
use av_tests::edge::Edge;
use av_tests::recording::{End, Kind, Times};
use av_tests::rtmp::{Player, Publisher};
use av_tests::{needs, wait};
use serde_json::{Map, Value, json};

use crate::hub_faults::{splitter_alone, wait_applied};
use crate::rtmp;

const MODULE: &str = "rtmp-splitter";
/// IoT Hub's limit for desired properties.
const DESIRED_LIMIT: usize = 32 * 1024;
/// Ours for reported ones, as compact JSON.
const REPORTED_LIMIT: usize = 30 * 1024;

/// As IoT Hub counts: keys and texts in UTF-8, 8 bytes a number, 4 a boolean.
fn hub_size(value: &Value) -> usize {
    match value {
        Value::Object(members) => members.iter().map(|(key, value)| key.len() + hub_size(value)).sum(),
        Value::Array(items) => items.iter().map(hub_size).sum(),
        Value::String(text) => text.len(),
        Value::Number(_) => 8,
        Value::Bool(_) => 4,
        Value::Null => 0,
    }
}

/// `defaults` and as many flows as fit, each made of its number.
fn full(defaults: Value, flow: impl Fn(usize) -> Value) -> Value {
    let mut document =
        json!({ "schemaVersion": "1.0", "logLevel": "info", "defaults": defaults, "flows": {} });
    for number in 0.. {
        let name = format!("gate-{number:03}");
        document["flows"][&name] = flow(number);
        if hub_size(&document) > DESIRED_LIMIT {
            document["flows"].as_object_mut().unwrap().shift_remove(&name);
            break;
        }
    }
    document
}

/// A flow as one writes it: said what it is for, with two outputs, what all have in common among the defaults.
fn camera(number: usize, path: &str) -> Value {
    json!({
        "description": format!("Camera above loading dock {number}"),
        "input": { "listen": format!("rtmp://0.0.0.0:1935/{path}/{{flow}}") },
        "outputs": {
            "viewers": { "serve": format!("rtmp://0.0.0.0:1935/{path}/{{flow}}") },
            "wall": { "serve": "rtmp://0.0.0.0:1935/wall/{flow}", "content": "videoOnly" },
        },
    })
}

fn cameras() -> Value {
    let defaults = json!({ "input": { "idleTimeoutSeconds": 30 }, "output": { "maxClients": 20 } });
    full(defaults, |number| camera(number, "live"))
}

fn count(document: &Value) -> usize {
    document["flows"].as_object().unwrap().len()
}

fn start() -> Edge {
    let (manifest, ports) = splitter_alone(json!({}));
    let edge = Edge::start(&manifest, ports);
    wait_applied(&edge);
    edge
}

/// Reported properties as the hub holds them, within our limit.
fn reported(edge: &Edge) -> Value {
    let mut reported = edge.twin(MODULE)["reported"].take();
    reported.as_object_mut().expect("reported properties").shift_remove("$version");
    let bytes = reported.to_string().len();
    assert!(bytes <= REPORTED_LIMIT, "{bytes} bytes are reported");
    assert!(reported["summary"]["flows"].is_u64(), "no summary: {reported}");
    reported
}

/// Waits until what is reported fits; whatever is reported meanwhile is within the limit.
pub fn wait_reported(edge: &Edge, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let reported = reported(edge);
        if fits(&reported) {
            return reported;
        }
        assert!(start.elapsed() < wait::LONG, "not yet: {what}; {reported:#}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Ends; the hub must have taken every report.
pub fn end(edge: Edge) {
    let log = edge.ask(&["logs"]).stdout;
    let complaints: Vec<_> =
        log.lines().filter(|line| line.contains("refused (") || line.contains("will refuse them")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert_eq!(edge.interrupt().status.code(), Some(0));
}

#[test]
fn one_of_as_many_flows_as_a_twin_holds_is_changed_and_the_others_lose_nothing() {
    needs!(Ffmpeg);
    let edge = start();
    let document = cameras();
    let flows = count(&document);
    assert!(flows >= 150, "only {flows} flows fit");
    let begun = Instant::now();
    let set = edge.replace_twin(MODULE, &document);
    assert!(set.status.success(), "{}{}", set.stdout, set.stderr);
    let applied = begun.elapsed();
    let all = wait_reported(&edge, "all flows are reported", |reported| {
        reported["config"]["desiredVersion"] == edge.twin(MODULE)["desired"]["$version"]
            && reported["summary"]["flows"] == flows
    });
    assert_eq!(all["config"]["status"], "applied");
    // Details had to go, but neither flows nor since when they are what they are.
    assert_eq!(all["config"]["truncated"], true);
    assert_eq!(count(&all), flows);
    assert!(all["flows"].as_object().unwrap().values().all(|flow| kept(flow)[..2] == [true, true]));

    let port = edge.host_ports(1935)[0];
    let live = [0, 74, 76, flows - 1];
    let url = |number: usize| rtmp(port, &format!("live/gate-{number:03}"));
    let publishing: Vec<_> =
        live.iter().map(|n| Publisher::to(&url(*n)).run_endlessly(Clip::Plain.tags())).collect();
    let players: Vec<_> = live.iter().map(|n| Player::start(&url(*n))).collect();
    players.iter().for_each(|player| player.wait_frames(Kind::Video, 5));

    let begun = Instant::now();
    let set = edge.patch_twin(MODULE, &json!({ "flows": { "gate-075": camera(75, "move") } }));
    assert!(set.status.success(), "{}{}", set.stdout, set.stderr);
    println!(
        "{flows} flows, {} bytes as IoT Hub counts, applied and reported in {applied:?}; one changed in {:?}",
        hub_size(&document),
        begun.elapsed()
    );
    Publisher::to(&rtmp(port, "move/gate-075")).finish().unwrap();
    assert!(Publisher::start(&url(75)).unwrap().is_err(), "the old address is still served");
    let version = edge.twin(MODULE)["desired"]["$version"].clone();
    wait_reported(&edge, "the change and the streams are reported", |reported| {
        reported["config"]["desiredVersion"] == version && reported["summary"]["running"] == live.len()
    });

    too_much_is_refused_and_touches_nothing(&edge, document);
    let pages = edge.status_pages(MODULE, &json!({ "limit": 1000 }));
    let shown: Map<String, Value> =
        pages.iter().flat_map(|page| page["flows"].as_object().unwrap().clone()).collect();
    assert_eq!(shown.len(), flows);
    assert_eq!(pages.iter().map(count).sum::<usize>(), flows, "a flow is on two pages");
    assert!(shown["gate-075"]["outputs"]["viewers"]["url"].as_str().unwrap().ends_with("/move/gate-075"));
    assert!(shown["gate-000"]["input"]["video"]["codec"].is_string());

    for (player, publisher) in players.iter().zip(publishing) {
        let sent = publisher.stop();
        player.wait_last_of(&sent);
        player.recording().must_be(&sent, Times::Exact, End::Complete);
        assert_eq!(player.ended(), None);
    }
    end(edge);
}

fn too_much_is_refused_and_touches_nothing(edge: &Edge, mut document: Value) {
    let before = edge.twin(MODULE);
    let room = DESIRED_LIMIT - hub_size(&document);
    document["flows"]["gate-000"]["description"] =
        json!("x".repeat(room + 1 + document["flows"]["gate-000"]["description"].as_str().unwrap().len()));
    assert_eq!(hub_size(&document), DESIRED_LIMIT + 1);
    let set = edge.replace_twin(MODULE, &document);
    assert!(!set.status.success());
    assert!(set.stderr.contains("32769 bytes are too many, at most 32768 are allowed"), "{}", set.stderr);
    let patch = json!({ "flows": { "one-more": camera(999, &"x".repeat(200)) } });
    let set = edge.patch_twin(MODULE, &patch);
    assert!(!set.status.success());
    assert!(set.stderr.contains("at most 32768 are allowed"), "{}", set.stderr);
    assert_eq!(edge.twin(MODULE)["desired"], before["desired"]);
    assert_eq!(reported(edge)["config"]["desiredVersion"], before["desired"]["$version"]);
}

/// Neither its input nor its output can ever work; both say so at length, thanks to the defaults.
fn hopeless(number: usize) -> Value {
    json!({
        "input": { "pull": format!("rtmp://127.0.0.1:1/live/{number}") },
        "outputs": {
            "one": { "serve": "rtmps://0.0.0.0:1936/one/{flow}" },
            "two": { "serve": "rtmps://0.0.0.0:1936/two/{flow}" },
        },
    })
}

fn hopeless_flows() -> Value {
    let long = format!("/{}/missing", "a-folder-that-is-not-there/".repeat(20));
    let defaults = json!({
        "input": { "credentials": { "username": "viewer", "password": { "file": long } } },
        "output": { "tls": { "certificateFile": long, "keyFile": long } },
    });
    full(defaults, hopeless)
}

/// What a flow's report still has, from what goes last to what goes first.
fn kept(flow: &Value) -> [bool; 5] {
    let error = flow["input"]["error"].as_str().map_or(0, str::len);
    let outputs = flow["outputs"].as_object();
    let any_url = outputs.is_some_and(|outputs| outputs.values().any(|output| output.get("url").is_some()));
    [flow.get("state").is_some(), flow.get("since").is_some(), error > 128, outputs.is_some(), any_url]
}

#[test]
fn as_many_flows_as_a_twin_holds_all_fail_at_length_and_what_is_reported_fits() {
    let edge = start();
    let document = hopeless_flows();
    let flows = count(&document);
    assert!(flows >= 150, "only {flows} flows fit");
    let mut smaller = document.clone();
    let mut seen = Vec::new();
    for number in [flows, 120, 60, 40, 20, 12, 3] {
        let members = smaller["flows"].as_object_mut().unwrap();
        *members = std::mem::take(members).into_iter().take(number).collect();
        let set = edge.replace_twin(MODULE, &smaller);
        assert!(set.status.success(), "{}{}", set.stdout, set.stderr);
        let version = edge.twin(MODULE)["desired"]["$version"].clone();
        let all = wait_reported(&edge, "all flows fail", |reported| {
            reported["config"]["desiredVersion"] == version && reported["summary"]["retrying"] == number
        });
        assert_eq!(count(&all), number, "a flow is missing");
        let whole = edge.status_pages(MODULE, &json!({ "limit": 1000 }));
        assert_eq!(whole.iter().map(count).sum::<usize>(), number);
        for flow in whole.iter().flat_map(|page| page["flows"].as_object().unwrap().values()) {
            let errors = [&flow["input"], &flow["outputs"]["one"], &flow["outputs"]["two"]];
            let long =
                |end: &&Value| end["error"].as_str().is_some_and(|text| (400..=512).contains(&text.len()));
            assert!(errors.iter().all(long), "{flow:#}");
        }
        // All flows lose the same; how much, shows in `truncated`.
        let kept: Vec<_> = all["flows"].as_object().unwrap().values().map(kept).collect();
        assert!(kept.iter().all(|flow| *flow == kept[0]), "{all:#}");
        assert!(kept[0].is_sorted_by(|later, sooner| later >= sooner), "{:?}", kept[0]);
        assert_eq!(all["config"]["truncated"] == true, kept[0] != [true; 5]);
        println!(
            "{number} flows: {} bytes reported, {:?}, {} pages",
            all.to_string().len(),
            kept[0],
            whole.len()
        );
        seen.push(kept[0]);
    }
    // From nothing but the state to everything.
    assert_eq!((seen[0], seen[seen.len() - 1]), ([true, false, false, false, false], [true; 5]));
    assert!(seen.is_sorted(), "{seen:?}");
    end(edge);
}

#[test]
fn as_many_flows_as_a_twin_holds_are_all_wrong_and_the_errors_fit() {
    let edge = start();
    let document = full(json!({}), |number| {
        let mut flow = camera(number, "live");
        flow["input"]["idleTimeout"] = json!(30);
        flow
    });
    let flows = count(&document);
    let set = edge.replace_twin(MODULE, &document);
    assert!(!set.status.success());
    assert!(set.stdout.contains("rejected"), "{}", set.stdout);
    assert!(set.stdout.contains("flows.gate-000.input.idleTimeout"), "{}", set.stdout);
    let all = reported(&edge);
    assert_eq!(all["config"]["status"], "rejected");
    assert_eq!(all["summary"]["flows"], 0);
    let errors = all["config"]["errors"].as_object().unwrap();
    println!("{flows} wrong flows: {} of the errors, {} bytes reported", errors.len(), all.to_string().len());
    assert!(errors.len() > 50, "{}", errors.len());
    assert_eq!(all["config"]["truncated"] == true, errors.len() < flows);
    // Every one of them mended at once.
    let set = edge.replace_twin(MODULE, &cameras());
    assert!(set.status.success(), "{}{}", set.stdout, set.stderr);
    assert_eq!(reported(&edge)["config"].get("errors"), None);
    end(edge);
}
