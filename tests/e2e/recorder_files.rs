//! What other programs make of recordings.

use std::path::Path;
use std::process::Command;

use av_tests::client::{Publication, PublishWith};
use av_tests::clip::Clip;
use av_tests::module::Setup;
use av_tests::program::Program;
use av_tests::recording::{End, Kind, Times};
use av_tests::tool::{self, Tool, repository, tests_dir};
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::recorder::{files, read};
use crate::recorder_blobs::{self, Azurite, KEY};
use crate::{rtmp, twin};

/// What a program says that may not complain; `None` where it is not installed.
fn says(program: &str, arguments: &[&str], file: &Path) -> Option<String> {
    let found = Command::new(program).arg("--version").output();
    if found.is_err() {
        tool::skip("recorder_files::every_reader", &format!("{program} is not installed"));
        return None;
    }
    let ran = Program::run(Command::new(program).args(arguments).arg(file), wait::LONG);
    assert!(ran.status.success(), "{program} {}: {}{}", file.display(), ran.stdout, ran.stderr);
    Some(ran.stdout)
}

/// How many samples mp4box.js finds in each track; `None` where it is not installed.
fn mp4box(file: &Path) -> Option<Value> {
    let folder = tests_dir().join(".tools/mp4box");
    if !folder.join("installed").exists() {
        tool::skip("recorder_files::every_reader", "mp4box.js is not installed");
        return None;
    }
    let script = "import('mp4box').then(({createFile}) => {
        const file = createFile(), counts = {};
        file.onError = (module, message) => { throw new Error(module + message); };
        file.onSamples = (id, user, samples) => { counts[user] = (counts[user] || 0) + samples.length; };
        file.onReady = ({tracks, isFragmented}) => {
            if (isFragmented) throw new Error('fragmented');
            for (const track of tracks) file.setExtractionOptions(track.id, track.type, {nbSamples: 1e6});
            file.start();
        };
        const bytes = require('fs').readFileSync(process.argv[1]);
        const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
        buffer.fileStart = 0;
        file.appendBuffer(buffer);
        file.flush();
        console.log(JSON.stringify(counts));
    });";
    let ran =
        Program::run(Command::new("node").current_dir(&folder).arg("-e").arg(script).arg(file), wait::LONG);
    assert!(ran.status.success(), "{}: {}", file.display(), ran.stderr);
    Some(serde_json::from_str(&ran.stdout).unwrap())
}

#[test]
fn every_reader_finds_every_frame_of_every_codec_and_no_fault() {
    needs!(Ffmpeg, Ffmpeg9, Ffprobe);
    let clips = [
        ("plain", Clip::Plain, &["AVC", "AAC"][..]),
        ("pyramid", Clip::Pyramid, &["AVC", "AAC"]),
        ("h265", Clip::H265, &["HEVC", "AAC"]),
        ("av1", Clip::Av1Opus, &["av01", "Opus"]),
        ("sound", Clip::AudioOnly, &["AAC"]),
    ];
    let port = port::free();
    let setup = Setup::new("mp4-recorder").arg("--device").arg("gate");
    let store = format!("file://{}", setup.dir().join("files").display());
    let flow = |(name, ..): &(&str, Clip, &[&str])| {
        let url = rtmp(port, &format!("live/{name}"));
        ((*name).to_owned(), json!({ "input": { "listen": url }, "outputs": { "disk": { "store": store } } }))
    };
    let mut document = twin(Value::Object(clips.iter().map(flow).collect()));
    document["spool"] = json!({ "megabytes": 200, "minFreeMegabytes": 16 });
    let module = setup.twin(&document).start();
    let publications: Vec<Publication> = clips
        .iter()
        .map(|(name, clip, _)| {
            let with = if clip.tool() == Tool::Ffmpeg9 { PublishWith::Ffmpeg9 } else { PublishWith::Ffmpeg };
            with.start(*clip, &rtmp(port, &format!("live/{name}")))
        })
        .collect();
    for ((name, clip, codecs), publication) in clips.iter().zip(publications) {
        let published = publication.finish();
        let folder = module.dir().join("files/gate").join(name);
        wait::until_true("the file is stored", wait::LONG, || !files(&folder).is_empty());
        let found = files(&folder);
        assert_eq!(found.len(), 1, "{found:?}");
        let file = &found[0];
        // ffmpeg decodes all of it without a word, and its framemd5 is that of what was published.
        let recorded = read(clip.tool(), file);
        recorded.must_be(&published, Times::AudioWithinOneMillisecond, End::Complete);
        let counts = [Kind::Video, Kind::Audio].map(|kind| published.of(kind).len());
        let tracks = counts.iter().filter(|count| **count > 0).count();
        if let Some(text) = says("mediainfo", &["--Output=JSON"], file) {
            let said: Value = serde_json::from_str(&text).unwrap();
            let of = |track: &Value| track["Format"].as_str().unwrap_or_default().to_owned();
            let formats: Vec<_> = said["media"]["track"].as_array().unwrap().iter().skip(1).map(of).collect();
            assert_eq!(formats, *codecs, "{name}: {text}");
            assert!(!text.contains("IsTruncated"), "{name}: {text}");
        }
        if let Some(text) = says("mkvmerge", &["-J"], file) {
            let said: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&said["errors"], &said["warnings"]), (&json!([]), &json!([])), "{name}: {text}");
            assert_eq!(said["tracks"].as_array().unwrap().len(), tracks, "{name}: {text}");
        }
        if let Some(found) = mp4box(file) {
            for (kind, count) in ["video", "audio"].into_iter().zip(counts) {
                assert_eq!(found[kind].as_u64().unwrap_or(0), count as u64, "{name} {kind}: {found}");
            }
        }
    }
    assert_eq!(module.terminate().status.code(), Some(0));
}

#[test]
fn chromium_plays_a_blob_from_its_middle_over_http_ranges() {
    needs!(Ffmpeg, Azurite, BlobSdk, Python);
    let driver = tests_dir().join(".tools/browser/node_modules");
    if !driver.exists() || !Path::new("/usr/bin/chromium").exists() {
        return tool::skip("recorder_files::chromium_plays", "Chromium or its driver is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(folder.path(), port::free());
    azurite.python("box.create_container()");
    let listen = rtmp(port::free(), "live/cam");
    let document = recorder_blobs::document(
        &listen,
        &azurite.url(),
        &json!({ "accountKey": KEY }),
        json!({ "segmentSeconds": 60 }),
    );
    let module = Setup::new("mp4-recorder").twin(&document).start();
    let mut publisher = Tool::Ffmpeg.command();
    publisher
        .args(["-v", "error", "-nostdin", "-re", "-i"])
        .arg(repository().join("edge-config/testcard.mp4"));
    publisher.args(["-map", "0", "-c", "copy", "-f", "flv", &listen]);
    assert!(Program::run(&mut publisher, wait::LONG).status.success());
    let urls = "for blob in box.list_blobs():\n    \
                print(box.get_blob_client(blob.name).url + '?' + sas)";
    let sas = "from datetime import datetime, timedelta, timezone\n\
               sas = generate_container_sas(service.account_name, 'recordings', \
               account_key=service.credential.account_key, permission='r', \
               expiry=datetime.now(timezone.utc) + timedelta(days=1))";
    let url = wait::until("the blob is there", wait::LONG, || {
        let text = azurite.python(&format!("{sas}\n{urls}"));
        (text.lines().count() == 1).then(|| text.trim().to_owned())
    });
    let picture = folder.path().join("middle.png");
    let mut watch = Command::new("node");
    watch.arg(tests_dir().join("browser/file.mjs")).arg(&url).arg(&picture);
    let ran = Program::run(&mut watch, 2 * wait::LONG);
    assert!(ran.status.success(), "{}{}", ran.stdout, ran.stderr);
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    let (duration, middle) = (said["duration"].as_f64().unwrap(), said["middle"].as_f64().unwrap());
    // The test card is 240 pictures at 30 a second, and each shows its number.
    assert!((duration - 8.0).abs() < 0.1, "{said}");
    let mut reader = Tool::Python.command();
    reader.arg(tests_dir().join("testcard/read.py")).arg(&picture);
    let shown = Program::run(&mut reader, wait::LONG);
    let number: f64 =
        shown.stdout.trim().parse().unwrap_or_else(|_| panic!("{}{}", shown.stdout, shown.stderr));
    assert!((number - middle * 30.0).abs() <= 1.5, "picture {number} at {middle} s");
    let ranges = azurite.log().lines().filter(|line| line.contains("GET ") && line.contains(" 206 ")).count();
    assert!(ranges > 0, "no range was asked for: {}", azurite.log());
    assert_eq!(module.terminate().status.code(), Some(0));
}
