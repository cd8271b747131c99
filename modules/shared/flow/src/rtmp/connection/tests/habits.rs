//! What encoders and players really say, by a peer that says it on purpose.

use av_rtmp::amf0::{Value, decode, encode_all, object};
use av_rtmp::chunk::{ChunkReader, Header, RawMessage, write_message};

use super::*;
use crate::config::{Auth, Secret};

const AVCC: &[u8] = b"\x17\0\0\0\0\x01\x64\0\x1e\xff\xe1\0\x1a\x67\x64\0\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x11\0\0\x03\0\x01\0\0\x03\0\x32\x0f\x16\x2d\x96\x01\0\x04\x68\xef\x8f\xcb\xfd\xf8\xf8\0";
const AAC: &[u8] = b"\xaf\0\x12\x10";

/// A client after the handshake, which sends what it is told to.
struct Raw {
    stream: TcpStream,
    reader: ChunkReader,
    input: BytesMut,
}

fn message(type_id: u8, timestamp: u32, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    let csid = if type_id == 9 { 6 } else { 4 };
    write_message(&mut out, 128, Header { csid, timestamp, type_id, stream_id: 1 }, &[payload]);
    out
}

fn command(name: &str, rest: &[Value]) -> BytesMut {
    let values = [&[Value::from(name), Value::from(7.0), Value::Null][..], rest].concat();
    message(20, 0, &encode_all(&values))
}

fn connect(app: &str) -> BytesMut {
    let info = object([("app", Value::from(app)), ("flashVer", Value::from("FMLE/3.0"))]);
    message(20, 0, &encode_all(&[Value::from("connect"), Value::from(1.0), info]))
}

fn picture(millis: u32, key: bool, size: usize) -> BytesMut {
    let head: &[u8] = if key { b"\x17\x01\0\0\0" } else { b"\x27\x01\0\0\0" };
    let mut nal = vec![0; size + 4];
    nal[..4].copy_from_slice(&(size as u32).to_be_bytes());
    nal[4] = if key { 0x65 } else { 0x41 };
    nal[5] = millis as u8;
    message(9, millis, &[head, &nal].concat())
}

fn sound(millis: u32) -> BytesMut {
    message(8, millis, &[b"\xaf\x01".as_slice(), &millis.to_be_bytes()].concat())
}

/// Headers and a second of frames, from `millis` on.
fn media(millis: u32) -> BytesMut {
    let mut out = [message(9, 0, AVCC), message(8, 0, AAC)].concat();
    for n in 0..25 {
        out.extend_from_slice(&picture(millis + n * 40, n == 0, 60));
        out.extend_from_slice(&sound(millis + n * 40));
    }
    BytesMut::from(&out[..])
}

impl Raw {
    async fn open(flow: &Flow) -> Self {
        // Until it listens.
        let mut stream = soon("a connection", async {
            loop {
                match TcpStream::connect(flow.address).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await;
        stream.write_all(&[&[3][..], &[0; 1536]].concat()).await.unwrap();
        let mut answer = vec![0; 1 + 2 * 1536];
        stream.read_exact(&mut answer).await.unwrap();
        stream.write_all(&answer[1..=1536]).await.unwrap();
        Self { stream, reader: ChunkReader::new(&Limits::default()), input: BytesMut::new() }
    }

    async fn publishing(flow: &Flow) -> Self {
        let mut raw = Self::open(flow).await;
        raw.send(&[connect("live"), command("publish", &[Value::from("stream1")])].concat()).await;
        assert_eq!(raw.status().await, "NetStream.Publish.Start");
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next message; `None`: the server has closed.
    async fn next(&mut self) -> Option<RawMessage> {
        soon("a message", async {
            loop {
                let mut rest = &self.input[..];
                let message = self.reader.read(&mut rest).unwrap();
                let taken = self.input.len() - rest.len();
                self.input = self.input.split_off(taken);
                if message.is_some() {
                    return message;
                }
                if !matches!(self.stream.read_buf(&mut self.input).await, Ok(1..)) {
                    return None;
                }
            }
        })
        .await
    }

    /// The code of the next status.
    async fn status(&mut self) -> String {
        loop {
            let message = self.next().await.expect("a status");
            if message.type_id == 20 {
                let values = decode(&message.payload).unwrap();
                if values[0].as_str() == Some("onStatus") {
                    return values[3].get("code").and_then(Value::as_str).unwrap().to_owned();
                }
            }
        }
    }

    /// The next picture that is no header.
    async fn picture(&mut self) -> RawMessage {
        loop {
            let message = self.next().await.expect("a picture");
            if message.type_id == 9 && message.payload.get(1) != Some(&0) {
                return message;
            }
        }
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    soon(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn everything_in_one_write_arrives_with_a_key_frame_larger_than_a_stranger_may_send() {
    let flow = Flow::start(true, 0);
    let mut player = flow.player().await;
    let mut raw = Raw::open(&flow).await;
    let opening =
        [connect("live"), command("createStream", &[]), command("publish", &[Value::from("stream1")])];
    let frames = [message(9, 0, AVCC), message(8, 0, AAC), picture(0, true, 300_000), sound(0)];
    raw.send(&[opening.concat(), frames.concat()].concat()).await;
    let frames = player.frames(2).await;
    assert_eq!(frames.iter().map(|frame| frame.data.len()).max(), Some(300_004));
}

#[tokio::test]
async fn a_stranger_that_only_says_publish_gets_no_more_room() {
    let flow = Flow::start(true, 0);
    let mut raw = Raw::open(&flow).await;
    let refused = command("publish", &[Value::from("nobody")]);
    raw.send(&[connect("live"), refused, picture(0, true, 300_000)].concat()).await;
    assert_eq!(raw.status().await, "NetStream.Publish.BadName");
    assert!(raw.next().await.is_none());
}

#[tokio::test]
async fn one_connection_publishes_stops_with_frames_on_their_way_and_publishes_again() {
    let flow = Flow::start(true, 0);
    let mut player = flow.player().await;
    let mut raw = Raw::publishing(&flow).await;
    raw.send(&media(0)).await;
    player.frames(50).await;
    for stop in [
        command("closeStream", &[]),
        command("deleteStream", &[Value::from(1.0)]),
        command("publish", &[Value::Boolean(false)]),
    ] {
        raw.send(&[stop, picture(2000, true, 200_000), sound(2000)].concat()).await;
        assert_eq!(raw.status().await, "NetStream.Unpublish.Success");
        raw.send(&[command("createStream", &[]), command("publish", &[Value::from("stream1")])].concat())
            .await;
        assert_eq!(raw.status().await, "NetStream.Publish.Start");
        raw.send(&media(0)).await;
        assert!(
            player.frames(50).await.iter().all(|frame| frame.data.len() < 1000),
            "what came late is dropped"
        );
    }
}

#[tokio::test]
async fn a_player_stops_and_plays_again_on_the_same_connection() {
    let flow = Flow::start(true, 0);
    let mut publisher = Raw::publishing(&flow).await;
    publisher.send(&media(0)).await;
    let mut player = Raw::open(&flow).await;
    let play = command("play", &[Value::from("stream1")]);
    player.send(&[connect("live"), play.clone()].concat()).await;
    player.picture().await;
    let clients = || flow.output.status.clients.load(std::sync::atomic::Ordering::Relaxed);
    for stop in [command("closeStream", &[]), command("play", &[Value::Boolean(false)])] {
        player.send(&stop).await;
        until("the player has left", || clients() == 0).await;
        // Stopped in the same breath, and played again.
        player.send(&[play.clone(), stop, play.clone()].concat()).await;
        player.picture().await;
        until("it plays", || clients() == 1).await;
    }
    player.send(&command("publish", &[Value::from("stream1")])).await;
    assert!(player.next().await.is_some(), "the connection is there");
}

#[tokio::test]
async fn a_player_that_pauses_is_sent_nothing_and_goes_on_at_a_sync_frame() {
    let flow = Flow::start(true, 0);
    let mut publisher = Raw::publishing(&flow).await;
    publisher.send(&media(0)).await;
    let mut other = flow.player().await;
    other.frames(50).await;
    let mut player = Raw::open(&flow).await;
    player.send(&[connect("live"), command("play", &[Value::from("stream1")])].concat()).await;
    player.picture().await;
    player.send(&command("pause", &[Value::Boolean(true), Value::from(0.0)])).await;
    while player.status().await != "NetStream.Pause.Notify" {}
    // The rest of a group of pictures, and another, which the other player gets.
    let rest: Vec<_> = (25..50).map(|n| [picture(n * 40, false, 60), sound(n * 40)].concat()).collect();
    publisher.send(&[rest.concat(), media(2000).to_vec()].concat()).await;
    other.frames(100).await;
    player.send(&command("pause", &[Value::Boolean(false), Value::from(0.0)])).await;
    loop {
        let message = player.next().await.expect("a message");
        assert!(!matches!(message.type_id, 8 | 9), "media in the pause: {message:?}");
        let said = (message.type_id == 20).then(|| format!("{:?}", decode(&message.payload).unwrap()));
        if said.is_some_and(|said| said.contains("NetStream.Unpause.Notify")) {
            break;
        }
    }
    publisher.send(&media(3000)).await;
    let first = player.picture().await;
    assert_eq!((first.payload[0], first.payload[10]), (0x17, 3000_u32 as u8), "a sync frame of what is live");
    assert_eq!(flow.output.status.dropped.sum(), 0, "what was not wanted is not lost");
}

#[tokio::test]
async fn a_malformed_message_costs_itself_and_is_counted_and_said_once() {
    let flow = Flow::start(true, 0);
    let mut player = flow.player().await;
    let mut raw = Raw::publishing(&flow).await;
    let odd = [
        message(9, 0, b"\x17"),
        message(8, 0, b"\xaf\0\x12"),
        message(18, 0, b"hello"),
        message(15, 0, b"\0\x02\0\x0aonMetaData\x11\x0a"),
        message(17, 0, b"\x11\x0a"),
        message(4, 0, &[0, 3, 0, 0]),
        message(9, 0, b"\x17\x09\0\0\0nal"),
    ];
    for _ in 0..3 {
        raw.send(&odd.concat()).await;
    }
    raw.send(&media(0)).await;
    player.frames(50).await;
    assert_eq!(flow.input.status.skipped.counts(), [0, 21, 0, 0]);
    assert_eq!(flow.input.status.skipped.get(av_media::Kind::Video), None, "the track is carried");
    assert_eq!(flow.input.status.said.take_news(), [""; 0], "all is said already");
}

#[tokio::test]
async fn the_chunk_layer_is_no_place_for_mistakes_but_what_came_before_is_passed_on() {
    let flow = Flow::start(true, 0);
    let mut player = flow.player().await;
    let mut raw = Raw::publishing(&flow).await;
    raw.send(&[&media(0)[..], &[0xC0 | 40; 4]].concat()).await;
    player.frames(50).await;
    while raw.next().await.is_some() {}
}

#[tokio::test]
async fn a_codec_that_is_not_carried_is_shown_and_is_the_reason_when_its_publisher_has_to_go() {
    let flow = Flow::start(true, 0);
    let mut raw = Raw::publishing(&flow).await;
    let status = &flow.input.status;
    raw.send(&message(9, 0, b"\x24vp6").repeat(5)).await;
    until("it is counted", || status.skipped.counts() == [5, 0, 0, 0]).await;
    let shown = status.skipped.get(av_media::Kind::Video).unwrap();
    assert_eq!((shown.codec.as_str(), shown.dropped.as_str()), ("VP6", "video codec 4 (VP6) is not carried"));
    flow.input.stream.tick(Instant::now() + Duration::from_secs(11));
    loop {
        let message = raw.next().await.expect("a status");
        if message.type_id == 20 {
            let said = format!("{:?}", decode(&message.payload).unwrap());
            assert!(
                said.contains("nothing that can be passed on came for 10 s (video codec 4 (VP6)"),
                "{said}"
            );
            break;
        }
    }
    // The next one sends H.264.
    let mut raw = Raw::publishing(&flow).await;
    raw.send(&media(0)).await;
    until("the track is carried", || status.skipped.get(av_media::Kind::Video).is_none()).await;
}

#[tokio::test]
async fn what_only_rtmp_knows_reaches_players_byte_for_byte_and_those_who_join_later() {
    let flow = Flow::start(true, 0);
    let mut early = Raw::open(&flow).await;
    let play = [connect("live"), command("play", &[Value::from("stream1")])].concat();
    early.send(&play).await;
    let mut raw = Raw::publishing(&flow).await;
    let kept: [&[u8]; 3] =
        [b"\x94avc1colorInfo", b"\x96\0av01\x02\x81\0\x0c\0", b"\x94mp4a\x01\x02\0\0\0\x03"];
    let passing: &[u8] = b"\xa6\x01av01\x02frame of track 2";
    let message_of = |body: &[u8]| message(if body == kept[2] { 8 } else { 9 }, 0, body);
    raw.send(&kept.map(message_of).concat()).await;
    raw.send(&[&media(0)[..], &message_of(passing), &media(1000)].concat()).await;
    let mut late = Raw::open(&flow).await;
    early_and_late(&mut early, &kept, Some(passing)).await;
    late.send(&play).await;
    early_and_late(&mut late, &kept, None).await;
}

async fn early_and_late(player: &mut Raw, kept: &[&[u8]], passing: Option<&[u8]>) {
    let mut wanted: Vec<&[u8]> = kept.iter().copied().chain(passing).collect();
    while !wanted.is_empty() {
        let message = player.next().await.expect("all of it");
        wanted.retain(|body| message.payload != *body);
    }
}

#[tokio::test]
async fn a_key_is_found_in_whichever_query_it_is() {
    let auth = Some(Auth::Key(vec![Secret::Plain("k/1".into())]));
    let admission = Admission::default();
    let module = module();
    let check = async |queries: &[&str]| {
        let queries: Vec<String> = queries.iter().map(|query| (*query).to_owned()).collect();
        admission.check(module.net.secrets(), auth.as_ref(), &queries).await.map_err(|why| why.to_string())
    };
    for queries in
        [&["key=k/1"][..], &["token=7", "key=k/1"], &["token=7&key=k%2F1"], &["key=old", "x", "key=k/1"]]
    {
        assert_eq!(check(queries).await, Ok(()), "{queries:?}");
    }
    for (queries, why) in [(&[][..], "needed"), (&["token=7"], "needed"), (&["key=old", "token=7"], "wrong")]
    {
        assert!(check(queries).await.unwrap_err().contains(why), "{queries:?}");
    }
}
