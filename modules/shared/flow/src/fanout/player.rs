//! One player of a fan-out: its way out, and the queue of what that has not taken yet.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;

use super::packer::{Flush, Joining, Seat};
use super::pieces::{Pieces, Place};
use super::tie::Post;
use super::walk::Walked;
use super::{Arrival, Client, Farewell, Sink, Slow};

/// A queue may hold that much beside what the player was given when it joined.
const MAX_QUEUE_BYTES: usize = 1 << 20;
/// And nothing in it may be older than that.
const MAX_QUEUE_AGE: Duration = Duration::from_secs(3);
/// The GOP that a player gets when it joins may take longer over a thin line.
const MAX_BURST_AGE: Duration = Duration::from_secs(10);

/// Answers that wait to be taken.
const MAX_ANSWERS: usize = 64;

/// One player's writing half and what it has not taken yet.
pub(super) struct Player {
    pub(super) peer: SocketAddr,
    seat: Seat,
    out: Out,
    queue: VecDeque<Queued>,
    queued: usize,
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
    pub(super) tie: Arc<Post>,
    farewell: oneshot::Sender<Farewell>,
    _client: Option<Client>,
}

/// A sink, and how it likes to be written to.
struct Out {
    sink: Sink,
    /// Takes many pieces with one call.
    vectored: bool,
    /// The sink (TLS) took bytes and holds them back until the socket takes more.
    unflushed: bool,
}

struct Queued {
    pieces: Arc<Pieces>,
    place: Place,
    since: Instant,
    pictures: u32,
    sounds: u32,
    /// Answers of the session: never skipped.
    answer: bool,
}

impl Player {
    pub(super) fn new(arrival: Arrival, joining: Joining, greeting: Option<Bytes>, now: Instant) -> Self {
        let Joining { seat, burst, .. } = joining;
        let queued = |pieces, answer| Queued {
            pieces,
            place: Place::default(),
            since: now,
            pictures: 0,
            sounds: 0,
            answer,
        };
        let starts = !burst.is_empty();
        let greeting = greeting.into_iter().map(|bytes| queued(Arc::new(Pieces::from(bytes)), true));
        let queue: VecDeque<_> =
            greeting.chain(burst.into_iter().map(|pieces| queued(pieces, false))).collect();
        let size = queue.iter().map(|queued| queued.pieces.len()).sum();
        Self {
            peer: arrival.peer,
            seat,
            out: Out { vectored: arrival.sink.is_write_vectored(), sink: arrival.sink, unflushed: false },
            paused: false,
            waits_for_sync: !starts,
            started: starts,
            queue,
            queued: size,
            burst: size,
            skipped: 0,
            progress: now,
            tie: arrival.tie,
            farewell: arrival.farewell,
            _client: arrival.client,
        }
    }

    /// Gives the connection its sink back, so that it can say goodbye.
    pub(super) fn end(self) {
        let queued = self.queue.iter().flat_map(|queued| queued.pieces.rest(queued.place));
        // What the connection said last may not have been heard yet.
        let unsent = queued.chain(self.tie.take_answers()).collect();
        let _ = self.farewell.send(Farewell { sink: self.out.sink, unsent });
    }

    /// The connection wants its sink back: what was begun has to be finished, and media is not waited for any more.
    pub(super) fn leave(mut self) {
        self.drop_media();
        self.end();
    }

    /// Stops the media, or lets it go on at the next sync frame. What a player does not get meanwhile is no loss.
    pub(super) fn pause(&mut self, paused: bool) {
        if paused == self.paused {
            return;
        }
        self.drop_media();
        self.paused = paused;
        self.waits_for_sync = true;
        self.started = false;
    }

    /// Gives up media that was not begun.
    fn drop_media(&mut self) {
        let mut is_first = true;
        self.queue.retain(|queued| {
            let begun = std::mem::take(&mut is_first) && queued.place != Place::default();
            begun || queued.answer
        });
        self.queued = self.queue.iter().map(|queued| queued.pieces.left(queued.place)).sum();
        self.burst = 0;
    }

    /// Sends a flush or decides not to. `false`: the connection is of no use any more.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        flush: &Flush,
        now: Instant,
        walked: &mut Walked,
        slow: &mut Vec<Slow>,
    ) -> bool {
        let Some(part) = flush.part(&self.seat).filter(|_| !self.paused) else { return true };
        if self.waits_for_sync {
            if !flush.sync {
                if self.started {
                    self.lose(flush.pictures, flush.sounds, walked);
                }
                return true;
            }
            self.waits_for_sync = false;
            self.started = true;
            if let Some(headers) = &part.headers {
                self.enqueue(headers.clone(), Place::default(), (0, 0), now);
            }
        }
        let frames = (flush.pictures, flush.sounds);
        if self.queue.is_empty() {
            let mut place = Place::default();
            let Ok(written) = self.out.write(cx, &part.pieces, &mut place) else { return false };
            walked.bytes += written as u64;
            if written > 0 {
                self.progress = now;
            }
            if part.pieces.left(place) == 0 {
                walked.pictures += u64::from(flush.pictures);
                walked.sounds += u64::from(flush.sounds);
            } else {
                self.enqueue(part.pieces.clone(), place, frames, now);
            }
            return true;
        }
        self.enqueue(part.pieces.clone(), Place::default(), frames, now);
        let alive = self.drive(cx, now, walked).is_ok();
        if alive && self.is_behind(now) {
            let before = self.skipped;
            self.skip(walked);
            slow.push(Slow { peer: self.peer, skipped: self.skipped - before, gone: false });
        }
        alive
    }

    /// Sends what the session answers, between whole messages. `false`: it takes none of them.
    pub(super) fn answer(&mut self, bytes: Bytes, now: Instant) -> bool {
        if self.queue.iter().filter(|queued| queued.answer).count() >= MAX_ANSWERS {
            return false;
        }
        let pieces = Arc::new(Pieces::from(bytes));
        self.push(Queued {
            pieces,
            place: Place::default(),
            since: now,
            pictures: 0,
            sounds: 0,
            answer: true,
        });
        true
    }

    fn enqueue(&mut self, pieces: Arc<Pieces>, place: Place, (pictures, sounds): (u32, u32), now: Instant) {
        self.push(Queued { pieces, place, since: now, pictures, sounds, answer: false });
    }

    fn push(&mut self, queued: Queued) {
        if self.queue.is_empty() {
            // However long nothing was sent: it stands still from now on at most.
            self.progress = queued.since;
        }
        self.queued += queued.pieces.left(queued.place);
        self.queue.push_back(queued);
    }

    /// Waits for its socket.
    pub(super) fn is_stuck(&self) -> bool {
        !self.queue.is_empty() || self.out.unflushed
    }

    /// There are bytes that it has not taken since then.
    pub(super) fn stands_still_since(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then_some(self.progress)
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
            if queued.answer {
                self.queue.push_back(queued);
            } else {
                self.lose(queued.pictures, queued.sounds, walked);
            }
        }
        self.queued = self.queue.iter().map(|queued| queued.pieces.left(queued.place)).sum();
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
        while let Some(queued) = self.queue.front_mut() {
            let written = self.out.write(cx, &queued.pieces, &mut queued.place)?;
            walked.bytes += written as u64;
            self.queued -= written;
            self.burst = self.burst.saturating_sub(written);
            if written > 0 {
                self.progress = now;
            }
            if queued.pieces.left(queued.place) > 0 {
                return Ok(());
            }
            walked.pictures += u64::from(queued.pictures);
            walked.sounds += u64::from(queued.sounds);
            self.queue.pop_front();
        }
        // Most players never need a queue: its memory goes with its content.
        self.queue = VecDeque::new();
        self.burst = 0;
        if self.out.unflushed {
            self.out.flush(cx)?;
        }
        Ok(())
    }
}

impl Out {
    /// Writes as much as goes without waiting; the task is woken when more does.
    fn write(&mut self, cx: &mut Context<'_>, pieces: &Pieces, place: &mut Place) -> io::Result<usize> {
        let mut written = 0;
        while pieces.left(*place) > 0 {
            let sink = Pin::new(&mut self.sink);
            let polled = if self.vectored {
                pieces.slices(*place, |slices| match slices {
                    [only] => sink.poll_write(cx, only),
                    several => sink.poll_write_vectored(cx, several),
                })
            } else {
                sink.poll_write(cx, &pieces.flat(*place))
            };
            match polled {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    pieces.advance(place, count);
                    written += count;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        self.flush(cx)?;
        Ok(written)
    }

    /// TLS keeps ciphertext of its own, bounded by rustls; for TCP this does nothing.
    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.unflushed = Pin::new(&mut self.sink).poll_flush(cx)?.is_pending();
        Ok(())
    }
}
