//! Files as blobs: real Azurite, read back by Microsoft's own SDK for Python.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::module::{Module, Setup};
use av_tests::program::Program;
use av_tests::recording::{Kind, Recording};
use av_tests::tool::Tool;
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::{rtmp, twin};

/// The account that every Azurite has; its key is in its documentation.
pub const ACCOUNT: &str = "devstoreaccount1";
pub const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

pub struct Azurite {
    pub port: u16,
    program: Program,
}

impl Azurite {
    pub fn start(folder: &Path, port: u16) -> Self {
        Self::start_as(folder, port, &[])
    }

    /// By https alone, and open to tokens of Entra ID.
    pub fn start_with_tokens(folder: &Path, port: u16, certificate: &Path, key: &Path) -> Self {
        let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
        Self::start_as(folder, port, &["--oauth", "basic", "--cert", certificate, "--key", key])
    }

    /// Ends it: it writes down what it has.
    pub fn end(self) {
        self.program.end("TERM", wait::LONG);
    }

    fn start_as(folder: &Path, port: u16, more: &[&str]) -> Self {
        let mut command = Tool::Azurite.command();
        command.args(["--blobPort", &port.to_string(), "--location"]).arg(folder);
        command.arg("--disableTelemetry").args(more);
        let program = Program::start(&mut command);
        wait::until_true("Azurite listens", wait::LONG, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { port, program }
    }

    pub fn connection(&self) -> String {
        format!(
            "DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};\
             BlobEndpoint=http://127.0.0.1:{}/{ACCOUNT};",
            self.port
        )
    }

    pub fn url(&self) -> String {
        format!("azblob+http://127.0.0.1:{}/{ACCOUNT}/recordings", self.port)
    }

    /// Its log of requests.
    pub fn log(&self) -> String {
        self.program.stdout()
    }

    /// Blocks that it took, by their ids, each as often as it did.
    pub fn staged(&self) -> Vec<String> {
        let log = self.log();
        let id = |line: &str| {
            let (_, after) = line.split_once("blockid=")?;
            let taken = line.contains("\"PUT ") && line.trim_end().ends_with(" 201 -");
            taken.then(|| after.split(['&', ' ']).next().unwrap_or_default().to_owned())
        };
        log.lines().filter_map(id).collect()
    }

    /// Runs Python with `service`, a client of Microsoft's SDK; gives what it prints.
    pub fn python(&self, code: &str) -> String {
        let begin = "import sys, json; from azure.storage.blob import *; \
                     service = BlobServiceClient.from_connection_string(sys.argv[1], api_version='2023-11-03'); \
                     box = service.get_container_client('recordings')";
        let mut command: Command = Tool::BlobSdk.command();
        command.args(["-c", &format!("{begin}\n{code}"), &self.connection()]);
        let ran = Program::run(&mut command, wait::LONG);
        assert!(ran.status.success(), "{code}: {}", ran.stderr);
        ran.stdout
    }

    /// A SAS of the container that ends in `hours`, also before now.
    pub fn sas(&self, permissions: &str, hours: i64) -> String {
        let code = format!(
            "from datetime import datetime, timedelta, timezone\n\
             now = datetime.now(timezone.utc)\n\
             print(generate_container_sas(service.account_name, 'recordings', \
             account_key=service.credential.account_key, permission='{permissions}', start=now - timedelta(days=9), \
             expiry=now + timedelta(hours={hours})))"
        );
        self.python(&code).trim().to_owned()
    }

    /// Every blob: name, size, content type, metadata, tags, and whether its MD5 is that of its bytes.
    pub fn blobs(&self, to: &Path) -> Vec<Value> {
        std::fs::create_dir_all(to).unwrap();
        let code = format!(
            "import hashlib, os\nout = []\n\
             for at, blob in enumerate(sorted(box.list_blobs(include=['metadata', 'tags']), key=lambda b: b.name)):\n    \
                 data = box.download_blob(blob.name).readall()\n    \
                 path = os.path.join({:?}, f'{{at}}.mp4')\n    \
                 open(path, 'wb').write(data)\n    \
                 settings = blob.content_settings\n    \
                 same = hashlib.md5(data).digest() == bytes(settings.content_md5)\n    \
                 out.append(dict(name=blob.name, path=path, type=settings.content_type, same=same, \
                     metadata=blob.metadata, tags=blob.tags))\n\
             print(json.dumps(out))",
            to.display().to_string()
        );
        serde_json::from_str(&self.python(&code)).unwrap()
    }
}

pub fn document(listen: &str, store: &str, credentials: &Value, more: Value) -> Value {
    let mut cloud = json!({ "store": store, "credentials": credentials, "segmentSeconds": 2 });
    cloud.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut document =
        twin(json!({ "cam": { "input": { "listen": listen }, "outputs": { "cloud": cloud } } }));
    document["spool"] = json!({ "megabytes": 200, "minFreeMegabytes": 16 });
    document
}

fn hashes(blobs: &[Value], kind: Kind) -> Vec<String> {
    let read = |blob: &Value| {
        let mut command = Tool::Ffmpeg.command();
        command.args([
            "-hide_banner",
            "-nostdin",
            "-loglevel",
            "error",
            "-i",
            blob["path"].as_str().unwrap(),
        ]);
        command.args(["-map", "0", "-c", "copy", "-f", "framemd5", "-"]);
        let ran = Program::run(&mut command, wait::LONG);
        assert!(ran.status.success() && ran.stderr.is_empty(), "{}", ran.stderr);
        let recording = Recording::of_framemd5_in_milliseconds(&ran.stdout);
        recording.of(kind).into_iter().map(|packet| packet.hash.clone()).collect::<Vec<_>>()
    };
    blobs.iter().flat_map(read).collect()
}

pub fn must_hold(blobs: &[Value], published: &Recording) {
    for kind in [Kind::Video, Kind::Audio] {
        let sent: Vec<_> = published.of(kind).into_iter().map(|packet| packet.hash.clone()).collect();
        assert!(hashes(blobs, kind) == sent, "{kind:?}");
    }
}

fn all_stored(module: &Module) {
    module.wait_value("/flows/cam/outputs/cloud/state", "waiting");
    module.wait_value("/summary/spoolBytes", 0);
}

#[test]
fn every_frame_is_in_a_blob_that_says_what_it_is() {
    needs!(Ffmpeg, Azurite, BlobSdk);
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(folder.path(), port::free());
    azurite.python("box.create_container()");
    let sas = azurite.sas("rcwt", 24);
    let ways = [
        (json!({ "accountKey": KEY }), json!({ "tags": { "site": "gate 1" } })),
        (json!({ "connectionString": azurite.connection() }), json!({ "apiVersion": "2017-04-17" })),
        (json!({ "sas": sas }), json!({ "uploadKilobitsPerSecond": 4000 })),
    ];
    for (at, (credentials, more)) in ways.into_iter().enumerate() {
        let listen = rtmp(port::free(), "live/cam");
        let has_tags = more.get("tags").is_some();
        let setup = Setup::new("mp4-recorder").arg("--device").arg(format!("gate{at}"));
        let module = setup.twin(&document(&listen, &azurite.url(), &credentials, more)).start();
        let published = PublishWith::Ffmpeg.start(Clip::Plain, &listen).finish();
        all_stored(&module);
        let to = folder.path().join(format!("read{at}"));
        let mut blobs = azurite.blobs(&to);
        blobs.retain(|blob| blob["name"].as_str().unwrap().starts_with(&format!("gate{at}/cam/20")));
        assert!(blobs.len() >= 3, "{blobs:?}");
        must_hold(&blobs, &published);
        for blob in &blobs {
            assert_eq!((&blob["type"], &blob["same"]), (&json!("video/mp4"), &json!(true)), "{blob}");
            let said = &blob["metadata"];
            assert_eq!((&said["flow"], &said["device"]), (&json!("cam"), &json!(format!("gate{at}"))));
            assert!(said["codecs"].as_str().unwrap().starts_with("avc1."), "{said}");
            assert_eq!(blob["tags"]["site"] == "gate 1", has_tags, "{blob}");
        }
        assert_eq!(module.terminate().status.code(), Some(0));
    }
}

#[test]
fn a_sas_that_has_ended_is_told_and_the_next_one_is_taken_up_without_a_restart() {
    needs!(Ffmpeg, Azurite, BlobSdk);
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(folder.path(), port::free());
    azurite.python("box.create_container()");
    let listen = rtmp(port::free(), "live/cam");
    let with = |sas: String| document(&listen, &azurite.url(), &json!({ "sas": sas }), json!({}));
    let module = Setup::new("mp4-recorder").twin(&with(azurite.sas("rcw", -1))).start();
    let process = module.program().id();
    let published = PublishWith::Ffmpeg.start(Clip::Plain, &listen).finish();
    module.wait_status("/flows/cam/outputs/cloud/error", |error| {
        error.as_str().is_some_and(|error| error.contains("credentials"))
    });
    module.wait_log(&["the SAS expired at"]);
    module.set_twin(&with(azurite.sas("rcw", 5)));
    all_stored(&module);
    module.wait_log(&["the SAS expires at"]);
    must_hold(&azurite.blobs(&folder.path().join("read")), &published);
    assert_eq!(module.program().id(), process);
}

/// The container of a store that does not run now, and would at that port.
fn away(folder: &Path, port: u16) -> String {
    let azurite = Azurite::start(folder, port);
    azurite.python("box.create_container()");
    let url = azurite.url();
    // It writes down what it has when it is asked to end.
    azurite.program.end("TERM", wait::LONG);
    url
}

#[test]
fn a_store_that_was_away_gets_everything_once_also_over_a_kill() {
    needs!(Ffmpeg, Azurite, BlobSdk);
    let folder = tempfile::tempdir().unwrap();
    let port = port::free();
    let url = away(folder.path(), port);
    let listen = rtmp(port::free(), "live/cam");
    let document = document(&listen, &url, &json!({ "accountKey": KEY }), json!({}));
    let module = Setup::new("mp4-recorder").twin(&document).start();
    let published = PublishWith::Ffmpeg.start(Clip::Plain, &listen).finish();
    let error = module.wait_status("/flows/cam/outputs/cloud/error", Value::is_string);
    assert!(error.as_str().unwrap().starts_with("flows.cam.outputs.cloud.store: "), "{error}");
    // What is not durable yet may be lost.
    module.wait_status("/flows/cam/outputs/cloud/frames", |frames| {
        frames.as_u64() >= Some(published.0.len() as u64)
    });
    let module = module.kill_and_restart(|setup| setup);
    module.wait_status("/summary/spoolBytes", |bytes| bytes.as_u64() > Some(0));

    let azurite = Azurite::start(folder.path(), port);
    all_stored(&module);
    must_hold(&azurite.blobs(&folder.path().join("read")), &published);
}

#[test]
fn a_file_that_cannot_be_read_is_told_and_others_do_not_wait_behind_it() {
    needs!(Ffmpeg, Azurite, BlobSdk);
    let folder = tempfile::tempdir().unwrap();
    let port = port::free();
    let url = away(folder.path(), port);
    let listen = rtmp(port::free(), "live/cam");
    let document = document(&listen, &url, &json!({ "accountKey": KEY }), json!({ "segmentSeconds": 2 }));
    let module = Setup::new("mp4-recorder").twin(&document).start();
    let published = PublishWith::Ffmpeg.start(Clip::Plain, &listen).finish();
    let spooled = || {
        let mut files = crate::recorder::files(&module.dir().join("state/spool"));
        files.retain(|file| file.extension().is_some_and(|is| is == "mp4"));
        files
    };
    module.wait_status("/flows/cam/outputs/cloud/error", Value::is_string);
    let waiting = spooled();
    assert!(waiting.len() >= 2, "{waiting:?}");
    let (first, aside) = (&waiting[0], folder.path().join("aside"));
    std::fs::rename(first, &aside).unwrap();
    std::fs::create_dir(first).unwrap();

    let azurite = Azurite::start(folder.path(), port);
    wait::until_true("the others are stored", wait::LONG, || spooled().is_empty());
    let error = module.wait_status("/flows/cam/outputs/cloud/error", |error| {
        error.as_str().is_some_and(|error| error.contains("the spool"))
    });
    assert!(error.as_str().unwrap().starts_with("flows.cam.outputs.cloud.store: "), "{error}");
    std::fs::remove_dir(first).unwrap();
    std::fs::rename(&aside, first).unwrap();
    all_stored(&module);
    must_hold(&azurite.blobs(&folder.path().join("read")), &published);
}

#[test]
fn an_upload_that_a_kill_ends_goes_on_where_it_was() {
    needs!(Ffmpeg, Azurite, BlobSdk);
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(folder.path(), port::free());
    azurite.python("box.create_container()");
    let listen = rtmp(port::free(), "live/cam");
    let with = |rate: u32| {
        document(
            &listen,
            &azurite.url(),
            &json!({ "accountKey": KEY }),
            json!({ "segmentSeconds": 60, "uploadKilobitsPerSecond": rate }),
        )
    };
    let module = Setup::new("mp4-recorder").twin(&with(4000)).start();
    let published = PublishWith::Ffmpeg.start(Clip::Heavy, &listen).finish();
    wait::until_true("some blocks are there", wait::LONG, || azurite.staged().len() >= 4);
    assert_eq!(azurite.python("print(len(list(box.list_blobs())))").trim(), "0");
    let module = module.kill_and_restart(|setup| setup.twin(&with(0)));
    all_stored(&module);
    must_hold(&azurite.blobs(&folder.path().join("read")), &published);
    let staged = azurite.staged();
    let different: BTreeSet<_> = staged.iter().collect();
    assert!(different.len() >= 20, "{staged:?}");
    // What was on its way at the kill may have arrived unheard.
    assert!(staged.len() <= different.len() + 1, "{staged:?}");
}

#[test]
fn a_sas_that_may_only_write_stores_everything_goes_on_after_a_kill_and_overwrites_nothing() {
    needs!(Ffmpeg, Azurite, BlobSdk);
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(folder.path(), port::free());
    azurite.python("box.create_container()");
    let sas = azurite.sas("cw", 24);
    let listen = rtmp(port::free(), "live/cam");
    let with = |rate: u32| {
        document(
            &listen,
            &azurite.url(),
            &json!({ "sas": sas }),
            json!({ "name": "one.mp4", "segmentSeconds": 60, "uploadKilobitsPerSecond": rate }),
        )
    };
    let module = Setup::new("mp4-recorder").twin(&with(4000)).start();
    let mut published = PublishWith::Ffmpeg.start(Clip::Heavy, &listen).finish();
    wait::until_true("some blocks are there", wait::LONG, || azurite.staged().len() >= 4);
    let module = module.kill_and_restart(|setup| setup.twin(&with(0)));
    all_stored(&module);
    module.wait_log(&["the credentials lack read permission (r)"]);
    let staged = azurite.staged();
    let different: BTreeSet<_> = staged.iter().collect();
    // The journal tells what is there: all but the block that was on its way.
    assert!(different.len() >= 20 && staged.len() <= different.len() + 1, "{staged:?}");

    // Nobody can see that the name is in use; the store says so in the end.
    published.0.extend(PublishWith::Ffmpeg.start(Clip::Smaller, &listen).finish().0);
    all_stored(&module);
    let mut blobs = azurite.blobs(&folder.path().join("read"));
    blobs.reverse();
    assert_eq!(blobs.iter().map(|blob| &blob["name"]).collect::<Vec<_>>(), ["one.mp4", "one-2.mp4"]);
    must_hold(&blobs, &published);
    assert_eq!(module.terminate().status.code(), Some(0));
}

#[test]
fn another_blob_of_the_name_stays_and_what_the_store_refuses_is_told() {
    needs!(Ffmpeg, Azurite, BlobSdk);
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(folder.path(), port::free());
    let listen = rtmp(port::free(), "live/cam");
    let with = |key: &str, version: &str| {
        document(
            &listen,
            &azurite.url(),
            &json!({ "accountKey": key }),
            json!({ "name": "gate #1?/a+b 100%% \u{fc}.mp4", "segmentSeconds": 60, "apiVersion": version }),
        )
    };
    let module = Setup::new("mp4-recorder").twin(&with("AAAA", "2023-11-03")).start();
    let published = PublishWith::Ffmpeg.start(Clip::Plain, &listen).finish();
    let says = |word: &str| {
        module.wait_status("/flows/cam/outputs/cloud/error", |error| {
            error.as_str().is_some_and(|e| e.contains(word))
        });
    };
    says("rejects the key or SAS");
    module.set_twin(&with(KEY, "2099-01-01"));
    says("set apiVersion");
    module.set_twin(&with(KEY, "2023-11-03"));
    says("the container does not exist");
    azurite.python(
        "box.create_container()\nbox.upload_blob('gate #1?/a+b 100% \u{fc}.mp4', b'of somebody else')",
    );
    all_stored(&module);
    let mut blobs = azurite.blobs(&folder.path().join("read"));
    assert_eq!(
        blobs.iter().map(|blob| &blob["name"]).collect::<Vec<_>>(),
        ["gate #1?/a+b 100% \u{fc}-2.mp4", "gate #1?/a+b 100% \u{fc}.mp4"]
    );
    assert_eq!(std::fs::read(blobs[1]["path"].as_str().unwrap()).unwrap(), b"of somebody else");
    blobs.truncate(1);
    must_hold(&blobs, &published);
}

#[test]
fn what_waits_of_a_pattern_a_disabled_flow_and_a_renamed_one_is_stored_after_a_restart_with_nobody_publishing()
 {
    needs!(Ffmpeg, Azurite, BlobSdk);
    let folder = tempfile::tempdir().unwrap();
    let azurite_port = port::free();
    let (listens, store) =
        (port::free(), format!("azblob+http://127.0.0.1:{azurite_port}/{ACCOUNT}/recordings"));
    let flow = |path: &str, name: &str| {
        let cloud = json!({ "store": store, "credentials": { "accountKey": KEY }, "name": name });
        json!({ "input": { "listen": rtmp(listens, path) }, "outputs": { "cloud": cloud } })
    };
    let document = |flows: Value| {
        let mut document = twin(flows);
        document["spool"] = json!({ "megabytes": 200, "minFreeMegabytes": 16 });
        document
    };
    let before = document(json!({
        "any": flow("live/*", "{flow}/*.mp4"),
        "gate": flow("gate/in", "{flow}.mp4"),
        "old": flow("yard/in", "{flow}.mp4"),
    }));
    let mut gate = flow("gate/in", "{flow}.mp4");
    gate["enabled"] = json!(false);
    let after = document(json!({
        "any": flow("live/*", "{flow}/*.mp4"), "gate": gate, "new": flow("yard/in", "{flow}.mp4"),
    }));
    let module = Setup::new("mp4-recorder").twin(&before).start();
    let mut published = Vec::new();
    for path in ["live/cam-7", "gate/in", "yard/in"] {
        published.push(PublishWith::Ffmpeg.start(Clip::Smaller, &rtmp(listens, path)).finish());
    }
    module.wait_value("/summary/unsentFiles", 3);
    let module = module.kill_and_restart(|setup| setup.twin(&after));
    module.wait_status("/summary/unsentError", |error| {
        error.as_str().is_some_and(|error| error.starts_with("flows.any.outputs.cloud.store: "))
    });
    let azurite = Azurite::start(folder.path(), azurite_port);
    azurite.python("box.create_container()");
    module.wait_value("/summary/spoolBytes", 0);
    module.wait_value("/summary/unsentError", Value::Null);
    let blobs = azurite.blobs(&folder.path().join("read"));
    let names: Vec<_> = blobs.iter().map(|blob| blob["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["any/cam-7.mp4", "gate.mp4", "old.mp4"]);
    for (blob, published) in blobs.iter().zip(&published) {
        must_hold(std::slice::from_ref(blob), published);
    }
    assert_eq!(module.terminate().status.code(), Some(0));
}
