//! Clips of events, and recordings that are deleted: what is asked of the recorder while it runs, through the hub.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use av_tests::clip::Clip;
use av_tests::edge::{self, Edge};
use av_tests::program::Program;
use av_tests::recording::{Kind, Recording};
use av_tests::rtmp::{Endless, Publisher};
use av_tests::tool::Tool;
use av_tests::{needs, port, tool, wait};
use serde_json::{Value, json};

use crate::hub_sdks;
use crate::recorder_blobs::{Azurite, KEY};
use crate::recorder_evidence::must_be_a_part;
use crate::rtmp;

pub const MODULE: &str = "mp4-recorder";

/// The repository's manifest with nothing but the recorder, and that with one flow `cam` that listens.
pub fn recorder_alone(outputs: Value) -> (Value, Vec<(u16, u16)>) {
    let text = std::fs::read_to_string(tool::repository().join("deployment.template.json")).unwrap();
    let mut manifest: Value = serde_json::from_str(&text).unwrap();
    let content = manifest["modulesContent"].as_object_mut().unwrap();
    content.retain(|name, _| name.starts_with('$') || name == MODULE);
    let desired = &mut content[MODULE]["properties.desired"];
    desired["flows"] =
        json!({ "cam": { "input": { "listen": "rtmp://0.0.0.0:1935/live/cam" }, "outputs": outputs } });
    desired["spool"] = json!({ "megabytes": 200, "minFreeMegabytes": 16 });
    let modules = &mut content["$edgeAgent"]["properties.desired"]["modules"];
    modules.as_object_mut().unwrap().retain(|name, _| name == MODULE);
    let options = &mut modules[MODULE]["settings"]["createOptions"];
    options["ExposedPorts"]["1935/tcp"] = json!({});
    options["HostConfig"]["PortBindings"]["1935/tcp"] = json!([{ "HostPort": "1935" }]);
    let mut ports = Vec::new();
    edge::rebind(&mut manifest, &mut ports);
    (manifest, ports)
}

struct Bench {
    edge: Edge,
    publishing: Option<Endless>,
}

impl Bench {
    fn start(outputs: Value) -> Self {
        let (manifest, ports) = recorder_alone(outputs);
        Self::start_of(&manifest, ports)
    }

    fn start_of(manifest: &Value, ports: Vec<(u16, u16)>) -> Self {
        let mut bench = Self::without_publisher(manifest, ports);
        // What is applied may not listen yet.
        wait::until_true("it waits for a publisher", wait::LONG, || {
            bench.ask("getStatus", &json!({})).1["flows"]["cam"]["input"]["state"] == "waiting"
        });
        bench.publishes();
        bench
    }

    fn publishes(&mut self) {
        let url = rtmp(self.edge.host_ports(1935)[0], "live/cam");
        self.publishing = Some(Publisher::to(&url).run_endlessly(Clip::Plain.tags()));
    }

    fn without_publisher(manifest: &Value, ports: Vec<(u16, u16)>) -> Self {
        let edge = Edge::start(manifest, ports);
        wait::until_true("the recorder reports its configuration", wait::LONG, || {
            edge.twin(MODULE)["reported"]["config"]["status"] == "applied"
        });
        Self { edge, publishing: None }
    }

    /// Status and body of a method's answer.
    fn ask(&self, name: &str, payload: &Value) -> (u64, Value) {
        let answer = self.edge.ask(&["method", MODULE, name, &payload.to_string()]);
        let answer: Value = serde_json::from_str(&answer.stdout)
            .unwrap_or_else(|error| panic!("{name}: {error}: {}{}", answer.stdout, answer.stderr));
        (answer["status"].as_u64().unwrap(), answer["payload"].clone())
    }

    /// Its publisher is gone; gives what it sent.
    fn publisher_leaves(&mut self) -> Recording {
        let published = self.publishing.take().unwrap().stop();
        wait::until_true("nobody publishes", wait::LONG, || {
            self.ask("getStatus", &json!({})).1["flows"]["cam"]["input"]["state"] == "waiting"
        });
        published
    }

    fn wait_received(&self, frames: u64) {
        wait::until_true(&format!("{frames} frames came in"), wait::LONG, || {
            let status = self.ask("getStatus", &json!({})).1;
            status["flows"]["cam"]["input"]["frames"].as_u64() >= Some(frames)
        });
    }

    fn recordings(&self) -> Vec<Value> {
        let (status, body) = self.ask("listRecordings", &json!({ "flow": "cam" }));
        assert_eq!(status, 200, "{body}");
        body["recordings"].as_array().unwrap().clone()
    }

    fn folder(&self) -> PathBuf {
        self.edge.dir().join("recordings")
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// What tells one round of sound from another is nothing for decoders, so they are told to be quiet.
fn run(tool: Tool, arguments: &[&str], file: &Path) -> String {
    let mut command = tool.command();
    command.args(arguments).arg(file);
    if tool == Tool::Ffmpeg {
        command.args([
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
        ]);
    }
    let ran = Program::run(&mut command, wait::LONG);
    assert!(ran.status.success() && ran.stderr.trim().is_empty(), "{command:?}: {}", ran.stderr);
    ran.stdout
}

fn recorded(file: &Path) -> Recording {
    let said = run(Tool::Ffmpeg, &["-hide_banner", "-nostdin", "-loglevel", "quiet", "-i"], file);
    Recording::of_framemd5_in_milliseconds(&said)
}

fn seconds(file: &Path) -> f64 {
    let said =
        run(Tool::Ffprobe, &["-v", "quiet", "-show_entries", "format=duration", "-of", "csv=p=0"], file);
    said.trim().parse().unwrap()
}

#[test]
fn more_clips_at_once_than_there_may_be_are_refused_and_not_remembered() {
    let bench = Bench::start(json!({ "disk": { "store": "file:///recordings" } }));
    bench.wait_received(50);
    let ask = |id: &str| bench.ask("recordEvent", &json!({ "flow": "cam", "id": id, "seconds": 600 }));
    let names: Vec<Value> = (0..16)
        .map(|number| {
            let (status, body) = ask(&format!("e{number}"));
            assert_eq!(status, 202, "{body}");
            body["name"].clone()
        })
        .collect();
    for _ in 0..2 {
        let (status, body) = ask("e16");
        assert_eq!(status, 409, "{body}");
        assert!(body.to_string().contains("16 clips are already being recorded"), "{body}");
    }
    let (status, body) = ask("e0");
    assert_eq!((status, &body["name"]), (202, &names[0]), "{body}");
}

#[test]
fn a_clip_begins_before_the_call_and_is_all_that_leaves_a_device_that_records_events() {
    needs!(Ffmpeg, Ffprobe);
    let bench = Bench::start(json!({ "clips": { "store": "file:///recordings", "record": "events" } }));
    // Five seconds of pictures and sound.
    bench.wait_received(360);
    let asked = json!({ "flow": "cam", "id": "door-7", "preRollSeconds": 3, "seconds": 2 });
    let (status, answer) = bench.ask("recordEvent", &asked);
    assert_eq!((status, &answer["id"]), (202, &json!("door-7")), "{answer}");
    let name = answer["name"].as_str().unwrap().to_owned();
    assert!(name.ends_with("-event-door-7.mp4"), "{name}");
    assert_eq!(bench.ask("recordEvent", &asked), (202, answer.clone()));
    // Clips end when it is their time.
    assert_eq!(bench.ask("closeSegment", &json!({ "flow": "cam" })), (200, json!({ "outputs": 0 })));

    let file = bench.folder().join(&name);
    wait::until_true("the clip is stored", wait::LONG, || file.exists());
    let recordings = bench.recordings();
    assert_eq!(recordings.len(), 1, "{recordings:?}");
    assert_eq!((&recordings[0]["event"], &recordings[0]["state"]), (&json!("door-7"), &json!("stored")));
    assert_eq!(files(&bench.folder()), std::slice::from_ref(&file));
    let folder = bench.folder();
    let Bench { edge, publishing } = bench;
    let published = publishing.unwrap().stop();
    must_be_a_part(&recorded(&file), &published);
    // From the sync frame before the three seconds on, to the end of the two.
    let seconds = seconds(&file);
    assert!((4.9..=6.5).contains(&seconds), "{seconds} s");

    // Known by what is on the disk, not by heart.
    let restarted = edge.ask(&["restart", MODULE]);
    assert!(restarted.status.success(), "{}", restarted.stderr);
    wait::until_true("the recorder answers as before", wait::LONG, || {
        let said = edge.ask(&["method", MODULE, "recordEvent", &asked.to_string()]);
        let said: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        said["status"] == 202 && said["payload"] == answer
    });
    assert_eq!(files(&folder), [file]);
    assert_eq!(edge.interrupt().status.code(), Some(0));
}

#[test]
fn the_first_clip_of_an_output_that_records_all_the_time_begins_before_the_call_too() {
    needs!(Ffmpeg, Ffprobe);
    let bench = Bench::start(json!({ "disk": { "store": "file:///recordings", "segmentSeconds": 2 } }));
    // Six seconds of pictures and sound: files of it are stored and no longer in the spool.
    bench.wait_received(430);
    wait::until_true("two files are stored", wait::LONG, || files(&bench.folder()).len() >= 2);
    let asked = json!({ "flow": "cam", "id": "door-8", "preRollSeconds": 4, "seconds": 2 });
    let (status, answer) = bench.ask("recordEvent", &asked);
    assert_eq!(status, 202, "{answer}");
    let file = bench.folder().join(answer["name"].as_str().unwrap());
    wait::until_true("the clip is stored", wait::LONG, || file.exists());
    let published = bench.publishing.unwrap().stop();
    must_be_a_part(&recorded(&file), &published);
    let seconds = seconds(&file);
    assert!((5.9..=7.5).contains(&seconds), "{seconds} s");
    assert_eq!(bench.edge.interrupt().status.code(), Some(0));
}

#[test]
fn a_clip_that_is_asked_for_when_the_publisher_has_gone_has_its_pre_roll() {
    needs!(Ffmpeg, Ffprobe);
    let mut bench = Bench::start(json!({
        "clips": { "store": "file:///recordings", "name": "{flow}/clips-%H%M%S.mp4", "record": "events" },
        "disk": { "store": "file:///recordings", "name": "{flow}/disk-%H%M%S.mp4", "segmentSeconds": 2 },
    }));
    // Six seconds of pictures and sound.
    bench.wait_received(430);
    let published = bench.publisher_leaves();
    let ask = |output: &str, pre_roll: u64| {
        let id = format!("{output}-{pre_roll}");
        bench.ask(
            "recordEvent",
            &json!({ "flow": "cam", "output": output, "id": id, "preRollSeconds": pre_roll, "seconds": 2 }),
        )
    };
    for output in ["clips", "disk"] {
        let (status, answer) = ask(output, 6);
        assert_eq!(status, 202, "{answer}");
        let file = bench.folder().join(answer["name"].as_str().unwrap());
        wait::until_true("the clip is stored", wait::LONG, || file.exists());
        let recorded = recorded(&file);
        must_be_a_part(&recorded, &published);
        for kind in [Kind::Video, Kind::Audio] {
            let last = |of: &Recording| of.of(kind).last().map(|packet| packet.hash.clone());
            assert_eq!(last(&recorded), last(&published), "{output}: {kind:?}");
        }
    }
    let of_cam = json!({ "flow": "cam" });
    assert_eq!(bench.ask("closeSegment", &of_cam), (200, json!({ "outputs": 1 })));
    let patched = bench.edge.patch_twin(MODULE, &json!({ "flows": { "cam": null } }));
    assert!(patched.status.success(), "{}", patched.stderr);
    wait::until_true("the flow is gone", wait::LONG, || bench.ask("closeSegment", &of_cam).0 == 404);
    assert_eq!(ask("clips", 60).0, 404);
    assert_eq!(bench.edge.interrupt().status.code(), Some(0));
}

#[test]
fn a_clip_that_is_asked_for_while_the_publisher_is_away_has_what_comes_when_it_is_back_as_well() {
    needs!(Ffmpeg, Ffprobe);
    let mut bench = Bench::start(json!({
        "clips": { "store": "file:///recordings", "name": "{flow}/clips.mp4", "record": "events" },
        "disk": { "store": "file:///recordings", "name": "{flow}/disk-%H%M%S.mp4", "segmentSeconds": 2 },
    }));
    bench.wait_received(430);
    let before = bench.publisher_leaves();
    for output in ["clips", "disk"] {
        let event =
            json!({ "flow": "cam", "output": output, "id": output, "preRollSeconds": 3, "seconds": 15 });
        let (status, answer) = bench.ask("recordEvent", &event);
        assert_eq!(status, 202, "{answer}");
    }
    bench.publishes();
    bench.wait_received(860);
    let after = bench.publisher_leaves();
    for output in ["clips", "disk"] {
        let of_event = |number: &str| {
            let end = format!("-event-{output}{number}.mp4");
            let is_it = |file: &PathBuf| file.to_string_lossy().ends_with(&end);
            wait::until(&format!("a file {end}"), wait::LONG, || {
                files(&bench.folder()).into_iter().find(is_it)
            })
        };
        must_be_a_part(&recorded(&of_event("")), &before);
        must_be_a_part(&recorded(&of_event("-2")), &after);
    }
    assert_eq!(bench.edge.interrupt().status.code(), Some(0));
}

#[test]
fn a_clip_without_a_frame_is_told_and_counted() {
    let (manifest, ports) =
        recorder_alone(json!({ "clips": { "store": "file:///recordings", "record": "events" } }));
    let bench = Bench::without_publisher(&manifest, ports);
    wait::until_true("the clip is asked for", wait::LONG, || {
        bench.ask("recordEvent", &json!({ "flow": "cam", "id": "dark", "seconds": 1 })).0 == 202
    });
    wait::until_true("that there was nothing is told", wait::LONG, || {
        let log = bench.edge.ask(&["logs", MODULE]).stdout;
        log.contains("the clip of event dark was not recorded: no media arrived in its time")
    });
    assert_eq!(bench.edge.interrupt().status.code(), Some(0));
}

#[test]
fn what_is_deleted_is_gone_from_spool_and_store_and_does_not_come_back() {
    needs!(Ffmpeg, Ffprobe);
    let bench = Bench::start(json!({ "disk": { "store": "file:///recordings", "segmentSeconds": 2 } }));
    wait::until_true("two files are stored", wait::LONG, || files(&bench.folder()).len() >= 2);
    let (status, answer) =
        bench.ask("recordEvent", &json!({ "flow": "cam", "preRollSeconds": 1, "seconds": 60 }));
    assert_eq!(status, 202, "{answer}");
    wait::until_true("the clip is being recorded", wait::LONG, || {
        bench.recordings().iter().any(|recording| recording["event"] == answer["id"])
    });
    let before: Vec<Value> = bench.recordings();
    let range = json!({ "flow": "cam", "from": "2026-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z" });
    // A flow that is not there yet is not meant for ever.
    let mut of_another = range.clone();
    of_another["flow"] = "cam9".into();
    assert_eq!(bench.ask("deleteRecordings", &of_another).0, 404);
    let tombstones = files(&bench.edge.state_dir()).into_iter().filter(|file| file.ends_with("tombstones"));
    assert_eq!(tombstones.collect::<Vec<_>>(), Vec::<PathBuf>::new());
    let (status, deleted) = bench.ask("deleteRecordings", &range);
    assert_eq!(status, 200, "{deleted}");
    assert!(deleted["count"].as_u64().unwrap() >= before.len() as u64, "{deleted} of {before:#?}");
    assert!(deleted["permanent"].as_u64() >= Some(2) && deleted.get("failed").is_none(), "{deleted}");
    // The file that was being written and the clip come to their end, and go.
    let start = |recording: &Value| recording["start"].as_str().unwrap().to_owned();
    let old: Vec<String> = before.iter().map(start).collect();
    wait::until_true("nothing of what was there is left", wait::LONG, || {
        !bench.recordings().iter().any(|recording| old.contains(&start(recording)))
    });
    // What comes later is recorded as ever.
    wait::until_true("a new file is stored", wait::LONG, || !files(&bench.folder()).is_empty());
    let kept = bench.recordings();
    assert!(kept.iter().all(|recording| recording.get("event").is_none()), "{kept:#?}");
    assert!(files(&bench.folder()).iter().all(|file| !file.to_str().unwrap().contains("-event-")));
    bench.publishing.unwrap().stop();
    assert_eq!(bench.edge.interrupt().status.code(), Some(0));
}

#[test]
fn what_a_clock_that_was_fast_dated_in_the_future_is_deleted_with_the_rest() {
    let inside = |folder: std::fs::DirEntry| folder.path().join("faketime/libfaketime.so.1");
    let mut libraries = std::fs::read_dir("/usr/lib").unwrap().flatten().map(inside);
    let Some(library) = libraries.find(|path| path.exists()) else {
        return tool::skip(
            "recorder_events::what_a_clock_that_was_fast_dated",
            "libfaketime is not installed",
        );
    };
    let dir = tempfile::tempdir().unwrap();
    let clock = dir.path().join("clock");
    std::fs::write(&clock, "+7200").unwrap();
    let disk = json!({ "store": "file:///recordings", "segmentSeconds": 2 });
    let (mut manifest, ports) = recorder_alone(json!({ "disk": disk }));
    let desired = &mut manifest["modulesContent"]["$edgeAgent"]["properties.desired"];
    let env = &mut desired["modules"][MODULE]["env"];
    for (name, value) in [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("TZ", "UTC"),
    ] {
        env[name]["value"] = json!(value);
    }
    let mut bench = Bench::start_of(&manifest, ports);
    wait::until_true("two files are stored", wait::LONG, || files(&bench.folder()).len() >= 2);
    bench.publisher_leaves();
    wait::until_true("nothing waits", wait::LONG, || {
        bench.recordings().iter().all(|recording| recording["state"] == "stored")
    });
    std::fs::write(dir.path().join("new"), "+0").unwrap();
    std::fs::rename(dir.path().join("new"), &clock).unwrap();
    let range = json!({ "flow": "cam", "from": "2026-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z" });
    let (status, deleted) = bench.ask("deleteRecordings", &range);
    assert_eq!(status, 200, "{deleted}");
    assert!(deleted["permanent"].as_u64() >= Some(2), "{deleted}");
    assert!(bench.recordings().is_empty() && files(&bench.folder()).is_empty());
    assert_eq!(bench.edge.interrupt().status.code(), Some(0));
}

#[test]
fn a_message_that_a_route_brings_makes_a_clip_and_the_same_message_again_makes_none() {
    needs!(Ffmpeg, Ffprobe);
    let Some(_alone) = hub_sdks::taken_for("python") else { return };
    let clips = json!({ "clips": { "store": "file:///recordings", "record": "events" } });
    let (mut manifest, ports) = recorder_alone(clips);
    manifest["modulesContent"]["$edgeHub"]["properties.desired"]["routes"] = json!({
        "doors": "FROM /messages/modules/door/outputs/out \
                  INTO BrokeredEndpoint(\"/modules/mp4-recorder/inputs/recordEvent\")",
    });
    let edge = hub_sdks::Edge::start(&manifest);
    let port = ports.iter().find(|(inside, _)| *inside == 1935).unwrap().1;
    let ask = |name: &str, payload: Value| -> Value {
        let answer = edge.ask(&["method", MODULE, name, &payload.to_string()]);
        serde_json::from_str(&answer.stdout).unwrap_or_default()
    };
    wait::until_true("the recorder reports its configuration", wait::LONG, || {
        let twin: Value =
            serde_json::from_str(&edge.ask(&["twin", "show", MODULE]).stdout).unwrap_or_default();
        twin["reported"]["config"]["status"] == "applied"
    });
    let publishing = Publisher::to(&rtmp(port, "live/cam")).run_endlessly(Clip::Plain.tags());
    wait::until_true("two seconds came in", wait::LONG, || {
        let frames = &ask("getStatus", json!({}))["payload"]["flows"]["cam"]["input"]["frames"];
        frames.as_u64() >= Some(150)
    });
    let opened = json!({ "flow": "cam", "id": "door-9", "preRollSeconds": 1, "seconds": 1 });
    let sends = json!([{ "flow": "cam", "id": "no-length" }, opened, opened]);
    let door = hub_sdks::Module::start(&edge, "python", &["door"], Some(&sends));
    door.event("ready");
    let folder = edge.dir().join("recordings");
    wait::until_true("the clip is stored", wait::LONG, || files(&folder).len() == 1);
    let log = || edge.must(&["logs", MODULE]);
    wait::until_true("the message without a length is told", wait::LONG, || {
        log().contains("a message on input recordEvent is ignored")
    });
    // The same event by the method has the name that the message got.
    let answer = ask("recordEvent", opened);
    assert_eq!(answer["status"], 202, "{answer}");
    assert_eq!(files(&folder), [folder.join(answer["payload"]["name"].as_str().unwrap())]);
    let listed = ask("listRecordings", json!({ "flow": "cam" }));
    assert_eq!(listed["payload"]["recordings"].as_array().unwrap().len(), 1, "{listed}");
    publishing.stop();
}

#[test]
fn what_becomes_of_recordings_is_told_upstream_by_name() {
    needs!(Azurite, BlobSdk);
    let folder = tempfile::tempdir().unwrap();
    // Its container is missing: what goes there waits until there is no room.
    let azurite = Azurite::start(folder.path(), port::free());
    let (mut manifest, ports) = recorder_alone(json!({
        "disk": { "store": "file:///recordings", "segmentSeconds": 2 },
        "stuck": { "store": azurite.url(), "credentials": { "sas": azurite.sas("rcw", 12) }, "segmentSeconds": 2 },
    }));
    let content = &mut manifest["modulesContent"];
    content["$edgeHub"]["properties.desired"]["routes"] =
        json!({ "up": "FROM /messages/modules/* INTO $upstream" });
    content[MODULE]["properties.desired"]["spool"]["megabytes"] = json!(40);
    let bench = Bench::without_publisher(&manifest, ports);
    let mut command = std::process::Command::new(tool::binary("local-edge"));
    let telling = Program::start(command.arg("--state-dir").arg(bench.edge.state_dir()).arg("events"));
    let url = rtmp(bench.edge.host_ports(1935)[0], "live/cam");
    let publishing = Publisher::to(&url).run_endlessly(Clip::Heavy.tags());
    let is_told = |kind: &str| telling.stdout().lines().any(|line| line.contains(&format!("\"{kind}\"")));
    for kind in ["segmentStored", "credentialExpiring", "spoolDropped", "spoolNearlyFull"] {
        wait::until_true(kind, 3 * wait::LONG, || is_told(kind));
    }
    publishing.stop();
    let range = json!({ "flow": "cam", "from": "2026-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z" });
    let (status, deleted) = bench.ask("deleteRecordings", &range);
    assert_eq!(status, 200, "{deleted}");
    wait::until_true("recordingsDeleted", wait::LONG, || is_told("recordingsDeleted"));
    drop(telling);
    assert_eq!(bench.edge.interrupt().status.code(), Some(0));
}

#[test]
fn what_is_deleted_is_gone_from_its_container_and_blobs_of_others_stay() {
    needs!(Azurite, BlobSdk);
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(folder.path(), port::free());
    azurite.python("box.create_container()\nbox.upload_blob('foreign.mp4', b'x')");
    let cloud = json!({
        "store": azurite.url(), "credentials": { "accountKey": KEY }, "segmentSeconds": 2,
        "uploadOpenSegment": true,
    });
    let bench = Bench::start(json!({ "cloud": cloud }));
    let names = || -> BTreeSet<String> {
        let text = azurite.python("print('\\n'.join(box.list_blob_names()))");
        text.lines().map(str::to_owned).collect()
    };
    wait::until_true("two recordings are stored", wait::LONG, || names().len() >= 3);
    let before = names();
    let range = json!({ "flow": "cam", "from": "2026-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z" });
    let (status, deleted) = bench.ask("deleteRecordings", &range);
    assert_eq!(status, 200, "{deleted}");
    assert!(deleted["permanent"].as_u64() >= Some(2) && deleted.get("failed").is_none(), "{deleted}");
    wait::until_true("a new recording is stored, and no old one is left", wait::LONG, || {
        let now = names();
        let kept: Vec<_> = now.intersection(&before).collect();
        kept == ["foreign.mp4"] && now.len() >= 2
    });
    bench.publishing.unwrap().stop();
    // Nothing waits for a commit in the end: neither what was deleted while it was sent, nor anything else.
    wait::until_true("no blocks are left", wait::LONG, || {
        let code = "print([b.name for b in box.list_blobs(include=['uncommittedblobs']) if b.size == 0])";
        azurite.python(code).trim() == "[]"
    });
    assert_eq!(bench.edge.interrupt().status.code(), Some(0));
}

#[test]
fn with_a_sas_that_may_not_delete_nothing_empty_is_left_in_the_place_of_what_was_deleted() {
    needs!(Azurite, BlobSdk);
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(folder.path(), port::free());
    azurite.python("box.create_container()");
    let cloud = json!({
        "store": azurite.url(), "credentials": { "sas": azurite.sas("rcw", 24) }, "segmentSeconds": 60,
        "uploadOpenSegment": true,
    });
    let bench = Bench::start(json!({ "cloud": cloud }));
    let names = |more: &str| azurite.python(&format!("print([b.name for b in box.list_blobs({more})])"));
    wait::until_true("blocks wait", wait::LONG, || names("include=['uncommittedblobs']").trim() != "[]");
    let range = json!({ "flow": "cam", "from": "2026-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z" });
    let (status, deleted) = bench.ask("deleteRecordings", &range);
    assert_eq!(status, 200, "{deleted}");
    let log = || bench.edge.ask(&["logs", MODULE]).stdout;
    wait::until_true("it is told that blocks wait", wait::LONG, || {
        log().contains("stay in the store for a week: the credentials lack delete permission (d)")
    });
    assert_eq!(names("").trim(), "[]");
    bench.publishing.unwrap().stop();
    assert_eq!(bench.edge.interrupt().status.code(), Some(0));
}
