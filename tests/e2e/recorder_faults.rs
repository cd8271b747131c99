//! Kills, faulty disks and wrong clocks while a recorder records: afterwards the files hold what was published.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use av_tests::chance::Chance;
use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::fake_clock::FakeClock;
use av_tests::flv::Tag;
use av_tests::module::{Module, Setup};
use av_tests::program::Program;
use av_tests::recording::{Kind, Recording};
use av_tests::rtmp::Publisher;
use av_tests::tool::{self, Tool};
use av_tests::{needs, port, preload, wait};
use serde_json::{Value, json};

use crate::recorder::{document, ffmpeg, files};
use crate::{long, rtmp, twin};

/// Every frame of a file, in order. A file that begins inside a GOP has pictures that need the file before: they are
/// read all the same.
pub fn frames(file: &Path) -> Recording {
    let mut command = Tool::Ffmpeg.command();
    command.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-i"]).arg(file);
    command.args(["-map", "0", "-c", "copy", "-copyinkf", "-f", "framemd5", "-"]);
    let ran = Program::run(&mut command, wait::LONG);
    assert!(ran.status.success(), "{}: {}", file.display(), ran.stderr);
    Recording::of_framemd5_in_milliseconds(&ran.stdout)
}

pub fn hashes<'a>(recordings: impl IntoIterator<Item = &'a Recording>, kind: Kind) -> Vec<String> {
    recordings.into_iter().flat_map(|file| file.of(kind)).map(|packet| packet.hash.clone()).collect()
}

/// Waits until the spool is empty, by what lies on the disk; gives the files in the store in the order of their names.
fn stored(module: &Module) -> Vec<PathBuf> {
    stored_of(module, &module.dir().join("state"))
}

fn stored_of(module: &Module, state: &Path) -> Vec<PathBuf> {
    let is_recording = |path: &PathBuf| path.extension().is_some_and(|is| is == "mp4" || is == "json");
    wait::until_true("the spool is empty", 2 * wait::LONG, || {
        !files(&state.join("spool")).iter().any(is_recording)
    });
    files(&module.dir().join("files"))
}

/// Every frame that was published is in exactly one file, in order.
pub fn must_hold(files: &[PathBuf], published: &Recording) {
    let read: Vec<_> = files.iter().map(|file| frames(file)).collect();
    for kind in [Kind::Video, Kind::Audio] {
        let (found, sent) = (hashes(&read, kind), hashes([published], kind));
        assert_eq!(found.len(), sent.len(), "{kind:?} in {files:?}");
        assert!(found == sent, "{kind:?}: other frames than were sent in {files:?}");
    }
}

pub fn ends_well(module: Module) {
    assert_eq!(module.terminate().status.code(), Some(0));
}

/// The frames that are published between two kills: none equals a frame of another such time.
fn of_life(tags: &[Tag], life: u32) -> Vec<Tag> {
    tags.iter().map(|tag| tag.in_publication(life)).collect()
}

struct Flow {
    name: &'static str,
    url: String,
    tags: Vec<Tag>,
}

/// Sends until the other end is killed; counts what was sent.
fn publish(url: &str, tags: Vec<Tag>, sent: &AtomicUsize, killed: &AtomicBool) {
    // It may not listen yet.
    let mut publisher = loop {
        match Publisher::start(url) {
            Ok(Ok(publisher)) => break publisher,
            _ if killed.load(Ordering::Relaxed) => return,
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let begin = Instant::now();
    for tag in tags {
        let due = Duration::from_millis(tag.timestamp.into());
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        if killed.load(Ordering::Relaxed) || publisher.send(&tag).is_err() {
            return;
        }
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn after_kills_at_any_moment_every_frame_that_was_counted_is_in_one_file() {
    needs!(Ffmpeg);
    let kills = if long() { 200 } else { 8 };
    let flow =
        |name, clip: Clip| Flow { name, url: rtmp(port::free(), &format!("live/{name}")), tags: clip.tags() };
    let flows = [flow("one", Clip::Pyramid), flow("two", Clip::Plain)];
    let setup = Setup::new("mp4-recorder").arg("--device").arg("gate");
    let store = format!("file://{}", setup.dir().join("files").display());
    let of = |flow: &Flow| {
        let disk = json!({ "store": store, "segmentSeconds": 2 });
        (flow.name.to_owned(), json!({ "input": { "listen": flow.url }, "outputs": { "disk": disk } }))
    };
    let mut document = twin(Value::Object(flows.iter().map(of).collect()));
    document["spool"] = json!({ "megabytes": 200, "minFreeMegabytes": 16 });
    let mut module = setup.twin(&document).start_listening();
    let counted_in = |module: &Module, flow: &Flow| {
        module.status()["flows"][flow.name]["outputs"]["disk"]["frames"].as_u64().unwrap_or(0) as usize
    };

    // What had come in two seconds before the kill: one until it is durable, one that a busy machine may take.
    let received_in = |module: &Module| {
        let status = module.status();
        flows.each_ref().map(|flow| {
            let flow = &status["flows"][flow.name];
            // It has begun to record: what comes in before the spool is open waits for that.
            let records = flow["outputs"]["disk"]["frames"].as_u64() > Some(0);
            if records { flow["input"]["frames"].as_u64().unwrap_or(0) as usize } else { 0 }
        })
    };
    let mut chance = Chance(7);
    let (mut counted, mut due) = (Vec::new(), Vec::new());
    for life in 1..=kills {
        let sent = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let killed = Arc::new(AtomicBool::new(false));
        let publishing: Vec<_> = flows
            .iter()
            .enumerate()
            .map(|(at, flow)| {
                let (url, tags, sent) = (flow.url.clone(), of_life(&flow.tags, life), sent.clone());
                let killed = killed.clone();
                std::thread::spawn(move || publish(&url, tags, &sent[at], &killed))
            })
            .collect();
        let mut seen = Vec::new();
        // Now and then while it is still busy with what the last kill left.
        if life % 4 != 0 {
            let enough = chance.of(1..if long() { 400 } else { 200 });
            wait::until_true("some of it was sent", wait::LONG, || {
                if long() {
                    let received = received_in(&module);
                    seen.push((Instant::now(), received));
                }
                sent[0].load(Ordering::Relaxed) >= enough
            });
        }
        let was_before = |(at, _): &&(Instant, [usize; 2])| at.elapsed() >= Duration::from_secs(2);
        due.push(seen.iter().rev().find(was_before).map_or([0, 0], |(_, received)| *received));
        counted.push([counted_in(&module, &flows[0]), counted_in(&module, &flows[1])]);
        module = module.kill_and_restart(|setup| {
            killed.store(true, Ordering::Relaxed);
            setup.arg("--device").arg("gate")
        });
        publishing.into_iter().for_each(|thread| thread.join().unwrap());
    }
    let all = stored(&module);
    let quarantine = files(&module.dir().join("state/spool/quarantine"));
    assert!(quarantine.is_empty(), "{quarantine:?}");

    for (at, flow) in flows.iter().enumerate() {
        let folder = module.dir().join("files/gate").join(flow.name);
        let of_flow = all.iter().filter(|file| file.starts_with(&folder));
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for file in of_flow {
            ffmpeg(Tool::Ffmpeg, &["-i", file.to_str().unwrap(), "-f", "null", "-"]);
            for kind in [Kind::Video, Kind::Audio] {
                hashes([&frames(file)], kind)
                    .into_iter()
                    .for_each(|hash| *found.entry(hash).or_default() += 1);
            }
        }
        assert!(found.values().all(|times| *times == 1), "{}: frames are there twice", flow.name);
        for ((life, counted), due) in (1..=kills).zip(&counted).zip(&due) {
            let published = Recording::of_tags(&of_life(&flow.tags, life));
            let mut kept = 0;
            for kind in [Kind::Video, Kind::Audio] {
                let sent = hashes([&published], kind);
                let there = sent.iter().take_while(|hash| found.remove(*hash).is_some()).count();
                let behind = sent.iter().filter(|hash| found.contains_key(*hash)).count();
                assert_eq!(behind, 0, "{} life {life}: a hole behind {there} frames of {kind:?}", flow.name);
                kept += there;
            }
            assert!(kept >= counted[at], "{} life {life}: {kept} of {}", flow.name, counted[at]);
            assert!(kept >= due[at], "{} life {life}: {kept} of {} that came in time", flow.name, due[at]);
        }
        assert!(found.is_empty(), "{}: {} frames that nobody sent", flow.name, found.len());
    }
    // That there were some.
    assert!(!long() || due.iter().filter(|due| due[0] > 50).count() > 20, "{due:?}");
    ends_well(module);
}

/// A command line that makes system calls fail or wait, by strace.
fn faulty(faults: &[&str]) -> Vec<String> {
    let calls: BTreeSet<_> = faults.iter().map(|fault| fault.split(':').next().unwrap()).collect();
    let calls = calls.into_iter().collect::<Vec<_>>().join(",");
    let line = ["strace", "-D", "-f", "-q", "-o", "/dev/null", "-e", &format!("trace={calls}")];
    let mut line: Vec<String> = line.map(str::to_owned).to_vec();
    faults.iter().for_each(|fault| line.extend(["-e".to_owned(), format!("inject={fault}")]));
    line
}

fn traces(case: &str) -> bool {
    let ran = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    let traces = ran.is_ok_and(|status| status.success());
    if !traces {
        tool::skip(case, "no process may be traced here");
    }
    traces
}

fn on_faulty_disk(faults: &[&str]) -> (Module, String) {
    let url = rtmp(port::free(), "live/cam");
    let setup = Setup::new("mp4-recorder").arg("--device").arg("gate").under(faulty(faults));
    let document = document(setup.dir(), &url, json!({ "segmentSeconds": 2 }));
    (setup.twin(&document).start_listening(), url)
}

#[test]
fn a_disk_that_stalls_for_seconds_costs_no_frame_and_is_told() {
    needs!(Ffmpeg, Strace);
    if !traces("recorder_faults::a_disk_that_stalls") {
        return;
    }
    let (module, url) = on_faulty_disk(&["fdatasync:delay_enter=15000000:when=4"]);
    let publication = PublishWith::Ffmpeg.start(Clip::Plain, &url);
    module.wait_log(&["has accepted nothing for more than 5 s"]);
    // Ten seconds are left of the stall.
    let lag = module.metrics().sum("av_spool_lag_seconds", &[("flow", "cam"), ("output", "disk")]);
    assert!(lag > Some(5.0), "{lag:?}");
    let published = publication.finish();
    module.wait_log(&["records again"]);
    must_hold(&stored(&module), &published);
    assert_eq!(
        module.metrics().sum("av_output_frames_dropped_total", &[("flow", "cam")]).unwrap_or(0.0),
        0.0
    );
    ends_well(module);
}

/// Stands before the system's `fdatasync`: the third one never returns.
const HANGING: &str = "#include <unistd.h>\n#include <sys/syscall.h>\nstatic int calls;\n\
    int fdatasync(int file) { if (__sync_add_and_fetch(&calls, 1) >= 3) for (;;) pause(); \
    return syscall(SYS_fdatasync, file); }\n";

#[test]
fn a_disk_that_hangs_for_ever_does_not_keep_the_module_from_ending() {
    needs!(Ffmpeg);
    let setup = Setup::new("mp4-recorder").arg("--device").arg("gate");
    let Some(library) = preload::library(setup.dir(), "hang", HANGING) else {
        return tool::skip("recorder_faults::a_disk_that_hangs", "no C compiler");
    };
    let url = rtmp(port::free(), "live/cam");
    let document = document(setup.dir(), &url, json!({ "segmentSeconds": 2 }));
    let module = setup.env("LD_PRELOAD", library.to_str().unwrap()).twin(&document).start_listening();
    let endless = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    module.wait_log(&["has accepted nothing for more than 5 s"]);
    // The input goes on all the same.
    module.wait_receiving("cam");
    ends_well(module);
    drop(endless);
}

#[test]
fn a_sync_that_fails_and_a_disk_that_is_read_only_for_a_while_cost_no_frame() {
    needs!(Ffmpeg, Strace);
    if !traces("recorder_faults::a_sync_that_fails") {
        return;
    }
    // The second file is refused its reserve twice; the first one allocates ahead, too.
    let (module, url) = on_faulty_disk(&["fdatasync:error=EIO:when=4", "fallocate:error=EROFS:when=3..4"]);
    let published = PublishWith::Ffmpeg.start(Clip::Plain, &url).finish();
    module.wait_log(&["records again"]);
    must_hold(&stored(&module), &published);
    for words in ["Input/output error", "is read-only"] {
        assert!(!module.log_lines(words).is_empty(), "{words}: {}", module.log());
    }
    ends_well(module);
}

/// A recorder whose state dir is a small disk of its own, seen by nobody else.
struct Small {
    module: Module,
    url: String,
    /// The state dir as the module sees it.
    state: PathBuf,
}

fn small_disk(case: &str, mount: &str, spool: Value) -> Option<Small> {
    let try_it = ["-m", "--propagation", "private", "sh", "-c", "mount -t tmpfs tmpfs /mnt"];
    if !Command::new("unshare").args(try_it).status().is_ok_and(|status| status.success()) {
        tool::skip(case, "no disk may be mounted here");
        return None;
    }
    let url = rtmp(port::free(), "live/cam");
    let setup = Setup::new("mp4-recorder").arg("--device").arg("gate");
    let state = setup.dir().join("state");
    let script = format!("mkdir -p \"$0\" && mount -t tmpfs -o {mount} tmpfs \"$0\" && exec \"$@\"");
    let line = ["unshare", "-m", "--propagation", "private", "sh", "-c", &script, state.to_str().unwrap()];
    let setup = setup.under(line.map(str::to_owned).to_vec());
    // Otherwise a machine that is too busy to have stored the first file by then may lose it, and says so.
    let options = json!({ "segmentSeconds": 2, "whenFull": "denyNew" });
    let mut document = document(setup.dir(), &url, options);
    document["spool"] = spool;
    let module = setup.twin(&document).start_listening();
    let seen = format!("/proc/{}/root{}", module.program().id(), state.display());
    Some(Small { module, url, state: seen.into() })
}

impl Small {
    /// Publishes, and calls `fill` over and over until the output is in trouble; then `empty`, once.
    fn records_over(self, fill: impl Fn(&Path), words: &str, empty: impl Fn(&Path)) {
        let publication = PublishWith::Ffmpeg.start(Clip::Plain, &self.url);
        let frames = "/flows/cam/outputs/disk/frames";
        self.module.wait_status(frames, |count| count.as_u64() >= Some(40));
        wait::until_true("there is no room", wait::LONG, || {
            fill(&self.state);
            !self.module.log_lines(words).is_empty()
        });
        empty(&self.state);
        let published = publication.finish();
        let files = stored_of(&self.module, &self.state);
        must_hold(&files, &published);
        ends_well(self.module);
    }
}

#[test]
fn a_disk_without_a_free_byte_costs_no_frame_of_the_next_half_minute() {
    needs!(Ffmpeg);
    let spool = json!({ "megabytes": 60, "minFreeMegabytes": 0 });
    let Some(small) = small_disk("recorder_faults::a_disk_without_a_free_byte", "size=24m", spool) else {
        return;
    };
    let fill = |state: &Path| {
        let mut file = std::fs::File::options().create(true).append(true).open(state.join("filler")).unwrap();
        let block = vec![1; 4096];
        while file.write_all(&block).is_ok() {}
    };
    let empty = |state: &Path| std::fs::remove_file(state.join("filler")).unwrap();
    small.records_over(fill, "flows.cam.outputs.disk.store: the spool", empty);
}

#[test]
fn a_disk_without_inodes_costs_no_frame_of_the_next_half_minute() {
    needs!(Ffmpeg);
    let spool = json!({ "megabytes": 20, "minFreeMegabytes": 0 });
    let Some(small) = small_disk("recorder_faults::a_disk_without_inodes", "size=64m,nr_inodes=2000", spool)
    else {
        return;
    };
    let fill = |state: &Path| {
        let folder = state.join("fillers");
        std::fs::create_dir_all(&folder).unwrap();
        let begun = std::fs::read_dir(&folder).unwrap().count();
        for at in begun.. {
            if std::fs::write(folder.join(at.to_string()), "").is_err() {
                return;
            }
        }
    };
    let empty = |state: &Path| std::fs::remove_dir_all(state.join("fillers")).unwrap();
    small.records_over(fill, "the spool's disk has no inodes left", empty);
}

#[test]
fn a_spool_whose_disk_is_not_mounted_is_told_and_used_when_it_is() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let setup = Setup::new("mp4-recorder");
    let document = document(setup.dir(), &url, json!({ "segmentSeconds": 2 }));
    let module = setup.twin(&document).start();
    let (spool, away) = (module.dir().join("state/spool"), module.dir().join("away"));
    wait::until_true("there is a spool", wait::LONG, || spool.join("ballast").exists());
    let module = module.terminate_and_restart(|setup| {
        std::fs::rename(&spool, &away).unwrap();
        std::fs::create_dir(&spool).unwrap();
        setup
    });
    let error = module.wait_status("/flows/cam/outputs/disk/error", Value::is_string);
    assert!(error.as_str().unwrap().contains("is its disk mounted?"), "{error}");
    let publication = PublishWith::Ffmpeg.start(Clip::Plain, &url);
    module.wait_receiving("cam");
    assert!(files(&spool).is_empty());
    std::fs::remove_dir(&spool).unwrap();
    std::fs::rename(&away, &spool).unwrap();
    module.wait_value("/flows/cam/outputs/disk/state", "storing");
    // What came in between was kept in memory.
    let published = publication.finish();
    must_hold(&stored(&module), &published);
    ends_well(module);
}

/// A recorder whose clock the test sets.
fn with_clock(case: &str, time: &str) -> Option<(Module, String, FakeClock)> {
    let Some(clock) = FakeClock::of(time) else {
        tool::skip(case, "libfaketime is not installed");
        return None;
    };
    let url = rtmp(port::free(), "live/cam");
    let setup = clock.put_into(Setup::new("mp4-recorder").arg("--device").arg("gate"));
    let document = document(setup.dir(), &url, json!({ "segmentSeconds": 2 }));
    Some((setup.twin(&document).start_listening(), url, clock))
}

/// Every frame once, in whatever order the names of the files are.
fn must_hold_in_any_order(files: &[PathBuf], published: &Recording) {
    let mut read: Vec<_> = files.iter().map(|file| frames(file)).collect();
    let sent = hashes([published], Kind::Video);
    read.sort_by_key(|file| {
        let first = hashes([file], Kind::Video);
        sent.iter().position(|hash| Some(hash) == first.first())
    });
    for kind in [Kind::Video, Kind::Audio] {
        assert!(hashes(&read, kind) == hashes([published], kind), "{kind:?} in {files:?}");
    }
}

#[test]
fn a_clock_that_is_set_an_hour_either_way_costs_no_frame_and_overwrites_nothing() {
    needs!(Ffmpeg);
    let Some((module, url, clock)) = with_clock("recorder_faults::a_clock_that_is_set", "+0") else { return };
    let publication = PublishWith::Ffmpeg.start(Clip::Plain, &url);
    let recorded = |count: u64| {
        module.wait_status("/flows/cam/outputs/disk/frames", |frames| frames.as_u64() >= Some(count));
    };
    recorded(100);
    clock.set("+3600");
    recorded(200);
    clock.set("-3600");
    let published = publication.finish();
    let files = stored(&module);
    must_hold_in_any_order(&files, &published);
    ends_well(module);
}

#[test]
fn files_of_a_machine_without_a_clock_wait_and_get_the_names_of_their_own_times() {
    needs!(Ffmpeg);
    let stale = "@1971-02-03 04:05:06";
    let Some((module, url, clock)) = with_clock("recorder_faults::files_of_a_machine_without_a_clock", stale)
    else {
        return;
    };
    let published = PublishWith::Ffmpeg.start(Clip::Plain, &url).finish();
    module.wait_value("/summary/clock", "unset");
    assert!(module.status()["summary"]["spoolBytes"].as_u64() > Some(0));
    assert!(files(&module.dir().join("files")).is_empty());
    clock.set("+0");
    let files = stored(&module);
    must_hold(&files, &published);
    for file in &files {
        assert!(file.to_str().unwrap().contains("/gate/cam/20"), "{}", file.display());
    }
    ends_well(module);
}

#[test]
fn a_file_whose_record_is_lost_is_named_by_the_time_at_which_it_was_written() {
    needs!(Ffmpeg);
    let setup = Setup::new("mp4-recorder").arg("--device").arg("gate");
    let url = rtmp(port::free(), "live/cam");
    let document = document(setup.dir(), &url, json!({ "segmentSeconds": 60 }));
    let module = setup.twin(&document).start_listening();
    let mut publisher = Publisher::to(&url);
    publisher.play_out(&Clip::Plain.tags()).unwrap();
    module.wait_status("/flows/cam/outputs/disk/frames", |frames| frames.as_u64() >= Some(50));
    let module = module.kill_and_restart(|setup| {
        let spool = setup.dir().join("state/spool");
        for file in files(&spool) {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("json") => std::fs::remove_file(file).unwrap(),
                Some("mp4") => {
                    let ended = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
                    std::fs::File::options().append(true).open(file).unwrap().set_modified(ended).unwrap();
                }
                _ => {}
            }
        }
        setup
    });
    let files = stored(&module);
    // 2026-05-28 20:26:40 is when it ended.
    assert!(files.len() == 1 && files[0].to_str().unwrap().contains("cam-20260528T2026"), "{files:?}");
    ends_well(module);
}

#[test]
fn a_clock_that_is_years_ahead_at_a_start_deletes_nothing_by_age() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let setup = Setup::new("mp4-recorder");
    let document = document(setup.dir(), &url, json!({ "segmentSeconds": 2, "retentionDays": 1 }));
    let module = setup.twin(&document).start_listening();
    PublishWith::Ffmpeg.start(Clip::Plain, &url).finish();
    let before = stored(&module);
    assert!(before.len() >= 2);
    let Some(clock) = FakeClock::of("+3650d") else {
        return tool::skip("recorder_faults::a_clock_that_is_years_ahead", "libfaketime is not installed");
    };
    let known = module.dir().join("state/spool/clock");
    let module = module.terminate_and_restart(|setup| {
        // What is known of the clock is of another run of the machine.
        std::fs::remove_file(&known).unwrap();
        clock.put_into(setup)
    });
    module.wait_log(&["no file is deleted by age until the kernel or the store confirms"]);
    clock.set("+0");
    module.wait_log(&["the clock was moved by 315", "no file is deleted by age for a day"]);
    assert_eq!(stored(&module), before);
    ends_well(module);
}

#[test]
fn a_second_recorder_with_the_same_names_overwrites_nothing() {
    needs!(Ffmpeg);
    let folder = tempfile::tempdir().unwrap();
    two_recorders_into(folder.path(), json!({ "segmentSeconds": 2 }));
}

#[test]
fn a_second_recorder_with_the_same_names_overwrites_nothing_on_another_disk_either() {
    needs!(Ffmpeg);
    let (folder, spool) = (tempfile::tempdir_in("/dev/shm").unwrap(), tempfile::tempdir().unwrap());
    let device = |dir: &Path| std::fs::metadata(dir).unwrap().dev();
    if device(folder.path()) == device(spool.path()) {
        let why = "/dev/shm and the folder for temporary files are one disk";
        return tool::skip("recorder_faults::a_second_recorder_on_another_disk", why);
    }
    // Each sends while it writes: both have a partial file there all the time.
    two_recorders_into(folder.path(), json!({ "segmentSeconds": 4, "uploadOpenSegment": true }));
    let left: Vec<_> = files(folder.path())
        .into_iter()
        .filter(|file| file.extension().is_none_or(|is| is != "mp4"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Two recorders whose files have one name store into one folder.
fn two_recorders_into(folder: &Path, mut output: Value) {
    output["name"] = json!("{flow}/one.mp4");
    let recorder = || {
        let url = rtmp(port::free(), "live/cam");
        let mut document = document(folder, &url, output.clone());
        document["flows"]["cam"]["outputs"]["disk"]["store"] = json!(format!("file://{}", folder.display()));
        (Setup::new("mp4-recorder").arg("--device").arg("gate").twin(&document).start_listening(), url)
    };
    let ((one, to_one), (other, to_other)) = (recorder(), recorder());
    let (first, second) = (
        PublishWith::Ffmpeg.start(Clip::Plain, &to_one),
        PublishWith::Ffmpeg.start(Clip::Pyramid, &to_other),
    );
    let published = [first.finish(), second.finish()];
    stored(&one);
    stored(&other);
    let found = files(folder);
    // Numbers go on: a name that was numbered is not numbered again.
    let names: BTreeSet<_> = found.iter().filter_map(|file| file.file_name()?.to_str()).collect();
    assert!(names.iter().all(|name| name.matches('-').count() <= 1), "{names:?}");
    let read: Vec<_> = found
        .iter()
        .filter(|file| file.extension().is_some_and(|is| is == "mp4"))
        .map(|file| frames(file))
        .collect();
    for kind in [Kind::Video, Kind::Audio] {
        let (mut found, mut sent) = (hashes(&read, kind), hashes(&published, kind));
        found.sort();
        sent.sort();
        assert!(found == sent, "{kind:?}: {} frames of {}", found.len(), sent.len());
    }
    ends_well(one);
    ends_well(other);
}
