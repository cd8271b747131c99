//! The renderer on a screen that needs no hardware: what is seen there is what was published.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::edge::Edge;
use av_tests::module::{Module, Setup};
use av_tests::program::Program;
use av_tests::screen::{Compositor, SIZE, Screen, Speaker};
use av_tests::tool::Tool;
use av_tests::{needs, port, tool, wait};
use font8x8::{BASIC_FONTS, UnicodeFonts};
use serde_json::{Value, json};

use crate::{long, rtmp, twin};

pub(crate) const OUTPUT: &str = "/flows/cam/outputs/screen";

/// A flow with one output, from `input`.
pub(crate) fn flow(input: Value, output: Value) -> Value {
    json!({ "input": input, "outputs": { "screen": output } })
}

/// A renderer of these flows with a screen or speaker of its own, or without.
pub(crate) fn setup(flows: Value, screen: Option<&Screen>, speaker: Option<&Speaker>) -> Setup {
    let setup = Setup::new("renderer").twin(&twin(flows));
    // Not those of whoever runs the tests.
    let setup =
        setup.env("WAYLAND_DISPLAY", "").env("DISPLAY", &screen.map(Screen::name).unwrap_or_default());
    let server = speaker.map_or_else(|| "unix:/nowhere".to_owned(), Speaker::server);
    setup.env("PULSE_SERVER", &server)
}

/// A renderer of one flow, `cam`, that listens at `url`.
pub(crate) fn start(url: &str, output: Value, screen: Option<&Screen>, speaker: Option<&Speaker>) -> Module {
    setup(json!({ "cam": flow(json!({ "listen": url }), output) }), screen, speaker).start()
}

/// The same, silent, on a Wayland compositor.
pub(crate) fn start_on(compositor: &Compositor, url: &str) -> Module {
    let output = json!({ "render": "display://wayland", "audio": false });
    let setup = setup(json!({ "cam": flow(json!({ "listen": url }), output) }), None, None);
    setup.env("WAYLAND_DISPLAY", &compositor.socket().display().to_string()).start()
}

/// Publishes the test card for ever, in real time.
pub(crate) fn publish_card(url: &str) -> Program {
    let mut command = Tool::Ffmpeg.command();
    command.args(["-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i"]).arg(tool::test_card());
    command.args(["-c", "copy", "-f", "flv", url]);
    Program::start(&mut command)
}

/// A number that the output tells of itself.
pub(crate) fn number(module: &Module, name: &str) -> u64 {
    module.status().pointer(&format!("{OUTPUT}/{name}")).and_then(Value::as_u64).unwrap_or(0)
}

/// Waits until the output of `flow` reads its stream, which takes the first one of a module a second or more: what was
/// published before that is none of its pictures.
pub(crate) fn wait_reads(module: &Module, flow: &str) {
    module.wait_value(&format!("/flows/{flow}/outputs/screen/signal"), "lost");
}

/// Pictures of the test card that the module has got.
pub(crate) fn received(module: &Module) -> u64 {
    module.metrics().sum("av_input_frames_total", &[("kind", "video")]).unwrap_or(0.0) as u64
}

/// Waits for more pictures on the display.
pub(crate) fn renders_on(module: &Module) {
    let before = number(module, "rendered");
    module.wait_status(&format!("{OUTPUT}/rendered"), |rendered| rendered.as_u64() > Some(before + 10));
}

/// What takes a few seconds, as docs/rendering.md has it: more on a busy machine, and much more by a wrong design.
const PROMPT: Duration = Duration::from_secs(15);

/// Prints how long something takes, which is to be soon.
pub(crate) fn promptly(what: &str, happens: impl FnOnce()) {
    let since = Instant::now();
    happens();
    let took = since.elapsed();
    eprintln!("{what}: {:.1} s", took.as_secs_f64());
    assert!(took < PROMPT, "{what}: {took:?}");
}

/// What is shown lies between what had come three seconds before and what has come since: a busy machine has up to two
/// seconds added. The card has 240 numbers. Only for a module that has got the card from its first picture on.
pub(crate) fn wait_live(screen: &Screen, module: &Module) {
    wait::until_true("the picture is live", wait::LONG, || {
        let before = received(module);
        let Some(shown) = screen.card() else { return false };
        let after = received(module);
        (before.saturating_sub(90)..=after).any(|number| number % 240 == shown)
    });
}

#[test]
fn the_test_card_is_on_the_screen_and_a_card_while_nobody_publishes() {
    needs!(Ffmpeg, Xvfb, Python);
    let screen = Screen::start();
    let url = rtmp(port::free(), "live/a");
    let module = start(&url, json!({ "render": "display://x11" }), Some(&screen), None);
    let nothing = |since: Option<(SystemTime, SystemTime)>| {
        let lines = written_on(SIZE.0, &screen.luma());
        let Some((name, sentence)) = lines.as_ref().and_then(|lines| Some((lines.first()?, lines.get(1)?)))
        else {
            return false;
        };
        assert_eq!(name.trim(), "cam");
        let time = sentence.strip_prefix("no signal since ").unwrap_or_else(|| panic!("{sentence:?}"));
        // The second in which it says that the signal went, among those in which it can have.
        since.is_none_or(|(from, to)| {
            let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            let mut possible = (seconds(from)..=seconds(to)).map(|second| second % 86_400);
            possible.any(|second| {
                time == format!("{:02}:{:02}:{:02} UTC", second / 3600, second / 60 % 60, second % 60)
            })
        })
    };
    let begun = SystemTime::now() - Duration::from_secs(60);
    wait::until_true("there is a card before the first publisher", wait::LONG, || {
        nothing(Some((begun, SystemTime::now())))
    });

    let publisher = publish_card(&url);
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    let first = wait::until("the test card is read", wait::LONG, || screen.card());
    wait::until_true("its clock runs", wait::LONG, || screen.card().is_some_and(|now| now != first));
    wait_live(&screen, &module);
    let output = module.status().pointer(OUTPUT).cloned().unwrap();
    assert_eq!((&output["sink"], &output["decoder"]["hardware"]), (&json!("x11"), &json!(false)), "{output}");
    assert!(output["lastPictureAt"].is_string() && output["delayMilliseconds"].is_u64(), "{output}");
    // Sound has a state of its own.
    let sound = module.wait_status(&format!("{OUTPUT}/audio"), |audio| audio["state"] == "failed");
    assert!(sound["error"].as_str().is_some_and(|error| error.contains("pulsesink")), "{sound}");
    // What is wrong with it is told in the twin, too, which has no such details.
    let error = module.wait_status(&format!("{OUTPUT}/error"), Value::is_string);
    assert!(error.as_str().unwrap().contains("there is no sound: "), "{error}");
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    let delays = module.metrics().sum("av_output_latency_seconds_count", &[("protocol", "display")]);
    assert!(delays > Some(0.0), "{delays:?}");

    let before = SystemTime::now();
    drop(publisher);
    wait::until_true("the card comes back, and says since when", wait::LONG, || {
        nothing(Some((before, SystemTime::now())))
    });
    module.wait_value(&format!("{OUTPUT}/state"), "waiting");
    module.wait_value(&format!("{OUTPUT}/signal"), "lost");
    let _publisher = publish_card(&url);
    wait::until("the test card is there again", wait::LONG, || screen.card());
    assert_eq!(number(&module, "displayOpened"), 1);
    let ended = module.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
}

/// The lines of the renderer's card, read off the screen: each dot of its letters is a square of so many pixels.
pub(crate) fn written_on(width: u32, luma: &[u8]) -> Option<Vec<String>> {
    let width = width as usize;
    let lit: Vec<(usize, usize)> = luma
        .iter()
        .enumerate()
        .filter(|(_, value)| **value > 60)
        .map(|(at, _)| (at % width, at / width))
        .collect();
    // What is bright is no card.
    if lit.is_empty() || luma.iter().any(|value| *value > 130) {
        return None;
    }
    // As wide as two thirds of the screen, by its longest line.
    let longest = "no signal since 00:00:00 UTC".len();
    let scale = width * 2 / 3 / (longest * 8);
    let (left, top) = (lit.iter().map(|at| at.0).min()?, lit.iter().map(|at| at.1).min()?);
    let dot = |x: usize, y: usize| luma.get(y * width + x).is_some_and(|value| *value > 60);
    let letter = |x: usize, y: usize| {
        let glyph: [u8; 8] = std::array::from_fn(|row| {
            (0..8)
                .filter(|column| dot(x + column * scale + scale / 2, y + row * scale + scale / 2))
                .fold(0, |bits, column| bits | 1 << column)
        });
        (' '..='~').find(|letter| BASIC_FONTS.get(*letter) == Some(glyph))
    };
    let line = |x: usize, y: usize| (0..longest).map(|at| letter(x + at * 8 * scale, y)).collect();
    // The first letters may have free columns and rows.
    let corners = (0..8).flat_map(|x| (0..8).map(move |y| (x * scale, y * scale)));
    let corners = corners.filter(|(x, y)| *x <= left && *y <= top).map(|(x, y)| (left - x, top - y));
    corners.into_iter().find_map(|(x, y)| {
        let lines: Option<Vec<String>> =
            (0..2).map(|number| line(x, y + number * 12 * scale)).collect::<Option<Vec<String>>>();
        lines.filter(|lines| lines[1].starts_with("no signal since "))
    })
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
    promptly("that an X server stands still is told", || {
        module.wait_value(&format!("{OUTPUT}/state"), "retrying");
    });
    module.wait_status(&format!("{OUTPUT}/error"), |error| {
        error.as_str().is_some_and(|error| error.ends_with("no picture reaches the display"))
    });
    module.wait_value(&format!("{OUTPUT}/frozen"), "display");
    module.wait_log(&["the picture is frozen", "none reaches the display"]);
    screen.program().signal("CONT");
    promptly("the picture is back on an X server that goes on", || {
        module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    });
    renders_on(&module);

    let screen = screen.kill_and_restart(|| {
        module.wait_value(&format!("{OUTPUT}/state"), "failed");
        module.wait_status(&format!("{OUTPUT}/error"), |error| {
            error.as_str().is_some_and(|error| error.contains("is the X server running"))
        });
    });
    promptly("the picture is back on an X server that was started again", || {
        module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    });
    module.wait_log(&["flows.cam.outputs.screen.render: X11: "]);
    wait::until("the test card is there again", wait::LONG, || screen.card());
    // The input lost nothing by it.
    assert_eq!(module.log_lines("publisher gone"), Vec::<String>::new());
}

#[test]
fn a_wayland_compositor_that_comes_goes_and_comes_back_has_the_picture() {
    needs!(Ffmpeg, Xvfb, Weston, Python);
    let screen = Screen::start();
    let compositor = Compositor::start(&screen);
    let url = rtmp(port::free(), "live/a");
    let module = start_on(&compositor, &url);
    let _publisher = publish_card(&url);
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    module.wait_value(&format!("{OUTPUT}/sink"), "waylandsink");
    let first = wait::until("the test card is read", wait::LONG, || screen.card());
    wait::until_true("its clock runs", wait::LONG, || screen.card().is_some_and(|now| now != first));
    // It would take pictures for ever, and show none.
    compositor.program().signal("STOP");
    promptly("that a compositor stands still is told", || {
        module.wait_value(&format!("{OUTPUT}/state"), "failed");
    });
    module.wait_status(&format!("{OUTPUT}/error"), |error| {
        error.as_str().is_some_and(|error| error.ends_with("does not answer"))
    });
    compositor.program().signal("CONT");
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    let first = wait::until("the test card is read again", wait::LONG, || screen.card());
    wait::until_true("its clock goes on", wait::LONG, || screen.card().is_some_and(|now| now != first));
    let _compositor = compositor.kill_and_restart(&screen, || {
        module.wait_value(&format!("{OUTPUT}/state"), "failed");
    });
    promptly("the picture is back on a compositor that was started again", || {
        module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    });
    wait::until("the test card is there again", wait::LONG, || screen.card());
    assert_eq!(module.log_lines("publisher gone"), Vec::<String>::new());
}

/// Descriptors and threads of a process.
pub(crate) fn held(module: &Module) -> (usize, usize) {
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
    let memory = module.program().resident_bytes();
    // Twice as many publishers, each with another size than the one before.
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
    let more = module.program().resident_bytes().saturating_sub(memory);
    eprintln!(
        "descriptors and threads: {before:?}, then {:?}; {more} bytes more than {memory}",
        held(&module)
    );
    assert!(more < 30_000_000, "{more} bytes more");
}

#[test]
fn four_flows_share_a_screen_and_each_is_turned_another_way() {
    needs!(Ffmpeg, Xvfb, Python);
    let (screen, port) = (Screen::start(), port::free());
    // By how much it is turned, and what turns it back.
    let cells = [(0, "null"), (90, "transpose=cclock"), (180, "hflip,vflip"), (270, "transpose=clock")];
    let name = |rotate: u32| format!("by{rotate}");
    let url = |rotate: u32| rtmp(port, &format!("live/{}", name(rotate)));
    let flows = cells.iter().enumerate().map(|(index, (rotate, _))| {
        let output = json!({
            "render": "display://x11", "audio": false, "rotate": rotate,
            "layout": { "row": index / 2 + 1, "column": index % 2 + 1, "rows": 2, "columns": 2 },
        });
        (name(*rotate), flow(json!({ "listen": url(*rotate) }), output))
    });
    let module = setup(Value::Object(flows.collect()), Some(&screen), None).start();
    // Four decoders at once are much for a busy machine: without the long cases one after the other.
    let _publishers = long().then(|| cells.map(|(rotate, _)| publish_card(&url(rotate))));
    for (index, (rotate, back)) in (0..).zip(cells) {
        let _publisher = (!long()).then(|| publish_card(&url(rotate)));
        module.wait_value(&format!("/flows/{}/outputs/screen/state", name(rotate)), "rendering");
        let (x, y) = (index % 2 * (SIZE.0 / 2), index / 2 * (SIZE.1 / 2));
        let filter = format!("crop=iw/2:ih/2:{x}:{y},{back}");
        let first = wait::until("the test card is read", wait::LONG, || screen.card_in(&filter));
        wait::until_true("its clock runs", wait::LONG, || {
            screen.card_in(&filter).is_some_and(|now| now != first)
        });
    }
}

#[test]
fn the_test_card_goes_from_its_file_by_the_splitter_to_the_screen_under_local_edge() {
    needs!(Ffmpeg, Xvfb, Python);
    let _alone = crate::local_edge::alone();
    let screen = Screen::start();
    let edge = Edge::start_repository_on(&screen.name());
    wait::until("the test card is on the screen", wait::LONG * 2, || screen.card());
    let state = || {
        let status = edge.status_pages("renderer", &json!({})).remove(0);
        status.pointer("/flows/testcard/outputs/screen/state").cloned()
    };
    wait::until_true("it says so", wait::LONG, || state() == Some(json!("rendering")));
    let shot = edge.method("renderer", "snapshot", &json!({ "flow": "testcard" }));
    assert_eq!(
        (&shot["contentType"], &shot["width"], &shot["height"]),
        (&json!("image/jpeg"), &json!(640), &json!(360))
    );
    let image = shot["image"].as_str().unwrap();
    assert!(image.len() <= 90_000, "{}", image.len());
    let (text, jpeg) = (edge.dir().join("shot.base64"), edge.dir().join("shot.jpeg"));
    std::fs::write(&text, image).unwrap();
    let decoded = Command::new("base64").arg("-d").arg(&text).output().unwrap();
    std::fs::write(&jpeg, decoded.stdout).unwrap();
    let mut read = Tool::Python.command();
    read.arg(tool::tests_dir().join("testcard/read.py")).arg(&jpeg);
    let read = Program::run(&mut read, wait::LONG);
    assert!(read.stdout.trim().parse::<u64>().is_ok(), "{}{}", read.stdout, read.stderr);
    let unknown = edge.ask(&["method", "renderer", "snapshot", r#"{"flow":"nobody"}"#]).stdout;
    assert_eq!(serde_json::from_str::<Value>(&unknown).unwrap()["status"], 404, "{unknown}");
    assert_eq!(edge.interrupt().status.code(), Some(0));
}
