//! How fast bodies go out, and whether they do: what counts is the bytes that the kernel took, and of those it holds few.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// Without a byte in either direction.
const SILENCE: Duration = Duration::from_secs(60);
/// The end of a body may lie in a proxy when the last of it has gone: the answer may take as long as so much needs on a line of
/// so many bytes a second.
const BEHIND: usize = 256 * 1024;
const LEAST_RATE: usize = 2000;
/// A body is sent in such pieces.
const PIECE: usize = 16 * 1024;
/// The least piece on a thin line.
const LEAST_PIECE: usize = 512;
/// Of the kernel, for what goes out: nobody sees when those bytes leave, so they are what leaves within some seconds.
const BUFFER_SECONDS: u64 = 8;
const LEAST_BUFFER: u32 = 32 * 1024;
const MOST_BUFFER: u32 = 256 * 1024;

/// How fast bodies may go out, and do.
#[derive(Debug, Default)]
pub struct Pace {
    /// 0: as fast as they can.
    bytes_per_second: AtomicU64,
    next: Mutex<Option<Instant>>,
    /// Bytes a second that the last block made; 0: unknown.
    seen: AtomicU64,
    /// Bytes that left for this store.
    out: AtomicU64,
    /// Blocks that arrived there.
    blocks: AtomicU64,
}

impl Pace {
    /// From now on.
    pub fn set(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Bytes a second that the last block made; 0: unknown.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// A block arrived at that rate.
    pub fn arrived(&self, bytes_per_second: u64) {
        self.seen.store(bytes_per_second.max(1), Ordering::Relaxed);
        self.blocks.fetch_add(1, Ordering::Relaxed);
    }

    /// Blocks that arrived until now.
    pub fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// A block did not arrive, of which so many bytes a second left: the next one is a quarter of what it would be.
    pub fn failed(&self, bytes_per_second: u64) {
        let slower = |seen: u64| if seen == 0 { bytes_per_second } else { seen.min(bytes_per_second) };
        let slower = |seen: u64| Some((slower(seen) / 4).max(1));
        let _ = self.seen.fetch_update(Ordering::Relaxed, Ordering::Relaxed, slower);
    }

    /// Bytes that left until now.
    pub fn out(&self) -> u64 {
        self.out.load(Ordering::Relaxed)
    }

    /// What the kernel may hold of what goes out.
    pub fn buffer(&self) -> u32 {
        let holds = self.seen().saturating_mul(BUFFER_SECONDS);
        u32::try_from(holds).unwrap_or(MOST_BUFFER).clamp(LEAST_BUFFER, MOST_BUFFER)
    }

    /// The most that goes at once: what takes about a second, so that waiting never looks like silence.
    fn piece(&self) -> usize {
        match self.bytes_per_second.load(Ordering::Relaxed) {
            0 => PIECE,
            rate => usize::try_from(rate).unwrap_or(PIECE).clamp(LEAST_PIECE, PIECE),
        }
    }

    /// When so many bytes may go.
    fn reserve(&self, bytes: usize) -> Option<Instant> {
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        if rate == 0 {
            return None;
        }
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = next.map_or(now, |next| next.max(now));
        let takes = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000_000_000) / rate;
        *next = Some(at + Duration::from_nanos(takes));
        Some(at)
    }
}

/// When something last left through a connection or came in.
#[derive(Debug)]
pub struct Progress {
    last: Mutex<Instant>,
    /// Of the present request's body, what has not left yet.
    left: AtomicUsize,
    /// How long its answer may take when all has left.
    patience: Mutex<Duration>,
    pace: Arc<Pace>,
}

impl Progress {
    /// Of a new connection.
    pub fn new(pace: Arc<Pace>) -> Self {
        let last = Mutex::new(Instant::now());
        Self { last, left: AtomicUsize::new(0), patience: Mutex::new(SILENCE), pace }
    }

    /// A request begins whose body has so many bytes.
    pub fn begins(&self, body: usize) {
        self.left.store(body, Ordering::Relaxed);
        let behind = Duration::from_millis((body.min(BEHIND) * 1000 / LEAST_RATE) as u64);
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner) = SILENCE + behind;
        self.made();
    }

    fn made(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn went(&self, bytes: usize) {
        self.pace.out.fetch_add(bytes as u64, Ordering::Relaxed);
        let less = |left: usize| Some(left.saturating_sub(bytes));
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.made();
    }

    fn patience(&self) -> Duration {
        match self.left.load(Ordering::Relaxed) {
            0 => *self.patience.lock().unwrap_or_else(PoisonError::into_inner),
            _ => SILENCE,
        }
    }

    /// Ends when nothing has happened for too long, and says for how many seconds.
    pub async fn silence(&self) -> u64 {
        loop {
            let patience = self.patience();
            let due = *self.last.lock().unwrap_or_else(PoisonError::into_inner) + patience;
            if due <= Instant::now() {
                return patience.as_secs();
            }
            sleep_until(due).await;
        }
    }
}

/// A connection that notes what leaves and what comes in.
#[derive(Debug)]
pub struct Watched {
    stream: TcpStream,
    progress: Arc<Progress>,
}

impl Watched {
    /// From now on.
    pub fn new(stream: TcpStream, progress: Arc<Progress>) -> Self {
        Self { stream, progress }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        self.progress.made();
        Poll::Ready(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.progress.went(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, pieces))?;
        self.progress.went(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A body that goes out in pieces, not faster than it may.
#[derive(Debug)]
pub struct Paced {
    rest: Bytes,
    pace: Arc<Pace>,
    waiting: Option<Pin<Box<Sleep>>>,
    /// Bytes of the piece that is waited for; 0: none is.
    reserved: usize,
}

impl Paced {
    /// All of it.
    pub fn new(rest: Bytes, pace: Arc<Pace>) -> Self {
        Self { rest, pace, waiting: None, reserved: 0 }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        if self.reserved == 0 {
            self.reserved = self.rest.len().min(self.pace.piece());
            self.waiting = self.pace.reserve(self.reserved).map(|at| Box::pin(sleep_until(at)));
        }
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(context));
        }
        self.waiting = None;
        let piece = std::mem::take(&mut self.reserved);
        let piece = self.rest.split_to(piece);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_holds_what_leaves_within_some_seconds() {
        let pace = Pace::default();
        assert_eq!(pace.buffer(), LEAST_BUFFER);
        pace.arrived(10_000);
        assert_eq!(pace.buffer(), 80_000);
        pace.failed(20_000);
        assert_eq!(pace.seen(), 2500);
        pace.failed(0);
        assert_eq!((pace.seen(), pace.buffer()), (1, LEAST_BUFFER));
        pace.arrived(u64::MAX);
        assert_eq!(pace.buffer(), MOST_BUFFER);
        let unknown = Pace::default();
        unknown.failed(400);
        assert_eq!(unknown.seen(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_a_minute_while_a_body_goes_out_and_longer_for_the_answer_to_a_large_one() {
        let progress = Progress::new(Arc::default());
        let silence = async |left: usize| {
            progress.begins(left);
            let began = Instant::now();
            let told = progress.silence().await;
            assert_eq!(told, began.elapsed().as_secs());
            told
        };
        assert_eq!(silence(0).await, 60);
        assert_eq!(silence(8 << 20).await, 60);
        progress.begins(8 << 20);
        progress.went(8 << 20);
        assert_eq!(progress.silence().await, 191);
    }
}
