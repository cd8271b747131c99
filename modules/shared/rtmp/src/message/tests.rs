//! Typed messages and aggregates.

use super::*;
use crate::Limits;
use crate::chunk::ChunkReader;

fn raw(type_id: u8, payload: &[u8]) -> RawMessage {
    RawMessage { timestamp: 1000, type_id, stream_id: 1, payload: Bytes::copy_from_slice(payload) }
}

/// One FLV tag as aggregates carry it.
fn part(type_id: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let [high, a, b, c] = timestamp.to_be_bytes();
    let mut out = vec![type_id];
    out.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([a, b, c, high, 0, 0, 0]);
    out.extend(payload);
    out.extend((11 + payload.len() as u32).to_be_bytes());
    out
}

fn split(aggregate: &RawMessage) -> Result<Vec<(u8, u32, Bytes)>, RtmpError> {
    let mut parts = Vec::new();
    split_aggregate(aggregate, |part| {
        parts.push((part.type_id, part.timestamp, part.payload));
        Ok(())
    })?;
    Ok(parts)
}

#[test]
fn an_aggregate_is_split_and_its_times_start_at_its_own() {
    let payload =
        [part(9, 0x0123_4567, b"v"), part(8, 0x0123_4567 + 23, b"aa"), part(18, 0x0123_4567 + 40, b"")];
    let parts = split(&raw(22, &payload.concat())).unwrap();
    let expected = [(9, 1000, Bytes::from("v")), (8, 1023, Bytes::from("aa")), (18, 1040, Bytes::new())];
    assert_eq!(parts, expected);
}

#[test]
fn the_times_of_an_aggregate_may_wrap() {
    let payload = [part(9, u32::MAX - 9, b"v"), part(8, 10, b"a")].concat();
    let mut aggregate = raw(22, &payload);
    aggregate.timestamp = u32::MAX - 4;
    let times: Vec<u32> = split(&aggregate).unwrap().into_iter().map(|(_, time, _)| time).collect();
    assert_eq!(times, [u32::MAX - 4, 15]);
}

#[test]
fn a_missing_last_back_pointer_is_let_pass_and_a_cut_part_is_not() {
    let whole = [part(9, 0, b"v"), part(8, 5, b"aa")].concat();
    let without = &whole[..whole.len() - 4];
    assert_eq!(split(&raw(22, without)).unwrap().len(), 2);
    let cut = split(&raw(22, &whole[..whole.len() - 5])).unwrap_err();
    assert!(matches!(cut, RtmpError::Aggregate { length: 28, at: 16 }), "{cut:?}");
}

#[test]
fn user_control_messages_are_written_as_they_are_read() {
    let all = [
        UserControl::StreamBegin(1),
        UserControl::StreamEof(1),
        UserControl::StreamDry(1),
        UserControl::SetBufferLength { stream_id: 1, millis: 3000 },
        UserControl::StreamIsRecorded(1),
        UserControl::PingRequest(0xFFFF_FFFF),
        UserControl::PingResponse(7),
        UserControl::Other(31),
    ];
    for message in all {
        let mut out = BytesMut::new();
        write_user_control(&mut out, message);
        let read = ChunkReader::new(&Limits::default()).read(&mut &out[..]).unwrap().unwrap();
        assert_eq!(Message::parse(&read).unwrap(), Message::UserControl(message));
    }
}

#[test]
fn control_messages_that_are_cut_are_refused_with_their_length() {
    for (type_id, payload, needed) in [
        (3, &[0, 0, 0][..], 4),
        (5, &[], 4),
        (6, &[1], 4),
        (4, &[0], 2),
        (4, &[0, 6, 0, 0], 6),
        (4, &[0, 3, 0, 0, 0, 1], 10),
    ] {
        let error = Message::parse(&raw(type_id, payload)).unwrap_err();
        let RtmpError::ShortMessage { needed: found, length, .. } = error else { panic!("{error}") };
        assert_eq!((found, length), (needed, payload.len()));
    }
}

#[test]
fn amf3_messages_lose_their_prefix() {
    assert_eq!(Message::parse(&raw(17, &[0, 5])).unwrap(), Message::Command(Bytes::from_static(&[5])));
    assert_eq!(Message::parse(&raw(15, &[2, 5])).unwrap(), Message::Data(Bytes::from_static(&[2, 5])));
}

#[test]
fn acknowledgements_count_modulo_four_gigabytes() {
    let mut out = BytesMut::new();
    write_acknowledgement(&mut out, (1 << 32) + 5);
    assert_eq!(&out[12..], 5u32.to_be_bytes());
}

#[test]
fn a_small_part_of_an_aggregate_does_not_keep_the_whole_of_it() {
    let payload = [part(8, 0, &[1; 100]), part(9, 0, &[2; 5000]), part(8, 20, &[3; 100])].concat();
    let aggregate = raw(22, &payload);
    let whole = aggregate.payload.as_ptr_range();
    let shared = |(_, _, part): &(u8, u32, Bytes)| whole.contains(&part.as_ptr());
    let parts = split(&aggregate).unwrap();
    assert_eq!(parts.iter().map(shared).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(parts.iter().map(|(_, _, part)| part.len()).collect::<Vec<_>>(), [100, 5000, 100]);
    assert_eq!(parts[2].2, vec![3; 100]);
}

#[test]
fn an_aggregate_has_no_more_parts_than_any_encoder_sends() {
    let one = part(8, 0, b"a");
    assert_eq!(split(&raw(22, &one.repeat(MAX_PARTS))).unwrap().len(), 4096);
    let many = split(&raw(22, &one.repeat(MAX_PARTS + 1))).unwrap_err();
    assert!(matches!(many, RtmpError::AggregateParts { limit: 4096 }), "{many:?}");
}
