//! What an output tells of itself: state and reason, counters, details of `getStatus`, events.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use av_edge::EventKind;
use av_flow::stream::State;
use av_flow::{Reason, Trouble};
use av_media::Kind;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::decoding::Decoding;
use super::{Rendering, STILL};
use crate::codec::Candidate;
use crate::stage::locked;
use crate::watch::{Frozen, frozen};

/// A picture that stands still for so long is told of.
const FROZEN: i64 = 5_000_000_000;

/// Sound is heard again once nothing has been wrong for so long: the device is tried every two seconds.
const HEARD: Duration = Duration::from_secs(5);
/// A reason stays for so long, though the next try may end in another way.
const SAME: Duration = Duration::from_secs(60);

/// Sound that is not heard, which does not change the output's state.
pub(super) struct Unheard {
    said: String,
    since: Instant,
    /// When something was last wrong.
    last: Instant,
}

impl Unheard {
    /// What is to be said after a look that found `why`, or nothing wrong.
    fn after(before: Option<Self>, why: Option<String>, now: Instant) -> Option<Self> {
        match (before, why) {
            (None, why) => Some(Self { said: why?, since: now, last: now }),
            (Some(before), Some(why)) => {
                let is_stale = now.saturating_duration_since(before.since) >= SAME && why != before.said;
                let (said, since) = if is_stale { (why, now) } else { (before.said, before.since) };
                Some(Self { said, since, last: now })
            }
            (Some(before), None) => (now.saturating_duration_since(before.last) < HEARD).then_some(before),
        }
    }
}

impl Rendering {
    /// Tells of a picture that stands still, once each time.
    pub(super) fn watch(&mut self) {
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
    pub(super) fn count(&mut self) {
        let (status, counts) = (&self.output.status, &self.stage.counts);
        let rendered = counts.rendered.load(Ordering::Relaxed);
        let dropped = counts.dropped.load(Ordering::Relaxed);
        let [rendered_before, dropped_before] = std::mem::replace(&mut self.counted, [rendered, dropped]);
        let since = std::mem::replace(&mut self.counted_at, Instant::now());
        let seconds = self.counted_at.saturating_duration_since(since).as_secs_f64();
        if seconds > 0.0 {
            self.pace = rendered.saturating_sub(rendered_before) as f64 / seconds;
        }
        status.frames.add(Kind::Video, rendered.saturating_sub(rendered_before));
        status.dropped.add(Kind::Video, dropped.saturating_sub(dropped_before));
        if rendered > rendered_before {
            let delay = locked(&self.stage.timing).latency() + counts.late.load(Ordering::Relaxed);
            let delay = Duration::from_nanos(u64::try_from(delay).unwrap_or(0));
            status.latency.observe(delay);
            for _ in rendered_before..rendered {
                self.latency.observe(delay.as_secs_f64());
            }
        }
        *locked(&status.details) = self.details();
    }

    /// What only a renderer tells.
    fn details(&self) -> Map<String, Value> {
        let stage = &self.stage;
        let now = stage.clock.now();
        let mut map = Map::new();
        let mut tell = |name: &str, value: Value| map.insert(name.to_owned(), value);
        if let Some(Decoding { ways, running: Some(decoder), .. }) = &self.video {
            let Candidate { element, hardware, .. } = decoder.candidate;
            let mut told = json!({ "element": element, "hardware": hardware });
            if let (Some(why), Some(told)) = (ways.refused(), told.as_object_mut()) {
                told.insert("insteadOf".to_owned(), why.into());
            }
            tell("decoder", told);
        }
        if let Some(sink) = *locked(&stage.sink) {
            tell("sink", sink.into());
        }
        let counts = &stage.counts;
        tell("rendered", counts.rendered.load(Ordering::Relaxed).into());
        tell("renderedFps", (self.pace.round() as u64).into());
        tell("displayOpened", counts.opened.load(Ordering::Relaxed).into());
        if let Some(at) = counts.last_rendered() {
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
        tell("steps", timing.jumps().into());
        tell("resampledPpm", ((timing.rate() * 1e6).round() as i64).into());
        if stage.config.audio.is_some() {
            if self.audio.is_some() {
                let picture = counts.late.load(Ordering::Relaxed);
                let sound = self.sound_state.off.load(Ordering::Relaxed);
                tell("avOffsetMilliseconds", ((picture - sound) / 1_000_000).into());
            }
            tell("audio", self.audio_report());
        }
        map
    }

    fn audio_report(&self) -> Value {
        match self.undecoded() {
            Some(error) => json!({ "state": "failed", "error": error }),
            None => self.sound_state.report(locked(&self.stage.signal).there && self.audio.is_some()),
        }
    }

    /// Why nothing decodes the sound.
    fn undecoded(&self) -> Option<&str> {
        self.audio.as_ref().filter(|audio| audio.running.is_none())?.ways.error.as_deref()
    }

    /// State and reason.
    pub(super) fn report(&mut self) {
        let path = format!("{}.render", self.output.path);
        let trouble = |reason, why: String| Some(Trouble::new(reason, format!("{path}: {why}")));
        let screen = locked(&self.stage.trouble).clone();
        let signal = locked(&self.stage.signal).clone();
        let decoding = self.video.as_ref().and_then(|decoding| decoding.ways.error.clone());
        let sound = self.audio.as_ref().and_then(|decoding| decoding.ways.error.clone());
        let has_picture = self.stage.counts.rendered.load(Ordering::Relaxed) > 0;
        let (state, trouble) = if let Some(why) = screen {
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
        self.tell_of_sound(&path);
    }

    /// Sound that is not heard costs the picture nothing, and still is something wrong.
    fn tell_of_sound(&mut self, path: &str) {
        let failed = || self.undecoded().map(str::to_owned).or_else(|| self.sound_state.error());
        let failed = self.stage.config.audio.as_ref().and_then(|_| failed());
        let unheard = Unheard::after(self.unheard.take(), failed, Instant::now());
        let remark =
            unheard.as_ref().map(|Unheard { said, .. }| format!("{path}: there is no sound: {said}"));
        self.output.status.status.remark(remark);
        self.unheard = unheard;
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

/// UTC, to the millisecond.
fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| format!("{time:.3}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_missing_sound_neither_flickers_with_each_try_nor_changes_with_its_reason() {
        let (began, mut unheard) = (Instant::now(), None);
        let mut look = |seconds, why: Option<&str>| {
            let now = began + Duration::from_secs(seconds);
            unheard = Unheard::after(unheard.take(), why.map(str::to_owned), now);
            unheard.as_ref().map(|unheard| unheard.said.clone())
        };
        assert_eq!(look(0, None), None);
        assert_eq!(look(1, Some("no device")).as_deref(), Some("no device"));
        // A try.
        assert_eq!(look(3, None).as_deref(), Some("no device"));
        assert_eq!(look(5, Some("it is busy")).as_deref(), Some("no device"));
        assert_eq!(look(62, Some("it is busy")).as_deref(), Some("it is busy"));
        assert_eq!(look(66, None).as_deref(), Some("it is busy"));
        assert_eq!(look(67, None), None);
    }
}
