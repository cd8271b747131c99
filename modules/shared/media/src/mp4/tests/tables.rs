//! Tables that ffmpeg does not write.

use bytes::Bytes;

use super::super::boxes::{BadBox, BoxBody};
use super::super::runs::Runs;
use super::super::samples::{SampleAt, SampleTable, UNUSABLE};
use super::super::tables;
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
    BoxBody { kind: FourCC::new(b"stbl"), offset: 1000, body_offset: 1008, body, promised: None }
}

fn table(children: &[Vec<u8>]) -> Result<SampleTable, BadBox> {
    // Two sample entries, of which the second can't be used.
    let description = |index| if index == 1 { 0 } else { UNUSABLE };
    let mut table =
        tables::read(&stbl(children), NonZeroU32::new(100).unwrap(), description, 1000, usize::MAX)?;
    table.settle(1 << 20, 0);
    Ok(table)
}

fn read(children: &[Vec<u8>]) -> Result<Vec<SampleAt>, BadBox> {
    let table = table(children)?;
    let mut cursor = table.cursor();
    Ok(std::iter::from_fn(|| cursor.next(&table)).collect())
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
fn compact_sizes_that_overrun_are_read_as_far_as_they_go() {
    let mut children = usual();
    children[1] = full(b"stz2", &[&numbers(&[8, 0xffff_ffff])[..], &[5, 6, 7]].concat());
    assert_eq!(read(&children).unwrap().len(), 3);
    children[1] = full(b"stz2", &numbers(&[7, 3]));
    assert_eq!(read(&children).unwrap_err().name, FourCC::new(b"stz2"));
}

#[test]
fn a_table_that_takes_too_much_memory_is_not_read_to_its_end() {
    // Each sample of another size than the one before, each second one a sync sample.
    let count = 1 << 20;
    let sizes = [&numbers(&[4, count])[..], &vec![0x12; count as usize / 2]].concat();
    let sync: Vec<u32> = (1..=count).step_by(2).collect();
    let children = [
        full(b"stts", &numbers(&[1, count, 10])),
        full(b"stz2", &sizes),
        full(b"stss", &numbers(&[&[count / 2], &sync[..]].concat())),
        full(b"stsc", &numbers(&[1, 1, count, 1])),
        full(b"stco", &numbers(&[1, 100])),
    ];
    let read = |room| tables::read(&stbl(&children), NonZeroU32::new(100).unwrap(), |_| 0, u32::MAX, room);
    let fault = read(100_000).unwrap_err().fault;
    let BoxFault::IndexTooLarge { samples, of, most } = fault else { panic!("{fault}") };
    assert_eq!((samples, of, most), (1 << 16, count, 100_000));
    assert_eq!(read(100 << 20).unwrap().count(), count);
}

#[test]
fn a_long_column_is_judged_by_some_of_its_runs() {
    let mut runs = Runs::default();
    for index in 0..5_000_000 {
        runs.push(1, index % 7);
    }
    assert_eq!(runs.median(), Some(3));
    runs.change(|value| value * 2);
    assert_eq!(runs.iter().map(|(count, _)| count).sum::<u32>(), 5_000_000);
    assert_eq!(runs.median(), Some(6));
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

/// The usual tables with one in place of that at `at`.
fn with(at: usize, table: Vec<u8>) -> Vec<Vec<u8>> {
    let mut children = usual().to_vec();
    children[at] = table;
    children
}

#[test]
fn tables_that_are_one_off_are_followed_as_far_as_they_agree() {
    let times =
        |children: &[Vec<u8>]| read(children).unwrap().iter().map(|sample| sample.dts).collect::<Vec<_>>();
    // `stts` one short, one long, and with a count far above what it holds.
    assert_eq!(times(&with(0, full(b"stts", &numbers(&[1, 5, 10])))), [0, 10, 20, 30, 40, 50]);
    assert_eq!(times(&with(0, full(b"stts", &numbers(&[1, 7, 10])))), [0, 10, 20, 30, 40, 50]);
    assert_eq!(times(&with(0, full(b"stts", &numbers(&[999, 4, 10, 9, 20])))), [0, 10, 20, 30, 40, 60]);
    // A chunk too few, and one too many.
    assert_eq!(times(&with(3, full(b"stco", &numbers(&[2, 100, 500])))), [0, 10, 20, 30, 40]);
    let many = with(3, full(b"stco", &numbers(&[5, 100, 500, 300, 0xc000_009d, 7])));
    assert_eq!(times(&many), [0, 10, 20, 30, 40, 60]);
    // A size too few, and fewer than are counted.
    assert_eq!(times(&with(1, full(b"stsz", &numbers(&[0, 5, 5, 6, 7, 8, 9])))).len(), 5);
    assert_eq!(times(&with(1, full(b"stsz", &numbers(&[0, 9, 5, 6, 7, 8, 9])))).len(), 5);
    // A chunk of no samples is passed over.
    let places: Vec<u64> = read(&with(2, full(b"stsc", &numbers(&[3, 1, 2, 1, 2, 0, 1, 3, 9, 1]))))
        .unwrap()
        .iter()
        .map(|sample| sample.offset)
        .collect();
    assert_eq!(places, [100, 105, 300, 307, 315, 324]);
}

#[test]
fn samples_are_dealt_out_where_only_one_way_is_left() {
    let lone = with(2, full(b"stsc", &numbers(&[0])));
    assert!(read(&lone).is_err());
    let mut one_chunk = lone.clone();
    one_chunk[3] = full(b"stco", &numbers(&[1, 100]));
    assert_eq!(read(&one_chunk).unwrap().last().unwrap().offset, 135);
    let mut one_each = lone;
    one_each[3] = full(b"stco", &numbers(&[6, 10, 20, 30, 40, 50, 60]));
    assert_eq!(read(&one_each).unwrap().last().unwrap().offset, 60);
}

#[test]
fn a_table_that_is_needed_is_named_with_its_place() {
    let wrong = |at: usize, table: Vec<u8>| {
        let BadBox { name, offset, fault } = read(&with(at, table)).unwrap_err();
        (name.to_string(), offset, fault.to_string())
    };
    let third = 1008 + (usual()[0].len() + usual()[1].len()) as u64;
    assert_eq!(wrong(0, full(b"stts", &numbers(&[0]))), ("stts".into(), 1008, "entry_count is 0".into()));
    assert_eq!(wrong(2, full(b"stsc", &numbers(&[0]))), ("stsc".into(), third, "entry_count is 0".into()));
    assert_eq!(wrong(3, full(b"free", &[])), ("stbl".into(), 1000, "it has no stco box".into()));
    assert_eq!(wrong(1, full(b"free", &[])), ("stbl".into(), 1000, "it has no stsz box".into()));
    let (_, _, unplaced) = wrong(2, full(b"stsc", &numbers(&[1, 1, 0, 1])));
    assert_eq!(unplaced, "none of its 6 samples is in a chunk");
    // Of a constant size, and more than may come.
    let (name, _, many) = wrong(1, full(b"stsz", &numbers(&[1, 1001])));
    assert_eq!((name, many), ("stbl".into(), "samples: 1001, at most 1000 are read".into()));
}

#[test]
fn deltas_above_31_bits_are_small_steps_back_that_the_next_ones_make_up_for() {
    let deltas = [10, 30, 0xffff_fff6, 10, 10, 10];
    let entries: Vec<u32> = deltas.iter().flat_map(|delta| [1, *delta]).collect();
    let stts = |entries: &[u32]| full(b"stts", &numbers(&[&[6], entries].concat()));
    let times = |table| read(&with(0, table)).unwrap().iter().map(|sample| sample.dts).collect::<Vec<_>>();
    // As they are said: 0, 10, 40, 30, 40, 50.
    assert_eq!(times(stts(&entries)), [0, 10, 40, 40, 40, 50]);
    // More than there was, or than a step back can be: it is none.
    let mut wild = entries;
    wild[5] = 0x8000_0001;
    assert_eq!(times(stts(&wild)), [0, 10, 40, 40, 50, 60]);
}

#[test]
fn a_last_delta_of_0_is_the_frame_interval() {
    let last = |table, media| {
        let description = |_| 0;
        let children = with(0, table);
        let mut table =
            tables::read(&stbl(&children), NonZeroU32::new(100).unwrap(), description, 1000, usize::MAX)
                .unwrap();
        table.settle(1 << 20, media);
        table.duration()
    };
    assert_eq!(last(full(b"stts", &numbers(&[2, 5, 4, 1, 0])), 7), 24);
    // Where nothing takes time: what the header says, or a second.
    assert_eq!(last(full(b"stts", &numbers(&[1, 6, 0])), 300), 300);
    assert_eq!(last(full(b"stts", &numbers(&[1, 6, 0])), 0), 100);
}

#[test]
fn one_wild_composition_offset_does_not_move_the_track() {
    let times = |offsets: [u32; 6]| {
        let entries: Vec<u32> = offsets.iter().flat_map(|offset| [1, *offset]).collect();
        let ctts = full(b"ctts", &numbers(&[&[6], &entries[..]].concat()));
        let samples = read(&[&usual()[..], &[ctts]].concat()).unwrap();
        samples.iter().map(|sample| (sample.dts, sample.cts)).collect::<Vec<_>>()
    };
    let good = times([10, 30, 0, 10, 10, 10]);
    assert_eq!(times([10, 30, 0, 10, 10, 0x8000_0000]), good);
    assert_eq!(times([10, 30, 0, 10, 10, 0x7fff_ffff]), good);
    assert_eq!(good[0], (0, 10));
}

#[test]
fn samples_of_an_entry_that_cannot_be_used_show_nothing() {
    let samples = read(&with(2, full(b"stsc", &numbers(&[3, 1, 2, 1, 2, 3, 2, 3, 1, 1])))).unwrap();
    let sizes: Vec<u32> = samples.iter().map(|sample| sample.size).collect();
    assert_eq!(sizes, [5, 6, 0, 0, 0, 10]);
}

#[test]
fn samples_behind_the_end_of_the_file_are_counted_with_the_first_place() {
    let mut table = table(&usual()).unwrap();
    table.settle(510, 0);
    let missing = table.lost().missing.unwrap();
    assert_eq!((missing.index, missing.offset, missing.count), (3, 507, 2));
    let mut cursor = table.cursor();
    let sizes: Vec<u32> = std::iter::from_fn(|| cursor.next(&table)).map(|sample| sample.size).collect();
    assert_eq!(sizes, [5, 6, 7, 0, 0, 10]);
}
