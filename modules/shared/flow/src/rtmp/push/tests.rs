use std::sync::Arc;

use av_media::Frame;
use av_rtmp::{AdobeAuth, AuthStep, MediaItem, ServerEvent};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{Content, Credentials, Secret};
use crate::endpoint::Module;
use crate::net::Listener;
use crate::rtmp::client::peer::*;
use crate::stream::{Changes, Current, Kick, OutputStatus, Publisher, State, Stream};

struct Pushing {
    module: Arc<Module>,
    stream: Stream,
    status: Arc<OutputStatus>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Pushing {
    fn to(listener: &Listener, path: &str, credentials: Option<Credentials>) -> Self {
        let config =
            PushConfig { url: url(listener.address(), path), credentials, retry: retry(), tls: no_tls() };
        let output = OutputContext {
            module: module(),
            flow: "dock".into(),
            output: "cloud".into(),
            path: "flows.dock.outputs.cloud".into(),
            of_instance: false,
            stream: stream(),
            content: Content::AudioVideo,
            status: OutputStatus::new(Changes::default()),
            cancel: CancellationToken::new(),
        };
        Self {
            module: output.module.clone(),
            stream: output.stream.clone(),
            status: output.status.clone(),
            cancel: output.cancel.clone(),
            task: tokio::spawn(push(output, config)),
        }
    }

    fn publish(&self, frames: &[Frame]) -> Publisher {
        let mut publisher = self.stream.publisher(Kick::default());
        announce(&mut publisher);
        feed(&mut publisher, frames);
        publisher
    }

    async fn state(&self, wanted: State) -> Current {
        state(&self.status.status, wanted).await
    }
}

impl Drop for Pushing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn stream_key(key: &str) -> Option<Credentials> {
    Some(Credentials::StreamKey(plain(key)))
}

#[tokio::test]
async fn a_target_gets_headers_and_then_frames_from_the_last_sync_frame_on_a_clock_near_zero() {
    let listener = listener();
    let pushing = Pushing::to(&listener, "app/live/cam", None);
    let base = 90_000_000;
    let frames = moved(&live(0..1400), base);
    let mut publisher = pushing.publish(&frames);
    let (mut peer, app, name, query) = Peer::publisher(&listener).await;
    assert_eq!((app.as_str(), name.as_str(), query), ("app/live", "cam", None));

    let mut headers = Vec::new();
    let mut received = Vec::new();
    while received.len() < 20 {
        match peer.media().await {
            MediaItem::Track(track) => headers.push(track),
            MediaItem::Metadata(_) => assert!(headers.is_empty(), "metadata comes first"),
            MediaItem::Frame(frame) => received.push(frame),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(headers, [video(), audio()]);
    assert_eq!(
        received,
        live(1000..1400).into_iter().map(|frame| moved(&[frame], -1000).remove(0)).collect::<Vec<_>>()
    );

    // And on from there.
    feed(&mut publisher, &moved(&live(1400..1480), base));
    assert_eq!(peer.frames(4).await, moved(&live(1400..1480), -1000));
    assert_eq!(pushing.state(State::Running).await.trouble, None);
    assert_eq!(pushing.status.frames.sum(), 24);
}

#[tokio::test]
async fn nothing_is_connected_to_before_there_is_media() {
    let listener = listener();
    let pushing = Pushing::to(&listener, "app/cam", None);
    let accept = listener.accept();
    tokio::pin!(accept);
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert!(futures_util::poll!(&mut accept).is_pending());
    }
    assert_eq!(pushing.status.status.get().state, State::Waiting);
    let _publisher = pushing.publish(&live(0..80));
    soon("a connection", accept).await;
}

#[tokio::test]
async fn a_push_is_counted_among_what_is_dialled_while_its_connection_lasts() {
    let listener = listener();
    let mut pushing = Pushing::to(&listener, "app/cam", None);
    let dialled = pushing.module.net.dialled().clone();
    assert_eq!(dialled.now(), 0);
    let _publisher = pushing.publish(&live(0..80));
    let (peer, ..) = Peer::publisher(&listener).await;
    pushing.state(State::Running).await;
    assert_eq!(dialled.now(), 1);
    pushing.cancel.cancel();
    drop(peer);
    soon("the end of the push", &mut pushing.task).await.unwrap();
    assert_eq!(dialled.now(), 0);
}

#[tokio::test]
async fn a_stream_key_is_the_name_and_a_key_goes_behind_it() {
    let listener = listener();
    for (path, credentials, expected) in [
        ("app", stream_key("abc-123"), ("app", "abc-123", None)),
        ("app/inner", stream_key("k"), ("app/inner", "k", None)),
        ("app/cam", Some(Credentials::Key(plain("a b"))), ("app", "cam", Some("key=a%20b".to_owned()))),
    ] {
        let pushing = Pushing::to(&listener, path, credentials);
        let _publisher = pushing.publish(&live(0..80));
        let (_peer, app, name, query) = Peer::publisher(&listener).await;
        assert_eq!((app.as_str(), name.as_str(), query), expected);
    }
}

#[tokio::test]
async fn user_and_password_are_proved_by_the_dialogue() {
    let listener = listener();
    let wanted = av_rtmp::Credentials { username: "joe".into(), password: "hunter2".into() };
    for (password, ends) in [("hunter2", "accepted"), ("wrong", "denied")] {
        let user = Credentials::User { username: "joe".into(), password: plain(password) };
        let pushing = Pushing::to(&listener, "app/cam", Some(user));
        let _publisher = pushing.publish(&live(0..80));
        let mut auth = AdobeAuth::new();
        for connection in 0.. {
            let mut peer = Peer::accept(&listener).await;
            let connect = peer.connect().await;
            match auth.check(connect.query.as_deref(), &wanted) {
                AuthStep::Challenge(text) => {
                    assert!(connection < 2);
                    peer.session.reject_connect(&text);
                    peer.flush().await;
                    while peer.event().await.is_some() {}
                }
                AuthStep::Accepted => {
                    assert_eq!((ends, connection), ("accepted", 2));
                    break;
                }
                AuthStep::Denied(text) => {
                    assert_eq!((ends, connection), ("denied", 2));
                    peer.session.reject_connect(&text);
                    peer.flush().await;
                    let error = pushing.state(State::Retrying).await.trouble.unwrap().text;
                    assert!(
                        error.contains("server.example refused user or password; check credentials"),
                        "{error}"
                    );
                    assert!(!error.contains("wrong"), "{error}");
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_refused_stream_key_is_said_without_the_key_and_read_anew() {
    let (listener, dir) = (listener(), tempfile::tempdir().unwrap());
    let file = dir.path().join("key");
    std::fs::write(&file, "sesame-old").unwrap();
    let key = Credentials::StreamKey(Secret::File(file.clone()));
    let pushing = Pushing::to(&listener, "app", Some(key));
    let _publisher = pushing.publish(&live(0..80));

    let mut peer = Peer::accept(&listener).await;
    let (id, _, name, _) = peer.asked().await;
    assert_eq!(name, "sesame-old");
    peer.reject(id, "NetStream.Publish.BadName", "no stream app/sesame-old here").await;
    let error = pushing.state(State::Retrying).await.trouble.unwrap().text;
    assert_eq!(
        error,
        "flows.dock.outputs.cloud.push: server.example refused the stream key; check credentials \
         (NetStream.Publish.BadName: no stream app/*** here)"
    );

    std::fs::write(&file, "sesame-new").unwrap();
    // The file is read again at most once a second.
    loop {
        let mut peer = Peer::accept(&listener).await;
        let (id, _, name, _) = peer.asked().await;
        if name == "sesame-new" {
            break;
        }
        peer.reject(id, "NetStream.Publish.BadName", "still not").await;
    }
}

#[tokio::test]
async fn a_target_that_goes_away_is_connected_to_again_and_starts_at_a_sync_frame() {
    let listener = listener();
    let pushing = Pushing::to(&listener, "app/cam", None);
    let mut publisher = pushing.publish(&live(0..400));
    let (mut peer, ..) = Peer::publisher(&listener).await;
    peer.frames(20).await;
    drop(peer);
    feed(&mut publisher, &live(400..1400));
    let (mut peer, ..) = Peer::publisher(&listener).await;
    assert_eq!(peer.frames(20).await, moved(&live(1000..1400), -1000));
    pushing.state(State::Running).await;
}

#[tokio::test]
async fn the_end_of_the_stream_is_told_and_the_next_one_is_pushed_again() {
    let listener = listener();
    let pushing = Pushing::to(&listener, "app/cam", None);
    let publisher = pushing.publish(&live(0..400));
    let (mut peer, ..) = Peer::publisher(&listener).await;
    peer.frames(20).await;
    drop(publisher);
    pushing.stream.end(Instant::now());
    assert!(matches!(peer.event().await, Some(ServerEvent::PublishStopped)));
    assert!(peer.event().await.is_none());
    drop(peer);
    assert_eq!(pushing.state(State::Waiting).await.trouble, None);

    let _publisher = pushing.publish(&live(0..400));
    let (mut peer, ..) = Peer::publisher(&listener).await;
    assert_eq!(peer.frames(20).await, live(0..400));
}

#[tokio::test]
async fn a_push_that_is_cancelled_takes_leave() {
    let listener = listener();
    let mut pushing = Pushing::to(&listener, "app/cam", None);
    let _publisher = pushing.publish(&live(0..400));
    let (mut peer, ..) = Peer::publisher(&listener).await;
    peer.frames(20).await;
    pushing.cancel.cancel();
    assert!(matches!(peer.event().await, Some(ServerEvent::PublishStopped)));
    assert!(peer.event().await.is_none());
    drop(peer);
    soon("the end", &mut pushing.task).await.unwrap();
}

#[tokio::test]
async fn a_picture_leaves_at_once_and_sound_alone_soon() {
    let listener = listener();
    let pushing = Pushing::to(&listener, "app/cam", None);
    let mut publisher = pushing.publish(&live(0..80));
    let (mut peer, ..) = Peer::publisher(&listener).await;
    peer.frames(4).await;
    // No picture comes to take them along.
    let sounds: Vec<Frame> = (0..5).map(|i| sound(100 + i * 23)).collect();
    feed(&mut publisher, &sounds);
    assert_eq!(peer.frames(5).await, sounds);
}

#[tokio::test]
async fn a_target_that_is_too_slow_goes_on_at_a_sync_frame_and_the_loss_is_counted() {
    let listener = listener();
    let pushing = Pushing::to(&listener, "app/cam", None);
    let mut publisher = pushing.publish(&live(0..40));
    let (mut peer, ..) = Peer::publisher(&listener).await;
    peer.frames(2).await;
    // As if it had come five seconds ago: more than the sockets hold, then a little from now.
    let then = Instant::now() - Duration::from_secs(5);
    let big = |dts: i64| {
        let mut frame = picture(dts, dts % 1000 == 0);
        let mut data = (99_996_u32).to_be_bytes().to_vec();
        data.extend_from_slice(&frame.data[4..]);
        data.resize(100_000, 0);
        frame.data = data.into();
        frame
    };
    for dts in (40..12_000).step_by(40) {
        publisher.frame(big(dts), then).unwrap();
    }
    feed(&mut publisher, &[picture(12_000, true), picture(12_040, false)]);

    let mut before = picture(0, true);
    let mut skips = 0;
    loop {
        let frame = peer.frames(1).await.remove(0);
        let step = frame.dts.millis() - before.dts.millis();
        if step > 40 {
            assert!(frame.is_sync, "goes on at {frame:?}");
            skips += 1;
        }
        before = frame;
        if before.dts.millis() == 12_040 {
            break;
        }
    }
    assert!(skips >= 1);
    assert!(pushing.status.dropped.sum() > 0);
    // It was never given up.
    assert_eq!(pushing.status.status.get().state, State::Running);
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_named_with_the_byte() {
    let listener = listener();
    let pushing = Pushing::to(&listener, "app/cam", None);
    let _publisher = pushing.publish(&live(0..80));
    let (mut stream, _) = listener.accept().await;
    AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let error = pushing.state(State::Retrying).await.trouble.unwrap().text;
    assert!(error.contains("server.example broke RTMP at byte"), "{error}");
}

#[tokio::test]
async fn a_peer_that_accepts_and_answers_nothing_is_said_to() {
    let listener = listener();
    let pushing = Pushing::to(&listener, "app/cam", None);
    let _publisher = pushing.publish(&live(0..80));
    let (_stream, _) = listener.accept().await;
    let error = pushing.state(State::Retrying).await.trouble.unwrap().text;
    assert!(
        error.contains("server.example") && error.contains("does not finish the RTMP dialogue"),
        "{error}"
    );
}

#[tokio::test]
async fn a_filter_that_leaves_nothing_waits_and_says_so() {
    let listener = listener();
    let pushing = Pushing::to(&listener, "app/cam", None);
    let output = OutputContext {
        module: module(),
        flow: "dock".into(),
        output: "pictures".into(),
        path: "flows.dock.outputs.pictures".into(),
        of_instance: false,
        stream: pushing.stream.clone(),
        content: Content::VideoOnly,
        status: OutputStatus::new(Changes::default()),
        cancel: CancellationToken::new(),
    };
    let status = output.status.clone();
    let config = PushConfig {
        url: url(listener.address(), "app/v"),
        credentials: None,
        retry: retry(),
        tls: no_tls(),
    };
    let task = tokio::spawn(push(output, config));
    let mut publisher = pushing.stream.publisher(Kick::default());
    publisher.track(audio(), Instant::now()).unwrap();
    feed(&mut publisher, &[sound(0), sound(23)]);
    soon("the reason", async {
        while status.status.get().trouble.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let current = status.status.get();
    assert_eq!(current.state, State::Waiting);
    assert_eq!(current.trouble.unwrap().text, "flows.dock.outputs.pictures.push: the stream has no video");
    task.abort();
}

#[tokio::test]
async fn over_tls_the_target_gets_the_same_frames() {
    let (outside, inside) = (listener(), listener());
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["server.example".to_owned()]).unwrap();
    std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let module = module();
    let tls = crate::config::ServerTls {
        certificate_file: Some(dir.path().join("cert.pem")),
        key_file: Some(dir.path().join("key.pem")),
        host_name: None,
    };
    let acceptor = module.net.tls_acceptor(&tls).await.unwrap();
    let (address, behind) = (outside.address(), inside.address());
    let proxy = tokio::spawn(async move {
        let (stream, _) = outside.accept().await;
        let mut outer = acceptor.accept(stream).await.unwrap();
        let mut inner = tokio::net::TcpStream::connect(behind).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
    });
    let stream = stream();
    let output = OutputContext {
        module: module.clone(),
        flow: "dock".into(),
        output: "cloud".into(),
        path: "flows.dock.outputs.cloud".into(),
        of_instance: false,
        stream: stream.clone(),
        content: Content::AudioVideo,
        status: OutputStatus::new(Changes::default()),
        cancel: CancellationToken::new(),
    };
    let pin = <sha2::Sha256 as sha2::Digest>::digest(made.cert.der().as_ref()).into();
    let config = PushConfig {
        url: crate::config::ConnectUrl { scheme: crate::rtmp::options::RTMPS, ..url(address, "app/cam") },
        credentials: None,
        retry: retry(),
        tls: crate::config::ClientTls { pin_sha256: Some(pin), ..no_tls() },
    };
    let cancel = output.cancel.clone();
    let task = tokio::spawn(push(output, config));
    let mut publisher = stream.publisher(Kick::default());
    announce(&mut publisher);
    feed(&mut publisher, &live(0..400));
    let (mut peer, ..) = Peer::publisher(&inside).await;
    assert_eq!(peer.frames(20).await, live(0..400));
    feed(&mut publisher, &live(400..800));
    assert_eq!(peer.frames(20).await, live(400..800));
    let measured = |protocol: &str| module.latency(protocol).map(|histogram| histogram.get_sample_count());
    soon("a figure of the delay", async {
        while measured("rtmps").contains(&0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(measured("rtmp"), [0, 0]);
    cancel.cancel();
    assert!(matches!(peer.event().await, Some(ServerEvent::PublishStopped)));
    drop(peer);
    soon("the end", task).await.unwrap();
    proxy.abort();
}

#[tokio::test]
async fn a_target_that_stops_taking_is_lost_and_said_to_be() {
    let listener = listener();
    let pushing = Pushing::to(&listener, "app/cam", None);
    let mut publisher = pushing.publish(&live(0..80));
    let (mut peer, ..) = Peer::publisher(&listener).await;
    peer.frames(4).await;
    // The system would take all of it on the peer's behalf.
    socket2::SockRef::from(&peer.stream).set_recv_buffer_size(16 * 1024).unwrap();
    let mut giant = picture(80, false);
    let size: u32 = 8 << 20;
    giant.data = [&(size - 4).to_be_bytes()[..], &vec![0x41; size as usize - 4]].concat().into();
    feed(&mut publisher, &[giant]);
    let error = pushing.state(State::Retrying).await.trouble.unwrap().text;
    assert_eq!(error, "flows.dock.outputs.cloud.push: server.example accepted nothing for 10 s");
}
