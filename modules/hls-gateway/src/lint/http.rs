//! A client for one request at a time, and what has to hold of the answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::rule::{self, Fault};

/// For the whole answer. A blocking request is held for less by any server that is not broken.
const TIMEOUT: Duration = Duration::from_secs(20);
const MAX_BODY: usize = 64 << 20;
/// How often one request may be led elsewhere.
pub(super) const MAX_REDIRECTS: usize = 5;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{scheme} is neither http nor https")]
    Scheme { scheme: String },
    #[error("{0} has no host that can be connected to")]
    Host(Url),
    #[error("the answer is no playlist")]
    Playlist,
    #[error("it redirects more than {MAX_REDIRECTS} times")]
    Redirects,
    #[error("--ca {file}: no PEM certificates", file = file.display())]
    Authority { file: PathBuf, source: pem::Error },
    #[error("--ca: a certificate that can't be used")]
    Certificate(#[from] rustls::Error),
    #[error("no connection to {host}, port {port}")]
    Connection { host: String, port: u16, source: std::io::Error },
    #[error("no HTTP answer")]
    Http(#[from] hyper::Error),
    #[error("it can't be requested")]
    Request(#[from] hyper::http::Error),
    #[error("the answer breaks off or is larger than {MAX_BODY} bytes")]
    Body,
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// Where it leads to, from `url`.
    pub(super) fn next(&self, url: &Url) -> Option<Url> {
        let location = self.headers.get(header::LOCATION).filter(|_| self.status.is_redirection())?;
        url.join(location.to_str().ok()?).ok()
    }
}

/// Whether that is an address that can be followed.
pub(super) fn is_http(url: &Url) -> Result<(), FetchError> {
    match url.scheme() {
        "http" | "https" => Ok(()),
        scheme => Err(FetchError::Scheme { scheme: scheme.to_owned() }),
    }
}

pub(super) struct Client {
    tls: TlsConnector,
}

impl Client {
    /// Trusts the public authorities, and those of a file.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, FetchError> {
        let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(file) = ca {
            let unusable = |source| FetchError::Authority { file: file.to_owned(), source };
            let mut found = 0;
            for certificate in CertificateDer::pem_file_iter(file).map_err(unusable)? {
                roots.add(certificate.map_err(unusable)?)?;
                found += 1;
            }
            if found == 0 {
                return Err(unusable(pem::Error::NoItemsFound));
            }
        }
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    pub(super) async fn get(&self, url: &Url) -> Result<Answer, FetchError> {
        tokio::time::timeout(TIMEOUT, self.fetch(url)).await.unwrap_or(Err(FetchError::Timeout))
    }

    async fn fetch(&self, url: &Url) -> Result<Answer, FetchError> {
        // Before its host is looked up: it may be where a redirect leads.
        is_http(url)?;
        let nowhere = || FetchError::Host(url.clone());
        let host = url.host_str().ok_or_else(nowhere)?;
        let port = url.port_or_known_default().ok_or_else(nowhere)?;
        // Addresses of IPv6 are in brackets.
        let host = host.trim_matches(['[', ']']);
        let failed = |source| FetchError::Connection { host: host.to_owned(), port, source };
        let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        if url.scheme() == "http" {
            return Self::ask(TokioIo::new(stream), url, false).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| nowhere())?;
        let stream = self.tls.connect(name, stream).await.map_err(failed)?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Self::ask(TokioIo::new(stream), url, http2).await
    }

    async fn ask<S>(stream: TokioIo<S>, url: &Url, http2: bool) -> Result<Answer, FetchError>
    where
        TokioIo<S>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (host, port) = (url.host_str().unwrap_or_default(), url.port());
        let authority = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let target =
            url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let request = match http2 {
            true => Request::get(format!("https://{authority}{target}")),
            false => Request::get(target).header(header::HOST, authority),
        };
        let request = request
            .header(header::ORIGIN, "https://lint.invalid")
            .header(header::USER_AGENT, "hls-gateway lint")
            .body(Empty::<Bytes>::new())?;
        let (response, running) = if http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
            let running = tokio::spawn(connection);
            (sender.send_request(request).await?, running)
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
            let running = tokio::spawn(connection);
            (sender.send_request(request).await?, running)
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| FetchError::Body)?.to_bytes();
        running.abort();
        Ok(Answer { status: head.status, version: head.version, headers: head.headers, body })
    }
}

/// What is wrong with the status and the headers of an answer.
pub(super) fn headers(url: &str, status: StatusCode, headers: &HeaderMap, is_playlist: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if status.is_redirection() {
        faults.push(Fault::new(&rule::REDIRECT, format!("{url}: {status}")));
        return faults;
    }
    if !status.is_success() {
        faults.push(Fault::new(&rule::STATUS, format!("{url}: {status}")));
        return faults;
    }
    let kind = text(&header::CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    let is_hls =
        ["application/vnd.apple.mpegurl", "audio/mpegurl", "application/x-mpegurl", "audio/x-mpegurl"]
            .iter()
            .any(|known| kind.starts_with(known));
    if is_playlist && !is_hls {
        faults.push(Fault::new(&rule::CONTENT_TYPE, format!("{url}: {kind:?}")));
    }
    if text(&header::CACHE_CONTROL).is_none() {
        faults.push(Fault::new(&rule::NO_CACHE_CONTROL, url));
    }
    if text(&header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none() {
        faults.push(Fault::new(&rule::NO_CORS, url));
    }
    if !is_playlist && text(&header::CONTENT_LENGTH).is_none() {
        faults.push(Fault::new(&rule::NO_LENGTH, url));
    }
    faults
}
