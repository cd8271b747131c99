use serde_json::json;

use super::*;

/// Flows that listen on, or serve at, these addresses, by flow name.
fn errors(flows: &[(&str, &str, &[&str])]) -> Vec<(String, String)> {
    let flows = flows.iter().map(|(name, listen, serve)| {
        let outputs = serve.iter().enumerate().map(|(n, url)| (format!("o{n}"), json!({ "serve": url })));
        let outputs = outputs.collect::<serde_json::Map<_, _>>();
        ((*name).to_owned(), json!({ "input": { "listen": listen }, "outputs": outputs }))
    });
    let desired = read(&json!({ "flows": flows.collect::<serde_json::Map<_, _>>() }));
    desired.errors.into_iter().collect()
}

fn one(name: &str, sentence: &str) -> Vec<(String, String)> {
    vec![(name.into(), sentence.into())]
}

#[test]
fn two_listeners_on_one_address_and_path_cost_the_later_flow() {
    let flows: &[(&str, &str, &[&str])] =
        &[("b", "rtmp://0.0.0.0/live/x/", &[]), ("a", "rtmp://0.0.0.0:1935/live/%78", &[])];
    assert_eq!(
        errors(flows),
        one("b", "flows.b.input.listen: rtmp://0.0.0.0:1935/live/x is taken by flows.a.input.listen")
    );
}

#[test]
fn two_servers_on_one_address_and_path_cost_the_later_flow_or_the_only_one() {
    assert_eq!(
        errors(&[
            ("a", "rtmp://0.0.0.0/live/a", &["rtmp://0.0.0.0/x/y"]),
            ("b", "rtmp://0.0.0.0/live/b", &["rtmp://0.0.0.0/x/y"])
        ]),
        one("b", "flows.b.outputs.o0.serve: rtmp://0.0.0.0:1935/x/y is taken by flows.a.outputs.o0.serve")
    );
    assert_eq!(
        errors(&[("a", "rtmp://0.0.0.0/live/a", &["rtmp://0.0.0.0/x/y", "rtmp://0.0.0.0/x/y"])]),
        one("a", "flows.a.outputs.o1.serve: rtmp://0.0.0.0:1935/x/y is taken by flows.a.outputs.o0.serve")
    );
}

#[test]
fn flows_share_an_address_and_may_serve_where_they_listen() {
    assert_eq!(
        errors(&[
            ("a", "rtmp://0.0.0.0/live/a", &["rtmp://0.0.0.0/live/a"]),
            ("b", "rtmp://0.0.0.0/live/b", &["rtmp://0.0.0.0/live/b", "rtmp://127.0.0.1:1936/live/b"]),
            ("c", "rtmp://0.0.0.0/live/*", &["rtmp://0.0.0.0/live/*"]),
            ("d", "rtmps://127.0.0.2:1936/live/*", &[]),
        ]),
        []
    );
}

#[test]
fn one_socket_speaks_one_protocol() {
    assert_eq!(
        errors(&[("a", "rtmp://0.0.0.0:5000/live/a", &[]), ("b", "rtmps://0.0.0.0:5000/live/b", &[])]),
        one("b", "flows.b.input.listen: 0.0.0.0:5000 is rtmp for flows.a.input.listen")
    );
    let tls = |file: &str| json!({ "certificateFile": file, "keyFile": "/k" });
    let desired = read(&json!({ "flows": {
        "a": { "input": { "listen": "rtmps://0.0.0.0/live/a", "tls": tls("/c") } },
        "b": { "input": { "listen": "rtmps://0.0.0.0/live/b", "tls": tls("/d") } },
        "c": { "input": { "listen": "rtmps://0.0.0.0/live/c", "tls": tls("/c") } }
    } }));
    assert_eq!(
        desired.errors.into_iter().collect::<Vec<_>>(),
        one("b", "flows.b.input.listen: 0.0.0.0:1936 has another `tls` in flows.a.input.listen")
    );
}

#[test]
fn a_wildcard_and_an_address_it_covers_exclude_each_other() {
    for (first, second) in [
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("[::]", "127.0.0.1"),
        ("[::]", "0.0.0.0"),
        ("0.0.0.0", "[::]"),
        ("[::1]", "[::]"),
        ("127.0.0.1", "[::]"),
    ] {
        let (a, b) = (format!("rtmp://{first}/live/a"), format!("rtmp://{second}/live/b"));
        assert_eq!(
            errors(&[("a", &a, &[]), ("b", &b, &[])]),
            one(
                "b",
                &format!(
                    "flows.b.input.listen: {second}:1935 overlaps {first}:1935 of flows.a.input.listen; \
                     on one port, listen on a wildcard or on addresses, not both"
                )
            )
        );
    }
    for (first, second) in [("0.0.0.0", "[::1]"), ("[::1]", "0.0.0.0"), ("127.0.0.1", "127.0.0.2")] {
        let (a, b) = (format!("rtmp://{first}/live/a"), format!("rtmps://{second}:1935/live/b"));
        assert_eq!(errors(&[("a", &a, &[]), ("b", &b, &[])]), []);
    }
}

#[test]
fn a_refused_flow_takes_nothing_from_those_after_it() {
    assert_eq!(
        errors(&[
            ("a", "rtmp://0.0.0.0/live/a", &[]),
            ("b", "rtmp://0.0.0.0:1936/live/b", &["rtmp://0.0.0.0:1936/x/y", "rtmp://127.0.0.1/x/y"]),
            ("c", "rtmps://0.0.0.0:1936/live/b", &["rtmps://0.0.0.0:1936/x/y"]),
        ])
        .iter()
        .map(|(name, _)| name.as_str())
        .collect::<Vec<_>>(),
        ["b"]
    );
}

#[test]
fn a_disabled_flow_takes_no_address() {
    let desired = read(&json!({ "flows": {
        "a": { "enabled": false, "input": { "listen": "rtmp://0.0.0.0/live/a" } },
        "b": { "input": { "listen": "rtmp://0.0.0.0/live/a" } }
    } }));
    assert_eq!((desired.flows.len(), desired.errors.len()), (2, 0));
}

#[test]
fn who_has_all_below_a_path_shares_none_of_it() {
    let mut supports = splitter();
    supports.outputs.push(OutputSpec::of::<Pages>());
    for (first, second, clash) in [
        ("http://0.0.0.0/live", "http://0.0.0.0/live/cam", true),
        ("http://0.0.0.0/live/cam", "http://0.0.0.0/live", true),
        ("http://0.0.0.0/live", "http://0.0.0.0/live", true),
        ("http://0.0.0.0/live", "http://0.0.0.0/lives", false),
        ("http://0.0.0.0/live/a", "http://0.0.0.0/live/b", false),
        ("http://0.0.0.0/live", "https://0.0.0.0/live/cam", false),
    ] {
        let flow = |serve: &str, path: &str| {
            json!({
                "input": { "listen": format!("rtmp://0.0.0.0/{path}") }, "outputs": { "o": { "serve": serve } }
            })
        };
        let document = json!({ "flows": { "a": flow(first, "in/a"), "b": flow(second, "in/b") } });
        let errors = read_for(&supports, &document).errors;
        assert_eq!(errors.len(), usize::from(clash), "{first} {second}: {errors:?}");
        if clash {
            assert!(errors["b"].ends_with("is taken by flows.a.outputs.o.serve"), "{errors:?}");
        }
    }
}
