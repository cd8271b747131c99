//! A store that is away for long: what is recorded meanwhile waits, is counted, and arrives once, in order and soon.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::fake_clock::FakeClock;
use av_tests::fast_clock::FastClock;
use av_tests::module::{Module, Setup};
use av_tests::rtmp::Publisher;
use av_tests::{needs, port, tool, wait};
use serde_json::{Value, json};

use crate::recorder::files;
use crate::recorder_blobs::{Azurite, KEY, document, must_hold};
use crate::{long, rtmp};

/// The recorder's clock and its media run so much faster: an hour in three minutes.
const SPEED: u32 = 20;

/// A server that hangs up on everybody, and counts them.
struct Refusing {
    port: u16,
    asked: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Refusing {
    fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (asked, over): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
        let (counted, ends) = (asked.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            while listener.accept().is_ok() && !ends.load(Ordering::Relaxed) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { port, asked, over, thread: Some(thread) }
    }

    /// How many have come; the port is free again.
    fn end(mut self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        drop(std::net::TcpStream::connect(("127.0.0.1", self.port)));
        self.thread.take().unwrap().join().unwrap();
        self.asked.load(Ordering::Relaxed)
    }
}

fn spooled(module: &Module) -> Vec<PathBuf> {
    let mut files = files(&module.dir().join("state/spool"));
    files.retain(|file| file.extension().is_some_and(|is| is == "mp4"));
    files
}

fn unsent(module: &Module) -> u64 {
    module.status()["summary"]["unsentFiles"].as_u64().unwrap_or(0)
}

fn is_told(module: &Module, summary: &Value, name: &str, metric: &str, value: u64) {
    assert_eq!(summary[name], value, "{name} in {summary}");
    assert_eq!(module.metrics().sum(metric, &[]), Some(value as f64), "{metric}");
}

/// A state dir in memory: a busy disk would hold up what runs so much faster.
fn in_memory(setup: &Setup) -> io::Result<tempfile::TempDir> {
    let state = tempfile::tempdir_in("/dev/shm")?;
    std::os::unix::fs::symlink(state.path(), setup.dir().join("state"))?;
    Ok(state)
}

#[test]
fn what_is_recorded_in_an_hour_without_the_store_is_counted_and_arrives_once_in_order_and_soon() {
    needs!(Ffmpeg, Azurite, BlobSdk);
    let case = "recorder_away::what_is_recorded_in_an_hour";
    let Some(clock) = FastClock::of(SPEED) else { return tool::skip(case, "no C compiler") };
    let minutes = if long() { 60 } else { 6 };
    let folder = tempfile::tempdir().unwrap();
    let port = port::free();
    let azurite = Azurite::start(folder.path(), port);
    azurite.python("box.create_container()");
    let listen = rtmp(port::free(), "live/cam");
    // Some five times as much as comes.
    let more = json!({ "segmentSeconds": 60, "uploadKilobitsPerSecond": 600 });
    let mut document = document(&listen, &azurite.url(), &json!({ "accountKey": KEY }), more);
    document["flows"]["cam"]["input"]["idleTimeoutSeconds"] = json!(600);
    document["logLevel"] = json!("info");
    let setup = clock.put_into(Setup::new("mp4-recorder").twin(&document));
    let _memory = in_memory(&setup);
    let module = setup.start_listening();
    let clip = Clip::OnePictureASecond.tags();
    let publish = || Publisher::to(&listen).run_faster(clip.clone(), SPEED);
    let stored = || module.metrics().sum("av_segments_stored_total", &[]).unwrap_or(0.0);

    let began = Instant::now();
    let publishing = publish();
    module.wait_status("/flows/cam/outputs/cloud/frames", |frames| frames.as_u64() > Some(0));
    wait::until_true("a file is stored", wait::LONG, || stored() >= 1.0);
    azurite.end();
    let error = module.wait_status("/flows/cam/outputs/cloud/error", Value::is_string);
    assert!(error.as_str().unwrap().starts_with("flows.cam.outputs.cloud.store: "), "{error}");
    // A third of the time nobody listens, a third somebody hangs up, and a third nobody listens again.
    let wait_for = |files: u64| {
        let limit = Duration::from_secs(3 * 60 * files / u64::from(SPEED)) + wait::LONG;
        wait::until_true("files wait", limit, || unsent(&module) >= files);
    };
    wait_for(minutes / 3);
    let first_waits = Instant::now();
    let refusing = Refusing::start(port);
    wait_for(2 * minutes / 3);
    let asked = refusing.end();
    wait_for(minutes);
    assert_eq!(module.status()["summary"]["drainSeconds"], Value::Null, "nothing goes");
    let mut published = publishing.stop();

    // All is as it is told.
    module.wait_value("/flows/cam/input/state", "waiting");
    let files = || (spooled(&module).len() as u64, bytes_of(&spooled(&module)));
    wait::until_true("the last file is whole", wait::LONG, || unsent(&module) == files().0);
    let least = first_waits.elapsed().as_secs();
    let summary = module.status()["summary"].clone();
    let (count, bytes) = files();
    is_told(&module, &summary, "unsentFiles", "av_spool_files", count);
    is_told(&module, &summary, "spoolBytes", "av_spool_bytes", bytes);
    let oldest = summary["oldestUnsentSeconds"].as_u64().unwrap();
    assert!((least..=began.elapsed().as_secs()).contains(&oldest), "{least} s, {summary}");
    // At least each minute, and at most each three quarters of one.
    let (least, most) = (minutes / 6, minutes);
    assert!((least..=most).contains(&(asked as u64)), "asked {asked} times in {} minutes", minutes / 3);

    // It is back, and so is the publisher.
    let publishing = publish();
    let azurite = Azurite::start(folder.path(), port);
    let drains = |left: &Value| left.as_u64().is_some_and(|left| (1..minutes * 60).contains(&left));
    module.wait_status("/summary/drainSeconds", drains);
    wait::until_true("the backlog is stored", 5 * wait::LONG, || unsent(&module) == 0);
    published.0.extend(publishing.stop().0);
    module.wait_value("/flows/cam/input/state", "waiting");
    wait::until_true("all is stored", wait::LONG, || module.status()["summary"]["spoolBytes"] == 0);
    module.wait_value("/flows/cam/outputs/cloud/error", Value::Null);

    // In the order in which they were stored the files are what was published. By their names they are not quite: those
    // are by the wall clock, which runs as ever.
    let mut blobs = azurite.blobs(&folder.path().join("read"));
    let log = module.log();
    let order: Vec<_> = log.lines().filter(|line| line.contains("stored azblob")).collect();
    assert_eq!(order.len(), blobs.len());
    blobs.sort_by_key(|blob| {
        let name = format!("/{} flow=", blob["name"].as_str().unwrap());
        order.iter().position(|line| line.contains(&name))
    });
    must_hold(&blobs, &published);
    assert!(blobs.iter().all(|blob| blob["same"] == true), "{blobs:?}");
    let staged = azurite.staged();
    let different: std::collections::BTreeSet<_> = staged.iter().collect();
    assert_eq!(staged.len(), different.len(), "no block is sent twice");
    for metric in ["av_output_frames_dropped_total", "av_spool_dropped_total"] {
        assert_eq!(module.metrics().sum(metric, &[]).unwrap_or(0.0), 0.0, "{metric}");
    }
    assert_eq!(module.terminate().status.code(), Some(0));
}

fn bytes_of(files: &[PathBuf]) -> u64 {
    files.iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// The upload that a block belongs to: 24 hexadecimal digits of its id, as base64 has them.
fn upload_of(block: &str) -> String {
    block[..32].to_owned()
}

#[test]
fn blocks_that_the_store_may_have_forgotten_while_it_was_away_are_sent_again() {
    needs!(Ffmpeg, Azurite, BlobSdk);
    let Some(clock) = FakeClock::of("+0") else {
        return tool::skip("recorder_away::blocks_that_the_store_may", "libfaketime is not installed");
    };
    let folder = tempfile::tempdir().unwrap();
    let port = port::free();
    let azurite = Azurite::start(folder.path(), port);
    azurite.python("box.create_container()");
    let listen = rtmp(port::free(), "live/cam");
    let url = azurite.url();
    let with = |rate: u32| {
        let more = json!({ "segmentSeconds": 60, "uploadKilobitsPerSecond": rate });
        document(&listen, &url, &json!({ "accountKey": KEY }), more)
    };
    let module = clock.put_into(Setup::new("mp4-recorder")).twin(&with(4000)).start();
    let published = PublishWith::Ffmpeg.start(Clip::Heavy, &listen).finish();
    wait::until_true("some blocks are there", wait::LONG, || azurite.staged().len() >= 4);
    let before = upload_of(&azurite.staged()[0]);
    azurite.end();
    module.wait_status("/flows/cam/outputs/cloud/error", Value::is_string);
    // It is a week later.
    clock.set("+7d");
    module.set_twin(&with(0));
    let azurite = Azurite::start(folder.path(), port);
    wait::until_true("all is stored", 2 * wait::LONG, || module.status()["summary"]["spoolBytes"] == 0);
    let blobs = azurite.blobs(&folder.path().join("read"));
    must_hold(&blobs, &published);
    assert!(blobs.len() == 1 && blobs[0]["same"] == true, "{blobs:?}");
    let staged = azurite.staged();
    assert_ne!(upload_of(&staged[0]), before);
    let different: std::collections::BTreeSet<_> = staged.iter().collect();
    assert!(different.len() == staged.len(), "{staged:?}");
    assert_eq!(module.terminate().status.code(), Some(0));
}
