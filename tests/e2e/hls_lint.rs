//! `hls-gateway lint` over the module's own streams, while publishers come and go.

use std::process::Command;

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::program::Program;
use av_tests::rtmp::Publisher;
use av_tests::tool::binary;
use av_tests::{needs, wait};
use serde_json::{Value, json};

use crate::hls::Gateway;

/// Follows a stream from which the publisher is away for a while, and lets the linter tell all that it finds.
fn has_no_fault_while_the_publisher_is_killed_and_comes_back(output: &Value, seconds: &str) {
    let gateway = Gateway::start(&json!({}), output);
    // Its rounds do not fit together: pictures come too early and too late there.
    let publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    let media = gateway.media();
    let linter = Program::start(
        Command::new(binary("hls-gateway"))
            .args(["lint", "--seconds", seconds])
            .arg(format!("http://127.0.0.1:{}/live/cam/index.m3u8", gateway.port)),
    );
    let segments = |text: &str| text.matches("#EXTINF").count();
    let until = |what: &str, fits: &dyn Fn(&str) -> bool| {
        wait::until(what, wait::LONG, || Some(gateway.get(&media).text()).filter(|text| fits(text)))
    };
    until("segments", &|text| segments(text) >= 3);
    publisher.stop();
    until("gaps", &|text| text.matches("#EXT-X-GAP").count() >= 2);
    let _again = PublishWith::Ffmpeg.start(Clip::Pyramid, &gateway.rtmp);
    until("media again", &|text| {
        text.rsplit_once("#EXT-X-DISCONTINUITY\n").is_some_and(|(_, rest)| segments(rest) >= 3)
    });
    let ended = linter.finish(wait::LONG);
    assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    let mut numbers = ended.stdout.lines().last().unwrap_or_default().split(' ');
    let versions: u32 = numbers.next().unwrap().parse().unwrap();
    assert!(versions >= 10 && ended.stdout.ends_with(" 0 faults\n"), "{}", ended.stdout);
    eprint!("{}", ended.stdout);
}

#[test]
fn the_linter_finds_no_fault_in_low_latency_hls_while_the_publisher_is_killed_and_comes_back() {
    needs!(Ffmpeg);
    has_no_fault_while_the_publisher_is_killed_and_comes_back(&json!({ "segmentSeconds": 1 }), "15");
}

#[test]
fn the_linter_finds_no_fault_in_whole_segments_while_the_publisher_is_killed_and_comes_back() {
    needs!(Ffmpeg);
    // Players give up after half a target duration more than one: a busy machine needs that to be a second.
    let output = json!({ "segmentSeconds": 2, "variant": "fmp4" });
    has_no_fault_while_the_publisher_is_killed_and_comes_back(&output, "24");
}
