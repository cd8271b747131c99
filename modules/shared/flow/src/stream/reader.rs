//! Reading from a stream.

use std::sync::Arc;
use std::time::Duration;

use av_media::{Kind, Timestamp};
use tokio::time::{Instant, timeout_at};

use super::live::Step;
use super::ring::Told;
use super::{Entry, Item, Lost, Shared, Tracks};
use crate::config::Content;

/// At most that many entries at once, so that other tasks get their turn.
const BATCH: usize = 64;

/// A cursor of one output. Bounded by the ring: a reader that is too slow loses entries and is told so.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    content: Content,
    as_stamped: bool,
    cursor: Option<u64>,
    /// Frames that were written before the cursor.
    passed: Lost,
    /// It was too slow, and has not gone on yet.
    behind: bool,
    told: Option<Arc<Tracks>>,
    /// What to tell first.
    first: Option<Told>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, content: Content) -> Self {
        let mut reader = Self {
            shared,
            content,
            as_stamped: false,
            cursor: None,
            passed: Lost::default(),
            behind: false,
            told: None,
            first: None,
        };
        // Nothing that is written from now on is missed, however late the first `recv` comes.
        let step = reader.shared.live().step(None, Instant::now());
        if let Step::Start { seq, told, before } = step {
            reader.cursor = Some(seq);
            reader.passed = before;
            reader.first = told;
        }
        reader
    }

    /// Gives frames the times that the source stamped them with, on the stream's timeline: for a protocol whose times are
    /// as coarse, so that what comes in by it goes out the same.
    pub fn as_stamped(mut self) -> Self {
        self.as_stamped = true;
        self
    }

    /// How long a frame of a kind is, as far as that is known. See [`Stream::frame_interval`](super::Stream).
    pub fn frame_interval(&self, kind: Kind) -> Option<Duration> {
        self.shared.live().frame_interval(kind)
    }

    /// Appends what is new to `out`, at least one entry; waits until there is one. Cancel safe: entries are
    /// taken only when it returns.
    pub async fn recv(&mut self, out: &mut Vec<Entry>) {
        // The Arc is cloned so that the wait does not borrow `self`.
        let shared = self.shared.clone();
        loop {
            let grown = shared.grown.notified();
            tokio::pin!(grown);
            // Registered before looking, or a wake-up in between would be missed.
            grown.as_mut().enable();
            match self.take(out, Instant::now()) {
                Taken::Some => return,
                Taken::Nothing(None) => grown.await,
                Taken::Nothing(Some(due)) => {
                    let _ = timeout_at(due, grown).await;
                }
            }
        }
    }

    /// Goes on at the last sync frame if that lies ahead; the loss is told as [`Item::Lost`]. Returns whether it did.
    pub fn skip_to_sync(&mut self, out: &mut Vec<Entry>) -> bool {
        let shared = self.shared.clone();
        let mut live = shared.live();
        if !self.cursor.is_some_and(|cursor| live.start_is_ahead(cursor)) {
            return false;
        }
        let now = Instant::now();
        self.cursor = None;
        self.behind = true;
        if let Step::Start { seq, told, before } = live.step(None, now) {
            self.start(seq, told, before, now, out);
        }
        true
    }

    fn start(&mut self, seq: u64, told: Option<Told>, before: Lost, now: Instant, out: &mut Vec<Entry>) {
        self.cursor = Some(seq);
        let missed = before.since(self.passed);
        self.passed = before;
        if std::mem::take(&mut self.behind) {
            let of = |kind: Kind| if self.content.admits(kind) { missed.get(kind) } else { 0 };
            let lost = Lost { video: of(Kind::Video), audio: of(Kind::Audio) };
            out.push(Entry::new(Item::Lost(lost), now));
            self.told = None;
        }
        if let Some(told) = told {
            self.begin(told, now, out);
        }
    }

    /// What a reader that starts here has to know.
    fn begin(&mut self, told: Told, now: Instant, out: &mut Vec<Entry>) {
        let Told { tracks, aside, anchor } = told;
        self.tell(&tracks, now, out);
        let aside = aside.map(Item::Aside);
        let beside = aside.into_iter().chain(anchor.map(Item::Anchor));
        out.extend(beside.map(|item| Entry::new(item, now)));
    }

    fn take(&mut self, out: &mut Vec<Entry>, now: Instant) -> Taken {
        let shared = self.shared.clone();
        let mut live = shared.live();
        let before = out.len();
        if let Some(told) = self.first.take() {
            self.begin(told, now, out);
        }
        loop {
            if out.len() - before >= BATCH {
                return Taken::Some;
            }
            match live.step(self.cursor, now) {
                Step::Wait(due) => return if out.len() > before { Taken::Some } else { Taken::Nothing(due) },
                Step::Behind => {
                    self.cursor = None;
                    self.behind = true;
                }
                Step::Start { seq, told, before } => self.start(seq, told, before, now, out),
                Step::Entry(entry, stamped) => {
                    self.cursor = self.cursor.map(|cursor| cursor + 1);
                    self.entry(entry, stamped, out);
                }
            }
        }
    }

    fn entry(&mut self, mut entry: Entry, stamped: Timestamp, out: &mut Vec<Entry>) {
        match &mut entry.item {
            Item::Tracks(tracks) => return self.tell(&tracks.clone(), entry.arrived, out),
            Item::Frame(frame) => {
                self.passed.add(frame.kind);
                if !self.content.admits(frame.kind) {
                    return;
                }
                // Without pictures any sound will do.
                if self.as_stamped {
                    frame.pts = frame.pts.moved(stamped.nanos_since(frame.dts));
                    frame.dts = stamped;
                }
                entry.starts |= self.told.as_ref().is_some_and(|told| told.video.is_none());
            }
            Item::Ended => self.told = None,
            _ => {}
        }
        out.push(entry);
    }

    /// Passes tracks on when they are news after filtering.
    fn tell(&mut self, tracks: &Tracks, arrived: Instant, out: &mut Vec<Entry>) {
        let tracks = Arc::new(tracks.filtered(self.content));
        if self.told.as_ref() != Some(&tracks) {
            self.told = Some(tracks.clone());
            out.push(Entry::new(Item::Tracks(tracks), arrived));
        }
    }
}

enum Taken {
    Some,
    /// And when to look again although nothing was written.
    Nothing(Option<Instant>),
}
