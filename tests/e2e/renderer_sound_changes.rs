//! Another codec, rate or number of channels of the sound in the middle of a stream: all of it is heard, in step.

use std::sync::atomic::{AtomicBool, Ordering};

use av_tests::flv::{self, Tag};
use av_tests::program::Program;
use av_tests::rtmp::Publisher;
use av_tests::screen::{Listener, Screen, Speaker};
use av_tests::tool::Tool;
use av_tests::{needs, port, tool, wait};
use serde_json::{Value, json};

use crate::renderer::{OUTPUT, held, number, renders_on, start};
use crate::renderer_sound::{IN_STEP, most_out_of_step, wait_in_step};
use crate::renderer_streams::Ends;
use crate::rtmp;

/// What ffmpeg makes of these arguments, as tags.
fn made(arguments: &str) -> Vec<Tag> {
    let file = tempfile::Builder::new().suffix(".flv").tempfile().unwrap();
    let mut command = Tool::Ffmpeg9.command();
    command.args(["-v", "error", "-nostdin", "-y"]).args(arguments.split(' ')).args(["-f", "flv"]);
    let encoded = Program::run(command.arg(file.path()), wait::LONG);
    assert!(encoded.status.success(), "{}", encoded.stderr);
    flv::read(file.path()).into_iter().filter(|tag| tag.kind != 18).collect()
}

/// Two seconds of a tone: a configuration, frames that follow each other, and how many milliseconds one has.
struct Tone {
    header: Tag,
    frames: Vec<Tag>,
    length: f64,
}

impl Tone {
    fn of(encoding: &str, length: f64) -> Self {
        let tags = made(&format!("-f lavfi -i sine=frequency=1000:sample_rate=48000:duration=4 {encoding}"));
        let header = tags.iter().find(|tag| tag.is_header()).unwrap().clone();
        // Its encoder has begun, and does not end.
        let frames = tags.into_iter().filter(|tag| !tag.is_header()).skip(10);
        let frames: Vec<Tag> = frames.take((2000.0 / length).round() as usize).collect();
        Self { header, frames, length }
    }
}

/// Encoders begin and end a frame softly. That of AAC at 44.1 kHz is the longest: 23 ms.
const SOFT: usize = 5;
const CHANGES: usize = 10;

#[test]
fn no_sample_is_lost_where_the_sound_changes_its_codec_rate_or_channels() {
    needs!(Ffmpeg, Ffmpeg9, PulseAudio);
    let speaker = Speaker::start();
    let listener = Listener::start(&speaker);
    let url = rtmp(port::free(), "live/a");
    // Time for a busy machine to start a decoder: what is too late is left out.
    let output = json!({ "render": "display://none", "latencyMilliseconds": 1000 });
    let module = start(&url, output, None, Some(&speaker));
    let tones = [
        Tone::of("-c:a aac -ac 2", 1024.0 / 48.0),
        Tone::of("-c:a libopus -ac 2", 20.0),
        Tone::of("-c:a aac -ac 2 -ar 44100", 1024.0 / 44.1),
        Tone::of("-c:a aac -ac 1", 1024.0 / 48.0),
        Tone::of("-c:a libopus -ac 1", 20.0),
    ];
    let mut publisher = Publisher::to(&url);
    let enough = AtomicBool::new(false);
    let published = std::thread::scope(|threads| {
        let publishing = threads.spawn(|| {
            let mut time = 0.0;
            for tone in tones.iter().cycle() {
                if enough.load(Ordering::Relaxed) {
                    break;
                }
                let at = |time: f64, tag: &Tag| Tag { timestamp: time.round() as u32, ..tag.clone() };
                let mut tags = vec![at(time, &tone.header)];
                for frame in &tone.frames {
                    tags.push(at(time, frame));
                    time += tone.length;
                }
                publisher.play_out(&tags).unwrap();
            }
            time
        });
        // Also when something below fails, since the scope waits for its thread.
        let _ends = Ends(&enough);
        module.wait_value(&format!("{OUTPUT}/audio/state"), "playing");
        let holds = held(&module);
        // A machine that is too busy may be late once: what a change costs, each of them does.
        wait::until_true("ten changes without a hole, or anything else to hear", wait::LONG * 3, || {
            let told = || {
                let numbers = ["audio/steps", "audio/piecesDropped", "delayMilliseconds"];
                numbers.map(|name| number(&module, name))
            };
            let (before, begun) = (told(), listener.levels().len());
            wait::until_true("ten changes", wait::LONG, || {
                listener.levels().len() >= begun + CHANGES * 2 * 200
            });
            let heard = listener.levels().split_off(begun);
            let (holes, after) = (holes(&heard), told());
            let seconds = heard.len() / 200;
            eprintln!("holes of {holes:?} times 5 ms in {seconds} s; {before:?}, then {after:?}");
            after == before && holes.len() <= CHANGES + 1 && holes.iter().all(|hole| *hole <= SOFT)
        });
        wait::until_true("no more descriptors and threads than before", wait::LONG, || {
            let now = held(&module);
            now.0 <= holds.0 + 2 && now.1 <= holds.1 + 2
        });
        enough.store(true, Ordering::Relaxed);
        publishing.join().unwrap()
    });
    // What was not heard had come before everything was at rest.
    let longest = tones.iter().map(|tone| tone.length).fold(0.0, f64::max);
    wait::until_true("each piece was played, or counted as dropped", wait::LONG, || {
        let played = number(&module, "audio/playedMilliseconds") as f64;
        let undecoded = number(&module, "framesDropped");
        let dropped = (number(&module, "audio/piecesDropped") + undecoded) as f64 * longest;
        eprintln!("{undecoded} frames not decoded");
        eprintln!("of {published:.0} ms {played:.0} were played, and at most {dropped:.0} dropped");
        played + dropped >= published - 1.0
    });
    assert_eq!(module.log_lines("sound is played by").len(), 1, "the speaker stays open");
}

/// For how many measures in a row the tone was not there, each time. ffmpeg's is at -21 dB.
fn holes(levels: &[f64]) -> Vec<usize> {
    let quiet = levels.split(|level| *level > -36.0).map(<[f64]>::len);
    quiet.filter(|length| *length > 0).collect()
}

/// How long the test card is, in milliseconds.
const ROUND: u32 = 8000;

/// With sound that is `length` milliseconds apart up to its end: ffmpeg has no time for the first frames of an encoder.
fn evenly(tags: Vec<Tag>, length: f64) -> Vec<Tag> {
    let (sound, mut all): (Vec<Tag>, Vec<Tag>) =
        tags.into_iter().partition(|tag| tag.kind == 8 && !tag.is_header());
    let last = f64::from(sound.last().unwrap().timestamp);
    let frames = sound.into_iter().rev().zip(0..).map_while(|(frame, before)| {
        let time = last - f64::from(before) * length;
        (time >= 0.0).then(|| Tag { timestamp: time.round() as u32, ..frame })
    });
    // What reaches into the next round would be heard beside its beginning.
    let most = f64::from(ROUND) - length;
    all.extend(frames.filter(|frame| f64::from(frame.timestamp) <= most));
    all.sort_by_key(|tag| (tag.timestamp, !tag.is_header()));
    all
}

#[test]
fn beep_and_flash_stay_in_step_where_the_sound_changes_its_codec_or_rate() {
    needs!(Ffmpeg, Ffmpeg9, Xvfb, PulseAudio);
    let (screen, speaker) = (Screen::start(), Speaker::start());
    let _listener = Listener::start(&speaker);
    let url = rtmp(port::free(), "live/a");
    let module = start(&url, json!({ "render": "display://x11" }), Some(&screen), Some(&speaker));
    let card = |encoding: &str, length| {
        let tags = made(&format!("-i {} -c:v copy {encoding}", tool::test_card().display()));
        evenly(tags, length)
    };
    let rounds = [
        card("-c:a copy", 1024.0 / 48.0),
        card("-c:a libopus", 20.0),
        card("-c:a aac -ar 44100", 1024.0 / 44.1),
    ];
    let mut publisher = Publisher::to(&url);
    let enough = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for (tags, round) in rounds.iter().cycle().zip(0..) {
                if enough.load(Ordering::Relaxed) {
                    return;
                }
                let at = |tag: &Tag| Tag { timestamp: tag.timestamp + round * ROUND, ..tag.clone() };
                publisher.play_out(&tags.iter().map(at).collect::<Vec<_>>()).unwrap();
            }
        });
        let _ends = Ends(&enough);
        module.wait_value(&format!("{OUTPUT}/audio/state"), "playing");
        wait_in_step(&screen, &speaker);
        wait::until_true("half a minute of changes in step, without more latency", wait::LONG * 3, || {
            let delay = number(&module, "delayMilliseconds");
            let worst = most_out_of_step(&screen, &speaker, 30);
            let now = number(&module, "delayMilliseconds");
            eprintln!("{delay} ms, then {now}");
            worst.is_some_and(|worst| worst <= IN_STEP) && now <= delay
        });
        renders_on(&module);
    });
    assert_eq!(module.log_lines("is restarted"), Vec::<String>::new());
    let sound = module.status().pointer(&format!("{OUTPUT}/audio/error")).cloned();
    assert_eq!(sound, None::<Value>);
}
