use av_media::{AudioFormat, Codec, Track};

use super::*;
use crate::sdp::{About, Format};
use crate::transport::Pair;

const AT: Duration = Duration::from_secs(100);

fn description() -> Description {
    let sound = |codec| {
        let audio = AudioFormat { sample_rate: 8000, channels: 1 };
        Format::of(&Track { audio, ..Track::other(codec) }).unwrap()
    };
    let about = About { name: "one".into(), id: 7, version: 1 };
    Description::new(&about, &[sound(Codec::PcmA), sound(Codec::PcmU)])
}

/// A server and the answers that it gave.
struct Talk {
    session: ServerSession,
    events: Vec<ServerEvent>,
}

impl Talk {
    fn new() -> Self {
        let config = ServerConfig {
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            random: [0xab; 32],
            tls: false,
        };
        Self { session: ServerSession::new(config, AT), events: Vec::new() }
    }

    /// What the server sends after this input and the decisions before it.
    fn say(&mut self, text: &str) -> String {
        self.session.buffer().extend_from_slice(text.replace('\n', "\r\n").as_bytes());
        self.session.handle_input(AT);
        self.hear()
    }

    fn hear(&mut self) -> String {
        let mut said = String::new();
        while let Some(output) = self.session.poll().unwrap() {
            match output {
                ServerOutput::Send(bytes) => said.push_str(std::str::from_utf8(&bytes).unwrap()),
                ServerOutput::Event(event) => self.events.push(event),
            }
        }
        said
    }

    fn event(&mut self) -> ServerEvent {
        assert_eq!(self.events.len(), 1, "{:?}", self.events);
        self.events.remove(0)
    }

    fn describe(&mut self, uri: &str) -> String {
        self.say(&format!("DESCRIBE {uri} RTSP/1.0\nCSeq: 2\n\n"));
        assert!(matches!(self.event(), ServerEvent::Describe(_)));
        self.session.accept_describe(&description());
        self.hear()
    }

    fn setup(&mut self, uri: &str, transport: &str) -> SetupAsk {
        assert_eq!(self.say(&format!("SETUP {uri} RTSP/1.0\nCSeq: 3\nTransport: {transport}\n\n")), "");
        match self.event() {
            ServerEvent::Setup(setup) => setup,
            other => panic!("{other:?}"),
        }
    }

    fn playing() -> Self {
        let mut talk = Self::new();
        talk.describe("rtsp://h/live/one");
        talk.setup("rtsp://h/live/one/trackID=0", "RTP/AVP/TCP;unicast;interleaved=0-1");
        talk.session.accept_setup(SetupAnswer::Tcp, Some(1));
        talk.hear();
        talk.setup("rtsp://h/live/one/trackID=1", "RTP/AVP/TCP;unicast;interleaved=2-3");
        talk.session.accept_setup(SetupAnswer::Tcp, Some(2));
        talk.hear();
        talk.say("PLAY rtsp://h/live/one/ RTSP/1.0\nCSeq: 4\n\n");
        assert!(matches!(talk.event(), ServerEvent::Play { again: false }));
        talk
    }
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {answer:?}")).parse().unwrap()
}

#[test]
fn options_needs_no_authentication_and_lists_both_signs_of_life() {
    let answer = Talk::new().say("OPTIONS rtsp://h/x RTSP/1.0\nCSeq: 1\nAuthorization: Basic junk\n\n");
    assert_eq!((status(&answer), header(&answer, "CSeq")), (200, Some("1")));
    let public = header(&answer, "Public").unwrap();
    assert!(public.contains("GET_PARAMETER") && public.contains("SET_PARAMETER"), "{public}");
}

#[test]
fn controls_and_content_base_are_absolute_and_without_query() {
    let mut talk = Talk::new();
    let answer = talk.describe("rtsp://u:p@h:8554/live/one?key=secret");
    assert_eq!(header(&answer, "Content-Base"), Some("rtsp://h:8554/live/one/"));
    assert_eq!(header(&answer, "Content-Type"), Some("application/sdp"));
    assert!(answer.contains("a=control:rtsp://h:8554/live/one/trackID=1\r\n"), "{answer}");
    assert!(!answer.contains("secret"));
}

#[test]
fn the_key_of_describe_binds_the_connection_to_its_path() {
    let mut talk = Talk::new();
    talk.describe("rtsp://h/live/one?key=secret");
    let tcp = "RTP/AVP/TCP;unicast;interleaved=0-1";
    for uri in
        ["rtsp://h/live/one/trackID=1", "rtsp://h/live/one?key=secret/trackID=1", "/live/one/trackID=1"]
    {
        let setup = talk.setup(uri, tcp);
        assert!(setup.bound && setup.medium == 1 && setup.ask.path == "live/one", "{uri}: {setup:?}");
        talk.session.refuse(StatusCode::UnsupportedTransport);
        assert_eq!(status(&talk.hear()), 461);
    }
    assert!(!talk.setup("rtsp://h/live/two/trackID=1", tcp).bound);
}

#[test]
fn the_session_header_is_the_one_that_ffmpeg_reads() {
    let mut talk = Talk::new();
    talk.describe("rtsp://h/live/one");
    talk.setup("rtsp://h/live/one/trackID=0", "RTP/AVP/TCP;unicast;interleaved=0-1,RTP/AVP;multicast");
    let carried = talk.session.accept_setup(SetupAnswer::Tcp, Some(0xabc));
    assert_eq!(carried, Some(Carried::Tcp { channels: Pair { rtp: 0, rtcp: 1 } }));
    let answer = talk.hear();
    let (id, timeout) = header(&answer, "Session").unwrap().split_once(';').unwrap();
    assert!(id.chars().all(|c| c.is_ascii_alphanumeric()) && timeout == "timeout=60", "{answer}");
    assert_eq!(answer.matches("Session:").count(), 1);
    assert_eq!(header(&answer, "Transport"), Some("RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=00000ABC"));
}

#[test]
fn channels_that_are_taken_or_not_named_are_replaced_by_free_ones() {
    let mut talk = Talk::new();
    for (medium, transport, rtp) in
        [(0, "RTP/AVP/TCP;interleaved=0-1", 0), (1, "RTP/AVP/TCP;interleaved=1-2", 2)]
    {
        talk.setup(&format!("rtsp://h/live/one/trackID={medium}"), transport);
        let carried = talk.session.accept_setup(SetupAnswer::Tcp, None);
        assert_eq!(carried, Some(Carried::Tcp { channels: Pair { rtp, rtcp: rtp + 1 } }));
        talk.hear();
    }
}

#[test]
fn rtp_info_has_the_very_control_urls() {
    let mut talk = Talk::playing();
    let first = |medium| FirstPacket { medium, sequence: 10, rtp_time: 4_000_000_000 };
    talk.session.accept_play(&[first(0), first(1)]);
    let answer = talk.hear();
    assert_eq!(
        header(&answer, "RTP-Info"),
        Some(
            "url=rtsp://h/live/one/trackID=0;seq=10;rtptime=4000000000,\
             url=rtsp://h/live/one/trackID=1;seq=10;rtptime=4000000000"
        )
    );
    assert_eq!(header(&answer, "Session"), talk.session.session_id());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut talk = Talk::new();
    let said = talk.say(
        "OPTIONS * RTSP/1.0\nCSeq: 1\n\nDESCRIBE rtsp://h/a RTSP/1.0\nCSeq: 2\n\n\
         GET_PARAMETER rtsp://h/a RTSP/1.0\nCSeq: 3\n\nDESCRIBE rtsp://h/b RTSP/1.0\nCSeq: 4\n\n",
    );
    assert_eq!(header(&said, "CSeq"), Some("1"));
    assert!(talk.session.is_undecided());
    talk.session.accept_describe(&description());
    let said = talk.hear();
    let numbers: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("CSeq: ")).collect();
    assert_eq!(numbers, ["2", "3"]);
    assert_eq!(talk.events.len(), 2);
    talk.session.refuse(StatusCode::NotFound);
    assert_eq!(status(&talk.hear()), 404);
}

#[test]
fn what_waits_for_a_decision_is_bounded() {
    let mut talk = Talk::new();
    talk.say("DESCRIBE rtsp://h/a RTSP/1.0\nCSeq: 1\n\n");
    talk.session.buffer().extend_from_slice(&vec![b'$'; (256 << 10) + 1]);
    talk.session.handle_input(AT);
    assert_eq!(talk.session.poll().unwrap_err(), RtspError::NotWaiting { limit: 256 << 10 });
}

#[test]
fn pause_and_teardown_are_answered_with_yes() {
    let mut talk = Talk::playing();
    talk.session.accept_play(&[]);
    talk.hear();
    assert_eq!(status(&talk.say("PAUSE rtsp://h/live/one/ RTSP/1.0\nCSeq: 5\n\n")), 200);
    assert!(matches!(talk.event(), ServerEvent::Pause));
    talk.say("PLAY rtsp://h/live/one/ RTSP/1.0\nCSeq: 6\n\n");
    assert!(matches!(talk.event(), ServerEvent::Play { again: false }));
    talk.session.accept_play(&[]);
    talk.hear();
    let before = talk.session.session_id().unwrap().to_owned();
    assert_eq!(status(&talk.say("TEARDOWN rtsp://h/live/one/ RTSP/1.0\nCSeq: 7\n\n")), 200);
    assert!(matches!(talk.event(), ServerEvent::Teardown));
    // As ExoPlayer does, who changes from UDP to TCP so.
    talk.setup("rtsp://h/live/one/trackID=0", "RTP/AVP/TCP;unicast;interleaved=0-1");
    talk.session.accept_setup(SetupAnswer::Tcp, None);
    assert_ne!(talk.session.session_id(), Some(before.as_str()));
}

#[test]
fn a_player_s_packets_are_told_by_medium_and_others_are_counted() {
    let mut talk = Talk::playing();
    talk.session.accept_play(&[]);
    talk.hear();
    talk.session.buffer().extend_from_slice(b"$\x03\x00\x02ab$\x09\x00\x01c$\x02\x00\x01d");
    talk.session.handle_input(AT);
    talk.hear();
    let got: Vec<_> = talk
        .events
        .iter()
        .map(|event| match event {
            ServerEvent::Interleaved { medium, rtcp, data } => (*medium, *rtcp, &data[..]),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(got, [(1, true, &b"ab"[..]), (1, false, b"d")]);
    assert_eq!(talk.session.ignored().frames, 1);
}

#[test]
fn requests_out_of_order_or_of_others_sessions_are_refused_and_the_connection_goes_on() {
    let mut talk = Talk::new();
    let mut refused = |text: &str| status(&talk.say(text));
    assert_eq!(refused("PLAY rtsp://h/a RTSP/1.0\nCSeq: 1\n\n"), 455);
    assert_eq!(refused("RECORD rtsp://h/a RTSP/1.0\nCSeq: 1\n\n"), 455);
    assert_eq!(refused("PAUSE rtsp://h/a RTSP/1.0\nCSeq: 1\n\n"), 455);
    assert_eq!(refused("PLAY rtsp://h/a RTSP/1.0\nCSeq: 1\nSession: other\n\n"), 454);
    assert_eq!(refused("SETUP rtsp://h/a RTSP/1.0\nTransport: RTP/AVP/TCP;mode=record\n\n"), 455);
    assert_eq!(refused("SHAKE rtsp://h/a RTSP/1.0\nCSeq: 1\n\n"), 501);
    assert_eq!(refused("DESCRIBE nonsense RTSP/1.0\nCSeq: 1\n\n"), 400);
    assert_eq!(refused("OPTIONS * RTSP/1.0\nCSeq: 1\n\n"), 200);
}

#[test]
fn what_was_described_and_is_no_more_ends_the_session_and_describe_leads_on() {
    let mut talk = Talk::new();
    talk.describe("rtsp://h/a");
    talk.setup("rtsp://h/a/trackID=0", "RTP/AVP/TCP;unicast;interleaved=0-1");
    talk.session.accept_setup(SetupAnswer::Tcp, None).unwrap();
    let answer = talk.hear();
    let id = header(&answer, "Session").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(talk.say(&format!("PLAY rtsp://h/a RTSP/1.0\nCSeq: 5\nSession: {id}\n\n")), "");
    assert!(matches!(talk.event(), ServerEvent::Play { .. }));
    talk.session.refuse_outdated();
    let answer = talk.hear();
    assert_eq!((status(&answer), talk.session.session_id()), (454, None), "{answer}");
    // The second medium of what was described before.
    talk.setup("rtsp://h/a/trackID=1", "RTP/AVP/TCP;unicast;interleaved=2-3");
    talk.session.refuse_outdated();
    assert_eq!(status(&talk.hear()), 455);
    talk.describe("rtsp://h/a");
    talk.setup("rtsp://h/a/trackID=0", "RTP/AVP/TCP;unicast;interleaved=0-1");
    assert!(talk.session.accept_setup(SetupAnswer::Tcp, None).is_some());
    assert!(!talk.hear().contains(&id), "another session");
}

#[test]
fn other_versions_and_required_features_are_refused_in_1_0_syntax() {
    let mut talk = Talk::new();
    let answer = talk.say("DESCRIBE rtsp://h/a RTSP/2.0\nCSeq: 1\n\n");
    assert!(answer.starts_with("RTSP/1.0 505 "), "{answer}");
    let answer = talk.say("DESCRIBE rtsp://h/a RTSP/1.0\nCSeq: 2\nRequire: onvif-replay\n\n");
    assert_eq!((status(&answer), header(&answer, "Unsupported")), (551, Some("onvif-replay")));
}

#[test]
fn user_and_password_are_asked_for_and_a_guesser_is_told_to_go() {
    let wanted = Credentials { username: "u".into(), password: "p".into() };
    let mut talk = Talk::new();
    talk.say("DESCRIBE rtsp://h/a RTSP/1.0\nCSeq: 1\n\n");
    assert_eq!(talk.session.check(&wanted), Verdict::Missing);
    talk.session.challenge();
    let answer = talk.hear();
    assert_eq!((status(&answer), answer.matches("WWW-Authenticate: Digest").count()), (401, 2));
    let nonce = answer.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let mut last = 0;
    for _ in 0..5 {
        talk.say(&format!(
            "DESCRIBE rtsp://h/a RTSP/1.0\nCSeq: 1\nAuthorization: Digest username=\"u\", nonce=\"{nonce}\", \
             uri=\"rtsp://h/a\", response=\"00\"\n\n"
        ));
        assert_eq!(talk.session.check(&wanted), Verdict::Wrong);
        talk.session.challenge();
        last = status(&talk.hear());
    }
    assert_eq!((last, talk.session.is_over()), (403, true));
}

#[test]
fn who_shows_wrong_keys_is_told_to_go_and_what_it_sent_behind_the_last_is_not_read() {
    let mut talk = Talk::new();
    for wrong in 1..=MOST_WRONG {
        assert!(!talk.session.is_over());
        let described = "DESCRIBE rtsp://h/a?key=x RTSP/1.0\nCSeq: 1\n\n";
        assert_eq!(talk.say(&described.repeat(if wrong == MOST_WRONG { 2 } else { 1 })), "");
        assert!(matches!(talk.event(), ServerEvent::Describe(_)));
        talk.session.showed_wrong();
        talk.session.refuse(StatusCode::Forbidden);
        assert_eq!(status(&talk.hear()), 403);
    }
    assert!(talk.session.is_over() && talk.session.guesses() && talk.events.is_empty());
}

#[test]
fn http_on_this_port_is_told_with_what_came_behind_it() {
    let mut talk = Talk::new();
    talk.say("POST /live/one HTTP/1.0\nx-sessioncookie: abc\nContent-Length: 32767\n\nT1BUSU9OUw==");
    let ServerEvent::Http(request) = talk.event() else { panic!("no HTTP") };
    assert_eq!(request.headers.get("X-SessionCookie"), Some("abc"));
    assert_eq!(&talk.session.take_rest()[..], b"T1BUSU9OUw==");
}

/// As ffmpeg and GStreamer announce: controls, where they put them, and how they spell the mode.
#[test]
fn a_publisher_s_media_are_found_by_its_own_controls() {
    for (announced, control, setup, mode) in [
        ("rtsp://h/live/one?key=k", "streamid=0", "rtsp://h/live/one?key=k/streamid=0", "record"),
        ("rtsp://h/live/one", "stream=0", "rtsp://h/live/one/stream=0", "RECORD"),
        ("rtsp://h/live/one", "rtsp://h/live/one/a%20b", "rtsp://h/live/one/a%20b", "\"RECORD\""),
        ("rtsp://h/live/one/", "x/y?z", "rtsp://h/live/one/x/y?z", "receive"),
        ("rtsp://h/live/one", "", "rtsp://h/live/one", "record"),
    ] {
        let mut talk = Talk::new();
        let sdp = format!("v=0\nm=audio 0 RTP/AVP 8\na=control:{control}\n").replace('\n', "\r\n");
        talk.say(&format!(
            "ANNOUNCE {announced} RTSP/1.0\nCSeq: 1\nContent-Type: application/sdp\nContent-Length: {}\n\n{}",
            sdp.len(),
            sdp.replace("\r\n", "\n")
        ));
        let ServerEvent::Announce { ask, presentation } = talk.event() else { panic!("no announce") };
        assert_eq!(ask.path, "live/one");
        talk.session.accept_announce(&presentation);
        assert_eq!(status(&talk.hear()), 200);
        let transport = format!("RTP/AVP/TCP;unicast;interleaved=0-1;mode={mode}");
        let asked = talk.setup(setup, &transport);
        assert!(asked.record && asked.bound && asked.medium == 0, "{setup}: {asked:?}");
        talk.session.accept_setup(SetupAnswer::Tcp, None);
        assert!(talk.hear().contains(";mode=record"));
        talk.say(&format!("RECORD {announced} RTSP/1.0\nCSeq: 4\n\n"));
        assert!(matches!(talk.event(), ServerEvent::Record));
        talk.session.accept_record();
        assert_eq!(status(&talk.hear()), 200);
        assert_eq!(status(&talk.say(&format!("PLAY {announced} RTSP/1.0\nCSeq: 5\n\n"))), 455);
    }
}

#[test]
fn silence_ends_by_what_was_expected() {
    let seconds = |count| AT + Duration::from_secs(count);
    let mut talk = Talk::new();
    assert_eq!(talk.session.deadline(), Some(seconds(10)));
    talk.session.buffer().extend_from_slice(b"OPTI");
    talk.session.handle_input(seconds(9));
    assert_eq!(talk.session.expired(seconds(10)), Some(Expired::Handshake));
    talk.session.buffer().extend_from_slice(b"ONS * RTSP/1.0\r\n\r\n");
    talk.session.handle_input(seconds(9));
    talk.hear();
    assert_eq!((talk.session.expired(seconds(68)), talk.session.deadline()), (None, Some(seconds(69))));
    talk.session.buffer().extend_from_slice(b"DESCRIBE rtsp://h/a RT");
    talk.session.handle_input(seconds(20));
    assert_eq!(talk.session.expired(seconds(30)), Some(Expired::Request));

    let mut talk = Talk::playing();
    assert_eq!(talk.session.deadline(), None, "a decision is ours to make");
    talk.session.accept_play(&[]);
    talk.session.sign_of_life(seconds(50));
    assert_eq!(talk.session.expired(seconds(119)), None);
    assert_eq!(talk.session.expired(seconds(120)), Some(Expired::Session));
}

#[test]
fn a_peer_whose_reads_all_end_inside_a_packet_is_not_held_to_be_unfinished() {
    let mut talk = Talk::playing();
    talk.session.accept_play(&[]);
    talk.hear();
    let packet = [&b"$\x01\0\x08"[..], &[0; 8]].concat();
    let mut now = AT;
    talk.session.buffer().extend_from_slice(&packet[..5]);
    talk.session.handle_input(now);
    for _ in 0..100 {
        now += Duration::from_secs(1);
        talk.session.buffer().extend_from_slice(&[&packet[5..], &packet[..5]].concat());
        talk.session.handle_input(now);
        talk.hear();
        assert!(talk.session.deadline().is_some_and(|deadline| deadline > now), "{now:?}");
        assert_eq!(talk.session.expired(now), None);
    }
    // One that is never finished is.
    talk.session.buffer().extend_from_slice(&packet[5..6]);
    talk.session.handle_input(now);
    now += Duration::from_secs(11);
    assert_eq!(talk.session.expired(now), Some(Expired::Request));
}
