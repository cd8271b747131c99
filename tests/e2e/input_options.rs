//! What an input waits for, and how long.

use std::time::{Duration, Instant};

use av_tests::clip::Clip;
use av_tests::flv::Tag;
use av_tests::module::Module;
use av_tests::recording::{End, Kind, Recording, Times};
use av_tests::rtmp::{Player, Publisher};
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::{cam, rtmp, twin};

fn send(publisher: &mut Publisher, tags: &[Tag]) {
    tags.iter().for_each(|tag| publisher.send(tag).unwrap());
}

/// Tags of one kind only, headers included, and no metadata that would tell of the other.
fn only(kind: u8, tags: &[Tag]) -> Vec<Tag> {
    tags.iter().filter(|tag| tag.kind == kind).cloned().collect()
}

#[test]
fn a_publisher_that_falls_silent_is_cut_and_the_input_is_lost() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start("rtmp-splitter", &cam(&url, json!({ "idleTimeoutSeconds": 1 }), json!({})));
    let tags = Clip::Plain.tags();
    let mut publisher = Publisher::to(&url);
    send(&mut publisher, &tags[..60]);
    splitter.wait_receiving("cam");
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 1);

    // It goes on to ping and to say what it is, but sends no media.
    let metadata = tags.iter().find(|tag| tag.kind == 18).expect("onMetaData").clone();
    wait::until("the silent publisher is cut", wait::LONG, || {
        let _ = publisher.send(&metadata);
        match publisher.connection().read(Instant::now() + Duration::from_millis(50)) {
            Ok(message) => {
                let text = String::from_utf8_lossy(&message.body).into_owned();
                assert!(text.contains("NetStream.Publish.Idle"), "{text:?}");
                Some(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => None,
            Err(error) => panic!("cut without a word: {error}"),
        }
    });
    splitter.wait_value("/flows/cam/input/state", "waiting");
    splitter.wait_value("/flows/cam/state", "waiting");
    let address = publisher.connection().socket().local_addr().unwrap().to_string();
    splitter.wait_log(&["flow=cam", &address, "nothing came for 1 s"]);
    assert_eq!(player.ended(), None, "onPublisherLoss is hold: the player stays");

    // Back again: the flow goes on.
    let _publishing = Publisher::to(&url).run_endlessly(tags);
    let frames = player.frames(Kind::Video);
    player.wait_frames(Kind::Video, frames + 5);
    splitter.wait_value("/flows/cam/state", "running");
}

#[test]
fn a_track_that_falls_silent_is_stalled_and_the_other_goes_on() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start("rtmp-splitter", &cam(&url, json!({ "idleTimeoutSeconds": 1 }), json!({})));
    let tags = Clip::Plain.tags();
    let player = Player::start(&url);
    let half = tags.iter().position(|tag| tag.timestamp > 1000).unwrap();
    let (both, rest) = tags.split_at(half);
    let mut publisher = Publisher::to(&url);
    publisher.play_out(both).unwrap();
    publisher.play_out(&only(8, rest)).unwrap();
    splitter.wait_value("/flows/cam/input/video/stalled", true);
    splitter.wait_value("/flows/cam/input/state", "receiving");
    let sent = Recording::of_tags(&only(8, &tags));
    player.wait_last_of(&sent);
    assert!(
        splitter.status().pointer("/flows/cam/input/audio/stalled").is_none_or(|stalled| stalled == false)
    );
}

#[test]
fn a_pull_that_gets_nothing_is_tried_again() {
    needs!(Ffmpeg);
    let (source, url) = (rtmp(port::free(), "live/cam"), rtmp(port::free(), "live/cam"));
    let first = Module::start("rtmp-splitter", &cam(&source, json!({}), json!({})));
    let second = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": {
            "input": { "pull": source, "idleTimeoutSeconds": 1, "retry": { "initialMilliseconds": 100, "maxSeconds": 1 } },
            "outputs": { "viewers": { "serve": url } },
        } })),
    );
    let mut publisher = Publisher::to(&source);
    let tags = Clip::Plain.tags();
    send(&mut publisher, &tags[..60]);
    second.wait_receiving("cam");
    second.wait_status("/flows/cam/input/state", |state| state != "receiving");
    first.wait_receiving("cam");
    publisher.play_out(&tags[60..]).unwrap();
    second.wait_receiving("cam");
}

#[test]
fn held_players_are_sent_away_when_the_time_is_up() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start("rtmp-splitter", &cam(&url, json!({ "holdSeconds": 2 }), json!({})));
    let tags = Clip::Plain.tags();
    let mut publisher = Publisher::to(&url);
    send(&mut publisher, &tags[..60]);
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 1);
    let start = Instant::now();
    drop(publisher);
    splitter.wait_value("/flows/cam/input/state", "waiting");
    player.wait_end();
    assert!(start.elapsed() >= Duration::from_secs(2), "sent away after {:?}", start.elapsed());
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 0);

    // A new publisher is a new stream for whoever comes.
    let next = Player::start(&url);
    let published = Recording::of_tags(&tags);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let mut publisher = Publisher::to(&url);
    publisher.play_out(&tags).unwrap();
    next.wait_last_of(&published);
    next.recording().must_be(&published, Times::Exact, End::Complete);
}

#[test]
fn outputs_wait_for_the_second_track_as_long_as_they_are_told() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let _splitter =
        Module::start("rtmp-splitter", &cam(&url, json!({ "trackWaitMilliseconds": 10000 }), json!({})));
    let tags = Clip::Plain.tags();
    let player = Player::keeping(&url);
    let mut publisher = Publisher::to(&url);
    // Pictures for longer than the usual second, and only then the sound.
    let header = tags.iter().find(|tag| tag.kind == 8 && tag.is_header()).unwrap().clone();
    let (early, late): (Vec<_>, Vec<_>) = tags.iter().cloned().partition(|tag| tag.timestamp < 1800);
    let (video, audio) = (only(9, &early), [vec![header], only(8, &late[..30])].concat());
    publisher.play_out(&video).unwrap();
    assert_eq!(player.frames(Kind::Video), 0, "pictures went out before the second track was there");
    send(&mut publisher, &audio);
    let published = Recording::of_tags(&[video, audio].concat());
    player.wait_last_of(&published);
    player.recording().must_be(&published, Times::Exact, End::Complete);
    let order: Vec<_> = player.tags().into_iter().map(|(tag, _)| tag).collect();
    let first_frame = order.iter().position(|tag| tag.packet().is_some()).unwrap();
    let headers = order.iter().filter(|tag| tag.is_header()).count();
    assert_eq!((headers, order[..first_frame].iter().filter(|tag| tag.is_header()).count()), (2, 2));
}

#[test]
fn a_track_that_comes_too_late_is_announced_when_it_comes() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter =
        Module::start("rtmp-splitter", &cam(&url, json!({ "trackWaitMilliseconds": 0 }), json!({})));
    let tags = Clip::Plain.tags();
    let player = Player::keeping(&url);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let mut publisher = Publisher::to(&url);
    let (early, late): (Vec<_>, Vec<_>) =
        tags.iter().filter(|tag| tag.kind != 18).cloned().partition(|tag| tag.timestamp < 500);
    let pictures = only(9, &early);
    let header = early.iter().find(|tag| tag.kind == 8 && tag.is_header()).unwrap().clone();
    publisher.play_out(&pictures).unwrap();
    // Nothing more has to come for these to go out.
    player.wait_frames(Kind::Video, Recording::of_tags(&pictures).0.len());
    splitter.wait_status("/flows/cam/input/audio", Value::is_null);
    let rest: Vec<_> = [header].into_iter().chain(late).collect();
    publisher.play_out(&rest).unwrap();
    let published = Recording::of_tags(&[pictures, rest].concat());
    player.wait_last_of(&published);
    player.recording().must_be(&published, Times::Exact, End::Complete);
    splitter.wait_value("/flows/cam/input/audio/codec", "mp4a.40.2");
    assert_eq!(player.ended(), None, "a late track is no reason to disconnect");
    let order: Vec<_> = player.tags().into_iter().map(|(tag, _)| tag).collect();
    let sound = order.iter().position(|tag| tag.kind == 8).unwrap();
    assert!(order[sound].is_header(), "sound without a configuration");
}

#[test]
fn a_message_of_exactly_the_length_allowed_passes_and_a_longer_one_does_not() {
    needs!(Ffmpeg);
    let (source, url) = (rtmp(port::free(), "live/cam"), rtmp(port::free(), "live/cam"));
    let bound = json!({ "maxMessageKilobytes": 64 });
    let listens = Module::start("rtmp-splitter", &cam(&source, bound, json!({})));
    let wide = rtmp(port::free(), "live/cam");
    let source_of_pull = Module::start("rtmp-splitter", &cam(&wide, json!({}), json!({})));
    let pulls = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": {
            "input": { "pull": wide, "maxMessageKilobytes": 64, "retry": { "initialMilliseconds": 100, "maxSeconds": 1 } },
            "outputs": { "viewers": { "serve": url } },
        } })),
    );
    let tags = only(9, &Clip::Plain.tags());
    let sync = tags.iter().position(Tag::is_sync).unwrap();
    // The first picture with a NAL unit of no specified type (30) up to this length: a relay takes filler out.
    let filled = |length: usize| {
        let mut tag = tags[sync].clone();
        let filler = length - tag.body.len() - 4;
        tag.body.extend(u32::try_from(filler).unwrap().to_be_bytes());
        tag.body.push(30);
        tag.body.resize(length - 1, 0xFF);
        tag.body.push(0x80);
        tag
    };
    for (url, module, reads) in [(&source, &listens, &source), (&wide, &pulls, &url)] {
        let mut publisher = Publisher::to(url);
        send(&mut publisher, &tags[..sync]);
        publisher.send(&filled(64 * 1024)).unwrap();
        module.wait_receiving("cam");
        let player = Player::start(reads);
        player.wait_frames(Kind::Video, 1);
        let _ = publisher.send(&filled(64 * 1024 + 1));
        module.wait_log(&["65537", "65536"]);
        let counted = [("flow", "cam"), ("reason", "tooLarge")];
        wait::until_true("it is counted", wait::LONG, || {
            module.metrics().sum("av_frames_skipped_total", &counted) >= Some(1.0)
        });
        assert_eq!(player.frames(Kind::Video), 1);
        drop(publisher);
    }
    source_of_pull.wait_value("/flows/cam/input/state", "waiting");
    // The publisher does not know what it did.
    let error = listens.wait_status("/flows/cam/input/error", Value::is_string);
    assert!(error.as_str().unwrap().contains("maxMessageKilobytes"), "{error}");
    let _fine = Publisher::to(&source).run_endlessly(tags);
    listens.wait_status("/flows/cam/input/error", Value::is_null);
}
