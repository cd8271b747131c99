//! What plays decoded sound: a pipeline that ends in PulseAudio or ALSA, and how far it is from where it belongs.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSrc;

use crate::beat::Beat;
use crate::clock::Clock;
use crate::decode::{PipelineError, error_of, named, pipeline, to_stream};
use crate::node;
use crate::options::Device;
use crate::pace::Pace;
use crate::screen::quoted;
use crate::stage::locked;

const MILLISECOND: i64 = 1_000_000;
/// Sound that is past and was not taken for so long says that the device stands still.
const STUCK: i64 = 4_000 * MILLISECOND;
/// So many pieces that the device took say that it plays.
const PLAYS: u64 = 12;
/// What has to be handed over before it is due, beside what the device asks for.
const AHEAD: i64 = 20 * MILLISECOND;
/// What a sound card may hold, at least and at most, and the part of the latency that it is otherwise.
const HOLDS: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(200)];
const PART: u32 = 3;
/// How often a device is asked for its clock.
const ASK: Duration = Duration::from_millis(200);

/// A piece of decoded sound.
pub struct Piece {
    /// Its stream time.
    pub stream: i64,
    samples: u64,
    rate: u32,
}

impl Piece {
    /// `None`: it is no sound with a time.
    pub fn of(sample: &gst::Sample) -> Option<Self> {
        let (buffer, format) = (sample.buffer()?, sample.caps()?.structure(0)?);
        let rate = u32::try_from(format.get::<i32>("rate").ok()?).ok().filter(|rate| *rate > 0)?;
        let channels = u64::try_from(format.get::<i32>("channels").ok()?).ok().filter(|count| *count > 0)?;
        let samples = u64::try_from(buffer.size()).ok()? / (4 * channels);
        Some(Self { stream: to_stream(buffer.pts()?), samples, rate })
    }

    /// How long it is in the stream, in nanoseconds.
    pub fn length(&self) -> u64 {
        self.samples.saturating_mul(1_000_000_000) / u64::from(self.rate)
    }
}

/// What became of a piece.
pub struct Played {
    /// How far it is from where it belongs, in nanoseconds.
    pub off: i64,
    /// What played before it was cut off, or there is a hole.
    pub stepped: bool,
}

/// Where sound goes and how.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The device.
    pub device: Device,
    /// In percent of loudness.
    pub volume: u64,
    /// From a frame's arrival to its show.
    pub latency: Duration,
}

/// What a device tells of itself.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// Nanoseconds of sound that it has played.
    own: i64,
    /// Which time of the output's clock that is taken for.
    taken_for: i64,
    /// How long before it is due sound goes out of reach.
    needs: i64,
}

/// A pipeline that plays.
pub struct Speaker {
    pipeline: gst::Pipeline,
    input: AppSrc,
    sink: gst::Element,
    told: Arc<Mutex<Option<Told>>>,
    beat: Beat,
    life: Arc<()>,
    /// What it is called, until it has been told that it plays.
    name: Option<String>,
    pace: Pace,
    stuck: bool,
}

impl Speaker {
    /// Opens a device. Blocks, and for as long as a sound server that does not answer pleases. `life` is held until it has
    /// ended.
    ///
    /// # Errors
    /// Why not.
    pub fn open(wanted: &Wanted, clock: &Clock, life: &Arc<()>) -> Result<Self, PipelineError> {
        let mut speaker = Self::of(wanted, clock)?;
        speaker.life = life.clone();
        Ok(speaker)
    }

    fn of(wanted: &Wanted, clock: &Clock) -> Result<Self, PipelineError> {
        match &wanted.device {
            Device::Pulse(name) => {
                let properties = format!("device={}", quoted(name));
                Self::by("pulsesink", &format!("pulse:{name}"), &properties, wanted, clock)
            }
            Device::Alsa(name) => Self::alsa(Some(name), wanted, clock),
            Device::Default => {
                let pulse = match Self::by("pulsesink", "pulse", "", wanted, clock) {
                    Ok(speaker) => return Ok(speaker),
                    Err(error) => error,
                };
                // It may be away for a moment, and would not get the sound card back.
                if std::env::var_os("PULSE_SERVER").is_some_and(|server| !server.is_empty()) {
                    return Err(PipelineError(format!(
                        "{pulse}; ALSA is not tried, because PULSE_SERVER is set"
                    )));
                }
                Self::alsa(None, wanted, clock).map_err(|alsa| PipelineError(format!("{pulse}; {alsa}")))
            }
        }
    }

    /// A sound card. What it holds already can't be replaced, so it holds little: sound that comes when its place is in
    /// there would be taken, and not heard.
    fn alsa(device: Option<&str>, wanted: &Wanted, clock: &Clock) -> Result<Self, PipelineError> {
        let holds = (wanted.latency / PART).clamp(HOLDS[0], HOLDS[1]).as_micros();
        let mut properties = format!("buffer-time={holds} latency-time={}", holds / 4);
        let mut shown = "alsa".to_owned();
        if let Some(device) = device {
            properties.push_str(&format!(" device={}", quoted(device)));
            shown.push_str(&format!(":{device}"));
        }
        Self::by("alsasink", &shown, &properties, wanted, clock)
    }

    fn by(
        element: &str,
        name: &str,
        properties: &str,
        wanted: &Wanted,
        clock: &Clock,
    ) -> Result<Self, PipelineError> {
        // As volume controls have it: what sounds half as loud is an eighth of the amplitude.
        let gain = (wanted.volume as f64 / 100.0).powi(3);
        // Where the number of channels changes, a device is opened anew and drops what it holds. PulseAudio takes two
        // of them for sound with one, too.
        let wide = if element == "pulsesink" { "audio/x-raw,channels=[2,2147483647]" } else { "audio/x-raw" };
        // Its clock drives nothing here: it is there to be asked.
        let pipeline = pipeline(&format!(
            "appsrc name=in is-live=true format=time max-bytes=0 ! audioconvert ! audioresample ! \
             audio/x-raw,rate=48000 ! volume volume={gain} ! audioconvert ! \
             {wide} ! {element} name=sink slave-method=resample provide-clock=true {properties}"
        ))?;
        clock.drive(&pipeline);
        let speaker = Self {
            input: named(&pipeline, "in")?,
            sink: named(&pipeline, "sink")?,
            told: Arc::default(),
            beat: Beat::default(),
            life: Arc::default(),
            pipeline,
            name: Some(name.to_owned()),
            pace: Pace::default(),
            stuck: false,
        };
        if speaker.pipeline.set_state(gst::State::Playing).is_err() {
            let why = error_of(&speaker.pipeline).unwrap_or_else(|| format!("{element} does not start"));
            let refused = (element == "alsasink").then(node::sound_refused).flatten();
            return Err(PipelineError(refused.map_or(why.clone(), |refused| format!("{why} {refused}"))));
        }
        let (sink, clock, told) = (speaker.sink.clone(), clock.clone(), Arc::downgrade(&speaker.told));
        std::thread::Builder::new()
            .name("speaker-tells".into())
            .spawn(move || ask(&sink, &clock, &told))
            .map_err(|error| PipelineError(format!("the thread for {element} can't be started: {error}")))?;
        Ok(speaker)
    }

    /// Its name, once, when it plays; or what went wrong with it.
    pub fn look(&mut self, now: i64) -> Result<Option<String>, String> {
        if let Some(error) = error_of(&self.pipeline) {
            return Err(error);
        }
        let element = || self.sink.factory().map(|factory| factory.name().to_string()).unwrap_or_default();
        if self.stuck {
            return Err(format!("{} no longer accepts sound", element()));
        }
        let told = *locked(&self.told);
        if let Some(wrong) = told.and_then(|told| self.beat.look(now, told.own, told.taken_for)) {
            return Err(format!("{} {wrong}", element()));
        }
        let taken = self.sink.property::<gst::Structure>("stats").get::<u64>("rendered").unwrap_or(0);
        Ok(self.name.take_if(|_| taken >= PLAYS && self.beat.plays()))
    }

    /// How long before it is due sound has to be handed over.
    pub fn ahead(&self) -> i64 {
        AHEAD.saturating_add(locked(&self.told).map_or(0, |told| told.needs))
    }

    /// What comes next has its place by itself.
    pub fn pause(&mut self) {
        self.pace.pause();
    }

    /// When what was handed over will have been played.
    pub fn ends(&self) -> Option<i64> {
        self.pace.end()
    }

    /// Hands a piece over that is due at `due`, when it is `now`. `None`: nobody hears it.
    pub fn play(
        &mut self,
        piece: &Piece,
        sample: &gst::Sample,
        due: i64,
        rate: f64,
        now: i64,
    ) -> Option<Played> {
        let place = self.pace.place((piece.stream, piece.samples, piece.rate), due, rate)?;
        // What waits reaches from what the device took last to the cursor.
        let waiting = self.input.current_level_time().nseconds() as f64;
        self.stuck |= now as f64 - (place.at - waiting) > STUCK as f64;
        if self.stuck {
            return None;
        }
        let mut format = sample.caps()?.to_owned();
        format.make_mut().set("rate", i32::try_from(place.label).ok()?);
        if self.input.caps().as_ref() != Some(&format) {
            self.input.set_caps(Some(&format));
        }
        let mut buffer = sample.buffer_owned()?;
        let writable = buffer.make_mut();
        writable.set_pts(gst::ClockTime::from_nseconds(place.at.max(0.0) as u64));
        writable.set_duration(gst::ClockTime::from_nseconds(place.length as u64));
        if place.anew {
            writable.set_flags(writable.flags() | gst::BufferFlags::DISCONT);
        }
        self.input.push_buffer(buffer).ok()?;
        self.beat.given(now);
        Some(Played { off: place.off, stepped: place.anew })
    }
}

/// Asks a device until nobody wants to know. Some answer only when they have taken what they were given: that holds up
/// this thread and no other.
fn ask(sink: &gst::Element, clock: &Clock, told: &Weak<Mutex<Option<Told>>>) {
    let nanos = |time: gst::ClockTime| i64::try_from(time.nseconds()).unwrap_or(i64::MAX);
    while told.strong_count() > 0 {
        // There is none before the device is open.
        if let Some(own) = sink.provide_clock() {
            let mut latency = gst::query::Latency::new();
            // PulseAudio replaces what it holds.
            let is_card = sink.factory().is_some_and(|factory| factory.name() == "alsasink");
            let needs = if is_card && sink.query(&mut latency) { nanos(latency.result().1) } else { 0 };
            let now =
                Told { own: nanos(own.internal_time()), taken_for: clock.since_start(own.time()), needs };
            if let Some(told) = told.upgrade() {
                *locked(&told) = Some(now);
            }
        }
        std::thread::sleep(ASK);
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        let (pipeline, life) = (self.pipeline.clone(), self.life.clone());
        // A sound server that hangs holds up this thread and no other.
        let _ = std::thread::Builder::new().name("speaker-ends".into()).spawn(move || {
            let _ = pipeline.set_state(gst::State::Null);
            drop(life);
        });
    }
}
