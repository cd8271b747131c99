//! A connection that is given up when its peer takes nothing, or agrees on HTTP/2 and says nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A peer that takes nothing of what it asked for so long is gone.
const STUCK: Duration = Duration::from_secs(10);
/// What a client of HTTP/2 says first (RFC 9113 §3.4): hyper waits for it for ever.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// See the module's text.
pub(crate) struct Patient<S> {
    inner: S,
    /// Runs while something waits to be taken.
    stuck: Pin<Box<Sleep>>,
    waits: bool,
    preface: Option<Preface>,
}

/// What has to come before anything else does.
struct Preface {
    /// Bytes of it.
    missing: usize,
    late: Pin<Box<Sleep>>,
}

impl<S> Patient<S> {
    pub(crate) fn new(inner: S, http2: bool) -> Self {
        let sleep = || Box::pin(tokio::time::sleep(STUCK));
        let preface = http2.then(|| Preface { missing: PREFACE, late: sleep() });
        Self { inner, stuck: sleep(), waits: false, preface }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.waits = false;
            return poll;
        }
        if !self.waits {
            self.waits = true;
            self.stuck.as_mut().reset(Instant::now() + STUCK);
        }
        match self.stuck.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        let Some(preface) = &mut self.preface else { return poll };
        if poll.is_pending() && preface.late.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        preface.missing = preface.missing.saturating_sub(buf.filled().len().saturating_sub(before));
        if preface.missing == 0 {
            self.preface = None;
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.judge(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.judge(cx, poll)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut ours = Patient::new(ours, false);
        let writing = tokio::spawn(async move { ours.write_all(&[0; 640]).await });
        let mut taken = [0; 64];
        for _ in 0..3 {
            tokio::time::sleep(STUCK - Duration::from_secs(1)).await;
            theirs.read_exact(&mut taken).await.unwrap();
        }
        let error = writing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
