//! How many connections may come in.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Count, Counted};
use crate::config::CONNECTIONS;

/// Of the limit of open files, at most so many are kept for what must go on at the limit too: the hub, health,
/// metrics, listeners, files.
const FILES_OF_OWN: usize = 200;

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    /// The operator's bound.
    #[error("maxConnections ({0}) is reached")]
    Connections(usize),
    /// The process's bound.
    #[error(
        "the limit of open files has room for {0} connections; raise it (docker run --ulimit nofile=, HostConfig.Ulimits)"
    )]
    Files(usize),
}

/// What connections of a module's listeners have to fit into.
#[derive(Debug)]
pub(super) struct Capacity {
    /// Of all listeners together.
    incoming: Count,
    /// Pushes and pulls are open files as well: they are never refused, and leave the less for others.
    dialled: Count,
    /// `maxConnections`: of those that come in.
    max: AtomicUsize,
    /// Of both kinds together, by the limit of open files.
    files: usize,
}

impl Capacity {
    /// Beside what is dialled, by the limit of open files of this process.
    pub(super) fn new(dialled: Count) -> Self {
        Self::of(files(av_edge::open_files()), dialled)
    }

    fn of(files: usize, dialled: Count) -> Self {
        Self { incoming: Count::default(), dialled, max: AtomicUsize::new(CONNECTIONS), files }
    }

    /// For connections from now on.
    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Those that have come in.
    pub(super) fn incoming(&self) -> &Count {
        &self.incoming
    }

    /// Counts a connection while the answer lives.
    pub(super) fn admit(&self) -> Result<Counted, Full> {
        let (max, files) = (self.max.load(Ordering::Relaxed), self.files);
        let left = files.saturating_sub(self.dialled.now());
        let full = || if max <= left { Full::Connections(max) } else { Full::Files(files) };
        self.incoming.add_below(max.min(left)).ok_or_else(full)
    }
}

/// Connections below the limit of open files.
fn files(limit: Option<u64>) -> usize {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    limit - (limit / 2).min(FILES_OF_OWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_files_are_kept_or_half_of_few() {
        assert_eq!(files(Some(1024)), 824);
        assert_eq!(files(Some(100)), 50);
        assert_eq!(files(None), usize::MAX - 200);
    }

    #[test]
    fn what_is_dialled_leaves_the_less_room_for_what_comes_in() {
        let dialled = Count::default();
        let capacity = Capacity::of(3, dialled.clone());
        let push = dialled.add();
        let _players = [capacity.admit().unwrap(), capacity.admit().unwrap()];
        assert_eq!(capacity.admit().unwrap_err(), Full::Files(3));
        drop(push);
        let _third = capacity.admit().unwrap();
        // Nobody refuses a push, and nobody who is in has to go for it.
        let _pushes = [dialled.add(), dialled.add()];
        assert!(capacity.admit().is_err());
        assert_eq!(capacity.incoming().now(), 3);
    }

    #[test]
    fn max_connections_is_about_those_that_come_in() {
        let dialled = Count::default();
        let capacity = Capacity::of(100, dialled.clone());
        capacity.set_max(1);
        let _pushes = [dialled.add(), dialled.add()];
        let player = capacity.admit().unwrap();
        assert_eq!(capacity.admit().unwrap_err().to_string(), "maxConnections (1) is reached");
        drop(player);
        assert!(capacity.admit().is_ok());
    }
}
