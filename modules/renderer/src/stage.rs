//! What the threads of an output share: what was asked for, the clock, what is shown, what is counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use gstreamer as gst;
use gstreamer_app::AppSink;

use crate::clock::Clock;
use crate::options::RenderConfig;
use crate::screen::Cards;
use crate::timing::Timing;
use crate::watch::Seen;

/// `None` of a time.
pub const NEVER: i64 = i64::MIN;
/// A decoder that got no picture for so long begins anew.
const PAUSE: i64 = 2_000_000_000;

/// What is known of the signal.
#[derive(Clone, Debug)]
pub struct Signal {
    /// A publisher with pictures.
    pub there: bool,
    /// Since when it is so.
    pub since: SystemTime,
    /// The same by the output's clock.
    pub since_here: i64,
    /// Of the picture, where it is known.
    pub size: Option<(u32, u32)>,
    /// There is sound, and no picture is to be expected.
    pub sound_only: bool,
}

/// What the threads of an output share.
pub struct Stage {
    /// The flow's name, as the card has it.
    pub title: String,
    /// What is asked for.
    pub config: RenderConfig,
    /// The output's clock.
    pub clock: Clock,
    /// When what is due.
    pub timing: Arc<Mutex<Timing>>,
    /// Decoders' ends, the oldest first: it is emptied before the next one is looked at.
    pub decoders: Mutex<VecDeque<AppSink>>,
    /// Of now.
    pub signal: Mutex<Signal>,
    /// What is shown.
    pub shown: Mutex<Option<gst::Sample>>,
    /// Why there is no screen.
    pub trouble: Mutex<Option<String>>,
    /// What shows the pictures.
    pub sink: Mutex<Option<&'static str>>,
    /// Counters.
    pub counts: Counts,
    /// The end.
    pub over: AtomicBool,
    /// Of the module.
    pub cards: Arc<Cards>,
}

/// What is counted and when it last happened, in nanoseconds of the output's clock.
pub struct Counts {
    /// Pictures that left the decoder.
    pub decoded: AtomicU64,
    /// Pictures that the display took.
    pub rendered: AtomicU64,
    /// Decoded pictures that were not shown.
    pub dropped: AtomicU64,
    /// Pictures that a decoder was given although the one before it had been: what was shown of them is not shown again.
    pub again: AtomicU64,
    /// Times that the screen was opened.
    pub opened: AtomicU64,
    /// How late the last picture was handed over.
    pub late: AtomicI64,
    received_at: AtomicI64,
    fed_at: AtomicI64,
    fed_since: AtomicI64,
    /// The last picture that left the decoder.
    pub decoded_at: AtomicI64,
    /// When one waited long for its time last: what is behind it waits in the decoder.
    pub waited_at: AtomicI64,
    /// The last one that was handed to the display.
    pub handed_at: AtomicI64,
    /// The last one that it took.
    pub rendered_at: AtomicI64,
    /// The last one that differed from the one before it.
    pub changed_at: AtomicI64,
}

impl Default for Counts {
    fn default() -> Self {
        let [received_at, fed_at, fed_since, decoded_at, waited_at, handed_at, rendered_at, changed_at] =
            [NEVER; 8].map(AtomicI64::new);
        let zero = AtomicU64::default;
        Self {
            decoded: zero(),
            rendered: zero(),
            dropped: zero(),
            again: zero(),
            opened: zero(),
            late: AtomicI64::new(0),
            received_at,
            fed_at,
            fed_since,
            decoded_at,
            waited_at,
            handed_at,
            rendered_at,
            changed_at,
        }
    }
}

impl Counts {
    /// A picture came.
    pub fn received(&self, now: i64) {
        self.received_at.store(now, Ordering::Relaxed);
    }

    /// It was handed to the decoder. One thread does that.
    pub fn fed(&self, now: i64) {
        if now.saturating_sub(self.fed_at.swap(now, Ordering::Relaxed)) > PAUSE {
            self.fed_since.store(now, Ordering::Relaxed);
        }
    }

    /// When the display took the last picture.
    pub fn last_rendered(&self) -> Option<i64> {
        Some(self.rendered_at.load(Ordering::Relaxed)).filter(|at| *at != NEVER)
    }
}

/// A lock that no panic spoils.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage {
    /// Before anything has come.
    pub fn new(title: String, config: RenderConfig, cards: Arc<Cards>) -> Self {
        let clock = Clock::start();
        let latency = i64::try_from(config.latency.as_nanos()).unwrap_or(i64::MAX);
        let signal =
            Signal { there: false, since: SystemTime::now(), since_here: 0, size: None, sound_only: false };
        Self {
            title,
            config,
            clock,
            timing: Arc::new(Mutex::new(Timing::new(latency))),
            decoders: Mutex::default(),
            signal: Mutex::new(signal),
            shown: Mutex::default(),
            trouble: Mutex::default(),
            sink: Mutex::default(),
            counts: Counts::default(),
            over: AtomicBool::new(false),
            cards,
        }
    }

    /// For the watch over frozen pictures.
    pub fn seen(&self) -> Seen {
        let signal = locked(&self.signal).clone();
        let at = |cell: &AtomicI64| Some(cell.load(Ordering::Relaxed)).filter(|at| *at != NEVER);
        let counts = &self.counts;
        Seen {
            now: self.clock.now(),
            expected: signal.there && !signal.sound_only,
            since: signal.since_here,
            received: at(&counts.received_at),
            fed: at(&counts.fed_at),
            fed_since: at(&counts.fed_since),
            decoded: at(&counts.decoded_at),
            waited: at(&counts.waited_at),
            handed: at(&counts.handed_at),
            rendered: at(&counts.rendered_at),
            changed: at(&counts.changed_at),
        }
    }

    /// The output ends.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}
