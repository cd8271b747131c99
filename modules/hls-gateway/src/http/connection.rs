//! One connection, from TLS to its last request.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use av_edge::EventKind;
use av_flow::Module;
use av_flow::config::Auth;
use av_flow::net::listeners::{Accepted, Port};
use av_flow::net::{Found, TlsError};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::http::uri::Authority;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::access::{self, Key};
use super::body::Body;
use super::crowd::Guest;
use super::media::Wanted;
use super::pace::Pace;
use super::patient::Patient;
use super::{Http, listing, reply, target};
use crate::channel::Channel;
use crate::viewers::{Noted, Viewer};

/// From one request to the next, and for its head.
const HEAD: Duration = Duration::from_secs(60);
/// A head of a request, and what is read at once.
const MOST_HEAD: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;
/// Requests at once on one connection of HTTP/2: a wall of 16 cameras has some 50.
const MOST_STREAMS: u32 = 200;
/// What HTTP/2 gathers for one request.
const MOST_GATHERED: usize = 256 * 1024;
/// An address without outputs waits that long for others.
const LINGER: Duration = Duration::from_millis(500);

/// What requests of one connection share.
pub(super) struct Visit {
    pub(super) module: Arc<Module>,
    pub(super) port: Arc<Port<Http>>,
    pub(super) guest: Guest,
    pub(super) noted: Noted,
    pub(super) peer: IpAddr,
}

impl Visit {
    /// Who this is, as far as it shows.
    pub(super) fn viewer(&self, headers: &HeaderMap) -> Viewer {
        let program = headers.get(header::USER_AGENT).map_or(&b""[..], |program| program.as_bytes());
        Viewer::new(self.peer, program)
    }
}

/// Runs a connection to its end.
pub(super) async fn run(accepted: Accepted<Http>) {
    let Accepted { stream, peer, port, module, counted: _counted } = accepted;
    let address = peer.ip().to_canonical();
    let Some(guest) = port.state.crowd.enter(address) else {
        if let Some(suppressed) = module.peer_log.admit() {
            tracing::warn!(%peer, address = %port.address, suppressed, "refused: this address has too many connections");
        }
        return;
    };
    let visit = Arc::new(Visit { module, port, guest, noted: Noted::default(), peer: address });
    match visit.port.tls.clone() {
        None => talk(visit, stream, false).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => {
                let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                talk(visit, stream, agreed).await;
            }
            Err(error) => no_tls(&visit, peer, &error),
        },
    }
}

fn no_tls(visit: &Visit, peer: SocketAddr, error: &TlsError) {
    if let Some(suppressed) = visit.module.peer_log.admit() {
        tracing::warn!(%peer, address = %visit.port.address, suppressed, "connection ended: {error}");
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(
        "the player did not read an answer in time (30 s, plus 1 s for each 16 KiB); check the network, or \
         what keeps the player from reading"
    )]
    TooSlow,
}

async fn talk<S>(visit: Arc<Visit>, stream: S, http2: bool)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (pace, over) = (Pace::default(), unused(visit.port.clone()));
    let (known, shared) = (visit.clone(), pace.clone());
    let answers = service_fn(move |request| {
        let (visit, pace) = (known.clone(), shared.clone());
        async move { Ok::<_, Infallible>(answer(&visit, request).await.map(|body| body.at(&pace))) }
    });
    // Nothing is shared between connections: whatever ends one concerns its peer alone.
    let peer = visit.peer;
    match exchange(stream, http2, answers, &pace, over).await {
        Ok(()) => {}
        Err(error @ Ended::Http(_)) => tracing::debug!(%peer, "connection ended: {error}"),
        Err(error @ Ended::TooSlow) => {
            if let Some(suppressed) = visit.module.peer_log.admit() {
                tracing::warn!(%peer, address = %visit.port.address, suppressed, "connection ended: {error}");
            }
        }
    }
}

/// Answers requests until the peer leaves or is too slow. Once it is `over`, those that have begun are answered, and no more.
pub(super) async fn exchange<S, A>(
    stream: S,
    http2: bool,
    answers: A,
    pace: &Pace,
    over: impl Future<Output = ()>,
) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    A::Future: Send + 'static,
{
    tokio::select! {
        ended = serve(stream, http2, answers, over) => Ok(ended?),
        () = pace.too_slow() => Err(Ended::TooSlow),
    }
}

async fn serve<S, A>(
    stream: S,
    http2: bool,
    answers: A,
    over: impl Future<Output = ()>,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    A::Future: Send + 'static,
{
    let io = TokioIo::new(Patient::new(stream, http2));
    if http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MOST_STREAMS)
            .max_header_list_size(MOST_HEAD as u32)
            .max_send_buf_size(MOST_GATHERED)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        let mut connection = std::pin::pin!(builder.serve_connection(io, answers));
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = over => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(MOST_HEAD)
            .max_headers(MOST_HEADERS);
        let mut connection = std::pin::pin!(builder.serve_connection(io, answers));
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = over => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    }
}

/// Waits until nothing is served at an address any more.
async fn unused(port: Arc<Port<Http>>) {
    let mut outputs = port.state.outputs.subscribe();
    loop {
        if outputs.wait_for(|outputs| *outputs == 0).await.is_err() {
            return;
        }
        // An endpoint that is started anew is back at once.
        let again = outputs.wait_for(|outputs| *outputs > 0);
        if !matches!(tokio::time::timeout(LINGER, again).await, Ok(Ok(_))) {
            return;
        }
    }
}

async fn answer(visit: &Visit, request: Request<Incoming>) -> Response<Body> {
    let is_head = request.method() == Method::HEAD;
    let response = answer_with_content(visit, request).await;
    // HTTP/1.1 leaves it out by itself; over HTTP/2 it would break the protocol.
    if is_head { reply::without_content(response) } else { response }
}

async fn answer_with_content(visit: &Visit, request: Request<Incoming>) -> Response<Body> {
    if !names_host(request.version(), request.headers()) {
        return reply::words(StatusCode::BAD_REQUEST, "a request has one Host field with a host in it");
    }
    if request.uri().path() == "*" && request.method() == Method::OPTIONS {
        return reply::options_of_all();
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let raw = request.uri().path().to_owned();
    let Some((channel, file, key)) = find(visit, &raw, request.uri().query()).await else {
        return listing::answer(visit, &raw, request).await;
    };
    let mut response = match *request.method() {
        Method::OPTIONS => reply::options(request.headers()),
        Method::GET | Method::HEAD => media(visit, &channel, file.as_deref(), key, &request).await,
        _ => reply::only("GET, HEAD, OPTIONS"),
    };
    reply::share(&mut response, &channel.config.cors, origin.as_ref());
    response
}

/// Whether a request says for whom it is, and says it once (RFC 9112 §3.2): caches and proxies in front may look at another
/// Host field than the one that counts. Over HTTP/2 the host stands in the request itself.
fn names_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).into_iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version != Version::HTTP_11,
        // An address without a host has an empty one.
        (Some(host), None) => host.is_empty() || is_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

/// Host and perhaps port, without a user.
fn is_host(text: &[u8]) -> bool {
    Authority::try_from(text).is_ok_and(|host| !host.as_str().contains('@'))
}

async fn media(
    visit: &Visit,
    channel: &Arc<Channel>,
    file: Option<&str>,
    key: Key,
    request: &Request<Incoming>,
) -> Response<Body> {
    let (secrets, headers) = (visit.module.net.secrets(), request.headers());
    match access::enter(channel, visit.peer, secrets, key, headers).await {
        Ok(key) => {
            let query = request.uri().query();
            let mut answer =
                Wanted { visit, channel, method: request.method(), headers, query, key }.answer(file).await;
            if matches!(channel.config.auth, Some(Auth::User { .. })) {
                private(&mut answer);
            }
            answer
        }
        Err(shut) => {
            let (flow, peer, why) = (&*channel.flow, visit.peer, shut.why);
            if let Some(suppressed) = visit.module.player_log.admit() {
                tracing::warn!(%peer, flow, suppressed, "player refused: {}: {why}", channel.place);
            }
            let detail = format!("player {peer}: {}: {why}", channel.place);
            visit.module.emit(EventKind::ClientRejected, flow, Some(&channel.output), detail);
            shut.answer
        }
    }
}

/// Caches that others share do not know who showed a password.
fn private(answer: &mut Response<Body>) {
    let cache = answer.headers().get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok());
    let private = cache.map(|value| value.replace("public", "private"));
    if let Some(Ok(value)) = private.map(|value| header::HeaderValue::from_str(&value)) {
        answer.headers_mut().insert(header::CACHE_CONTROL, value);
    }
}

/// The output that a path leads to, the file below it, and the key that was shown.
async fn find(visit: &Visit, raw: &str, query: Option<&str>) -> Option<(Arc<Channel>, Option<String>, Key)> {
    // What the module itself has comes first: no stream's name may hide its pages.
    if listing::is_own(raw) {
        return None;
    }
    let (path, keyed) = (target::path(raw), target::keyed(raw));
    if path.is_none() && keyed.is_none() {
        return None;
    }
    let look = || {
        if let Some((channel, file)) = path.as_deref().and_then(|path| route(visit, path)) {
            let key = target::parameter(query, "key").map_or(Key::None, Key::Query);
            return Some((channel, file, key));
        }
        let (key, path) = keyed.as_ref()?;
        let (channel, file) = route(visit, path)?;
        // Where no key is asked for, none stands in an address: one thing has one.
        matches!(channel.config.auth, Some(Auth::Key(_))).then(|| (channel, file, Key::Path(key.clone())))
    };
    if let Some(found) = look() {
        return Some(found);
    }
    // What is not there may come, as long as the listener is young.
    visit.port.settled().await;
    look()
}

fn route(visit: &Visit, path: &str) -> Option<(Arc<Channel>, Option<String>)> {
    let Found { route, rest } = visit.port.play.find(path)?;
    match rest {
        // The path itself is nothing that can be fetched.
        Some(rest) if rest.is_empty() => None,
        rest => Some((route, rest)),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn a_request_names_its_host_once_where_its_version_has_that() {
        let names = |version, hosts: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, HeaderValue::from_static(host));
            }
            names_host(version, &headers)
        };
        for host in ["a.example", "a.example:8080", "[::1]:80", "my_cam", "192.0.2.1", ""] {
            assert!(names(Version::HTTP_11, &[host]), "{host}");
        }
        for wrong in ["a b", "a/b", "u@a.example", "a:b:c"] {
            assert!(!names(Version::HTTP_11, &[wrong]), "{wrong}");
        }
        assert!(!names(Version::HTTP_11, &[]));
        assert!(names(Version::HTTP_10, &[]) && names(Version::HTTP_2, &[]));
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert!(!names(version, &["a", "a"]), "{version:?}");
        }
    }
}
