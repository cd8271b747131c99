//! A decoder that takes another's place begins at the last sync frame that the stream still has, so that the picture is
//! back at once rather than with the next sync frame. What is past is shown as to whoever joins: now and then, until it
//! is live.

use std::sync::atomic::Ordering;

use av_flow::config::Content;
use av_flow::stream::Item;
use av_media::{Frame, Kind};
use futures_util::FutureExt;

use super::Rendering;
use super::decoding::Decoding;
use crate::decode::Pushed;
use crate::stage::locked;

/// Which pictures decoders were given. Times are those of decoding, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    /// The last one that came.
    came: Option<i64>,
    /// The last one that a decoder took.
    taken: Option<i64>,
    /// So many have come since while there was no decoder: they may be caught up with.
    missed: u64,
    begun: Begun,
}

/// A sync frame, and the ways to decode that began at it once more.
#[derive(Debug, Default)]
struct Begun {
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
    /// Hands the decoder a picture. Where there is none it stays in the stream.
    pub(super) fn picture(&mut self, frame: &Frame) {
        let (dts, now) = (frame.dts.nanos(), self.stage.clock.now());
        self.stage.counts.received(now);
        self.pictures.came = Some(dts);
        match self.decoder().map(|decoder| decoder.push(frame)) {
            Some(Pushed::Taken) => {
                self.pictures.taken = Some(dts);
                self.stage.counts.fed(now);
            }
            Some(Pushed::Dropped) => self.output.status.dropped.add(Kind::Video, 1),
            None => {
                if frame.is_sync {
                    self.give_up();
                }
                self.pictures.missed += 1;
                if self.is_starting() {
                    // It is the decoder that stands still, and nothing waits for a sync frame.
                    self.stage.counts.fed(now);
                }
            }
        }
    }

    /// What was missed is not caught up with any more.
    pub(super) fn give_up(&mut self) {
        let missed = std::mem::take(&mut self.pictures.missed);
        self.output.status.dropped.add(Kind::Video, missed);
    }

    /// Starts a decoder in the middle of a stream.
    pub(super) fn replace_picture(&mut self) {
        if self.start_picture() {
            self.catch_up();
            self.give_up();
        }
    }

    /// Hands the new decoder what the stream has from its last sync frame to where this output is.
    fn catch_up(&mut self) {
        let Some(until) = self.pictures.came.filter(|_| locked(&self.stage.signal).there) else { return };
        let Some(Decoding { ways, running: Some(decoder), .. }) = &mut self.video else { return };
        let before = self.pictures.taken;
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
                        if !begun && !self.pictures.begun.may(dts, &decoder.candidate.chain) {
                            return;
                        }
                        begun = true;
                        if decoder.push(&frame) == Pushed::Dropped {
                            continue;
                        }
                        self.stage.counts.fed(self.stage.clock.now());
                        if before.is_some_and(|before| dts <= before) {
                            self.stage.counts.again.fetch_add(1, Ordering::Relaxed);
                        } else {
                            self.pictures.taken = Some(dts);
                            self.pictures.missed = self.pictures.missed.saturating_sub(1);
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
