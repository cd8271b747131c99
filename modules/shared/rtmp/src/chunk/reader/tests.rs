//! Chunks, as encoders write them and as attackers do.

use bytes::BytesMut;
use proptest::prelude::*;

use super::super::{Header, write_message};
use super::*;

/// Limits wide enough not to matter.
fn open() -> ChunkReader {
    let mut reader = ChunkReader::new(&Limits::default());
    reader.set_limits(8 << 20, 16 << 20);
    reader
}

fn read_all(reader: &mut ChunkReader, mut input: &[u8]) -> Result<Vec<RawMessage>, RtmpError> {
    let mut messages = Vec::new();
    while let Some(message) = reader.read(&mut input)? {
        messages.push(message);
    }
    Ok(messages)
}

fn read_in_pieces(input: &[u8], piece: usize) -> Vec<RawMessage> {
    let mut reader = open();
    input.chunks(piece).flat_map(|piece| read_all(&mut reader, piece).unwrap()).collect()
}

/// The basic header in its shortest form.
fn basic(fmt: u8, csid: u32) -> Vec<u8> {
    match csid {
        2..64 => vec![fmt << 6 | csid as u8],
        64..320 => vec![fmt << 6, (csid - 64) as u8],
        _ => vec![fmt << 6 | 1, (csid - 64) as u8, ((csid - 64) >> 8) as u8],
    }
}

/// A chunk of any type; `field` above 24 bits goes out extended.
fn chunk(fmt: u8, csid: u32, field: u32, length: usize, payload: &[u8]) -> Vec<u8> {
    let mut out = basic(fmt, csid);
    if fmt < 3 {
        out.extend(&field.min(EXTENDED).to_be_bytes()[1..]);
    }
    if fmt < 2 {
        out.extend(&(length as u32).to_be_bytes()[1..]);
        out.push(9);
    }
    if fmt == 0 {
        out.extend(1u32.to_le_bytes());
    }
    if fmt < 3 && field >= EXTENDED {
        out.extend(field.to_be_bytes());
    }
    out.extend(payload);
    out
}

fn times(messages: &[RawMessage]) -> Vec<u32> {
    messages.iter().map(|message| message.timestamp).collect()
}

#[test]
fn headers_inherit_what_they_leave_out() {
    let input = [
        chunk(0, 4, 1000, 3, b"abc"),
        chunk(1, 4, 40, 2, b"de"),
        chunk(2, 4, 20, 0, b"fg"),
        chunk(3, 4, 0, 0, b"hi"),
    ]
    .concat();
    let messages = read_all(&mut open(), &input).unwrap();
    assert_eq!(times(&messages), [1000, 1040, 1060, 1080]);
    assert!(messages.iter().all(|message| message.type_id == 9 && message.stream_id == 1));
    assert_eq!(messages[3].payload, "hi");
}

#[test]
fn a_type_3_that_begins_a_message_after_a_type_0_adds_its_timestamp() {
    let input = [chunk(0, 4, 40, 1, b"a"), chunk(3, 4, 0, 0, b"b")].concat();
    assert_eq!(times(&read_all(&mut open(), &input).unwrap()), [40, 80]);
}

#[test]
fn all_forms_of_chunk_stream_ids_are_told_apart() {
    let ids = [2, 63, 64, 319, 320, 65_599];
    let input: Vec<u8> = ids.iter().flat_map(|csid| chunk(0, *csid, *csid, 1, b"x")).collect();
    assert_eq!(times(&read_all(&mut open(), &input).unwrap()), ids);
    // The 3-byte form for an id that fits 2 bytes is the same chunk stream.
    let long = [[vec![0x01, 6, 0], chunk(0, 2, 7, 1, b"x")[1..].to_vec()].concat(), chunk(3, 70, 0, 0, b"y")];
    assert_eq!(times(&read_all(&mut open(), &long.concat()).unwrap()), [7, 14]);
}

#[test]
fn a_message_interleaved_with_another_chunk_stream_stays_whole() {
    let video = [1; 300];
    let input = [
        chunk(0, 6, 0, 300, &video[..128]),
        chunk(0, 4, 5, 10, &[2; 10]),
        chunk(3, 6, 0, 0, &video[128..256]),
        chunk(0, 5, 6, 3, &[3; 3]),
        chunk(3, 6, 0, 0, &video[256..]),
    ]
    .concat();
    let messages = read_all(&mut open(), &input).unwrap();
    assert_eq!(times(&messages), [5, 6, 0]);
    assert_eq!(messages[2].payload, video.as_slice());
}

#[test]
fn extended_timestamps_are_read_on_every_header_type() {
    let start = 0xFF_FFFF;
    for at in [start, start + 1, 0x7FFF_FFFF, 0xFFFF_FFF0] {
        let delta = 0x0100_0000u32;
        let repeated = delta.to_be_bytes();
        let input = [
            chunk(0, 4, at, 1, b"a"),
            chunk(1, 4, delta, 1, b"b"),
            chunk(2, 4, delta, 0, b"c"),
            [basic(3, 4), repeated.to_vec(), b"d".to_vec()].concat(),
            // Without the repetition.
            [basic(3, 4), b"e".to_vec()].concat(),
            chunk(2, 4, 40, 0, b"f"),
            chunk(3, 4, 40, 0, b"g"),
        ]
        .concat();
        for piece in [1, 3, input.len()] {
            let messages = read_in_pieces(&input, piece);
            let plus = |n: u32, more: u32| at.wrapping_add(delta.wrapping_mul(n)).wrapping_add(more);
            let expected = [at, plus(1, 0), plus(2, 0), plus(3, 0), plus(4, 0), plus(4, 40), plus(4, 80)];
            assert_eq!(times(&messages), expected);
            let text: Vec<u8> = messages.iter().flat_map(|message| message.payload.to_vec()).collect();
            assert_eq!(text, b"abcdefg");
        }
    }
}

#[test]
fn continuations_are_read_with_and_without_the_extended_timestamp() {
    let payload: Vec<u8> = (0..=255).cycle().take(300).collect();
    let time = 0x0102_0304u32;
    for fmt in 0..=2 {
        for repeats in [true, false] {
            let again = if repeats { time.to_be_bytes().to_vec() } else { Vec::new() };
            let input = [
                chunk(
                    0,
                    4,
                    0,
                    300,
                    &[
                        &payload[..128],
                        &[basic(3, 4), payload[128..256].to_vec()].concat(),
                        &[basic(3, 4), payload[256..].to_vec()].concat(),
                    ]
                    .concat(),
                ),
                chunk(fmt, 4, time, 300, &payload[..128]),
                [basic(3, 4), again.clone(), payload[128..256].to_vec()].concat(),
                [basic(3, 4), again, payload[256..].to_vec()].concat(),
            ]
            .concat();
            for piece in [1, 2, 5, 127, input.len()] {
                let messages = read_in_pieces(&input, piece);
                assert_eq!(times(&messages), [0, time], "fmt {fmt}, repeats {repeats}, pieces of {piece}");
                assert!(messages.iter().all(|message| message.payload == payload));
            }
        }
    }
}

#[test]
fn payload_that_begins_like_the_extended_timestamp_is_not_eaten() {
    // The bytes at the chunk border equal the timestamp but for the last one.
    let time = 0x0102_0304u32;
    let mut payload = vec![7; 128];
    payload.extend([1, 2, 3, 9, 1, 2]);
    let input = [
        chunk(0, 4, time, payload.len(), &payload[..128]),
        [basic(3, 4), payload[128..].to_vec()].concat(),
        chunk(0, 5, 8, 1, b"z"),
    ]
    .concat();
    for piece in [1, 2, 3, 4, input.len()] {
        let messages = read_in_pieces(&input, piece);
        assert_eq!(messages[0].payload, payload);
        assert_eq!(messages[1].timestamp, 8);
    }
}

#[test]
fn chunk_sizes_from_one_byte_to_the_limit_are_honoured() {
    let set = |size: u32| {
        let mut out = BytesMut::new();
        write_message(
            &mut out,
            128,
            Header { csid: 2, timestamp: 0, type_id: 1, stream_id: 0 },
            &[&size.to_be_bytes()],
        );
        out.to_vec()
    };
    let tiny = [set(1), chunk(0, 4, 0, 2, b"a"), chunk(3, 4, 0, 0, b"b")].concat();
    assert_eq!(read_all(&mut open(), &tiny).unwrap()[0].payload, "ab");
    let large = [9; 100_000];
    let huge = [set(0x7FFF_FFFF), chunk(0, 4, 0, large.len(), &large)].concat();
    assert_eq!(read_all(&mut open(), &huge).unwrap()[0].payload, large.as_slice());
    for bad in [0, 0x8000_0000, 0xFFFF_FFFF] {
        assert!(matches!(read_all(&mut open(), &set(bad)), Err(RtmpError::ChunkSize(size)) if size == bad));
    }
}

#[test]
fn abort_drops_the_unfinished_message() {
    let mut abort = BytesMut::new();
    write_message(
        &mut abort,
        128,
        Header { csid: 2, timestamp: 0, type_id: 2, stream_id: 0 },
        &[&4u32.to_be_bytes()],
    );
    let input = [chunk(0, 4, 0, 300, &[1; 128]), abort.to_vec(), chunk(1, 4, 10, 2, b"ok")].concat();
    let mut reader = open();
    let messages = read_all(&mut reader, &input).unwrap();
    assert_eq!((times(&messages), reader.unfinished), (vec![10], 0));
}

#[test]
fn a_message_beyond_the_limit_is_refused_at_its_header() {
    let mut reader = ChunkReader::new(&Limits::default());
    let error = read_all(&mut reader, &chunk(0, 4, 0, 0xFF_FFFF, &[])).unwrap_err();
    assert!(matches!(error, RtmpError::MessageTooLong { length: 0xFF_FFFF, limit: 65_536 }));
    assert_eq!(reader.position(), 0);
    assert!(reader.streams.iter().all(|stream| stream.payload.capacity() == 0));
}

#[test]
fn unfinished_messages_are_bounded_over_all_chunk_streams() {
    let limits = Limits { max_unfinished_before_publish: 1000, ..Limits::default() };
    let mut reader = ChunkReader::new(&limits);
    let input: Vec<u8> = (3..11).flat_map(|csid| chunk(0, csid, 0, 900, &[0; 128])).collect();
    let error = read_all(&mut reader, &input).unwrap_err();
    assert!(matches!(error, RtmpError::UnfinishedTooMuch { limit: 1000 }));
    // Found in the payload of the eighth.
    assert_eq!(reader.position(), 7 * 140 + 12);
}

#[test]
fn ten_unfinished_messages_of_sixteen_megabytes_hold_next_to_nothing() {
    let mut reader = open();
    reader.set_limits(16 << 20, 16 << 20);
    for csid in 3..13 {
        read_all(&mut reader, &chunk(0, csid, 0, 0xFF_FFFF, &[0; 128])).unwrap();
    }
    let held: usize = reader.streams.iter().map(|stream| stream.payload.capacity()).sum();
    assert!(held <= 10 * (16 << 20) / 256, "{held} bytes held");
}

#[test]
fn a_long_message_is_hardly_ever_copied_again_while_it_grows() {
    for length in [400_000, 3_000_001, 8 << 20] {
        let (mut reader, mut copied) = (open(), 0);
        reader.set_limits(8 << 20, 16 << 20);
        let payload = vec![7; length];
        let mut out = BytesMut::new();
        let header = Header { csid: 6, timestamp: 0, type_id: 9, stream_id: 1 };
        assert!(write_message(&mut out, 4096, header, &[&payload]));
        reader.chunk_size = 4096;
        let (mut held, mut arrived) = (0, 0);
        for piece in out.chunks(1448) {
            arrived += piece.len();
            let before = reader.streams.first().map_or(0, |stream| stream.payload.len());
            if let Some(message) = read_all(&mut reader, piece).unwrap().pop() {
                assert_eq!(message.payload, payload);
                break;
            }
            let now = reader.streams[0].payload.capacity();
            assert!(now <= (arrived * 8).max(65_536), "{now} bytes reserved for {arrived}");
            assert_eq!(reader.reserved, now);
            copied += if now == held { 0 } else { before };
            held = now;
        }
        assert!(copied <= length / 6, "{copied} bytes of {length} copied again");
        assert_eq!(reader.reserved, 0);
    }
}

#[test]
fn what_is_reserved_stays_near_the_bound_however_many_messages_are_begun() {
    let mut reader = open();
    reader.set_limits(8 << 20, 16 << 20);
    // Each announces 8 MiB and sends 240 KiB, up to the bound for all of them together.
    let sent = vec![0; 240 << 10];
    reader.chunk_size = sent.len();
    for csid in 3..64 {
        read_all(&mut reader, &chunk(0, csid, 0, 8 << 20, &sent)).unwrap();
        let held: usize = reader.streams.iter().map(|stream| stream.payload.capacity()).sum();
        assert!(held <= 32 << 20, "{held} bytes");
    }
}

#[test]
fn an_abort_that_is_cut_aborts_nothing() {
    let cut = chunk(0, 2, 0, 2, &[0, 4]);
    let cut = [&cut[..7], &[2], &cut[8..]].concat();
    let input = [chunk(0, 4, 0, 200, &[1; 128]), cut, chunk(3, 4, 0, 0, &[1; 72])].concat();
    assert_eq!(read_all(&mut open(), &input).unwrap().len(), 1);
}

#[test]
fn chunk_streams_are_bounded() {
    let mut reader = open();
    let input: Vec<u8> = (3..200).flat_map(|csid| chunk(0, csid, 0, 1, b"x")).collect();
    assert!(matches!(read_all(&mut reader, &input), Err(RtmpError::TooManyChunkStreams { limit: 64 })));
}

#[test]
fn headers_out_of_place_are_refused() {
    for fmt in [2, 3] {
        let error = read_all(&mut open(), &chunk(fmt, 9, 0, 0, &[])).unwrap_err();
        assert!(matches!(error, RtmpError::NoPreviousHeader { csid: 9, fmt: found } if found == fmt));
    }
    let inside = [chunk(0, 9, 0, 300, &[0; 128]), chunk(1, 9, 0, 300, &[])].concat();
    let error = read_all(&mut open(), &inside).unwrap_err();
    assert!(matches!(error, RtmpError::HeaderInsideMessage { csid: 9, fmt: 1, missing: 172 }));
}

#[test]
fn empty_messages_are_messages() {
    let input = [chunk(0, 4, 3, 0, &[]), chunk(3, 4, 0, 0, &[])].concat();
    assert_eq!(times(&read_all(&mut open(), &input).unwrap()), [3, 6]);
}

#[test]
fn a_payload_that_no_length_field_can_say_is_not_written() {
    let mut out = BytesMut::new();
    let header = Header { csid: 4, timestamp: 0, type_id: 9, stream_id: 1 };
    assert!(!write_message(&mut out, 65_536, header, &[&vec![0; 1 << 24]]));
    assert!(out.is_empty());
}

proptest! {
    #[test]
    fn what_the_writer_writes_is_read_back_however_it_is_split(
        messages in prop::collection::vec(
            (2u8..64, any::<u32>(), prop::sample::select(vec![8u8, 9, 18, 20]), any::<u32>(), prop::collection::vec(any::<u8>(), 0..700)),
            1..8,
        ),
        cuts in prop::collection::vec(1usize..200, 1..20),
    ) {
        let mut out = BytesMut::new();
        for (csid, timestamp, type_id, stream_id, payload) in &messages {
            let header = Header { csid: *csid, timestamp: *timestamp, type_id: *type_id, stream_id: *stream_id };
            let (first, second) = payload.split_at(payload.len() / 3);
            prop_assert!(write_message(&mut out, 128, header, &[first, second]));
        }
        let mut reader = open();
        let mut found = Vec::new();
        let mut rest = &out[..];
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*cut));
            found.extend(read_all(&mut reader, now).unwrap());
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(reader.position(), out.len() as u64);
        prop_assert_eq!(reader.unfinished, 0);
        prop_assert_eq!(found.len(), messages.len());
        for (message, (_, timestamp, type_id, stream_id, payload)) in found.iter().zip(&messages) {
            prop_assert_eq!((message.timestamp, message.type_id, message.stream_id), (*timestamp, *type_id, *stream_id));
            prop_assert_eq!(&message.payload[..], &payload[..]);
        }
    }

    #[test]
    fn any_bytes_give_the_same_however_they_are_split(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        piece in 1usize..30,
    ) {
        let read = |piece: usize| {
            let mut reader = open();
            let mut found = Vec::new();
            for part in bytes.chunks(piece) {
                let mut input = part;
                loop {
                    match reader.read(&mut input) {
                        Ok(Some(message)) => found.push(message),
                        Ok(None) => break,
                        Err(error) => return (found, Some(error.to_string()), reader.position()),
                    }
                }
            }
            (found, None, 0)
        };
        prop_assert_eq!(read(piece), read(bytes.len().max(1)));
    }
}
