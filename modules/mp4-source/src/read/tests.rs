use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use av_edge::{Certificates, Context, EventSink, Paths, StateDir};
use av_flow::Module;
use av_flow::config::Content;
use av_flow::stream::{Cache, Changes, Entry, InputStatus, Item, Settings, Stream};
use av_media::Frame;
use av_media::mp4::{Mp4, Playback};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::reading::{PIECE_PARTS, Part};

/// Pictures with sound: the clip that is played out of the box.
fn test_card() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../edge-config/testcard.mp4")
}

/// A runtime without edge.
fn context() -> Context {
    Context {
        service: "mp4-source".into(),
        module: "mp4-source".into(),
        device: "device".into(),
        gateway_host: None,
        state: StateDir::new(std::env::temp_dir()),
        bind: None,
        hosts: Arc::default(),
        paths: Paths::default(),
        certificates: Certificates::default(),
        events: EventSink::channel(16).0,
    }
}

fn input(stream: &Stream) -> InputContext {
    InputContext {
        module: Module::new(context()),
        flow: "card".into(),
        path: "flows.card.input".into(),
        status: stream.input().clone(),
        idle_timeout: Duration::from_secs(10),
        instances: None,
        stream: stream.clone(),
        cancel: CancellationToken::new(),
    }
}

fn stream() -> Stream {
    let settings = Settings {
        content: Content::AudioVideo,
        track_wait: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(10),
        hold: true,
        hold_for: None,
    };
    Stream::new(settings, InputStatus::new(Changes::default()), &Cache::default())
}

struct Reads {
    stream: Stream,
    status: Arc<InputStatus>,
    tasks: [JoinHandle<()>; 2],
}

impl Reads {
    fn file(path: &Path, repeat: bool) -> Self {
        let stream = stream();
        let input = input(&stream);
        let config = ReadConfig { path: path.into(), repeat, start: Duration::ZERO };
        let (ticked, task) = (stream.clone(), tokio::spawn(read(input, config)));
        let ticks = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                ticked.tick(Instant::now());
            }
        });
        Self { status: stream.input().clone(), stream, tasks: [task, ticks] }
    }

    /// Waits for a state on the paused clock; gives its reason.
    async fn state(&self, wanted: State, text: &str) -> String {
        for _ in 0..1_000_000 {
            let current = self.status.status.get();
            let error = current.trouble.map(|trouble| trouble.text).unwrap_or_default();
            if current.state == wanted && error.contains(text) {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never {wanted:?} {text}")
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Milliseconds of a loop of the test card.
fn period() -> i64 {
    let file = std::fs::File::open(test_card()).unwrap();
    let playback = Playback::new(Mp4::open(file).unwrap(), Duration::ZERO);
    playback.loop_start(1).millis()
}

/// Plays pieces without waiting, until `count` frames are there; between pieces `meanwhile` may do something.
fn pieces(reading: Reading, count: usize, mut meanwhile: impl FnMut(usize)) -> (Vec<Frame>, Vec<usize>) {
    let (mut frames, mut announced) = (Vec::new(), Vec::new());
    let mut reading = Box::new(reading);
    loop {
        let piece = reading.piece();
        if piece.announcement.is_some() {
            announced.push(frames.len());
        }
        frames.extend(piece.parts.into_iter().filter_map(|part| match part {
            Part::Frame(frame) => Some(frame),
            Part::Track(_) => None,
        }));
        if frames.len() >= count {
            return (frames, announced);
        }
        meanwhile(frames.len());
        match piece.then {
            Then::More(next) => reading = next,
            Then::End { .. } => return (frames, announced),
            Then::Changed => panic!("changed"),
            Then::Failed(error) => panic!("{error}"),
        }
    }
}

fn opened(path: &Path, repeat: bool) -> Reading {
    Reading::open(path, path, repeat, Duration::ZERO, Timestamp::ZERO).unwrap()
}

#[test]
fn every_loop_is_the_first_one_a_period_later() {
    let (once, _) = pieces(opened(&test_card(), false), usize::MAX, |_| {});
    let (thrice, announced) = pieces(opened(&test_card(), true), once.len() * 3, |_| {});
    assert_eq!(announced, [0]);
    for kind in [Kind::Video, Kind::Audio] {
        let of = |frames: &[Frame]| -> Vec<Frame> {
            frames.iter().filter(|frame| frame.kind == kind).cloned().collect()
        };
        let (once, thrice) = (of(&once), of(&thrice));
        for (index, frame) in thrice.iter().take(once.len() * 2).enumerate() {
            let first = &once[index % once.len()];
            let later = (index / once.len()) as i64 * period();
            assert_eq!(frame.dts.millis(), first.dts.millis() + later, "{kind:?} {index}");
            assert_eq!(frame.pts.millis(), first.pts.millis() + later, "{kind:?} {index}");
            assert_eq!(frame.data, first.data);
        }
    }
}

#[test]
fn a_replaced_file_takes_over_at_the_end_of_the_loop_on_the_same_timeline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    std::fs::copy(test_card(), &path).unwrap();
    let (once, _) = pieces(opened(&path, false), usize::MAX, |_| {});
    let mut replaced = false;
    let (frames, announced) = pieces(opened(&path, true), once.len() * 2, |_| {
        if !std::mem::replace(&mut replaced, true) {
            let aside = dir.path().join("new.mp4");
            std::fs::copy(test_card(), &aside).unwrap();
            std::fs::rename(&aside, &path).unwrap();
        }
    });
    assert_eq!(announced, [0, once.len()]);
    assert_eq!(frames[..once.len()], once);
    assert_eq!(frames[once.len()].dts.millis(), once[0].dts.millis() + period());
    assert!(frames[once.len()].is_sync);
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_media_takes_an_hour() {
    let reads = Reads::file(&test_card(), true);
    let mut reader = reads.stream.reader(Content::AudioVideo);
    let mut entries: Vec<Entry> = Vec::new();
    let mut zero = None;
    let mut frames = 0_u64;
    loop {
        reader.recv(&mut entries).await;
        let now = Instant::now();
        for entry in entries.drain(..) {
            let frame = match entry.item {
                Item::Frame(frame) => frame,
                Item::Anchor(_) => continue,
                Item::Tracks(_) if frames == 0 => continue,
                other => panic!("{other:?}"),
            };
            frames += 1;
            let zero = *zero.get_or_insert_with(|| (now, frame.dts.millis()));
            let media = frame.dts.millis() - zero.1;
            let passed = i64::try_from((now - zero.0).as_millis()).unwrap();
            assert!((media - 50..=media + 50).contains(&passed), "{media} ms of media after {passed} ms");
            if media >= 3_600_000 {
                return;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_loop_the_file_is_played_to_the_end_and_outputs_keep_its_last_frame() {
    let reads = Reads::file(&test_card(), false);
    let began = Instant::now();
    let text = reads.state(State::Running, "").await;
    assert_eq!(text, "");
    let text = reads.state(State::Waiting, "played to the end").await;
    assert_eq!(text, "flows.card.input.read: played to the end");
    assert!(began.elapsed() >= Duration::from_millis(period() as u64));
    assert!(!reads.stream.has_publisher());
}

#[tokio::test(start_paused = true)]
async fn a_missing_file_is_retried_and_played_when_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    let reads = Reads::file(&path, true);
    let text = reads.state(State::Retrying, "").await;
    assert!(text.contains("clip.mp4: there is no such file"), "{text}");
    std::fs::copy(test_card(), &path).unwrap();
    reads.state(State::Running, "").await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_no_mp4_fails_until_it_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    std::fs::write(&path, "a text that calls itself a film").unwrap();
    let reads = Reads::file(&path, true);
    let text = reads.state(State::Failed, "").await;
    assert!(text.starts_with("flows.card.input.read: ") && text.contains("not an MP4 file"), "{text}");
    std::fs::copy(test_card(), &path).unwrap();
    reads.state(State::Running, "").await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_file_plays_what_it_has_round_by_round_and_a_folder_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    let whole = std::fs::read(test_card()).unwrap();
    // The index is in front.
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let (once, _) = pieces(opened(&path, false), usize::MAX, |_| {});
    let (all, _) = pieces(opened(&test_card(), false), usize::MAX, |_| {});
    assert!((all.len() / 4..all.len()).contains(&once.len()), "{} of {}", once.len(), all.len());
    let (thrice, announced) = pieces(opened(&path, true), once.len() * 3, |_| {});
    assert_eq!(announced, [0]);
    assert_eq!(thrice[once.len()].data, once[0].data);
    let reads = Reads::file(&path, true);
    reads.state(State::Running, "").await;
    let remark = || reads.status.status.get().remark;
    let said = remark().unwrap();
    assert!(said.contains("clip.mp4: the file is cut at byte"), "{said}");
    assert!(said.starts_with("flows.card.input.read: "), "{said}");
    // One that is whole takes its place.
    let aside = dir.path().join("new.mp4");
    std::fs::copy(test_card(), &aside).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    for _ in 0..100_000 {
        if remark().is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(remark(), None);

    let reads = Reads::file(dir.path(), true);
    let text = reads.state(State::Failed, "").await;
    assert!(text.contains("not a regular file"), "{text}");
}

/// Calls something in a file's index by another name, wherever it is.
fn renamed(mut file: Vec<u8>, from: &[u8; 4], to: &[u8; 4]) -> Vec<u8> {
    let at = file.windows(4).position(|four| four == from).unwrap();
    file[at..at + 4].copy_from_slice(to);
    file
}

/// Sets a field of 32 bits, so many bytes behind a box's name.
fn set(file: &mut [u8], name: &[u8; 4], behind: usize, value: u32) {
    let at = file.windows(4).position(|four| four == name).unwrap() + 4 + behind;
    file[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

#[tokio::test(start_paused = true)]
async fn a_track_that_is_left_aside_is_reported_with_codec_and_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    std::fs::write(&path, renamed(std::fs::read(test_card()).unwrap(), b"esds", b"junk")).unwrap();
    let reads = Reads::file(&path, true);
    reads.state(State::Running, "").await;
    let audio = reads.status.skipped.get(Kind::Audio).unwrap();
    assert_eq!(audio.codec, "mp4a");
    assert!(audio.dropped.starts_with("it has no esds box (box mp4a at byte "), "{}", audio.dropped);
    assert_eq!(reads.status.skipped.get(Kind::Video), None);

    // Another file, another report.
    let other = renamed(std::fs::read(&path).unwrap(), b"avcC", b"junk");
    let before = Stamp::of(&path);
    // At a time that is another one for the file system.
    while Stamp::of(&path) == before {
        std::fs::write(&path, &other).unwrap();
    }
    let text = reads.state(State::Failed, "no track").await;
    assert!(text.contains("track 1 (avc1): it has no avcC box"), "{text}");
    assert!(text.contains("; track 2 (mp4a): it has no esds box"), "{text}");
    assert_eq!(reads.status.skipped.get(Kind::Video).unwrap().codec, "avc1");
    std::fs::copy(test_card(), &path).unwrap();
    reads.state(State::Running, "").await;
    assert_eq!((reads.status.skipped.get(Kind::Video), reads.status.skipped.get(Kind::Audio)), (None, None));
}

#[tokio::test(start_paused = true)]
async fn while_nothing_is_due_for_longer_than_the_idle_time_out_the_state_says_so_and_frames_come_when_they_are()
 {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    // Pictures alone, one every 25 s.
    let mut file = renamed(std::fs::read(test_card()).unwrap(), b"esds", b"junk");
    let timescale = opened(&test_card(), false).video_timescale();
    set(&mut file, b"stts", 12, timescale * 25);
    set(&mut file, b"elst", 8, u32::MAX);
    std::fs::write(&path, file).unwrap();
    let reads = Reads::file(&path, true);
    reads.state(State::Running, "").await;
    let began = Instant::now();
    let text = reads.state(State::Waiting, "no frame for 10 s").await;
    assert!(began.elapsed() <= Duration::from_secs(12), "{:?}", began.elapsed());
    assert!(
        text.starts_with("flows.card.input.read: ") && text.contains(": nothing is due for another 1"),
        "{text}"
    );
    assert!(!reads.stream.has_publisher());
    // The next picture comes when it is due.
    while reads.status.frames.get(Kind::Video) < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!((began.elapsed().as_secs_f64() - 25.0).abs() < 2.0, "{:?}", began.elapsed());
    assert!(reads.stream.has_publisher());
}

#[tokio::test(start_paused = true)]
async fn pictures_without_a_sync_frame_are_told_of_within_the_idle_time_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    let mut file = std::fs::read(test_card()).unwrap();
    // No sample is listed, and what was an IDR picture calls itself another one.
    set(&mut file, b"stss", 4, 0);
    let (frames, _) = pieces(opened(&test_card(), false), usize::MAX, |_| {});
    for frame in frames.iter().filter(|frame| frame.kind == Kind::Video && frame.is_sync) {
        let at = file.windows(frame.data.len()).position(|window| *window == *frame.data).unwrap();
        let mut unit = at;
        while unit < at + frame.data.len() {
            let length = u32::from_be_bytes(file[unit..unit + 4].try_into().unwrap()) as usize;
            if file[unit + 4] & 0x1f == 5 {
                file[unit + 4] = file[unit + 4] & 0xe0 | 1;
            }
            unit += 4 + length;
        }
    }
    std::fs::write(&path, file).unwrap();
    let (frames, _) = pieces(opened(&path, false), usize::MAX, |_| {});
    assert!(!frames.iter().any(|frame| frame.kind == Kind::Video && frame.is_sync), "a sync frame is left");
    let reads = Reads::file(&path, true);
    let began = Instant::now();
    while reads.status.skipped.get(Kind::Video).is_none() {
        assert!(began.elapsed() < Duration::from_secs(10), "not told");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let told = reads.status.skipped.get(Kind::Video).unwrap();
    assert!(
        told.codec.starts_with("avc1.") && told.dropped.contains("at which a decoder can start"),
        "{told:?}"
    );
    let [_, _, before_sync, _] = reads.status.skipped.counts();
    assert!(before_sync > 50, "{before_sync}");

    // Without sound nothing comes at all.
    std::fs::write(&path, renamed(std::fs::read(&path).unwrap(), b"esds", b"junk")).unwrap();
    let reads = Reads::file(&path, true);
    let began = Instant::now();
    let text = reads.state(State::Failed, "no sync frame arrived").await;
    assert!(
        text.starts_with("flows.card.input.read: ") && began.elapsed() <= Duration::from_secs(10),
        "{text}"
    );
}

/// The test card with other bytes in every frame: not one of them is a frame of the test card.
fn another_card() -> Vec<u8> {
    let mut file = std::fs::read(test_card()).unwrap();
    let mdat = file.windows(4).position(|four| four == b"mdat").unwrap() + 4;
    // The last byte of each frame, whatever it is of.
    let (frames, _) = pieces(opened(&test_card(), false), usize::MAX, |_| {});
    let mut from = mdat;
    let mut places: Vec<(usize, usize)> = Vec::new();
    for frame in &frames {
        let found = file[mdat..].windows(frame.data.len()).position(|window| *window == *frame.data);
        places.push((mdat + found.unwrap(), frame.data.len()));
        from = from.max(mdat + found.unwrap());
    }
    for (at, length) in places {
        file[at + length - 1] ^= 0x5a;
    }
    file
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_written_over_is_never_read_by_the_old_index() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    std::fs::copy(test_card(), &path).unwrap();
    let hashes = |file: &Path| -> std::collections::HashSet<Vec<u8>> {
        pieces(opened(file, false), usize::MAX, |_| {}).0.iter().map(|frame| frame.data.to_vec()).collect()
    };
    let old = hashes(&path);
    let replacement = another_card();
    let aside = dir.path().join("other.mp4");
    // Longer by a box that nobody needs: every offset behind it is another one.
    std::fs::write(&aside, &replacement).unwrap();
    let new = hashes(&aside);
    let mut reads = Reads::file(&path, true);
    reads.state(State::Running, "").await;
    let mut reader = reads.stream.reader(Content::AudioVideo);
    let (mut entries, mut seen_new, mut written) = (Vec::new(), 0, false);
    let began = Instant::now();
    while seen_new < 50 {
        assert!(began.elapsed() < Duration::from_secs(60), "the new file never came");
        reader.recv(&mut entries).await;
        for entry in entries.drain(..) {
            let Item::Frame(frame) = entry.item else { continue };
            let is_new = new.contains(&frame.data[..]);
            assert!(is_new || old.contains(&frame.data[..]), "a frame of neither file");
            seen_new += usize::from(is_new);
        }
        if !std::mem::replace(&mut written, true) {
            // As `cp` does: the same file, other bytes.
            std::fs::write(&path, &replacement).unwrap();
        }
    }
    assert!(began.elapsed() < Duration::from_millis(period() as u64), "the round was played to its end");
    reads.tasks.iter_mut().for_each(|task| task.abort());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_goes_bad_while_it_is_played_is_lost_with_the_reason_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    std::fs::copy(test_card(), &path).unwrap();
    let reads = Reads::file(&path, true);
    reads.state(State::Running, "").await;
    std::fs::remove_file(&path).unwrap();
    let text = reads.state(State::Retrying, "").await;
    assert!(text.contains("there is no such file"), "{text}");
    std::fs::copy(test_card(), &path).unwrap();
    reads.state(State::Running, "").await;
}

#[tokio::test(start_paused = true)]
async fn several_flows_play_the_same_file_at_once() {
    let reads: Vec<Reads> = (0..5).map(|_| Reads::file(&test_card(), true)).collect();
    for reads in &reads {
        reads.state(State::Running, "").await;
        let mut entries = Vec::new();
        reads.stream.reader(Content::VideoOnly).recv(&mut entries).await;
        assert!(matches!(entries[0].item, Item::Tracks(_)));
    }
}

/// Pictures alone.
fn without_sound() -> Vec<u8> {
    renamed(std::fs::read(test_card()).unwrap(), b"esds", b"junk")
}

#[test]
fn a_piece_of_frames_that_are_all_due_at_once_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    let mut file = without_sound();
    // 5000 samples of a byte each, in one chunk, that take no time.
    set(&mut file, b"stts", 12, 0);
    set(&mut file, b"stsz", 4, 1);
    set(&mut file, b"stsz", 8, 5000);
    set(&mut file, b"stsc", 12, 5000);
    std::fs::write(&path, file).unwrap();
    let mut reading = Box::new(opened(&path, false));
    let mut sizes = Vec::new();
    loop {
        let piece = reading.piece();
        sizes.push(piece.parts.len());
        match piece.then {
            Then::More(next) => reading = next,
            Then::End { .. } => break,
            Then::Changed | Then::Failed(_) => panic!("not played to the end"),
        }
    }
    assert_eq!(sizes, [PIECE_PARTS, PIECE_PARTS, 5000 - 2 * PIECE_PARTS]);
}

#[tokio::test(start_paused = true)]
async fn while_many_frames_are_sent_that_are_due_others_get_their_turn() {
    let stream = stream();
    let mut playing = Playing::new(input(&stream), Path::new("clip.mp4"));
    let piece = Box::new(opened(&test_card(), false)).piece();
    playing.announce(piece.announcement.unwrap()).unwrap_or_else(|_| panic!("displaced"));
    let frame = piece.parts.into_iter().find_map(|part| match part {
        Part::Frame(frame) => Some(frame),
        Part::Track(_) => None,
    });
    let frame = frame.unwrap();
    let frames = std::iter::repeat_with(|| Part::Frame(frame.clone())).take(1000);
    let mut send = std::pin::pin!(playing.send(frames.collect(), None));
    let mut turns = 0;
    let sent = std::future::poll_fn(|context| {
        turns += 1;
        send.as_mut().poll(context)
    });
    assert!(matches!(sent.await, Ok(Sent::All)));
    assert_eq!(turns, 1 + 1000 / 256);
}

#[test]
fn the_index_of_a_round_that_is_over_is_let_go_before_the_next_is_read() {
    let Piece { then, watched, .. } = Box::new(opened(&test_card(), true)).piece();
    let (Then::More(reading), Some(watched)) = (then, watched) else { panic!("no piece") };
    assert!(watched.holders() > 1);
    let _round = reading.close();
    assert_eq!(watched.holders(), 1);
}

#[test]
fn a_cut_file_from_the_future_is_played_round_by_round() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    let whole = std::fs::read(test_card()).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    // The clock was set back since.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(3600)).unwrap();
    let reading = opened(&path, true);
    assert!(!reading.is_whole() && !reading.opened().is_still());
    let (once, _) = pieces(opened(&path, false), usize::MAX, |_| {});
    let (_, announced) = pieces(reading, once.len() * 3, |_| {});
    assert_eq!(announced, [0]);
}

#[test]
fn frames_that_are_too_large_are_counted_in_the_last_piece_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    let mut file = without_sound();
    // All of it is one piece.
    set(&mut file, b"stts", 12, 1);
    set(&mut file, b"elst", 12, 0);
    set(&mut file, b"stsz", 12, 40 << 20);
    std::fs::write(&path, file).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(60 << 20).unwrap();
    let piece = Box::new(opened(&path, false)).piece();
    assert!(matches!(piece.then, Then::End { .. }));
    assert_eq!(piece.too_large, 1);
}
