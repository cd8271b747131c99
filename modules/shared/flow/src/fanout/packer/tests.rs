use bytes::Bytes;

use super::*;
use crate::fanout::pieces::Place;
use crate::fanout::tests::{ABOUT, ASIDE, AUDIO, Toy, VIDEO, times, whole};

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

fn aside(millis: i64) -> Item {
    let time = Some(Timestamp::from_millis(millis));
    Item::Aside(Aside { time, content: Arc::new("onText"), size: 6, keep_latest: false })
}

fn packer() -> Packer<Toy> {
    Packer::new(Toy::default(), Duration::ZERO)
}

impl Packer<Toy> {
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
                flushes.extend(self.flush(Instant::now()));
            }
            self.take(entry, now);
            if self.is_due(now) {
                flushes.extend(self.flush(Instant::now()));
            }
        }
        flushes
    }
}

#[test]
fn a_picture_leaves_at_once_and_takes_the_sound_that_waits() {
    let mut packer = packer();
    let player = packer.join(Join::Instant, 0);
    assert!(player.burst.is_empty());
    let flushes = packer.feed([tracks(), idr(0), sound(10), sound(31), delta(33), sound(52)]);
    let sent: Vec<_> =
        flushes.iter().map(|flush| times(&whole(&flush.part(&player.seat).unwrap().pieces))).collect();
    let [headers, first, second] = [&sent[0][..3], &sent[0][3..], &sent[1][..]];
    assert_eq!(headers.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [ABOUT, VIDEO, AUDIO]);
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
    let player = packer.join(Join::Instant, 0);
    let burst: Vec<_> = player.burst.iter().flat_map(|pieces| times(&whole(pieces))).collect();
    assert_eq!(burst[3..], [(VIDEO, 0), (VIDEO, 40)]);
    let flushes = packer.feed([delta(base + 160)]);
    assert_eq!(times(&whole(&flushes[0].part(&player.seat).unwrap().pieces)), [(VIDEO, 80)]);
}

#[test]
fn two_who_join_one_gop_share_its_bytes() {
    let mut packer = packer();
    packer.feed([tracks(), idr(0), delta(40)]);
    let (one, two) = (packer.join(Join::Instant, 0), packer.join(Join::Instant, 0));
    assert_eq!(one.seat.epoch, two.seat.epoch);
    assert_eq!(Arc::as_ptr(&one.burst[1]), Arc::as_ptr(&two.burst[1]));
    packer.feed([delta(80)]);
    let three = packer.join(Join::Instant, 0);
    assert_eq!(Arc::as_ptr(&three.burst[1]), Arc::as_ptr(&one.burst[1]));
    assert_eq!(times(&whole(&three.burst[2])), [(VIDEO, 80)]);
}

#[test]
fn ten_minutes_later_another_epoch_begins_and_the_first_goes_on() {
    let mut packer = packer();
    packer.feed([tracks(), idr(0)]);
    let first = packer.join(Join::Instant, 0);
    packer.feed([idr(600_000)]);
    let second = packer.join(Join::Instant, 0);
    assert_ne!(first.seat.epoch, second.seat.epoch);
    let flush = packer.feed([delta(600_040)]).pop().unwrap();
    assert_eq!(times(&whole(&flush.part(&first.seat).unwrap().pieces)), [(VIDEO, 600_040)]);
    assert_eq!(times(&whole(&flush.part(&second.seat).unwrap().pieces)), [(VIDEO, 40)]);
    // An epoch without players costs nothing.
    let index = first.seat.index;
    drop(first);
    assert!(packer.feed([delta(600_080)]).pop().unwrap().parts.get(index).is_none_or(Option::is_none));
    // Its place is taken by the next, whose players get nothing that was made for it.
    packer.feed([idr(1_200_000)]);
    let third = packer.join(Join::Instant, 0);
    assert_eq!(third.seat.index, index);
    assert!(flush.part(&third.seat).is_none());
}

#[test]
fn with_live_a_player_waits_for_the_next_sync_frame() {
    let mut packer = packer();
    packer.feed([tracks(), idr(0), delta(40)]);
    let player = packer.join(Join::Live, 0);
    assert!(player.burst.is_empty());
    assert!(player.openings.is_empty(), "nobody knows yet which frame that will be");
    assert!(packer.feed([delta(80)]).pop().unwrap().part(&player.seat).is_none());
    let flush = packer.feed([idr(120)]).pop().unwrap();
    let part = flush.part(&player.seat).unwrap();
    assert!(flush.sync && part.headers.is_some());
    assert_eq!(times(&whole(&part.pieces)), [(VIDEO, 0)]);
}

#[test]
fn at_the_edge_a_player_gets_the_pictures_so_far_just_before_now_and_sound_from_now_on() {
    let mut packer = packer();
    packer.feed([tracks(), idr(0), sound(10), delta(40), sound(52), delta(80), sound(94), delta(120)]);
    let player = packer.join(Join::Edge, 0);
    assert_eq!(player.openings.len(), 2);
    let burst: Vec<_> = player.burst.iter().flat_map(|pieces| times(&whole(pieces))).collect();
    assert_eq!(burst[..3], [(ABOUT, 117), (VIDEO, 117), (AUDIO, 117)]);
    assert_eq!(burst[3..], [(VIDEO, 117), (VIDEO, 118), (VIDEO, 119), (VIDEO, 120)]);
    let flush = packer.feed([sound(136), delta(160)]).pop().unwrap();
    let live = times(&whole(&flush.part(&player.seat).unwrap().pieces));
    assert_eq!(live, [(AUDIO, 136), (VIDEO, 160)]);
    // Who joins later joins there; who joins at the same moment shares its bytes.
    let (one, two) = (packer.join(Join::Edge, 0), packer.join(Join::Edge, 0));
    assert_eq!(times(&whole(&one.burst[1])), [156, 157, 158, 159, 160].map(|at| (VIDEO, at)));
    assert_eq!(Arc::as_ptr(&one.burst[1]), Arc::as_ptr(&two.burst[1]));
}

#[test]
fn at_the_edge_of_sound_alone_a_player_gets_what_comes_next() {
    let mut packer = packer();
    let Item::Tracks(both) = tracks() else { unreachable!() };
    packer.feed([Item::Tracks(Arc::new(Tracks { video: None, ..(*both).clone() })), sound(0), sound(21)]);
    packer.flush(Instant::now());
    let player = packer.join(Join::Edge, 0);
    assert!(player.burst.is_empty());
    assert_eq!(player.openings.len(), 1);
    packer.feed([sound(42)]);
    let flush = packer.flush(Instant::now()).unwrap();
    let sent = times(&whole(&flush.part(&player.seat).unwrap().pieces));
    assert_eq!((flush.sync, sent), (true, vec![(AUDIO, 42)]));
}

#[test]
fn players_of_another_variant_are_another_epoch_that_goes_with_them() {
    let mut packer = packer();
    packer.feed([tracks(), idr(0)]);
    let (one, two) = (packer.join(Join::Instant, 0), packer.join(Join::Instant, 7));
    let three = packer.join(Join::Instant, 7);
    assert_ne!(one.seat.epoch, two.seat.epoch);
    assert_eq!(two.seat.epoch, three.seat.epoch);
    let flush = packer.feed([delta(40)]).pop().unwrap();
    assert_eq!(flush.parts.iter().flatten().count(), 2);
    drop((two, three));
    let flush = packer.feed([delta(80)]).pop().unwrap();
    assert_eq!(flush.parts.iter().flatten().count(), 1);
}

#[test]
fn a_player_may_start_at_the_sound_before_the_first_picture_and_at_no_other() {
    let mut packer = packer();
    packer.feed([tracks()]);
    let now = Instant::now();
    packer.take(Entry { item: sound(0), arrived: now.into(), starts: true }, now);
    assert!(packer.flush(Instant::now()).unwrap().sync);
    assert!(packer.feed([idr(40)])[0].sync);
    packer.feed([sound(60)]);
    assert!(!packer.flush(Instant::now()).unwrap().sync);
}

#[test]
fn a_change_of_tracks_is_told_to_everybody_with_the_next_flush() {
    let mut packer = packer();
    packer.feed([tracks(), idr(0)]);
    let player = packer.join(Join::Instant, 0);
    let other = Track::aac(Bytes::from_static(&[0x12, 0x10])).unwrap();
    let Item::Tracks(before) = tracks() else { unreachable!() };
    let after = Tracks { audio: Some(other.into()), ..(*before).clone() };
    let flushes = packer.feed([Item::Tracks(Arc::new(after)), delta(40)]);
    let sent = times(&whole(&flushes[0].part(&player.seat).unwrap().pieces));
    assert_eq!(sent, [(ABOUT, 40), (VIDEO, 40), (AUDIO, 40), (VIDEO, 40)]);
    assert!(!flushes[0].sync);
    // Nobody starts in the middle of pictures that came under other headers.
    assert!(packer.join(Join::Instant, 0).burst.is_empty());
}

#[test]
fn pictures_are_held_back_when_the_output_says_so() {
    let mut packer = Packer::new(Toy::default(), Duration::from_millis(300));
    let flushes = packer.feed([tracks(), idr(0), delta(40), delta(80)]);
    assert!(flushes.is_empty());
    let flushes = packer.feed([idr(120)]);
    assert_eq!(flushes[0].pictures, 3);
}

#[test]
fn who_joins_after_new_metadata_still_gets_the_gop() {
    let mut packer = packer();
    packer.feed([tracks(), idr(1000), delta(1040)]);
    let aside = Aside { time: None, content: Arc::new("320x240"), size: 0, keep_latest: true };
    packer.feed([Item::Aside(aside)]);
    packer.feed([delta(1080)]);
    let burst = packer.join(Join::Instant, 0).burst;
    assert_eq!(times(&whole(&burst[1])), [(VIDEO, 0), (VIDEO, 40), (VIDEO, 80)]);
}

#[test]
fn whatever_the_number_of_epochs_a_picture_is_in_memory_once() {
    let mut packer = packer();
    let picture = |millis: i64| {
        let time = Timestamp::from_millis(millis);
        let data = Bytes::from(vec![7; 100_000]);
        Item::Frame(Frame { kind: Kind::Video, dts: time, pts: time, is_sync: true, data })
    };
    packer.feed([tracks()]);
    let mut players = Vec::new();
    for minute in 0..330 {
        packer.feed([picture(minute * 60_000)]);
        players.push(packer.join(Join::Instant, 0));
    }
    let last = picture(330 * 60_000);
    let Item::Frame(Frame { data, .. }) = &last else { panic!("no frame") };
    let data = data.as_ptr_range();
    let flush = packer.feed([last]).pop().unwrap();
    assert_eq!(flush.parts.iter().flatten().count(), 33);
    let is_shared =
        |pieces: &Pieces| pieces.rest(Place::default()).any(|piece| data.contains(&piece.as_ptr()));
    for player in &players {
        assert!(is_shared(&flush.part(&player.seat).unwrap().pieces));
    }
    // And so it is for who joins.
    let joining = packer.join(Join::Instant, 0);
    assert!(joining.burst.iter().any(|pieces| is_shared(pieces)));
    let own: usize = flush.parts.iter().flatten().map(|part| part.pieces.len() - 100_000).sum();
    assert!(own < 33 * 100, "{own} bytes of headers");
}

#[test]
fn a_message_that_says_zero_moves_neither_the_zero_of_who_joins_nor_the_epoch() {
    let mut packer = packer();
    let before = packer.join(Join::Instant, 0);
    let flushes = packer.feed([tracks(), idr(7_200_000), aside(0), delta(7_200_040)]);
    let sent = |seat: &Seat| {
        flushes.iter().map(|flush| times(&whole(&flush.part(seat).unwrap().pieces))).collect::<Vec<_>>()
    };
    assert_eq!(sent(&before.seat)[0][3..], [(VIDEO, 0)]);
    assert_eq!(sent(&before.seat)[1], [(ASIDE, 0), (VIDEO, 40)]);
    let after = packer.join(Join::Instant, 0);
    assert_eq!(after.seat.epoch, before.seat.epoch);
    assert_eq!(times(&whole(&after.burst[1])), [(VIDEO, 0), (ASIDE, 0), (VIDEO, 40)]);
    // And so it is where the message stands before the frame, and nobody was there.
    let mut packer = self::packer();
    packer.feed([tracks(), aside(0), idr(7_200_000)]);
    let (one, two) = (packer.join(Join::Instant, 0), packer.join(Join::Instant, 0));
    assert_eq!(times(&whole(&one.burst[1])), [(ASIDE, 0), (VIDEO, 0)]);
    assert_eq!(one.seat.epoch, two.seat.epoch);
}

#[test]
fn frames_before_any_track_are_given_up_and_leave_nothing_due() {
    let mut packer = packer();
    let flushes = packer.feed([idr(0), sound(10)]);
    assert!(flushes.is_empty());
    assert!(packer.flush(Instant::now()).is_none());
    assert!(packer.due().is_none() && !packer.is_due(Instant::now()));
    let player = packer.join(Join::Instant, 0);
    let flushes = packer.feed([tracks(), idr(40)]);
    assert_eq!(times(&whole(&flushes[0].part(&player.seat).unwrap().pieces))[3..], [(VIDEO, 0)]);
}
