//! One track's decoder: frames in, raw media out, in a pipeline of its own.

use std::collections::VecDeque;
use std::time::Duration;

use av_media::{Frame, Track};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc};
use tokio::time::Instant;

use crate::codec::{self, Candidate};
use crate::elements;
use crate::hang::CALLS;

/// Stream times may be negative, those of GStreamer are not.
const ORIGIN: i64 = 3_600_000_000_000;
/// What waits for a decoder at most, beside the bound in time.
const MOST_BYTES: u64 = 64 << 20;

/// How often it is looked at whether a decoder catches up.
const MOMENT: Duration = Duration::from_secs(1);

/// Why a pipeline can't be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PipelineError(pub String);

impl From<gst::glib::Error> for PipelineError {
    fn from(error: gst::glib::Error) -> Self {
        Self(error.message().to_owned())
    }
}

/// A stream time as the pipelines carry it. `None`: far before the stream's start.
pub fn to_clock(stream: i64) -> Option<gst::ClockTime> {
    u64::try_from(stream.checked_add(ORIGIN)?).ok().map(gst::ClockTime::from_nseconds)
}

/// And back.
pub fn to_stream(time: gst::ClockTime) -> i64 {
    i64::try_from(time.nseconds()).unwrap_or(i64::MAX).saturating_sub(ORIGIN)
}

/// A pipeline out of a description as of `gst-launch-1.0`.
pub fn pipeline(description: &str) -> Result<gst::Pipeline, PipelineError> {
    let launch = || {
        let mut context = gst::ParseContext::new();
        let launched =
            gst::parse::launch_full(description, Some(&mut context), gst::ParseFlags::FATAL_ERRORS);
        launched.map_err(|error| (error, context.missing_elements()))
    };
    let element = launch()
        .or_else(|(error, missing)| {
            if missing.is_empty() {
                return Err((error, missing));
            }
            elements::look();
            launch()
        })
        .map_err(|(error, missing)| match missing.first() {
            Some(element) => PipelineError(elements::Missing::of(element).to_string()),
            None => error.into(),
        })?;
    element.downcast::<gst::Pipeline>().map_err(|_| PipelineError("one element is no pipeline".into()))
}

/// An element of it.
pub fn named<E: IsA<gst::Element>>(pipeline: &gst::Pipeline, name: &str) -> Result<E, PipelineError> {
    let element = pipeline.by_name(name).and_then(|element| element.downcast::<E>().ok());
    element.ok_or_else(|| PipelineError(format!("no element {name}")))
}

/// The first error that the elements of a pipeline reported, as one sentence.
pub fn error_of(pipeline: &gst::Pipeline) -> Option<String> {
    let bus = pipeline.bus()?;
    while let Some(message) = bus.pop_filtered(&[gst::MessageType::Error]) {
        if let gst::MessageView::Error(error) = message.view() {
            let source = error.src().map(|source| {
                source
                    .downcast_ref::<gst::Element>()
                    .and_then(ElementExt::factory)
                    .map_or_else(|| source.name().to_string(), |factory| factory.name().to_string())
            });
            let source = source.unwrap_or_else(|| "GStreamer".into());
            let text = format!("{source}: {}", error.error().message());
            // Its first line says where in GStreamer's code.
            let detail = error.debug().and_then(|debug| Some(debug.split_once('\n')?.1.trim().to_owned()));
            return Some(match detail.filter(|detail| !detail.is_empty()) {
                Some(detail) => format!("{} ({detail})", text.trim_end_matches('.')),
                None => text,
            });
        }
    }
    None
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits for the decoder.
    Taken,
    /// The decoder does not keep up, or waits for a sync frame since it did not.
    Dropped,
}

/// A decoder at work.
pub struct Decoder {
    pipeline: gst::Pipeline,
    input: AppSrc,
    output: AppSink,
    /// The way that was chosen.
    pub candidate: Candidate,
    /// How long a frame may wait here. It is the wait that counts, not what the frames are long: a GOP that comes in a
    /// burst when a stream is joined is longer than any bound, and is decoded in no time.
    bound: Duration,
    /// When the frames that may still wait were handed over, the oldest first.
    waiting: VecDeque<Instant>,
    /// How many waited when that was last looked at, and when that was.
    before: (usize, Instant),
    /// There were fewer than the time before.
    catches_up: bool,
    waits_for_sync: bool,
    has_ended: bool,
}

impl Decoder {
    /// Starts one. `raw`: what follows the decoder, and what of it is wanted. Blocks for as long as a driver pleases.
    ///
    /// # Errors
    /// An element is missing or does not start.
    pub fn start(
        track: &Track,
        candidate: &Candidate,
        raw: &str,
        bound: Duration,
    ) -> Result<Self, PipelineError> {
        let pipeline = pipeline(&format!(
            "appsrc name=in is-live=true format=time max-bytes=0 ! {} ! {raw} ! \
             appsink name=out sync=false max-buffers=4 enable-last-sample=false",
            candidate.chain
        ))?;
        let input: AppSrc = named(&pipeline, "in")?;
        let output: AppSink = named(&pipeline, "out")?;
        input.set_caps(Some(&codec::caps(track)));
        let decoder = Self {
            pipeline,
            input,
            output,
            candidate: candidate.clone(),
            bound,
            waiting: VecDeque::new(),
            before: (0, Instant::now()),
            catches_up: true,
            waits_for_sync: true,
            has_ended: false,
        };
        if decoder.pipeline.set_state(gst::State::Playing).is_ok() {
            return Ok(decoder);
        }
        let why = decoder.error().unwrap_or_else(|| format!("{} does not start", candidate.element));
        decoder.stop();
        Err(PipelineError(why))
    }

    /// Ends it. Blocks for as long as a driver pleases.
    pub fn stop(mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
        self.has_ended = true;
    }

    /// Hands it a frame. Never waits.
    pub fn push(&mut self, frame: &Frame) -> Pushed {
        let behind = self.is_behind();
        self.waits_for_sync |= behind;
        if self.waits_for_sync && (behind || !frame.is_sync) {
            return Pushed::Dropped;
        }
        let (Some(pts), Some(dts)) = (to_clock(frame.pts.nanos()), to_clock(frame.dts.nanos())) else {
            return Pushed::Dropped;
        };
        let mut buffer = gst::Buffer::from_slice(frame.data.clone());
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(pts);
            buffer.set_dts(dts);
            if !frame.is_sync {
                buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
            if std::mem::take(&mut self.waits_for_sync) {
                buffer.set_flags(buffer.flags() | gst::BufferFlags::DISCONT);
            }
        }
        match self.input.push_buffer(buffer) {
            Ok(_) => {
                self.waiting.push_back(Instant::now());
                Pushed::Taken
            }
            Err(_) => Pushed::Dropped,
        }
    }

    /// Whether frames wait for too long. One that works off what came in a burst is not behind, however long that takes.
    fn is_behind(&mut self) -> bool {
        let waiting = usize::try_from(self.input.current_level_buffers()).unwrap_or(usize::MAX);
        self.waiting.drain(..self.waiting.len().saturating_sub(waiting));
        let (before, since) = self.before;
        if since.elapsed() >= MOMENT {
            self.catches_up = self.waiting.len() < before;
            self.before = (self.waiting.len(), Instant::now());
        }
        let oldest = self.waiting.front().map(Instant::elapsed).unwrap_or_default();
        (oldest > self.bound && !self.catches_up) || self.input.current_level_bytes() > MOST_BYTES
    }

    /// Frames are missing: it goes on at a sync frame.
    pub fn skip(&mut self) {
        self.waits_for_sync = true;
    }

    /// Nothing more comes: what it holds comes out, and then its end.
    pub fn end(&self) {
        let _ = self.input.end_of_stream();
    }

    /// Where raw media comes out.
    pub fn output(&self) -> &AppSink {
        &self.output
    }

    /// What went wrong, if something did.
    pub fn error(&self) -> Option<String> {
        error_of(&self.pipeline)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let pipeline = self.pipeline.clone();
        let end = move || {
            let _ = pipeline.set_state(gst::State::Null);
        };
        if let Err(error) = CALLS.make("decoder-ends", end) {
            tracing::error!("the thread that ends {} can't be started: {error}", self.candidate.element);
        }
    }
}

#[cfg(test)]
mod tests {
    use av_media::Timestamp;
    use bytes::Bytes;

    use super::*;

    /// A decoder of raw sound, since that needs no encoder here, and frames of a second each.
    fn decoder(bound: Duration) -> Decoder {
        gst::init().unwrap();
        let track = Track::aac(Bytes::from_static(b"\x12\x10")).unwrap();
        let candidate = Candidate { element: "identity", chain: "identity".into(), hardware: false };
        Decoder::start(&track, &candidate, "identity", bound).unwrap()
    }

    fn frame(second: i64) -> Frame {
        let time = Timestamp::from_nanos(second * 1_000_000_000);
        let data = Bytes::from_static(&[0; 64]);
        Frame { kind: av_media::Kind::Audio, pts: time, dts: time, is_sync: true, data }
    }

    #[test]
    fn a_burst_that_is_longer_than_what_may_wait_is_taken_whole() {
        let mut decoder = decoder(Duration::from_secs(3));
        for second in 0..300 {
            assert_eq!(decoder.push(&frame(second)), Pushed::Taken, "{second}");
        }
    }

    #[test]
    fn what_nobody_takes_does_not_wait_for_ever() {
        let mut decoder = decoder(Duration::ZERO);
        let since = Instant::now();
        for second in 0.. {
            if decoder.push(&frame(second)) == Pushed::Dropped {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(60), "{second} frames wait");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
