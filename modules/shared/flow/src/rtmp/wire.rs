//! RTMP for many players at once.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use av_media::{Frame, Timestamp, Track};
use av_rtmp::Egress;
use av_rtmp::chunk::{MAX_LENGTH, Out};
use bytes::Bytes;

use super::incoming::{Description, Message, completed, write_headers};
use crate::fanout::{PieceWriter, View, Wire};
use crate::stream::{Aside, Tracks};

/// Bytes of a frame at most: a message has 24 bits for its length, and the frame has a header of eight bytes at most.
pub(super) const MAX_FRAME: usize = MAX_LENGTH - 8;

/// What all players of a stream are sent.
pub(super) struct Players {
    egress: Egress,
    /// What the publisher said of the stream, and what players were told of that.
    description: Option<Arc<Description>>,
    told: Option<Arc<Description>>,
    completed: Option<Completed>,
}

/// `onMetaData` of some tracks and what the publisher said of them: to read and write it takes time, and it may be
/// large.
struct Completed {
    tracks: Arc<Tracks>,
    description: Option<Arc<Description>>,
    metadata: Bytes,
}

impl Players {
    pub(super) const fn new() -> Self {
        Self { egress: Egress::players(), description: None, told: None, completed: None }
    }
}

impl Wire for Players {
    type Packed = ();

    const EPOCH: Duration = Duration::from_secs(10 * 60);
    const MOST: usize = MAX_FRAME;

    fn carries(track: &Track) -> bool {
        Egress::carries(track)
    }

    fn note(&mut self, aside: &Aside) -> bool {
        match Message::of(aside) {
            Some(Message::Description(description)) => {
                self.description = Some(description);
                false
            }
            Some(Message::Passing(..)) => true,
            None => false,
        }
    }

    fn forget(&mut self) {
        // The next publisher has one of its own, or none.
        self.description = None;
    }

    fn take_news(&mut self) -> bool {
        let news = !same(self.told.as_ref(), self.description.as_ref()) && self.told != self.description;
        self.told.clone_from(&self.description);
        news
    }

    fn pack(&mut self, _: &Track, _: &Frame) {}

    fn start(&mut self, out: &mut PieceWriter, tracks: &Arc<Tracks>, at: Timestamp, view: View) {
        let said = self.description.as_ref();
        let known = self
            .completed
            .take()
            .filter(|known| Arc::ptr_eq(&known.tracks, tracks) && same(known.description.as_ref(), said));
        let known = self.completed.insert(known.unwrap_or_else(|| Completed {
            tracks: tracks.clone(),
            description: said.cloned(),
            metadata: completed(tracks, said.map(AsRef::as_ref)),
        }));
        let said = said.map(AsRef::as_ref);
        write_headers(&self.egress, out, tracks, (said, &known.metadata), wire(at, view.zero));
    }

    fn frame(&self, out: &mut PieceWriter, track: &Track, frame: &Frame, (): &(), view: View) {
        self.egress.frame(out, track, frame, wire(frame.dts, view.zero));
    }

    fn aside(&self, out: &mut PieceWriter, tracks: &Tracks, aside: &Aside, view: View) {
        if let Some(Message::Passing(body, time)) = Message::of(aside) {
            body.write(&self.egress, out, tracks, wire(time, view.zero));
        }
    }
}

/// Whether both are one; two that say the same may be two.
fn same(one: Option<&Arc<Description>>, other: Option<&Arc<Description>>) -> bool {
    one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
}

impl Out for PieceWriter {
    /// The payload, which is most of it, takes no room.
    fn reserve(&mut self, _: usize) {}

    fn copy(&mut self, bytes: &[u8]) {
        self.copy(bytes);
    }

    fn share(&mut self, payload: &Bytes, range: Range<usize>) {
        self.share(payload, range);
    }
}

/// A player's time: 32 bits of milliseconds since its zero, wrapping. Distances are those of the milliseconds that
/// came in, however the zero is rounded.
fn wire(time: Timestamp, zero: Timestamp) -> u32 {
    (time.millis() - zero.millis()).max(0) as u32
}

#[cfg(test)]
mod tests;
