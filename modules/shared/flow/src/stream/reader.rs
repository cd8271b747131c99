//! Reading from a stream.

use std::sync::Arc;
use std::time::Duration;

use av_media::{Kind, Timestamp};
use tokio::time::{Instant, timeout_at};

use super::live::{Live, Step};
use super::ring::{Keep, Told};
use super::{Entry, Item, Lost, Shared, Tracks};
use crate::config::Content;

/// At most that many entries at once, so that other tasks get their turn.
const BATCH: usize = 64;

/// Where a reader starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the last sync frame, or at the next where there is none.
    #[default]
    LastSync,
    /// At the next sync frame.
    NextSync,
    /// At the oldest sync frame that is kept.
    Oldest,
    /// At the last sync frame at or before that stream time; at the oldest where none is that old.
    Time(Timestamp),
}

/// The same, as the stream knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    LastSync,
    NextSync {
        /// Not before the entry with this number.
        after: u64,
    },
    Oldest,
    Time(Timestamp),
    /// At the oldest sync frame in memory, also of a publisher that has gone.
    Kept,
}

/// A cursor of one output. Bounded by the ring: a reader that is too slow loses entries and is told so.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    content: Content,
    as_stamped: bool,
    loses_little: bool,
    /// It had read everything since it last was too slow.
    caught_up: bool,
    /// By which the stream knows it.
    place: u64,
    from: From,
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
    pub(super) fn new(shared: Arc<Shared>, content: Content, start: Start, keep: Keep) -> Self {
        let mut live = shared.live();
        let from = match start {
            Start::LastSync => From::LastSync,
            Start::NextSync => From::NextSync { after: live.end_of_ring() },
            Start::Oldest => From::Oldest,
            Start::Time(time) => From::Time(time),
        };
        let place = live.enter(keep);
        let step = live.step(None, from, Instant::now());
        let mut reader = Self {
            shared: shared.clone(),
            content,
            as_stamped: false,
            loses_little: false,
            caught_up: true,
            place,
            from,
            cursor: None,
            passed: Lost::default(),
            behind: false,
            told: None,
            first: None,
        };
        // Nothing that is written from now on is missed, however late the first `recv` comes.
        if let Step::Start { seq, told, before, .. } = step {
            reader.from = From::LastSync;
            reader.cursor = Some(seq);
            reader.passed = before;
            reader.first = told;
            live.moved(place, reader.cursor);
        }
        drop(live);
        reader
    }

    /// Another reader that is where this one is: both give the same from now on.
    pub fn twin(&self, keep: Keep) -> Self {
        let mut live = self.shared.live();
        let place = live.enter(keep);
        live.moved(place, self.cursor);
        drop(live);
        Self {
            shared: self.shared.clone(),
            content: self.content,
            as_stamped: self.as_stamped,
            loses_little: self.loses_little,
            caught_up: self.caught_up,
            place,
            from: self.from,
            cursor: self.cursor,
            passed: self.passed,
            behind: self.behind,
            told: self.told.clone(),
            first: self.first.clone(),
        }
    }

    /// Gives frames the times that the source stamped them with, on the stream's timeline: for a protocol whose times are
    /// as coarse, so that what comes in by it goes out the same.
    pub fn as_stamped(mut self) -> Self {
        self.as_stamped = true;
        self
    }

    /// After it was too slow once, it goes on at the oldest sync frame that is kept, not at the last one: for a
    /// recording, which catches up later. If it does not catch up, it goes on at the last one all the same.
    pub fn loses_little(mut self) -> Self {
        self.loses_little = true;
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
        if let Step::Start { seq, told, before, away } = live.step(None, From::LastSync, now) {
            self.start((seq, away), told, before, now, out);
        }
        live.moved(self.place, self.cursor);
        true
    }

    fn start(
        &mut self,
        (seq, away): (u64, bool),
        told: Option<Told>,
        before: Lost,
        now: Instant,
        out: &mut Vec<Entry>,
    ) {
        self.cursor = Some(seq);
        // Whoever has to start again does so where the others do.
        self.from = From::LastSync;
        let missed = before.since(self.passed);
        self.passed = before;
        let was_behind = std::mem::take(&mut self.behind);
        if was_behind {
            let of = |kind: Kind| if self.content.admits(kind) { missed.get(kind) } else { 0 };
            let lost = Lost { video: of(Kind::Video), audio: of(Kind::Audio) };
            out.push(Entry::new(Item::Lost(lost), now));
            if told.is_none() {
                // The end is in what it missed.
                out.push(Entry::new(Item::Ended, now));
            }
            self.told = None;
        } else if told.is_none() && self.told.take().is_some() {
            out.push(Entry::new(Item::Ended, now));
        }
        if let Some(told) = told {
            self.begin(told, now, out);
            if was_behind && away {
                // That is in what it missed, too.
                out.push(Entry::new(Item::Away, now));
            }
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
        let taken = self.take_from(&mut live, out, now);
        live.moved(self.place, self.cursor);
        taken
    }

    fn take_from(&mut self, live: &mut Live, out: &mut Vec<Entry>, now: Instant) -> Taken {
        let before = out.len();
        if let Some(told) = self.first.take() {
            self.begin(told, now, out);
        }
        loop {
            if out.len() - before >= BATCH {
                return Taken::Some;
            }
            match live.step(self.cursor, self.from, now) {
                Step::Wait(due) => {
                    self.caught_up |= self.cursor.is_some();
                    return if out.len() > before { Taken::Some } else { Taken::Nothing(due) };
                }
                Step::Behind => {
                    let keeps = self.loses_little && std::mem::take(&mut self.caught_up);
                    self.from = if keeps { From::Kept } else { From::LastSync };
                    self.cursor = None;
                    self.behind = true;
                    // It may be long until there is a place to go on: what was given so far is none.
                    out.push(Entry::new(Item::GivenUp, now));
                }
                Step::Start { seq, told, before, away } => {
                    self.start((seq, away), told, before, now, out);
                }
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

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.live().leave(self.place);
    }
}

enum Taken {
    Some,
    /// And when to look again although nothing was written.
    Nothing(Option<Instant>),
}
