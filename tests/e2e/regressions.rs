//! What fuzzing has found stays found: every input in `fuzz/regressions/TARGET/` goes through its target.

use std::path::{Path, PathBuf};

use av_tests::tool;

#[path = "../fuzz/targets.rs"]
mod targets;

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn inputs_that_fuzzing_found_do_no_harm_any_more() {
    let all = tool::tests_dir().join("fuzz/regressions");
    for folder in files(&all).iter().filter(|path| path.is_dir()) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let (_, target) =
            *targets::ALL.iter().find(|(target, _)| *target == name).expect("a folder is a target");
        for file in files(folder) {
            println!("{}", file.display());
            target(&std::fs::read(&file).unwrap());
        }
    }
}

#[test]
fn the_test_card_cut_off_anywhere_does_no_harm() {
    let card = std::fs::read(tool::test_card()).unwrap();
    let index = card.windows(4).position(|name| name == b"mdat").expect("mdat");
    for end in (0..index).step_by(17).chain([card.len()]) {
        targets::mp4(&card[..end]);
    }
}

#[test]
fn the_test_card_with_any_byte_of_its_index_changed_does_no_harm() {
    let card = std::fs::read(tool::test_card()).unwrap();
    let index = card.windows(4).position(|name| name == b"mdat").expect("mdat");
    let mut copy = card[..index].to_vec();
    for at in (0..index).step_by(7) {
        let was = copy[at];
        for value in [0, 0xFF, was ^ 1] {
            copy[at] = value;
            targets::mp4(&copy);
        }
        copy[at] = was;
    }
}
