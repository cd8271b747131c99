//! Long times by RTSP: RTP's numbers and times pass their ends while players watch, and sound stays beside its pictures.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use av_tests::clip::Clip;
use av_tests::flv::Tag;
use av_tests::module::Module;
use av_tests::program::Program;
use av_tests::recording::{Kind, Packet, Recording};
use av_tests::rtmp::{Player as RtmpPlayer, Publisher};
use av_tests::rtsp::{Player, interleaved};
use av_tests::tool::Tool;
use av_tests::{needs, port, wait};
use serde_json::json;

use crate::rtsp::{must_be, original, rtsp, times_of_pictures, udp_ports, watch};
use crate::{long, rtmp, twin};

/// Milliseconds of stream time from one picture to the next where it runs ahead of real time: no server takes that for a
/// jump.
const STRIDE: u32 = 5_000;
/// What of a NAL unit goes into one packet with the smallest `mtu`.
const FRAGMENT: usize = 576 - 48 - 12 - 2;
/// Milliseconds of stream before RTP time wraps.
const BEFORE: u32 = 12_000;
/// Packets before numbers wrap.
const PACKETS_BEFORE: usize = 1600;

/// A picture of so many bytes that is no key frame, and that no decoder is shown.
fn filler(timestamp: u32, length: usize) -> Tag {
    let mut body = vec![0x27, 1, 0, 0, 0];
    body.extend((length as u32).to_be_bytes());
    body.push(0x41);
    body.resize(9 + length, 0xaa);
    Tag { kind: 9, timestamp, body }
}

/// Number and RTP time of the key frame that was sent last.
fn key_frame(port: u16) -> (u16, u32) {
    let playing = Player::connect(port).play(&rtsp(port, "live/cam"), interleaved);
    let info = playing.header("RTP-Info").expect("a key frame").to_owned();
    let value = |name: &str| info.split(';').find_map(|field| field.strip_prefix(name)).unwrap().to_owned();
    (value("seq=").parse().unwrap(), value("rtptime=").parse().unwrap())
}

/// A clip's pictures in round after round, from some time on.
struct Rounds {
    pictures: Vec<Tag>,
    /// Milliseconds.
    start: u32,
    sent: usize,
}

impl Rounds {
    const PERIOD: u32 = 6_000;

    fn next_time(&self) -> u32 {
        let (round, tag) = (self.sent / self.pictures.len(), &self.pictures[self.sent % self.pictures.len()]);
        self.start + round as u32 * Self::PERIOD + tag.timestamp - self.pictures[0].timestamp
    }

    /// Sends the next picture.
    fn send(&mut self, publisher: &mut Publisher) {
        let (timestamp, count) = (self.next_time(), self.pictures.len());
        publisher.send(&Tag { timestamp, ..self.pictures[self.sent % count].clone() }).unwrap();
        self.sent += 1;
    }
}

/// What the clip's pictures look like, in so many rounds.
fn rounds_of(clip: Clip, rounds: i64) -> Vec<Packet> {
    let pictures = original(clip);
    let in_round = |round| {
        let moved = pictures.iter().cloned();
        moved.map(move |picture| Packet { pts: picture.pts + round * i64::from(Rounds::PERIOD), ..picture })
    };
    (0..rounds).flat_map(in_round).collect()
}

#[test]
fn players_see_every_picture_while_numbers_and_times_of_rtp_wrap() {
    needs!(Ffmpeg, Ffmpeg9, Gst);
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let gateway = Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": { "listen": from, "content": "videoOnly" },
            "outputs": {
                "viewers": { "serve": rtsp(port, "live/cam"), "mtu": 576, "udpPorts": udp_ports() },
            },
        } })),
    );
    let (headers, pictures): (Vec<_>, Vec<_>) =
        Clip::Plain.tags().into_iter().filter(|tag| tag.kind == 9).partition(Tag::is_header);
    let key = |timestamp| Tag { timestamp, ..pictures[0].clone() };
    let mut publisher = Publisher::to(&from);
    headers.iter().chain([&key(0)]).for_each(|tag| publisher.send(tag).unwrap());
    gateway.wait_receiving("cam");
    let wait_key_frame = |time: u32| {
        wait::until(&format!("a key frame at {time}"), wait::LONG, || {
            Some(key_frame(port)).filter(|(_, found)| *found == time)
        })
    };
    // The hours up to the wrap of times, and then the packets up to that of numbers.
    let (_, zero) = key_frame(port);
    let mut time = (u32::MAX - zero) / 90 - BEFORE;
    for at in (STRIDE..time - STRIDE).step_by(STRIDE as usize) {
        publisher.send(&filler(at, 100)).unwrap();
    }
    publisher.send(&key(time)).unwrap();
    let (number, _) = wait_key_frame(zero + time * 90);
    let mut packets = (2 * 65_536 - PACKETS_BEFORE - usize::from(number)) % 65_536;
    while packets > 0 {
        let some = packets.min(2000);
        (packets, time) = (packets - some, time + 40);
        publisher.send(&filler(time, some * FRAGMENT)).unwrap();
    }
    let mut rounds = Rounds { pictures, start: time + 40, sent: 0 };
    rounds.send(&mut publisher);
    let (number, _) = wait_key_frame(zero + rounds.start * 90);
    assert!(number > 60_000, "{number}\n{}", gateway.log());

    // Slowly, until all are there.
    let url = rtsp(port, "live/cam");
    let gst = format!(
        "-v rtspsrc location={url} protocols=tcp name=s s. ! rtph264depay ! h264parse ! avdec_h264 \
         ! fakesink silent=false sync=false"
    );
    let watching = [(Tool::Ffmpeg, "tcp"), (Tool::Ffmpeg9, "tcp"), (Tool::Ffmpeg, "udp")];
    let players = watching.map(|(tool, transport)| (watch(tool, transport, &url, None), tool, transport));
    let gst = Program::start(Tool::Gst.command().args(gst.split_whitespace()));
    let least = || {
        let lines = |said: &str| said.lines().filter(|line| !line.starts_with('#')).count();
        let seen = players.iter().map(|(player, ..)| lines(&player.stdout())).min();
        seen.unwrap().min(times_of_pictures(&gst.stdout()).len())
    };
    let joining = Instant::now();
    while least() < 3 {
        assert!(
            joining.elapsed() < wait::LONG && rounds.next_time() < rounds.start + BEFORE / 2,
            "not all came"
        );
        rounds.send(&mut publisher);
        std::thread::sleep(Duration::from_millis(200));
    }
    // And then faster than live, until both have wrapped.
    while rounds.next_time() < rounds.start + BEFORE + 4_000 {
        rounds.send(&mut publisher);
        std::thread::sleep(Duration::from_millis(25));
    }
    let (number, rtp_time) = key_frame(port);
    assert!(number < 30_000 && rtp_time < 10 * 90_000, "nothing wrapped: {number} {rtp_time}");
    let wanted = 300;
    wait::until_true("the pictures of all", wait::LONG, || least() >= wanted);
    let clip = rounds_of(Clip::Plain, 5);
    for (player, tool, transport) in &players {
        let who = format!("{tool:?} over {transport}: {}\n{}", player.stderr(), gateway.log());
        let said = player.stdout();
        let (whole, _) = said.rsplit_once('\n').unwrap();
        let count = must_be(&Recording::of_framemd5_in_milliseconds(whole).0, &clip, &who);
        assert!(count >= wanted, "{count} pictures by {who}");
    }
    let times = times_of_pictures(&gst.stdout());
    // What comes faster than it plays has the time of its arrival there, but none goes back.
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{times:?}");
}

/// By how many milliseconds each kind was moved at least and at most: found by what frames hold.
fn moved_by(played: &Recording, published: &Recording, kind: Kind) -> (i64, i64, usize) {
    let sent: HashMap<_, _> =
        published.of(kind).into_iter().map(|packet| (&packet.hash, packet.pts)).collect();
    let played = played.of(kind);
    let moved = played.iter().filter_map(|packet| Some(packet.pts - sent.get(&packet.hash)?));
    let (least, most) = moved.fold((i64::MAX, i64::MIN), |(least, most), by| (least.min(by), most.max(by)));
    (least, most, played.len())
}

#[test]
fn sound_stays_beside_its_pictures_from_rtmp_to_rtsp_and_back_for_an_hour() {
    needs!(Ffmpeg);
    // All of it where long cases are wanted.
    let minutes = if long() { 60 } else { 8 };
    let (from, between, to) =
        (rtmp(port::free(), "live/cam"), rtsp(port::free(), "live/cam"), rtmp(port::free(), "live/back"));
    let server = Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": { "listen": from },
            "outputs": { "viewers": { "serve": between, "transports": ["tcp"], "join": "instant" } },
        } })),
    );
    let clip = Clip::OnePictureASecond.tags();
    let mut publisher = Publisher::to(&from);
    let period = 8_000;
    let in_round = |round| clip.iter().filter_map(move |tag| tag.in_round(round, period));
    let mut published: Vec<Tag> = in_round(0).collect();
    published.iter().for_each(|tag| publisher.send(tag).unwrap());
    server.wait_receiving("cam");
    let puller = Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": { "pull": between, "retry": { "initialMilliseconds": 100, "maxSeconds": 1 } },
            "outputs": { "viewers": { "serve": to } },
        } })),
    );
    let player = RtmpPlayer::start(&to);
    puller.wait_value("/flows/cam/outputs/viewers/clients", 1);
    server.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let rounds = minutes * 60_000 / period;
    for round in 1..=rounds {
        for tag in in_round(round) {
            publisher.send(&tag).unwrap();
            published.push(tag);
        }
        // As fast as all of them are, so that nobody is left behind. Who was, for a moment, is not waited for.
        let sounds =
            published.iter().rev().filter_map(Tag::packet).filter(|packet| packet.kind == Kind::Audio);
        let last: Vec<_> = sounds.take(10).map(|packet| packet.hash).collect();
        let came =
            || player.recording().of(Kind::Audio).last().is_some_and(|sound| last.contains(&sound.hash));
        let sent = Instant::now();
        while sent.elapsed() < Duration::from_secs(2) && !came() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let published = Recording::of_tags(&published);
    let log = || format!("{}\n{}", server.log(), puller.log());
    // The last of them, or one that is near it: decoding order waits for more.
    let late = i64::from((rounds - 3) * period);
    wait::until_true("the last minute", wait::LONG, || {
        let recording = player.recording();
        let last = recording.of(Kind::Audio).last().map(|packet| packet.hash.clone());
        let sent = published.of(Kind::Audio);
        last.is_some_and(|last| sent.iter().any(|packet| packet.hash == last && packet.pts > late))
    });
    let played = player.recording();
    let [pictures, sounds] = [Kind::Video, Kind::Audio].map(|kind| moved_by(&played, &published, kind));
    let (least, most) = (pictures.0.min(sounds.0), pictures.1.max(sounds.1));
    // Far less than a frame of sound: RTMP's milliseconds.
    assert!(most - least <= 2, "moved by {pictures:?} and {sounds:?} ms\n{}", log());
    assert!(pictures.2 > 30 && sounds.2 > 1000, "{pictures:?} {sounds:?}\n{}", log());
}
