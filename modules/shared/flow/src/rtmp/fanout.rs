//! The hot loop: one task walks its players and writes the same bytes to each.
//!
//! No task, channel, lock, wake-up or allocation per player and frame. A player whose socket takes everything
//! costs one system call; only one that does not has a queue, bounded in bytes and age.

mod player;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use av_media::Kind;
use bytes::Bytes;
use prometheus::Histogram;
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;

use super::packer::Flush;
use crate::stream::OutputStatus;
use player::Queued;

pub(super) use player::Player;

/// A player that takes nothing for so long is disconnected.
const MAX_STANDSTILL: Duration = Duration::from_secs(10);
/// Players written to before other tasks get a turn.
pub(super) const WALK: usize = 500;

/// The way to a player.
pub(super) type Sink = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// What is left when the stream ends before the connection does.
pub(super) struct Farewell {
    pub(super) sink: Sink,
    pub(super) unsent: Vec<Bytes>,
}

/// Counts a client of an output while it lives.
pub(super) struct Client(Arc<OutputStatus>);

impl Client {
    /// `None` when the output has as many clients as it may have (`max` 0 = no bound).
    pub(super) fn admit(output: &Arc<OutputStatus>, max: usize) -> Option<Self> {
        let more = |clients| (max == 0 || clients < max).then_some(clients + 1);
        output.clients.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        output.status.touch();
        Some(Self(output.clone()))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
        self.0.status.touch();
    }
}

/// A player on its way from its connection to a fan-out.
pub(super) struct Arrival {
    pub(super) id: u64,
    pub(super) peer: SocketAddr,
    pub(super) sink: Sink,
    pub(super) client: Client,
    pub(super) farewell: oneshot::Sender<Farewell>,
}

/// What a walk came to, besides bytes on the wire.
#[derive(Default)]
pub(super) struct Walked {
    bytes: u64,
    pictures: u64,
    sounds: u64,
    lost_pictures: u64,
    lost_sounds: u64,
}

/// A player that was too slow, to be said once a second at most.
pub(super) struct Slow {
    pub(super) peer: SocketAddr,
    pub(super) skipped: u64,
    pub(super) gone: bool,
}

/// Players of one output that one task owns.
pub(super) struct Fanout {
    players: Vec<Player>,
    /// Players that wait for their socket.
    stuck: usize,
    /// Where the next walk starts, so that nobody is always last.
    turn: usize,
    output: Arc<OutputStatus>,
    latency: [Histogram; 2],
    slow: Vec<Slow>,
}

impl Fanout {
    pub(super) fn new(output: Arc<OutputStatus>, latency: [Histogram; 2]) -> Self {
        Self { players: Vec::new(), stuck: 0, turn: 0, output, latency, slow: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.players.len()
    }

    /// Adds a player; what it was given is written when the queue is next driven.
    pub(super) fn join(&mut self, player: Player) {
        self.stuck += usize::from(player.is_stuck());
        self.players.push(player);
    }

    /// A flush was missed: nobody gets anything before the next one that a decoder can start at.
    pub(super) fn resync(&mut self) {
        for player in &mut self.players {
            player.waits_for_sync = true;
        }
    }

    /// Its connection ended.
    pub(super) fn leave(&mut self, id: u64) {
        if let Some(index) = self.players.iter().position(|player| player.id == id) {
            self.remove(index);
        }
    }

    /// Stops sending to a player, or goes on at the next sync frame.
    pub(super) fn pause(&mut self, id: u64, paused: bool) {
        if let Some(player) = self.players.iter_mut().find(|player| player.id == id) {
            self.stuck -= usize::from(player.is_stuck());
            player.pause(paused);
            self.stuck += usize::from(player.is_stuck());
        }
    }

    /// Gives a player's connection its sink back, so that it can serve another request.
    pub(super) fn give_back(&mut self, id: u64) {
        if let Some(index) = self.players.iter().position(|player| player.id == id) {
            let mut player = self.players.swap_remove(index);
            self.stuck -= usize::from(player.is_stuck());
            player.pause(true);
            player.say_farewell();
        }
    }

    /// Sends what a session answers, between whole messages.
    pub(super) fn control(&mut self, id: u64, bytes: Bytes, now: Instant) {
        if let Some(player) = self.players.iter_mut().find(|player| player.id == id) {
            self.stuck += usize::from(!player.is_stuck());
            player.push(Queued { bytes, since: now, pictures: 0, sounds: 0, control: true });
        }
    }

    fn remove(&mut self, index: usize) {
        let player = self.players.swap_remove(index);
        self.stuck -= usize::from(player.is_stuck());
    }

    /// Gives every connection its sink back, so that it can say goodbye.
    pub(super) fn end(&mut self) {
        for player in self.players.drain(..) {
            player.say_farewell();
        }
        self.stuck = 0;
    }

    /// Players too slow since the last call.
    pub(super) fn take_slow(&mut self) -> Vec<Slow> {
        std::mem::take(&mut self.slow)
    }

    /// Writes a flush to every player. Yields to other tasks now and then.
    pub(super) async fn flush(&mut self, flush: &Flush) {
        let count = self.players.len();
        self.turn = if self.turn + 1 >= count { 0 } else { self.turn + 1 };
        let start = self.turn;
        let now = Instant::now();
        let mut walked = Walked::default();
        let mut dead = Vec::new();
        for from in (0..count).step_by(WALK) {
            if from > 0 {
                tokio::task::yield_now().await;
            }
            std::future::poll_fn(|cx| {
                for step in from..count.min(from + WALK) {
                    let index = if start + step < count { start + step } else { start + step - count };
                    let Some(player) = self.players.get_mut(index) else { continue };
                    let was_stuck = player.is_stuck();
                    let alive = player.send(cx, flush, now, &mut walked, &mut self.slow);
                    match (was_stuck, player.is_stuck()) {
                        (false, true) => self.stuck += 1,
                        (true, false) => self.stuck -= 1,
                        _ => {}
                    }
                    if !alive {
                        dead.push(index);
                    }
                }
                Poll::Ready(())
            })
            .await;
        }
        dead.sort_unstable();
        for index in dead.into_iter().rev() {
            self.remove(index);
        }
        self.count(&walked);
        if count > 0 {
            let done = Instant::now();
            let newest = flush.arrived.iter().zip(&self.latency);
            for (arrived, histogram) in newest {
                if let Some(arrived) = arrived {
                    let delay = done.saturating_duration_since(*arrived);
                    histogram.observe(delay.as_secs_f64());
                    self.output.latency.observe(delay);
                }
            }
        }
    }

    /// Writes queues as far as sockets take them. Never ready: it is polled beside other things.
    pub(super) fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.stuck == 0 {
            return Poll::Pending;
        }
        let now = Instant::now();
        let mut walked = Walked::default();
        let mut index = 0;
        while let Some(player) = self.players.get_mut(index) {
            if !player.is_stuck() {
                index += 1;
                continue;
            }
            match player.drive(cx, now, &mut walked) {
                Ok(()) => {
                    self.stuck -= usize::from(!player.is_stuck());
                    index += 1;
                }
                Err(_) => self.remove(index),
            }
        }
        self.count(&walked);
        Poll::Pending
    }

    /// Once a second: who takes nothing any more is disconnected.
    pub(super) fn sweep(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(player) = self.players.get(index) {
            let still = now.saturating_duration_since(player.progress);
            if player.queue.is_empty() || still < MAX_STANDSTILL {
                index += 1;
                continue;
            }
            self.slow.push(Slow { peer: player.peer, skipped: player.skipped, gone: true });
            self.remove(index);
        }
    }

    fn count(&self, walked: &Walked) {
        let output = &self.output;
        output.bytes.fetch_add(walked.bytes, Ordering::Relaxed);
        output.frames.add(Kind::Video, walked.pictures);
        output.frames.add(Kind::Audio, walked.sounds);
        output.dropped.add(Kind::Video, walked.lost_pictures);
        output.dropped.add(Kind::Audio, walked.lost_sounds);
    }
}

#[cfg(test)]
pub(super) mod tests;
