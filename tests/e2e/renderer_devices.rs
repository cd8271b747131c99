//! The renderer where devices misbehave: decoders whose drivers hang, screens that change, go dark or go to sleep.

use std::process::Command;

use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::program::Program;
use av_tests::rtmp::Publisher;
use av_tests::screen::Screen;
use av_tests::tool::{self, Tool};
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::renderer::{OUTPUT, flow, number, publish_card, received, renders_on, setup, start, wait_reads};
use crate::renderer_streams::from;
use crate::rtmp;

/// What a decoder may hold back: pictures that wait for those before them.
const HELD: u64 = 16;

/// A renderer of what comes to `url`, whose first way to decode H.264 is the decoder of `tests/decoder`, with such a
/// driver.
fn with_hardware(url: &str, driver: &str) -> Module {
    let output = json!({ "render": "display://none", "audio": false });
    let setup = setup(json!({ "cam": flow(json!({ "listen": url }), output) }), None, None);
    let plugins = setup.dir().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let flags =
        Program::run(Command::new("pkg-config").args(["--cflags", "--libs", "gstreamer-1.0"]), wait::LONG);
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(plugins.join("libgsthardware.so"));
    compile.arg(tool::tests_dir().join("decoder/vah264dec.c")).args(flags.stdout.split_whitespace());
    let compiled = Program::run(&mut compile, wait::LONG);
    assert!(compiled.status.success(), "{}", compiled.stderr);
    let registry = setup.dir().join("registry").display().to_string();
    let setup = setup.env("GST_PLUGIN_PATH_1_0", &plugins.display().to_string());
    let module = setup.env("GST_REGISTRY_1_0", &registry).env("AV_DRIVER", driver).start();
    wait_reads(&module, "cam");
    module
}

/// A stream with one key frame and no other.
fn publish_one_key_frame(url: &str) -> Program {
    let mut command = Tool::Ffmpeg.command();
    command.args(["-v", "error", "-nostdin", "-re", "-f", "lavfi", "-i", "testsrc=s=320x180:r=15"]);
    command.args(["-c:v", "libx264", "-preset", "ultrafast", "-g", "100000", "-sc_threshold", "0"]);
    Program::start(command.args(["-f", "flv", url]))
}

/// Until software decodes; `why` is what hangs.
fn gives_way(module: &Module, why: &str) {
    let decoder = module.wait_status(&format!("{OUTPUT}/decoder"), |decoder| {
        decoder["element"].as_str() == Some("avdec_h264")
    });
    let told = decoder["insteadOf"].as_str().unwrap_or_default();
    assert!(told.ends_with(why), "{decoder}");
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    renders_on(module);
    // It is not tried in its other way.
    assert_eq!(module.log_lines("hangs while it").len(), 1);
}

/// Every picture is shown or counted as dropped, and none twice.
fn each_picture_counts_once(module: &Module) {
    module.wait_value(&format!("{OUTPUT}/signal"), "lost");
    wait::until_true("every picture that came was shown or counted as dropped", wait::LONG, || {
        let metrics = module.metrics();
        let dropped = metrics.sum("av_output_frames_dropped_total", &[("kind", "video")]).unwrap_or(0.0);
        let (came, ended) = (received(module), number(module, "rendered") + dropped as u64);
        assert!(ended <= came, "{ended} of {came}");
        came - ended <= HELD
    });
}

#[test]
fn a_decoder_that_hangs_while_it_starts_gives_way_to_software() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/a");
    let module = with_hardware(&url, "start");
    let publisher = publish_one_key_frame(&url);
    // The output is not held up meanwhile.
    module.wait_log(&["the picture is frozen: pictures arrive, but the decoder outputs none"]);
    gives_way(&module, "vah264dec hangs while it starts");
    drop(publisher);
    each_picture_counts_once(&module);
    let ended = module.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
}

#[test]
fn a_decoder_that_stops_and_hangs_while_it_ends_gives_way_to_software_and_no_picture_counts_twice() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/a");
    let module = with_hardware(&url, "end");
    let publisher = publish_one_key_frame(&url);
    let decoder = format!("{OUTPUT}/decoder/element");
    module.wait_value(&decoder, "vah264dec");
    module.wait_status(&format!("{OUTPUT}/rendered"), |rendered| rendered.as_u64() > Some(40));
    gives_way(&module, "vah264dec hangs while it ends");
    drop(publisher);
    each_picture_counts_once(&module);
    let ended = module.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
}

#[test]
fn hardware_with_room_for_one_decoder_goes_on_when_the_size_changes() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/a");
    let module = with_hardware(&url, "alone");
    let mut publisher = Publisher::to(&url);
    let mut time = 0;
    for (clip, length, width) in
        [(Clip::Smaller, 3040, 160), (Clip::Plain, 6040, 320), (Clip::Smaller, 3040, 160)]
    {
        publisher.play_out(&from(clip, time)).unwrap();
        time += length;
        module.wait_value("/flows/cam/input/video/width", width);
        module.wait_value(&format!("{OUTPUT}/decoder/element"), "vah264dec");
    }
    assert_eq!(module.log_lines("vah264dec").len(), 3);
    assert_eq!(module.log_lines("in software"), Vec::<String>::new());
    drop(publisher);
    each_picture_counts_once(&module);
}

#[test]
fn a_full_screen_follows_the_screens_size_and_is_failed_while_the_output_is_off() {
    needs!(Ffmpeg, Xorg, Xrandr, Python);
    let mut screen = Screen::start_changeable();
    let url = rtmp(port::free(), "live/a");
    let module = start(&url, json!({ "render": "display://x11", "audio": false }), Some(&screen), None);
    let _publisher = publish_card(&url);
    for size in [(1280, 720), (640, 360), (1280, 720)] {
        screen.change_size(size);
        wait::until("the test card fills the screen", wait::LONG, || screen.card());
    }
    assert_eq!(number(&module, "displayOpened"), 1);
    screen.switch_off();
    module.wait_value(&format!("{OUTPUT}/state"), "failed");
    let error = module.wait_status(&format!("{OUTPUT}/error"), Value::is_string);
    let wanted = "X11: the server has switched its outputs off (DUMMY0); `xrandr --auto` switches them on";
    assert!(error.as_str().unwrap().ends_with(wanted), "{error}");
    screen.change_size((960, 540));
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    wait::until("the test card is there again", wait::LONG, || screen.card());
    assert_eq!(module.log_lines("publisher gone"), Vec::<String>::new());
}

#[test]
fn a_cell_of_a_grid_follows_the_screens_size() {
    needs!(Ffmpeg, Xorg, Xrandr, Python);
    let mut screen = Screen::start_changeable();
    let url = rtmp(port::free(), "live/a");
    let layout = json!({ "row": 2, "column": 2, "rows": 2, "columns": 2 });
    let output = json!({ "render": "display://x11", "audio": false, "layout": layout });
    let module = start(&url, output, Some(&screen), None);
    let _publisher = publish_card(&url);
    for size in [(1280, 720), (960, 540)] {
        screen.change_size(size);
        wait::until("the test card fills its cell", wait::LONG, || {
            screen.card_in("crop=iw/2:ih/2:iw/2:ih/2")
        });
    }
    assert_eq!(number(&module, "displayOpened"), 1);
}

#[test]
fn a_screen_is_not_blanked_while_something_is_rendered_and_as_its_user_wants_it_after_that() {
    needs!(Ffmpeg, Xorg, Xrandr);
    let screen = Screen::start_changeable();
    screen.blank_after(1);
    wait::until_true("it is blanked while nobody does anything", wait::LONG, || {
        screen.is_blank() == (true, 1)
    });
    let url = rtmp(port::free(), "live/a");
    let module = start(&url, json!({ "render": "display://x11", "audio": false }), Some(&screen), None);
    let _publisher = publish_card(&url);
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    // More than a hundred pictures: some seconds.
    for _ in 0..12 {
        assert_eq!(screen.is_blank(), (false, 1));
        renders_on(&module);
    }
    drop(module);
    wait::until_true("it is blanked again", wait::LONG, || screen.is_blank() == (true, 1));
}
