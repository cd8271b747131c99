//! How players are served: when they begin, and in what portions.

use std::time::Duration;

use av_tests::clip::Clip;
use av_tests::flv::Tag;
use av_tests::module::Module;
use av_tests::recording::{End, Kind, Recording, Times};
use av_tests::rtmp::{Player, Publisher, Value};
use av_tests::{needs, port};
use serde_json::json;

use crate::{cam, rtmp};

/// The clip up to ten pictures behind its second sync frame, and the rest.
fn inside_a_gop(tags: &[Tag]) -> (&[Tag], &[Tag]) {
    let sync = tags.iter().enumerate().filter(|(_, tag)| tag.is_sync()).nth(1).unwrap().0;
    let pictures = tags.iter().enumerate().skip(sync).filter(|(_, tag)| tag.kind == 9);
    tags.split_at(pictures.map(|(i, _)| i).nth(10).unwrap())
}

#[test]
fn an_instant_player_begins_with_the_last_sync_frame_and_waits_for_nothing() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start("rtmp-splitter", &cam(&url, json!({}), json!({ "join": "instant" })));
    let tags = Clip::Plain.tags();
    let (sent, rest) = inside_a_gop(&tags);
    let mut publisher = Publisher::to(&url);
    sent.iter().for_each(|tag| publisher.send(tag).unwrap());
    splitter.wait_receiving("cam");
    // Nothing comes from the publisher from here on.
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 10);
    let sync = sent.iter().rfind(|tag| tag.is_sync()).unwrap().packet().unwrap();
    assert_eq!(player.recording().of(Kind::Video)[0].hash, sync.hash);
    rest.iter().for_each(|tag| publisher.send(tag).unwrap());
    let published = Recording::of_tags(&tags);
    player.wait_last_of(&published);
    player.recording().must_be(&published, Times::Exact, End::Complete);
}

#[test]
fn a_live_player_begins_with_the_next_sync_frame() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start("rtmp-splitter", &cam(&url, json!({}), json!({ "join": "live" })));
    let tags = Clip::Plain.tags();
    let (sent, rest) = inside_a_gop(&tags);
    let mut publisher = Publisher::to(&url);
    // Somebody who sees that all this has passed through before the other one comes.
    let first = Player::start(&url);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    sent.iter().for_each(|tag| publisher.send(tag).unwrap());
    first.wait_last_of(&Recording::of_tags(sent));
    let player = Player::start(&url);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 2);
    rest.iter().for_each(|tag| publisher.send(tag).unwrap());
    let published = Recording::of_tags(&tags);
    player.wait_last_of(&published);
    let sync = rest.iter().find(|tag| tag.is_sync()).unwrap().packet().unwrap();
    assert_eq!(player.recording().of(Kind::Video)[0].hash, sync.hash);
    player.recording().must_be(&published, Times::Exact, End::Complete);
}

#[test]
fn pictures_are_held_back_to_be_sent_together_where_the_flow_says_so() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start("rtmp-splitter", &cam(&url, json!({}), json!({ "batchMilliseconds": 350 })));
    let tags = Clip::Pyramid.tags();
    let player = Player::keeping(&url);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let mut publisher = Publisher::to(&url);
    publisher.play_out(&tags).unwrap();
    let published = Recording::of_tags(&tags);
    player.wait_last_of(&published);
    player.recording().must_be(&published, Times::Exact, End::Complete);
    // Sent 40 ms apart, they come eight or nine at a time. A machine that is busy only makes that more.
    let pictures: Vec<_> =
        player.tags().into_iter().filter(|(tag, _)| tag.kind == 9).map(|(_, at)| at).collect();
    let together = pictures.windows(2).filter(|pair| pair[1] - pair[0] < Duration::from_millis(20)).count();
    assert!(together > pictures.len() / 2, "only {together} of {} came with the one before", pictures.len());
}

#[test]
fn addresses_that_are_not_allowed_do_not_play() {
    let url = rtmp(port::free(), "live/cam");
    let deny = json!({ "allow": ["10.0.0.0/8", "::1"] });
    let splitter = Module::start("rtmp-splitter", &cam(&url, json!({}), deny));
    let player = Player::start(&url);
    player.wait_end();
    assert!(player.status().iter().any(|code| code == "NetStream.Play.Failed"), "{:?}", player.status());
    splitter.wait_log(&["flow=cam", "127.0.0.1:", "not allowed"]);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 0);
}

#[test]
fn a_player_that_joins_after_new_metadata_still_begins_at_once() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start("rtmp-splitter", &cam(&url, json!({}), json!({})));
    let tags = Clip::Plain.tags();
    let (sent, rest) = inside_a_gop(&tags);
    let first = Player::start(&url);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let mut publisher = Publisher::to(&url);
    sent.iter().for_each(|tag| publisher.send(tag).unwrap());
    // As encoders do that keep saying what their data rate is.
    publisher.metadata(&[("width", Value::Number(320.0)), ("videodatarate", Value::Number(123.0))]);
    let (one, _) = rest.split_at(1);
    publisher.send(&one[0]).unwrap();
    first.wait_last_of(&Recording::of_tags(&[sent, one].concat()));
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 11);
    let told = player
        .metadata()
        .iter()
        .any(|values| values.iter().any(|value| value.get("videodatarate") == Some(&Value::Number(123.0))));
    assert!(told, "{:?}", player.metadata());
    assert_eq!(
        Recording::of_tags(&[sent, one].concat()).of(Kind::Video).last().map(|packet| &packet.hash),
        player.recording().of(Kind::Video).last().map(|p| &p.hash)
    );
}
