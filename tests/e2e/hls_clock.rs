//! The machine's clock steps while a stream runs.

use std::path::PathBuf;

use av_tests::clip::Clip;
use av_tests::module::Setup;
use av_tests::rtmp::Publisher;
use av_tests::tool::skip;
use av_tests::{needs, port};
use serde_json::json;

use crate::hls::{Gateway, Watch, document};
use crate::rtmp;

/// Where libfaketime is; `None` where it is not installed.
fn faketime() -> Option<PathBuf> {
    let libraries = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let path = |dir: std::fs::DirEntry| dir.path().join("faketime/libfaketime.so.1");
    libraries.map(path).find(|path| path.exists())
}

/// The day of each EXT-X-PROGRAM-DATE-TIME, and whether a discontinuity is before it.
fn dates(text: &str) -> Vec<(String, bool)> {
    let mut dates = Vec::new();
    let mut broken = false;
    for line in text.lines() {
        broken |= line == "#EXT-X-DISCONTINUITY";
        if let Some(date) = line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:") {
            dates.push((date[..10].to_owned(), std::mem::take(&mut broken)));
        }
    }
    dates
}

#[test]
fn a_clock_that_steps_moves_dates_behind_a_discontinuity_and_numbers_go_on() {
    needs!(Ffmpeg);
    let Some(library) = faketime() else { return skip("a clock that steps", "libfaketime is not installed") };
    let (url, port) = (rtmp(port::free(), "live/cam"), port::free());
    let setup = Setup::new("hls-gateway");
    let clock = setup.dir().join("clock");
    // Read anew at each call of a clock; only the wall clock steps.
    std::fs::write(&clock, "+0\n").unwrap();
    let module = setup
        .env("LD_PRELOAD", &library.display().to_string())
        .env("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string())
        .env("FAKETIME_NO_CACHE", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .twin(&document(&url, port, &json!({}), &json!({ "segmentSeconds": 1 })))
        .start();
    let gateway = Gateway { module, rtmp: url, port };
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    let mut watch = Watch::new(&gateway);
    for step in ["-3d", "+4d"] {
        watch.until(gateway.port, "segments", |text| text.matches("#EXTINF").count() >= 2);
        let before = dates(&watch.last_text).pop().unwrap().0;
        std::fs::write(&clock, format!("{step}\n")).unwrap();
        watch.until(gateway.port, "dates of the new time", |text| {
            let dates = dates(text);
            let pairs = dates.iter().zip(dates.iter().skip(1));
            // Where the day changes, a discontinuity says so. It may be midnight.
            let quiet = pairs.filter(|((was, _), (is, broken))| was != is && !broken).count();
            assert!(quiet <= 1, "{text}");
            dates.last().is_some_and(|(date, _)| *date != before)
        });
    }
    assert_eq!(watch.last_text.matches("#EXT-X-MAP").count(), 1, "the same init segment");
}
