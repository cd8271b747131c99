//! The connection to a blob service: HTTP/1.1 over TCP or TLS, with a time-out on progress alone.
//!
//! The SDK's own client counts a read time-out while a body is still being sent, so that a block on a thin line never
//! arrives. Here a request may take as long as bytes leave the socket or come in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use av_flow::net::TlsError;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, HeaderValue, Headers};
use azure_core::http::{AsyncRawResponse, Body as AzureBody, HttpClient, Request};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use url::Url;

use super::pace::{Pace, Paced, Progress, Watched};
use super::proxy::Proxy;
use super::refused::NotTheService;
use crate::belief::Belief;

/// Connecting, TLS included.
const CONNECT: Duration = Duration::from_secs(20);
/// Answers are lists and errors.
const MOST_ANSWER: usize = 8 << 20;

/// A client for one store.
#[derive(Debug)]
pub struct Http {
    hosts: Arc<std::collections::BTreeMap<String, std::net::IpAddr>>,
    tls: Arc<rustls::ClientConfig>,
    proxy: Proxy,
    pace: Arc<Pace>,
    /// Answers without a request id are not the store's.
    is_for_store: bool,
    /// Is told what time it is.
    belief: Option<Arc<Belief>>,
    idle: Mutex<Option<Connection>>,
}

/// One that carries a request after the other.
#[derive(Debug)]
struct Connection {
    origin: String,
    sender: SendRequest<Paced>,
    progress: Arc<Progress>,
    /// What the kernel holds of what goes out, at most.
    buffer: u32,
}

impl Http {
    /// A client that trusts `roots`.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub fn new(
        hosts: Arc<std::collections::BTreeMap<String, std::net::IpAddr>>,
        roots: rustls::RootCertStore,
        pace: Arc<Pace>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            hosts,
            tls: Arc::new(tls),
            proxy: Proxy::of_environment(),
            pace,
            is_for_store: true,
            belief: None,
            idle: Mutex::default(),
        })
    }

    /// The same, which tells what time it is by the store's clock.
    pub fn telling(self, belief: Arc<Belief>) -> Self {
        Self { belief: Some(belief), ..self }
    }

    /// A client for the endpoint that gives tokens, which has no bound of bytes per second.
    pub fn for_tokens(&self) -> Self {
        Self {
            hosts: self.hosts.clone(),
            tls: self.tls.clone(),
            proxy: self.proxy.clone(),
            pace: Arc::default(),
            is_for_store: false,
            belief: None,
            idle: Mutex::default(),
        }
    }

    /// How fast it is.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    async fn connect(&self, url: &Url) -> azure_core::Result<Connection> {
        match tokio::time::timeout(CONNECT, self.dial(url)).await {
            Ok(dialled) => dialled,
            Err(_) => Err(connection("no connection within 20 s")),
        }
    }

    async fn dial(&self, url: &Url) -> azure_core::Result<Connection> {
        let host = url.host_str().ok_or_else(|| connection("the URL has no host"))?;
        let port = url.port_or_known_default().unwrap_or(443);
        let is_tls = url.scheme() == "https";
        let proxy = self.proxy.of_host(host, is_tls);
        let buffer = self.pace.buffer();
        let stream = match proxy {
            Some(proxy) => {
                let mut stream = self.tcp(&proxy.host, proxy.port, buffer).await?;
                super::proxy::tunnel(&mut stream, proxy, host, port).await.map_err(connection)?;
                stream
            }
            None => self.tcp(host, port, buffer).await?,
        };
        let progress = Arc::new(Progress::new(self.pace.clone()));
        let stream = Watched::new(stream, progress.clone());
        let sender = if is_tls {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(bare.to_owned()).map_err(connection)?;
            let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await;
            let stream = stream.map_err(|error| connection(TlsError::of_handshake(error, bare)))?;
            handshake(TokioIo::new(stream)).await?
        } else {
            handshake(TokioIo::new(stream)).await?
        };
        Ok(Connection { origin: url.origin().ascii_serialization(), sender, progress, buffer })
    }

    async fn tcp(&self, host: &str, port: u16, buffer: u32) -> azure_core::Result<TcpStream> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = match self.hosts.get(bare) {
            Some(ip) => tcp_of([(*ip, port).into()], buffer).await,
            None => match tokio::net::lookup_host((bare, port)).await {
                Ok(addresses) => tcp_of(addresses, buffer).await,
                Err(error) => Err(error),
            },
        };
        stream.map_err(|error| connection(format!("{host}:{port}: {error}")))
    }

    /// The one that is left of the request before, unless it was made for a line of another speed.
    fn take_idle(&self, origin: &str) -> Option<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let wanted = self.pace.buffer();
        let fits = |buffer: u32| wanted < buffer.saturating_mul(2) && buffer < wanted.saturating_mul(2);
        idle.filter(|idle| idle.origin == origin && !idle.sender.is_closed() && fits(idle.buffer))
    }
}

/// To the first address that answers.
async fn tcp_of(addresses: impl IntoIterator<Item = SocketAddr>, buffer: u32) -> std::io::Result<TcpStream> {
    let mut failed = std::io::Error::new(std::io::ErrorKind::NotFound, "the name resolves to no address");
    for address in addresses {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_send_buffer_size(buffer)?;
        match socket.connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn handshake<T>(io: TokioIo<T>) -> azure_core::Result<SendRequest<Paced>>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection_) = http1::handshake(io).await.map_err(connection)?;
    tokio::spawn(async move {
        let _ = connection_.await;
    });
    Ok(sender)
}

#[async_trait]
impl HttpClient for Http {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let url = request.url();
        let body = match request.body() {
            AzureBody::Bytes(bytes) => bytes.clone(),
            AzureBody::SeekableStream(_) => return Err(other("bodies are bytes here")),
        };
        let origin = url.origin().ascii_serialization();
        let mut idle = self.take_idle(&origin);
        if let Some(left) = &mut idle
            && left.sender.ready().await.is_err()
        {
            idle = None;
        }
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect(url).await?,
        };
        let progress = connection.progress.clone();
        progress.begins(body.len());
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let mut builder = hyper::Request::builder().method(request.method().as_ref()).uri(path);
        let authority = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        builder = builder.header("host", authority);
        for (name, value) in request.headers().iter() {
            if !matches!(name.as_str(), "host" | "content-length") {
                builder = builder.header(name.as_str(), value.as_str());
            }
        }
        if !body.is_empty() || matches!(request.method(), azure_core::http::Method::Put) {
            builder = builder.header("content-length", body.len());
        }
        let body = Paced::new(body, self.pace.clone());
        let sent = builder.body(body).map_err(other)?;
        let answer = tokio::select! {
            answer = connection.sender.send_request(sent) => answer.map_err(io)?,
            seconds = progress.silence() => {
                return Err(io(format!("nothing went out or came in for {seconds} s")));
            }
        };
        let (parts, incoming) = answer.into_parts();
        // Portals and proxies answer too: with them nothing is stored, and nothing is not there.
        if self.is_for_store && !parts.headers.contains_key("x-ms-request-id") {
            return Err(azure_core::Error::new(ErrorKind::Other, NotTheService(parts.status.as_u16())));
        }
        if let (Some(belief), "https") = (&self.belief, url.scheme())
            && let Some(date) = parts.headers.get("date").and_then(|date| date.to_str().ok())
            && let Ok(date) = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date)
        {
            belief.answered(date.into());
        }
        let body = tokio::select! {
            body = collect(incoming) => body?,
            seconds = progress.silence() => return Err(io(format!("nothing came in for {seconds} s"))),
        };
        if !connection.sender.is_closed() {
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
        let headers: HashMap<HeaderName, HeaderValue> = parts
            .headers
            .iter()
            .filter_map(|(name, value)| {
                let value = value.to_str().ok()?.to_owned();
                Some((HeaderName::from(name.as_str().to_owned()), HeaderValue::from(value)))
            })
            .collect();
        Ok(AsyncRawResponse::from_bytes(parts.status.as_u16().into(), Headers::from(headers), body))
    }
}

async fn collect(mut incoming: Incoming) -> azure_core::Result<Bytes> {
    let mut all = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        if let Ok(data) = frame.map_err(io)?.into_data() {
            if all.len() + data.len() > MOST_ANSWER {
                return Err(io("the answer is too long"));
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(all.freeze())
}

fn connection(why: impl ToString) -> azure_core::Error {
    azure_core::Error::with_message(ErrorKind::Connection, why.to_string())
}

fn io(why: impl ToString) -> azure_core::Error {
    azure_core::Error::with_message(ErrorKind::Io, why.to_string())
}

fn other(why: impl ToString) -> azure_core::Error {
    azure_core::Error::with_message(ErrorKind::Other, why.to_string())
}
