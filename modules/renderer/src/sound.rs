//! Sound: decoded, stretched a little where the publisher's clock asks for it, and played by the output's clock.
//!
//! It has a state of its own: a `speaker` that is not there costs the picture nothing, and is tried again.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app::{AppSink, AppSinkCallbacks};
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::decode::{Decoder, PipelineError};
use crate::speaker::{Piece, Speaker, Wanted};
use crate::timing::Timing;

const MILLISECOND: i64 = 1_000_000;
/// Between two tries to open a speaker, and how often one that plays is looked at.
const RETRY: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(200);
const SOON: Duration = Duration::from_millis(20);
/// With less than that beyond what a speaker needs, no time is taken away again.
const SPARE: i64 = 60 * MILLISECOND;

/// Sound that comes after so long a pause is a beginning.
const PAUSE: i64 = 1000 * MILLISECOND;
/// Where sound comes, and none was handed to a speaker for so long, that is told.
const SILENT: i64 = 5000 * MILLISECOND;

const LATE: &str = "all of it arrives too late to be played";

/// What sound is decoded to.
pub const RAW: &str = "audioconvert ! audio/x-raw,format=F32LE,layout=interleaved";

/// How the sound of an output fares.
#[derive(Debug, Default)]
pub struct SoundState {
    told: Mutex<Told>,
    /// Pieces that came too late or found no speaker.
    pub dropped: AtomicU64,
    /// Nanoseconds of the stream's sound that were handed to the speaker.
    played: AtomicU64,
    /// How often sound that played was moved at once.
    steps: AtomicU64,
    /// How far the sound is from where it belongs, in nanoseconds.
    pub off: AtomicI64,
    passing: Mutex<Passing>,
    /// Held by each speaker until it has ended.
    life: Arc<()>,
}

/// What comes of the sound, in nanoseconds of the output's clock.
#[derive(Debug, Default)]
struct Passing {
    /// Since when it has come without a pause, and when last.
    since: i64,
    came: Option<i64>,
    /// When some was last handed to a speaker.
    heard: Option<i64>,
}

#[derive(Debug, Default)]
struct Told {
    device: Option<String>,
    error: Option<String>,
    /// All of it comes too late.
    silent: bool,
}

impl Told {
    fn error(&self) -> Option<String> {
        self.error.clone().or_else(|| self.silent.then(|| LATE.to_owned()))
    }
}

impl SoundState {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn passing(&self) -> MutexGuard<'_, Passing> {
        self.passing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece came.
    fn came(&self, now: i64) {
        let mut passing = self.passing();
        if passing.came.is_none_or(|came| now.saturating_sub(came) > PAUSE) {
            passing.since = now;
        }
        passing.came = Some(now);
    }

    /// It was handed to the speaker.
    fn heard(&self, now: i64) {
        self.passing().heard = Some(now);
    }

    /// Whether sound comes, and all of it too late to be heard by an open speaker.
    fn is_silent(&self, now: i64) -> bool {
        let passing = self.passing();
        let comes = passing.came.is_some_and(|came| now.saturating_sub(came) <= PAUSE);
        let last = passing.heard.map_or(passing.since, |heard| heard.max(passing.since));
        comes && now.saturating_sub(last) >= SILENT
    }

    fn listen(&self, now: i64) {
        let silent = self.is_silent(now);
        let before = std::mem::replace(&mut self.told().silent, silent);
        if silent && !before {
            tracing::warn!("there is no sound: {LATE}");
        }
    }

    fn opened(&self, device: String) {
        tracing::info!("sound is played by {device}");
        *self.told() = Told { device: Some(device), ..Told::default() };
    }

    fn failed(&self, error: String) {
        let mut told = self.told();
        if told.error.as_ref() != Some(&error) {
            tracing::warn!("there is no sound: {error}");
        }
        *told = Told { error: Some(error), ..Told::default() };
    }

    /// Whether something plays.
    pub fn plays(&self) -> bool {
        self.told().device.is_some() && self.played.load(Ordering::Relaxed) > 0
    }

    /// Why there is none.
    pub fn error(&self) -> Option<String> {
        self.told().error()
    }

    /// For `getStatus`. `expected`: a publisher with sound is there.
    pub fn report(&self, expected: bool) -> Value {
        let told = self.told();
        let played = self.played.load(Ordering::Relaxed) / 1_000_000;
        let dropped = self.dropped.load(Ordering::Relaxed);
        let error = told.error();
        let state = match (&error, &told.device) {
            (Some(_), _) => "failed",
            (None, Some(_)) if expected => "playing",
            (None, _) => "waiting",
        };
        let steps = self.steps.load(Ordering::Relaxed);
        let mut report = json!({
            "state": state, "playedMilliseconds": played, "piecesDropped": dropped, "steps": steps,
        });
        if let Some(report) = report.as_object_mut() {
            let texts = [("device", &told.device), ("error", &error)];
            let there =
                texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.clone()?.into())));
            report.extend(there);
        }
        report
    }
}

/// What plays the sound of an output, whichever decoder it comes from: another codec is no reason to stop a speaker
/// that still holds what was decoded before.
pub struct Outlet {
    seam: Arc<Seam>,
    /// Whoever put sound out last: the next one waits until that has come to its end.
    last: Option<Receiver<Infallible>>,
}

/// The sound of one track.
pub struct Sound {
    /// Takes frames.
    pub decoder: Decoder,
    turn: Arc<Turn>,
}

/// Held until a decoder has put everything out, or is given up.
struct Turn(Mutex<Option<Sender<Infallible>>>);

impl Turn {
    fn sender(&self) -> MutexGuard<'_, Option<Sender<Infallible>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        *self.sender() = None;
    }

    fn is_over(&self) -> bool {
        self.sender().is_none()
    }
}

/// Where decoded sound goes over to the speaker.
struct Seam {
    clock: Clock,
    timing: Arc<Mutex<Timing>>,
    state: Arc<SoundState>,
    speaker: Mutex<Option<Speaker>>,
    late: Mutex<Late>,
    over: AtomicBool,
}

#[derive(Default)]
struct Late {
    /// Since when everything has been late, and by how much at least.
    since: Option<i64>,
    least: i64,
}

impl Outlet {
    /// Opens a speaker, by a thread of its own.
    ///
    /// # Errors
    /// There is no such thread.
    pub fn open(
        wanted: Wanted,
        (clock, timing, state): (&Clock, &Arc<Mutex<Timing>>, &Arc<SoundState>),
    ) -> Result<Self, PipelineError> {
        let seam = Arc::new(Seam {
            clock: clock.clone(),
            timing: timing.clone(),
            state: state.clone(),
            speaker: Mutex::default(),
            late: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let keeping = Arc::downgrade(&seam);
        std::thread::Builder::new().name("speaker".into()).spawn(move || keep(&keeping, &wanted)).map_err(
            |error| PipelineError(format!("the thread for the speaker can't be started: {error}")),
        )?;
        Ok(Self { seam, last: None })
    }

    /// Plays what comes out of a decoder, once the one before it has put out what it held.
    pub fn play(&mut self, decoder: Decoder) -> Sound {
        let (sender, receiver) = mpsc::channel();
        let mut before = self.last.replace(receiver);
        let turn = Arc::new(Turn(Mutex::new(Some(sender))));
        let (seam, mine, ends) = (self.seam.clone(), turn.clone(), turn.clone());
        let new_sample = move |sink: &AppSink| {
            // Nothing is ever sent: it ends when the other one's turn does, also by its being given up.
            if let Some(before) = before.take() {
                let _ = before.recv();
            }
            if mine.is_over() {
                return Err(gst::FlowError::Eos);
            }
            seam.take(sink)
        };
        let callbacks = AppSinkCallbacks::builder().new_sample(new_sample).eos(move |_| ends.end());
        decoder.output().set_callbacks(callbacks.build());
        Sound { decoder, turn }
    }

    /// Whether all that it was given has been played.
    pub fn is_silent(&self) -> bool {
        let ends = self.seam.speaker().as_ref().and_then(Speaker::ends);
        ends.is_none_or(|ends| ends <= self.seam.clock.now())
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.seam.over.store(true, Ordering::Relaxed);
        // Also where a decoder hangs while it ends, and keeps the seam.
        let speaker = self.seam.speaker().take();
        drop(speaker);
    }
}

impl Sound {
    /// Whether it was told to end, and has put out what it held.
    pub fn has_ended(&self) -> bool {
        self.turn.is_over()
    }
}

impl Drop for Sound {
    fn drop(&mut self) {
        self.turn.end();
    }
}

/// Opens a speaker and opens it again when it fails.
fn keep(seam: &Weak<Seam>, wanted: &Wanted) {
    let began = Instant::now();
    while let Some(seam) = seam.upgrade().filter(|seam| !seam.over.load(Ordering::Relaxed)) {
        let now = seam.clock.now();
        let found = seam.speaker().as_mut().map(|speaker| speaker.look(now));
        if matches!(found, Some(Ok(_))) {
            seam.state.listen(now);
        }
        let pause = match found {
            Some(Ok(opened)) => {
                opened.into_iter().for_each(|name| seam.state.opened(name));
                LOOK
            }
            Some(Err(error)) => {
                let old = seam.speaker().take();
                drop(old);
                seam.state.failed(error);
                RETRY
            }
            // The speaker before this one: a sound card has room for one.
            None if Arc::strong_count(&seam.state.life) > 1 && began.elapsed() < RETRY => SOON,
            None => match Speaker::open(wanted, &seam.clock, &seam.state.life) {
                Ok(speaker) => {
                    *seam.speaker() = Some(speaker);
                    LOOK
                }
                Err(error) => {
                    seam.state.failed(error.to_string());
                    RETRY
                }
            },
        };
        drop(seam);
        std::thread::sleep(pause);
    }
    // It was opening when the sound ended.
    let speaker = seam.upgrade().and_then(|seam| seam.speaker().take());
    drop(speaker);
}

impl Seam {
    fn speaker(&self) -> MutexGuard<'_, Option<Speaker>> {
        self.speaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, sink: &AppSink) -> Result<gst::FlowSuccess, gst::FlowError> {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        if self.pass(&sample).is_none() {
            self.state.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(gst::FlowSuccess::Ok)
    }

    /// `None`: nobody hears it.
    fn pass(&self, sample: &gst::Sample) -> Option<()> {
        let piece = Piece::of(sample)?;
        let now = self.clock.now();
        self.state.came(now);
        let (due, rate) = {
            let timing = self.timing.lock().unwrap_or_else(PoisonError::into_inner);
            // What is past at the start is not played, and what comes while the line moves has no time yet.
            if !timing.is_settled(now) {
                return None;
            }
            (timing.due(piece.stream)?, timing.rate())
        };
        let mut speaker = self.speaker();
        let speaker = speaker.as_mut()?;
        let spare = due.saturating_sub(now).saturating_sub(speaker.ahead());
        self.note(now, spare);
        if spare < 0 {
            speaker.pause();
            return None;
        }
        let played = speaker.play(&piece, sample, due, rate, now)?;
        self.state.heard(now);
        self.state.off.store(played.off, Ordering::Relaxed);
        self.state.played.fetch_add(piece.length(), Ordering::Relaxed);
        self.state.steps.fetch_add(u64::from(played.stepped), Ordering::Relaxed);
        Some(())
    }

    /// Where everything has been too late for a second, there has to be more time.
    fn note(&self, now: i64, spare: i64) {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        if spare >= 0 {
            *late = Late::default();
            if spare < SPARE {
                self.timing.lock().unwrap_or_else(PoisonError::into_inner).is_tight(now);
            }
            return;
        }
        let since = *late.since.get_or_insert(now);
        late.least = if since == now { -spare } else { late.least.min(-spare) };
        if now.saturating_sub(since) >= 1000 * MILLISECOND {
            let mut timing = self.timing.lock().unwrap_or_else(PoisonError::into_inner);
            timing.needs(late.least.saturating_add(40 * MILLISECOND), now);
            *late = Late::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use av_media::{Frame, Kind, Timestamp, Track};
    use bytes::Bytes;

    use super::*;
    use crate::codec::Candidate;
    use crate::options::Device;

    /// What comes out of its end of the stream only when something else has ended that never does.
    const NEVER_DRAINS: &str =
        "funnel name=all audiotestsrc is-live=true ! valve drop=true ! all. all. ! identity";

    /// A decoder of raw sound, since that needs no encoder here.
    fn decoder(chain: &str) -> Decoder {
        let track = Track::aac(Bytes::from_static(b"\x12\x10")).unwrap();
        let candidate = Candidate { element: "identity", chain: chain.into(), hardware: false };
        Decoder::start(&track, &candidate, "identity", Duration::from_secs(60)).unwrap()
    }

    fn push(sound: &mut Sound, count: i64) {
        for second in 0..count {
            let time = Timestamp::from_nanos(second * 1_000_000_000);
            let data = Bytes::from_static(&[0; 64]);
            sound.decoder.push(&Frame { kind: Kind::Audio, pts: time, dts: time, is_sync: true, data });
        }
    }

    /// Without a device, so that each piece that arrives is counted as one that nobody hears.
    fn outlet() -> (Outlet, Arc<SoundState>) {
        gst::init().unwrap();
        let wanted = Wanted { device: Device::Alsa("none".into()), volume: 100, latency: Duration::ZERO };
        let (timing, state) = (Arc::new(Mutex::new(Timing::new(0))), Arc::default());
        (Outlet::open(wanted, (&Clock::start(), &timing, &state)).unwrap(), state)
    }

    fn wait_for(what: &str, condition: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_a_decoder_holds_comes_before_the_sound_of_the_next_one_and_all_of_it() {
        let (mut outlet, state) = outlet();
        let came = || state.dropped.load(Ordering::Relaxed);
        let (mut first, mut second, mut third) = (
            outlet.play(decoder("identity sleep-time=2000")),
            outlet.play(decoder("identity")),
            outlet.play(decoder("identity")),
        );
        push(&mut third, 10);
        push(&mut second, 10);
        second.decoder.end();
        push(&mut first, 100);
        assert!(!second.has_ended() && !first.has_ended());
        first.decoder.end();
        wait_for("all of them came", || came() == 120);
        assert!(first.has_ended() && second.has_ended() && !third.has_ended());
    }

    #[test]
    fn a_decoder_that_never_puts_out_what_it_holds_holds_up_the_next_one_until_it_is_given_up() {
        let (mut outlet, state) = outlet();
        let came = || state.dropped.load(Ordering::Relaxed);
        let mut first = outlet.play(decoder(NEVER_DRAINS));
        push(&mut first, 5);
        first.decoder.end();
        wait_for("what it put out came", || came() == 5);
        let mut second = outlet.play(decoder("identity"));
        push(&mut second, 10);
        assert_eq!((came(), first.has_ended()), (5, false));
        drop(first);
        wait_for("the next one is heard", || came() == 15);
    }

    #[test]
    fn sound_that_comes_and_is_never_in_time_is_told_after_five_seconds() {
        let state = SoundState::default();
        state.opened("alsa".into());
        let second = 1000 * MILLISECOND;
        let state_at = |from: i64, to: i64, is_heard: bool| {
            for now in (from * 10..to * 10).map(|tenth| tenth * second / 10) {
                state.came(now);
                if is_heard {
                    state.heard(now);
                }
                state.listen(now);
            }
            state.report(true)
        };
        assert_eq!(state_at(0, 10, true)["state"], "playing");
        assert_eq!(state_at(10, 14, false)["state"], "playing");
        let report = state_at(14, 16, false);
        assert_eq!((&report["state"], &report["error"]), (&json!("failed"), &json!(LATE)));
        assert_eq!(state_at(16, 17, true)["state"], "playing");
        // A publisher that was away begins anew.
        assert_eq!(state_at(60, 64, false)["state"], "playing");
    }
}
