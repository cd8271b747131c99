use av_media::{Frame, Timestamp};
use tokio::io::{AsyncReadExt, duplex};
use tokio::sync::oneshot;

use super::*;
use crate::rtmp::fanout::Client;
use crate::rtmp::fanout::tests::pictures;
use crate::rtmp::peer::{module, soon, stream, video};
use crate::stream::{Changes, OutputStatus, Tracks};

fn output() -> OutputContext {
    OutputContext {
        module: module(),
        flow: "dock".into(),
        output: "out".into(),
        path: "flows.dock.outputs.out".into(),
        stream: stream(),
        content: Content::VideoOnly,
        status: OutputStatus::new(Changes::default()),
        cancel: CancellationToken::new(),
    }
}

/// One picture.
fn flush(packer: &mut Packer, index: i64, is_sync: bool) -> Flush {
    let (time, now) = (Timestamp::from_millis(index * 40), Instant::now());
    let data = vec![(index % 251) as u8; 10].into();
    let frame = Frame { kind: Kind::Video, dts: time, pts: time, is_sync, data };
    packer.take(Entry { item: Item::Frame(frame), arrived: now.into(), starts: is_sync }, now);
    packer.flush().unwrap()
}

#[tokio::test]
async fn players_of_a_task_that_loses_flushes_go_on_at_the_next_sync_frame() {
    let output = output();
    let mut shards = Shards::new(&output, "rtmp");
    shards.remote.push(Remote::spawn(output.clone(), "rtmp"));
    let mut packer = Packer::new(Egress::players(), Duration::ZERO);
    let now = Instant::now();
    let tracks = Tracks { video: Some(video().into()), ..Tracks::default() };
    packer.take(Entry { item: Item::Tracks(tracks.into()), arrived: now.into(), starts: false }, now);
    flush(&mut packer, 0, true);

    let (sink, mut way) = duplex(1 << 20);
    let (farewell, _) = oneshot::channel();
    let client = Client::admit(&output.status, 0).unwrap();
    let arrival = Arrival { id: 1, peer: ([127, 0, 0, 1], 1).into(), sink: Box::new(sink), client, farewell };
    let joining = packer.join(true);
    let player = Player::new(arrival, joining.seat, joining.burst, now);
    assert!(shards.remote[0].messages.try_send(Message::Join(Box::new(player))).is_ok());
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
    drop(shards);

    let mut bytes = Vec::new();
    soon("all bytes", way.read_to_end(&mut bytes)).await.unwrap();
    let expected = (0..=taken).chain([taken + 22, taken + 23]).map(|index| (index % 251) as u8);
    assert_eq!(pictures(&bytes), expected.collect::<Vec<_>>());
}
