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

const ROOM: Amount = Amount { pictures: 1000, sounds: 1000, fragments: 100 };

/// Records four seconds with a commit each second, and gives the lengths after each.
fn record(path: &Path) -> (Segment, Vec<u64>) {
    let mut segment = Segment::create(path, &tracks(), Timestamp::ZERO, ROOM).unwrap();
    let mut lengths = Vec::new();
    let mut due = 1000;
    for frame in frames(4) {
        if frame.dts.millis() >= due {
            segment.commit(None).unwrap();
            lengths.push(segment.bytes());
            due += 1000;
        }
        segment.push(frame);
    }
    segment.commit(None).unwrap();
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
        segment.commit(None).unwrap();
        std::fs::read(&path).unwrap()
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
    let few = Amount { pictures: 100, sounds: 100, fragments: 10 };
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
            segment.commit(None).unwrap();
        }
    }
    assert!(nearly.is_some() && segment.is_full());
    segment.commit(None).unwrap();
    segment.finish().unwrap();
}
