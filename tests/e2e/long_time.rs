//! Timestamps past every edge of RTMP's 24 and 32 bits.

use av_tests::clip::Clip;
use av_tests::flv::Tag;
use av_tests::module::Module;
use av_tests::recording::{End, Kind, Recording, Times};
use av_tests::rtmp::{ContinuationTime, Player, Publisher};
use av_tests::{needs, port};
use serde_json::json;

use crate::{rtmp, twin};

/// Publishes 18 s of stream that begin 10 s before `edge` milliseconds of stream time.
fn pass(edge: u64, continuation: ContinuationTime) {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start(
        "rtmp-splitter",
        &twin(json!({ "cam": { "input": { "listen": url }, "outputs": { "viewers": { "serve": url } } } })),
    );
    let clip = Clip::Pyramid.tags();
    let plain: Vec<Tag> =
        (0..3).flat_map(|round| clip.iter().filter_map(move |tag| tag.in_round(round, 6040))).collect();
    let published = Recording::of_tags(&plain);
    let start = edge - 10_000;
    let moved: Vec<Tag> = plain
        .iter()
        .map(|tag| Tag {
            timestamp: ((u64::from(tag.timestamp) + start) & 0xFFFF_FFFF) as u32,
            ..tag.clone()
        })
        .collect();

    let early = Player::start(&url);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let mut publisher = Publisher::to(&url);
    publisher.connection().continuation_time = continuation;
    let (before, after) = moved.split_at(moved.len() * 4 / 5);
    publisher.play_out(before).unwrap();
    let late = Player::start(&url);
    late.wait_frames(Kind::Video, 1);
    publisher.play_out(after).unwrap();

    early.wait_last_of(&published);
    late.wait_last_of(&published);
    assert_eq!(early.recording().must_be(&published, Times::Exact, End::Complete).head, 0);
    late.recording().must_be(&published, Times::Exact, End::Complete);
    for player in [&early, &late] {
        // A player's time counts from its epoch, and epochs are ten minutes apart.
        let first = player.first_time().unwrap();
        assert!(first < 600_000 + 10_000, "a player's time begins at {first} ms");
    }
    assert_eq!(splitter.terminate().status.code(), Some(0));
}

#[test]
fn a_stream_passes_2_to_the_24_milliseconds() {
    pass(1 << 24, ContinuationTime::Repeated);
}

#[test]
fn a_stream_passes_2_to_the_24_milliseconds_from_an_encoder_that_leaves_time_out_of_continuations() {
    pass(1 << 24, ContinuationTime::LeftOut);
}

#[test]
fn a_stream_passes_2_to_the_31_milliseconds() {
    pass(1 << 31, ContinuationTime::Repeated);
}

#[test]
fn a_stream_passes_2_to_the_32_milliseconds() {
    pass(1 << 32, ContinuationTime::Repeated);
}

#[test]
fn a_stream_passes_2_to_the_32_milliseconds_from_an_encoder_that_leaves_time_out_of_continuations() {
    pass(1 << 32, ContinuationTime::LeftOut);
}
