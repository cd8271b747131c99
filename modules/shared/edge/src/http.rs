//! `/`, `/metrics`, `/healthz`, `/readyz` and `/status`.

mod metrics;
pub(crate) mod page;
pub(crate) mod probe;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::module::Module;

const MAX_CONNECTIONS: usize = 64;
const HEADER_TIME: Duration = Duration::from_secs(5);
/// One request a connection, answered and read within this.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// Serves for ever. An address that can't be had is said once and tried again: the streams matter more.
pub(crate) async fn serve(module: Arc<Module>, address: SocketAddr) {
    let mut said = None;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                if said != Some(error.kind()) {
                    said = Some(error.kind());
                    tracing::error!(
                        %address,
                        "metrics and health are not served: {error}; free the address or set --metrics-address"
                    );
                }
                tokio::time::sleep(BIND_AGAIN).await;
            }
        }
    };
    tracing::info!(%address, "serving a page, /metrics, /healthz, /readyz, /status");
    accept(listener, module).await;
}

async fn accept(listener: TcpListener, module: Arc<Module>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let module = module.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(CONNECTION_TIME, answer(stream, module)).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: waiting is all that helps.
                tracing::warn!("the metrics address accepts no connections at the moment: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, module: Arc<Module>) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: Request<Incoming>| {
        let module = module.clone();
        async move { Ok::<_, Infallible>(respond(&request, &module)) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn respond(request: &Request<Incoming>, module: &Module) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match request.uri().path() {
        "/" => page(request, module),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" if module.is_ready() => text(StatusCode::OK, "ready\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "no configuration yet\n"),
        "/metrics" => typed("text/plain; version=0.0.4; charset=utf-8", metrics::text(module)),
        "/status" => typed("application/json", serde_json::Value::Object(module.status()).to_string()),
        _ => text(StatusCode::NOT_FOUND, "/, /metrics, /healthz, /readyz, /status\n"),
    }
}

fn page(request: &Request<Incoming>, module: &Module) -> Response<Full<Bytes>> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).and_then(page::host_of);
    let identity = &module.identity;
    let now = jiff::Timestamp::now();
    let about = page::About { module: &identity.module, device: &identity.device, host, now };
    let mut response = typed("text/html; charset=utf-8", page::html(&module.status(), &about));
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&page::SECURITY_POLICY) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn typed(content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = typed("text/plain; charset=utf-8", body.to_owned());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
