//! What is written, read by programs that share nothing with it: ffmpeg, and mediainfo, mkvmerge and mp4box.js where they
//! are installed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

use std::fs::{self, File};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use av_media::av1::Av1Config;
use av_media::h265::HevcConfig;
use av_media::mp4::{Amount, Finish, FragmentWriter, Mp4, Playback, Recording, Recovered, Write, recover};
use av_media::mpegts::TsMuxer;
use av_media::{Codec, Frame, Kind, Normaliser, Track};

/// Clips as ffmpeg's encoders make them: name, and options of video and sound.
const CLIPS: [(&str, &str); 4] = [
    ("b-frames", "-c:v libx264 -bf 3 -g 25 -c:a aac -ar 44100"),
    ("29.97", "-r 30000/1001 -c:v libx264 -bf 0 -g 30 -c:a aac -ar 48000"),
    ("h265", "-c:v libx265 -x265-params log-level=error:bframes=3:keyint=25 -tag:v hvc1 -c:a aac"),
    ("av1-opus", "-c:v libsvtav1 -preset 12 -g 25 -c:a libopus"),
];

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Standard error has to stay empty.
fn silent(command: &mut Command) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.is_empty(), "{command:?}: {errors}");
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

fn ffmpeg(arguments: &str, files: &[&Path]) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"]);
    let mut files = files.iter();
    for argument in arguments.split_whitespace() {
        match argument {
            "FILE" => command.arg(files.next().unwrap()),
            _ => command.arg(argument),
        };
    }
    command
}

/// A clip of six seconds, its tracks, and its frames as a stream has them.
fn clip(folder: &Path, name: &str, coding: &str) -> (PathBuf, Vec<Track>, Vec<Frame>) {
    let path = folder.join(format!("{name}.mp4"));
    let sources =
        "-f lavfi -i testsrc2=size=320x180:rate=25 -f lavfi -i sine=frequency=440 -t 6 -pix_fmt yuv420p";
    // Encoders talk.
    output(&mut ffmpeg(&format!("{sources} {coding} FILE"), &[&path]));
    let mut playback = Playback::new(Mp4::open(File::open(&path).unwrap()).unwrap(), Duration::ZERO);
    let mut normaliser = Normaliser::default();
    let tracks = playback.tracks().map(|track| normaliser.track(track.configurations[0].clone())).collect();
    let mut frames = Vec::new();
    while let Some(sample) = playback.next_sample(false).unwrap() {
        let frame = sample.frame(playback.loop_start(0));
        frames.extend(normaliser.frame(frame).frame.map(|normal| normal.frame));
    }
    (path, tracks, frames)
}

#[test]
fn codec_strings_of_what_encoders_write_are_those_of_their_records() {
    let folder = tempfile::tempdir().unwrap();
    let x265 = |options: &str| format!("-c:v libx265 -x265-params log-level=error:{options} -tag:v hvc1 -an");
    let clips = [
        (x265("bframes=3"), "hvc1.1.6.L60.90"),
        (x265("bframes=3:level-idc=5:high-tier=1 -pix_fmt yuv420p10le"), "hvc1.2.4.H150.90"),
        (x265("bframes=3 -pix_fmt yuv422p10le"), "hvc1.4.10.L60.9D.8"),
        ("-c:v libsvtav1 -preset 12 -an".to_owned(), "av01.0.00M.08"),
        ("-c:v libsvtav1 -preset 12 -pix_fmt yuv420p10le -an".to_owned(), "av01.0.00M.10"),
        ("-c:v libaom-av1 -cpu-used 8 -pix_fmt yuv444p -an".to_owned(), "av01.1.00M.08"),
    ];
    for (index, (coding, wanted)) in clips.iter().enumerate() {
        let (_, tracks, _) = clip(folder.path(), &index.to_string(), coding);
        let record = &tracks[0].config;
        assert_eq!(tracks[0].codec_string, *wanted, "{coding}");
        // As it was before what the record is about was read: from its first bytes alone.
        let own = match tracks[0].codec {
            Codec::H265 => {
                HevcConfig { arrays: Vec::new(), ..HevcConfig::parse(record.clone()).unwrap() }.codec_string()
            }
            _ => Av1Config::parse(record.slice(..4)).unwrap().codec_string(),
        };
        assert_eq!(own, *wanted, "{coding}");
    }
}

fn origin(frames: &[Frame]) -> av_media::Timestamp {
    frames.iter().map(|frame| frame.dts).min().unwrap()
}

/// Pieces of some 200 ms, each with when the picture behind it is decoded.
fn pieces(frames: &[Frame]) -> impl Iterator<Item = (&[Frame], Option<av_media::Timestamp>)> {
    frames.chunks(16).enumerate().map(|(index, piece)| {
        let behind = &frames[(index * 16 + piece.len()).min(frames.len())..];
        (piece, behind.iter().find(|frame| frame.kind == Kind::Video).map(|frame| frame.dts))
    })
}

fn put(file: &mut Vec<u8>, write: &Write) {
    let (start, end) = (write.offset as usize, write.offset as usize + write.bytes.len());
    file.resize(file.len().max(end), 0);
    file[start..end].copy_from_slice(&write.bytes);
}

fn finished(mut file: Vec<u8>, finish: &Finish) -> Vec<u8> {
    finish.index.iter().chain([&finish.flip]).for_each(|write| put(&mut file, write));
    file
}

/// All that this crate makes of a stream: names and contents.
fn written(tracks: &[Track], frames: &[Frame]) -> Vec<(&'static str, Vec<u8>)> {
    let mut writer = FragmentWriter::new(tracks, origin(frames)).unwrap();
    let mut fragmented = writer.init().to_vec();
    for (piece, end) in pieces(frames) {
        let fragment = writer.fragment(piece, end).unwrap().unwrap();
        fragment.pieces().for_each(|bytes| fragmented.extend_from_slice(bytes));
    }
    let amount = Amount { pictures: 400, sounds: 400, fragments: 100 };
    let reserve = Recording::reserve(tracks, amount).unwrap();
    let mut recording = Recording::start(tracks, origin(frames), reserve).unwrap();
    let mut open = Vec::new();
    recording.head().iter().for_each(|write| put(&mut open, write));
    for (piece, end) in pieces(frames) {
        let fragment = recording.fragment(piece, end).unwrap().unwrap();
        fragment.pieces().for_each(|bytes| open.extend_from_slice(bytes));
    }
    let closed = finished(open.clone(), &recording.finish());
    let Recovered::Open { recording, .. } = recover(&mut Cursor::new(&open[..]), 0).unwrap() else {
        panic!("complete")
    };
    let recovered = finished(open.clone(), &recording.finish());
    let mut all = vec![
        ("fragmented.mp4", fragmented),
        ("open.mp4", open),
        ("closed.mp4", closed),
        ("recovered.mp4", recovered),
    ];
    if let Ok(mut muxer) = TsMuxer::new(tracks, origin(frames)) {
        let segments = frames.chunks(50).map(|piece| muxer.write(piece, true));
        all.push(("stream.ts", segments.collect::<Vec<_>>().concat()));
    }
    all
}

/// Hash and time of each decoded picture; the times from the first one on, in milliseconds.
fn pictures(path: &Path) -> Vec<(i64, String)> {
    let mut command =
        ffmpeg("-i FILE -map 0:v -f framemd5 -fps_mode passthrough -enc_time_base 1:90000 -", &[path]);
    let text = output(&mut command);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let all: Vec<(i64, String)> = lines
        .map(|line| {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            (fields[2].parse().unwrap(), fields[5].to_owned())
        })
        .collect();
    let first = all[0].0;
    all.into_iter().map(|(time, hash)| ((time - first + 45) / 90, hash)).collect()
}

/// Hashes of the packets of sound.
fn sound(path: &Path) -> Vec<String> {
    let raw = if path.extension().is_some_and(|kind| kind == "ts") { "-bsf:a aac_adtstoasc" } else { "" };
    let arguments = format!("-i FILE -map 0:a -c copy -copyinkf {raw} -f framemd5 -");
    let text = output(&mut ffmpeg(&arguments, &[path]));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    // Behind the hash there may be side data.
    lines.filter_map(|line| line.split(',').nth(5)).map(|hash| hash.trim().to_owned()).collect()
}

#[test]
fn ffmpeg_reads_the_same_pictures_and_sound_at_the_same_times_from_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    for (name, coding) in CLIPS {
        let (source, tracks, frames) = clip(folder.path(), name, coding);
        let (wanted, wanted_sound) = (pictures(&source), sound(&source));
        for (kind, bytes) in written(&tracks, &frames) {
            let path = folder.path().join(format!("{name}-{kind}"));
            fs::write(&path, bytes).unwrap();
            silent(&mut ffmpeg("-i FILE -f null -", &[&path]));
            let found = pictures(&path);
            assert_eq!(found.len(), wanted.len(), "{name} {kind}");
            for (found, wanted) in found.iter().zip(&wanted) {
                assert_eq!(found.1, wanted.1, "{name} {kind} at {} ms", wanted.0);
                assert!((found.0 - wanted.0).abs() <= 1, "{name} {kind}: {} for {}", found.0, wanted.0);
            }
            // What the source hides before its beginning is not in the stream.
            let found = sound(&path);
            let (have, all) = (found.len(), wanted_sound.len());
            assert!(have <= all && have + 2 >= all, "{name} {kind}: {have} of {all} frames of sound");
            assert_eq!(found, wanted_sound[all - have..], "{name} {kind}");
        }
    }
}

/// Whether this program finds no fault, and `find` in what it says.
fn says(program: &mut Command, find: &[&str]) {
    let text = output(program);
    for word in find {
        assert!(text.contains(word), "{program:?}: no {word} in {text}");
    }
}

#[test]
fn recordings_please_every_other_reader_that_is_here() {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let mp4box = root.join("tests/.tools/mp4box");
    let (mediainfo, mkvmerge) = (is_installed("mediainfo"), is_installed("mkvmerge"));
    for (name, coding) in CLIPS {
        let (_, tracks, frames) = clip(folder.path(), name, coding);
        let of_kind = |kind| frames.iter().filter(|frame| frame.kind == kind).count();
        for (kind, bytes) in written(&tracks, &frames) {
            let path = folder.path().join(format!("{name}-{kind}"));
            fs::write(&path, bytes).unwrap();
            let is_recording = kind == "closed.mp4" || kind == "recovered.mp4";
            if mediainfo {
                says(Command::new("mediainfo").arg(&path), &["Video", "Audio", "320 pixels", "180 pixels"]);
            }
            if mkvmerge && is_recording {
                let text = output(Command::new("mkvmerge").arg("-J").arg(&path));
                let found: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(found["errors"].as_array().unwrap().len(), 0);
                assert_eq!(found["warnings"].as_array().unwrap().len(), 0);
                assert_eq!(found["tracks"].as_array().unwrap().len(), 2);
            }
            if mp4box.join("installed").exists() && kind.ends_with(".mp4") {
                let script = "import('mp4box').then(({createFile}) => {
                    const file = createFile(); let failed = null;
                    file.onError = (module, message) => { failed = module + message; };
                    file.onReady = (info) => {
                        for (const track of info.tracks) file.setExtractionOptions(track.id, null, {nbSamples: 1e6});
                        file.start();
                        const counts = {};
                        file.onSamples = (id, user, samples) => { counts[id] = (counts[id] || 0) + samples.length; };
                        setTimeout(() => {
                            file.flush();
                            console.log(JSON.stringify({failed, fragmented: info.isFragmented,
                                kinds: info.tracks.map((t) => t.type), counts}));
                        }, 0);
                    };
                    const bytes = require('fs').readFileSync(process.argv[1]);
                    const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
                    buffer.fileStart = 0; file.appendBuffer(buffer); file.flush();
                });";
                let mut node = Command::new("node");
                node.current_dir(&mp4box).arg("-e").arg(script).arg(&path);
                let found: serde_json::Value = serde_json::from_str(&output(&mut node)).unwrap();
                assert_eq!(found["failed"], serde_json::Value::Null);
                assert_eq!(found["kinds"], serde_json::json!(["video", "audio"]));
                assert_eq!(found["fragmented"], !is_recording);
                let counts = [of_kind(Kind::Video), of_kind(Kind::Audio)];
                assert_eq!(
                    found["counts"],
                    serde_json::json!({"1": counts[0], "2": counts[1]}),
                    "{name} {kind}"
                );
            }
        }
    }
}
