//! What an RTSP player is told and sent, packet by packet, by a player that does nothing by itself.

use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::program::Program;
use av_tests::rtmp::Publisher;
use av_tests::rtsp::{Answer, Player, interleaved};
use av_tests::tool::Tool;
use av_tests::{long_only, needs, port, wait};
use serde_json::{Value, json};

use crate::rtsp::{rtsp, times_of_pictures, udp_ports, watch};
use crate::{rtmp, twin};

fn gateway(from: &str, port: u16, options: Value) -> Module {
    let mut output = json!({ "serve": rtsp(port, "live/cam"), "udpPorts": udp_ports() });
    output.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": { "input": { "listen": from }, "outputs": { "viewers": output } } })),
    )
}

/// Sequence number, RTP time, and payload type of a packet.
fn numbers(packet: &[u8]) -> (u16, u32, u8) {
    let time = u32::from_be_bytes(packet[4..8].try_into().unwrap());
    (u16::from_be_bytes([packet[2], packet[3]]), time, packet[1] & 0x7f)
}

/// Number and time of a medium's first packet, as `RTP-Info` says them.
fn promised(playing: &Answer, medium: usize) -> Option<(u16, u32)> {
    let info = playing.header("RTP-Info")?;
    let part = info.split(',').nth(medium)?;
    let value = |name: &str| part.split(';').find_map(|field| field.trim().strip_prefix(name)).unwrap();
    Some((value("seq=").parse().unwrap(), value("rtptime=").parse().unwrap()))
}

/// The types of NAL units in a picture's packet: alone, in a STAP-A, or as a fragment (RFC 6184 §5).
fn units(packet: &[u8]) -> Vec<u8> {
    let payload = &packet[12..];
    let mut units = Vec::new();
    match payload[0] & 31 {
        24 => {
            let mut rest = &payload[1..];
            while let [high, low, unit, ..] = rest {
                units.push(unit & 31);
                rest = &rest[2 + usize::from(u16::from_be_bytes([*high, *low]))..];
            }
        }
        28 => units.push(payload[1] & 31),
        kind => units.push(kind),
    }
    units
}

/// SPS, PPS, and what an IDR may have in front of it.
fn may_start(packet: &[u8]) -> bool {
    units(packet).iter().all(|unit| [5, 6, 7, 8, 9].contains(unit))
}

#[test]
fn rtp_info_names_the_first_packet_or_nothing_however_a_player_joins() {
    needs!(Ffmpeg);
    for join in ["edge", "instant", "live"] {
        let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
        let gateway = gateway(&from, port, json!({ "join": join }));
        let publication = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
        gateway.wait_receiving("cam");
        let mut player = Player::connect(port);
        let playing = player.play(&rtsp(port, "live/cam"), interleaved);
        assert_eq!(promised(&playing, 0).is_none(), join == "live", "{join}: {}", playing.head);
        let mut first = [None, None];
        while first.contains(&None) {
            let (channel, packet) = player.frame().expect("the stream goes on");
            if channel % 2 == 1 {
                continue;
            }
            let medium = usize::from(channel / 2);
            if first[medium].is_none() {
                let (number, time, _) = numbers(&packet);
                assert!(medium == 1 || may_start(&packet), "{join}: begins with {:?}", &packet[12..16]);
                if let Some(promised) = promised(&playing, medium) {
                    assert_eq!(promised.0, number, "{join}, medium {medium}: {}", playing.head);
                    // The time is that of the first picture for all: sound is near it, by its length and a picture's.
                    let off = time.wrapping_sub(promised.1).cast_signed().abs();
                    let most = if medium == 0 { 0 } else { 44_100 * (23 + 40) / 1000 };
                    assert!(off <= most, "{join}, medium {medium}: {off} ticks");
                }
                first[medium] = Some(number);
            }
        }
        drop(publication);
    }
}

/// Two sockets in a row on an even port.
fn pair() -> (u16, UdpSocket, UdpSocket) {
    wait::until("two free ports", wait::LONG, || {
        let first = port::free() & !1;
        let rtp = UdpSocket::bind(("127.0.0.1", first)).ok()?;
        let rtcp = UdpSocket::bind(("127.0.0.1", first + 1)).ok()?;
        for socket in [&rtp, &rtcp] {
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        }
        Some((first, rtp, rtcp))
    })
}

fn unicast(port: u16) -> String {
    format!("RTP/AVP;unicast;client_port={port}-{}", port + 1)
}

#[test]
fn no_packet_is_larger_than_the_mtu_and_the_report_comes_before_it() {
    needs!(Ffmpeg);
    const MTU: usize = 600;
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let gateway = gateway(&from, port, json!({ "mtu": MTU }));
    let publication = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    gateway.wait_receiving("cam");
    let sockets = [pair(), pair()];
    let mut player = Player::connect(port);
    player.play(&rtsp(port, "live/cam"), |medium| unicast(sockets[medium].0));
    let mut largest = 0;
    let mut buffer = [0; 65536];
    for (_, rtp, rtcp) in &sockets {
        let count = wait::until("a report", wait::LONG, || rtcp.recv(&mut buffer).ok());
        assert_eq!(buffer[1], 200, "a sender's report");
        assert!(count > 28, "and the sender's name");
        let mut left = 60;
        wait::until_true("packets", wait::LONG, || {
            while let Ok(count) = rtp.recv(&mut buffer) {
                largest = largest.max(count + 28);
                left -= 1;
                if left == 0 {
                    return true;
                }
            }
            false
        });
    }
    assert!((MTU - 100..=MTU).contains(&largest), "{largest} bytes with their headers");
    drop(publication);
}

#[test]
fn datagrams_leave_from_the_address_that_the_player_connected_to() {
    needs!(Ffmpeg);
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let output = json!({ "serve": format!("rtsp://0.0.0.0:{port}/live/cam"), "udpPorts": udp_ports() });
    let gateway = Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": { "input": { "listen": from }, "outputs": { "viewers": output } } })),
    );
    let publication = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    gateway.wait_receiving("cam");
    // All at once: a port that is used again still gets what was meant for its last owner.
    for (address, sockets) in [("127.0.0.1", [pair(), pair()]), ("127.0.0.2", [pair(), pair()])] {
        let mut player = Player::on(Box::new(TcpStream::connect((address, port)).unwrap()));
        player.play(&format!("rtsp://{address}:{port}/live/cam"), |medium| unicast(sockets[medium].0));
        let (rtp, rtcp) = player.server_ports().unwrap();
        let mut buffer = [0; 2048];
        for (socket, port) in [(&sockets[0].1, rtp), (&sockets[0].2, rtcp)] {
            let sender =
                wait::until("a datagram", wait::LONG, || Some(socket.recv_from(&mut buffer).ok()?.1));
            assert_eq!(sender.to_string(), format!("{address}:{port}"), "{}", gateway.log());
        }
    }
    drop(publication);
}

/// Number and source of a picture's packet.
fn sent(packet: &[u8]) -> (u16, [u8; 4]) {
    (numbers(packet).0, packet[8..12].try_into().unwrap())
}

fn sprop(sdp: &str) -> Option<&str> {
    sdp.split("sprop-parameter-sets=").nth(1)?.split([';', '\r']).next()
}

/// Waits until a program has said that it decoded so many pictures more than before.
fn must_go_on(player: &mut Program, pictures: fn(&str) -> usize, log: &str) {
    let before = pictures(&player.stdout());
    wait::until_true("pictures of the other publisher", wait::LONG, || {
        assert!(player.ended().is_none(), "{}\n{log}", player.stderr());
        pictures(&player.stdout()) >= before + 25
    });
}

#[test]
fn players_hear_reports_while_the_publisher_is_away_and_go_on_with_other_parameter_sets() {
    needs!(Ffmpeg, Ffmpeg9, Gst);
    const AWAY: Duration = Duration::from_millis(8500);
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let (gateway, url) = (gateway(&from, port, json!({})), rtsp(port, "live/cam"));
    let first = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    gateway.wait_receiving("cam");
    let before = Player::connect(port).ask("DESCRIBE", &url, &[]).body;
    let in_lines: fn(&str) -> usize = |said| said.lines().filter(|line| !line.starts_with('#')).count();
    let in_times: fn(&str) -> usize = |said| times_of_pictures(said).len();
    let line = format!(
        "-v rtspsrc location={url} protocols=tcp name=s s. ! rtph264depay ! h264parse ! avdec_h264 \
         ! fakesink silent=false sync=false"
    );
    let mut players = vec![(Program::start(Tool::Gst.command().args(line.split_whitespace())), in_times)];
    players.extend([Tool::Ffmpeg, Tool::Ffmpeg9].map(|tool| (watch(tool, "tcp", &url, None), in_lines)));
    for (player, pictures) in &mut players {
        must_go_on(player, *pictures, &gateway.log());
    }
    let mut player = Player::connect(port);
    player.play(&url, interleaved);
    drop(first);
    gateway.wait_value("/flows/cam/input/state", "waiting");
    let gone = Instant::now();
    let (mut last, mut reports) = (None, 0);
    while gone.elapsed() < AWAY || reports < 3 {
        assert!(gone.elapsed() < wait::LONG, "{reports} reports\n{}", gateway.log());
        match player.frame_within(Duration::from_secs(1)) {
            Some((0, packet)) => (last, reports) = (Some(sent(&packet)), 0),
            Some((1, packet)) => {
                // The first comes before the first packet.
                let Some((_, source)) = last else { continue };
                assert_eq!((packet[1], &packet[4..8]), (200, &source[..]), "a report of the same sender");
                assert_eq!(packet.windows(2).filter(|pair| *pair == [0x81, 203]).count(), 0, "a BYE");
                reports += 1;
            }
            _ => {}
        }
    }
    let (mut number, source) = last.unwrap();
    let again = Publisher::to(&from).run_endlessly(Clip::Smaller.tags());
    gateway.wait_receiving("cam");
    let after = Player::connect(port).ask("DESCRIBE", &url, &[]).body;
    assert!(sprop(&after).is_some() && sprop(&after) != sprop(&before), "{after}");
    let (mut pictures, mut first) = (0, Vec::new());
    while pictures < 20 {
        let Some((0, packet)) = player.frame() else { continue };
        assert_eq!(sent(&packet), (number.wrapping_add(1), source), "the next number of the same source");
        if pictures == 0 {
            first.extend(units(&packet));
        }
        number = number.wrapping_add(1);
        pictures += usize::from(packet[1] & 0x80 != 0);
    }
    assert!([5, 7, 8].iter().all(|unit| first.contains(unit)), "no parameter sets with {first:?}");
    for (player, pictures) in &mut players {
        must_go_on(player, *pictures, &gateway.log());
    }
    drop(again);
}

#[test]
fn a_change_of_codec_ends_sessions_with_a_goodbye() {
    needs!(Ffmpeg, Ffmpeg9);
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let gateway = gateway(&from, port, json!({}));
    let first = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    gateway.wait_receiving("cam");
    let mut player = Player::connect(port);
    player.play(&rtsp(port, "live/cam"), interleaved);
    let mut source = None;
    while source.is_none() {
        let (channel, packet) = player.frame().expect("the stream goes on");
        source = (channel == 0).then(|| sent(&packet).1);
    }
    drop(first);
    gateway.wait_value("/flows/cam/input/state", "waiting");
    let again = Publisher::to(&from).run_endlessly(Clip::H265.tags());
    let mut reports = Vec::new();
    // Until the connection is closed.
    while let Some((channel, packet)) = player.frame() {
        if channel == 1 {
            reports = packet;
        }
    }
    let goodbye = [&[0x81, 203, 0, 1][..], &source.unwrap()].concat();
    assert!(reports.windows(goodbye.len()).any(|part| part == goodbye), "{reports:?}\n{}", gateway.log());
    // The next one is told of the new coding.
    let described = Player::connect(port).ask("DESCRIBE", &rtsp(port, "live/cam"), &[]);
    assert!(described.body.contains("H265/90000"), "{}", described.body);
    drop(again);
}

#[test]
fn after_a_change_of_codec_describe_waits_for_the_new_one_and_the_old_one_is_not_played() {
    needs!(Ffmpeg, Ffmpeg9);
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let (gateway, url) = (gateway(&from, port, json!({})), rtsp(port, "live/cam"));
    let first = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    gateway.wait_receiving("cam");
    let [mut described, mut set_up, mut asking] = [(); 3].map(|()| Player::connect(port));
    let (control, interleave) = (format!("{url}/trackID=0"), interleaved(0));
    let transport = [("Transport", &*interleave)];
    for player in [&mut described, &mut set_up] {
        assert!(player.ask("DESCRIBE", &url, &[]).body.contains("H264/90000"));
    }
    assert_eq!(set_up.ask("SETUP", &control, &transport).status, 200);
    drop(first);
    gateway.wait_value("/flows/cam/input/state", "waiting");
    // It is there, and nobody knows yet what it sends.
    let mut again = Publisher::to(&from);
    let answer = std::thread::spawn({
        let url = url.clone();
        move || asking.ask("DESCRIBE", &url, &[])
    });
    again.play_out(&Clip::H265.tags()).unwrap();
    let answer = answer.join().unwrap();
    assert!(answer.body.contains("H265/90000"), "{}{}", answer.head, answer.body);
    assert_eq!(set_up.ask("PLAY", &url, &[]).status, 454, "{}", gateway.log());
    assert_eq!(described.ask("SETUP", &control, &transport).status, 455, "{}", gateway.log());
    described.play(&url, interleaved);
}

#[test]
fn a_publisher_is_told_what_of_its_packets_was_lost() {
    const SDP: &str =
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\na=control:trackID=0\r\n";
    let (port, to) = (port::free(), port::free());
    let gateway = Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": { "listen": rtsp(port, "live/cam"), "transports": ["tcp"] },
            "outputs": { "viewers": { "serve": rtsp(to, "live/cam"), "transports": ["tcp"] } },
        } })),
    );
    gateway.wait_value("/flows/cam/state", "waiting");
    let (mut publisher, url) = (Player::connect(port), rtsp(port, "live/cam"));
    let content = [("Content-Type", "application/sdp")];
    assert_eq!(publisher.ask_with("ANNOUNCE", &url, &content, SDP).status, 200);
    let record = [("Transport", "RTP/AVP/TCP;unicast;interleaved=4-5;mode=record")];
    assert_eq!(publisher.ask("SETUP", &format!("{url}/trackID=0"), &record).status, 200);
    assert_eq!(publisher.ask("RECORD", &url, &[]).status, 200);
    let began = Instant::now();
    let report = wait::until("a report", wait::LONG, || {
        let number = (began.elapsed().as_millis() / 20) as u16;
        // 20 ms of silence, over the wrap of its numbers; every tenth is not sent.
        if !number.is_multiple_of(10) {
            let mut packet = vec![0x80, 0];
            packet.extend(number.wrapping_add(65_500).to_be_bytes());
            packet.extend((u32::from(number) * 160).to_be_bytes());
            packet.extend([0, 0, 0, 7]);
            packet.resize(12 + 160, 0xff);
            publisher.send_frame(4, &packet);
        }
        publisher.frame_within(Duration::ZERO)
    });
    let (channel, report) = report;
    assert_eq!((channel, &report[..2], &report[8..12]), (5, &[0x81, 201][..], &[0, 0, 0, 7][..]));
    let word = |at: usize| u32::from_be_bytes(report[at..at + 4].try_into().unwrap());
    let (lost, highest) = (word(12) & 0x00ff_ffff, word(16));
    assert!(lost > 0 && highest > 65_536, "{lost} lost, {highest} at most");
    gateway.wait_value("/flows/cam/input/state", "receiving");
}

/// A receiver's report of nothing (RFC 3550 §6.4.2).
const REPORT: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 9];

#[test]
fn a_silent_player_by_udp_is_ended_and_one_that_reports_or_takes_tcp_bytes_stays() {
    needs!(Ffmpeg);
    long_only!();
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let (gateway, url) = (gateway(&from, port, json!({})), rtsp(port, "live/cam"));
    let publication = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    gateway.wait_receiving("cam");
    let sockets: Vec<_> = (0..4).map(|_| pair()).collect();
    let [mut silent, mut reporting, mut over_tcp] = [(); 3].map(|()| Player::connect(port));
    let setup = silent.play(&url, |medium| unicast(sockets[medium].0));
    assert_eq!(setup.status, 200);
    reporting.play(&url, |medium| unicast(sockets[2 + medium].0));
    over_tcp.play(&url, interleaved);
    gateway.wait_value("/flows/cam/outputs/viewers/clients", 3);
    let to = reporting.server_ports().expect("server_port").1;
    let began = Instant::now();
    // 60 s were told, and 10 s are given.
    while silent.drain() {
        assert!(began.elapsed() < Duration::from_secs(120), "still there\n{}", gateway.log());
        sockets[2].2.send_to(&REPORT, ("127.0.0.1", to)).unwrap();
        assert!(over_tcp.drain() && reporting.drain(), "{}", gateway.log());
    }
    assert!(began.elapsed() > Duration::from_secs(55), "{:?} after PLAY", began.elapsed());
    gateway.wait_value("/flows/cam/outputs/viewers/clients", 2);
    assert!(over_tcp.drain() && reporting.drain(), "{}", gateway.log());
    drop(publication);
}
