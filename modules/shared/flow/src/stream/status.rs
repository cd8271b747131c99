//! What an endpoint says of itself, and what it counts.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use av_media::Kind;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::latency::Latency;
use super::said::Said;
use super::skipped::{LeftOut, Skipped};
use crate::trouble::Trouble;

/// Longest `error` text in bytes, as docs/twin.md promises.
const MAX_ERROR_BYTES: usize = 512;

/// Ticks whenever something that is reported may have changed.
#[derive(Clone, Debug)]
pub struct Changes(watch::Sender<u64>);

impl Default for Changes {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Changes {
    /// Something changed.
    pub fn tick(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// For whoever reports.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// State of an input or output, as reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing to do yet: no publisher, no media.
    Waiting,
    /// It works; the word reported is the endpoint's own (`receiving`, `serving`, `pushing`, ...).
    Running,
    /// Something is wrong and will be tried again.
    Retrying,
    /// Something is wrong that only a change of configuration or file can mend.
    Failed,
}

/// What a remark is about: what looks after one of these knows nothing of the others. The gravest is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Who is let in.
    Access,
    /// What else the endpoint needs.
    Endpoint,
    /// What a peer sends.
    Peer,
}

/// State and reason of one endpoint.
#[derive(Debug)]
pub struct Status {
    current: Mutex<Current>,
    /// By [`About`]. Locked only while `current` is.
    remarks: Mutex<[Option<String>; 3]>,
    changes: Changes,
}

/// A moment's state.
#[derive(Clone, Debug, PartialEq)]
pub struct Current {
    /// The state.
    pub state: State,
    /// Where something is wrong or is being waited for.
    pub trouble: Option<Trouble>,
    /// What it lacks although it works; the gravest where there are several. Told where there is no trouble.
    pub remark: Option<String>,
    /// Since when.
    pub since: SystemTime,
}

impl Status {
    /// Waiting.
    pub fn new(changes: Changes) -> Self {
        Self {
            current: Mutex::new(Current {
                state: State::Waiting,
                trouble: None,
                remark: None,
                since: SystemTime::now(),
            }),
            remarks: Mutex::default(),
            changes,
        }
    }

    /// Sets state and reason. Says nothing when both are as they were. Returns whether the state changed.
    pub fn set(&self, state: State, trouble: Option<Trouble>) -> bool {
        let trouble =
            trouble.map(|Trouble { reason, text }| Trouble { reason, text: shorten(text, MAX_ERROR_BYTES) });
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.state == state && current.trouble == trouble {
            return false;
        }
        let changed = current.state != state;
        if changed {
            current.since = SystemTime::now();
        }
        current.state = state;
        current.trouble = trouble;
        drop(current);
        self.changes.tick();
        changed
    }

    /// Sets what the endpoint lacks, or that it lacks nothing. It stays through changes of state.
    pub fn remark(&self, remark: Option<String>) {
        self.remark_about(About::Endpoint, remark);
    }

    /// The same for one of the things that remarks are about.
    pub fn remark_about(&self, about: About, remark: Option<String>) {
        let remark = remark.map(|remark| shorten(remark, MAX_ERROR_BYTES));
        self.change_remark(about, |_| Some(remark));
    }

    /// Takes a remark back, if it is still the last one.
    pub fn forget_remark(&self, remark: &str) {
        let remark = shorten(remark.to_owned(), MAX_ERROR_BYTES);
        self.change_remark(About::Endpoint, |now| (now == Some(&remark)).then_some(None));
    }

    /// `to`: what follows the remark that is there, where another one does.
    fn change_remark(&self, about: About, to: impl FnOnce(Option<&String>) -> Option<Option<String>>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        let [access, endpoint, peer] = &mut *remarks;
        let remark = match about {
            About::Access => access,
            About::Endpoint => endpoint,
            About::Peer => peer,
        };
        if let Some(next) = to(remark.as_ref()) {
            *remark = next;
        }
        let gravest = remarks.iter().flatten().next().cloned();
        drop(remarks);
        if current.remark != gravest {
            current.remark = gravest;
            drop(current);
            self.changes.tick();
        }
    }

    /// The state of this moment.
    pub fn get(&self) -> Current {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whoever waits for changes is told of one that is not in here (a codec, a client).
    pub fn touch(&self) {
        self.changes.tick();
    }
}

/// Cuts a text at a character border.
fn shorten(mut text: String, max: usize) -> String {
    if text.len() > max {
        let mut end = max.saturating_sub(3);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// A number for pictures and one for sound.
#[derive(Debug, Default)]
pub struct PerKind([AtomicU64; 2]);

impl PerKind {
    /// Adds to one of them.
    pub fn add(&self, kind: Kind, count: u64) {
        self.cell(kind).fetch_add(count, Ordering::Relaxed);
    }

    /// Reads one of them.
    pub fn get(&self, kind: Kind) -> u64 {
        self.cell(kind).load(Ordering::Relaxed)
    }

    /// Both together.
    pub fn sum(&self) -> u64 {
        self.get(Kind::Video) + self.get(Kind::Audio)
    }

    fn cell(&self, kind: Kind) -> &AtomicU64 {
        let [video, audio] = &self.0;
        match kind {
            Kind::Video => video,
            Kind::Audio => audio,
        }
    }
}

/// An input: state and counters.
#[derive(Debug)]
pub struct InputStatus {
    /// State and reason.
    pub status: Status,
    /// Media bytes.
    pub bytes: PerKind,
    /// Frames.
    pub frames: PerKind,
    /// Frames that came and were of no use: before the first sync frame, of a kind that is filtered out.
    pub dropped: PerKind,
    /// What came and is not passed on, by reason, and tracks that are left out.
    pub skipped: Skipped,
    /// How often the stream gave up what it kept for readers, for want of room in the module.
    pub given_up: AtomicU64,
    /// What of it was said in the log.
    pub said: Said,
    /// How often the times of the sound disagreed with its samples, so that its cadence began anew.
    pub reanchored: AtomicU64,
    /// Publishers or sessions after the first.
    pub reconnects: AtomicU64,
    /// Bits per second over the last second or so.
    pub bitrate: AtomicU64,
    /// A track that has been silent for the idle time-out.
    pub stalled: [AtomicBool; 2],
}

impl AsRef<Status> for InputStatus {
    fn as_ref(&self) -> &Status {
        &self.status
    }
}

impl AsRef<Status> for OutputStatus {
    fn as_ref(&self) -> &Status {
        &self.status
    }
}

impl InputStatus {
    /// Waiting, all counters zero.
    pub fn new(changes: Changes) -> Arc<Self> {
        Arc::new(Self {
            status: Status::new(changes),
            bytes: PerKind::default(),
            frames: PerKind::default(),
            dropped: PerKind::default(),
            skipped: Skipped::default(),
            given_up: AtomicU64::new(0),
            said: Said::default(),
            reanchored: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            bitrate: AtomicU64::new(0),
            stalled: Default::default(),
        })
    }

    /// Reports that the track of a kind is left out, or that none is.
    pub fn leave_out(&self, kind: Kind, track: Option<LeftOut>) {
        if self.skipped.set(kind, track) {
            self.status.touch();
        }
    }
}

/// An output: state and counters.
#[derive(Debug)]
pub struct OutputStatus {
    /// State and reason.
    pub status: Status,
    /// Bytes handed to the network, protocol headers included.
    pub bytes: AtomicU64,
    /// Frames sent, once per client.
    pub frames: PerKind,
    /// Frames that a slow client or target did not get.
    pub dropped: PerKind,
    /// Clients connected now.
    pub clients: AtomicUsize,
    /// Bits per second over the last second or so.
    pub bitrate: AtomicU64,
    /// Delay inside the module, from the frame's last byte in to the write that sent it.
    pub latency: Latency,
    /// What only this kind of output tells, beside the counters.
    pub details: Mutex<Map<String, Value>>,
}

impl OutputStatus {
    /// Waiting, all counters zero.
    pub fn new(changes: Changes) -> Arc<Self> {
        Arc::new(Self {
            status: Status::new(changes),
            bytes: AtomicU64::new(0),
            frames: PerKind::default(),
            dropped: PerKind::default(),
            clients: AtomicUsize::new(0),
            bitrate: AtomicU64::new(0),
            latency: Latency::default(),
            details: Mutex::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trouble::Reason;

    #[test]
    fn an_error_text_is_cut_at_a_character_border() {
        let status = Status::new(Changes::default());
        status.set(State::Failed, Some(Trouble::new(Reason::Internal, "ü".repeat(400))));
        let error = status.get().trouble.unwrap().text;
        assert!(error.len() <= MAX_ERROR_BYTES && error.ends_with("..."), "{}", error.len());
    }

    #[test]
    fn the_gravest_remark_is_told_and_each_goes_by_itself() {
        let status = Status::new(Changes::default());
        let told = || status.get().remark;
        let said = |text: &str| Some(text.to_owned());
        status.remark_about(About::Peer, said("large messages"));
        assert_eq!(told(), said("large messages"));
        status.remark(said("no ports"));
        status.remark_about(About::Access, said("no key"));
        assert_eq!(told(), said("no key"));
        status.remark(None);
        assert_eq!(told(), said("no key"));
        status.remark_about(About::Access, None);
        assert_eq!(told(), said("large messages"));
        status.remark(said("no ports"));
        status.forget_remark("no port");
        assert_eq!(told(), said("no ports"));
        status.forget_remark("no ports");
        status.remark_about(About::Peer, None);
        assert_eq!(told(), None);
    }

    #[test]
    fn only_a_difference_is_a_change() {
        let changes = Changes::default();
        let mut seen = changes.subscribe();
        let status = Status::new(changes);
        assert!(!status.set(State::Waiting, None));
        assert!(!seen.has_changed().unwrap());
        assert!(status.set(State::Running, None));
        assert!(seen.has_changed().unwrap());
        seen.mark_unchanged();
        assert!(!status.set(State::Running, None));
        assert!(!seen.has_changed().unwrap());
    }
}
