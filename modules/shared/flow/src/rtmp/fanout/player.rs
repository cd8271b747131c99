//! One player of a fan-out: its way out, and the queue of what that has not taken yet.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;

use super::{Arrival, Client, Farewell, Sink, Slow, Walked};
use crate::rtmp::packer::{Flush, Seat};

/// A queue may hold that much beside what the player was given when it joined.
const MAX_QUEUE_BYTES: usize = 1 << 20;
/// And nothing in it may be older than that.
const MAX_QUEUE_AGE: Duration = Duration::from_secs(3);
/// The GOP that a player gets when it joins may take longer over a thin line.
const MAX_BURST_AGE: Duration = Duration::from_secs(10);

/// One player's writing half and what it has not taken yet.
pub(in crate::rtmp) struct Player {
    pub(super) id: u64,
    pub(super) peer: SocketAddr,
    seat: Seat,
    pub(super) sink: Sink,
    pub(super) queue: VecDeque<Queued>,
    queued: usize,
    /// The sink (TLS) took bytes and holds them back until the socket takes more.
    unflushed: bool,
    /// Of `queued`, what was given at the join.
    burst: usize,
    /// It wants nothing for now.
    paused: bool,
    /// The next flush that it gets is one that a decoder can start at.
    pub(super) waits_for_sync: bool,
    /// It once got frames, so frames that it does not get are a loss.
    started: bool,
    pub(super) skipped: u64,
    pub(super) progress: Instant,
    /// Gives the sink back to the connection when the stream ends; dropped, the connection closes.
    pub(super) farewell: oneshot::Sender<Farewell>,
    _client: Client,
}

pub(super) struct Queued {
    pub(super) bytes: Bytes,
    pub(super) since: Instant,
    pub(super) pictures: u32,
    pub(super) sounds: u32,
    /// Answers of the session: never skipped.
    pub(super) control: bool,
}

impl Player {
    pub(in crate::rtmp) fn new(arrival: Arrival, seat: Seat, burst: Vec<Bytes>, now: Instant) -> Self {
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
            paused: false,
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

impl Player {
    /// Sends a flush or decides not to. `false`: the connection is of no use any more.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        flush: &Flush,
        now: Instant,
        walked: &mut Walked,
        slow: &mut Vec<Slow>,
    ) -> bool {
        let Some(part) = flush.part(self.seat.epoch).filter(|_| !self.paused) else { return true };
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

    pub(super) fn push(&mut self, queued: Queued) {
        if self.queue.is_empty() {
            // However long nothing was sent: it stands still from now on at most.
            self.progress = queued.since;
        }
        self.queued += queued.bytes.len();
        self.queue.push_back(queued);
    }

    /// Waits for its socket.
    pub(super) fn is_stuck(&self) -> bool {
        !self.queue.is_empty() || self.unflushed
    }

    fn is_behind(&self, now: Instant) -> bool {
        let age = if self.burst > 0 { MAX_BURST_AGE } else { MAX_QUEUE_AGE };
        let oldest = self.queue.front().map_or(now, |queued| queued.since);
        self.queued > MAX_QUEUE_BYTES + self.burst || now.saturating_duration_since(oldest) > age
    }

    /// What a player that has paused does not get is no loss. It goes on at the next sync frame.
    pub(super) fn pause(&mut self, paused: bool) {
        let skipped = self.skipped;
        self.skip(&mut Walked::default());
        self.skipped = skipped;
        self.paused = paused;
        self.started = false;
    }

    /// Gives the connection its sink back, and what has to be sent before anything else.
    pub(super) fn say_farewell(self) {
        let unsent = self.queue.into_iter().map(|queued| queued.bytes).collect();
        let _ = self.farewell.send(Farewell { sink: self.sink, unsent });
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
    pub(super) fn drive(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        walked: &mut Walked,
    ) -> io::Result<()> {
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
