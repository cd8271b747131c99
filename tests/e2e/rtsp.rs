//! RTMP to RTSP and back, with real players: every picture, in order, at its time.

use std::time::Duration;

use av_tests::client::{PlayWith, PublishWith};
use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::program::{Finished, Program};
use av_tests::recording::{Kind, Packet, Recording};
use av_tests::rtmp::Publisher;
use av_tests::tool::Tool;
use av_tests::{http, needs, port, wait};
use serde_json::json;

use crate::{rtmp, twin};

pub(crate) fn rtsp(port: u16, path: &str) -> String {
    format!("rtsp://127.0.0.1:{port}/{path}")
}

/// Two free ports in a row, the first one even.
pub(crate) fn udp_ports() -> String {
    let first = loop {
        let port = port::free() & !1;
        let is_free = |port| std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if is_free(port) && is_free(port + 1) {
            break port;
        }
    };
    format!("{first}-{}", first + 1)
}

/// A gateway that takes `cam` by RTMP and serves it by RTSP.
fn gateway(from: &str, to: &str, loss: &str) -> Module {
    Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": { "listen": from, "onPublisherLoss": loss },
            "outputs": { "viewers": { "serve": to, "udpPorts": udp_ports() } },
        } })),
    )
}

/// Every picture that ffmpeg decodes, by its hash and its time in milliseconds; until the stream ends or so many are there.
pub(crate) fn watch(tool: Tool, transport: &str, url: &str, pictures: Option<usize>) -> Program {
    watch_with(tool, transport, url, pictures, &[])
}

/// The same with options of ffmpeg's own for what it reads.
pub(crate) fn watch_with(
    tool: Tool,
    transport: &str,
    url: &str,
    pictures: Option<usize>,
    options: &[&str],
) -> Program {
    let mut command = tool.command();
    command.args(["-hide_banner", "-nostdin", "-loglevel", "info"]);
    if url.starts_with("rtsp") {
        command.args(["-rtsp_transport", transport]);
    }
    command.args(options).args([
        "-i",
        url,
        "-map",
        "0:v",
        "-fps_mode",
        "passthrough",
        "-enc_time_base",
        "1:90000",
    ]);
    if let Some(pictures) = pictures {
        command.args(["-frames:v", &pictures.to_string()]);
    }
    Program::start(command.args(["-flush_packets", "1", "-f", "framemd5", "-"]))
}

pub(crate) fn seen(ended: &Finished) -> Vec<Packet> {
    Recording::of_framemd5_in_milliseconds(&ended.stdout).0
}

/// What ffmpeg decodes of the clip itself.
pub(crate) fn original(clip: Clip) -> Vec<Packet> {
    let ended = watch(clip.tool(), "", &clip.mp4().display().to_string(), None).finish(wait::LONG);
    seen(&ended)
}

/// Checks that pictures are those of the clip from some one on, without a hole, and, behind those that were there when the
/// player came, at their times. How many there are.
pub(crate) fn must_be(played: &[Packet], clip: &[Packet], who: &str) -> usize {
    let first = played.first().unwrap_or_else(|| panic!("{who} saw nothing"));
    let at = clip.iter().position(|picture| picture.hash == first.hash);
    let at = at.unwrap_or_else(|| panic!("{who}: the first picture is none of the clip's"));
    for (index, (seen, sent)) in played.iter().zip(&clip[at..]).enumerate() {
        assert_eq!(seen.hash, sent.hash, "{who}: picture {index} is another one");
    }
    assert!(played.len() <= clip.len() - at, "{who} saw more than there is");
    let steps = played.windows(2).zip(clip[at..].windows(2));
    let mut joined = false;
    for (seen, sent) in steps {
        let [step, wanted] = [seen, sent].map(|pair| pair[1].pts - pair[0].pts);
        // What is past when a player comes is a millisecond apart, and so nearer to the first picture after it.
        let least = if joined { wanted - 1 } else { 0 };
        assert!(
            (least..=wanted + 1).contains(&step),
            "{who}: {step} ms between pictures, {wanted} in the clip"
        );
        joined |= step > 2;
    }
    assert!(joined, "{who} saw nothing but what was past");
    played.len()
}

/// Publishes a clip in real time to players that wait for it.
fn walk(clip: Clip, players: &[(Tool, &str)]) {
    let (from, to) = (rtmp(port::free(), "live/cam"), rtsp(port::free(), "live/cam"));
    let pictures = original(clip);
    let gateway = gateway(&from, &to, "close");
    gateway.wait_value("/flows/cam/outputs/viewers/state", "waiting");
    // Players first: their DESCRIBE waits for the stream. On a busy machine those that come later find too little of it.
    let playing: Vec<_> = players
        .iter()
        .map(|(tool, transport)| {
            // By UDP nobody is told reliably that it is over.
            let most = (*transport == "udp").then_some(75);
            (format!("{tool:?} over {transport}"), watch(*tool, transport, &to, most))
        })
        .collect();
    let publisher = if clip.tool() == Tool::Ffmpeg9 { PublishWith::Ffmpeg9 } else { PublishWith::Ffmpeg };
    let publication = publisher.start(clip, &from);
    publication.finish();
    for (who, program) in playing {
        let ended = program.finish(wait::LONG);
        let count = must_be(&seen(&ended), &pictures, &format!("{who} ({})", gateway.log()));
        assert!(count >= 50, "{who} saw {count} pictures: {}\n{}", ended.stderr, gateway.log());
    }
    assert_eq!(gateway.terminate().status.code(), Some(0));
}

const ALL: [(Tool, &str); 4] =
    [(Tool::Ffmpeg, "tcp"), (Tool::Ffmpeg, "udp"), (Tool::Ffmpeg9, "tcp"), (Tool::Ffmpeg9, "udp")];

#[test]
fn h264_without_b_frames_is_played_over_tcp_and_udp() {
    needs!(Ffmpeg, Ffmpeg9);
    walk(Clip::Plain, &ALL);
}

#[test]
fn h264_with_a_pyramid_of_b_frames_is_played_over_tcp_and_udp() {
    needs!(Ffmpeg, Ffmpeg9);
    walk(Clip::Pyramid, &ALL);
}

#[test]
fn h265_is_played_over_tcp_and_udp() {
    needs!(Ffmpeg, Ffmpeg9);
    walk(Clip::H265, &[(Tool::Ffmpeg9, "tcp"), (Tool::Ffmpeg9, "udp")]);
}

#[test]
fn mpv_shows_every_picture_over_tcp_and_udp() {
    needs!(Ffmpeg, Mpv);
    let (from, to) = (rtmp(port::free(), "live/cam"), rtsp(port::free(), "live/cam"));
    let gateway = gateway(&from, &to, "close");
    gateway.wait_value("/flows/cam/outputs/viewers/state", "waiting");
    let players = ["tcp", "udp"].map(|transport| {
        let file = gateway.dir().join(format!("mpv-{transport}"));
        let mut command = Tool::Mpv.command();
        command.args(["--no-config", "--really-quiet", "--no-audio"]);
        command.arg(format!("--rtsp-transport={transport}"));
        // By UDP nobody is told reliably that it is over.
        command.args((transport == "udp").then_some("--frames=60"));
        command.args(["--ovc=rawvideo", "--of=framemd5"]).arg(format!("--o={}", file.display())).arg(&to);
        (transport, file, Program::start(&mut command))
    });
    PublishWith::Ffmpeg.start(Clip::Plain, &from).finish();
    let clip = original(Clip::Plain);
    for (transport, file, playing) in players {
        let ended = playing.finish(wait::LONG);
        let played = std::fs::read_to_string(&file).unwrap_or_default();
        let played = Recording::of_framemd5_in_milliseconds(&played).0;
        let at = played.first().and_then(|first| clip.iter().position(|picture| picture.hash == first.hash));
        let at = at.unwrap_or_else(|| panic!("{transport}: {played:?}\n{}\n{}", ended.stderr, gateway.log()));
        for (index, (seen, sent)) in played.iter().zip(&clip[at..]).enumerate() {
            assert_eq!(
                seen.hash,
                sent.hash,
                "{transport}: picture {index} is another one\n{}",
                gateway.log()
            );
        }
        assert!(played.len() >= 50, "{transport}: {} pictures\n{}", played.len(), gateway.log());
    }
}

/// The times in seconds at which GStreamer's `fakesink` took pictures, as it says them.
pub(crate) fn times_of_pictures(said: &str) -> Vec<f64> {
    let times = said.lines().filter(|line| line.contains("chain")).filter_map(|line| {
        let time = line.split_once(", pts: ")?.1.split_once(',')?.0;
        let mut parts = time.split(':').map(|part| part.parse::<f64>().unwrap());
        Some(parts.next()? * 3600.0 + parts.next()? * 60.0 + parts.next()?)
    });
    times.collect()
}

/// GStreamer maps what arrives at once to one moment: joining at the edge spares it that.
#[test]
fn gstreamer_plays_over_tcp_and_udp_from_the_last_key_frame_on_and_its_times_rise() {
    needs!(Ffmpeg, Gst);
    const PICTURES: usize = 60;
    let (from, to) = (rtmp(port::free(), "live/cam"), rtsp(port::free(), "live/cam"));
    let gateway = gateway(&from, &to, "close");
    let publication = PublishWith::Ffmpeg.start(Clip::Pyramid, &from);
    gateway.wait_receiving("cam");
    let players = ["tcp", "udp"].map(|protocols| {
        let line = format!(
            "-v rtspsrc location={to} protocols={protocols} name=s s. ! rtph264depay ! h264parse ! avdec_h264 \
             ! fakesink silent=false sync=false num-buffers={PICTURES}"
        );
        (protocols, Program::start(Tool::Gst.command().args(line.split_whitespace())))
    });
    for (protocols, player) in players {
        let ended = player.finish(wait::LONG);
        let times = times_of_pictures(&ended.stdout);
        assert_eq!(times.len(), PICTURES, "{protocols}: {}\n{}", ended.stderr, gateway.log());
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{protocols}: time went back: {times:?}");
        // A machine that stalls makes GStreamer give a picture the time of the one before it; a burst that is not
        // squeezed does it to dozens.
        let equal = times.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(equal <= PICTURES / 5, "{protocols}: {equal} pictures at the time of another: {times:?}");
    }
    drop(publication);
}

/// RTMP to RTSP in one gateway, and back to RTMP in another, which pulls.
#[test]
fn a_stream_that_goes_to_rtsp_and_back_has_the_same_access_units() {
    needs!(Ffmpeg);
    for clip in [Clip::Plain, Clip::Pyramid] {
        let (from, between) = (rtmp(port::free(), "live/cam"), rtsp(port::free(), "live/cam"));
        let to = rtmp(port::free(), "live/back");
        let first = gateway(&from, &between, "close");
        let back = Module::start(
            "rtsp-gateway",
            &twin(json!({ "cam": {
                "input": { "pull": between, "onPublisherLoss": "close" },
                "outputs": {
                    "viewers": { "serve": to },
                    "again": { "serve": rtsp(port::free(), "live/again"), "transports": ["tcp"] },
                },
            } })),
        );
        must_be_the_same(clip, &from, &to, &back);
        assert_eq!(back.terminate().status.code(), Some(0));
        assert_eq!(first.terminate().status.code(), Some(0));
    }
}

/// Publishes a clip by RTMP, and plays by RTMP what `back` makes of it: every access unit as it was sent, in order.
pub(crate) fn must_be_the_same(clip: Clip, from: &str, to: &str, back: &Module) {
    let publication = PublishWith::Ffmpeg.start(clip, from);
    back.wait_receiving("cam");
    let player = PlayWith::Ffmpeg.start(to);
    let published = publication.finish();
    let played = player.finish();
    for kind in [Kind::Video, Kind::Audio] {
        let (played, sent) = (played.of(kind), published.of(kind));
        assert!(played.len() >= 25, "{clip:?}: {} {kind:?} frames\n{}", played.len(), back.log());
        let at = sent.iter().position(|packet| packet.hash == played[0].hash);
        let at = at.unwrap_or_else(|| panic!("{clip:?}: the first {kind:?} frame is none that was sent"));
        for (seen, sent) in played.iter().zip(&sent[at..]) {
            assert_eq!(seen.hash, sent.hash, "{clip:?}: {kind:?}\n{}", back.log());
            assert!(seen.dts <= seen.pts, "{clip:?}: {seen:?}");
        }
        for pair in played.windows(2) {
            assert!(pair[0].dts <= pair[1].dts, "{clip:?}: {kind:?} went back: {pair:?}");
        }
    }
}

/// The publisher dies without a word and comes back; its clock begins at zero again.
#[test]
fn players_stay_while_the_publisher_is_away() {
    needs!(Ffmpeg, Ffmpeg9);
    let (from, to) = (rtmp(port::free(), "live/cam"), rtsp(port::free(), "live/cam"));
    let gateway = gateway(&from, &to, "hold");
    let tags = Clip::Plain.tags();
    let mut publisher = Publisher::to(&from);
    publisher.play_out(&tags).unwrap();
    gateway.wait_receiving("cam");
    let pictures = original(Clip::Plain).len();
    let transports = ["tcp", "udp"];
    let mut players = transports.map(|transport| watch(Tool::Ffmpeg, transport, &to, Some(pictures)));
    gateway.wait_value("/flows/cam/outputs/viewers/clients", players.len());
    drop(publisher);
    gateway.wait_value("/flows/cam/input/state", "waiting");
    std::thread::sleep(Duration::from_secs(4));
    assert!(players.iter_mut().all(|player| player.ended().is_none()), "{}", gateway.log());

    let again = PublishWith::Ffmpeg.start(Clip::Plain, &from);
    for (player, transport) in players.into_iter().zip(transports) {
        let ended = player.finish(wait::LONG);
        let seen = seen(&ended);
        assert!(seen.len() > 50, "{transport}: {} pictures\n{}\n{}", seen.len(), ended.stderr, gateway.log());
        assert!(seen.windows(2).all(|pair| pair[0].pts <= pair[1].pts), "{transport}: time went back");
    }
    drop(again);
}

#[test]
fn who_has_no_key_is_refused_and_a_stream_that_is_not_there_is_not_found() {
    needs!(Ffmpeg);
    let (from, to) = (rtmp(port::free(), "live/cam"), rtsp(port::free(), "live/cam"));
    let gateway = Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": { "listen": from },
            "outputs": { "viewers": { "serve": to, "transports": ["tcp"], "auth": { "key": "open sesame" } } },
        } })),
    );
    let publication = PublishWith::Ffmpeg.start(Clip::Plain, &from);
    gateway.wait_receiving("cam");
    for (query, said) in [("", "403"), ("?key=wrong", "403"), ("x?key=open%20sesame", "404")] {
        let ended = watch(Tool::Ffmpeg, "tcp", &format!("{to}{query}"), Some(5)).finish(wait::LONG);
        assert!(ended.stderr.contains(said), "{query}: {}", ended.stderr);
    }
    let ended = watch(Tool::Ffmpeg, "tcp", &format!("{to}?key=open%20sesame"), Some(5)).finish(wait::LONG);
    assert_eq!(seen(&ended).len(), 5, "{}", ended.stderr);
    drop(publication);
}

#[test]
fn rtmp_to_rtmp_alone_is_refused_and_the_splitter_named() {
    let url = rtmp(port::free(), "live/cam");
    let gateway = Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
        "input": { "listen": url }, "outputs": { "viewers": { "serve": url } },
    } , "good": {
        "input": { "listen": rtmp(port::free(), "live/good") },
        "outputs": { "viewers": { "serve": rtsp(port::free(), "live/good"), "udpPorts": udp_ports() } },
    } })),
    );
    let status = gateway.wait_status("/config/errors/cam", serde_json::Value::is_string);
    let error = status.as_str().unwrap();
    assert!(error.starts_with("flows.cam.outputs: ") && error.contains("rtmp-splitter"), "{error}");
    gateway.wait_value("/flows/good/state", "waiting");
}

/// RTMP to RTSP in one module, and from there to HLS in another, which pulls.
#[test]
fn a_stream_of_an_rtsp_gateway_is_pulled_into_hls_with_every_picture() {
    needs!(Ffmpeg, Ffmpeg9);
    for transport in ["tcp", "udp"] {
        let (from, between) = (rtmp(port::free(), "live/cam"), rtsp(port::free(), "live/cam"));
        let web = port::free();
        let first = gateway(&from, &between, "close");
        let hls = Module::start(
            "hls-gateway",
            &twin(json!({ "cam": {
                "input": { "pull": between, "transport": transport, "onPublisherLoss": "close" },
                "outputs": { "web": {
                    "serve": format!("http://127.0.0.1:{web}/live/cam"), "segmentSeconds": 1, "windowSeconds": 60,
                } },
            } })),
        );
        let pictures = original(Clip::Pyramid);
        let publication = PublishWith::Ffmpeg.start(Clip::Pyramid, &from);
        hls.wait_receiving("cam");
        let index = format!("http://127.0.0.1:{web}/live/cam/index.m3u8");
        wait::until_true("a playlist", wait::LONG, || {
            http::get(web, "/live/cam/index.m3u8").is_some_and(|(status, _)| status == 200)
        });
        let player = watch(Tool::Ffmpeg9, "", &index, Some(50));
        publication.finish();
        let ended = player.finish(wait::LONG);
        let who = format!("HLS from RTSP over {transport} ({})", hls.log());
        let count = must_be(&seen(&ended), &pictures, &who);
        assert!(count >= 50, "{count} pictures: {}\n{}", ended.stderr, hls.log());
        assert_eq!(hls.terminate().status.code(), Some(0));
        assert_eq!(first.terminate().status.code(), Some(0));
    }
}
