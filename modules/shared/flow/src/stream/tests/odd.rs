//! What sources do that nobody expects, and who is late.

use std::sync::atomic::Ordering;

use super::*;

/// The first frame that a player gets that joins now.
async fn joined(stream: &Stream) -> Frame {
    let mut entries = Vec::new();
    stream.reader(Content::AudioVideo).recv(&mut entries).await;
    let frame = entries.into_iter().find_map(|entry| match entry.item {
        Item::Frame(frame) => Some(frame),
        _ => None,
    });
    frame.expect("a place to start")
}

#[tokio::test(start_paused = true)]
async fn who_joins_after_twenty_minutes_of_sound_alone_starts_near_now() {
    for pictures in [0, 1, 2] {
        let (stream, began) = (stream(settings()), Instant::now());
        let mut publisher = publish(&stream, began);
        let at = |millis: i64| began + Duration::from_millis(millis as u64);
        for i in 0..pictures {
            publisher.frame(frame(Kind::Video, i * 40, i == 0), at(i * 40)).unwrap();
        }
        for millis in (100..1_200_000).step_by(100) {
            publisher.frame(sound(millis), at(millis)).unwrap();
        }
        let first = joined(&stream).await;
        // One picture alone is repeated every ten seconds; otherwise sound is the start.
        let least = if pictures == 1 { 1_189_000 } else { 1_198_500 };
        assert!(first.dts.millis() >= least, "{pictures}: {:?}", first.dts);
        // A picture ends that.
        publisher.frame(idr(1_200_000), at(1_200_000)).unwrap();
        for millis in (1_200_000..1_205_000).step_by(100) {
            publisher.frame(sound(millis), at(millis)).unwrap();
        }
        let first = joined(&stream).await;
        assert_eq!((first.kind, first.dts.millis()), (Kind::Video, 1_200_000));
    }
}

#[tokio::test(start_paused = true)]
async fn pictures_rise_after_a_still_that_was_given_again_however_far_the_sound_is_ahead() {
    for (ahead, next) in [(3000, 11_000), (0, 11_000), (0, 8000), (-1500, 9000)] {
        let (stream, began) = (stream(settings()), Instant::now());
        let mut publisher = publish(&stream, began);
        let at = |millis: i64| began + Duration::from_millis(millis as u64);
        let keep = Keep { lag: Duration::from_secs(60), ..Keep::default() };
        let mut exact = stream.reader_from(Content::VideoOnly, Start::LastSync, keep);
        let mut stamped = stream.reader_from(Content::VideoOnly, Start::LastSync, keep).as_stamped();
        let mut times = [Vec::new(), Vec::new()];
        publisher.frame(idr(2000), at(2000)).unwrap();
        for millis in (2000..13_000).step_by(100) {
            publisher.frame(sound(millis + ahead), at(millis)).unwrap();
        }
        publisher.frame(idr(next), at(13_000)).unwrap();
        publisher.frame(delta(next + 40), at(13_000)).unwrap();
        for (reader, times) in [&mut exact, &mut stamped].into_iter().zip(&mut times) {
            let mut out = Vec::new();
            reader.recv(&mut out).await;
            times.extend(out.iter().filter_map(|entry| match &entry.item {
                Item::Frame(frame) => Some(frame.dts),
                _ => None,
            }));
            assert_eq!(times.len(), 4, "{times:?}");
            assert!(times.windows(2).all(|two| two[0] < two[1]), "{ahead}, {next}: {times:?}");
            assert!(times[1].millis() <= 12_000, "{times:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_fell_behind_is_told_so_at_once_and_hears_the_end() {
    let (stream, began) = (stream(Settings { hold: false, ..settings() }), Instant::now());
    let mut publisher = publish(&stream, began);
    publisher.frame(idr(0), began).unwrap();
    let mut reader = stream.reader(Content::AudioVideo);
    assert_eq!(received(&mut reader).await, ["tracks v+a", "I0"]);
    // More than is kept, and no second place to start at.
    for i in 1..=60 {
        let data = vec![1; 1 << 20].into();
        publisher.frame(Frame { data, ..delta(i * 40) }, began).unwrap();
    }
    assert_eq!(received(&mut reader).await, ["given up"]);
    drop(publisher);
    assert_eq!(received(&mut reader).await, ["lost 60+0", "ended"]);
}

fn timed(millis: i64, size: usize) -> Aside {
    Aside { time: Some(Timestamp::from_millis(millis)), content: Arc::new("t"), size, keep_latest: false }
}

#[tokio::test(start_paused = true)]
async fn what_a_displaced_publisher_had_waiting_is_counted() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut first = stream.publisher(Kick::default());
    first.track(track(Codec::H264, b"v"), now).unwrap();
    first.frame(idr(0), now).unwrap();
    first.frame(delta(40), now).unwrap();
    let _second = stream.publisher(Kick::default());
    stream.tick(now);
    assert_eq!(stream.input().dropped.get(Kind::Video), 2);
}

#[tokio::test(start_paused = true)]
async fn what_waits_when_content_is_narrowed_is_dropped_and_counted() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = stream.publisher(Kick::default());
    publisher.track(track(Codec::H264, b"v"), now).unwrap();
    publisher.frame(idr(0), now).unwrap();
    publisher.item(Incoming::Aside(timed(10, 1)), now).unwrap();
    stream.configure(Settings { content: Content::AudioOnly, ..settings() });
    publisher.track(track(Codec::Aac, b"a"), now).unwrap();
    publisher.frame(sound(20), now).unwrap();
    let mut reader = stream.reader(Content::AudioVideo);
    assert_eq!(received(&mut reader).await, ["tracks a", "a20"]);
    stream.tick(now);
    assert_eq!(stream.input().dropped.get(Kind::Video), 1);
    assert_eq!(stream.input().frames.get(Kind::Video), 1);
}

#[tokio::test(start_paused = true)]
async fn parameter_sets_without_end_are_counted_and_said_once() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, now);
    // No number can be read from it.
    let data = av_media::nal::to_length_prefixed([&[0x68, 0, 0, 1][..], &[0x65, 0x88, 0x80, 1]]).unwrap();
    for i in 0..3 {
        publisher.frame(Frame { data: data.clone().into(), ..idr(i * 40) }, now).unwrap();
    }
    assert_eq!(stream.input().skipped.counts()[1], 3);
    assert_eq!(stream.input().said.take_news().len(), 1);
    assert_eq!(stream.input().dropped.get(Kind::Video), 0);
    assert_eq!(stream.input().reanchored.load(Ordering::Relaxed), 0);
}
