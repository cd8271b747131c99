//! A decoder that takes another's place begins at the last sync frame that the stream still has, so that the picture is
//! back at once rather than with the next sync frame. What is past is shown as to whoever joins: now and then, until it
//! is live.

use av_flow::config::Content;
use av_flow::stream::Item;
use futures_util::FutureExt;

use super::Rendering;
use crate::decode::Pushed;
use crate::stage::locked;

/// A sync frame, by its decoding time in nanoseconds, and the ways to decode that began at it once more.
#[derive(Debug, Default)]
pub(super) struct Begun {
    sync: Option<i64>,
    chains: Vec<String>,
}

impl Begun {
    /// Whether this way may begin at this sync frame: once, since a frame that it can't stand would end it each time.
    fn may(&mut self, sync: i64, chain: &str) -> bool {
        if self.sync != Some(sync) {
            *self = Self { sync: Some(sync), chains: Vec::new() };
        }
        let is_first = !self.chains.iter().any(|begun| begun == chain);
        if is_first {
            self.chains.push(chain.to_owned());
        }
        is_first
    }
}

impl Rendering {
    /// Starts a decoder in the middle of a stream.
    pub(super) fn replace_picture(&mut self) {
        self.start_picture();
        self.catch_up();
    }

    /// Hands the new decoder what the stream has from its last sync frame to where this output is.
    fn catch_up(&mut self) {
        let Some(until) = self.fed_until.filter(|_| locked(&self.stage.signal).there) else { return };
        let Some((ways, Some(decoder))) = &mut self.video else { return };
        let mut reader = self.output.stream.reader(Content::VideoOnly);
        let (mut entries, mut fits, mut begun) = (Vec::new(), true, false);
        // What is there already, and no more.
        while reader.recv(&mut entries).now_or_never().is_some() {
            for entry in entries.drain(..) {
                match entry.item {
                    Item::Tracks(tracks) => {
                        fits = tracks.video.as_ref().is_some_and(|track| track.decodes_like(&ways.track));
                    }
                    Item::Lost(_) => decoder.skip(),
                    Item::Frame(frame) if fits => {
                        let dts = frame.dts.nanos();
                        // The rest comes by itself.
                        if dts > until {
                            return;
                        }
                        if !begun && !self.begun.may(dts, &decoder.candidate.chain) {
                            return;
                        }
                        begun = true;
                        if decoder.push(&frame) == Pushed::Taken {
                            self.stage.counts.fed(self.stage.clock.now());
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_decode_begins_at_a_sync_frame_once_more_and_not_again() {
        let mut begun = Begun::default();
        assert!(begun.may(0, "vah264dec"));
        assert!(begun.may(0, "avdec_h264"));
        assert!(!begun.may(0, "vah264dec"));
        assert!(!begun.may(0, "avdec_h264"));
        assert!(begun.may(2_000_000_000, "avdec_h264"));
        assert!(!begun.may(2_000_000_000, "avdec_h264"));
    }
}
