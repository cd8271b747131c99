//! What the renderer is given: codecs, sizes, protocols, joins, changes. Decoded, counted, and seen where that tells more.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use av_tests::clip::Clip;
use av_tests::flv::Tag;
use av_tests::module::{Module, Setup};
use av_tests::program::Program;
use av_tests::rtmp::Publisher;
use av_tests::screen::{Compositor, Screen, Speaker};
use av_tests::tool::Tool;
use av_tests::{needs, port, tool, wait};
use serde_json::{Map, Value, json};

use crate::renderer::{
    OUTPUT, flow, number, promptly, publish_card, received, renders_on, setup, start, start_on, wait_live,
    wait_reads,
};
use crate::rtsp::{rtsp, udp_ports};
use crate::{rtmp, twin};

/// What a decoder may hold back: pictures that wait for those before them.
const HELD: u64 = 16;

/// Publishes a clip over and over, in real time.
fn publish_endlessly(clip: Clip, url: &str) -> Program {
    let mut command = clip.tool().command();
    command.args(["-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i"]).arg(clip.mp4());
    command.args(["-c", "copy", "-f", "flv", url]);
    Program::start(&mut command)
}

#[test]
fn whatever_is_published_is_decoded_and_every_picture_is_accounted_for() {
    needs!(Ffmpeg, Ffmpeg9, PulseAudio);
    let (speaker, port) = (Speaker::start(), port::free());
    let clips = [
        Clip::Plain,
        Clip::Pyramid,
        Clip::H265,
        Clip::Av1Opus,
        Clip::OddSize,
        Clip::VideoOnly,
        Clip::AudioOnly,
    ];
    let url = |clip: Clip| rtmp(port, &format!("live/{clip:?}"));
    let flows: Map<String, Value> = clips
        .into_iter()
        .map(|clip| {
            let input = json!({ "listen": url(clip) });
            (format!("{clip:?}").to_lowercase(), flow(input, json!({ "render": "display://none" })))
        })
        .collect();
    let module = setup(flows.into(), None, Some(&speaker)).start();
    for clip in clips {
        wait_reads(&module, &format!("{clip:?}").to_lowercase());
    }
    let publishers: Vec<Program> = clips.iter().map(|clip| publish_endlessly(*clip, &url(*clip))).collect();
    let at = |clip: Clip, what: &str| {
        let name = format!("{clip:?}").to_lowercase();
        format!("/flows/{name}/outputs/screen/{what}")
    };
    for clip in clips {
        module.wait_value(&at(clip, "state"), "rendering");
        if clip != Clip::AudioOnly {
            module.wait_status(&at(clip, "rendered"), |rendered| rendered.as_u64() > Some(50));
        }
        if !matches!(clip, Clip::VideoOnly | Clip::OddSize) {
            module.wait_value(&at(clip, "audio/state"), "playing");
            module.wait_status(&at(clip, "audio/playedMilliseconds"), |played| played.as_u64() > Some(1000));
        }
    }
    drop(publishers);
    for clip in clips.into_iter().filter(|clip| *clip != Clip::AudioOnly) {
        module.wait_value(&at(clip, "signal"), "lost");
        wait::until_true("every picture that came was shown or counted as dropped", wait::LONG, || {
            let name = format!("{clip:?}").to_lowercase();
            let labels = [("flow", name.as_str()), ("kind", "video")];
            let metrics = module.metrics();
            let sum = |series: &str| metrics.sum(series, &labels).unwrap_or(0.0) as u64;
            let came = sum("av_input_frames_total");
            let rendered =
                module.status().pointer(&at(clip, "rendered")).and_then(Value::as_u64).unwrap_or(0);
            let ended = rendered + sum("av_output_frames_dropped_total");
            assert!(metrics.sum("av_render_delay_milliseconds", &labels[..1]) >= Some(200.0));
            let is_told = metrics.sum("av_pictures_rendered_total", &labels[..1]) == Some(rendered as f64);
            is_told && came > 50 && ended <= came && came - ended <= HELD
        });
    }
    assert_eq!(module.log_lines("panicked"), Vec::<String>::new());
}

#[test]
fn a_window_is_as_large_as_the_picture() {
    needs!(Ffmpeg, Xvfb);
    let screen = Screen::start();
    let url = rtmp(port::free(), "live/a");
    let output = json!({ "render": "display://x11", "audio": false, "fullscreen": false });
    let module = start(&url, output, Some(&screen), None);
    module.wait_status("/flows/cam/outputs/screen/displayOpened", |opened| opened.as_u64() > Some(0));
    let _publisher = publish_card(&url);
    // The test card is 640x360; scaled, or in another place, nobody could read its number here.
    wait::until_true("a window of the card's size", wait::LONG, || {
        screen.card_in("crop=640:360:0:0").is_some()
    });
}

/// How alike the picture on a screen has to be to one that was published: a row that begins one pixel later each time
/// leaves less than half of it.
const ALIKE: f64 = 0.95;

#[test]
fn a_size_that_no_block_divides_and_unusual_colour_values_are_seen_on_an_x_server_as_they_were_published() {
    needs!(Ffmpeg, Xvfb);
    let screen = Screen::start();
    let url = rtmp(port::free(), "live/a");
    let output = json!({ "render": "display://x11", "audio": false, "fullscreen": false });
    let module = start(&url, output, Some(&screen), None);
    let _publisher = publish_endlessly(Clip::OddSize, &url);
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    wait::until_true("a picture of the clip is in the window", wait::LONG, || {
        let likeness = screen.likeness("crop=314:178:0:0", Clip::OddSize);
        eprintln!("{likeness:.3}");
        likeness > ALIKE
    });
    assert!(
        screen.likeness("crop=314:178:0:0,rotate=0.05", Clip::OddSize) < ALIKE,
        "the measure tells nothing"
    );
}

#[test]
fn a_size_that_no_block_divides_and_unusual_colour_values_are_seen_on_wayland_as_they_were_published() {
    needs!(Ffmpeg, Xvfb, Weston);
    let screen = Screen::start();
    let compositor = Compositor::start(&screen);
    let url = rtmp(port::free(), "live/a");
    let module = start_on(&compositor, &url);
    let _publisher = publish_endlessly(Clip::OddSize, &url);
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    // As high as the screen, with a border of five pixels on each side.
    let filter = "crop=1270:720:5:0,scale=314:178:flags=area";
    wait::until_true("a picture of the clip is on the screen", wait::LONG, || {
        let likeness = screen.likeness(filter, Clip::OddSize);
        eprintln!("{likeness:.3}");
        likeness > ALIKE
    });
}

#[test]
fn whatever_the_latency_no_decoder_is_blamed_for_pictures_that_wait() {
    needs!(Ffmpeg);
    let port = port::free();
    let latencies = [0, 3500, 5000];
    let flows = latencies.map(|latency| {
        let output = json!({ "render": "display://none", "audio": false, "latencyMilliseconds": latency });
        let url = rtmp(port, &format!("live/after{latency}"));
        (format!("after{latency}"), flow(json!({ "listen": url }), output))
    });
    let module = setup(Map::from_iter(flows).into(), None, None).start();
    let _publishers = latencies
        .map(|latency| publish_endlessly(Clip::Pyramid, &rtmp(port, &format!("live/after{latency}"))));
    for latency in latencies {
        let at = |what: &str| format!("/flows/after{latency}/outputs/screen/{what}");
        module.wait_value(&at("state"), "rendering");
        module.wait_status(&at("rendered"), |rendered| rendered.as_u64() > Some(200));
        module.wait_value(&at("decoder/element"), "avdec_h264");
    }
    for said in ["the decoder is restarted", "pictureFrozen", "panicked"] {
        assert_eq!(module.log_lines(said), Vec::<String>::new());
    }
}

/// The tags of a clip from `start` milliseconds on.
pub(crate) fn from(clip: Clip, start: u32) -> Vec<Tag> {
    let tags = clip.tags().into_iter().filter(|tag| tag.kind != 18);
    tags.map(|tag| Tag { timestamp: tag.timestamp + start, ..tag }).collect()
}

#[test]
fn size_and_codec_change_in_the_middle_of_a_stream_and_the_window_stays() {
    needs!(Ffmpeg, Ffmpeg9, Xvfb);
    let screen = Screen::start();
    let url = rtmp(port::free(), "live/a");
    let module = start(&url, json!({ "render": "display://x11", "audio": false }), Some(&screen), None);
    let rounds = [(Clip::Smaller, 3040_u32), (Clip::Plain, 6040), (Clip::H265, 6040)];
    let mut publisher = Publisher::to(&url);
    let enough = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut time = 0;
            for (clip, length) in rounds.iter().cycle() {
                if enough.load(Ordering::Relaxed) {
                    return;
                }
                publisher.play_out(&from(*clip, time)).unwrap();
                time += length;
            }
        });
        // Also when something below fails, since the scope waits for its thread.
        let _ends = Ends(&enough);
        for (width, element) in
            [(160, "avdec_h264"), (320, "avdec_h264"), (320, "avdec_h265"), (160, "avdec_h264")]
        {
            module.wait_status("/flows/cam", |flow| {
                flow["input"]["video"]["width"] == width
                    && flow["outputs"]["screen"]["decoder"]["element"] == element
                    && flow["outputs"]["screen"]["renderedFps"].as_u64() > Some(4)
            });
        }
    });
    assert_eq!(number(&module, "displayOpened"), 1);
    assert_eq!(module.log_lines("panicked"), Vec::<String>::new());
}

/// Sets a flag when it goes.
pub(crate) struct Ends<'a>(pub(crate) &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_stream_that_is_joined_in_the_middle_of_a_long_gop_is_shown_at_once_and_live() {
    needs!(Ffmpeg, Xvfb, Python);
    let (screen, port) = (Screen::start(), port::free());
    let (url, edge) = (rtmp(port, "live/instant"), rtmp(port, "live/edge"));
    let outputs = json!({ "instant": { "serve": url }, "edge": { "serve": edge, "join": "edge" } });
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": { "input": { "listen": url }, "outputs": outputs } })),
    );
    // A GOP of sixteen seconds.
    let mut command = Tool::Ffmpeg.command();
    command.args(["-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i"]).arg(tool::test_card());
    command.args(["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "480"]);
    command.args(["-keyint_min", "480", "-sc_threshold", "0", "-c:a", "copy", "-f", "flv", &url]);
    let _publisher = Program::start(&mut command);
    // As many as no picture can be behind that is taken for live: the card's numbers begin again after 240.
    wait::until_true("fourteen seconds have been published", wait::LONG, || received(&splitter) > 420);

    let output = |display: &str| json!({ "render": display, "audio": false });
    let flows = json!({
        "cam": flow(json!({ "pull": url }), output("display://x11")),
        "edge": flow(json!({ "pull": edge }), output("display://none")),
    });
    let module = setup(flows, Some(&screen), None).start();
    // By what is on the screen: the module got the stream from its first picture on.
    promptly("a stream that is joined in the middle of a long GOP is live", || wait_live(&screen, &module));
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    for _ in 0..2 {
        renders_on(&module);
    }
    let squeezed = || {
        let status = module.status();
        status.pointer("/flows/edge/outputs/screen/rendered").and_then(Value::as_u64).unwrap_or(0)
    };
    let before = squeezed();
    wait::until_true("the squeezed one goes on too", wait::LONG, || squeezed() > before + 30);
}

#[test]
fn a_stream_that_is_pulled_by_rtsp_is_shown_and_heard() {
    needs!(Ffmpeg, Xvfb, PulseAudio, Python);
    let (screen, speaker) = (Screen::start(), Speaker::start());
    let (from, to) = (rtmp(port::free(), "live/cam"), rtsp(port::free(), "cam"));
    let _gateway = Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": { "listen": from },
            "outputs": { "viewers": { "serve": to, "udpPorts": udp_ports() } },
        } })),
    );
    let _publisher = publish_card(&from);
    let flows = json!({ "cam": flow(json!({ "pull": to }), json!({ "render": "display://x11" })) });
    let module = setup(flows, Some(&screen), Some(&speaker)).start();
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    module.wait_value(&format!("{OUTPUT}/audio/state"), "playing");
    let first = wait::until("the test card is read", wait::LONG, || screen.card());
    wait::until_true("its clock runs", wait::LONG, || screen.card().is_some_and(|now| now != first));
}

/// A folder of links to GStreamer's plugins, except those that begin with one of these names.
fn plugins_without(setup: &Setup, names: &[&str]) -> (std::path::PathBuf, std::path::PathBuf) {
    let asked = Program::run(
        std::process::Command::new("pkg-config").args(["--variable=pluginsdir", "gstreamer-1.0"]),
        wait::LONG,
    );
    let (all, some) = (Path::new(asked.stdout.trim()).to_owned(), setup.dir().join("plugins"));
    std::fs::create_dir(&some).unwrap();
    for entry in std::fs::read_dir(&all).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !names.iter().any(|left_out| name.starts_with(left_out)) {
            symlink(all.join(&name), some.join(&name)).unwrap();
        }
    }
    (all, some)
}

#[test]
fn a_decoder_that_is_not_installed_is_named_with_its_package_and_used_once_it_is_there() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/a");
    let output = json!({ "render": "display://none", "audio": false });
    let setup = setup(json!({ "cam": flow(json!({ "listen": url }), output) }), None, None);
    // All that decodes H.264 on some machine.
    let (all, some) =
        plugins_without(&setup, &["libgstlibav", "libgstopenh264", "libgstva", "libgstvideo4linux2"]);
    let registry = setup.dir().join("registry").display().to_string();
    let setup = setup.env("GST_PLUGIN_SYSTEM_PATH_1_0", &some.display().to_string());
    let module = setup.env("GST_REGISTRY_1_0", &registry).start();
    // One key frame, and then none for as long as this lasts: the decoder begins at it although it is long past.
    let mut command = Tool::Ffmpeg.command();
    command.args(["-v", "error", "-nostdin", "-re", "-f", "lavfi", "-i", "testsrc=s=320x180:r=15"]);
    command.args(["-c:v", "libx264", "-preset", "ultrafast", "-g", "100000", "-sc_threshold", "0"]);
    let _publisher = Program::start(command.args(["-f", "flv", &url]));
    module.wait_value(&format!("{OUTPUT}/state"), "failed");
    let error = module.wait_status(&format!("{OUTPUT}/error"), Value::is_string);
    let wanted = "can't be decoded: the GStreamer element `avdec_h264` is missing; install the Debian package \
                  gstreamer1.0-libav";
    assert!(error.as_str().unwrap().ends_with(wanted), "{error}");
    symlink(all.join("libgstlibav.so"), some.join("libgstlibav.so")).unwrap();
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    renders_on(&module);
}

#[test]
fn what_a_window_needs_is_named_with_its_package_and_used_once_it_is_there() {
    needs!(Xvfb);
    let screen = Screen::start();
    let output = json!({ "render": "display://x11", "audio": false });
    let setup = setup(
        json!({ "cam": flow(json!({ "listen": rtmp(port::free(), "live/a") }), output) }),
        Some(&screen),
        None,
    );
    let (all, some) = plugins_without(&setup, &["libgstvideoconvert", "libgstvideoscale"]);
    let registry = setup.dir().join("registry").display().to_string();
    let setup = setup.env("GST_PLUGIN_SYSTEM_PATH_1_0", &some.display().to_string());
    let module = setup.env("GST_REGISTRY_1_0", &registry).start();
    let error = module.wait_status(&format!("{OUTPUT}/error"), Value::is_string);
    let wanted = "the GStreamer element `videoconvert` is missing; install the Debian package \
                  gstreamer1.0-plugins-base";
    assert!(error.as_str().unwrap().ends_with(wanted), "{error}");
    for entry in std::fs::read_dir(&all).unwrap() {
        let name = entry.unwrap().file_name();
        if !some.join(&name).exists() {
            symlink(all.join(&name), some.join(&name)).unwrap();
        }
    }
    module.wait_status(&format!("{OUTPUT}/displayOpened"), |opened| opened.as_u64() > Some(0));
    module.wait_value(&format!("{OUTPUT}/state"), "waiting");
}

#[test]
fn a_picture_that_stands_still_is_told_of_with_where_it_stands() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/a");
    let module = start(&url, json!({ "render": "display://none", "audio": false }), None, None);
    let mut command = Tool::Ffmpeg.command();
    command.args(["-v", "error", "-nostdin", "-re", "-f", "lavfi", "-i", "color=c=teal:s=320x180:r=25"]);
    command.args(["-c:v", "libx264", "-preset", "ultrafast", "-g", "50", "-f", "flv", &url]);
    let publisher = Program::start(&mut command);
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    module.wait_log(&["pictureFrozen: the publisher repeats one picture"]);
    module.wait_value(&format!("{OUTPUT}/frozen"), "publisher");
    // It stays connected, and sends nothing.
    publisher.signal("STOP");
    module.wait_log(&["the picture is frozen: the publisher is connected, but no pictures arrive"]);
    drop(publisher);
    let _publisher = publish_card(&url);
    module.wait_log(&["the picture is no longer frozen"]);
    module.wait_status(&format!("{OUTPUT}/frozen"), Value::is_null);
}
