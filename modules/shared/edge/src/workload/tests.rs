use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Response, Uri};

use super::*;

/// Answers as edgelet does, with a fixed status and body, and keeps what it was asked.
struct Daemon {
    asked: Arc<Mutex<Vec<(Method, Uri, Value)>>>,
    workload: Workload,
    _dir: tempfile::TempDir,
}

fn daemon(status: u16, body: impl Into<String>) -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, body) = (asked.clone(), body.into());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (log, body) = (log.clone(), body.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (log, body) = (log.clone(), body.clone());
                async move {
                    let (method, uri) = (request.method().clone(), request.uri().clone());
                    assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
                    let sent = request.into_body().collect().await.unwrap().to_bytes();
                    log.lock().unwrap().push((
                        method,
                        uri,
                        serde_json::from_slice(&sent).unwrap_or_default(),
                    ));
                    let response = Response::builder().status(status).body(Full::new(Bytes::from(body)));
                    Ok::<_, Infallible>(response.unwrap())
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    let address = format!("unix://{}", path.display()).parse().unwrap();
    let workload = Workload::new(address, Some("2022-08-03".into()), "$my mod-1.a_b~c".into(), "63".into());
    Daemon { asked, workload, _dir: dir }
}

#[test]
fn both_forms_of_address_are_read() {
    let unix = |path: &str| Ok(WorkloadAddress::Unix(path.into()));
    assert_eq!("unix:///var/run/iotedge/workload.sock".parse(), unix("/var/run/iotedge/workload.sock"));
    assert_eq!("unix:///tmp/a%20b.sock/".parse(), unix("/tmp/a b.sock"));
    assert_eq!("http://edge:15580/".parse(), Ok(WorkloadAddress::Tcp("edge:15580".into())));
    assert_eq!("http://edge".parse(), Ok(WorkloadAddress::Tcp("edge:80".into())));
    for bad in ["", "unix://", "https://edge", "http://", "/var/run/w.sock", "http://a/b"] {
        assert!(bad.parse::<WorkloadAddress>().is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_signature_is_asked_for_under_the_encoded_name() {
    let daemon = daemon(200, r#"{"digest":"c2ln"}"#);
    assert_eq!(daemon.workload.sign(b"data").await.unwrap(), "c2ln");
    let asked = daemon.asked.lock().unwrap();
    assert_eq!(asked[0].1, "/modules/%24my%20mod-1.a_b~c/genid/63/sign?api-version=2022-08-03");
    assert_eq!(asked[0].2, json!({"keyId": "primary", "algo": "HMACSHA256", "data": "ZGF0YQ=="}));
}

#[tokio::test]
async fn a_server_certificate_is_renewed_with_a_third_of_its_life_left() {
    let expiration = jiff::Timestamp::now().checked_add(Duration::from_secs(9000)).unwrap();
    let body = json!({
        "privateKey": {"type": "key", "bytes": "KEY"}, "certificate": "LEAF\nCHAIN", "expiration": format!("{expiration:.0}"),
    });
    let daemon = daemon(201, body.to_string());
    let certificate = daemon.workload.server("gw").await.unwrap();
    assert_eq!((certificate.chain_pem.as_str(), certificate.key_pem.as_str()), ("LEAF\nCHAIN", "KEY"));
    let life = certificate.renewal.life().as_secs();
    assert!((5980..=6000).contains(&life), "{life}");
    assert_eq!(daemon.asked.lock().unwrap()[0].2["commonName"], "gw");
}

#[tokio::test]
async fn a_refusal_names_the_call_and_what_the_daemon_said() {
    let daemon = daemon(403, r#"{"message":"forbidden"}"#);
    let error = daemon.workload.trust_bundle().await.unwrap_err();
    assert_eq!(error, "workload API, trust-bundle: answered 403 Forbidden: forbidden");
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let daemon = daemon(200, format!("{{\"certificate\":\"{}\"}}", "x".repeat(2 * MAX_ANSWER)));
    let error = daemon.workload.trust_bundle().await.unwrap_err();
    assert!(error.contains("longer than 1048576 bytes"), "{error}");
}

#[tokio::test]
async fn an_absent_socket_is_an_error_that_names_the_call() {
    let address = "unix:///nonexistent/w.sock".parse().unwrap();
    let workload = Workload::new(address, None, "m".into(), "1".into());
    let error = workload.sign(b"x").await.unwrap_err();
    assert!(error.starts_with("workload API, sign: No such file"), "{error}");
}
