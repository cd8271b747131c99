//! What is sent: bytes that are shared with all others who are sent the same.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use av_flow::stream::OutputStatus;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::live::Ranged;

/// A body of known length.
pub(crate) struct Body {
    content: Content,
    left: u64,
    /// Where bytes are counted.
    counted: Option<Arc<OutputStatus>>,
}

enum Content {
    One(Option<Bytes>),
    Many(Ranged),
}

impl Body {
    pub(crate) const fn empty() -> Self {
        Self { content: Content::One(None), left: 0, counted: None }
    }

    pub(crate) fn one(bytes: Bytes) -> Self {
        let left = bytes.len() as u64;
        Self { content: Content::One(Some(bytes)), left, counted: None }
    }

    /// `len`: of all pieces together.
    pub(crate) const fn many(pieces: Ranged, len: u64) -> Self {
        Self { content: Content::Many(pieces), left: len, counted: None }
    }

    /// The same, counted as sent by an output.
    pub(crate) fn counted(self, status: &Arc<OutputStatus>) -> Self {
        Self { counted: Some(status.clone()), ..self }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut self.content {
            Content::One(bytes) => bytes.take().filter(|bytes| !bytes.is_empty()),
            Content::Many(pieces) => pieces.next(),
        };
        if let Some(bytes) = &next {
            let len = bytes.len() as u64;
            self.left = self.left.saturating_sub(len);
            if let Some(status) = &self.counted {
                status.bytes.fetch_add(len, Ordering::Relaxed);
            }
        }
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
