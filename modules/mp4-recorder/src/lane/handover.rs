//! The place in a stream where an output stopped, kept for the output that follows it.

use std::sync::Arc;
use std::time::Duration;

use av_flow::config::Content;
use av_flow::stream::{Reader, Tracks};

use super::Lane;

/// How long a place in a stream is kept.
const HANDOVER: Duration = Duration::from_secs(10);

/// Where an output left off in its stream: the one that follows it goes on there.
pub struct LeftOff {
    /// Which stream.
    pub stream: usize,
    /// What of it.
    pub content: Content,
    /// Has not given what comes next.
    pub reader: Reader,
    /// What the reader told last.
    pub tracks: Option<Arc<Tracks>>,
}

impl Lane {
    /// Keeps a place in a stream for whoever follows, for a moment.
    pub fn leave_off(self: &Arc<Self>, left_off: LeftOff) {
        let mut inner = self.inner();
        inner.leaves += 1;
        let leave = inner.leaves;
        inner.left_off.retain(|(_, known)| known.stream != left_off.stream);
        inner.left_off.push((leave, left_off));
        drop(inner);
        let lane = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(HANDOVER).await;
            if let Some(lane) = lane.upgrade() {
                lane.inner().left_off.retain(|(kept, _)| *kept != leave);
            }
        });
    }

    /// Where the output before this one left off.
    pub fn go_on(&self, stream: usize, content: Content) -> Option<LeftOff> {
        let mut inner = self.inner();
        let at =
            inner.left_off.iter().position(|(_, left)| left.stream == stream && left.content == content)?;
        Some(inner.left_off.swap_remove(at).1)
    }
}
