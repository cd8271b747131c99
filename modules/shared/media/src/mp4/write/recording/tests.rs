use std::io::Cursor;
use std::time::Duration;

use mp4_atom::{Decode, Moov};
use proptest::prelude::*;

use super::*;
use crate::fixture::{clip, stream_of};
use crate::mp4::Mp4;
use crate::mp4::write::fragment::tests::{CLIPS, frame, pieces, relative};

/// A file as a disk has it.
#[derive(Clone, Default)]
struct Disk(Vec<u8>);

impl Disk {
    fn write(&mut self, write: &Write) {
        let (start, end) = (write.offset as usize, write.offset as usize + write.bytes.len());
        if self.0.len() < end {
            self.0.resize(end, 0);
        }
        self.0[start..end].copy_from_slice(&write.bytes);
    }

    fn append(&mut self, fragment: &Fragment) {
        fragment.pieces().for_each(|piece| self.0.extend_from_slice(piece));
    }

    fn finish(&mut self, finish: &Finish) {
        self.0.truncate(finish.size as usize);
        finish.index.iter().for_each(|write| self.write(write));
        assert!(finish.flip.bytes.len() <= 8);
        assert_eq!(finish.flip.offset / 512, (finish.flip.offset + 7) / 512);
        self.write(&finish.flip);
    }

    fn recover(&self) -> Result<Recovered, RecoverError> {
        recover(&mut Cursor::new(&self.0[..]), 0)
    }

    fn recording(&self) -> (Recording, u64) {
        match self.recover().unwrap() {
            Recovered::Open { recording, damaged } => (recording, damaged),
            Recovered::Complete { .. } => panic!("complete"),
        }
    }
}

/// What is written of a stream in fragments of so many frames; where each of them ends.
fn recorded(tracks: &[Track], frames: &[Frame], size: usize) -> (Disk, Recording, Vec<u64>) {
    let origin = frames.iter().map(|frame| frame.dts).min().unwrap();
    let amount = Amount { pictures: 200, sounds: 200, fragments: 100 };
    let reserve = Recording::reserve(tracks, amount).unwrap();
    let mut recording = Recording::start(tracks, origin, reserve).unwrap();
    let mut disk = Disk::default();
    recording.head().iter().for_each(|write| disk.write(write));
    assert_eq!(disk.0.len() as u64, recording.size());
    let mut ends = vec![recording.size()];
    for (piece, end) in pieces(frames, size) {
        disk.append(&recording.fragment(piece, end).unwrap().unwrap());
        assert_eq!(disk.0.len() as u64, recording.size());
        ends.push(recording.size());
    }
    (disk, recording, ends)
}

fn index_of(file: &[u8]) -> Moov {
    Moov::decode(&mut &file[FTYP as usize..]).unwrap()
}

#[test]
fn a_finished_file_gives_what_was_recorded_with_its_times() {
    for name in CLIPS {
        let (tracks, frames) = stream_of(clip(name));
        for size in [1, 13, frames.len()] {
            let (mut disk, recording, _) = recorded(&tracks, &frames, size);
            let most = recording.index_size();
            let finish = recording.finish();
            let bytes = (finish.index[0].bytes.len() - 8 + 8) as u64;
            assert!(bytes <= most && bytes + 1000 > most, "{name}: {bytes} of {most}");
            disk.finish(&finish);
            let mp4 = Mp4::open(Cursor::new(disk.0.clone())).unwrap();
            assert!(!mp4.is_fragmented() && mp4.flaws().is_empty() && mp4.ignored().is_empty());
            let (_, back) = stream_of(disk.0);
            for track in &tracks {
                let rate = NonZeroU32::new(track.audio.sample_rate).unwrap_or(MOVIE_TIMESCALE);
                let (was, is) = (relative(&frames, track.kind(), rate), relative(&back, track.kind(), rate));
                assert_eq!(was, is, "{name} in pieces of {size}");
            }
            // Sound and pictures lie as far apart as they did.
            let apart = |frames: &[Frame]| {
                let first = |kind| frames.iter().find(|frame| frame.kind == kind).map(|frame| frame.pts);
                first(Kind::Video).zip(first(Kind::Audio)).map(|(video, audio)| video.nanos_since(audio))
            };
            let moved = apart(&frames).zip(apart(&back)).map_or(0, |(was, is)| was - is);
            assert!(moved.abs() < 50_000, "{name}: {moved} ns");
        }
    }
}

#[test]
fn sound_that_comes_behind_the_pictures_a_file_begins_with_keeps_its_times() {
    let (tracks, frames) = stream_of(clip("bframes.mp4"));
    let (later, behind) = (Duration::from_secs(5), Duration::from_millis(150));
    let moved = |frame: &Frame| {
        let moved = |time: Timestamp| match frame.kind {
            Kind::Video => time.saturating_add(later),
            Kind::Audio => time.saturating_add(later).saturating_sub(behind),
        };
        Frame { dts: moved(frame.dts), pts: moved(frame.pts), ..frame.clone() }
    };
    let frames: Vec<Frame> = frames.iter().map(moved).collect();
    let first = frames.iter().position(|frame| frame.kind == Kind::Video).unwrap();
    let mut in_order = frames.clone();
    let picture = in_order.remove(first);
    in_order.insert(0, picture.clone());
    let amount = Amount { pictures: 200, sounds: 200, fragments: 100 };
    let reserve = Recording::reserve(&tracks, amount).unwrap();
    let origin = picture.dts.saturating_sub(Duration::from_secs(2));
    let mut recording = Recording::start(&tracks, origin, reserve).unwrap();
    let mut disk = Disk::default();
    recording.head().iter().for_each(|write| disk.write(write));
    for piece in in_order.chunks(10) {
        disk.append(&recording.fragment(piece, None).unwrap().unwrap());
    }
    let cut = disk.clone().recording().0.finish();
    let finish = recording.finish();
    assert_eq!(cut, finish);
    disk.finish(&finish);
    let moov = index_of(&disk.0);
    let sounds = frames.iter().filter(|frame| frame.kind == Kind::Audio).count() as u64;
    assert_eq!(moov.trak[0].mdia.mdhd.duration, 25 * 3600);
    assert_eq!(moov.trak[1].mdia.mdhd.duration, sounds * 1024);
    let (_, back) = stream_of(disk.0);
    let apart = |frames: &[Frame]| {
        let first = |kind| frames.iter().find(|frame| frame.kind == kind).map(|frame| frame.pts).unwrap();
        first(Kind::Video).nanos_since(first(Kind::Audio))
    };
    let moved = apart(&frames) - apart(&back);
    assert!(moved.abs() < 50_000, "{moved} ns");
}

#[test]
fn an_open_file_plays_as_well() {
    let (tracks, frames) = stream_of(clip("bframes.mp4"));
    let (disk, ..) = recorded(&tracks, &frames, 9);
    let (_, back) = stream_of(disk.0);
    assert_eq!(back.len(), frames.len());
}

#[test]
fn a_start_with_b_frames_is_shown_at_zero_and_the_duration_is_exact() {
    let (tracks, frames) = stream_of(clip("bframes.mp4"));
    let (mut disk, recording, _) = recorded(&tracks, &frames, 20);
    disk.finish(&recording.finish());
    let moov = index_of(&disk.0);
    let video: Vec<&Frame> = frames.iter().filter(|frame| frame.kind == Kind::Video).collect();
    let delay = video[0].pts.nanos_since(video[0].dts) * 9 / 100_000;
    let edits = &moov.trak[0].edts.as_ref().unwrap().elst.as_ref().unwrap().entries;
    assert!(delay > 0);
    let edit = edits.last().unwrap();
    assert_eq!((edit.media_time, edit.segment_duration), (Some(delay as u64), 25 * 3600));
    assert_eq!(moov.trak[0].mdia.mdhd.duration, 25 * 3600);
    let sounds = frames.len() as u64 - 25;
    assert_eq!(moov.trak[1].mdia.mdhd.duration, sounds * 1024);
    assert_eq!(moov.mvhd.duration, moov.trak.iter().map(|trak| trak.tkhd.duration).max().unwrap());
}

#[test]
fn a_file_that_was_cut_gets_the_index_that_it_would_have_had() {
    let (tracks, frames) = stream_of(clip("bframes.mp4"));
    let size = 11;
    let (disk, recording, ends) = recorded(&tracks, &frames, size);
    let count = ends.len() - 1;
    for cut in (ends[0] as usize..disk.0.len()).step_by(97).chain([disk.0.len()]) {
        let whole = ends.iter().filter(|end| **end <= cut as u64).count() - 1;
        let mut cut_disk = Disk(disk.0[..cut].to_vec());
        let (recovered, damaged) = cut_disk.recording();
        assert_eq!((recovered.amount().fragments, damaged), (whole as u64, 0));
        assert_eq!(recovered.size(), ends[whole]);
        let finish = recovered.finish();
        if whole == count {
            continue;
        }
        if whole > 0 {
            // Nobody knew the end of its last picture: it is the one that the fragment says.
            cut_disk.finish(&finish);
            let (_, back) = stream_of(cut_disk.0);
            assert_eq!(back.len(), (whole * size).min(frames.len()));
        }
    }
    let (whole, _) = disk.recording();
    assert_eq!(whole.amount(), recording.amount());
    assert_eq!(whole.duration_nanos(), recording.duration_nanos());
    assert_eq!(whole.finish(), recording.finish());
}

#[test]
fn zeros_behind_the_last_fragment_are_the_end_and_no_damage() {
    let (tracks, frames) = stream_of(clip("bframes.mp4"));
    let (mut disk, whole, ends) = recorded(&tracks, &frames, 10);
    let amount = whole.amount();
    for zeros in [1, 7, 8, 16, 511, 1 << 20] {
        disk.0.truncate(ends[ends.len() - 1] as usize);
        disk.0.resize(disk.0.len() + zeros, 0);
        let (recording, damaged) = disk.recording();
        assert_eq!((recording.amount(), recording.size(), damaged), (amount, ends[ends.len() - 1], 0));
    }
}

#[test]
fn both_states_of_the_header_are_recovered() {
    let (tracks, frames) = stream_of(clip("hevc.mp4"));
    let (mut disk, recording, _) = recorded(&tracks, &frames, 25);
    let open = disk.clone();
    let finish = recording.finish();
    // The index is in the reserve, in part or as a whole, and the header says `free`.
    for parts in 0..=finish.index.len() {
        let mut half = open.clone();
        finish.index[..parts].iter().for_each(|write| half.write(write));
        assert_eq!(half.recording().0.finish(), finish);
    }
    disk.finish(&finish);
    assert!(matches!(disk.recover(), Ok(Recovered::Complete { size }) if size == finish.size));
    // The header says `moov`, and the file is not as long as the index says.
    disk.0.truncate(disk.0.len() - 1);
    let (recovered, _) = disk.recording();
    assert!(recovered.size() < finish.size);
}

#[test]
fn what_never_reached_the_disk_is_left_out() {
    let (tracks, frames) = stream_of(clip("bframes.mp4"));
    let (mut disk, _, ends) = recorded(&tracks, &frames, 10);
    // A sector of the media of the third fragment, and all of the last one.
    let sector = ends[3] as usize / 512 * 512 - 512;
    disk.0[sector..sector + 512].fill(0);
    let last = ends[ends.len() - 2] as usize;
    disk.0[last..].fill(0);
    let (recording, damaged) = disk.recording();
    let is_hit = |two: &&[u64]| two[0] < sector as u64 + 512 && two[1] > sector as u64;
    let hits = ends.windows(2).filter(is_hit).count() as u64;
    assert!(hits > 0);
    assert_eq!(damaged, 1, "in one piece");
    assert_eq!(recording.amount().fragments, ends.len() as u64 - 2 - hits);
    assert_eq!(recording.size(), ends[ends.len() - 2]);
}

#[test]
fn what_a_sync_was_confirmed_behind_is_not_read_again() {
    let (tracks, frames) = stream_of(clip("bframes.mp4"));
    let (mut disk, _, ends) = recorded(&tracks, &frames, 10);
    let media = ends[2] as usize - 1;
    disk.0[media] ^= 1;
    assert_eq!(disk.recording().1, 1);
    let trusted = recover(&mut Cursor::new(&disk.0[..]), ends[2]).unwrap();
    assert!(matches!(trusted, Recovered::Open { damaged: 0, .. }));
}

#[test]
fn the_index_never_outgrows_its_reserve() {
    let (tracks, frames) = stream_of(clip("bframes.mp4"));
    let reserve = Recording::reserve(&tracks, Amount { pictures: 120, sounds: 0, fragments: 40 }).unwrap();
    let mut recording = Recording::start(&tracks, Timestamp::ZERO, reserve).unwrap();
    let mut disk = Disk::default();
    recording.head().iter().for_each(|write| disk.write(write));
    let mut at = 0;
    let error = loop {
        at += 1;
        // Steps, offsets and sizes that never repeat.
        let (dts, pts) = (Timestamp::from_millis(at * at), Timestamp::from_millis(at * at + at));
        let mut picture = frame(Kind::Video, dts, pts, at % 2 == 0);
        picture.data = frames[0].data.slice(..10 + at as usize);
        match recording.fragment(&[picture], None) {
            Ok(fragment) => disk.append(&fragment.unwrap()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, MuxError::IndexFull { .. }));
    assert!(recording.amount().pictures >= 40);
    assert!(!recording.has_room_for(Amount { pictures: 1, sounds: 0, fragments: 1 }));
    let finish = recording.finish();
    let end = finish.index[0].offset + finish.index[0].bytes.len() as u64;
    assert!(end <= finish.index[1].offset);
    disk.finish(&finish);
    index_of(&disk.0);
    Mp4::open(Cursor::new(disk.0)).unwrap();
}

#[test]
fn an_hour_takes_little_memory() {
    let (tracks, _) = stream_of(clip("bframes.mp4"));
    let rate = NonZeroU32::new(tracks[1].audio.sample_rate).unwrap();
    let reserve = Recording::reserve(&tracks, Amount { pictures: 108_000, sounds: 180_000, fragments: 3600 });
    let mut recording = Recording::start(&tracks, Timestamp::ZERO, reserve.unwrap()).unwrap();
    let data = Bytes::from(vec![0; 20_000]);
    for second in 0..3600_i64 {
        let mut frames = Vec::new();
        for index in second * 30..second * 30 + 30 {
            // As RTMP has it: 33, 33, 34 ms, with B-frames.
            let dts = Timestamp::from_millis(index * 1000 / 30);
            let pts = Timestamp::from_millis((index + [2, 4, 1, 1][index as usize % 4]) * 1000 / 30);
            let size = 2000 + (index * 7919 % 15_000) as usize;
            frames.push(Frame {
                kind: Kind::Video,
                dts,
                pts,
                is_sync: index % 60 == 0,
                data: data.slice(..size),
            });
        }
        let per_second = i64::from(rate.get()) / 1024;
        for index in second * per_second..(second + 1) * per_second {
            let time = Timestamp::from_ticks(index * 1024, rate);
            let data = data.slice(..300 + (index % 90) as usize);
            frames.push(Frame { kind: Kind::Audio, dts: time, pts: time, is_sync: true, data });
        }
        recording.fragment(&frames, None).unwrap().unwrap();
    }
    assert!(recording.memory() < 2 << 20, "{} bytes", recording.memory());
}

#[test]
fn what_lies_behind_four_gibibytes_is_found() {
    let (tracks, frames) = stream_of(clip("bframes.mp4"));
    let mut recording = Recording::start(&tracks, frames[0].dts, 1 << 20).unwrap();
    recording.fragment(&frames[..10], None).unwrap();
    let hole = 5 << 30;
    recording.size += hole;
    let at = recording.size();
    let fragment = recording.fragment(&frames[10..20], None).unwrap().unwrap();
    let size = recording.size();
    let finish = recording.finish();
    let moov = Moov::decode(&mut &[&finish.flip.bytes[..], &finish.index[0].bytes].concat()[..]).unwrap();
    let chunks = &moov.trak[0].mdia.minf.stbl.co64.as_ref().unwrap().entries;
    assert_eq!(chunks[1], at + fragment.header.len() as u64);
    assert!(moov.trak[0].mdia.minf.stbl.stco.is_none());
    let mdat = &finish.index[1].bytes;
    let large = u64::from_be_bytes(mdat[8..].try_into().unwrap());
    assert_eq!(finish.index[1].offset + large, size);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_picture_has_its_own_times_wherever_commits_lie(
        // No picture is held back for more than 32 others: readers take that for damage.
        steps in prop::collection::vec((7_i64..1_500, 0_i64..200, any::<bool>()), 2..60),
        size in 1_usize..8,
    ) {
        let (tracks, _) = stream_of(clip("hevc10.mp4"));
        let mut at = 7;
        let frames: Vec<Frame> = steps.iter().map(|(step, reorder, sync)| {
            at += step;
            let (dts, pts) = (Timestamp::from_millis(at), Timestamp::from_millis(at + reorder));
            frame(Kind::Video, dts, pts, *sync)
        }).collect();
        // Nothing is shown before the first picture is, and readers leave out the end of a file of which nothing is shown.
        prop_assume!(frames.last().is_some_and(|last| last.pts >= frames[0].pts));
        let amount = Amount { pictures: 60, sounds: 0, fragments: 60 };
        let reserve = Recording::reserve(&tracks, amount).unwrap();
        let mut recording = Recording::start(&tracks, Timestamp::ZERO, reserve).unwrap();
        let mut disk = Disk::default();
        recording.head().iter().for_each(|write| disk.write(write));
        for piece in frames.chunks(size) {
            disk.append(&recording.fragment(piece, None).unwrap().unwrap());
        }
        let cut = disk.clone().recording().0.finish();
        let finish = recording.finish();
        prop_assert_eq!(&cut, &finish);
        disk.finish(&finish);
        let (_, back) = stream_of(disk.0);
        let times = |frames: &[Frame]| -> Vec<[i64; 2]> {
            let first = frames[0].pts;
            frames.iter().map(|frame| [frame.dts, frame.pts].map(|time| time.nanos_since(first) / 1_000_000)).collect()
        };
        prop_assert_eq!(times(&frames), times(&back));
    }

    #[test]
    fn whatever_is_broken_recovery_ends_and_what_it_gives_can_be_finished(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        trusted in any::<bool>(),
    ) {
        let (tracks, frames) = stream_of(clip("aac44100.mp4"));
        let (mut disk, ..) = recorded(&tracks, &frames, 8);
        for (at, value) in hits {
            let at = at.index(disk.0.len());
            disk.0[at] = value;
        }
        disk.0.truncate(cut.index(disk.0.len()) + 1);
        let trusted = if trusted { u64::MAX } else { 0 };
        if let Ok(Recovered::Open { recording, .. }) = recover(&mut Cursor::new(&disk.0[..]), trusted) {
            let samples = recording.amount().sounds;
            disk.finish(&recording.finish());
            if samples > 0 {
                index_of(&disk.0);
            }
        }
    }
}
