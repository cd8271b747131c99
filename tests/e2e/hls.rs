//! HLS, by clients that share no code with the module: ffmpeg, and requests written by hand.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use av_tests::clip::Clip;
use av_tests::module::{Module, Setup};
use av_tests::nginx::Nginx;
use av_tests::rtmp::Publisher;
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::{rtmp, twin};

/// A gateway that listens for `live/cam` and serves it.
pub(crate) struct Gateway {
    pub(crate) module: Module,
    pub(crate) rtmp: String,
    pub(crate) port: u16,
}

pub(crate) fn document(rtmp: &str, port: u16, input: &Value, output: &Value) -> Value {
    let with = |mut endpoint: Value, options: &Value| {
        endpoint.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        endpoint
    };
    twin(json!({ "cam": {
        "input": with(json!({ "listen": rtmp }), input),
        "outputs": { "web": with(json!({ "serve": format!("http://127.0.0.1:{port}/live/cam") }), output) },
    } }))
}

impl Gateway {
    pub(crate) fn start(input: &Value, output: &Value) -> Self {
        let (rtmp, port) = (rtmp(port::free(), "live/cam"), port::free());
        let module = Module::start("hls-gateway", &document(&rtmp, port, input, output));
        Self { module, rtmp, port }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        request(self.port, &format!("GET {path} HTTP/1.1\r\n"))
    }

    /// The media playlist's path, once the stream can be played.
    pub(crate) fn media(&self) -> String {
        wait::until("a multivariant playlist", wait::LONG, || {
            let answer = self.get("/live/cam/index.m3u8");
            let uri = answer.text().lines().last().map(str::to_owned);
            uri.filter(|_| answer.status == 200).map(|uri| format!("/live/cam/{uri}"))
        })
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// One request on a connection of its own. `head`: its first lines.
pub(crate) fn request(port: u16, head: &str) -> Answer {
    exchange(port, &format!("{head}Host: 127.0.0.1\r\nConnection: close\r\n\r\n"))
}

/// One request, to its last byte, on a connection of its own, which it has to end.
pub(crate) fn exchange(port: u16, request: &str) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(wait::LONG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = text.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Answer { status, headers, body: bytes.split_off(end + 4) }
}

fn tag<'a>(playlist: &'a str, name: &str) -> &'a str {
    playlist
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_else(|| panic!("no {name} in {playlist}"))
}

#[test]
fn a_request_for_the_next_part_is_answered_when_it_is_there_and_one_far_ahead_is_refused() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({}));
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    let media = gateway.media();
    let playlist = gateway.get(&media).text();
    let first: u64 = tag(&playlist, "#EXT-X-MEDIA-SEQUENCE:").parse().unwrap();
    let last = first + playlist.matches("#EXTINF").count() as u64 - 1;
    // Two segments ahead of what is there: it comes.
    let next = gateway.get(&format!("{media}?_HLS_msn={}&_HLS_part=0", last + 2)).text();
    assert!(next.contains(&format!("\n{}.m4s", last + 1)), "{next}");
    let hint = tag(&next, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"").trim_end_matches('"').to_owned();
    let part = gateway.get(&format!("/live/cam/{hint}"));
    assert_eq!((part.status, part.header("content-type")), (200, Some("video/mp4")));
    assert!(part.header("cache-control").unwrap().contains("immutable"));
    let after = gateway.get(&media).text();
    assert!(after.contains(&hint), "{hint} {after}");
    for wrong in [
        format!("_HLS_msn={}", last + 1000),
        "_HLS_part=1".into(),
        "_HLS_msn=x".into(),
        format!("_HLS_msn=+{last}"),
        format!("_HLS_msn={last}&_HLS_msn={last}"),
    ] {
        assert_eq!(gateway.get(&format!("{media}?{wrong}")).status, 400, "{wrong}");
    }
    let first_part = after.lines().find(|line| line.starts_with("#EXT-X-PART:")).unwrap();
    assert!(first_part.contains("INDEPENDENT=YES"), "{first_part}");
}

#[test]
fn segments_are_their_parts_and_answers_are_as_http_has_them() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 1 }));
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    let media = gateway.media();
    let playlist = gateway.get(&media);
    let text = playlist.text();
    let mut parts = Vec::new();
    let mut compared = 0;
    for line in text.lines() {
        if let Some(part) = line.strip_prefix("#EXT-X-PART:") {
            let name = part.split('"').nth(1).unwrap();
            parts.extend(gateway.get(&format!("/live/cam/{name}")).body);
        } else if !line.starts_with('#') {
            assert_eq!(gateway.get(&format!("/live/cam/{line}")).body, parts, "{line}");
            parts.clear();
            compared += 1;
        }
    }
    assert!(compared > 0);

    let segment = format!("/live/cam/{}", text.lines().find(|line| line.ends_with(".m4s")).unwrap());
    let whole = gateway.get(&segment);
    let with = |header: &str| request(gateway.port, &format!("GET {segment} HTTP/1.1\r\n{header}\r\n"));
    let ranged = with("Range: bytes=10-19");
    assert_eq!((ranged.status, &ranged.body[..]), (206, &whole.body[10..20]));
    assert_eq!(ranged.header("content-range"), Some(&*format!("bytes 10-19/{}", whole.body.len())));
    assert_eq!(with("Range: bytes=99999999-").status, 416);
    let tag = whole.header("etag").unwrap();
    assert_eq!(with(&format!("If-None-Match: {tag}")).status, 304);
    let head = request(gateway.port, &format!("HEAD {segment} HTTP/1.1\r\n"));
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(&*whole.body.len().to_string()));
    let options =
        request(gateway.port, &format!("OPTIONS {segment} HTTP/1.1\r\nOrigin: http://a.example\r\n"));
    assert_eq!((options.status, options.header("access-control-allow-origin")), (204, Some("*")));
    let gzip = request(gateway.port, &format!("GET {media} HTTP/1.1\r\nAccept-Encoding: gzip\r\n"));
    assert_eq!((gzip.header("content-encoding"), &gzip.body[..2]), (Some("gzip"), &[0x1f, 0x8b][..]));
    let index = "GET /live/cam/index.m3u8 HTTP/1.1\r\n";
    let plain = request(gateway.port, index);
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("Accept-Encoding")));
    let gzip = request(gateway.port, &format!("{index}Accept-Encoding: gzip\r\n"));
    assert_eq!((gzip.header("content-encoding"), &gzip.body[..2]), (Some("gzip"), &[0x1f, 0x8b][..]));
    for odd in [
        "/live/cam",
        "/live/cam/",
        "/live//cam/index.m3u8",
        "/live/cam/../cam/index.m3u8",
        "/live/cam/%2e%2e/cam/index.m3u8",
        "/live%2Fcam/index.m3u8",
        "/live/cam/index.m3u8%00",
        "/live/cam/no.m4s",
        "/live/cam/00001.m4s",
        "/etc/passwd",
        "/live/cam/%ff",
        "/live/cam/lowLatency-9-9.m3u8",
        // No key opens it, so none stands in front of it.
        "/k/one/live/cam/index.m3u8",
        "/k/%2e%2e/live/cam/index.m3u8",
    ] {
        assert_eq!(gateway.get(odd).status, 404, "{odd}");
    }
    assert_eq!(
        gateway.get("/live/cam.m3u8").text().lines().last().unwrap(),
        format!("cam/{}", media.rsplit_once('/').unwrap().1)
    );
    let listed: Value = serde_json::from_slice(&gateway.get("/-/streams.json").body).unwrap();
    assert_eq!(listed["streams"][0]["state"], "live", "{listed}");
    assert!(gateway.get("/").text().contains("<html"));
    gateway.module.wait_value("/flows/cam/outputs/web/clients", 1);
}

#[test]
fn every_address_of_a_keyed_stream_carries_the_key() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({ "auth": { "key": "s p/1" } }));
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    gateway.module.wait_receiving("cam");
    assert_eq!(gateway.get("/live/cam/index.m3u8").status, 403);
    assert_eq!(gateway.get("/live/cam/index.m3u8?key=no").status, 403);
    let text = wait::until("a playlist", wait::LONG, || {
        let answer = gateway.get("/live/cam/index.m3u8?key=s%20p%2F1");
        (answer.status == 200).then(|| answer.text())
    });
    let media = text.lines().last().unwrap();
    assert!(media.ends_with(".m3u8?key=s%20p%2F1"), "{media}");
    let playlist = gateway.get(&format!("/live/cam/{media}")).text();
    for line in playlist.lines().filter(|line| line.contains("URI=") || !line.starts_with('#')) {
        let uri = if line.starts_with('#') {
            line.split("URI=\"").nth(1).unwrap().split('"').next().unwrap()
        } else {
            line
        };
        assert!(uri.ends_with("?key=s%20p%2F1"), "{line}");
        assert_eq!(
            gateway.get(&format!("/live/cam/{}", uri.split('?').next().unwrap())).status,
            403,
            "{uri}"
        );
        assert_eq!(gateway.get(&format!("/live/cam/{uri}")).status, 200, "{uri}");
    }
    let listed: Value = serde_json::from_slice(&gateway.get("/-/streams.json").body).unwrap();
    assert_eq!(listed["streams"], json!([]));
}

#[test]
fn the_key_in_the_path_stands_in_no_playlist() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({ "auth": { "key": ["one", "two/2"] } }));
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    gateway.module.wait_receiving("cam");
    assert_eq!(gateway.get("/k/no/live/cam/index.m3u8").status, 403);
    let text = wait::until("a playlist", wait::LONG, || {
        let answer = gateway.get("/k/two%2F2/live/cam/index.m3u8");
        (answer.status == 200).then(|| answer.text())
    });
    let media = format!("/k/two%2F2/live/cam/{}", text.lines().last().unwrap());
    let playlist = gateway.get(&media).text();
    assert!(!playlist.contains("two") && !text.contains("two"), "{playlist}");
    let segment = playlist.lines().find(|line| line.ends_with(".m4s")).unwrap();
    assert_eq!(gateway.get(&format!("/k/two%2F2/live/cam/{segment}")).status, 200);
}

/// Looks at every version of a playlist while something happens, and holds them against each other.
pub(crate) struct Watch {
    pub(crate) media: String,
    /// URI and discontinuity number by sequence number.
    seen: BTreeMap<u64, (String, u64)>,
    constants: Vec<String>,
    /// Length and hash of what was behind each URI.
    pub(crate) contents: BTreeMap<String, Vec<u8>>,
    pub(crate) last_text: String,
    /// Answers that a cache had.
    cached: u32,
}

impl Watch {
    pub(crate) fn new(gateway: &Gateway) -> Self {
        let media = gateway.media();
        Self {
            media,
            seen: BTreeMap::new(),
            constants: Vec::new(),
            contents: BTreeMap::new(),
            last_text: String::new(),
            cached: 0,
        }
    }

    /// Looks once. `false`: nobody answered.
    fn look(&mut self, port: u16) -> bool {
        if TcpStream::connect(("127.0.0.1", port)).is_err() {
            return false;
        }
        let answer = request(port, &format!("GET {} HTTP/1.1\r\n", self.media));
        assert!(matches!(answer.status, 200 | 502..=504), "{} {}", answer.status, answer.text());
        if answer.status != 200 {
            return false;
        }
        self.cached += u32::from(answer.header("x-cache") == Some("HIT"));
        let text = answer.text();
        let constants = ["#EXT-X-TARGETDURATION:", "#EXT-X-SERVER-CONTROL:", "#EXT-X-PART-INF:"];
        let lines = |name| text.lines().filter(move |line: &&str| line.starts_with(name));
        let constants = constants.into_iter().flat_map(lines).map(str::to_owned).collect::<Vec<_>>();
        if self.constants.is_empty() {
            self.constants.clone_from(&constants);
        }
        assert_eq!(self.constants, constants);
        let mut number: u64 = tag(&text, "#EXT-X-MEDIA-SEQUENCE:").parse().unwrap();
        let mut broken: u64 = tag(&text, "#EXT-X-DISCONTINUITY-SEQUENCE:").parse().unwrap();
        let newest = self.seen.keys().last().copied().unwrap_or(0);
        let mut gap = false;
        for line in text.lines() {
            if line == "#EXT-X-DISCONTINUITY" {
                broken += 1;
            } else if line == "#EXT-X-GAP" {
                gap = true;
            } else if !line.starts_with('#') {
                let known = self.seen.entry(number).or_insert_with(|| (line.to_owned(), broken));
                assert_eq!(known, &(line.to_owned(), broken));
                if !gap && !self.contents.contains_key(line) {
                    let segment = request(port, &format!("GET /live/cam/{line} HTTP/1.1\r\n"));
                    assert_eq!(segment.status, 200, "{line}");
                    self.contents.insert(line.to_owned(), segment.body);
                }
                (number, gap) = (number + 1, false);
            }
        }
        assert!(number > newest, "numbers went back from {newest} to {number}");
        self.last_text = text;
        true
    }

    /// Through a cache the same is seen as without.
    pub(crate) fn is_a_cache_of(&self, direct: &Self) {
        assert!(self.cached > 0, "nothing came from the cache");
        let mut compared = 0;
        for (uri, bytes) in &direct.contents {
            if let Some(cached) = self.contents.get(uri) {
                assert!(cached == bytes, "{uri} has another content in the cache");
                compared += 1;
            }
        }
        assert!(compared >= 4, "{compared} of {}", direct.contents.len());
    }

    pub(crate) fn until(&mut self, port: u16, what: &str, mut fits: impl FnMut(&str) -> bool) {
        let start = Instant::now();
        while !(self.look(port) && fits(&self.last_text)) {
            assert!(start.elapsed() < wait::LONG, "not in time: {what}: {}", self.last_text);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn gaps_go_on_while_the_publisher_is_away_and_a_discontinuity_says_that_it_is_back() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 1 }));
    let publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    let mut watch = Watch::new(&gateway);
    watch.until(gateway.port, "segments", |text| text.matches("#EXTINF").count() >= 3);
    publisher.stop();
    watch.until(gateway.port, "gaps", |text| {
        text.matches("#EXT-X-GAP").count() >= 3 && text.contains("GAP=YES")
    });
    let _again = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Smaller.tags());
    watch.until(gateway.port, "media again", |text| {
        let rest = text.rsplit_once("#EXT-X-DISCONTINUITY\n").map_or("", |(_, rest)| rest);
        rest.contains("#EXT-X-MAP") && rest.matches("#EXTINF").count() >= 2
    });
}

#[test]
fn a_module_that_was_killed_goes_on_under_the_same_url_with_higher_numbers() {
    needs!(Ffmpeg);
    let mut gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 1 }));
    let mut watch = None::<Watch>;
    for _ in 0..3 {
        let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
        let watch = watch.get_or_insert_with(|| Watch::new(&gateway));
        let known = watch.seen.len();
        watch.until(gateway.port, "new segments", |text| text.matches("#EXTINF").count() >= 3);
        assert!(watch.seen.len() > known);
        gateway.module = gateway.module.kill_and_restart(|setup: Setup| setup);
    }
}

#[test]
fn a_cache_in_front_never_shows_one_address_with_two_contents_also_when_the_module_is_killed() {
    needs!(Ffmpeg, Nginx);
    let mut gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 1 }));
    let cache = Nginx::cache(gateway.port);
    let mut watches = None::<[Watch; 2]>;
    for _ in 0..2 {
        let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
        let [direct, cached] = watches.get_or_insert_with(|| [Watch::new(&gateway), Watch::new(&gateway)]);
        let enough = |text: &str| text.matches("#EXTINF").count() >= 4;
        cached.until(cache.port, "new segments in the cache", enough);
        direct.until(gateway.port, "new segments", enough);
        gateway.module = gateway.module.kill_and_restart(|setup: Setup| setup);
    }
    let [direct, cached] = watches.unwrap();
    cached.is_a_cache_of(&direct);
}

#[test]
fn a_change_of_numbers_is_another_playlist_and_a_change_of_links_is_not() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 1 }));
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    let mut watch = Watch::new(&gateway);
    watch.until(gateway.port, "segments", |text| text.matches("#EXTINF").count() >= 2);
    let change =
        |output: Value| gateway.module.set_twin(&document(&gateway.rtmp, gateway.port, &json!({}), &output));
    change(json!({ "segmentSeconds": 1, "links": [{ "label": "RTMP", "url": gateway.rtmp }] }));
    wait::until_true("the link", wait::LONG, || {
        gateway.get("/-/streams.json").text().contains("\"label\":\"RTMP\"")
    });
    watch.until(gateway.port, "segments", |text| text.matches("#EXTINF").count() >= 2);
    change(json!({ "segmentSeconds": 3 }));
    wait::until_true("another playlist", wait::LONG, || {
        let answer = gateway.get("/live/cam/index.m3u8");
        let name = answer.text().lines().last().unwrap_or_default().to_owned();
        answer.status == 200 && !watch.media.ends_with(&name)
    });
    assert_eq!(gateway.get(&watch.media).status, 404);
    // Who has the old playlist may still fetch what it listed.
    let mut known = watch.last_text.lines().filter(|line| line.ends_with(".m4s"));
    let newest = known.next_back().unwrap();
    assert_eq!(gateway.get(&format!("/live/cam/{newest}")).body, watch.contents[newest]);
}

#[test]
fn a_playlist_that_another_one_will_replace_goes_on_with_gaps_until_that_can_be_played() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 1 }));
    let publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    let mut watch = Watch::new(&gateway);
    watch.until(gateway.port, "segments", |text| text.matches("#EXTINF").count() >= 2);
    publisher.stop();
    let state = || gateway.get("/-/streams.json").text();
    let change = |seconds: u32, name: &str| {
        let output = json!({ "segmentSeconds": seconds, "links": [{ "label": name, "url": gateway.rtmp }] });
        gateway.module.set_twin(&document(&gateway.rtmp, gateway.port, &json!({}), &output));
        wait::until_true("the change", wait::LONG, || state().contains(&format!("\"label\":\"{name}\"")));
    };
    change(3, "another");
    watch.until(gateway.port, "the old playlist", |_| true);
    let gaps = watch.last_text.matches("#EXT-X-GAP\n").count();
    watch.until(gateway.port, "more gaps", |text| text.matches("#EXT-X-GAP\n").count() >= gaps + 3);
    // Back, before the other one has begun: it is the same playlist still.
    change(1, "as before");
    let _again = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    watch.until(gateway.port, "media", |text| text.contains("#EXT-X-DISCONTINUITY\n"));
    assert_eq!(gateway.media(), watch.media);
    change(3, "another again");
    wait::until_true("it goes", wait::LONG, || gateway.get(&watch.media).status == 404);
    assert!(state().contains("\"state\":\"live\""), "{}", state());
    assert_ne!(gateway.media(), watch.media);
}

#[test]
fn a_stream_that_is_named_as_a_page_does_not_hide_it() {
    let port = port::free();
    let _module = Module::start(
        "hls-gateway",
        &twin(json!({ "cam": {
            "input": { "listen": rtmp(port::free(), "live/cam") },
            "outputs": { "web": { "serve": format!("http://127.0.0.1:{port}/player") } },
        } })),
    );
    let get = |path: &str| request(port, &format!("GET {path} HTTP/1.1\r\n"));
    let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    wait::until_true("the stream", wait::LONG, || {
        listens() && get("/-/streams.json").text().contains("\"path\":\"/player\"")
    });
    let page = get("/player.html").text();
    let scripts = page.split("src=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect::<Vec<_>>();
    assert!(scripts.contains(&"/player/hls.min.js"), "{page}");
    for script in scripts {
        assert_eq!(get(script).status, 200, "{script}");
    }
}
