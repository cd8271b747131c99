//! The workload API of one module: HTTP/1.1 on a unix socket of its own.

mod encryption;
mod listing;

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
use percent_encoding::{percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::accept::accept;
use crate::authority::{Authority, Purpose};
use crate::hub::topic::UNRESERVED;
use crate::hub::{Hub, Identity, Names};
use crate::sas;
use crate::view::ModuleView;
use encryption::Sealing;

/// What `api-version` may be (`edgelet-http/src/version.rs` of IoT Edge).
const VERSIONS: [&str; 7] =
    ["2018-06-28", "2019-01-30", "2019-10-22", "2019-11-05", "2020-07-07", "2021-12-07", "2022-08-03"];
/// The one that modules are told to use.
pub const NEWEST_VERSION: &str = "2022-08-03";
const MAX_BODY: usize = 64 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_CONNECTIONS: usize = 64;

/// The modules that there are at this moment, without what they report.
pub type Roster = Arc<dyn Fn() -> Vec<ModuleView> + Send + Sync>;

/// What answers one module.
pub struct Workload {
    module: String,
    hub: Arc<Hub>,
    authority: Arc<Authority>,
    roster: Roster,
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EncryptRequest {
    plaintext: String,
    initialization_vector: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DecryptRequest {
    ciphertext: String,
    initialization_vector: String,
}

impl Workload {
    /// For `module`, which the hub must know.
    pub fn new(module: &str, hub: Arc<Hub>, authority: Arc<Authority>, roster: Roster) -> Arc<Self> {
        Arc::new(Self { module: module.to_owned(), hub, authority, roster })
    }

    /// Answers until cancelled.
    pub async fn serve(self: Arc<Self>, listener: UnixListener, stop: CancellationToken) {
        let serve = move |stream| {
            let workload = Arc::clone(&self);
            async move {
                let service =
                    service_fn(|request| async { Ok::<_, Infallible>(workload.answer(request).await) });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(30))
                    .serve_connection(TokioIo::new(stream), service);
                // How a client ends its connection is its own affair.
                drop(connection.await);
            }
        };
        accept(listener, MAX_CONNECTIONS, stop, serve).await;
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
        let version = percent_decode_str(version).decode_utf8_lossy();
        if !VERSIONS.contains(&&*version) {
            return Err(bad_request(&format!("invalid api-version {version:?}")));
        }
        let path = request.uri().path().to_owned();
        let (expected, call) =
            Call::parse(&path).ok_or(Refused(StatusCode::NOT_FOUND, "not found".into()))?;
        if request.method() != expected {
            return Err(bad_request("method not allowed"));
        }
        match call {
            Call::TrustBundle => {
                Ok((StatusCode::OK, json!({ "certificate": self.authority.trust_bundle() })))
            }
            Call::ManifestTrustBundle => Ok((StatusCode::OK, json!({ "certificate": "" }))),
            Call::Modules => Ok((StatusCode::OK, listing::list(&self.module, (self.roster)()))),
            Call::Sign(module) => {
                let (identity, request): (_, SignRequest) = self.authorized(&module, request).await?;
                let data = base64("data", &request.data)?;
                Ok((StatusCode::OK, json!({ "digest": BASE64.encode(sas::sign(&identity.key, &data)) })))
            }
            Call::Encrypt(module, generation) => {
                let (identity, request): (_, EncryptRequest) = self.authorized(&module, request).await?;
                let plaintext = base64("plaintext", &request.plaintext)?;
                let vector = base64("initializationVector", &request.initialization_vector)?;
                let sealed = Sealing::new(&identity.key, &vector, &module, &generation)?.seal(plaintext)?;
                Ok((StatusCode::OK, json!({ "ciphertext": BASE64.encode(sealed) })))
            }
            Call::Decrypt(module, generation) => {
                let (identity, request): (_, DecryptRequest) = self.authorized(&module, request).await?;
                let ciphertext = base64("ciphertext", &request.ciphertext)?;
                let vector = base64("initializationVector", &request.initialization_vector)?;
                let opened = Sealing::new(&identity.key, &vector, &module, &generation)?.open(ciphertext)?;
                Ok((StatusCode::OK, json!({ "plaintext": BASE64.encode(opened) })))
            }
            Call::ServerCertificate(module) => {
                let (_, request): (_, ServerCertificateRequest) = self.authorized(&module, request).await?;
                let name = request.common_name;
                if name.is_empty() || name.len() > 253 || !name.is_ascii() {
                    return Err(bad_request("commonName must be 1 to 253 ASCII characters"));
                }
                self.certificate(Purpose::Server(&[&name, &self.module]))
            }
            Call::IdentityCertificate(module) => {
                // What it asks for is not looked at, by today's daemon neither.
                json_body::<IgnoredAny>(request).await?;
                self.check_caller(&module)?;
                let Names { iothub, device, .. } = &self.hub.names;
                let module = utf8_percent_encode(&self.module, UNRESERVED);
                let uri = format!("azureiot://{iothub}/devices/{device}/modules/{module}");
                self.certificate(Purpose::Client { name: &self.module, uri: &uri })
            }
        }
    }

    /// The body of a request in the module's own name, and its identity. As in the daemon a body that does not
    /// fit (422) is found before a caller who may not (403), and that before a missing body (400).
    async fn authorized<T: DeserializeOwned>(
        &self,
        module: &str,
        request: Request<Incoming>,
    ) -> Result<(Identity, T), Refused> {
        let body = json_body(request).await?;
        self.check_caller(module)?;
        let body = body.ok_or_else(|| bad_request("missing request body"))?;
        Ok((self.hub.ensure(&self.module), body))
    }

    /// The real one asks the kernel who is calling; here each module has its socket, which no other is
    /// told of.
    fn check_caller(&self, module: &str) -> Result<(), Refused> {
        if module == self.module { Ok(()) } else { Err(Refused(StatusCode::FORBIDDEN, "forbidden".into())) }
    }

    fn certificate(&self, purpose: Purpose<'_>) -> Answer {
        let issued = self.authority.issue(purpose, self.hub.faults.certificate_life());
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

/// What a path asks for, with the module and the generation that it names.
enum Call {
    TrustBundle,
    ManifestTrustBundle,
    Modules,
    Sign(String),
    Encrypt(String, String),
    Decrypt(String, String),
    ServerCertificate(String),
    IdentityCertificate(String),
}

impl Call {
    /// The call and its method; `None` for a path that there is not.
    fn parse(path: &str) -> Option<(Method, Self)> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        // Names are percent-encoded, and never empty.
        let name = |text: &str| {
            let name = percent_decode_str(text).decode_utf8().ok()?.into_owned();
            (!name.is_empty()).then_some(name)
        };
        Some(match segments.as_slice() {
            ["trust-bundle"] => (Method::GET, Self::TrustBundle),
            ["manifest-trust-bundle"] => (Method::GET, Self::ManifestTrustBundle),
            ["modules"] => (Method::GET, Self::Modules),
            ["modules", module, "genid", generation, rest @ ..] => {
                let (module, generation) = (name(module)?, name(generation)?);
                let call = match rest {
                    ["sign"] => Self::Sign(module),
                    ["encrypt"] => Self::Encrypt(module, generation),
                    ["decrypt"] => Self::Decrypt(module, generation),
                    ["certificate", "server"] => Self::ServerCertificate(module),
                    _ => return None,
                };
                (Method::POST, call)
            }
            ["modules", module, "certificate", "identity"] => {
                (Method::POST, Self::IdentityCertificate(name(module)?))
            }
            _ => return None,
        })
    }
}

fn bad_request(text: &str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, text.into())
}

fn base64(what: &str, text: &str) -> Result<Vec<u8>, Refused> {
    BASE64.decode(text).map_err(|error| bad_request(&format!("{what} is not base64: {error}")))
}

/// The request's body; `None` without one, and for a content type other than JSON, which counts as none.
async fn json_body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<Option<T>, Refused> {
    let json = request.headers().get(CONTENT_TYPE).is_none_or(|value| {
        let value = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        value.trim().eq_ignore_ascii_case("application/json")
    });
    let collected = Limited::new(request.into_body(), MAX_BODY).collect();
    let collected = tokio::time::timeout(BODY_TIMEOUT, collected).await;
    let collected =
        collected.map_err(|_| Refused(StatusCode::REQUEST_TIMEOUT, "the body took too long".into()))?;
    let bytes = collected.map_err(|error| bad_request(&error.to_string()))?.to_bytes();
    if !json || bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Refused(StatusCode::UNPROCESSABLE_ENTITY, format!("invalid request body: {error}")))
}

#[cfg(test)]
mod tests;
