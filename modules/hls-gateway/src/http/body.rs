//! What is sent: bytes that are shared with all others who are sent the same.

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use av_flow::stream::OutputStatus;
use bytes::{Buf, Bytes};
use hyper::body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use super::pace::{Pace, Untaken};
use crate::live::Ranged;

/// A file is read in pieces of that size.
const PIECE: u64 = 256 << 10;

/// A body of known length.
pub(crate) struct Body {
    content: Content,
    left: u64,
    /// Where bytes are counted.
    counted: Option<Arc<OutputStatus>>,
    /// As long as something of it has not been taken.
    untaken: Option<Arc<Untaken>>,
}

enum Content {
    One(Option<Bytes>),
    Many(Option<Ranged>),
    File(Reading),
}

/// A file that is read piece by piece, by threads that may wait for a disk.
struct Reading {
    file: Arc<File>,
    /// What is left of it.
    range: Range<u64>,
    piece: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Reading {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Range { start, end } = self.range;
        if start >= end {
            return Poll::Ready(None);
        }
        let piece = self.piece.get_or_insert_with(|| {
            let file = self.file.clone();
            let len = end.saturating_sub(start).min(PIECE);
            tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; usize::try_from(len).unwrap_or(0)];
                file.read_exact_at(&mut piece, start)?;
                Ok(piece.into())
            })
        });
        let read = ready!(Pin::new(piece).poll(cx)).map_err(io::Error::other).flatten();
        self.piece = None;
        if let Ok(piece) = &read {
            self.range.start = start.saturating_add(piece.len() as u64);
        }
        Poll::Ready(Some(read))
    }
}

impl Body {
    pub(crate) const fn empty() -> Self {
        Self { content: Content::One(None), left: 0, counted: None, untaken: None }
    }

    pub(crate) fn one(bytes: Bytes) -> Self {
        let left = bytes.len() as u64;
        Self { content: Content::One(Some(bytes)), left, counted: None, untaken: None }
    }

    /// `len`: of all pieces together.
    pub(crate) const fn many(pieces: Ranged, len: u64) -> Self {
        Self { content: Content::Many(Some(pieces)), left: len, counted: None, untaken: None }
    }

    pub(crate) const fn file(file: Arc<File>, range: Range<u64>) -> Self {
        let left = range.end.saturating_sub(range.start);
        let content = Content::File(Reading { file, range, piece: None });
        Self { content, left, counted: None, untaken: None }
    }

    /// The same, counted as sent by an output.
    pub(crate) fn counted(self, status: &Arc<OutputStatus>) -> Self {
        Self { counted: Some(status.clone()), ..self }
    }

    /// The same, to be taken at the pace of a connection.
    pub(super) fn at(self, pace: &Pace) -> Self {
        let untaken = (self.left > 0).then(|| Arc::new(pace.begin(self.left)));
        Self { untaken, ..self }
    }
}

/// What is handed over at once: the connection takes as much of it with one write as goes.
pub(crate) struct Data {
    bytes: Given,
    counted: Option<Arc<OutputStatus>>,
    _untaken: Option<Arc<Untaken>>,
}

enum Given {
    One(Bytes),
    Many(Ranged),
}

impl Given {
    fn buf(&self) -> &dyn Buf {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(pieces) => pieces,
        }
    }
}

impl Buf for Data {
    fn remaining(&self) -> usize {
        self.bytes.buf().remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.buf().chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.bytes.buf().chunks_vectored(slices)
    }

    fn advance(&mut self, by: usize) {
        match &mut self.bytes {
            Given::One(bytes) => bytes.advance(by),
            Given::Many(pieces) => pieces.advance(by),
        }
        if let Some(status) = &self.counted {
            status.bytes.fetch_add(by as u64, Ordering::Relaxed);
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Data;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Data>>>> {
        let next = match &mut self.content {
            Content::One(bytes) => bytes.take().map(Given::One),
            Content::Many(pieces) => pieces.take().map(Given::Many),
            Content::File(reading) => ready!(reading.poll(cx)).transpose()?.map(Given::One),
        };
        let Some(bytes) = next.filter(|bytes| bytes.buf().has_remaining()) else { return Poll::Ready(None) };
        let data = Data { bytes, counted: self.counted.clone(), _untaken: self.untaken.clone() };
        self.left = self.left.saturating_sub(data.remaining() as u64);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
