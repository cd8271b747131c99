use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::testing::rig;

async fn request(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = request(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

async fn served(module: Arc<Module>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(accept(listener, module));
    address
}

#[tokio::test]
async fn it_is_ready_once_a_configuration_was_handled_and_alive_before() {
    let rig = rig();
    let address = served(rig.module.clone()).await;
    assert_eq!(get(address, "/healthz").await.0, 200);
    assert_eq!(get(address, "/readyz").await.0, 503);
    let bad = serde_json::from_value(json!({"flows": {"a": {}}})).unwrap();
    rig.module.apply(bad, Some(4)).await;
    assert_eq!(get(address, "/readyz").await.0, 200);
    let (code, body) = get(address, "/status").await;
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &status["schemaVersion"], &status["counters"]), (200, &json!("1.0"), &json!(1)));
    assert_eq!(status["module"]["name"], "tester");
    let errors = json!({"a": "flows.a.value: expected a number"});
    assert_eq!(status["config"], json!({"desiredVersion": 4, "status": "rejected", "errors": errors}));
    assert_eq!(get(address, "/nothing").await.0, 404);
    assert!(request(address, "POST /status HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn people_get_a_page_that_may_run_its_own_script_and_nothing_else() {
    let rig = rig();
    rig.module.apply(serde_json::from_value(json!({"flows": {"cam": {"value": 1}}})).unwrap(), Some(4)).await;
    let address = served(rig.module.clone()).await;
    let answer = request(address, "GET / HTTP/1.1\r\nHost: gw:9600\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert!(
        head.starts_with("http/1.1 200") && head.contains("content-type: text/html; charset=utf-8"),
        "{head}"
    );
    assert!(head.contains("content-security-policy: default-src 'none'; style-src 'sha256-"), "{head}");
    assert!(body.contains("<h2>cam <b class=\"state good\">running</b>"), "{body}");
    // Nothing of it comes from elsewhere.
    assert!(!body.contains("src=") && !body.contains("@import") && !body.contains("url("), "{body}");
}

#[tokio::test]
async fn every_series_has_the_shared_labels_and_a_value_that_the_collector_reads() {
    let rig = rig();
    let address = served(rig.module.clone()).await;
    let (_, text) = get(address, "/metrics").await;
    let mut names = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap();
        names.insert(name);
        for label in [
            r#"iothub="h.azure-devices.net""#,
            r#"edge_device="d""#,
            r#"module_name="m""#,
            "instance_number=",
        ] {
            assert!(labels.contains(label), "{line}");
        }
        // No timestamp: the closing brace is right before the value.
        assert!(
            series.ends_with('}') && value.chars().all(|c| c.is_ascii_digit() || ".eE+-".contains(c)),
            "{line}"
        );
    }
    for name in
        ["av_flow_state", "av_hub_connected", "av_config_desired_version", "process_resident_memory_bytes"]
    {
        assert!(names.contains(name), "{name} in {names:?}");
    }
    assert!(text.contains(r#"flow="a""#) && !text.contains("endless"));
}

#[tokio::test]
async fn connections_are_bounded_and_silent_ones_are_closed() {
    let rig = rig();
    let address = served(rig.module).await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // All places are taken by silent connections; this one is served when their time is over.
    assert_eq!(get(address, "/healthz").await.0, 200);
    let mut rest = Vec::new();
    silent[0].read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn the_probe_finds_the_module() {
    let rig = rig();
    let address = served(rig.module).await;
    let ask = |path| tokio::task::spawn_blocking(move || probe::answers_ok(address, path).unwrap());
    assert!(ask("/healthz").await.unwrap());
    assert!(!ask("/readyz").await.unwrap());
}

#[tokio::test]
async fn an_address_in_use_is_waited_for() {
    let rig = rig();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let server = tokio::spawn(serve(rig.module, address));
    tokio::task::yield_now().await;
    assert!(!server.is_finished());
    drop(taken);
    let mut answered = false;
    for _ in 0..200 {
        answered = TcpStream::connect(address).await.is_ok();
        if answered {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(answered);
}
