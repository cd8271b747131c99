//! The pages in Chromium, with real publishers (`tests/browser`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use av_tests::tool::{binary, skip, tests_dir};

/// One browser at a time: each takes the machine for itself.
static BROWSER: Mutex<()> = Mutex::new(());

/// What it takes when minutes do not count, and when they do.
fn long<T>(short: T, long: T) -> T {
    if std::env::var_os("AV_LONG").is_some() { long } else { short }
}

/// Runs a script of `tests/browser`; what it prints is shown, and what it skips is counted.
fn drive(case: &str, script: &str, arguments: &[&str]) {
    let needed: [PathBuf; 2] =
        [tests_dir().join(".tools/browser/node_modules"), Path::new("/usr/bin/chromium").into()];
    if !needed.iter().all(|needed| needed.exists()) {
        skip(&format!("pages::{case}"), "Chromium or its driver is not installed");
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
fn a_page_comes_back_from_h265_which_it_may_not_decode() {
    drive("a_page_comes_back_from_h265", "codec.mjs", &[]);
}

#[test]
fn a_wall_of_nine_tiles_plays_over_http2_and_says_that_it_needs_it() {
    // Nine videos in a browser without a graphics card need more than two busy cores have.
    if long(true, false) {
        skip("pages::a_wall_of_nine_tiles", "long");
        return;
    }
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
