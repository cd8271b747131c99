//! What the renderer plays, and whether it is in step with what it shows.

use av_tests::program::Program;
use av_tests::screen::{Offset, Screen, Speaker, beeps_behind_flashes, loudest};
use av_tests::sound_card::SoundCard;
use av_tests::tool::Tool;
use av_tests::{long_only, needs, port, tool, wait};
use serde_json::{Value, json};

use crate::renderer::{OUTPUT, flow, number, publish_card, received, renders_on, setup, start};
use crate::{long, rtmp};

/// What the renderer promises, in milliseconds.
pub(crate) const IN_STEP: f64 = 40.0;

/// How far beeps are from flashes for some seconds, printed; `None` where a flash had no beep, or there were too few.
pub(crate) fn most_out_of_step(screen: &Screen, speaker: &Speaker, seconds: u32) -> Option<f64> {
    out_of_step(screen, speaker, seconds, 0)
}

/// The same, but for so many of them that are furthest away.
fn out_of_step(screen: &Screen, speaker: &Speaker, seconds: u32, but: usize) -> Option<f64> {
    let all = beeps_behind_flashes(screen, speaker, seconds);
    let offsets: Vec<Offset> = all.iter().copied().flatten().collect();
    let mut behind: Vec<f64> = offsets.iter().map(|offset| offset.behind).collect();
    behind.sort_by(f64::total_cmp);
    let middle = behind.get(behind.len() / 2)?;
    let (first, last) = (behind.first()?, behind.last()?);
    let looked = offsets.iter().map(|offset| offset.give_or_take).fold(0.0, f64::max);
    let worst = offsets.iter().map(|offset| offset.at_least()).fold(0.0, f64::max);
    eprintln!(
        "{} of {} flashes in {seconds} s have a beep: {middle:.1} ms behind in the middle, {first:.1} to {last:.1}, each \
         known within {looked:.1} ms or better; the worst is out of step by {worst:.1} ms at least",
        offsets.len(),
        all.len()
    );
    let enough = all.len() as u32 + 3 >= seconds && offsets.len() == all.len();
    let mut away: Vec<f64> = offsets.iter().map(|offset| offset.at_least()).collect();
    away.sort_by(f64::total_cmp);
    away.truncate(away.len().saturating_sub(but));
    enough.then(|| away.last().copied()).flatten()
}

/// Measures some seconds until sound and picture have come to rest, and then each beep of ten minutes. In a minute on a
/// machine that has other work as well, three pictures may come late.
fn is_in_step(screen: &Screen, speaker: &Speaker) {
    wait_in_step(screen, speaker);
    let (seconds, minutes, but) = if long() { (600, 1, 0) } else { (60, 3, 3) };
    let mut each = (0..minutes).map(|_| out_of_step(screen, speaker, seconds, but));
    assert!(each.any(|worst| worst.is_some_and(|worst| worst <= IN_STEP)));
}

pub(crate) fn wait_in_step(screen: &Screen, speaker: &Speaker) {
    wait::until_true("beep and flash are in step", wait::LONG * 2, || {
        most_out_of_step(screen, speaker, 6).is_some_and(|worst| worst <= IN_STEP)
    });
}

#[test]
fn beep_and_flash_are_in_step_also_when_the_sound_server_was_away() {
    needs!(Ffmpeg, Xvfb, PulseAudio);
    let (screen, speaker) = (Screen::start(), Speaker::start());
    let url = rtmp(port::free(), "live/a");
    let module = start(&url, json!({ "render": "display://x11" }), Some(&screen), Some(&speaker));
    let _publisher = publish_card(&url);
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    module.wait_value(&format!("{OUTPUT}/audio/state"), "playing");
    is_in_step(&screen, &speaker);

    let speaker = speaker.kill_and_restart(|| {
        module.wait_value(&format!("{OUTPUT}/audio/state"), "failed");
        // The picture goes on without it.
        renders_on(&module);
        module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    });
    module.wait_value(&format!("{OUTPUT}/audio/state"), "playing");
    module.wait_status(&format!("{OUTPUT}/error"), Value::is_null);
    wait_in_step(&screen, &speaker);
    // By the module's own account, too.
    module.wait_status(&format!("{OUTPUT}/avOffsetMilliseconds"), |offset| {
        offset.as_i64().is_some_and(|offset| offset.abs() <= 40)
    });
    assert_eq!(module.log_lines("publisher gone"), Vec::<String>::new());
}

#[test]
fn sound_that_goes_by_alsa_is_in_step_too() {
    needs!(Ffmpeg, Xvfb, PulseAudio);
    let (screen, speaker) = (Screen::start(), Speaker::start());
    let url = rtmp(port::free(), "live/a");
    // ALSA's device that leads to PulseAudio: what there is without hardware.
    let output = json!({ "render": "display://x11", "audioDevice": "alsa:pulse" });
    let module = start(&url, output, Some(&screen), Some(&speaker));
    let _publisher = publish_card(&url);
    module.wait_value(&format!("{OUTPUT}/audio/state"), "playing");
    module.wait_value(&format!("{OUTPUT}/audio/device"), "alsa:pulse");
    is_in_step(&screen, &speaker);
}

#[test]
fn half_the_volume_is_an_eighth_of_the_amplitude() {
    needs!(Ffmpeg, PulseAudio);
    let speaker = Speaker::start();
    // What ffmpeg says of the card's file, in dB. Each second has a beep.
    let card = -9.8;
    for (volume, gain) in [(100, 0.0), (50, -18.1)] {
        let url = rtmp(port::free(), "live/a");
        let output = json!({ "render": "display://none", "volume": volume });
        let module = start(&url, output, None, Some(&speaker));
        let _publisher = publish_card(&url);
        module.wait_value(&format!("{OUTPUT}/audio/state"), "playing");
        wait::until_true("beeps are as loud as that", wait::LONG * 2, || {
            let peak = loudest(&speaker, 3);
            eprintln!("volume {volume}: {peak} dB");
            (peak - card - gain).abs() <= 2.0
        });
    }
}

#[test]
fn a_sound_server_that_stands_still_is_told_of_and_costs_neither_picture_nor_memory() {
    needs!(Ffmpeg, PulseAudio);
    let speaker = Speaker::start();
    let url = rtmp(port::free(), "live/a");
    let module = start(&url, json!({ "render": "display://none" }), None, Some(&speaker));
    let _publisher = publish_card(&url);
    module.wait_value(&format!("{OUTPUT}/audio/state"), "playing");
    speaker.program().signal("STOP");
    module.wait_value(&format!("{OUTPUT}/audio/error"), "pulsesink no longer accepts sound");
    renders_on(&module);
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    // Nothing is kept for it.
    let dropped = || {
        let status = module.status();
        status.pointer(&format!("{OUTPUT}/audio/piecesDropped")).and_then(Value::as_u64).unwrap_or(0)
    };
    let before = dropped();
    wait::until_true("what nobody hears is dropped", wait::LONG, || dropped() > before + 20);
    speaker.program().signal("CONT");
    module.wait_value(&format!("{OUTPUT}/audio/state"), "playing");
}

#[test]
fn a_sound_card_that_stands_still_is_told_of_and_opened_anew_and_the_picture_goes_on() {
    needs!(Ffmpeg);
    let card = SoundCard::start();
    let url = rtmp(port::free(), "live/a");
    let output = json!({ "render": "display://none", "audioDevice": "alsa:card" });
    let setup = setup(json!({ "cam": flow(json!({ "listen": url }), output) }), None, None);
    let module = setup.env("ALSA_CONFIG_PATH", &card.config().display().to_string()).start();
    let _publisher = publish_card(&url);
    let beeps_on = || {
        let before = card.beeps();
        wait::until_true("the card beeps", wait::LONG, || card.beeps() >= before + 3);
    };
    module.wait_value(&format!("{OUTPUT}/audio/state"), "playing");
    beeps_on();
    for _ in 0..2 {
        card.stand_still(true);
        module.wait_value(&format!("{OUTPUT}/audio/state"), "failed");
        let error = module.wait_status(&format!("{OUTPUT}/audio/error"), Value::is_string);
        assert!(error.as_str().unwrap().starts_with("alsasink "), "{error}");
        renders_on(&module);
        module.wait_value(&format!("{OUTPUT}/state"), "rendering");
        card.stand_still(false);
        module.wait_value(&format!("{OUTPUT}/audio/state"), "playing");
        beeps_on();
    }
}

#[test]
fn a_device_that_swallows_sound_does_not_count_as_one_that_plays() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/a");
    let output = json!({ "render": "display://none", "audioDevice": "alsa:null" });
    let module = start(&url, output, None, None);
    let _publisher = publish_card(&url);
    // Its clock may be seen to race, or its sink to wait for what a clock that races is to reach.
    module.wait_value(&format!("{OUTPUT}/audio/state"), "failed");
    let error = module.wait_status(&format!("{OUTPUT}/audio/error"), Value::is_string);
    let says = ["alsasink accepts sound faster than it can be played", "alsasink no longer accepts sound"];
    assert!(says.iter().any(|says| error.as_str().unwrap().starts_with(says)), "{error}");
    renders_on(&module);
    module.wait_value(&format!("{OUTPUT}/state"), "rendering");
    assert_eq!(module.log_lines("sound is played by"), Vec::<String>::new());
}

#[test]
fn a_sound_card_is_heard_whatever_the_latency() {
    needs!(Ffmpeg, PulseAudio);
    let speaker = Speaker::start();
    for latency in [0, 60, 200, 1000] {
        let url = rtmp(port::free(), "live/a");
        let output = json!({
            "render": "display://none", "audioDevice": "alsa:pulse", "latencyMilliseconds": latency,
        });
        let module = start(&url, output, None, Some(&speaker));
        let _publisher = publish_card(&url);
        module.wait_value(&format!("{OUTPUT}/audio/state"), "playing");
        wait::until_true("the card's beeps are heard", wait::LONG, || {
            let peak = loudest(&speaker, 3);
            let delay = number(&module, "delayMilliseconds");
            eprintln!("latency {latency} ms, with what was added {delay}: {peak} dB");
            (peak + 9.8).abs() <= 2.0
        });
    }
}

/// Publishes the test card by a clock that runs so much faster than this machine's.
fn publish_card_at(rate: &str, url: &str) -> Program {
    let mut command = Tool::Ffmpeg.command();
    command.args(["-v", "error", "-nostdin", "-readrate", rate, "-stream_loop", "-1", "-i"]);
    command.arg(tool::test_card()).args(["-c", "copy", "-f", "flv", url]);
    Program::start(&mut command)
}

/// For six minutes: a clock that is 0.5 % off would add or lack 1.8 seconds. The card's loop has a piece of sound too many
/// every eight seconds, which a fast clock leaves no time for.
fn drifts(rate: &str, ppm: i64) {
    needs!(Ffmpeg, PulseAudio);
    long_only!();
    let speaker = Speaker::start();
    let url = rtmp(port::free(), "live/a");
    let module = start(&url, json!({ "render": "display://none" }), None, Some(&speaker));
    let _publisher = publish_card_at(rate, &url);
    module.wait_value(&format!("{OUTPUT}/audio/state"), "playing");
    let steps = || (number(&module, "steps"), number(&module, "audio/steps"));
    // Pictures that are on their way through the module.
    let waiting = || {
        let dropped = number(&module, "framesDropped");
        received(&module).saturating_sub(number(&module, "rendered") + dropped)
    };
    let six_minutes = 6 * 60 * 30;
    let limit = wait::LONG * 10;
    wait::until_true("the first half minute has been published", limit, || received(&module) > 30 * 30);
    let begun = steps();
    wait::until_true("six minutes have been published", limit, || received(&module) > six_minutes);
    let ended = steps();
    assert_eq!(ended.0, begun.0, "what was shown and heard was moved at once");
    // A machine that is too busy may cut it off once.
    assert!(ended.1 <= begun.1 + 1, "sound was moved at once {} times", ended.1 - begun.1);
    let told = module.status().pointer(&format!("{OUTPUT}/driftPpm")).and_then(Value::as_i64).unwrap();
    assert!((told - ppm).abs() < 500, "{told} ppm");
    let metric = module.metrics().sum("av_render_drift_ppm", &[("flow", "cam")]).unwrap();
    assert!((metric - told as f64).abs() < 200.0, "{metric} ppm");
    // The latency, and what a decoder holds back; a second more would be thirty.
    wait::until_true("latency is what it was", wait::LONG, || waiting() <= 15);
}

#[test]
fn a_publisher_whose_clock_is_fast_leaves_latency_flat() {
    drifts("1.005", 5000);
}

#[test]
fn a_publisher_whose_clock_is_slow_leaves_latency_flat() {
    drifts("0.995", -5000);
}
