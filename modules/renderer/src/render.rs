//! `render`: one output. A thread of its own reads the stream and feeds the decoders, since starting and stopping them
//! blocks; `paint` shows what comes out.

mod again;
mod report;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use av_flow::stream::{Entry, Item, State, Tracks};
use av_flow::{OutputContext, Reason, Trouble};
use av_media::{Frame, Kind};
use gstreamer_app::AppSink;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};

use crate::codec::Candidate;
use crate::decode::{Decoder, PipelineError, Pushed};
use crate::options::RenderConfig;
use crate::paint::Painter;
use crate::renderer::Renderer;
use crate::sound::{Sound, SoundState};
use crate::stage::{Signal, Stage, locked};
use crate::watch::{Frozen, frozen};
use crate::ways::Ways;

const SECOND: i64 = 1_000_000_000;
const TICK: Duration = Duration::from_millis(100);
/// How long a frame may wait for a decoder beyond the latency: longer than any time that is added for slow ones.
const BOUND: Duration = Duration::from_secs(3);
/// A publisher that announced pictures and sends none for so long has its sound timed without them.
const PICTURES_STAND: i64 = 2 * SECOND;
/// A decoder from which nothing comes for so long is started anew.
const STILL: i64 = 3 * SECOND;
/// How long a decoder that is replaced may take to put out what it holds.
const DRAIN: Duration = Duration::from_secs(2);
/// A thread that does nothing for so long is held up by a driver.
const HANGS: i64 = 10 * SECOND;
/// Between a panic and the next try.
const ANEW: Duration = Duration::from_secs(2);
/// How long ending an output may take, whatever the drivers do.
const ENDING: Duration = Duration::from_secs(4);

/// Renders until cancelled.
pub async fn run(output: OutputContext, config: RenderConfig) {
    let status = output.status.clone();
    let (cancel, path) = (output.cancel.clone(), output.path.clone());
    let fail = |why: String| {
        let text = format!("{path}.render: {why}");
        status.status.set(State::Failed, Some(Trouble::new(Reason::Internal, text)));
    };
    // The first time it looks at all plugins, which takes a while.
    match tokio::task::spawn_blocking(gstreamer::init).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return fail(format!("GStreamer does not start: {error}")),
        Err(error) => return fail(format!("GStreamer does not start: {error}")),
    }
    let Some(renderer) = output.module.extension::<Renderer>() else {
        return fail("this service has no renderer".into());
    };
    let stage = Arc::new(Stage::new(output.flow.to_string(), config, renderer.cards.clone()));
    let _shown = renderer.enter(&output, &stage);
    let (done, ended) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let spawned = std::thread::Builder::new().name("render".into()).spawn({
        let stage = stage.clone();
        move || {
            // Also when what follows panics.
            let over = Over(stage.clone());
            let rendering = Rendering::new(output, stage.clone());
            let painting = std::thread::Builder::new().name("paint".into()).spawn({
                let stage = stage.clone();
                move || painted(&stage)
            });
            if let Err(error) = &painting {
                *locked(&stage.trouble) = Some(format!("no thread for the display: {error}"));
            }
            runtime.block_on(rendering.run());
            drop(over);
            if let Ok(painting) = painting {
                let _ = painting.join();
            }
            let _ = done.send(());
        }
    });
    if let Err(error) = spawned {
        return fail(format!("no thread to render with: {error}"));
    }
    tokio::pin!(ended);
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            ended = &mut ended => {
                if ended.is_err() {
                    fail("a fault of this program ended the output, see its log; `restartFlow` starts it anew".into());
                }
                return;
            }
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

/// Ends the other threads of an output.
struct Over(Arc<Stage>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Shows pictures until the output is over. A panic is told as the state, and everything begins anew.
fn painted(stage: &Arc<Stage>) {
    while !stage.is_over() {
        let painting = AssertUnwindSafe(|| Painter::new(stage.clone()).run());
        if std::panic::catch_unwind(painting).is_err() {
            let why = "a fault of this program ended what shows pictures, see its log; it begins anew";
            *locked(&stage.sink) = None;
            *locked(&stage.trouble) = Some(why.into());
            std::thread::sleep(ANEW);
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
    /// Decoding time of the last picture that came, in nanoseconds.
    fed_until: Option<i64>,
    begun: again::Begun,
    counted: [u64; 2],
    /// When, and how many pictures a second were shown then.
    counted_at: Instant,
    pace: f64,
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
            fed_until: None,
            begun: again::Begun::default(),
            counted: [0; 2],
            counted_at: Instant::now(),
            pace: 0.0,
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
                let held = u64::try_from(locked(&self.stage.timing).latency()).unwrap_or(0);
                self.ending.push((decoder, Instant::now() + DRAIN + Duration::from_nanos(held)));
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

    fn bound(&self) -> Duration {
        self.stage.config.latency + BOUND
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
                    ways.began(decoded);
                    return;
                }
                Err(PipelineError(why)) => refused(&self.output.path, ways, &candidate, &why),
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
                    ways.began(0);
                    return;
                }
                Err(PipelineError(why)) => refused(&self.output.path, ways, &candidate, &why),
            }
        }
    }

    fn frame(&mut self, frame: &Frame, arrived: Instant) {
        let at = self.stage.clock.at(arrived);
        if !locked(&self.stage.signal).there {
            self.signal();
        }
        // Pictures lead: what the other kind needs beyond that is added.
        if frame.kind == Kind::Video || !self.has_pictures() {
            locked(&self.stage.timing).arrived(frame.dts.nanos(), at);
        }
        let status = &self.output.status;
        status.bytes.fetch_add(u64::try_from(frame.data.len()).unwrap_or(0), Ordering::Relaxed);
        let decoder = match frame.kind {
            Kind::Video => {
                self.stage.counts.received(self.stage.clock.now());
                self.fed_until = Some(frame.dts.nanos());
                self.video.as_mut().and_then(|(_, decoder)| decoder.as_mut())
            }
            Kind::Audio => self.audio.as_mut().and_then(|(_, sound)| Some(&mut sound.as_mut()?.decoder)),
        };
        let pushed = decoder.map_or(Pushed::Dropped, |decoder| decoder.push(frame));
        let is_wanted = frame.kind == Kind::Video || self.stage.config.audio.is_some();
        match (pushed, frame.kind) {
            (Pushed::Taken, Kind::Video) => self.stage.counts.fed(self.stage.clock.now()),
            (Pushed::Dropped, kind) if is_wanted => status.dropped.add(kind, 1),
            _ => {}
        }
    }

    /// Whether pictures are announced, and come.
    fn has_pictures(&self) -> bool {
        let seen = self.stage.seen();
        let last = seen.received.unwrap_or(seen.since).max(seen.since);
        self.tracks.video.is_some() && seen.now.saturating_sub(last) < PICTURES_STAND
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
            let waited = ways.age(now) >= Duration::from_nanos(STILL.unsigned_abs());
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
            ways.stopped(&why, has_decoded, now);
            self.replace_picture();
        } else if ways.is_due_again(now) {
            self.replace_picture();
        }
    }

    fn check_sound(&mut self, now: Instant) {
        let Some((ways, sound)) = &mut self.audio else { return };
        if let Some(running) = sound {
            let Some(why) = running.decoder.error() else {
                if ways.age(now) >= Duration::from_nanos(STILL.unsigned_abs()) {
                    ways.error = None;
                }
                return;
            };
            tracing::warn!("{}: sound: {why}; the decoder is started anew", self.output.path);
            *sound = None;
            ways.stopped(&why, self.sound_state.plays(), now);
            self.start_sound();
        } else if ways.is_due_again(now) {
            self.start_sound();
        }
    }
}

/// A way that does not even start.
fn refused(path: &str, ways: &mut Ways, candidate: &Candidate, why: &str) {
    tracing::warn!("{path}: {} does not decode {}: {why}", candidate.element, ways.track.codec_string);
    ways.next(why);
}

/// Nobody waits for what comes out there any more.
fn forget(stage: &Stage, output: &AppSink) {
    locked(&stage.decoders).retain(|one| one != output);
}
