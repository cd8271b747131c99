//! Our client and our server, joined in memory: publisher → server → player.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use av_media::{Codec, Frame, Kind, RtmpFraming, Timestamp, Track};
use av_rtmp::{
    ClientConfig, ClientEvent, ClientOutput, ClientSession, Egress, Limits, MediaItem, Metadata, Mode,
    ServerEvent, ServerOutput, ServerSession,
};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

fn client(mode: Mode) -> ClientSession {
    ClientSession::new(ClientConfig {
        app: "live".to_owned(),
        tc_url: "rtmp://localhost/live".to_owned(),
        name: "stream".to_owned(),
        mode,
        limits: Limits::default(),
        credentials: None,
        auth_query: None,
    })
}

/// A client, the server's session for it, and everything that the client has sent.
struct Connection {
    client: ClientSession,
    server: ServerSession,
    sent: BytesMut,
}

impl Connection {
    /// Established: the server accepts everything.
    fn open(mode: Mode) -> Self {
        let mut connection = Self {
            client: client(mode),
            server: ServerSession::new(Limits::default()),
            sent: BytesMut::new(),
        };
        let (to_client, _) = connection.exchange();
        assert!(matches!(to_client.as_slice(), [ClientEvent::Established]), "{to_client:?}");
        connection
    }

    fn exchange(&mut self) -> (Vec<ClientEvent>, Vec<MediaItem>) {
        let (mut at_client, mut at_server) = (Vec::new(), Vec::new());
        loop {
            let mut quiet = true;
            while let Some(output) = self.client.poll().unwrap() {
                quiet = false;
                match output {
                    ClientOutput::Send(bytes) => self.write(&bytes),
                    ClientOutput::Event(event) => at_client.push(event),
                }
            }
            while let Some(output) = self.server.poll().unwrap() {
                quiet = false;
                match output {
                    ServerOutput::Send(bytes) => self.client.handle_input(&bytes),
                    ServerOutput::Event(event) => at_server.extend(accept(&mut self.server, event)),
                }
            }
            if quiet {
                return (at_client, at_server);
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        self.server.handle_input(bytes);
    }
}

fn accept(server: &mut ServerSession, event: ServerEvent) -> Option<MediaItem> {
    match event {
        ServerEvent::Connect(_) => server.accept_connect(),
        ServerEvent::Publish { id, .. } => server.accept_publish(id),
        ServerEvent::Play { id, .. } => server.accept_play(id),
        ServerEvent::Media(item) => return Some(item),
        _ => {}
    }
    None
}

fn aac() -> Track {
    Track::aac(Bytes::from_static(&[0x11, 0x90])).unwrap()
}

fn vp9() -> Track {
    Track { framing: RtmpFraming::Enhanced, ..Track::other(Codec::Vp9) }
}

fn frame(kind: Kind, dts: i64, len: usize) -> Frame {
    let at = Timestamp::from_millis(dts);
    let data = Bytes::from((0..=255u8).cycle().take(len).collect::<Vec<_>>());
    Frame { kind, dts: at, pts: at, is_sync: true, data }
}

/// Low 32 bits, as the wire has them.
fn wire(dts: i64) -> u32 {
    dts as u32
}

fn serialised(egress: Egress, tracks: &[Track], frames: &[Frame]) -> BytesMut {
    let mut out = BytesMut::new();
    let refs: Vec<&Track> = tracks.iter().collect();
    egress.metadata(&mut out, None, &refs, 0);
    for track in tracks {
        egress.sequence_header(&mut out, track, frames.first().map_or(0, |frame| wire(frame.dts.millis())));
    }
    for frame in frames {
        let track = tracks.iter().find(|track| track.kind() == frame.kind).unwrap();
        egress.frame(&mut out, track, frame, wire(frame.dts.millis()));
    }
    egress.data(&mut out, &Bytes::from_static(b"\x02\0\x04onFI\x05"), 7);
    out
}

fn frames_of(items: impl IntoIterator<Item = MediaItem>) -> Vec<Frame> {
    let frame = |item| match item {
        MediaItem::Frame(frame) => Some(frame),
        _ => None,
    };
    items.into_iter().filter_map(frame).collect()
}

#[test]
fn what_is_published_is_what_the_player_gets() {
    let tracks = [vp9(), aac()];
    let frames = [
        frame(Kind::Video, 0, 150_000),
        frame(Kind::Audio, 3, 200),
        frame(Kind::Audio, 26, 1),
        frame(Kind::Video, 40, 65_536),
    ];

    let mut publisher = Connection::open(Mode::Publish);
    publisher.write(&serialised(publisher.client.egress(), &tracks, &frames));
    let (_, items) = publisher.exchange();
    assert!(matches!(items.first(), Some(MediaItem::Metadata(Metadata { width: None, .. }))));
    assert!(matches!(items.last(), Some(MediaItem::Data { timestamp_ms: 7, .. })), "{:?}", items.last());
    assert_eq!(frames_of(items), frames);

    let mut player = Connection::open(Mode::Play);
    player.client.handle_input(&serialised(Egress::players(), &tracks, &frames));
    let (events, _) = player.exchange();
    let items: Vec<MediaItem> = events
        .into_iter()
        .map(|event| match event {
            ClientEvent::Media(item) => item,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(items.contains(&MediaItem::Track(aac())));
    assert_eq!(frames_of(items), frames);
}

#[test]
fn time_passes_24_31_and_32_bits_in_frames_of_several_chunks() {
    for border in [1i64 << 24, 1 << 31, 1 << 32] {
        let frames: Vec<Frame> = (-10_000..10_000)
            .step_by(1000)
            .flat_map(|offset| {
                [frame(Kind::Video, border + offset, 150_000), frame(Kind::Audio, border + offset + 20, 300)]
            })
            .collect();
        let mut publisher = Connection::open(Mode::Publish);
        publisher.write(&serialised(publisher.client.egress(), &[vp9(), aac()], &frames));
        assert_eq!(frames_of(publisher.exchange().1), frames);
    }
}

#[test]
fn a_player_that_leaves_and_a_stream_that_ends_are_both_noticed() {
    let mut player = Connection::open(Mode::Play);
    player.server.end_play("over");
    assert!(matches!(player.exchange().0.as_slice(), [ClientEvent::Ended]));

    let mut publisher = Connection::open(Mode::Publish);
    publisher.client.finish();
    let Ok(Some(ClientOutput::Send(bytes))) = publisher.client.poll() else { panic!("nothing said") };
    publisher.server.handle_input(&bytes);
    let stopped = std::iter::from_fn(|| publisher.server.poll().unwrap())
        .any(|output| matches!(output, ServerOutput::Event(ServerEvent::PublishStopped)));
    assert!(stopped);
}

#[test]
fn a_displaced_publisher_hears_why() {
    let mut publisher = Connection::open(Mode::Publish);
    publisher.server.end_publish("NetStream.Publish.BadName", "another publisher took over");
    let (events, _) = publisher.exchange();
    let [ClientEvent::Refused { code, description }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(code, "NetStream.Publish.BadName");
    assert_eq!(description, "another publisher took over");
}

/// Everything a publisher sends, from C0 on.
fn recording() -> Bytes {
    let mut publisher = Connection::open(Mode::Publish);
    let start = 0xFF_FFFF - 20;
    let frames: Vec<Frame> = (0..20)
        .map(|n| {
            frame(if n % 3 == 0 { Kind::Video } else { Kind::Audio }, start + n * 10, 100 + 60 * n as usize)
        })
        .collect();
    publisher.write(&serialised(publisher.client.egress(), &[vp9(), aac()], &frames));
    publisher.sent.freeze()
}

/// The media of a recording that arrives in pieces; each request is decided when the input is used up.
fn replay(recording: &[u8], mut piece: impl FnMut() -> usize) -> Vec<MediaItem> {
    let mut server = ServerSession::new(Limits::default());
    let mut items = Vec::new();
    let mut rest = recording;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(piece()));
        rest = later;
        server.handle_input(now);
        while let Some(output) = server.poll().unwrap() {
            if let ServerOutput::Event(event) = output {
                items.extend(accept(&mut server, event));
            }
        }
    }
    assert_eq!(server.position(), recording.len() as u64);
    items
}

#[test]
fn a_whole_session_in_one_input_gives_what_single_bytes_give() {
    let recording = recording();
    let whole = replay(&recording, || recording.len());
    assert_eq!(frames_of(whole.iter().cloned()).len(), 20);
    assert_eq!(replay(&recording, || 1), whole);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_split_gives_the_same_events(cuts in prop::collection::vec(1usize..3000, 1..40)) {
        let recording = recording();
        let whole = replay(&recording, || recording.len());
        let mut cuts = cuts.iter().copied().cycle();
        prop_assert_eq!(replay(&recording, || cuts.next().unwrap()), whole);
    }

    #[test]
    fn a_damaged_session_ends_in_an_error_or_not_at_all_but_never_in_a_panic(
        damage in prop::collection::vec((3073usize..8000, any::<u8>()), 1..6),
    ) {
        let mut recording = recording().to_vec();
        for (at, byte) in damage {
            let len = recording.len();
            recording[at % len] = byte;
        }
        let mut server = ServerSession::new(Limits::default());
        for piece in recording.chunks(500) {
            server.handle_input(piece);
            while let Ok(Some(output)) = server.poll() {
                if let ServerOutput::Event(event) = output {
                    accept(&mut server, event);
                }
            }
        }
        prop_assert!(server.position() <= recording.len() as u64);
    }
}
