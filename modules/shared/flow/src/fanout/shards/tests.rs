use av_media::Kind;
use av_media::{Frame, Timestamp};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::sync::oneshot;

use super::*;
use crate::config::Content;
use crate::fanout::packer::Packer;
use crate::fanout::tests::{Toy, pictures};
use crate::fanout::{Arrival, Client, Farewell, Join, Tie, tie};
use crate::rtmp::peer::{module, soon, stream, video};
use crate::stream::{Changes, Entry, Item, OutputStatus, Tracks};

fn output() -> OutputContext {
    OutputContext {
        module: module(),
        flow: "dock".into(),
        output: "out".into(),
        path: "flows.dock.outputs.out".into(),
        of_instance: false,
        stream: stream(),
        content: Content::VideoOnly,
        status: OutputStatus::new(Changes::default()),
        cancel: CancellationToken::new(),
    }
}

/// One picture.
fn flush(packer: &mut Packer<Toy>, index: i64, is_sync: bool) -> Flush {
    let (time, now) = (Timestamp::from_millis(index * 40), Instant::now());
    let data = vec![(index % 251) as u8; 10].into();
    let frame = Frame { kind: Kind::Video, dts: time, pts: time, is_sync, data };
    packer.take(Entry { item: Item::Frame(frame), arrived: now.into(), starts: is_sync }, now);
    packer.flush(Instant::now()).unwrap()
}

/// Hands a player to the other task.
fn join(
    shards: &Shards,
    packer: &mut Packer<Toy>,
    output: &OutputContext,
) -> (DuplexStream, Tie, oneshot::Receiver<Farewell>) {
    let (sink, way) = duplex(1 << 20);
    let (farewell, ended) = oneshot::channel();
    let client = Client::admit(&output.status, &output.stream, 0).unwrap();
    let (own, post) = tie();
    let (peer, sink) = (([127, 0, 0, 1], 1).into(), Box::new(sink));
    let arrival =
        Arrival { peer, sink, client: Some(client), variant: 0, greeting: None, tie: post, farewell };
    let player = Player::new(arrival, packer.join(Join::Instant, 0), None, Instant::now());
    assert!(shards.remote[0].messages.try_send(Message::Join(Box::new(player))).is_ok());
    (way, own, ended)
}

#[tokio::test]
async fn players_of_a_task_that_loses_flushes_go_on_at_the_next_sync_frame() {
    let output = output();
    let mut shards = Shards::new(&output, "rtmp");
    shards.remote.push(Remote::spawn(output.clone(), "rtmp"));
    let mut packer = Packer::new(Toy::default(), Duration::ZERO);
    let now = Instant::now();
    let tracks = Tracks { video: Some(video().into()), ..Tracks::default() };
    packer.take(Entry { item: Item::Tracks(tracks.into()), arrived: now.into(), starts: false }, now);
    flush(&mut packer, 0, true);

    let (mut way, _tie, ended) = join(&shards, &mut packer, &output);
    // The task has no turn until here: what it can't take is lost.
    let taken = FLUSHES as i64 - 1;
    for index in 1..=taken + 20 {
        shards.flush(flush(&mut packer, index, index == 100)).await;
    }
    assert!(shards.remote[0].missed);
    soon("room", async {
        while shards.remote[0].messages.capacity() < FLUSHES {
            tokio::task::yield_now().await;
        }
    })
    .await;
    shards.flush(flush(&mut packer, taken + 21, false)).await;
    shards.flush(flush(&mut packer, taken + 22, true)).await;
    shards.flush(flush(&mut packer, taken + 23, false)).await;
    drop((shards, ended));

    let mut bytes = Vec::new();
    soon("all bytes", way.read_to_end(&mut bytes)).await.unwrap();
    let expected = (0..=taken).chain([taken + 22, taken + 23]).map(|index| (index % 251) as u8);
    assert_eq!(pictures(&bytes), expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn who_leaves_while_a_task_takes_no_messages_is_gone_all_the_same() {
    let output = output();
    let mut shards = Shards::new(&output, "rtmp");
    shards.remote.push(Remote::spawn(output.clone(), "rtmp"));
    let mut packer = Packer::new(Toy::default(), Duration::ZERO);
    let now = Instant::now();
    let tracks = Tracks { video: Some(video().into()), ..Tracks::default() };
    let entry = Entry { item: Item::Tracks(tracks.into()), arrived: now.into(), starts: false };
    packer.take(entry, now);
    flush(&mut packer, 0, true);
    let (mut way, own, ended) = join(&shards, &mut packer, &output);
    // The task has no turn until here, and no room for another message.
    for index in 1..=FLUSHES as i64 {
        shards.flush(flush(&mut packer, index, false)).await;
    }
    assert!(shards.remote[0].missed);
    drop((own, ended));
    let mut bytes = Vec::new();
    soon("the end", way.read_to_end(&mut bytes)).await.unwrap();
    assert_eq!(output.status.clients.load(Ordering::Relaxed), 0);
    assert_eq!(output.status.frames.get(Kind::Video), 0);
}
