use std::sync::Arc;
use std::time::Duration;

use av_media::{AudioFormat, Codec, Frame, Kind, RtmpFraming, Timestamp, Track, VideoFormat};
use bytes::Bytes;
use tokio::time::Instant;

use super::*;

mod exact;
mod kept;
mod odd;

fn settings() -> Settings {
    Settings {
        content: Content::AudioVideo,
        track_wait: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(10),
        hold: true,
        hold_for: None,
    }
}

fn stream(settings: Settings) -> Stream {
    Stream::new(settings, InputStatus::new(Changes::default()), &Cache::default())
}

fn track(codec: Codec, config: &'static [u8]) -> Track {
    Track {
        codec,
        config: Bytes::from_static(config),
        codec_string: String::new(),
        video: VideoFormat::default(),
        audio: AudioFormat::default(),
        framing: RtmpFraming::Classic,
    }
}

fn frame(kind: Kind, millis: i64, is_sync: bool) -> Frame {
    let time = Timestamp::from_millis(millis);
    Frame { kind, dts: time, pts: time, is_sync, data: Bytes::from(millis.to_be_bytes().to_vec()) }
}

fn idr(millis: i64) -> Frame {
    frame(Kind::Video, millis, true)
}

fn delta(millis: i64) -> Frame {
    frame(Kind::Video, millis, false)
}

fn sound(millis: i64) -> Frame {
    frame(Kind::Audio, millis, true)
}

/// A publisher that has announced both tracks.
fn publish(stream: &Stream, now: Instant) -> Publisher {
    let mut publisher = stream.publisher(Kick::default());
    publisher.track(track(Codec::H264, b"v"), now).unwrap();
    publisher.track(track(Codec::Aac, b"a"), now).unwrap();
    publisher
}

/// What a reader can take without waiting, in short.
async fn received(reader: &mut Reader) -> Vec<String> {
    let mut out = Vec::new();
    while tokio::time::timeout(Duration::from_millis(20), reader.recv(&mut out)).await.is_ok() {}
    shorts(&out)
}

fn shorts(entries: &[Entry]) -> Vec<String> {
    let told = entries.iter().filter(|entry| !matches!(entry.item, Item::Anchor(_)));
    told.map(|entry| short(&entry.item)).collect()
}

fn short(item: &Item) -> String {
    match item {
        Item::Tracks(tracks) => {
            let name = |track: &Arc<Track>| String::from_utf8_lossy(&track.config).into_owned();
            format!("tracks {}", tracks.iter().map(name).collect::<Vec<_>>().join("+"))
        }
        Item::Frame(frame) => {
            let letter = match (frame.kind, frame.is_sync) {
                (Kind::Audio, _) => 'a',
                (_, true) => 'I',
                (_, false) => 'p',
            };
            format!("{letter}{}", frame.dts.millis())
        }
        Item::Aside(aside) => match aside.time {
            Some(time) => format!("aside {}", time.millis()),
            None => format!("aside {}", aside.content.downcast_ref::<&str>().unwrap()),
        },
        Item::Anchor(anchor) => format!("anchor {}", anchor.time.millis()),
        Item::Gap(Gap { cause, anchor }) => {
            let cause = match cause {
                GapCause::Returned => "returned".into(),
                GapCause::TakenOver => "taken over".into(),
                GapCause::Jump { nanos } => format!("jump {}", nanos / 1_000_000),
            };
            format!("gap {} {cause}", anchor.time.millis())
        }
        Item::Away => "away".into(),
        Item::GivenUp => "given up".into(),
        Item::Lost(Lost { video, audio }) => format!("lost {video}+{audio}"),
        Item::Ended => "ended".into(),
    }
}

#[tokio::test]
async fn a_reader_that_joins_mid_gop_starts_at_the_last_sync_frame() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, now);
    for frame in [idr(0), delta(40), idr(80), sound(90), delta(120)] {
        publisher.frame(frame, now).unwrap();
    }
    let mut reader = stream.reader(Content::AudioVideo);
    publisher.frame(delta(160), now).unwrap();
    assert_eq!(received(&mut reader).await, ["tracks v+a", "I80", "a90", "p120", "p160"]);
}

#[tokio::test]
async fn a_twin_goes_on_where_its_reader_is_and_keeps_what_comes_after() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, now);
    let mut reader = stream.reader(Content::AudioVideo);
    for frame in [idr(0), delta(40)] {
        publisher.frame(frame, now).unwrap();
    }
    assert_eq!(received(&mut reader).await, ["tracks v+a", "I0", "p40"]);
    let mut twin = reader.twin(Keep::default());
    for frame in [delta(80), idr(120), delta(160)] {
        publisher.frame(frame, now).unwrap();
    }
    assert_eq!(received(&mut reader).await, ["p80", "I120", "p160"]);
    assert_eq!(received(&mut twin).await, ["p80", "I120", "p160"]);
}

#[tokio::test]
async fn pictures_before_the_first_sync_frame_are_dropped_and_counted() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, now);
    let mut reader = stream.reader(Content::AudioVideo);
    for frame in [delta(0), delta(40), idr(80), delta(120)] {
        publisher.frame(frame, now).unwrap();
    }
    assert_eq!(received(&mut reader).await, ["tracks v+a", "I80", "p120"]);
    assert_eq!(stream.input().dropped.get(Kind::Video), 2);
}

#[tokio::test]
async fn readers_wait_for_the_second_track_and_then_go_on_without_it() {
    let wait = Duration::from_millis(200);
    let (stream, now) = (stream(Settings { track_wait: wait, ..settings() }), Instant::now());
    let mut publisher = stream.publisher(Kick::default());
    publisher.track(track(Codec::H264, b"v"), now).unwrap();
    publisher.frame(idr(0), now).unwrap();
    let mut reader = stream.reader(Content::AudioVideo);
    assert!(received(&mut reader).await.is_empty());
    // Nothing more is written: the reader's own wait ends.
    let mut out = Vec::new();
    reader.recv(&mut out).await;
    assert!(now.elapsed() >= wait);
    assert_eq!(shorts(&out), ["tracks v", "I0"]);
    // A later track counts as a change.
    publisher.track(track(Codec::Aac, b"a"), Instant::now()).unwrap();
    publisher.frame(sound(50), Instant::now()).unwrap();
    assert_eq!(received(&mut reader).await, ["tracks v+a", "a50"]);
}

#[tokio::test]
async fn readers_stay_when_the_publisher_returns_and_time_goes_on() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut reader = stream.reader(Content::AudioVideo);
    let mut first = publish(&stream, now);
    first.frame(idr(5000), now).unwrap();
    drop(first);
    assert_eq!(received(&mut reader).await, ["tracks v+a", "I5000", "away"]);
    // Nobody starts at a picture of a publisher that is gone.
    assert_eq!(received(&mut stream.reader(Content::AudioVideo)).await, ["tracks v+a"]);
    let later = now + Duration::from_secs(2);
    let mut second = publish(&stream, later);
    for frame in [delta(0), idr(40), sound(45)] {
        second.frame(frame, later).unwrap();
    }
    assert_eq!(received(&mut reader).await, ["gap 7000 returned", "I7000", "a7005"]);
}

#[tokio::test]
async fn with_close_readers_are_told_the_end_and_may_begin_again() {
    let (stream, now) = (stream(Settings { hold: false, ..settings() }), Instant::now());
    let mut reader = stream.reader(Content::AudioVideo);
    let mut publisher = publish(&stream, now);
    publisher.frame(idr(0), now).unwrap();
    drop(publisher);
    assert_eq!(received(&mut reader).await, ["tracks v+a", "I0", "away", "ended"]);
    let mut publisher = publish(&stream, now);
    publisher.frame(idr(0), now).unwrap();
    assert_eq!(received(&mut reader).await, ["tracks v+a", "I40"]);
}

#[tokio::test]
async fn hold_ends_after_its_time() {
    let hold_for = Some(Duration::from_secs(5));
    let (stream, now) = (stream(Settings { hold_for, ..settings() }), Instant::now());
    let mut reader = stream.reader(Content::AudioVideo);
    let mut publisher = publish(&stream, now);
    publisher.frame(idr(0), now).unwrap();
    drop(publisher);
    stream.tick(Instant::now() + Duration::from_secs(4));
    assert_eq!(received(&mut reader).await, ["tracks v+a", "I0", "away"]);
    stream.tick(Instant::now() + Duration::from_secs(6));
    assert_eq!(received(&mut reader).await, ["ended"]);
}

#[tokio::test]
async fn a_publisher_that_takes_over_displaces_the_other() {
    let (stream, now) = (stream(settings()), Instant::now());
    let kick = Kick::default();
    let mut first = stream.publisher(kick.clone());
    first.track(track(Codec::H264, b"v"), now).unwrap();
    let mut second = publish(&stream, now);
    assert_eq!(kick.fired().await, KickReason::TakenOver);
    assert_eq!(first.frame(idr(0), now), Err(Displaced));
    drop(first);
    second.frame(idr(0), now).unwrap();
    assert!(stream.has_publisher());
}

#[tokio::test]
async fn content_filters_frames_and_tracks() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut sound_only = stream.reader(Content::AudioOnly);
    let mut publisher = publish(&stream, now);
    for frame in [idr(0), sound(10), delta(40)] {
        publisher.frame(frame, now).unwrap();
    }
    assert_eq!(received(&mut sound_only).await, ["tracks a", "a10"]);
}

#[tokio::test]
async fn a_reader_that_falls_off_goes_on_at_a_sync_frame_and_is_told() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, now);
    publisher.frame(idr(0), now).unwrap();
    let mut reader = stream.reader(Content::AudioVideo);
    assert_eq!(received(&mut reader).await, ["tracks v+a", "I0"]);
    for i in 1..400 {
        let at = now + Duration::from_millis(i * 40);
        let millis = i as i64 * 40;
        publisher.frame(if i % 50 == 0 { idr(millis) } else { delta(millis) }, at).unwrap();
    }
    let got = received(&mut reader).await;
    assert_eq!(got[..4], ["given up", "lost 349+0", "tracks v+a", "I14000"]);
    assert_eq!(got.last().unwrap(), "p15960");
}

#[tokio::test]
async fn a_changed_video_configuration_waits_for_its_sync_frame() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut reader = stream.reader(Content::AudioVideo);
    let mut publisher = publish(&stream, now);
    publisher.frame(idr(0), now).unwrap();
    publisher.track(track(Codec::H264, b"w"), now).unwrap();
    for frame in [delta(40), sound(50), idr(80)] {
        publisher.frame(frame, now).unwrap();
    }
    assert_eq!(received(&mut reader).await, ["tracks v+a", "I0", "tracks w+a", "a50", "I80"]);
    // The same configuration again is no change.
    publisher.track(track(Codec::H264, b"w"), now).unwrap();
    publisher.frame(delta(120), now).unwrap();
    assert_eq!(received(&mut reader).await, ["p120"]);
}

#[tokio::test]
async fn sound_before_the_first_picture_reaches_those_who_wait_and_not_those_who_join_later() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut early = stream.reader(Content::AudioVideo);
    let mut publisher = publish(&stream, now);
    publisher.frame(sound(0), now).unwrap();
    publisher.frame(sound(20), now).unwrap();
    assert_eq!(received(&mut early).await, ["tracks v+a", "a0", "a20"]);
    publisher.frame(idr(40), now).unwrap();
    assert_eq!(received(&mut early).await, ["I40"]);
    assert_eq!(received(&mut stream.reader(Content::AudioVideo)).await, ["tracks v+a", "I40"]);
}

#[tokio::test]
async fn sound_flows_to_new_readers_while_video_is_silent_from_the_start() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, now);
    publisher.frame(sound(0), now).unwrap();
    let later = now + Duration::from_secs(3);
    publisher.frame(sound(3000), later).unwrap();
    let mut reader = stream.reader(Content::AudioVideo);
    assert_eq!(received(&mut reader).await.last().unwrap(), "a3000");
}

#[tokio::test]
async fn a_silent_publisher_is_kicked_and_its_tracks_are_stalled() {
    let (stream, now) = (stream(settings()), Instant::now());
    let kick = Kick::default();
    let mut publisher = stream.publisher(kick.clone());
    publisher.track(track(Codec::H264, b"v"), now).unwrap();
    publisher.frame(idr(0), now).unwrap();
    stream.tick(now + Duration::from_secs(11));
    assert_eq!(kick.fired().await, KickReason::Idle);
    assert!(stream.input().stalled[0].load(Ordering::Relaxed));
}

#[tokio::test]
async fn readers_are_told_when_only_what_is_filtered_out_comes() {
    let settings =
        Settings { content: Content::VideoOnly, track_wait: Duration::from_millis(50), ..settings() };
    let stream = stream(settings);
    let mut reader = stream.reader(Content::VideoOnly);
    let mut publisher = stream.publisher(Kick::default());
    publisher.track(track(Codec::Aac, b"a"), Instant::now()).unwrap();
    publisher.frame(sound(0), Instant::now()).unwrap();
    let mut out = Vec::new();
    reader.recv(&mut out).await;
    assert_eq!(shorts(&out), ["tracks "]);
    assert_eq!(stream.dropped().unwrap().codec, Codec::Aac);
    // What was missing comes after all.
    publisher.track(track(Codec::H264, b"v"), Instant::now()).unwrap();
    publisher.frame(idr(40), Instant::now()).unwrap();
    assert_eq!(received(&mut reader).await, ["tracks v", "I40"]);
}

#[tokio::test]
async fn configurations_count_as_memory() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, now);
    publisher.frame(idr(0), now).unwrap();
    let mut reader = stream.reader(Content::AudioVideo);
    assert_eq!(received(&mut reader).await, ["tracks v+a", "I0"]);
    for index in 0..100 {
        let config = Bytes::from(vec![b'0' + index % 10; 1 << 20]);
        publisher.track(Track { config, ..track(Codec::Aac, b"") }, now).unwrap();
    }
    publisher.frame(idr(40), now).unwrap();
    let got = received(&mut reader).await;
    assert!(
        got[..2] == ["given up", "lost 0+0"] && got[2].starts_with("tracks v+9") && got[3] == "I40",
        "{} items",
        got.len()
    );
}

#[tokio::test]
async fn close_that_comes_while_the_publisher_is_away_ends_the_stream() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut reader = stream.reader(Content::AudioVideo);
    let mut publisher = publish(&stream, now);
    publisher.frame(idr(0), now).unwrap();
    drop(publisher);
    stream.tick(Instant::now());
    assert_eq!(received(&mut reader).await, ["tracks v+a", "I0", "away"]);
    stream.configure(Settings { hold: false, ..settings() });
    stream.tick(Instant::now());
    assert_eq!(received(&mut reader).await, ["ended"]);
}

#[tokio::test]
async fn pictures_come_back_when_content_is_widened_without_the_publisher_saying_anything() {
    let stream = stream(Settings { content: Content::AudioOnly, ..settings() });
    let now = Instant::now();
    let mut reader = stream.reader(Content::AudioVideo);
    let mut publisher = publish(&stream, now);
    for frame in [idr(0), sound(5), delta(40)] {
        publisher.frame(frame, now).unwrap();
    }
    assert_eq!(received(&mut reader).await, ["tracks a", "a5"]);
    assert_eq!(stream.dropped().unwrap().codec, Codec::H264);
    stream.configure(settings());
    for frame in [delta(80), sound(85), idr(120), delta(160)] {
        publisher.frame(frame, now).unwrap();
    }
    assert_eq!(received(&mut reader).await, ["tracks v+a", "a85", "I120", "p160"]);
    assert_eq!(stream.dropped(), None);
    stream.configure(Settings { content: Content::VideoOnly, ..settings() });
    for frame in [sound(180), delta(200)] {
        publisher.frame(frame, now).unwrap();
    }
    assert_eq!(received(&mut reader).await, ["tracks v", "p200"]);
}

#[tokio::test]
async fn every_entry_says_whether_a_reader_may_start_there() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut reader = stream.reader(Content::AudioVideo);
    let mut sound_only = stream.reader(Content::AudioOnly);
    let mut publisher = publish(&stream, now);
    for frame in [sound(0), sound(20), idr(40), sound(45), delta(80), sound(85), idr(120)] {
        publisher.frame(frame, now).unwrap();
    }
    let starts = async |reader: &mut Reader| {
        let mut out = Vec::new();
        reader.recv(&mut out).await;
        out.iter().filter(|entry| entry.starts).map(|entry| short(&entry.item)).collect::<Vec<_>>()
    };
    assert_eq!(starts(&mut reader).await, ["a0", "I40", "I120"]);
    assert_eq!(starts(&mut sound_only).await, ["a0", "a20", "a45", "a85"]);
}

fn described(what: &'static str) -> Incoming {
    Incoming::Aside(Aside { time: None, content: Arc::new(what), size: what.len(), keep_latest: true })
}

#[tokio::test]
async fn what_describes_the_stream_is_told_to_later_readers_too_and_changes_no_tracks() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut first = stream.reader(Content::AudioVideo);
    let mut publisher = stream.publisher(Kick::default());
    publisher.item(described("one"), now).unwrap();
    publisher.track(track(Codec::H264, b"v"), now).unwrap();
    publisher.track(track(Codec::Aac, b"a"), now).unwrap();
    publisher.frame(idr(0), now).unwrap();
    assert_eq!(received(&mut first).await, ["tracks v+a", "aside one", "I0"]);
    publisher.item(described("two"), now).unwrap();
    publisher.frame(delta(40), now).unwrap();
    assert_eq!(received(&mut first).await, ["aside two", "p40"]);
    let mut later = stream.reader(Content::AudioVideo);
    assert_eq!(received(&mut later).await, ["tracks v+a", "aside one", "I0", "aside two", "p40"]);
    publisher.frame(idr(80), now).unwrap();
    let mut latest = stream.reader(Content::AudioVideo);
    assert_eq!(received(&mut latest).await, ["tracks v+a", "aside two", "I80"]);
    // The next publisher says nothing of the kind.
    drop(publisher);
    let mut publisher = publish(&stream, now);
    publisher.frame(idr(0), now).unwrap();
    assert_eq!(received(&mut stream.reader(Content::AudioVideo)).await, ["tracks v+a", "I120"]);
}

#[tokio::test]
async fn losses_are_frames_of_the_readers_own_kinds_up_to_where_it_goes_on() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, now);
    publisher.frame(idr(0), now).unwrap();
    let mut both = stream.reader(Content::AudioVideo);
    let mut sound_only = stream.reader(Content::AudioOnly);
    received(&mut both).await;
    received(&mut sound_only).await;
    for i in 1..100 {
        publisher.item(described("often"), now).unwrap();
        publisher.frame(sound(i * 40 - 5), now).unwrap();
        publisher.frame(if i == 90 { idr(i * 40) } else { delta(i * 40) }, now).unwrap();
    }
    let mut out = Vec::new();
    assert!(both.skip_to_sync(&mut out));
    assert!(sound_only.skip_to_sync(&mut out));
    let lost: Vec<_> = out.iter().filter(|entry| matches!(entry.item, Item::Lost(_))).collect();
    assert_eq!(lost.iter().map(|entry| short(&entry.item)).collect::<Vec<_>>(), ["lost 89+90", "lost 0+90"]);
    assert!(!both.skip_to_sync(&mut out), "there is nothing further ahead");
}

#[tokio::test]
async fn a_takeover_wakes_readers_and_says_so_with_a_point_in_time() {
    let (stream, now) = (stream(settings()), Instant::now());
    let mut reader = stream.reader(Content::AudioVideo);
    let mut first = publish(&stream, now);
    first.frame(idr(0), now).unwrap();
    received(&mut reader).await;
    let mut out = Vec::new();
    let begun = tokio::spawn(async move {
        reader.recv(&mut out).await;
        (reader, shorts(&out))
    });
    tokio::task::yield_now().await;
    let mut second = stream.publisher(Kick::default());
    // Nothing is written: whoever joins at this moment must not be given the old GOP.
    let waited = tokio::time::timeout(Duration::from_secs(10), begun).await;
    let (mut reader, told) = waited.expect("a reader that is not woken").unwrap();
    assert_eq!(told, ["away"]);
    second.track(track(Codec::H264, b"v"), now).unwrap();
    second.track(track(Codec::Aac, b"a"), now).unwrap();
    second.frame(idr(500), now).unwrap();
    assert_eq!(received(&mut reader).await, ["gap 40 taken over", "I40"]);
}

#[tokio::test]
async fn a_publisher_that_goes_late_does_not_undo_what_the_next_one_did() {
    let stream = stream(settings());
    // From the moment when the second one writes, the state is `running` for good.
    for _ in 0..200 {
        let first = publish(&stream, Instant::now());
        let gone = std::thread::spawn(move || drop(first));
        let mut second = publish(&stream, Instant::now());
        second.frame(idr(0), Instant::now()).unwrap();
        gone.join().unwrap();
        assert_eq!(stream.input().status.get().state, State::Running);
        drop(second);
    }
}

#[tokio::test]
async fn who_joins_a_still_picture_with_sound_is_at_most_ten_seconds_behind() {
    let (stream, began) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, began);
    let at = |millis: i64| began + Duration::from_millis(millis as u64);
    publisher.frame(idr(0), at(0)).unwrap();
    for millis in (0..39_000).step_by(100) {
        publisher.frame(sound(millis), at(millis)).unwrap();
    }
    let mut reader = stream.reader(Content::AudioVideo);
    let mut entries = Vec::new();
    reader.recv(&mut entries).await;
    let frames: Vec<&Frame> = entries
        .iter()
        .filter_map(|entry| match &entry.item {
            Item::Frame(frame) => Some(frame),
            _ => None,
        })
        .collect();
    // The picture itself, at a time just before the sound beside it.
    assert_eq!((frames[0].kind, &frames[0].data), (Kind::Video, &idr(0).data));
    assert!(frames[0].is_sync && frames[0].dts.millis() >= 29_000 - 500, "{:?}", frames[0].dts);
    let behind = frames[1].dts.millis() - frames[0].dts.millis();
    assert_eq!((frames[1].kind, behind), (Kind::Audio, 500));

    // The next picture goes on.
    publisher.frame(idr(39_000), at(39_000)).unwrap();
    let mut later = stream.reader(Content::AudioVideo);
    entries.clear();
    later.recv(&mut entries).await;
    let first = entries.iter().find_map(|entry| match &entry.item {
        Item::Frame(frame) => Some(frame.data.clone()),
        _ => None,
    });
    assert_eq!(first, Some(idr(39_000).data));
}

#[tokio::test]
async fn a_start_point_with_several_pictures_that_stand_still_is_given_up() {
    let (stream, began) = (stream(settings()), Instant::now());
    let mut publisher = publish(&stream, began);
    let at = |millis: i64| began + Duration::from_millis(millis as u64);
    publisher.frame(idr(0), at(0)).unwrap();
    publisher.frame(delta(40), at(40)).unwrap();
    for millis in (0..20_000).step_by(100) {
        publisher.frame(sound(millis), at(millis)).unwrap();
    }
    let mut reader = stream.reader(Content::AudioVideo);
    let mut entries = Vec::new();
    reader.recv(&mut entries).await;
    let first = entries.iter().find_map(|entry| match &entry.item {
        Item::Frame(frame) => Some((frame.kind, frame.dts.millis())),
        _ => None,
    });
    assert!(first.is_some_and(|(kind, millis)| kind == Kind::Audio && millis >= 10_000), "{first:?}");
}
