//! `mp4-recorder spool`: what lies in the spool of a device that is dead, as a list and as files that play. Nothing in it
//! is changed: its disk may be mounted read-only.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use av_media::mp4::{Recovered, recover};

use crate::clock;
use crate::folder;
use crate::name::{self, NameTemplate};
use crate::segment;
use crate::spool::{Record, Stage, has_marker};

/// sysexits.h: command line usage error.
const USAGE: u8 = 64;
const MOST_NAMES: u32 = 1000;

const HELP: &str = "\
Lists the recordings that wait in a spool, and exports them as playable files. Nothing in the spool is changed.

Usage: mp4-recorder spool DIR [--flow NAME] [--export DIR]

  DIR           the state dir, or the folder `spool` in it
  --flow NAME   only recordings of this flow
  --export DIR  copy each recording to DIR, repaired and under the name it would have had in its store; what can't be
                repaired is copied unchanged into `damaged`

Each recording is checked: `whole`, or what is wrong with it and what can be saved.

Exit code: 0 no faults, 1 there is no spool, or a recording is damaged or could not be read or exported, 64 usage.
";

#[derive(Default)]
struct Arguments {
    dir: Option<PathBuf>,
    flow: Option<String>,
    export: Option<PathBuf>,
}

fn read(arguments: &[String]) -> Option<Arguments> {
    let mut read = Arguments::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--flow" => read.flow = Some(rest.next()?.clone()),
            "--export" => read.export = Some(rest.next()?.into()),
            option if option.starts_with('-') => return None,
            dir if read.dir.is_none() => read.dir = Some(dir.into()),
            _ => return None,
        }
    }
    Some(read)
}

/// Runs the subcommand with what follows its name.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Option<Vec<String>> = arguments.map(|argument| argument.into_string().ok()).collect();
    if arguments.as_ref().is_some_and(|all| all.iter().any(|one| one == "--help" || one == "-h")) {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let Some(Arguments { dir: Some(dir), flow, export }) = arguments.and_then(|all| read(&all)) else {
        eprint!("{HELP}");
        return ExitCode::from(USAGE);
    };
    let inner = dir.join("spool");
    let dir = if inner.is_dir() { inner } else { dir };
    let found = match lying_in(&dir) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("{}: {error}", dir.display());
            return ExitCode::FAILURE;
        }
    };
    if found.is_empty() && !has_marker(&dir) {
        let dir = dir.display();
        eprintln!(
            "{dir}: there is no spool in that folder; name a recorder's state dir, or the folder `spool` in it"
        );
        return ExitCode::FAILURE;
    }
    let mut failed = false;
    for (path, record) in &found {
        if flow.as_ref().is_some_and(|flow| *flow != record.flow) {
            continue;
        }
        let checked = check(path);
        failed |= checked.is_err();
        println!("{}; {}", line(path, record), checked.as_deref().unwrap_or_else(|why| why));
        let Some(to) = &export else { continue };
        match whole(path, record, to) {
            Ok(file) => println!("  -> {}", file.display()),
            Err(error) => {
                failed = true;
                eprintln!("  {error}");
                match as_it_is(path, record, to) {
                    Ok(file) => println!("  -> {} (as it is)", file.display()),
                    Err(error) => eprintln!("  {error}"),
                }
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Files of a spool and what is known of each, in the order of recording.
fn lying_in(dir: &Path) -> io::Result<Vec<(PathBuf, Record)>> {
    let mut found = Vec::new();
    for folder in [dir.to_owned(), dir.join("quarantine")] {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if folder != dir && error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(bare) = Record::of_file_name(name) else { continue };
            // A record that is lost costs little: the file's name says whose it is.
            let record = Record::read(&bare.path(dir, "json")).ok().flatten().unwrap_or(bare);
            found.push((path, record));
        }
    }
    found.sort_by_key(|(_, record)| record.id);
    Ok(found)
}

fn line(path: &Path, record: &Record) -> String {
    let stage = match record.stage {
        Stage::Writing => "cut off",
        Stage::Complete => "waits",
        Stage::Delivering => "was being stored",
        Stage::Quarantined => "quarantined",
    };
    let start = record.start().map_or_else(|| "start unknown".to_owned(), clock::text);
    let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    let seconds = match record.milliseconds {
        0 => String::new(),
        length => format!(", {:.3} s", Duration::from_millis(length).as_secs_f64()),
    };
    let event = record.event.as_ref().map(|id| format!(", event {id}")).unwrap_or_default();
    // Behind what was written blocks may have been allocated.
    let most = if record.stage == Stage::Writing { "at most " } else { "" };
    format!("{}/{} {start}{seconds}, {most}{bytes} bytes, {stage}{event}", record.flow, record.output)
}

/// Reads a recording. What is wrong with it is the error.
fn check(path: &Path) -> Result<String, String> {
    let mut file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    match recover(&mut file, 0) {
        Ok(Recovered::Complete { .. }) => Ok("whole".into()),
        Ok(Recovered::Open { recording, damaged }) => {
            let amount = recording.amount();
            let text =
                format!("{} pictures and {} frames of sound can be saved", amount.pictures, amount.sounds);
            // The last one may not have got to the disk.
            if damaged <= 1 { Ok(text) } else { Err(format!("{damaged} pieces are damaged, {text}")) }
        }
        Err(error) => Err(format!("damaged: {error}")),
    }
}

/// Copies a recording that can't be made whole.
fn as_it_is(path: &Path, record: &Record, to: &Path) -> Result<PathBuf, String> {
    let dir = to.join("damaged");
    std::fs::create_dir_all(&dir).map_err(of(&dir))?;
    let target = dir.join(record.file_name());
    let mut recording = std::fs::File::open(path).map_err(of(path))?;
    let mut new = std::fs::File::create_new(&target).map_err(of(&target))?;
    io::copy(&mut recording, &mut new).map_err(of(&target))?;
    Ok(target)
}

/// A fault with the path that it is about.
fn of<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> String {
    move |error| format!("{}: {error}", path.display())
}

fn is_below(name: &Path) -> bool {
    name.components().all(|component| matches!(component, Component::Normal(_)))
}

/// Copies a recording, gives the copy its index, and then its name.
fn whole(path: &Path, record: &Record, to: &Path) -> Result<PathBuf, String> {
    // A record of a foreign disk names a file below `to`, or is not asked.
    let name = record.name.as_ref().filter(|name| is_below(Path::new(name)));
    let named = match (name, record.start(), NameTemplate::parse(&record.template)) {
        (Some(name), ..) => name.clone(),
        (None, Some(start), Ok(template)) => template.at(start),
        _ => record.file_name(),
    };
    let target = to.join(named);
    let dir = target.parent().unwrap_or(to);
    std::fs::create_dir_all(dir).map_err(of(dir))?;
    let aside = dir.join(format!(".{:012x}.part", record.id));
    let mut recording = std::fs::File::open(path).map_err(of(path))?;
    let mut copy = std::fs::File::create(&aside).map_err(of(&aside))?;
    io::copy(&mut recording, &mut copy).map_err(of(&aside))?;
    if let Err(error) = segment::repair(&aside, None) {
        std::fs::remove_file(&aside).map_err(of(&aside))?;
        return Err(of(path)(error));
    }
    let text = target.to_string_lossy();
    for number in 1..=MOST_NAMES {
        let target = PathBuf::from(name::numbered(&text, number));
        match folder::rename_new(&aside, &target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(of(&target)(error)),
            Ok(()) => return Ok(target),
        }
    }
    Err(format!("{MOST_NAMES} names like {text} are taken"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_out_of_the_folder_is_not_taken() {
        assert!(is_below(Path::new("cam/2026/a.mp4")));
        for name in ["../a.mp4", "cam/../../a.mp4", "/etc/a.mp4"] {
            assert!(!is_below(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn what_is_damaged_is_said_and_copied_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000000000002.cam.disk.mp4");
        std::fs::write(&path, "no recording").unwrap();
        let why = check(&path).unwrap_err();
        assert!(why.starts_with("damaged: "), "{why}");
        let record = Record::of_file_name("000000000002.cam.disk.mp4").unwrap();
        assert!(whole(&path, &record, dir.path()).is_err());
        let copy = as_it_is(&path, &record, dir.path()).unwrap();
        assert_eq!(copy, dir.path().join("damaged/000000000002.cam.disk.mp4"));
        assert_eq!(std::fs::read(copy).unwrap(), b"no recording");
        assert!(as_it_is(&path, &record, dir.path()).is_err(), "nothing is overwritten");
        // A target that can't be written is told by its own name.
        let closed = path.join("saved");
        for error in
            [whole(&path, &record, &closed).unwrap_err(), as_it_is(&path, &record, &closed).unwrap_err()]
        {
            assert!(error.starts_with(&closed.display().to_string()), "{error}");
        }
    }

    #[test]
    fn what_lies_in_a_spool_is_listed_with_or_without_its_record() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::of_file_name("000000000002.cam.disk.mp4").unwrap();
        record.stage = Stage::Complete;
        record.milliseconds = 1500;
        record.set_start(std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_323_045_067));
        record.write(dir.path()).unwrap();
        for name in ["000000000002.cam.disk.mp4", "000000000001.gate.disk.mp4", "other.mp4", "ballast"] {
            std::fs::write(dir.path().join(name), "12345").unwrap();
        }
        let lines: Vec<_> =
            lying_in(dir.path()).unwrap().iter().map(|(path, record)| line(path, record)).collect();
        assert_eq!(
            lines,
            [
                "gate/disk start unknown, at most 5 bytes, cut off",
                "cam/disk 2026-01-02T03:04:05.067Z, 1.500 s, 5 bytes, waits"
            ]
        );
    }
}
