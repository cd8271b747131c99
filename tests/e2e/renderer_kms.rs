//! The renderer on a machine without a desktop: a graphics card whose connectors it drives itself, and a sound card.

use std::path::Path;
use std::process::Command;

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::machine::{HOST, Machine, Rendering, User, wait_for};
use av_tests::module::{Module, Setup};
use av_tests::screen::{card_of, luma_of};
use av_tests::{long_only, needs, port};
use serde_json::{Value, json};

use crate::renderer::{OUTPUT, flow, publish_card, written_on};
use crate::{rtmp, twin};

/// A splitter on this machine that the guest pulls from: its address for publishers, and the guest's.
fn splitter() -> (Module, String, String) {
    let (listen, serve) = (rtmp(port::free(), "live/a"), port::free());
    let outputs = json!({ "all": { "serve": rtmp(serve, "live/a") } });
    let flows = json!({ "a": { "input": { "listen": listen }, "outputs": outputs } });
    let module = Setup::new("rtmp-splitter").twin(&twin(flows)).start_listening();
    (module, listen, format!("rtmp://{HOST}:{serve}/live/a"))
}

/// A clock that runs on the panel of a connector.
fn wait_clock(machine: &Machine, connector: usize, filter: &str) {
    let mut first = None;
    wait_for("the test card's clock runs on the panel", || {
        let now = machine.card(connector, filter);
        first = first.or(now);
        now.is_some() && now != first
    });
}

fn opened(rendering: &Rendering<'_>) -> Option<u64> {
    rendering.status().pointer(&format!("{OUTPUT}/displayOpened")).and_then(Value::as_u64)
}

#[test]
fn the_connectors_of_a_card_show_a_flow_each_and_displays_come_and_go() {
    needs!(Ffmpeg, Gst, Python, Machine);
    long_only!();
    let (_splitter, listen, pull) = splitter();
    let publisher = publish_card(&listen);
    // A panel of another shape than the card's.
    let (width, height) = (640, 400);
    let machine = Machine::start(&format!("virtio-gpu-pci,max_outputs=2,xres={width},yres={height}"), 2);
    let on = |output: Value| flow(json!({ "pull": pull }), output);

    let alone = twin(json!({ "cam": on(json!({ "render": "display://default" })) }));
    let (error, sound) = (format!("{OUTPUT}/error"), format!("{OUTPUT}/audio/error"));
    let rendering = machine.render(0, User::Plain, &alone);
    let group = |node: &str, gid: u32| {
        format!(
            "{node}: Permission denied (os error 13); it belongs to group {gid}: add \"GroupAdd\": [\"{gid}\"]"
        )
    };
    rendering.wait_says(&error, &group("KMS: /dev/dri/card0", 44));
    rendering.wait_says(&sound, &group("/dev/snd/pcmC0D0p", 29));
    rendering.end();

    let rendering = machine.render(0, User::InGroups, &alone);
    rendering.wait_value(&format!("{OUTPUT}/state"), "rendering");
    rendering.wait_value(&format!("{OUTPUT}/sink"), "kmssink");
    wait_clock(&machine, 0, "null");
    // It keeps its shape: 16 to 9 leaves a border above and below.
    let luma = luma_of(&machine.shot(0));
    let bright = |row: usize| luma[row * width..(row + 1) * width].iter().any(|value| *value > 40);
    assert!((0..18).chain(382..400).all(|row| !bright(row)) && bright(24), "borders");
    rendering.wait_value(&format!("{OUTPUT}/audio/state"), "playing");
    wait_for("the sound card beeps once a second", || {
        let beeps = machine.beeps();
        let seconds = beeps.windows(2).filter(|pair| (pair[1] - pair[0] - 1.0).abs() < 0.15).count();
        seconds >= 3
    });

    drop(publisher);
    wait_for("a card says that there is no signal", || {
        written_on(width as u32, &luma_of(&machine.shot(0))).is_some_and(|lines| lines[0].trim() == "cam")
    });
    let smaller = PublishWith::Ffmpeg.start(Clip::Smaller, &listen);
    rendering.wait_value(&format!("{OUTPUT}/state"), "rendering");
    drop(smaller);
    let _publisher = publish_card(&listen);
    wait_clock(&machine, 0, "null");
    assert_eq!(opened(&rendering), Some(1), "another size of the stream is none of the display's");

    rendering.set_twin(&twin(json!({ "cam": on(json!({ "render": "display://kms/Virtual-9" })) })));
    rendering.wait_says(&error, "KMS: there is no connector Virtual-9; there are Virtual-1, Virtual-2");

    let second = json!({ "render": "display://kms/Virtual-2", "rotate": 180, "audio": false });
    let first = json!({ "render": "display://kms/Virtual-1", "audio": false });
    rendering.set_twin(&twin(json!({ "cam": on(first), "other": on(second) })));
    rendering.wait_says("/flows/other/outputs/screen/error", "KMS: no display is connected to Virtual-2");
    rendering.wait_value(&format!("{OUTPUT}/state"), "rendering");
    machine.plug(1, (320, 240));
    rendering.wait_value("/flows/other/outputs/screen/state", "rendering");
    wait_clock(&machine, 1, "hflip,vflip");
    wait_clock(&machine, 0, "null");
    let force = |status: &str| machine.run(&format!("echo {status} > /sys/class/drm/card0-Virtual-2/status"));
    force("off");
    rendering.wait_says("/flows/other/outputs/screen/error", "KMS: no display is connected to Virtual-2");
    wait_clock(&machine, 0, "null");
    force("detect");
    rendering.wait_value("/flows/other/outputs/screen/state", "rendering");
    wait_clock(&machine, 1, "hflip,vflip");
    assert_eq!(opened(&rendering), Some(1), "one connector is none of the other's");

    // Names that no document compares: only the card knows that they are one.
    let same = json!({ "render": "display://default", "fullscreen": false, "audio": false });
    let first = json!({ "render": "display://kms/Virtual-1", "audio": false });
    rendering.set_twin(&twin(json!({ "cam": on(first), "same": on(same) })));
    rendering.wait_says("/flows/same/outputs/screen/error", "Virtual-1 on card0: another flow uses it");
    rendering.wait_value(&format!("{OUTPUT}/state"), "rendering");
    wait_clock(&machine, 0, "null");
    assert_eq!(machine.run("dmesg | grep -E 'BUG|WARNING'"), "");
    rendering.end();
}

#[test]
fn a_card_and_a_sound_card_that_another_program_owns_are_taken_when_it_ends() {
    needs!(Ffmpeg, Gst, Python, Machine);
    long_only!();
    let (_splitter, listen, pull) = splitter();
    let _publisher = publish_card(&listen);
    // A card that knows neither another format than 32 bits a pixel nor another plane than the one.
    let machine = Machine::start("VGA,xres=640,yres=400", 1);
    let output = json!({ "render": "display://kms", "audioDevice": "alsa:hw:0" });
    let twin = twin(json!({ "cam": flow(json!({ "pull": pull }), output) }));
    let (state, error) = (format!("{OUTPUT}/state"), format!("{OUTPUT}/error"));
    let (audio, sound) = (format!("{OUTPUT}/audio/state"), format!("{OUTPUT}/audio/error"));
    let owner = machine.render(0, User::Root, &twin);
    owner.wait_value(&state, "rendering");
    owner.wait_value(&audio, "playing");
    wait_clock(&machine, 0, "null");

    let waiting = machine.render(1, User::InGroups, &twin);
    waiting.wait_says(&error, "KMS: Virtual-1 on card0: another program owns the card");
    waiting.wait_says(&sound, "Device is being used by another application");
    owner.end();
    waiting.wait_value(&state, "rendering");
    waiting.wait_value(&audio, "playing");
    wait_clock(&machine, 0, "null");
    waiting.end();

    machine.run("rm -r /dev/dri /dev/snd");
    let without = machine.render(0, User::InGroups, &twin);
    without
        .wait_says(&error, "KMS: /dev/dri/card0: No such file or directory (os error 2); give the container");
    without
        .wait_says(&sound, "/dev/snd: No such file or directory (os error 2); give the container the device");
    without.end();
}

/// The number of the test card in the picture of an answer of `snapshot`.
fn card_in(answer: &Value, folder: &Path) -> Option<u64> {
    let payload = answer.get("payload").filter(|_| answer["status"] == 200)?;
    assert_eq!(
        (&payload["contentType"], &payload["width"], &payload["height"]),
        (&json!("image/jpeg"), &json!(640), &json!(360))
    );
    let image = payload["image"].as_str().unwrap();
    assert!(image.len() <= 90_000, "{}", image.len());
    let (text, jpeg) = (folder.join("shot.base64"), folder.join("shot.jpeg"));
    std::fs::write(&text, image).unwrap();
    let decoded = Command::new("base64").arg("-d").arg(&text).output().unwrap();
    std::fs::write(&jpeg, decoded.stdout).unwrap();
    card_of(&jpeg, "null")
}

#[test]
fn a_snapshot_of_a_graphics_card_is_the_picture_on_its_panel_and_none_where_there_is_no_panel() {
    needs!(Ffmpeg, Gst, Python, Machine);
    long_only!();
    let (_splitter, listen, pull) = splitter();
    let _publisher = publish_card(&listen);
    let machine = Machine::start("virtio-gpu-pci,max_outputs=1,xres=640,yres=400", 1);
    let output = json!({ "render": "display://kms", "audio": false });
    machine.start_edge(&json!({ "cam": flow(json!({ "pull": pull }), output) }));
    let folder = tempfile::tempdir().unwrap();
    let ask = || machine.method("snapshot", &json!({ "flow": "cam" }));
    let mut first = None;
    wait_for("two snapshots of the running clock", || {
        let answer = ask();
        let now = card_in(&answer, folder.path());
        if now.is_none() {
            eprintln!("{answer}\n{}", machine.edge_log());
        }
        first = first.or(now);
        now.is_some() && now != first
    });
    wait_clock(&machine, 0, "null");
    machine.run("echo off > /sys/class/drm/card0-Virtual-1/status");
    let why = "nothing is on the screen: KMS: no display is connected to Virtual-1";
    wait_for("it says that there is no panel", || {
        let answer = ask();
        answer["status"] == 409 && answer["payload"]["error"] == why
    });
}
