//! What ffmpeg sends by RTP, against what it says is in the file that it sends.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

use std::net::UdpSocket;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use av_media::{Frame, Kind};
use av_rtsp::depacketize::AfterLoss;
use av_rtsp::intake::{Event, Intake, LeftOut};
use av_rtsp::sdp::Presentation;
use bytes::Bytes;
use md5::{Digest, Md5};

fn run(program: &str, arguments: &str) -> Output {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn ffmpeg(arguments: &str) {
    run("ffmpeg", &format!("-hide_banner -loglevel error -nostdin -y {arguments}"));
}

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

/// One packet of a file, by ffprobe: pts, dts, MD5.
#[derive(Debug)]
struct Sent {
    pts: f64,
    dts: f64,
    hash: String,
}

fn packets(file: &str) -> Vec<Sent> {
    let shown = run(
        "ffprobe",
        &format!(
            "-v error -show_entries packet=pts_time,dts_time,data_hash -show_data_hash md5 -of default=nw=1 {file}"
        ),
    );
    let mut packets: Vec<Sent> = Vec::new();
    for line in String::from_utf8(shown.stdout).unwrap().lines() {
        match (line.split_once('='), packets.last_mut()) {
            (Some(("pts_time", time)), _) => {
                packets.push(Sent { pts: time.parse().unwrap(), dts: f64::NAN, hash: String::new() });
            }
            (Some(("dts_time", time)), Some(packet)) => packet.dts = time.parse().unwrap(),
            (Some(("data_hash", hash)), Some(packet)) => packet.hash = hash.trim_start_matches("MD5:").into(),
            _ => {}
        }
    }
    packets
}

/// Lets ffmpeg send the only track of a file, and takes it in.
fn received(folder: &Folder, file: &str, kind: Kind) -> (Vec<Frame>, LeftOut) {
    let [rtp, rtcp] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
    let description = folder.file("sdp");
    let mut sender = Command::new("ffmpeg")
        .args("-hide_banner -loglevel error -nostdin -y -re -i".split(' '))
        .args([file, "-c", "copy", "-f", "rtp", "-sdp_file", &description])
        .arg(format!("rtp://127.0.0.1:{}?rtcpport={}", port(&rtp), port(&rtcp)))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    for socket in [&rtp, &rtcp] {
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    }
    let (mut media, mut reports, mut buffer) = (Vec::new(), Vec::new(), vec![0; 1 << 16]);
    loop {
        let ended = sender.try_wait().unwrap();
        let mut silent = true;
        for (socket, list) in [(&rtp, &mut media), (&rtcp, &mut reports)] {
            while let Ok(length) = socket.recv(&mut buffer) {
                silent = false;
                list.push((
                    Duration::from_millis(media_time(list.len())),
                    Bytes::copy_from_slice(&buffer[..length]),
                ));
            }
        }
        if let Some(status) = ended.filter(|_| silent) {
            assert!(status.success());
            break;
        }
    }
    let presentation = Presentation::parse(&std::fs::read(&description).unwrap()).unwrap();
    let (_, medium, coding) = presentation.first(kind).unwrap();
    let track = Some((coding, NonZeroU32::new(medium.clock_rate).unwrap()));
    let mut intake = match kind {
        Kind::Video => Intake::new(track, None, AfterLoss::Drop),
        Kind::Audio => Intake::new(None, track, AfterLoss::Drop),
    };
    let mut events = Vec::new();
    for (_, report) in &reports {
        intake.rtcp(kind, report, Duration::ZERO);
    }
    for (at, packet) in &media {
        intake.rtp(kind, packet, *at, &mut events);
    }
    let frames = events.into_iter().filter_map(|event| match event {
        Event::Frame(frame) => Some(frame),
        Event::Track(_) => None,
    });
    (frames.collect(), intake.left_out(kind))
}

/// Some time that goes on; what is in order waits for nothing.
fn media_time(packets: usize) -> u64 {
    u64::try_from(packets).unwrap()
}

fn hash(data: &[u8]) -> String {
    Md5::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sends a clip of a codec; every frame has to come out as it is in the file, when it is there.
fn comes_out(name: &str, kind: Kind, container: &str, encoding: &str) {
    let folder = Folder::new(name);
    let file = folder.file(&format!("clip.{container}"));
    let source = match kind {
        Kind::Video => "-f lavfi -i testsrc2=size=320x240:rate=25 -t 1.6",
        Kind::Audio => "-f lavfi -i sine=sample_rate=48000 -t 1",
    };
    ffmpeg(&format!("{source} {encoding} {file}"));
    let sent = packets(&file);
    let (came, left_out) = received(&folder, &file, kind);
    assert_eq!(left_out, LeftOut::default());
    // ffmpeg gathers frames of sound to packets, and keeps the last one to itself.
    let kept = if kind == Kind::Audio { 10 } else { 0 };
    assert!((sent.len() - kept..=sent.len()).contains(&came.len()), "{} of {}", came.len(), sent.len());
    let (first, start) = (&came[0], &sent[0]);
    for (came, sent) in came.iter().zip(&sent) {
        assert_eq!(hash(&came.data), sent.hash, "at {}", sent.pts);
        let apart = |nanos: i64, seconds: f64| (nanos as f64 / 1e9 - seconds).abs();
        let pts = apart(came.pts.nanos_since(first.pts), sent.pts - start.pts);
        // Containers round to milliseconds.
        assert!(pts < 0.0011, "{came:?} {sent:?}");
        if container == "mp4" {
            let offset = apart(came.pts.nanos_since(came.dts), sent.pts - sent.dts);
            assert!(offset < 0.0001, "pts - dts: {:?} {:?} {sent:?}", came.pts, came.dts);
        }
    }
}

#[test]
fn h264_without_with_and_with_a_pyramid_of_b_frames_comes_out_with_its_decoding_times() {
    for (frames, pyramid) in [(0, "none"), (3, "none"), (3, "normal")] {
        comes_out(
            &format!("h264-{frames}-{pyramid}"),
            Kind::Video,
            "mp4",
            &format!("-c:v libx264 -g 20 -bf {frames} -x264-params b-pyramid={pyramid}:b-adapt=0:slices=2"),
        );
    }
}

#[test]
fn h265_comes_out_with_its_decoding_times() {
    let encoding = "-c:v libx265 -x265-params keyint=20:bframes=3:b-adapt=0:log-level=error -tag:v hvc1";
    comes_out("h265", Kind::Video, "mp4", encoding);
}

#[test]
fn aac_opus_and_mp3_come_out_frame_by_frame() {
    comes_out("aac", Kind::Audio, "mp4", "-c:a aac -b:a 96k");
    comes_out("aac-44100", Kind::Audio, "mp4", "-ar 44100 -ac 2 -c:a aac");
    comes_out("opus", Kind::Audio, "mkv", "-c:a libopus -ac 2");
    comes_out("mp3", Kind::Audio, "mp3", "-c:a libmp3lame -write_xing 0 -id3v2_version 0");
}

#[test]
fn telephone_sound_comes_out_byte_by_byte() {
    for (codec, raw, rate) in [
        ("pcm_alaw", "alaw", 8000),
        ("pcm_mulaw", "mulaw", 8000),
        ("g722", "g722", 16_000),
        ("pcm_s16be", "s16be", 48_000),
    ] {
        let folder = Folder::new(codec);
        let (file, bytes) = (folder.file("clip.mkv"), folder.file("clip.raw"));
        let (file, muxer) =
            if codec == "g722" { (folder.file("clip.wav"), "wav") } else { (file, "matroska") };
        ffmpeg(&format!("-f lavfi -i sine=sample_rate={rate} -t 1 -c:a {codec} -f {muxer} {file}"));
        ffmpeg(&format!("-i {file} -c copy -f {raw} {bytes}"));
        let (came, left_out) = received(&folder, &file, Kind::Audio);
        assert_eq!(left_out, LeftOut::default());
        let came: Vec<u8> = came.iter().flat_map(|frame| frame.data.to_vec()).collect();
        assert!(came == std::fs::read(&bytes).unwrap(), "{codec}");
    }
}
