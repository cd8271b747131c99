//! The IoT Edge workload API: signatures, the trust bundle and server certificates
//! (Azure/iotedge, `edgelet/api/workloadVersion_2020_07_07.yaml`).

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::hub::token::{ENCODED, Signer};
use crate::renewal::Renewal;
use crate::service::{CertificateSource, ServerCertificate};

/// Each call, connecting included. edgelet may have to ask its key service first.
const PATIENCE: Duration = Duration::from_secs(30);
/// A trust bundle holds a few certificates of a few kilobytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// All calls used here exist since this version.
const OLDEST_VERSION: &str = "2018-06-28";

/// `IOTEDGE_WORKLOADURI`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WorkloadAddress {
    /// `unix:///var/run/iotedge/workload.sock`
    Unix(PathBuf),
    /// `http://host:port`
    Tcp(String),
}

/// An address of neither form.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}`: expected unix:///path or http://host:port")]
pub(crate) struct AddressError(String);

impl FromStr for WorkloadAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        if let Some(path) = trimmed.strip_prefix("unix://")
            && path.starts_with('/')
        {
            return Ok(Self::Unix(PathBuf::from(percent_decode_str(path).decode_utf8_lossy().into_owned())));
        }
        if let Some(host) = trimmed.strip_prefix("http://")
            && !host.is_empty()
            && !host.contains('/')
        {
            let port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            return Ok(Self::Tcp(if port { host.to_owned() } else { format!("{host}:80") }));
        }
        Err(AddressError(text.to_owned()))
    }
}

/// What went wrong, by call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkloadError {
    #[error("workload API, {call}: {source}")]
    Connect { call: &'static str, source: std::io::Error },
    #[error("workload API, {call}: {source}")]
    Http { call: &'static str, source: hyper::Error },
    #[error("workload API, {call}: the request can't be made: {source}")]
    Request { call: &'static str, source: hyper::http::Error },
    #[error("workload API, {call}: no answer within {} s", PATIENCE.as_secs())]
    Silent { call: &'static str },
    #[error("workload API, {call}: answered {status}: {message}")]
    Refused { call: &'static str, status: StatusCode, message: String },
    #[error("workload API, {call}: the answer ended early or is longer than {MAX_ANSWER} bytes")]
    Body { call: &'static str },
    #[error("workload API, {call}: the answer has no {member}")]
    Answer { call: &'static str, member: &'static str },
}

/// A client; each call has a connection of its own, since the socket goes away whenever edgelet restarts.
pub(crate) struct Workload {
    address: WorkloadAddress,
    version: String,
    module: String,
    generation: String,
}

impl Workload {
    /// For `module` as edgeAgent named it; `version` is `IOTEDGE_APIVERSION`.
    pub fn new(
        address: WorkloadAddress,
        version: Option<String>,
        module: String,
        generation: String,
    ) -> Self {
        Self { address, version: version.unwrap_or_else(|| OLDEST_VERSION.to_owned()), module, generation }
    }

    fn module_path(&self, call: &str) -> String {
        let encode = |text| utf8_percent_encode(text, ENCODED);
        format!("/modules/{}/genid/{}/{call}", encode(&self.module), encode(&self.generation))
    }

    async fn call(
        &self,
        call: &'static str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, WorkloadError> {
        let exchange = async {
            let connect = |source| WorkloadError::Connect { call, source };
            match &self.address {
                #[cfg(not(unix))]
                WorkloadAddress::Unix(_) => Err(connect(std::io::ErrorKind::Unsupported.into())),
                #[cfg(unix)]
                WorkloadAddress::Unix(path_of_socket) => {
                    let stream = tokio::net::UnixStream::connect(path_of_socket).await.map_err(connect)?;
                    self.exchange(call, stream, method, path, body).await
                }
                WorkloadAddress::Tcp(host) => {
                    let stream = tokio::net::TcpStream::connect(host.as_str()).await.map_err(connect)?;
                    self.exchange(call, stream, method, path, body).await
                }
            }
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or(Err(WorkloadError::Silent { call }))
    }

    async fn exchange(
        &self,
        call: &'static str,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, WorkloadError> {
        let http = |source| WorkloadError::Http { call, source };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let connection = tokio::spawn(connection);
        let host = match &self.address {
            WorkloadAddress::Unix(_) => "localhost",
            WorkloadAddress::Tcp(host) => host,
        };
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}?api-version={}", self.version))
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|source| WorkloadError::Request { call, source })?;
        let response = sender.send_request(request).await.map_err(http);
        let answer = async {
            let response = response?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|_| WorkloadError::Body { call })?.to_bytes();
            let value: Value = serde_json::from_slice(&body).unwrap_or_default();
            if status.is_success() {
                return Ok(value);
            }
            let message = value.get("message").and_then(Value::as_str).unwrap_or("no message");
            Err(WorkloadError::Refused { call, status, message: message.chars().take(300).collect() })
        };
        let answer = answer.await;
        connection.abort();
        answer
    }

    async fn fetch_trust_bundle(&self) -> Result<String, WorkloadError> {
        let answer = self.call("trust-bundle", Method::GET, "/trust-bundle", None).await?;
        text(&answer, "certificate")
            .ok_or(WorkloadError::Answer { call: "trust-bundle", member: "certificate" })
    }

    async fn fetch_server_certificate(&self, host_name: &str) -> Result<ServerCertificate, WorkloadError> {
        const CALL: &str = "certificate/server";
        let now = jiff::Timestamp::now();
        // The server needs a wish and ignores it: it gives what the device's configuration says.
        let wish = now.checked_add(Duration::from_secs(90 * 86_400)).unwrap_or(now);
        let body = json!({"commonName": host_name, "expiration": format!("{wish:.0}")});
        let answer = self.call(CALL, Method::POST, &self.module_path(CALL), Some(body)).await?;
        let missing = |member| WorkloadError::Answer { call: CALL, member };
        let key = answer.get("privateKey").and_then(|key| text(key, "bytes"));
        let expiration = text(&answer, "expiration").and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let expiration = expiration.ok_or(missing("expiration"))?.as_second();
        let life = u64::try_from(expiration.saturating_sub(now.as_second())).unwrap_or(0);
        Ok(ServerCertificate {
            chain_pem: text(&answer, "certificate").ok_or(missing("certificate"))?,
            key_pem: key.ok_or(missing("privateKey.bytes"))?,
            // With a third of its life left there is time for a runtime that is being updated.
            renewal: Renewal::after(Duration::from_secs(life / 3 * 2)),
        })
    }

    async fn fetch_signature(&self, data: &[u8]) -> Result<String, WorkloadError> {
        let body = json!({"keyId": "primary", "algo": "HMACSHA256", "data": BASE64.encode(data)});
        let answer = self.call("sign", Method::POST, &self.module_path("sign"), Some(body)).await?;
        text(&answer, "digest").ok_or(WorkloadError::Answer { call: "sign", member: "digest" })
    }
}

fn text(value: &Value, member: &str) -> Option<String> {
    value.get(member).and_then(Value::as_str).map(str::to_owned)
}

impl Signer for Workload {
    fn sign<'a>(&'a self, data: &'a [u8]) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async move { self.fetch_signature(data).await.map_err(|error| error.to_string()) })
    }
}

impl CertificateSource for Workload {
    fn server(&self, host_name: &str) -> BoxFuture<'_, Result<ServerCertificate, String>> {
        let host_name = host_name.to_owned();
        Box::pin(
            async move { self.fetch_server_certificate(&host_name).await.map_err(|error| error.to_string()) },
        )
    }

    fn trust_bundle(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async move { self.fetch_trust_bundle().await.map_err(|error| error.to_string()) })
    }
}

#[cfg(test)]
mod tests;
