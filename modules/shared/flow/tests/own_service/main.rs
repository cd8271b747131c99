//! A service of its own drives av-flow through its public interface alone: what it brings is configured, validated,
//! diffed, patterned, restarted and drained like what av-flow has itself.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod service;

use std::sync::Arc;
use std::time::Duration;

use av_edge::{Certificates, ConfigStatus, Context, EventSink, Outcome, Paths, Running, Service, StateDir};
use serde_json::{Value, json};

/// A module without a process around it, whose state outlives it.
struct Rig {
    running: Arc<dyn Running>,
    state: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        Self { running: Self::start(&state), state }
    }

    fn start(state: &tempfile::TempDir) -> Arc<dyn Running> {
        let context = Context {
            service: "tally-keeper".into(),
            module: "tally-keeper".into(),
            device: "device".into(),
            gateway_host: None,
            state: StateDir::new(state.path().to_owned()),
            bind: None,
            hosts: Arc::default(),
            paths: Paths::default(),
            certificates: Certificates::default(),
            events: EventSink::channel(1000).0,
        };
        Box::new(service::service()).start(context)
    }

    async fn apply(&self, flows: Value) -> Outcome {
        self.apply_document(json!({ "flows": flows })).await
    }

    async fn apply_document(&self, document: Value) -> Outcome {
        self.running.apply(document.as_object().unwrap().clone()).await
    }

    async fn method(&self, name: &str, payload: Value) -> Value {
        let reply = self.running.method(name, payload).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.body
    }

    async fn book(&self) -> Value {
        self.method("book", Value::Null).await
    }

    fn status(&self, flow: &str) -> Value {
        self.running.status()["flows"][flow].clone()
    }

    /// Waits until the book shows what is wanted.
    async fn until(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let book = self.book().await;
                if condition(&book) {
                    return book;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(30), waiting).await {
            Ok(book) => book,
            Err(_) => panic!("{what}: not in time; {} {:?}", self.book().await, self.running.status()),
        }
    }

    async fn counts_on(&self, tally: &str) {
        let before = counted(&self.book().await, tally);
        self.until(&format!("{tally} counts on"), |book| counted(book, tally) > before).await;
    }
}

fn counted(book: &Value, tally: &str) -> u64 {
    book["counted"][tally].as_u64().unwrap_or(0)
}

fn flow(path: &str, outputs: Value) -> Value {
    json!({ "input": { "listen": format!("ticks://127.0.0.1/{path}"), "everyMilliseconds": 5 }, "outputs": outputs })
}

#[tokio::test]
async fn frames_go_from_an_input_to_an_output_of_the_services_own() {
    let rig = Rig::new();
    let outcome =
        rig.apply(json!({ "a": flow("a", json!({ "t": { "store": "book://a", "solo": true } })) })).await;
    assert_eq!((outcome.status, outcome.errors.len()), (ConfigStatus::Applied, 0));
    rig.counts_on("a").await;
    let status = rig.status("a");
    assert_eq!((&status["state"], &status["input"]["state"]), (&json!("running"), &json!("receiving")));
    let output = &status["outputs"]["t"];
    assert_eq!((&output["state"], &output["url"]), (&json!("storing"), &json!("book://a")));
    assert!(output["frames"].as_u64() > Some(0) && output["bytes"].as_u64() > Some(0), "{output}");
}

#[tokio::test]
async fn what_is_wrong_in_a_document_is_told_with_its_path() {
    let rig = Rig::new();
    let tally = |output: Value| flow("a", json!({ "t": output }));
    for (flow, sentence) in [
        (
            tally(json!({ "store": "book://a", "solo": 5 })),
            "flows.f.outputs.t.solo: expected true or false, got 5",
        ),
        (
            tally(json!({ "store": "book://a", "sola": true })),
            "flows.f.outputs.t.sola: unknown property; is `solo` meant?",
        ),
        (
            tally(json!({ "store": "book://a", "everyMilliseconds": 5 })),
            "flows.f.outputs.t.everyMilliseconds: `everyMilliseconds` belongs to clocks",
        ),
        (
            tally(json!({ "store": "book://a", "volume": 5 })),
            "flows.f.outputs.t.volume: `volume` belongs to `render` outputs",
        ),
        (tally(json!({ "store": "book://" })), "flows.f.outputs.t.store: a tally needs a name"),
        (
            tally(json!({ "serve": "rtmp://0.0.0.0/a/b" })),
            "flows.f.outputs.t.serve: tally-keeper has no `serve` with rtmp; rtmp-splitter has",
        ),
        (
            json!({ "input": { "listen": "ticks://127.0.0.1/a", "content": "videoOnly" } }),
            "flows.f: a clock has no picture",
        ),
    ] {
        assert_eq!(rig.apply(json!({ "f": flow })).await.errors["f"], sentence);
    }
    let twice = json!({ "a": flow("x", json!({})), "b": flow("x", json!({})) });
    assert_eq!(
        rig.apply(twice).await.errors["b"],
        "flows.b.input.listen: ticks://127.0.0.1:7000/x is taken by flows.a.input.listen"
    );
}

#[tokio::test]
async fn defaults_reach_options_of_the_services_own_and_other_modules_are_left_to_them() {
    let rig = Rig::new();
    let document = json!({
        "defaults": { "input": { "everyMilliseconds": 1, "loop": false }, "output": { "solo": true, "join": "live" } },
        "flows": { "a": { "input": { "listen": "ticks://127.0.0.1/a" }, "outputs": { "t": { "store": "book://a" } } } }
    });
    assert_eq!(rig.apply_document(document).await.errors.len(), 0);
    rig.counts_on("a").await;
    let outcome = rig.apply_document(json!({ "defaults": { "output": { "solo": 1 } }, "flows": {} })).await;
    assert_eq!(outcome.errors["_module"], "defaults.output.solo: expected true or false, got 1");
}

#[tokio::test]
async fn a_change_of_one_output_restarts_that_one_and_nothing_else() {
    let rig = Rig::new();
    let outputs =
        |solo: bool| json!({ "t": { "store": "book://t", "solo": solo }, "u": { "store": "book://u" } });
    rig.apply(json!({ "a": flow("a", outputs(false)) })).await;
    rig.counts_on("t").await;
    rig.counts_on("u").await;
    let began = rig.status("a")["input"]["reconnects"].clone();
    assert_eq!(rig.book().await["begun"], 2);
    rig.apply(json!({ "a": flow("a", outputs(false)) })).await;
    assert_eq!(rig.book().await["begun"], 2);
    let before = rig.status("a")["outputs"]["t"]["bytes"].as_u64().unwrap();
    rig.apply(json!({ "a": flow("a", outputs(true)) })).await;
    assert_eq!(rig.until("t runs anew", |book| book["begun"] == 3).await["collisions"], 0);
    assert!(rig.status("a")["outputs"]["t"]["bytes"].as_u64().unwrap() >= before);
    assert_eq!(rig.status("a")["input"]["reconnects"], began);
}

#[tokio::test]
async fn a_pattern_makes_an_instance_of_each_name_with_outputs_of_its_own() {
    let rig = Rig::new();
    let outcome =
        rig.apply(json!({ "p": flow("in/*", json!({ "t": { "store": "book://of-{match}" } })) })).await;
    assert_eq!(outcome.errors.len(), 0, "{outcome:?}");
    rig.counts_on("of-one").await;
    rig.counts_on("of-two").await;
    let instances = rig.status("p")["instances"].clone();
    assert_eq!((&instances["active"], &instances["refused"]), (&json!(2), &json!(1)));
    assert_eq!(instances["list"][1]["outputs"]["t"]["url"], "book://of-two");
    rig.apply(json!({})).await;
    rig.until("its tallies have ended", |book| book["writing"] == 0).await;
}

#[tokio::test]
async fn methods_messages_properties_numbers_and_metrics_of_the_service_are_those_of_the_module() {
    let rig = Rig::new();
    let document = json!({
        "drawer": { "size": 7 }, "flows": { "a": flow("a", json!({ "t": { "store": "book://a" } })) }
    });
    assert_eq!(rig.apply_document(document).await.errors.len(), 0);
    assert_eq!(rig.book().await["drawer"], 7);
    rig.counts_on("a").await;
    assert!(rig.running.status()["summary"]["tallied"].as_u64() > Some(0));
    assert_eq!(rig.running.status()["summary"]["flows"], 1);
    let families = rig.running.metrics();
    assert!(families.iter().any(|family| family.name() == "own_tallied"));
    assert!(families.iter().any(|family| family.name() == "av_output_bytes_total"));
    assert!(rig.running.wants_inputs());
    rig.running.input("notes", json!({ "x": 1 })).await;
    assert_eq!(rig.book().await["messages"], json!([["notes", { "x": 1 }]]));
    assert!(rig.running.method("noSuchMethod", Value::Null).await.is_none());

    let outcome = rig.apply_document(json!({ "drawer": { "size": 10 } })).await;
    assert_eq!(outcome.errors["_module"], "drawer.size: expected a whole number from 1 to 9, got 10");
    assert_eq!(rig.book().await["drawer"], 3);
}

#[tokio::test]
async fn the_services_own_properties_and_flows_are_there_after_a_start_without_a_document() {
    let rig = Rig::new();
    let document = json!({
        "drawer": { "size": 8 }, "flows": { "a": flow("a", json!({ "t": { "store": "book://a" } })) }
    });
    rig.apply_document(document).await;
    rig.running.shutdown().await;
    let running = Rig::start(&rig.state);
    assert!(running.restore().await);
    let rig = Rig { running, ..rig };
    assert_eq!(rig.book().await["drawer"], 8);
    rig.counts_on("a").await;
}

#[tokio::test]
async fn what_replaces_an_endpoint_that_ends_slowly_waits_for_it_and_everything_else_goes_on() {
    let rig = Rig::new();
    let slow = |solo: bool| flow("a", json!({ "t": { "store": "book://t", "slow": true, "solo": solo } }));
    let other = flow("b", json!({ "u": { "store": "book://u" } }));
    rig.apply(json!({ "a": slow(false), "b": other })).await;
    rig.counts_on("t").await;
    rig.method("holdEnds", json!(true)).await;

    // A change, and a restart, and the flow gone and there again: one after the other, while the first still ends.
    rig.apply(json!({ "a": slow(true), "b": other })).await;
    let error = rig.status("a")["outputs"]["t"]["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.starts_with("flows.a.outputs.t: what ran here before has not ended yet"), "{error}");
    rig.method("restartFlow", json!({ "flow": "a" })).await;
    rig.apply(json!({ "b": other })).await;
    rig.apply(json!({ "a": slow(false), "b": other })).await;
    rig.counts_on("u").await;
    let book = rig.book().await;
    assert_eq!((&book["begun"], &book["writing"]), (&json!(2), &json!(2)), "{book}");

    rig.method("holdEnds", json!(false)).await;
    let book = rig.until("the last one wanted runs", |book| book["begun"] == 3).await;
    assert_eq!(book["collisions"], 0);
    rig.counts_on("t").await;
    assert_eq!(rig.status("a")["outputs"]["t"]["error"], Value::Null);
}

#[tokio::test]
async fn an_instance_that_comes_back_waits_for_the_one_of_its_name_that_retires() {
    let rig = Rig::new();
    let pattern = |path: &str| flow(path, json!({ "t": { "store": "book://{match}", "slow": true } }));
    rig.apply(json!({ "p": pattern("in/*") })).await;
    rig.counts_on("one").await;
    rig.method("holdEnds", json!(true)).await;
    rig.method("restartFlow", json!({ "flow": "p" })).await;
    rig.until("both are open again", |_| rig.status("p")["instances"]["active"] == 2).await;
    assert_eq!(rig.book().await["begun"], 2);
    let instance = rig.status("p")["instances"]["list"][0]["outputs"]["t"].clone();
    assert!(
        instance["error"].as_str().is_some_and(|error| error.contains("has not ended yet")),
        "{instance}"
    );
    rig.method("holdEnds", json!(false)).await;
    let book = rig.until("both run again", |book| book["begun"] == 4).await;
    assert_eq!(book["collisions"], 0);
    rig.counts_on("two").await;
}

#[tokio::test]
async fn a_stop_waits_for_slow_endpoints_and_for_those_of_flows_that_are_gone() {
    let rig = Rig::new();
    let slow = |path: &str, name: &str| {
        flow(path, json!({ "t": { "store": format!("book://{name}"), "slow": true } }))
    };
    rig.apply(json!({ "a": slow("a", "a"), "b": slow("b", "b") })).await;
    rig.counts_on("a").await;
    rig.counts_on("b").await;
    rig.method("holdEnds", json!(true)).await;
    rig.apply(json!({ "a": slow("a", "a") })).await;
    let mut ending = std::pin::pin!(rig.running.shutdown());
    assert!(futures_util::poll!(&mut ending).is_pending());
    assert_eq!(rig.book().await["writing"], 2);
    rig.method("holdEnds", json!(false)).await;
    ending.await;
    let book = rig.book().await;
    assert_eq!((&book["writing"], &book["isOver"]), (&json!(0), &json!(true)));
}
