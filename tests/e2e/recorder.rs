//! Streams as files: every frame in exactly one of them, whatever ends in between.

use std::path::{Path, PathBuf};
use std::time::Duration;

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::module::{Module, Setup};
use av_tests::program::Program;
use av_tests::recording::{End, Kind, Packet, Recording, Times};
use av_tests::rtmp::Publisher;
use av_tests::tool::Tool;
use av_tests::{needs, port, tool, wait};
use serde_json::{Value, json};

use crate::{rtmp, twin};

/// A recorder whose folder is `files` beside its twin.
struct Recorder {
    module: Module,
    url: String,
}

pub fn document(dir: &Path, url: &str, output: Value) -> Value {
    let mut disk = json!({ "store": format!("file://{}", dir.join("files").display()) });
    disk.as_object_mut().unwrap().extend(output.as_object().unwrap().clone());
    let mut document = twin(json!({ "cam": { "input": { "listen": url }, "outputs": { "disk": disk } } }));
    document["spool"] = json!({ "megabytes": 200, "minFreeMegabytes": 16 });
    document
}

impl Recorder {
    fn start(output: Value) -> Self {
        let url = rtmp(port::free(), "live/cam");
        let setup = Setup::new("mp4-recorder").arg("--device").arg("gate");
        let document = document(setup.dir(), &url, output);
        Self { module: setup.twin(&document).start(), url }
    }

    /// Waits until everything is stored; gives the files in the order of their names.
    fn files(&self) -> Vec<PathBuf> {
        self.module.wait_value("/flows/cam/outputs/disk/state", "waiting");
        self.module.wait_value("/summary/spoolBytes", 0);
        files(&self.module.dir().join("files"))
    }

    fn frames(&self) -> u64 {
        self.module.status()["flows"]["cam"]["outputs"]["disk"]["frames"].as_u64().unwrap_or(0)
    }
}

/// Waits, after a start, until that many files are stored and nothing is left in the spool.
fn stored(module: &Module, count: usize) -> Vec<PathBuf> {
    let folder = module.dir().join("files");
    // The spool counts nothing before it is open.
    wait::until_true("the files are stored", wait::LONG, || files(&folder).len() >= count);
    module.wait_value("/summary/spoolBytes", 0);
    files(&folder)
}

pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

pub fn ffmpeg(tool: Tool, arguments: &[&str]) -> String {
    let mut command = tool.command();
    command.args(["-hide_banner", "-nostdin", "-loglevel", "error"]).args(arguments);
    let ran = Program::run(&mut command, wait::LONG);
    assert!(ran.status.success() && ran.stderr.trim().is_empty(), "{command:?}: {}", ran.stderr);
    ran.stdout
}

/// What is in a file, and that it is whole: every frame is decoded, and a seek into its middle finds a picture.
pub fn read(tool: Tool, file: &Path) -> Recording {
    let name = file.to_str().unwrap();
    ffmpeg(tool, &["-i", name, "-f", "null", "-"]);
    let length = duration(file);
    let seek = format!("{:.3}", length / 2.0);
    let picture = ffmpeg(
        tool,
        &["-ss", &seek, "-i", name, "-map", "0", "-t", "0.5", "-c", "copy", "-f", "framemd5", "-"],
    );
    assert!(picture.lines().any(|line| !line.starts_with('#')), "{name}: nothing at {seek}: {picture}");
    let all = ffmpeg(
        tool,
        &[
            "-i",
            name,
            "-map",
            "0",
            "-c",
            "copy",
            "-copyts",
            "-enc_time_base",
            "1:1000000",
            "-f",
            "framemd5",
            "-",
        ],
    );
    let recorded = Recording::of_framemd5_in_milliseconds(&all);
    // As long as what is in it: nothing is longer than two frames.
    let shown = |packet: &&Packet| packet.pts;
    let (first, last) =
        (recorded.0.iter().min_by_key(shown).unwrap(), recorded.0.iter().max_by_key(shown).unwrap());
    let span = (last.pts - first.pts) as f64 / 1000.0;
    assert!(length > span && length < span + 0.1, "{name}: {length} s for frames of {span} s");
    recorded
}

/// Seconds, by the file's own account.
pub fn duration(file: &Path) -> f64 {
    let mut command = Tool::Ffprobe.command();
    command.args(["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"]).arg(file);
    let ran = Program::run(&mut command, wait::LONG);
    ran.stdout.trim().parse().unwrap_or_else(|_| panic!("{}: {} {}", file.display(), ran.stdout, ran.stderr))
}

/// The frames of one kind in all files, one after the other.
pub fn hashes(files: &[Recording], kind: Kind) -> Vec<String> {
    files.iter().flat_map(|file| file.of(kind)).map(|packet| packet.hash.clone()).collect()
}

/// Every frame that was published is in exactly one file, in order, with its times.
fn must_be(recorded: &[Recording], published: &Recording) {
    for kind in [Kind::Video, Kind::Audio] {
        let sent: Vec<_> = published.of(kind).into_iter().map(|packet| packet.hash.clone()).collect();
        assert_eq!(hashes(recorded, kind).len(), sent.len(), "{kind:?}");
        assert!(hashes(recorded, kind) == sent, "{kind:?}: other frames than were sent");
    }
    for file in recorded {
        file.must_be(published, Times::AudioWithinOneMillisecond, End::Anywhere);
    }
}

fn records_exactly(clip: Clip, with: PublishWith) {
    let recorder = Recorder::start(json!({ "segmentSeconds": 2 }));
    let publication = with.start(clip, &recorder.url);
    recorder.module.wait_value("/flows/cam/outputs/disk/state", "storing");
    let published = publication.finish();
    let files = recorder.files();
    assert!(files.len() >= 2, "{files:?}");
    let recorded: Vec<_> = files.iter().map(|file| read(clip.tool(), file)).collect();
    must_be(&recorded, &published);
    for file in &files {
        let name = file.strip_prefix(recorder.module.dir().join("files")).unwrap().to_str().unwrap();
        assert!(name.starts_with("gate/cam/20") && name.ends_with("Z.mp4"), "{name}");
    }
    let metrics = recorder.module.metrics();
    let stored = metrics.sum("av_segments_stored_total", &[("flow", "cam"), ("output", "disk")]);
    assert_eq!(stored, Some(files.len() as f64));
    assert_eq!(recorder.module.terminate().status.code(), Some(0));
}

#[test]
fn what_ffmpeg_publishes_is_in_the_files_frame_by_frame() {
    needs!(Ffmpeg, Ffprobe);
    records_exactly(Clip::Plain, PublishWith::Ffmpeg);
    records_exactly(Clip::Pyramid, PublishWith::Ffmpeg);
}

#[test]
fn newer_codecs_are_in_the_files_frame_by_frame() {
    needs!(Ffmpeg9, Ffprobe);
    records_exactly(Clip::H265, PublishWith::Ffmpeg9);
    records_exactly(Clip::Av1Opus, PublishWith::Ffmpeg9);
}

#[test]
fn what_is_pulled_by_rtsp_is_in_the_files_picture_by_picture() {
    needs!(Ffmpeg, Ffprobe);
    let (from, at) = (rtmp(port::free(), "live/cam"), format!("rtsp://127.0.0.1:{}/live/cam", port::free()));
    let gateway = Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": { "listen": from }, "outputs": { "all": { "serve": at, "transports": ["tcp"] } },
        } })),
    );
    let setup = Setup::new("mp4-recorder").arg("--device").arg("gate");
    let mut document = document(setup.dir(), &at, json!({ "segmentSeconds": 2 }));
    document["flows"]["cam"]["input"] =
        json!({ "pull": at, "retry": { "initialMilliseconds": 100, "maxSeconds": 1 } });
    let recorder = Recorder { module: setup.twin(&document).start(), url: at };
    let publication = PublishWith::Ffmpeg.start(Clip::Pyramid, &from);
    recorder.module.wait_value("/flows/cam/outputs/disk/state", "storing");
    let published = publication.finish();
    let recorded: Vec<_> = recorder.files().iter().map(|file| read(Tool::Ffmpeg, file)).collect();
    let sent: Vec<_> = published.of(Kind::Video).into_iter().map(|packet| packet.hash.clone()).collect();
    let got = hashes(&recorded, Kind::Video);
    // From where the recorder came in, to the end and without a hole.
    assert!(got.len() >= 50 && sent.ends_with(&got), "{} of {}", got.len(), sent.len());
    assert!(!hashes(&recorded, Kind::Audio).is_empty());
    assert_eq!(gateway.terminate().status.code(), Some(0));
}

#[test]
fn after_a_kill_every_frame_that_was_counted_is_in_a_file() {
    needs!(Ffmpeg, Ffprobe);
    let recorder = Recorder::start(json!({ "segmentSeconds": 60 }));
    let tags = Clip::Heavy.tags();
    let published = Recording::of_tags(&tags);
    let mut kept: Vec<PathBuf> = Vec::new();
    let Recorder { mut module, url } = recorder;
    for frames in [60, 170, 260] {
        let mut publisher = Publisher::to(&url);
        let tags = tags.clone();
        let publishing = std::thread::spawn(move || publisher.play_out(&tags));
        module.wait_status("/flows/cam/outputs/disk/frames", |count| count.as_u64() >= Some(frames));
        let counted = module.status()["flows"]["cam"]["outputs"]["disk"]["frames"].as_u64().unwrap();
        module = module.kill_and_restart(|setup| setup.arg("--device").arg("gate"));
        let _ = publishing.join();
        let all = stored(&module, kept.len() + 1);
        let new: Vec<_> = all.iter().filter(|file| !kept.contains(file)).cloned().collect();
        assert_eq!(new.len(), 1, "{new:?}");
        let recorded = read(Tool::Ffmpeg, &new[0]);
        recorded.must_be(&published, Times::AudioWithinOneMillisecond, End::Anywhere);
        assert!(recorded.0.len() as u64 >= counted, "{} of {counted}", recorded.0.len());
        kept = all;
    }
    assert_eq!(module.terminate().status.code(), Some(0));
}

#[test]
fn what_was_recorded_when_the_module_ends_is_stored_at_the_next_start() {
    needs!(Ffmpeg, Ffprobe);
    let recorder = Recorder::start(json!({ "segmentSeconds": 60 }));
    let endless = Publisher::to(&recorder.url).run_endlessly(Clip::Plain.tags());
    recorder.module.wait_status("/flows/cam/outputs/disk/frames", |count| count.as_u64() >= Some(100));
    // From a frame's arrival until it is durable.
    let delay =
        recorder.module.wait_status("/flows/cam/outputs/disk/latencyMilliseconds/p99", Value::is_number);
    assert!(delay.as_f64() > Some(1.0), "{delay}");
    for kind in ["video", "audio"] {
        let labels = [("protocol", "mp4"), ("kind", kind)];
        let measured = recorder.module.metrics().sum("av_output_latency_seconds_count", &labels);
        assert!(measured > Some(0.0), "{kind}: {measured:?}");
    }
    let counted = recorder.frames();
    let module = recorder.module.terminate_and_restart(|setup| setup.arg("--device").arg("gate"));
    drop(endless);
    let files = stored(&module, 1);
    let recorded: usize = files.iter().map(|file| read(Tool::Ffmpeg, file).0.len()).sum();
    assert!(recorded as u64 >= counted, "{recorded} of {counted}");
}

#[test]
fn the_disk_of_a_dead_device_gives_files_that_play_and_stays_as_it_is() {
    needs!(Ffmpeg, Ffprobe);
    let url = rtmp(port::free(), "live/cam");
    let setup = Setup::new("mp4-recorder");
    let folder = setup.dir().to_owned();
    // A file where the store's folder should be: everything stays in the spool.
    std::fs::write(folder.join("files"), "in the way").unwrap();
    let module = setup.twin(&document(&folder, &url, json!({ "segmentSeconds": 2 }))).start();
    let published = Recording::of_tags(&Clip::Plain.tags());
    let endless = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    module.wait_status("/flows/cam/outputs/disk/frames", |count| count.as_u64() >= Some(200));
    module.program().signal("KILL");
    let stat = format!("/proc/{}/stat", module.program().id());
    wait::until_true("it is dead", wait::LONG, || {
        std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z "))
    });
    drop(endless);
    let spool = folder.join("state/spool");
    let before: Vec<_> = files(&spool).iter().map(|file| std::fs::read(file).unwrap()).collect();
    let export = |to: &Path| {
        let mut command = std::process::Command::new(tool::binary("mp4-recorder"));
        command.arg("spool").arg(folder.join("state")).arg("--export").arg(to);
        Program::run(&mut command, wait::LONG)
    };
    let to = folder.join("saved");
    let ran = export(&to);
    assert!(ran.status.success(), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("cam/disk 20") && ran.stdout.contains("bytes, cut off; "), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("waits; whole\n") && ran.stdout.contains(" can be saved\n"),
        "{}",
        ran.stdout
    );
    let saved = files(&to);
    assert!(saved.len() >= 2, "{saved:?}");
    let read: Vec<_> = saved.iter().map(|file| read(Tool::Ffmpeg, file)).collect();
    let clip: Vec<_> = published.of(Kind::Video).into_iter().map(|packet| packet.hash.clone()).collect();
    let got = hashes(&read, Kind::Video);
    assert!(
        clip.into_iter().cycle().take(got.len()).eq(got.iter().cloned()),
        "other pictures than were sent"
    );
    let after: Vec<_> = files(&spool).iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(before == after, "the spool was changed");
    // A folder that has none is not taken for a spool without recordings.
    let mut command = std::process::Command::new(tool::binary("mp4-recorder"));
    let ran = Program::run(command.arg("spool").arg(&to), wait::LONG);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stdout);
    assert!(ran.stderr.contains("there is no spool in that folder"), "{}", ran.stderr);
}

#[test]
fn a_change_of_the_output_costs_no_frame_and_doubles_none() {
    needs!(Ffmpeg, Ffprobe);
    let recorder = Recorder::start(json!({ "segmentSeconds": 60 }));
    let publication = PublishWith::Ffmpeg.start(Clip::Plain, &recorder.url);
    recorder.module.wait_status("/flows/cam/outputs/disk/frames", |count| count.as_u64() >= Some(80));
    recorder.module.set_twin(&document(
        &recorder.module.dir(),
        &recorder.url,
        json!({ "segmentSeconds": 30 }),
    ));
    let published = publication.finish();
    let files = recorder.files();
    assert_eq!(files.len(), 2, "{files:?}");
    let recorded: Vec<_> = files
        .iter()
        .map(|file| {
            // The second file begins inside a GOP, of which ffmpeg complains.
            let mut command = Tool::Ffmpeg.command();
            command.args(["-hide_banner", "-nostdin", "-loglevel", "quiet", "-i"]).arg(file);
            command.args(["-map", "0", "-c", "copy", "-copyinkf", "-f", "framemd5", "-"]);
            Recording::of_framemd5_in_milliseconds(&Program::run(&mut command, wait::LONG).stdout)
        })
        .collect();
    for kind in [Kind::Video, Kind::Audio] {
        let sent: Vec<_> = published.of(kind).into_iter().map(|packet| packet.hash.clone()).collect();
        assert!(hashes(&recorded, kind) == sent, "{kind:?}");
    }
}

#[test]
fn a_name_that_becomes_too_long_is_refused_and_what_was_configured_before_goes_on() {
    let recorder = Recorder::start(json!({ "segmentSeconds": 2 }));
    let publishing = Publisher::to(&recorder.url).run_endlessly(Clip::Plain.tags());
    let frames =
        || recorder.module.status()["flows"]["cam"]["outputs"]["disk"]["frames"].as_u64().unwrap_or(0);
    wait::until_true("it records", wait::LONG, || frames() > 50);
    // Its segment has 232 bytes.
    let name = json!({ "name": format!("{}-{{flow}}.mp4", "x".repeat(224)) });
    recorder.module.set_twin(&document(&recorder.module.dir(), &recorder.url, name));
    recorder.module.wait_status("/config/errors/cam", |error| {
        error.as_str().is_some_and(|error| {
            error.starts_with(
                "flows.cam.outputs.disk.name: a name with its fields filled in can have at most 928",
            )
        })
    });
    let before = frames();
    wait::until_true("it goes on", wait::LONG, || frames() > before + 50);
    recorder.module.wait_value("/flows/cam/outputs/disk/state", "storing");
    publishing.stop();
}

#[test]
fn a_file_of_an_hour_in_a_spool_without_room_for_its_index_is_told_as_that() {
    let url = rtmp(port::free(), "live/cam");
    let setup = Setup::new("mp4-recorder");
    let mut document = document(setup.dir(), &url, json!({ "segmentSeconds": 3600 }));
    document["spool"]["megabytes"] = json!(4);
    let module = setup.twin(&document).start();
    let publishing = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    module.wait_status("/flows/cam/outputs/disk/error", |error| {
        error.as_str().is_some_and(|error| {
            error.contains("MB when it begins (room for its index), and the spool may hold 4.0 MB")
        })
    });
    drop(publishing);
}

#[test]
fn a_name_that_is_in_use_is_never_overwritten() {
    needs!(Ffmpeg, Ffprobe);
    let recorder = Recorder::start(json!({ "name": "{flow}/always.mp4" }));
    for _ in 0..2 {
        let publication = PublishWith::Ffmpeg.start(Clip::Plain, &recorder.url);
        recorder.module.wait_value("/flows/cam/outputs/disk/state", "storing");
        publication.finish();
        recorder.module.wait_value("/flows/cam/outputs/disk/state", "waiting");
    }
    let folder = recorder.module.dir().join("files/cam");
    let names: Vec<_> = recorder
        .files()
        .iter()
        .map(|file| file.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["always-2.mp4", "always.mp4"]);
}

#[test]
fn a_name_that_a_thousand_files_have_stops_nothing() {
    needs!(Ffmpeg, Ffprobe);
    let recorder = Recorder::start(json!({ "name": "always.mp4", "segmentSeconds": 2 }));
    let folder = recorder.module.dir().join("files");
    std::fs::create_dir_all(&folder).unwrap();
    for number in 1..=1200 {
        let name = if number == 1 { "always.mp4".to_owned() } else { format!("always-{number}.mp4") };
        std::fs::write(folder.join(name), "").unwrap();
    }
    let published = PublishWith::Ffmpeg.start(Clip::Plain, &recorder.url).finish();
    let mut files = recorder.files();
    files.retain(|file| std::fs::metadata(file).unwrap().len() > 0);
    // In the order of their numbers, which is that of time.
    files.sort_by_key(|file| {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        name.rsplit_once('-').unwrap().1.parse::<u32>().unwrap()
    });
    let recorded: Vec<_> = files.iter().map(|file| read(Tool::Ffmpeg, file)).collect();
    must_be(&recorded, &published);
}

#[test]
fn a_folder_that_takes_nothing_is_told_and_waits_and_the_recording_goes_on() {
    needs!(Ffmpeg, Ffprobe);
    let url = rtmp(port::free(), "live/cam");
    let setup = Setup::new("mp4-recorder");
    let blocked = setup.dir().join("files");
    // A file where the folder should be.
    std::fs::write(&blocked, "in the way").unwrap();
    let document = document(setup.dir(), &url, json!({ "segmentSeconds": 2 }));
    let module = setup.twin(&document).start();
    let published = PublishWith::Ffmpeg.start(Clip::Plain, &url).finish();
    let error = module.wait_status("/flows/cam/outputs/disk/error", Value::is_string);
    assert!(error.as_str().unwrap().starts_with("flows.cam.outputs.disk.store: "), "{error}");
    module.wait_value("/flows/cam/outputs/disk/state", "retrying");
    assert!(module.status()["summary"]["spoolBytes"].as_u64() > Some(0));
    std::fs::remove_file(&blocked).unwrap();
    let recorder = Recorder { module, url };
    let recorded: Vec<_> = recorder.files().iter().map(|file| read(Tool::Ffmpeg, file)).collect();
    must_be(&recorded, &published);
}

#[test]
fn what_a_document_asks_for_in_vain_is_told_with_its_path() {
    let url = rtmp(port::free(), "live/cam");
    for (output, sentence) in [
        (json!({ "name": "{flow}.mov" }), "flows.cam.outputs.disk.name: a name must end in .mp4"),
        (
            json!({ "name": "{match}.mp4" }),
            "flows.cam.outputs.disk.name: {match} is for inputs that listen on a pattern",
        ),
        (
            json!({ "segmentSeconds": 1 }),
            "flows.cam.outputs.disk.segmentSeconds: expected a whole number from 2 to 3600, got 1",
        ),
        (json!({ "tags": {} }), "flows.cam.outputs.disk.tags: `tags` belongs to `store` outputs with azblob"),
        (
            json!({ "credentials": { "sas": "x" } }),
            "flows.cam.outputs.disk.credentials: `credentials` belongs to `store` outputs with azblob",
        ),
        (
            json!({ "apiVersion": "2017-04-17" }),
            "flows.cam.outputs.disk.apiVersion: `apiVersion` belongs to `store` outputs with azblob",
        ),
        (
            json!({ "uploadKilobitsPerSecond": 1 }),
            "disk.uploadKilobitsPerSecond: `uploadKilobitsPerSecond` belongs to `store` outputs with azblob",
        ),
        (
            json!({ "store": "file:///rec/*" }),
            "flows.cam.outputs.disk.store: a folder can't contain `*` or {match}",
        ),
        (
            json!({ "store": "file:///rec/{match}" }),
            "flows.cam.outputs.disk.store: a folder can't contain `*`",
        ),
        (
            json!({ "store": "azblob+http://host:0/acc1/rec", "credentials": { "sas": "x" } }),
            "flows.cam.outputs.disk.store: a port is a number from 1 to 65535",
        ),
        (
            json!({ "segmentSecond": 5 }),
            "flows.cam.outputs.disk.segmentSecond: unknown property; is `segmentSeconds` meant?",
        ),
    ] {
        let setup = Setup::new("mp4-recorder");
        let document = document(setup.dir(), &url, output);
        let ended = setup.twin(&document).run(Duration::from_secs(30));
        assert_eq!(ended.status.code(), Some(78));
        assert!(ended.stderr.contains(sentence), "{}", ended.stderr);
    }
}

#[test]
fn a_stream_without_what_an_output_takes_is_waited_for_and_said() {
    needs!(Ffmpeg);
    for record in ["continuous", "events"] {
        let recorder = Recorder::start(json!({ "content": "audioOnly", "record": record }));
        let publishing = PublishWith::Ffmpeg.start(Clip::VideoOnly, &recorder.url);
        let why = "flows.cam.outputs.disk.store: the stream has no audio";
        recorder.module.wait_value("/flows/cam/outputs/disk/error", why);
        recorder.module.wait_value("/flows/cam/outputs/disk/state", "waiting");
        publishing.finish();
        recorder.module.wait_value("/flows/cam/input/state", "waiting");
        // Another publisher has some.
        PublishWith::Ffmpeg.start(Clip::Plain, &recorder.url).finish();
        recorder.module.wait_status("/flows/cam/outputs/disk/error", Value::is_null);
        assert_eq!(recorder.files().is_empty(), record == "events");
    }
}
