//! The workload API over its unix socket.

use http_body_util::{BodyExt, Full};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::UnixStream;

use super::*;
use crate::hub::Names;
use crate::journal::Journal;
use crate::logs::Log;
use crate::process::{Exit, ProcessState, ProcessStatus};
use crate::state_dir::bind_socket;

struct Bench {
    folder: tempfile::TempDir,
    hub: Arc<Hub>,
    authority: Arc<Authority>,
}

impl Bench {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(Arc::new(Log::in_memory()), None);
        let hub = Hub::open(Names::default(), folder.path().join("twins"), journal);
        let authority = Arc::new(Authority::open(folder.path()).unwrap());
        let workload = Workload::new("cam 1", Arc::clone(&hub), Arc::clone(&authority), roster());
        let listener = bind_socket(&folder.path().join("sock")).unwrap();
        tokio::spawn(workload.serve(listener, CancellationToken::new()));
        Self { folder, hub, authority }
    }

    async fn call(&self, request: Request<Full<Bytes>>) -> (u16, Value) {
        let stream = UnixStream::connect(self.folder.path().join("sock")).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Request::get(path).header("host", "x").body(Full::default()).unwrap()).await
    }

    async fn post(&self, path: &str, content_type: Option<&str>, body: &str) -> (u16, Value) {
        let mut request = Request::post(path).header("host", "x");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        self.call(request.body(Full::from(body.to_owned())).unwrap()).await
    }
}

/// Others: one failed just now, one is run by hand, one is not run at all. The manifest lacks who asks.
fn roster() -> Roster {
    let ended = ProcessState::BackOff { ended: "exit code 3".into(), delay: 500 };
    let failed = ProcessStatus {
        state: ended,
        restarts: 2,
        started_at: Some("2026-01-01T00:00:00.000Z".into()),
        exit: Some(Exit { code: 3, at: "2026-01-01T00:00:01.000Z".into() }),
    };
    let row = |name: &str, process, connected| ModuleView {
        name: name.to_owned(),
        process,
        connected,
        ..ModuleView::default()
    };
    let foreign = || ProcessState::NotRunHere { image: Some("reg/x:1".into()) }.into();
    let rows = vec![row("other", failed, false), row("hand", foreign(), true), row("none", foreign(), false)];
    Arc::new(move || rows.clone())
}

const VERSION: &str = "api-version=2022-08-03";

#[tokio::test]
async fn the_trust_bundle_is_plain_pem_in_every_version_there_is() {
    let bench = Bench::start();
    for version in VERSIONS {
        let (status, body) = bench.get(&format!("/trust-bundle?api-version={version}")).await;
        assert_eq!(status, 200);
        assert_eq!(body["certificate"], bench.authority.trust_bundle());
    }
}

#[tokio::test]
async fn data_is_signed_with_the_modules_key() {
    let bench = Bench::start();
    let path = format!("/modules/cam%201/genid/anything/sign?{VERSION}");
    let body =
        json!({"keyId": "primary", "algo": "HMACSHA256", "data": BASE64.encode("to sign")}).to_string();
    let expected = BASE64.encode(sas::sign(&bench.hub.ensure("cam 1").key, b"to sign"));
    for content_type in [None, Some("application/json"), Some("application/json; charset=utf-8")] {
        let (status, answer) = bench.post(&path, content_type, &body).await;
        assert_eq!((status, &answer["digest"]), (200, &json!(expected)), "{content_type:?}");
    }
}

#[tokio::test]
async fn a_server_certificate_is_for_the_name_asked_for_and_the_module() {
    let bench = Bench::start();
    let path = format!("/modules/cam%201/genid/1/certificate/server?{VERSION}");
    let body = json!({"commonName": "gw.local", "expiration": "2030-01-01T00:00:00Z"}).to_string();
    let (status, answer) = bench.post(&path, Some("application/json"), &body).await;
    assert_eq!((status, &answer["privateKey"]["type"]), (201, &json!("key")));
    let pem = answer["certificate"].as_str().unwrap();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect();
    assert_eq!(chain.len(), 2);
    for name in ["gw.local", "cam 1"] {
        assert!(chain[0].windows(name.len()).any(|part| part == name.as_bytes()), "{name}");
    }
    assert!(answer["privateKey"]["bytes"].as_str().unwrap().contains("BEGIN PRIVATE KEY"));
    assert!(answer["expiration"].as_str().unwrap().ends_with("+00:00"));
}

#[tokio::test]
async fn each_fault_has_the_status_and_the_body_that_the_daemon_gives() {
    let bench = Bench::start();
    let sign = format!("/modules/cam%201/genid/1/sign?{VERSION}");
    let good = json!({"data": "AAAA"}).to_string();
    let json = Some("application/json");
    let unversioned = bench.get("/trust-bundle").await;
    assert_eq!(unversioned, (400, json!({"message": "api-version not specified"})));
    let unknown = bench.get("/trust-bundle?api-version=2021-05-11").await;
    assert_eq!(unknown, (400, json!({"message": "invalid api-version \"2021-05-11\""})));
    let foreign = bench.post(&format!("/modules/other/genid/1/sign?{VERSION}"), json, &good).await;
    assert_eq!(foreign, (403, json!({"message": "forbidden"})));
    for path in
        ["/nothing", "/modules/", "/modules//genid/1/sign", "/modules/cam%201/genid//sign", "//trust-bundle"]
    {
        assert_eq!(
            bench.get(&format!("{path}?{VERSION}")).await,
            (404, json!({"message": "not found"})),
            "{path}"
        );
    }
    assert_eq!(bench.post(&format!("/modules/%ff/genid/1/sign?{VERSION}"), json, &good).await.0, 404);
    assert_eq!(bench.get(&sign).await, (400, json!({"message": "method not allowed"})));
    assert_eq!(bench.post(&format!("/trust-bundle?{VERSION}"), None, "").await.0, 400);
    assert_eq!(bench.post(&sign, Some("text/plain"), &good).await.0, 400);
    assert_eq!(bench.post(&sign, json, "").await, (400, json!({"message": "missing request body"})));
    assert_eq!(bench.post(&sign, json, "{}").await.0, 422);
    assert_eq!(bench.post(&sign, json, "no JSON").await.0, 422);
    assert_eq!(bench.post(&sign, json, r#"{"data":"***"}"#).await.0, 400);
    assert_eq!(bench.post(&sign, json, &"x".repeat(MAX_BODY + 1)).await.0, 400);
}

#[tokio::test]
async fn another_modules_data_are_forbidden_whatever_is_asked() {
    let bench = Bench::start();
    for path in [
        "genid/1/sign",
        "genid/1/encrypt",
        "genid/1/decrypt",
        "genid/1/certificate/server",
        "certificate/identity",
    ] {
        // A missing body is found later than a caller who may not.
        let (status, answer) = bench.post(&format!("/modules/other/{path}?{VERSION}"), None, "").await;
        assert_eq!((status, answer), (403, json!({"message": "forbidden"})), "{path}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_waited_for_5_s() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let bench = Bench::start();
    let mut stream = UnixStream::connect(bench.folder.path().join("sock")).await.unwrap();
    let head = format!(
        "POST /modules/cam%201/genid/1/sign?{VERSION} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 408");
}

#[tokio::test]
async fn what_was_encrypted_is_decrypted_with_the_same_vector_and_generation_alone() {
    let bench = Bench::start();
    let path = |call: &str, generation: &str| format!("/modules/cam%201/genid/{generation}/{call}?{VERSION}");
    let json = Some("application/json");
    for (text, vector) in [("a secret", "iv"), ("", "twelve bytes"), ("x", &*"long".repeat(100))] {
        let body = json!({"plaintext": BASE64.encode(text), "initializationVector": BASE64.encode(vector)});
        let (status, sealed) = bench.post(&path("encrypt", "g%201"), json, &body.to_string()).await;
        assert_eq!(status, 200, "{sealed}");
        let ciphertext = sealed["ciphertext"].as_str().unwrap();
        // Form, data and tag.
        assert_eq!(BASE64.decode(ciphertext).unwrap().len(), 1 + text.len() + 16);
        let wish = |ciphertext: &str, vector: &str| {
            json!({"ciphertext": ciphertext, "initializationVector": BASE64.encode(vector)}).to_string()
        };
        let opened = bench.post(&path("decrypt", "g%201"), json, &wish(ciphertext, vector)).await;
        assert_eq!(opened, (200, json!({"plaintext": BASE64.encode(text)})));
        assert_eq!(bench.post(&path("decrypt", "g%201"), json, &wish(ciphertext, "other")).await.0, 500);
        assert_eq!(bench.post(&path("decrypt", "2"), json, &wish(ciphertext, vector)).await.0, 500);
        let spoilt = BASE64.encode([b"\x02", &[7_u8; 30][..]].concat());
        for spoilt in [&*spoilt, "", "AQ=="] {
            assert_eq!(
                bench.post(&path("decrypt", "g%201"), json, &wish(spoilt, vector)).await.0,
                500,
                "{spoilt}"
            );
        }
    }
    assert_eq!(bench.post(&path("encrypt", "1"), json, "{}").await.0, 422);
    let bad = json!({"plaintext": "~", "initializationVector": "aXY="}).to_string();
    assert_eq!(bench.post(&path("encrypt", "1"), json, &bad).await.0, 400);
    let empty = json!({"plaintext": "aXY=", "initializationVector": ""}).to_string();
    assert_eq!(bench.post(&path("encrypt", "1"), json, &empty).await.0, 500);
}

#[tokio::test]
async fn an_identity_certificate_names_the_module_in_full_and_needs_no_body() {
    let bench = Bench::start();
    let path = format!("/modules/cam%201/certificate/identity?{VERSION}");
    for body in ["", r#"{"expiration":"2030-01-01T00:00:00Z"}"#] {
        let (status, answer) = bench.post(&path, Some("application/json"), body).await;
        assert_eq!((status, &answer["privateKey"]["type"]), (201, &json!("key")), "{answer}");
        let pem = answer["certificate"].as_str().unwrap();
        let leaf = CertificateDer::pem_slice_iter(pem.as_bytes()).next().unwrap().unwrap();
        let uri = "azureiot://local-edge.azure-devices.net/devices/local-edge/modules/cam%201";
        assert!(leaf.windows(uri.len()).any(|part| part == uri.as_bytes()));
    }
    assert_eq!(bench.post(&path, Some("application/json"), "no JSON").await.0, 422);
}

#[tokio::test]
async fn all_modules_are_listed_with_their_states_and_without_their_environment() {
    let bench = Bench::start();
    let (status, list) = bench.get(&format!("/modules?{VERSION}")).await;
    assert_eq!(status, 200);
    let modules = list["modules"].as_array().unwrap();
    let states: Vec<_> = modules
        .iter()
        .map(|module| {
            (module["name"].as_str().unwrap(), module["status"]["runtimeStatus"]["status"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        states,
        [
            ("edgeAgent", "running"),
            ("edgeHub", "running"),
            ("other", "failed"),
            ("hand", "running"),
            ("none", "stopped"),
            ("cam 1", "running")
        ]
    );
    assert_eq!(
        modules[2],
        json!({
            "id": "other", "name": "other", "type": "docker", "config": {"settings": {}, "env": []},
            "status": {
                "startTime": "2026-01-01T00:00:00.000Z",
                "exitStatus": {"exitTime": "2026-01-01T00:00:01.000Z", "statusCode": "3"},
                "runtimeStatus": {"status": "failed", "description": "exit code 3"},
            },
        })
    );
}

#[tokio::test]
async fn a_failing_workload_api_answers_500_to_every_call_and_certificates_can_be_short() {
    let bench = Bench::start();
    bench.hub.faults.set(crate::fault::Fault::WorkloadDown { seconds: 86_400 });
    assert_eq!(bench.get(&format!("/trust-bundle?{VERSION}")).await.0, 500);
    bench.hub.faults.set(crate::fault::Fault::Clear);
    assert_eq!(bench.get(&format!("/trust-bundle?{VERSION}")).await.0, 200);
    bench.hub.faults.set(crate::fault::Fault::ShortCertificates { seconds: 15 });
    let path = format!("/modules/cam%201/genid/1/certificate/server?{VERSION}");
    let wish = r#"{"commonName":"gw","expiration":"2030-01-01T00:00:00Z"}"#;
    let (status, answer) = bench.post(&path, Some("application/json"), wish).await;
    let expires: jiff::Timestamp = answer["expiration"].as_str().unwrap().parse().unwrap();
    assert!(status == 201 && expires.as_second() - jiff::Timestamp::now().as_second() <= 15, "{answer}");
}
