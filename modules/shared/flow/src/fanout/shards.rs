//! An output's players, over one task or several.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::coop::unconstrained;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Slow;
use super::packer::Flush;
use super::player::Player;
use super::walk::Walk;
use crate::endpoint::OutputContext;

/// Players that the output's own task walks before it shares them with others.
const LOCAL_PLAYERS: usize = 256;
/// Flushes on their way to another task's players. A task that is that far behind loses them.
const FLUSHES: usize = 256;

/// See the module's text.
pub(super) struct Shards {
    pub(super) local: Walk,
    remote: Vec<Remote>,
    most: usize,
    output: OutputContext,
    protocol: &'static str,
}

/// Players that another task owns.
struct Remote {
    messages: mpsc::Sender<Message>,
    players: Arc<AtomicUsize>,
    /// The task did not take the last flush.
    missed: bool,
    _end: DropGuard,
}

enum Message {
    Flush {
        flush: Arc<Flush>,
        /// Flushes before this one were lost.
        after_gap: bool,
    },
    Join(Box<Player>),
    End,
}

impl Shards {
    pub(super) fn new(output: &OutputContext, protocol: &'static str) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            local: Walk::new(output.status.clone(), output.module.latency(protocol)),
            remote: Vec::new(),
            most: cores.saturating_sub(1),
            output: output.clone(),
            protocol,
        }
    }

    pub(super) fn len(&self) -> usize {
        let remote = |remote: &Remote| remote.players.load(Ordering::Relaxed);
        self.local.len() + self.remote.iter().map(remote).sum::<usize>()
    }

    pub(super) fn join(&mut self, player: Player) {
        let count = |remote: &Remote| remote.players.load(Ordering::Relaxed);
        if self.local.len() < LOCAL_PLAYERS {
            return self.local.join(player);
        }
        if self.remote.len() < self.most && self.remote.iter().all(|remote| count(remote) >= LOCAL_PLAYERS) {
            self.remote.push(Remote::spawn(self.output.clone(), self.protocol));
        }
        match self.remote.iter().min_by_key(|remote| count(remote)) {
            Some(least) if count(least) < self.local.len() => {
                least.players.fetch_add(1, Ordering::Relaxed);
                // A task that does not even take a join has enough to do.
                if let Err(TrySendError::Full(back) | TrySendError::Closed(back)) =
                    least.messages.try_send(Message::Join(Box::new(player)))
                    && let Message::Join(player) = back
                {
                    least.players.fetch_sub(1, Ordering::Relaxed);
                    self.local.join(*player);
                }
            }
            _ => self.local.join(player),
        }
    }

    pub(super) async fn flush(&mut self, flush: Flush) {
        if self.remote.is_empty() {
            return self.local.flush(&flush).await;
        }
        let flush = Arc::new(flush);
        for remote in &mut self.remote {
            // Lost for these players when there is no room: they go on at the next sync frame.
            let message = Message::Flush { flush: flush.clone(), after_gap: remote.missed };
            remote.missed = remote.messages.try_send(message).is_err();
        }
        self.local.flush(&flush).await;
    }

    pub(super) async fn end(&mut self) {
        self.local.end();
        for remote in &self.remote {
            let _ = remote.messages.send(Message::End).await;
        }
    }
}

impl Remote {
    fn spawn(output: OutputContext, protocol: &'static str) -> Self {
        let (messages, mut inbox) = mpsc::channel(FLUSHES);
        let players = Arc::<AtomicUsize>::default();
        let count = players.clone();
        let end = CancellationToken::new();
        let ended = end.clone();
        tokio::spawn(unconstrained(async move {
            let mut walk = Walk::new(output.status.clone(), output.module.latency(protocol));
            let news = walk.news();
            let mut sweep = tokio::time::interval(Duration::from_secs(1));
            sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    () = news.notified() => walk.hear(Instant::now()),
                    message = inbox.recv() => match message {
                        Some(Message::Flush { flush, after_gap }) => {
                            if after_gap {
                                walk.resync();
                            }
                            walk.flush(&flush).await;
                        }
                        Some(Message::Join(player)) => walk.join(*player),
                        Some(Message::End) => walk.end(),
                        None => break,
                    },
                    () = ended.cancelled() => break,
                    () = std::future::poll_fn(|cx| walk.poll_stuck(cx)) => {}
                    _ = sweep.tick() => walk.sweep(Instant::now()),
                }
                count.store(walk.len(), Ordering::Relaxed);
                report_slow(&output, walk.take_slow());
            }
            walk.end();
        }));
        Self { messages, players, missed: false, _end: end.drop_guard() }
    }
}

/// At most one line a second for the whole module.
pub(super) fn report_slow(output: &OutputContext, slow: Vec<Slow>) {
    for player in slow {
        let Some(suppressed) = output.module.player_log.admit() else { continue };
        let Slow { peer, skipped, gone } = player;
        let path = &output.path;
        if gone {
            tracing::warn!(%path, %peer, skipped, suppressed, "player accepts no more data: disconnected");
        } else {
            tracing::warn!(
                %path, %peer, skipped, suppressed,
                "player is too slow: frames skipped up to the next sync frame"
            );
        }
    }
}

#[cfg(test)]
mod tests;
