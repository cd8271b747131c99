//! What is asked for below the path of an output.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::HeaderMap;
use hyper::{Method, Response, StatusCode};
use tokio::time::timeout_at;

use super::access::Key;
use super::body::Body;
use super::connection::Visit;
use super::reply::{self, Content, Source};
use super::target;
use crate::channel::Channel;
use crate::live::{Asked, Form, Found as InShelf, Pieces, Text, Version};
use crate::options::Variant;

/// A player of a live stream asks for its playlist that often at least.
const AGAIN: Duration = Duration::from_secs(6);
const PLAYLIST: &str = "application/vnd.apple.mpegurl";

/// A request for a stream.
pub(super) struct Wanted<'a> {
    pub visit: &'a Visit,
    pub channel: &'a Arc<Channel>,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    pub query: Option<&'a str>,
    pub key: Key,
}

impl Wanted<'_> {
    /// `file`: below the path; `None`: the path with `.m3u8` behind it.
    pub(super) async fn answer(&self, file: Option<&str>) -> Response<Body> {
        let Some(file) = file else {
            let path = &self.channel.config.url.path;
            let last = path.rsplit_once('/').map_or(path.as_str(), |(_, last)| last);
            return self.multivariant(&format!("{}/", target::encoded(last))).await;
        };
        if file == "index.m3u8" {
            return self.multivariant("").await;
        }
        if let Some(name) = file.strip_suffix(".m3u8") {
            return self.media_playlist(name).await;
        }
        if file.starts_with("init-") {
            let map = self.channel.shelf().map(file);
            return map.map_or_else(reply::nothing, |map| self.media(file, map.bytes.clone()));
        }
        let ending = self.channel.config.shape.variant.ending();
        let name = file.strip_suffix(ending).and_then(|name| name.strip_suffix('.'));
        let Some(name) = name else { return reply::nothing() };
        if let Some(part) = name.strip_prefix('p') {
            let numbers = part
                .split_once('.')
                .and_then(|(run, part)| Some((target::number(run)?, target::number(part)?)));
            return match numbers {
                Some((run, part)) => self.part(file, run, part).await,
                None => reply::nothing(),
            };
        }
        let Some(number) = target::number(name) else { return reply::nothing() };
        let source = match self.channel.segment(number) {
            Some(InShelf::Memory(pieces)) if pieces.len() == 0 => return self.gap(),
            Some(InShelf::Memory(pieces)) => Some(pieces.into()),
            Some(InShelf::Attic(0)) => return self.gap(),
            Some(InShelf::Attic(len)) => self.stored(number, len as u64).await,
            None => None,
        };
        source.map_or_else(reply::nothing, |source| self.media(file, source))
    }

    /// An old segment, on disk.
    async fn stored(&self, number: u64, len: u64) -> Option<Source> {
        let path = self.channel.shown.folder.get()?.path(number);
        let opened = tokio::task::spawn_blocking(move || {
            let file = File::open(path)?;
            std::io::Result::Ok((file.metadata()?.len(), file))
        });
        let (found, file) = opened.await.ok()?.ok()?;
        (found == len).then(|| Source::File(Arc::new(file), len))
    }

    /// Players that know no gaps ask for them all the same. Nobody keeps it: after a crash a segment may be a gap that was
    /// none, where it was listed and not written yet.
    fn gap(&self) -> Response<Body> {
        let empty = self.media("gap", Pieces::default());
        reply::kept_by_none(empty)
    }

    /// Media never changes under its URL.
    fn media(&self, name: &str, source: impl Into<Source>) -> Response<Body> {
        self.demand();
        let kind = match self.channel.config.shape.variant {
            Variant::Mpegts => "video/mp2t",
            Variant::LowLatency | Variant::Fmp4 => "video/mp4",
        };
        let tag = name.to_owned();
        let content = Content {
            kind,
            cache: reply::FOR_EVER,
            tag,
            source: source.into(),
            gzip: None,
            varies: false,
            ranges: true,
        };
        content.answer(self.method, self.headers, Some(&self.channel.status))
    }

    async fn playlist(&self, text: Arc<Text>, cache: &'static str) -> Response<Body> {
        let gzip = if !reply::takes_gzip(self.headers) {
            None
        } else if text.is_long() {
            let text = text.clone();
            tokio::task::spawn_blocking(move || text.gzip()).await.ok().flatten()
        } else {
            text.gzip()
        };
        let content = Content {
            kind: PLAYLIST,
            cache,
            tag: text.tag.clone(),
            source: text.body.clone().into(),
            gzip,
            varies: true,
            ranges: false,
        };
        content.answer(self.method, self.headers, Some(&self.channel.status))
    }

    /// Notes who watches.
    fn admit(&self) -> Option<Response<Body>> {
        let viewer = self.visit.viewer(self.headers);
        if self.visit.noted.watches(&self.channel.viewers, viewer, Instant::now()) {
            self.demand();
            return None;
        }
        let most = self.channel.config.max_clients;
        Some(reply::words(StatusCode::SERVICE_UNAVAILABLE, format!("maxClients ({most}) is reached")))
    }

    /// The stream is wanted: a player asks again within three target durations at most.
    fn demand(&self) {
        let known = self.channel.version().map(|version| Duration::from_secs(version.target.into()));
        let target = known.unwrap_or(self.channel.config.shape.segment);
        self.channel.stream.demand().ask(target.saturating_mul(3).max(AGAIN));
    }

    async fn multivariant(&self, directory: &str) -> Response<Body> {
        if let Some(full) = self.admit() {
            return full;
        }
        let ready = |version: Option<&Arc<Version>>| match version {
            Some(version) if self.channel.shown.is_retired(version) => {
                if self.channel.stream.has_publisher() { Found::Later } else { Found::Not }
            }
            Some(version) if version.playable && !version.ended && !version.silent => {
                Found::Yes(version.clone())
            }
            // Whoever asks has woken it.
            _ if self.channel.stream.demand().wakes() => Found::Later,
            Some(version) if version.ended || version.playable => Found::Not,
            // It is on its way.
            _ if self.channel.stream.has_publisher() => Found::Later,
            _ => Found::Not,
        };
        match self.when(ready).await {
            Ok(version) => {
                let suffix = self.key.suffix();
                self.playlist(version.multivariant(directory, &suffix), reply::A_MOMENT).await
            }
            Err(Missed::Not | Missed::Late(_)) => reply::words(
                StatusCode::SERVICE_UNAVAILABLE,
                "not live: nobody publishes this stream, or its first segment is not finished yet",
            ),
            Err(Missed::Crowded) => crowded(),
        }
    }

    async fn media_playlist(&self, name: &str) -> Response<Body> {
        let Ok(asked) = target::asked(self.query) else {
            return reply::words(
                StatusCode::BAD_REQUEST,
                "_HLS_msn and _HLS_part are whole numbers of digits alone, _HLS_part needs _HLS_msn, and each \
                 parameter is given once",
            );
        };
        let mut refused = false;
        let mut ready = |version: Option<&Arc<Version>>| match version {
            Some(version) if version.name == name => match version.answers(&asked) {
                Ok(true) => Found::Yes(version.clone()),
                Ok(false) => Found::Later,
                Err(_) => {
                    refused = true;
                    Found::Not
                }
            },
            None if self.channel.expected.as_deref() == Some(name) => Found::Later,
            _ => Found::Not,
        };
        // Who asks for what will never be there is no viewer, takes no place of one, and wakes no camera.
        let found = match ready(self.channel.version().as_ref()) {
            Found::Not => Err(Missed::Not),
            Found::Yes(_) | Found::Later => {
                if let Some(full) = self.admit() {
                    return full;
                }
                self.when(&mut ready).await
            }
        };
        if refused {
            let why = "_HLS_msn is more than two segments ahead of the playlist";
            return reply::words(StatusCode::BAD_REQUEST, why);
        }
        match found {
            Ok(version) => self.version(&version, &asked).await,
            // Better an older one than none: it is a live stream that has paused.
            Err(Missed::Late(Some(version))) if version.name == name && version.playable => {
                self.version(&version, &Asked { after: None, ..asked }).await
            }
            Err(Missed::Late(_)) => reply::words(
                StatusCode::SERVICE_UNAVAILABLE,
                "the stream's first segment is not finished yet",
            ),
            Err(Missed::Not) => reply::nothing(),
            Err(Missed::Crowded) => crowded(),
        }
    }

    async fn version(&self, version: &Version, asked: &Asked) -> Response<Body> {
        let form = if asked.skip { Form::Delta } else { Form::Full };
        // What was waited for is the same for all who ask so.
        let cache = if asked.after.is_some() { "public, max-age=3" } else { reply::A_MOMENT };
        self.playlist(version.text(form, &self.key.suffix()), cache).await
    }

    async fn part(&self, file: &str, run: u64, part: u64) -> Response<Body> {
        let ready = |version: Option<&Arc<Version>>| match version {
            Some(version) if version.run != run || part < version.next_part => {
                self.channel.shelf().part(run, part).map_or(Found::Not, Found::Yes)
            }
            // Hinted at: it is the next, whatever it will be.
            Some(version) if part == version.next_part && !version.ended => Found::Later,
            _ => Found::Not,
        };
        match self.when(ready).await {
            Ok(pieces) if pieces.len() == 0 => self.gap(),
            Ok(pieces) => self.media(file, pieces),
            Err(Missed::Crowded) => crowded(),
            Err(Missed::Late(_)) => {
                reply::words(StatusCode::SERVICE_UNAVAILABLE, "this part is not available yet")
            }
            Err(Missed::Not) => reply::nothing(),
        }
    }

    /// Waits for what `ready` looks for.
    async fn when<T>(&self, mut ready: impl FnMut(Option<&Arc<Version>>) -> Found<T>) -> Result<T, Missed> {
        let mut versions = self.channel.versions();
        let mut look = |versions: &mut tokio::sync::watch::Receiver<Option<Arc<Version>>>| {
            let version = versions.borrow_and_update();
            ready(version.as_ref())
        };
        match look(&mut versions) {
            Found::Yes(found) => return Ok(found),
            Found::Not => return Err(Missed::Not),
            Found::Later => {}
        }
        let Some(_waiting) = self.visit.guest.wait() else { return Err(Missed::Crowded) };
        let until = tokio::time::Instant::now() + self.channel.patience();
        loop {
            match timeout_at(until, versions.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Missed::Not),
                Err(_) => return Err(Missed::Late(self.channel.version())),
            }
            match look(&mut versions) {
                Found::Yes(found) => return Ok(found),
                Found::Not => return Err(Missed::Not),
                Found::Later => {}
            }
        }
    }
}

enum Found<T> {
    Yes(T),
    Later,
    Not,
}

enum Missed {
    Not,
    /// It did not come in time; this is what there is.
    Late(Option<Arc<Version>>),
    Crowded,
}

fn crowded() -> Response<Body> {
    reply::words(StatusCode::SERVICE_UNAVAILABLE, "too many requests from this address are waiting")
}
