//! The limit of open files: raised at start, and what happens when it is reached.

use av_tests::clip::Clip;
use av_tests::module::Setup;
use av_tests::recording::{End, Kind, Times};
use av_tests::rtmp::{Connection, Player, Publisher};
use av_tests::{needs, port, wait};
use serde_json::json;

use crate::{cam, rtmp};

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let port = port::free();
    let twin = cam(&rtmp(port, "live/cam"), json!({}), json!({}));
    let splitter = Setup::new("rtmp-splitter").twin(&twin).open_files(64, 900).start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", splitter.program().id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>()[3..5], ["900", "900"], "{line}");
    let connections: Vec<_> = (0..200).map(|_| Connection::open(port, None)).collect();
    assert!(connections.iter().all(Result::is_ok));
}

#[test]
fn at_the_limit_connections_are_refused_and_everything_else_goes_on() {
    needs!(Ffmpeg);
    let port = port::free();
    let url = rtmp(port, "live/cam");
    let splitter =
        Setup::new("rtmp-splitter").twin(&cam(&url, json!({}), json!({}))).open_files(64, 100).start();
    let publishing = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
    let player = Player::start(&url);
    player.wait_frames(Kind::Video, 1);
    // 50 are for connections that come in.
    let mut held: Vec<_> = (0..48).map(|_| Connection::open(port, None).unwrap()).collect();
    for _ in 0..30 {
        assert!(Connection::open(port, None).is_err(), "one more than there is room for");
    }
    let said = "the limit of open files has room for 50 connections; raise it";
    splitter.wait_log(&["refused: ", said]);
    assert!(splitter.log_lines("refused: ").len() < 30, "each of them is told");
    // Health, the configuration, and the stream.
    assert_eq!(splitter.get("/readyz").0, 200);
    splitter.set_twin(&cam(&url, json!({ "idleTimeoutSeconds": 20 }), json!({})));
    splitter.wait_value("/config/desiredVersion", 2);
    held.truncate(40);
    let again = wait::until("there is room again", wait::LONG, || Connection::open(port, None).ok());
    let frames = player.frames(Kind::Video);
    player.wait_frames(Kind::Video, frames + 10);
    drop((again, held));
    let sent = publishing.stop();
    player.wait_last_of(&sent);
    player.recording().must_be(&sent, Times::Exact, End::Complete);
    assert_eq!(splitter.terminate().status.code(), Some(0));
}
