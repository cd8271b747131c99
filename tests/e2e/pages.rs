//! What Chromium plays, with real publishers (`tests/browser`): the pages, and recordings.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use av_tests::flv::Tag;
use av_tests::module::Setup;
use av_tests::program::Program;
use av_tests::rtmp::Publisher;
use av_tests::tool::{Tool, binary, repository, skip, tests_dir};
use av_tests::{long_only, needs, port, wait};
use serde_json::{Value, json};

use crate::hls::Gateway;
use crate::recorder_blobs::{self, Azurite, KEY};
use crate::{hls_changes, rtmp};

/// One browser at a time: each takes the machine for itself.
static BROWSER: Mutex<()> = Mutex::new(());

/// What it takes when minutes do not count, and when they do.
fn long<T>(short: T, long: T) -> T {
    if crate::long() { long } else { short }
}

/// Whether there is a browser; a case without one is counted as skipped.
fn has_browser(case: &str) -> bool {
    let needed: [PathBuf; 2] =
        [tests_dir().join(".tools/browser/node_modules"), Path::new("/usr/bin/chromium").into()];
    let is_there = needed.iter().all(|needed| needed.exists());
    if !is_there {
        skip(&format!("pages::{case}"), "Chromium or its driver is not installed");
    }
    is_there
}

/// Runs a script of `tests/browser`; what it prints is shown, and what it skips is counted.
fn drive(case: &str, script: &str, arguments: &[&str]) {
    if !has_browser(case) {
        return;
    }
    let _alone = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new("node")
        .arg(tests_dir().join("browser").join(script))
        .arg(binary("hls-gateway"))
        .args(arguments)
        .output()
        .unwrap();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.strip_prefix("SKIPPED ").and_then(|line| line.split_once(": ")) {
            Some((what, why)) => skip(what, why),
            None => eprintln!("{line}"),
        }
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_keeps_the_page_near_live_finds_its_target_and_runs_no_buffer_dry() {
    let Ok(output) = Command::new("node").arg("--test").arg(tests_dir().join("browser/keep.mjs")).output()
    else {
        skip("pages::what_keeps_the_page_near_live", "node is not installed");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_viewer_in_chromium_is_near_live_from_the_first_pictures_on() {
    let seconds = std::env::var("AV_WATCH_SECONDS").unwrap_or_else(|_| long("60", "1800").to_owned());
    drive("a_viewer_in_chromium_is_near_live", "watch.mjs", &[&seconds]);
}

#[test]
fn a_page_plays_on_through_new_publishers_killed_modules_other_sizes_and_sleep() {
    drive("a_page_plays_on", "life.mjs", &[long("2", "20"), long("1", "5")]);
}

#[test]
fn the_page_and_plain_hls_js_play_on_behind_a_hole_that_no_buffer_reaches_over() {
    drive("the_page_and_plain_hls_js_play_on", "hole.mjs", &["6"]);
}

#[test]
fn a_page_comes_back_from_h265_which_it_may_not_decode() {
    drive("a_page_comes_back_from_h265", "codec.mjs", &[]);
}

/// The page beside a camera of which these frames arrive.
fn watch_a_camera(case: &str, seconds: u32, tags: Vec<Tag>) {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({}));
    let mut publisher = Publisher::to(&gateway.rtmp);
    std::thread::spawn(move || publisher.play_out(&tags));
    let page = format!("http://127.0.0.1:{}", gateway.port);
    drive(case, "slow.mjs", &[&page, &seconds.to_string()]);
}

/// The page beside one whose pictures come late and get lost.
fn watch_a_slow_camera(case: &str, has_sound: bool) {
    let seconds = long(30, 300);
    watch_a_camera(case, seconds, hls_changes::slow_camera(seconds / 20 + 5, has_sound));
}

#[test]
fn a_page_plays_on_over_pictures_of_a_slow_camera_that_come_late_and_get_lost() {
    watch_a_slow_camera("a_page_plays_on_over_late_pictures", false);
}

#[test]
fn a_page_plays_on_over_late_and_lost_pictures_between_sound() {
    watch_a_slow_camera("a_page_plays_on_over_late_pictures_between_sound", true);
}

#[test]
fn a_page_plays_on_where_sound_gets_lost_and_is_away() {
    let tags = hls_changes::with_holes(10, |kind, time| kind == 9 || hls_changes::lossy(time));
    watch_a_camera("a_page_plays_on_where_sound_gets_lost", 20, tags);
}

#[test]
fn a_page_plays_a_stream_whose_sound_never_comes() {
    let tags = hls_changes::with_holes(10, |kind, _| kind == 9);
    watch_a_camera("a_page_plays_a_stream_whose_sound_never_comes", 10, tags);
}

#[test]
fn a_page_plays_on_with_a_new_key_that_is_given_for_the_stream_that_is_open() {
    drive("a_page_plays_on_with_a_new_key", "key.mjs", &[]);
}

#[test]
fn a_wall_of_nine_tiles_plays_over_http2_and_says_that_it_needs_it() {
    // Nine videos in a browser without a graphics card need more than two busy cores have.
    long_only!();
    drive("a_wall_of_nine_tiles", "wall.mjs", &["300"]);
}

#[test]
fn shaka_and_an_older_hls_js_play_the_stream() {
    drive("shaka_and_an_older_hls_js", "players.mjs", &[]);
}

#[test]
fn the_pages_are_whole_in_both_colour_schemes_on_wide_and_narrow_screens_and_without_hls_js() {
    let logs = binary("hls-gateway").with_file_name("../tests-run/pages");
    drive("the_pages_are_whole", "looks.mjs", &[logs.to_str().unwrap()]);
}

#[test]
fn a_recording_in_azurite_plays_from_its_middle_over_http_ranges() {
    needs!(Ffmpeg, Azurite, BlobSdk, Python);
    if !has_browser("a_recording_in_azurite_plays") {
        return;
    }
    let _alone = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(folder.path(), port::free());
    azurite.python("box.create_container()");
    let listen = rtmp(port::free(), "live/cam");
    let key = json!({ "accountKey": KEY });
    let whole = json!({ "segmentSeconds": 60 });
    let document = recorder_blobs::document(&listen, &azurite.url(), &key, whole);
    let module = Setup::new("mp4-recorder").twin(&document).start_listening();
    let mut publisher = Tool::Ffmpeg.command();
    publisher.args(["-v", "error", "-nostdin", "-re", "-i"]);
    publisher.arg(repository().join("edge-config/testcard.mp4"));
    publisher.args(["-map", "0", "-c", "copy", "-f", "flv", &listen]);
    let published = Program::run(&mut publisher, wait::LONG);
    assert!(published.status.success(), "{}", published.stderr);
    let urls = "from datetime import datetime, timedelta, timezone\n\
                sas = generate_container_sas(service.account_name, 'recordings', \
                account_key=service.credential.account_key, permission='r', \
                expiry=datetime.now(timezone.utc) + timedelta(days=1))\n\
                for blob in box.list_blobs():\n    print(box.get_blob_client(blob.name).url + '?' + sas)";
    let url = wait::until("the recording is in its container", wait::LONG, || {
        let text = azurite.python(urls);
        (text.lines().count() == 1).then(|| text.trim().to_owned())
    });
    let picture = folder.path().join("middle.png");
    let mut watch = Command::new("node");
    watch.arg(tests_dir().join("browser/file.mjs")).arg(&url).arg(&picture);
    let watched = Program::run(&mut watch, 3 * wait::LONG);
    assert!(watched.status.success(), "{}{}", watched.stdout, watched.stderr);
    let said: Value = serde_json::from_str(&watched.stdout).unwrap();
    let (duration, middle) = (said["duration"].as_f64().unwrap(), said["middle"].as_f64().unwrap());
    // The test card is 240 pictures at 30 a second, and each shows its number.
    assert!((duration - 8.0).abs() < 0.1, "{said}");
    let mut reader = Tool::Python.command();
    reader.arg(tests_dir().join("testcard/read.py")).arg(&picture);
    let read = Program::run(&mut reader, wait::LONG);
    let number: f64 = read.stdout.trim().parse().unwrap_or_else(|_| panic!("{}{}", read.stdout, read.stderr));
    assert!((number - middle * 30.0).abs() <= 1.5, "picture {number} at {middle} s");
    let is_range = |line: &&str| line.contains("GET ") && line.contains(" 206 ");
    assert!(azurite.log().lines().filter(is_range).count() > 0, "no range was asked for: {}", azurite.log());
    assert_eq!(module.terminate().status.code(), Some(0));
}
