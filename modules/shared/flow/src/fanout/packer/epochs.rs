//! Epochs: players whose time starts at the same point of the stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use av_media::Timestamp;

/// One of them.
pub(super) struct Epoch {
    /// Never used again.
    pub(super) id: u64,
    index: usize,
    /// How these players want the bytes.
    pub(super) variant: u32,
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
    fn new(id: u64, index: usize, variant: u32) -> Self {
        Self { id, index, variant, zero: None, players: Arc::default() }
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
pub(super) struct Epochs {
    /// Whom players join. It stays without players.
    newest: Epoch,
    older: Vec<Epoch>,
}

impl Default for Epochs {
    fn default() -> Self {
        Self { newest: Epoch::new(0, 0, 0), older: Vec::new() }
    }
}

impl Epochs {
    /// Lets epochs go whose last player has left.
    pub(super) fn retire(&mut self) {
        self.older.retain(Epoch::has_players);
    }

    /// Makes something for every epoch that has players; each at its index.
    pub(super) fn each<T>(&mut self, mut make: impl FnMut(&mut Epoch) -> Option<T>) -> Vec<Option<T>> {
        let mut made = Vec::new();
        made.resize_with(self.older.len() + 1, || None);
        for epoch in self.older.iter_mut().chain([&mut self.newest]).filter(|epoch| epoch.has_players()) {
            if made.len() <= epoch.index {
                made.resize_with(epoch.index + 1, || None);
            }
            if let Some(place) = made.get_mut(epoch.index) {
                *place = make(epoch);
            }
        }
        made
    }

    /// The newest epoch if it `fits`, or else another one; and whether it is another one.
    pub(super) fn newest(&mut self, fits: impl FnOnce(&Epoch) -> bool) -> (&mut Epoch, bool) {
        let is_new = !fits(&self.newest);
        if is_new {
            self.begin(0);
        }
        (&mut self.newest, is_new)
    }

    /// The epoch of a variant, where there is one each.
    pub(super) fn of(&mut self, variant: u32) -> &mut Epoch {
        if self.newest.variant != variant {
            match self.older.iter().position(|epoch| epoch.variant == variant) {
                Some(at) => {
                    if let Some(epoch) = self.older.get_mut(at) {
                        std::mem::swap(epoch, &mut self.newest);
                    }
                }
                None => self.begin(variant),
            }
        }
        &mut self.newest
    }

    fn begin(&mut self, variant: u32) {
        let id = self.older.iter().map(|epoch| epoch.id).fold(self.newest.id, u64::max) + 1;
        let before = std::mem::replace(&mut self.newest, Epoch::new(id, 0, variant));
        if before.has_players() {
            self.older.push(before);
        }
        let is_free = |index: &usize| self.older.iter().all(|epoch| epoch.index != *index);
        self.newest.index = (0..).find(is_free).unwrap_or_default();
    }
}
