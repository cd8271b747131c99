//! Server certificates that the workload API issues.

use av_tests::edge::Edge;
use av_tests::program::Program;
use av_tests::rtmp::Publisher;
use av_tests::tool::Tool;
use av_tests::{clip::Clip, needs, wait};
use serde_json::json;

use crate::hub_faults::{splitter_alone, wait_applied};
use crate::rtmp;

/// Plays `url` with nothing but the trust bundle to trust; one line of output a frame.
fn play(edge: &Edge, url: &str, frames: Option<&str>) -> Program {
    let mut command = Tool::Ffmpeg.command();
    command.args(["-nostdin", "-loglevel", "error", "-tls_verify", "1", "-ca_file"]);
    command
        .arg(edge.state_dir().join("certificates/root.pem"))
        .args(["-i", url, "-map", "0:v", "-c", "copy"]);
    command.args(frames.into_iter().flat_map(|count| ["-frames:v", count]));
    Program::start(command.args(["-flush_packets", "1", "-f", "framemd5", "-"]))
}

#[test]
fn rtmps_is_served_with_a_certificate_of_the_edge_which_is_renewed_without_cutting_players() {
    needs!(Ffmpeg);
    let (manifest, ports) = splitter_alone(json!({}));
    let edge = Edge::start(&manifest, ports);
    wait_applied(&edge);
    // Due for renewal after 10 s, and worth nothing after 16.
    assert!(edge.ask(&["fault", "short-certificates", "16"]).status.success());
    let flows = json!({ "flows": { "cam": {
        "input": { "listen": "rtmp://0.0.0.0:1935/live/cam" },
        "outputs": { "viewers": { "serve": "rtmps://0.0.0.0:1936/live/cam" } },
    } } });
    let set = edge.ask(&["twin", "set", "rtmp-splitter", &flows.to_string()]);
    assert!(set.status.success(), "{}{}", set.stdout, set.stderr);
    let _publishing =
        Publisher::to(&rtmp(edge.host_ports(1935)[0], "live/cam")).run_endlessly(Clip::Plain.tags());
    let url = format!("rtmps://localhost:{}/live/cam", edge.host_ports(1936)[0]);
    let long = play(&edge, &url, None);
    let seen = || long.stdout().lines().count();
    wait::until_true("the first player plays", wait::LONG, || seen() > 20);

    let renewals = || edge.ask(&["logs", "rtmp-splitter"]).stdout.matches("TLS certificate renewed").count();
    // When the second one has been renewed the first one has expired.
    wait::until_true("the certificate is renewed twice", wait::LONG, || {
        let played = play(&edge, &url, Some("5")).finish(wait::LONG);
        assert!(played.status.success(), "{}", played.stderr);
        renewals() >= 2
    });
    let before = seen();
    wait::until_true("the first player still plays", wait::LONG, || seen() > before + 20);

    // Without a certificate that endpoint waits, and nothing else does.
    assert!(edge.ask(&["fault", "workload-down", "5"]).status.success());
    let other = json!({ "flows": { "other": {
        "input": { "listen": "rtmp://0.0.0.0:1935/live/other" },
        "outputs": {
            "plain": { "serve": "rtmp://0.0.0.0:1935/live/other" },
            "secure": { "serve": "rtmps://0.0.0.0:1937/live/other", "tls": { "hostName": "other" } },
        },
    } } });
    edge.ask(&["twin", "set", "rtmp-splitter", &other.to_string()]);
    let output = |name: &str| {
        let shown: serde_json::Value =
            serde_json::from_str(&edge.ask(&["twin", "show", "rtmp-splitter"]).stdout).unwrap_or_default();
        shown["reported"]["flows"]["other"]["outputs"][name]["state"].clone()
    };
    wait::until_true("the secure output is retrying", wait::LONG, || output("secure") == "retrying");
    assert_eq!(output("plain"), "waiting");
    wait::until_true("it is there in the end", wait::LONG, || output("secure") == "waiting");
    let before = seen();
    wait::until_true("the first player plays on", wait::LONG, || seen() > before + 20);
}
