//! Both sessions against an independent implementation, `rml_rtmp`'s client and server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use av_media::{Kind, Timestamp, Track};
use av_rtmp::{
    ClientConfig, ClientEvent, ClientOutput, ClientSession, Egress, Limits, MediaItem, Mode, Refusal,
    ServerEvent, ServerOutput, ServerSession,
};
use bytes::{Bytes, BytesMut};
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions as rml;
use rml_rtmp::time::RtmpTimestamp;

const AAC_CONFIG: &[u8] = b"\xaf\x00\x11\x90";

/// Their client at our server.
struct TheirClient {
    client: rml::ClientSession,
    server: ServerSession,
    theirs: Vec<rml::ClientSessionEvent>,
    ours: Vec<ServerEvent>,
}

impl TheirClient {
    fn connected() -> Self {
        let mut server = ServerSession::new(Limits::default());
        let mut handshake = Handshake::new(PeerType::Client);
        server.handle_input(&handshake.generate_outbound_p0_and_p1().unwrap());
        while let Some(ServerOutput::Send(bytes)) = server.poll().unwrap() {
            match handshake.process_bytes(&bytes).unwrap() {
                HandshakeProcessResult::InProgress { response_bytes }
                | HandshakeProcessResult::Completed { response_bytes, .. } => {
                    server.handle_input(&response_bytes);
                }
            }
        }
        assert!(server.handshake_done());
        let (client, results) = rml::ClientSession::new(rml::ClientSessionConfig::new()).unwrap();
        let mut peer = Self { client, server, theirs: Vec::new(), ours: Vec::new() };
        peer.take(results);
        let connect = peer.client.request_connection("live".to_owned()).unwrap();
        peer.take(vec![connect]);
        peer.server.accept_connect();
        peer.settle();
        assert_eq!(peer.theirs, [rml::ClientSessionEvent::ConnectionRequestAccepted]);
        peer.theirs.clear();
        peer.ours.clear();
        peer
    }

    fn take(&mut self, results: Vec<rml::ClientSessionResult>) {
        for result in results {
            match result {
                rml::ClientSessionResult::OutboundResponse(packet) => {
                    self.server.handle_input(&packet.bytes);
                }
                rml::ClientSessionResult::RaisedEvent(event) => self.theirs.push(event),
                rml::ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(output) = self.server.poll().unwrap() {
            match output {
                ServerOutput::Send(bytes) => {
                    let results = self.client.handle_input(&bytes).unwrap();
                    self.take(results);
                }
                ServerOutput::Event(event) => self.ours.push(event),
            }
        }
    }
}

#[test]
fn their_client_publishes_to_our_server() {
    let mut peer = TheirClient::connected();
    let publish =
        peer.client.request_publishing("s?key=K".to_owned(), rml::PublishRequestType::Live).unwrap();
    peer.take(vec![publish]);
    let Some(ServerEvent::Publish { id, name, query }) = peer.ours.pop() else { panic!("{:?}", peer.ours) };
    assert_eq!((name.as_str(), query.as_deref()), ("s", Some("key=K")));
    peer.server.accept_publish(id);
    peer.settle();
    assert_eq!(peer.theirs, [rml::ClientSessionEvent::PublishRequestAccepted]);

    let mut metadata = rml::StreamMetadata::new();
    metadata.video_width = Some(640);
    let sent = peer.client.publish_metadata(&metadata).unwrap();
    peer.take(vec![sent]);
    for (time, body) in [(0, AAC_CONFIG.to_vec()), (23, [b"\xaf\x01".as_slice(), &[7; 9000]].concat())] {
        let sent = peer.client.publish_audio_data(body.into(), RtmpTimestamp::new(time), false).unwrap();
        peer.take(vec![sent]);
    }
    let [
        ServerEvent::Media(MediaItem::Metadata(metadata)),
        ServerEvent::Media(MediaItem::Track(track)),
        ServerEvent::Media(MediaItem::Frame(frame)),
    ] = peer.ours.as_slice()
    else {
        panic!("{:?}", peer.ours)
    };
    assert_eq!((metadata.width, track.audio.sample_rate), (Some(640.0), 48_000));
    assert_eq!((frame.kind, frame.dts, frame.data.len()), (Kind::Audio, Timestamp::from_millis(23), 9000));

    peer.ours.clear();
    let stop = peer.client.stop_publishing().unwrap();
    peer.take(stop);
    assert!(matches!(peer.ours.as_slice(), [ServerEvent::PublishStopped]), "{:?}", peer.ours);
}

#[test]
fn their_client_plays_from_our_server() {
    let mut peer = TheirClient::connected();
    let play = peer.client.request_playback("s".to_owned()).unwrap();
    peer.take(vec![play]);
    let Some(ServerEvent::Play { id, name, .. }) = peer.ours.pop() else { panic!("{:?}", peer.ours) };
    assert_eq!(name, "s");
    peer.server.accept_play(id);
    peer.settle();
    assert!(peer.theirs.contains(&rml::ClientSessionEvent::PlaybackRequestAccepted), "{:?}", peer.theirs);

    peer.theirs.clear();
    let track = Track::aac(Bytes::from_static(&[0x11, 0x90])).unwrap();
    let at = Timestamp::from_millis(0x0123_4567);
    let data = Bytes::from(vec![7; 150_000]);
    let frame = av_media::Frame { kind: Kind::Audio, dts: at, pts: at, is_sync: true, data };
    let mut out = BytesMut::new();
    Egress::players().sequence_header(&mut out, &track, 0);
    Egress::players().frame(&mut out, &track, &frame, 0x0123_4567);
    let results = peer.client.handle_input(&out).unwrap();
    peer.take(results);
    let [
        rml::ClientSessionEvent::AudioDataReceived { data: config, .. },
        rml::ClientSessionEvent::AudioDataReceived { timestamp, data },
    ] = peer.theirs.as_slice()
    else {
        panic!("{:?}", peer.theirs)
    };
    assert_eq!((config.as_ref(), timestamp.value, data.len()), (AAC_CONFIG, 0x0123_4567, 150_002));
}

#[test]
fn their_client_understands_a_refusal() {
    let mut peer = TheirClient::connected();
    let play = peer.client.request_playback("s".to_owned()).unwrap();
    peer.take(vec![play]);
    let Some(ServerEvent::Play { id, .. }) = peer.ours.pop() else { panic!("{:?}", peer.ours) };
    peer.server.reject(
        id,
        Refusal { code: "NetStream.Play.StreamNotFound", description: "no publisher".to_owned() },
    );
    peer.settle();
    let code = "NetStream.Play.StreamNotFound".to_owned();
    assert_eq!(peer.theirs, [rml::ClientSessionEvent::UnhandleableOnStatusCode { code }]);
}

/// Our client at their server.
struct TheirServer {
    client: ClientSession,
    server: rml::ServerSession,
    theirs: Vec<rml::ServerSessionEvent>,
    ours: Vec<ClientEvent>,
    /// Their session begins to speak when the handshake is over.
    handshake: Option<Handshake>,
    greeting: Vec<rml::ServerSessionResult>,
}

impl TheirServer {
    /// Accepts what our client asks for.
    fn established(mode: Mode) -> Self {
        let client = ClientSession::new(ClientConfig {
            app: "live".to_owned(),
            tc_url: "rtmp://localhost/live".to_owned(),
            name: "s".to_owned(),
            mode,
            limits: Limits::default(),
            credentials: None,
            auth_query: None,
        });
        let (server, greeting) = rml::ServerSession::new(rml::ServerSessionConfig::new()).unwrap();
        let handshake = Some(Handshake::new(PeerType::Server));
        let mut peer = Self { client, server, theirs: Vec::new(), ours: Vec::new(), handshake, greeting };
        peer.settle();
        assert!(matches!(peer.ours.as_slice(), [ClientEvent::Established]), "{:?}", peer.ours);
        peer.ours.clear();
        peer
    }

    fn settle(&mut self) {
        while let Some(output) = self.client.poll().unwrap() {
            match output {
                ClientOutput::Send(bytes) => self.write(&bytes),
                ClientOutput::Event(event) => self.ours.push(event),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let Some(handshake) = &mut self.handshake else {
            let results = self.server.handle_input(bytes).unwrap();
            return self.take(results);
        };
        match handshake.process_bytes(bytes).unwrap() {
            HandshakeProcessResult::InProgress { response_bytes } => {
                self.client.handle_input(&response_bytes);
            }
            HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                self.handshake = None;
                self.client.handle_input(&response_bytes);
                let greeting = std::mem::take(&mut self.greeting);
                self.take(greeting);
                self.write(&remaining_bytes);
            }
        }
        self.settle();
    }

    fn take(&mut self, results: Vec<rml::ServerSessionResult>) {
        for result in results {
            match result {
                rml::ServerSessionResult::OutboundResponse(packet) => {
                    self.client.handle_input(&packet.bytes);
                }
                rml::ServerSessionResult::RaisedEvent(event) => {
                    let request = match &event {
                        rml::ServerSessionEvent::ConnectionRequested { request_id, .. }
                        | rml::ServerSessionEvent::ReleaseStreamRequested { request_id, .. }
                        | rml::ServerSessionEvent::PublishStreamRequested { request_id, .. }
                        | rml::ServerSessionEvent::PlayStreamRequested { request_id, .. } => {
                            Some(*request_id)
                        }
                        _ => None,
                    };
                    self.theirs.push(event);
                    if let Some(request) = request {
                        let results = self.server.accept_request(request).unwrap();
                        self.take(results);
                    }
                }
                rml::ServerSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        self.settle();
    }
}

#[test]
fn our_client_publishes_to_their_server() {
    let mut peer = TheirServer::established(Mode::Publish);
    peer.theirs.clear();
    let track = Track::aac(Bytes::from_static(&[0x11, 0x90])).unwrap();
    let at = Timestamp::from_millis(23);
    let data = Bytes::from(vec![7; 100_000]);
    let frame = av_media::Frame { kind: Kind::Audio, dts: at, pts: at, is_sync: true, data };
    let mut out = BytesMut::new();
    let egress = peer.client.egress();
    egress.metadata(&mut out, None, &[&track], 0);
    egress.sequence_header(&mut out, &track, 0);
    egress.frame(&mut out, &track, &frame, 23);
    peer.write(&out);
    peer.client.finish();
    peer.settle();
    let [
        rml::ServerSessionEvent::StreamMetadataChanged { metadata, .. },
        rml::ServerSessionEvent::AudioDataReceived { data: config, .. },
        rml::ServerSessionEvent::AudioDataReceived { timestamp, data, .. },
        ..,
        rml::ServerSessionEvent::PublishStreamFinished { stream_key, .. },
    ] = peer.theirs.as_slice()
    else {
        panic!("{:?}", peer.theirs)
    };
    assert_eq!((metadata.audio_codec_id, metadata.audio_sample_rate), (Some(10), Some(48_000)));
    assert_eq!((config.as_ref(), timestamp.value, data.len()), (AAC_CONFIG, 23, 100_002));
    assert_eq!(stream_key, "s");
}

#[test]
fn our_client_plays_from_their_server() {
    let mut peer = TheirServer::established(Mode::Play);
    let mut packets = Vec::new();
    for (time, body) in [(0, AAC_CONFIG.to_vec()), (23, [b"\xaf\x01".as_slice(), &[7; 9000]].concat())] {
        let sent = peer.server.send_audio_data(1, body.into(), RtmpTimestamp::new(time), false).unwrap();
        packets.push(rml::ServerSessionResult::OutboundResponse(sent));
    }
    peer.take(packets);
    let [ClientEvent::Media(MediaItem::Track(track)), ClientEvent::Media(MediaItem::Frame(frame))] =
        peer.ours.as_slice()
    else {
        panic!("{:?}", peer.ours)
    };
    assert_eq!(track.audio.channels, 2);
    assert_eq!((frame.dts, frame.data.len()), (Timestamp::from_millis(23), 9000));
}
