//! Disks that become read-only under a recorder, by mounts that are real: what comes waits in memory, and recording goes
//! on when the disk takes something again.

use std::path::{Path, PathBuf};
use std::process::Command;

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::flv::Tag;
use av_tests::module::{Module, Setup};
use av_tests::recording::{Kind, Recording};
use av_tests::rtmp::Publisher;
use av_tests::tool::Tool;
use av_tests::{needs, port, tool, wait};
use serde_json::json;

use crate::recorder::{document, ffmpeg, files};
use crate::recorder_faults::{ends_well, frames, hashes, must_hold};
use crate::rtmp;

/// A recorder whose state dir is a disk of its own, seen by nobody else.
struct Mounted {
    module: Module,
    url: String,
    /// The state dir as the module sees it.
    state: PathBuf,
}

impl Mounted {
    /// `mount`: the words in front of the state dir. `None`: nothing may be mounted here.
    fn start(case: &str, mount: &str) -> Option<Self> {
        let try_it = ["-m", "--propagation", "private", "sh", "-c", &format!("{mount} /mnt")];
        if !Command::new("unshare").args(try_it).status().is_ok_and(|status| status.success()) {
            tool::skip(case, "no such disk may be mounted here");
            return None;
        }
        let url = rtmp(port::free(), "live/cam");
        let setup = Setup::new("mp4-recorder").arg("--device").arg("gate");
        let state = setup.dir().join("state");
        let script = format!("mkdir -p \"$0\" && {mount} \"$0\" && exec \"$@\"");
        let line =
            ["unshare", "-m", "--propagation", "private", "sh", "-c", &script, state.to_str().unwrap()];
        let setup = setup.under(line.map(str::to_owned).to_vec());
        let mut document = document(setup.dir(), &url, json!({ "segmentSeconds": 2 }));
        document["spool"] = json!({ "megabytes": 100, "minFreeMegabytes": 1 });
        let module = setup.twin(&document).start_listening();
        Some(Self { module, url, state })
    }

    /// Runs a shell's line where the module's disks are, with the state dir as `$0`.
    fn run(&self, line: &str) -> bool {
        let process = self.module.program().id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &process, "sh", "-c", line]).arg(&self.state);
        command.output().unwrap().status.success()
    }

    /// Until it works: somebody may be writing just now.
    fn remount(&self, options: &str) {
        wait::until_true(options, wait::LONG, || self.run(&format!("mount -o remount,{options} \"$0\"")));
    }

    /// Waits until the output says that it can't record, while the input goes on.
    fn is_told(&self) {
        self.module.wait_value("/flows/cam/outputs/disk/state", "failed");
        self.is_told_what_to_do();
        self.module.wait_receiving("cam");
        wait::until_true("the lag is told", wait::LONG, || self.lag() > 2.0);
    }

    /// Waits until the output says what is wrong with its disk, where and what to do.
    fn is_told_what_to_do(&self) {
        let error = self.module.wait_status("/flows/cam/outputs/disk/error", |error| {
            error.as_str().is_some_and(|error| error.contains("read-only"))
        });
        let error = error.as_str().unwrap();
        let place = self.state.join("spool").display().to_string();
        for words in ["flows.cam.outputs.disk.store: ", &place, "fsck", "mount it again"] {
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    fn lag(&self) -> f64 {
        let labels = [("flow", "cam"), ("output", "disk")];
        self.module.metrics().sum("av_spool_lag_seconds", &labels).unwrap()
    }

    fn dropped(&self) -> u64 {
        self.module.metrics().sum("av_output_frames_dropped_total", &[("flow", "cam")]).unwrap_or(0.0) as u64
    }

    /// The files in the store, when all is there.
    fn files(&self) -> Vec<PathBuf> {
        let seen = format!("/proc/{}/root{}", self.module.program().id(), self.state.display());
        let spool = Path::new(&seen).join("spool");
        wait::until_true("the spool is empty", 2 * wait::LONG, || {
            files(&spool).iter().all(|file| file.extension().is_none_or(|is| is != "mp4"))
        });
        files(&self.module.dir().join("files"))
    }
}

#[test]
fn a_disk_that_is_remounted_read_only_is_told_and_costs_no_frame_of_the_next_half_minute() {
    needs!(Ffmpeg);
    let Some(disk) = Mounted::start("recorder_remount::a_disk_that_is_remounted", "mount -t tmpfs tmpfs")
    else {
        return;
    };
    let in_the_way = disk.module.dir().join("files");
    std::fs::write(&in_the_way, "").unwrap();
    let before = PublishWith::Ffmpeg.start(Clip::Smaller, &disk.url).finish();
    disk.module.wait_value("/flows/cam/input/state", "waiting");
    disk.module.wait_value("/flows/cam/outputs/disk/state", "retrying");
    // The kernel refuses it while a file is open for writing.
    disk.remount("ro");
    std::fs::remove_file(&in_the_way).unwrap();
    disk.is_told_what_to_do();
    let publication = PublishWith::Ffmpeg.start(Clip::Plain, &disk.url);
    disk.is_told();
    disk.remount("rw");
    disk.module.wait_log(&["records again"]);
    wait::until_true("it has caught up", wait::LONG, || disk.lag() == 0.0);
    let mut published = before;
    published.0.extend(publication.finish().0);
    must_hold(&disk.files(), &published);
    assert_eq!(disk.dropped(), 0);
    ends_well(disk.module);
}

#[test]
fn what_memory_has_no_room_for_while_the_disk_is_read_only_is_counted_and_announced() {
    needs!(Ffmpeg);
    let case = "recorder_remount::what_memory_has_no_room_for";
    let Some(disk) = Mounted::start(case, "mount -t tmpfs tmpfs") else { return };
    disk.module.wait_log(&["listening for RTMP"]);
    wait::until_true("there is a spool", wait::LONG, || disk.run("test -e \"$0/spool/ballast\""));
    disk.remount("ro");
    // More than memory holds for it, and quickly.
    let clip: Vec<Tag> = Clip::Heavy.tags();
    let period = clip.iter().map(|tag| tag.timestamp).max().unwrap() + 40;
    let bytes: usize = clip.iter().map(|tag| tag.body.len()).sum();
    let rounds = (100 << 20) / u32::try_from(bytes).unwrap() + 1;
    let mut publisher = Publisher::to(&disk.url);
    let mut published = Recording::default();
    for round in 0..rounds {
        for tag in clip.iter().filter(|tag| round == 0 || !tag.is_header() && tag.kind != 18) {
            let mut tag = tag.in_publication(round);
            tag.timestamp += round * period;
            publisher.send(&tag).unwrap();
            published.0.extend(tag.packet());
        }
    }
    let sent = published.0.len() as u64;
    disk.module.wait_status("/flows/cam/input/frames", |frames| frames.as_u64() >= Some(sent));
    disk.is_told();
    disk.remount("rw");
    publisher.finish().unwrap();
    disk.module.wait_value("/flows/cam/input/state", "waiting");
    disk.module.wait_log(&["frames were lost"]);
    let files = disk.files();
    let read: Vec<_> = files.iter().map(|file| frames(file)).collect();
    let mut kept = 0;
    for kind in [Kind::Video, Kind::Audio] {
        let (found, sent) = (hashes(&read, kind), hashes([&published], kind));
        // In the order of sending, so none is there twice.
        let mut rest = sent.iter();
        assert!(found.iter().all(|hash| rest.any(|sent| sent == hash)), "{kind:?} in {files:?}");
        kept += found.len() as u64;
    }
    assert!(kept > 0 && kept < sent);
    assert_eq!(disk.dropped(), sent - kept, "of {sent} frames");
    // What memory has room for is not lost with the rest.
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes > 50 << 20, "{bytes} bytes");
    for file in &files {
        ffmpeg(Tool::Ffmpeg, &["-i", file.to_str().unwrap(), "-f", "null", "-"]);
    }
    let labels = [("flow", "cam"), ("output", "disk")];
    assert!(disk.module.metrics().sum("av_spool_dropped_total", &labels) >= Some(1.0));
    ends_well(disk.module);
}

#[test]
fn a_file_system_that_the_kernel_stops_at_an_error_costs_no_frame_when_it_is_mounted_again() {
    needs!(Ffmpeg);
    let case = "recorder_remount::a_file_system_that_the_kernel_stops";
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).arg("64M").status();
    if !made.is_ok_and(|status| status.success()) {
        return tool::skip(case, "no ext4 can be made here");
    }
    let mount = format!("mount -o loop {}", image.display());
    let Some(disk) = Mounted::start(case, &mount) else { return };
    let publishing = Publisher::to(&disk.url).run_endlessly(Clip::Plain.tags());
    disk.module.wait_status("/flows/cam/outputs/disk/frames", |count| count.as_u64() >= Some(200));
    // As after a bad block in its journal.
    disk.run("mount -o remount,abort \"$0\"");
    disk.is_told();
    wait::until_true("nobody keeps it busy", wait::LONG, || disk.run("umount \"$0\""));
    let checked = Command::new("fsck.ext4").args(["-f", "-p"]).arg(&image).output().unwrap();
    assert!(checked.status.code() <= Some(1), "{checked:?}");
    assert!(disk.run(&format!("{mount} \"$0\"")));
    disk.module.wait_log(&["records again"]);
    let published = publishing.stop();
    must_hold(&disk.files(), &published);
    assert_eq!(disk.dropped(), 0);
    ends_well(disk.module);
}
