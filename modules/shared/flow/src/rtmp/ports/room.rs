//! How many connections may come in.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::CONNECTIONS;
use crate::net::{Count, Counted};

/// Of the limit of open files, at most so many are kept for what must go on at the limit too: the hub, health,
/// metrics, listeners, files.
const FILES_OF_OWN: usize = 200;

/// What connections of a module's listeners have to fit into.
pub(super) struct Room {
    /// Of all listeners together.
    incoming: Count,
    /// Pushes and pulls are open files as well: they are never refused, and leave the less for others.
    dialled: Count,
    /// `maxConnections`: of those that come in.
    max: AtomicUsize,
    /// Of both kinds together, by the limit of open files.
    files: usize,
}

impl Room {
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

    /// How many have come in.
    pub(super) fn taken(&self) -> usize {
        self.incoming.now()
    }

    /// Counts a connection while the answer lives; a sentence when there are too many.
    pub(super) fn admit(&self) -> Result<Counted, String> {
        let (max, files) = (self.max.load(Ordering::Relaxed), self.files);
        let left = files.saturating_sub(self.dialled.now());
        self.incoming.add_below(max.min(left)).ok_or_else(|| {
            if max <= left {
                return format!("maxConnections ({max}) is reached");
            }
            format!(
                "the limit of open files has room for {files} connections; raise it (docker run --ulimit nofile=, \
                 HostConfig.Ulimits)"
            )
        })
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
        let room = Room::of(3, dialled.clone());
        let push = dialled.add();
        let _players = [room.admit().unwrap(), room.admit().unwrap()];
        let refused = room.admit().unwrap_err();
        assert!(
            refused.starts_with("the limit of open files has room for 3 connections; raise it"),
            "{refused}"
        );
        drop(push);
        let _third = room.admit().unwrap();
        // Nobody refuses a push, and nobody who is in has to go for it.
        let _pushes = [dialled.add(), dialled.add()];
        assert!(room.admit().is_err());
        assert_eq!(room.taken(), 3);
    }

    #[test]
    fn max_connections_is_about_those_that_come_in() {
        let dialled = Count::default();
        let room = Room::of(100, dialled.clone());
        room.set_max(1);
        let _pushes = [dialled.add(), dialled.add()];
        let player = room.admit().unwrap();
        assert_eq!(room.admit().unwrap_err(), "maxConnections (1) is reached");
        drop(player);
        assert!(room.admit().is_ok());
    }
}
