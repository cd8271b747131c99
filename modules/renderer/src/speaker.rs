//! What plays decoded sound: a pipeline that ends in PulseAudio or ALSA, and how far it is from where it belongs.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSrc;

use crate::clock::Clock;
use crate::decode::{PipelineError, error_of, named, pipeline, to_stream};
use crate::node;
use crate::options::Device;
use crate::pace::Pace;
use crate::screen::quoted;

const MILLISECOND: i64 = 1_000_000;
/// Sound that is past and was not taken for so long says that the device stands still.
const STUCK: i64 = 4_000 * MILLISECOND;
/// So many pieces that the device took say that it plays.
const PLAYS: u64 = 12;

/// A piece of decoded sound.
pub struct Piece {
    /// Its stream time.
    pub stream: i64,
    samples: u64,
    channels: u64,
    rate: u32,
}

impl Piece {
    /// `None`: it is no sound with a time.
    pub fn of(sample: &gst::Sample) -> Option<Self> {
        let (buffer, format) = (sample.buffer()?, sample.caps()?.structure(0)?);
        let rate = u32::try_from(format.get::<i32>("rate").ok()?).ok().filter(|rate| *rate > 0)?;
        let channels = u64::try_from(format.get::<i32>("channels").ok()?).ok().filter(|count| *count > 0)?;
        let samples = u64::try_from(buffer.size()).ok()? / (4 * channels);
        Some(Self { stream: to_stream(buffer.pts()?), samples, channels, rate })
    }
}

/// What became of a piece.
pub struct Played {
    /// How far it is from where it belongs, in nanoseconds.
    pub off: i64,
    /// Nanoseconds that it takes.
    pub length: u64,
    /// What played before it was cut off, or there is a hole.
    pub stepped: bool,
}

/// A pipeline that plays.
pub struct Speaker {
    pipeline: gst::Pipeline,
    input: AppSrc,
    sink: gst::Element,
    /// What it is called, until it has been told that it plays.
    name: Option<String>,
    pace: Pace,
    stuck: bool,
}

impl Speaker {
    /// Opens a device. Blocks, and for as long as a sound server that does not answer pleases.
    ///
    /// # Errors
    /// Why not.
    pub fn open(device: &Device, volume: u64, clock: &Clock) -> Result<Self, PipelineError> {
        match device {
            Device::Pulse(name) => {
                let properties = format!("device={}", quoted(name));
                Self::by("pulsesink", &format!("pulse:{name}"), &properties, volume, clock)
            }
            Device::Alsa(name) => {
                let properties = format!("device={}", quoted(name));
                Self::by("alsasink", &format!("alsa:{name}"), &properties, volume, clock)
            }
            Device::Default => {
                let pulse = match Self::by("pulsesink", "pulse", "", volume, clock) {
                    Ok(speaker) => return Ok(speaker),
                    Err(error) => error,
                };
                // It may be away for a moment, and would not get the sound card back.
                if std::env::var_os("PULSE_SERVER").is_some_and(|server| !server.is_empty()) {
                    return Err(PipelineError(format!(
                        "{pulse}; ALSA is not tried, since PULSE_SERVER says that there is to be a PulseAudio"
                    )));
                }
                Self::by("alsasink", "alsa", "", volume, clock)
                    .map_err(|alsa| PipelineError(format!("{pulse}; {alsa}")))
            }
        }
    }

    fn by(
        element: &str,
        name: &str,
        properties: &str,
        volume: u64,
        clock: &Clock,
    ) -> Result<Self, PipelineError> {
        // As volume controls have it: what sounds half as loud is an eighth of the amplitude.
        let gain = (volume as f64 / 100.0).powi(3);
        let pipeline = pipeline(&format!(
            "appsrc name=in is-live=true format=time max-bytes=0 ! audioconvert ! audioresample ! \
             audio/x-raw,rate=48000 ! volume volume={gain} ! audioconvert ! \
             {element} name=sink slave-method=resample provide-clock=false {properties}"
        ))?;
        clock.drive(&pipeline);
        let speaker = Self {
            input: named(&pipeline, "in")?,
            sink: named(&pipeline, "sink")?,
            pipeline,
            name: Some(name.to_owned()),
            pace: Pace::default(),
            stuck: false,
        };
        match speaker.pipeline.set_state(gst::State::Playing) {
            Ok(_) => Ok(speaker),
            Err(_) => {
                let why = error_of(&speaker.pipeline).unwrap_or_else(|| format!("{element} does not start"));
                let refused = (element == "alsasink").then(node::sound_refused).flatten();
                Err(PipelineError(refused.map_or(why.clone(), |refused| format!("{why} {refused}"))))
            }
        }
    }

    /// Its name, once, when it plays; or what went wrong with it.
    pub fn look(&mut self) -> Result<Option<String>, String> {
        if let Some(error) = error_of(&self.pipeline) {
            return Err(error);
        }
        if self.stuck {
            let element = self.sink.factory().map(|factory| factory.name().to_string());
            return Err(format!("{} takes no sound any more", element.unwrap_or_default()));
        }
        let taken = self.sink.property::<gst::Structure>("stats").get::<u64>("rendered").unwrap_or(0);
        Ok(self.name.take_if(|_| taken >= PLAYS))
    }

    /// What comes next has its place by itself.
    pub fn pause(&mut self) {
        self.pace.pause();
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
        let waiting = self.input.current_level_bytes() as f64 / (4 * piece.channels) as f64 * 1e9
            / f64::from(piece.rate);
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
        Some(Played { off: place.off, length: place.length as u64, stepped: place.anew })
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
