//! The player page in Chromium, with real publishers (`tests/browser`).

use std::process::Command;

use av_tests::tool::{binary, skip, tests_dir};

#[test]
fn a_viewer_in_chromium_sees_the_stream_through_a_new_publisher_and_a_killed_module() {
    let driver = tests_dir().join(".tools/browser/node_modules");
    if !driver.exists() || !std::path::Path::new("/usr/bin/chromium").exists() {
        skip("pages::a_viewer_in_chromium", "Chromium or its driver is not installed");
        return;
    }
    let seconds = if std::env::var_os("AV_LONG").is_some() { "1800" } else { "60" };
    let seconds = std::env::var("AV_WATCH_SECONDS").unwrap_or(seconds.to_owned());
    let output = Command::new("node")
        .arg(tests_dir().join("browser/watch.mjs"))
        .arg(binary("hls-gateway"))
        .arg(seconds)
        .output()
        .unwrap();
    eprint!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
