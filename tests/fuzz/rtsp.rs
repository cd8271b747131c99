//! Conversations of RTSP, and descriptions.

use std::time::Duration;

use av_media::Track;
use av_rtsp::client::{ClientConfig, ClientOutput, ClientSession};
use av_rtsp::sdp::{About, Description, Format, Presentation};
use av_rtsp::server::{ServerConfig, ServerEvent, ServerOutput, ServerSession, SetupAnswer, Timeouts};
use av_rtsp::transport::{Offer, Pair};
use av_rtsp::tunnel::{Decoder, Opening};
use av_rtsp::{Limits, auth};
use bytes::{Bytes, BytesMut};

/// A player or a publisher that sends these bytes to a server that lets it do all it asks for. However the network splits
/// them, the answers are the same, and so is what they are as base64.
pub fn server(data: &[u8]) {
    let split = data.first().map_or(1, |first| usize::from(*first) + 1);
    if let (Some(whole), Some(pieces)) = (answers([data]), answers(data.chunks(split))) {
        assert_eq!(whole, pieces, "in pieces of {split}");
    }
    assert_eq!(decoded([data]), decoded(data.chunks(split)));
}

fn decoded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<BytesMut> {
    let (mut decoder, mut out) = (Decoder::default(), BytesMut::new());
    pieces.into_iter().try_for_each(|piece| decoder.decode(piece, &mut out)).ok().map(|()| out)
}

/// What is answered; `None` where a rule was broken.
fn answers<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<BytesMut> {
    let config =
        ServerConfig { limits: Limits::default(), timeouts: Timeouts::default(), random: [7; 32], tls: true };
    let mut session = ServerSession::new(config, Duration::ZERO);
    let credentials = auth::Credentials { username: "a".into(), password: "b".into() };
    let description = description();
    let mut sent = BytesMut::new();
    for piece in pieces {
        session.buffer().extend_from_slice(piece);
        session.handle_input(Duration::ZERO);
        while let Some(output) = session.poll().ok()? {
            let event = match output {
                ServerOutput::Send(bytes) => {
                    sent.extend_from_slice(&bytes);
                    continue;
                }
                ServerOutput::Event(event) => event,
            };
            match event {
                ServerEvent::Describe(_) => {
                    let _ = session.check(&credentials);
                    session.accept_describe(&description);
                }
                ServerEvent::Announce { presentation, .. } => session.accept_announce(&presentation),
                ServerEvent::Setup(setup) => {
                    let ports = Pair { rtp: 8000, rtcp: 8001 };
                    let answer = match setup.offers.list.first() {
                        Some(Offer::Tcp { .. }) | None => SetupAnswer::Tcp,
                        Some(Offer::Udp { client_ports }) => {
                            SetupAnswer::Udp { client_ports: *client_ports, server_ports: ports }
                        }
                        Some(Offer::Multicast) => {
                            SetupAnswer::Multicast { group: [239, 1, 2, 3].into(), ports, ttl: 1 }
                        }
                    };
                    let _ = session.accept_setup(answer, Some(1));
                }
                ServerEvent::Play { .. } => session.accept_play(&[]),
                ServerEvent::Record => session.accept_record(),
                ServerEvent::Http(request) => {
                    let _ = Opening::of(&request);
                }
                _ => {}
            }
        }
        assert!(!session.is_undecided(), "everything was decided");
    }
    Some(sent)
}

/// A server that answers with these bytes. It makes us ask no more than it has sent.
pub fn client(data: &[u8]) {
    let config = ClientConfig {
        url: "rtsp://127.0.0.1/live/cam".into(),
        credentials: Some(auth::Credentials { username: "a".into(), password: "b".into() }),
        user_agent: "fuzz".into(),
        description: description(),
        udp_ports: data
            .first()
            .filter(|first| **first & 1 == 1)
            .map(|_| vec![Pair { rtp: 8000, rtcp: 8001 }]),
        limits: Limits::default(),
        random: [7; 16],
    };
    let mut session = ClientSession::new(config, Duration::ZERO);
    let split = data.first().map_or(1, |first| usize::from(*first) + 1);
    let mut requests = 0;
    for piece in data.chunks(split) {
        session.buffer().extend_from_slice(piece);
        session.handle_input(Duration::ZERO);
        loop {
            match session.poll() {
                Ok(Some(ClientOutput::Send(_))) => requests += 1,
                Ok(Some(ClientOutput::Event(_))) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    assert!(requests <= 1 + data.len() / 12, "{requests} requests after {} bytes", data.len());
}

fn description() -> Description {
    let about = About { name: "fuzz".into(), id: 1, version: 1 };
    let track = Track::aac(Bytes::from_static(&[0x11, 0x90])).expect("AAC");
    Description::new(&about, &[Format::of(&track).expect("a format")])
}

/// A description: read or refused, no larger than it came.
pub fn sdp(data: &[u8]) {
    let Ok(presentation) = Presentation::parse(data) else { return };
    assert!(presentation.media.len() <= data.len() / 2, "{} media", presentation.media.len());
    for medium in &presentation.media {
        if let Err(why) = &medium.coding {
            assert!(why.to_string().len() <= 4096, "{why}");
        }
    }
}
