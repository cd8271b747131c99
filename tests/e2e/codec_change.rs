//! Another resolution, another codec: in the middle of a stream, and with the next publisher.

use av_tests::clip::Clip;
use av_tests::flv::Tag;
use av_tests::module::Module;
use av_tests::recording::{End, Kind, Recording, Times};
use av_tests::rtmp::{Player, Publisher};
use av_tests::{needs, port};
use serde_json::json;

use crate::{cam, rtmp};

/// The tags of a clip from `start` milliseconds on.
fn from(clip: Clip, start: u32) -> Vec<Tag> {
    let tags = clip.tags().into_iter().filter(|tag| tag.kind != 18);
    tags.map(|tag| Tag { timestamp: tag.timestamp + start, ..tag }).collect()
}

fn header(clip: Clip) -> Tag {
    clip.tags().into_iter().find(|tag| tag.kind == 9 && tag.is_header()).unwrap()
}

/// Each picture follows the configuration it was made with: nothing of `second` comes before its header, and
/// nothing of `first` behind it.
fn changes_once(player: &Player, first: (Clip, &[Tag]), second: (Clip, &[Tag])) {
    let hashes =
        |tags: &[Tag]| -> Vec<_> { tags.iter().filter_map(|tag| Some(tag.packet()?.hash)).collect() };
    let (old, new) = (hashes(first.1), hashes(second.1));
    let mut configured = None;
    for (tag, _) in player.tags().iter().filter(|(tag, _)| tag.kind == 9) {
        if tag.is_header() {
            configured = Some(tag.body.clone());
        } else if let Some(packet) = tag.packet() {
            let configured = configured.as_ref().expect("a configuration before the first picture");
            let clip = if old.contains(&packet.hash) { first.0 } else { second.0 };
            assert!(clip == first.0 || new.contains(&packet.hash), "a picture that was never sent");
            assert!(*configured == header(clip).body, "a picture of {clip:?} under another configuration");
        }
    }
}

#[test]
fn a_publisher_changes_its_resolution_in_the_middle_of_a_stream() {
    needs!(Ffmpeg);
    let (url, copy) = (rtmp(port::free(), "live/cam"), rtmp(port::free(), "live/cam"));
    let target = Module::start("rtmp-splitter", &cam(&copy, json!({}), json!({})));
    let mut document = cam(&url, json!({}), json!({}));
    document["flows"]["cam"]["outputs"]["copy"] = json!({ "push": copy });
    let splitter = Module::start("rtmp-splitter", &document);
    let players = [Player::keeping(&url), Player::keeping(&copy)];
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    target.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let (small, big) = (from(Clip::Smaller, 0), from(Clip::Plain, 3040));
    let all = [small.clone(), big.clone()].concat();
    let mut publisher = Publisher::to(&url);
    publisher.play_out(&small).unwrap();
    splitter.wait_value("/flows/cam/input/video/width", 160);
    publisher.play_out(&big).unwrap();
    let late = Player::keeping(&url);
    splitter.wait_value("/flows/cam/input/video/width", 320);
    target.wait_value("/flows/cam/input/video/width", 320);
    target.wait_value("/flows/cam/input/video/height", 180);
    let published = Recording::of_tags(&all);
    for player in &players {
        player.wait_last_of(&published);
        changes_once(player, (Clip::Smaller, &small), (Clip::Plain, &big));
        assert_eq!(player.ended(), None);
    }
    assert_eq!(players[0].recording().must_be(&published, Times::Exact, End::Complete).head, 0);
    late.wait_last_of(&published);
    late.recording().must_be(&published, Times::Exact, End::Complete);
    assert!(late.tags().iter().all(|(tag, _)| tag.kind != 9 || tag.body != header(Clip::Smaller).body));
}

/// `second` publishes when `first` is gone.
fn next_publisher(first: Clip, second: Clip, codec: &str, width: u32) {
    let (url, copy) = (rtmp(port::free(), "live/cam"), rtmp(port::free(), "live/cam"));
    let target = Module::start("rtmp-splitter", &cam(&copy, json!({}), json!({})));
    let mut document = cam(&url, json!({}), json!({}));
    document["flows"]["cam"]["outputs"]["copy"] = json!({ "push": copy });
    let splitter = Module::start("rtmp-splitter", &document);
    let players = [Player::keeping(&url), Player::keeping(&copy)];
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    target.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let (before, after) = (first.tags(), second.tags());
    let mut publisher = Publisher::to(&url);
    publisher.play_out(&before[..before.len() / 3]).unwrap();
    let sent = Recording::of_tags(&before[..before.len() / 3]);
    players.iter().for_each(|player| player.wait_last_of(&sent));
    drop(publisher);
    splitter.wait_value("/flows/cam/input/state", "waiting");
    let mut publisher = Publisher::to(&url);
    publisher.play_out(&after).unwrap();
    for module in [&splitter, &target] {
        module.wait_status("/flows/cam/input/video/codec", |shown| {
            shown.as_str().is_some_and(|shown| shown.starts_with(codec))
        });
        module.wait_value("/flows/cam/input/video/width", width);
    }
    for player in &players {
        player.wait_last_of(&Recording::of_tags(&after));
        changes_once(player, (first, &before), (second, &after));
        for kind in [Kind::Video, Kind::Audio] {
            for pair in player.recording().of(kind).windows(2) {
                assert!(pair[0].dts <= pair[1].dts, "{kind:?} time went back: {pair:?}");
            }
        }
        assert_eq!(player.ended(), None, "a change is no reason to disconnect");
    }
    let played = players[0].recording();
    let new = Recording(played.0[sent.0.len()..].to_vec());
    new.must_be(&Recording::of_tags(&after), Times::Exact, End::Complete);
}

#[test]
fn the_next_publisher_has_another_resolution() {
    needs!(Ffmpeg);
    next_publisher(Clip::Plain, Clip::Smaller, "avc1.", 160);
}

#[test]
fn the_next_publisher_sends_h265_instead_of_h264() {
    needs!(Ffmpeg, Ffmpeg9);
    next_publisher(Clip::Plain, Clip::H265, "hvc1.", 320);
}

#[test]
fn the_next_publisher_sends_h264_instead_of_av1_and_opus() {
    needs!(Ffmpeg, Ffmpeg9);
    next_publisher(Clip::Av1Opus, Clip::Smaller, "avc1.", 160);
}

/// A publisher with both tracks, one with sound alone, one with pictures alone, and both again.
#[test]
fn tracks_go_and_come_with_publishers() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let pictures = url.replace("live/cam", "live/pictures");
    let mut document = cam(&url, json!({}), json!({}));
    document["flows"]["cam"]["outputs"]["pictures"] = json!({ "serve": pictures, "content": "videoOnly" });
    let splitter = Module::start("rtmp-splitter", &document);
    let (player, silent) = (Player::start(&url), Player::start(&pictures));
    splitter.wait_value("/summary/clients", 2);
    let mut wanted = Recording::default();
    for (round, clip) in (0..).zip([Clip::Smaller, Clip::AudioOnly, Clip::VideoOnly, Clip::Smaller]) {
        // No two publishers send the same frame.
        let tags = clip.tags().into_iter().filter(|tag| tag.timestamp < 2500);
        let tags: Vec<_> = tags.filter_map(|tag| tag.in_round(round, 0).or(Some(tag))).collect();
        let mut publisher = Publisher::to(&url);
        publisher.play_out(&tags).unwrap();
        let sent = Recording::of_tags(&tags);
        player.wait_last_of(&sent);
        silent.wait_last_of(&Recording(sent.of(Kind::Video).into_iter().cloned().collect()));
        let has = |kind| !sent.of(kind).is_empty();
        splitter.wait_status("/flows/cam/input/video", |video| video.is_object() == has(Kind::Video));
        splitter.wait_status("/flows/cam/input/audio", |audio| audio.is_object() == has(Kind::Audio));
        let state = if has(Kind::Video) { "serving" } else { "waiting" };
        splitter.wait_value("/flows/cam/outputs/pictures/state", state);
        drop(publisher);
        splitter.wait_value("/flows/cam/input/state", "waiting");
        wanted.0.extend(sent.0);
    }
    for (player, kinds) in [(&player, &[Kind::Video, Kind::Audio][..]), (&silent, &[Kind::Video])] {
        assert_eq!(player.ended(), None);
        for kind in kinds {
            let hashes = |recording: &Recording| -> Vec<_> {
                recording.of(*kind).iter().map(|packet| packet.hash.clone()).collect()
            };
            let played = player.recording();
            assert!(hashes(&played) == hashes(&wanted), "{kind:?}: not all that was sent, in its order");
            assert!(
                played.of(*kind).windows(2).all(|pair| pair[0].dts <= pair[1].dts),
                "{kind:?} time went back"
            );
        }
    }
    assert_eq!(silent.frames(Kind::Audio), 0);
}
