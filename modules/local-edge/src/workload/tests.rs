//! The workload API over its unix socket.

use http_body_util::{BodyExt, Full};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::UnixStream;

use super::*;
use crate::hub::Names;
use crate::journal::Journal;
use crate::logs::Log;
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
        let workload = Workload::new("cam 1", Arc::clone(&hub), Arc::clone(&authority));
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
    assert_eq!(unknown, (400, json!({"message": "invalid api-version"})));
    let foreign = bench.post(&format!("/modules/other/genid/1/sign?{VERSION}"), json, &good).await;
    assert_eq!(foreign, (403, json!({"message": "forbidden"})));
    assert_eq!(bench.get(&format!("/nothing?{VERSION}")).await.0, 404);
    assert_eq!(bench.get(&sign).await.0, 400);
    assert_eq!(bench.post(&sign, Some("text/plain"), &good).await.0, 400);
    assert_eq!(bench.post(&sign, json, "").await.0, 400);
    assert_eq!(bench.post(&sign, json, "{}").await.0, 422);
    assert_eq!(bench.post(&sign, json, r#"{"data":"***"}"#).await.0, 400);
    assert_eq!(bench.post(&sign, json, &"x".repeat(MAX_BODY + 1)).await.0, 400);
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
