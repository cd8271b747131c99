//! What other programs make of recordings.

use std::path::Path;
use std::process::Command;

use av_tests::client::{Publication, PublishWith};
use av_tests::clip::Clip;
use av_tests::module::Setup;
use av_tests::program::Program;
use av_tests::recording::{End, Kind, Times};
use av_tests::tool::{self, Tool, tests_dir};
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::recorder::{files, read};
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
fn every_reader_finds_every_frame_and_no_fault() {
    needs!(Ffmpeg, Ffmpeg9, Ffprobe);
    let clips = [
        ("plain", Clip::Plain, &["AVC", "AAC"][..]),
        ("pyramid", Clip::Pyramid, &["AVC", "AAC"]),
        ("h265", Clip::H265, &["HEVC", "AAC"]),
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
    let module = setup.twin(&document).start_listening();
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
