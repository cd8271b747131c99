//! What a module lets its operator see: states, counters, log.

use std::collections::BTreeMap;
use std::time::Instant;

use av_tests::clip::Clip;
use av_tests::metrics::Series;
use av_tests::module::{Module, Setup};
use av_tests::recording::Kind;
use av_tests::rtmp::{Player, Publisher};
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::{cam, rtmp, twin};

#[test]
fn each_state_of_a_flow_is_reported_counted_and_measured() {
    needs!(Ffmpeg);
    let (port, nobody) = (port::free(), port::free());
    let url = |name: &str| rtmp(port, &format!("live/{name}"));
    let flow =
        |name: &str, output: Value| json!({ "input": { "listen": url(name) }, "outputs": { "out": output } });
    let mut off = flow("off", json!({ "serve": url("off") }));
    off["enabled"] = json!(false);
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({
            "off": off,
            "idle": flow("idle", json!({ "serve": url("idle") })),
            "live": flow("live", json!({ "serve": url("live") })),
            "trying": flow("trying", json!({ "push": rtmp(nobody, "app/x") })),
            "pulling": { "input": { "pull": rtmp(nobody, "app/y") }, "outputs": {} },
        })),
    );
    let source = Module::start(
        "mp4-source",
        &twin(
            json!({ "bad": { "input": { "read": "file:///dev/null" }, "outputs": { "out": { "serve": rtmp(port::free(), "live/bad") } } } }),
        ),
    );
    let tags = Clip::Plain.tags();
    let _live = Publisher::to(&url("live")).run_endlessly(tags.clone());
    let _trying = Publisher::to(&url("trying")).run_endlessly(tags);
    for (module, flow, state, number) in [
        (&splitter, "off", "disabled", 0.0),
        (&splitter, "idle", "waiting", 1.0),
        (&splitter, "live", "running", 2.0),
        (&splitter, "trying", "retrying", 3.0),
        (&splitter, "pulling", "retrying", 3.0),
        (&source, "bad", "failed", 4.0),
    ] {
        module.wait_value(&format!("/flows/{flow}/state"), state);
        wait::until_true(&format!("av_flow_state of {flow}"), wait::LONG, || {
            module.metrics().sum("av_flow_state", &[("flow", flow)]) == Some(number)
        });
    }
    // The kind of trouble is measured too; what is well or idle has none.
    let trouble = |module: &Module, flow: &str| -> BTreeMap<String, f64> {
        let metrics = module.metrics();
        let series = metrics.series().iter().filter(|series| series.name == "av_flow_trouble");
        let output = |series: &Series| series.label("output").unwrap_or_default().to_owned();
        series
            .filter(|series| series.has(&[("flow", flow)]))
            .map(|series| (output(series), series.value))
            .collect()
    };
    let (unreachable, file) = (5.0, 12.0);
    for (module, flow, expected) in [
        (&splitter, "trying", [("", 0.0), ("out", unreachable)].as_slice()),
        (&splitter, "pulling", &[("", unreachable)]),
        (&source, "bad", &[("", file), ("out", 0.0)]),
        (&splitter, "live", &[("", 0.0), ("out", 0.0)]),
        (&splitter, "idle", &[("", 0.0), ("out", 0.0)]),
        (&splitter, "off", &[]),
    ] {
        let expected = expected.iter().map(|(output, reason): &(&str, f64)| ((*output).to_owned(), *reason));
        assert_eq!(trouble(module, flow), expected.collect(), "{flow}");
    }
    let status = splitter.status();
    let mut summary = status["summary"].clone();
    summary.as_object_mut().unwrap().retain(|_, count| count != 0);
    assert_eq!(summary, json!({ "flows": 5, "running": 1, "waiting": 1, "retrying": 2 }));
}

#[test]
fn counters_count_what_passes() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start("rtmp-splitter", &cam(&url, json!({}), json!({})));
    let players: Vec<_> = (0..2).map(|_| Player::start(&url)).collect();
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 2);
    splitter.wait_value("/summary/clients", 2);
    let tags = Clip::Plain.tags();
    let published = av_tests::recording::Recording::of_tags(&tags);
    let mut publisher = Publisher::to(&url);
    publisher.play_out(&tags).unwrap();
    players.iter().for_each(|player| player.wait_last_of(&published));
    let (video, audio) = (published.of(Kind::Video).len(), published.of(Kind::Audio).len());
    splitter.wait_value("/flows/cam/input/frames", video + audio);
    splitter.wait_value("/flows/cam/outputs/viewers/frames", 2 * (video + audio));
    splitter.wait_value("/flows/cam/outputs/viewers/framesDropped", 0);
    let status = splitter.status();
    let input = status["flows"]["cam"]["input"]["bytes"].as_u64().unwrap();
    let output = status["flows"]["cam"]["outputs"]["viewers"]["bytes"].as_u64().unwrap();
    let payload: usize = tags.iter().filter(|tag| tag.kind != 18).map(|tag| tag.body.len()).sum();
    assert!(input as usize <= payload && input as usize > payload * 9 / 10, "{input} of {payload}");
    assert!(output > 2 * input && output < 2 * input * 11 / 10, "{output} of {input}");
    let latency = &status["flows"]["cam"]["outputs"]["viewers"]["latencyMilliseconds"];
    assert!(
        latency["p50"].as_f64() > Some(0.0) && latency["p99"].as_f64() >= latency["p50"].as_f64(),
        "{latency}"
    );
    let metrics = splitter.metrics();
    let kind = |name, kind| metrics.sum(name, &[("flow", "cam"), ("kind", kind)]);
    assert_eq!(kind("av_input_frames_total", "video"), Some(video as f64));
    assert_eq!(kind("av_input_frames_total", "audio"), Some(audio as f64));
    for series in
        metrics.series().iter().filter(|series| series.name.starts_with("av_output_latency_seconds"))
    {
        let common = ["iothub", "edge_device", "module_name", "instance_number", "le"];
        let own: Vec<_> = series
            .labels
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| !common.contains(name))
            .collect();
        assert!(own.iter().all(|name| ["protocol", "kind"].contains(name)), "{series:?}");
    }
    drop(publisher);
    splitter.wait_value("/flows/cam/input/state", "waiting");
    let _again = Publisher::to(&url).run_endlessly(tags);
    wait::until_true("the second publisher is counted", wait::LONG, || {
        splitter.metrics().sum("av_input_reconnects_total", &[("flow", "cam")]) == Some(1.0)
    });
}

#[test]
fn the_log_level_follows_the_document() {
    let url = rtmp(port::free(), "live/cam");
    let mut document = cam(&url, json!({}), json!({}));
    document["logLevel"] = json!("warning");
    let splitter = Module::start("rtmp-splitter", &document);
    let refused = |name: &str| Publisher::start(&url.replace("cam", name)).unwrap().is_err();
    assert!(refused("one"));
    splitter.wait_log(&["[WRN]", "live/one"]);
    drop(Publisher::to(&url));
    assert!(refused("two"));
    splitter.wait_log(&["[WRN]", "live/two"]);
    assert_eq!(splitter.log_lines("publisher connected"), Vec::<String>::new(), "below warning");
    document["logLevel"] = json!("debug");
    splitter.set_twin(&document);
    splitter.wait_value("/config/desiredVersion", 2);
    drop(Publisher::to(&url));
    splitter.wait_log(&["[INF]", "publisher connected"]);
    splitter.wait_log(&["[DBG]"]);
}

#[test]
fn a_log_for_machines_is_an_object_a_line() {
    let url = rtmp(port::free(), "live/cam");
    let splitter = Setup::new("rtmp-splitter")
        .arg("--log-format")
        .arg("json")
        .twin(&cam(&url, json!({}), json!({})))
        .start();
    drop(Publisher::to(&url));
    splitter.wait_log(&["publisher gone"]);
    let ended = splitter.terminate();
    for line in ended.stderr.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value.is_object(), "{line}");
    }
}

#[test]
fn a_crowd_of_refused_players_is_a_line_a_second() {
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start("rtmp-splitter", &cam(&url, json!({}), json!({ "auth": { "key": "k-1" } })));
    let start = Instant::now();
    let players: Vec<_> = (0..60).map(|_| Player::start(&url)).collect();
    players.iter().for_each(|player| drop(player.wait_end()));
    // What is written is not read yet.
    splitter.wait_log(&["127.0.0.1:", "refused"]);
    let lines: Vec<_> = splitter
        .log_lines("127.0.0.1:")
        .into_iter()
        .filter(|line| !line.contains("[DBG]") && line.contains("refused"))
        .collect();
    let seconds = start.elapsed().as_secs() as usize + 2;
    assert!((1..=seconds).contains(&lines.len()), "{} lines in {seconds} s: {lines:#?}", lines.len());
}
