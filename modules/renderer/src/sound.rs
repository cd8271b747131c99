//! Sound: decoded, stretched a little where the publisher's clock asks for it, and played by the output's clock.
//!
//! It has a state of its own: a speaker that is not there costs the picture nothing, and is tried again.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use av_media::Track;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSinkCallbacks, AppSrc};
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::codec::Candidate;
use crate::decode::{Decoder, PipelineError, error_of, named, pipeline, to_stream};
use crate::options::Device;
use crate::screen::quoted;
use crate::timing::{MAX_RATE, Timing};

const MILLISECOND: i64 = 1_000_000;
/// Between two tries to open a speaker, and how often one that plays is looked at.
const RETRY: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(200);
/// What a speaker needs to have before it is due.
const AHEAD: i64 = 20 * MILLISECOND;
/// With less than that beyond it, no time is taken away again.
const SPARE: i64 = 60 * MILLISECOND;
/// Sound that has come so far from where it belongs goes there at once.
const STEP: i64 = 60 * MILLISECOND;
/// How often its rate is looked at, in nanoseconds of sound, and in how many seconds an error would be gone.
const REVIEW: i64 = 1_000 * MILLISECOND;
const PULL: f64 = 5.0;

/// What sound is decoded to.
pub const RAW: &str = "audioconvert ! audio/x-raw,format=F32LE,layout=interleaved";

/// How the sound of an output fares.
#[derive(Debug, Default)]
pub struct SoundState {
    told: Mutex<Told>,
    /// Pieces that came too late or found no speaker.
    pub dropped: AtomicU64,
    /// Nanoseconds of sound that were handed to the speaker.
    played: AtomicU64,
    /// How far the sound is from where it belongs, in nanoseconds.
    pub off: AtomicI64,
}

#[derive(Debug, Default)]
struct Told {
    device: Option<String>,
    error: Option<String>,
}

impl SoundState {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, device: String) {
        tracing::info!("sound is played by {device}");
        *self.told() = Told { device: Some(device), error: None };
    }

    fn failed(&self, error: String) {
        let mut told = self.told();
        if told.error.as_ref() != Some(&error) {
            tracing::warn!("there is no sound: {error}");
        }
        *told = Told { device: None, error: Some(error) };
    }

    /// Whether something plays.
    pub fn plays(&self) -> bool {
        self.told().device.is_some() && self.played.load(Ordering::Relaxed) > 0
    }

    /// Why there is none.
    pub fn error(&self) -> Option<String> {
        self.told().error.clone()
    }

    /// For `getStatus`.
    pub fn report(&self) -> Value {
        let told = self.told();
        let played = self.played.load(Ordering::Relaxed) / 1_000_000;
        let dropped = self.dropped.load(Ordering::Relaxed);
        let state = match (&told.error, &told.device) {
            (Some(_), _) => "failed",
            (None, Some(_)) => "playing",
            (None, None) => "waiting",
        };
        let mut report = json!({ "state": state, "playedMilliseconds": played, "piecesDropped": dropped });
        if let Some(report) = report.as_object_mut() {
            let texts = [("device", &told.device), ("error", &told.error)];
            let there =
                texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.clone()?.into())));
            report.extend(there);
        }
        report
    }
}

/// The sound of one track.
pub struct Sound {
    /// Takes frames.
    pub decoder: Decoder,
    seam: Arc<Seam>,
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

impl Sound {
    /// Starts it. The speaker is opened by a thread of its own.
    ///
    /// # Errors
    /// The decoder does not start.
    pub fn start(
        track: &Track,
        candidate: &Candidate,
        bound: u64,
        (device, volume): (&Device, u64),
        (clock, timing, state): (&Clock, &Arc<Mutex<Timing>>, &Arc<SoundState>),
    ) -> Result<Self, PipelineError> {
        let decoder = Decoder::start(track, candidate, RAW, bound)?;
        let seam = Arc::new(Seam {
            clock: clock.clone(),
            timing: timing.clone(),
            state: state.clone(),
            speaker: Mutex::default(),
            late: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let taking = seam.clone();
        let callbacks = AppSinkCallbacks::builder().new_sample(move |sink| taking.take(sink)).build();
        decoder.output().set_callbacks(callbacks);
        let (keeping, device) = (Arc::downgrade(&seam), device.clone());
        std::thread::Builder::new()
            .name("speaker".into())
            .spawn(move || keep(&keeping, &device, volume))
            .map_err(|error| PipelineError(format!("no thread for the speaker: {error}")))?;
        Ok(Self { decoder, seam })
    }
}

impl Drop for Sound {
    fn drop(&mut self) {
        self.seam.over.store(true, Ordering::Relaxed);
    }
}

/// Opens a speaker and opens it again when it fails.
fn keep(seam: &Weak<Seam>, device: &Device, volume: u64) {
    while let Some(seam) = seam.upgrade().filter(|seam| !seam.over.load(Ordering::Relaxed)) {
        let error = {
            let speaker = seam.speaker();
            speaker.as_ref().map(|speaker| error_of(&speaker.pipeline))
        };
        let pause = match error {
            Some(None) => LOOK,
            Some(Some(error)) => {
                let old = seam.speaker().take();
                drop(old);
                seam.state.failed(error);
                LOOK
            }
            None => match Speaker::open(device, volume, &seam.clock) {
                Ok((speaker, name)) => {
                    *seam.speaker() = Some(speaker);
                    seam.state.opened(name);
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
        let (due, rate) = {
            let timing = self.timing.lock().unwrap_or_else(PoisonError::into_inner);
            // What is past at the start is not played, and what comes while the line moves has no time yet.
            if !timing.is_settled(now) {
                return None;
            }
            (timing.due(piece.stream)?, timing.rate())
        };
        let spare = due.saturating_sub(now).saturating_sub(AHEAD);
        self.note(now, spare);
        let mut speaker = self.speaker();
        let speaker = speaker.as_mut()?;
        if spare < 0 {
            speaker.cursor = None;
            return None;
        }
        let (off, length) = speaker.play(&piece, sample, due, rate)?;
        self.state.off.store(off, Ordering::Relaxed);
        self.state.played.fetch_add(length, Ordering::Relaxed);
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

/// A piece of decoded sound.
struct Piece {
    stream: i64,
    samples: u64,
    rate: u32,
}

impl Piece {
    fn of(sample: &gst::Sample) -> Option<Self> {
        let (buffer, format) = (sample.buffer()?, sample.caps()?.structure(0)?);
        let rate = u32::try_from(format.get::<i32>("rate").ok()?).ok().filter(|rate| *rate > 0)?;
        let channels =
            usize::try_from(format.get::<i32>("channels").ok()?).ok().filter(|count| *count > 0)?;
        let samples = u64::try_from(buffer.size() / (4 * channels)).ok()?;
        Some(Self { stream: to_stream(buffer.pts()?), samples, rate })
    }
}

/// A pipeline that plays.
struct Speaker {
    pipeline: gst::Pipeline,
    input: AppSrc,
    /// Where the sound that was handed over ends.
    cursor: Option<f64>,
    /// The rate that the sound is said to have.
    label: u32,
    /// Nanoseconds of sound since that was looked at.
    reviewed: i64,
}

impl Speaker {
    fn open(device: &Device, volume: u64, clock: &Clock) -> Result<(Self, String), PipelineError> {
        match device {
            Device::Pulse(name) => {
                let properties = format!("device={}", quoted(name));
                Self::by("pulsesink", "gstreamer1.0-pulseaudio", &properties, volume, clock)
                    .map(|speaker| (speaker, format!("pulse:{name}")))
            }
            Device::Alsa(name) => {
                let properties = format!("device={}", quoted(name));
                Self::by("alsasink", "gstreamer1.0-alsa", &properties, volume, clock)
                    .map(|speaker| (speaker, format!("alsa:{name}")))
            }
            Device::Default => {
                let pulse = match Self::by("pulsesink", "gstreamer1.0-pulseaudio", "", volume, clock) {
                    Ok(speaker) => return Ok((speaker, "pulse".into())),
                    Err(error) => error,
                };
                if !std::path::Path::new("/dev/snd").exists() {
                    return Err(PipelineError(format!("{pulse}; and there is no /dev/snd for ALSA")));
                }
                match Self::by("alsasink", "gstreamer1.0-alsa", "", volume, clock) {
                    Ok(speaker) => Ok((speaker, "alsa".into())),
                    Err(alsa) => Err(PipelineError(format!("{pulse}; {alsa}"))),
                }
            }
        }
    }

    fn by(
        element: &str,
        package: &str,
        properties: &str,
        volume: u64,
        clock: &Clock,
    ) -> Result<Self, PipelineError> {
        if gst::ElementFactory::find(element).is_none() {
            return Err(PipelineError(format!(
                "the element `{element}` is missing; install the Debian package {package}"
            )));
        }
        // As volume controls have it: half way is a quarter of the loudness.
        let gain = (volume as f64 / 100.0).powi(3);
        let pipeline = pipeline(&format!(
            "appsrc name=in is-live=true format=time max-bytes=0 ! audioconvert ! audioresample ! \
             audio/x-raw,rate=48000 ! volume volume={gain} ! \
             {element} name=sink slave-method=resample provide-clock=false {properties}"
        ))?;
        clock.drive(&pipeline);
        let speaker = Self { input: named(&pipeline, "in")?, pipeline, cursor: None, label: 0, reviewed: 0 };
        match speaker.pipeline.set_state(gst::State::Playing) {
            Ok(_) => Ok(speaker),
            Err(_) => Err(PipelineError(
                error_of(&speaker.pipeline).unwrap_or_else(|| format!("{element} does not start")),
            )),
        }
    }

    /// Hands a piece over that is due at `due`: how far from there it is, and how long it is, in nanoseconds.
    fn play(&mut self, piece: &Piece, sample: &gst::Sample, due: i64, rate: f64) -> Option<(i64, u64)> {
        let nominal = f64::from(piece.rate);
        let off = self.cursor.map(|cursor| cursor - due as f64);
        let anew = off.is_none_or(|off| off.abs() > STEP as f64)
            || piece.rate.abs_diff(self.label) > piece.rate / 50;
        if anew {
            self.cursor = Some(due as f64);
            self.reviewed = REVIEW;
        }
        let cursor = self.cursor?;
        let off = cursor - due as f64;
        if self.reviewed >= REVIEW {
            self.reviewed = 0;
            // How much longer than it says a second of it has to be played.
            let stretch = (rate - off / 1e9 / PULL).clamp(-MAX_RATE, MAX_RATE);
            self.label = (nominal / (1.0 + stretch)).round() as u32;
        }
        let length = piece.samples as f64 * 1e9 / f64::from(self.label.max(1));
        let mut format = sample.caps()?.to_owned();
        format.make_mut().set("rate", i32::try_from(self.label).ok()?);
        if self.input.caps().as_ref() != Some(&format) {
            self.input.set_caps(Some(&format));
        }
        let mut buffer = sample.buffer_owned()?;
        let writable = buffer.make_mut();
        writable.set_pts(gst::ClockTime::from_nseconds(cursor.max(0.0) as u64));
        writable.set_duration(gst::ClockTime::from_nseconds(length as u64));
        if anew {
            writable.set_flags(writable.flags() | gst::BufferFlags::DISCONT);
        }
        self.input.push_buffer(buffer).ok()?;
        self.cursor = Some(cursor + length);
        self.reviewed = self.reviewed.saturating_add(length as i64);
        Some((off as i64, length as u64))
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        let pipeline = self.pipeline.clone();
        // A sound server that hangs holds up this thread and no other.
        let _ = std::thread::Builder::new().name("speaker-ends".into()).spawn(move || {
            let _ = pipeline.set_state(gst::State::Null);
        });
    }
}
