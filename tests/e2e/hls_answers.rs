//! What answers of the HLS output depend on beside the path: method, origin, address, who is there already.

use av_tests::clip::Clip;
use av_tests::rtmp::Publisher;
use av_tests::{needs, wait};
use serde_json::json;

use crate::hls::{Gateway, request};

#[test]
fn pages_of_listed_origins_have_the_answers_and_caches_keep_them_apart() {
    needs!(Ffmpeg);
    let cors = json!({ "segmentSeconds": 1, "cors": ["https://a.example", "https://b.example"] });
    let gateway = Gateway::start(&json!({}), &cors);
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    let media = gateway.media();
    let ask = |method: &str, path: &str, more: &str| {
        request(gateway.port, &format!("{method} {path} HTTP/1.1\r\n{more}"))
    };
    for path in ["/live/cam/index.m3u8", &media, "/live/cam/no.m4s"] {
        for origin in ["https://a.example", "https://b.example"] {
            let answer = ask("GET", path, &format!("Origin: {origin}\r\n"));
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{path}");
            assert_eq!(answer.header("access-control-allow-credentials"), Some("true"), "{path}");
        }
        for other in ["Origin: https://c.example\r\n", "Origin: http://a.example\r\n", ""] {
            let answer = ask("GET", path, other);
            assert_eq!(answer.header("access-control-allow-origin"), None, "{path} {other}");
            // The same answer for who asks from anywhere: caches have to know.
            assert!(answer.header("vary").unwrap().ends_with("Origin"), "{path} {other}");
        }
    }
    assert_eq!(ask("GET", &media, "").header("vary"), Some("Accept-Encoding, Origin"));
    let preflight = "Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n\
                     Access-Control-Request-Headers: range\r\n";
    let allowed = ask("OPTIONS", &media, preflight);
    assert_eq!((allowed.status, allowed.body.len()), (204, 0));
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(allowed.header("access-control-allow-headers"), Some("range"));
}

#[test]
fn every_method_gets_what_http_has_for_it() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 1 }));
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    let media = gateway.media();
    let ask = |head: &str| request(gateway.port, head);
    let list = ask(&format!("HEAD {media} HTTP/1.1\r\n"));
    assert_eq!((list.status, list.body.len()), (200, 0));
    assert_eq!(list.header("content-type"), Some("application/vnd.apple.mpegurl"));
    assert!(list.header("content-length").unwrap().parse::<usize>().unwrap() > 100);
    let missing = ask("HEAD /live/cam/no.m4s HTTP/1.1\r\n");
    assert_eq!((missing.status, missing.body.len()), (404, 0));
    for (method, path) in
        [("POST", &media[..]), ("PUT", "/live/cam/1.m4s"), ("DELETE", "/live/cam/index.m3u8")]
    {
        let refused = ask(&format!("{method} {path} HTTP/1.1\r\nContent-Length: 0\r\n"));
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
    }
    let text = gateway.get(&media).text();
    let segment = format!("/live/cam/{}", text.lines().find(|line| line.ends_with(".m4s")).unwrap());
    let whole = gateway.get(&segment);
    let tag = whole.header("etag").unwrap();
    let ranged = |condition: &str| {
        ask(&format!("GET {segment} HTTP/1.1\r\nRange: bytes=0-9\r\nIf-Range: {condition}\r\n"))
    };
    assert_eq!((ranged(tag).status, ranged(tag).body.len()), (206, 10));
    let other = ranged("\"another\"");
    assert_eq!((other.status, other.body), (200, whole.body.clone()), "what was there first is another");
    let next = text.matches("#EXTINF").count() as u64
        + text
            .lines()
            .find_map(|line| line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:"))
            .unwrap()
            .parse::<u64>()
            .unwrap();
    // Far enough ahead that no segment that comes meanwhile makes it right.
    assert_eq!(gateway.get(&format!("{media}?_HLS_msn={}", next + 30)).status, 400);
}

#[test]
fn an_address_that_is_not_allowed_and_a_viewer_too_many_are_refused() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 1, "allow": ["10.0.0.0/8"] }));
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    gateway.module.wait_receiving("cam");
    for path in ["index.m3u8", "1.m4s", "nothing"] {
        assert_eq!(gateway.get(&format!("/live/cam/{path}")).status, 403, "{path}");
    }
    drop(gateway);

    let gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 1, "maxClients": 1 }));
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    // This one stays: it asks now and then.
    let media = gateway.media();
    let other = || request(gateway.port, &format!("GET {media} HTTP/1.1\r\nUser-Agent: other\r\n"));
    let refused = other();
    assert_eq!((refused.status, refused.text()), (503, "maxClients (1) is reached\n".into()));
    assert_eq!(gateway.get(&media).status, 200, "who was there first");
    wait::until_true("the first has left", wait::LONG, || other().status == 200);
}
