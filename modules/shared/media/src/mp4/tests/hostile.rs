//! Files that are broken, by accident or on purpose.

use std::error::Error;

use super::*;

/// Opens a file and reads every sample of it once: what the fuzzer does too.
fn read_all(file: Vec<u8>) -> Result<usize, Mp4Error> {
    let mut playback = Playback::new(Mp4::open(Cursor::new(file))?, Duration::from_millis(300))?;
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
fn a_cut_index_is_named_with_its_place() {
    let mut file = clip("bframes.mp4");
    let moov = offset_of(&file, b"moov");
    let need = (file.len() - moov - 8) as u64;
    file.truncate(file.len() - 100);
    let error = read_all(file).unwrap_err();
    assert_eq!((error.name, error.offset), (FourCC::new(b"moov"), moov as u64));
    assert_eq!(error.source.to_string(), format!("it takes {need} bytes, {} are left", need - 100));
}

#[test]
fn a_box_that_overruns_its_parent_is_named_with_its_place() {
    for kind in [b"stts", b"stsd", b"elst", b"esds", b"mvhd"] {
        let mut file = clip("bframes.mp4");
        let at = offset_of(&file, kind);
        file[at..at + 4].copy_from_slice(&0x00ff_ffff_u32.to_be_bytes());
        let error = read_all(file).unwrap_err();
        assert_eq!((error.name, error.offset), (FourCC::new(kind), at as u64));
        assert!(matches!(error.source, Mp4Fault::Truncated { need: 0x00ff_ffff, .. }));
    }
}

#[test]
fn a_table_shorter_than_it_says_is_named_with_its_place() {
    for kind in [b"stts", b"stsz", b"stco", b"stsc", b"ctts", b"stss"] {
        let mut file = clip("bframes.mp4");
        let at = offset_of(&file, kind);
        let count = at + if kind == b"stsz" { 16 } else { 12 };
        file[count..count + 4].copy_from_slice(&0xffff_ff00_u32.to_be_bytes());
        let error = read_all(file).unwrap_err();
        assert_eq!((error.name, error.offset), (FourCC::new(kind), at as u64));
        assert!(matches!(error.source, Mp4Fault::Malformed(_)), "{error:?}");
    }
}

#[test]
fn cut_media_names_the_sample_and_what_came_before_it_is_read() {
    let mut file = clip("faststart.mp4");
    file.truncate(file.len() - 1000);
    let mut playback = Playback::new(Mp4::open(Cursor::new(file.clone())).unwrap(), Duration::ZERO).unwrap();
    let mut read = 0;
    let error = loop {
        match playback.next_sample(false) {
            Ok(sample) => read += usize::from(sample.is_some()),
            Err(error) => break error,
        }
    };
    assert!(read > 50, "{read} samples");
    assert!(error.offset < file.len() as u64 && error.name == FourCC::new(b"mdat"));
    let Mp4Fault::SampleTruncated { size, have, .. } = error.source else { panic!("{error:?}") };
    assert_eq!(error.offset + have as u64, file.len() as u64);
    assert!(have < size as usize);
}

#[test]
fn a_fragment_that_announces_billions_of_samples_is_refused() {
    let mut file = clip("fragmented.mp4");
    let trun = offset_of(&file, b"trun");
    // No fields per sample: the count alone would be believed.
    file[trun + 8..trun + 16].copy_from_slice(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let error = read_all(file).unwrap_err();
    assert_eq!((error.name, error.offset), (FourCC::new(b"trun"), trun as u64));
    assert!(matches!(error.source, Mp4Fault::TooMany { what: "samples", .. }));
}

#[test]
fn a_fragment_before_the_index_is_refused() {
    let file = clip("fragmented.mp4");
    let (moov, moof) = (offset_of(&file, b"moov"), offset_of(&file, b"moof"));
    let file = [&file[..moov], &file[moof..]].concat();
    let error = read_all(file).unwrap_err();
    assert_eq!((error.name, error.offset), (FourCC::new(b"moof"), moov as u64));
}

#[test]
fn a_sample_of_a_gigabyte_is_refused_before_it_is_read() {
    let mut file = clip("bframes.mp4");
    let first_size = offset_of(&file, b"stsz") + 20;
    file[first_size..first_size + 4].copy_from_slice(&(1_u32 << 30).to_be_bytes());
    let error = read_all(file).unwrap_err();
    assert!(matches!(error.source, Mp4Fault::TooMany { what: "bytes of a sample", .. }), "{error:?}");
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
    assert!(read > 200 && refused > 200, "{read} read, {refused} refused");
}
