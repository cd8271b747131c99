//! What must outlive the process: which segment numbers were used, and what playlists have promised.
//!
//! One number for the whole module is enough: every stream begins above all that were used by any. A new number is also
//! never below the seconds since 2020, so that a lost state dir gives no old numbers out again, as long as the clock is
//! right; with the state dir a clock that steps does no harm.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use av_edge::StateDir;
use serde::{Deserialize, Serialize};

use crate::live::{Looks, Memory, Numbers};
use crate::options::Shaped;

const FILE: &str = "hls.json";
const MOST_BYTES: u64 = 1 << 20;
/// 2020-01-01 in Unix time.
const EPOCH: u64 = 1_577_836_800;
/// No clock makes numbers larger than that: 32 bits are all that some players have.
const MOST_BY_CLOCK: u64 = 1 << 30;
/// Numbers that are marked as used at once, so that the file is seldom written.
const BLOCK: u64 = 128;
/// And how many of them are left when the next are.
const LEFT: u64 = 64;
/// The same of discontinuities, which are few: and their numbers have to stay small.
const BLOCK_OF_BREAKS: u64 = 16;
const LEFT_OF_BREAKS: u64 = 8;
/// Playlists that are remembered.
const MOST_PROMISES: usize = 512;

/// Shared by all streams of the module.
#[derive(Debug)]
pub(crate) struct Store {
    state: StateDir,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    kept: Kept,
    /// Below this all are used.
    used: u64,
    /// The same of discontinuities.
    broken: u64,
    /// The file is older than `kept`.
    changed: bool,
    writing: bool,
}

/// The file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// All numbers below this may have been used.
    reserved: u64,
    /// The same of discontinuities.
    #[serde(default)]
    breaks: u64,
    /// Least recently used first.
    playlists: Vec<Promise>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Promise {
    url: String,
    /// How it was configured then.
    shape: String,
    numbers: Numbers,
    name: String,
    /// What the stream was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    looks: Option<Looks>,
    /// The playlist has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ended: bool,
}

impl Store {
    /// What an earlier process has left.
    pub(crate) fn open(state: StateDir) -> Arc<Self> {
        let kept = match state.read(FILE, MOST_BYTES) {
            Ok(None) => Kept::default(),
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(
                    "{FILE} of the state dir can't be read, so numbers continue from the clock: \
                                {error}"
                );
                Kept::default()
            }),
            Err(error) => {
                tracing::warn!(
                    "{FILE} of the state dir can't be read, so numbers continue from the clock: \
                                {error}"
                );
                Kept::default()
            }
        };
        let (used, broken) = (kept.reserved, kept.breaks);
        Arc::new(Self {
            state,
            inner: Mutex::new(Inner { kept, used, broken, changed: false, writing: false }),
        })
    }

    /// For the stream that is served at `url`.
    pub(crate) fn stream(self: &Arc<Self>, url: String) -> StreamMemory {
        StreamMemory { store: self.clone(), url }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first_number(self: &Arc<Self>, now: SystemTime) -> u64 {
        let number = self.lock().used.max(since_epoch(now).min(MOST_BY_CLOCK)).max(1);
        self.used(number.saturating_add(1), 0);
        number
    }

    /// At least one for each day since 2020: the clock helps where the state dir was lost.
    fn first_discontinuity(self: &Arc<Self>, now: SystemTime) -> u64 {
        let number = self.lock().broken.max(since_epoch(now).min(MOST_BY_CLOCK) / 86_400);
        self.used(0, number.saturating_add(1));
        number
    }

    fn used(self: &Arc<Self>, number: u64, discontinuities: u64) {
        let mut inner = self.lock();
        inner.used = inner.used.max(number);
        inner.broken = inner.broken.max(discontinuities);
        if inner.used.saturating_add(LEFT) > inner.kept.reserved {
            inner.kept.reserved = inner.used.saturating_add(BLOCK);
            inner.changed = true;
        }
        if inner.broken.saturating_add(LEFT_OF_BREAKS) > inner.kept.breaks {
            inner.kept.breaks = inner.broken.saturating_add(BLOCK_OF_BREAKS);
            inner.changed = true;
        }
        drop(inner);
        self.write();
    }

    fn promise(self: &Arc<Self>, mut promise: Promise) {
        let mut inner = self.lock();
        let playlists = &mut inner.kept.playlists;
        let known = playlists.iter().find(|other| other.url == promise.url);
        promise.looks = promise.looks.or_else(|| known?.looks.clone());
        if playlists.last() == Some(&promise) {
            return;
        }
        playlists.retain(|other| other.url != promise.url);
        if playlists.len() >= MOST_PROMISES {
            playlists.remove(0);
        }
        playlists.push(promise);
        inner.changed = true;
        drop(inner);
        self.write();
    }

    /// Changes what is known of a playlist; `change` says whether it has.
    fn change(self: &Arc<Self>, url: &str, change: impl FnOnce(&mut Promise) -> bool) {
        let mut inner = self.lock();
        let promise = inner.kept.playlists.iter_mut().find(|promise| promise.url == url);
        if !promise.is_some_and(change) {
            return;
        }
        inner.changed = true;
        drop(inner);
        self.write();
    }

    /// Writes what has changed, once nobody else is at it.
    fn write(self: &Arc<Self>) {
        let mut inner = self.lock();
        if !inner.changed || inner.writing {
            return;
        }
        inner.writing = true;
        drop(inner);
        let store = self.clone();
        tokio::task::spawn_blocking(move || {
            loop {
                let mut inner = store.lock();
                if !std::mem::take(&mut inner.changed) {
                    inner.writing = false;
                    return;
                }
                let kept = inner.kept.clone();
                drop(inner);
                let written = serde_json::to_vec(&kept)
                    .map_err(std::io::Error::from)
                    .and_then(|bytes| store.state.write(FILE, &bytes));
                if let Err(error) = written {
                    let dir = store.state.path().display();
                    tracing::warn!(
                        "{FILE} can't be written to {dir}, so only the clock keeps numbers rising: {error}"
                    );
                }
            }
        });
    }
}

/// What one stream remembers.
#[derive(Debug)]
pub(crate) struct StreamMemory {
    store: Arc<Store>,
    url: String,
}

impl StreamMemory {
    fn of<T>(&self, shaped: Shaped, wanted: impl FnOnce(&Promise) -> T) -> Option<T> {
        let shape = described(shaped);
        let inner = self.store.lock();
        let mut playlists = inner.kept.playlists.iter();
        playlists.find(|promise| promise.url == self.url && promise.shape == shape).map(wanted)
    }
}

impl Memory for StreamMemory {
    fn first_number(&mut self) -> u64 {
        self.store.first_number(SystemTime::now())
    }

    fn first_discontinuity(&mut self) -> u64 {
        self.store.first_discontinuity(SystemTime::now())
    }

    fn used(&mut self, number: u64, discontinuities: u64) {
        self.store.used(number, discontinuities);
    }

    fn promised(&self, shaped: Shaped) -> Option<(Numbers, String)> {
        self.of(shaped, |promise| (promise.numbers, promise.name.clone()))
    }

    fn promise(&mut self, shaped: Shaped, numbers: Numbers, name: &str) {
        let shape = described(shaped);
        let (url, name) = (self.url.clone(), name.to_owned());
        self.store.promise(Promise { url, shape, numbers, name, looks: None, ended: false });
    }

    fn looked(&self, shaped: Shaped) -> Option<Looks> {
        self.of(shaped, |promise| promise.looks.clone())?
    }

    fn looks(&mut self, looks: &Looks) {
        self.store.change(&self.url, |promise| {
            let is_new = promise.looks.as_ref() != Some(looks);
            promise.looks = Some(looks.clone());
            is_new
        });
    }

    fn has_ended(&self, shaped: Shaped) -> bool {
        self.of(shaped, |promise| promise.ended).unwrap_or(false)
    }

    fn end(&mut self) {
        self.store.change(&self.url, |promise| !std::mem::replace(&mut promise.ended, true));
    }
}

fn since_epoch(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs().saturating_sub(EPOCH)
}

/// What of a configuration makes a playlist another one.
fn described(shaped: Shaped) -> String {
    let Shaped { variant, segment, part, window: _ } = shaped;
    let variant = variant.as_str();
    format!("{variant} {} {}", segment.as_millis(), part.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Variant;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Writes what is owed, as a process does that lives on for a moment.
    async fn settled(store: &Arc<Store>) {
        while store.lock().writing {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn numbers_never_go_back_not_after_a_crash_and_not_when_the_clock_steps() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(StateDir::new(dir.path().into()));
        let store = open();
        let first = store.first_number(at(EPOCH + 1000));
        assert_eq!(first, 1000);
        for number in first..first + 500 {
            store.used(number + 1, 0);
        }
        let second = store.first_number(at(EPOCH + 1001));
        assert!(second >= first + 500, "{second}");
        settled(&store).await;
        drop(store);
        // The process was killed, and the clock is that of 1970.
        let after = open().first_number(at(5));
        assert!(after > second, "{after}");
    }

    #[tokio::test]
    async fn discontinuities_never_go_back_either_and_stay_small() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(StateDir::new(dir.path().into()));
        let mut last = 0;
        for crash in 0..100 {
            let store = open();
            let first = store.first_discontinuity(at(EPOCH + 2500 * 86_400));
            assert!(first > last, "{first} after {last}");
            last = first + crash % 20;
            for number in first..=last {
                store.used(0, number + 1);
                settled(&store).await;
            }
        }
        assert!((2500..10_000).contains(&last), "{last}");
    }

    #[tokio::test]
    async fn what_a_stream_was_made_of_is_known_after_a_crash_as_long_as_its_url_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(StateDir::new(dir.path().into()));
        let shaped = |part| Shaped {
            variant: Variant::LowLatency,
            segment: Duration::from_secs(2),
            part: Duration::from_millis(part),
            window: Duration::from_secs(600),
        };
        let looks = Looks { codecs: "avc1.64001f,Opus".into(), size: Some((1280, 720)), fps: Some(29.97) };
        let numbers = Numbers::choose(shaped(200), Duration::from_millis(40), Duration::from_secs(1));
        let store = open();
        let mut memory = store.stream("http://0.0.0.0:80/live/cam".into());
        memory.looks(&looks);
        assert_eq!(memory.looked(shaped(200)), None, "nothing was promised");
        memory.promise(shaped(200), numbers, "a");
        memory.looks(&looks);
        memory.promise(shaped(300), numbers, "b");
        settled(&store).await;
        drop((memory, store));
        let memory = open().stream("http://0.0.0.0:80/live/cam".into());
        assert_eq!((memory.looked(shaped(300)), memory.looked(shaped(200))), (Some(looks), None));
        assert_eq!(open().stream("http://0.0.0.0:80/live/other".into()).looked(shaped(300)), None);
    }

    #[tokio::test]
    async fn without_a_state_dir_numbers_are_those_of_the_clock_and_rise() {
        let store = Store::open(StateDir::new("/proc/no-such-place".into()));
        assert_eq!(store.first_number(at(0)), 1);
        assert_eq!(store.first_number(at(EPOCH + 7)), 7);
        assert_eq!(store.first_number(at(EPOCH + 7)), 8);
        assert_eq!(store.first_number(at(EPOCH + (1 << 40))), MOST_BY_CLOCK);
    }
}
