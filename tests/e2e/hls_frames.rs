//! Every frame of a stream, as ffmpeg 9 has it from HLS: hashes and times.

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::flv::Tag;
use av_tests::program::Program;
use av_tests::recording::{End, Recording, Times};
use av_tests::rtmp::Publisher;
use av_tests::tool::Tool;
use av_tests::{needs, wait};
use serde_json::json;

use crate::hls::Gateway;

fn publish_with(clip: Clip) -> PublishWith {
    match clip.tool() {
        Tool::Ffmpeg9 => PublishWith::Ffmpeg9,
        _ => PublishWith::Ffmpeg,
    }
}

/// Plays a clip once through the gateway with `ffmpeg` from its first segment on, and compares every frame.
fn plays_every_frame(clip: Clip, variant: &str) {
    needs!(Ffmpeg, Ffmpeg9);
    let output = json!({ "variant": variant, "segmentSeconds": 1, "windowSeconds": 60 });
    let gateway = Gateway::start(&json!({ "onPublisherLoss": "close" }), &output);
    let publishing = publish_with(clip).start(clip, &gateway.rtmp);
    gateway.media();
    let index = gateway.get("/live/cam/index.m3u8").text();
    let codecs = match clip {
        Clip::H265 => "CODECS=\"hvc1.1.6.L60.90,mp4a.40.2\"",
        Clip::Av1Opus => "CODECS=\"av01.0.00M.08,Opus\"",
        Clip::AudioOnly => "CODECS=\"mp4a.40.2\"",
        _ => "CODECS=\"avc1.64",
    };
    assert!(index.contains(codecs), "{index}");
    let mut command = Tool::Ffmpeg9.command();
    command.args([
        "-hide_banner",
        "-nostdin",
        "-loglevel",
        "error",
        "-live_start_index",
        "0",
        "-copyts",
        "-i",
    ]);
    command.arg(format!("http://127.0.0.1:{}/live/cam/index.m3u8", gateway.port));
    let playing = Program::start(command.args(["-map", "0", "-c", "copy", "-f", "framemd5", "-"]));
    let published = publishing.finish();
    let ended = playing.finish(wait::LONG);
    assert!(ended.status.success(), "{}", ended.stderr);
    let played = Recording::of_framemd5_in_milliseconds(&ended.stdout);
    played.must_be(&published, Times::AudioWithinOneMillisecond, End::Complete);
}

#[test]
fn ffmpeg_plays_every_frame_of_low_latency_hls() {
    plays_every_frame(Clip::Plain, "lowLatency");
}

#[test]
fn ffmpeg_plays_every_frame_with_b_frames() {
    plays_every_frame(Clip::Pyramid, "lowLatency");
}

#[test]
fn ffmpeg_plays_every_frame_of_whole_segments() {
    plays_every_frame(Clip::Pyramid, "fmp4");
}

#[test]
fn ffmpeg_plays_every_frame_of_sound_alone() {
    plays_every_frame(Clip::AudioOnly, "lowLatency");
}

#[test]
fn ffmpeg_plays_every_frame_of_pictures_alone() {
    plays_every_frame(Clip::VideoOnly, "lowLatency");
}

#[test]
fn ffmpeg_plays_every_frame_of_one_picture_a_second() {
    plays_every_frame(Clip::OnePictureASecond, "lowLatency");
}

#[test]
fn ffmpeg_plays_every_frame_of_h265() {
    plays_every_frame(Clip::H265, "lowLatency");
}

#[test]
fn ffmpeg_plays_every_frame_of_av1_and_opus() {
    plays_every_frame(Clip::Av1Opus, "fmp4");
}

/// What ffmpeg 9 decodes of pictures, and has of sound.
fn shown(options: &[&str], input: &str) -> Program {
    let mut command = Tool::Ffmpeg9.command();
    command.args(["-hide_banner", "-nostdin", "-loglevel", "error"]).args(options).args(["-i", input]);
    let pictures = ["-map", "0:v", "-fps_mode", "passthrough", "-enc_time_base:v", "1/90000"];
    let sound = ["-map", "0:a", "-c:a", "copy", "-bsf:a", "aac_adtstoasc", "-f", "framemd5", "-"];
    Program::start(command.args(pictures).args(sound))
}

/// Of the first stream or the second: when each frame is shown, from the first picture on, in milliseconds, and its hash.
fn frames(said: &str, stream: usize) -> Vec<(f64, String)> {
    let mut units = [0.0; 2];
    let mut all = Vec::new();
    for line in said.lines() {
        if let Some(unit) = line.strip_prefix("#tb ") {
            let (stream, unit) = unit.split_once(": ").unwrap();
            let (ticks, rate) = unit.split_once('/').unwrap();
            units[stream.parse::<usize>().unwrap()] =
                ticks.parse::<f64>().unwrap() * 1000.0 / rate.parse::<f64>().unwrap();
        } else if !line.starts_with('#') {
            let fields = line.split(',').map(str::trim).collect::<Vec<_>>();
            let of: usize = fields[0].parse().unwrap();
            all.push((of, fields[2].parse::<f64>().unwrap() * units[of], fields[5].to_owned()));
        }
    }
    let zero = all.iter().find(|(of, ..)| *of == 0).unwrap().1;
    let own = all.into_iter().filter(|(of, ..)| *of == stream);
    own.map(|(_, time, hash)| (time - zero, hash)).collect()
}

#[test]
fn ffmpeg_decodes_every_picture_of_a_transport_stream() {
    needs!(Ffmpeg, Ffmpeg9);
    let clip = Clip::Pyramid;
    decodes_every_picture(clip, move |url| _ = publish_with(clip).start(clip, &url).finish());
}

#[test]
fn ffmpeg_decodes_every_picture_of_h265_in_a_transport_stream() {
    needs!(Ffmpeg, Ffmpeg9);
    let clip = Clip::H265;
    decodes_every_picture(clip, move |url| _ = publish_with(clip).start(clip, &url).finish());
}

/// The 33 bits of the first picture's time in a transport stream (ISO/IEC 13818-1 §2.4.3.7).
fn first_time(stream: &[u8]) -> u64 {
    let at = stream.windows(4).position(|four| four == [0, 0, 1, 0xe0]).unwrap() + 9;
    let [a, b, c, d, e] = stream[at..at + 5] else { panic!("five bytes") };
    let bits = |byte: u8, left: u32| u64::from(byte >> 1) << left;
    bits(a & 0x0e, 30) | u64::from(b) << 22 | bits(c, 15) | u64::from(d) << 7 | bits(e, 0)
}

#[test]
fn ffmpeg_decodes_every_picture_of_a_transport_stream_whose_times_wrap() {
    needs!(Ffmpeg, Ffmpeg9);
    // Three seconds before 33 bits at 90 kHz are full.
    const BEGINS: u32 = ((1_u64 << 33) / 90 - 3000) as u32;
    let first = decodes_every_picture(Clip::Pyramid, |url| {
        let tags = Clip::Pyramid.tags().into_iter().filter(|tag| tag.kind != 18);
        let tags = tags.map(|tag| Tag { timestamp: tag.timestamp + BEGINS, ..tag });
        let mut publisher = Publisher::to(&url);
        publisher.play_out(&tags.collect::<Vec<_>>()).unwrap();
        publisher.finish().unwrap();
    });
    let left = (1_u64 << 33) - first_time(&first);
    assert!(left < 4 * 90_000, "{left}");
}

/// Answers the first segment.
fn decodes_every_picture(clip: Clip, publish: impl FnOnce(String) + Send + 'static) -> Vec<u8> {
    let output = json!({ "variant": "mpegts", "segmentSeconds": 1, "windowSeconds": 60 });
    let gateway = Gateway::start(&json!({ "onPublisherLoss": "close" }), &output);
    let rtmp = gateway.rtmp.clone();
    let publishing = std::thread::spawn(move || publish(rtmp));
    let list = gateway.get(&gateway.media()).text();
    let first = list.lines().find(|line| line.ends_with(".ts")).unwrap();
    let first = gateway.get(&format!("/live/cam/{first}")).body;
    let url = format!("http://127.0.0.1:{}/live/cam/index.m3u8", gateway.port);
    let playing = shown(&["-live_start_index", "0"], &url);
    publishing.join().unwrap();
    let ended = playing.finish(wait::LONG);
    assert!(ended.status.success(), "{}", ended.stderr);
    let sent = shown(&[], clip.mp4().to_str().unwrap()).finish(wait::LONG).stdout;
    let (pictures, sound) = (frames(&sent, 0), frames(&sent, 1));
    assert_eq!(pictures.len(), 150);
    // RTMP has whole milliseconds.
    for (stream, sent) in [(0, pictures), (1, sound)] {
        let played = frames(&ended.stdout, stream);
        // What an encoder hides in front of a file's first picture is heard by nobody, or by all.
        let first = played.iter().position(|(_, hash)| *hash == sent[0].1).unwrap();
        assert_eq!(played.len() - first, sent.len(), "stream {stream}");
        for ((at, hash), (was, wanted)) in played[first..].iter().zip(&sent) {
            assert!(hash == wanted && (at - was).abs() <= 1.0, "stream {stream}: {at} for {was} ms");
        }
    }
    first
}
