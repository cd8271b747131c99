use av_media::{Timestamp, Track};
use av_rtmp::{MediaItem, Metadata};

use super::*;
use crate::rtmp::incoming::Intake;
use crate::stream::Incoming;

/// A real avcC: 640x360, high profile.
const AVCC: &[u8] = &[1, 100, 0, 30, 0xff, 0xe1, 0, 4, 0x67, 100, 0, 30, 1, 0, 1, 0x68];

fn tracks() -> Item {
    let video = Track::h264(Bytes::from_static(AVCC)).unwrap();
    let audio = Track::aac(Bytes::from_static(&[0x11, 0x90])).unwrap();
    Item::Tracks(Arc::new(Tracks { video: Some(video.into()), audio: Some(audio.into()) }))
}

fn frame(kind: Kind, millis: i64, is_sync: bool) -> Item {
    let time = Timestamp::from_millis(millis);
    let data = Bytes::from(vec![kind as u8 + 1; 100]);
    Item::Frame(Frame { kind, dts: time, pts: time, is_sync, data })
}

fn idr(millis: i64) -> Item {
    frame(Kind::Video, millis, true)
}

fn delta(millis: i64) -> Item {
    frame(Kind::Video, millis, false)
}

fn sound(millis: i64) -> Item {
    frame(Kind::Audio, millis, true)
}

fn packer() -> Packer {
    Packer::new(Egress::players(), Duration::ZERO)
}

impl Packer {
    /// As the serving task does with entries that come one at a time.
    fn feed(&mut self, items: impl IntoIterator<Item = Item>) -> Vec<Flush> {
        let (mut flushes, now) = (Vec::new(), Instant::now());
        for item in items {
            let has_video = self.tracks.as_ref().is_some_and(|tracks| tracks.video.is_some());
            let starts = matches!(&item, Item::Frame(frame) if match frame.kind {
                Kind::Video => frame.is_sync,
                Kind::Audio => !has_video,
            });
            let entry = Entry { item, arrived: now.into(), starts };
            if self.must_flush_before(&entry) {
                flushes.extend(self.flush());
            }
            self.take(entry, now);
            if self.is_due(now) {
                flushes.extend(self.flush());
            }
        }
        flushes
    }
}

/// The wire times of the messages in some bytes, by message type: every message here fits one chunk.
fn times(bytes: &[u8]) -> Vec<(u8, u32)> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while let [_, a, b, c, d, e, f, kind, _, _, _, _, body @ ..] = rest {
        let length = u32::from_be_bytes([0, *d, *e, *f]) as usize;
        found.push((*kind, u32::from_be_bytes([0, *a, *b, *c])));
        rest = &body[length..];
    }
    assert!(rest.is_empty());
    found
}

const AUDIO: u8 = 8;
const VIDEO: u8 = 9;
const DATA: u8 = 18;

#[test]
fn a_picture_leaves_at_once_and_takes_the_sound_that_waits() {
    let mut packer = packer();
    let player = packer.join(true);
    assert!(player.burst.is_empty());
    let flushes = packer.feed([tracks(), idr(0), sound(10), sound(31), delta(33), sound(52)]);
    let sent: Vec<_> =
        flushes.iter().map(|flush| times(&flush.part(player.seat.epoch).unwrap().bytes)).collect();
    let [headers, first, second] = [&sent[0][..3], &sent[0][3..], &sent[1][..]];
    assert_eq!(headers.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [DATA, VIDEO, AUDIO]);
    assert_eq!(first, [(VIDEO, 0)]);
    assert_eq!(second, [(AUDIO, 10), (AUDIO, 31), (VIDEO, 33)]);
    assert_eq!(sent.len(), 2);
    // The last sound waits, but not for ever.
    let due = packer.due().unwrap();
    assert!(!packer.is_due(due - Duration::from_millis(1)) && packer.is_due(due));
    assert!(due <= Instant::now() + Duration::from_millis(40));
}

#[test]
fn who_joins_gets_headers_and_the_gop_so_far_near_time_zero() {
    let mut packer = packer();
    let base = (1_i64 << 32) - 10_000;
    packer.feed([tracks(), idr(base), delta(base + 40), idr(base + 80), delta(base + 120)]);
    let player = packer.join(true);
    let burst: Vec<_> = player.burst.iter().flat_map(|bytes| times(bytes)).collect();
    assert_eq!(burst[3..], [(VIDEO, 0), (VIDEO, 40)]);
    let flushes = packer.feed([delta(base + 160)]);
    assert_eq!(times(&flushes[0].part(player.seat.epoch).unwrap().bytes), [(VIDEO, 80)]);
}

#[test]
fn two_who_join_one_gop_share_its_bytes() {
    let mut packer = packer();
    packer.feed([tracks(), idr(0), delta(40)]);
    let (one, two) = (packer.join(true), packer.join(true));
    assert_eq!(one.seat.epoch, two.seat.epoch);
    assert_eq!(one.burst[1].as_ptr(), two.burst[1].as_ptr());
    packer.feed([delta(80)]);
    let three = packer.join(true);
    assert_eq!(three.burst[1].as_ptr(), one.burst[1].as_ptr());
    assert_eq!(times(&three.burst[2]), [(VIDEO, 80)]);
}

#[test]
fn ten_minutes_later_another_epoch_begins_and_the_first_goes_on() {
    let mut packer = packer();
    packer.feed([tracks(), idr(0)]);
    let first = packer.join(true);
    packer.feed([idr(600_000)]);
    let second = packer.join(true);
    assert_ne!(first.seat.epoch, second.seat.epoch);
    let flush = packer.feed([delta(600_040)]).pop().unwrap();
    assert_eq!(times(&flush.part(first.seat.epoch).unwrap().bytes), [(VIDEO, 600_040)]);
    assert_eq!(times(&flush.part(second.seat.epoch).unwrap().bytes), [(VIDEO, 40)]);
    // An epoch without players costs nothing.
    let epoch = first.seat.epoch;
    drop(first);
    assert!(packer.feed([delta(600_080)]).pop().unwrap().part(epoch).is_none());
}

#[test]
fn with_live_a_player_waits_for_the_next_sync_frame() {
    let mut packer = packer();
    packer.feed([tracks(), idr(0), delta(40)]);
    let player = packer.join(false);
    assert!(player.burst.is_empty());
    assert!(packer.feed([delta(80)]).pop().unwrap().part(player.seat.epoch).is_none());
    let flush = packer.feed([idr(120)]).pop().unwrap();
    let part = flush.part(player.seat.epoch).unwrap();
    assert!(flush.sync && !part.headers.is_empty());
    assert_eq!(times(&part.bytes), [(VIDEO, 0)]);
}

#[test]
fn a_player_may_start_at_the_sound_before_the_first_picture_and_at_no_other() {
    let mut packer = packer();
    packer.feed([tracks()]);
    let now = Instant::now();
    packer.take(Entry { item: sound(0), arrived: now.into(), starts: true }, now);
    assert!(packer.flush().unwrap().sync);
    assert!(packer.feed([idr(40)])[0].sync);
    packer.feed([sound(60)]);
    assert!(!packer.flush().unwrap().sync);
}

#[test]
fn a_change_of_tracks_is_told_to_everybody_with_the_next_flush() {
    let mut packer = packer();
    packer.feed([tracks(), idr(0)]);
    let player = packer.join(true);
    let other = Track::aac(Bytes::from_static(&[0x12, 0x10])).unwrap();
    let Item::Tracks(before) = tracks() else { unreachable!() };
    let after = Tracks { audio: Some(other.into()), ..(*before).clone() };
    let flushes = packer.feed([Item::Tracks(Arc::new(after)), delta(40)]);
    let sent = times(&flushes[0].part(player.seat.epoch).unwrap().bytes);
    assert_eq!(sent, [(DATA, 40), (VIDEO, 40), (AUDIO, 40), (VIDEO, 40)]);
    assert!(!flushes[0].sync);
    // Nobody starts in the middle of pictures that came under other headers.
    assert!(packer.join(true).burst.is_empty());
}

#[test]
fn pictures_are_held_back_when_the_output_says_so() {
    let mut packer = Packer::new(Egress::players(), Duration::from_millis(300));
    let flushes = packer.feed([tracks(), idr(0), delta(40), delta(80)]);
    assert!(flushes.is_empty());
    let flushes = packer.feed([idr(120)]);
    assert_eq!(flushes[0].pictures, 3);
}

#[test]
fn who_joins_after_new_metadata_still_gets_the_gop() {
    let mut packer = packer();
    packer.feed([tracks(), idr(1000), delta(1040)]);
    let mut intake = Intake::default();
    let metadata = Metadata { width: Some(320.0), ..Metadata::default() };
    intake.take(MediaItem::Metadata(metadata), |item| {
        if let Incoming::Aside(aside) = item {
            packer.feed([Item::Aside(aside)]);
        }
    });
    packer.feed([delta(1080)]);
    let burst = packer.join(true).burst;
    assert_eq!(times(&burst[1]), [(9, 0), (9, 40), (9, 80)]);
}
