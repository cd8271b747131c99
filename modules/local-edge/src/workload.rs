//! The workload API of one module: HTTP/1.1 on a unix socket of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::hub::Hub;
use crate::sas;

/// What `api-version` may be (`edgelet-http/src/version.rs` of IoT Edge).
const VERSIONS: [&str; 7] =
    ["2018-06-28", "2019-01-30", "2019-10-22", "2019-11-05", "2020-07-07", "2021-12-07", "2022-08-03"];
/// The one that modules are told to use.
pub const NEWEST_VERSION: &str = "2022-08-03";
const MAX_BODY: usize = 64 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_CONNECTIONS: usize = 64;

/// What answers one module.
pub struct Workload {
    module: String,
    hub: Arc<Hub>,
    authority: Arc<Authority>,
}

/// An error status with the text of its body.
struct Refused(StatusCode, String);

type Answer = Result<(StatusCode, Value), Refused>;

#[derive(Deserialize)]
struct SignRequest {
    data: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerCertificateRequest {
    common_name: String,
    /// Required, but today's daemon does not look at it either.
    #[serde(rename = "expiration")]
    _expiration: String,
}

impl Workload {
    /// For `module`, which the hub must know.
    pub fn new(module: &str, hub: Arc<Hub>, authority: Arc<Authority>) -> Arc<Self> {
        Arc::new(Self { module: module.to_owned(), hub, authority })
    }

    /// Answers until cancelled.
    pub async fn serve(self: Arc<Self>, listener: UnixListener, stop: CancellationToken) {
        let permits = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (workload, stop) = (Arc::clone(&self), stop.clone());
            tokio::spawn(async move {
                let _permit = permit;
                let service = service_fn(move |request| {
                    let workload = Arc::clone(&workload);
                    async move { Ok::<_, Infallible>(workload.answer(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(30))
                    .serve_connection(TokioIo::new(stream), service);
                // How a client ends its connection is its own affair.
                tokio::select! { _ = connection => {}, () = stop.cancelled() => {} }
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, body) = match self.handle(request).await {
            Ok(answer) => answer,
            Err(Refused(status, message)) => (status, json!({ "message": message })),
        };
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
        response
    }

    async fn handle(&self, request: Request<Incoming>) -> Answer {
        if self.hub.faults.is_workload_down() {
            return Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, "fails on purpose".into()));
        }
        let query = request.uri().query().unwrap_or_default();
        let version = query.split('&').find_map(|pair| pair.strip_prefix("api-version="));
        let version = version.ok_or_else(|| bad_request("api-version not specified"))?;
        if !VERSIONS.contains(&version) {
            return Err(bad_request("invalid api-version"));
        }
        let path = request.uri().path().to_owned();
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (expected, call) = match segments.as_slice() {
            ["trust-bundle"] => (Method::GET, Call::TrustBundle),
            ["manifest-trust-bundle"] => (Method::GET, Call::ManifestTrustBundle),
            ["modules"] => (Method::GET, Call::Modules),
            ["modules", module, "genid", _, "sign"] => (Method::POST, Call::Sign(module)),
            ["modules", module, "genid", _, "certificate", "server"] => {
                (Method::POST, Call::ServerCertificate(module))
            }
            ["modules", module, "certificate", "identity"] => {
                (Method::POST, Call::IdentityCertificate(module))
            }
            _ => return Err(Refused(StatusCode::NOT_FOUND, "not found".into())),
        };
        if request.method() != expected {
            return Err(bad_request("invalid method for this path"));
        }
        match call {
            Call::TrustBundle => {
                Ok((StatusCode::OK, json!({ "certificate": self.authority.trust_bundle() })))
            }
            Call::ManifestTrustBundle => Ok((StatusCode::OK, json!({ "certificate": "" }))),
            Call::Modules => {
                let status = json!({ "runtimeStatus": { "status": "running" } });
                let module =
                    json!({ "id": self.module, "name": self.module, "type": "docker", "status": status });
                Ok((StatusCode::OK, json!({ "modules": [module] })))
            }
            Call::Sign(module) => {
                self.check_caller(module)?;
                let request: SignRequest = required(body(request).await?)?;
                let data = BASE64.decode(&request.data).map_err(|_| bad_request("data is not base64"))?;
                let identity = self.hub.ensure(&self.module);
                Ok((StatusCode::OK, json!({ "digest": BASE64.encode(sas::sign(&identity.key, &data)) })))
            }
            Call::ServerCertificate(module) => {
                self.check_caller(module)?;
                let request: ServerCertificateRequest = required(body(request).await?)?;
                self.certificate(&request.common_name)
            }
            Call::IdentityCertificate(module) => {
                self.check_caller(module)?;
                body(request).await?;
                self.certificate(&self.module)
            }
        }
    }

    /// The real one asks the kernel who is calling; here each module has its socket, which no other is
    /// told of.
    fn check_caller(&self, module: &str) -> Result<(), Refused> {
        let module = percent_decode_str(module).decode_utf8_lossy();
        if module == self.module { Ok(()) } else { Err(Refused(StatusCode::FORBIDDEN, "forbidden".into())) }
    }

    fn certificate(&self, common_name: &str) -> Answer {
        if common_name.is_empty() || common_name.len() > 253 || !common_name.is_ascii() {
            return Err(bad_request("commonName must be 1 to 253 ASCII characters"));
        }
        let issued = self.authority.issue(&[common_name, &self.module], self.hub.faults.certificate_life());
        let issued = issued.map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        Ok((
            StatusCode::CREATED,
            json!({
                "privateKey": { "type": "key", "bytes": issued.key_pem },
                "certificate": issued.chain_pem,
                "expiration": issued.expires.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string(),
            }),
        ))
    }
}

enum Call<'a> {
    TrustBundle,
    ManifestTrustBundle,
    Modules,
    Sign(&'a str),
    ServerCertificate(&'a str),
    IdentityCertificate(&'a str),
}

fn bad_request(text: &str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, text.into())
}

/// The request's body; `None` without one, and for a content type other than JSON, which counts as none.
async fn body(request: Request<Incoming>) -> Result<Option<Bytes>, Refused> {
    let json = request.headers().get(CONTENT_TYPE).is_none_or(|value| {
        let value = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        value.trim().eq_ignore_ascii_case("application/json")
    });
    let collected = Limited::new(request.into_body(), MAX_BODY).collect();
    let collected = tokio::time::timeout(BODY_TIMEOUT, collected).await;
    let collected =
        collected.map_err(|_| Refused(StatusCode::REQUEST_TIMEOUT, "the body took too long".into()))?;
    let bytes = collected.map_err(|error| bad_request(&error.to_string()))?.to_bytes();
    Ok((json && !bytes.is_empty()).then_some(bytes))
}

fn required<T: serde::de::DeserializeOwned>(body: Option<Bytes>) -> Result<T, Refused> {
    let body = body.ok_or_else(|| bad_request("missing request body"))?;
    serde_json::from_slice(&body)
        .map_err(|error| Refused(StatusCode::UNPROCESSABLE_ENTITY, format!("invalid request body: {error}")))
}

#[cfg(test)]
mod tests;
