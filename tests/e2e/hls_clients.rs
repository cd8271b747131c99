//! Players of HLS that share no code with each other, and readers of its playlists: one stream, three variants.

use std::path::{Path, PathBuf};
use std::process::Command;

use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::program::Program;
use av_tests::recording::Kind;
use av_tests::rtmp::Publisher;
use av_tests::tool::{Tool, skip, tests_dir};
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::hls::{Gateway, request};
use crate::{rtmp, twin, vlc};

const VARIANTS: [&str; 3] = ["lowLatency", "fmp4", "mpegts"];
/// Where a stream is cut off, some pictures lack others that come between.
const AT_END: usize = 4;
/// VLC holds some back at the end.
const HELD_BACK: usize = 10;

/// Every picture's hash of what a player wrote as framemd5.
fn listed(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(',')?.1.trim().to_owned())).collect()
}

fn decoded(file: &Path) -> Vec<String> {
    decoded_as(&[], file)
}

/// `format`: what the file itself does not tell.
fn decoded_as(format: &[&str], file: &Path) -> Vec<String> {
    let mut command = Tool::Ffmpeg.command();
    command.args(["-hide_banner", "-nostdin", "-loglevel", "error"]).args(format).arg("-i").arg(file);
    let args = ["-map", "0:v", "-fps_mode", "passthrough", "-pix_fmt", "yuv420p", "-f", "framemd5", "-"];
    listed(&Program::run(command.args(args), wait::LONG).stdout)
}

/// Hashes of the pictures that a player showed, from its output or a file.
type Pictures = Box<dyn Fn(&str) -> Vec<String>>;

/// A player that runs, and how its pictures are read when it has ended.
struct Player {
    name: String,
    program: Program,
    pictures: Pictures,
    /// It begins where it wants.
    joins: bool,
    /// Pictures that may be missing at the end.
    held_back: usize,
    /// Behind the first round it encodes other pictures than were sent.
    once: bool,
}

impl Player {
    /// `round`: the pictures that were sent again and again, `count` in all.
    fn judge(self, round: &[String], count: usize) {
        let ended = self.program.finish(wait::LONG);
        let seen = (self.pictures)(&ended.stdout);
        let (name, said) = (&self.name, &ended.stderr);
        let start = seen.first().and_then(|first| round.iter().position(|picture| picture == first));
        let Some(start) = start else { panic!("{name} showed nothing that was sent: {said}") };
        let same =
            round.iter().cycle().skip(start).zip(&seen).take_while(|(sent, seen)| sent == seen).count();
        if self.once {
            let all = start == 0 && same + AT_END >= round.len();
            assert!(all, "{name} showed {same} of {} from {start} on: {said}", round.len());
            return;
        }
        // Whatever round it began in, it goes on to the end.
        let missing = (count + round.len() - (start + same) % round.len()) % round.len();
        assert!(
            missing <= self.held_back + AT_END,
            "{name} lacks {missing} of {count} behind {same}: {said}"
        );
        let all = start == 0 && same + self.held_back + AT_END >= count;
        assert!(self.joins || all, "{name} showed {same} of {count} from {start} on: {said}");
    }
}

fn players(dir: &Path, variant: &str, url: &str) -> Vec<Player> {
    let ffmpeg = |tool: Tool| {
        let mut command = tool.command();
        command.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-live_start_index", "0"]);
        command.args(["-user_agent", &format!("{tool:?}"), "-i", url]);
        let args = ["-map", "0:v", "-fps_mode", "passthrough", "-pix_fmt", "yuv420p", "-f", "framemd5", "-"];
        command.args(args);
        command
    };
    let player = |name: &str, command: Command, pictures: Pictures| player(name, variant, command, pictures);
    let mut players = vec![player("ffmpeg 5.1", ffmpeg(Tool::Ffmpeg), Box::new(listed))];
    if variant == "lowLatency" {
        players.push(player("a current ffmpeg", ffmpeg(Tool::Ffmpeg9), Box::new(listed)));
    }
    if variant != "mpegts" {
        players.extend(others(dir, variant, url));
    }
    players
}

fn player(name: &str, variant: &str, mut command: Command, pictures: Pictures) -> Player {
    Player {
        name: format!("{name}, {variant}"),
        program: Program::start(&mut command),
        pictures,
        joins: false,
        held_back: 0,
        once: false,
    }
}

/// Those but ffmpeg and GStreamer.
fn others(dir: &Path, variant: &str, url: &str) -> Vec<Player> {
    let player = |name: &str, command: Command, pictures: Pictures| player(name, variant, command, pictures);
    let mut players = Vec::new();
    if Tool::Mpv.path().is_some() {
        let file = dir.join(format!("mpv-{variant}"));
        let mut command = Tool::Mpv.command();
        command.args(["--no-config", "--really-quiet", "--no-audio", "--user-agent=mpv"]);
        command.arg("--demuxer-lavf-o=live_start_index=0");
        command.args(["--ovc=rawvideo", "--of=framemd5"]).arg(format!("--o={}", file.display())).arg(url);
        let read = move |_: &str| listed(&std::fs::read_to_string(&file).unwrap_or_default());
        // Where two rounds of a transport stream meet.
        let once = variant == "mpegts";
        players.push(Player { once, ..player("mpv", command, Box::new(read)) });
    }
    let streamlink = tests_dir().join(".tools/hls/bin/streamlink");
    if streamlink.exists() {
        let file = dir.join(format!("streamlink-{variant}"));
        let mut command = Command::new(streamlink);
        command.args(["--no-config", "--hls-live-restart", "--force", "-o"]).arg(&file).arg(url).arg("best");
        let read = move |_: &str| decoded(&file);
        players.push(player("streamlink", command, Box::new(read)));
    }
    if Tool::Vlc.path().is_some() {
        let home = dir.join(format!("vlc-{variant}"));
        std::fs::create_dir(&home).unwrap();
        let file = home.join("played.ts");
        let to_file = format!("#std{{access=file,mux=ts,dst={}}}", file.display());
        let mut command = vlc::vlc(&home);
        command.arg(url).args(["--sout", &to_file, "vlc://quit"]);
        let read = move |_: &str| decoded(&file);
        players.push(Player { joins: true, held_back: HELD_BACK, ..player("VLC", command, Box::new(read)) });
    }
    players
}

/// GStreamer's `hlsdemux2`. Beside a playlist of one segment it loses its place with the first renewal, whoever serves it.
fn gstreamer(dir: &Path, variant: &str, url: &str) -> Option<Player> {
    Tool::Gst.path()?;
    let file = dir.join(format!("gst-{variant}.yuv"));
    let location = file.display();
    let line = format!(
        "-q uridecodebin3 name=d uri={url} d. ! video/x-raw ! queue ! videoconvert ! video/x-raw,format=I420 ! \
         filesink location={location} d. ! audio/x-raw ! queue ! fakesink"
    );
    let program = Program::start(Tool::Gst.command().args(line.split_whitespace()));
    let name = format!("GStreamer, {variant}");
    let raw = ["-f", "rawvideo", "-video_size", "320x180", "-pixel_format", "yuv420p"];
    let read = move |_: &str| decoded_as(&raw, &file);
    Some(Player { name, program, pictures: Box::new(read), joins: true, held_back: 0, once: false })
}

/// What independent readers find in a playlist has to be what a search for its tags finds.
fn read_by_parsers(dir: &Path, texts: &[String]) {
    let files = texts.iter().enumerate().map(|(index, text)| {
        let file = dir.join(format!("{index}.m3u8"));
        std::fs::write(&file, text).unwrap();
        file
    });
    let files = files.collect::<Vec<_>>();
    let number = |text: &str, tag: &str| -> u64 {
        text.lines().find_map(|line| line.strip_prefix(tag)).unwrap().parse().unwrap()
    };
    let expected = texts.iter().map(|text| {
        let durations = text.lines().filter_map(|line| line.strip_prefix("#EXTINF:"));
        let durations = durations.map(|line| line.trim_end_matches(',').parse::<f64>().unwrap());
        let uris = text.lines().filter(|line| !line.starts_with('#'));
        json!({
            "sequence": number(text, "#EXT-X-MEDIA-SEQUENCE:"),
            "discontinuity": number(text, "#EXT-X-DISCONTINUITY-SEQUENCE:"),
            "target": number(text, "#EXT-X-TARGETDURATION:"),
            "segments": uris.zip(durations).map(|(uri, duration)| json!([uri, (duration * 100_000.0).round() as u64])).collect::<Vec<_>>(),
            "parts": text.matches("#EXT-X-PART:").count(),
        })
    });
    let expected = expected.collect::<Vec<_>>();
    let scripts = tests_dir().join("hls");
    let python = tests_dir().join(".tools/hls/bin/python");
    let packages = tests_dir().join(".tools/hls-parsers");
    let mut m3u8 = Command::new(&python);
    m3u8.arg(scripts.join("read.py"));
    let mut node = Command::new("node");
    node.arg(scripts.join("read.mjs")).current_dir(&packages);
    for (name, there, mut command, times) in
        [("m3u8", python, m3u8, 1), ("m3u8-parser and hls-parser", packages, node, 2)]
    {
        if !there.exists() {
            skip("playlists are read by independent parsers", &format!("{name} is not installed"));
            continue;
        }
        let ended = Program::run(command.args(&files), wait::LONG);
        assert!(ended.status.success(), "{name}: {}", ended.stderr);
        let found = ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let expected = expected.iter().flat_map(|one| std::iter::repeat_n(one, times));
        let mut compared = 0;
        for (found, expected) in found.zip(expected) {
            assert_eq!(&found, expected, "{name}");
            compared += 1;
        }
        assert_eq!(compared, texts.len() * times, "{name}");
    }
}

/// An init segment and all segments behind it, as one file.
fn as_file(dir: &Path, port: u16, media: &str, playlist: &str) -> PathBuf {
    let folder = media.rsplit_once('/').unwrap().0;
    let get = |name: &str| {
        let answer = request(port, &format!("GET {folder}/{name} HTTP/1.1\r\n"));
        assert_eq!(answer.status, 200, "{folder}/{name}");
        answer.body
    };
    let map = playlist.lines().find_map(|line| line.strip_prefix("#EXT-X-MAP:URI=")).unwrap();
    let mut bytes = get(map.trim_matches('"'));
    bytes.extend(playlist.lines().filter(|line| !line.starts_with('#')).flat_map(get));
    let file = dir.join("whole.mp4");
    std::fs::write(&file, bytes).unwrap();
    file
}

/// Readers of boxes have to find every frame, and no tick between two of a kind.
fn read_by_readers_of_boxes(file: &Path, [pictures, sounds]: [u64; 2]) {
    let packages = tests_dir().join(".tools/mp4box");
    if packages.exists() {
        let mut node = Command::new("node");
        node.arg(tests_dir().join("hls/boxes.mjs")).arg(file).current_dir(&packages);
        let ended = Program::run(&mut node, wait::LONG);
        let tracks: Value = serde_json::from_str(&ended.stdout).expect(&ended.stderr);
        let kinds = [&tracks[0]["type"], &tracks[1]["type"]];
        assert_eq!(kinds, ["video", "audio"], "pictures come first");
        assert_eq!(tracks[0]["samples"], pictures, "{tracks}");
        // Between two rounds of the clip there is silence.
        assert!(tracks[1]["samples"].as_u64() >= Some(sounds), "{tracks}");
        assert_eq!([&tracks[0]["holes"], &tracks[1]["holes"]], [&json!(0), &json!(0)], "{tracks}");
    } else {
        skip("mp4box.js reads fragments", "it is not installed");
    }
    if let Some(mut mediainfo) = Tool::Mediainfo.path().map(Command::new) {
        let ended = Program::run(mediainfo.arg("--Output=JSON").arg(file), wait::LONG);
        let info: Value = serde_json::from_str(&ended.stdout).expect(&ended.stderr);
        let track = |index: usize| &info["media"]["track"][index];
        assert_eq!([&track(1)["Format"], &track(2)["Format"]], ["AVC", "AAC"], "{info}");
        assert_eq!(track(1)["FrameCount"], pictures.to_string(), "{info}");
    }
}

#[test]
fn all_players_show_every_picture_of_every_variant_and_parsers_read_every_playlist() {
    needs!(Ffmpeg, Ffmpeg9);
    let (url, port) = (rtmp(port::free(), "live/cam"), port::free());
    let output = |variant: &str| {
        let serve = format!("http://127.0.0.1:{port}/{variant}/cam");
        json!({ "serve": serve, "variant": variant, "segmentSeconds": 1, "windowSeconds": 60 })
    };
    let outputs = VARIANTS.map(|variant| (variant.to_owned(), output(variant)));
    let module = Module::start(
        "hls-gateway",
        &twin(json!({ "cam": {
            "input": { "listen": url, "onPublisherLoss": "close" },
            "outputs": Value::Object(outputs.into_iter().collect()),
        } })),
    );
    let publishing = Publisher::to(&url).run_endlessly(Clip::Pyramid.tags());
    let dir = tempfile::Builder::new().prefix("hls-").tempdir().unwrap();
    let (mut playing, mut media, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for variant in VARIANTS {
        let index = format!("/{variant}/cam/index.m3u8");
        let name = wait::until("a multivariant playlist", wait::LONG, || {
            let answer = request(port, &format!("GET {index} HTTP/1.1\r\n"));
            (answer.status == 200).then(|| answer.text().lines().last().unwrap().to_owned())
        });
        media.push(format!("/{variant}/cam/{name}"));
        let players = players(dir.path(), variant, &format!("http://127.0.0.1:{port}{index}"));
        // And this test.
        counts.push(players.len() as u64 + 1);
        playing.extend(players);
    }
    for ((variant, path), count) in VARIANTS.iter().zip(&media).zip(&mut counts) {
        wait::until_true("three segments", wait::LONG, || {
            request(port, &format!("GET {path} HTTP/1.1\r\n")).text().matches("#EXTINF:").count() >= 3
        });
        let url = format!("http://127.0.0.1:{port}/{variant}/cam/index.m3u8");
        let player = gstreamer(dir.path(), variant, &url);
        *count += player.iter().len() as u64;
        playing.extend(player);
    }
    // Every version that there is a chance to see.
    let (mut texts, mut publishing, mut published) = (Vec::<String>::new(), Some(publishing), None);
    wait::until_true("the end", wait::LONG, || {
        let status = module.status();
        let all_play = VARIANTS.iter().zip(&counts).all(|(variant, players)| {
            let clients = status.pointer(&format!("/flows/cam/outputs/{variant}/clients"));
            clients.and_then(Value::as_u64) >= Some(*players)
        });
        if all_play
            && texts.len() >= 30
            && let Some(publishing) = publishing.take()
        {
            published = Some(publishing.stop());
        }
        let now = media.iter().map(|path| request(port, &format!("GET {path} HTTP/1.1\r\n")).text());
        let now = now.collect::<Vec<_>>();
        let ended = now.iter().all(|text| text.ends_with("#EXT-X-ENDLIST\n"));
        texts.extend(now.into_iter().filter(|text| text.starts_with("#EXTM3U")));
        texts.sort_unstable();
        texts.dedup();
        ended
    });
    let published = published.unwrap();
    let count = |kind: Kind| published.0.iter().filter(|packet| packet.kind == kind).count() as u64;
    for path in &media[..2] {
        let playlist = request(port, &format!("GET {path} HTTP/1.1\r\n")).text();
        let file = as_file(dir.path(), port, path, &playlist);
        read_by_readers_of_boxes(&file, [count(Kind::Video), count(Kind::Audio)]);
    }
    read_by_parsers(dir.path(), &texts);
    let sent = decoded(&Clip::Pyramid.mp4());
    assert_eq!(sent.len(), 150);
    let count = usize::try_from(count(Kind::Video)).unwrap();
    playing.into_iter().for_each(|player| player.judge(&sent, count));
    drop(module);
}

#[test]
fn old_players_show_every_picture_of_a_transport_stream() {
    needs!(Ffmpeg, Ffmpeg9);
    let output = json!({ "variant": "mpegts", "segmentSeconds": 1, "windowSeconds": 60 });
    let gateway = Gateway::start(&json!({ "onPublisherLoss": "close" }), &output);
    let publishing = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Pyramid.tags());
    let media = gateway.media();
    let dir = tempfile::Builder::new().prefix("hls-").tempdir().unwrap();
    let url = format!("http://127.0.0.1:{}/live/cam/index.m3u8", gateway.port);
    let playing = others(dir.path(), "mpegts", &url);
    // All of them and this test, and more than a round.
    let all = playing.len() as u64 + 1;
    wait::until_true("all players", wait::LONG, || {
        let segments = gateway.get(&media).text().matches("#EXTINF:").count();
        let clients =
            gateway.module.status().pointer("/flows/cam/outputs/web/clients").and_then(Value::as_u64);
        segments >= 8 && clients >= Some(all)
    });
    let published = publishing.stop();
    let sent = decoded(&Clip::Pyramid.mp4());
    assert_eq!(sent.len(), 150);
    let count = published.0.iter().filter(|packet| packet.kind == Kind::Video).count();
    playing.into_iter().for_each(|player| player.judge(&sent, count));
}
