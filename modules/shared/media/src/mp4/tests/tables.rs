//! Tables that ffmpeg does not write.

use bytes::Bytes;

use super::super::boxes::BoxBody;
use super::super::samples::SampleAt;
use super::super::tables::{self, Tables};
use super::*;

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// A box with version and flags 0 before its fields.
fn full(kind: &[u8; 4], fields: &[u8]) -> Vec<u8> {
    [&numbers(&[fields.len() as u32 + 12])[..], kind, &[0; 4], fields].concat()
}

fn stbl(children: &[Vec<u8>]) -> BoxBody {
    let body = Bytes::from(children.concat());
    BoxBody { kind: FourCC::new(b"stbl"), offset: 1000, body_offset: 1008, body }
}

fn read(children: &[Vec<u8>]) -> Result<Vec<SampleAt>, Mp4Error> {
    let Tables { samples, .. } = tables::read(&stbl(children), 1000)?;
    let mut cursor = samples.cursor();
    Ok(std::iter::from_fn(|| cursor.next(&samples)).collect())
}

/// Three chunks: one of two samples, one of three, one of one.
fn usual() -> [Vec<u8>; 4] {
    [
        full(b"stts", &numbers(&[2, 4, 10, 9, 20])),
        full(b"stsz", &numbers(&[0, 6, 5, 6, 7, 8, 9, 10])),
        full(b"stsc", &numbers(&[3, 1, 2, 1, 2, 3, 1, 3, 1, 1])),
        full(b"stco", &numbers(&[3, 100, 500, 300])),
    ]
}

#[test]
fn samples_stand_in_their_chunks() {
    let samples = read(&usual()).unwrap();
    let places: Vec<(u64, u32)> = samples.iter().map(|sample| (sample.offset, sample.size)).collect();
    assert_eq!(places, [(100, 5), (105, 6), (500, 7), (507, 8), (515, 9), (300, 10)]);
    let times: Vec<i64> = samples.iter().map(|sample| sample.dts).collect();
    assert_eq!(times, [0, 10, 20, 30, 40, 60]);
    assert!(samples.iter().all(|sample| sample.is_sync && sample.cts == sample.dts));
}

#[test]
fn compact_sizes_of_four_eight_and_sixteen_bits_are_read() {
    let packed: [(u32, &[u8]); 3] =
        [(4, &[0x56, 0x78, 0x9a]), (8, &[5, 6, 7, 8, 9, 10]), (16, &[0, 5, 0, 6, 0, 7, 0, 8, 0, 9, 0, 10])];
    for (bits, packed) in packed {
        let mut children = usual();
        children[1] = full(b"stz2", &[&numbers(&[bits, 6])[..], packed].concat());
        let sizes: Vec<u32> = read(&children).unwrap().iter().map(|sample| sample.size).collect();
        assert_eq!(sizes, [5, 6, 7, 8, 9, 10], "{bits} bits");
    }
}

#[test]
fn compact_sizes_that_overrun_are_refused() {
    let mut children = usual();
    children[1] = full(b"stz2", &numbers(&[8, 0xffff_ffff]));
    let error = read(&children).unwrap_err();
    assert_eq!(error.name, FourCC::new(b"stz2"));
    assert!(matches!(error.source, Mp4Fault::Truncated { need: 0xffff_ffff, have: 0 }));
}

#[test]
fn composition_offsets_above_31_bits_are_the_negative_ones_of_quicktime() {
    let ctts = full(b"ctts", &numbers(&[2, 1, 20, 5, 0xffff_fff6]));
    let samples = read(&[&usual()[..], &[ctts]].concat()).unwrap();
    // Ten ticks are taken off all decoding times, so that nothing is shown before it is decoded.
    let times: Vec<(i64, i64)> = samples.iter().map(|sample| (sample.dts, sample.cts)).collect();
    assert_eq!(times[..3], [(-10, 20), (0, 0), (10, 10)]);
}

#[test]
fn sync_samples_are_those_listed() {
    let stss = full(b"stss", &numbers(&[2, 1, 5]));
    let samples = read(&[&usual()[..], &[stss]].concat()).unwrap();
    let sync: Vec<u32> = samples.iter().filter(|sample| sample.is_sync).map(|sample| sample.index).collect();
    assert_eq!(sync, [0, 4]);
}

#[test]
fn tables_that_contradict_each_other_are_named_with_their_place() {
    let wrong = |at: usize, with: Vec<u8>| {
        let mut children = usual();
        children[at] = with;
        let error = read(&children).unwrap_err();
        (error.name.to_string(), error.offset)
    };
    let second = 1008 + usual()[0].len() as u64;
    let third = second + usual()[1].len() as u64;
    assert_eq!(wrong(0, full(b"stts", &numbers(&[1, 5, 10]))), ("stts".into(), 1008));
    assert_eq!(wrong(2, full(b"stsc", &numbers(&[1, 1, 0, 1]))), ("stsc".into(), third));
    assert_eq!(wrong(2, full(b"stsc", &numbers(&[1, 1, 1, 1]))), ("stsc".into(), third));
    assert_eq!(wrong(2, full(b"stsc", &numbers(&[0]))), ("stsc".into(), third));
    assert_eq!(wrong(1, full(b"free", &[])), ("stbl".into(), 1000));
    // Of a constant size, and more than may come.
    assert_eq!(wrong(1, full(b"stsz", &numbers(&[1, 1001]))), ("stbl".into(), 1000));
}
