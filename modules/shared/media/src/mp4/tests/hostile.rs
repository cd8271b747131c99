//! Files that are broken, by accident or on purpose.

use std::error::Error;

use super::files::{self, Content, Node, sized};
use super::*;

/// Opens a file and reads every sample of it once: what the fuzzer does too.
fn read_all(file: Vec<u8>) -> Result<usize, Mp4Error> {
    let mut playback = Playback::new(Mp4::open(Cursor::new(file))?, Duration::from_millis(300));
    let mut bytes = 0;
    while let Some(sample) = playback.next_sample(false)? {
        bytes += sample.data.len();
    }
    Ok(bytes)
}

fn text(error: &Mp4Error) -> String {
    format!("{error}: {}", error.source().unwrap())
}

/// Where a box's header stands, by its name.
fn offset_of(file: &[u8], kind: &[u8; 4]) -> usize {
    file.windows(4).position(|four| four == kind).unwrap() - 4
}

#[test]
fn what_is_no_mp4_file_is_said_to_be_none() {
    let error = read_all(b"#EXTM3U\n#EXT-X-VERSION:3\n".to_vec()).unwrap_err();
    assert_eq!(text(&error), "box ftyp at byte 0: this is not an MP4 file");
    assert!(matches!(read_all(vec![0; 3]).unwrap_err().source, Mp4Fault::NotMp4));
}

#[test]
fn an_unfinished_recording_is_said_to_have_no_index() {
    let mut file = clip("bframes.mp4");
    let moov = offset_of(&file, b"moov");
    file.truncate(moov);
    let error = read_all(file).unwrap_err();
    assert!(matches!(error.source, Mp4Fault::NoIndex));
    assert_eq!(error.offset, moov as u64);
    assert!(matches!(read_all(Vec::new()).unwrap_err().source, Mp4Fault::NoIndex));
}

#[test]
fn an_index_that_the_end_cuts_gives_the_tracks_that_are_in_it_or_is_named() {
    // Only `udta`, which is last, is cut.
    let mut file = clip("bframes.mp4");
    let moov = offset_of(&file, b"moov");
    file.truncate(file.len() - 20);
    assert_eq!(read_all(file.clone()).unwrap(), read_all(clip("bframes.mp4")).unwrap());

    // Inside the first track: nothing is left of it.
    let need = (clip("bframes.mp4").len() - moov - 8) as u64;
    file.truncate(offset_of(&file, b"stts"));
    let have = (file.len() - moov - 8) as u64;
    let error = read_all(file).unwrap_err();
    assert_eq!((error.name, error.offset), (FourCC::new(b"moov"), moov as u64));
    let text = error.source.to_string();
    assert!(
        text.starts_with(&format!("the file ends inside its index: it takes {need} bytes, {have} are left")),
        "{text}"
    );
    assert!(text.contains("track 1 (avc1): it has no "), "{text}");
}

#[test]
fn cut_media_plays_as_far_as_it_goes_and_says_where_it_is_cut() {
    let mut file = clip("faststart.mp4");
    let whole = read_all(file.clone()).unwrap();
    file.truncate(file.len() - 1000);
    let end = file.len() as u64;
    let mp4 = Mp4::open(Cursor::new(file.clone())).unwrap();
    assert!(!mp4.flaws().is_empty());
    for flaw in mp4.flaws() {
        let Flaw::Cut { offset, missing, of, file_end, .. } = flaw else { panic!("{flaw}") };
        assert!(
            (1..10).contains(missing) && missing < of && *file_end == end && *offset < end + 1000,
            "{flaw}"
        );
    }
    let mut playback = Playback::new(mp4, Duration::ZERO);
    let (mut bytes, mut loops) = (0, 0);
    while loops < 3 {
        let sample = playback.next_sample(true).unwrap().unwrap();
        loops = sample.loop_index;
        bytes += if loops == 0 { sample.data.len() } else { 0 };
    }
    assert!(bytes > whole - 2500 && bytes <= whole - 1000, "{bytes} of {whole}");
}

#[test]
fn a_fragment_that_announces_billions_of_samples_gives_those_that_there_is_data_for() {
    let mut file = clip("fragmented.mp4");
    let trun = offset_of(&file, b"trun");
    // No fields per sample: the count alone would be believed.
    file[trun + 8..trun + 16].copy_from_slice(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let mp4 = Mp4::open(Cursor::new(file.clone())).unwrap();
    assert!(matches!(mp4.flaws(), [.., Flaw::Fragments { count: 1, .. }]), "{:?}", mp4.flaws());
    let samples: usize = mp4.tracks().iter().map(|track| track.sample_count as usize).sum();
    assert!(samples < file.len());
}

#[test]
fn fragments_of_no_track_that_announce_billions_of_samples_are_passed_over_at_once() {
    let mut file = clip("fragmented.mp4");
    let tracks = Mp4::open(Cursor::new(file.clone())).unwrap().tracks().to_vec();
    // A track that is nowhere, its data behind the `moof`, samples of a byte; as many as can be said, with no columns.
    let tfhd = Node::new(b"tfhd", [2 << 16 | 0x10, 99, 1_u32].map(u32::to_be_bytes).concat());
    let traf =
        Node { kind: *b"traf", content: Content::Boxes(vec![tfhd, Node::full(b"trun", 0, &[u32::MAX])]) };
    let traf = traf.bytes();
    assert_eq!(traf.len(), 44);
    file.extend(sized(b"moof", &traf.repeat(50_000)));

    let (done, opened) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(Mp4::open(Cursor::new(file))).is_ok());
    let mp4 = opened.recv_timeout(Duration::from_secs(60)).expect("opened by now").unwrap();
    assert_eq!(mp4.tracks(), tracks);
    assert!(matches!(mp4.flaws(), [Flaw::Fragments { count: 1, .. }]), "{:?}", mp4.flaws());
}

#[test]
fn an_index_that_takes_too_much_memory_is_refused_with_the_reason() {
    let refused = |name: &str, bytes| Mp4::open_within(Cursor::new(clip(name)), bytes).unwrap_err();
    let error = refused("bframes.mp4", 100);
    assert!(matches!(error.source, Mp4Fault::NoTrack(_)));
    let text = error.source.to_string();
    assert!(
        text.contains(
            "25 of its 25 samples take more than the 100 bytes of memory that are left for the index"
        ),
        "{text}"
    );

    // The samples of fragments, which are of no one box.
    let error = refused("fragmented.mp4", 100);
    assert_eq!(error.name, FourCC::new(b"moof"));
    assert_eq!(error.source.to_string(), "the file's index takes more than 100 bytes of memory");
    for name in ["bframes.mp4", "fragmented.mp4"] {
        assert!(Mp4::open_within(Cursor::new(clip(name)), 10_000).is_ok(), "{name}");
    }

    // Fragments of nothing.
    let mut file = clip("fragmented.mp4");
    file.extend(sized(b"moof", &[]).repeat(1000));
    let error = Mp4::open_within(Cursor::new(file), 10_000).unwrap_err();
    assert!(matches!(error.source, Mp4Fault::IndexTooLarge { most: 10_000 }), "{error:?}");
}

#[test]
fn a_fragment_that_takes_too_much_memory_is_not_read_to_its_end() {
    let mut file = files::File::of(&clip("fragmented.mp4"));
    let id = 1_u32;
    let tfhd = Node::new(b"tfhd", [2 << 16, id].map(u32::to_be_bytes).concat());
    // Sizes that all differ from the one before.
    let count = 1 << 20;
    let mut trun = Node::new(b"trun", [0x200, count].map(u32::to_be_bytes).concat());
    trun.body().extend((0..count).flat_map(|index| (index % 2).to_be_bytes()));
    let traf = Node { kind: *b"traf", content: Content::Boxes(vec![tfhd, trun]) };
    file.nodes.push(Node { kind: *b"moof", content: Content::Boxes(vec![traf]) });
    let mut file = Cursor::new(file.bytes());
    let most = 100_000;
    let mut boxes = FileBoxes::new(&mut file).unwrap();
    let end = boxes.end();
    let mut movie = None;
    while let Some(found) = boxes.next_box().unwrap() {
        match (&found.kind.into(), &mut movie) {
            (b"moov", _) => {
                movie = Some(Movie::parse(&boxes.load(&found, MAX_MOOV).unwrap(), u32::MAX, most))
            }
            (b"moof", Some(movie)) => {
                let _whole = fragments::append(movie, &boxes.load(&found, MAX_MOOF).unwrap(), end);
            }
            _ => {}
        }
    }
    let movie = movie.unwrap();
    let count = movie.tracks.iter().find(|track| track.id == id).unwrap().samples.count();
    assert!((1 << 16..3 << 16).contains(&count), "{count} samples");
    assert_eq!(movie.index_bytes, movie.tracks.iter().map(|track| track.samples.bytes()).sum::<usize>());
}

#[test]
fn edits_that_need_many_pictures_before_each_of_theirs_are_refused() {
    // The one sync sample is the first, or none is said to be one.
    for sync in [&[1, 1][..], &[0]] {
        let mut file = files::File::of(&clip("bframes.mp4"));
        let count = 100_000;
        let stbl = file.trak(0).stbl();
        stbl.remove(b"ctts");
        stbl.put(Node::full(b"stts", 0, &[1, count, 512]));
        stbl.put(Node::full(b"stss", 0, sync));
        stbl.put(Node::full(b"stsz", 0, &[1, count]));
        stbl.put(Node::full(b"stsc", 0, &[1, 1, count, 1]));
        stbl.put(Node::full(b"stco", 0, &[1, 100]));
        let mut elst = Node::full(b"elst", 0, &[8192]);
        let edit = [40, 512 * 90_000, 1 << 16_u32].map(u32::to_be_bytes).concat();
        elst.body().extend(edit.repeat(8192));
        file.trak(0).get(&[b"edts"]).put(elst);
        file.nodes.push(Node::new(b"free", vec![0; count as usize]));
        let mp4 = Mp4::open(Cursor::new(file.bytes())).unwrap();
        let reasons: Vec<_> = mp4.ignored().iter().map(|track| track.reason.clone()).collect();
        assert_eq!(reasons, [IgnoredReason::Repeated(32 * 100_000 + 50_000_000)]);

        // A few of them are no trouble.
        let mut elst = Node::full(b"elst", 0, &[10]);
        elst.body().extend(edit.repeat(10));
        file.trak(0).get(&[b"edts"]).put(elst);
        assert_eq!(Mp4::open(Cursor::new(file.bytes())).unwrap().ignored(), []);
    }
}

#[test]
fn fragments_without_an_index_are_refused() {
    let file = clip("fragmented.mp4");
    let (moov, moof) = (offset_of(&file, b"moov"), offset_of(&file, b"moof"));
    let file = [&file[..moov], &file[moof..]].concat();
    let error = read_all(file).unwrap_err();
    assert_eq!((error.name, error.offset), (FourCC::new(b"moof"), moov as u64));
}

#[test]
fn a_sample_of_a_gigabyte_is_left_out_unread() {
    let mut file = clip("faststart.mp4");
    let first_size = offset_of(&file, b"stsz") + 20;
    // Behind the end of the file all of them would be.
    file[first_size..first_size + 4].copy_from_slice(&(1_u32 << 30).to_be_bytes());
    let error = read_all(file.clone());
    assert!(error.is_ok(), "{error:?}");
    file[first_size..first_size + 4].copy_from_slice(&(40_u32 << 20).to_be_bytes());
    file.resize(60 << 20, 0);
    let mp4 = Mp4::open(Cursor::new(file)).unwrap();
    let too_large =
        |flaw: &Flaw| matches!(flaw, Flaw::TooLarge { count: 1, largest, .. } if *largest == 40 << 20);
    assert!(mp4.flaws().iter().any(too_large), "{:?}", mp4.flaws());
}

/// xorshift64: the same mutants in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }
}

#[test]
fn mutated_files_are_read_or_refused_but_never_a_panic() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut read, mut refused) = (0, 0);
    for name in ["bframes.mp4", "fragmented.mp4", "fragmented-edits.mp4", "cut.mp4", "hevc.mp4", "opus.mp4"] {
        let file = clip(name);
        // Index bytes are worth more than media bytes.
        let index = offset_of(&file, b"moov");
        for _ in 0..400 {
            let mut mutant = file.clone();
            for _ in 0..1 + random.below(4) {
                let at = if random.below(4) == 0 { 0 } else { index };
                let at = at + random.below(mutant.len() - at);
                mutant[at] = match random.below(4) {
                    0 => 0,
                    1 => 0xff,
                    2 => mutant[at] ^ 1 << random.below(8),
                    _ => random.below(256) as u8,
                };
            }
            if random.below(8) == 0 {
                mutant.truncate(random.below(mutant.len()));
            }
            match read_all(mutant) {
                Ok(bytes) => {
                    assert!(bytes <= 32 * 4 * file.len(), "{name}: {bytes} bytes");
                    read += 1;
                }
                Err(error) => {
                    assert!(error.source().is_some());
                    refused += 1;
                }
            }
        }
    }
    assert!(read > 1000 && refused > 50, "{read} read, {refused} refused");
}
