//! Frames that an output's protocol cannot carry.

use std::time::{Duration, Instant};

use av_media::{Frame, Kind, Track};

use crate::endpoint::OutputContext;
use crate::stream::{State, Tracks};
use crate::trouble::{Reason, Trouble};

/// Where no picture can be sent for that long, the output does not work.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last frame that was left out is told of.
const TOLD: Duration = Duration::from_secs(60);

/// Leaves out frames that are too large, and pictures behind one, which need it, up to the next that a decoder can start
/// at. All of them are counted, and the output's state says why.
#[derive(Debug)]
pub struct Fitting {
    /// Bytes of a frame at most.
    most: usize,
    /// Since when pictures are of no use, before the next that a decoder can start at.
    skipping: Option<Instant>,
    /// Until when it is told that frames were left out.
    told: Option<Instant>,
}

impl Fitting {
    /// For a protocol that carries frames of so many bytes at most.
    pub const fn new(most: usize) -> Self {
        Self { most, skipping: None, told: None }
    }

    /// Whether a frame can be sent. `starts`: a decoder can start at it.
    pub fn admits(&mut self, frame: &Frame, starts: bool, output: &OutputContext, now: Instant) -> bool {
        let (size, is_picture) = (frame.data.len(), frame.kind == Kind::Video);
        if size > self.most {
            if is_picture {
                self.skipping.get_or_insert(now);
            }
            output.status.dropped.add(frame.kind, 1);
            self.tell(frame, output, now);
            return false;
        }
        let status = &output.status.status;
        if is_picture && let Some(since) = self.skipping {
            if !starts {
                output.status.dropped.add(frame.kind, 1);
                if now.saturating_duration_since(since) >= PATIENCE {
                    status.set(State::Retrying, status.get().trouble);
                }
                return false;
            }
            self.skipping = None;
            // Pictures leave again; what was lost is told for a while.
            status.set(State::Running, status.get().trouble);
        }
        if self.skipping.is_none() && self.told.is_some_and(|until| until <= now) {
            self.told = None;
            status.set(State::Running, None);
        }
        true
    }

    fn tell(&mut self, frame: &Frame, output: &OutputContext, now: Instant) {
        let (kind, size, most) = (frame.kind.as_str(), frame.data.len(), self.most);
        let text = format!(
            "{}: {kind} frames of {size} bytes are left out: at most {most} can be sent",
            output.path
        );
        if self.told.is_none() {
            tracing::warn!(path = %output.path, "{kind} frames of {size} bytes are left out: at most {most} can be sent");
        }
        self.told = Some(now + TOLD);
        let stands = self.skipping.is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE);
        let state = if stands { State::Retrying } else { State::Running };
        output.status.status.set(state, Some(Trouble::new(Reason::Content, text)));
    }
}

/// Says how an output does whose protocol may have no word for a track: without that track it works, and with none not at
/// all.
pub fn tell_tracks(tracks: &Tracks, output: &OutputContext, carries: impl Fn(&Track) -> bool) {
    let mut left_out = tracks.iter().filter(|track| !carries(track)).peekable();
    let (path, status) = (&output.path, &output.status.status);
    if left_out.peek().is_none() {
        status.set(State::Running, None);
        return;
    }
    let names: Vec<_> =
        left_out.map(|track| format!("{} ({})", track.kind().as_str(), track.codec_string)).collect();
    let all = names.len() == tracks.iter().count();
    let text = format!("{path}: left out, because the protocol has no word for it: {}", names.join(", "));
    let trouble = Some(Trouble::new(Reason::Content, text.clone()));
    if status.get().trouble != trouble {
        tracing::warn!("{text}");
    }
    status.set(if all { State::Waiting } else { State::Running }, trouble);
}

#[cfg(test)]
mod tests {
    use av_media::Timestamp;
    use bytes::Bytes;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::Content;
    use crate::rtmp::peer::{module, stream};
    use crate::stream::{Changes, OutputStatus};

    fn frame(kind: Kind, is_sync: bool, size: usize) -> Frame {
        let time = Timestamp::ZERO;
        Frame { kind, dts: time, pts: time, is_sync, data: Bytes::from(vec![0; size]) }
    }

    #[tokio::test]
    async fn frames_that_are_too_large_are_left_out_with_the_pictures_that_need_them_and_the_state_says_so() {
        let output = OutputContext {
            module: module(),
            flow: "dock".into(),
            output: "cloud".into(),
            path: "flows.dock.outputs.cloud".into(),
            of_instance: false,
            stream: stream(),
            content: Content::AudioVideo,
            status: OutputStatus::new(Changes::default()),
            cancel: CancellationToken::new(),
        };
        let now = Instant::now();
        let mut fitting = Fitting::new(100);
        let mut admits =
            |kind, is_sync, size, now| fitting.admits(&frame(kind, is_sync, size), is_sync, &output, now);
        let state = || output.status.status.get();
        output.status.status.set(State::Running, None);
        assert!(admits(Kind::Video, true, 100, now) && state().trouble.is_none());

        assert!(!admits(Kind::Video, true, 101, now));
        assert!(!admits(Kind::Video, false, 10, now));
        assert!(admits(Kind::Audio, true, 10, now));
        assert_eq!(state().state, State::Running);
        let text = state().trouble.unwrap().text;
        assert_eq!(
            text,
            "flows.dock.outputs.cloud: video frames of 101 bytes are left out: at most 100 can be sent"
        );
        assert_eq!(output.status.dropped.get(Kind::Video), 2);

        // While none can be sent, the output does not work.
        assert!(!admits(Kind::Video, false, 10, now + PATIENCE));
        assert_eq!(state().state, State::Retrying);
        assert!(!admits(Kind::Video, true, 101, now + PATIENCE));
        assert_eq!(state().state, State::Retrying);

        // From the next one on that decoding can start at, pictures leave again; it is told for a minute.
        assert!(admits(Kind::Video, true, 10, now) && admits(Kind::Video, false, 10, now));
        assert_eq!((state().state, state().trouble.is_some()), (State::Running, true));
        assert!(admits(Kind::Video, false, 10, now + PATIENCE + TOLD));
        assert_eq!((state().state, state().trouble), (State::Running, None));
    }
}
