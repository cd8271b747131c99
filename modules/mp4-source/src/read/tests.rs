use std::path::Path;
use std::sync::Arc;

use av_edge::{Certificates, Context, EventSink, Paths, StateDir};
use av_flow::Module;
use av_flow::config::Content;
use av_flow::stream::{Changes, Entry, InputStatus, Item, Settings, Stream};
use av_media::mp4::Mp4;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;

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

struct Reads {
    stream: Stream,
    status: Arc<InputStatus>,
    task: JoinHandle<()>,
}

impl Reads {
    fn file(path: &Path, repeat: bool) -> Self {
        let settings = Settings {
            content: Content::AudioVideo,
            track_wait: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(10),
            hold: true,
            hold_for: None,
        };
        let stream = Stream::new(settings, InputStatus::new(Changes::default()));
        let input = InputContext {
            module: Module::new(context()),
            flow: "card".into(),
            path: "flows.card.input".into(),
            status: stream.input().clone(),
            idle_timeout: Duration::from_secs(10),
            instances: None,
            stream: stream.clone(),
            cancel: CancellationToken::new(),
        };
        let config = ReadConfig { path: path.into(), repeat, start: Duration::ZERO };
        Self { status: stream.input().clone(), stream, task: tokio::spawn(read(input, config)) }
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
        self.task.abort();
    }
}

/// Milliseconds of a loop of the test card.
fn period() -> i64 {
    let file = std::fs::File::open(test_card()).unwrap();
    let playback = av_media::mp4::Playback::new(Mp4::open(file).unwrap(), Duration::ZERO).unwrap();
    playback.loop_start(1).millis()
}

/// Plays pieces without waiting, until `count` frames are there; between pieces `meanwhile` may do something.
fn pieces(reading: Reading, count: usize, mut meanwhile: impl FnMut(usize)) -> (Vec<Frame>, Vec<usize>) {
    let (mut frames, mut announced) = (Vec::new(), Vec::new());
    let mut reading = Box::new(reading);
    loop {
        let piece = reading.piece();
        if piece.tracks.is_some() {
            announced.push(frames.len());
        }
        frames.extend(piece.frames);
        if frames.len() >= count {
            return (frames, announced);
        }
        meanwhile(frames.len());
        match piece.then {
            Then::More(next) => reading = next,
            Then::End { .. } => return (frames, announced),
            Then::Failed(error) => panic!("{error}"),
        }
    }
}

fn opened(path: &Path, repeat: bool) -> Reading {
    Reading::open(path, path, repeat, Duration::ZERO, 0).unwrap()
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
async fn a_truncated_file_fails_with_the_place_and_a_folder_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.mp4");
    let whole = std::fs::read(test_card()).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let reads = Reads::file(&path, true);
    let text = reads.state(State::Failed, "").await;
    assert!(text.contains("box ") && text.contains(" at byte "), "{text}");

    let reads = Reads::file(dir.path(), true);
    let text = reads.state(State::Failed, "").await;
    assert!(text.contains("not a regular file"), "{text}");
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
