use av_media::Kind;
use av_rtmp::amf0::{self, Value};
use av_rtmp::{MediaItem, Metadata};
use bytes::BytesMut;

use super::*;
use crate::rtmp::incoming::Intake;
use crate::rtmp::peer::{audio, video};
use crate::stream::Incoming;

fn frame(kind: Kind, millis: i64, size: usize) -> Frame {
    let time = Timestamp::from_millis(millis);
    let data = (0..=255_u8).cycle().take(size).collect::<Vec<_>>().into();
    Frame { kind, dts: time, pts: time, is_sync: true, data }
}

#[test]
fn what_leaves_in_pieces_is_what_leaves_in_one_for_sizes_and_times_around_each_border() {
    let (players, zero) = (Players::new(), Timestamp::from_millis(1000));
    for millis in [0, 0xFF_FFFE, 0xFF_FFFF, (1 << 24) + 7, 1 << 31, (1 << 32) + 5] {
        for size in [0, 1, 1023, 1024, 65_531, 65_532, 65_536, 150_000, 400_000] {
            for (track, kind) in [(video(), Kind::Video), (audio(), Kind::Audio)] {
                let frame = frame(kind, 1000 + millis, size);
                let mut pieces = PieceWriter::default();
                players.frame(&mut pieces, &track, &frame, &(), View { zero, variant: 0 });
                let mut whole = BytesMut::new();
                Egress::players().frame(&mut whole, &track, &frame, millis as u32);
                let pieces = pieces.take();
                assert_eq!(pieces.concat(), whole, "{millis} {size} {kind:?}");
                let own = frame.data.as_ptr_range();
                let shared = pieces.iter().filter(|piece| own.contains(&piece.as_ptr()));
                let shared: usize = shared.map(Bytes::len).sum();
                assert!(size - shared < 2048, "{shared} of {size} bytes are shared");
            }
        }
    }
}

#[test]
fn a_players_time_keeps_the_milliseconds_that_came_in_and_wraps() {
    // A third of a second into a millisecond: both are rounded alike.
    let zero = Timestamp::from_nanos(1_500_400_000);
    assert_eq!(wire(zero.moved(40_000_000), zero), 40);
    assert_eq!(wire(Timestamp::ZERO, zero), 0);
    assert_eq!(wire(Timestamp::from_millis((1 << 32) + 1502), Timestamp::from_millis(1500)), 2);
}

/// Notes what a publisher says.
fn say(players: &mut Players, intake: &mut Intake, metadata: Metadata) {
    intake.take(MediaItem::Metadata(metadata), |item| {
        if let Incoming::Aside(aside) = item {
            players.note(&aside);
        }
    });
}

fn start(players: &mut Players, tracks: &Arc<Tracks>, millis: i64) -> Vec<Bytes> {
    let mut out = PieceWriter::default();
    players.start(&mut out, tracks, Timestamp::from_millis(millis), View::default());
    out.take()
}

#[test]
fn metadata_is_completed_once_for_all_who_start_while_it_and_the_tracks_stay() {
    let (mut players, mut intake) = (Players::new(), Intake::default());
    let raw = |text: &str| {
        let value = Value::EcmaArray(vec![("notes".to_owned(), Value::from(text.repeat(5000).as_str()))]);
        Metadata::parse(&amf0::encode_all([&value])).unwrap()
    };
    let large = |pieces: &[Bytes]| pieces.iter().max_by_key(|piece| piece.len()).unwrap().as_ptr();
    let tracks = Arc::new(Tracks { video: Some(video().into()), audio: Some(audio().into()) });
    say(&mut players, &mut intake, raw("a"));
    let (first, second) = (start(&mut players, &tracks, 0), start(&mut players, &tracks, 40));
    assert_eq!(large(&first), large(&second));
    // The times are each player's own, and so is all that is new.
    assert_ne!(first.concat(), second.concat());
    let pictures = Arc::new(Tracks { video: Some(video().into()), audio: None });
    let silent = start(&mut players, &pictures, 0).concat();
    assert!(!silent.windows(12).any(|name| name == b"audiocodecid"));
    say(&mut players, &mut intake, raw("b"));
    assert!(start(&mut players, &pictures, 0).concat().windows(9).any(|text| text == b"bbbbbbbbb"));
}

#[test]
fn what_was_told_is_no_news_and_is_not_compared_word_for_word() {
    let (mut players, mut intake) = (Players::new(), Intake::default());
    // Compared by its value it would not even be the same as itself.
    say(&mut players, &mut intake, Metadata { width: Some(f64::NAN), ..Metadata::default() });
    assert!(players.take_news());
    assert!(!players.take_news());
    say(&mut players, &mut intake, Metadata { width: Some(640.0), ..Metadata::default() });
    assert!(players.take_news());
    assert!(!players.take_news());
    // The same from another connection.
    say(&mut players, &mut Intake::default(), Metadata { width: Some(640.0), ..Metadata::default() });
    assert!(!players.take_news());
}
