//! `render`: one output. A thread of its own reads the stream and feeds the decoders, since starting and stopping them
//! blocks; `paint` shows what comes out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use av_edge::EventKind;
use av_flow::stream::{Entry, Item, State, Tracks};
use av_flow::{OutputContext, Reason, Trouble};
use av_media::{Frame, Kind, Track};
use gstreamer_app::AppSink;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};

use crate::codec::{Candidate, candidates};
use crate::decode::{Decoder, PipelineError, Pushed};
use crate::options::{Display, RenderConfig};
use crate::paint::{Painter, Signal, Stage, locked};
use crate::renderer::Renderer;
use crate::sound::{Sound, SoundState};
use crate::watch::{Frozen, frozen};

const SECOND: i64 = 1_000_000_000;
const TICK: Duration = Duration::from_millis(100);
/// What a decoder may have waiting beyond the latency.
const BOUND: Duration = Duration::from_secs(2);
/// A decoder from which nothing comes for so long is started anew.
const STILL: i64 = 3 * SECOND;
/// A picture that stands still for so long is told of.
const FROZEN: i64 = 5 * SECOND;
/// After every way to decode has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a decoder that is replaced may take to put out what it holds.
const DRAIN: Duration = Duration::from_secs(2);
/// A thread that does nothing for so long is held up by a driver.
const HANGS: i64 = 10 * SECOND;
/// How long ending an output may take, whatever the drivers do.
const ENDING: Duration = Duration::from_secs(4);

/// Renders until cancelled.
pub async fn run(output: OutputContext, config: RenderConfig) {
    let status = output.status.clone();
    let fail = |why: String| {
        let text = format!("{}.render: {why}", output.path);
        status.status.set(State::Failed, Some(Trouble::new(Reason::Internal, text)));
    };
    if let Err(error) = gstreamer::init() {
        return fail(format!("GStreamer does not start: {error}"));
    }
    let Some(renderer) = output.module.extension::<Renderer>() else {
        return fail("this service has no renderer".into());
    };
    let stage = Arc::new(Stage::new(output.flow.to_string(), config, renderer.cards.clone()));
    let _shown = renderer.enter(&output, &stage);
    let (done, ended) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let (cancel, path) = (output.cancel.clone(), output.path.clone());
    let spawned = std::thread::Builder::new().name("render".into()).spawn({
        let stage = stage.clone();
        move || {
            let rendering = Rendering::new(output, stage.clone());
            let painting = std::thread::Builder::new().name("paint".into()).spawn({
                let stage = stage.clone();
                move || Painter::new(stage).run()
            });
            runtime.block_on(rendering.run());
            stage.over.store(true, Ordering::Relaxed);
            if let Ok(painting) = painting {
                let _ = painting.join();
            }
            let _ = done.send(());
        }
    });
    if let Err(error) = spawned {
        return tracing::error!("no thread to render with: {error}");
    }
    tokio::pin!(ended);
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = &mut ended => return,
            () = cancel.cancelled() => break,
            _ = look.tick() => {
                let still = stage.clock.now().saturating_sub(stage.alive.load(Ordering::Relaxed));
                if still > HANGS {
                    let why = "a decoder hangs while it starts or ends; restart the module if it stays so";
                    let text = format!("{path}.render: {why}");
                    status.status.set(State::Retrying, Some(Trouble::new(Reason::Device, text)));
                }
            }
        }
    }
    // A driver that hangs keeps its thread, and nobody else.
    let _ = tokio::time::timeout(ENDING, ended).await;
}

/// How one track is decoded.
struct Ways {
    track: Arc<Track>,
    all: Vec<Candidate>,
    at: usize,
    /// Pictures that had left the decoder when this one began.
    decoded: u64,
    began: Instant,
    /// Nothing is tried before that.
    again: Option<Instant>,
    error: Option<String>,
}

impl Ways {
    fn new(track: &Arc<Track>) -> Self {
        let (all, error) = match candidates(track, false) {
            Ok(all) => (all, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let (track, began) = (track.clone(), Instant::now());
        Self { track, all, at: 0, decoded: 0, began, again: None, error }
    }

    fn candidate(&self) -> Option<Candidate> {
        self.again.is_none().then(|| self.all.get(self.at).cloned()).flatten()
    }

    /// This way failed: the next one, or all of them again after a while.
    fn next(&mut self, why: String) {
        self.at += 1;
        if self.at >= self.all.len() {
            self.at = 0;
            self.again = Some(Instant::now() + PATIENCE);
            self.error = Some(why);
        }
    }
}

struct Rendering {
    output: OutputContext,
    stage: Arc<Stage>,
    sound_state: Arc<SoundState>,
    tracks: Arc<Tracks>,
    video: Option<(Ways, Option<Decoder>)>,
    audio: Option<(Ways, Option<Sound>)>,
    ending: Vec<(Decoder, Instant)>,
    counted: [u64; 2],
    frozen: Option<Frozen>,
    state: State,
    watched: i64,
}

impl Rendering {
    fn new(output: OutputContext, stage: Arc<Stage>) -> Self {
        Self {
            output,
            stage,
            sound_state: Arc::default(),
            tracks: Arc::default(),
            video: None,
            audio: None,
            ending: Vec::new(),
            counted: [0; 2],
            frozen: None,
            state: State::Waiting,
            watched: 0,
        }
    }

    async fn run(mut self) {
        let mut reader = self.output.stream.reader(self.output.content);
        let cancel = self.output.cancel.clone();
        let mut entries = Vec::new();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                _ = ticks.tick() => self.tick(),
                () = reader.recv(&mut entries) => entries.drain(..).for_each(|entry| self.entry(entry)),
            }
        }
        locked(&self.stage.decoders).clear();
        locked(&self.output.status.details).clear();
    }

    fn entry(&mut self, entry: Entry) {
        match entry.item {
            Item::Tracks(tracks) => self.retrack(&tracks),
            Item::Frame(frame) => self.frame(&frame, entry.arrived),
            Item::Gap(_) => {
                locked(&self.stage.timing).restart();
                self.signal();
            }
            Item::Lost(lost) => {
                self.output.status.dropped.add(Kind::Video, lost.video);
                self.output.status.dropped.add(Kind::Audio, lost.audio);
                self.skip();
            }
            Item::Away | Item::Ended => {
                if matches!(entry.item, Item::Ended) {
                    self.tracks = Arc::default();
                }
                self.no_signal();
            }
            Item::Aside(_) | Item::Anchor(_) | Item::GivenUp => {}
        }
    }

    fn skip(&mut self) {
        if let Some((_, Some(decoder))) = &mut self.video {
            decoder.skip();
        }
    }

    /// A publisher is there.
    fn signal(&mut self) {
        let size = self.tracks.video.as_ref().map(|track| (track.video.width, track.video.height));
        let mut signal = locked(&self.stage.signal);
        let sound_only = self.tracks.video.is_none();
        if !signal.there || signal.sound_only != sound_only {
            signal.since = SystemTime::now();
            signal.since_here = self.stage.clock.now();
        }
        signal.there = true;
        signal.sound_only = sound_only;
        signal.size = size.filter(|(width, height)| *width > 0 && *height > 0).or(signal.size);
    }

    fn no_signal(&mut self) {
        let mut signal = locked(&self.stage.signal);
        if signal.there {
            let size = signal.size;
            let (since, since_here) = (SystemTime::now(), self.stage.clock.now());
            *signal = Signal { there: false, since, since_here, size, sound_only: false };
        }
    }

    fn retrack(&mut self, tracks: &Arc<Tracks>) {
        let before = std::mem::replace(&mut self.tracks, tracks.clone());
        let is_other = |kind| match (before.get(kind), tracks.get(kind)) {
            (Some(before), Some(now)) => !before.decodes_like(now),
            (None, None) => false,
            _ => true,
        };
        if is_other(Kind::Video) || (self.video.is_none() && tracks.video.is_some()) {
            // What the old one holds is shown first.
            if let Some((_, Some(decoder))) = self.video.take() {
                decoder.end();
                self.ending.push((decoder, Instant::now() + DRAIN));
            }
            self.video = tracks.video.as_ref().map(|track| (Ways::new(track), None));
            self.start_picture();
        }
        if is_other(Kind::Audio) || (self.audio.is_none() && tracks.audio.is_some()) {
            self.audio = tracks.audio.as_ref().map(|track| (Ways::new(track), None));
            self.start_sound();
        }
        self.signal();
    }

    fn bound(&self) -> u64 {
        u64::try_from((self.stage.config.latency + BOUND).as_nanos()).unwrap_or(u64::MAX)
    }

    fn start_picture(&mut self) {
        let bound = self.bound();
        let decoded = self.stage.counts.decoded.load(Ordering::Relaxed);
        let Some((ways, decoder)) = &mut self.video else { return };
        while let Some(candidate) = ways.candidate() {
            match Decoder::start(&ways.track, &candidate, "video/x-raw", bound) {
                Ok(started) => {
                    tracing::info!(
                        "{}: {} is decoded by {}{}",
                        self.output.path,
                        ways.track.codec_string,
                        candidate.element,
                        if candidate.hardware { "" } else { " in software" }
                    );
                    locked(&self.stage.decoders).push_back(started.output().clone());
                    *decoder = Some(started);
                    ways.decoded = decoded;
                    ways.began = Instant::now();
                    return;
                }
                Err(PipelineError(why)) => {
                    ways.next(format!("{} can't be decoded: {why}", ways.track.codec_string))
                }
            }
        }
    }

    fn start_sound(&mut self) {
        let bound = self.bound();
        let Some(device) = self.stage.config.audio.clone() else { return };
        let Some((ways, sound)) = &mut self.audio else { return };
        let stage = &self.stage;
        while let Some(candidate) = ways.candidate() {
            let (speaker, shared) =
                ((&device, stage.config.volume), (&stage.clock, &stage.timing, &self.sound_state));
            match Sound::start(&ways.track, &candidate, bound, speaker, shared) {
                Ok(started) => {
                    *sound = Some(started);
                    ways.began = Instant::now();
                    return;
                }
                Err(PipelineError(why)) => {
                    ways.next(format!("{} can't be decoded: {why}", ways.track.codec_string))
                }
            }
        }
    }

    fn frame(&mut self, frame: &Frame, arrived: Instant) {
        let status = &self.output.status;
        let at = self.stage.clock.at(arrived);
        // Pictures lead: what the other kind needs beyond that is added.
        if frame.kind == Kind::Video || self.tracks.video.is_none() {
            locked(&self.stage.timing).arrived(frame.dts.nanos(), at);
        }
        status.bytes.fetch_add(u64::try_from(frame.data.len()).unwrap_or(0), Ordering::Relaxed);
        let decoder = match frame.kind {
            Kind::Video => {
                self.stage.counts.received(self.stage.clock.now());
                self.video.as_mut().and_then(|(_, decoder)| decoder.as_mut())
            }
            Kind::Audio => self.audio.as_mut().and_then(|(_, sound)| Some(&mut sound.as_mut()?.decoder)),
        };
        let is_wanted = frame.kind == Kind::Video || self.stage.config.audio.is_some();
        if is_wanted && decoder.is_none_or(|decoder| decoder.push(frame) == Pushed::Dropped) {
            status.dropped.add(frame.kind, 1);
        }
        if !locked(&self.stage.signal).there {
            self.signal();
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.stage.alive.store(self.stage.clock.now(), Ordering::Relaxed);
        self.ending.retain(|(decoder, until)| {
            let is_done = decoder.output().is_eos() || now >= *until;
            if is_done {
                forget(&self.stage, decoder.output());
            }
            !is_done
        });
        self.check_picture(now);
        self.check_sound(now);
        let here = self.stage.clock.now();
        if here.saturating_sub(self.watched) >= SECOND / 2 {
            self.watched = here;
            self.watch();
            self.count();
        }
        self.report();
    }

    fn check_picture(&mut self, now: Instant) {
        let seen = self.stage.seen();
        let is_still = frozen(&seen, STILL) == Some(Frozen::Decoder);
        let Some((ways, decoder)) = &mut self.video else { return };
        if let Some(running) = decoder {
            let has_decoded = self.stage.counts.decoded.load(Ordering::Relaxed) > ways.decoded;
            if has_decoded {
                ways.error = None;
            }
            let waited =
                now.saturating_duration_since(ways.began) >= Duration::from_nanos(STILL.unsigned_abs());
            let why = match running.error() {
                Some(error) => error,
                None if is_still && waited => {
                    format!("{} puts nothing out", running.candidate.element)
                }
                None => return,
            };
            tracing::warn!("{}: {why}; the decoder is started anew", self.output.path);
            forget(&self.stage, running.output());
            *decoder = None;
            // One that has worked gets another try, after which hardware has to give way.
            let worked_long =
                has_decoded && now.saturating_duration_since(ways.began) >= Duration::from_secs(10);
            if !worked_long {
                ways.next(format!("{} can't be decoded: {why}", ways.track.codec_string));
            }
            self.start_picture();
        } else if ways.again.is_some_and(|again| now >= again) {
            ways.again = None;
            self.start_picture();
        }
    }

    fn check_sound(&mut self, now: Instant) {
        let Some((ways, sound)) = &mut self.audio else { return };
        if let Some(running) = sound {
            let Some(why) = running.decoder.error() else { return };
            tracing::warn!("{}: sound: {why}; the decoder is started anew", self.output.path);
            *sound = None;
            ways.next(why);
            self.start_sound();
        } else if ways.again.is_some_and(|again| now >= again) {
            ways.again = None;
            self.start_sound();
        }
    }

    /// Tells of a picture that stands still, once each time.
    fn watch(&mut self) {
        let seen = self.stage.seen();
        let found = frozen(&seen, FROZEN);
        if found == self.frozen {
            return;
        }
        self.frozen = found;
        let path = &self.output.path;
        match found {
            Some(why) => {
                let detail = match locked(&self.stage.trouble).as_ref() {
                    Some(trouble) if why == Frozen::Display => format!("{why}: {trouble}"),
                    _ => why.to_string(),
                };
                tracing::warn!("{path}: the picture is frozen: {detail}");
                let (module, output) = (&self.output.module, &self.output);
                module.emit(EventKind::PictureFrozen, &output.flow, Some(&output.output), detail);
            }
            None => tracing::info!("{path}: the picture is no longer frozen"),
        }
    }

    /// Counters of the output.
    fn count(&mut self) {
        let (status, counts) = (&self.output.status, &self.stage.counts);
        let rendered = counts.rendered.load(Ordering::Relaxed);
        let dropped = counts.dropped.load(Ordering::Relaxed);
        let [rendered_before, dropped_before] = std::mem::replace(&mut self.counted, [rendered, dropped]);
        status.frames.add(Kind::Video, rendered.saturating_sub(rendered_before));
        status.dropped.add(Kind::Video, dropped.saturating_sub(dropped_before));
        if rendered > rendered_before {
            let delay = locked(&self.stage.timing).latency() + counts.late.load(Ordering::Relaxed);
            status.latency.observe(Duration::from_nanos(u64::try_from(delay).unwrap_or(0)));
        }
        *locked(&status.details) = self.details(rendered.saturating_sub(rendered_before));
    }

    /// What only a renderer tells.
    fn details(&self, rendered: u64) -> Map<String, Value> {
        let stage = &self.stage;
        let now = stage.clock.now();
        let mut map = Map::new();
        let mut tell = |name: &str, value: Value| map.insert(name.to_owned(), value);
        if let Some((_, Some(decoder))) = &self.video {
            let Candidate { element, hardware, .. } = decoder.candidate;
            tell("decoder", json!({ "element": element, "hardware": hardware }));
        }
        if let Some(sink) = *locked(&stage.sink) {
            tell("sink", sink.into());
        }
        let counts = &stage.counts;
        tell("rendered", counts.rendered.load(Ordering::Relaxed).into());
        tell("renderedFps", rendered.saturating_mul(2).into());
        tell("displayOpened", counts.opened.load(Ordering::Relaxed).into());
        if let Some(at) = counts.rendered_at() {
            let ago = Duration::from_nanos(u64::try_from(now.saturating_sub(at)).unwrap_or(0));
            tell("lastPictureAt", timestamp(SystemTime::now() - ago).into());
        }
        if let Some(frozen) = self.frozen {
            tell("frozen", frozen.as_str().into());
        }
        if !locked(&stage.signal).there {
            tell("signal", "lost".into());
        }
        let timing = locked(&stage.timing);
        tell("delayMilliseconds", (timing.latency() / 1_000_000).into());
        if let Some(drift) = timing.drift_ppm(now) {
            tell("driftPpm", (drift.round() as i64).into());
        }
        tell("resampledPpm", ((timing.rate() * 1e6).round() as i64).into());
        if stage.config.audio.is_some() && self.audio.is_some() {
            let picture = counts.late.load(Ordering::Relaxed);
            let sound = self.sound_state.off.load(Ordering::Relaxed);
            tell("avOffsetMilliseconds", ((picture - sound) / 1_000_000).into());
            tell("audio", self.audio_report());
        }
        map
    }

    fn audio_report(&self) -> Value {
        match &self.audio {
            Some((ways, None)) => {
                json!({ "state": "failed", "error": ways.error.clone().unwrap_or_default() })
            }
            _ => self.sound_state.report(),
        }
    }

    /// State and reason.
    fn report(&mut self) {
        let path = format!("{}.render", self.output.path);
        let trouble = |reason, why: String| Some(Trouble::new(reason, format!("{path}: {why}")));
        let screen = locked(&self.stage.trouble).clone();
        let signal = locked(&self.stage.signal).clone();
        let decoding = self.video.as_ref().and_then(|(ways, _)| ways.error.clone());
        let sound = self.audio.as_ref().and_then(|(ways, _)| ways.error.clone());
        let has_picture = self.stage.counts.rendered.load(Ordering::Relaxed) > 0;
        let (state, trouble) =
            if let Some(why) = screen.filter(|_| self.stage.config.display != Display::None) {
                (State::Failed, trouble(Reason::Device, why))
            } else if let Some(why) = decoding {
                (State::Failed, trouble(Reason::Content, why))
            } else if !signal.there {
                (State::Waiting, None)
            } else if self.tracks.is_empty() {
                (
                    State::Waiting,
                    trouble(Reason::Content, "the stream has nothing that `content` lets through".into()),
                )
            } else if frozen(&self.stage.seen(), STILL) == Some(Frozen::Display) {
                (State::Retrying, trouble(Reason::Device, "no picture reaches the display".into()))
            } else if signal.sound_only {
                match sound {
                    Some(why) => (State::Failed, trouble(Reason::Content, why)),
                    None => match self.sound_state.error() {
                        Some(why) => (State::Retrying, trouble(Reason::Device, why)),
                        None if self.sound_state.plays() || self.stage.config.audio.is_none() => {
                            (State::Running, None)
                        }
                        None => (State::Waiting, None),
                    },
                }
            } else if has_picture {
                (State::Running, None)
            } else {
                (State::Waiting, None)
            };
        self.told(state, trouble);
    }

    fn told(&mut self, state: State, trouble: Option<Trouble>) {
        let text = trouble.as_ref().map(|trouble| trouble.text.clone());
        self.output.status.status.set(state, trouble);
        let before = std::mem::replace(&mut self.state, state);
        if before == state {
            return;
        }
        let (module, output) = (&self.output.module, &self.output);
        match (before, state) {
            (_, State::Running) => {
                tracing::info!("{}: renders", output.path);
                module.emit(EventKind::OutputConnected, &output.flow, Some(&output.output), "renders");
            }
            (_, State::Failed | State::Retrying) => {
                let text = text.unwrap_or_default();
                tracing::warn!("{text}");
                module.emit(EventKind::OutputLost, &output.flow, Some(&output.output), text);
            }
            _ => {}
        }
    }
}

/// Nobody waits for what comes out there any more.
fn forget(stage: &Stage, output: &AppSink) {
    locked(&stage.decoders).retain(|one| one != output);
}

/// UTC, to the millisecond.
fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| format!("{time:.3}")).unwrap_or_default()
}
