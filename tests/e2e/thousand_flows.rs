//! A document of a thousand flows.

use std::time::Instant;

use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::recording::{End, Kind, Times};
use av_tests::rtmp::{Player, Publisher};
use av_tests::{needs, port};
use serde_json::{Map, Value, json};

use crate::{rtmp, twin};

#[test]
fn one_of_a_thousand_flows_is_changed_and_the_others_lose_nothing() {
    needs!(Ffmpeg);
    let port = port::free();
    let url = |n: usize| rtmp(port, &format!("live/cam{n:04}"));
    let flow = |at: &str| json!({ "input": { "listen": at }, "outputs": { "viewers": { "serve": at } } });
    let mut flows: Map<String, Value> = (0..1000).map(|n| (format!("cam{n:04}"), flow(&url(n)))).collect();
    let start = Instant::now();
    let splitter = Module::start("rtmp-splitter", &twin(Value::Object(flows.clone())));
    splitter.wait_value("/summary/flows", 1000);
    let started = start.elapsed();
    splitter.wait_value("/config/status", "applied");
    // First, last, and some between: names before and behind the changed one.
    let live = [0, 499, 501, 999];
    let tags = Clip::Plain.tags();
    let publishing: Vec<_> =
        live.iter().map(|n| Publisher::to(&url(*n)).run_endlessly(tags.clone())).collect();
    let players: Vec<_> = live.iter().map(|n| Player::start(&url(*n))).collect();
    players.iter().for_each(|player| player.wait_frames(Kind::Video, 5));

    let mut worst = std::time::Duration::ZERO;
    for round in 0..5 {
        let moved = rtmp(port, &format!("moved/{round}"));
        flows.insert("cam0500".into(), flow(&moved));
        let start = Instant::now();
        splitter.set_twin(&twin(Value::Object(flows.clone())));
        splitter.wait_value("/flows/cam0500/outputs/viewers/url", moved.clone());
        worst = worst.max(start.elapsed());
        drop(Publisher::to(&moved));
    }
    println!("1000 flows started in {started:?}; one changed in at most {worst:?}, unoptimised");
    splitter.wait_value("/config/desiredVersion", 6);
    splitter.wait_value("/summary/running", 4);
    for (player, publisher) in players.iter().zip(publishing) {
        let sent = publisher.stop();
        player.wait_last_of(&sent);
        player.recording().must_be(&sent, Times::Exact, End::Complete);
        assert_eq!(player.ended(), None);
    }
    assert_eq!(splitter.terminate().status.code(), Some(0));
}
