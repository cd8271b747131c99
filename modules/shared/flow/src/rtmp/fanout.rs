//! The hot loop: one task walks its players and writes the same bytes to each.
//!
//! No task, channel, lock, wake-up or allocation per player and frame. A player whose socket takes everything
//! costs one system call; only one that does not has a queue, bounded in bytes and age.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use av_media::Kind;
use bytes::{Buf, Bytes};
use prometheus::Histogram;
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;

use super::packer::{Flush, Seat};
use crate::stream::OutputStatus;

/// A queue may hold that much beside what the player was given when it joined.
const MAX_QUEUE_BYTES: usize = 1 << 20;
/// And nothing in it may be older than that.
const MAX_QUEUE_AGE: Duration = Duration::from_secs(3);
/// The GOP that a player gets when it joins may take longer over a thin line.
const MAX_BURST_AGE: Duration = Duration::from_secs(10);
/// A player that takes nothing for so long is disconnected.
const MAX_STANDSTILL: Duration = Duration::from_secs(10);
/// Players written to before other tasks get a turn.
pub(super) const WALK: usize = 500;

/// The way to a player.
pub(super) type Sink = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// One player's writing half and what it has not taken yet.
pub(super) struct Player {
    pub(super) id: u64,
    pub(super) peer: SocketAddr,
    seat: Seat,
    sink: Sink,
    queue: VecDeque<Queued>,
    queued: usize,
    /// The sink (TLS) took bytes and holds them back until the socket takes more.
    unflushed: bool,
    /// Of `queued`, what was given at the join.
    burst: usize,
    /// The next flush that it gets is one that a decoder can start at.
    waits_for_sync: bool,
    /// It once got frames, so frames that it does not get are a loss.
    started: bool,
    skipped: u64,
    progress: Instant,
    /// Gives the sink back to the connection when the stream ends; dropped, the connection closes.
    farewell: oneshot::Sender<Farewell>,
    _client: Client,
}

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

struct Queued {
    bytes: Bytes,
    since: Instant,
    pictures: u32,
    sounds: u32,
    /// Answers of the session: never skipped.
    control: bool,
}

/// A player on its way from its connection to a fan-out.
pub(super) struct Arrival {
    pub(super) id: u64,
    pub(super) peer: SocketAddr,
    pub(super) sink: Sink,
    pub(super) client: Client,
    pub(super) farewell: oneshot::Sender<Farewell>,
}

impl Player {
    pub(super) fn new(arrival: Arrival, seat: Seat, burst: Vec<Bytes>, now: Instant) -> Self {
        let size = burst.iter().map(Bytes::len).sum();
        let queue: VecDeque<_> = burst
            .into_iter()
            .map(|bytes| Queued { bytes, since: now, pictures: 0, sounds: 0, control: false })
            .collect();
        Self {
            id: arrival.id,
            peer: arrival.peer,
            seat,
            sink: arrival.sink,
            waits_for_sync: queue.is_empty(),
            started: !queue.is_empty(),
            queue,
            queued: size,
            unflushed: false,
            burst: size,
            skipped: 0,
            progress: now,
            farewell: arrival.farewell,
            _client: arrival.client,
        }
    }
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
            // Only what was begun has to be finished: the rest is media that nobody waits for any more.
            let unsent = player.queue.into_iter().map(|queued| queued.bytes).collect();
            let _ = player.farewell.send(Farewell { sink: player.sink, unsent });
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

impl Player {
    /// Sends a flush or decides not to. `false`: the connection is of no use any more.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        flush: &Flush,
        now: Instant,
        walked: &mut Walked,
        slow: &mut Vec<Slow>,
    ) -> bool {
        let Some(part) = flush.part(self.seat.epoch) else { return true };
        if self.waits_for_sync {
            if !flush.sync {
                if self.started {
                    self.lose(flush.pictures, flush.sounds, walked);
                }
                return true;
            }
            self.waits_for_sync = false;
            self.started = true;
            if !part.headers.is_empty() {
                self.enqueue(part.headers.clone(), 0, 0, now);
            }
        }
        if self.queue.is_empty() {
            return match self.write(cx, &part.bytes) {
                Ok(written) => {
                    walked.bytes += written as u64;
                    if written > 0 {
                        self.progress = now;
                    }
                    if written == part.bytes.len() {
                        walked.pictures += u64::from(flush.pictures);
                        walked.sounds += u64::from(flush.sounds);
                    } else {
                        self.enqueue(part.bytes.slice(written..), flush.pictures, flush.sounds, now);
                    }
                    true
                }
                Err(_) => false,
            };
        }
        self.enqueue(part.bytes.clone(), flush.pictures, flush.sounds, now);
        let alive = self.drive(cx, now, walked).is_ok();
        if alive && self.is_behind(now) {
            let before = self.skipped;
            self.skip(walked);
            slow.push(Slow { peer: self.peer, skipped: self.skipped - before, gone: false });
        }
        alive
    }

    fn enqueue(&mut self, bytes: Bytes, pictures: u32, sounds: u32, now: Instant) {
        self.push(Queued { bytes, since: now, pictures, sounds, control: false });
    }

    fn push(&mut self, queued: Queued) {
        if self.queue.is_empty() {
            // However long nothing was sent: it stands still from now on at most.
            self.progress = queued.since;
        }
        self.queued += queued.bytes.len();
        self.queue.push_back(queued);
    }

    /// Waits for its socket.
    fn is_stuck(&self) -> bool {
        !self.queue.is_empty() || self.unflushed
    }

    fn is_behind(&self, now: Instant) -> bool {
        let age = if self.burst > 0 { MAX_BURST_AGE } else { MAX_QUEUE_AGE };
        let oldest = self.queue.front().map_or(now, |queued| queued.since);
        self.queued > MAX_QUEUE_BYTES + self.burst || now.saturating_duration_since(oldest) > age
    }

    /// Gives up what was not begun; the next thing it gets is a sync frame.
    fn skip(&mut self, walked: &mut Walked) {
        let begun = self.queue.pop_front();
        let rest = std::mem::take(&mut self.queue);
        self.queue.extend(begun);
        for queued in rest {
            if queued.control {
                self.queue.push_back(queued);
            } else {
                self.lose(queued.pictures, queued.sounds, walked);
            }
        }
        self.queued = self.queue.iter().map(|queued| queued.bytes.len()).sum();
        self.burst = 0;
        self.waits_for_sync = true;
    }

    fn lose(&mut self, pictures: u32, sounds: u32, walked: &mut Walked) {
        walked.lost_pictures += u64::from(pictures);
        walked.lost_sounds += u64::from(sounds);
        self.skipped += u64::from(pictures) + u64::from(sounds);
    }

    /// Writes the queue as far as the socket takes it.
    fn drive(&mut self, cx: &mut Context<'_>, now: Instant, walked: &mut Walked) -> io::Result<()> {
        while let Some(mut queued) = self.queue.pop_front() {
            let written = match self.write(cx, &queued.bytes) {
                Ok(written) => written,
                Err(error) => {
                    // It counts as stuck until it is removed.
                    self.queue.push_front(queued);
                    return Err(error);
                }
            };
            walked.bytes += written as u64;
            self.queued -= written;
            self.burst = self.burst.saturating_sub(written);
            if written > 0 {
                self.progress = now;
            }
            if written < queued.bytes.len() {
                queued.bytes.advance(written);
                self.queue.push_front(queued);
                return Ok(());
            }
            walked.pictures += u64::from(queued.pictures);
            walked.sounds += u64::from(queued.sounds);
        }
        // Most players never need a queue: its memory goes with its content.
        self.queue = VecDeque::new();
        self.burst = 0;
        if self.unflushed {
            self.write(cx, &[])?;
        }
        Ok(())
    }

    /// Writes as much as goes without waiting; the task is woken when more does.
    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.sink).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => written += count,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        // TLS keeps ciphertext of its own, bounded by rustls; for TCP this does nothing.
        self.unflushed = Pin::new(&mut self.sink).poll_flush(cx)?.is_pending();
        Ok(written)
    }
}

#[cfg(test)]
pub(super) mod tests;
