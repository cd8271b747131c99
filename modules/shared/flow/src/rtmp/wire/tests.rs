use av_media::Kind;
use bytes::BytesMut;

use super::*;
use crate::rtmp::peer::{audio, video};

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
                players.frame(&mut pieces, &track, &frame, zero);
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
