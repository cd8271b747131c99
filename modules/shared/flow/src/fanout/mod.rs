//! Fan-out: one stream to many players, whatever protocol they speak.
//!
//! A [`Wire`] says how a protocol puts frames into bytes. The `Packer` gathers frames to flushes and
//! serialises each once; [`Serving`] reads the stream and walks the players, a write each.

mod packer;
mod pieces;
mod player;
mod serving;
mod shards;
mod tie;
mod walk;

#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;

use crate::stream::{OutputStatus, Stream, Want};

pub use packer::{Greeting, Join, Opening, View, Wire};
pub use pieces::PieceWriter;
pub use serving::{Arrivals, Options, Serving, arrivals};
pub use tie::{Post, Tie, tie};

/// The way to a player.
pub type Sink = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// A player on its way from its connection to a fan-out.
pub struct Arrival {
    /// For the log.
    pub peer: SocketAddr,
    /// Its writing half; what the protocol had to say before media is written.
    pub sink: Sink,
    /// Counts it; `None` where those are counted who stand behind it.
    pub client: Option<Client>,
    /// What it takes of the stream, as its protocol numbers that; players of one number are sent the same bytes.
    pub variant: u32,
    /// What it is told in front of everything else.
    pub greeting: Option<Greeting>,
    /// What the connection has to say later on.
    pub tie: Arc<Post>,
    /// Gives the sink back when the stream ends or the connection wants it. Dropped, the connection has to close.
    pub farewell: oneshot::Sender<Farewell>,
}

/// What is left when a player's stream ends before the connection does.
pub struct Farewell {
    /// As it came in the [`Arrival`].
    pub sink: Sink,
    /// What has to be written before anything else may be.
    pub unsent: Vec<Bytes>,
}

/// A client of an output while it lives: it counts, and wants the stream.
#[derive(Debug)]
pub struct Client(Arc<OutputStatus>, #[expect(dead_code, reason = "held")] Want);

impl Client {
    /// `None` when the output has as many clients as it may have (`max` 0 = no bound).
    pub fn admit(output: &Arc<OutputStatus>, stream: &Stream, max: usize) -> Option<Self> {
        let more = |clients| (max == 0 || clients < max).then_some(clients + 1);
        output.clients.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        output.status.touch();
        Some(Self(output.clone(), stream.demand().want()))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
        self.0.status.touch();
    }
}

/// A player that was too slow, to be said once a second at most.
struct Slow {
    peer: SocketAddr,
    skipped: u64,
    gone: bool,
}
