use serde_json::json;

use super::*;

fn page(status: Value, host: Option<&str>) -> String {
    let now = "2026-01-01T00:03:00Z".parse().unwrap();
    let about = About { module: "m", device: "d", host, now };
    html(status.as_object().unwrap(), &about)
}

#[test]
fn a_flow_is_told_with_state_reason_tracks_rates_clients_and_addresses() {
    let page = page(
        json!({
            "module": {"name": "tester", "version": "1.2.3", "build": "abc", "startedAt": "2026-01-01T00:00:00Z"},
            "config": {"desiredVersion": 7, "status": "partial", "errors": {"cam2": "flows.cam2.input: wrong"}},
            "summary": {"flows": 1, "running": 0, "retrying": 1, "clients": 3, "spoolBytes": 12_300_000},
            "flows": {"cam": {
                "state": "retrying", "since": "2026-01-01T00:01:00Z",
                "input": {"state": "receiving", "bitrateBps": 53_703, "frames": 447,
                          "video": {"codec": "avc1.64001f", "width": 1280, "height": 720, "fps": 30},
                          "audio": {"codec": "mp4a.40.2", "dropped": "content is videoOnly"}},
                "outputs": {
                    "web": {"state": "serving", "url": "http://0.0.0.0:8080/live/cam", "clients": 3,
                            "latencyMilliseconds": {"p50": 0.32, "p99": 20.48}},
                    "cloud": {"state": "retrying", "url": "rtmp://far/app", "error": "refused; check the key"}}}}
        }),
        Some("gw.example.com"),
    );
    for part in [
        "configuration 7 <b>partial</b>",
        "flows.cam2.input: wrong",
        "<b>12.3 MB</b> spool bytes",
        "<b class=\"state tries\">retrying</b> <time datetime=\"2026-01-01T00:01:00Z\">for 2 min</time>",
        "avc1.64001f 1280x720 30 fps",
        "mp4a.40.2 (left out: content is videoOnly)",
        "53.7 kbit/s",
        "<dt>frames</dt><dd>447</dd>",
        "3 clients",
        "p50 0.32 ms p99 20.5 ms",
        "<span>player page</span> <a href=\"http://gw.example.com:8080/\">",
        "<a href=\"http://gw.example.com:8080/live/cam\">",
        "<a href=\"rtmp://far/app\">",
        "<p class=\"error\">refused; check the key</p>",
    ] {
        assert!(page.contains(part), "{part} is missing in\n{page}");
    }
}

#[test]
fn text_from_outside_is_never_markup() {
    let nasty = "\"><img src=x onerror='alert(1)'>&\u{202e}\u{0}";
    let output =
        json!({"state": nasty, "url": format!("javascript:alert(1)//{nasty}"), "error": nasty, nasty: nasty});
    let line = json!({"state": nasty, "since": nasty, "error": nasty, "usingVersion": nasty,
        "input": {"state": nasty, "video": {"codec": nasty, "dropped": nasty}, nasty: nasty},
        "outputs": {nasty: output}});
    let mut pattern = line.clone();
    pattern["match"] = nasty.into();
    let instances = json!({"state": "running", "instances": {"active": 1, "list": [pattern]}});
    let status = json!({
        "module": {"name": nasty, "version": nasty, "build": nasty, "startedAt": nasty},
        "config": {"status": nasty, "desiredVersion": nasty, "errors": {nasty: nasty}},
        "summary": {nasty: nasty}, "flows": {nasty: line, "pattern": instances}});
    let page = page(status, None);
    assert!(
        !page.contains("<img") && !page.contains("href=\"javascript") && !page.contains("'alert"),
        "{page}"
    );
    assert!(!page.contains(['\u{202e}', '\u{0}']) && !page.contains("=\"\">"));
    // What it says is still there to read.
    assert!(page.contains("&quot;&gt;&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&amp;"));
}

#[test]
fn a_page_of_a_thousand_flows_shows_some_and_says_so() {
    let flows: Map<_, _> = (0..1000).map(|n| (format!("f{n}"), json!({"state": "running"}))).collect();
    let page = page(json!({ "flows": flows }), None);
    assert_eq!(page.matches("<section id=").count(), MAX_SHOWN);
    assert!(page.contains("800 more flows"));
    assert!(self::page(json!({}), None).contains("No flow is configured"));
}

#[test]
fn only_a_plain_host_stands_for_a_wildcard() {
    assert_eq!(host_of("gw:9600"), Some("gw"));
    assert_eq!(host_of("[::1]:9600"), Some("[::1]"));
    assert_eq!(host_of("10.0.0.1"), Some("10.0.0.1"));
    for bad in ["", ":9600", "a b", "x\"><b>", "a/b", "user@host"] {
        assert_eq!(host_of(bad), None, "{bad}");
    }
}
