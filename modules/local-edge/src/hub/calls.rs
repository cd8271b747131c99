//! edgeHub's HTTPS port, for what modules ask there: a direct method of another module
//! (Azure/iotedge, `Microsoft.Azure.Devices.Edge.Hub.Http/controllers/MethodsController.cs`).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::login::{self, Refusal};
use super::{Hub, HubError, MAX_CONNECTIONS, MAX_METHOD_BYTES, MethodAnswer, TLS_HANDSHAKE};
use crate::accept::accept;

/// A payload with what stands around it.
const MAX_BODY: usize = MAX_METHOD_BYTES + (4 << 10);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a method may take where the caller does not say.
const DEFAULT_RESPONSE: u64 = 30;
/// Seconds that a caller may ask for.
const MAX_WAIT: u64 = 300;

/// What a caller sends.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallRequest {
    method_name: String,
    #[serde(default)]
    payload: Value,
    /// For the method's answer.
    response_timeout_in_seconds: Option<u64>,
    /// For the module to be there.
    connect_timeout_in_seconds: Option<u64>,
}

/// Why a call is not made.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("there is POST /twins/{{device}}/modules/{{module}}/methods, and nothing else")]
    NoSuchPath,
    #[error("only POST is accepted here")]
    NotPost,
    #[error("the header x-ms-edge-moduleId says who calls, as device/module")]
    Nameless,
    #[error("{0}")]
    Login(#[from] Refusal),
    #[error("the body is not a method call: {0}")]
    Body(String),
    #[error("no device {0:?} here")]
    Device(String),
    #[error("{0}")]
    Call(#[from] HubError),
}

impl Refused {
    const fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPath | Self::Device(_) => StatusCode::NOT_FOUND,
            Self::NotPost => StatusCode::METHOD_NOT_ALLOWED,
            Self::Nameless | Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::Login(_) => StatusCode::UNAUTHORIZED,
            Self::Call(error) => match error {
                HubError::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
                HubError::MethodName(_) | HubError::Payload(_) | HubError::Desired(_) => {
                    StatusCode::BAD_REQUEST
                }
                HubError::NoModule(..) | HubError::NotConnected(_) | HubError::Lost(_) => {
                    StatusCode::NOT_FOUND
                }
            },
        }
    }
}

impl Hub {
    /// Answers modules' HTTPS requests until cancelled, with the certificate of each moment.
    pub async fn serve_https(
        self: Arc<Self>,
        listener: TcpListener,
        tls: watch::Receiver<Arc<rustls::ServerConfig>>,
        stop: CancellationToken,
    ) {
        let serve = move |stream: TcpStream| {
            let (hub, tls) = (Arc::clone(&self), TlsAcceptor::from(Arc::clone(&tls.borrow())));
            async move {
                hub.faults.hub_down.is_over().await;
                hub.faults.hang.is_over().await;
                let Ok(Ok(stream)) = tokio::time::timeout(TLS_HANDSHAKE, tls.accept(stream)).await else {
                    return;
                };
                let service =
                    service_fn(|request| async { Ok::<_, Infallible>(hub.answer_call(request).await) });
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

    async fn answer_call(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, body) = match self.call(request).await {
            Ok(MethodAnswer { status, payload }) => {
                (StatusCode::OK, json!({ "status": status, "payload": payload }))
            }
            Err(refused) => {
                let text = refused.to_string();
                self.journal.note(&format!("edgeHub: a method call is refused: {text}"));
                (refused.status(), json!({ "status": 0, "payload": null, "message": text }))
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    async fn call(&self, request: Request<Incoming>) -> Result<MethodAnswer, Refused> {
        let (device, module) = target(request.uri().path()).ok_or(Refused::NoSuchPath)?;
        if request.method() != Method::POST {
            return Err(Refused::NotPost);
        }
        let caller = self.caller(request.headers())?;
        let body = Limited::new(request.into_body(), MAX_BODY).collect();
        let body = tokio::time::timeout(BODY_TIMEOUT, body).await;
        let body = body.map_err(|_| Refused::Body("it took too long".into()))?;
        let body = body.map_err(|error| Refused::Body(error.to_string()))?.to_bytes();
        let call: CallRequest =
            serde_json::from_slice(&body).map_err(|error| Refused::Body(error.to_string()))?;
        if device != self.names.device {
            return Err(Refused::Device(device));
        }
        let seconds = |asked: Option<u64>, usual| Duration::from_secs(asked.unwrap_or(usual).min(MAX_WAIT));
        self.wait_connected(&module, seconds(call.connect_timeout_in_seconds, 0)).await;
        let timeout = seconds(call.response_timeout_in_seconds.filter(|asked| *asked > 0), DEFAULT_RESPONSE);
        let name = &call.method_name;
        self.journal.note(&format!("{caller} calls {module}: {}", name.escape_debug()));
        Ok(self.invoke(&module, name, &call.payload, timeout).await?)
    }

    /// The module whose token the request bears.
    fn caller(&self, headers: &HeaderMap) -> Result<String, Refused> {
        let text =
            |value: Option<&HeaderValue>| value.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let named = text(headers.get("x-ms-edge-moduleId")).ok_or(Refused::Nameless)?;
        let named = percent_decode_str(&named).decode_utf8_lossy().into_owned();
        let (device, module) = named.split_once('/').ok_or(Refused::Nameless)?;
        let token = text(headers.get(AUTHORIZATION)).ok_or(Refusal::Anonymous)?;
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        login::check_token(self, device, module, &token, now)?;
        Ok(module.to_owned())
    }

    /// Until the module is there, but no longer than that.
    async fn wait_connected(&self, module: &str, patience: Duration) {
        let mut changes = self.changes();
        let there = async { while !self.connected(module) && changes.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(patience, there).await;
    }
}

/// Device and module of `/twins/{device}/modules/{module}/methods`.
fn target(path: &str) -> Option<(String, String)> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let ["twins", device, "modules", module, "methods"] = segments.as_slice() else { return None };
    let name = |text: &str| {
        let name = percent_decode_str(text).decode_utf8().ok()?.into_owned();
        (!name.is_empty()).then_some(name)
    };
    Some((name(device)?, name(module)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_of_a_method_call_has_a_target() {
        let of = |path| target(path).map(|(device, module)| format!("{device} {module}"));
        assert_eq!(of("/twins/d%201/modules/m/methods").as_deref(), Some("d 1 m"));
        for other in ["/", "/twins/d/methods", "/twins//modules/m/methods", "/twins/d/modules/m/methods/x"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
