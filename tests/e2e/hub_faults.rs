//! Bad days of the hub, made by `local-edge fault`: afterwards the module runs what its twin says and the hub
//! holds what the module means; and a stream that runs through it meanwhile loses no frame.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use av_tests::clip::Clip;
use av_tests::edge::{self, Edge};
use av_tests::recording::{End, Kind, Times};
use av_tests::rtmp::{Endless, Player, Publisher};
use av_tests::{long_only, needs, tool, wait};
use serde_json::{Value, json};

use crate::rtmp;

const MODULE: &str = "rtmp-splitter";

/// The repository's manifest with nothing but the splitter, and that with these flows.
pub fn splitter_alone(flows: Value) -> (Value, Vec<(u16, u16)>) {
    let text = std::fs::read_to_string(tool::repository().join("deployment.template.json")).unwrap();
    let mut manifest: Value = serde_json::from_str(&text).unwrap();
    let content = manifest["modulesContent"].as_object_mut().unwrap();
    content.retain(|name, _| name.starts_with('$') || name == MODULE);
    content[MODULE]["properties.desired"]["flows"] = flows;
    let modules = &mut content["$edgeAgent"]["properties.desired"]["modules"];
    modules.as_object_mut().unwrap().retain(|name, _| name == MODULE);
    modules[MODULE]["settings"]["createOptions"]["HostConfig"]["PortBindings"]["1936/tcp"] =
        json!([{ "HostPort": "1936" }]);
    let mut ports = Vec::new();
    edge::rebind(&mut manifest, &mut ports);
    (manifest, ports)
}

/// A flow that listens and serves at this path.
pub fn flow(path: &str) -> Value {
    let url = format!("rtmp://0.0.0.0:1935/{path}");
    json!({ "input": { "listen": url }, "outputs": { "viewers": { "serve": url } } })
}

/// Asks until the splitter has reported a configuration.
pub fn wait_applied(edge: &Edge) {
    wait::until_true("the splitter reports its configuration", wait::LONG, || {
        twin(edge)["reported"]["config"]["status"] == "applied"
    });
}

fn twin(edge: &Edge) -> Value {
    edge.twin(MODULE)
}

/// A splitter under `local-edge`, with a stream that is published to it and played from it all the time.
struct Bench {
    edge: Edge,
    publishing: Endless,
    player: Player,
}

impl Bench {
    fn start() -> Self {
        let (manifest, ports) = splitter_alone(json!({ "steady": flow("live/steady") }));
        let edge = Edge::start(&manifest, ports);
        wait_applied(&edge);
        let url = rtmp(edge.host_ports(1935)[0], "live/steady");
        let publishing = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
        let player = Player::start(&url);
        player.wait_frames(Kind::Video, 1);
        Self { edge, publishing, player }
    }

    fn fault(&self, fault: &[&str]) {
        let done = self.edge.ask(&[&["fault"], fault].concat());
        assert!(done.status.success(), "{fault:?}: {}", done.stderr);
    }

    /// `av_hub_connected` of the module, as Prometheus reads it.
    fn hub_connected(&self) -> String {
        let address = self.edge.ps()["modules"][0]["address"].as_str().unwrap().to_owned();
        let mut text = String::new();
        let mut stream = TcpStream::connect((address.as_str(), 9600)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find(|line| line.starts_with("av_hub_connected")).expect("av_hub_connected");
        line.rsplit(' ').next().unwrap().to_owned()
    }

    /// Sets the path of the flow `changed`; waits until the hub has it, not until the module has.
    fn change(&self, path: &str) {
        let patch = json!({ "flows": { "changed": flow(path) } }).to_string();
        std::thread::scope(|scope| {
            // Waits up to 10 s for the module's answer.
            scope.spawn(|| self.edge.ask(&["twin", "set", MODULE, &patch]));
            wait::until_true("the hub has the change", wait::LONG, || {
                twin(&self.edge)["desired"]["flows"]["changed"] == flow(path)
            });
        });
    }

    /// The hub comes back, with another twin.
    fn settle_after_coming_back(self) {
        self.change("live/during");
        self.fault(&["clear"]);
        self.settle("live/during");
    }

    /// Waits until module and hub agree on the twin, whose flow `changed` has this path; then ends the stream,
    /// of which no frame may be missing.
    fn settle(self, path: &str) {
        let port = self.edge.host_ports(1935)[0];
        let mut last = Value::Null;
        let agree = |last: &mut Value| {
            let twin = twin(&self.edge);
            let status = self.edge.ask(&["method", MODULE, "getStatus"]).stdout;
            let status: Value = serde_json::from_str(&status).unwrap_or(Value::Null);
            let (reported, means) = (&twin["reported"], &status["payload"]);
            let agree = reported["config"]["desiredVersion"] == twin["desired"]["$version"]
                && reported["config"]["status"] == "applied"
                && reported["flows"]["changed"]["outputs"]["viewers"]["url"]
                    .as_str()
                    .is_some_and(|url| url.ends_with(path))
                && names(&reported["flows"]) == names(&twin["desired"]["flows"])
                && ["summary", "flows"].iter().all(|key| holds(&means[key], &reported[key]));
            *last = json!({ "twin": twin, "status": status });
            agree
        };
        let start = Instant::now();
        while !agree(&mut last) {
            assert!(start.elapsed() < wait::LONG * 2, "module and hub do not agree: {last:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
        // It runs, it is not only said to.
        Publisher::to(&rtmp(port, path)).finish().unwrap();
        let sent = self.publishing.stop();
        self.player.wait_last_of(&sent);
        self.player.recording().must_be(&sent, Times::Exact, End::Complete);
        assert_eq!(self.edge.interrupt().status.code(), Some(0));
    }
}

fn names(flows: &Value) -> Vec<&String> {
    let mut names: Vec<_> = flows.as_object().into_iter().flat_map(|flows| flows.keys()).collect();
    names.sort();
    names
}

/// Whether `status`, which has counters too, holds everything that was reported.
fn holds(status: &Value, reported: &Value) -> bool {
    match reported {
        Value::Object(members) => members.iter().all(|(key, value)| holds(&status[key], value)),
        other => status == other,
    }
}

fn an_outage_of(seconds: u64) {
    let bench = Bench::start();
    bench.fault(&["hub-down", &seconds.to_string()]);
    wait::until_true("the hub is gone", wait::LONG, || {
        bench.edge.ps()["modules"][0]["connected"] == Value::Bool(false)
    });
    wait::until_true("the module's metrics say so", wait::LONG, || bench.hub_connected() == "0");
    bench.change("live/during");
    bench.settle("live/during");
}

#[test]
fn the_hub_is_away_for_some_seconds() {
    needs!(Ffmpeg);
    an_outage_of(3);
}

#[test]
fn the_hub_is_away_for_a_minute() {
    needs!(Ffmpeg);
    long_only!();
    an_outage_of(60);
}

#[test]
fn the_hub_hangs_and_the_module_finds_out() {
    needs!(Ffmpeg);
    long_only!();
    let bench = Bench::start();
    bench.fault(&["hang", "3600"]);
    bench.change("live/during");
    // Nothing but the missing answer to a ping tells.
    wait::until_true("the module notices", wait::LONG * 2, || bench.hub_connected() == "0");
    bench.fault(&["clear"]);
    bench.settle("live/during");
}

#[test]
fn a_module_that_starts_without_the_hub_runs_what_it_ran_last() {
    needs!(Ffmpeg);
    let (manifest, ports) = splitter_alone(json!({ "steady": flow("live/steady") }));
    let edge = Edge::start(&manifest, ports);
    wait_applied(&edge);
    for fault in [["hub-down", "3600"], ["workload-down", "3600"]] {
        assert!(edge.ask(&[&["fault"], &fault[..]].concat()).status.success());
    }
    let pid = || edge.ps()["modules"][0]["process"]["pid"].as_u64();
    let before = wait::until("the module runs", wait::LONG, pid);
    assert!(edge.ask(&["restart", MODULE]).status.success());
    wait::until("the module runs again", wait::LONG, || pid().filter(|pid| *pid != before));
    let url = rtmp(edge.host_ports(1935)[0], "live/steady");
    let publisher =
        wait::until("it listens", wait::LONG, || Publisher::start(&url).ok().and_then(Result::ok));
    let publishing = publisher.run_endlessly(Clip::Plain.tags());
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 1);
    Bench { edge, publishing, player }.settle_after_coming_back();
}

#[test]
fn the_connection_is_cut_in_the_middle_of_a_get() {
    needs!(Ffmpeg);
    let bench = Bench::start();
    bench.fault(&["cut", "--in-get"]);
    bench.fault(&["cut"]);
    bench.change("live/during");
    bench.settle("live/during");
}

#[test]
fn the_hub_changes_to_a_certificate_of_a_new_authority() {
    needs!(Ffmpeg);
    let bench = Bench::start();
    bench.fault(&["rotate-certificate"]);
    bench.change("live/during");
    bench.settle("live/during");
}

#[test]
fn the_hub_finds_the_token_expired() {
    needs!(Ffmpeg);
    let bench = Bench::start();
    bench.fault(&["expire-tokens"]);
    bench.change("live/during");
    bench.settle("live/during");
}

#[test]
fn a_change_is_lost_on_the_way_and_the_next_one_shows_the_gap() {
    needs!(Ffmpeg);
    let bench = Bench::start();
    bench.fault(&["lose-patches", "1"]);
    bench.change("live/lost");
    // Another key: only the whole twin brings both.
    let set = bench.edge.ask(&["twin", "set", MODULE, r#"{ "telemetryIntervalSeconds": 5 }"#]);
    assert!(set.status.success(), "{}{}", set.stdout, set.stderr);
    bench.settle("live/lost");
}

#[test]
fn every_answer_comes_half_a_second_late() {
    needs!(Ffmpeg);
    let bench = Bench::start();
    bench.fault(&["delay", "500"]);
    bench.fault(&["cut"]);
    bench.change("live/first");
    bench.change("live/second");
    bench.settle("live/second");
}

#[test]
fn every_twin_request_takes_three_seconds_one_after_the_other() {
    needs!(Ffmpeg);
    let bench = Bench::start();
    bench.fault(&["slow-twin", "3"]);
    bench.fault(&["cut"]);
    bench.change("live/first");
    bench.change("live/second");
    bench.settle("live/second");
}

#[test]
fn the_hubs_disk_is_full_and_twin_and_methods_go_on() {
    needs!(Ffmpeg);
    let bench = Bench::start();
    bench.fault(&["store-full", "3600"]);
    bench.change("live/during");
    wait::until_true("the log says so", wait::LONG, || {
        bench.edge.ask(&["logs", MODULE]).stdout.contains("is its disk full?")
    });
    bench.settle("live/during");
}

#[test]
fn the_hub_loses_subscriptions_and_the_next_connection_makes_them_anew() {
    needs!(Ffmpeg);
    let bench = Bench::start();
    bench.fault(&["lost-subscriptions"]);
    let called = bench.edge.ask(&["method", MODULE, "ping"]);
    assert!(!called.status.success() && called.stderr.contains("404"), "{called:?}");
    bench.change("live/during");
    bench.fault(&["cut"]);
    bench.settle("live/during");
}

#[test]
fn the_workload_api_fails_when_a_new_token_is_needed() {
    needs!(Ffmpeg);
    let bench = Bench::start();
    bench.fault(&["workload-down", "3"]);
    bench.fault(&["cut"]);
    bench.change("live/during");
    bench.settle("live/during");
}

#[test]
fn the_hub_refuses_the_module_for_a_while() {
    needs!(Ffmpeg);
    for code in ["5", "3"] {
        let bench = Bench::start();
        bench.fault(&["refuse", code, "2"]);
        bench.fault(&["cut"]);
        bench.change("live/during");
        let said = format!("({code})");
        wait::until_true("the log tells the codes apart", wait::LONG, || {
            bench.edge.ask(&["logs", MODULE]).stdout.contains(&said)
        });
        bench.settle("live/during");
    }
}
