//! How fast configuration is: many flows by a twin, by a file, by a pattern; started, and one of them changed while
//! streams run beside it. Every frame of those is compared: one that is lost ends the benchmark with a panic.
//!
//! `tests/bench/run --what configuration` builds what this needs and runs it. With `AV_BIN_DIR` alone: `configuration`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod measured;

use std::time::{Duration, Instant};

use av_tests::clip::Clip;
use av_tests::edge::{self, Edge};
use av_tests::module::{Module, Setup};
use av_tests::program::resident_bytes;
use av_tests::rtmp::Crowd;
use av_tests::{port, tool, wait};
use measured::{Changes, Neighbours, cpu, let_in, mebibytes, plays};
use serde_json::{Map, Value, json};

const CHANGES: usize = 20;
const STARTS: usize = 10;
const SPLITTER: &str = "rtmp-splitter";

fn main() {
    println!(
        "{:<34} {:>6} {:>12} {:>10} {:>10} {:>5} {:>8} {:>9}",
        "", "flows", "applied ms", "p50 ms", "max ms", "lost", "RSS MiB", "reported"
    );
    by_twin();
    by_file();
    by_pattern();
    println!();
    cached_start(1);
    cached_start(1000);
    idle();
}

fn row(
    what: &str,
    flows: usize,
    applied: Duration,
    changes: &Changes,
    resident: u64,
    reported: Option<usize>,
) {
    println!(
        "{what:<34} {flows:>6} {:>12.0} {:>10.0} {:>10.0} {:>5} {:>8.1} {:>9}",
        applied.as_secs_f64() * 1e3,
        changes.median(),
        changes.most(),
        0,
        mebibytes(resident),
        reported.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string()),
    );
}

fn flow(url: &str) -> Value {
    json!({ "input": { "listen": url }, "outputs": { "viewers": { "serve": url } } })
}

fn rtmp(port: u16, path: &str) -> String {
    format!("rtmp://127.0.0.1:{port}/{path}")
}

fn name(number: usize) -> String {
    format!("cam-{number:04}")
}

/// Streams run through the first, the last and those beside the one in the middle, which is changed.
fn beside(flows: usize) -> [usize; 4] {
    [0, flows / 2 - 1, flows / 2 + 1, flows - 1]
}

fn by_twin() {
    const FLOWS: usize = 150;
    let text = std::fs::read_to_string(tool::repository().join("deployment.template.json")).unwrap();
    let mut manifest: Value = serde_json::from_str(&text).unwrap();
    let content = manifest["modulesContent"].as_object_mut().unwrap();
    content.retain(|name, _| name.starts_with('$') || name == SPLITTER);
    content[SPLITTER]["properties.desired"]["flows"] = json!({});
    let modules = content["$edgeAgent"]["properties.desired"]["modules"].as_object_mut().unwrap();
    modules.retain(|name, _| name == SPLITTER);
    let mut ports = Vec::new();
    edge::rebind(&mut manifest, &mut ports);
    let edge = Edge::start(&manifest, ports);
    wait::until_true("the splitter reports", wait::LONG, || {
        edge.twin(SPLITTER)["reported"]["config"]["status"] == "applied"
    });
    let port = edge.host_ports(1935)[0];
    let at = |path: String| {
        let mut flow = flow(&format!("rtmp://0.0.0.0:1935/{path}"));
        flow["description"] = json!("Camera above the loading dock");
        flow
    };
    let flows: Map<_, _> = (0..FLOWS).map(|n| (name(n), at(format!("live/{}", name(n))))).collect();
    let begun = Instant::now();
    assert!(edge.replace_twin(SPLITTER, &json!({ "flows": flows })).status.success());
    let_in(&rtmp(port, &format!("live/{}", name(FLOWS - 1))));
    let applied = begun.elapsed();
    let neighbours = Neighbours::start(beside(FLOWS).map(|n| rtmp(port, &format!("live/{}", name(n)))));
    let changes = Changes::measure(CHANGES, |round| {
        let path = format!("moved/{round}");
        let patch = json!({ "flows": { (name(FLOWS / 2)): at(path.clone()) } });
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let set = scope.spawn(|| edge.patch_twin(SPLITTER, &patch));
            let effect = let_in(&rtmp(port, &path));
            assert!(set.join().unwrap().status.success());
            (begun, effect)
        })
    });
    neighbours.lost_nothing();
    let mut reported = edge.twin(SPLITTER)["reported"].take();
    reported.as_object_mut().unwrap().shift_remove("$version");
    let resident = resident_bytes(edge.pid(SPLITTER));
    row("by twin, through local-edge", FLOWS, applied, &changes, resident, Some(reported.to_string().len()));
    edge.interrupt();
}

fn file_of(port: u16, flows: usize) -> Map<String, Value> {
    (0..flows).map(|n| (name(n), flow(&rtmp(port, &format!("live/{}", name(n)))))).collect()
}

fn by_file() {
    const FLOWS: usize = 1000;
    let port = port::free();
    let mut flows = file_of(port, FLOWS);
    let begun = Instant::now();
    let splitter = Module::start(SPLITTER, &json!({ "flows": flows }));
    let_in(&rtmp(port, &format!("live/{}", name(FLOWS - 1))));
    let applied = begun.elapsed();
    let neighbours = Neighbours::start(beside(FLOWS).map(|n| rtmp(port, &format!("live/{}", name(n)))));
    let changes = Changes::measure(CHANGES, |round| {
        let moved = rtmp(port, &format!("moved/{round}"));
        flows.insert(name(FLOWS / 2), flow(&moved));
        let document = json!({ "flows": flows });
        let begun = Instant::now();
        splitter.set_twin(&document);
        (begun, let_in(&moved))
    });
    neighbours.lost_nothing();
    row("by file", FLOWS, applied, &changes, splitter.program().resident_bytes(), None);
}

fn by_pattern() {
    const INSTANCES: usize = 1000;
    let port = port::free();
    let mut any = flow(&rtmp(port, "live/*"));
    any["input"]["maxInstances"] = json!(INSTANCES);
    any["input"]["idleTimeoutSeconds"] = json!(60);
    let splitter = Module::start(SPLITTER, &json!({ "flows": { "any": any } }));
    let live = beside(INSTANCES);
    let url = |number: usize| rtmp(port, &format!("live/{}", name(number)));
    let others: Vec<_> = (0..INSTANCES).filter(|number| !live.contains(number)).map(url).collect();
    let begun = Instant::now();
    let crowd = Crowd::start(&others, &Clip::Smaller.tags());
    let neighbours = Neighbours::start(live.map(url));
    splitter.wait_value("/flows/any/instances/active", INSTANCES);
    let applied = begun.elapsed();
    let copy = rtmp(port, &format!("copies/{}", name(0)));
    let mut playing = None;
    let changes = Changes::measure(CHANGES, |_| {
        let begun = Instant::now();
        let effect = match playing.take() {
            None => {
                any["outputs"]["copies"] = json!({ "serve": rtmp(port, "copies/*") });
                splitter.set_twin(&json!({ "flows": { "any": any } }));
                let (player, effect) = plays(&copy);
                playing = Some(player);
                effect
            }
            Some(player) => {
                any["outputs"].as_object_mut().unwrap().shift_remove("copies");
                splitter.set_twin(&json!({ "flows": { "any": any } }));
                player.wait_end();
                Instant::now()
            }
        };
        (begun, effect)
    });
    neighbours.lost_nothing();
    let resident = splitter.program().resident_bytes();
    row("instances of a pattern, an output", INSTANCES, applied, &changes, resident, None);
    crowd.stop();
}

/// From the start of the process to a publisher that is let in, with what the state dir remembers.
fn cached_start(flows: usize) {
    let port = port::free();
    let last = rtmp(port, &format!("live/{}", name(flows - 1)));
    let mut splitter = Some(Module::start(SPLITTER, &json!({ "flows": file_of(port, flows) })));
    let starts = Changes::measure(STARTS, |_| {
        let mut probe = None;
        let restarted = splitter.take().unwrap().kill_and_restart(|setup: Setup| {
            let last = last.clone();
            probe = Some((Instant::now(), std::thread::spawn(move || let_in(&last))));
            setup
        });
        splitter = Some(restarted);
        let (begun, probe) = probe.unwrap();
        (begun, probe.join().unwrap())
    });
    println!(
        "cached start to serving, {flows} flows: p50 {:.0} ms, max {:.0} ms",
        starts.median(),
        starts.most()
    );
}

fn idle() {
    for flows in [0, 1, 1000] {
        let port = port::free();
        let splitter = Module::start(SPLITTER, &json!({ "flows": file_of(port, flows) }));
        // What starting took is over.
        std::thread::sleep(Duration::from_secs(5));
        let (before, begun) = (cpu(splitter.program().id()), Instant::now());
        std::thread::sleep(Duration::from_secs(10));
        let used = (cpu(splitter.program().id()) - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        println!(
            "idle, {flows} flows: {:.1} MiB resident, {:.2} ms CPU a second",
            mebibytes(splitter.program().resident_bytes()),
            used * 1e3
        );
    }
}
