//! Epochs: players whose time starts at the same point of the stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use av_media::Timestamp;

/// One of them.
pub(super) struct Epoch {
    /// Never used again.
    pub(super) id: u64,
    /// What its players take of the stream.
    pub(super) variant: u32,
    index: usize,
    /// Stream time that is zero for these players; `None` until the first frame goes out.
    pub(super) zero: Option<Timestamp>,
    players: Arc<AtomicUsize>,
}

/// A player's place in an epoch.
pub(in crate::fanout) struct Seat {
    pub(super) epoch: u64,
    /// Where a flush has this epoch's part.
    pub(super) index: usize,
    players: Arc<AtomicUsize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.players.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Epoch {
    fn new(id: u64, variant: u32, index: usize) -> Self {
        Self { id, variant, index, zero: None, players: Arc::default() }
    }

    /// One more player.
    pub(super) fn seat(&self) -> Seat {
        self.players.fetch_add(1, Ordering::Relaxed);
        Seat { epoch: self.id, index: self.index, players: self.players.clone() }
    }

    /// The zero; `start` becomes it where there is none yet.
    pub(super) fn zero_from(&mut self, start: Option<Timestamp>) -> Option<Timestamp> {
        self.zero = self.zero.or(start);
        self.zero
    }

    fn has_players(&self) -> bool {
        self.players.load(Ordering::Relaxed) > 0
    }
}

/// All of them, each with an index that it keeps: a player's part of a flush is found without a search.
#[derive(Default)]
pub(super) struct Epochs {
    /// Whom players join, one of each variant.
    newest: Vec<Epoch>,
    older: Vec<Epoch>,
    next_id: u64,
}

impl Epochs {
    /// Lets epochs go whose last player has left.
    pub(super) fn retire(&mut self) {
        self.older.retain(Epoch::has_players);
        // The plain one stays: most players are alike.
        self.newest.retain(|epoch| epoch.variant == 0 || epoch.has_players());
    }

    /// Makes something for every epoch that has players; each at its index.
    pub(super) fn each<T>(&mut self, mut make: impl FnMut(&mut Epoch) -> Option<T>) -> Vec<Option<T>> {
        let mut made = Vec::new();
        made.resize_with(self.older.len() + self.newest.len(), || None);
        for epoch in self.older.iter_mut().chain(&mut self.newest).filter(|epoch| epoch.has_players()) {
            if made.len() <= epoch.index {
                made.resize_with(epoch.index + 1, || None);
            }
            if let Some(place) = made.get_mut(epoch.index) {
                *place = make(epoch);
            }
        }
        made
    }

    /// The newest epoch of a variant if it `fits`, or else another one.
    pub(super) fn newest(&mut self, variant: u32, fits: impl FnOnce(&Epoch) -> bool) -> &mut Epoch {
        let found = self.newest.iter().position(|epoch| epoch.variant == variant);
        let found = match found.map(|at| self.newest.swap_remove(at)) {
            Some(epoch) if fits(&epoch) => epoch,
            before => {
                self.older.extend(before.filter(Epoch::has_players));
                let is_free =
                    |index: &usize| self.older.iter().chain(&self.newest).all(|e| e.index != *index);
                let index = (0..).find(is_free).unwrap_or_default();
                self.next_id += 1;
                Epoch::new(self.next_id, variant, index)
            }
        };
        self.newest.push_mut(found)
    }
}
