use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::Waker;

use av_media::{Frame, Timestamp};
use prometheus::HistogramOpts;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;

use super::*;
use crate::fanout::packer::Packer;
use crate::fanout::tests::{ASIDE, Toy, pictures};
use crate::fanout::{Arrival, Client, Farewell, Join, Sink, Tie, tie};
use crate::rtmp::peer::{audio, soon, stream, video};
use crate::stream::{Changes, Entry, Item, Stream, Tracks};

/// An output whose frames are given by hand.
struct Rig {
    walk: Walk,
    packer: Packer<Toy>,
    output: Arc<OutputStatus>,
    stream: Stream,
}

impl Rig {
    fn new() -> Self {
        let output = OutputStatus::new(Changes::default());
        let histogram = || Histogram::with_opts(HistogramOpts::new("delay", "delay")).unwrap();
        let walk = Walk::new(output.clone(), [histogram(), histogram()]);
        let mut rig =
            Self { walk, packer: Packer::new(Toy::default(), Duration::ZERO), output, stream: stream() };
        let tracks = Tracks { video: Some(video().into()), audio: Some(audio().into()) };
        rig.take(Item::Tracks(Arc::new(tracks)));
        rig
    }

    fn take(&mut self, item: Item) {
        let now = Instant::now();
        let starts = matches!(&item, Item::Frame(frame) if frame.is_sync);
        self.packer.take(Entry { item, arrived: now.into(), starts }, now);
    }

    /// Lets a player in whose way takes so many bytes before somebody reads.
    fn join(&mut self, room: usize) -> Viewer {
        let (sink, way) = duplex(room);
        self.join_with(Box::new(sink), way)
    }

    fn join_with(&mut self, sink: Sink, way: DuplexStream) -> Viewer {
        let (farewell, ended) = oneshot::channel();
        let client = Client::admit(&self.output, &self.stream, 0).unwrap();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let (tie, post) = tie();
        let arrival =
            Arrival { peer, sink, client: Some(client), variant: 0, greeting: None, tie: post, farewell };
        let joining = self.packer.join(Join::Instant, 0);
        self.walk.join(Player::new(arrival, joining, None, Instant::now()));
        Viewer { tie, way, ended }
    }

    /// One picture to everybody.
    async fn picture(&mut self, millis: i64, is_sync: bool, size: usize) {
        let time = Timestamp::from_millis(millis);
        let data = vec![u8::try_from(millis / 40).unwrap(); size].into();
        self.take(Item::Frame(Frame { kind: Kind::Video, dts: time, pts: time, is_sync, data }));
        let flush = self.packer.flush(Instant::now()).unwrap();
        // The serving task counts its own turns too.
        tokio::task::unconstrained(self.walk.flush(&flush)).await;
    }

    /// As the serving task does between frames.
    async fn drive(&mut self) {
        tokio::task::unconstrained(std::future::poll_fn(|cx| {
            let _ = self.walk.poll_stuck(cx);
            Poll::Ready(())
        }))
        .await;
    }
}

struct Viewer {
    tie: Tie,
    way: DuplexStream,
    ended: oneshot::Receiver<Farewell>,
}

impl Viewer {
    /// What is on its way right now.
    async fn read(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(Ok(count @ 1..)) =
            tokio::time::timeout(Duration::from_millis(1), self.way.read(&mut buffer)).await
        {
            all.extend_from_slice(&buffer[..count]);
        }
        all
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_gets_every_picture_and_is_counted() {
    let mut rig = Rig::new();
    let mut viewers: Vec<_> = (0..1200).map(|_| rig.join(1 << 16)).collect();
    for picture in 0..4 {
        rig.picture(picture * 40, picture == 0, 100).await;
    }
    for viewer in &mut viewers {
        assert_eq!(pictures(&viewer.read().await), [0, 1, 2, 3]);
    }
    assert_eq!(rig.output.frames.get(Kind::Video), 4 * 1200);
    assert_eq!(rig.output.dropped.get(Kind::Video), 0);
    assert_eq!(rig.output.clients.load(Ordering::Relaxed), 1200);
}

#[tokio::test(start_paused = true)]
async fn who_stops_reading_goes_on_at_a_sync_frame_with_whole_messages_and_costs_nobody_else_a_frame() {
    let mut rig = Rig::new();
    let (mut slow, mut good) = (rig.join(1000), rig.join(1 << 20));
    let mut watched = Vec::new();
    let mut seen = Vec::new();
    for picture in 0..200_u8 {
        // A megabyte and more by the time of the second sync frame.
        rig.picture(i64::from(picture) * 40, picture % 50 == 0, 30_000).await;
        watched.extend(good.read().await);
    }
    let slowness = rig.walk.take_slow();
    assert!(slowness.iter().any(|slow| slow.skipped > 0 && !slow.gone));
    // It reads again.
    for picture in 200..255_u8 {
        rig.picture(i64::from(picture) * 40, picture % 50 == 0, 30_000).await;
        watched.extend(good.read().await);
        for _ in 0..200 {
            seen.extend(slow.read().await);
            rig.drive().await;
        }
    }
    assert_eq!(pictures(&watched), (0..255).collect::<Vec<u8>>());
    let seen = pictures(&seen);
    let gap = seen.windows(2).position(|pair| pair[1] != pair[0] + 1).unwrap();
    assert_eq!(seen[gap + 1] % 50, 0, "{seen:?}");
    assert_eq!(*seen.last().unwrap(), 254, "{seen:?}");
    let lost = 255 - seen.len() as u64;
    assert_eq!(rig.output.dropped.get(Kind::Video), lost);
    assert_eq!(rig.output.frames.get(Kind::Video), 2 * 255 - lost);
}

#[tokio::test(start_paused = true)]
async fn answers_of_the_session_go_between_whole_messages() {
    let mut rig = Rig::new();
    let mut viewer = rig.join(500);
    rig.picture(0, true, 2000).await;
    let answer = Bytes::from_static(&[ASIDE, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert!(viewer.tie.answer(answer.clone()));
    rig.walk.hear(Instant::now());
    rig.picture(40, false, 100).await;
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.extend(viewer.read().await);
        rig.drive().await;
    }
    assert_eq!(pictures(&seen), [0, 1]);
    let place = seen.windows(answer.len()).position(|window| window == answer);
    assert_eq!(pictures(&seen[..place.unwrap()]), [0]);
}

/// Takes everything and lets it out when flushed, if it may: as TLS does in front of a full socket.
struct Hoarder {
    to: DuplexStream,
    held: Vec<u8>,
    valve: Arc<Mutex<(bool, Option<Waker>)>>,
}

impl AsyncWrite for Hoarder {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let valve = self.valve.clone();
        let mut valve = valve.lock().unwrap();
        if !valve.0 {
            valve.1 = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let written = Pin::new(&mut self.to).poll_write(cx, &held);
        assert!(matches!(written, Poll::Ready(Ok(count)) if count == held.len()));
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_sink_holds_back_leaves_although_no_picture_follows() {
    let mut rig = Rig::new();
    let (to, way) = duplex(1 << 16);
    let valve = Arc::<Mutex<(bool, Option<Waker>)>>::default();
    let sink = Box::new(Hoarder { to, held: Vec::new(), valve: valve.clone() });
    let mut viewer = rig.join_with(sink, way);
    rig.picture(0, true, 100).await;
    assert!(viewer.read().await.is_empty());
    rig.drive().await;
    assert!(rig.walk.players[0].is_stuck());
    let waker = {
        let mut valve = valve.lock().unwrap();
        valve.0 = true;
        valve.1.take()
    };
    waker.unwrap().wake();
    rig.drive().await;
    assert_eq!(pictures(&viewer.read().await), [0]);
    assert_eq!(rig.walk.stuck, 0);
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_any_more_is_disconnected_however_long_nothing_was_sent_before() {
    let mut rig = Rig::new();
    let viewer = rig.join(10);
    rig.walk.players[0].progress = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
    rig.picture(0, true, 1000).await;
    let now = Instant::now();
    rig.walk.sweep(now + Duration::from_secs(9));
    assert_eq!(rig.walk.len(), 1);
    rig.walk.sweep(now + Duration::from_secs(11));
    assert_eq!((rig.walk.len(), rig.walk.stuck), (0, 0));
    assert!(rig.walk.take_slow()[0].gone);
    assert!(soon("the end", viewer.ended).await.is_err());
    assert_eq!(rig.output.clients.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn who_has_left_is_gone_and_the_others_stay() {
    let mut rig = Rig::new();
    let (first, second, mut third) = (rig.join(1 << 16), rig.join(10), rig.join(1 << 16));
    rig.picture(0, true, 100).await;
    drop(first);
    drop(second.tie);
    rig.walk.hear(Instant::now());
    rig.picture(40, false, 100).await;
    assert_eq!((rig.walk.len(), rig.walk.stuck), (1, 0));
    assert_eq!(pictures(&third.read().await), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_everybody_gets_the_sink_back_with_what_was_begun() {
    let mut rig = Rig::new();
    let mut viewer = rig.join(500);
    rig.picture(0, true, 2000).await;
    rig.walk.end();
    let Farewell { sink: _sink, unsent } = viewer.ended.try_recv().unwrap();
    let mut seen = viewer.read().await;
    assert_eq!(seen.len(), 500);
    unsent.iter().for_each(|bytes| seen.extend_from_slice(bytes));
    assert_eq!(pictures(&seen), [0]);
    assert_eq!(rig.walk.stuck, 0);
}

#[tokio::test(start_paused = true)]
async fn who_has_left_is_sent_nothing_more_although_nobody_was_told() {
    let mut rig = Rig::new();
    let mut viewer = rig.join(1 << 16);
    rig.picture(0, true, 100).await;
    assert_eq!(pictures(&viewer.read().await), [0]);
    drop(viewer.tie);
    // The task has no turn for news before the next picture.
    rig.picture(40, false, 100).await;
    assert_eq!((rig.walk.len(), rig.output.frames.get(Kind::Video)), (0, 1));
    // The sink is given back, so nobody else keeps the way open.
    let mut rest = Vec::new();
    drop(viewer.ended);
    soon("the end", viewer.way.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_wants_its_sink_back_gets_what_was_begun_and_no_more_media() {
    let mut rig = Rig::new();
    let mut viewer = rig.join(500);
    rig.picture(0, true, 2000).await;
    rig.picture(40, false, 2000).await;
    assert!(viewer.tie.answer(Bytes::from_static(&[ASIDE, 0, 0, 0, 0, 0, 0, 0, 1, 0])));
    viewer.tie.leave();
    rig.walk.hear(Instant::now());
    let Farewell { sink: _sink, unsent } = viewer.ended.try_recv().unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 500];
    viewer.way.read_exact(&mut buffer).await.unwrap();
    seen.extend(buffer);
    unsent.iter().for_each(|bytes| seen.extend_from_slice(bytes));
    assert_eq!(pictures(&seen), [0]);
    assert!(seen.ends_with(&[ASIDE, 0, 0, 0, 0, 0, 0, 0, 1, 0]));
    assert_eq!((rig.walk.len(), rig.walk.stuck), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_answers_and_takes_none_is_cut_off() {
    let mut rig = Rig::new();
    let viewer = rig.join(10);
    rig.picture(0, true, 1000).await;
    let answer = || Bytes::from_static(&[ASIDE, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let mut asked = 0;
    while viewer.tie.answer(answer()) && rig.walk.len() > 0 {
        asked += 1;
        if asked % 10 == 0 {
            rig.walk.hear(Instant::now());
        }
        assert!(asked < 1000);
    }
    assert_eq!((rig.walk.len(), rig.walk.stuck), (0, 0));
}

/// Takes one piece at a time.
struct Single(DuplexStream);

impl AsyncWrite for Single {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn sinks_that_take_one_piece_at_a_time_get_the_same() {
    let mut rig = Rig::new();
    let (to, way) = duplex(3000);
    let (mut single, mut several) = (rig.join_with(Box::new(Single(to)), way), rig.join(3000));
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for picture in 0..30_u8 {
        rig.picture(i64::from(picture) * 40, picture == 0, 2500).await;
        one.extend(single.read().await);
        other.extend(several.read().await);
        rig.drive().await;
    }
    one.extend(single.read().await);
    other.extend(several.read().await);
    assert_eq!(pictures(&one), (0..30).collect::<Vec<u8>>());
    assert_eq!(one, other);
}

#[tokio::test(start_paused = true)]
async fn a_player_that_goes_on_without_having_paused_keeps_its_gop() {
    let mut rig = Rig::new();
    let mut viewer = rig.join(500);
    rig.picture(0, true, 2000).await;
    viewer.tie.pause(false);
    rig.walk.hear(Instant::now());
    rig.picture(40, false, 100).await;
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.extend(viewer.read().await);
        rig.drive().await;
    }
    assert_eq!(pictures(&seen), [0, 1]);
}
