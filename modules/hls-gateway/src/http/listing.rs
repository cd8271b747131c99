//! What pages ask for: what is there to see, and where they say how it goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

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
const MOST_REPORT: usize = 16 * 1024;
const REPORT: Duration = Duration::from_secs(5);
/// What is believed of a page: streams, latencies of each, seconds, stalls.
const MOST_PLAYS: usize = 16;
const MOST_LATENCIES: usize = 10;
const MOST_LATENCY: f64 = 300.0;
const MOST_STALLS: u64 = 20;
const STREAMS: &str = "/streams.json";
const REPORTS: &str = "/player/report";

/// Whether the module itself has something there.
pub(super) fn is_own(path: &str) -> bool {
    matches!(path, STREAMS | REPORTS) || pages::get(path).is_some()
}

/// What belongs to no stream.
pub(super) async fn answer(visit: &Visit, path: &str, request: Request<Incoming>) -> Response<Body> {
    match (path, request.method()) {
        (STREAMS, &Method::GET | &Method::HEAD) => streams(visit, &request).await,
        (REPORTS, &Method::POST) => report(visit, request).await,
        (STREAMS | REPORTS, _) => reply::words(StatusCode::METHOD_NOT_ALLOWED, "not this method"),
        _ => pages::get(path).map_or_else(reply::nothing, |found| page(found, &request)),
    }
}

/// A page of the module itself.
fn page(page: Page, request: &Request<Incoming>) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return reply::words(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are answered");
    }
    let Page { content_type, body, etag } = page;
    let content = Content {
        kind: content_type,
        cache: "no-cache",
        tag: etag.trim_matches('"').to_owned(),
        pieces: body.into(),
        gzip: None,
        varies: false,
        ranges: false,
    };
    let mut response = content.answer(request.method(), request.headers(), None);
    let policy = HeaderValue::from_static(pages::SECURITY_POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Streams of this address: those without `auth`, and those that the key of the request opens.
async fn streams(visit: &Visit, request: &Request<Incoming>) -> Response<Body> {
    let key = target::parameter(request.uri().query(), "key").map_or(Key::None, Key::Query);
    let mut streams = Vec::new();
    for channel in here(visit) {
        let entered =
            access::enter(&channel, visit.peer, visit.module.net.secrets(), key.clone(), request.headers());
        if entered.await.is_ok() {
            streams.push(described(&channel));
        }
    }
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
        Some(version) if version.silent || !channel.stream.has_publisher() => "silent",
        Some(_) => "live",
        None => "waiting",
    };
    let name = config.url.path.rsplit_once('/').map_or(config.url.path.as_str(), |(_, name)| name);
    let tracks = channel.stream.tracks().map(|tracks| tracks.filtered(channel.content)).unwrap_or_default();
    let video = tracks.video.as_ref().map(|track| {
        let fps = track.video.fps.or_else(|| {
            Some(1.0 / channel.stream.frame_interval(av_media::Kind::Video)?.as_secs_f64()).filter(|fps| fps.is_finite())
        });
        json!({
            "codec": track.codec_string, "width": track.video.width, "height": track.video.height,
            "fps": fps.map(|fps| (fps * 100.0).round() / 100.0),
        })
    });
    let audio = tracks.audio.as_ref().map(|track| {
        let format = track.audio;
        json!({ "codec": track.codec_string, "sampleRate": format.sample_rate, "channels": format.channels })
    });
    let path = config.url.path.split('/').map(target::encoded).collect::<Vec<_>>().join("/");
    let links = config.links.iter().map(|link| json!({ "label": link.label, "url": link.url }));
    json!({
        "path": format!("/{path}"),
        "name": name,
        "flow": &*channel.flow,
        "output": &*channel.output,
        "state": state,
        "live": state == "live",
        "auth": config.auth.is_some(),
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
struct Report {
    plays: Vec<Play>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Play {
    path: String,
    key: Option<String>,
    #[serde(default)]
    latency_seconds: Vec<f64>,
    #[serde(default)]
    stalls: u64,
}

async fn report(visit: &Visit, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MOST_REPORT).collect();
    let body = match tokio::time::timeout(REPORT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return reply::words(StatusCode::PAYLOAD_TOO_LARGE, "a report has 16 KiB at most"),
        Err(_) => return reply::words(StatusCode::REQUEST_TIMEOUT, "the report did not come"),
    };
    let report = serde_json::from_slice::<Report>(&body).ok().filter(|report| report.plays.len() <= MOST_PLAYS);
    let Some(report) = report else {
        let expected = "expected {\"plays\": [{\"path\", \"latencySeconds\": [], \"stalls\"}]}, 16 at most";
        return reply::words(StatusCode::BAD_REQUEST, expected);
    };
    // More often than a page does it, nobody is listened to.
    let (Some(hls), true) = (visit.module.extension::<Hls>(), visit.port.state.crowd.may_report(visit.peer)) else {
        return reply::words(StatusCode::TOO_MANY_REQUESTS, "a report every ten seconds is enough");
    };
    for Play { path, key, latency_seconds, stalls } in report.plays {
        let path = path.trim_start_matches('/');
        let Some(channel) = here(visit).into_iter().find(|channel| channel.config.url.path == path) else {
            continue;
        };
        let key = key.map_or(Key::None, Key::Query);
        let secrets = visit.module.net.secrets();
        if access::enter(&channel, visit.peer, secrets, key, &head.headers).await.is_ok() {
            let usable = |latency: &f64| (0.0..=MOST_LATENCY).contains(latency);
            let latencies = latency_seconds.into_iter().take(MOST_LATENCIES).filter(usable);
            hls.reported(&channel, latencies, stalls.min(MOST_STALLS));
        }
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
