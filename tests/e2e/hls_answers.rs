//! What answers of the HLS output depend on beside the path: method, origin, address, who is there already.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::rtmp::Publisher;
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::hls::{Gateway, exchange, request};
use crate::{rtmp, twin};

#[test]
fn a_key_that_cannot_be_read_is_told_in_the_state_and_by_no_name_to_strangers() {
    let auth = json!({ "auth": { "key": { "env": "AV_NO_SUCH_SECRET" } } });
    let gateway = Gateway::start(&json!({}), &auth);
    let answer = gateway.get("/live/cam/index.m3u8?key=secret");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, 503, "{text}");
    assert!(text.contains("can't be checked now") && !text.contains("AV_NO_SUCH"), "{text}");
    let error = gateway.module.wait_status("/flows/cam/outputs/web/error", Value::is_string);
    assert!(error.as_str().unwrap().contains("AV_NO_SUCH_SECRET is not set: nobody is let in"), "{error}");
    gateway.module.wait_log(&["the key can't be checked: environment variable AV_NO_SUCH_SECRET is not set"]);
}

#[test]
fn pages_of_listed_origins_have_the_answers_and_caches_keep_them_apart() {
    needs!(Ffmpeg);
    let cors = json!({ "segmentSeconds": 1, "cors": ["https://a.example", "https://B.Example:443"] });
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
fn an_address_that_is_not_allowed_and_a_viewer_too_many_are_refused_and_who_finds_nothing_is_no_viewer() {
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
    gateway.module.wait_receiving("cam");
    let by_other =
        |path: &str| request(gateway.port, &format!("GET {path} HTTP/1.1\r\nUser-Agent: other\r\n"));
    // What is not there is not watched.
    assert_eq!(by_other("/live/cam/garbage.m3u8").status, 404);
    assert_eq!(by_other("/live/cam/garbage.m3u8?_HLS_msn=x").status, 400);
    // This one stays: it asks now and then.
    let media = gateway.media();
    assert_eq!(by_other("/live/cam/garbage.m3u8").status, 404, "it is not there for anybody");
    for senseless in ["x", "1000000000000"] {
        assert_eq!(by_other(&format!("{media}?_HLS_msn={senseless}")).status, 400, "{senseless}");
    }
    let other = || by_other(&media);
    let refused = other();
    assert_eq!((refused.status, refused.text()), (503, "maxClients (1) is reached\n".into()));
    assert_eq!(gateway.get(&media).status, 200, "who was there first");
    wait::until_true("the first has left", wait::LONG, || other().status == 200);
}

#[test]
fn a_camera_on_demand_is_woken_by_who_asks_for_a_playlist_and_not_by_who_asks_for_nothing_there_is() {
    // The camera: whether anybody connects is all that is asked of it.
    let camera = TcpListener::bind("127.0.0.1:0").unwrap();
    camera.set_nonblocking(true).unwrap();
    let (pull, port) = (rtmp(camera.local_addr().unwrap().port(), "live/cam"), port::free());
    let serve = format!("http://127.0.0.1:{port}/live/cam");
    let flow =
        json!({ "input": { "pull": pull, "onDemand": true }, "outputs": { "web": { "serve": serve } } });
    let _module = Module::start("hls-gateway", &twin(json!({ "cam": flow })));
    let ask = |path: &str| request(port, &format!("GET /live/cam/{path} HTTP/1.1\r\n")).status;
    wait::until_true("it serves", wait::LONG, || TcpStream::connect(("127.0.0.1", port)).is_ok());
    for (path, status) in [("garbage.m3u8", 404), ("garbage.m3u8?_HLS_msn=x", 400), ("no.m4s", 404)] {
        assert_eq!(ask(path), status, "{path}");
    }
    std::thread::sleep(Duration::from_secs(1));
    assert!(camera.accept().is_err(), "nobody woke it");
    let waits = std::thread::spawn(move || request(port, "GET /live/cam/index.m3u8 HTTP/1.1\r\n").status);
    wait::until_true("it is woken", wait::LONG, || camera.accept().is_ok());
    assert_eq!(waits.join().unwrap(), 503, "it never says anything");
}

#[test]
fn requests_that_http_has_another_answer_for_get_that() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 1 }));
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    let media = gateway.media();
    let text = gateway.get(&media).text();
    let segment = format!("/live/cam/{}", text.lines().find(|line| line.ends_with(".m4s")).unwrap());
    let tag = gateway.get(&segment).header("etag").unwrap().to_owned();
    let with = |field: &str| request(gateway.port, &format!("GET {segment} HTTP/1.1\r\n{field}\r\n"));
    let other = with("If-Match: \"another\"");
    assert_eq!((other.status, other.header("cache-control")), (412, Some("no-store")));
    assert_eq!(with(&format!("If-Match: {tag}")).status, 200);
    // Media has no date of its last change.
    assert_eq!(with("If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 GMT").status, 200);

    let hosts = |version: &str, hosts: &str| {
        let head = format!("GET {segment} HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n");
        exchange(gateway.port, &head).status
    };
    assert_eq!(hosts("1.1", "Host: a\r\n"), 200);
    assert_eq!(hosts("1.1", ""), 400);
    assert_eq!(hosts("1.1", "Host: a\r\nHost: b\r\n"), 400);
    assert_eq!(hosts("1.0", ""), 200);
    let all = request(gateway.port, "OPTIONS * HTTP/1.1\r\n");
    assert_eq!((all.status, all.header("allow")), (204, Some("GET, HEAD, POST, OPTIONS")));
}

#[test]
fn a_page_may_report_of_a_stream_that_is_watched() {
    needs!(Ffmpeg);
    let gateway = Gateway::start(&json!({}), &json!({ "segmentSeconds": 1 }));
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    gateway.module.wait_receiving("cam");
    let report = || {
        let body = json!({ "path": "/live/cam", "latencySeconds": 1.0, "stalls": 0 }).to_string();
        let head = format!("Host: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        exchange(gateway.port, &format!("POST /-/report HTTP/1.1\r\n{head}{body}"))
    };
    let early = report();
    assert_eq!(early.status, 409);
    assert!(early.text().starts_with("nobody watches this stream now"), "{}", early.text());
    gateway.media();
    assert_eq!(report().status, 204);
    // One address may have a hundred in ten seconds, on however many connections.
    let last = (0..200).map(|_| report()).find(|answer| answer.status != 204).unwrap();
    assert_eq!((last.status, &last.text()[..16]), (429, "too many reports"));
}
