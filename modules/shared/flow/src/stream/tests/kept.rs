//! What stays in memory, and where readers may start in it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Memory that tells when it is let go of.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

/// A picture of so many bytes, which are counted in `alive` as long as somebody keeps it.
fn large(millis: i64, is_sync: bool, size: usize, alive: &Arc<AtomicUsize>) -> Frame {
    alive.fetch_add(size, Ordering::Relaxed);
    let data = Bytes::from_owner(Counted(vec![1; size], alive.clone()));
    Frame { data, ..frame(Kind::Video, millis, is_sync) }
}

/// Two seconds a GOP, a picture every 40 ms, at the pace of life; the reader takes all.
async fn live(publisher: &mut Publisher, reader: &mut Reader, pictures: std::ops::Range<i64>) {
    for i in pictures {
        publisher.frame(frame(Kind::Video, i * 40, i % 50 == 0), Instant::now()).unwrap();
        reader.recv(&mut Vec::new()).await;
        tokio::time::advance(Duration::from_millis(40)).await;
    }
}

async fn first(mut reader: Reader) -> String {
    let got = received(&mut reader).await;
    got.into_iter().find(|item| item.starts_with('I')).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn without_readers_that_ask_for_more_only_the_gop_of_now_is_kept() {
    let alive = Arc::new(AtomicUsize::new(0));
    let stream = stream(settings());
    let mut publisher = publish(&stream, Instant::now());
    let mut reader = stream.reader(Content::AudioVideo);
    for i in 0..500 {
        publisher.frame(large(i * 40, i % 50 == 0, 1000, &alive), Instant::now()).unwrap();
        reader.recv(&mut Vec::new()).await;
        tokio::time::advance(Duration::from_millis(40)).await;
        let gop = (i % 50 + 1) as usize * 1000;
        assert!(alive.load(Ordering::Relaxed) <= gop, "{i}: {} bytes", alive.load(Ordering::Relaxed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_says_so_may_be_ten_seconds_behind() {
    for (lag, lost) in [(3, true), (10, false)] {
        let stream = stream(settings());
        let mut publisher = publish(&stream, Instant::now());
        let mut fast = stream.reader(Content::AudioVideo);
        let keep = Keep { lag: Duration::from_secs(lag), ..Keep::default() };
        let mut slow = stream.reader_from(Content::AudioVideo, Start::LastSync, keep);
        live(&mut publisher, &mut fast, 0..1).await;
        slow.recv(&mut Vec::new()).await;
        live(&mut publisher, &mut fast, 1..240).await;
        let got = received(&mut slow).await;
        assert_eq!(got[0] == "given up" && got[1].starts_with("lost"), lost, "{lag}: {}", got[0]);
        assert_eq!(got.last().unwrap(), "p9560");
    }
}

#[tokio::test(start_paused = true)]
async fn a_recording_that_was_too_slow_goes_on_at_the_oldest_sync_frame_unless_it_does_not_catch_up() {
    let stream = stream(settings());
    let mut publisher = publish(&stream, Instant::now());
    let mut fast = stream.reader(Content::AudioVideo);
    let keep = Keep { lag: Duration::from_secs(8), ..Keep::default() };
    let mut slow = stream.reader_from(Content::AudioVideo, Start::LastSync, keep).loses_little();
    live(&mut publisher, &mut fast, 0..1).await;
    received(&mut slow).await;
    live(&mut publisher, &mut fast, 1..240).await;
    let mut some = Vec::new();
    slow.recv(&mut some).await;
    assert_eq!(shorts(&some)[..4], ["given up", "lost 49+0", "tracks v+a", "I2000"]);
    live(&mut publisher, &mut fast, 240..520).await;
    let got = received(&mut slow).await;
    assert_eq!((got[0].as_str(), got[3].as_str()), ("given up", "I20000"));
    // What is kept of a publisher that has gone is read as well.
    live(&mut publisher, &mut fast, 520..760).await;
    drop(publisher);
    let got = received(&mut slow).await;
    assert_eq!((got[0].as_str(), got[3].as_str()), ("given up", "I24000"));
    assert_eq!(got[got.len() - 2..], ["p30360", "away"]);
}

#[tokio::test(start_paused = true)]
async fn who_was_too_slow_to_hear_that_the_publisher_has_gone_is_told() {
    let stream = stream(settings());
    let mut publisher = publish(&stream, Instant::now());
    let mut fast = stream.reader(Content::AudioVideo);
    let mut slow = stream.reader(Content::AudioVideo);
    live(&mut publisher, &mut fast, 0..1).await;
    received(&mut slow).await;
    live(&mut publisher, &mut fast, 1..240).await;
    drop(publisher);
    assert_eq!(received(&mut slow).await, ["given up", "lost 239+0", "tracks v+a", "away"]);
}

#[tokio::test(start_paused = true)]
async fn a_pre_roll_is_kept_from_the_sync_frame_before_it() {
    let stream = stream(settings());
    let mut publisher = publish(&stream, Instant::now());
    let mut fast = stream.reader(Content::AudioVideo);
    let keep = Keep { pre_roll: Duration::from_secs(60), ..Keep::default() };
    let recorder = stream.reader_from(Content::AudioVideo, Start::LastSync, keep);
    live(&mut publisher, &mut fast, 0..2510).await;
    // Now is 100.4 s.
    let at = |start| stream.reader_from(Content::AudioVideo, start, Keep::default());
    assert_eq!(first(at(Start::Oldest)).await, "I40000");
    assert_eq!(first(at(Start::Time(Timestamp::from_millis(71_000)))).await, "I70000");
    assert_eq!(first(at(Start::Time(Timestamp::from_millis(70_000)))).await, "I70000");
    assert_eq!(first(at(Start::Time(Timestamp::ZERO))).await, "I40000");
    assert_eq!(first(at(Start::LastSync)).await, "I100000");
    let mut next = at(Start::NextSync);
    assert!(received(&mut next).await.is_empty());
    live(&mut publisher, &mut fast, 2510..2560).await;
    assert_eq!(received(&mut next).await[..2], ["tracks v+a", "I102000"]);
    // Nobody asks for it any more.
    drop(recorder);
    live(&mut publisher, &mut fast, 2560..2561).await;
    assert_eq!(first(at(Start::Oldest)).await, "I102000");
}

#[tokio::test(start_paused = true)]
async fn who_starts_long_ago_is_told_what_held_then() {
    let stream = stream(settings());
    let mut publisher = publish(&stream, Instant::now());
    let keep = Keep { pre_roll: Duration::from_secs(60), ..Keep::default() };
    let _recorder = stream.reader_from(Content::AudioVideo, Start::LastSync, keep);
    let now = Instant::now();
    publisher.frame(idr(0), now).unwrap();
    publisher.frame(idr(40), now).unwrap();
    publisher.track(track(Codec::Aac, b"b"), now).unwrap();
    publisher.frame(idr(80), now).unwrap();
    let from = |millis| Start::Time(Timestamp::from_millis(millis));
    let mut early = stream.reader_from(Content::AudioVideo, from(50), Keep::default());
    assert_eq!(received(&mut early).await, ["tracks v+a", "I40", "tracks v+b", "I80"]);
    let mut late = stream.reader_from(Content::AudioVideo, from(90), Keep::default());
    assert_eq!(received(&mut late).await, ["tracks v+b", "I80"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_for_one_reader_is_bounded_in_bytes() {
    let alive = Arc::new(AtomicUsize::new(0));
    let stream = stream(settings());
    let mut publisher = publish(&stream, Instant::now());
    let keep = Keep { pre_roll: Duration::from_secs(60), bytes: 100 << 20, ..Keep::default() };
    let _recorder = stream.reader_from(Content::AudioVideo, Start::LastSync, keep);
    for i in 0..300 {
        publisher.frame(large(i * 40, true, 1 << 20, &alive), Instant::now()).unwrap();
    }
    let kept = alive.load(Ordering::Relaxed);
    // What an allocator takes beside them counts.
    assert!((85 << 20..=100 << 20).contains(&kept), "{kept}");
}

#[tokio::test(start_paused = true)]
async fn a_full_cache_takes_the_old_gop_of_the_stream_that_keeps_most() {
    let cache = Cache::default();
    let make = || Stream::new(settings(), InputStatus::new(Changes::default()), &cache);
    let (large_one, small_one) = (make(), make());
    let keep = Keep { pre_roll: Duration::from_secs(60), ..Keep::default() };
    let now = Instant::now();
    let mut publishers = [publish(&large_one, now), publish(&small_one, now)];
    let _recorders =
        [&large_one, &small_one].map(|stream| stream.reader_from(Content::AudioVideo, Start::LastSync, keep));
    let alive = Arc::new(AtomicUsize::new(0));
    for i in 0..4 {
        publishers[0].frame(large(i * 40, true, 4 << 20, &alive), now).unwrap();
        publishers[1].frame(large(i * 40, true, 1 << 20, &alive), now).unwrap();
    }
    assert!(cache.used() >= 20 << 20);
    cache.set_limit(12 << 20);
    publishers[1].frame(idr(200), now).unwrap();
    assert!(cache.used() <= 12 << 20, "{}", cache.used());
    let given_up = |stream: &Stream| stream.input().given_up.load(Ordering::Relaxed);
    assert_eq!((given_up(&large_one), given_up(&small_one)), (1, 0));
    // The GOP of now is still there.
    assert_eq!(received(&mut large_one.reader(Content::AudioVideo)).await, ["tracks v+a", "I120"]);
    drop((publishers, _recorders, large_one, small_one));
    assert_eq!((cache.used(), alive.load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_publishers_that_send_no_second_key_frame_stay_within_the_bound() {
    const LIMIT: usize = 32 << 20;
    let cache = Cache::default();
    cache.set_limit(LIMIT);
    let alive = Arc::new(AtomicUsize::new(0));
    let now = Instant::now();
    let streams: Vec<Stream> =
        (0..100).map(|_| Stream::new(settings(), InputStatus::new(Changes::default()), &cache)).collect();
    let mut publishers: Vec<Publisher> = streams.iter().map(|stream| publish(stream, now)).collect();
    // An output that keeps the GOP for its players, as long as it may.
    let mut outputs: Vec<(Reader, Vec<Entry>)> =
        streams.iter().map(|stream| (stream.reader(Content::AudioVideo), Vec::new())).collect();
    let (mut most, mut entries) = (0, Vec::new());
    for i in 0..200_i64 {
        for (publisher, (reader, gop)) in publishers.iter_mut().zip(&mut outputs) {
            publisher.frame(large(i * 40, i == 0, 20_000, &alive), now).unwrap();
            // Readers that keep up lose nothing, however little room there is.
            tokio::time::timeout(Duration::from_secs(5), reader.recv(&mut entries)).await.expect("the frame");
            for entry in entries.drain(..) {
                match entry.item {
                    Item::GivenUp | Item::Lost(_) | Item::Away => gop.clear(),
                    _ if entry.starts => *gop = vec![entry],
                    _ if gop.is_empty() => {}
                    _ => gop.push(entry),
                }
            }
            most = most.max(alive.load(Ordering::Relaxed));
        }
    }
    // 400 MB came.
    assert!(most <= LIMIT + LIMIT / 5, "{most} bytes");
    let given_up: u64 = streams.iter().map(|stream| stream.input().given_up.load(Ordering::Relaxed)).sum();
    assert!(given_up >= 50, "{given_up}");
    // What was given up is no place to start; the next sync frame is.
    let index =
        streams.iter().position(|stream| stream.input().given_up.load(Ordering::Relaxed) > 0).unwrap();
    assert!(received(&mut streams[index].reader(Content::AudioVideo)).await.is_empty());
    publishers[index].frame(idr(8000), now).unwrap();
    assert_eq!(received(&mut streams[index].reader(Content::AudioVideo)).await, ["tracks v+a", "I8000"]);
}

#[tokio::test(start_paused = true)]
async fn frames_that_wait_for_a_second_track_count_as_well() {
    let cache = Cache::default();
    cache.set_limit(8 << 20);
    let alive = Arc::new(AtomicUsize::new(0));
    let make = |_| Stream::new(settings(), InputStatus::new(Changes::default()), &cache);
    let streams: Vec<Stream> = (0..20).map(make).collect();
    let mut publishers: Vec<Publisher> =
        streams.iter().map(|stream| stream.publisher(Kick::default())).collect();
    for publisher in &mut publishers {
        publisher.track(track(Codec::H264, b"v"), Instant::now()).unwrap();
        for i in 0..4 {
            publisher.frame(large(i * 40, i == 0, 1 << 20, &alive), Instant::now()).unwrap();
        }
    }
    let kept = alive.load(Ordering::Relaxed);
    assert!(kept <= 9 << 20, "{kept}");
}

#[tokio::test(start_paused = true)]
async fn messages_that_wait_for_a_first_frame_go_when_the_cache_is_full_and_are_counted() {
    let cache = Cache::default();
    cache.set_limit(8 << 20);
    let make = |_| Stream::new(settings(), InputStatus::new(Changes::default()), &cache);
    let streams: Vec<Stream> = (0..20).map(make).collect();
    let mut publishers: Vec<Publisher> =
        streams.iter().map(|stream| stream.publisher(Kick::default())).collect();
    for publisher in &mut publishers {
        for _ in 0..4 {
            let time = Some(Timestamp::ZERO);
            let aside = Aside { time, content: Arc::new("much"), size: 1 << 20, keep_latest: false };
            publisher.item(Incoming::Aside(aside), Instant::now()).unwrap();
            assert!(cache.used() <= 9 << 20, "{}", cache.used());
        }
    }
    streams.iter().for_each(|stream| stream.tick(Instant::now()));
    let counted: u64 = streams.iter().map(|stream| stream.input().skipped.counts()[3]).sum();
    assert!((72..=80).contains(&counted), "{counted}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_fit_beside_those_that_wait_is_left_out_and_counted() {
    let stream = stream(settings());
    let mut publisher = stream.publisher(Kick::default());
    for _ in 0..3 {
        let time = Some(Timestamp::ZERO);
        let aside = Aside { time, content: Arc::new("much"), size: 11 << 20, keep_latest: false };
        publisher.item(Incoming::Aside(aside), Instant::now()).unwrap();
    }
    stream.tick(Instant::now());
    assert_eq!(stream.input().skipped.counts()[3], 2);
}

#[tokio::test(start_paused = true)]
async fn a_changed_configuration_leaves_the_pre_roll_before_it() {
    let stream = stream(settings());
    let mut publisher = publish(&stream, Instant::now());
    let mut fast = stream.reader(Content::AudioVideo);
    let keep = Keep { pre_roll: Duration::from_secs(60), ..Keep::default() };
    let _recorder = stream.reader_from(Content::AudioVideo, Start::LastSync, keep);
    live(&mut publisher, &mut fast, 0..1000).await;
    publisher.track(track(Codec::H264, b"w"), Instant::now()).unwrap();
    live(&mut publisher, &mut fast, 1000..1010).await;
    let at = |start| stream.reader_from(Content::AudioVideo, start, Keep::default());
    assert_eq!(first(at(Start::Time(Timestamp::from_millis(25_000)))).await, "I24000");
    assert_eq!(first(at(Start::LastSync)).await, "I40000");
}

#[tokio::test(start_paused = true)]
async fn the_pre_roll_of_a_publisher_that_has_gone_is_kept_until_the_next_one_comes() {
    let stream = stream(settings());
    let mut publisher = publish(&stream, Instant::now());
    let mut fast = stream.reader(Content::AudioVideo);
    let keep = Keep { pre_roll: Duration::from_secs(60), ..Keep::default() };
    let _recorder = stream.reader_from(Content::AudioVideo, Start::LastSync, keep);
    live(&mut publisher, &mut fast, 0..500).await;
    drop(publisher);
    let at = |start| stream.reader_from(Content::AudioVideo, start, Keep::default());
    let mut early = at(Start::Time(Timestamp::from_millis(15_000)));
    let got = received(&mut early).await;
    assert_eq!((&*got[1], &**got.last().unwrap()), ("I14000", "away"));
    // Who joins waits for the next publisher.
    assert_eq!(first(at(Start::LastSync)).await, "");
    let _next = publish(&stream, Instant::now());
    assert_eq!(first(at(Start::Time(Timestamp::from_millis(15_000)))).await, "");
}
