use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, json};

use super::*;
use crate::config::url::{Stars, parse_file};
use crate::config::{ConnectUrl, MAX_ERROR_BYTES, conflicts};
use crate::rtmp::joined;

fn key() -> impl Strategy<Value = String> {
    let options = catalogue::ENDPOINTS.iter().flat_map(|entry| entry.spec.all_options());
    let known = options.map(|option| option.name).chain([
        "schemaVersion",
        "logLevel",
        "publicHost",
        "defaults",
        "flows",
        "input",
        "output",
        "outputs",
        "enabled",
        "listen",
        "pull",
        "read",
        "serve",
        "push",
        "key",
        "username",
        "password",
        "env",
        "file",
        "hostName",
        "$x",
        "streamKey",
        "caFile",
        "certificateFile",
        "keyFile",
        "pinSha256",
        "initialMilliseconds",
        "maxSeconds",
    ]);
    prop_oneof![4 => select(known.collect::<Vec<_>>()).prop_map(str::to_owned), 1 => ".{0,8}"]
}

fn url() -> impl Strategy<Value = String> {
    prop_oneof![
        "(rtmp|rtmps|rtsp|file)://(0\\.0\\.0\\.0|\\[::\\]|h|u:p@h)(:1935|:[0-9]{1,6})?(/[a-z*%2.{}@?#]{0,5}){0,3}",
        "rtmps?://(0\\.0\\.0\\.0|\\[::\\])/[ab]/[ab*]",
    ]
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..200_u32).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        url().prop_map(Value::from),
        select(vec!["audioOnly", "live", "hold", "/a", "10.0.0.0/8"]).prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            1 => vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => vec((key(), inner), 0..6).prop_map(|pairs| pairs.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

/// Documents without a fault in which a few values have been replaced or added.
fn broken_document() -> impl Strategy<Value = Map<String, Value>> {
    let change = (any::<Index>(), option::weighted(0.3, key()), prop_oneof![3 => leaf(), 1 => value()]);
    (good_document(), vec(change, 0..4)).prop_map(|(mut document, changes)| {
        for (place, key, value) in changes {
            let mut places = Vec::new();
            pointers(&document, String::new(), &mut places);
            let place = document.pointer_mut(place.get::<String>(&places)).unwrap();
            match (key, place) {
                (Some(key), Value::Object(map)) => drop(map.insert(key, value)),
                (_, place) => *place = value,
            }
        }
        document.as_object().cloned().unwrap_or_default()
    })
}

/// Where every value in `value` is (RFC 6901).
fn pointers(value: &Value, at: String, places: &mut Vec<String>) {
    if let Some(map) = value.as_object() {
        for (key, value) in map {
            pointers(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), places);
        }
    }
    places.push(at);
}

/// Documents without a shape.
fn any_document() -> impl Strategy<Value = Map<String, Value>> {
    vec((key(), value()), 0..5).prop_map(|pairs| pairs.into_iter().collect())
}

/// Documents without a fault.
pub(super) fn good_document() -> impl Strategy<Value = Value> {
    let input = (
        select(vec!["rtmp://0.0.0.0/live/{flow}", "rtmps://[::1]:1940/live/{flow}"]),
        option::of(select(vec!["videoOnly", "audioVideo"])),
        option::of(1..=3600_u32),
        option::of(select(vec![
            json!({ "key": "k" }),
            json!({ "username": "u", "password": { "env": "P" } }),
        ])),
        any::<bool>(),
    );
    let input = input.prop_map(|(listen, content, idle, auth, pull)| {
        if pull {
            json!({ "pull": "rtmp://user:p%40w@cam/live/{flow}", "content": content, "idleTimeoutSeconds": idle })
        } else {
            json!({ "listen": listen, "content": content, "idleTimeoutSeconds": idle, "auth": auth })
        }
    });
    let serve = (0..3_u8, option::of(select(vec!["instant", "live", "edge"])), option::of(0..=350_u32))
        .prop_map(|(port, join, batch)| {
            let url = format!("rtmp://127.0.0.{}:1950/{{flow}}/{{name}}", port.saturating_add(1));
            json!({ "serve": url, "join": join, "batchMilliseconds": batch })
        });
    let push = (select(vec!["a", "b"]), option::of(1..100_u32)).prop_map(|(host, max)| {
        let retry = max.map(|max| json!({ "maxSeconds": max }));
        json!({ "push": format!("rtmps://{host}/app"), "credentials": { "streamKey": { "file": "/k" } }, "retry": retry })
    });
    let outputs = vec(("[a-c]", prop_oneof![serve, push]), 0..4).prop_map(|pairs| {
        let outputs = pairs.into_iter().map(|(name, output)| {
            let output = output.to_string().replace("{name}", &name);
            (name, serde_json::from_str::<Value>(&output).unwrap())
        });
        outputs.collect::<Map<_, _>>()
    });
    let flow = (input, outputs, any::<bool>(), option::of("[a-z ]{1,5}"), any::<bool>());
    let flow = flow.prop_map(|(mut input, mut outputs, enabled, description, pattern)| {
        if pattern && input.get("listen").is_some() {
            let endpoints =
                outputs.values_mut().chain([&mut input]).flat_map(|endpoint| endpoint.as_object_mut());
            for (_, url) in
                endpoints.flatten().filter(|(key, _)| ["listen", "serve", "push"].contains(&key.as_str()))
            {
                *url = format!("{}/*", url.as_str().unwrap()).into();
            }
        }
        json!({ "input": input, "outputs": outputs, "enabled": enabled, "description": description })
    });
    let defaults = (option::of(0..=86_400_u32), option::of(0..=100_u32));
    let defaults = defaults.prop_map(
        |(hold, clients)| json!({ "input": { "holdSeconds": hold }, "output": { "maxClients": clients } }),
    );
    (vec(("[a-d]", flow), 0..4), defaults).prop_map(|(flows, defaults)| {
        json!({ "flows": flows.into_iter().collect::<Map<_, _>>(), "defaults": defaults })
    })
}

fn reads_back(supports: &Supports, desired: &Desired) -> Result<(), TestCaseError> {
    for (name, flow) in &desired.flows {
        let alone = json!({ "flows": { name: flow.source } });
        let again = read_for(supports, &alone);
        prop_assert_eq!(&again.errors, &Default::default());
        prop_assert_eq!(again.flows.get(name), Some(flow));
    }
    Ok(())
}

fn segments() -> impl Strategy<Value = String> {
    let segment = "[^\\p{Cc}/?*]{1,6}".prop_filter("dots", |text| text != "." && text != "..");
    vec(segment, 1..4).prop_map(|segments| segments.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_document_gives_flows_or_bounded_errors(
        document in prop_oneof![3 => broken_document(), 1 => any_document()]
    ) {
        for supports in [splitter(), source()] {
            let desired = parse(&document, &supports);
            for (name, error) in &desired.errors {
                prop_assert!(error.len() <= MAX_ERROR_BYTES, "{error}");
                prop_assert!(!desired.flows.contains_key(name));
                prop_assert!(name == "_module" || super::super::flow::is_name(name), "{name}");
            }
            prop_assert_eq!(conflicts(&desired.flows), Default::default());
            reads_back(&supports, &desired)?;
            for flow in desired.flows.values() {
                flow.instance_outputs("name");
            }
        }
    }

    #[test]
    fn a_good_document_has_no_errors_and_its_flows_read_back_without_its_defaults(document in good_document()) {
        let desired = read(&document);
        prop_assert_eq!(&desired.errors, &Default::default());
        prop_assert_eq!(desired.flows.len(), document["flows"].as_object().unwrap().len());
        reads_back(&splitter(), &desired)?;
    }

    #[test]
    fn any_text_is_a_url_that_reads_back_or_an_error(text in prop_oneof![url(), ".{0,40}"]) {
        let scheme = splitter().scheme_of(&text).unwrap_or(scheme("rtmp"));
        for stars in [Stars::Plain, Stars::Pattern, Stars::Needed, Stars::Refused] {
            if let Ok(url) = ListenUrl::parse(&text, scheme, stars) {
                prop_assert_eq!(ListenUrl::parse(&url.to_string(), scheme, stars), Ok(url));
            }
            if let Ok((url, _)) = ConnectUrl::parse(&text, scheme, stars)
                && (stars != Stars::Needed || url.path.contains('*'))
            {
                let again = ConnectUrl::parse(&url.shown(false), scheme, stars);
                prop_assert_eq!(again, Ok((ConnectUrl { query: None, ..url }, None)));
            }
        }
        let _ = parse_file(&text, scheme);
        let _ = joined(&text, &text);
    }

    #[test]
    fn every_address_that_can_be_shown_can_be_read(
        scheme in select(catalogue::SCHEMES), ip in any::<IpAddr>(), port in 1..=u16::MAX, path in segments()
    ) {
        let address = SocketAddr::new(ip.to_canonical(), port);
        let url = ListenUrl { scheme, address, path: path.clone() };
        prop_assert_eq!(ListenUrl::parse(&url.to_string(), scheme, Stars::Refused), Ok(url));
        let url = ConnectUrl { scheme, host: address.ip().to_string(), port, path, query: None };
        prop_assert_eq!(ConnectUrl::parse(&url.shown(false), scheme, Stars::Plain), Ok((url, None)));
    }
}
