//! Old segments on disk, so that a window of hours takes no memory of hours, and those of a short one that are not listed
//! any more take none. The latter are deleted again before the system has written them.
//!
//! Each stream has a folder below the state dir: its segments, its init segments, and an index with a line for each segment
//! that was listed. A segment is written before its line, so what the index names is there. One thread does all of it:
//! nobody else waits for a disk. Nothing is synced: what a crash of the process leaves is complete, and after a loss of
//! power what is not whole is left out.

mod unwritten;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use av_edge::StateDir;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::live::{Attic, Fate, Fleeting, Held, Map, Pieces, Record, Restored, Slip};
use crate::options::Variant;

const FOLDER: &str = "window";
const INDEX: &str = "index";
/// Segments that may wait to be written.
const MOST_WAITING: usize = 256;
/// What stays free on the disk: that much, or a tenth of a smaller one.
const LEFT_FREE: u64 = 1 << 30;
/// Streams that were not seen so long after the start are not configured any more.
const RETIRED: Duration = Duration::from_mins(10);
/// A disk that hangs keeps no stream from being served: so long no job, of whatever stream, was done.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at how much the system leaves unwritten.
const LOOK: Duration = Duration::from_mins(1);
/// Lines of an index that may be of segments that are gone.
const MOST_STALE: usize = 1024;
/// A longer index is none of ours.
const MOST_INDEX: u64 = 64 << 20;

/// The disk, for all streams of the module.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    jobs: SyncSender<Job>,
    seen: Seen,
    done: Arc<AtomicU64>,
    fleeting: Arc<Fleeting>,
}

/// Folders of streams that were seen, and how often.
type Seen = Arc<Mutex<HashMap<PathBuf, u64>>>;

enum Job {
    Begin(Arc<Path>, String),
    Segment {
        folder: Arc<Path>,
        path: PathBuf,
        record: Record,
        pieces: Pieces,
        slip: Arc<Slip>,
    },
    Map(Arc<Path>, Arc<Map>),
    Reserve(Arc<Path>, u64),
    Remove(PathBuf, Arc<Path>),
    Load {
        folder: Arc<Path>,
        ending: &'static str,
        name: Option<String>,
        answer: oneshot::Sender<Option<Restored>>,
    },
    /// Unless the stream was seen again.
    Clear(Arc<Path>, u64),
}

/// A line of an index.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    /// The playlist's name: with another one, another playlist begins.
    Playlist(String),
    Segment(Record),
    Reserved(u64),
}

impl Disk {
    /// Nothing is made before something is kept.
    pub(crate) fn new(state: &StateDir) -> Arc<Self> {
        let (jobs, waiting) = sync_channel(MOST_WAITING);
        let root = state.path().join(FOLDER);
        let seen = Seen::default();
        let done = Arc::<AtomicU64>::default();
        let fleeting = Arc::<Fleeting>::default();
        fleeting.set_most(unwritten::most());
        let worker = Worker {
            fleeting: fleeting.clone(),
            looked: Instant::now(),
            root: root.clone(),
            seen: seen.clone(),
            done: done.clone(),
            failing: false,
            stale: Vec::new(),
        };
        let spawned = std::thread::Builder::new().name("hls-disk".into()).spawn(move || worker.run(&waiting));
        if let Err(error) = spawned {
            tracing::warn!(
                "the thread that writes old segments can't be started, so windows are only as long \
                            as memory allows: {error}"
            );
        }
        Arc::new(Self { root, jobs, seen, done, fleeting })
    }

    /// The folder of the stream that is served at `url`.
    pub(crate) fn folder(&self, url: &str, variant: Variant) -> Arc<Folder> {
        let digest = Sha256::digest(url.as_bytes());
        let name = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect::<String>();
        let dir = self.root.join(name);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let times = seen.entry(dir.clone()).or_default();
        *times = times.saturating_add(1);
        Arc::new(Folder {
            dir: dir.into(),
            ending: variant.ending(),
            jobs: self.jobs.clone(),
            done: self.done.clone(),
            fleeting: self.fleeting.clone(),
            times: *times,
        })
    }
}

/// What is kept of one stream.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: Arc<Path>,
    ending: &'static str,
    jobs: SyncSender<Job>,
    /// Jobs that were done for any stream.
    done: Arc<AtomicU64>,
    fleeting: Arc<Fleeting>,
    /// How often the stream had been seen then.
    times: u64,
}

impl Folder {
    /// Where a segment lies.
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number}.{}", self.ending))
    }

    /// What an earlier process has left of the playlist of that name. What else there is is deleted.
    pub(crate) async fn load(&self, name: Option<String>) -> Option<Restored> {
        let (answer, mut loaded) = oneshot::channel();
        // The queue is short, and only full where the disk hangs: then nothing is restored.
        let (folder, ending) = (self.dir.clone(), self.ending);
        self.jobs.try_send(Job::Load { folder, ending, name, answer }).ok()?;
        // After a restart all streams are loaded, one by one.
        let mut done = self.done.load(Ordering::Relaxed);
        loop {
            if let Ok(loaded) = tokio::time::timeout(PATIENCE, &mut loaded).await {
                return loaded.ok()?;
            }
            let before = std::mem::replace(&mut done, self.done.load(Ordering::Relaxed));
            if done == before {
                return None;
            }
        }
    }

    /// The stream is not configured any more.
    pub(crate) fn clear(&self) {
        let _ = self.jobs.try_send(Job::Clear(self.dir.clone(), self.times));
    }
}

impl Attic for Folder {
    fn begin(&self, name: &str) {
        let _ = self.jobs.try_send(Job::Begin(self.dir.clone(), name.to_owned()));
    }

    fn keep(&self, record: Record, pieces: Pieces) -> Arc<Slip> {
        let slip = Arc::new(Slip::default());
        let (folder, path) = (self.dir.clone(), self.path(record.number));
        if self.jobs.try_send(Job::Segment { folder, path, record, pieces, slip: slip.clone() }).is_err() {
            slip.settle(Fate::Failed);
        }
        slip
    }

    fn hold(&self, len: usize) -> Option<Held> {
        self.fleeting.hold(len)
    }

    fn keep_map(&self, map: &Arc<Map>) {
        let _ = self.jobs.try_send(Job::Map(self.dir.clone(), map.clone()));
    }

    fn reserve(&self, below: u64) {
        let _ = self.jobs.try_send(Job::Reserve(self.dir.clone(), below));
    }

    fn remove(&self, number: u64) -> bool {
        // Without a worker there is nobody to tell again.
        let sent = self.jobs.try_send(Job::Remove(self.path(number), self.dir.clone()));
        !matches!(sent, Err(TrySendError::Full(_)))
    }
}

struct Worker {
    root: PathBuf,
    seen: Seen,
    done: Arc<AtomicU64>,
    fleeting: Arc<Fleeting>,
    /// When it was last seen how much the system leaves unwritten.
    looked: Instant,
    /// The last write failed, and it was said.
    failing: bool,
    /// Lines of segments that are gone, by folder.
    stale: Vec<(Arc<Path>, usize)>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        let retired = Instant::now() + RETIRED;
        let mut swept = false;
        loop {
            let job = if swept {
                jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                jobs.recv_timeout(retired.saturating_duration_since(Instant::now()))
            };
            match job {
                Ok(job) => {
                    if self.looked.elapsed() >= LOOK {
                        self.looked = Instant::now();
                        self.fleeting.set_most(unwritten::most());
                    }
                    self.take(job);
                    self.done.fetch_add(1, Ordering::Relaxed);
                }
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    swept = true;
                    let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    sweep(&self.root, &seen);
                }
            }
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Begin(folder, name) => {
                let done = std::fs::create_dir_all(&folder)
                    .and_then(|()| write(&folder.join(INDEX), &[Line::Playlist(name)]));
                self.said(&folder, done);
            }
            Job::Segment { folder, path, record, pieces, slip } => {
                let fate = match room(&folder, pieces.len()) {
                    Ok(true) => self.segment(&folder, &path, &record, &pieces),
                    Ok(false) => Fate::NoRoom,
                    Err(error) => self.said(&folder, Err(error)),
                };
                if fate != Fate::Kept && record.len > 0 {
                    // It was listed all the same.
                    let _ = append(&folder, &Line::Segment(Record { len: 0, ..record }));
                }
                slip.settle(fate);
            }
            Job::Map(folder, map) => {
                let path = folder.join(&map.name);
                let aside = path.with_extension("new");
                let done = std::fs::create_dir_all(&folder)
                    .and_then(|()| std::fs::write(&aside, &map.bytes))
                    .and_then(|()| std::fs::rename(aside, path));
                self.said(&folder, done);
            }
            Job::Reserve(folder, below) => {
                let done = append(&folder, &Line::Reserved(below));
                self.said(&folder, done);
            }
            Job::Remove(path, folder) => {
                let _ = std::fs::remove_file(path);
                self.removed(&folder);
            }
            Job::Load { folder, ending, name, answer } => {
                let loaded = load(&folder, ending).filter(|loaded| Some(&loaded.name) == name.as_ref());
                if loaded.is_none() {
                    let _ = std::fs::remove_dir_all(&folder);
                }
                let _ = answer.send(loaded);
            }
            Job::Clear(folder, times) => {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.get(&*folder) != Some(&times) {
                    return;
                }
                drop(seen);
                let _ = std::fs::remove_dir_all(&folder);
            }
        }
    }

    fn segment(&mut self, folder: &Path, path: &Path, record: &Record, pieces: &Pieces) -> Fate {
        let written = (|| {
            if pieces.len() > 0 {
                let mut file = io::BufWriter::with_capacity(1 << 18, File::create(path)?);
                for piece in pieces.iter() {
                    file.write_all(piece)?;
                }
                file.flush()?;
            }
            append(folder, &Line::Segment(record.clone()))
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(path);
        }
        self.said(folder, written)
    }

    /// Says what is wrong when it begins, not at each segment.
    fn said(&mut self, folder: &Path, done: io::Result<()>) -> Fate {
        match done {
            Ok(()) => {
                self.failing = false;
                Fate::Kept
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    let folder = folder.display();
                    tracing::warn!(
                        "{folder} can't be written, so old segments stay in memory, and windows are only as \
                         long as that allows: {error}; check that user 10001 can write there"
                    );
                }
                Fate::Failed
            }
        }
    }

    /// Writes an index anew when most of it is of segments that are gone.
    fn removed(&mut self, folder: &Arc<Path>) {
        let at = self.stale.iter().position(|(known, _)| known == folder);
        let at = at.unwrap_or_else(|| {
            self.stale.push((folder.clone(), 0));
            self.stale.len() - 1
        });
        let Some((_, count)) = self.stale.get_mut(at) else { return };
        *count += 1;
        if *count > MOST_STALE {
            self.stale.swap_remove(at);
            let there = |record: &Record| record.len == 0 || exists(folder, record.number);
            let done = read(folder).and_then(|index| {
                let mut records = index.records;
                let first = records.iter().position(there).unwrap_or(records.len());
                records.drain(..first);
                rewrite(folder, index.name, &records, index.reserved)
            });
            self.said(folder, done);
        }
    }
}

/// Whether a segment lies there, whatever it ends with.
fn exists(folder: &Path, number: u64) -> bool {
    ["m4s", "ts"].iter().any(|ending| folder.join(format!("{number}.{ending}")).exists())
}

/// Whether so many bytes leave enough for everybody else.
fn room(folder: &Path, bytes: usize) -> io::Result<bool> {
    let stat = rustix::fs::statvfs(folder)?;
    let (free, all) =
        (stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize));
    Ok(free >= LEFT_FREE.min(all / 10).saturating_add(bytes as u64))
}

fn append(folder: &Path, line: &Line) -> io::Result<()> {
    let mut file = File::options().append(true).open(folder.join(INDEX))?;
    file.write_all(&text(line)?)
}

fn text(line: &Line) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

/// Replaces an index.
fn write(path: &Path, lines: &[Line]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = io::BufWriter::new(File::create(&aside)?);
    for line in lines {
        file.write_all(&text(line)?)?;
    }
    file.flush()?;
    std::fs::rename(aside, path)
}

fn rewrite(folder: &Path, name: String, records: &[Record], reserved: u64) -> io::Result<()> {
    let mut lines = vec![Line::Playlist(name)];
    lines.extend(records.iter().cloned().map(Line::Segment));
    lines.push(Line::Reserved(reserved));
    write(&folder.join(INDEX), &lines)
}

/// An index, as it is written.
struct Index {
    name: String,
    records: Vec<Record>,
    reserved: u64,
}

fn read(folder: &Path) -> io::Result<Index> {
    let path = folder.join(INDEX);
    if std::fs::metadata(&path)?.len() > MOST_INDEX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut index = Index { name: String::new(), records: Vec::new(), reserved: 0 };
    for line in std::fs::read(path)?.split(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(Line::Playlist(name)) => index = Index { name, records: Vec::new(), reserved: 0 },
            Ok(Line::Reserved(below)) => index.reserved = index.reserved.max(below),
            Ok(Line::Segment(record)) => {
                index.reserved = index.reserved.max(record.number.saturating_add(1));
                match index.records.binary_search_by_key(&record.number, |known| known.number) {
                    // It was kept at last.
                    Ok(at) => index.records.splice(at..=at, [record]).for_each(drop),
                    Err(at) => index.records.insert(at, record),
                }
            }
            // The last line may be half of one.
            Err(_) => {}
        }
    }
    Ok(index)
}

/// What can be listed again. What can't is deleted.
fn load(folder: &Path, ending: &str) -> Option<Restored> {
    let Index { name, mut records, reserved } = read(folder).ok()?;
    let path = |number: u64| folder.join(format!("{number}.{ending}"));
    let mut maps = Vec::new();
    let mut wanted = records.iter().filter_map(|record| record.map.clone()).collect::<Vec<_>>();
    wanted.sort_unstable();
    wanted.dedup();
    for name in wanted {
        let map = std::fs::read(folder.join(&name)).ok().map(|bytes| Map::of(bytes.into()));
        if let Some(map) = map.filter(|map| map.name == name) {
            maps.push(Arc::new(map));
            continue;
        }
        // Without it nothing can be made of its segments.
        for record in records.iter_mut().filter(|record| record.map.as_ref() == Some(&name)) {
            (record.map, record.len) = (None, 0);
        }
    }
    for record in &mut records {
        let len = std::fs::metadata(path(record.number)).map_or(0, |file| file.len());
        if len != record.len as u64 {
            record.len = 0;
        }
    }
    // Only what follows the last hole can be listed, and a gap in front is worth nothing.
    let follows =
        |pair: &[Record]| matches!(pair, [one, next] if next.number == one.number.saturating_add(1));
    let hole = records.windows(2).rposition(|pair| !follows(pair));
    records.drain(..hole.map_or(0, |at| at + 1));
    let media = records.iter().position(|record| record.len > 0).unwrap_or(records.len());
    records.drain(..media);
    maps.retain(|map| records.iter().any(|record| record.map.as_ref() == Some(&map.name)));
    tidy(folder, &path, &records, &maps);
    rewrite(folder, name.clone(), &records, reserved).ok()?;
    Some(Restored { name, records, maps, reserved })
}

/// Deletes files that nothing names.
fn tidy(folder: &Path, path: &dyn Fn(u64) -> PathBuf, records: &[Record], maps: &[Arc<Map>]) {
    let named = records.iter().filter(|record| record.len > 0).map(|record| path(record.number));
    let named = named.chain(maps.iter().map(|map| folder.join(&map.name)));
    let named = named.chain([folder.join(INDEX)]).collect::<HashSet<_>>();
    let Ok(files) = std::fs::read_dir(folder) else { return };
    for file in files.flatten().filter(|file| !named.contains(&file.path())) {
        let _ = std::fs::remove_file(file.path());
    }
}

/// Deletes folders of streams that are not configured any more.
fn sweep(root: &Path, seen: &HashMap<PathBuf, u64>) {
    let Ok(folders) = std::fs::read_dir(root) else { return };
    for folder in folders.flatten().filter(|folder| !seen.contains_key(&folder.path())) {
        let _ = std::fs::remove_dir_all(folder.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(dir: &Path) -> Arc<Disk> {
        Disk::new(&StateDir::new(dir.into()))
    }

    fn record(number: u64, len: usize) -> Record {
        let map = (len > 0).then(|| map().name.clone());
        Record {
            number,
            duration: 2_000_000_000,
            breaks: 3,
            discontinuity: number == 12,
            map,
            utc: None,
            len,
        }
    }

    fn media(len: usize) -> Pieces {
        Pieces::new(vec![vec![7; len - 1].into(), vec![8].into()])
    }

    fn settled(slip: &Slip) -> Fate {
        let start = Instant::now();
        while slip.fate() == Fate::Pending {
            assert!(start.elapsed() < Duration::from_secs(30));
            std::thread::yield_now();
        }
        slip.fate()
    }

    fn kept(folder: &Folder, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            assert_eq!(settled(&folder.keep(record(number, 100), media(100))), Fate::Kept);
        }
    }

    fn map() -> Arc<Map> {
        Arc::new(Map::of(vec![1; 10].into()))
    }

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let folder = disk(dir.path()).folder("http://x/live", Variant::Fmp4);
        folder.begin("fmp4-2");
        folder.keep_map(&map());
        folder.reserve(20);
        kept(&folder, 12..15);
        assert_eq!(settled(&folder.keep(record(15, 0), Pieces::default())), Fate::Kept);
        let again = disk(dir.path()).folder("http://x/live", Variant::Fmp4);
        let Restored { name, records, maps, reserved } = again.load(Some("fmp4-2".into())).await.unwrap();
        assert_eq!((name.as_str(), reserved, maps), ("fmp4-2", 20, vec![map()]));
        let lens = records.iter().map(|record| (record.number, record.len)).collect::<Vec<_>>();
        assert_eq!(lens, [(12, 100), (13, 100), (14, 100), (15, 0)]);
        assert_eq!(std::fs::read(again.path(13)).unwrap().len(), 100);
    }

    #[tokio::test]
    async fn what_is_not_whole_is_a_gap_and_what_lies_before_a_hole_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let folder = disk(dir.path()).folder("http://x/live", Variant::Fmp4);
        folder.begin("fmp4-2");
        folder.keep_map(&map());
        kept(&folder, [12, 14, 15, 16]);
        std::fs::write(folder.path(15), b"half").unwrap();
        std::fs::write(folder.path(99), b"of nobody").unwrap();
        let index = folder.dir.join(INDEX);
        let mut torn = std::fs::read(&index).unwrap();
        torn.extend(b"{\"segment\":{\"num");
        std::fs::write(&index, torn).unwrap();
        let restored = folder.load(Some("fmp4-2".into())).await.unwrap();
        let lens = restored.records.iter().map(|record| (record.number, record.len)).collect::<Vec<_>>();
        assert_eq!(lens, [(14, 100), (15, 0), (16, 100)]);
        assert!(!folder.path(12).exists() && !folder.path(99).exists() && folder.path(14).exists());
    }

    #[tokio::test]
    async fn segments_whose_init_segment_is_not_whole_are_gaps() {
        let dir = tempfile::tempdir().unwrap();
        let folder = disk(dir.path()).folder("http://x/live", Variant::Fmp4);
        folder.begin("fmp4-2");
        let whole = Arc::new(Map::of(vec![2; 10].into()));
        folder.keep_map(&map());
        folder.keep_map(&whole);
        kept(&folder, [12]);
        let of_whole = |number| Record { map: Some(whole.name.clone()), ..record(number, 100) };
        assert_eq!(settled(&folder.keep(of_whole(13), media(100))), Fate::Kept);
        kept(&folder, [14]);
        std::fs::write(folder.dir.join(&map().name), b"").unwrap();
        let restored = folder.load(Some("fmp4-2".into())).await.unwrap();
        let lens = restored.records.iter().map(|record| (record.number, record.len)).collect::<Vec<_>>();
        assert_eq!((lens, restored.maps), (vec![(13, 100), (14, 0)], vec![whole]));
        assert!(!folder.dir.join(&map().name).exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_waits_while_others_are_loaded_and_not_for_a_disk_that_hangs() {
        let (jobs, waiting) = sync_channel(MOST_WAITING);
        let done = Arc::<AtomicU64>::default();
        let dir: Arc<Path> = Path::new("/nowhere").into();
        let fleeting = Arc::default();
        let folder = Folder { dir, ending: "m4s", jobs, done: done.clone(), fleeting, times: 1 };
        let others = async {
            for _ in 0..30 {
                tokio::time::sleep(PATIENCE / 2).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
            let Ok(Job::Load { answer, .. }) = waiting.try_recv() else { panic!("nothing is to be loaded") };
            answer.send(Some(Restored::default())).unwrap();
        };
        let (loaded, ()) = tokio::join!(folder.load(None), others);
        assert!(loaded.is_some());
        assert!(folder.load(None).await.is_none(), "it hangs");
    }

    #[test]
    fn folders_of_streams_that_are_gone_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&other).unwrap();
        sweep(dir.path(), &HashMap::from([(one.clone(), 1)]));
        assert!(one.exists() && !other.exists());
    }

    #[tokio::test]
    async fn a_stream_that_retires_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk(dir.path());
        let folder = disk.folder("http://x/live", Variant::Fmp4);
        folder.begin("fmp4-2");
        folder.keep_map(&map());
        kept(&folder, 1..3);
        // Another output of the same address has it.
        let again = disk.folder("http://x/live", Variant::Fmp4);
        folder.clear();
        assert!(again.load(Some("fmp4-2".into())).await.is_some());
        again.clear();
        assert!(folder.load(Some("fmp4-2".into())).await.is_none());
        assert!(!folder.dir.exists());
    }

    #[tokio::test]
    async fn an_index_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let folder = disk(dir.path()).folder("http://x/live", Variant::Fmp4);
        folder.begin("fmp4-2");
        folder.keep_map(&map());
        for number in 1..3000 {
            kept(&folder, [number]);
            if number > 10 {
                folder.remove(number - 10);
            }
        }
        let size = std::fs::metadata(folder.dir.join(INDEX)).unwrap().len();
        assert!(size < 200 * (MOST_STALE as u64 + 100), "{size}");
        let restored = folder.load(Some("fmp4-2".into())).await.unwrap();
        assert_eq!(restored.records.last().unwrap().number, 2999);
        assert!(restored.records.len() <= 11);
    }
}
