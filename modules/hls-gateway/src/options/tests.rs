use av_flow::config::parse;
use serde_json::{Value, json};

use super::*;

/// The output, or what is wrong with the flow.
fn read(output: Value) -> Result<ServeConfig, String> {
    let flow = json!({ "input": { "listen": "rtmp://0.0.0.0/live/cam" }, "outputs": { "web": output } });
    let document = json!({ "flows": { "cam": flow } });
    let desired = parse(document.as_object().unwrap(), crate::service().supports());
    match desired.flows.get("cam") {
        Some(flow) => Ok(flow.outputs["web"].endpoint.get::<ServeConfig>().unwrap().clone()),
        None => Err(desired.errors["cam"].clone()),
    }
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = read(json!({ "serve": "http://0.0.0.0/live/cam/" })).unwrap();
    assert_eq!(config.url.to_string(), "http://0.0.0.0:8080/live/cam");
    assert_eq!(config.url(Some("gw")), "http://gw:8080/live/cam/index.m3u8");
    let shape = config.shape;
    assert_eq!((shape.variant, shape.segment.as_secs()), (Variant::LowLatency, 2));
    assert_eq!((shape.part.as_millis(), shape.window.as_secs()), (200, 30));
    assert_eq!((config.cors, config.links.len(), config.max_clients), (Cors::All, 0, 0));
}

#[test]
fn origins_are_a_text_or_a_list_and_links_have_both_properties() {
    let with = |key: &str, value: Value| read(json!({ "serve": "http://0.0.0.0/live/cam", key: value }));
    let listed = Cors::Listed(vec!["https://a.example".into()]);
    assert_eq!(with("cors", json!("https://a.example")).unwrap().cors, listed);
    assert_eq!(with("cors", json!(["https://a.example"])).unwrap().cors, listed);
    assert_eq!(with("cors", json!("*")).unwrap().cors, Cors::All);
    assert_eq!(with("cors", json!(["https://a.example", "*"])).unwrap().cors, Cors::All);
    let link = json!([{ "label": "RTSP", "url": "rtsp://gw/cam" }]);
    assert_eq!(with("links", link).unwrap().links[0].label, "RTSP");
    for (key, value, says) in [
        ("cors", json!("a.example/page"), "outputs.web.cors: \"a.example/page\" is not an origin"),
        (
            "cors",
            json!([]),
            "outputs.web.cors: expected a text or a list of 1 to 64 of them, got an empty list",
        ),
        ("cors", json!([7]), "outputs.web.cors.0: expected a text"),
        ("links", json!([{ "label": "x" }]), "outputs.web.links.0: expected `url`"),
        (
            "links",
            json!([{ "label": "x", "url": "rtsp://u:p@camera/stream" }]),
            "outputs.web.links.0.url: a link is shown to everybody; leave user and password out of it",
        ),
        (
            "links",
            json!([{ "label": "x", "url": " JavaScript:alert(1)" }]),
            "outputs.web.links.0.url: a link is an address, not a script; give one such as \"rtsp://192.0.2.7/stream\"",
        ),
        (
            "links",
            json!([{ "label": "x", "url": "y", "more": 1 }]),
            "outputs.web.links.0.more: unknown property",
        ),
        ("links", json!("x"), "outputs.web.links: expected a list of at most 16 objects, got \"x\""),
        (
            "links",
            json!(vec![json!({}); 17]),
            "outputs.web.links: expected a list of at most 16 objects, got a list of 17",
        ),
        ("segmentSeconds", json!(0), "outputs.web.segmentSeconds: expected a whole number from 1 to 10"),
    ] {
        let error = with(key, value).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn an_origin_is_kept_as_browsers_send_it() {
    let cors =
        |cors: Value| read(json!({ "serve": "http://0.0.0.0/live/cam", "cors": cors })).map(|c| c.cors);
    for (text, sent) in [
        ("https://Www.Example.COM", "https://www.example.com"),
        ("HTTPS://ok.example:443", "https://ok.example"),
        ("http://ok.example:80", "http://ok.example"),
        ("https://ok.example:8443", "https://ok.example:8443"),
        ("http://ok.example:443", "http://ok.example:443"),
        ("https://[2001:DB8:0::1]:443", "https://[2001:db8::1]"),
        ("null", "null"),
        ("capacitor://localhost", "capacitor://localhost"),
    ] {
        assert_eq!(cors(json!(text)), Ok(Cors::Listed(vec![sent.into()])), "{text}");
    }
    for text in ["https://*.example.com", "https://*", "*.example.com", "**"] {
        let error = cors(json!(["https://a.example", text])).unwrap_err();
        let says = format!("outputs.web.cors: {text:?} is not an origin: `*` stands for all origins");
        assert!(error.contains(&says), "{error}");
    }
    for text in
        ["https://a.example/", "https://u@a.example", "https://a.example:99999", "https://", "://a", "Null"]
    {
        let error = cors(json!(text)).unwrap_err();
        assert!(error.contains(&format!("{text:?} is not an origin such as")), "{error}");
    }
}

#[test]
fn a_password_is_for_https_alone() {
    let auth = json!({ "username": "a", "password": "b" });
    let error = read(json!({ "serve": "http://0.0.0.0/live/cam", "auth": auth })).unwrap_err();
    assert!(error.starts_with("flows.cam.outputs.web.auth: user and password"), "{error}");
    assert!(read(json!({ "serve": "https://0.0.0.0/live/cam", "auth": auth })).is_ok());
}

#[test]
fn everything_below_a_path_is_taken_and_the_older_form_beside_it() {
    let config = read(json!({ "serve": "http://0.0.0.0/live/cam" })).unwrap();
    let paths = Output::claims(&config).into_iter().map(|claim| claim.path).collect::<Vec<_>>();
    assert_eq!(paths, [ClaimedPath::Exact("live/cam.m3u8".into()), ClaimedPath::Below("live/cam".into())]);
    assert!(read(json!({ "serve": "http://0.0.0.0/" })).is_err());
}
