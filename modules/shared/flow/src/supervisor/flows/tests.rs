use std::net::SocketAddr;

use av_media::Frame;
use serde_json::json;

use super::*;
use crate::ingest::Instances;
use crate::net::tests::context;
use crate::rtmp;
use crate::rtmp::guest::Guest;
use crate::rtmp::peer::{live, soon};
use crate::supervisor::flow::Body;
use crate::supervisor::line::Line;
use crate::supervisor::pattern;

/// A module without a process around it, whose state outlives it.
struct Rig {
    running: Arc<Supervisor>,
    address: SocketAddr,
    state: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        // Nobody else is given this port so soon.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let state = tempfile::tempdir().unwrap();
        Self { running: Self::start(&state), address, state }
    }

    fn start(state: &tempfile::TempDir) -> Arc<Supervisor> {
        let state = av_edge::StateDir::new(state.path().to_owned());
        let flows = Flows::new("tester").input(rtmp::LISTEN).output(rtmp::SERVE).output(rtmp::PUSH);
        flows.supervisor(Context { state, ..context([]) })
    }

    /// The module ends and starts again.
    async fn restarted(self) -> Self {
        self.running.shutdown().await;
        let running = Self::start(&self.state);
        assert!(running.restore().await);
        Self { running, ..self }
    }

    /// `rtmp://ADDRESS/PATH`.
    fn at(&self, path: &str) -> String {
        format!("rtmp://{}/{path}", self.address)
    }

    /// A flow that listens on a path and serves there.
    fn flow(&self, path: &str) -> Value {
        json!({ "input": { "listen": self.at(path) }, "outputs": { "out": { "serve": self.at(path) } } })
    }

    async fn apply(&self, version: i64, flows: Value) -> Outcome {
        let desired = json!({ "$version": version, "flows": flows });
        self.running.apply(desired.as_object().unwrap().clone()).await
    }

    /// A pattern flow's listening, and its instances.
    fn instances(&self, flow: &str) -> Arc<pattern::Shared> {
        match &self.running.present().flows[flow].body {
            Body::Pattern(pattern) => pattern.shared.clone(),
            Body::Line(_) => panic!("not a pattern"),
        }
    }

    /// A flow as a document has it.
    fn config(&self, flow: Value) -> Arc<FlowConfig> {
        let document = json!({ "flows": { "f": flow } });
        let parsed = parse(document.as_object().unwrap(), &self.running.supports);
        assert_eq!(parsed.errors, BTreeMap::new());
        parsed.flows["f"].clone()
    }

    /// Places where endpoints run or end.
    fn places(&self) -> Vec<String> {
        let mut places: Vec<_> =
            self.running.environment.places.taken().iter().map(|ended| ended.place().to_owned()).collect();
        places.sort();
        places
    }

    fn status(&self, flow: &str) -> Value {
        self.running.status()["flows"][flow].clone()
    }

    async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        soon(what, async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

/// Times of frames.
fn times(frames: &[Frame]) -> Vec<i64> {
    frames.iter().map(|frame| frame.dts.millis()).collect()
}

#[tokio::test]
async fn a_change_of_one_flow_costs_neither_another_flow_nor_its_own_other_outputs_a_frame() {
    let rig = Rig::new();
    let (a, b) = (rig.flow("live/a"), rig.flow("live/b"));
    assert_eq!(rig.apply(1, json!({ "a": a, "b": b })).await.status, ConfigStatus::Applied);
    let mut publisher = Guest::publish_soon(rig.address, "live/a").await;
    let mut player = Guest::play_soon(rig.address, "live/a").await;
    let frames = live(0..2000);
    let mut changed = a.clone();
    changed["outputs"]["more"] = json!({ "serve": rig.at("more/a") });
    let mut held = a.clone();
    held["input"]["holdSeconds"] = json!(5);
    let documents = [
        json!({ "a": held, "b": b }),
        json!({ "a": changed, "b": b }),
        json!({ "a": a }),
        json!({ "a": a, "b": { "input": { "listen": rig.at("live/c") } } }),
        json!({ "a": { "input": { "lisen": "" } }, "b": b }),
        json!({ "a": a, "b": b }),
    ];
    let mut seen = Vec::new();
    for (index, (frames, document)) in frames.chunks(20).zip(&documents).enumerate() {
        publisher.send(frames).await;
        rig.apply(index as i64 + 2, document.clone()).await;
        seen.extend(player.frames(frames.len()).await);
    }
    assert_eq!(seen, frames);
}

#[tokio::test]
async fn a_flow_that_breaks_keeps_its_last_good_version_and_says_which_also_after_a_restart() {
    let rig = Rig::new();
    rig.apply(3, json!({ "a": rig.flow("live/a") })).await;
    let bad = json!({ "a": { "input": { "listen": rig.at("live/a") }, "outptus": {} } });
    let outcome = rig.apply(4, bad.clone()).await;
    assert_eq!((outcome.status, outcome.kept), (ConfigStatus::Rejected, 1));
    assert!(outcome.errors["a"].starts_with("flows.a.outptus: "), "{outcome:?}");
    assert_eq!(rig.status("a")["usingVersion"], 3);

    let rig = rig.restarted().await;
    Guest::publish_soon(rig.address, "live/a").await;
    let outcome = rig.apply(4, bad).await;
    assert_eq!(outcome.kept, 1);
    assert_eq!(rig.status("a")["usingVersion"], 3);
    rig.apply(5, json!({ "a": rig.flow("live/a") })).await;
    assert_eq!(rig.status("a")["usingVersion"], Value::Null);
}

#[tokio::test]
async fn a_document_of_which_every_flow_has_a_name_that_cannot_be_a_key_is_rejected() {
    let rig = Rig::new();
    for name in ["_a", "\u{e4}"] {
        let outcome = rig.apply(1, json!({ name: rig.flow("live/a") })).await;
        assert_eq!((outcome.status, outcome.usable), (ConfigStatus::Rejected, 0), "{outcome:?}");
        // That was no good configuration for the next start.
        let again = Rig::start(&rig.state);
        assert!(!again.restore().await);
    }
    let outcome = rig.apply(2, json!({ "_a": rig.flow("live/a"), "b": rig.flow("live/b") })).await;
    assert_eq!((outcome.status, outcome.usable), (ConfigStatus::Partial, 1), "{outcome:?}");
}

#[tokio::test]
async fn a_document_without_flows_is_a_last_good_configuration_and_versions_go_on_behind_it() {
    let rig = Rig::new();
    assert_eq!(rig.apply(1, json!({})).await.status, ConfigStatus::Applied);
    let rig = rig.restarted().await;
    assert_eq!(rig.running.newest_version(), None);
    rig.apply(2, json!({ "a": rig.flow("live/a"), "b": rig.flow("live/b") })).await;
    rig.apply(3, json!({ "a": { "input": {} }, "b": rig.flow("live/b") })).await;
    let rig = rig.restarted().await;
    assert_eq!(rig.running.newest_version(), Some(3));
    rig.apply(4, json!({ "a": { "input": {} }, "b": rig.flow("live/b") })).await;
    assert_eq!(rig.status("a")["usingVersion"], 2);
}

#[tokio::test]
async fn an_auth_that_cannot_be_read_is_an_error_of_its_endpoint_while_that_has_it() {
    let rig = Rig::new();
    let auth = json!({ "key": { "env": "AV_NO_SUCH_SECRET" } });
    let mut locked = rig.flow("live/entrance");
    locked["input"]["auth"] = auth.clone();
    locked["outputs"]["out"]["auth"] = auth.clone();
    let pattern = json!({ "input": { "listen": rig.at("cams/*"), "auth": auth } });
    rig.apply(1, json!({ "a": locked, "cams": pattern })).await;
    let error = |flow: &str, pointer: &str| {
        let error = rig.status(flow).pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        error.unwrap_or_default()
    };
    let unset = "environment variable AV_NO_SUCH_SECRET is not set: nobody is let in";
    let is_said = |flow: &str, pointer: &str| error(flow, pointer).contains(unset);
    rig.until("both ends say so", || is_said("a", "/input/error") && is_said("a", "/outputs/out/error"))
        .await;
    rig.until("so does a pattern", || is_said("cams", "/input/error")).await;
    assert!(error("a", "/outputs/out/error").starts_with("flows.a.outputs.out.auth.key: "));
    assert_eq!(rig.status("a")["state"], "waiting");
    let refused = Guest::publish(rig.address, "live/entrance?key=0000").await.err().unwrap();
    assert!(refused.contains("the key can't be checked now") && !refused.contains("AV_NO_SUCH"), "{refused}");
    let refused = Guest::play(rig.address, "live/entrance?key=0000").await.err().unwrap();
    assert!(refused.contains("the key can't be checked now") && !refused.contains("AV_NO_SUCH"), "{refused}");

    rig.apply(2, json!({ "a": rig.flow("live/entrance") })).await;
    rig.until("nothing is wrong any more", || error("a", "/input/error").is_empty()).await;
    rig.until("nor with the output", || error("a", "/outputs/out/error").is_empty()).await;
}

#[tokio::test]
async fn a_document_that_is_rejected_as_a_whole_leaves_flows_of_an_older_version_that_say_which() {
    let rig = Rig::new();
    rig.apply(3, json!({ "a": rig.flow("live/a") })).await;
    let desired = json!({ "$version": 4, "schemaVersion": "2.0", "flows": {} });
    let outcome = rig.running.apply(desired.as_object().unwrap().clone()).await;
    assert_eq!((outcome.status, outcome.kept), (ConfigStatus::Rejected, 1));
    assert_eq!(rig.status("a")["usingVersion"], 3);
    rig.apply(5, json!({ "a": rig.flow("live/a") })).await;
    assert_eq!(rig.status("a")["usingVersion"], Value::Null);
}

#[tokio::test]
async fn a_fault_beside_the_flows_does_not_reject_the_document() {
    let rig = Rig::new();
    let desired = json!({ "flovs": {}, "flows": {} });
    let outcome = rig.running.apply(desired.as_object().unwrap().clone()).await;
    assert_eq!(outcome.status, ConfigStatus::Partial, "{outcome:?}");
}

#[tokio::test]
async fn a_flow_that_never_was_good_is_in_errors_only() {
    let rig = Rig::new();
    let outcome = rig.apply(1, json!({ "a": rig.flow("live/a"), "b": { "input": {} } })).await;
    assert_eq!((outcome.status, outcome.usable, outcome.kept), (ConfigStatus::Partial, 1, 0));
    assert_eq!(outcome.errors.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(rig.status("b"), Value::Null);
    assert_eq!(rig.running.reported()["summary"]["flows"], 1);
}

#[tokio::test]
async fn peers_are_told_before_a_stop_is_over() {
    let rig = Rig::new();
    rig.apply(1, json!({ "a": rig.flow("live/a") })).await;
    let mut publisher = Guest::publish_soon(rig.address, "live/a").await;
    let mut player = Guest::play_soon(rig.address, "live/a").await;
    publisher.send(&live(0..400)).await;
    player.frames(20).await;
    let leaving = tokio::spawn(async move {
        let told = tokio::join!(publisher.farewell(), player.farewell());
        drop((publisher, player));
        told
    });
    rig.running.shutdown().await;
    assert_eq!(rig.running.module().listeners.connections(), 0);
    let (publisher, player) = leaving.await.unwrap();
    assert!(publisher.contains("the flow was changed or stopped"), "{publisher}");
    assert_eq!(player, "Ended");
}

#[tokio::test]
async fn an_instance_lives_as_long_as_it_is_published_and_a_stopped_pattern_starts_none() {
    let rig = Rig::new();
    let pattern = json!({
        "input": { "listen": rig.at("live/*"), "onPublisherLoss": "close", "maxInstances": 2 },
        "outputs": { "out": { "serve": rig.at("live/*") } },
    });
    rig.apply(1, json!({ "p": pattern })).await;
    let mut one = Guest::publish_soon(rig.address, "live/one").await;
    let two = Guest::publish_soon(rig.address, "live/two").await;
    let refused = Guest::publish(rig.address, "live/three").await.err().unwrap();
    assert!(refused.contains("maxInstances (2) is reached"), "{refused}");
    assert_eq!(rig.status("p")["instances"]["active"], 2);
    let told = status::method(&rig.running, "getStatus", Value::Null).await.unwrap().body;
    let listed = told["flows"]["p"]["instances"]["list"].as_array().unwrap();
    assert_eq!(listed.iter().map(|one| &one["match"]).collect::<Vec<_>>(), ["one", "two"]);
    let whole =
        status::method(&rig.running, "getStatus", json!({ "limit": 1.0, "offset": 0.0 })).await.unwrap();
    assert_eq!(whole.status, 200);
    let typo = status::method(&rig.running, "getStatus", json!({ "flows": "p" })).await.unwrap();
    assert_eq!(typo.status, 400);
    drop(two);
    let tick = |seconds| {
        let now = Instant::now() + Duration::from_secs(seconds);
        rig.running.present().flows.get_mut("p").unwrap().tick(now, 1.0);
    };
    rig.until("the publisher is gone", || {
        tick(0);
        rig.status("p")["instances"]["active"] == 1
    })
    .await;
    let instances = rig.instances("p");
    rig.apply(2, json!({})).await;
    let told = one.farewell().await;
    assert!(told.contains("the flow was changed or stopped"), "{told}");
    // Whoever was being let in at that moment.
    assert!(instances.open("late").is_err());
}

#[tokio::test]
async fn an_instance_that_nobody_uses_makes_room_for_another_name() {
    let rig = Rig::new();
    let pattern = json!({
        "input": { "listen": rig.at("live/*"), "maxInstances": 2 },
        "outputs": { "out": { "serve": rig.at("live/*") } },
    });
    rig.apply(1, json!({ "p": pattern })).await;
    let watched = Guest::publish_soon(rig.address, "live/watched").await;
    let player = Guest::play_soon(rig.address, "live/watched").await;
    let left = Guest::publish_soon(rig.address, "live/left").await;
    drop((watched, left));
    // Held for whoever comes back, until another name needs the room; who plays keeps theirs.
    let next = soon("there is room", async {
        loop {
            let past = Instant::now() - Duration::from_secs(2);
            rig.running.present().flows.get_mut("p").unwrap().tick(past, 1.0);
            if let Ok(next) = Guest::publish(rig.address, "live/next").await {
                break next;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let listed = rig.status("p")["instances"].to_string();
    assert!(listed.contains("\"active\":2"), "{listed}");
    let refused = Guest::publish(rig.address, "live/more").await.err().unwrap();
    assert!(refused.contains("maxInstances (2) is reached"), "{refused}");
    drop(next);
    drop(player);
}

#[tokio::test]
async fn an_instance_is_not_taken_away_from_a_publisher_that_is_being_let_in() {
    let rig = Rig::new();
    let pattern = json!({
        "input": { "listen": rig.at("live/*"), "onPublisherLoss": "close" },
        "outputs": { "out": { "serve": rig.at("live/*") } },
    });
    rig.apply(1, json!({ "p": pattern })).await;
    let instances = rig.instances("p");
    let input = instances.open("one").unwrap();
    instances.tick(Instant::now(), 1.0);
    assert!(!input.cancel.is_cancelled());
    let publisher = input.stream.publisher(crate::stream::Kick::default());
    instances.tick(Instant::now() + Duration::from_secs(2), 1.0);
    assert!(!input.cancel.is_cancelled());
    drop(publisher);
    instances.tick(Instant::now() + Duration::from_secs(3), 1.0);
    instances.tick(Instant::now() + Duration::from_secs(4), 1.0);
    assert!(input.cancel.is_cancelled());
}

#[tokio::test]
async fn instances_that_are_too_long_for_an_answer_come_in_pages_and_none_is_left_out() {
    let rig = Rig::new();
    let output = |index: u32| (format!("out{index}"), json!({ "serve": rig.at(&format!("out{index}/*")) }));
    let outputs: Map<_, _> = (0..8).map(output).collect();
    let pattern = json!({ "input": { "listen": rig.at("live/*") }, "outputs": outputs });
    rig.apply(1, json!({ "p": pattern })).await;
    let instances = rig.instances("p");
    let names: Vec<String> = (100..200).map(|index| format!("instance-{index}")).collect();
    for name in &names {
        instances.open(name).unwrap();
    }
    let asked = async |payload: Value| {
        let answer = status::method(&rig.running, "getStatus", payload).await.unwrap().body;
        assert!(answer.to_string().len() <= 110 * 1024);
        let instances = answer["flows"]["p"]["instances"].clone();
        let list: Vec<String> = instances["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["match"].as_str().unwrap().to_owned())
            .collect();
        (list, instances["next"].as_u64())
    };
    let (first, next) = asked(Value::Null).await;
    assert!((1..50).contains(&first.len()), "{}", first.len());
    let (mut listed, mut next) = (first, next);
    while let Some(offset) = next {
        let (more, after) = asked(json!({ "flow": "p", "offset": offset, "limit": 1000 })).await;
        assert!(!more.is_empty());
        listed.extend(more);
        next = after;
    }
    assert_eq!(listed, names);
}

#[tokio::test]
async fn a_flow_that_is_too_long_for_an_answer_says_of_every_output_how_it_does() {
    let rig = Rig::new();
    let name = |index: usize| format!("{index:0>64}");
    let output = |index: usize| {
        let target = format!("rtmp://{}.example/{}/key", "h".repeat(60), "p".repeat(600));
        (name(index), json!({ "push": target }))
    };
    let outputs: Map<_, _> = (0..256).map(output).collect();
    rig.apply(1, json!({ "f": { "input": { "listen": rig.at("live/f") }, "outputs": outputs } })).await;
    for payload in [Value::Null, json!({ "flow": "f" })] {
        let answer = status::method(&rig.running, "getStatus", payload).await.unwrap();
        assert!(answer.body.to_string().len() <= 120 * 1024, "{}", answer.body.to_string().len());
        let flow = &answer.body["flows"]["f"];
        assert_eq!(flow["truncated"], true);
        assert!((0..256).all(|index| flow["outputs"][name(index)]["state"].is_string()));
    }
}

#[tokio::test]
async fn more_instances_send_nobody_away_and_another_key_does() {
    let rig = Rig::new();
    let pattern = |most: u32, key: &str| {
        json!({ "p": {
            "input": { "listen": rig.at("live/*"), "maxInstances": most, "auth": { "key": key } },
            "outputs": { "out": { "serve": rig.at("live/*") } },
        } })
    };
    rig.apply(1, pattern(1, "old")).await;
    let mut publisher = Guest::publish_soon(rig.address, "live/one?key=old").await;
    let mut player = Guest::play_soon(rig.address, "live/one").await;
    rig.apply(2, pattern(2, "old")).await;
    publisher.send(&live(0..400)).await;
    assert_eq!(times(&player.frames(2).await), [0, 10]);
    rig.apply(3, pattern(2, "new")).await;
    let told = publisher.farewell().await;
    assert!(told.contains("the flow was changed or stopped"), "{told}");
}

#[tokio::test]
async fn a_new_flow_does_not_take_the_address_of_one_that_runs() {
    let rig = Rig::new();
    rig.apply(1, json!({ "b": rig.flow("live/x") })).await;
    let mut publisher = Guest::publish_soon(rig.address, "live/x").await;
    let mut player = Guest::play_soon(rig.address, "live/x").await;
    let outcome = rig.apply(2, json!({ "a": rig.flow("live/x"), "b": rig.flow("live/x") })).await;
    assert!(outcome.errors["b"].contains("flows.a.input.listen"), "{outcome:?}");
    publisher.send(&live(0..400)).await;
    assert_eq!(times(&player.frames(2).await), [0, 10]);
}

#[tokio::test]
async fn an_output_that_is_changed_counts_on() {
    let rig = Rig::new();
    let mut flow = rig.flow("live/a");
    rig.apply(1, json!({ "a": flow })).await;
    let mut publisher = Guest::publish_soon(rig.address, "live/a").await;
    let mut player = Guest::play_soon(rig.address, "live/a").await;
    publisher.send(&live(0..400)).await;
    player.frames(20).await;
    let bytes = || rig.status("a")["outputs"]["out"]["bytes"].as_u64().unwrap();
    rig.until("bytes are counted", || bytes() > 0).await;
    let before = bytes();
    flow["outputs"]["out"]["maxClients"] = 7.into();
    rig.apply(2, json!({ "a": flow })).await;
    assert_eq!(player.farewell().await, "Ended");
    drop(player);
    assert!(bytes() >= before);
    rig.until("the player has left", || rig.status("a")["outputs"]["out"]["clients"] == 0).await;
}

#[tokio::test]
async fn another_content_of_an_input_sends_no_publisher_away_and_what_is_let_in_again_is_played() {
    for (path, listen) in [("live/a", "live/a"), ("live/a", "live/*")] {
        let rig = Rig::new();
        let flow = |content: &str| {
            let endpoint = json!({ "serve": rig.at(listen) });
            json!({ "a": {
                "input": { "listen": rig.at(listen), "content": content }, "outputs": { "out": endpoint },
            } })
        };
        rig.apply(1, flow("audioOnly")).await;
        let mut publisher = Guest::publish_soon(rig.address, path).await;
        publisher.send(&live(0..400)).await;
        rig.apply(2, flow("audioVideo")).await;
        let mut player = Guest::play_soon(rig.address, path).await;
        publisher.send(&live(400..2400)).await;
        let frames = player.frames(60).await;
        assert!(frames.iter().any(|frame| frame.kind == av_media::Kind::Video), "{listen}");
        rig.apply(3, flow("videoOnly")).await;
        publisher.send(&live(2400..2800)).await;
        assert_eq!(rig.running.present().flows["a"].counters().reconnects, 0, "{listen}");
    }
}

#[tokio::test]
async fn a_restart_sets_no_counter_back_and_is_no_time_of_being_disabled() {
    for (path, listen) in [("live/a", "live/a"), ("live/a", "live/*")] {
        let rig = Rig::new();
        rig.apply(1, json!({ "a": rig.flow(listen) })).await;
        let mut publisher = Guest::publish_soon(rig.address, path).await;
        let mut player = Guest::play_soon(rig.address, path).await;
        publisher.send(&live(0..400)).await;
        player.frames(20).await;
        let counters = || rig.running.present().flows["a"].counters();
        let is_sent =
            || counters().outputs["out"].bytes > 0 && counters().input_frames.iter().sum::<u64>() == 20;
        rig.until("all is counted", is_sent).await;
        let before = counters();
        // What the clock of a second sees in the middle of a restart.
        {
            let mut present = rig.running.present();
            let flow = present.flows.get_mut("a").unwrap();
            flow.stop();
            assert_ne!(flow.state().as_str(), "disabled");
        }
        rig.running.restart("a").await.unwrap();
        let after = counters();
        assert_eq!(
            (after.input_frames, after.input_bytes),
            (before.input_frames, before.input_bytes),
            "{listen}"
        );
        assert!(after.outputs["out"].bytes >= before.outputs["out"].bytes, "{listen}");
        Guest::publish_soon(rig.address, path).await.send(&live(0..400)).await;
        rig.until("it counts on", || counters().input_frames.iter().sum::<u64>() == 40).await;
    }
}

#[tokio::test]
async fn a_flow_that_is_switched_off_and_on_or_made_a_pattern_counts_on() {
    let rig = Rig::new();
    let mut flow = rig.flow("live/a");
    rig.apply(1, json!({ "a": flow })).await;
    let frames = || rig.running.present().flows["a"].counters().input_frames.iter().sum::<u64>();
    let mut publisher = Guest::publish_soon(rig.address, "live/a").await;
    publisher.send(&live(0..400)).await;
    rig.until("all is counted", || frames() == 20).await;
    flow["enabled"] = false.into();
    rig.apply(2, json!({ "a": flow })).await;
    assert_eq!((rig.status("a")["state"].clone(), frames()), (json!("disabled"), 20));
    assert_eq!(rig.status("a")["input"], Value::Null);
    flow["enabled"] = true.into();
    rig.apply(3, json!({ "a": flow })).await;
    let mut publisher = Guest::publish_soon(rig.address, "live/a").await;
    publisher.send(&live(0..400)).await;
    rig.until("it counts on", || frames() == 40).await;
    rig.apply(4, json!({ "a": rig.flow("live/*") })).await;
    let mut publisher = Guest::publish_soon(rig.address, "live/b").await;
    publisher.send(&live(0..400)).await;
    rig.until("it still counts on", || frames() == 60).await;
}

#[tokio::test]
async fn an_instance_that_starts_while_a_document_is_applied_is_of_that_document() {
    let rig = Rig::new();
    let pattern = |outputs: Value| json!({ "input": { "listen": rig.at("live/*") }, "outputs": outputs });
    let push = |path: &str| json!({ "push": format!("rtmp://127.0.0.1:9/{path}/{{match}}") });
    let old = pattern(json!({ "changed": push("old"), "gone": push("gone") }));
    let new = pattern(json!({ "changed": push("new"), "added": push("added") }));
    rig.apply(1, json!({ "f": old })).await;
    let (instances, new) = (rig.instances("f"), rig.config(new));
    instances.open("early").unwrap();
    // What a document does, with somebody who comes in between.
    join(instances.stop_changed_outputs(&new)).await;
    instances.open("late").unwrap();
    instances.configure(new.clone());
    let runs = |name: &str, line: &Line| {
        let outputs: BTreeMap<_, _> =
            line.outputs.iter().map(|(key, output)| (key.clone(), output.config.clone())).collect();
        assert!(outputs == new.instance_outputs(name), "{name}");
    };
    instances.look(runs);
    let outputs = |rig: &Rig| -> Vec<String> {
        rig.places().into_iter().filter(|place| place.contains("outputs")).collect()
    };
    let expected = [
        "flows.f.outputs.added (early)",
        "flows.f.outputs.added (late)",
        "flows.f.outputs.changed (early)",
        "flows.f.outputs.changed (late)",
    ];
    rig.until("only those of the new document are left", || outputs(&rig) == expected).await;
}

#[tokio::test]
async fn an_output_that_runs_otherwise_than_wanted_is_replaced_and_one_that_is_not_wanted_ends() {
    let rig = Rig::new();
    let push = |path: &str| json!({ "push": format!("rtmp://127.0.0.1:9/{path}/x") });
    let flow = |outputs: Value| json!({ "input": { "listen": rig.at("live/a") }, "outputs": outputs });
    let old = rig.config(flow(json!({ "changed": push("old"), "gone": push("gone") })));
    let new = rig.config(flow(json!({ "changed": push("new") })));
    let mut line = Line::new(rig.running.environment.clone(), &old, None);
    line.start_outputs(&old.outputs);
    rig.until("both run", || rig.places().len() == 2).await;
    let first = rig.running.environment.places.taken();
    line.start_outputs(&new.outputs);
    for ended in first {
        soon("what ran before ends", ended.wait()).await;
    }
    assert!(line.outputs["changed"].config == new.outputs["changed"]);
    assert_eq!(rig.places(), ["flows.f.outputs.changed"]);
}

#[tokio::test]
async fn a_stop_waits_for_no_document_and_no_document_starts_anything_after_it() {
    let rig = Rig::new();
    rig.apply(1, json!({ "a": rig.flow("live/a") })).await;
    let mut publisher = Guest::publish_soon(rig.address, "live/a").await;
    publisher.send(&live(0..400)).await;
    // Somebody applies a document, and another one waits for that, and a restart.
    let applying = rig.running.applying.lock().await;
    let mut document = std::pin::pin!(rig.apply(2, json!({ "a": rig.flow("live/b") })));
    assert!(futures_util::poll!(&mut document).is_pending());
    let mut restart = std::pin::pin!(rig.running.restart("a"));
    assert!(futures_util::poll!(&mut restart).is_pending());
    let leaving = tokio::spawn(async move { publisher.farewell().await });
    soon("the stop", rig.running.shutdown()).await;
    let told = leaving.await.unwrap();
    assert!(told.contains("the flow was changed or stopped"), "{told}");
    assert_eq!(rig.places(), [""; 0]);
    drop(applying);
    let outcome = document.await;
    assert_eq!(outcome.status, ConfigStatus::Rejected);
    assert_eq!(outcome.errors["_module"], "not applied: the module is stopping");
    assert_eq!(restart.await, Err(NotRestarted::Stopping));
    assert!(!rig.running.restore().await);
    assert_eq!(rig.places(), [""; 0]);
}

#[tokio::test]
async fn a_document_that_a_stop_overtakes_starts_nothing_and_is_not_remembered() {
    let rig = Rig::new();
    rig.apply(1, json!({ "a": rig.flow("live/a") })).await;
    // Up to where it waits for what it has stopped.
    let mut document =
        std::pin::pin!(rig.apply(2, json!({ "a": rig.flow("live/b"), "b": rig.flow("live/c") })));
    assert!(futures_util::poll!(&mut document).is_pending());
    let (outcome, ()) = tokio::join!(document, rig.running.shutdown());
    assert_eq!(outcome.status, ConfigStatus::Rejected, "{outcome:?}");
    assert_eq!(rig.places(), [""; 0]);
    let running = Rig::start(&rig.state);
    assert!(running.restore().await);
    assert_eq!(running.present().configs().keys().collect::<Vec<_>>(), ["a"]);
    running.shutdown().await;
}

#[tokio::test]
async fn an_output_that_leaves_the_document_takes_all_it_counted_with_it() {
    let rig = Rig::new();
    let flow = |listen: &str, with_more: bool| {
        let mut flow = rig.flow(listen);
        if with_more {
            flow["outputs"]["more"] = json!({ "serve": rig.at(&format!("more/{listen}")) });
        }
        json!({ "a": flow })
    };
    let counted =
        || -> Vec<String> { rig.running.present().flows["a"].counters().outputs.keys().cloned().collect() };
    rig.apply(1, flow("live/*", true)).await;
    // One instance is gone, and another one runs.
    let instances = rig.instances("a");
    let gone = instances.open("gone").unwrap();
    instances.tick(Instant::now(), 1.0);
    instances.tick(Instant::now() + Duration::from_secs(61), 1.0);
    assert!(gone.cancel.is_cancelled());
    instances.open("runs").unwrap();
    assert_eq!(counted(), ["more", "out"]);
    rig.apply(2, flow("live/*", false)).await;
    assert_eq!(counted(), ["out"]);

    // The same across a change between a pattern and one path.
    rig.apply(3, flow("live/*", true)).await;
    instances.open("other").unwrap();
    rig.apply(4, flow("live/x", true)).await;
    assert_eq!(counted(), ["more", "out"]);
    rig.apply(5, flow("live/x", false)).await;
    assert_eq!(counted(), ["out"]);
}
