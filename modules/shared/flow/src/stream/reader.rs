//! Reading from a stream.

use std::sync::Arc;
use std::time::Instant;

use super::ring::Step;
use super::{Entry, Item, Shared, Tracks};
use crate::config::Content;

/// At most that many entries at once, so that other tasks get their turn.
const BATCH: usize = 64;

/// A cursor of one output. Bounded by the ring: a reader that is too slow loses entries and is told so.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    content: Content,
    cursor: Option<u64>,
    told: Option<Arc<Tracks>>,
    /// What to tell first.
    first: Option<Arc<Tracks>>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, content: Content) -> Self {
        let mut reader = Self { shared, content, cursor: None, told: None, first: None };
        // Nothing that is written from now on is missed, however late the first `recv` comes.
        let step = reader.shared.ring().step(None, Instant::now());
        if let Step::Start(seq, tracks) = step {
            reader.cursor = Some(seq);
            reader.first = tracks;
        }
        reader
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
                    let _ = tokio::time::timeout_at(due.into(), grown).await;
                }
            }
        }
    }

    /// Goes on at the last sync frame if that lies ahead; the loss is told as [`Item::Lost`].
    /// Returns how many entries are given up.
    pub fn skip_to_sync(&mut self, out: &mut Vec<Entry>) -> u64 {
        let Some(cursor) = self.cursor else { return 0 };
        let Some(frames) = self.shared.ring().to_sync(cursor) else { return 0 };
        self.restart(frames, Instant::now(), out);
        frames
    }

    fn restart(&mut self, frames: u64, now: Instant, out: &mut Vec<Entry>) {
        self.cursor = None;
        self.told = None;
        out.push(Entry { item: Item::Lost { frames }, arrived: now });
    }

    fn take(&mut self, out: &mut Vec<Entry>, now: Instant) -> Taken {
        let shared = self.shared.clone();
        let mut ring = shared.ring();
        let before = out.len();
        if let Some(tracks) = self.first.take() {
            self.tell(&tracks, now, out);
        }
        loop {
            if out.len() - before >= BATCH {
                return Taken::Some;
            }
            match ring.step(self.cursor, now) {
                Step::Wait(due) => return if out.len() > before { Taken::Some } else { Taken::Nothing(due) },
                Step::Behind(frames) => self.restart(frames, now, out),
                Step::Start(seq, tracks) => {
                    self.cursor = Some(seq);
                    if let Some(tracks) = tracks {
                        self.tell(&tracks, now, out);
                    }
                }
                Step::Entry(entry, next) => {
                    self.cursor = Some(next);
                    match &entry.item {
                        Item::Tracks(tracks) => self.tell(&tracks.clone(), entry.arrived, out),
                        Item::Frame(frame) if !self.content.admits(frame.kind) => {}
                        Item::Ended => {
                            self.told = None;
                            out.push(entry);
                        }
                        _ => out.push(entry),
                    }
                }
            }
        }
    }

    /// Passes tracks on when they are news after filtering.
    fn tell(&mut self, tracks: &Tracks, arrived: Instant, out: &mut Vec<Entry>) {
        let tracks = Arc::new(tracks.filtered(self.content));
        if self.told.as_ref() != Some(&tracks) {
            self.told = Some(tracks.clone());
            out.push(Entry { item: Item::Tracks(tracks), arrived });
        }
    }
}

enum Taken {
    Some,
    /// And when to look again although nothing was written.
    Nothing(Option<Instant>),
}
