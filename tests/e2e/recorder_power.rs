//! Power cuts at any moment: what the recorder writes and syncs is logged, disks are built that a power cut may leave behind,
//! and a recorder is started on each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use av_tests::chance::Chance;
use av_tests::clip::Clip;
use av_tests::disk::{self, Left, Log};
use av_tests::flv::Tag;
use av_tests::module::Setup;
use av_tests::program::Program;
use av_tests::recording::Recording;
use av_tests::rtmp::Publisher;
use av_tests::tool::{self, Tool};
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::recorder::{ffmpeg, files};
use crate::{long, rtmp, twin};

/// A frame of a file: its hash, and where in the file it is.
struct Placed {
    hash: String,
    at: u64,
    size: u64,
}

/// Every frame of a file, by ffprobe.
fn placed(file: &Path) -> Vec<Placed> {
    let mut command = Tool::Ffprobe.command();
    command.args(["-v", "error", "-show_packets", "-show_data_hash", "MD5", "-of", "json"]).arg(file);
    let ran = Program::run(&mut command, wait::LONG);
    assert!(ran.status.success() && ran.stderr.is_empty(), "{}: {}", file.display(), ran.stderr);
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    let number = |packet: &Value, key: &str| packet[key].as_str().unwrap().parse::<u64>().unwrap();
    let of = |packet: &Value| Placed {
        hash: packet["data_hash"].as_str().unwrap().trim_start_matches("MD5:").to_owned(),
        at: number(packet, "pos"),
        size: number(packet, "size"),
    };
    said["packets"].as_array().unwrap().iter().map(of).collect()
}

/// What is in a spool and should not be there for long.
fn spooled(state: &Path) -> Vec<PathBuf> {
    let is_recording =
        |path: &PathBuf| path.extension().is_some_and(|is| is == "mp4" || is == "json" || is == "new");
    files(&state.join("spool")).into_iter().filter(is_recording).collect()
}

/// The last good configuration lies on the disk, too: every module gets a folder of its own for the same URL.
fn with_its_own_folder(setup: Setup, folder: &Path) -> Setup {
    let paths = format!("/recordings={}", folder.display());
    setup.arg("--device").arg("gate").arg("--paths").arg(paths)
}

fn document(url: &str) -> Value {
    let disk = json!({ "store": "file:///recordings", "segmentSeconds": 2 });
    let mut document = twin(json!({ "cam": { "input": { "listen": url }, "outputs": { "disk": disk } } }));
    document["spool"] = json!({ "megabytes": 200, "minFreeMegabytes": 16 });
    document
}

/// Two lives of a recorder with a kill between them, and every frame that was published.
struct Recorded {
    log: Log,
    /// Hash, the file that has it in the end, and where.
    frames: Vec<(PathBuf, Placed)>,
    published: BTreeSet<String>,
}

fn recorded() -> Recorded {
    let logs = tempfile::tempdir().unwrap();
    let (first, second) = (logs.path().join("first"), logs.path().join("second"));
    let url = rtmp(port::free(), "live/cam");
    let setup = Setup::new("mp4-recorder").under(disk::strace(&first));
    let files_in = setup.dir().join("files");
    let module = with_its_own_folder(setup, &files_in).twin(&document(&url)).start();
    let mut log = Log::new(&module.dir());

    let tags = Clip::Pyramid.tags();
    // Other frames than the first, and half as many.
    let other = |tag: &Tag| tag.in_publication(1);
    let in_second: Vec<_> = tags.iter().filter(|tag| tag.timestamp < 3000).map(other).collect();
    let published = [&tags, &in_second].into_iter().flat_map(|tags| Recording::of_tags(tags).0);
    let published: BTreeSet<_> = published.map(|packet| packet.hash).collect();

    let mut publisher = Publisher::to(&url);
    let publishing = std::thread::spawn(move || publisher.play_out(&tags));
    module.wait_status("/flows/cam/outputs/disk/frames", |count| count.as_u64() >= Some(170));
    let process = module.program().id();
    let module =
        module.kill_and_restart(|setup| with_its_own_folder(setup.under(disk::strace(&second)), &files_in));
    let _ = publishing.join();
    log.add(&first, process);

    let mut publisher = Publisher::to(&url);
    publisher.play_out(&in_second).unwrap();
    publisher.finish().unwrap();
    module.wait_value("/flows/cam/outputs/disk/state", "waiting");
    wait::until_true("everything is stored", wait::LONG, || spooled(&module.dir().join("state")).is_empty());
    let (process, dir) = (module.program().id(), module.dir());
    let frames: Vec<_> = files(&dir.join("files"))
        .into_iter()
        .flat_map(|file| placed(&file).into_iter().map(move |frame| (file.clone(), frame)))
        .collect();
    assert_eq!(module.terminate().status.code(), Some(0));
    log.add(&second, process);
    Recorded { log, frames, published }
}

/// Whether small commits may go past the page cache here.
fn takes_direct_writes() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("dd");
    command.args(["if=/dev/zero", "bs=512", "count=1", "oflag=direct"]);
    let to = command.arg(format!("of={}", dir.path().join("probe").display()));
    to.output().unwrap().status.success()
}

/// What files with this content hold: most files are the same in most images.
type Known = Mutex<BTreeMap<Vec<u8>, Vec<String>>>;

/// The frames of a file that plays from its beginning to its end.
fn played(file: &Path, known: &Known) -> Vec<String> {
    let content = std::fs::read(file).unwrap();
    if let Some(hashes) = known.lock().unwrap().get(&content) {
        return hashes.clone();
    }
    ffmpeg(Tool::Ffmpeg, &["-i", file.to_str().unwrap(), "-f", "null", "-"]);
    let hashes: Vec<_> = placed(file).into_iter().map(|frame| frame.hash).collect();
    assert!(!hashes.is_empty(), "{}: nothing in it", file.display());
    known.lock().unwrap().insert(content, hashes.clone());
    hashes
}

impl Recorded {
    /// Starts a recorder on what a power cut may leave; says what is wrong.
    fn must_recover(&self, cut: usize, left: Left, seed: u64, known: &Known) -> Result<usize, String> {
        let image = self.log.image(cut, left, &mut Chance(seed));
        let setup = Setup::new("mp4-recorder");
        image.write_to(setup.dir());
        let files_in = setup.dir().join("files");
        let document = document(&rtmp(port::free(), "live/cam"));
        let module = with_its_own_folder(setup, &files_in).twin(&document).start();
        let state = module.dir().join("state");
        let stored = || spooled(&state).is_empty() && state.join("spool/ballast").exists();
        let began = std::time::Instant::now();
        while !stored() && began.elapsed() < wait::LONG {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let (left_there, log) = (spooled(&state), module.log());
        if !stored() {
            return Err(format!("left in the spool: {left_there:?}\n{log}"));
        }
        if log.contains("outputs.disk.store: ") {
            return Err(format!("the output is not well:\n{log}"));
        }
        let found: Vec<_> =
            files(&module.dir().join("files")).iter().flat_map(|file| played(file, known)).collect();
        if let Some(stranger) = found.iter().find(|hash| !self.published.contains(*hash)) {
            return Err(format!("{stranger} was never published"));
        }
        let different: BTreeSet<_> = found.iter().collect();
        if different.len() < found.len() {
            return Err(format!(
                "{} of {} frames are there twice\n{log}",
                found.len() - different.len(),
                found.len()
            ));
        }
        let was_durable = |(file, frame): &&(PathBuf, Placed)| {
            self.log.was_durable(file, frame.at..frame.at + frame.size, cut)
        };
        let durable: Vec<_> = self.frames.iter().filter(was_durable).collect();
        let lost = durable.iter().filter(|(_, frame)| !different.contains(&frame.hash)).count();
        if lost > 0 {
            return Err(format!(
                "{lost} of {} frames that were synced are lost\n{:?}\n{log}",
                durable.len(),
                image.files()
            ));
        }
        Ok(durable.len())
    }
}

#[test]
fn whenever_the_power_goes_every_frame_that_was_synced_is_in_a_file_that_plays() {
    needs!(Ffmpeg, Ffprobe, Strace);
    let traces = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    if !traces.is_ok_and(|status| status.success()) {
        return tool::skip("recorder_power", "no process may be traced here");
    }
    let recorded = recorded();
    assert_eq!(recorded.log.direct_writes() > 0, takes_direct_writes(), "commits past the page cache");
    assert!(recorded.log.rewrites("json") > 4, "changes of records are written over older ones");
    let images = if long() { 500 } else { 30 };
    let syncs = recorded.log.syncs();
    let known = Known::default();
    let (next, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = Mutex::new(Vec::new());
    let work = || {
        loop {
            let image = next.fetch_add(1, Ordering::Relaxed);
            if image >= images {
                return;
            }
            let seed = 1000 + image as u64;
            let mut chance = Chance(seed);
            // Every second one just after something became durable; all over the recording.
            let cut = if image % 2 == 0 {
                syncs[image * syncs.len() / images]
            } else {
                let stretch = recorded.log.len() / images + 1;
                (image * recorded.log.len() / images + chance.of(0..stretch)).min(recorded.log.len())
            };
            let left =
                [Left::Any, Left::Torn, Left::Nothing, Left::Any, Left::Torn, Left::All][image / 2 % 6];
            match recorded.must_recover(cut, left, seed, &known) {
                Ok(durable) => drop(most.fetch_max(durable, Ordering::Relaxed)),
                Err(why) => {
                    wrong.lock().unwrap().push(format!("image {image}, cut {cut}, left {left:?}: {why}"))
                }
            }
        }
    };
    std::thread::scope(|scope| {
        (0..3).for_each(|_| drop(scope.spawn(work)));
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {images} images:\n{}", wrong.len(), wrong.join("\n\n"));
    // The last images hold nearly all of it.
    let (most, all) = (most.into_inner(), recorded.frames.len());
    assert!(most > all / 2, "no image has more than {most} of {all} frames");
}
