//! What we serve, pulled by ourselves: sound has to come out beside the pictures to which it belongs.

use std::collections::HashMap;
use std::num::NonZeroU32;

use av_media::Timestamp;
use bytes::Bytes;

use super::*;
use crate::config::{ListenUrl, ServerTls};
use crate::endpoint::{Module, OutputContext};
use crate::fanout::Join;
use crate::rtmp::peer::{announce, feed};
use crate::rtsp::ServeConfig;
use crate::rtsp::options::Transports;
use crate::stream::{Changes, Kick, OutputStatus};

const PICTURE: i64 = 40_000_000;

/// Frames from one moment to another, in milliseconds: pictures with B-frames' offset at 25 a second, a key frame every two
/// seconds, and sound in frames of 1024 samples, which meet no picture. Each frame's data is its own.
fn media(from: i64, to: i64) -> Vec<Frame> {
    let rate = NonZeroU32::new(44_100).unwrap();
    let pictures = (from / 40..to / 40).map(|at| {
        let nal: u8 = if at % 50 == 0 { 0x65 } else { 0x41 };
        let data = [&[0, 0, 0, 10, nal, 0x88][..], &(at + 1).to_be_bytes()].concat();
        let dts = Timestamp::from_millis(at * 40);
        let pts = Timestamp::from_millis(at * 40 + 80);
        Frame { kind: Kind::Video, dts, pts, is_sync: at % 50 == 0, data: data.into() }
    });
    let first = |millis: i64| (millis * 44_100 + 1024 * 1000 - 1) / (1024 * 1000);
    let sounds = (first(from)..first(to)).map(|at| {
        let pts = Timestamp::from_ticks(at * 1024, rate);
        let data: Bytes = [&[0x21][..], &at.to_be_bytes()].concat().into();
        Frame { kind: Kind::Audio, dts: pts, pts, is_sync: true, data }
    });
    let mut frames: Vec<_> = pictures.chain(sounds).collect();
    frames.sort_by_key(|frame| frame.dts);
    frames
}

fn served(module: &Arc<Module>, stream: &Stream, port: u16, join: Join) -> JoinHandle<()> {
    let output = OutputContext {
        module: module.clone(),
        flow: "cam".into(),
        output: "viewers".into(),
        path: "flows.cam.outputs.viewers".into(),
        of_instance: false,
        stream: stream.clone(),
        content: Content::AudioVideo,
        status: OutputStatus::new(Changes::default()),
        cancel: CancellationToken::new(),
    };
    let config = ServeConfig {
        url: ListenUrl { scheme: RTSP, address: ([127, 0, 0, 1], port).into(), path: "live/cam".into() },
        auth: None,
        allow: Vec::new(),
        max_clients: 0,
        transports: Transports { tcp: true, udp: false },
        udp_port: 0,
        multicast: None,
        mtu: 1400,
        join,
        batch: Duration::ZERO,
        tls: ServerTls::default(),
    };
    tokio::spawn(crate::rtsp::serve(output, config))
}

/// Joins in the middle of a GOP and takes three seconds. By how many nanoseconds pictures and sound were moved, of each
/// frame behind the moment of joining.
async fn moved_by(join: Join) -> [Vec<i64>; 2] {
    let (module, served_stream) = (module(), stream());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let serving = served(&module, &served_stream, port, join);
    let mut publisher = served_stream.publisher(Kick::default());
    announce(&mut publisher);
    feed(&mut publisher, &media(0, 1230));
    let mut pulling = Pulling::with(config(port));
    let started = tokio::time::Instant::now();
    let publishing = tokio::spawn(async move {
        let mut at = 1230;
        loop {
            feed(&mut publisher, &media(at, at + 30));
            at += 30;
            tokio::time::sleep_until(started + Duration::from_millis((at - 1230) as u64)).await;
        }
    });
    let frames = pulling.frames(200).await;
    publishing.abort();
    serving.abort();
    let sent: HashMap<_, _> =
        media(0, 60_000).into_iter().map(|frame| (frame.data.clone(), frame.pts)).collect();
    let mut moved = [Vec::new(), Vec::new()];
    let mut last = None;
    for frame in frames {
        let by = frame.pts.nanos_since(sent[&frame.data]);
        if frame.kind == Kind::Audio {
            moved[1].push(by);
            continue;
        }
        // What was past is squeezed together.
        let step = last.map_or(0, |last| frame.pts.nanos_since(last));
        last = Some(frame.pts);
        if (step - PICTURE).abs() < 1_000_000 || !moved[0].is_empty() {
            moved[0].push(by);
        }
    }
    moved
}

#[tokio::test]
async fn sound_lies_beside_its_pictures_to_a_tick_from_the_first_frame_on_however_we_join() {
    for join in [Join::Edge, Join::Instant, Join::Live] {
        let [pictures, sounds] = moved_by(join).await;
        assert!(pictures.len() > 20 && sounds.len() > 50, "{join:?}: {} {}", pictures.len(), sounds.len());
        // A tick of 44.1 kHz, and half a one of 90 kHz.
        for by in pictures.iter().chain(&sounds) {
            let off = by - pictures[0];
            assert!(off.abs() <= 22_676 + 5_556, "{join:?}: {off} ns\n{pictures:?}\n{sounds:?}");
        }
    }
}
