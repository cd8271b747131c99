//! Start, health, metrics, exit codes.

use std::process::Command;

use av_tests::clip::Clip;
use av_tests::module::{Module, Setup};
use av_tests::program::Program;
use av_tests::recording::Kind;
use av_tests::rtmp::{Player, Publisher};
use av_tests::{needs, port, tool, wait};
use serde_json::json;

use crate::{rtmp, twin};

const MODULES: [&str; 2] = ["rtmp-splitter", "mp4-source"];

#[test]
fn a_module_ends_with_0_after_sigterm_and_after_sigint() {
    for signal in ["TERM", "INT"] {
        for name in MODULES {
            let module = Module::start(name, &json!({}));
            module.program().signal(signal);
            assert_eq!(module.terminate().status.code(), Some(0), "{name} after SIG{signal}");
        }
    }
}

#[test]
fn a_busy_module_ends_with_0_and_its_peers_are_told() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": { "input": { "listen": url }, "outputs": { "viewers": { "serve": url } } } })),
    );
    let _publishing = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 5);
    assert_eq!(splitter.terminate().status.code(), Some(0));
    player.wait_end();
}

#[test]
fn without_any_configuration_a_module_ends_with_64_and_says_all_ways() {
    for name in MODULES {
        let ended = Program::run(Command::new(tool::binary(name)).env_clear(), wait::LONG);
        assert_eq!(ended.status.code(), Some(64), "{name}: {}", ended.stderr);
        for way in ["--twin", "IOTEDGE_WORKLOADURI", "EdgeHubConnectionString"] {
            assert!(ended.stderr.contains(way), "{name} does not say {way}: {}", ended.stderr);
        }
    }
    let ended = Program::run(Command::new(tool::binary("rtmp-splitter")).arg("--no-such-option"), wait::LONG);
    assert_eq!(ended.status.code(), Some(64), "{}", ended.stderr);
}

#[test]
fn a_variable_that_is_empty_is_none() {
    let variables =
        ["AV_STATE_DIR", "AV_METRICS_ADDRESS", "AV_LOG_FORMAT", "AV_BIND", "AV_HOSTS", "AV_PATHS"];
    let mut command = Command::new(tool::binary("rtmp-splitter"));
    command.env_clear().envs(variables.iter().chain(&["AV_HUB_PORT", "AV_DEVICE"]).map(|name| (name, "")));
    let ended = Program::run(&mut command, wait::LONG);
    // Not one of the variables is at fault, but that there is no configuration.
    assert!(ended.stderr.contains("IOTEDGE_WORKLOADURI"), "{}", ended.stderr);
    command.env("AV_HUB_PORT", "0");
    let ended = Program::run(&mut command, wait::LONG);
    assert!(ended.stderr.contains("--hub-port"), "{}", ended.stderr);
    assert_eq!(ended.status.code(), Some(64), "{}", ended.stderr);
}

#[test]
fn a_twin_file_of_which_nothing_is_usable_ends_a_module_with_78() {
    let unusable = [
        "this is no JSON",
        "[]",
        r#"{ "flows": {}, "flows": {} }"#,
        r#"{ "schemaVersion": "2.0", "flows": {} }"#,
        r#"{ "flows": { "cam": { "input": { "listen": "ftp://0.0.0.0/live" }, "outputs": {} } } }"#,
        r#"{ "flows": { "_a": {} } }"#,
    ];
    for text in unusable {
        let ended = Setup::new("rtmp-splitter").twin_text(text).run(wait::LONG);
        assert_eq!(ended.status.code(), Some(78), "{text}: {}", ended.stderr);
    }
    let ended = Setup::new("rtmp-splitter").run(wait::LONG);
    assert_eq!(ended.status.code(), Some(78), "no file: {}", ended.stderr);
    assert!(ended.stderr.contains("twin.json"), "{}", ended.stderr);
}

#[test]
fn a_document_without_flows_is_one_that_a_broken_file_does_not_end_at_the_next_start() {
    let module = Module::start("rtmp-splitter", &json!({}));
    let module = module.terminate_and_restart(|setup| setup.twin_text("this is no JSON"));
    module.wait_value("/config/status", "rejected");
    assert_eq!(module.terminate().status.code(), Some(0));
}

#[test]
fn a_flow_of_an_older_version_never_has_the_number_of_the_newest() {
    let url = rtmp(port::free(), "live/cam");
    let good = twin(json!({ "cam": { "input": { "listen": url }, "outputs": {} } }));
    let module = Module::start("rtmp-splitter", &good);
    module.wait_value("/config/status", "applied");
    let bad = twin(json!({ "cam": { "input": { "lisen": url } } }));
    let module = module.terminate_and_restart(|setup| setup.twin(&bad));
    let wanted = module.wait_status("/config/desiredVersion", |version| version.is_i64()).as_i64();
    let used = module.wait_status("/flows/cam/usingVersion", |version| version.is_i64()).as_i64();
    assert!(used < wanted, "{used:?} of {wanted:?}");
}

#[test]
fn a_document_without_flows_runs_whatever_is_wrong_beside_them() {
    for text in [r#"{ "logLevle": "info" }"#, r#"{ "logLevel": "loud" }"#, r#"{ "flows": {}, "spool": {} }"#]
    {
        let module = Setup::new("rtmp-splitter").twin_text(text).start();
        assert_eq!(module.status()["config"]["status"], "partial", "{text}");
    }
}

#[test]
fn a_document_without_flows_is_applied() {
    let module = Module::start("rtmp-splitter", &json!({}));
    module.wait_value("/config/status", "applied");
    module.wait_value("/summary/flows", 0);
    module.wait_value("/module/name", "rtmp-splitter");
}

#[test]
fn a_flow_that_a_module_does_not_support_names_the_one_that_does() {
    let good = rtmp(port::free(), "live/cam");
    let module = Module::start(
        "rtmp-splitter",
        &twin(json!({
            "cam": { "input": { "listen": good }, "outputs": { "viewers": { "serve": good } } },
            "tv": { "input": { "listen": rtmp(port::free(), "live/tv") },
                    "outputs": { "viewers": { "serve": "rtsp://127.0.0.1:8554/tv" } } },
        })),
    );
    module.wait_status("/config/errors/tv", |error| {
        error
            .as_str()
            .is_some_and(|text| text.starts_with("flows.tv.outputs.viewers") && text.contains("rtsp-gateway"))
    });
    module.wait_value("/config/status", "partial");
    module.wait_value("/flows/cam/state", "waiting");
}

#[test]
fn healthcheck_asks_the_running_module() {
    let port = port::free();
    let healthcheck = |args: &[&str]| {
        let mut command = Command::new(tool::binary("rtmp-splitter"));
        command.arg("healthcheck").args(args).env("AV_METRICS_ADDRESS", format!("127.0.0.1:{port}"));
        Program::run(&mut command, wait::LONG).status.code()
    };
    assert_ne!(healthcheck(&[]), Some(0), "nothing runs");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("twin.json"), "{}").unwrap();
    let mut command = Command::new(tool::binary("rtmp-splitter"));
    command.args(["--metrics-address", &format!("127.0.0.1:{port}")]);
    command.arg("--twin").arg(dir.path().join("twin.json")).arg("--state-dir").arg(dir.path().join("state"));
    let _module = Program::start(&mut command);
    wait::until_true("healthy", wait::LONG, || healthcheck(&[]) == Some(0));
    wait::until_true("ready", wait::LONG, || healthcheck(&["--ready"]) == Some(0));
}

#[test]
fn metrics_carry_the_names_and_labels_that_are_promised() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": { "input": { "listen": url }, "outputs": { "viewers": { "serve": url } } } })),
    );
    let _publishing = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 30);
    let flow = [("flow", "cam")];
    let output = [("flow", "cam"), ("output", "viewers")];
    let metrics = splitter.metrics();
    assert_eq!(metrics.sum("av_flow_state", &flow), Some(2.0));
    assert_eq!(metrics.sum("av_output_clients", &output), Some(1.0));
    for (name, labels) in [
        ("av_input_bytes_total", &flow[..]),
        ("av_input_frames_total", &[("flow", "cam"), ("kind", "video")]),
        ("av_input_frames_total", &[("flow", "cam"), ("kind", "audio")]),
        ("av_output_bytes_total", &output),
        ("av_output_latency_seconds_count", &[("kind", "video")]),
        ("process_resident_memory_bytes", &[]),
    ] {
        assert!(metrics.sum(name, labels).is_some_and(|value| value > 0.0), "{name} {labels:?}");
    }
    for name in ["av_output_frames_dropped_total", "av_input_reconnects_total", "av_frames_skipped_total"] {
        assert_eq!(metrics.sum(name, &flow), Some(0.0), "{name}");
    }
    assert_eq!(metrics.sum("av_hub_connected", &[]), Some(0.0));
    assert!(metrics.sum("av_config_desired_version", &[]).is_some());
    for series in metrics.series() {
        for label in ["iothub", "edge_device", "module_name", "instance_number"] {
            assert!(series.labels.iter().any(|(name, _)| name == label), "{} lacks {label}", series.name);
        }
    }
    assert_eq!(splitter.get("/healthz").0, 200);
}

#[test]
fn log_lines_are_as_iot_edge_filters_read_them() {
    let module = Module::start("rtmp-splitter", &json!({}));
    let ended = module.terminate();
    assert!(!ended.stderr.is_empty());
    for line in ended.stderr.lines() {
        // <6> 2026-01-01 00:00:00.000 +00:00 [INF] - text
        let shape: String = line.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).take(34).collect();
        assert_eq!(shape, "<0> 0000-00-00 00:00:00.000 +00:00", "{line}");
        let rest = &line[34..];
        let levels = ["[TRC]", "[DBG]", "[INF]", "[WRN]", "[ERR]"];
        assert!(levels.iter().any(|level| rest.starts_with(&format!(" {level} - "))), "{line}");
    }
}
