//! The machine's clock steps while a stream runs.

use std::path::{Path, PathBuf};

use av_tests::clip::Clip;
use av_tests::module::Setup;
use av_tests::nginx::Nginx;
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

/// A gateway whose wall clock is what a file says, and that file.
fn stepping(library: &Path) -> (Gateway, PathBuf) {
    let (url, port) = (rtmp(port::free(), "live/cam"), port::free());
    let setup = Setup::new("hls-gateway");
    let clock = setup.dir().join("clock");
    step_to(&clock, "+0");
    // It is read anew at each call of a clock; only the wall clock steps.
    let module = setup
        .env("LD_PRELOAD", &library.display().to_string())
        .env("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string())
        .env("FAKETIME_NO_CACHE", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .twin(&document(&url, port, &json!({}), &json!({ "segmentSeconds": 1 })))
        .start();
    (Gateway { module, rtmp: url, port }, clock)
}

fn step_to(clock: &Path, step: &str) {
    // Whoever reads it meanwhile sees the old time or the new one.
    let new = clock.with_extension("new");
    std::fs::write(&new, format!("{step}\n")).unwrap();
    std::fs::rename(&new, clock).unwrap();
}

#[test]
fn a_clock_that_steps_moves_dates_behind_a_discontinuity_and_numbers_go_on() {
    needs!(Ffmpeg);
    let Some(library) = faketime() else { return skip("a clock that steps", "libfaketime is not installed") };
    let (gateway, clock) = stepping(&library);
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    let mut watch = Watch::new(&gateway);
    for step in ["-3d", "+4d"] {
        watch.until(gateway.port, "segments", |text| text.matches("#EXTINF").count() >= 2);
        let before = dates(&watch.last_text).pop().unwrap().0;
        step_to(&clock, step);
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

#[test]
fn a_cache_in_front_never_shows_one_address_with_two_contents_also_when_the_clock_steps_and_the_module_is_killed()
 {
    needs!(Ffmpeg, Nginx);
    let Some(library) = faketime() else {
        return skip("a cache and a clock that steps", "libfaketime is not installed");
    };
    let (mut gateway, clock) = stepping(&library);
    let cache = Nginx::cache(gateway.port);
    let mut watches = None::<[Watch; 2]>;
    // The clock that is set back stays so over the kill, and goes on again when the module runs.
    for step in ["-3d", "+4d"] {
        let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
        let [direct, cached] = watches.get_or_insert_with(|| [Watch::new(&gateway), Watch::new(&gateway)]);
        for enough in [2, 4] {
            let enough = |text: &str| text.matches("#EXTINF").count() >= enough;
            cached.until(cache.port, "new segments in the cache", enough);
            direct.until(gateway.port, "new segments", enough);
            step_to(&clock, step);
        }
        gateway.module = gateway.module.kill_and_restart(|setup: Setup| setup);
    }
    let [direct, cached] = watches.unwrap();
    cached.is_a_cache_of(&direct);
}
