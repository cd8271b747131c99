//! Files as live streams.

use std::path::Path;

use av_tests::client::PlayWith;
use av_tests::clip::{self, Clip};
use av_tests::flv;
use av_tests::module::{Module, Setup};
use av_tests::recording::{Kind, Packet, Recording};
use av_tests::rtmp::Player;
use av_tests::tool::{self, Tool};
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::{rtmp, twin};

fn flow(file: &Path, url: &str) -> Value {
    json!({ "input": { "read": format!("file://{}", file.display()) }, "outputs": { "viewers": { "serve": url } } })
}

/// One round of a file as it must leave: what is presented, from time zero.
fn presented(mp4: &Path, tool: Tool) -> Recording {
    let mut command = tool.command();
    command.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-i"]).arg(mp4);
    // The file's own ticks, negative before the edit.
    command.args([
        "-map",
        "0",
        "-c",
        "copy",
        "-copyts",
        "-avoid_negative_ts",
        "disabled",
        "-enc_time_base",
        "1:1000000",
    ]);
    command.args(["-f", "framemd5", "-"]);
    let read = av_tests::program::Program::run(&mut command, wait::LONG);
    assert!(read.status.success(), "{}", read.stderr);
    let all = Recording::of_framemd5_in_milliseconds(&read.stdout);
    let kept: Vec<Packet> =
        all.0.into_iter().filter(|packet| packet.kind == Kind::Video || packet.pts >= 0).collect();
    let least = kept.iter().map(|packet| packet.dts).min().unwrap();
    Recording(kept.into_iter().map(|p| Packet { dts: p.dts - least, pts: p.pts - least, ..p }).collect())
}

/// Checks `rounds` rounds of a file with this period: no frame missing or too many, times right to the
/// millisecond that RTMP rounds to, and the same offset between sound and pictures in each round.
fn must_loop(played: &Recording, file: &Recording, period: i64) {
    for kind in [Kind::Video, Kind::Audio] {
        let (played, file) = (played.of(kind), file.of(kind));
        let first = played.first().expect("frames");
        // Silence is the same frame again and again: the start is where the longest run begins.
        let run = |at: usize| {
            (0..played.len()).take_while(|i| played[*i].hash == file[(at + i) % file.len()].hash).count()
        };
        let at = (0..file.len()).max_by_key(|at| run(*at)).unwrap();
        let zero = first.dts - file[at].dts;
        for (i, packet) in played.iter().enumerate() {
            let (round, place) = ((at + i) / file.len(), (at + i) % file.len());
            let sent = file[place];
            assert_eq!(packet.hash, sent.hash, "{kind:?} {i}: not frame {place} of round {round}");
            let due = zero + i64::try_from(round).unwrap() * period + sent.dts;
            assert!(
                (packet.dts - due).abs() <= 2,
                "{kind:?} frame {place} of round {round} at {}, not {due}",
                packet.dts
            );
            assert!((packet.pts - packet.dts - (sent.pts - sent.dts)).abs() <= 1, "{packet:?} for {sent:?}");
        }
    }
    // The first picture and the first sound of the file, round by round.
    let starts = |kind: Kind| -> Vec<i64> {
        let first = &file.of(kind)[0].hash;
        played.of(kind).into_iter().filter(|packet| packet.hash == *first).map(|packet| packet.pts).collect()
    };
    let (video, audio) = (starts(Kind::Video), starts(Kind::Audio));
    let offsets: Vec<_> = video
        .iter()
        .map(|video| audio.iter().map(|audio| audio - video).min_by_key(|offset| offset.abs()).unwrap())
        .collect();
    assert!(offsets.windows(2).all(|pair| (pair[0] - pair[1]).abs() <= 1), "A/V offset moves: {offsets:?}");
}

#[test]
fn the_test_card_loops_without_a_seam() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/card");
    let source = Module::start("mp4-source", &twin(json!({ "card": flow(&tool::test_card(), &url) })));
    source.wait_value("/flows/card/state", "running");
    let player = Player::start(&url);
    // Two seams, wherever it joined.
    player.wait_frames(Kind::Video, 2 * 240 + 60);
    let file = presented(&tool::test_card(), Tool::Ffmpeg);
    assert_eq!((file.of(Kind::Video).len(), file.of(Kind::Audio).len()), (240, 375));
    must_loop(&player.recording(), &file, 8000);
    assert_eq!(source.terminate().status.code(), Some(0));
}

#[test]
fn files_of_every_kind_are_read() {
    needs!(Ffmpeg, Ffmpeg9);
    let clips = [Clip::Pyramid, Clip::VideoOnly, Clip::AudioOnly, Clip::H265];
    let port = port::free();
    let url = |clip: Clip| rtmp(port, &format!("live/{clip:?}"));
    let flows: serde_json::Map<_, _> =
        clips.iter().map(|clip| (format!("{clip:?}"), flow(&clip.mp4(), &url(*clip)))).collect();
    let source = Module::start("mp4-source", &twin(Value::Object(flows)));
    let players: Vec<_> = clips.iter().map(|clip| Player::start(&url(*clip))).collect();
    for (clip, player) in clips.iter().zip(&players) {
        source.wait_value(&format!("/flows/{clip:?}/state"), "running");
        let file = presented(&clip.mp4(), clip.tool());
        let kind = if *clip == Clip::AudioOnly { Kind::Audio } else { Kind::Video };
        let round = file.of(kind).len();
        player.wait_frames(kind, round + round / 3);
        let played = player.recording();
        for kind in [Kind::Video, Kind::Audio] {
            assert_eq!(played.of(kind).is_empty(), file.of(kind).is_empty(), "{clip:?} {kind:?}");
        }
        for kind in [Kind::Video, Kind::Audio] {
            let (played, file) = (played.of(kind), file.of(kind));
            let Some(first) = played.first() else { continue };
            let at = file.iter().position(|packet| packet.hash == first.hash).expect("a frame of the file");
            for (i, packet) in played.iter().enumerate() {
                assert_eq!(packet.hash, file[(at + i) % file.len()].hash, "{clip:?} {kind:?} {i}");
            }
        }
    }
}

#[test]
fn a_file_is_pushed_to_a_splitter_and_played_there() {
    needs!(Ffmpeg, Ffprobe);
    let url = rtmp(port::free(), "live/card");
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "card": { "input": { "listen": url }, "outputs": { "viewers": { "serve": url } } } })),
    );
    let input = json!({ "read": format!("file://{}", tool::test_card().display()) });
    let source = Module::start(
        "mp4-source",
        &twin(json!({ "card": { "input": input, "outputs": { "splitter": { "push": url } } } })),
    );
    source.wait_value("/flows/card/outputs/splitter/state", "pushing");
    splitter.wait_receiving("card");
    let player = Player::start(&url);
    let ffprobe = PlayWith::Ffprobe.start(&url);
    player.wait_frames(Kind::Video, 240 + 30);
    must_loop(&player.recording(), &presented(&tool::test_card(), Tool::Ffmpeg), 8000);
    drop((source, splitter));
    assert!(ffprobe.finish().of(Kind::Video).len() > 100);
}

#[test]
fn a_file_that_cannot_be_played_fails_alone_and_says_why() {
    needs!(Ffmpeg);
    let port = port::free();
    let setup = Setup::new("mp4-source");
    let dir = setup.dir().to_path_buf();
    let (truncated, text) = (dir.join("truncated.mp4"), dir.join("text.mp4"));
    clip::truncated(&Clip::Pyramid.mp4(), &truncated);
    std::fs::write(&text, "This is a letter, not a film.\n".repeat(100)).unwrap();
    let url = |name: &str| rtmp(port, &format!("live/{name}"));
    let source = setup
        .twin(&twin(json!({
            "good": flow(&Clip::Plain.mp4(), &url("good")),
            "missing": flow(&dir.join("nowhere.mp4"), &url("missing")),
            "truncated": flow(&truncated, &url("truncated")),
            "text": flow(&text, &url("text")),
            "folder": flow(&dir, &url("folder")),
        })))
        .start();
    let player = Player::start(&url("good"));
    for bad in ["missing", "text", "folder"] {
        source.wait_status(&format!("/flows/{bad}/state"), |state| state == "failed" || state == "retrying");
        let status = source.status();
        let error =
            status["flows"][bad]["input"]["error"].as_str().or(status["flows"][bad]["error"].as_str());
        assert!(error.is_some_and(|error| !error.is_empty()), "{bad} does not say why: {status:#}");
    }
    source.wait_value("/flows/good/state", "running");
    player.wait_frames(Kind::Video, 50);

    // What is cut behind its index plays as far as it goes, and it is said where it is cut.
    source.wait_value("/flows/truncated/state", "running");
    source.wait_log(&["the file is cut at byte ", " samples are not in it, from sample ", "flow=truncated"]);
    Player::start(&url("truncated")).wait_frames(Kind::Video, 10);

    // What was missing comes, and is played.
    std::fs::copy(Clip::Plain.mp4(), dir.join("nowhere.mp4")).unwrap();
    source.wait_value("/flows/missing/state", "running");
    Player::start(&url("missing")).wait_frames(Kind::Video, 10);
}

#[test]
fn a_replaced_file_is_taken_up_at_the_next_round() {
    needs!(Ffmpeg);
    let setup = Setup::new("mp4-source");
    let file = setup.dir().join("clip.mp4");
    let replace = |clip: Clip| {
        let aside = file.with_extension("new");
        std::fs::copy(clip.mp4(), &aside).unwrap();
        std::fs::rename(aside, &file).unwrap();
    };
    replace(Clip::Plain);
    let url = rtmp(port::free(), "live/clip");
    let source = setup.twin(&twin(json!({ "clip": flow(&file, &url) }))).start();
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 10);
    replace(Clip::Pyramid);
    let new = flv::recording(&Clip::Pyramid.flv(Tool::Ffmpeg));
    let first = new.of(Kind::Video)[0].hash.clone();
    wait::until_true("the new file plays", wait::LONG, || {
        player.recording().of(Kind::Video).iter().any(|packet| packet.hash == first)
    });
    assert_eq!(player.ended(), None);
    let played = player.recording();
    let video = played.of(Kind::Video);
    let at = video.iter().position(|packet| packet.hash == first).unwrap();
    let old = flv::recording(&Clip::Plain.flv(Tool::Ffmpeg));
    assert_eq!(
        video[at - 1].hash,
        old.of(Kind::Video).last().unwrap().hash,
        "the old file was played to its end"
    );
    for pair in video.windows(2) {
        assert!(pair[0].dts <= pair[1].dts, "time went back: {pair:?}");
    }
    source.wait_value("/flows/clip/state", "running");
}

#[test]
fn a_file_without_loop_is_played_once() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/once");
    let mut once = flow(&Clip::Plain.mp4(), &url);
    once["input"]["loop"] = json!(false);
    once["input"]["startSeconds"] = json!(2);
    let source = Module::start("mp4-source", &twin(json!({ "once": once })));
    let player = Player::start(&url);
    let file = presented(&Clip::Plain.mp4(), Tool::Ffmpeg);
    let last = file.of(Kind::Video).last().unwrap().hash.clone();
    wait::until_true("the last picture", wait::LONG, || {
        player.recording().of(Kind::Video).last().is_some_and(|packet| packet.hash == last)
    });
    assert!(player.frames(Kind::Video) <= file.of(Kind::Video).len());
    assert_eq!(source.terminate().status.code(), Some(0));
}

#[test]
fn a_file_that_is_over_says_so_and_its_players_stay() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/once");
    let mut once = flow(&Clip::Smaller.mp4(), &url);
    once["input"]["loop"] = json!(false);
    once["outputs"]["gone"] = json!({ "serve": rtmp(port::free(), "live/once") });
    let source = Module::start("mp4-source", &twin(json!({ "once": once })));
    let player = Player::start(&url);
    source.wait_receiving("once");
    source.wait_value("/flows/once/input/state", "waiting");
    source.wait_status("/flows/once/input/error", |error| {
        error.as_str().is_some_and(|text| text.contains("flows.once.input.read") && text.contains("end"))
    });
    source.wait_value("/flows/once/state", "waiting");
    assert_eq!(player.ended(), None, "onPublisherLoss is hold");
    assert!(player.recording().of(Kind::Video).len() <= 75);
}

#[test]
fn a_file_begins_where_it_is_told_to_and_later_rounds_are_whole() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/later");
    let mut later = flow(&Clip::Smaller.mp4(), &url);
    // Inside the third GOP: decoding begins with its sync frame.
    later["input"]["startSeconds"] = json!(2.2);
    // Nothing is played before the player is there.
    let mut document = twin(json!({ "later": later }));
    document["flows"]["later"]["enabled"] = json!(false);
    let source = Module::start("mp4-source", &document);
    document["flows"]["later"]["enabled"] = json!(true);
    source.set_twin(&document);
    let player = wait::until("a player is let in", wait::LONG, || {
        let player = Player::start(&url);
        wait::until("it plays or is refused", wait::LONG, || {
            (player.frames(Kind::Video) > 0).then_some(true).or_else(|| player.ended().map(|_| false))
        })
        .then_some(player)
    });
    player.wait_frames(Kind::Video, 25 + 75 + 10);
    let file = presented(&Clip::Smaller.mp4(), Tool::Ffmpeg);
    let order: Vec<_> = file.of(Kind::Video).iter().map(|packet| packet.hash.clone()).collect();
    let played = player.recording();
    let places: Vec<_> = played
        .of(Kind::Video)
        .iter()
        .map(|packet| order.iter().position(|hash| *hash == packet.hash).expect("a picture of the file"))
        .collect();
    assert_eq!(places[0], 50, "the sync frame before 2.2 s");
    for pair in places.windows(2) {
        assert!(pair[1] == (pair[0] + 1) % 75, "picture {} after {}", pair[1], pair[0]);
    }
    for kind in [Kind::Video, Kind::Audio] {
        for pair in played.of(kind).windows(2) {
            assert!((0..=100).contains(&(pair[1].dts - pair[0].dts)), "{kind:?}: {pair:?}");
        }
    }
}

#[test]
fn a_track_that_is_left_aside_is_reported_with_codec_and_reason_and_the_other_plays() {
    needs!(Ffmpeg);
    let setup = Setup::new("mp4-source");
    let file = setup.dir().join("clip.mp4");
    let mut clip = std::fs::read(Clip::Plain.mp4()).unwrap();
    let esds = clip.windows(4).rposition(|four| four == b"esds").unwrap();
    clip[esds..esds + 4].copy_from_slice(b"junk");
    // Bytes of whoever copied it.
    clip.extend(b"\0\0\0\x05behind the last box");
    std::fs::write(&file, clip).unwrap();
    let url = rtmp(port::free(), "live/clip");
    let source = setup.twin(&twin(json!({ "clip": flow(&file, &url) }))).start();
    source.wait_value("/flows/clip/state", "running");
    source.wait_value("/flows/clip/input/audio/codec", "mp4a");
    source.wait_status("/flows/clip/input/audio/dropped", |dropped| {
        dropped.as_str().is_some_and(|text| text.starts_with("it has no esds box (box mp4a at byte "))
    });
    let line =
        source.wait_log(&["tracks that are not played: track 2 (mp4a): it has no esds box", "flow=clip"]);
    assert!(line.contains("[WRN]"), "{line}");
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 50);
    assert_eq!(player.frames(Kind::Audio), 0);
    let skipped = source.metrics().sum("av_frames_skipped_total", &[("flow", "clip")]);
    assert_eq!(skipped, Some(0.0), "a track that is left aside gives no frames to be counted");
}
