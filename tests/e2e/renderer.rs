//! The renderer on a screen and a speaker that need no hardware: what is seen and heard there is what was published.

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::module::{Module, Setup};
use av_tests::program::Program;
use av_tests::screen::{Screen, Speaker};
use av_tests::tool::Tool;
use av_tests::{needs, port, tool, wait};
use serde_json::{Value, json};

use crate::{long, rtmp, twin};

const OUTPUT: &str = "/flows/cam/outputs/screen";

/// A document of one flow that listens at `url`.
fn document(url: &str, output: Value) -> Value {
    twin(json!({ "cam": { "input": { "listen": url }, "outputs": { "screen": output } } }))
}

/// A renderer with a screen or speaker of its own, or without.
fn start(url: &str, output: Value, screen: Option<&Screen>, speaker: Option<&Speaker>) -> Module {
    let setup = Setup::new("renderer").twin(&document(url, output));
    // Not those of whoever runs the tests.
    let setup =
        setup.env("WAYLAND_DISPLAY", "").env("DISPLAY", &screen.map(Screen::name).unwrap_or_default());
    let server = speaker.map_or_else(|| "unix:/nowhere".to_owned(), Speaker::server);
    setup.env("PULSE_SERVER", &server).start()
}

/// Publishes the test card for ever, in real time.
fn publish_card(url: &str) -> Program {
    let mut command = Tool::Ffmpeg.command();
    command.args(["-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i"]).arg(tool::test_card());
    command.args(["-c", "copy", "-f", "flv", url]);
    Program::start(&mut command)
}

fn number(module: &Module, name: &str) -> u64 {
    module.status().pointer(&format!("{OUTPUT}/{name}")).and_then(Value::as_u64).unwrap_or(0)
}

/// Pictures of the test card that the module has got.
fn received(module: &Module) -> u64 {
    module.metrics().sum("av_input_frames_total", &[("kind", "video")]).unwrap_or(0.0) as u64
}

fn renders_on(module: &Module) {
    let before = number(module, "rendered");
    module.wait_status(&format!("{OUTPUT}/rendered"), |rendered| rendered.as_u64() > Some(before + 10));
}

#[test]
fn the_test_card_is_on_the_screen_and_a_card_while_nobody_publishes() {
    needs!(Ffmpeg, Xvfb, Python);
    let screen = Screen::start();
    let url = rtmp(port::free(), "live/a");
    let module = start(&url, json!({ "render": "display://x11" }), Some(&screen), None);
    let dark = |luma: &[u8]| luma.iter().all(|value| *value < 130);
    let is_card = || {
        let luma = screen.luma();
        let lit = luma.iter().filter(|value| **value > 90).count();
        // The name of the flow and a line: some thousand dots, and nothing that is bright.
        dark(&luma) && lit > 1000 && lit < luma.len() / 5
    };
    wait::until_true("there is a card before the first publisher", wait::LONG, is_card);

    let publisher = publish_card(&url);
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    let first = wait::until("the test card is read", wait::LONG, || screen.card());
    wait::until_true("its clock runs", wait::LONG, || screen.card().is_some_and(|now| now != first));
    // What is shown lies between what had come a second and a half before, and what has come since; the card has 240.
    wait::until_true("the picture is live", wait::LONG, || {
        let before = received(&module);
        let Some(shown) = screen.card() else { return false };
        let after = received(&module);
        (before.saturating_sub(45)..=after).any(|number| number % 240 == shown)
    });
    let output = module.status().pointer(OUTPUT).cloned().unwrap();
    assert_eq!((&output["sink"], &output["decoder"]["hardware"]), (&json!("x11"), &json!(false)), "{output}");
    assert!(output["lastPictureAt"].is_string() && output["delayMilliseconds"].is_u64(), "{output}");
    // Sound has a state of its own.
    let sound = module.wait_status(&format!("{OUTPUT}/audio"), |audio| audio["state"] == "failed");
    assert!(sound["error"].as_str().is_some_and(|error| error.contains("pulsesink")), "{sound}");

    drop(publisher);
    wait::until_true("the card comes back", wait::LONG, is_card);
    module.wait_value(&format!("{OUTPUT}/state"), "waiting");
    module.wait_value(&format!("{OUTPUT}/signal"), "lost");
    let _publisher = publish_card(&url);
    wait::until("the test card is there again", wait::LONG, || screen.card());
    assert_eq!(number(&module, "displayOpened"), 1);
    let ended = module.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
}

#[test]
fn whatever_is_published_is_decoded_and_counted_without_a_display() {
    needs!(Ffmpeg, Ffmpeg9, PulseAudio);
    let speaker = Speaker::start();
    let port = port::free();
    for (clip, pictures) in [
        (Clip::Plain, 150),
        (Clip::Pyramid, 150),
        (Clip::H265, 150),
        (Clip::Av1Opus, 150),
        (Clip::VideoOnly, 150),
        (Clip::AudioOnly, 0),
    ] {
        let url = rtmp(port, &format!("live/{clip:?}"));
        let module = start(&url, json!({ "render": "display://none" }), None, Some(&speaker));
        let with = if clip.tool() == Tool::Ffmpeg9 { PublishWith::Ffmpeg9 } else { PublishWith::Ffmpeg };
        let publication = with.start(clip, &url);
        module.wait_value(&format!("{OUTPUT}/state"), "rendering");
        publication.finish();
        if pictures > 0 {
            // What a decoder still holds back when its publisher goes is not shown, nor what a busy machine had too late:
            // the first decoder of a process takes seconds there.
            let least = pictures / 10;
            let shown = |rendered: &Value| (Some(least)..=Some(pictures)).contains(&rendered.as_u64());
            module.wait_status(&format!("{OUTPUT}/rendered"), shown);
        }
        let status = module.status();
        if clip != Clip::VideoOnly {
            let audio = status.pointer(&format!("{OUTPUT}/audio")).cloned().unwrap_or_default();
            assert!(audio["playedMilliseconds"].as_u64() > Some(500), "{clip:?}: {status:#}");
        }
        assert_eq!(module.log_lines("panicked"), Vec::<String>::new());
    }
}

#[test]
fn without_a_display_the_output_is_failed_with_a_reason_and_the_module_stays() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/a");
    let module = start(&url, json!({ "render": "display://default" }), None, None);
    let error = module.wait_status(&format!("{OUTPUT}/error"), Value::is_string);
    let error = error.as_str().unwrap();
    assert!(error.starts_with("flows.cam.outputs.screen.render: no display can be used: "), "{error}");
    for part in ["WAYLAND_DISPLAY is not set", "DISPLAY is not set", "KMS: "] {
        assert!(error.contains(part), "{part}: {error}");
    }
    module.wait_value(&format!("{OUTPUT}/state"), "failed");
    let _publisher = publish_card(&url);
    module.wait_receiving("cam");
    let before = received(&module);
    wait::until_true("the input goes on", wait::LONG, || received(&module) > before + 30);
    module.wait_value(&format!("{OUTPUT}/state"), "failed");
}

#[test]
fn an_x_server_that_stands_still_or_dies_is_told_of_and_the_picture_comes_back() {
    needs!(Ffmpeg, Xvfb, Python);
    let screen = Screen::start();
    let url = rtmp(port::free(), "live/a");
    let module = start(&url, json!({ "render": "display://x11", "audio": false }), Some(&screen), None);
    let _publisher = publish_card(&url);
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    screen.program().signal("STOP");
    module.wait_value(&format!("{OUTPUT}/state"), "retrying");
    module.wait_status(&format!("{OUTPUT}/error"), |error| {
        error.as_str().is_some_and(|error| error.ends_with("no picture reaches the display"))
    });
    module.wait_value(&format!("{OUTPUT}/frozen"), "display");
    module.wait_log(&["the picture is frozen", "none reaches the display"]);
    screen.program().signal("CONT");
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    renders_on(&module);

    let screen = screen.kill_and_restart();
    module.wait_log(&["flows.cam.outputs.screen.render: X11: "]);
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    wait::until("the test card is there again", wait::LONG, || screen.card());
    // The input lost nothing by it.
    assert_eq!(module.log_lines("publisher gone"), Vec::<String>::new());
}

/// Descriptors and threads of a process.
fn held(module: &Module) -> (usize, usize) {
    let of =
        |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", module.program().id())).unwrap().count();
    (of("fd"), of("task"))
}

#[test]
fn publishers_and_sizes_that_come_and_go_leave_nothing_behind() {
    needs!(Ffmpeg, Xvfb);
    let screen = Screen::start();
    let url = rtmp(port::free(), "live/a");
    let module = start(&url, json!({ "render": "display://x11", "audio": false }), Some(&screen), None);
    let round = |clip: Clip| {
        let publisher = PublishWith::Ffmpeg.start(clip, &url);
        renders_on(&module);
        drop(publisher);
        module.wait_value(&format!("{OUTPUT}/signal"), "lost");
    };
    for _ in 0..2 {
        round(Clip::Plain);
        round(Clip::Smaller);
    }
    let before = held(&module);
    for _ in 0..if long() { 100 } else { 3 } {
        round(Clip::Plain);
        round(Clip::Smaller);
    }
    // What is just ending has its time.
    wait::until_true("no more is held than before", wait::LONG, || {
        let now = held(&module);
        now.0 <= before.0 + 2 && now.1 <= before.1 + 2
    });
    assert_eq!(number(&module, "displayOpened"), 1);
}
