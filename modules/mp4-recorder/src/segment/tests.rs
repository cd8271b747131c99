use bytes::Bytes;

use super::*;

/// 4 kB pictures at 25 a second, one in 25 a sync frame, and AAC.
fn frames(seconds: i64) -> Vec<Frame> {
    let mut frames = Vec::new();
    for index in 0..seconds * 25 {
        let dts = Timestamp::from_millis(index * 40);
        let data = Bytes::from(vec![u8::try_from(index % 251).unwrap() + 1; 4000]);
        frames.push(Frame { kind: Kind::Video, dts, pts: dts, is_sync: index % 25 == 0, data });
    }
    for index in 0..seconds * 48_000 / 1024 {
        let dts = Timestamp::from_nanos(index * 1024 * 1_000_000_000 / 48_000);
        let data = Bytes::from(vec![7; 200]);
        frames.push(Frame { kind: Kind::Audio, dts, pts: dts, is_sync: true, data });
    }
    frames.sort_by_key(|frame| frame.dts);
    frames
}

fn tracks() -> Vec<Track> {
    let avcc = b"\x01\x42\xc0\x1e\xff\xe1\x00\x18\x67\x42\xc0\x1e\xd9\x00\xa0\x47\xfe\xc0\x5a\x80\x80\x80\xa0\x00\x00\x03\
                 \x00\x20\x00\x00\x07\x91\x01\x00\x04\x68\xcb\x83\xcb";
    vec![Track::h264(Bytes::from_static(avcc)).unwrap(), Track::aac(Bytes::from_static(b"\x11\x90")).unwrap()]
}

const ROOM: Expected =
    Expected { index: 0, more: Amount { pictures: 1000, sounds: 1000, fragments: 100 }, ahead: false };

/// Records four seconds with a commit each second, and gives the lengths after each.
fn record(path: &Path) -> (Segment, Vec<u64>) {
    let mut segment = Segment::create(path, &tracks(), Timestamp::ZERO, ROOM).unwrap();
    let mut lengths = Vec::new();
    let mut due = 1000;
    for frame in frames(4) {
        if frame.dts.millis() >= due {
            segment.commit(None, true).unwrap();
            lengths.push(segment.bytes());
            due += 1000;
        }
        segment.push(frame);
    }
    segment.commit(None, true).unwrap();
    lengths.push(segment.bytes());
    assert_eq!(segment.durable(), Some(segment.bytes()));
    (segment, lengths)
}

fn samples(path: &Path) -> usize {
    let mut playback = Playback::new(Mp4::open(File::open(path).unwrap()).unwrap(), Duration::ZERO);
    std::iter::from_fn(|| playback.next_sample(false).unwrap()).count()
}

#[test]
fn a_finished_file_holds_every_frame_and_says_how_long_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    let (segment, _) = record(&path);
    let finished = segment.finish().unwrap();
    assert_eq!(finished.bytes, std::fs::metadata(&path).unwrap().len());
    assert_eq!(samples(&path), frames(4).len());
    assert_eq!((finished.amount.pictures, finished.duration.as_millis()), (100, 4000));
    // Doing it again finds nothing to do.
    let again = repair(&path, None).unwrap();
    assert_eq!((again.bytes, again.written, again.duration.as_millis()), (finished.bytes, 0, 4000));
}

#[test]
fn a_file_that_was_cut_off_anywhere_keeps_what_was_durable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    let (segment, lengths) = record(&path);
    drop(segment);
    let whole = std::fs::read(&path).unwrap();
    for (second, length) in (1..).zip(&lengths) {
        for more in [0, 1, 100, 5000] {
            let end = usize::try_from(length + more).unwrap().min(whole.len());
            std::fs::write(&path, &whole[..end]).unwrap();
            let finished = repair(&path, None).unwrap();
            assert_eq!(finished.amount.pictures, second * 25, "{end}");
            assert_eq!(finished.bytes, std::fs::metadata(&path).unwrap().len());
            assert!(samples(&path) > usize::try_from(second).unwrap() * 25);
        }
    }
}

#[test]
fn a_file_in_which_nothing_became_durable_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    let segment = Segment::create(&path, &tracks(), Timestamp::ZERO, ROOM).unwrap();
    let length = segment.bytes();
    drop(segment);
    assert!(matches!(repair(&path, None), Err(RepairError::Nothing)));
    for content in [Vec::new(), vec![0; usize::try_from(length).unwrap()]] {
        std::fs::write(&path, content).unwrap();
        assert!(matches!(repair(&path, None), Err(RepairError::Nothing)));
    }
}

#[test]
fn a_torn_head_or_first_fragment_is_dropped_and_more_damage_is_kept_for_quarantine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    let mut segment = Segment::create(&path, &tracks(), Timestamp::ZERO, ROOM).unwrap();
    let head = usize::try_from(segment.bytes()).unwrap();
    let mut after = |from: usize, to: usize| {
        frames(2).into_iter().skip(from).take(to - from).for_each(|frame| segment.push(frame));
        segment.commit(None, true).unwrap();
        let mut content = std::fs::read(&path).unwrap();
        content.truncate(usize::try_from(segment.bytes()).unwrap());
        content
    };
    let (one, two) = (after(0, 30), after(30, 60));
    let repaired = |mut content: Vec<u8>, gone: &[(usize, usize)]| {
        gone.iter().for_each(|(from, to)| content[*from..*to].fill(0));
        std::fs::write(&path, content).unwrap();
        repair(&path, None)
    };
    // The first sector of a head, and one of the only fragment.
    assert!(matches!(repaired(one[..head].to_vec(), &[(0, 512)]), Err(RepairError::Nothing)));
    let torn = (head + 600, head + 700);
    assert!(matches!(repaired(one.clone(), &[torn]), Err(RepairError::Nothing)));
    // A disk that lost what it had confirmed as durable.
    let later = (one.len() + 600, one.len() + 700);
    assert!(matches!(repaired(two.clone(), &[torn, later]), Err(RepairError::Beyond(_))));
    assert!(matches!(repaired(two, &[(0, 512)]), Err(RepairError::Beyond(_))));
}

#[test]
fn what_is_no_recording_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    let content = b"not at all a film, but quite long for a text".repeat(1000);
    std::fs::write(&path, &content).unwrap();
    assert!(matches!(repair(&path, None), Err(RepairError::Beyond(_))));
    assert_eq!(std::fs::read(&path).unwrap(), content);
}

#[test]
fn a_file_says_in_time_that_its_index_is_going_to_be_full() {
    let dir = tempfile::tempdir().unwrap();
    let few = Expected { more: Amount { pictures: 100, sounds: 100, fragments: 10 }, ..ROOM };
    let mut segment = Segment::create(&dir.path().join("a.mp4"), &tracks(), Timestamp::ZERO, few).unwrap();
    let mut nearly = None;
    for (index, frame) in frames(60).into_iter().enumerate() {
        if segment.is_full() {
            break;
        }
        if segment.is_nearly_full() {
            nearly.get_or_insert(index);
        }
        segment.push(frame);
        if index % 50 == 0 {
            segment.commit(None, true).unwrap();
        }
    }
    assert!(nearly.is_some() && segment.is_full());
    segment.commit(None, true).unwrap();
    segment.finish().unwrap();
}

#[test]
fn the_index_that_a_file_has_is_room_enough_for_the_next_one_like_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = ROOM;
    for name in ["a.mp4", "b.mp4", "c.mp4"] {
        let path = dir.path().join(name);
        let mut segment = Segment::create(&path, &tracks(), Timestamp::ZERO, expected).unwrap();
        for frame in frames(20) {
            if frame.is_sync && frame.kind == Kind::Video {
                assert!(!segment.is_nearly_full(), "{name}");
                segment.commit(None, true).unwrap();
            }
            segment.push(frame);
        }
        segment.commit(None, true).unwrap();
        let finished = segment.finish().unwrap();
        assert_eq!(samples(&path), frames(20).len());
        expected = Expected { index: finished.index.index / 2 * 3, ..finished.index };
    }
    let of_most =
        Recording::reserve(&tracks(), Amount { pictures: 500, sounds: 938, fragments: 21 }).unwrap();
    assert!(expected.index < of_most / 2, "{} of {of_most}", expected.index);
}

/// As many seconds as there are sizes of pictures, with a commit each 400 ms.
fn of_sizes(sizes: &[usize]) -> Vec<Vec<Frame>> {
    let frames = frames(i64::try_from(sizes.len()).unwrap()).into_iter().map(|frame| {
        let second = usize::try_from(frame.dts.millis() / 1000).unwrap();
        match frame.kind {
            Kind::Video => Frame { data: Bytes::from(vec![1; sizes[second]]), ..frame },
            Kind::Audio => frame,
        }
    });
    let frames: Vec<_> = frames.collect();
    frames
        .chunk_by(|one, next| one.dts.millis() / 400 == next.dts.millis() / 400)
        .map(<[_]>::to_vec)
        .collect()
}

/// Whether a disk takes direct writes of single sectors.
fn takes_direct_writes(dir: &Path) -> bool {
    let path = dir.join("probe");
    std::fs::write(&path, vec![0; 4096]).unwrap();
    let one = |piece: &[u8]| Direct::open(&path, 512, &[], 512).write(512, 1, std::iter::once(piece), false);
    one(&[1]).unwrap()
}

#[test]
fn a_stream_of_large_commits_is_not_allocated_ahead_for_a_small_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    let mut segment = Segment::create(&path, &tracks(), Timestamp::ZERO, ROOM).unwrap();
    let mut commits = of_sizes(&[30_000, 30_000]);
    // A first and a last part of a second.
    commits[0].truncate(5);
    commits[4].truncate(5);
    for frames in commits {
        frames.into_iter().for_each(|frame| segment.push(frame));
        segment.commit(None, true).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), segment.bytes());
    }
    assert!(!segment.direct.is_open() && !segment.direct.is_longer());
}

/// Whether it refuses others, as another disk refuses those of 512 bytes.
fn enforces_sectors(dir: &Path) -> bool {
    let path = dir.join("probe");
    std::fs::write(&path, vec![0; 4096]).unwrap();
    let mut direct = Direct::open(&path, 700, &[0; 700], 700);
    direct.forget_odd();
    takes_direct_writes(dir) && !direct.write(700, 1, std::iter::once(&[1][..]), false).unwrap()
}

#[test]
fn a_file_is_the_same_however_its_commits_went_to_the_disk() {
    let commits = of_sizes(&[400, 4000, 20, 30_000, 700, 5000, 11]);
    for parent in [std::env::temp_dir(), "/dev/shm".into()] {
        let dir = tempfile::tempdir_in(parent).unwrap();
        let takes = takes_direct_writes(dir.path());
        let begin =
            |name: &str| Segment::create(&dir.path().join(name), &tracks(), Timestamp::ZERO, ROOM).unwrap();
        let (mut direct, mut cached) = (begin("direct"), begin("cached"));
        let room = Expected { ahead: true, ..ROOM };
        let mut ahead = Segment::create(&dir.path().join("ahead"), &tracks(), Timestamp::ZERO, room).unwrap();
        cached.direct = Direct::none(cached.bytes());
        let read = |segment: &Segment| {
            let mut content = vec![0; usize::try_from(segment.bytes()).unwrap()];
            segment.file().read_exact_at(&mut content, 0).unwrap();
            content
        };
        for frames in &commits {
            for (segment, ahead) in [(&mut direct, false), (&mut ahead, true), (&mut cached, true)] {
                frames.iter().for_each(|frame| segment.push(frame.clone()));
                segment.commit(None, ahead).unwrap();
            }
            let expected = read(&cached);
            assert!(read(&direct) == expected && read(&ahead) == expected);
            assert_eq!((direct.room(), cached.room()), (direct.bytes(), cached.bytes()));
        }
        assert_eq!(
            (direct.direct.is_longer(), ahead.direct.is_new()),
            (takes, !takes && ahead.direct.is_open())
        );
        assert!(ahead.room() > ahead.bytes());
        for segment in [direct, ahead, cached] {
            segment.finish().unwrap();
        }
        let file = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        assert!(file("direct") == file("cached") && file("ahead") == file("cached"));
    }
}

#[test]
fn a_disk_that_refuses_a_direct_write_gets_the_same_file_through_the_page_cache() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [dir.path().join("refused.mp4"), dir.path().join("cached.mp4")];
    for path in &paths {
        let mut segment = Segment::create(path, &tracks(), Timestamp::ZERO, ROOM).unwrap();
        for (at, frames) in of_sizes(&[400, 900]).into_iter().enumerate() {
            if path == &paths[1] {
                segment.direct = Direct::none(segment.bytes());
            } else if at == 2 {
                segment.direct.forget_odd();
            }
            frames.into_iter().for_each(|frame| segment.push(frame));
            segment.commit(None, true).unwrap();
        }
        assert_eq!(segment.direct.is_open(), path == &paths[0] && !enforces_sectors(dir.path()));
        segment.finish().unwrap();
    }
    assert!(std::fs::read(&paths[0]).unwrap() == std::fs::read(&paths[1]).unwrap());
}

#[test]
fn zeros_behind_what_was_written_are_the_end_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    let (segment, lengths) = record(&path);
    drop(segment);
    let whole = std::fs::read(&path).unwrap();
    // Blocks behind the first fragments, and behind none.
    for (second, length) in (1..).zip(&lengths).chain([(0, &(lengths[0] / 2))]) {
        std::fs::write(&path, &whole[..usize::try_from(*length).unwrap()]).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(length + AHEAD + 17).unwrap();
        match repair(&path, None) {
            Ok(finished) => {
                assert_eq!((finished.bytes, finished.amount.pictures), (*length, second * 25));
                assert_eq!(std::fs::metadata(&path).unwrap().len(), *length);
                assert!(samples(&path) > usize::try_from(second).unwrap() * 25);
            }
            Err(error) => assert!(second == 0 && matches!(error, RepairError::Nothing), "{error}"),
        }
    }
}

#[test]
fn what_is_allocated_counts_as_taken_and_is_given_back_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    let (mut segment, _) = record(&path);
    let blocks = || std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap()) * 512;
    if takes_direct_writes(dir.path()) {
        let free = segment.room() - segment.bytes();
        assert!(free > AHEAD / 2 && blocks() >= segment.room());
        assert_eq!((segment.room_for(free), segment.room_for(free + 5)), (0, 5));
    }
    // Without leave for more it goes on, up to the last block and behind it.
    for _ in 0..12 {
        frames(1).into_iter().for_each(|frame| segment.push(frame));
        segment.commit(None, false).unwrap();
    }
    assert_eq!((segment.room(), segment.room_for(5)), (segment.bytes(), 5));
    let finished = segment.finish().unwrap();
    assert!(blocks() < finished.bytes + 8192, "{} for {}", blocks(), finished.bytes);
    assert_eq!(finished.bytes, std::fs::metadata(&path).unwrap().len());
}
