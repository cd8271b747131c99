//! Windows of HLS that are longer than memory, and what a change of the configuration or a crash leaves of them.

use std::path::{Path, PathBuf};

use av_tests::clip::Clip;
use av_tests::module::{Module, Setup};
use av_tests::rtmp::Publisher;
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::hls::{Gateway, Watch, document, request};
use crate::rtmp;

fn segments(text: &str) -> Vec<String> {
    text.lines().filter(|line| line.ends_with(".m4s")).map(str::to_owned).collect()
}

/// What the multivariant playlist says of codecs, size and rate.
fn looks(gateway: &Gateway) -> [Option<String>; 3] {
    gateway.media();
    let text = gateway.get("/live/cam/index.m3u8").text();
    ["CODECS=\"", "RESOLUTION=", "FRAME-RATE="].map(|name| {
        let (_, value) = text.split_once(name)?;
        let end = if name.ends_with('"') { &['"'][..] } else { &[',', '\n'] };
        Some(value.split(end).next()?.to_owned())
    })
}

/// Files of media below a folder.
fn media(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let (dirs, files): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_dir());
    let own = files.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "m4s"));
    own.chain(dirs.iter().flat_map(|dir| media(dir))).collect()
}

#[test]
fn a_long_window_is_there_again_after_the_module_was_killed_and_goes_on() {
    needs!(Ffmpeg);
    let mut gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 1, "windowSeconds": 3600 }));
    let publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    let mut watch = Watch::new(&gateway);
    watch.until(gateway.port, "segments", |text| segments(text).len() >= 5);
    let dir = gateway.module.dir();
    wait::until_true("segments on disk", wait::LONG, || media(&dir).len() >= 5);
    let looked = looks(&gateway);
    assert!(looked.iter().all(Option::is_some), "{looked:?}");
    gateway.module = gateway.module.kill_and_restart(|setup: Setup| setup);
    drop(publisher);
    // Nobody publishes, and what was is there.
    let old = watch.contents.clone();
    watch.until(gateway.port, "the old segments", |text| text.contains(old.keys().next().unwrap()));
    assert_eq!(looks(&gateway), looked);
    let mut compared = 0;
    for (uri, body) in &old {
        let path = format!("/live/cam/{uri}");
        let answer = gateway.get(&path);
        // The newest may not have been written yet.
        if answer.status == 200 {
            assert!(answer.body == *body, "{uri} has another content");
            let ranged = request(gateway.port, &format!("GET {path} HTTP/1.1\r\nRange: bytes=7-1006\r\n"));
            assert_eq!((ranged.status, &ranged.body[..]), (206, &body[7..1007]));
            compared += 1;
        }
    }
    assert!(compared >= 4, "{compared} of {}", old.len());
    // One more crash, and the publisher is back.
    gateway.module = gateway.module.kill_and_restart(|setup: Setup| setup);
    let _again = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    watch.until(gateway.port, "media behind a discontinuity", |text| {
        text.contains(old.keys().next().unwrap())
            && text.rsplit_once("#EXT-X-DISCONTINUITY\n").is_some_and(|(_, new)| segments(new).len() >= 2)
    });
}

#[test]
fn what_a_small_cache_has_no_room_for_is_fetched_from_the_disk() {
    needs!(Ffmpeg);
    let (rtmp, port) = (rtmp(port::free(), "live/cam"), port::free());
    let output = json!({ "segmentSeconds": 1, "windowSeconds": 10 });
    let mut document = document(&rtmp, port, &json!({}), &output);
    // Of some 20 MB that have to be there.
    document["cacheMegabytes"] = json!(10);
    let gateway = Gateway { module: Module::start("hls-gateway", &document), rtmp, port };
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Heavy.tags());
    let mut watch = Watch::new(&gateway);
    watch.until(gateway.port, "a whole window", |text| segments(text).len() >= 10);
    let first = segments(&watch.last_text)[0].clone();
    watch.until(gateway.port, "others", |text| !text.contains(&first));
    assert!(
        !watch.last_text.contains("#EXT-X-DISCONTINUITY\n") && !watch.last_text.contains("GAP"),
        "{}",
        watch.last_text
    );
    assert!(segments(&watch.last_text).len() >= 10, "{}", watch.last_text);
    assert!(media(&gateway.module.dir()).len() >= 2, "nothing is on disk");
    for (uri, body) in &watch.contents {
        let answer = gateway.get(&format!("/live/cam/{uri}"));
        assert!(answer.status == 200 && answer.body == *body, "{uri}: {}", answer.status);
    }
}

#[test]
fn a_window_that_is_made_longer_or_shorter_keeps_its_segments_and_has_no_break() {
    needs!(Ffmpeg);
    let with =
        |window: u32, links: Value| json!({ "segmentSeconds": 1, "windowSeconds": window, "links": links });
    let gateway = Gateway::start(&json!({}), &with(60, json!([])));
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    let mut watch = Watch::new(&gateway);
    watch.until(gateway.port, "segments", |text| segments(text).len() >= 3);
    let first = segments(&watch.last_text).remove(0);
    for window in [3600, 90] {
        let links = json!([{ "label": format!("window {window}"), "url": gateway.rtmp }]);
        let output = with(window, links);
        gateway.module.set_twin(&document(&gateway.rtmp, gateway.port, &json!({}), &output));
        wait::until_true("the change", wait::LONG, || {
            gateway.get("/-/streams.json").text().contains(&format!("window {window}"))
        });
        let known = segments(&watch.last_text).len();
        watch.until(gateway.port, "more segments", |text| segments(text).len() >= known + 2);
        assert_eq!(segments(&watch.last_text)[0], first);
        assert!(!watch.last_text.contains("#EXT-X-DISCONTINUITY\n"), "{}", watch.last_text);
    }
}

/// Segments, gaps' as well, parts and init segments that are listed: all are answered, as ffmpeg asks for them.
fn all_is_there(gateway: &Gateway, text: &str) {
    let quoted = |line: &str| line.split('"').nth(1).unwrap().to_owned();
    let listed = text.lines().filter_map(|line| {
        let named = line.starts_with("#EXT-X-MAP:") || line.starts_with("#EXT-X-PART:");
        if named { Some(quoted(line)) } else { (!line.starts_with('#')).then(|| line.to_owned()) }
    });
    for uri in listed {
        let head = format!("GET /live/cam/{uri} HTTP/1.1\r\nRange: bytes=0-\r\n");
        let answer = request(gateway.port, &head);
        assert!(matches!(answer.status, 200 | 206), "{uri} {}: {text}", answer.status);
        // A number that is a gap may have been a segment that was lost in a crash: nobody may keep that.
        let is_kept = answer.header("cache-control").unwrap().contains("immutable");
        assert_eq!((is_kept, answer.header("etag").is_some()), (!answer.body.is_empty(), is_kept), "{uri}");
    }
}

#[test]
fn all_that_is_listed_can_be_fetched_whatever_becomes_of_publisher_configuration_and_module() {
    needs!(Ffmpeg);
    let output = |part: u32| json!({ "segmentSeconds": 1, "windowSeconds": 3600, "partMilliseconds": part });
    let mut gateway = Gateway::start(&json!({}), &output(200));
    let publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    let mut watch = Watch::new(&gateway);
    watch.until(gateway.port, "segments", |text| segments(text).len() >= 3);
    all_is_there(&gateway, &watch.last_text);
    publisher.stop();
    watch.until(gateway.port, "gaps", |text| text.matches("#EXT-X-GAP\n").count() >= 2);
    all_is_there(&gateway, &watch.last_text);
    let dir = gateway.module.dir();
    wait::until_true("segments on disk", wait::LONG, || media(&dir).len() >= 3);
    gateway.module = gateway.module.kill_and_restart(|setup: Setup| setup);
    let old = watch.contents.keys().next().unwrap().clone();
    watch.until(gateway.port, "the old segments", |text| text.contains(&old));
    assert!(watch.last_text.contains("#EXT-X-GAP\n"));
    all_is_there(&gateway, &watch.last_text);
    // Another playlist, which counts its parts anew while the old segments go.
    let _again = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    gateway.module.set_twin(&document(&gateway.rtmp, gateway.port, &json!({}), &output(400)));
    wait::until_true("another playlist", wait::LONG, || gateway.media() != watch.media);
    let mut watch = Watch::new(&gateway);
    watch.until(gateway.port, "segments", |text| segments(text).len() >= 2);
    all_is_there(&gateway, &watch.last_text);
}
