use av_media::{AudioFormat, Codec, Track};

use super::*;
use crate::sdp::{About, Format, Presentation};
use crate::server::{ServerConfig, ServerEvent, ServerOutput, ServerSession, SetupAnswer, Timeouts};

const AT: Duration = Duration::from_secs(5);

fn client(credentials: Option<Credentials>, udp_ports: Option<Vec<Pair<u16>>>) -> ClientSession {
    let audio = AudioFormat { sample_rate: 8000, channels: 1 };
    let format = |codec| Format::of(&Track { audio, ..Track::other(codec) }).unwrap();
    let about = About { name: "one".into(), id: 1, version: 1 };
    let config = ClientConfig {
        url: "rtsp://h/live/one?key=k".into(),
        credentials,
        user_agent: "av-services".into(),
        description: Description::new(&about, &[format(Codec::PcmA), format(Codec::PcmU)]),
        udp_ports,
        limits: Limits::default(),
        random: [3; 16],
    };
    ClientSession::new(config, AT)
}

fn polled(session: &mut ClientSession) -> (String, Vec<ClientEvent>) {
    let (mut sent, mut events) = (String::new(), Vec::new());
    while let Some(output) = session.poll().unwrap() {
        match output {
            ClientOutput::Send(bytes) => sent.push_str(std::str::from_utf8(&bytes).unwrap()),
            ClientOutput::Event(event) => events.push(event),
        }
    }
    (sent, events)
}

fn hear(session: &mut ClientSession, text: &str) -> (String, Vec<ClientEvent>) {
    session.buffer().extend_from_slice(text.replace('\n', "\r\n").as_bytes());
    session.handle_input(AT);
    polled(session)
}

/// Joins a client and a server until both are silent.
fn joined(
    client: &mut ClientSession,
    wanted: Option<&Credentials>,
) -> (Vec<ClientEvent>, Option<Presentation>) {
    let config = ServerConfig {
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        random: [9; 32],
        tls: false,
    };
    let mut server = ServerSession::new(config, AT);
    let (mut events, mut announced) = (Vec::new(), None);
    loop {
        let (sent, mut more) = polled(client);
        events.append(&mut more);
        if sent.is_empty() {
            return (events, announced);
        }
        server.buffer().extend_from_slice(sent.as_bytes());
        server.handle_input(AT);
        while let Some(output) = server.poll().unwrap() {
            match output {
                ServerOutput::Send(bytes) => client.buffer().extend_from_slice(&bytes),
                ServerOutput::Event(ServerEvent::Announce { ask, presentation }) => {
                    assert_eq!((ask.path.as_str(), ask.query.as_deref()), ("live/one", Some("key=k")));
                    if wanted.is_some_and(|wanted| server.check(wanted) != crate::auth::Verdict::Granted) {
                        server.challenge();
                        continue;
                    }
                    server.accept_announce(&presentation);
                    announced = Some(presentation);
                }
                ServerOutput::Event(ServerEvent::Setup(setup)) => {
                    assert!(setup.bound && setup.record);
                    let answer = match setup.offers.list[0] {
                        crate::transport::Offer::Udp { client_ports } => {
                            SetupAnswer::Udp { client_ports, server_ports: Pair { rtp: 8000, rtcp: 8001 } }
                        }
                        _ => SetupAnswer::Tcp,
                    };
                    server.accept_setup(answer, None).unwrap();
                }
                ServerOutput::Event(ServerEvent::Record) => server.accept_record(),
                ServerOutput::Event(other) => panic!("{other:?}"),
            }
        }
        client.handle_input(AT);
    }
}

#[test]
fn a_stream_is_announced_to_our_own_server_over_tcp_and_udp() {
    let (events, announced) = joined(&mut client(None, None), None);
    let [ClientEvent::Established { media }] = &events[..] else { panic!("{events:?}") };
    let channels = |rtp| ServerPlace::Tcp { channels: Pair { rtp, rtcp: rtp + 1 } };
    assert_eq!(media[..], [channels(0), channels(2)]);
    assert_eq!(announced.unwrap().media.len(), 2);

    let ports = vec![Pair { rtp: 5000, rtcp: 5001 }, Pair { rtp: 5002, rtcp: 5003 }];
    let (events, _) = joined(&mut client(None, Some(ports)), None);
    let [ClientEvent::Established { media }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(media[0], ServerPlace::Udp { ports: Pair { rtp: 8000, rtcp: 8001 }, source: None });
}

#[test]
fn a_server_that_asks_for_the_password_is_told_and_a_wrong_one_is_refused() {
    let right = Credentials { username: "u".into(), password: "p".into() };
    let (events, _) = joined(&mut client(Some(right.clone()), None), Some(&right));
    assert!(matches!(events[..], [ClientEvent::Established { .. }]), "{events:?}");

    let wrong = Credentials { password: "q".into(), ..right.clone() };
    for credentials in [Some(wrong), None] {
        let (events, _) = joined(&mut client(credentials, None), Some(&right));
        let [ClientEvent::Refused { method: "ANNOUNCE", status, .. }] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(*status, StatusCode::Unauthorized);
    }
}

#[test]
fn a_redirect_and_a_refusal_are_named() {
    let mut session = client(None, None);
    polled(&mut session);
    let (_, events) = hear(&mut session, "RTSP/1.0 302 Moved\nCSeq: 1\nLocation: rtsp://other/x\n\n");
    assert!(matches!(&events[..], [ClientEvent::Redirected { to }] if to == "rtsp://other/x"));

    let mut session = client(None, None);
    polled(&mut session);
    let (sent, _) = hear(&mut session, "RTSP/1.0 501 What?\nCSeq: 1\n\n");
    assert!(sent.starts_with("ANNOUNCE rtsp://h/live/one?key=k RTSP/1.0\r\n"), "{sent}");
    let (_, events) = hear(&mut session, "RTSP/1.0 453 Not Enough Bandwidth\nCSeq: 2\n\n");
    let [ClientEvent::Refused { method: "ANNOUNCE", reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(reason, "Not Enough Bandwidth");
}

#[test]
fn an_answer_that_can_t_be_used_is_an_error() {
    for setup in
        ["Session: 1", "Session: 1\nTransport: RTP/AVP;unicast;server_port=1-2", "Transport: RTP/AVP/TCP"]
    {
        let mut session = client(None, None);
        hear(&mut session, "RTSP/1.0 200 OK\nCSeq: 1\n\nRTSP/1.0 200 OK\nCSeq: 2\n\n");
        session.buffer().extend_from_slice(
            format!("RTSP/1.0 200 OK\nCSeq: 3\n{setup}\n\n").replace('\n', "\r\n").as_bytes(),
        );
        session.handle_input(AT);
        let error = std::iter::from_fn(|| Some(session.poll())).find_map(|polled| match polled {
            Ok(Some(_)) => None,
            Ok(None) => panic!("{setup}: no error"),
            Err(error) => Some(error),
        });
        assert!(matches!(error, Some(RtspError::Answer { method: "SETUP", .. })), "{setup}: {error:?}");
    }
}

#[test]
fn signs_of_life_follow_the_server_s_own_time_out() {
    let mut session = client(None, None);
    let ok = |number: u32, more: &str| format!("RTSP/1.0 200 OK\nCSeq: {number}\n{more}\n");
    hear(&mut session, &ok(1, "Public: OPTIONS, GET_PARAMETER\n"));
    hear(&mut session, &ok(2, ""));
    let tcp = "Session: ab ; timeout=20\nTransport: RTP/AVP/TCP;interleaved=";
    hear(&mut session, &ok(3, &format!("{tcp}0-1\n")));
    hear(&mut session, &ok(4, &format!("{tcp}2-3\n")));
    let (_, events) = hear(&mut session, &ok(5, ""));
    assert!(matches!(events[..], [ClientEvent::Established { .. }]));
    assert_eq!(session.deadline(), AT + Duration::from_secs(10));
    session.handle_time(AT + Duration::from_secs(10));
    let (sent, _) = polled(&mut session);
    assert!(sent.starts_with("GET_PARAMETER ") && sent.contains("Session: ab\r\n"), "{sent}");
    // Not understood is answered all the same.
    let (_, events) = hear(&mut session, "RTSP/1.0 405 No\nCSeq: 6\n\n");
    assert!(events.is_empty());
    session.handle_time(AT + Duration::from_secs(20));
    session.handle_time(AT + Duration::from_secs(30));
    polled_until_error(&mut session, &RtspError::NoAnswer { method: "GET_PARAMETER" });
}

fn polled_until_error(session: &mut ClientSession, wanted: &RtspError) {
    loop {
        match session.poll() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no error"),
            Err(error) => return assert_eq!(&error, wanted),
        }
    }
}

#[test]
fn a_server_that_asks_is_answered() {
    let mut session = client(None, None);
    polled(&mut session);
    let (sent, _) = hear(&mut session, "OPTIONS rtsp://h/x RTSP/1.0\nCSeq: 77\n\n");
    assert_eq!(sent, "RTSP/1.0 200 OK\r\nCSeq: 77\r\n\r\n");
    let (_, events) = hear(&mut session, "TEARDOWN rtsp://h/x RTSP/1.0\nCSeq: 78\n\n");
    assert!(matches!(events[..], [ClientEvent::Ended]));
}
