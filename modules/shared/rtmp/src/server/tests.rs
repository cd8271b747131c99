//! The server's side, spoken to command by command.

use bytes::BytesMut;

use super::*;
use crate::amf0::{Value, decode, encode_all, object};
use crate::chunk::{Header, RawMessage, write_message};
use crate::message::{Message, UserControl};
use crate::{Egress, MediaItem};

const AVCC: &[u8] = b"\x01\x64\0\x1e\xff\xe1\0\x1a\x67\x64\0\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x11\0\0\x03\0\x01\0\0\x03\0\x32\x0f\x16\x2d\x96\x01\0\x04\x68\xef\x8f\xcb\xfd\xf8\xf8\0";

/// A server past the handshake, and what a client would see of it.
struct Server {
    session: ServerSession,
    replies: crate::chunk::ChunkReader,
}

fn message(type_id: u8, stream_id: u32, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    write_message(&mut out, 128, Header { csid: 3, timestamp: 0, type_id, stream_id }, &[payload]);
    out
}

fn command(name: &str, transaction: f64, rest: &[Value]) -> BytesMut {
    let mut values = vec![Value::from(name), Value::from(transaction)];
    values.extend_from_slice(rest);
    message(20, 0, &encode_all(&values))
}

fn connect_to(app: &str) -> BytesMut {
    command("connect", 1.0, &[object([("app", Value::from(app)), ("tcUrl", Value::from("rtmp://h/live"))])])
}

impl Server {
    fn new(limits: Limits) -> Self {
        let mut session = ServerSession::new(limits);
        // The simple handshake: C1 without digest, C2 the echo of S1.
        session.handle_input(&[&[3][..], &[0; 1536]].concat());
        let Ok(Some(ServerOutput::Send(answer))) = session.poll() else { panic!("no S0") };
        assert_eq!((answer.len(), answer[0]), (1 + 2 * 1536, 3));
        assert!(!session.handshake_done());
        session.handle_input(&answer[1..=1536]);
        assert!(session.handshake_done());
        Self { session, replies: crate::chunk::ChunkReader::new(&Limits::default()) }
    }

    fn connected() -> Self {
        let mut server = Self::new(Limits::default());
        server.send(&connect_to("live"));
        server.session.accept_connect();
        server.send(&command("createStream", 2.0, &[Value::Null]));
        server.outputs();
        server
    }

    fn publishing() -> Self {
        let mut server = Self::connected();
        server.send(&command("publish", 3.0, &[Value::Null, Value::from("s"), Value::from("live")]));
        server.session.accept_publish(RequestId(1));
        server.outputs();
        server
    }

    fn playing() -> Self {
        let mut server = Self::connected();
        server.send(&command("play", 3.0, &[Value::Null, Value::from("s")]));
        server.session.accept_play(RequestId(1));
        server.outputs();
        server
    }

    fn send(&mut self, bytes: &[u8]) {
        self.session.handle_input(bytes);
    }

    fn outputs(&mut self) -> (Vec<RawMessage>, Vec<ServerEvent>) {
        let (mut messages, mut events) = (Vec::new(), Vec::new());
        while let Some(output) = self.session.poll().unwrap() {
            match output {
                ServerOutput::Event(event) => events.push(event),
                ServerOutput::Send(bytes) => {
                    let mut input = &bytes[..];
                    while let Some(message) = self.replies.read(&mut input).unwrap() {
                        messages.push(message);
                    }
                }
            }
        }
        (messages, events)
    }

    fn events(&mut self) -> Vec<ServerEvent> {
        self.outputs().1
    }

    /// What is said before the connection ends, and why it does.
    fn last_words(&mut self) -> (Vec<String>, RtmpError) {
        let mut messages = Vec::new();
        loop {
            match self.session.poll() {
                Ok(Some(ServerOutput::Send(bytes))) => {
                    let mut input = &bytes[..];
                    while let Some(message) = self.replies.read(&mut input).unwrap() {
                        messages.push(message);
                    }
                }
                Ok(output) => assert!(output.is_some(), "no error"),
                Err(error) => return (spoken(messages), error),
            }
        }
    }

    /// Command and data replies: name and, where there is one, code.
    fn said(&mut self) -> Vec<String> {
        let messages = self.outputs().0;
        spoken(messages)
    }
}

fn spoken(messages: Vec<RawMessage>) -> Vec<String> {
    let commands = messages.into_iter().filter(|message| matches!(message.type_id, 18 | 20));
    let said = commands.map(|message| {
        let values = decode(&message.payload).unwrap();
        let code = values.iter().find_map(|value| value.get("code")).and_then(Value::as_str);
        [values[0].as_str(), code].into_iter().flatten().collect::<Vec<_>>().join(" ")
    });
    said.collect()
}

impl Server {
    /// What ends the connection, once everything before it was given.
    fn error(&mut self, bytes: &[u8]) -> RtmpError {
        self.session.handle_input(bytes);
        loop {
            match self.session.poll() {
                Ok(output) => assert!(output.is_some(), "no error"),
                Err(error) => return error,
            }
        }
    }
}

#[test]
fn connect_tells_app_query_and_what_the_client_understands() {
    let mut server = Server::new(Limits::default());
    let list = Value::StrictArray(vec![Value::from("hvc1"), Value::from("too long"), Value::Null]);
    let info = object([
        ("app", Value::from("live/inner?user=u&x=1")),
        ("tcUrl", Value::from("rtmp://h/live/inner?other")),
        ("flashVer", Value::from("F")),
        ("fourCcList", list),
    ]);
    server.send(&command("connect", 1.0, &[info]));
    let events = server.events();
    let [ServerEvent::Connect(connect)] = events.as_slice() else { panic!("{events:?}") };
    let expected = Connect {
        app: "live/inner".to_owned(),
        query: Some("user=u&x=1".to_owned()),
        tc_query: Some("other".to_owned()),
        flash_ver: "F".to_owned(),
        four_cc: vec!["hvc1".to_owned()],
        intent: None,
    };
    assert_eq!(*connect, expected);
    // Who speaks of FourCCs is told ours.
    server.session.accept_connect();
    let info = decode(&server.outputs().0[2].payload).unwrap().pop().unwrap();
    assert!(matches!(info.get("fourCcList"), Some(Value::StrictArray(list)) if list.len() == 11));
}

#[test]
fn an_accepted_connect_is_answered_with_windows_chunk_size_and_success() {
    let mut server = Server::new(Limits::default());
    server.send(&connect_to("live"));
    assert_eq!(server.events().len(), 1);
    server.session.accept_connect();
    let (messages, _) = server.outputs();
    // The chunk size itself is taken by the reader.
    assert_eq!(messages.iter().map(|message| message.type_id).collect::<Vec<_>>(), [5, 6, 20]);
    let values = decode(&messages[2].payload).unwrap();
    assert_eq!((values[0].as_str(), values[1].as_number()), (Some("_result"), Some(1.0)));
    assert_eq!(values[3].get("code").and_then(Value::as_str), Some("NetConnection.Connect.Success"));
    assert_eq!(values[3].get("fourCcList"), None);
}

#[test]
fn a_refused_connect_is_an_error_with_the_description() {
    let mut server = Server::new(Limits::default());
    server.send(&connect_to("live"));
    server.session.reject_connect("no such application");
    let (messages, _) = server.outputs();
    let values = decode(&messages[0].payload).unwrap();
    assert_eq!(values[0].as_str(), Some("_error"));
    assert_eq!(values[3].get("description").and_then(Value::as_str), Some("no such application"));
    // What was already on its way is dropped.
    server.send(&command("createStream", 2.0, &[Value::Null]));
    assert_eq!(server.said(), Vec::<String>::new());
}

#[test]
fn the_commands_of_encoders_and_players_are_answered() {
    let mut server = Server::new(Limits::default());
    server.send(&connect_to("live"));
    server.session.accept_connect();
    server.outputs();
    let name = [Value::Null, Value::from("s")];
    for (sent, answer) in [
        (command("releaseStream", 2.0, &name), &["_result"][..]),
        (command("FCPublish", 3.0, &name), &["_result", "onFCPublish NetStream.Publish.Start"]),
        (command("FCUnpublish", 3.0, &name), &["_result", "onFCUnpublish NetStream.Unpublish.Success"]),
        (command("FCSubscribe", 0.0, &name), &["onFCSubscribe NetStream.Play.Start"]),
        (command("getStreamLength", 4.0, &name), &["_result"]),
        (command("_checkbw", 4.0, &[Value::Null]), &["_result"]),
        (command("createStream", 5.0, &[Value::Null]), &["_result"]),
        (command("createStream", 6.0, &[Value::Null]), &["_result"]),
        (command("deleteStream", 0.0, &[Value::Null, Value::from(1.0)]), &[]),
        (command("createStream", 7.0, &[Value::Null]), &["_result"]),
        (command("whatever", 8.0, &[]), &["_error NetConnection.Call.Failed"]),
        (command("whatever", 0.0, &[]), &[]),
        (command("onStatus", 9.0, &[]), &[]),
        (command("seek", 0.0, &[Value::Null, Value::from(1.0)]), &["onStatus NetStream.Seek.Failed"]),
        (command("pause", 0.0, &[Value::Null, Value::Boolean(true)]), &["onStatus NetStream.Pause.Notify"]),
        (
            command("pause", 0.0, &[Value::Null, Value::Boolean(false)]),
            &["onStatus NetStream.Unpause.Notify"],
        ),
        (command("receiveAudio", 0.0, &[Value::Null, Value::Boolean(false)]), &[]),
    ] {
        server.send(&sent);
        assert_eq!(server.said(), answer);
    }
}

#[test]
fn publish_needs_no_type_and_gives_name_and_query() {
    let mut server = Server::connected();
    server.send(&command("publish", 3.0, &[Value::Null, Value::from("cam/1?key=K?&b=c")]));
    let events = server.events();
    let [ServerEvent::Publish { id, name, query }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((name.as_str(), query.as_deref()), ("cam/1", Some("key=K?&b=c")));
    server.session.accept_publish(*id);
    assert_eq!(server.said(), ["onStatus NetStream.Publish.Start"]);
}

#[test]
fn play_is_answered_as_players_expect() {
    let mut server = Server::connected();
    let arguments = [Value::Null, Value::from("s"), Value::from(-2.0), Value::from(-1.0)];
    let start = ["onStatus NetStream.Play.Start", "|RtmpSampleAccess", "onStatus NetStream.Data.Start"];
    server.send(&command("play", 3.0, &arguments));
    server.session.accept_play(RequestId(1));
    let said = server.said();
    assert_eq!(said[0], "onStatus NetStream.Play.Reset");
    assert_eq!(said[1..], start);

    let mut server = Server::connected();
    server.send(&command("play", 3.0, &[&arguments[..], &[Value::Boolean(false)]].concat()));
    server.session.accept_play(RequestId(1));
    assert_eq!(server.said(), start);
}

#[test]
fn a_refused_publish_or_play_is_a_status_of_level_error() {
    for verb in ["publish", "play"] {
        let mut server = Server::connected();
        server.send(&command(verb, 3.0, &[Value::Null, Value::from("s")]));
        let why = Refusal { code: "NetStream.Publish.BadName", description: "taken".to_owned() };
        server.session.reject(RequestId(7), why.clone());
        assert_eq!(server.outputs().0, [], "an id that was never given is nobody's");
        server.session.reject(RequestId(1), why);
        let (messages, _) = server.outputs();
        let info = decode(&messages[0].payload).unwrap().pop().unwrap();
        assert_eq!(messages[0].stream_id, 1);
        assert_eq!(info.get("level").and_then(Value::as_str), Some("error"));
        assert_eq!(info.get("code").and_then(Value::as_str), Some("NetStream.Publish.BadName"));
    }
}

#[test]
fn who_does_not_begin_with_connect_or_sends_media_unasked_is_disconnected() {
    let mut server = Server::new(Limits::default());
    let error = server.error(&command("publish", 3.0, &[Value::Null, Value::from("s")]));
    assert!(matches!(error, RtmpError::CommandOrder { .. }), "{error}");

    for mut server in [Server::new(Limits::default()), Server::connected(), Server::playing()] {
        let error = server.error(&message(9, 1, b"\x17\x01\0\0\0nal"));
        assert!(matches!(error, RtmpError::MediaBeforePublish { type_id: 9 }), "{error}");
    }
}

#[test]
fn a_first_command_without_a_name_ends_the_connection() {
    for values in [&[][..], &[Value::Null], &[Value::from(1.0)]] {
        let error = Server::new(Limits::default()).error(&message(20, 0, &encode_all(values)));
        assert!(matches!(error, RtmpError::Argument { argument: "a name", .. }), "{error}");
    }
    // A connect without anything is a connect to nothing.
    let mut server = Server::new(Limits::default());
    server.send(&message(20, 0, &encode_all(&[Value::from("connect")])));
    let events = server.events();
    assert!(matches!(&events[..], [ServerEvent::Connect(connect)] if connect.app.is_empty()));
}

#[test]
fn an_odd_command_of_somebody_who_is_connected_is_left_out() {
    for mut server in [Server::connected(), Server::publishing(), Server::playing()] {
        for odd in [&[][..], &[0x05], b"hello", &[0x02, 0, 7, b'p'], &[0x0A, 0, 0, 0, 1]] {
            server.send(&message(20, 0, odd));
        }
        // A second connect is answered with no.
        server.send(&connect_to("live"));
        assert_eq!(server.said().last().unwrap(), "_error NetConnection.Call.Failed");
    }
    for (verb, code) in [("publish", "NetStream.Publish.BadName"), ("play", "NetStream.Play.Failed")] {
        for rest in [&[][..], &[Value::Null], &[Value::Null, Value::from(1.0)]] {
            let mut server = Server::connected();
            server.send(&command(verb, 3.0, rest));
            assert_eq!(server.said(), [format!("onStatus {code}")]);
            server.send(&command(verb, 4.0, &[Value::Null, Value::from("s")]));
            assert_eq!(server.events().len(), 1, "the connection goes on");
        }
    }
}

#[test]
fn nested_arrays_in_a_command_are_refused() {
    let mut payload = encode_all(&[Value::from("connect"), Value::from(1.0)]).to_vec();
    payload.extend([0x0A, 0, 0, 0, 1].repeat(10_000));
    let error = Server::new(Limits::default()).error(&message(20, 0, &payload));
    assert!(matches!(error, RtmpError::Amf { source: crate::amf0::AmfError::Depth { .. }, .. }), "{error}");
}

#[test]
fn names_and_their_queries_are_bounded_and_who_says_too_much_is_told_so() {
    let (name, query) = ("x".repeat(1025), format!("s?key={}", "k".repeat(16 << 10)));
    for (text, what, limit) in [(&name, "app", 1024), (&query, "query", 16 << 10)] {
        let mut server = Server::new(Limits::default());
        server.send(&connect_to(text));
        let (messages, error) = server.last_words();
        assert!(
            matches!(error, RtmpError::NameTooLong { what: found, limit: most, .. } if found == what && most == limit)
        );
        assert!(messages.iter().any(|said| said == "_error NetConnection.Connect.Rejected"), "{messages:?}");
        for (verb, code) in [("publish", "NetStream.Publish.BadName"), ("play", "NetStream.Play.Failed")] {
            let mut server = Server::connected();
            server.send(&command(verb, 3.0, &[Value::Null, Value::from(text.as_str())]));
            let (messages, error) = server.last_words();
            assert!(matches!(error, RtmpError::NameTooLong { .. }), "{error}");
            assert_eq!(messages, [format!("onStatus {code}")]);
        }
    }
}

#[test]
fn a_key_of_four_kilobytes_fits_where_clients_put_it_percent_encoded_too() {
    let query = format!("key={}", "%6B".repeat(4096));
    let mut server = Server::new(Limits::default());
    let info = [
        ("app", Value::String(format!("live?{query}"))),
        ("tcUrl", Value::String(format!("rtmp://h/live?{query}"))),
    ];
    server.send(&command("connect", 1.0, &[object(info)]));
    let events = server.events();
    let [ServerEvent::Connect(connect)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!([&connect.query, &connect.tc_query], [&Some(query.clone()), &Some(query.clone())]);
    server.session.accept_connect();
    server.send(&command("publish", 3.0, &[Value::Null, Value::String(format!("s?{query}"))]));
    let events = server.events();
    assert!(
        matches!(&events[..], [ServerEvent::Publish { query: Some(found), .. }] if *found == query),
        "{events:?}"
    );
}

#[test]
fn what_nobody_needs_of_a_connect_cannot_end_it_however_long_it_is() {
    let long = |length| Value::String("u".repeat(length));
    let info = object([
        ("app", Value::from("live")),
        ("tcUrl", Value::String(format!("rtmp://h/live?{}", "q".repeat(17 << 10)))),
        ("flashVer", long(2000)),
        ("swfUrl", long(9000)),
        ("pageUrl", long(9000)),
        ("fourCcList", Value::StrictArray(vec![long(5000); 2])),
    ]);
    let mut server = Server::new(Limits::default());
    server.send(&command("connect", 1.0, &[info]));
    let events = server.events();
    let [ServerEvent::Connect(connect)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((connect.app.as_str(), connect.flash_ver.len(), &connect.tc_query), ("live", 1024, &None));
}

#[test]
fn the_application_is_taken_from_tc_url_where_there_is_no_other() {
    for (url, app) in [("rtmp://h:1935/live/inner?x", "live/inner"), ("rtmp://h", ""), ("", "")] {
        let mut server = Server::new(Limits::default());
        server.send(&command("connect", 1.0, &[object([("tcUrl", Value::from(url))])]));
        let events = server.events();
        assert!(matches!(&events[..], [ServerEvent::Connect(connect)] if connect.app == app), "{events:?}");
    }
}

#[test]
fn messages_are_bounded_less_before_publish_than_after() {
    let mut big = BytesMut::new();
    let header = Header { csid: 6, timestamp: 0, type_id: 9, stream_id: 1 };
    write_message(&mut big, 128, header, &[&[0x17, 1, 0, 0, 0], &vec![0; 100_000]]);
    for mut server in [Server::connected(), Server::playing()] {
        let error = server.error(&big);
        assert!(matches!(error, RtmpError::MessageTooLong { length: 100_005, limit: 65_536 }), "{error}");
    }
    let mut server = Server::publishing();
    server.send(&big);
    server.session.set_max_message_bytes(65_536);
    let error = server.error(&big);
    assert!(matches!(error, RtmpError::MessageTooLong { length: 100_005, limit: 65_536 }), "{error}");
}

#[test]
fn the_position_of_an_error_is_that_of_the_chunk() {
    let mut server = Server::connected();
    let before = server.session.position();
    let good = command("FCPublish", 3.0, &[Value::Null, Value::from("s")]);
    let mut bytes = good.to_vec();
    bytes.extend([0xC9, 0, 0]);
    let error = server.error(&bytes);
    assert!(matches!(error, RtmpError::NoPreviousHeader { csid: 9, fmt: 3 }));
    assert_eq!(server.session.position(), before + good.len() as u64);
}

#[test]
fn what_comes_while_a_request_is_undecided_waits_in_order() {
    let mut server = Server::new(Limits::default());
    let all = [
        connect_to("live"),
        command("createStream", 2.0, &[Value::Null]),
        command("publish", 3.0, &[Value::Null, Value::from("s")]),
        message(8, 1, b"\x2fmp3"),
    ];
    server.send(&all.concat());
    assert_eq!(server.events().len(), 1);
    server.session.accept_connect();
    let events = server.events();
    let [ServerEvent::Publish { id, .. }] = events.as_slice() else { panic!("{events:?}") };
    // It may come in between as well.
    server.send(&message(8, 1, b"\x2fmp3"));
    assert_eq!(server.events().len(), 0);
    server.session.accept_publish(*id);
    let events = server.events();
    assert!(matches!(
        &events[..],
        [
            ServerEvent::Media(MediaItem::Track(_)),
            ServerEvent::Media(MediaItem::Frame(_)),
            ServerEvent::Media(MediaItem::Frame(_))
        ]
    ));
}

/// The bound of a stranger is not that of a guest: what waited is read once it is known who sent it.
#[test]
fn a_long_picture_in_the_same_bytes_as_publish_is_held_to_the_publishers_bound() {
    let mut input = command("publish", 3.0, &[Value::Null, Value::from("s")]);
    let header = Header { csid: 6, timestamp: 0, type_id: 9, stream_id: 1 };
    write_message(&mut input, 128, header, &[b"\x17\0\0\0\0", AVCC]);
    write_message(&mut input, 128, header, &[&[0x17, 1, 0, 0, 0], &vec![0; 400_000]]);
    for read in [512, 4096, 60_000] {
        let mut server = Server::connected();
        let mut frames = 0;
        for piece in input.chunks(read) {
            server.send(piece);
            for event in server.events() {
                match event {
                    ServerEvent::Publish { id, .. } => server.session.accept_publish(id),
                    ServerEvent::Media(MediaItem::Frame(frame)) => frames += frame.data.len(),
                    _ => {}
                }
            }
        }
        assert_eq!(frames, 400_000, "reads of {read}");
    }
}

#[test]
fn what_waits_for_a_decision_is_bounded() {
    let mut server = Server::connected();
    server.send(&command("publish", 3.0, &[Value::Null, Value::from("s")]));
    server.events();
    server.send(&vec![0; 65_536]);
    assert_eq!(server.events().len(), 0);
    assert!(matches!(server.error(&[0]), RtmpError::NotWaiting { limit: 65_536 }));
}

#[test]
fn what_was_good_comes_before_the_error_behind_it() {
    let mut server = Server::new(Limits::default());
    let publish = command("publish", 3.0, &[Value::Null, Value::from("s")]);
    let broken = [0xC0 | 40; 4];
    server.send(&[&connect_to("live")[..], &publish, &message(8, 1, b"\x2fmp3"), &broken].concat());
    assert_eq!(server.events().len(), 1);
    server.session.accept_connect();
    assert_eq!(server.events().len(), 1);
    server.session.accept_publish(RequestId(1));
    let mut media = 0;
    let error = loop {
        match server.session.poll() {
            Ok(Some(ServerOutput::Event(ServerEvent::Media(_)))) => media += 1,
            Ok(output) => assert!(output.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!((media, error), (2, RtmpError::NoPreviousHeader { csid: 40, fmt: 3 }));
    server.send(&message(8, 1, b"\x2fmp3"));
    assert!(server.events().is_empty(), "nothing behind it is read");
}

#[test]
fn a_malformed_message_between_intact_chunks_is_left_out_and_counted() {
    let mut server = Server::publishing();
    let good = message(8, 1, b"\x2fmp3");
    let odd = [
        message(9, 1, b"\x17"),
        message(8, 1, b"\xaf\x07\0"),
        message(18, 1, b"hello"),
        message(4, 0, &[0, 3, 0, 0]),
        message(20, 0, b"\x02\0\x09pub"),
        message(22, 1, &[9, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]),
    ];
    server.send(&good);
    server.events();
    for odd in odd {
        server.send(&[&odd[..], &odd, &good].concat());
        let events = server.events();
        let [
            ServerEvent::Media(MediaItem::Skipped { reason, count: 2 }),
            ServerEvent::Media(MediaItem::Frame(_)),
        ] = events.as_slice()
        else {
            panic!("{events:?}")
        };
        assert!(matches!(reason, crate::SkipReason::Malformed { .. }), "{reason}");
    }
}

#[test]
fn a_hundred_malformed_messages_in_a_row_end_the_connection() {
    let mut server = Server::publishing();
    let odd = message(9, 1, b"\x17");
    server.send(&odd.repeat(99));
    server.send(&message(8, 1, b"\x2fmp3"));
    server.send(&odd.repeat(99));
    assert_eq!(server.events().len(), 4);
    let error = server.error(&odd);
    assert!(
        matches!(&error, RtmpError::NothingGood { count: 100, last } if matches!(**last, RtmpError::Flv(_))),
        "{error}"
    );
}

#[test]
fn streams_end_by_delete_or_close_and_another_may_follow() {
    let mut server = Server::publishing();
    for verb in ["FCUnpublish", "deleteStream"] {
        server.send(&command(verb, 0.0, &[Value::Null, Value::from("s")]));
    }
    server.send(&command("publish", 5.0, &[Value::Null, Value::from("t")]));
    assert!(matches!(&server.events()[..], [ServerEvent::PublishStopped, ServerEvent::Publish { .. }]));
    for verb in ["deleteStream", "closeStream"] {
        let mut server = Server::publishing();
        server.send(&command(verb, 0.0, &[Value::Null, Value::from(1.0)]));
        assert!(matches!(&server.events()[..], [ServerEvent::PublishStopped]));
        if verb == "deleteStream" {
            server.send(&command("createStream", 4.0, &[Value::Null]));
        }
        server.send(&command("play", 5.0, &[Value::Null, Value::from("s")]));
        server.session.accept_play(RequestId(2));
        server.outputs();
        server.send(&command(verb, 0.0, &[Value::Null, Value::from(1.0)]));
        assert!(matches!(&server.events()[..], [ServerEvent::PlayStopped]));
    }
}

#[test]
fn publish_and_play_of_false_end_the_stream_and_keep_the_connection() {
    let mut server = Server::publishing();
    server.send(&command("publish", 0.0, &[Value::Null, Value::Boolean(false)]));
    server.send(&command("publish", 4.0, &[Value::Null, Value::from("t")]));
    assert!(matches!(&server.events()[..], [ServerEvent::PublishStopped, ServerEvent::Publish { .. }]));
    let mut server = Server::playing();
    server.send(&command("play", 0.0, &[Value::Null, Value::Boolean(false)]));
    assert!(matches!(&server.events()[..], [ServerEvent::PlayStopped]));
    server.send(&command("play", 4.0, &[Value::Null, Value::from("t")]));
    assert!(matches!(&server.events()[..], [ServerEvent::Play { .. }]));
}

#[test]
fn frames_that_were_on_their_way_when_the_stream_ended_are_dropped_however_long_they_are() {
    for verb in ["deleteStream", "closeStream", "publish"] {
        let mut server = Server::publishing();
        let last = if verb == "publish" { Value::Boolean(false) } else { Value::from(1.0) };
        let mut input = command(verb, 0.0, &[Value::Null, last]);
        let header = Header { csid: 6, timestamp: 0, type_id: 9, stream_id: 1 };
        write_message(&mut input, 128, header, &[&[0x17, 1, 0, 0, 0], &vec![0; 200_000]]);
        input.extend_from_slice(&message(8, 1, b"\x2fmp3"));
        input.extend_from_slice(&command("createStream", 4.0, &[Value::Null]));
        input.extend_from_slice(&command("publish", 5.0, &[Value::Null, Value::from("t")]));
        server.send(&input);
        assert!(
            matches!(&server.events()[..], [ServerEvent::PublishStopped, ServerEvent::Publish { .. }]),
            "{verb}"
        );
    }
}

#[test]
fn a_stream_need_not_be_created_and_may_be_created_again_once_it_is_closed() {
    let mut server = Server::new(Limits::default());
    server.send(&connect_to("live"));
    server.session.accept_connect();
    server.send(&command("publish", 3.0, &[Value::Null, Value::from("s")]));
    server.session.accept_publish(RequestId(1));
    server.outputs();
    server.send(&command("createStream", 4.0, &[Value::Null]));
    assert_eq!(server.said(), ["_error NetConnection.Call.Failed"]);
    server.send(&command("closeStream", 0.0, &[Value::Null]));
    server.send(&command("createStream", 5.0, &[Value::Null]));
    assert_eq!(server.said(), ["onStatus NetStream.Unpublish.Success", "_result"]);
}

#[test]
fn a_player_that_pauses_is_answered_and_the_module_told() {
    let mut server = Server::playing();
    for (verb, paused) in [("pause", true), ("pauseRaw", false)] {
        server.send(&command(verb, 0.0, &[Value::Null, Value::Boolean(paused), Value::from(7.0)]));
        assert!(matches!(&server.events()[..], [ServerEvent::Paused(found)] if *found == paused));
    }
}

#[test]
fn a_second_publish_or_play_on_one_connection_is_refused() {
    let mut server = Server::publishing();
    server.send(&command("publish", 3.0, &[Value::Null, Value::from("t")]));
    assert_eq!(server.said(), ["onStatus NetStream.Publish.BadName"]);
    let mut server = Server::playing();
    server.send(&command("play", 3.0, &[Value::Null, Value::from("t")]));
    assert_eq!(server.said(), ["onStatus NetStream.Play.Failed"]);
}

#[test]
fn a_player_is_told_that_its_stream_is_over() {
    let mut server = Server::playing();
    server.session.end_play("publisher left");
    let (messages, _) = server.outputs();
    assert_eq!(Message::parse(&messages[0]).unwrap(), Message::UserControl(UserControl::StreamEof(1)));
    assert_eq!(messages.len(), 4);
}

#[test]
fn a_displaced_publisher_is_told_and_its_late_media_dropped() {
    let mut server = Server::publishing();
    server.session.end_publish("NetStream.Publish.BadName", "another publisher took over");
    assert_eq!(server.said(), ["onStatus NetStream.Publish.BadName"]);
    server.send(&message(8, 1, b"\x2fmp3"));
    assert_eq!(server.events().len(), 0);
}

#[test]
fn pings_are_answered_and_sent() {
    let mut server = Server::playing();
    server.send(&message(4, 0, &[0, 6, 1, 2, 3, 4]));
    server.session.ping(9);
    let (messages, _) = server.outputs();
    let parsed: Vec<Message> = messages.iter().map(|message| Message::parse(message).unwrap()).collect();
    let expected = [UserControl::PingResponse(0x0102_0304), UserControl::PingRequest(9)];
    assert_eq!(parsed, expected.map(Message::UserControl));
}

#[test]
fn input_is_acknowledged_past_four_gigabytes() {
    let mut server = Server::publishing();
    server.send(&message(5, 0, &1000u32.to_be_bytes()));
    server.outputs();
    server.session.link.pretend_received((1 << 32) - 700);
    let mut acknowledged = Vec::new();
    for _ in 0..4 {
        // 500 bytes with the header.
        server.send(&message(8, 1, &[&b"\x2f"[..], &[0; 484]].concat()));
        for reply in server.outputs().0 {
            if let Message::Acknowledgement(received) = Message::parse(&reply).unwrap() {
                acknowledged.push(received);
            }
        }
    }
    assert_eq!(acknowledged, [u32::MAX - 199, 300, 800, 1300]);
}

#[test]
fn encrypted_handshakes_are_refused_by_their_version() {
    let mut session = ServerSession::new(Limits::default());
    session.handle_input(&[6]);
    assert!(matches!(session.poll(), Err(RtmpError::Version(6))));
}

#[test]
fn an_established_player_holds_no_parse_buffers() {
    let mut server = Server::playing();
    server.session.shrink();
    assert!(server.session.handshake_done());
    assert_eq!(server.session.events.capacity(), 0);
    assert!(size_of::<ServerSession>() < 1024, "{}", size_of::<ServerSession>());
    assert_eq!(Egress::players().stream_id, 1);
}

#[test]
fn an_encoder_and_a_player_are_told_apart_at_connect() {
    let encoder =
        [("type", Value::from("nonprivate")), ("flashVer", Value::from("FMLE/3.0 (compatible; Lavf)"))];
    let player = [("flashVer", Value::from("LNX 9,0,124,2")), ("audioCodecs", Value::from(4071.0))];
    let unclear = [("type", Value::from("nonprivate")), ("flashVer", Value::from("something"))];
    for (properties, expected) in
        [(encoder, Some(Intent::Publish)), (player, Some(Intent::Play)), (unclear, None)]
    {
        let mut server = Server::new(Limits::default());
        server.send(&command("connect", 1.0, &[object(properties.clone())]));
        let events = server.events();
        let [ServerEvent::Connect(connect)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(connect.intent, expected, "{properties:?}");
    }
}
