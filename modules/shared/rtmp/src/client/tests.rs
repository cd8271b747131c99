//! The client's side, against scripted answers.

use bytes::BytesMut;

use super::*;
use crate::amf0::{Value, encode_all, object};
use crate::chunk::{Header, write_message};
use crate::{ServerEvent, ServerOutput, ServerSession};

fn config(mode: Mode) -> ClientConfig {
    ClientConfig {
        app: "live".to_owned(),
        tc_url: "rtmp://h/live".to_owned(),
        name: "s?key=K".to_owned(),
        mode,
        limits: Limits::default(),
        credentials: None,
        auth_query: None,
    }
}

/// Carries bytes between a client and a server until both are quiet; what the client said happened. The
/// server accepts everything up to `accept`.
fn talk(client: &mut ClientSession, server: &mut ServerSession, accept_connect: bool) -> Vec<ClientEvent> {
    let mut events = Vec::new();
    loop {
        let mut quiet = true;
        while let Some(output) = client.poll().unwrap() {
            quiet = false;
            match output {
                ClientOutput::Send(bytes) => server.handle_input(&bytes),
                ClientOutput::Event(event) => events.push(event),
            }
        }
        while let Some(output) = server.poll().unwrap() {
            quiet = false;
            match output {
                ServerOutput::Send(bytes) => client.handle_input(&bytes),
                ServerOutput::Event(ServerEvent::Connect(_)) if accept_connect => server.accept_connect(),
                ServerOutput::Event(_) => {}
            }
        }
        if quiet {
            return events;
        }
    }
}

fn asking(mode: Mode) -> ClientSession {
    let mut client = ClientSession::new(config(mode));
    assert!(talk(&mut client, &mut ServerSession::new(Limits::default()), true).is_empty());
    assert_eq!(client.state, State::Asking);
    client
}

fn command(name: &str, transaction: f64, info: Value) -> BytesMut {
    let mut out = BytesMut::new();
    let payload = encode_all(&[Value::from(name), Value::from(transaction), Value::Null, info]);
    let header = Header { csid: 3, timestamp: 0, type_id: 20, stream_id: 1 };
    // Our own server announced this size.
    write_message(&mut out, CHUNK_SIZE, header, &[&payload]);
    out
}

fn status(level: &str, code: &str, description: &str) -> BytesMut {
    let info = object([
        ("level", Value::from(level)),
        ("code", Value::from(code)),
        ("description", Value::from(description)),
    ]);
    command("onStatus", 0.0, info)
}

fn events(client: &mut ClientSession) -> Vec<ClientEvent> {
    std::iter::from_fn(|| client.poll().unwrap())
        .filter_map(|output| match output {
            ClientOutput::Event(event) => Some(event),
            ClientOutput::Send(_) => None,
        })
        .collect()
}

#[test]
fn statuses_of_servers_become_events() {
    for (level, code, expected) in [
        ("status", "NetStream.Play.Start", "Established"),
        ("status", "NetStream.Play.Reset", ""),
        ("status", "NetStream.Play.UnpublishNotify", "Unpublished"),
        ("status", "NetStream.Play.Stop", "Ended"),
        ("error", "NetStream.Play.StreamNotFound", "Refused"),
        ("error", "NetStream.Seek.Failed", ""),
    ] {
        let mut client = asking(Mode::Play);
        client.handle_input(&status(level, code, "text"));
        let events = format!("{:?}", events(&mut client));
        assert!(events.trim_matches(['[', ']']).starts_with(expected), "{code}: {events}");
        assert_eq!(events == "[]", expected.is_empty(), "{code}: {events}");
    }
}

#[test]
fn a_refusal_is_cut_and_cleaned_for_the_log() {
    let mut client = asking(Mode::Publish);
    let text = format!("line\r\n{}", "x".repeat(2000));
    client.handle_input(&status("error", "NetStream.Publish.BadName", &text));
    let events = events(&mut client);
    let [ClientEvent::Refused { code, description }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(code, "NetStream.Publish.BadName");
    assert_eq!(description.len(), 510);
    assert!(description.starts_with("linexxx"));
}

#[test]
fn media_before_play_start_establishes_the_play() {
    let mut client = asking(Mode::Play);
    let mut out = BytesMut::new();
    let header = Header { csid: 4, timestamp: 0, type_id: 8, stream_id: 1 };
    write_message(&mut out, CHUNK_SIZE, header, &[b"\x2fmp3"]);
    client.handle_input(&out);
    let events = events(&mut client);
    assert!(matches!(
        &events[..],
        [
            ClientEvent::Established,
            ClientEvent::Media(MediaItem::Track(_)),
            ClientEvent::Media(MediaItem::Frame(_))
        ]
    ));
}

#[test]
fn media_to_a_publisher_is_an_error() {
    let mut client = asking(Mode::Publish);
    let mut out = BytesMut::new();
    let header = Header { csid: 4, timestamp: 0, type_id: 8, stream_id: 1 };
    write_message(&mut out, CHUNK_SIZE, header, &[b"\x2fmp3"]);
    client.handle_input(&out);
    assert!(matches!(client.poll(), Err(RtmpError::MediaBeforePublish { type_id: 8 })));
}

#[test]
fn what_a_server_sends_malformed_between_intact_chunks_is_left_out() {
    let mut client = asking(Mode::Play);
    let say = |type_id, payload: &[u8]| {
        let mut out = BytesMut::new();
        let header = Header { csid: 4, timestamp: 0, type_id, stream_id: 1 };
        write_message(&mut out, CHUNK_SIZE, header, &[payload]);
        out
    };
    client.handle_input(&status("status", "NetStream.Play.Start", ""));
    client.handle_input(&[say(9, b"\x17"), say(4, &[0]), say(20, b"hello"), say(8, b"\x2fmp3")].concat());
    let events = events(&mut client);
    let [
        ClientEvent::Established,
        skipped @ ..,
        ClientEvent::Media(MediaItem::Track(_)),
        ClientEvent::Media(_),
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    let is_skipped = |event: &ClientEvent| matches!(event, ClientEvent::Media(MediaItem::Skipped { .. }));
    assert!(skipped.len() == 3 && skipped.iter().all(is_skipped), "{skipped:?}");
}

#[test]
fn a_server_that_asks_for_a_password_is_answered_on_the_next_connections() {
    let wanted = Credentials { username: "u".to_owned(), password: "p".to_owned() };
    let mut auth = crate::AdobeAuth::new();
    let mut config = ClientConfig { credentials: Some(wanted.clone()), ..config(Mode::Publish) };
    for connection in 1..=3 {
        let mut client = ClientSession::new(config.clone());
        let mut server = ServerSession::new(Limits::default());
        let mut next = Vec::new();
        for _ in 0..20 {
            while let Some(output) = client.poll().unwrap() {
                match output {
                    ClientOutput::Send(bytes) => server.handle_input(&bytes),
                    ClientOutput::Event(event) => next.push(event),
                }
            }
            while let Some(output) = server.poll().unwrap() {
                match output {
                    ServerOutput::Send(bytes) => client.handle_input(&bytes),
                    ServerOutput::Event(ServerEvent::Connect(connect)) => {
                        assert_eq!(connect.app, "live");
                        match auth.check(connect.query.as_deref(), &wanted) {
                            crate::AuthStep::Accepted => server.accept_connect(),
                            crate::AuthStep::Challenge(text) | crate::AuthStep::Denied(text) => {
                                server.reject_connect(&text);
                            }
                        }
                    }
                    ServerOutput::Event(ServerEvent::Publish { id, .. }) => server.accept_publish(id),
                    ServerOutput::Event(_) => {}
                }
            }
        }
        match (connection, next.as_slice()) {
            (1 | 2, [ClientEvent::NeedAuth { query }]) => config.auth_query = Some(query.clone()),
            (3, [ClientEvent::Established]) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_end_is_said_politely_and_once() {
    let mut client = asking(Mode::Publish);
    client.handle_input(&status("status", "NetStream.Publish.Start", ""));
    events(&mut client);
    client.finish();
    let Ok(Some(ClientOutput::Send(bytes))) = client.poll() else { panic!("nothing said") };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.contains("FCUnpublish") && text.contains("deleteStream"), "{text}");
    // The key is for publish alone.
    assert!(!text.contains("key="), "{text}");
    client.finish();
    assert!(client.poll().unwrap().is_none());
}
