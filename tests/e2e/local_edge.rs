//! `local-edge` with the repository's manifest: the way most people meet the project.

use std::net::TcpListener;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use av_tests::edge::{self, Edge};
use av_tests::recording::Kind;
use av_tests::rtmp::Player;
use av_tests::{needs, tool, wait};
use serde_json::{Value, json};

use crate::rtmp;

/// Modules listen on 127.0.1.N with the manifest's ports: one instance at a time on a machine.
static ONE: Mutex<()> = Mutex::new(());

pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn manifest() -> Value {
    let text = std::fs::read_to_string(tool::repository().join("deployment.template.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Path of the first stream that the splitter of the manifest serves.
fn served_path() -> String {
    let manifest = manifest();
    let flows = manifest.pointer("/modulesContent/rtmp-splitter/properties.desired/flows").expect("flows");
    let outputs =
        flows.as_object().unwrap().values().flat_map(|flow| flow["outputs"].as_object().unwrap().values());
    let serve = outputs.filter_map(|output| output["serve"].as_str()).find(|url| url.starts_with("rtmp://"));
    serve.expect("an RTMP output").splitn(4, '/').nth(3).unwrap().to_owned()
}

fn url(edge: &Edge) -> String {
    let port = *edge.host_ports(1935).first().expect("a binding of port 1935");
    rtmp(port, &served_path())
}

/// The process id of a module, from `ps --json`.
fn pid(edge: &Edge, module: &str) -> Option<u64> {
    let ps = edge.ps();
    let modules = ps.as_array().or_else(|| ps["modules"].as_array())?.clone();
    modules.iter().find(|entry| entry["name"] == module)?["process"]["pid"].as_u64()
}

#[test]
fn the_test_card_plays_and_ctrl_c_ends_it_cleanly() {
    needs!(Ffmpeg);
    let _alone = alone();
    let edge = Edge::start_repository();
    let url = url(&edge);
    let player = wait::until("the stream plays", wait::LONG, || {
        let player = Player::start(&url);
        let seen = wait::until("it plays or not", wait::LONG, || {
            (player.frames(Kind::Video) > 0).then_some(true).or_else(|| player.ended().map(|_| false))
        });
        seen.then_some(player)
    });
    player.wait_frames(Kind::Video, 60);
    player.wait_frames(Kind::Audio, 60);
    wait::until_true("the table shows the address to open", wait::LONG, || {
        edge.program().stdout().contains(&url) || edge.program().stderr().contains(&url)
    });

    let said = format!("{}{}", edge.program().stdout(), edge.program().stderr());
    assert!(!said.contains("on a device this fails"), "{said}");
    let agent = |payload: Value| {
        let answer = edge.ask(&["method", "$edgeAgent", "GetModuleLogs", &payload.to_string()]);
        let answer: Value = serde_json::from_str(&answer.stdout).expect("an answer");
        answer["payload"][0]["payload"].as_str().expect("logs").to_owned()
    };
    let item =
        |filter: Value| json!({ "schemaVersion": "1.0", "items": [{ "id": "splitter", "filter": filter }] });
    assert!(agent(item(json!({ "regex": "^\\[INF\\] - rtmp-splitter starts" }))).lines().count() == 1);
    assert_eq!(agent(item(json!({ "loglevel": 0 }))), "");

    let logs = edge.ask(&["logs", "rtmp-splitter"]);
    assert!(logs.stdout.contains("[INF]") || logs.stderr.contains("[INF]"), "{logs:?}");
    let shown = edge.ask(&["twin", "show", "rtmp-splitter"]);
    assert!(shown.status.success(), "{}", shown.stderr);
    let shown: Value = serde_json::from_str(&shown.stdout).expect("twin show prints JSON");
    assert!(shown["desired"]["flows"].is_object() && shown["reported"]["summary"].is_object(), "{shown:#}");

    let ended = edge.interrupt();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    player.wait_end();
}

#[test]
fn twin_set_changes_a_running_module_and_prints_what_it_reports() {
    needs!(Ffmpeg);
    let _alone = alone();
    let edge = Edge::start_repository();
    wait::until_true("the splitter runs", wait::LONG, || pid(&edge, "rtmp-splitter").is_some());
    let extra = json!({ "flows": { "extra": {
        "input": { "listen": "rtmp://0.0.0.0:1935/live/extra" },
        "outputs": { "viewers": { "serve": "rtmp://0.0.0.0:1935/live/extra" } },
    } } });
    let reported = |flow: &str| {
        let shown = edge.ask(&["twin", "show", "rtmp-splitter"]).stdout;
        let shown: Value = serde_json::from_str(&shown).unwrap_or(Value::Null);
        shown["reported"]["flows"][flow].clone()
    };
    let set = edge.ask(&["twin", "set", "rtmp-splitter", &extra.to_string()]);
    assert!(set.status.success(), "{}", set.stderr);
    wait::until_true("the flow is reported", wait::LONG, || reported("extra")["state"] == "waiting");

    let bad = json!({ "flows": { "extra": { "input": { "listen": "nonsense" } } } });
    let set = edge.ask(&["twin", "set", "rtmp-splitter", &bad.to_string()]);
    let said = format!("{}{}", set.stdout, set.stderr);
    assert!(said.contains("flows.extra.input.listen"), "the error is not printed: {said}");

    edge.ask(&["twin", "set", "rtmp-splitter", r#"{ "flows": { "extra": null } }"#]);
    wait::until_true("the flow is gone", wait::LONG, || reported("extra").is_null());
    assert_eq!(edge.interrupt().status.code(), Some(0));
}

#[test]
fn everything_restarts_as_after_an_upgrade_of_the_daemon_and_streams_come_back() {
    needs!(Ffmpeg);
    let _alone = alone();
    let edge = Edge::start_repository();
    let first = wait::until("the splitter runs", wait::LONG, || pid(&edge, "rtmp-splitter"));
    assert!(edge.ask(&["fault", "restart-all"]).status.success());
    wait::until("it runs again", wait::LONG, || pid(&edge, "rtmp-splitter").filter(|pid| *pid != first));
    let url = url(&edge);
    wait::until_true("the stream plays again", wait::LONG, || {
        let player = Player::start(&url);
        wait::until("it plays or not", wait::LONG, || {
            (player.frames(Kind::Video) > 10).then_some(true).or_else(|| player.ended().map(|_| false))
        })
    });
    assert_eq!(edge.interrupt().status.code(), Some(0));
}

#[test]
fn a_module_that_dies_is_started_again() {
    needs!(Ffmpeg);
    let _alone = alone();
    let edge = Edge::start_repository();
    let first = wait::until("the splitter runs", wait::LONG, || pid(&edge, "rtmp-splitter"));
    let killed = Command::new("kill").args(["-KILL", &first.to_string()]).status().unwrap();
    assert!(killed.success());
    wait::until("it runs again", wait::LONG, || pid(&edge, "rtmp-splitter").filter(|pid| *pid != first));
    let url = url(&edge);
    wait::until_true("the stream plays again", wait::LONG, || {
        let player = Player::start(&url);
        wait::until("it plays or not", wait::LONG, || {
            (player.frames(Kind::Video) > 10).then_some(true).or_else(|| player.ended().map(|_| false))
        })
    });
    assert_eq!(edge.interrupt().status.code(), Some(0));
}

#[test]
fn a_module_of_somebody_elses_image_is_no_failure_and_any_program_can_be_it() {
    let _alone = alone();
    let edge = Edge::start_repository();
    wait::until_true("the splitter runs", wait::LONG, || pid(&edge, "rtmp-splitter").is_some());
    let ps = edge.ps();
    let collector =
        ps["modules"].as_array().unwrap().iter().find(|module| module["name"] == "metrics-collector");
    let process = &collector.expect("it is shown")["process"];
    assert_eq!((&process["state"], &process["restarts"]), (&json!("notRunHere"), &json!(0)), "{process}");
    let said = |edge: &Edge| format!("{}{}", edge.program().stdout(), edge.program().stderr());
    let line = "metrics-collector: mcr.microsoft.com/azureiotedge-metrics-collector:2.0.0 is not run here";
    wait::until_true("it is said", wait::LONG, || said(&edge).contains(line));
    assert_eq!(said(&edge).matches(line).count(), 1, "{}", said(&edge));
    let table = edge.ask(&["ps"]).stdout;
    let row = table.lines().find(|row| row.starts_with("metrics-collector")).expect("a row");
    assert!(row.contains("not run here") && !table.contains("! metrics-collector"), "{table}");

    let env = edge.ask(&["env", "metrics-collector"]).stdout;
    for variable in ["IOTEDGE_MODULEID=metrics-collector", "ScrapeFrequencyInSecs=60"] {
        assert!(env.lines().any(|line| line == variable), "{env}");
    }
    assert!(edge.ask(&["twin", "show", "metrics-collector"]).status.success());
    let restart = edge.ask(&["restart", "metrics-collector"]);
    assert!(!restart.status.success() && restart.stderr.contains("is not run here"), "{restart:?}");
    assert_eq!(edge.interrupt().status.code(), Some(0));
}

#[test]
fn a_port_that_is_taken_is_said_in_one_line() {
    let _alone = alone();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut manifest = manifest();
    let mut ports = Vec::new();
    edge::rebind(&mut manifest, &mut ports);
    let rtmp_port = ports.iter().find(|(inside, _)| *inside == 1935).expect("port 1935").1.to_string();
    let text = manifest.to_string().replace(&format!("\"{rtmp_port}\""), &format!("\"{port}\""));
    let edge = Edge::start(&serde_json::from_str(&text).unwrap(), ports);
    let said = wait::until("it is said", wait::LONG, || {
        let all = format!("{}\n{}", edge.program().stderr(), edge.program().stdout());
        all.lines()
            .find(|line| line.contains(&port.to_string()) && line.contains("is taken"))
            .map(str::to_owned)
    });
    assert!(said.contains("127.0.0.1"), "{said}");
}

#[test]
fn recordings_of_the_test_card_land_are_listed_and_end_when_they_are_asked_to() {
    let _alone = alone();
    let edge = Edge::start_repository();
    let list = || {
        let answer = edge.ask(&["method", "mp4-recorder", "listRecordings", r#"{"flow":"testcard"}"#]);
        let answer: Value = serde_json::from_str(&answer.stdout).unwrap_or(Value::Null);
        answer["payload"]["recordings"].as_array().cloned().unwrap_or_default()
    };
    let of = |state: &str| list().into_iter().filter(|one| one["state"] == state).collect::<Vec<_>>();
    wait::until_true("something is recorded", wait::LONG, || {
        of("recording").iter().any(|one| one["bytes"].as_u64() > Some(0))
    });
    let closed = edge.method("mp4-recorder", "closeSegment", &json!({ "flow": "testcard" }));
    assert_eq!(closed, json!({ "outputs": 1 }));
    let stored = wait::until("a file is stored", wait::LONG, || of("stored").into_iter().next());
    let (name, url) = (stored["name"].as_str().unwrap(), stored["url"].as_str().unwrap());
    assert_eq!(url, format!("file:///recordings/{name}"));
    // Ten seconds are the manifest's; this one ended before.
    assert!(
        stored["durationSeconds"].as_f64().is_some_and(|seconds| seconds > 0.0 && seconds < 9.5),
        "{stored}"
    );
    let file = edge.dir().join("recordings").join(name);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), stored["bytes"].as_u64().unwrap());

    let refused = |payload: &str| {
        let answer = edge.ask(&["method", "mp4-recorder", "listRecordings", payload]);
        serde_json::from_str::<Value>(&answer.stdout).unwrap()["status"].clone()
    };
    assert_eq!(
        (refused(r#"{"flow":"nobody"}"#), refused(r#"{"flou":"testcard"}"#)),
        (json!(404), json!(400))
    );
    assert_eq!(edge.interrupt().status.code(), Some(0));
}
