//! What pages ask for: what is there to see, and where they say how it goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use av_flow::config::Auth;
use av_flow::net::auth;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{self, Key};
use super::body::Body;
use super::connection::Visit;
use super::reply::{self, Content};
use super::target;
use crate::channel::Channel;
use crate::hls::Hls;
use crate::pages::{self, Page};

/// The most that a report holds, and how long it may take.
const MOST_REPORT: usize = 1024;
const REPORT: Duration = Duration::from_secs(5);
/// What is believed of a page: seconds, stalls.
const MOST_LATENCY: f64 = 300.0;
const MOST_STALLS: u64 = 20;
const STREAMS: &str = "/-/streams.json";
const REPORTS: &str = "/-/report";

/// Whether the module itself has something there.
pub(super) fn is_own(path: &str) -> bool {
    matches!(path, STREAMS | REPORTS) || pages::find(path).is_some()
}

/// What belongs to no stream.
pub(super) async fn answer(visit: &Visit, path: &str, request: Request<Incoming>) -> Response<Body> {
    match (path, request.method()) {
        (STREAMS, &Method::GET | &Method::HEAD) => streams(visit, &request).await,
        (REPORTS, &Method::POST) => report(visit, request).await,
        (STREAMS, _) => reply::only("GET, HEAD"),
        (REPORTS, _) => reply::only("POST"),
        _ => pages::find(path).map_or_else(reply::nothing, |found| page(found, &request)),
    }
}

/// A page of the module itself.
fn page(page: Page, request: &Request<Incoming>) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return reply::only("GET, HEAD");
    }
    let Page { content_type, body, etag } = page;
    let content = Content {
        kind: content_type,
        cache: "no-cache",
        tag: etag.trim_matches('"').to_owned(),
        source: body.into(),
        gzip: None,
        varies: false,
        ranges: false,
    };
    let mut response = content.answer(request.method(), request.headers(), None);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Streams of this address without `auth`; with `path` and `key`, the one that the key opens.
async fn streams(visit: &Visit, request: &Request<Incoming>) -> Response<Body> {
    let query = request.uri().query();
    let channels = here(visit);
    let asked = target::parameter(query, "path");
    let channels = match &asked {
        Some(path) => {
            let path = path.trim_matches('/');
            let found = channels.into_iter().find(|channel| channel.config.url.path == path);
            let Some(channel) = found else { return reply::nothing() };
            let key = target::parameter(query, "key").map_or(Key::None, Key::Query);
            let secrets = visit.module.net.secrets();
            if let Err(shut) = access::enter(&channel, visit.peer, secrets, key, request.headers()).await {
                return shut.answer;
            }
            vec![channel]
        }
        None => {
            let open = |channel: &Arc<Channel>| {
                channel.config.auth.is_none() && auth::allowed(&channel.config.allow, visit.peer)
            };
            channels.into_iter().filter(open).collect()
        }
    };
    let streams = channels.iter().map(|channel| described(channel)).collect::<Vec<_>>();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = u64::try_from(now.as_millis()).unwrap_or(0);
    let text = json!({ "now": now, "streams": streams }).to_string();
    let len = text.len();
    let mut response = reply::words(StatusCode::OK, "");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    let body = if request.method() == Method::HEAD { Body::empty() } else { Body::one(Bytes::from(text)) };
    *response.body_mut() = body;
    response
}

/// What is served at this address, by path.
fn here(visit: &Visit) -> Vec<Arc<Channel>> {
    let mut channels = visit.port.play.all(|place| matches!(place, av_flow::net::Place::Prefix(_)));
    channels.sort_by(|a, b| a.config.url.path.cmp(&b.config.url.path));
    channels
}

fn described(channel: &Channel) -> Value {
    let config = &channel.config;
    let version = channel.version();
    let state = match &version {
        Some(version) if version.ended || !version.playable => "waiting",
        Some(version) if version.silent || !channel.stream.has_publisher() => "gap",
        Some(_) => "live",
        None => "waiting",
    };
    let tracks = channel.stream.tracks().map(|tracks| tracks.filtered(channel.content)).unwrap_or_default();
    let video = tracks.video.as_ref().map(|track| {
        let interval = channel.stream.frame_interval(av_media::Kind::Video);
        let fps = interval.map(|interval| 1.0 / interval.as_secs_f64()).filter(|fps| fps.is_finite());
        json!({
            "codec": track.codec_string, "width": track.video.width, "height": track.video.height,
            "fps": fps.map(|fps| (fps * 100.0).round() / 100.0),
        })
    });
    let audio = tracks.audio.as_ref().map(|track| {
        let format = track.audio;
        json!({ "codec": track.codec_string, "sampleRate": format.sample_rate, "channels": format.channels })
    });
    let needs = match &config.auth {
        None => Value::Null,
        Some(Auth::Key(_)) => "key".into(),
        Some(Auth::User { .. }) => "basic".into(),
    };
    let links = config.links.iter().map(|link| json!({ "label": link.label, "url": link.url }));
    json!({
        "path": format!("/{}", config.url.path),
        "flow": &*channel.flow,
        "output": &*channel.output,
        "state": state,
        "needs": needs,
        "variant": config.shape.variant.as_str(),
        "video": video,
        "audio": audio,
        "bitrate": channel.stream.input().bitrate.load(Ordering::Relaxed),
        "clients": channel.status.clients.load(Ordering::Relaxed),
        "links": links.collect::<Vec<_>>(),
    })
}

/// What a page says. Anybody can send that: it is bounded, and believed to be no more than what somebody says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    path: String,
    /// The median of ten seconds.
    latency_seconds: Option<f64>,
    /// Since the last report.
    #[serde(default)]
    stalls: u64,
}

async fn report(visit: &Visit, request: Request<Incoming>) -> Response<Body> {
    let body = Limited::new(request.into_body(), MOST_REPORT).collect();
    let body = match tokio::time::timeout(REPORT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return reply::words(StatusCode::PAYLOAD_TOO_LARGE, "a report has at most 1024 bytes"),
        Err(_) => return reply::words(StatusCode::REQUEST_TIMEOUT, "the report did not arrive in time"),
    };
    let Ok(Report { path, latency_seconds, stalls }) = serde_json::from_slice(&body) else {
        let expected = "expected {\"path\", \"latencySeconds\", \"stalls\"}";
        return reply::words(StatusCode::BAD_REQUEST, expected);
    };
    let path = path.trim_matches('/');
    let Some(channel) = here(visit).into_iter().find(|channel| channel.config.url.path == path) else {
        return reply::nothing();
    };
    // Only those who watch have anything to say, and not more often than pages do.
    if !auth::allowed(&channel.config.allow, visit.peer) {
        return reply::words(StatusCode::FORBIDDEN, "this address is not allowed");
    }
    if !channel.viewers.has_any() {
        return reply::words(
            StatusCode::CONFLICT,
            "nobody watches this stream now: no playlist of it was asked for in the last seconds",
        );
    }
    if !visit.port.state.crowd.may_report(visit.peer, Instant::now()) {
        return reply::words(
            StatusCode::TOO_MANY_REQUESTS,
            "too many reports; one per player every ten seconds is enough",
        );
    }
    if let Some(hls) = visit.module.extension::<Hls>() {
        let latency = latency_seconds.filter(|latency| (0.0..=MOST_LATENCY).contains(latency));
        hls.reported(&channel, latency, stalls.min(MOST_STALLS));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
