//! One pattern flow with a thousand publishers, through `local-edge`.

use std::collections::BTreeSet;
use std::time::Instant;

use av_tests::clip::Clip;
use av_tests::edge::Edge;
use av_tests::metrics::Metrics;
use av_tests::program::resident_bytes;
use av_tests::recording::{End, Kind, Times};
use av_tests::rtmp::{Crowd, Player, Publisher};
use av_tests::{http, needs, wait};
use serde_json::{Value, json};

use crate::hub_faults::{flow, splitter_alone, wait_applied};
use crate::rtmp;
use crate::twin_capacity::{end, wait_reported};

const MODULE: &str = "rtmp-splitter";
const INSTANCES: usize = 1000;

fn name(number: usize) -> String {
    format!("cam-{number:04}")
}

fn set(edge: &Edge, patch: &Value) {
    let begun = Instant::now();
    let set = edge.patch_twin(MODULE, patch);
    assert!(set.status.success(), "{patch}: {}{}", set.stdout, set.stderr);
    println!("{patch}: applied and reported in {:?}, unoptimised", begun.elapsed());
}

fn metrics(edge: &Edge) -> Metrics {
    let (status, text) = http::get_from((&edge.address(MODULE), 9600), "/metrics").expect("/metrics answers");
    assert_eq!(status, 200);
    Metrics::parse(&text)
}

#[test]
fn a_pattern_of_a_thousand_publishers_is_changed_and_no_player_loses_a_frame() {
    needs!(Ffmpeg);
    let mut any = flow("live/*");
    any["input"]["maxInstances"] = json!(INSTANCES);
    any["input"]["idleTimeoutSeconds"] = json!(60);
    any["input"]["onPublisherLoss"] = json!("close");
    let (manifest, ports) = splitter_alone(json!({ "any": any }));
    let edge = Edge::start(&manifest, ports);
    wait_applied(&edge);
    let memory = || resident_bytes(edge.pid(MODULE)) / 1024;
    let (port, idle) = (edge.host_ports(1935)[0], memory());
    let url = |number: usize| rtmp(port, &format!("live/{}", name(number)));

    let live = [0, 499, 501, 999];
    let others: Vec<_> = (0..INSTANCES).filter(|number| !live.contains(number)).map(url).collect();
    let begun = Instant::now();
    let crowd = Crowd::start(&others, &Clip::Smaller.tags());
    println!("{} publishers let in within {:?}, unoptimised", others.len(), begun.elapsed());
    let publishing: Vec<_> =
        live.iter().map(|n| Publisher::to(&url(*n)).run_endlessly(Clip::Plain.tags())).collect();
    let players: Vec<_> = live.iter().map(|n| Player::start(&url(*n))).collect();
    players.iter().for_each(|player| player.wait_frames(Kind::Video, 5));
    let refused = Publisher::start(&rtmp(port, "live/one-too-many")).unwrap().map(|_| ()).unwrap_err();
    assert!(refused.description.contains("maxInstances (1000) is reached"), "{refused:?}");
    wait_reported(&edge, "all are counted", |reported| {
        let any = &reported["flows"]["any"];
        any["instances"] == json!({ "active": INSTANCES, "refused": 1 }) && any["state"] == "running"
    });

    set(
        &edge,
        &json!({ "flows": { "any": { "outputs": {
        "copies": { "serve": "rtmp://0.0.0.0:1935/copies/*" } } } } }),
    );
    // A thousand outputs take a moment more to listen.
    let copies = [0, 777].map(|number| {
        wait::until("the new output plays", wait::LONG, || {
            let copy = Player::start(&rtmp(port, &format!("copies/{}", name(number))));
            wait::until("frames, or the end", wait::LONG, || match copy.frames(Kind::Video) {
                0 | 1 => copy.ended().map(|_| false),
                _ => Some(true),
            })
            .then_some(copy)
        })
    });
    set(&edge, &json!({ "flows": { "any": { "outputs": { "copies": null } } } }));
    copies.iter().for_each(|copy| drop(copy.wait_end()));
    // There is no room for another instance, but an exact path is none.
    set(&edge, &json!({ "flows": { "vip": flow("live/vip") } }));
    let vip = Publisher::to(&rtmp(port, "live/vip")).run_endlessly(Clip::Plain.tags());
    wait_reported(&edge, "the exact path wins", |reported| {
        reported["flows"]["vip"]["state"] == "running"
            && reported["flows"]["any"]["instances"] == json!({ "active": INSTANCES, "refused": 1 })
    });
    vip.stop();

    let pages = edge.status_pages(MODULE, &json!({ "flow": "any", "offset": 0, "limit": 1000 }));
    let listed = pages.iter().flat_map(|page| page["flows"]["any"]["instances"]["list"].as_array().unwrap());
    let listed: Vec<_> = listed.map(|one| one["match"].as_str().unwrap().to_owned()).collect();
    assert_eq!(listed.len(), INSTANCES);
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), (0..INSTANCES).map(name).collect());
    let metrics = metrics(&edge);
    let series = metrics.series().iter().filter(|series| series.has(&[("flow", "any")])).count();
    assert!((1..50).contains(&series), "{series} series of one flow");
    let busy = memory();
    for (player, publisher) in players.iter().zip(publishing) {
        let sent = publisher.stop();
        player.wait_last_of(&sent);
        player.recording().must_be(&sent, Times::Exact, End::Complete);
    }
    crowd.stop();
    wait_reported(&edge, "the instances have gone", |reported| {
        reported["flows"]["any"]["instances"] == json!({ "active": 0, "refused": 1 })
    });
    println!(
        "{} pages of getStatus, {series} series; resident KiB: {idle} idle, {busy} with {INSTANCES}, {} after",
        pages.len(),
        memory()
    );
    end(edge);
}
