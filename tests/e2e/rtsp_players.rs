//! Players of an RTSP stream beside each other: who pauses, who is too slow, who has no place; and what is asked of
//! publishers on the way in.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::module::Module;
use av_tests::program::Program;
use av_tests::rtmp::{Endless, Publisher};
use av_tests::rtsp::{Player, interleaved};
use av_tests::tool::Tool;
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::rtsp::{must_be, original, rtsp, seen, udp_ports, watch};
use crate::{rtmp, twin};

fn gateway(input: Value, port: u16, options: Value) -> Module {
    let mut output = json!({ "serve": rtsp(port, "live/cam"), "transports": ["tcp"] });
    output.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": { "input": input, "outputs": { "viewers": output } } })),
    )
}

/// The number of a packet.
fn number(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

/// The next packet of pictures.
fn of_pictures(player: &mut Player) -> Vec<u8> {
    loop {
        let (channel, packet) = player.frame().expect("the stream goes on");
        if channel == 0 {
            return packet;
        }
    }
}

/// The type of the NAL unit that a packet begins with: alone, the first of a STAP-A, or a fragment (RFC 6184 §5).
fn first_unit(packet: &[u8]) -> u8 {
    let at = match packet[12] & 31 {
        24 => 15,
        28 => 13,
        _ => 12,
    };
    packet[at] & 31
}

/// A gateway that gets a clip again and again: itself, the port and the URL of its players, and the publisher.
fn plays(clip: Clip) -> (Module, u16, String, Endless) {
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let gateway = gateway(json!({ "listen": from }), port, json!({}));
    let publication = Publisher::to(&from).run_endlessly(clip.tags());
    gateway.wait_receiving("cam");
    (gateway, port, rtsp(port, "live/cam"), publication)
}

#[test]
fn a_player_that_pauses_gets_nothing_until_it_plays_and_then_begins_with_a_key_frame() {
    needs!(Ffmpeg);
    let (gateway, port, url, publication) = plays(Clip::Plain);
    let [mut player, mut other] = [(); 2].map(|()| Player::connect(port));
    player.play(&url, interleaved);
    other.play(&url, interleaved);
    for _ in 0..2 {
        let mut last = number(&of_pictures(&mut player));
        assert_eq!(player.ask("PAUSE", &url, &[]).status, 200);
        // What was on its way comes, and then nothing: a picture every 40 ms would.
        wait::until_true("silence", wait::LONG, || match player.frame_within(Duration::from_millis(600)) {
            Some((0, packet)) => {
                last = number(&packet);
                false
            }
            Some(_) => false,
            None => true,
        });
        of_pictures(&mut other);
        assert_eq!(player.ask("PLAY", &url, &[]).status, 200);
        let packet = of_pictures(&mut player);
        assert!([5, 6, 7, 8, 9].contains(&first_unit(&packet)), "{:?}", &packet[12..16]);
        assert_ne!(number(&packet), last);
        gateway.wait_value("/flows/cam/outputs/viewers/clients", 2);
    }
    drop(publication);
}

#[test]
fn players_whose_address_is_not_allowed_and_those_beyond_the_bound_are_refused() {
    needs!(Ffmpeg);
    let (from, port, denied) = (rtmp(port::free(), "live/cam"), port::free(), port::free());
    let serve = |port, options: Value| {
        let mut output = json!({ "serve": rtsp(port, "live/cam"), "transports": ["tcp"] });
        output.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        output
    };
    let outputs = json!({
        "viewers": serve(port, json!({ "maxClients": 1 })),
        "denied": serve(denied, json!({ "allow": ["10.0.0.0/8", "::1"] })),
    });
    let gateway = Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": { "input": { "listen": from }, "outputs": outputs } })),
    );
    let publication = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    gateway.wait_receiving("cam");
    let mut refused = Player::connect(denied);
    assert_eq!(refused.ask("DESCRIBE", &rtsp(denied, "live/cam"), &[]).status, 403);
    gateway.wait_log(&["flow=cam", "127.0.0.1:", "not allowed"]);
    let url = rtsp(port, "live/cam");
    let [mut first, mut second] = [(); 2].map(|()| Player::connect(port));
    first.play(&url, interleaved);
    assert_eq!(second.ask("DESCRIBE", &url, &[]).status, 200);
    let transport = interleaved(0);
    let setup = second.ask("SETUP", &format!("{url}/trackID=0"), &[("Transport", &transport)]);
    assert_eq!(setup.status, 200);
    assert_eq!(second.ask("PLAY", &url, &[]).status, 453, "{}", gateway.log());
    gateway.wait_log(&["maxClients (1) is reached"]);
    assert_eq!(first.ask("TEARDOWN", &url, &[]).status, 200);
    gateway.wait_value("/flows/cam/outputs/viewers/clients", 0);
    assert_eq!(second.ask("PLAY", &url, &[]).status, 200, "there is a place now: {}", gateway.log());
    of_pictures(&mut second);
    drop(publication);
}

#[test]
fn a_player_that_stops_reading_costs_the_one_beside_it_no_packet() {
    needs!(Ffmpeg);
    let (gateway, port, url, publication) = plays(Clip::Heavy);
    let small = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    small.set_recv_buffer_size(64 << 10).unwrap();
    small.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
    let small = std::net::TcpStream::from(small);
    let address = small.local_addr().unwrap().to_string();
    let (mut slow, mut healthy) = (Player::on(Box::new(small)), Player::connect(port));
    slow.play(&url, interleaved);
    healthy.play(&url, interleaved);
    // It reads no more from here on.
    let (mut next, mut count) = (None, 0);
    wait::until_true("the slow one to be said", wait::LONG, || {
        while let Some((channel, packet)) = healthy.frame_within(Duration::ZERO) {
            if channel != 0 {
                continue;
            }
            let number = number(&packet);
            assert!(next.is_none_or(|next| next == number), "a hole before {number}: {}", gateway.log());
            next = Some(number.wrapping_add(1));
            count += 1;
            if count % 500 == 0 {
                break;
            }
        }
        gateway.log_lines(&address).iter().any(|line| line.contains("slow"))
    });
    assert!(count >= 500, "{count}");
    drop(publication);
}

#[test]
fn a_publisher_that_falls_silent_without_a_word_loses_its_place() {
    const SDP: &str =
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\na=control:trackID=0\r\n";
    let (listening, to) = (port::free(), port::free());
    let url = rtsp(listening, "live/cam");
    for udp in [false, true] {
        let input = json!({ "listen": url, "idleTimeoutSeconds": 2, "udpPorts": udp_ports() });
        let gateway = gateway(input, to, json!({}));
        gateway.wait_value("/flows/cam/state", "waiting");
        let mut publisher = Player::connect(listening);
        let content = [("Content-Type", "application/sdp")];
        assert_eq!(publisher.ask_with("ANNOUNCE", &url, &content, SDP).status, 200);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = socket.local_addr().unwrap().port();
        let transport = match udp {
            false => "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record".to_owned(),
            true => format!("RTP/AVP;unicast;client_port={own}-{};mode=record", own + 1),
        };
        let answer = publisher.ask("SETUP", &format!("{url}/trackID=0"), &[("Transport", &transport)]);
        assert_eq!(answer.status, 200, "{}", answer.head);
        let ports = answer.header("Transport").and_then(|header| header.split("server_port=").nth(1));
        let server = ports.map(|ports| ports.split('-').next().unwrap().parse::<u16>().unwrap());
        assert_eq!(publisher.ask("RECORD", &url, &[]).status, 200);
        let mut sent = 0_u16;
        wait::until_true("media to be received", wait::LONG, || {
            let mut packet = vec![0x80, 0];
            packet.extend(sent.to_be_bytes());
            packet.extend((u32::from(sent) * 160).to_be_bytes());
            packet.extend([0, 0, 0, 7]);
            packet.resize(12 + 160, 0xff);
            match server {
                Some(port) => {
                    socket.send_to(&packet, ("127.0.0.1", port)).unwrap();
                }
                None => publisher.send_frame(0, &packet),
            }
            sent += 1;
            gateway.status()["flows"]["cam"]["input"]["state"] == "receiving"
        });
        // Nothing from here on, while the connection stays open.
        while publisher.frame().is_some() {}
        gateway.wait_log(&["publisher gone", "nothing that can be passed on came for 2 s"]);
        gateway.wait_value("/flows/cam/input/state", "waiting");
        assert_eq!(gateway.terminate().status.code(), Some(0));
    }
}

#[test]
fn a_picture_in_one_datagram_of_sixty_kilobytes_comes_in_and_goes_out_in_small_packets() {
    const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n\
        a=rtpmap:96 H264/90000\r\na=control:trackID=0\r\na=fmtp:96 packetization-mode=1;\
        sprop-parameter-sets=Z2QAHqzZQKAv+XARAAADAAEAAAMAMg8WLZY=,aO+Py/34+A==\r\n";
    let (listening, to) = (port::free(), port::free());
    let (url, played) = (rtsp(listening, "live/cam"), rtsp(to, "live/cam"));
    let gateway = gateway(json!({ "listen": url, "udpPorts": udp_ports() }), to, json!({}));
    gateway.wait_value("/flows/cam/state", "waiting");
    let mut publisher = Player::connect(listening);
    let content = [("Content-Type", "application/sdp")];
    assert_eq!(publisher.ask_with("ANNOUNCE", &url, &content, SDP).status, 200);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let own = socket.local_addr().unwrap().port();
    let transport = format!("RTP/AVP;unicast;client_port={own}-{};mode=record", own + 1);
    let answer = publisher.ask("SETUP", &format!("{url}/trackID=0"), &[("Transport", &transport)]);
    let ports = answer.header("Transport").and_then(|header| header.split("server_port=").nth(1)).unwrap();
    let server: u16 = ports.split('-').next().unwrap().parse().unwrap();
    assert_eq!(publisher.ask("RECORD", &url, &[]).status, 200);
    // A key frame as large as a datagram can be.
    let unit = [&[0x65, 0x88, 0x84][..], &[0x41; 65_507 - 12 - 4], &[0x80]].concat();
    let mut sent = 0_u16;
    let mut send = || {
        let mut packet = vec![0x80, 0x80 | 96];
        packet.extend(sent.to_be_bytes());
        packet.extend((u32::from(sent) * 3600).to_be_bytes());
        packet.extend([0, 0, 0, 7]);
        packet.extend(&unit);
        socket.send_to(&packet, ("127.0.0.1", server)).unwrap();
        sent += 1;
    };
    wait::until_true("pictures to be received", wait::LONG, || {
        send();
        gateway.status()["flows"]["cam"]["input"]["state"] == "receiving"
    });
    let mut player = Player::connect(to);
    player.play(&played, interleaved);
    let mut whole = Vec::new();
    wait::until_true("a picture", wait::LONG, || {
        send();
        while let Some((channel, packet)) = player.frame_within(Duration::ZERO) {
            if channel != 0 || packet[12] & 31 != 28 {
                continue;
            }
            assert!(packet.len() <= 1400 - 28, "{}", packet.len());
            if packet[13] & 0x80 != 0 {
                whole = vec![packet[12] & 0xe0 | packet[13] & 31];
            }
            whole.extend(&packet[14..]);
            if packet[13] & 0x40 != 0 {
                return true;
            }
        }
        false
    });
    assert!(whole == unit, "{} bytes of {}\n{}", whole.len(), unit.len(), gateway.log());
}

#[test]
fn av1_is_played_by_the_present_ffmpeg_and_opus_by_gstreamer_as_well() {
    needs!(Ffmpeg, Ffmpeg9, Gst);
    let (from, port) = (rtmp(port::free(), "live/cam"), port::free());
    let url = rtsp(port, "live/cam");
    let gateway = gateway(json!({ "listen": from, "onPublisherLoss": "close" }), port, json!({}));
    let publication = PublishWith::Ffmpeg9.start(Clip::Av1Opus, &from);
    gateway.wait_receiving("cam");
    let described = Player::connect(port).ask("DESCRIBE", &url, &[]);
    assert!(described.body.contains("AV1/90000") && described.body.contains("opus/48000/2"), "{described:?}");
    let line = format!(
        "-v rtspsrc location={url} protocols=tcp name=s s. ! application/x-rtp,media=audio ! rtpopusdepay ! opusdec \
         ! fakesink silent=false sync=false num-buffers=50"
    );
    let heard = Program::start(Tool::Gst.command().args(line.split_whitespace()));
    let played = watch(Tool::Ffmpeg9, "tcp", &url, None).finish(wait::LONG);
    let who = format!("{}\n{}", played.stderr, gateway.log());
    let count = must_be(&seen(&played), &original(Clip::Av1Opus), &who);
    assert!(count >= 50, "{count} pictures: {who}");
    let heard = heard.finish(wait::LONG);
    let pieces = heard.stdout.lines().filter(|line| line.contains("chain")).count();
    assert!(pieces >= 50, "{pieces}: {}\n{}", heard.stderr, gateway.log());
    drop(publication);
}
