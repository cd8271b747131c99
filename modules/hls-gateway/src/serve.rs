//! `serve`: a stream is packaged, and shown to those who ask by HTTP.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use av_flow::net::{Attempts, Place, listeners};
use av_flow::stream::{Entry, Item, State as Health, Tracks};
use av_flow::{OutputContext, Reason, Trouble};
use av_media::mp4::MuxError;
use av_media::{Kind, Track};
use prometheus::Histogram;
use serde_json::json;

use crate::channel::Channel;
use crate::handover::{Counted, Left};
use crate::hls::Hls;
use crate::http::Http;
use crate::live::{Packager, State};
use crate::options::{ServeConfig, Shaped, Variant};
use crate::store::StreamMemory;

/// Frames whose delay is measured, at most, between two versions.
const MOST_TIMED: usize = 4096;
/// A longer window lies on disk, but for its newest minute.
const IN_MEMORY: Duration = Duration::from_secs(120);

/// Serves until cancelled.
pub(crate) async fn serve(output: OutputContext, config: ServeConfig) {
    let Some(hls) = output.module.extension::<Hls>() else { return };
    let (listeners, url) = (&output.module.listeners, config.url.clone());
    let attempts = Attempts::of_output(&output, "serve", listeners::RETRY);
    let address = (url.address, url.scheme.tls.then_some(&config.tls));
    let opening = listeners.open_at_last::<Http>(&output.module, address, attempts);
    let lease = tokio::select! {
        () = output.cancel.cancelled() => return,
        lease = opening => lease,
    };
    let shaped = config.shape;
    let found = found(&output, &hls, shaped, &url.to_string()).await;
    let expected = found.packager.expected_name();
    let channel = Channel::new(&output, config, expected, found.shown.clone());
    let port = lease.port();
    let _open = port.state.opened();
    let places = [Place::Prefix(url.path.clone()), Place::Exact(format!("{}.m3u8", url.path))];
    let _routes = places.map(|place| {
        let route = channel.clone();
        if output.of_instance { port.play.add_of_instance(place, route) } else { port.play.add(place, route) }
    });
    output.status.status.set(Health::Waiting, None);
    let latency = output.module.latency(url.scheme.name);
    let mut serving = Serving {
        output: &output,
        channel: &channel,
        packager: found.packager,
        before: found.before,
        latency,
        timed: VecDeque::new(),
        nothing: None,
        left_out: Vec::new(),
        counted: found.counted,
    };
    serving.run().await;
    let Serving { packager, before, counted, .. } = serving;
    let stream = output.stream.clone();
    let left = Left { shaped, stream, packager, before, shown: found.shown, counted };
    hls.handover().leave(url.to_string(), left);
}

/// What an output before this one has left, or an earlier process, or nothing.
async fn found(output: &OutputContext, hls: &Hls, shaped: Shaped, url: &str) -> Left {
    let now = Instant::now();
    let mut left = hls.handover().take(url);
    if let Some(left) = &mut left
        && let Some(before) = left.before.take_if(|before| before.can_be(shaped))
    {
        // It is as it was, and the other playlist has not begun.
        left.packager = before;
        left.shown.stay();
    }
    let (left, shown, counted, before) = match left {
        Some(mut left) if left.packager.can_be(shaped) => {
            let is_same = left.stream.is_same(&output.stream);
            left.packager.resume(shaped, is_same, &mut left.shown.shelf_mut(), now);
            (Some(left), Arc::default(), None, None)
        }
        // Another playlist. What was listed can be fetched for a while: under the same names where it has the same ending.
        Some(left) if left.shaped.variant.ending() == shaped.variant.ending() => {
            left.shown.retire();
            let mut before = left.before.unwrap_or(left.packager);
            before.retire(&mut left.shown.shelf_mut(), now);
            (None, left.shown, Some(left.counted), Some(before))
        }
        Some(_) | None => (None, Arc::default(), None, None),
    };
    let is_new = shown.version().is_none();
    let mut left = left.unwrap_or_else(|| Left {
        shaped,
        stream: output.stream.clone(),
        packager: Packager::new(shaped, hls.store().stream(url.to_owned())),
        before,
        shown,
        counted: counted.unwrap_or_else(|| Counted::new(output.module.cache.clone())),
    });
    let folder = hls.disk().folder(url, shaped.variant);
    let shown = left.shown.clone();
    let outlives = shaped.window > IN_MEMORY;
    let is_first = shown.folder.set(folder.clone()).is_ok();
    if is_first && !outlives {
        // Of an earlier process.
        folder.clear();
    }
    shown.shelf_mut().set_attic(shown.folder.get().cloned().unwrap_or_else(|| folder.clone()), outlives);
    if is_first && outlives && is_new && left.packager.state() == State::Waiting {
        let restored = folder.load(left.packager.expected_name()).await.unwrap_or_default();
        left.packager.restore(restored, &mut shown.shelf_mut(), Instant::now());
    }
    left
}

/// A track that can't be served.
#[derive(PartialEq)]
struct LeftOut {
    kind: Kind,
    codec: String,
    why: String,
}

impl LeftOut {
    /// `None`: it can be.
    fn of(variant: Variant, track: &Track) -> Option<Self> {
        let why = match crate::live::refused(variant, track)? {
            MuxError::Codec { .. } => format!("{} does not carry it", variant.as_str()),
            MuxError::NoConfig(_) => {
                "no decoder configuration (parameter sets) came with it; set the encoder to send \
                                      it at the start and with each key frame"
                    .to_owned()
            }
            other => other.to_string(),
        };
        Some(Self { kind: track.kind(), codec: track.codec_string.clone(), why })
    }
}

struct Serving<'a> {
    output: &'a OutputContext,
    channel: &'a Channel,
    packager: Packager<StreamMemory>,
    /// Of the playlist that is shown until this one can be played, as long as this one has not begun.
    before: Option<Packager<StreamMemory>>,
    latency: [Histogram; 2],
    /// Frames that are in no version yet, and when they came.
    timed: VecDeque<(Kind, Instant)>,
    /// Why there is nothing to serve.
    nothing: Option<Trouble>,
    left_out: Vec<LeftOut>,
    counted: Counted,
}

impl Serving<'_> {
    async fn run(&mut self) {
        // What was found is there at once.
        self.publish(Instant::now());
        let mut reader = self.output.stream.reader(self.output.content);
        let mut entries = Vec::new();
        let mut sweep = tokio::time::interval(Duration::from_secs(1));
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let before = self.before.as_ref().and_then(Packager::due);
            let due = [self.packager.due(), before].into_iter().flatten().min();
            tokio::select! {
                () = self.output.cancel.cancelled() => return,
                () = reader.recv(&mut entries) => {
                    let (video, audio) = (reader.frame_interval(Kind::Video), reader.frame_interval(Kind::Audio));
                    self.packager.frames_last(video, audio);
                    self.take(&mut entries);
                }
                () = sleep_until(due) => {
                    let now = Instant::now();
                    let mut shelf = self.channel.shelf_mut();
                    self.packager.tick(&mut shelf, now);
                    if let Some(before) = &mut self.before {
                        before.tick(&mut shelf, now);
                    }
                    drop(shelf);
                    self.publish(now);
                }
                _ = sweep.tick() => {
                    let now = Instant::now();
                    self.channel.viewers.sweep(now);
                    self.sweep(now);
                    self.packager.clock(SystemTime::now(), now);
                }
            }
        }
    }

    fn take(&mut self, entries: &mut Vec<Entry>) {
        let now = Instant::now();
        let mut shelf = self.channel.shelf_mut();
        shelf.set_most(self.counted.room());
        for entry in entries.drain(..) {
            match &entry.item {
                Item::Frame(frame) if self.timed.len() < MOST_TIMED => {
                    self.timed.push_back((frame.kind, entry.arrived.into()));
                }
                Item::Tracks(tracks) => {
                    self.nothing = self.lacks(tracks);
                    self.leave_out(tracks);
                }
                _ => {}
            }
            self.packager.entry(entry, &mut shelf, now);
        }
        self.counted.set(shelf.size());
        drop(shelf);
        self.output.status.dropped.add(Kind::Audio, self.packager.take_late());
        // From here on numbers are this one's.
        if self.packager.has_begun() {
            self.before = None;
        }
        self.publish(now);
    }

    /// Time goes on for what can be fetched, whether or not anything comes in.
    fn sweep(&mut self, now: Instant) {
        let mut shelf = self.channel.shelf_mut();
        shelf.sweep(now);
        self.counted.set(shelf.size());
    }

    /// What is wrong with tracks of which nothing can be served.
    fn lacks(&self, tracks: &Tracks) -> Option<Trouble> {
        let why = if tracks.is_empty() {
            "the stream has nothing that `content` lets through".to_owned()
        } else {
            let variant = self.channel.config.shape.variant;
            let all = tracks.iter().map(|track| LeftOut::of(variant, track)).collect::<Option<Vec<_>>>()?;
            let all = all.iter().map(|lost| format!("{} can't be served: {}", lost.codec, lost.why));
            all.collect::<Vec<_>>().join("; ")
        };
        Some(Trouble::new(Reason::Content, format!("{}: {why}", self.output.path)))
    }

    /// Says which tracks go without, where others are served.
    fn leave_out(&mut self, tracks: &Tracks) {
        let variant = self.channel.config.shape.variant;
        let lost = tracks.iter().filter_map(|track| LeftOut::of(variant, track)).collect::<Vec<_>>();
        if lost == self.left_out {
            return;
        }
        let mut details = self.output.status.details.lock().unwrap_or_else(PoisonError::into_inner);
        for kind in [Kind::Video, Kind::Audio] {
            details.remove(kind.as_str());
        }
        for LeftOut { kind, codec, why } in &lost {
            details.insert(kind.as_str().into(), json!({ "codec": codec, "dropped": why }));
        }
        drop(details);
        let each = lost.iter().map(|lost| format!("{} is left out: {}", lost.codec, lost.why));
        let remark = format!("{}: {}", self.output.path, each.collect::<Vec<_>>().join("; "));
        let remark = Some(remark).filter(|_| !lost.is_empty() && self.nothing.is_none());
        if let Some(remark) = &remark {
            tracing::warn!("{remark}");
        }
        self.output.status.status.remark(remark);
        self.left_out = lost;
    }

    /// Pictures that are announced, and do not come.
    fn unseen(&self, now: Instant) -> Option<Trouble> {
        self.packager.lacks_pictures(now).then(|| {
            let why = "sound arrives, but no pictures, although the stream announces them; check the encoder, or set \
                       `content` to \"audioOnly\"";
            Trouble::new(Reason::Content, format!("{}: {why}", self.output.path))
        })
    }

    fn publish(&mut self, now: Instant) {
        if let Some(version) = self.before.as_mut().and_then(Packager::version) {
            self.channel.publish(version);
        }
        let version = self.packager.version();
        if let Some(version) = version.filter(|version| version.playable || !self.channel.shows_retired()) {
            self.channel.publish(version);
            for (kind, arrived) in self.timed.drain(..) {
                let delay = now.saturating_duration_since(arrived);
                let [video, audio] = &self.latency;
                let histogram = if kind == Kind::Video { video } else { audio };
                histogram.observe(delay.as_secs_f64());
                self.output.status.latency.observe(delay);
            }
        }
        let nothing = self.nothing.clone().or_else(|| self.unseen(now));
        let health = match (self.packager.state(), &nothing) {
            (_, Some(_)) | (State::Waiting, None) => Health::Waiting,
            (State::Live | State::Silent, None) => Health::Running,
        };
        self.output.status.status.set(health, nothing);
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
