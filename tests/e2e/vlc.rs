//! VLC as a player. It writes what it plays as MPEG-TS, with times and access units of its own making, so the
//! pictures are decoded and compared.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::program::Program;
use av_tests::tool::Tool;
use av_tests::{needs, port, wait};
use serde_json::json;

use crate::{cam, rtmp};

/// VLC holds some pictures back, and drops them when the stream ends: seen with other servers too.
const HELD_BACK: usize = 10;

/// A hash of every picture, decoded.
fn pictures(file: &Path) -> Vec<String> {
    let mut command = Tool::Ffmpeg.command();
    command.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-i"]).arg(file);
    let decoded = Program::run(
        command.args(["-map", "0:v", "-fps_mode", "passthrough", "-f", "framemd5", "-"]),
        wait::LONG,
    );
    assert!(decoded.stderr.is_empty(), "{}", decoded.stderr);
    let lines = decoded.stdout.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(',')?.1.trim().to_owned())).collect()
}

/// VLC without a screen. It refuses to run as root, so there it runs as the user who owns nothing.
pub(crate) fn vlc(home: &Path) -> Command {
    let mut command = Tool::Vlc.command();
    command.args(["-I", "dummy", "--quiet"]).env("HOME", home).current_dir(home);
    let is_root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if is_root {
        const NOBODY: u32 = 65534;
        std::os::unix::fs::chown(home, Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn plays(clip: Clip) {
    needs!(Ffmpeg, Vlc);
    let url = rtmp(port::free(), "live/cam");
    let splitter =
        Module::start("rtmp-splitter", &cam(&url, json!({ "onPublisherLoss": "close" }), json!({})));
    let home = tempfile::Builder::new().prefix("vlc-").tempdir().unwrap();
    let played = home.path().join("played.ts");
    let to_file = format!("#std{{access=file,mux=ts,dst={}}}", played.display());
    let playing = Program::start(vlc(home.path()).arg(&url).args(["--sout", &to_file, "vlc://quit"]));
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    PublishWith::Ffmpeg.start(clip, &url).finish();
    let ended = playing.finish(wait::LONG);
    assert!(ended.status.success(), "{}", ended.stderr);
    let (sent, seen) = (pictures(&clip.mp4()), pictures(&played));
    let whole = sent.len() - HELD_BACK;
    assert!(seen.len() >= whole, "{} of {} pictures", seen.len(), sent.len());
    let other = sent.iter().zip(&seen).position(|(sent, seen)| sent != seen);
    assert!(other.is_none_or(|other| other >= whole), "picture {other:?} is another than was sent");
}

#[test]
fn vlc_shows_every_picture() {
    plays(Clip::Plain);
}

#[test]
fn vlc_shows_every_picture_of_a_pyramid_of_b_frames() {
    plays(Clip::Pyramid);
}
