//! Faults that only show to who follows a stream: planted in what a server answers, and when.

use std::sync::Mutex;

use super::*;

const LIST: &str = "application/vnd.apple.mpegurl";
/// The last segment, with which the stream ends.
const LAST: u64 = 9;

/// A stream of segments of a second, each of one part, that goes on with each blocking request.
struct Origin {
    init: Vec<u8>,
    fragments: Vec<Vec<u8>>,
}

/// One answer: after how long, what, and whether it is there.
struct Answered {
    /// It is elsewhere.
    location: Option<String>,
    after: Duration,
    body: Vec<u8>,
    found: bool,
}

/// A second of these frames in each.
fn fragments(has: impl Fn(&Frame) -> bool) -> Vec<Vec<u8>> {
    let mut writer = FragmentWriter::new(&tracks(), Timestamp::ZERO).unwrap();
    let fragments = (0..=LAST as i64).map(|second| {
        let frames = frames(second, 0x65, true).into_iter().filter(&has).collect::<Vec<_>>();
        let fragment = writer.fragment(&frames, None).unwrap().unwrap();
        fragment.pieces().flat_map(|piece| piece.to_vec()).collect()
    });
    fragments.collect()
}

impl Origin {
    fn new() -> Self {
        let init = FragmentWriter::new(&tracks(), Timestamp::ZERO).unwrap().init().to_vec();
        Self { init, fragments: fragments(|_| true) }
    }

    /// The playlist up to the segment `last`: four segments, and the part that is in front of the next.
    fn playlist(last: u64) -> String {
        let first = last - 3;
        let mut text = format!(
            "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:1\n\
             #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=3.0,HOLD-BACK=3.0\n\
             #EXT-X-PART-INF:PART-TARGET=1.0\n#EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-DISCONTINUITY-SEQUENCE:0\n\
             #EXT-X-MAP:URI=\"init.mp4\"\n"
        );
        for number in first..=last {
            text += &format!(
                "#EXT-X-PART:DURATION=1.00000,INDEPENDENT=YES,URI=\"p{number}.m4s\"\n#EXTINF:1.00000,\n{number}.m4s\n"
            );
        }
        if last == LAST {
            return text + "#EXT-X-ENDLIST\n";
        }
        text + &format!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"p{}.m4s\"\n", last + 1)
    }

    fn file(&self, path: &str) -> Option<Vec<u8>> {
        let name = path.trim_start_matches(['/', 'p']);
        match name.strip_suffix(".m4s") {
            Some(number) => self.fragments.get(number.parse::<usize>().ok()?).cloned(),
            None => (name == "init.mp4").then(|| self.init.clone()),
        }
    }
}

/// What the linter prints, and its exit code, of a stream in which a fault is planted: `plant` changes the answer to the
/// `n`th request (from 0) for that path.
async fn linted(
    apple: bool,
    plant: impl Fn(&str, usize, &mut Answered) + Send + Sync + 'static,
) -> (u8, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Mutex<std::collections::HashMap<String, usize>> = Mutex::default();
    let (origin, plant) = (Origin::new(), plant);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                request.push(byte);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let path = request.split([' ', '?']).nth(1).unwrap_or_default();
            let nth = {
                let mut asked = asked.lock().unwrap();
                let count = asked.entry(path.to_owned()).or_default();
                *count += 1;
                *count - 1
            };
            let is_list = path.ends_with(".m3u8");
            let body = match path {
                "/index.m3u8" => Some(MULTIVARIANT.into()),
                "/media.m3u8" => Some(Origin::playlist(LAST.min(4 + nth as u64)).into_bytes()),
                path => origin.file(path),
            };
            let mut answered = Answered {
                location: None,
                after: Duration::ZERO,
                found: body.is_some(),
                body: body.unwrap_or_default(),
            };
            plant(path, nth, &mut answered);
            tokio::time::sleep(answered.after).await;
            let status = match &answered.location {
                Some(location) => &format!("302 Found\r\nLocation: {location}"),
                None if answered.found => "200 OK",
                None => "404 Not Found",
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: max-age=1\r\n\
                 Access-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n",
                if is_list { LIST } else { "video/mp4" },
                answered.body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &answered.body].concat()).await;
        }
    });
    let url = Url::parse(&format!("http://{address}/index.m3u8")).unwrap();
    let mut out = Vec::new();
    let code = lint(arguments(url, 60, apple), &mut out).await;
    (code, String::from_utf8(out).unwrap())
}

/// The fault that is planted is found, as the only one.
async fn finds(rule: &'static Rule, plant: impl Fn(&str, usize, &mut Answered) + Send + Sync + 'static) {
    let (code, text) = linted(false, plant).await;
    let found: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.split_once(" fault  ")?.1.split_once(':').map(|(name, _)| name.to_owned()))
        // A machine that is late makes any stream stale.
        .filter(|name| name != rule::STALE.name)
        .collect();
    assert!(code == 1 && found == BTreeSet::from([rule.name.to_owned()]), "{}: {text}", rule.name);
}

fn replace(body: &mut Vec<u8>, from: &str, to: &str) {
    let text = String::from_utf8(body.clone()).unwrap();
    assert!(text.contains(from), "{from} is there");
    *body = text.replace(from, to).into_bytes();
}

#[tokio::test]
async fn a_stream_that_is_good_to_its_end_has_no_fault_and_advice_counts_for_apple_alone() {
    let (code, text) = linted(false, |_, _, _| {}).await;
    assert!(code == 0 && text.contains(" advice not-https:"), "{text}");
    let (code, text) = linted(true, |_, _, _| {}).await;
    assert!(code == 1 && text.contains(" fault  not-https:"), "{text}");
}

#[tokio::test]
async fn a_media_playlist_without_a_multivariant_one_is_advised_against() {
    let (code, text) = linted(false, |path, _, answered| {
        if path == "/index.m3u8" {
            answered.body = Origin::playlist(LAST).into();
        }
    })
    .await;
    assert!(code == 0 && text.contains(" advice bare-media-playlist:"), "{text}");
}

#[tokio::test]
async fn a_blocking_request_that_is_answered_without_what_it_waits_for_is_found() {
    finds(&rule::BLOCK_EARLY, |path, nth, answered| {
        if path == "/media.m3u8" && nth == 2 {
            answered.body = Origin::playlist(5).into();
        }
    })
    .await;
}

#[tokio::test]
async fn a_blocking_request_that_is_held_for_too_long_is_found() {
    finds(&rule::BLOCK_LATE, |path, nth, answered| {
        if path == "/media.m3u8" && nth == 2 {
            answered.after = Duration::from_millis(3600);
        }
    })
    .await;
}

#[tokio::test]
async fn a_segment_that_is_not_its_parts_is_found() {
    finds(&rule::PARTS_DIFFER, |path, _, answered| {
        if path == "/6.m4s" {
            // The last byte of the last sample of sound.
            *answered.body.last_mut().unwrap() ^= 1;
        }
    })
    .await;
}

#[tokio::test]
async fn a_segment_that_is_another_once_it_is_removed_is_found() {
    finds(&rule::TWO_CONTENTS, |path, nth, answered| {
        if path == "/4.m4s" && nth == 1 {
            *answered.body.last_mut().unwrap() ^= 1;
        }
    })
    .await;
}

#[tokio::test]
async fn an_init_segment_that_is_another_behind_a_discontinuity_is_found() {
    finds(&rule::TWO_CONTENTS, |path, nth, answered| {
        if path == "/media.m3u8" {
            let text = String::from_utf8_lossy(&answered.body).into_owned();
            let part = "#EXT-X-PART:DURATION=1.00000,INDEPENDENT=YES,URI=\"p6.m4s\"";
            answered.body = text.replace(part, &format!("#EXT-X-DISCONTINUITY\n{part}")).into();
        } else if path == "/init.mp4" && nth > 0 {
            // A free box behind the rest: other bytes, the same tracks.
            answered.body.extend_from_slice(b"\0\0\0\x08free");
        }
    })
    .await;
}

#[tokio::test]
async fn a_segment_that_is_gone_as_soon_as_it_is_removed_is_found() {
    finds(&rule::REMOVED, |path, nth, answered| {
        if path == "/4.m4s" && nth == 1 {
            answered.found = false;
        }
    })
    .await;
}

#[tokio::test]
async fn a_part_that_is_gone_as_soon_as_its_tag_is_is_found() {
    finds(&rule::PART_REMOVED, |path, nth, answered| {
        if path == "/p5.m4s" && nth == 1 {
            answered.found = false;
        }
    })
    .await;
}

#[tokio::test]
async fn an_init_segment_that_becomes_another_without_a_discontinuity_is_found() {
    finds(&rule::TWO_CONTENTS, |path, nth, answered| {
        if path == "/init.mp4" && nth > 0 {
            // A free box behind the rest: other bytes, the same tracks.
            answered.body.extend_from_slice(b"\0\0\0\x08free");
        }
    })
    .await;
}

#[tokio::test]
async fn a_multivariant_playlist_that_says_something_else_in_the_end_is_advised_against() {
    let (code, text) = linted(false, |path, nth, answered| {
        if path == "/index.m3u8" && nth > 0 {
            replace(&mut answered.body, "RESOLUTION=320x180", "RESOLUTION=640x360");
        }
    })
    .await;
    assert!(code == 0 && text.contains(" advice multivariant-changed:"), "{text}");
}

#[tokio::test]
async fn a_part_that_is_listed_and_not_there_is_found() {
    finds(&rule::STATUS, |path, _, answered| {
        if path == "/p6.m4s" {
            answered.found = false;
        }
    })
    .await;
}

#[tokio::test]
async fn where_a_playlist_is_elsewhere_its_addresses_are_relative_to_that_and_the_redirect_is_the_only_fault()
{
    finds(&rule::REDIRECT, |path, _, answered| match path {
        "/index.m3u8" => answered.location = Some("/a/index.m3u8".into()),
        "/a/index.m3u8" => answered.location = Some("b/index.m3u8".into()),
        "/a/b/index.m3u8" => {
            (answered.found, answered.body) = (true, MULTIVARIANT.replace("media", "../media").into());
        }
        "/a/media.m3u8" => answered.location = Some("/media.m3u8".into()),
        _ => {}
    })
    .await;
}

#[tokio::test]
async fn who_is_led_in_a_circle_has_no_stream() {
    let (code, text) = linted(false, |path, _, answered| answered.location = Some(path.to_owned())).await;
    assert_eq!(code, UNAVAILABLE, "{text}");
}

#[tokio::test]
async fn a_bandwidth_that_segments_are_far_above_is_found() {
    finds(&rule::LOW_BANDWIDTH, |path, _, answered| {
        if path == "/index.m3u8" {
            replace(&mut answered.body, "BANDWIDTH=2000000", "BANDWIDTH=2000");
        }
    })
    .await;
}

#[tokio::test]
async fn another_codec_than_the_one_that_is_told_is_found() {
    finds(&rule::WRONG_CODECS, |path, _, answered| {
        if path == "/index.m3u8" {
            replace(&mut answered.body, "avc1.42c01e", "avc1.64001f");
        }
    })
    .await;
}

#[tokio::test]
async fn a_codec_that_no_track_has_is_found() {
    finds(&rule::NO_TRACK, |path, _, answered| {
        if path == "/index.m3u8" {
            replace(&mut answered.body, "mp4a.40.2", "mp4a.40.2,ac-3");
        }
    })
    .await;
}

#[tokio::test]
async fn a_track_that_never_has_samples_is_found() {
    let mute = fragments(|frame| frame.kind == Kind::Video);
    finds(&rule::NO_SAMPLES, move |path, _, answered| {
        let number = path.trim_start_matches(['/', 'p']).strip_suffix(".m4s");
        if let Some(number) = number.and_then(|number| number.parse::<usize>().ok()) {
            answered.body = mute[number].clone();
        }
    })
    .await;
}

#[tokio::test]
async fn a_rate_of_pictures_that_the_media_does_not_have_is_found() {
    finds(&rule::WRONG_FRAME_RATE, |path, _, answered| {
        if path == "/index.m3u8" {
            replace(&mut answered.body, "FRAME-RATE=25.000", "FRAME-RATE=50.000");
        }
    })
    .await;
}

#[tokio::test]
async fn segments_that_are_said_to_be_independent_and_are_not_are_found() {
    finds(&rule::DEPENDENT, |path, _, answered| {
        if path == "/media.m3u8" {
            replace(&mut answered.body, "#EXT-X-MAP", "#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP");
            let text = String::from_utf8_lossy(&answered.body);
            answered.body = text.replace(",INDEPENDENT=YES,URI=\"p6", ",URI=\"p6").into();
        } else if matches!(path, "/6.m4s" | "/p6.m4s") {
            // Flags of the first sample: it depends on others.
            let at = answered.body.windows(4).position(|name| name == b"trun").unwrap();
            let flags = answered.body[at..].windows(4).position(|flags| flags == [2, 0, 0, 0]).unwrap();
            answered.body[at + flags..at + flags + 4].copy_from_slice(&[1, 1, 0, 0]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_hint_of_another_part_than_the_one_that_comes_is_found() {
    finds(&rule::HINT_WRONG, |path, nth, answered| {
        if path == "/media.m3u8" && nth == 2 {
            replace(&mut answered.body, "URI=\"p7.m4s\"", "URI=\"p8.m4s\"");
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_can_not_be_had_has_an_exit_code_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/index.m3u8", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let code = lint(arguments(url, 5, false), Vec::new()).await;
    assert_eq!(code, UNAVAILABLE);
    let (code, text) = linted(false, |path, _, answered| answered.found = path != "/index.m3u8").await;
    assert_eq!(code, UNAVAILABLE, "{text}");
}
