//! `render`: one output. A thread of its own reads the stream and feeds the decoders, since looking for them blocks;
//! `paint` shows what comes out.

mod again;
mod decoding;
mod report;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use av_flow::stream::{Entry, Item, State, Tracks};
use av_flow::{OutputContext, Reason, Trouble};
use av_media::{Frame, Kind};
use gstreamer_app::AppSink;
use prometheus::Histogram;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};

use crate::codec::Candidate;
use crate::decode::{Decoder, PipelineError, Pushed};
use crate::hang::CALLS;
use crate::options::RenderConfig;
use crate::paint::Painter;
use crate::renderer::Renderer;
use crate::sound::{self, Outlet, Sound, SoundState};
use crate::speaker::Wanted;
use crate::stage::{Signal, Stage, locked};
use crate::watch::{Frozen, frozen};

use decoding::Decoding;
use report::Unheard;

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
/// Frames of sound that wait for a decoder that is being started.
const MOST_EARLY: usize = 1024;
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
                *locked(&stage.trouble) =
                    Some(format!("the thread for the display can't be started: {error}"));
            }
            runtime.block_on(rendering.run());
            drop(over);
            if let Ok(painting) = painting {
                let _ = painting.join();
            }
            // What comes next may need the hardware that they had.
            CALLS.settle(ENDING);
            let _ = done.send(());
        }
    });
    if let Err(error) = spawned {
        return fail(format!("the thread for rendering can't be started: {error}"));
    }
    tokio::pin!(ended);
    let ended = tokio::select! {
        ended = &mut ended => ended,
        () = cancel.cancelled() => {
            // A driver that hangs keeps its thread, and nobody else.
            let ended = tokio::time::timeout(ENDING, ended).await;
            drop(Over(stage));
            return drop(ended);
        }
    };
    if ended.is_err() {
        fail("an internal error ended the output, see the log; `restartFlow` restarts it".into());
    }
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
            let why = "an internal error ended the thread that shows pictures, see the log; it is restarted";
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
    video: Option<Decoding<Decoder>>,
    audio: Option<Decoding<Sound>>,
    outlet: Option<Outlet>,
    /// Sound that came while its decoder was being started.
    early: Vec<Frame>,
    ending: Vec<(Decoder, Instant)>,
    ending_sound: Vec<(Sound, Instant)>,
    pictures: again::Pictures,
    counted: [u64; 2],
    /// When, and how many pictures a second were shown then.
    counted_at: Instant,
    pace: f64,
    frozen: Option<Frozen>,
    /// `av_output_latency_seconds` of pictures.
    latency: Histogram,
    /// What is said of sound that is not heard.
    unheard: Option<Unheard>,
    state: State,
    watched: i64,
}

impl Rendering {
    fn new(output: OutputContext, stage: Arc<Stage>) -> Self {
        let [latency, _] = output.module.latency("display");
        Self {
            output,
            stage,
            latency,
            sound_state: Arc::default(),
            tracks: Arc::default(),
            video: None,
            audio: None,
            outlet: None,
            early: Vec::new(),
            ending: Vec::new(),
            ending_sound: Vec::new(),
            pictures: again::Pictures::default(),
            counted: [0; 2],
            counted_at: Instant::now(),
            pace: 0.0,
            frozen: None,
            unheard: None,
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
        self.give_up();
        if let Some(decoder) = self.decoder() {
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
        self.give_up();
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
            if let Some(decoder) = self.video.take().and_then(|video| video.running) {
                decoder.end();
                let held = u64::try_from(locked(&self.stage.timing).latency()).unwrap_or(0);
                self.ending.push((decoder, Instant::now() + DRAIN + Duration::from_nanos(held)));
            }
            self.give_up();
            let bound = self.bound();
            self.video = tracks.video.as_ref().map(|track| Decoding::new(track, "video/x-raw", bound));
            self.start_picture();
        }
        if is_other(Kind::Audio) || (self.audio.is_none() && tracks.audio.is_some()) {
            if let Some(sound) = self.audio.take().and_then(|audio| audio.running) {
                sound.decoder.end();
                self.ending_sound.push((sound, Instant::now() + DRAIN));
            }
            self.forget_early();
            let (bound, wanted) = (self.bound(), self.stage.config.audio.is_some());
            let track = tracks.audio.as_ref().filter(|_| wanted);
            self.audio = track.map(|track| Decoding::new(track, sound::RAW, bound));
            self.start_sound();
        }
        self.signal();
    }

    fn bound(&self) -> Duration {
        self.stage.config.latency + BOUND
    }

    /// What decodes pictures.
    fn decoder(&mut self) -> Option<&mut Decoder> {
        self.video.as_mut()?.running.as_mut()
    }

    /// Whether a decoder has started.
    fn start_picture(&mut self) -> bool {
        let Some(video) = &mut self.video else { return false };
        video.occupied = !self.ending.is_empty();
        let (path, name) = (&self.output.path, video.ways.track.codec_string.clone());
        let refused = |candidate: &Candidate, why: &str| refused(path, &name, candidate, why);
        let Some(started) = video.started(refused) else { return false };
        let Candidate { element, hardware, .. } = started.candidate;
        let how = if hardware { "" } else { " in software" };
        tracing::info!("{path}: {name} is decoded by {element}{how}");
        locked(&self.stage.decoders).push_back(started.output().clone());
        video.running = Some(started);
        video.ways.began(self.stage.counts.decoded.load(Ordering::Relaxed));
        true
    }

    fn start_sound(&mut self) {
        let config = &self.stage.config;
        let Some(device) = &config.audio else { return };
        let wanted = Wanted { device: device.clone(), volume: config.volume, latency: config.latency };
        let Some(audio) = &mut self.audio else { return };
        let stage = &self.stage;
        let (path, name) = (&self.output.path, audio.ways.track.codec_string.clone());
        let refused = |candidate: &Candidate, why: &str| refused(path, &name, candidate, why);
        while let Some(decoder) = audio.started(refused) {
            let opened = match self.outlet.take() {
                Some(outlet) => Ok(outlet),
                None => Outlet::open(wanted.clone(), (&stage.clock, &stage.timing, &self.sound_state)),
            };
            match opened {
                Ok(mut outlet) => {
                    audio.running = Some(outlet.play(decoder));
                    audio.ways.began(0);
                    self.outlet = Some(outlet);
                    std::mem::take(&mut self.early).iter().for_each(|frame| self.piece(frame));
                    return;
                }
                Err(PipelineError(why)) => {
                    refused(&decoder.candidate, &why);
                    audio.ways.next(&why);
                }
            }
        }
        if !audio.is_starting() {
            self.forget_early();
        }
    }

    /// There is no decoder for it.
    fn forget_early(&mut self) {
        let early = std::mem::take(&mut self.early);
        self.output.status.dropped.add(Kind::Audio, u64::try_from(early.len()).unwrap_or(0));
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
        let bytes = u64::try_from(frame.data.len()).unwrap_or(0);
        self.output.status.bytes.fetch_add(bytes, Ordering::Relaxed);
        match frame.kind {
            Kind::Video => self.picture(frame),
            Kind::Audio => self.piece(frame),
        }
    }

    /// Hands over a piece of sound.
    fn piece(&mut self, frame: &Frame) {
        let pushed = match &mut self.audio {
            Some(Decoding { running: Some(sound), .. }) => sound.decoder.push(frame),
            Some(audio) if audio.is_starting() && self.early.len() < MOST_EARLY => {
                return self.early.push(frame.clone());
            }
            _ => Pushed::Dropped,
        };
        if pushed == Pushed::Dropped && self.stage.config.audio.is_some() {
            self.output.status.dropped.add(Kind::Audio, 1);
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
        let is_done = |(decoder, until): &(Decoder, Instant)| decoder.output().is_eos() || now >= *until;
        let (done, ending) = std::mem::take(&mut self.ending).into_iter().partition(is_done);
        self.ending = ending;
        let done: Vec<(Decoder, Instant)> = done;
        for (decoder, _) in done {
            forget(&self.stage, decoder.output());
            if let Some(video) = self.video.as_mut().filter(|video| video.is_starting()) {
                video.after(decoder);
            }
        }
        self.ending_sound.retain(|(sound, until)| !sound.has_ended() && now < *until);
        // A sound card is left to others where there is no sound any more.
        let is_needed = self.audio.is_some() || !self.ending_sound.is_empty();
        self.outlet.take_if(|outlet| !is_needed && outlet.is_silent());
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
        let Some(Decoding { ways, running, .. }) = &mut self.video else { return };
        let Some(decoder) = running else {
            if ways.is_due_again(now) || self.is_starting() {
                self.replace_picture();
            }
            return;
        };
        let has_decoded = self.stage.counts.decoded.load(Ordering::Relaxed) > ways.decoded;
        if has_decoded {
            ways.error = None;
        }
        let waited = ways.age(now) >= Duration::from_nanos(STILL.unsigned_abs());
        let element = decoder.candidate.element;
        let why = match decoder.error() {
            Some(error) => format!("{element}: {error}"),
            None if is_still && waited => format!("{element} outputs nothing"),
            None => return,
        };
        tracing::warn!("{}: {why}; the decoder is restarted", self.output.path);
        forget(&self.stage, decoder.output());
        ways.stopped(&why, has_decoded, now);
        if let Some(video) = &mut self.video
            && let Some(decoder) = video.running.take()
        {
            video.after(decoder);
        }
        self.replace_picture();
    }

    /// A decoder of pictures is being started, and takes its time.
    fn is_starting(&self) -> bool {
        self.video.as_ref().is_some_and(Decoding::is_starting)
    }

    fn check_sound(&mut self, now: Instant) {
        let Some(Decoding { ways, running, .. }) = &mut self.audio else { return };
        let Some(sound) = running else {
            let is_due = ways.is_due_again(now);
            if is_due || self.audio.as_ref().is_some_and(Decoding::is_starting) {
                self.start_sound();
            }
            return;
        };
        let element = sound.decoder.candidate.element;
        let Some(why) = sound.decoder.error().map(|error| format!("{element}: {error}")) else {
            if ways.age(now) >= Duration::from_nanos(STILL.unsigned_abs()) {
                ways.error = None;
            }
            return;
        };
        tracing::warn!("{}: sound: {why}; the decoder is restarted", self.output.path);
        *running = None;
        ways.stopped(&why, self.sound_state.plays(), now);
        self.start_sound();
    }
}

/// A way that does not even start.
fn refused(path: &str, codec: &str, candidate: &Candidate, why: &str) {
    tracing::warn!("{path}: {} does not decode {codec}: {why}", candidate.element);
}

/// Nobody waits for what comes out there any more.
fn forget(stage: &Stage, output: &AppSink) {
    locked(&stage.decoders).retain(|one| one != output);
}
