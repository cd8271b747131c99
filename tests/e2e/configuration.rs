//! The document: defaults, names, patterns, what is wrong in it.

use av_tests::clip::Clip;
use av_tests::module::{Module, Setup};
use av_tests::recording::Kind;
use av_tests::rtmp::{Player, Publisher};
use av_tests::{needs, port};
use serde_json::{Value, json};

use crate::{cam, rtmp, twin};

#[test]
fn defaults_hold_where_a_flow_says_nothing_else() {
    needs!(Ffmpeg);
    let port = port::free();
    let url = |name: &str| rtmp(port, &format!("live/{name}"));
    // Of its own application: RTMP clients are asked for a user before they say which stream they mean.
    let copy = rtmp(port, "relayed/copy");
    let mut document = twin(json!({
        "plain": { "input": { "listen": url("plain") }, "outputs": { "viewers": { "serve": url("plain") } } },
        "own": {
            "input": { "listen": url("own"), "content": "audioVideo", "auth": { "key": "another" } },
            "outputs": {
                "viewers": { "serve": url("own"), "maxClients": 2 },
                // What makes no sense for a push passes it by; user and password are for it alone.
                "copy": { "push": copy },
            },
        },
        "copy": { "input": { "listen": copy, "auth": { "username": "relay", "password": "pw-5150" } },
                  "outputs": {} },
    }));
    document["defaults"] = json!({
        "input": { "content": "videoOnly", "auth": { "key": "ordinary" }, "maxInstances": 5 },
        "output": { "maxClients": 1, "join": "live",
                    "credentials": { "username": "relay", "password": "pw-5150" } },
    });
    let splitter = Module::start("rtmp-splitter", &document);
    splitter.wait_value("/config/status", "applied");

    assert!(Publisher::start(&url("plain")).unwrap().is_err(), "the default key was not asked for");
    let tags = Clip::Plain.tags();
    let _plain = Publisher::to(&format!("{}?key=ordinary", url("plain"))).run_endlessly(tags.clone());
    assert!(
        Publisher::start(&format!("{}?key=ordinary", url("own"))).unwrap().is_err(),
        "the own key replaces"
    );
    let _own = Publisher::to(&format!("{}?key=another", url("own"))).run_endlessly(tags);

    let (plain, own) = (Player::start(&url("plain")), Player::start(&url("own")));
    plain.wait_frames(Kind::Video, 10);
    own.wait_frames(Kind::Video, 10);
    own.wait_frames(Kind::Audio, 1);
    assert_eq!(plain.frames(Kind::Audio), 0, "the default content is videoOnly");
    let second = Player::start(&url("plain"));
    second.wait_end();
    Player::start(&url("own")).wait_frames(Kind::Video, 1);
    splitter.wait_value("/flows/own/outputs/copy/state", "pushing");
    splitter.wait_receiving("copy");
    splitter.wait_value("/flows/copy/input/audio/dropped", "content is videoOnly");
}

#[test]
fn a_mistake_in_defaults_is_told_by_its_path() {
    let url = rtmp(port::free(), "live/cam");
    let mut document = cam(&url, json!({}), json!({}));
    let splitter = Module::start("rtmp-splitter", &document);
    document["defaults"] = json!({ "output": { "batchMilliseconds": 9999 } });
    splitter.set_twin(&document);
    splitter.wait_status("/config/errors", |errors| {
        let errors = errors.as_object().into_iter().flatten();
        errors.into_iter().any(|(_, error)| {
            error.as_str().is_some_and(|text| text.starts_with("defaults.output.batchMilliseconds"))
        })
    });
    // The last good version goes on.
    splitter.wait_value("/flows/cam/state", "waiting");
    let _publisher = Publisher::to(&url);
}

#[test]
fn the_flows_name_stands_in_urls() {
    needs!(Ffmpeg);
    let port = port::free();
    let setup = Setup::new("mp4-source");
    std::fs::copy(Clip::Plain.mp4(), setup.dir().join("lobby.mp4")).unwrap();
    let file = format!("file://{}/{{flow}}.mp4", setup.dir().display());
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "lobby": {
            "input": { "listen": rtmp(port, "{flow}/in") },
            "outputs": { "viewers": { "serve": rtmp(port, "site/{flow}/out") } },
        } })),
    );
    let source = setup
        .twin(&twin(json!({ "lobby": {
            "input": { "read": file }, "outputs": { "splitter": { "push": rtmp(port, "{flow}/in") } },
        } })))
        .start();
    source.wait_value("/flows/lobby/state", "running");
    splitter.wait_value("/flows/lobby/outputs/viewers/url", rtmp(port, "site/lobby/out"));
    Player::start(&rtmp(port, "site/lobby/out")).wait_frames(Kind::Video, 5);
}

#[test]
fn a_disabled_flow_runs_nothing_and_is_there_again_when_enabled() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let mut document = cam(&url, json!({}), json!({}));
    document["flows"]["cam"]["enabled"] = json!(false);
    let splitter = Module::start("rtmp-splitter", &document);
    splitter.wait_value("/flows/cam/state", "disabled");
    splitter.wait_value("/summary/flows", 1);
    assert_eq!(splitter.metrics().sum("av_flow_state", &[("flow", "cam")]), Some(0.0));
    assert!(!matches!(Publisher::start(&url), Ok(Ok(_))), "a disabled flow takes a publisher");

    document["flows"]["cam"]["enabled"] = json!(true);
    splitter.set_twin(&document);
    splitter.wait_value("/flows/cam/state", "waiting");
    let publishing = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    splitter.wait_receiving("cam");
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 1);

    document["flows"]["cam"]["enabled"] = json!(false);
    splitter.set_twin(&document);
    splitter.wait_value("/flows/cam/state", "disabled");
    player.wait_end();
    drop(publishing);
    assert!(!matches!(Publisher::start(&url), Ok(Ok(_))), "a disabled flow takes a publisher");
}

#[test]
fn what_is_wrong_is_told_by_its_path_and_harms_that_flow_alone() {
    needs!(Ffmpeg);
    let port = port::free();
    let url = |name: &str| rtmp(port, &format!("live/{name}"));
    let good =
        |name: &str| json!({ "input": { "listen": url(name) }, "outputs": { "v": { "serve": url(name) } } });
    let with = |name: &str, pointer: &str, value: Value| {
        let mut flow = good(name);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        flow.pointer_mut(parent).unwrap()[key] = value;
        flow
    };
    // Flow, what is changed in it, and the path that the error begins with.
    let bad = [
        ("a", "/inptu", json!({}), "flows.a.inptu"),
        ("b", "/input/idleTimeout", json!(3), "flows.b.input.idleTimeout"),
        ("c", "/input/idleTimeoutSeconds", json!("3"), "flows.c.input.idleTimeoutSeconds"),
        ("d", "/input/idleTimeoutSeconds", json!(0), "flows.d.input.idleTimeoutSeconds"),
        ("e", "/input/listen", json!("rtmp://localhost/live/e"), "flows.e.input.listen"),
        ("f", "/input/listen", json!("rtmp://0.0.0.0:0/live/f"), "flows.f.input.listen"),
        ("g", "/input/listen", json!("rtmp://0.0.0.0/live//g"), "flows.g.input.listen"),
        ("h", "/input/listen", json!("rtmp://u:p@0.0.0.0/live/h"), "flows.h.input.listen"),
        ("i", "/input/pull", json!("rtmp://127.0.0.1/live/i"), "flows.i.input"),
        ("j", "/input/maxInstances", json!(3), "flows.j.input.maxInstances"),
        ("k", "/input/allow", json!(["10.0.0.0/33"]), "flows.k.input.allow"),
        ("l", "/outputs/v/join", json!("late"), "flows.l.outputs.v.join"),
        ("m", "/outputs/v/batchMilliseconds", json!(351), "flows.m.outputs.v.batchMilliseconds"),
        ("n", "/outputs/v/retry", json!({}), "flows.n.outputs.v.retry"),
        ("o", "/outputs/v/serve", json!(7), "flows.o.outputs.v.serve"),
        ("p", "/outputs/_v", json!({ "serve": url("p2") }), "flows.p.outputs._v"),
        ("q", "/outputs/v", json!(null), ""),
        ("r", "/enabled", json!("yes"), "flows.r.enabled"),
        ("s", "/input", json!(null), "flows.s.input"),
        ("t", "/input/auth", json!({ "key": "a", "username": "b", "password": "c" }), "flows.t.input.auth"),
        ("u", "/outputs/v/serve", json!(rtmp(port, "live/good")), "flows.u.outputs.v.serve"),
        ("v", "/input/maxMessageKilobytes", json!(63), "flows.v.input.maxMessageKilobytes"),
        ("w", "/input/trackWaitMilliseconds", json!(10_001), "flows.w.input.trackWaitMilliseconds"),
        ("x", "/input/holdSeconds", json!(-1), "flows.x.input.holdSeconds"),
        ("y", "/input/onPublisherLoss", json!("Hold"), "flows.y.input.onPublisherLoss"),
        ("z", "/outputs/v/credentials", json!({ "key": "k" }), "flows.z.outputs.v.credentials"),
    ];
    let mut flows: serde_json::Map<String, Value> = bad
        .iter()
        .map(|(name, pointer, value, _)| ((*name).to_owned(), with(name, pointer, value.clone())))
        .collect();
    flows.insert("good".into(), good("good"));
    flows.insert("bad name".into(), good("space"));
    let mut document = twin(Value::Object(flows));
    document["$note"] = json!("ignored");
    document["flows"]["$note"] = json!("ignored");
    let splitter = Module::start("rtmp-splitter", &document);
    splitter.wait_value("/config/status", "partial");
    let status = splitter.status();
    let errors = status["config"]["errors"].as_object().expect("errors");
    for (name, pointer, value, path) in &bad {
        let error = errors.get(*name).and_then(Value::as_str).unwrap_or_default();
        // An output that is null is absent: nothing is wrong with that.
        assert!(
            error.starts_with(path) && error.is_empty() == path.is_empty(),
            "{pointer} {value}: {error:?}"
        );
        assert!(error.len() <= 512, "{error}");
        // A flow that never was good is in the errors only.
        assert_eq!(status["flows"].get(*name).is_none(), !path.is_empty(), "{name}: {error}");
    }
    // A name that can be no key is the module's to report.
    assert!(errors["_module"].as_str().unwrap().contains("bad name"), "{}", errors["_module"]);
    assert!(errors.keys().all(|key| !key.contains([' ', '.', '$', '#'])), "{errors:?}");
    // The one that clashes names both.
    assert!(errors["u"].as_str().unwrap().contains("good"), "{}", errors["u"]);

    let _publishing = Publisher::to(&url("good")).run_endlessly(Clip::Plain.tags());
    Player::start(&url("good")).wait_frames(Kind::Video, 5);
    splitter.wait_value("/summary/running", 1);
}

#[test]
fn a_pattern_takes_proper_names_and_leaves_exact_ones_to_their_flow() {
    needs!(Ffmpeg);
    let port = port::free();
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({
            "all": { "input": { "listen": rtmp(port, "cams/*") }, "outputs": { "v": { "serve": rtmp(port, "cams/*") } } },
            "gate": { "input": { "listen": rtmp(port, "cams/gate") }, "outputs": { "v": { "serve": rtmp(port, "gate/v") } } },
            "loose": { "input": { "listen": rtmp(port, "other/*") }, "outputs": { "v": { "serve": rtmp(port, "other/v") } } },
        })),
    );
    splitter.wait_status("/config/errors/loose", |error| {
        error.as_str().is_some_and(|text| text.starts_with("flows.loose.outputs.v.serve"))
    });
    let long = "x".repeat(65);
    for name in ["a b", "..", ".", "ü", "a*", "a%2Fb", &long] {
        match Publisher::start(&rtmp(port, &format!("cams/{name}"))) {
            Ok(Err(refused)) => {
                assert!(refused.code.starts_with("NetStream.Publish."), "{name}: {refused:?}")
            }
            Ok(Ok(_)) => panic!("published as {name:?}"),
            Err(error) => panic!("{name}: closed without an answer: {error}"),
        }
    }
    splitter.wait_log(&["flow=all", "refused", "1 to 64"]);
    splitter.wait_value("/flows/all/instances/active", 0);
    let refused = splitter.status()["flows"]["all"]["instances"]["refused"].as_u64();
    assert!(refused >= Some(5), "{refused:?} counted");

    let tags = Clip::Plain.tags();
    let _gate = Publisher::to(&rtmp(port, "cams/gate")).run_endlessly(tags.clone());
    splitter.wait_receiving("gate");
    let full = "A-z_0.".repeat(10) + "1234";
    let _dock = Publisher::to(&rtmp(port, &format!("cams/{full}"))).run_endlessly(tags);
    splitter.wait_value("/flows/all/instances/active", 1);
    splitter.wait_value("/flows/all/instances/list/0/match", full.clone());
    Player::start(&rtmp(port, &format!("cams/{full}"))).wait_frames(Kind::Video, 5);
    Player::start(&rtmp(port, "gate/v")).wait_frames(Kind::Video, 5);
    let metrics = splitter.metrics();
    let labels = metrics.series().iter().flat_map(|series| &series.labels);
    assert!(labels.into_iter().all(|(_, value)| !value.contains(&full)), "an instance became a label");
}
