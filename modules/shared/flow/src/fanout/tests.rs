//! A protocol for tests: each message is its type, its time and its length, and then its body.

use std::sync::Arc;
use std::time::Duration;

use av_media::{Frame, Kind, Timestamp, Track};

use super::pieces::{Pieces, Place};
use super::{PieceWriter, View, Wire};
use crate::stream::{Aside, Tracks};

pub(super) const ABOUT: u8 = 18;
pub(super) const AUDIO: u8 = 8;
pub(super) const VIDEO: u8 = 9;
pub(super) const ASIDE: u8 = 15;
/// In front of each body: the configuration of a track, or a frame.
const CONFIG: u8 = 0;
const FRAME: u8 = 1;

#[derive(Default)]
pub(super) struct Toy {
    about: Option<Aside>,
    told: Option<Aside>,
}

impl Toy {
    fn message(
        out: &mut PieceWriter,
        kind: u8,
        (time, zero): (Timestamp, Timestamp),
        first: u8,
        length: usize,
    ) {
        let time = u32::try_from((time.millis() - zero.millis()).max(0)).unwrap();
        out.copy(&[kind]);
        out.copy(&time.to_be_bytes());
        out.copy(&u32::try_from(length + 1).unwrap().to_be_bytes());
        out.copy(&[first]);
    }

    fn kind(kind: Kind) -> u8 {
        match kind {
            Kind::Video => VIDEO,
            Kind::Audio => AUDIO,
        }
    }
}

impl Wire for Toy {
    type Packed = ();

    const EPOCH: Duration = Duration::from_secs(600);

    fn note(&mut self, aside: &Aside) -> bool {
        if aside.keep_latest {
            self.about = Some(aside.clone());
        }
        !aside.keep_latest
    }

    fn take_news(&mut self) -> bool {
        let news = self.told != self.about;
        self.told.clone_from(&self.about);
        news
    }

    fn forget(&mut self) {
        self.about = None;
    }

    fn pack(&mut self, _: &Track, _: &Frame) {}

    fn start(&mut self, out: &mut PieceWriter, tracks: &Arc<Tracks>, at: Timestamp, view: View) {
        let zero = view.zero;
        Self::message(out, ABOUT, (at, zero), CONFIG, 0);
        for track in tracks.iter() {
            Self::message(out, Self::kind(track.kind()), (at, zero), CONFIG, 0);
        }
    }

    fn frame(&self, out: &mut PieceWriter, _: &Track, frame: &Frame, (): &(), view: View) {
        Self::message(out, Self::kind(frame.kind), (frame.dts, view.zero), FRAME, frame.data.len());
        out.share(&frame.data, 0..frame.data.len());
    }

    fn aside(&self, out: &mut PieceWriter, _: &Tracks, aside: &Aside, view: View) {
        Self::message(out, ASIDE, (aside.time.unwrap(), view.zero), FRAME, 0);
    }
}

struct Message<'a> {
    kind: u8,
    time: u32,
    body: &'a [u8],
}

/// Fails on anything but whole messages.
fn messages(bytes: &[u8]) -> Vec<Message<'_>> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while let [kind, a, b, c, d, e, f, g, h, after @ ..] = rest {
        let length = u32::from_be_bytes([*e, *f, *g, *h]) as usize;
        assert!(after.len() >= length, "{} of {length} bytes of a message of type {kind}", after.len());
        let (body, after) = after.split_at(length);
        found.push(Message { kind: *kind, time: u32::from_be_bytes([*a, *b, *c, *d]), body });
        rest = after;
    }
    assert!(rest.is_empty(), "{} bytes of a header", rest.len());
    found
}

/// The messages in some bytes, by type and time.
pub(super) fn times(bytes: &[u8]) -> Vec<(u8, u32)> {
    messages(bytes).into_iter().map(|message| (message.kind, message.time)).collect()
}

/// Pictures in some bytes, by what fills them.
pub(super) fn pictures(bytes: &[u8]) -> Vec<u8> {
    let pictures =
        messages(bytes).into_iter().filter(|message| message.kind == VIDEO && message.body[0] == FRAME);
    pictures.map(|message| *message.body.last().unwrap()).collect()
}

/// All of some pieces.
pub(super) fn whole(pieces: &Pieces) -> Vec<u8> {
    pieces.flat(Place::default()).into()
}
