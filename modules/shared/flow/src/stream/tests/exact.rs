//! Times and shapes as they reach readers.

use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use av_media::nal::to_length_prefixed;

use super::*;

const IDR: &[u8] = &[0x65, 0b1000_1000, 0x80, 1, 2, 3];
const IDR_MORE: &[u8] = &[0x65, 0b0011_0001, 1, 1];
const P: &[u8] = &[0x41, 0b1001_1000, 1, 2, 3];
const P_MORE: &[u8] = &[0x41, 0b0011_1001, 0b1000_0000, 1];
/// x264's, 320x240 and 160x90 pixels.
const SETS: [&[u8]; 2] = [&[0x67, 0x42, 0x00, 0x1e, 0xf4, 0x05, 0x01, 0xe8, 0x80], &[0x68, 0xce, 0x38, 0x80]];

fn picture(nals: &[&[u8]], millis: i64, is_sync: bool) -> Frame {
    let data = to_length_prefixed(nals.iter().copied()).unwrap().into();
    Frame { data, ..frame(Kind::Video, millis, is_sync) }
}

async fn frames(reader: &mut Reader) -> Vec<Frame> {
    let mut out = Vec::new();
    while tokio::time::timeout(Duration::from_millis(20), reader.recv(&mut out)).await.is_ok() {}
    out.into_iter()
        .filter_map(|entry| match entry.item {
            Item::Frame(frame) => Some(frame),
            _ => None,
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn slices_of_one_picture_that_come_one_by_one_become_one_frame() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, now);
    let mut reader = stream.reader(Content::AudioVideo);
    for i in 0..5 {
        let (first, more) = if i == 0 { (IDR, IDR_MORE) } else { (P, P_MORE) };
        for nal in [first, more, more] {
            publisher.frame(picture(&[nal], i * 40, i == 0), now).unwrap();
        }
        publisher.frame(sound(i * 40 + 3), now).unwrap();
        let whole = frames(&mut reader).await;
        assert_eq!(whole.len(), 2, "{i}: {whole:?}");
        assert_eq!(whole[0].data, to_length_prefixed([first, more, more]).unwrap(), "{i}");
    }
    assert_eq!(stream.input().frames.get(Kind::Video), 5);
}

#[tokio::test(start_paused = true)]
async fn slices_that_come_after_a_reader_has_the_first_are_joined_from_the_next_picture_on() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, now);
    let mut reader = stream.reader(Content::AudioVideo);
    publisher.frame(picture(&[IDR], 0, true), now).unwrap();
    assert_eq!(frames(&mut reader).await.len(), 1);
    for (nal, millis) in [(IDR_MORE, 0), (P, 40), (P_MORE, 40)] {
        publisher.frame(picture(&[nal], millis, false), Instant::now()).unwrap();
    }
    // The last picture comes although nothing else does.
    let late = frames(&mut reader).await;
    assert_eq!(
        (late.len(), late[0].is_sync),
        (2, false),
        "the rest of the first picture, at a time of its own, and the next"
    );
    assert!(late[0].dts > Timestamp::ZERO);
    assert_eq!(late[1].data, to_length_prefixed([P, P_MORE]).unwrap());
    publisher.frame(picture(&[P], 80, false), Instant::now()).unwrap();
    // Or when the publisher goes.
    drop(publisher);
    assert_eq!(frames(&mut reader).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn pictures_wait_for_slices_a_few_milliseconds_and_no_longer_when_none_came_for_a_while() {
    let stream = stream(settings());
    let mut publisher = publish(&stream, Instant::now());
    let mut reader = stream.reader(Content::VideoOnly);
    publisher.frame(picture(&[IDR], 0, true), Instant::now()).unwrap();
    publisher.frame(picture(&[IDR_MORE], 0, false), Instant::now()).unwrap();
    assert_eq!(frames(&mut reader).await.len(), 1);
    let mut waited = Vec::new();
    for i in 1..60 {
        let began = Instant::now();
        publisher.frame(picture(&[P], i * 40, false), began).unwrap();
        reader.recv(&mut Vec::new()).await;
        waited.push(began.elapsed());
    }
    assert!(waited[..40].iter().all(|waited| *waited >= Duration::from_millis(5)), "{waited:?}");
    assert!(waited[55..].iter().all(Duration::is_zero), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_picture_that_nobody_reads_is_whole_at_the_next_tick() {
    let stream = stream(settings());
    let mut publisher = publish(&stream, Instant::now());
    publisher.frame(picture(&[IDR], 0, true), Instant::now()).unwrap();
    publisher.frame(picture(&[IDR_MORE], 0, false), Instant::now()).unwrap();
    publisher.frame(picture(&[P], 40, false), Instant::now()).unwrap();
    stream.tick(Instant::now() + Duration::from_secs(1));
    let mut reader = stream.reader(Content::VideoOnly);
    let mut out = Vec::new();
    let began = Instant::now();
    reader.recv(&mut out).await;
    let count = out.iter().filter(|entry| matches!(entry.item, Item::Frame(_))).count();
    assert_eq!((count, began.elapsed()), (2, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn large_slices_are_joined_and_a_picture_has_a_bound() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, now);
    let slice = |nal: &[u8], size: usize| [nal, &vec![7; size]].concat();
    let (first, more) = (slice(IDR, 700_000), slice(IDR_MORE, 700_000));
    publisher.frame(picture(&[&first], 0, true), now).unwrap();
    for _ in 0..3 {
        publisher.frame(picture(&[&more], 0, false), now).unwrap();
    }
    let mut reader = stream.reader(Content::VideoOnly);
    let whole = frames(&mut reader).await;
    assert_eq!(whole.iter().map(|frame| frame.data.len()).collect::<Vec<_>>(), [4 * 700_004 + 6 + 3 * 4]);
    // What would make it larger than that is set apart.
    let (first, more) = (slice(IDR, 20 << 20), slice(IDR_MORE, 20 << 20));
    publisher.frame(picture(&[&first], 40, true), now).unwrap();
    publisher.frame(picture(&[&more], 40, false), now).unwrap();
    assert_eq!(frames(&mut reader).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_anchor_tells_when_its_frame_arrived_not_when_readers_were_told() {
    let stream = stream(settings());
    let mut publisher = stream.publisher(Kick::default());
    let mut reader = stream.reader(Content::AudioVideo);
    publisher.track(track(Codec::H264, b"v"), Instant::now()).unwrap();
    publisher.frame(idr(0), Instant::now()).unwrap();
    // The second track is waited for, for a second.
    let mut out = Vec::new();
    reader.recv(&mut out).await;
    let anchor = out.iter().find_map(|entry| match entry.item {
        Item::Anchor(anchor) => Some(anchor),
        _ => None,
    });
    let since = std::time::SystemTime::now().duration_since(anchor.unwrap().utc).unwrap();
    assert!(since >= Duration::from_secs(1), "{since:?}");
}

#[tokio::test(start_paused = true)]
async fn pictures_of_one_time_are_set_a_tick_apart() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, now);
    let mut exact = stream.reader(Content::VideoOnly);
    publisher.frame(picture(&[IDR], 40, true), now).unwrap();
    publisher.frame(picture(&[P], 40, false), now).unwrap();
    publisher.frame(picture(&[P], 40, false), now).unwrap();
    let ninety_khz = NonZeroU32::new(90_000).unwrap();
    let ticks: Vec<_> = frames(&mut exact).await.iter().map(|frame| frame.dts.ticks(ninety_khz)).collect();
    assert_eq!(ticks, [3600, 3601, 3602]);
}

#[tokio::test(start_paused = true)]
async fn sound_from_milliseconds_lies_on_its_samples_and_rtmp_gets_its_milliseconds_back() {
    for hertz in [44_100_u32, 48_000] {
        let (stream, now) = (stream(settings()), Instant::now());
        let mut publisher = stream.publisher(Kick::default());
        let config = if hertz == 44_100 { [0x12, 0x10] } else { [0x11, 0x90] };
        publisher.track(Track::aac(Bytes::copy_from_slice(&config)).unwrap(), now).unwrap();
        publisher.item(Incoming::Expect { video: false, audio: true }, now).unwrap();
        let mut exact = stream.reader(Content::AudioVideo);
        let mut rtmp = stream.reader(Content::AudioVideo).as_stamped();
        let rate = NonZeroU32::new(hertz).unwrap();
        for round in 0..200 {
            let millis: Vec<i64> =
                (0..50).map(|i| 7 + (round * 50 + i) * 1024 * 1000 / i64::from(hertz)).collect();
            for millis in &millis {
                publisher.frame(sound(*millis), now).unwrap();
            }
            let on_grid: Vec<i64> =
                frames(&mut exact).await.iter().map(|frame| frame.dts.ticks(rate)).collect();
            assert!(on_grid.windows(2).all(|two| two[1] - two[0] == 1024), "{hertz}: {on_grid:?}");
            let stamped = frames(&mut rtmp).await;
            assert_eq!(
                stamped.iter().map(|frame| frame.dts).collect::<Vec<_>>(),
                millis.into_iter().map(Timestamp::from_millis).collect::<Vec<_>>()
            );
        }
        let interval = stream.frame_interval(Kind::Audio).unwrap();
        assert!(
            interval.abs_diff(Duration::from_secs_f64(1024.0 / f64::from(hertz))) < Duration::from_nanos(2)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_where_sound_is_missing_is_counted_as_a_new_anchor() {
    let stream = stream(settings());
    let mut publisher = stream.publisher(Kick::default());
    publisher.track(Track::aac(Bytes::from_static(&[0x11, 0x90])).unwrap(), Instant::now()).unwrap();
    publisher.item(Incoming::Expect { video: false, audio: true }, Instant::now()).unwrap();
    let count = || stream.input().reanchored.load(Ordering::Relaxed);
    for (i, anchors) in [(0, 0), (1, 0), (2, 0), (12, 1), (13, 1)] {
        publisher.frame(sound(i * 1024 / 48), Instant::now()).unwrap();
        stream.tick(Instant::now());
        assert_eq!(count(), anchors, "frame {i}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_returns_is_moved_by_whole_milliseconds() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut reader = stream.reader(Content::AudioVideo).as_stamped();
    let mut first = publish(&stream, now);
    first.frame(idr(0), now).unwrap();
    drop(first);
    let later = now + Duration::from_nanos(1_234_567_891);
    let mut second = publish(&stream, later);
    for millis in [500, 533, 567] {
        second.frame(idr(millis), later).unwrap();
    }
    let times: Vec<_> = frames(&mut reader).await.iter().map(|frame| frame.dts).collect();
    assert_eq!(times, [0, 1235, 1268, 1302].map(Timestamp::from_millis));
}

#[tokio::test(start_paused = true)]
async fn parameter_sets_in_the_stream_are_taken_out_and_a_changed_one_is_another_track() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, now);
    let mut reader = stream.reader(Content::AudioVideo);
    publisher.frame(picture(&[IDR], 0, true), now).unwrap();
    // Flagged as any other picture, and behind a delimiter.
    publisher.frame(picture(&[&[9, 0xf0], SETS[0], SETS[1], IDR], 40, false), now).unwrap();
    let mut out = Vec::new();
    reader.recv(&mut out).await;
    let tracks: Vec<_> = out
        .iter()
        .filter_map(|entry| match &entry.item {
            Item::Tracks(tracks) => tracks.video.clone(),
            _ => None,
        })
        .collect();
    assert_eq!(tracks.len(), 2);
    assert_eq!((tracks[1].video.width, tracks[1].video.height), (640, 480));
    let last = out.last().unwrap();
    let Item::Frame(frame) = &last.item else { panic!("{last:?}") };
    assert_eq!((&frame.data[..], last.starts), (&to_length_prefixed([IDR]).unwrap()[..], true));
}

#[tokio::test(start_paused = true)]
async fn who_comes_later_starts_at_a_recovery_point_where_there_is_no_idr() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, now);
    let recovery: &[u8] = &[0x06, 6, 1, 0xc4, 0x80];
    publisher.frame(picture(&[P], 0, false), now).unwrap();
    publisher.frame(picture(&[recovery, P], 40, false), now).unwrap();
    publisher.frame(picture(&[P], 80, false), now).unwrap();
    assert_eq!(received(&mut stream.reader(Content::AudioVideo)).await, ["tracks v+a", "I40", "p80"]);
}

#[tokio::test(start_paused = true)]
async fn the_interval_of_pictures_is_what_is_said_or_what_is_seen() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, now);
    assert_eq!(stream.frame_interval(Kind::Video), None);
    for i in 0..20 {
        publisher.frame(frame(Kind::Video, i * 40, i == 0), now).unwrap();
    }
    assert_eq!(stream.frame_interval(Kind::Video), Some(Duration::from_millis(40)));
    let said = VideoFormat { fps: Some(25.5), ..VideoFormat::default() };
    publisher.track(Track { video: said, ..track(Codec::H264, b"v") }, now).unwrap();
    assert_eq!(stream.frame_interval(Kind::Video), Some(Duration::from_secs_f64(1.0 / 25.5)));
}

#[tokio::test(start_paused = true)]
async fn what_the_source_says_of_its_clock_comes_with_the_anchor_and_again_when_it_changes() {
    let stream = stream(settings());
    let mut reader = stream.reader(Content::AudioVideo);
    let by_source = |entries: &[Entry]| -> Vec<Option<i64>> {
        let anchors = entries.iter().filter_map(|entry| match entry.item {
            Item::Anchor(anchor) => Some(anchor),
            _ => None,
        });
        // As the source would say it of stream time zero.
        let at_zero = anchors.map(|anchor| {
            let since = anchor.by_source?.duration_since(std::time::UNIX_EPOCH).unwrap();
            Some(since.as_millis() as i64 - anchor.time.millis())
        });
        at_zero.collect()
    };
    let says = |time: i64, unix_millis: u64| Incoming::WallClock {
        time: Timestamp::from_millis(time),
        utc: std::time::UNIX_EPOCH + Duration::from_millis(unix_millis),
    };
    let now = Instant::now();
    let mut publisher = publish(&stream, now);
    // Before the first frame, and in the publisher's own times.
    publisher.item(says(7_000, 1_007_000), now).unwrap();
    publisher.frame(idr(5_000), now).unwrap();
    publisher.frame(sound(5_000), now).unwrap();
    let mut out = Vec::new();
    reader.recv(&mut out).await;
    assert_eq!(by_source(&out), [None, Some(1_000_000)]);
    // The same again is no news, another is, and who joins gets the newest.
    publisher.item(says(8_000, 1_008_000), now).unwrap();
    publisher.item(says(9_000, 1_009_020), now).unwrap();
    out.clear();
    reader.recv(&mut out).await;
    assert_eq!(by_source(&out), [Some(1_000_020)]);
    publisher.frame(idr(9_000), now).unwrap();
    let mut later = stream.reader(Content::AudioVideo);
    out.clear();
    later.recv(&mut out).await;
    assert_eq!(by_source(&out), [Some(1_000_020)]);
}
