use std::sync::Arc;
use std::sync::atomic::Ordering;

use av_media::Frame;
use av_rtmp::{AdobeAuth, AuthStep};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{Content, Credentials};
use crate::net::Listener;
use crate::rtmp::client::peer::*;
use crate::stream::{Entry, InputStatus, Item, Reader, Stream};

struct Pulling {
    stream: Stream,
    status: Arc<InputStatus>,
    reader: Reader,
    task: JoinHandle<()>,
}

impl Pulling {
    fn from(listener: &Listener, path: &str, credentials: Option<Credentials>, idle: Duration) -> Self {
        let config = PullConfig {
            url: url(listener.address(), path),
            credentials,
            retry: retry(),
            max_message_bytes: 1 << 20,
            tls: no_tls(),
        };
        let stream = stream();
        let input = InputContext {
            module: module(),
            flow: "cam".into(),
            path: "flows.cam.input".into(),
            status: stream.input().clone(),
            idle_timeout: idle,
            instances: None,
            stream: stream.clone(),
            cancel: CancellationToken::new(),
        };
        Self {
            status: stream.input().clone(),
            reader: stream.reader(Content::AudioVideo).as_stamped(),
            stream,
            task: tokio::spawn(pull(input, config)),
        }
    }

    fn patiently(listener: &Listener, path: &str) -> Self {
        Self::from(listener, path, None, Duration::from_secs(20))
    }

    /// The next frames that a reader gets, and every other item on the way.
    async fn frames(&mut self, count: usize) -> (Vec<Frame>, Vec<Item>) {
        soon("frames", async {
            let (mut frames, mut others) = (Vec::new(), Vec::new());
            let mut entries: Vec<Entry> = Vec::new();
            while frames.len() < count {
                self.reader.recv(&mut entries).await;
                for entry in entries.drain(..) {
                    match entry.item {
                        Item::Frame(frame) => frames.push(frame),
                        other => others.push(other),
                    }
                }
            }
            (frames, others)
        })
        .await
    }

    /// Plays frames to a reader that has been there from the first.
    async fn play(&mut self, peer: &mut Peer, frames: &[Frame]) -> (Vec<Frame>, Vec<Item>) {
        peer.play(&frames[..2]).await;
        let (mut received, others) = self.frames(2).await;
        peer.send(&frames[2..]).await;
        let (rest, more) = self.frames(frames.len() - 2).await;
        received.extend(rest);
        assert!(more.is_empty(), "{more:?}");
        (received, others)
    }

    async fn state(&self, wanted: State) -> crate::stream::Current {
        state(&self.status.status, wanted).await
    }
}

impl Drop for Pulling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_stream_is_pulled_with_its_tracks_and_exact_times() {
    let listener = listener();
    let mut pulling = Pulling::patiently(&listener, "app/live/cam");
    let (mut peer, app, name, query) = Peer::player(&listener).await;
    assert_eq!((app.as_str(), name.as_str(), query), ("app/live", "cam", None));
    // Connected, and nothing there yet.
    assert_eq!(pulling.state(State::Waiting).await.trouble, None);

    let (frames, others) = pulling.play(&mut peer, &live(0..1400)).await;
    assert_eq!(frames, live(0..1400));
    let [Item::Tracks(tracks), Item::Aside(_), Item::Anchor(_)] = others.as_slice() else {
        panic!("{others:?}")
    };
    assert_eq!((tracks.video.as_deref(), tracks.audio.as_deref()), (Some(&video()), Some(&audio())));
    pulling.state(State::Running).await;
}

#[tokio::test]
async fn a_broken_connection_is_made_again_and_the_cached_gop_is_not_repeated() {
    for by in [0, -1000] {
        let listener = listener();
        let mut pulling = Pulling::patiently(&listener, "app/cam");
        let (mut peer, ..) = Peer::player(&listener).await;
        pulling.play(&mut peer, &live(0..1400)).await;
        drop(peer);

        // The server kept the GOP, and perhaps its clock; it had three more pictures meanwhile.
        let (mut peer, ..) = Peer::player(&listener).await;
        peer.play(&moved(&live(1000..1520), by)).await;
        let (frames, others) = pulling.frames(6).await;
        assert_eq!(frames, live(1400..1520), "{by}");
        // Readers saw nothing of it.
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(pulling.status.reconnects.load(Ordering::Relaxed), 1);
        pulling.state(State::Running).await;
    }
}

#[tokio::test]
async fn what_was_missed_is_a_gap_and_time_goes_on() {
    let listener = listener();
    let mut pulling = Pulling::patiently(&listener, "app/cam");
    let (mut peer, ..) = Peer::player(&listener).await;
    pulling.play(&mut peer, &live(0..1400)).await;
    drop(peer);
    let error = pulling.state(State::Retrying).await.trouble.unwrap().text;
    assert_eq!(error, "flows.cam.input.pull: server.example closed the connection");

    // Another programme on a clock that starts anew.
    let other: Vec<Frame> = moved(&live(50_000..50_400), -50_000);
    let (mut peer, ..) = Peer::player(&listener).await;
    peer.play(&other).await;
    let (frames, others) = pulling.frames(20).await;
    assert!(others.iter().any(|item| matches!(item, Item::Gap(_))), "{others:?}");
    assert!(frames[0].dts.millis() > 1370);
    assert_eq!(moved(&frames, -frames[0].dts.millis()), other);
}

#[tokio::test]
async fn silence_for_the_idle_time_ends_the_connection_and_another_is_made() {
    let listener = listener();
    let mut pulling = Pulling::from(&listener, "app/cam", None, Duration::from_millis(200));
    let (mut peer, ..) = Peer::player(&listener).await;
    peer.play(&live(0..400)).await;
    pulling.frames(20).await;
    let error = pulling.state(State::Retrying).await.trouble.unwrap().text;
    assert!(error.starts_with("flows.cam.input.pull: server.example sent nothing for"), "{error}");
    let (_peer, ..) = Peer::player(&listener).await;
    pulling.state(State::Waiting).await;
}

#[tokio::test]
async fn a_stream_that_the_server_ends_is_lost_at_once_and_asked_for_again() {
    let listener = listener();
    let mut pulling = Pulling::patiently(&listener, "app/cam");
    let (mut peer, ..) = Peer::player(&listener).await;
    peer.play(&live(0..400)).await;
    pulling.frames(20).await;
    assert!(pulling.stream.has_publisher());
    peer.session.end_play("over");
    peer.flush().await;
    let error = pulling.state(State::Retrying).await.trouble.unwrap().text;
    assert_eq!(error, "flows.cam.input.pull: server.example ended the stream");
    let (_peer, ..) = Peer::player(&listener).await;
    pulling.state(State::Waiting).await;
    assert!(!pulling.stream.has_publisher());
}

#[tokio::test]
async fn a_refusal_is_said_without_secrets_and_tried_again() {
    let listener = listener();
    let key = Credentials::Key(plain("sesame"));
    let mut pulling = Pulling::from(&listener, "app/cam", Some(key), Duration::from_secs(20));
    let mut peer = Peer::accept(&listener).await;
    let (id, _, name, query) = peer.asked().await;
    assert_eq!((name.as_str(), query.as_deref()), ("cam", Some("key=sesame")));
    peer.reject(id, "NetStream.Play.StreamNotFound", "not with sesame").await;
    let error = pulling.state(State::Retrying).await.trouble.unwrap().text;
    assert_eq!(
        error,
        "flows.cam.input.pull: server.example refused the key; check credentials \
         (NetStream.Play.StreamNotFound: not with ***)"
    );
    let (mut peer, ..) = Peer::player(&listener).await;
    peer.play(&live(0..400)).await;
    assert_eq!(pulling.frames(20).await.0, live(0..400));
}

#[tokio::test]
async fn user_and_password_are_proved_by_the_dialogue() {
    let listener = listener();
    let wanted = av_rtmp::Credentials { username: "joe".into(), password: "hunter2".into() };
    let user = Credentials::User { username: "joe".into(), password: plain("hunter2") };
    let mut pulling = Pulling::from(&listener, "app/cam", Some(user), Duration::from_secs(20));
    let mut auth = AdobeAuth::new();
    loop {
        let mut peer = Peer::accept(&listener).await;
        let connect = peer.connect().await;
        match auth.check(connect.query.as_deref(), &wanted) {
            AuthStep::Challenge(text) => {
                peer.session.reject_connect(&text);
                peer.flush().await;
            }
            AuthStep::Denied(text) => panic!("{text}"),
            AuthStep::Accepted => {
                peer.session.accept_connect();
                let Some(av_rtmp::ServerEvent::Play { id, .. }) = peer.event().await else { panic!() };
                peer.session.accept_play(id);
                peer.flush().await;
                peer.play(&live(0..400)).await;
                assert_eq!(pulling.frames(20).await.0, live(0..400));
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_message_longer_than_allowed_ends_the_connection_with_its_place() {
    let listener = listener();
    let mut pulling = Pulling::patiently(&listener, "app/cam");
    let (mut peer, ..) = Peer::player(&listener).await;
    peer.play(&live(0..400)).await;
    pulling.frames(20).await;
    let mut giant = picture(400, false);
    giant.data = vec![0; 2 << 20].into();
    // It hangs up before it has all of that.
    let mut out = bytes::BytesMut::new();
    av_rtmp::Egress::players().frame(&mut out, &video(), &giant, 400);
    let _ = tokio::io::AsyncWriteExt::write_all(&mut peer.stream, &out).await;
    let error = pulling.state(State::Retrying).await.trouble.unwrap().text;
    assert!(error.contains("server.example broke RTMP at byte") && error.contains("1048576"), "{error}");
}
