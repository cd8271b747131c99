//! The connection to a blob service: HTTP/1.1 over TCP or TLS, with a time-out on progress alone.
//!
//! The SDK's own client counts a read time-out while a body is still being sent, so that a block on a thin line never
//! arrives. Here a request may take as long as bytes go out or come in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, HeaderValue, Headers};
use azure_core::http::{AsyncRawResponse, Body as AzureBody, HttpClient, Request};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::TlsConnector;
use url::Url;

use super::proxy::Proxy;
use super::refused::NotTheService;

/// Connecting, TLS included.
const CONNECT: Duration = Duration::from_secs(20);
/// Without a byte in either direction.
const SILENCE: Duration = Duration::from_secs(60);
/// A body is sent in such pieces.
const PIECE: usize = 16 * 1024;
/// The least piece on a thin line.
const LEAST_PIECE: usize = 512;
/// Of the kernel, for what goes out: bytes that lie in there look as if they had been sent.
const SEND_BUFFER: u32 = 256 * 1024;
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
    idle: Mutex<Option<(String, SendRequest<Paced>)>>,
}

/// How fast bodies may go out; 0: as fast as they can.
#[derive(Debug, Default)]
pub struct Pace {
    bytes_per_second: AtomicU64,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// From now on.
    pub fn set(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// The most that goes at once: what takes about a second, so that waiting never looks like silence.
    fn piece(&self) -> usize {
        match self.bytes_per_second.load(Ordering::Relaxed) {
            0 => PIECE,
            rate => usize::try_from(rate).unwrap_or(PIECE).clamp(LEAST_PIECE, PIECE),
        }
    }

    /// When so many bytes may go.
    fn reserve(&self, bytes: usize) -> Option<Instant> {
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        if rate == 0 {
            return None;
        }
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = next.map_or(now, |next| next.max(now));
        let takes = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000_000_000) / rate;
        *next = Some(at + Duration::from_nanos(takes));
        Some(at)
    }
}

/// When something last went out or came in.
#[derive(Debug)]
struct Progress(Mutex<Instant>);

impl Progress {
    fn made(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Ends when nothing has happened for too long.
    async fn silence(&self) {
        loop {
            let due = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + SILENCE;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// A body that goes out in pieces, not faster than it may.
#[derive(Debug)]
pub struct Paced {
    rest: Bytes,
    pace: Arc<Pace>,
    progress: Arc<Progress>,
    waiting: Option<Pin<Box<Sleep>>>,
    /// Bytes of the piece that is waited for; 0: none is.
    reserved: usize,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.progress.made();
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        if self.reserved == 0 {
            self.reserved = self.rest.len().min(self.pace.piece());
            self.waiting = self.pace.reserve(self.reserved).map(|at| Box::pin(sleep_until(at)));
        }
        if let Some(waiting) = &mut self.waiting
            && waiting.as_mut().poll(context).is_pending()
        {
            return Poll::Pending;
        }
        self.waiting = None;
        let piece = std::mem::take(&mut self.reserved);
        let piece = self.rest.split_to(piece);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
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
            idle: Mutex::default(),
        })
    }

    /// A client for the endpoint that gives tokens, which has no bound of bytes per second.
    pub fn for_tokens(&self) -> Self {
        Self {
            hosts: self.hosts.clone(),
            tls: self.tls.clone(),
            proxy: self.proxy.clone(),
            pace: Arc::default(),
            is_for_store: false,
            idle: Mutex::default(),
        }
    }

    async fn connect(&self, url: &Url) -> azure_core::Result<SendRequest<Paced>> {
        match tokio::time::timeout(CONNECT, self.dial(url)).await {
            Ok(dialled) => dialled,
            Err(_) => Err(connection("no connection within 20 s")),
        }
    }

    async fn dial(&self, url: &Url) -> azure_core::Result<SendRequest<Paced>> {
        let host = url.host_str().ok_or_else(|| connection("the URL has no host"))?;
        let port = url.port_or_known_default().unwrap_or(443);
        let is_tls = url.scheme() == "https";
        let proxy = self.proxy.of_host(host, is_tls);
        let stream = match proxy {
            Some(proxy) => {
                let mut stream = self.tcp(&proxy.host, proxy.port).await?;
                super::proxy::tunnel(&mut stream, proxy, host, port).await.map_err(connection)?;
                stream
            }
            None => self.tcp(host, port).await?,
        };
        if is_tls {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(bare.to_owned()).map_err(connection)?;
            let stream =
                TlsConnector::from(self.tls.clone()).connect(name, stream).await.map_err(connection)?;
            handshake(TokioIo::new(stream)).await
        } else {
            handshake(TokioIo::new(stream)).await
        }
    }

    async fn tcp(&self, host: &str, port: u16) -> azure_core::Result<TcpStream> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = match self.hosts.get(bare) {
            Some(ip) => tcp_of([(*ip, port).into()]).await,
            None => match tokio::net::lookup_host((bare, port)).await {
                Ok(addresses) => tcp_of(addresses).await,
                Err(error) => Err(error),
            },
        };
        stream.map_err(|error| connection(format!("{host}:{port}: {error}")))
    }

    fn take_idle(&self, origin: &str) -> Option<SendRequest<Paced>> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        idle.filter(|(of, sender)| of == origin && !sender.is_closed()).map(|(_, sender)| sender)
    }
}

/// To the first address that answers.
async fn tcp_of(addresses: impl IntoIterator<Item = SocketAddr>) -> std::io::Result<TcpStream> {
    let mut failed = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_send_buffer_size(SEND_BUFFER)?;
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
        if let Some(sender) = &mut idle
            && sender.ready().await.is_err()
        {
            idle = None;
        }
        let mut sender = match idle {
            Some(sender) => sender,
            None => self.connect(url).await?,
        };
        let progress = Arc::new(Progress(Mutex::new(Instant::now())));
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
        let (pace, of_body) = (self.pace.clone(), progress.clone());
        let body = Paced { rest: body, pace, progress: of_body, waiting: None, reserved: 0 };
        let sent = builder.body(body).map_err(other)?;
        let answer = tokio::select! {
            answer = sender.send_request(sent) => answer.map_err(io)?,
            () = progress.silence() => return Err(io("nothing went out or came in for 60 s")),
        };
        let (parts, incoming) = answer.into_parts();
        // Portals and proxies answer too: with them nothing is stored, and nothing is not there.
        if self.is_for_store && !parts.headers.contains_key("x-ms-request-id") {
            return Err(azure_core::Error::new(ErrorKind::Other, NotTheService(parts.status.as_u16())));
        }
        let body = tokio::select! {
            body = collect(incoming, &progress) => body?,
            () = progress.silence() => return Err(io("nothing came in for 60 s")),
        };
        if !sender.is_closed() {
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some((origin, sender));
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

async fn collect(mut incoming: Incoming, progress: &Progress) -> azure_core::Result<Bytes> {
    let mut all = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        progress.made();
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
