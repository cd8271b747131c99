//! Sound of telephones, studios and radios by RTSP, and what becomes of it where RTMP has no word for it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::program::Program;
use av_tests::recording::Kind;
use av_tests::rtmp::Player;
use av_tests::tool::Tool;
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::rtsp::{rtsp, udp_ports};
use crate::{rtmp, twin};

/// How ffmpeg codes it, the file that holds it without a word around it, and what the state calls it.
struct Sound {
    encoder: &'static str,
    rate: &'static str,
    raw: &'static str,
    codec: &'static str,
}

const PCM_MU: Sound = Sound { encoder: "pcm_mulaw", rate: "8000", raw: "mulaw", codec: "ulaw" };
const PCM_A: Sound = Sound { encoder: "pcm_alaw", rate: "8000", raw: "alaw", codec: "alaw" };
const G722: Sound = Sound { encoder: "g722", rate: "16000", raw: "g722", codec: "g722" };
const MP3: Sound = Sound { encoder: "libmp3lame", rate: "44100", raw: "mp3", codec: "mp4a.40.34" };

/// Seconds that players take.
const PIECE: &str = "1.5";

impl Sound {
    /// Noise, coded once.
    fn file(&self, dir: &Path) -> PathBuf {
        let file = dir.join(format!("{}.nut", self.raw));
        let noise = format!("anoisesrc=sample_rate={}:amplitude=0.3:seed=7", self.rate);
        let mut command = Tool::Ffmpeg.command();
        command.args(["-v", "error", "-y", "-f", "lavfi", "-i", &noise, "-t", "4", "-c:a", self.encoder]);
        let made = Program::run(command.args(["-f", "nut"]).arg(&file), wait::LONG);
        assert!(made.status.success(), "{}", made.stderr);
        file
    }

    /// Its bytes and nothing else, as ffmpeg takes them from there.
    fn bytes(&self, input: &[&str], seconds: &str, file: &Path) -> Program {
        let mut command = Tool::Ffmpeg.command();
        command.args(["-hide_banner", "-nostdin", "-y"]).args(input);
        command.args(["-map", "0:a", "-c", "copy", "-t", seconds]);
        if self.raw == "mp3" {
            command.args(["-write_xing", "0", "-id3v2_version", "0"]);
        }
        Program::start(command.args(["-flush_packets", "1", "-f", self.raw]).arg(file))
    }
}

/// A gateway that takes `cam` by RTSP, and serves it by RTSP and RTMP.
fn gateway(from: &str, by_rtsp: &str, by_rtmp: &str) -> Module {
    Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": { "listen": from, "onPublisherLoss": "close", "udpPorts": udp_ports() },
            "outputs": {
                "rtsp": { "serve": by_rtsp, "transports": ["tcp"] }, "rtmp": { "serve": by_rtmp },
            },
        } })),
    )
}

fn publish(input: &[&OsStr], transport: &str, url: &str) -> Program {
    let mut command = Tool::Ffmpeg.command();
    command.args(["-hide_banner", "-nostdin", "-re", "-stream_loop", "-1"]).args(input);
    Program::start(command.args(["-c", "copy", "-f", "rtsp", "-rtsp_transport", transport, url]))
}

/// How much of `played` is one piece of `sent`.
fn must_be_of(played: &[u8], sent: &[u8], who: &str) -> usize {
    let start = played.get(..64).unwrap_or_else(|| panic!("{who}: {} bytes", played.len()));
    let at = sent.windows(64).position(|part| part == start);
    let at = at.unwrap_or_else(|| panic!("{who}: begins with what was not sent"));
    let same = played.iter().zip(&sent[at..]).take_while(|(one, other)| one == other).count();
    assert_eq!(same, played.len(), "{who}: other bytes from {same} on");
    same
}

#[test]
fn telephone_and_radio_sound_goes_from_rtsp_to_rtsp_byte_for_byte_and_g_711_to_rtmp_as_well() {
    needs!(Ffmpeg);
    let dir = tempfile::tempdir().unwrap();
    for (sound, transport, to_rtmp) in
        [(PCM_MU, "tcp", true), (PCM_A, "udp", true), (G722, "udp", false), (MP3, "tcp", true)]
    {
        let file = sound.file(dir.path());
        let file_of = |name: &str| dir.path().join(name);
        let whole = sound.bytes(&["-i", file.to_str().unwrap()], "9", &file_of("sent")).finish(wait::LONG);
        assert!(whole.status.success(), "{}", whole.stderr);
        let sent = std::fs::read(file_of("sent")).unwrap();
        let [from, by_rtsp] = [(); 2].map(|()| rtsp(port::free(), "live/cam"));
        let by_rtmp = rtmp(port::free(), "live/cam");
        let gateway = gateway(&from, &by_rtsp, &by_rtmp);
        gateway.wait_value("/flows/cam/state", "waiting");
        let publication = publish(&["-i".as_ref(), file.as_os_str()], transport, &from);
        let codec = gateway.wait_status("/flows/cam/input/audio/codec", Value::is_string);
        assert_eq!(codec, sound.codec, "{}", gateway.log());
        let by_rtsp =
            (sound.bytes(&["-rtsp_transport", "tcp", "-i", &by_rtsp], PIECE, &file_of("rtsp")), "rtsp");
        let by_rtmp = to_rtmp.then(|| (sound.bytes(&["-i", &by_rtmp], PIECE, &file_of("rtmp")), "rtmp"));
        // The file over and over.
        let twice = [&sent[..], &sent[..]].concat();
        for (player, name) in std::iter::once(by_rtsp).chain(by_rtmp) {
            let ended = player.finish(wait::LONG);
            let played = std::fs::read(file_of(name)).unwrap_or_default();
            let who =
                format!("{} by {transport}, {name}\n{}\n{}", sound.encoder, ended.stderr, gateway.log());
            let same = must_be_of(&played, &twice, &who);
            assert!(same * 5 >= sent.len(), "{who}: {same} of {} bytes", sent.len());
        }
        drop(publication);
    }
}

#[test]
fn pictures_go_on_by_rtmp_without_sound_that_rtmp_does_not_have() {
    needs!(Ffmpeg);
    let dir = tempfile::tempdir().unwrap();
    let sound = G722.file(dir.path());
    let [from, by_rtsp] = [(); 2].map(|()| rtsp(port::free(), "live/cam"));
    let by_rtmp = rtmp(port::free(), "live/cam");
    let gateway = gateway(&from, &by_rtsp, &by_rtmp);
    gateway.wait_value("/flows/cam/state", "waiting");
    let clip = Clip::Plain.mp4();
    let mut input: Vec<&OsStr> = vec!["-i".as_ref(), clip.as_os_str()];
    input.extend(["-i".as_ref(), sound.as_os_str()]);
    input.extend(["-map", "0:v", "-map", "1:a"].map(OsStr::new));
    let publication = publish(&input, "tcp", &from);
    gateway.wait_receiving("cam");
    let error = gateway.wait_status("/flows/cam/outputs/rtmp/error", Value::is_string);
    let error = error.as_str().unwrap();
    assert!(error.starts_with("flows.cam.outputs.rtmp: ") && error.contains("audio (g722)"), "{error}");
    gateway.wait_value("/flows/cam/outputs/rtsp/error", Value::Null);
    let player = Player::start(&by_rtmp);
    player.wait_frames(Kind::Video, 25);
    assert_eq!(player.frames(Kind::Audio), 0, "{}", gateway.log());
    drop(publication);
}
