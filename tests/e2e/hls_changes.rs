//! HLS of a stream that changes while its publisher stays.

use std::process::Command;
use std::time::Duration;

use av_tests::chance::Chance;
use av_tests::clip::Clip;
use av_tests::flv::Tag;
use av_tests::module::Module;
use av_tests::program::Program;
use av_tests::rtmp::{Endless, Publisher};
use av_tests::tool::{Tool, binary};
use av_tests::{long_only, needs, port, wait};
use serde_json::json;

use crate::hls::Gateway;
use crate::{rtmp, twin};

fn linter(gateway: &Gateway, seconds: &str) -> Program {
    Program::start(
        Command::new(binary("hls-gateway"))
            .args(["lint", "--seconds", seconds])
            .arg(format!("http://127.0.0.1:{}/live/cam/index.m3u8", gateway.port)),
    )
}

fn found_nothing(linter: Program) {
    let ended = linter.finish(wait::LONG * 2);
    assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.ends_with(" 0 faults\n"), "{}", ended.stdout);
    eprint!("{}", ended.stdout);
}

/// The first three seconds of a clip, from `start` milliseconds on.
fn three_seconds(clip: Clip, start: u32, has_sound: bool) -> Vec<Tag> {
    let tags = clip.tags().into_iter();
    tags.filter(|tag| (tag.kind == 9 || tag.kind == 8 && has_sound) && tag.timestamp < 3000)
        .map(|tag| Tag { timestamp: tag.timestamp + start, ..tag })
        .collect()
}

#[test]
fn size_sound_and_time_change_within_a_connection_and_the_linter_finds_no_fault() {
    needs!(Ffmpeg);
    const HOUR: u32 = 3_600_000;
    let gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 2, "windowSeconds": 60 }));
    let pieces = [
        three_seconds(Clip::Smaller, 0, false),
        // Sound that comes late.
        three_seconds(Clip::Smaller, 3000, true),
        // Another size.
        three_seconds(Clip::Plain, 6000, true),
        // Another time, an hour later and then before all that was.
        three_seconds(Clip::Plain, HOUR, true),
        three_seconds(Clip::Plain, 1000, true),
    ];
    let mut publisher = Publisher::to(&gateway.rtmp);
    let publishing = std::thread::spawn(move || {
        pieces.iter().try_for_each(|piece| publisher.play_out(piece)).map(|()| publisher)
    });
    let media = gateway.media();
    let linter = linter(&gateway, "16");
    let publisher = publishing.join().unwrap().unwrap();
    let text = wait::until("silence behind all of it", wait::LONG, || {
        let text = gateway.get(&media).text();
        (text.matches("#EXT-X-GAP\n").count() >= 1).then_some(text)
    });
    // Three timelines, and three sorts of media in the first: without sound, with sound, of another size.
    assert!(text.matches("#EXT-X-DISCONTINUITY\n").count() >= 4, "{text}");
    let mut maps = text.lines().filter(|line| line.starts_with("#EXT-X-MAP:")).collect::<Vec<_>>();
    maps.sort_unstable();
    maps.dedup();
    assert_eq!(maps.len(), 3, "{text}");
    let index = gateway.get("/live/cam/index.m3u8").text();
    assert!(index.contains("RESOLUTION=320x180") && index.contains(",mp4a."), "{index}");
    found_nothing(linter);
    drop(publisher);
}

#[test]
fn a_codec_that_changes_and_comes_back_is_without_fault() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 1, "windowSeconds": 60 }));
    let pieces = [
        three_seconds(Clip::Plain, 0, true),
        three_seconds(Clip::H265, 3000, true),
        three_seconds(Clip::Plain, 6000, true),
    ];
    let mut publisher = Publisher::to(&gateway.rtmp);
    let publishing = std::thread::spawn(move || {
        pieces.iter().try_for_each(|piece| publisher.play_out(piece)).map(|()| publisher)
    });
    let media = gateway.media();
    let linter = linter(&gateway, "9");
    let publisher = publishing.join().unwrap().unwrap();
    let text = wait::until("silence behind all of it", wait::LONG, || {
        Some(gateway.get(&media).text()).filter(|text| text.contains("#EXT-X-GAP\n"))
    });
    assert!(text.matches("#EXT-X-DISCONTINUITY\n").count() >= 2, "{text}");
    let maps = text.lines().filter(|line| line.starts_with("#EXT-X-MAP:")).collect::<Vec<_>>();
    // The first codec's init segment is the same when it is back.
    assert!(maps.len() >= 3 && maps[0] != maps[1] && maps[0] == maps[2], "{text}");
    assert!(gateway.get("/live/cam/index.m3u8").text().contains("CODECS=\"avc1."));
    found_nothing(linter);
    drop(publisher);
}

/// A gateway that pulls `live/cam` while somebody watches, a module that it pulls from, and a playlist that somebody has had.
fn pulled(clip: Clip) -> (Gateway, Module, Endless, String) {
    let (from, to, web) = (rtmp(port::free(), "live/cam"), rtmp(port::free(), "live/cam"), port::free());
    let flow = json!({ "input": { "listen": from }, "outputs": { "to": { "serve": to } } });
    let source = Module::start("rtmp-splitter", &twin(json!({ "cam": flow })));
    let publisher = Publisher::to(&from).run_endlessly(clip.tags());
    let output = json!({ "serve": format!("http://127.0.0.1:{web}/live/cam"), "segmentSeconds": 1 });
    let flow = json!({ "input": { "pull": to, "onDemand": true }, "outputs": { "web": output } });
    let module = Module::start("hls-gateway", &twin(json!({ "cam": flow })));
    let gateway = Gateway { module, rtmp: to, port: web };
    let media = gateway.media();
    let text = gateway.get(&media).text();
    (gateway, source, publisher, text)
}

/// For so long there is no request but these, once a second, and the pull goes on.
fn is_kept(gateway: &Gateway, seconds: u32, mut request: impl FnMut()) {
    for second in 0..seconds {
        request();
        let status = gateway.module.status();
        let input = status.pointer("/flows/cam/input").unwrap();
        assert_eq!(input["state"], "receiving", "after {second} s: {input}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn a_pull_is_kept_between_two_requests_of_a_player_of_long_segments() {
    long_only!();
    needs!(Ffmpeg);
    let (gateway, _source, _publisher, text) = pulled(Clip::SlowCamera);
    assert!(text.contains("#EXT-X-TARGETDURATION:20\n"), "{text}");
    is_kept(&gateway, 45, || ());
}

#[test]
fn a_pull_is_kept_for_who_asks_for_segments_alone() {
    long_only!();
    needs!(Ffmpeg);
    let (gateway, _source, _publisher, text) = pulled(Clip::Plain);
    let segment = text.lines().find(|line| line.ends_with(".m4s")).unwrap();
    // Longer than a playlist is good for: three of its target durations, or 6 s, and 10 s more.
    is_kept(&gateway, 22, || assert_eq!(gateway.get(&format!("/live/cam/{segment}")).status, 200));
    gateway.module.wait_value("/flows/cam/input/state", "waiting");
}

/// Some rounds of a camera of five pictures a second with a key frame every 20 s: each picture may be 30 ms early or late, and
/// one in twenty is lost.
pub(crate) fn slow_camera(rounds: u32, has_sound: bool) -> Vec<Tag> {
    const PERIOD: u32 = 20_000;
    let clip = Clip::SlowCamera.tags();
    let mut chance = Chance(5);
    let mut all = Vec::new();
    for round in 0..rounds {
        for tag in clip.iter().filter(|tag| tag.kind == 9 || tag.kind == 8 && has_sound) {
            let is_picture = tag.kind == 9 && !tag.is_header() && !tag.is_sync();
            let off = if is_picture { chance.of(0..61) as u32 } else { 30 };
            if round == 0 || !tag.is_header() {
                all.push(Tag { timestamp: tag.timestamp + round * PERIOD + off, ..tag.clone() });
            }
        }
    }
    all.sort_by_key(|tag| tag.timestamp);
    all
}

/// So many rounds of a clip of six seconds, with the frames of each kind (8: sound, 9: pictures) that `has` lets come, by
/// their time.
pub(crate) fn with_holes(rounds: u32, has: impl Fn(u8, u32) -> bool) -> Vec<Tag> {
    const PERIOD: u32 = 6000;
    let clip = Clip::Plain.tags();
    let rounds = (0..rounds).flat_map(|round| {
        let tags = clip.iter().filter(move |tag| tag.timestamp < PERIOD && (round == 0 || !tag.is_header()));
        tags.map(move |tag| Tag { timestamp: tag.timestamp + round * PERIOD, ..tag.clone() })
    });
    rounds.filter(|tag| tag.kind != 18 && (tag.is_header() || has(tag.kind, tag.timestamp))).collect()
}

/// Sound that is there for a while, gets lost for less than a second again and again, and is away for longer.
pub(crate) fn lossy(time: u32) -> bool {
    time < 4000 || time < 12_000 && time % 2000 > 420 || time > 18_000
}

#[test]
fn sound_that_is_missing_is_silence_without_fault_for_the_linter() {
    let gateway = Gateway::start(&json!({}), &json!({}));
    let mut publisher = Publisher::to(&gateway.rtmp);
    let tags = with_holes(5, |kind, time| kind == 9 || lossy(time));
    let publishing = std::thread::spawn(move || publisher.play_out(&tags));
    gateway.media();
    found_nothing(linter(&gateway, "20"));
    let index = gateway.get("/live/cam/index.m3u8").text();
    assert!(index.contains("mp4a.40.2") && index.contains("FRAME-RATE=25.000"), "{index}");
    drop(gateway);
    let _ = publishing.join();
}

#[test]
fn pictures_that_are_announced_and_do_not_come_are_told() {
    let gateway = Gateway::start(&json!({}), &json!({}));
    let mut publisher = Publisher::to(&gateway.rtmp);
    let tags = with_holes(10, |kind, time| kind == 8 || time > 12_000);
    let publishing = std::thread::spawn(move || publisher.play_out(&tags));
    let error = gateway.module.wait_status("/flows/cam/outputs/web/error", serde_json::Value::is_string);
    let why = "flows.cam.outputs.web: sound arrives, but no pictures, although the stream announces them; ";
    assert!(error.as_str().unwrap().starts_with(why), "{error}");
    gateway.module.wait_value("/flows/cam/outputs/web/state", "waiting");
    gateway.module.wait_value("/flows/cam/outputs/web/state", "serving");
    let output = gateway.module.status().pointer("/flows/cam/outputs/web").cloned().unwrap();
    assert!(output.get("error").is_none(), "{output}");
    drop(gateway);
    let _ = publishing.join();
}

fn pictures_of_a_slow_camera_that_come_late_and_get_lost_are_without_fault(has_sound: bool) {
    let gateway = Gateway::start(&json!({}), &json!({}));
    let mut publisher = Publisher::to(&gateway.rtmp);
    let publishing = std::thread::spawn(move || publisher.play_out(&slow_camera(3, has_sound)));
    gateway.media();
    found_nothing(linter(&gateway, "25"));
    drop(gateway);
    // It was still publishing.
    publishing.join().unwrap().unwrap_err();
}

#[test]
fn pictures_of_a_slow_camera_that_come_late_and_get_lost_are_without_fault_for_the_linter() {
    needs!(Ffmpeg);
    pictures_of_a_slow_camera_that_come_late_and_get_lost_are_without_fault(false);
}

#[test]
fn nor_with_sound_between_them() {
    needs!(Ffmpeg);
    pictures_of_a_slow_camera_that_come_late_and_get_lost_are_without_fault(true);
}

/// A camera whose rate and distance of key frames change each four seconds: 25, 12.5, 5 and 25 pictures a second, key frames
/// 1, 2, 4 and 1 s apart.
fn varying_camera() -> Vec<Tag> {
    const PERIOD: u32 = 4000;
    let clip = Clip::Plain.tags();
    let is_kept = |phase: usize, tag: &Tag| match (phase, tag.timestamp / 40) {
        _ if tag.is_header() => phase == 0,
        _ if tag.kind == 8 => true,
        (0 | 3, _) => true,
        (1, picture) => picture.is_multiple_of(2),
        (_, picture) => picture.is_multiple_of(5) && (picture == 0 || !tag.is_sync()),
    };
    let in_phase = |phase: usize| {
        let tags = clip.iter().filter(move |tag| matches!(tag.kind, 8 | 9) && tag.timestamp < PERIOD);
        let tags = tags.filter(move |tag| is_kept(phase, tag));
        tags.map(move |tag| Tag { timestamp: tag.timestamp + phase as u32 * PERIOD, ..tag.clone() })
    };
    (0..4).flat_map(in_phase).collect()
}

#[test]
fn a_camera_that_varies_its_rate_and_its_key_frames_is_without_fault() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({}));
    let mut publisher = Publisher::to(&gateway.rtmp);
    let publishing = std::thread::spawn(move || publisher.play_out(&varying_camera()).map(|()| publisher));
    gateway.media();
    found_nothing(linter(&gateway, "15"));
    drop(publishing.join().unwrap().unwrap());
}

#[test]
fn ffmpeg_shows_every_picture_of_a_transport_stream_whose_size_changes() {
    needs!(Ffmpeg, Ffmpeg9);
    let output = json!({ "variant": "mpegts", "segmentSeconds": 1, "windowSeconds": 60 });
    let gateway = Gateway::start(&json!({ "onPublisherLoss": "close" }), &output);
    let pieces = [
        three_seconds(Clip::Smaller, 0, true),
        three_seconds(Clip::Plain, 3000, true),
        three_seconds(Clip::Smaller, 6000, true),
    ];
    // Sequence headers are no pictures.
    let is_picture = |tag: &&Tag| tag.kind == 9 && tag.body.get(1) == Some(&1);
    let sent = pieces.iter().flatten().filter(is_picture).count();
    let mut publisher = Publisher::to(&gateway.rtmp);
    let publishing = std::thread::spawn(move || {
        pieces.iter().try_for_each(|piece| publisher.play_out(piece))?;
        publisher.finish()
    });
    gateway.media();
    let mut player = Tool::Ffmpeg9.command();
    player.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-live_start_index", "0", "-i"]);
    player.arg(format!("http://127.0.0.1:{}/live/cam/index.m3u8", gateway.port));
    // Frames as they are: what the first picture's size makes of the others would hide whether they came.
    player.args(["-map", "0:v", "-fps_mode", "passthrough", "-noautoscale", "-f", "framemd5", "-"]);
    let player = Program::start(&mut player);
    publishing.join().unwrap().unwrap();
    let ended = player.finish(wait::LONG);
    let sizes = ended.stdout.lines().filter(|line| !line.starts_with('#'));
    let sizes = sizes.map(|line| line.split(',').nth(4).unwrap().trim().to_owned()).collect::<Vec<_>>();
    let runs = sizes.chunk_by(|one, other| one == other).map(<[_]>::len).collect::<Vec<_>>();
    assert_eq!((runs.len(), sizes.len()), (3, sent), "{runs:?} {}", ended.stderr);
}

#[test]
fn a_camera_of_five_pictures_a_second_and_a_key_frame_every_twenty_seconds_is_without_fault() {
    long_only!();
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({ "windowSeconds": 120 }));
    let mut camera = Tool::Ffmpeg.command();
    camera.args([
        "-v",
        "error",
        "-nostdin",
        "-re",
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=320x180:rate=5",
        "-f",
        "lavfi",
    ]);
    camera.args(["-i", "sine=sample_rate=48000", "-c:v", "libx264", "-preset", "veryfast", "-g", "100"]);
    camera.args([
        "-keyint_min",
        "100",
        "-bf",
        "0",
        "-sc_threshold",
        "0",
        "-c:a",
        "aac",
        "-f",
        "flv",
        &gateway.rtmp,
    ]);
    let camera = Program::start(&mut camera);
    let media = gateway.media();
    found_nothing(linter(&gateway, "90"));
    let text = gateway.get(&media).text();
    assert!(text.contains("#EXT-X-TARGETDURATION:20\n"), "{text}");
    assert!(!text.contains("GAP") && text.matches("#EXTINF:20.00000,").count() >= 3, "{text}");
    camera.end("TERM", wait::LONG);
}

#[test]
fn a_slow_camera_that_is_late_and_leaves_pictures_out_has_no_gap_and_no_fault() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({}));
    let mut camera = Tool::Ffmpeg.command();
    camera.args(["-v", "error", "-nostdin", "-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=5"]);
    // Every eleventh picture is missing, and all are up to 30 ms early or late.
    let filter = "select='mod(n-5,11)',settb=1/1000,setpts='PTS+(mod(N*7,13)-6)*0.005/TB'";
    camera.args(["-vf", filter, "-fps_mode", "passthrough", "-enc_time_base", "1/1000"]);
    camera.args(["-c:v", "libx264", "-preset", "veryfast", "-bf", "0", "-sc_threshold", "0"]);
    camera.args(["-g", "30", "-keyint_min", "30", "-f", "flv", &gateway.rtmp]);
    let camera = Program::start(&mut camera);
    let media = gateway.media();
    found_nothing(linter(&gateway, "14"));
    let text = gateway.get(&media).text();
    assert!(!text.contains("GAP") && !text.contains("#EXT-X-DISCONTINUITY\n"), "{text}");
    camera.end("TERM", wait::LONG);
}

#[test]
fn a_track_that_the_variant_does_not_carry_is_left_out_and_the_state_says_so() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 1 }));
    // Frames of MP3, 44.1 kHz at 128 kbit/s.
    let sound = |tag: Tag| {
        let body = [&[0x2f, 0xff, 0xfb, 0x90, 0x64][..], &[0; 413]].concat();
        Tag { body, ..tag }
    };
    let tags = Clip::Plain.tags().into_iter();
    let tags = tags.map(|tag| if tag.kind == 8 { sound(tag) } else { tag }).collect::<Vec<_>>();
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(tags);
    gateway.media();
    let index = gateway.get("/live/cam/index.m3u8").text();
    assert!(index.contains("CODECS=\"avc1.") && !index.contains("mp4a"), "{index}");
    let status = gateway.module.status();
    let output = status.pointer("/flows/cam/outputs/web").unwrap();
    assert_eq!(output["state"], "serving", "{output}");
    let why = "lowLatency does not carry it";
    assert_eq!(output["audio"], json!({ "codec": "mp4a.40.34", "dropped": why }), "{output}");
    assert!(output["error"].as_str().unwrap().ends_with(why), "{output}");
}
