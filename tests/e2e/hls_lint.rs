//! `hls-gateway lint` over the module's own streams, while publishers come and go.

use std::process::Command;
use std::time::{Duration, Instant};

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::program::Program;
use av_tests::rtmp::Publisher;
use av_tests::tool::binary;
use av_tests::{long_only, needs, wait};
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

#[test]
fn in_ten_minutes_of_kills_the_linter_finds_nothing_but_that_the_module_was_away() {
    long_only!();
    needs!(Ffmpeg);
    const TIME: Duration = Duration::from_secs(600);
    let mut gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 1 }));
    let mut linter = None;
    let begun = Instant::now();
    let mut kills = 0;
    for round in 1.. {
        let publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
        let media = gateway.media();
        linter.get_or_insert_with(|| {
            Program::start(
                Command::new(binary("hls-gateway"))
                    .args(["lint", "--seconds", &TIME.as_secs().to_string()])
                    .arg(format!("http://127.0.0.1:{}/live/cam/index.m3u8", gateway.port)),
            )
        });
        // Behind the last break.
        let newest = || {
            let text = gateway.get(&media).text();
            text.rsplit_once("#EXT-X-DISCONTINUITY\n").map_or(text.clone(), |(_, rest)| rest.to_owned())
        };
        wait::until_true("ten seconds of media", wait::LONG, || {
            let newest = newest();
            !newest.contains("#EXT-X-GAP") && newest.matches("#EXTINF").count() >= 10
        });
        if begun.elapsed() > TIME {
            break;
        }
        if round % 6 == 0 {
            gateway.module = gateway.module.kill_and_restart(|setup| setup);
            kills += 1;
        } else {
            publisher.stop();
            wait::until_true("a gap", wait::LONG, || newest().contains("#EXT-X-GAP"));
        }
    }
    let ended = linter.unwrap().finish(wait::LONG);
    eprint!("{kills} kills of the module\n{}", ended.stdout);
    // A window of seconds is in memory alone, and begins anew.
    let follows = ["error-status", "window-short"];
    let is_other = |line: &&str| line.contains(" fault ") && !follows.iter().any(|rule| line.contains(rule));
    let other = ended.stdout.lines().filter(is_other);
    assert_eq!(other.collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(kills >= 3 && ended.stdout.lines().count() > 1, "{}", ended.stdout);
}
