//! The hot loop: one task walks its players and writes the same bytes to each.
//!
//! No task, channel, lock, wake-up or allocation per player and frame. A player whose socket takes everything
//! costs one system call; only one that does not has a queue, bounded in bytes and age.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use av_media::Kind;
use prometheus::Histogram;
use tokio::sync::Notify;

use super::Slow;
use super::packer::Flush;
use super::player::Player;
use crate::stream::OutputStatus;

/// A player that takes nothing for so long is disconnected.
const MAX_STANDSTILL: Duration = Duration::from_secs(10);
/// Players written to before other tasks get a turn.
const WALK: usize = 500;

/// What a walk came to, besides bytes on the wire.
#[derive(Default)]
pub(super) struct Walked {
    pub(super) bytes: u64,
    pub(super) pictures: u64,
    pub(super) sounds: u64,
    pub(super) lost_pictures: u64,
    pub(super) lost_sounds: u64,
}

/// Players of one output that one task owns.
pub(super) struct Walk {
    players: Vec<Player>,
    /// Players that wait for their socket.
    stuck: usize,
    /// Where the next walk starts, so that nobody is always last.
    turn: usize,
    output: Arc<OutputStatus>,
    latency: [Histogram; 2],
    slow: Vec<Slow>,
    /// A connection has something to say.
    news: Arc<Notify>,
}

impl Walk {
    pub(super) fn new(output: Arc<OutputStatus>, latency: [Histogram; 2]) -> Self {
        Self {
            players: Vec::new(),
            stuck: 0,
            turn: 0,
            output,
            latency,
            slow: Vec::new(),
            news: Arc::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.players.len()
    }

    /// Adds a player; what it was given is written when the queue is next driven.
    pub(super) fn join(&mut self, player: Player) {
        self.stuck += usize::from(player.is_stuck());
        player.tie.owned_by(&self.news);
        self.players.push(player);
    }

    /// A flush was missed: nobody gets anything before the next one that a decoder can start at.
    pub(super) fn resync(&mut self) {
        for player in &mut self.players {
            player.waits_for_sync = true;
        }
    }

    /// Fires when [`hear`](Self::hear) is worth a call.
    pub(super) fn news(&self) -> Arc<Notify> {
        self.news.clone()
    }

    /// Does what connections ask for.
    pub(super) fn hear(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(player) = self.players.get_mut(index) {
            if !player.tie.has_news() {
                index += 1;
                continue;
            }
            self.stuck -= usize::from(player.is_stuck());
            if let Some(paused) = player.tie.take_pause() {
                player.pause(paused);
            }
            let taken = player.tie.take_answers().into_iter().all(|bytes| player.answer(bytes, now));
            self.stuck += usize::from(player.is_stuck());
            match (player.tie.has_left(), taken) {
                (true, _) => self.remove(index).leave(),
                (false, false) => drop(self.remove(index)),
                (false, true) => index += 1,
            }
        }
    }

    fn remove(&mut self, index: usize) -> Player {
        let player = self.players.swap_remove(index);
        self.stuck -= usize::from(player.is_stuck());
        player
    }

    /// Gives every connection its sink back, so that it can say goodbye.
    pub(super) fn end(&mut self) {
        self.players.drain(..).for_each(Player::end);
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
                    // Whoever has left is sent nothing, however late that is heard of.
                    let alive =
                        !player.tie.has_left() && player.send(cx, flush, now, &mut walked, &mut self.slow);
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
            let player = self.remove(index);
            if player.tie.has_left() {
                player.leave();
            }
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
                Err(_) => drop(self.remove(index)),
            }
        }
        self.count(&walked);
        Poll::Pending
    }

    /// Once a second: who takes nothing any more is disconnected.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.hear(now);
        let mut index = 0;
        while let Some(player) = self.players.get(index) {
            let stands_still = player.stands_still_since();
            if stands_still.is_none_or(|since| now.saturating_duration_since(since) < MAX_STANDSTILL) {
                index += 1;
                continue;
            }
            self.slow.push(Slow { peer: player.peer, skipped: player.skipped, gone: true });
            drop(self.remove(index));
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
mod tests;
